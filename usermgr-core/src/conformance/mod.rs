//! The laws that every store obeys, as a suite that anyone can run on a store of their own.
//!
//! A law is an async function over a [`StoreHarness`]; it panics when it is broken. [`conformance_suite!`] makes a test
//! of each:
//!
//! ```
//! # use usermgr_core::testing::MemoryStore as MyStore;
//! struct MyHarness;
//!
//! #[async_trait::async_trait]
//! impl usermgr_core::conformance::StoreHarness for MyHarness {
//!     async fn fresh(&self) -> std::sync::Arc<dyn usermgr_core::port::store::Store> {
//!         std::sync::Arc::new(MyStore::new())
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

pub mod administration;
#[cfg(test)]
mod broken;
mod build;
pub mod codes;
pub mod deletion;
pub mod drops;
pub mod email_change;
pub mod events;
pub mod floods;
pub mod jobs;
pub mod keys;
pub mod limits;
pub mod listing;
pub mod model;
pub mod outbox;
pub mod profiles;
pub mod races;
pub mod records;
pub mod refresh;
pub mod sessions;
pub mod undeliverable;
pub mod upkeep;

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
///
/// This is the one list of the laws; a test here sees to it that none is missing.
#[macro_export]
macro_rules! conformance_suite {
    (@each $attributes:tt $harness:expr; $($topic:ident: $($law:ident),+;)+) => {
        $($($crate::conformance_suite! { @one $attributes $harness; $topic $law })+)+
    };
    (@one [$($attributes:tt)*] $harness:expr; $topic:ident $law:ident) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
        $($attributes)*
        async fn $law() {
            $crate::conformance::$topic::$law(&$harness).await;
        }
    };
    ($harness:expr $(, #[$attribute:meta])*) => {
        $crate::conformance_suite! { @each [$(#[$attribute])*] $harness;
            administration: what_differs_is_changed, everybody_keeps_the_role_of_everybody,
                a_disabled_user_loses_sessions_and_codes, an_actor_acts_only_as_decided,
                nobody_reaches_beyond_their_roles, nobody_is_not_found, the_last_administrator_stays,
                an_administrator_who_cannot_sign_in_does_not_count,
                an_administrator_after_an_undo_does_not_count,
                two_administrators_do_not_bring_each_other_down, one_of_many_administrators_is_left,
                who_fell_does_nothing_more;
            codes: a_registration_is_begun_once, a_taken_address_is_told_to_its_owner_only,
                a_code_is_spent_once, a_code_lives_from_its_hand_over, a_code_dies_with_its_registration,
                a_right_code_too_late_is_expired, a_code_of_a_clock_set_back_is_over, a_code_completes_only_its_own_registration,
                an_ambiguous_hit_changes_nothing, a_new_code_voids_the_older_one,
                a_new_code_leaves_the_others_alone, wrong_tries_use_a_code_up,
                a_wrong_guess_counts_on_what_it_was_compared_with, wrong_guesses_look_alike,
                a_request_frees_guesses_whoever_it_is_for, a_request_for_nobody_sends_nothing,
                a_request_without_a_token_chooses_none_of_several,
                another_registration_is_ambiguous_without_a_live_code,
                no_name_opens_a_mail_to_an_unproven_address, whom_a_code_is_for, candidates_come_in_order,
                an_invitation_sets_the_first_password, a_password_may_be_set_with_the_registration,
                setting_a_password_ends_and_voids_everything, text_comes_back_as_it_went_in;
            limits: a_limit_holds_to_the_second, the_longest_wait_is_told, a_refused_request_changes_nothing,
                a_refusal_counts_as_much_as_a_success, a_look_sees_what_a_command_would_be_told,
                a_look_knows_networks_that_signed_in, a_clock_set_back_neither_unlocks_nor_freezes,
                a_code_dies_of_guesses_past_a_budget, one_refusal_past_a_budget_is_audited,
                the_day_budget_counts_across_codes, the_day_budget_counts_across_purposes,
                a_guess_is_judged_while_one_counter_is_free, a_right_guess_counts_nothing,
                failed_sign_ins_are_counted_and_forgiven, a_sign_in_forgives_no_other_failures,
                failures_look_alike_without_a_user, known_networks_are_not_locked_out,
                a_network_is_known_for_a_while;
            floods: refusals_end_with_one_last_entry, an_entry_counts_on_each_of_its_limits,
                limits_of_entries_hold_in_a_race, own_writes_over_a_limit_change_nothing,
                a_change_of_nothing_is_not_audited, ending_no_session_is_not_audited,
                renewals_over_a_limit_change_nothing, no_limit_hides_a_used_token,
                a_limit_on_renewals_neither_unlocks_nor_freezes, sign_ins_that_succeed_are_limited,
                a_wide_network_is_limited_over_all_of_its_networks;
            sessions: a_session_holds_until_any_of_its_ends, no_way_leads_into_a_session_that_is_over,
                a_session_needs_the_password_it_was_opened_with, a_refused_sign_in_changes_nothing,
                changing_a_password_keeps_one_session, the_session_that_is_kept_is_ones_own,
                a_refused_password_change_changes_nothing, ending_sessions_ends_those_meant,
                a_user_is_made_once_and_read_as_made, users_are_paged;
            outbox: a_claim_is_leased, a_claim_made_again_gets_what_it_has, a_lease_is_fenced, a_lease_that_is_renewed_is_kept,
                a_claim_keeps_to_the_room_of_each_domain, one_domain_hides_no_other, attempts_are_settled_together,
                the_oldest_due_is_claimed_first,
                a_mail_of_a_dead_code_is_void, a_spent_code_is_not_mailed, a_failed_mail_waits_its_turn,
                a_commit_wakes_the_worker, the_outbox_is_paged, only_true_events_are_owed,
                events_tell_of_passwords_and_sign_ins, a_dead_mail_is_requeued,
                a_dead_mail_is_requeued_only_as_decided;
            events: an_event_comes_back_as_it_was_written, ended_sessions_are_told_of,
                a_purged_user_is_told_of, imported_users_are_told_of, the_feed_is_read_on_from_a_position,
                a_reader_learns_that_events_are_gone, a_position_that_was_never_given_is_a_gap,
                a_purge_of_events_keeps_their_order, events_of_a_user_are_told_one_after_the_other,
                the_oldest_event_is_claimed_first, a_lease_of_an_event_is_fenced,
                a_lease_of_an_event_that_is_renewed_is_kept,
                a_purge_passes_the_turn_on, a_commit_wakes_whoever_waits_for_events,
                no_reader_misses_an_event, workers_at_once_keep_the_order_of_each_user,
                an_event_and_its_change_are_one;
            undeliverable: no_mail_goes_to_a_marked_address, an_address_is_marked_once, a_mark_is_removed,
                marks_are_paged_and_purged;
            profiles: a_registration_becomes_a_user_with_its_own_profile, a_profile_is_replaced_whole,
                a_refused_change_of_a_profile_changes_nothing, a_profile_comes_back_as_it_went_in;
            upkeep: a_purge_removes_only_what_is_over, codes_are_purged_when_they_ended_long_ago,
                the_outbox_keeps_what_is_owed_or_dead, a_dead_mail_is_purged_in_its_own_time,
                a_purge_frees_nobody,
                a_purge_takes_no_code_from_under_a_redemption,
                a_deleted_user_is_purged_with_all_that_is_theirs,
                who_may_come_back_is_purged_when_that_is_over, deleted_users_are_purged_in_batches,
                access_tokens_are_purged_when_they_ran_out, superseded_keys_are_purged,
                what_waits_is_counted;
            records: an_audit_entry_comes_back_as_it_went_in, the_audit_log_is_paged,
                a_session_comes_back_as_it_went_in, a_mail_comes_back_as_it_went_in,
                a_password_hash_comes_back_as_it_went_in, an_address_is_found_by_its_key_alone,
                an_imported_user_comes_back_as_it_went_in, who_is_there_is_not_imported;
            races: one_of_many_redeems_a_code, no_more_than_the_allowed_guesses_are_judged,
                registrations_of_one_address_wait_side_by_side, two_registrations_become_one_user,
                the_same_command_at_once_is_done_once, one_user_is_made_of_one_address,
                a_resend_race_leaves_one_live_code, a_redemption_and_a_request_have_one_outcome,
                claims_are_disjoint, an_attempt_is_settled_once, one_signing_key_is_made,
                limits_hold_in_a_race, guards_hold_in_a_race, one_password_change_wins,
                no_sign_in_outlives_a_password_change;
            drops: a_dropped_command_is_all_or_nothing, a_dropped_user_creation_is_all_or_nothing,
                a_dropped_code_request_is_all_or_nothing, a_dropped_password_change_is_all_or_nothing,
                a_dropped_sign_in_is_all_or_nothing, a_dropped_failure_is_counted_as_it_is_audited,
                a_dropped_sign_out_is_all_or_nothing, a_dropped_claim_is_all_or_nothing,
                a_dropped_hand_over_is_all_or_nothing, a_dropped_purge_is_all_or_nothing,
                a_dropped_signing_key_is_all_or_nothing, a_dropped_refusal_is_audited_or_was_none,
                a_dropped_renewal_is_all_or_nothing, a_dropped_update_is_all_or_nothing,
                a_dropped_deletion_is_all_or_nothing, a_dropped_change_of_address_is_all_or_nothing,
                a_dropped_import_is_all_or_nothing, a_dropped_requeue_is_all_or_nothing,
                a_dropped_reseal_is_all_or_nothing, a_dropped_revocation_is_all_or_nothing,
                a_dropped_run_is_all_or_nothing,
                a_dropped_mark_is_all_or_nothing, a_dropped_command_fails_no_other;
            refresh: a_refresh_token_is_renewed_once,
                a_renewal_moves_the_idle_end_to_the_absolute_end_at_most, no_session_that_is_over_is_renewed,
                a_renewal_asked_for_twice_has_one_successor, a_renewal_sent_again_is_one,
                a_used_token_ends_its_session, a_repeated_renewal_names_its_successor,
                access_tokens_outlive_a_renewal, one_of_many_renews_a_session, no_renewal_outlives_a_sign_out,
                no_renewal_outlives_a_disabled_user, sessions_are_listed_as_they_were_renewed,
                the_latest_sessions_are_listed;
            deletion: a_deleted_user_is_not_found, a_deletion_may_be_silent, a_deleted_address_is_free,
                a_restorable_user_comes_back_in_time, who_is_there_does_not_come_back,
                an_address_that_was_taken_keeps_its_old_user_away, who_was_deleted_for_good_stays_away,
                a_deletion_needs_the_password_that_was_proven, coming_back_needs_the_password,
                what_is_sent_again_after_a_deletion_does_nothing, no_session_outlives_a_deletion,
                sign_ins_at_once_bring_a_user_back_once, an_address_has_one_user_after_a_return;
            email_change: an_address_is_changed_by_its_code, the_case_of_an_address_may_be_changed,
                a_taken_address_is_not_told_to_the_asker, an_address_taken_meanwhile_is_a_wrong_guess,
                a_newer_request_voids_the_older_one, a_change_is_asked_for_once,
                a_refused_change_of_address_changes_nothing, a_new_password_voids_a_change_of_address,
                a_change_of_address_is_undone_from_the_old_one, an_undo_needs_the_old_address,
                an_undo_is_over_in_time, an_undo_survives_a_second_change, an_undo_survives_a_new_password,
                an_undo_does_not_enable, an_undo_brings_a_deleted_user_back,
                a_deletion_for_good_ends_every_undo, the_oldest_undo_wins, a_later_undo_leaves_the_older_ones,
                undos_are_in_the_order_of_the_changes, a_change_back_ends_its_undo, an_undo_outlives_upkeep,
                no_code_does_what_it_was_not_made_for,
                one_of_many_changes_an_address, one_of_many_users_gets_an_address;
            listing: users_are_found_by_what_they_begin_with, a_prefix_is_taken_as_it_stands,
                pages_of_users_hold_while_others_come_and_go, users_are_filtered_by_role_and_status,
                the_audit_log_is_filtered, what_is_recorded_comes_back, the_outbox_is_filtered,
                imported_users_come_back_as_they_went_in, an_import_leaves_out_who_is_there;
            keys: a_key_is_added_unless_one_signs_from_then, the_same_key_is_added_once,
                a_rotation_adds_one_key, a_key_is_sealed_anew_over_what_was_read, a_key_is_sealed_anew_once,
                a_revoked_key_that_signs_is_replaced_at_once, a_key_is_revoked_once,
                a_revoked_key_counts_for_no_other, a_revocation_adds_one_key;
            jobs: one_of_many_gets_the_run, a_job_runs_once_a_period, a_run_is_begun_once,
                a_run_whose_process_died_is_taken_over, a_run_that_is_renewed_is_not_taken_over,
                the_lease_of_a_run_is_fenced, a_run_that_failed_comes_again,
                a_clock_set_back_neither_repeats_nor_stops_a_job, a_clock_set_forth_runs_a_job_once,
                a_run_may_be_demanded, what_is_known_of_a_job_comes_back;
            model: any_sequence_answers_as_the_model_does;
        }
    };
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_law_is_missing_from_the_list() {
        let list = include_str!("mod.rs");
        let topics = [
            include_str!("administration.rs"),
            include_str!("codes.rs"),
            include_str!("deletion.rs"),
            include_str!("drops.rs"),
            include_str!("email_change.rs"),
            include_str!("events.rs"),
            include_str!("floods.rs"),
            include_str!("jobs.rs"),
            include_str!("keys.rs"),
            include_str!("limits.rs"),
            include_str!("listing.rs"),
            include_str!("model.rs"),
            include_str!("outbox.rs"),
            include_str!("profiles.rs"),
            include_str!("races.rs"),
            include_str!("records.rs"),
            include_str!("refresh.rs"),
            include_str!("sessions.rs"),
            include_str!("undeliverable.rs"),
            include_str!("upkeep.rs"),
        ];
        let laws = topics.iter().flat_map(|topic| topic.split("\npub async fn ").skip(1));
        let names: Vec<&str> = laws.map(|law| law.split('(').next().unwrap_or_default()).collect();
        assert!(names.len() > 90, "{}", names.len());
        for name in names {
            let listed = [',', ';'].iter().any(|end| list.contains(&format!(" {name}{end}")));
            assert!(listed, "{name} is not in the list of conformance_suite!");
        }
    }
}
