//! Every statement, once: compiled for each database by the module that includes this file.

mod account;
mod code;
mod event;
pub(super) mod host_transaction;
mod job;
mod migrate;
mod outbox;
mod refold;
mod rows;
mod session;
mod undeliverable;
mod upkeep;
mod writing;

use usermgr_core::port::store::StoreError;

use super::{Store, Ts, Tx, from_ts, ts, was_cut_off, was_in_the_way};

fn fault(error: sqlx::Error) -> StoreError {
    StoreError::unavailable(error)
}

/// How many connections may be found cut off, one after the other, before that is told.
pub(super) const STALE: u32 = 50;

/// How often a command is run again that was rolled back because another was in its way.
const RERUNS: u32 = 5;

/// Runs a command's one transaction; again when it was rolled back because another was in its way, or because its
/// connection takes no writes.
macro_rules! transact {
    ($store:ident.$once:ident($($command:ident)?)) => {{
        let mut run = 0;
        loop {
            $(let $command = $command.clone();)?
            match attempt!($store.$once($($command)?)) {
                Err(error)
                    if run < super::RERUNS
                        && (super::was_in_the_way(&error, $store.joined.is_some())
                            || $store.was_on_a_read_only_connection(&error)) =>
                {
                    run += 1
                }
                outcome => break outcome,
            }
        }
    }};
}
use transact;

/// Runs a read; again when the connection that it got had been cut off while it lay idle.
macro_rules! reread {
    ($store:ident.$once:ident($($argument:ident),*)) => {{
        let mut run = 0;
        loop {
            $(let $argument = $argument.clone();)*
            match attempt!($store.$once($($argument),*)) {
                Err(error) if run < super::STALE && $store.joined.is_none() && super::was_cut_off(&error) => run += 1,
                outcome => break outcome,
            }
        }
    }};
}
use reread;
