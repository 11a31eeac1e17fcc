//! Codes: asked for and guessed at within limits, and the sessions that they open.

use async_trait::async_trait;
use usermgr_core::port::store::StoreError;
use usermgr_core::port::store::audit::Record;
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
        let (tries, budget) = (std::mem::take(&mut command.tries), command.budget.take());
        let counted = match self.redis.guess(&tries, budget.as_ref(), now).await? {
            Guess::OverBudget(retry_after) => {
                let entry = command.audit.refused(now, "too_many_attempts", None);
                self.under.record(Record::unlimited(entry)).await?;
                return Ok(Redeemed::Exhausted { retry_after });
            }
            Guess::Exhausted(wait) => {
                // The store under this one answers a wrong guess so by a limit of which nothing is left.
                let used_up = |rule: &ThrottleRule| ThrottleRule { limit: 0, window: wait, ..*rule };
                command.tries = tries.first().map(used_up).into_iter().collect();
                None
            }
            Guess::Counted(counted) => Some(counted),
        };
        let redeemed = self.apply(command).await?;
        if let Some(counted) = counted.filter(|_| redeemed != Redeemed::Wrong) {
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
