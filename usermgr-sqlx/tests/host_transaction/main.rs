//! What a host writes and what commands write, in one transaction of the host's. Each law on both databases.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

mod postgres;
mod sqlite;
#[path = "../support/mod.rs"]
mod support;
