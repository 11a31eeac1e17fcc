//! The laws that every store obeys, as a suite that anyone can run on a store of their own.
//!
//! A law is an async function over a [`StoreHarness`]; it panics when it is broken. [`conformance_suite!`] makes a test
//! of each:
//!
//! ```ignore
//! struct MyHarness;
//!
//! #[async_trait::async_trait]
//! impl usermgr_core::conformance::StoreHarness for MyHarness {
//!     async fn fresh(&self) -> std::sync::Arc<dyn usermgr_core::port::store::Store> {
//!         std::sync::Arc::new(MyStore::new_and_empty().await)
//!     }
//! }
//!
//! usermgr_core::conformance_suite!(MyHarness);
//! ```
//!
//! That the laws can fail is shown by stores that break them on purpose.
//!
//! [`conformance_suite!`]: crate::conformance_suite
#![expect(clippy::unwrap_used, clippy::panic, reason = "a broken law panics: that is how a test fails")]
#![expect(clippy::missing_panics_doc, reason = "every law panics when it is broken")]

#[cfg(test)]
mod broken;
mod build;
pub mod codes;
pub mod drops;
pub mod limits;
pub mod model;
pub mod outbox;
pub mod races;
pub mod sessions;

use std::sync::Arc;

use async_trait::async_trait;

use crate::port::store::Store;

/// Makes the stores that a suite runs on.
#[async_trait]
pub trait StoreHarness: Send + Sync {
    /// A new store with nothing in it.
    async fn fresh(&self) -> Arc<dyn Store>;
}

/// Makes a test of each law. Attributes after the harness are put on every test, as in
/// `conformance_suite!(MyHarness, #[ignore = "needs a server"])`.
#[macro_export]
macro_rules! conformance_suite {
    (@laws $attributes:tt $harness:expr; $topic:ident: $($law:ident),+; $($rest:tt)*) => {
        $crate::conformance_suite! { @topic $attributes $harness; $topic: $($law),+ }
        $crate::conformance_suite! { @laws $attributes $harness; $($rest)* }
    };
    (@laws $attributes:tt $harness:expr;) => {};
    (@topic $attributes:tt $harness:expr; $topic:ident: $law:ident $(, $more:ident)*) => {
        $crate::conformance_suite! { @law $attributes $harness; $topic: $law }
        $crate::conformance_suite! { @topic $attributes $harness; $topic: $($more),* }
    };
    (@topic $attributes:tt $harness:expr; $topic:ident:) => {};
    (@law [$($attributes:tt)*] $harness:expr; $topic:ident: $law:ident) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
        $($attributes)*
        async fn $law() {
            $crate::conformance::$topic::$law(&$harness).await;
        }
    };
    ($harness:expr $(, #[$attribute:meta])*) => {
        $crate::conformance_suite! { @laws [$(#[$attribute])*] $harness;
            codes: a_registration_is_begun_once, a_taken_address_is_told_to_its_owner_only,
                a_code_is_spent_once, a_code_lives_from_its_hand_over, a_right_code_too_late_is_expired,
                a_code_completes_only_its_own_registration, a_new_code_voids_the_older_one,
                wrong_tries_use_a_code_up, wrong_guesses_look_alike, whom_a_code_is_for,
                setting_a_password_ends_and_voids_everything, text_comes_back_as_it_went_in;
            limits: a_limit_holds_to_the_second, a_refused_request_changes_nothing,
                a_clock_set_back_neither_unlocks_nor_freezes, the_day_budget_counts_across_codes,
                failed_sign_ins_are_counted_and_forgiven, known_networks_are_not_locked_out;
            sessions: a_session_holds_until_any_of_its_ends, a_session_needs_the_password_it_was_opened_with,
                changing_a_password_keeps_one_session, ending_sessions_ends_those_meant, users_are_paged;
            outbox: a_claim_is_leased, a_lease_is_fenced, a_mail_of_a_dead_code_is_void, a_failed_mail_waits_its_turn,
                a_commit_wakes_the_worker, only_true_events_are_owed, a_purge_removes_only_what_is_over;
            races: one_of_many_redeems_a_code, no_more_than_the_allowed_guesses_are_judged,
                two_registrations_become_one_user, a_resend_race_leaves_one_live_code,
                claims_are_disjoint, one_signing_key_is_made, limits_hold_in_a_race, one_password_change_wins;
            drops: a_dropped_command_is_all_or_nothing;
            model: any_sequence_answers_as_the_model_does;
        }
    };
}
