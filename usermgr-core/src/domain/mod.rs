//! Plain values of the domain: parsed once, then trusted. No async, no I/O, no clock.
#![expect(clippy::exhaustive_structs, reason = "a store makes these of its rows and has to fill them whole")]

#[cfg(feature = "manager")]
pub mod audit;
#[cfg(feature = "manager")]
pub mod client;
#[cfg(feature = "manager")]
pub mod code;
#[cfg(feature = "manager")]
pub mod email;
#[cfg(feature = "manager")]
pub mod event;
#[cfg(feature = "manager")]
pub mod field;
pub mod id;
#[cfg(feature = "manager")]
pub mod job;
#[cfg(feature = "manager")]
pub mod mail;
#[cfg(feature = "manager")]
pub mod page;
#[cfg(feature = "manager")]
pub mod password;
#[cfg(feature = "manager")]
pub mod role;
#[cfg(feature = "manager")]
pub mod secret;
#[cfg(feature = "manager")]
pub mod session;
pub mod signing;
#[cfg(feature = "manager")]
pub mod undeliverable;
#[cfg(feature = "manager")]
pub mod user;
