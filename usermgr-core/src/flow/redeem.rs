//! A guess at a code, from what was typed to what the store decided. Every flow that takes a code goes through here.

use time::OffsetDateTime;

use super::limits::{Standing, wait};
use crate::domain::audit::AuditDraft;
use crate::domain::client::ClientContext;
use crate::domain::code::{CodeForm, CodePurpose};
use crate::domain::email::EmailKey;
use crate::domain::id::{CodeId, RegistrationId};
use crate::domain::secret::{Code, RegistrationToken};
use crate::domain::user::User;
use crate::error::Error;
use crate::manager::Inner;
use crate::port::store::EventDraft;
use crate::port::store::audit::Record;
use crate::port::store::code::{Candidate, CandidateFilter, CandidateQuery, Redeem, RedeemEffect, Redeemed};
use crate::port::store::throttle::ThrottleRule;

/// How far the clocks of two servers may be apart before a code that one hands over has run out for the other.
pub(super) const CLOCK_SKEW: time::Duration = time::Duration::MINUTE;

/// A guess, compared with every code that it may be meant for.
pub(super) struct Guess {
    candidates: Vec<Candidate>,
    hits: Vec<usize>,
    aim: Aim,
}

/// Whose codes a guess is compared with, and what a wrong one counts. Made before any work is done.
pub(super) struct Aim {
    which: CandidateFilter,
    email: EmailKey,
    purposes: Vec<CodePurpose>,
    budgets: Vec<ThrottleRule>,
}

impl Guess {
    /// The code that the guess is equal to: the newest, should there be two.
    pub(super) fn hit(&self) -> Option<&Candidate> {
        self.hits.first().and_then(|index| self.candidates.get(*index))
    }

    /// The address that the guess is for.
    pub(super) const fn email(&self) -> &EmailKey {
        &self.aim.email
    }

    /// The newest code that the guess may be meant for.
    pub(super) fn newest(&self) -> Option<&Candidate> {
        self.candidates.first()
    }
}

/// What the store is to decide about a guess.
pub(super) struct Judgement {
    pub(super) hit: Option<CodeId>,
    pub(super) settled: bool,
    pub(super) effect: RedeemEffect,
    pub(super) audit: AuditDraft,
    pub(super) events: Vec<EventDraft>,
}

impl Inner {
    /// Aims at the codes of an address. Refuses a client that has guessed too often, before any work is done.
    pub(super) async fn aim(
        &self,
        email: &EmailKey,
        purposes: &[CodePurpose],
        standing: Standing,
        client: &ClientContext,
        now: OffsetDateTime,
    ) -> Result<Aim, Error> {
        let budgets = self.admit_guess(email, standing, client, now).await?;
        let purposes = purposes.to_vec();
        let which = match (standing, purposes.as_slice()) {
            (Standing::User(id), [purpose]) => CandidateFilter::User { id, purpose: *purpose },
            (Standing::Registration(id), _) => CandidateFilter::Address {
                email: email.clone(),
                purposes: purposes.clone(),
                registration: Some(id),
            },
            (Standing::Unproven | Standing::User(_), _) => CandidateFilter::Address {
                email: email.clone(),
                purposes: purposes.clone(),
                registration: None,
            },
        };
        Ok(Aim { which, email: email.clone(), purposes, budgets })
    }

    /// Compares a guess with the codes it is aimed at. Every code is compared whole, in constant time.
    pub(super) async fn guess(&self, aim: Aim, code: &Code, now: OffsetDateTime) -> Result<Guess, Error> {
        let candidates = self.store.candidates(CandidateQuery { now, which: aim.which.clone() }).await?;
        let matches = |candidate: &Candidate| match candidate.form {
            CodeForm::Digits(length) => self.secrets.code_matches(
                candidate.key,
                candidate.purpose,
                candidate.id,
                length,
                code.expose(),
            ),
            CodeForm::Link => false,
        };
        let hits =
            candidates.iter().enumerate().filter(|(_, c)| matches(c)).map(|(index, _)| index).collect();
        Ok(Guess { candidates, hits, aim })
    }

    /// Lets the store judge a guess, and answers what it decided.
    pub(super) async fn judge(
        &self,
        guess: &Guess,
        judgement: Judgement,
        client: &ClientContext,
        now: OffsetDateTime,
    ) -> Result<User, Error> {
        let Judgement { hit, settled, effect, audit, events } = judgement;
        let refusal = audit.clone();
        let command = Redeem {
            now,
            latest_end: now + self.policies.codes.ttl + CLOCK_SKEW,
            candidates: guess.candidates.iter().map(|candidate| candidate.id).collect(),
            hit,
            settled,
            attempts: self.policies.codes.attempts,
            tries: guess.aim.purposes.iter().map(|purpose| self.tries(&guess.aim.email, *purpose)).collect(),
            budgets: guess.aim.budgets.clone(),
            effect,
            audit,
            events,
        };
        let redeemed = self.store.redeem(command).await?;
        if !matches!(redeemed, Redeemed::Redeemed(_)) {
            self.blur_timing().await;
        }
        match redeemed {
            Redeemed::Redeemed(user) => Ok(*user),
            Redeemed::Wrong => Err(Error::InvalidCode),
            Redeemed::Exhausted { retry_after } => {
                Err(Error::TooManyAttempts { retry_after: wait(retry_after) })
            }
            Redeemed::Expired => {
                self.count_on_network(refusal, Error::CodeExpired.reason(), client, now).await?;
                Err(Error::CodeExpired)
            }
            Redeemed::Ambiguous => {
                self.count_on_network(refusal, Error::RegistrationAmbiguous.reason(), client, now).await?;
                Err(Error::RegistrationAmbiguous)
            }
        }
    }

    /// Records that a right guess came to nothing. It counts as no wrong one for the address, and can be repeated: so it
    /// counts for the network, which bounds the entries and the hashes.
    pub(super) async fn count_on_network(
        &self,
        audit: AuditDraft,
        reason: &'static str,
        client: &ClientContext,
        now: OffsetDateTime,
    ) -> Result<(), Error> {
        let (entry, throttle) = (audit.refused(now, reason, None), self.guesses_of_network(client));
        self.store.record(Record { now, entry, throttle }).await?;
        Ok(())
    }

    /// Records that a link of ours was refused. It can be repeated, so the entry has a limit.
    pub(super) async fn record_refused_link(
        &self,
        audit: AuditDraft,
        refused: &Redeemed,
        client: &ClientContext,
        now: OffsetDateTime,
    ) -> Result<(), Error> {
        let reason = if *refused == Redeemed::Expired { "code_expired" } else { "invalid_code" };
        self.record_refusal(audit.refused(now, reason, None), None, client).await
    }

    /// How a client stands that may have brought the token of a registration.
    pub(super) fn standing_by(&self, token: Option<&RegistrationToken>) -> Standing {
        self.registration_id(token).map_or(Standing::Unproven, Standing::Registration)
    }

    /// The registration that a token names. A forged token names none: an identifier that no registration has.
    pub(super) fn registration_id(&self, token: Option<&RegistrationToken>) -> Option<RegistrationId> {
        let token = token?;
        Some(
            self.secrets
                .open_registration_token(token)
                .unwrap_or(RegistrationId::from_uuid(uuid::Uuid::nil())),
        )
    }
}
