//! How the tables of a database stand to this program.

/// How the tables of a database stand to this program. Versions are those of `usermgr_schema`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "an operator is told all of it")]
pub struct SchemaStatus {
    /// The version of the tables; 0 when there are none.
    pub found: i64,
    /// The newest version that this program knows.
    pub known: i64,
    /// The migrations that have not been run, in their order.
    pub pending: Vec<&'static str>,
    /// The oldest version whose programs work on the tables, once what is pending is run.
    pub oldest: i64,
}

impl SchemaStatus {
    /// Whether servers that work on the tables as they are, and know their version, may go on while the pending
    /// migrations are run, and afterwards.
    pub const fn is_rolling(&self) -> bool {
        self.oldest <= self.found
    }
}
