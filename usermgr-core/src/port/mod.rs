//! What the core needs of the outside: time, chance, a store, a mailer, somebody to ask first, and somebody to tell.

pub mod clock;
pub mod events;
pub mod hook;
pub mod mailer;
pub mod random;
pub mod store;
