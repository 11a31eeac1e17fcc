//! Codes: asked for and guessed at within limits, and the sessions that they open.

use async_trait::async_trait;
use usermgr_core::domain::secret::Digest;
use usermgr_core::port::store::StoreError;
use usermgr_core::port::store::code::{
    Candidate, CandidateQuery, CodeRequested, CodeStore, Redeem, RedeemEffect, Redeemed, RequestCode,
};
use usermgr_core::port::store::throttle::ThrottleRule;

use super::limits::Guess;
use super::{RedisStore, left_behind};

#[async_trait]
impl CodeStore for RedisStore {
    async fn request_code(&self, mut command: RequestCode) -> Result<CodeRequested, StoreError> {
        let (throttle, tries) = (std::mem::take(&mut command.throttle), command.tries.take());
        self.to_its_end(async move |store| {
            let counted =
                store.redis.count(command.code.id.as_uuid(), &throttle, tries.as_ref(), command.now);
            match counted.await? {
                Some(retry_after) => Ok(CodeRequested::Throttled { retry_after }),
                None => store.under.request_code(command).await,
            }
        })
        .await
    }

    async fn candidates(&self, query: CandidateQuery) -> Result<Vec<Candidate>, StoreError> {
        self.under.candidates(query).await
    }

    async fn redeem(&self, command: Redeem) -> Result<Redeemed, StoreError> {
        self.to_its_end(async move |store| store.judge_guess(command).await).await
    }
}

impl RedisStore {
    /// Counts a guess as a wrong one, has it judged, and gives back what was counted unless it was wrong.
    async fn judge_guess(&self, mut command: Redeem) -> Result<Redeemed, StoreError> {
        let now = command.now;
        let (tries, budgets) = (std::mem::take(&mut command.tries), std::mem::take(&mut command.budgets));
        // The store under this one refuses a guess so by a limit of which nothing is left.
        let used_up = |rule: &ThrottleRule, wait| ThrottleRule { limit: 0, window: wait, ..*rule };
        let counted = match self.redis.guess(&tries, &budgets, now).await? {
            // The store under this one audits the first refusal by each rule, as it counts it.
            Guess::OverBudget { wait, rule } => {
                command.budgets = rule.map(|rule| used_up(&rule, wait)).into_iter().collect();
                None
            }
            Guess::Exhausted(wait, counted) => {
                command.tries = tries.first().map(|rule| used_up(rule, wait)).into_iter().collect();
                Some(counted)
            }
            Guess::Counted(counted) => {
                // A guess without limits would be taken for the use of a link: one that never refuses, under a key of its own.
                let free = |rule: &ThrottleRule| ThrottleRule {
                    key: Digest::from_bytes(rule.key.as_bytes().map(|byte| !byte)),
                    limit: u32::MAX,
                    ..*rule
                };
                command.tries = tries.first().or(budgets.first()).map(free).into_iter().collect();
                Some(counted)
            }
        };
        let redeemed = self.apply(command).await?;
        let is_wrong = matches!(redeemed, Redeemed::Wrong | Redeemed::Exhausted { .. });
        if let Some(counted) = counted.filter(|_| !is_wrong) {
            left_behind(self.redis.give_back(counted, now).await);
        }
        Ok(redeemed)
    }

    async fn apply(&self, mut command: Redeem) -> Result<Redeemed, StoreError> {
        let now = command.now;
        let new = match &mut command.effect {
            RedeemEffect::SetPassword { password, .. } => password.session.as_mut(),
            RedeemEffect::Verify { .. }
            | RedeemEffect::ChangeEmail { .. }
            | RedeemEffect::UndoEmailChange { .. } => None,
        };
        let opening = match new {
            Some(session) => Some(self.write_half(session, now).await?),
            None => None,
        };
        let redeemed = self.under.redeem(command).await?;
        if let Some(opening) = opening {
            match &redeemed {
                Redeemed::Redeemed(user) => self.was_opened(&opening, user.id, None, now).await,
                _ => self.was_not_opened(&opening).await,
            }
        }
        Ok(redeemed)
    }
}
