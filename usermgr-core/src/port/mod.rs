//! What the core needs of the outside: time, chance, a store, a mailer, and somebody to tell.

pub mod clock;
pub mod events;
pub mod mailer;
pub mod random;
pub mod store;
