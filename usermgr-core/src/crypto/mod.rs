//! Bytes and time in, bytes out: nothing here sees a store, a mailer or a clock.

pub mod access_token;
#[cfg(feature = "manager")]
pub mod digest;
#[cfg(feature = "manager")]
pub mod foreign_hash;
#[cfg(feature = "manager")]
pub mod hasher;
#[cfg(feature = "manager")]
pub mod jwt;
#[cfg(feature = "manager")]
pub mod password_text;
#[cfg(feature = "manager")]
pub mod secret_keys;
#[cfg(feature = "manager")]
pub mod webhook;
