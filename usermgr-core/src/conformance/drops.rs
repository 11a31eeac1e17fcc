//! The law of callers that go away: whatever was dropped at whichever await, all of it is there or nothing.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Waker};

use super::StoreHarness;
use super::build::{NOW, audited, later, owed, password_of, register, registered, right};
use crate::domain::code::CodePurpose;

const ANA: &str = "ana@example.org";

/// Polls a future so often, with time between for what it waits for, then drops it. Whether it came to its end.
async fn polled<T>(future: impl Future<Output = T> + Send, times: usize) -> bool {
    let mut future = pin!(future);
    for _ in 0..times {
        if future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready() {
            return true;
        }
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    false
}

/// A registration and a redemption, dropped after every number of polls: state, mail and audit are together there or
/// together not.
pub async fn a_dropped_command_is_all_or_nothing(harness: &dyn StoreHarness) {
    for times in 1..60 {
        let store = harness.fresh().await;
        let ended = polled(store.register(register(ANA, NOW)), times).await;
        // What was dropped may still be rolling back; another command waits for it in its turn.
        registered(&store, "after@example.org").await;
        let there =
            !super::build::candidates(&store, ANA, CodePurpose::EmailVerification, NOW).await.is_empty();
        assert!(there || !ended, "it was answered and is not there");
        assert_eq!(owed(&store).await.len(), 1 + usize::from(there), "dropped after {times} polls");
        assert_eq!(audited(&store).await.len(), 1 + usize::from(there), "dropped after {times} polls");
        if ended {
            break;
        }
    }
    for times in 1..60 {
        let store = harness.fresh().await;
        let code = registered(&store, ANA).await;
        let ended = polled(store.redeem(right(ANA, code, later(1))), times).await;
        registered(&store, "after@example.org").await;
        let there = password_of(&store, ANA).await.is_some();
        assert!(there || !ended, "it was answered and is not there");
        assert_eq!(owed(&store).await.len(), 2 + usize::from(there), "dropped after {times} polls");
        assert_eq!(audited(&store).await.len(), 2 + usize::from(there), "dropped after {times} polls");
        let open =
            super::build::candidates(&store, ANA, CodePurpose::EmailVerification, later(1)).await.len();
        assert_eq!(open, usize::from(!there), "the code is spent with its effect, and only with it");
        if ended {
            break;
        }
    }
}
