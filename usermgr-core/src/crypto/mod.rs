//! Bytes and time in, bytes out: nothing here sees a store, a mailer or a clock.

pub mod access_token;
pub mod digest;
pub mod foreign_hash;
pub mod hasher;
pub mod jwt;
pub mod password_text;
pub mod secret_keys;
