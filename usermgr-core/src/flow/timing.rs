//! Hides small differences in the time of an answer.

use std::time::Duration;

use crate::manager::Inner;
use crate::port::random::duration_up_to;

/// The longest pause before an answer that must not tell who has an account. The work for nobody and the work for somebody
/// differ by 0.3 ms at most (`docs/proofs.md`, "Timing").
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

impl Inner {
    /// Waits for a random time of up to 20 ms. The statements are the same for nobody and for somebody, but they read and write
    /// a few more bytes for somebody. To find that difference behind the pause takes about a thousand requests for one
    /// address, and its limits allow some twenty a day.
    ///
    /// A manager over a host transaction does not wait: the transaction would hold its locks for longer.
    pub(super) async fn blur_timing(&self) {
        if self.blurs_timing {
            tokio::time::sleep(duration_up_to(LONGEST_PAUSE, &*self.random)).await;
        }
    }
}
