//! Bytes and time in, bytes out: nothing here sees a store, a mailer or a clock.
#![expect(clippy::exhaustive_structs, reason = "who issues or checks something names all of it")]

pub mod access_token;
#[cfg(feature = "manager")]
pub mod digest;
#[cfg(feature = "manager")]
pub mod foreign_hash;
#[cfg(feature = "manager")]
pub mod hash_queue;
#[cfg(feature = "manager")]
pub mod hasher;
#[cfg(feature = "manager")]
pub mod jwt;
#[cfg(feature = "manager")]
pub mod password_text;
#[cfg(feature = "manager")]
pub mod secret_keys;
pub(crate) mod weak_secret;
pub mod webhook;
