//! Plain values of the domain: parsed once, then trusted. No async, no I/O, no clock.

pub mod audit;
pub mod client;
pub mod code;
pub mod email;
pub mod event;
pub mod field;
pub mod id;
pub mod mail;
pub mod page;
pub mod password;
pub mod role;
pub mod secret;
pub mod session;
pub mod signing;
pub mod user;
