//! Lists that are read a page at a time.

/// A page of a list, and where the next one begins.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Page<T, C> {
    /// The items, in the list's order.
    pub items: Vec<T>,
    /// What to ask for to read on; `None` at the end.
    pub next: Option<C>,
}

impl<T, C> Page<T, C> {
    /// A page.
    pub const fn new(items: Vec<T>, next: Option<C>) -> Self {
        Self { items, next }
    }
}

/// How many items a page holds: 1 to 200.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageSize(u16);

impl PageSize {
    /// The most items a page may hold.
    pub const MAX: u16 = 200;

    /// A size, brought into the bounds.
    pub fn new(items: u16) -> Self {
        Self(items.clamp(1, Self::MAX))
    }

    /// The number of items.
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl Default for PageSize {
    fn default() -> Self {
        Self(50)
    }
}
