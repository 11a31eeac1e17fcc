//! Limits and known networks. Each command judges and counts its rules in one script: all of them or none.

use std::sync::LazyLock;

use redis::{Script, ScriptInvocation};
use time::{Duration, OffsetDateTime};
use usermgr_core::domain::id::{SessionId, UserId};
use usermgr_core::domain::secret::Digest;
use usermgr_core::port::store::StoreError;
use usermgr_core::port::store::throttle::{LoginGuard, ThrottleRule};
use uuid::Uuid;

use super::Redis;
use super::redis_keys::{length, micros, network_of};

macro_rules! script {
    ($($file:literal),+) => {
        LazyLock::new(|| Script::new(concat!($(include_str!(concat!("lua/", $file)), "\n"),+)))
    };
}
pub(super) use script;

static LOOK: LazyLock<Script> = script!("limits.lua", "look.lua");
static KNOWS: LazyLock<Script> = script!("knows.lua");
static COUNT: LazyLock<Script> = script!("limits.lua", "count.lua");
static RECORD: LazyLock<Script> = script!("limits.lua", "record.lua");
static GUESS: LazyLock<Script> = script!("limits.lua", "guess.lua");
static GIVE_BACK: LazyLock<Script> = script!("limits.lua", "give_back.lua");
static GUARD_LOOK: LazyLock<Script> = script!("limits.lua", "guard.lua", "guard_look.lua");
static GUARD_COUNT: LazyLock<Script> = script!("limits.lua", "guard.lua", "guard_count.lua");
static GUARD_JUDGE: LazyLock<Script> = script!("limits.lua", "guard.lua", "guard_judge.lua");
static SIGNED_IN: LazyLock<Script> = script!("signed_in.lua");

/// What became of a guess before it was judged.
pub(super) enum Guess {
    /// It is counted as a wrong one.
    Counted(Counted),
    /// A budget is used up; all of them are counted.
    OverBudget {
        /// How long until the last of them is free again.
        wait: Duration,
        /// The one that refuses: for the first time in its window, if one does.
        rule: Option<ThrottleRule>,
    },
    /// Every counter of wrong tries is used up; the budgets are counted.
    Exhausted(Duration, Counted),
}

/// What counting a guess has changed, to give it back.
pub(super) struct Counted {
    keys: Vec<Vec<u8>>,
    values: Vec<i64>,
}

/// Whether an entry of the audit log is within its limits.
pub(super) enum Entry {
    /// It is.
    Free,
    /// It is the last of the window; so long until the limits are free again.
    Last(Duration),
    /// The last was before it.
    Past(Duration),
}

/// How a guard judged a sign-in.
pub(super) enum Judged {
    /// It may go on; so many failures are forgiven when it has succeeded.
    Passed { failures: i64 },
    /// Too many failures.
    Refused(Duration),
}

impl Redis {
    fn invocation<'a>(
        &self,
        script: &'a Script,
        rules: impl IntoIterator<Item = &'a ThrottleRule>,
        now: OffsetDateTime,
    ) -> ScriptInvocation<'a> {
        let mut invocation = script.arg(micros(now));
        for rule in rules {
            invocation.key(self.limit(&rule.key)).arg(rule.limit).arg(length(rule.window));
        }
        invocation
    }

    async fn wait(&self, script: &ScriptInvocation<'_>) -> Result<Option<Duration>, StoreError> {
        Ok(self.run::<Option<i64>>(script).await?.map(Duration::microseconds))
    }

    /// The wait of each of some rules that is used up, by a look that changes nothing.
    pub(super) async fn look(
        &self,
        rules: &[ThrottleRule],
        now: OffsetDateTime,
    ) -> Result<Vec<Option<Duration>>, StoreError> {
        let waits: Vec<i64> = self.run(&self.invocation(&LOOK, rules, now)).await?;
        Ok(waits.into_iter().map(|wait| (wait >= 0).then(|| Duration::microseconds(wait))).collect())
    }

    /// Whether somebody signed in to an account from a network since then.
    pub(super) async fn knows(
        &self,
        user: UserId,
        network: &Digest,
        since: OffsetDateTime,
    ) -> Result<bool, StoreError> {
        let mut invocation = KNOWS.key(self.networks());
        invocation.arg(network_of(user, network)).arg(micros(since));
        Ok(self.run::<i64>(&invocation).await? == 1)
    }

    /// Counts the rules of a command that creates something, once for each identifier, and sets a counter of wrong tries to
    /// 0. Answers the longest wait when a rule is used up, and then nothing changes.
    pub(super) async fn count(
        &self,
        created: Uuid,
        rules: &[ThrottleRule],
        tries: Option<&ThrottleRule>,
        now: OffsetDateTime,
    ) -> Result<Option<Duration>, StoreError> {
        if rules.is_empty() && tries.is_none() {
            return Ok(None);
        }
        let mut invocation = self.invocation(&COUNT, rules.iter().chain(tries), now);
        invocation.key(self.counted(created)).arg(rules.len());
        self.wait(&invocation).await
    }

    /// Counts the rules of an entry of the audit log, unless the last one of the window was before it.
    pub(super) async fn count_entry(
        &self,
        rules: &[ThrottleRule],
        now: OffsetDateTime,
    ) -> Result<Entry, StoreError> {
        let (what, wait): (i64, i64) = self.run(&self.invocation(&RECORD, rules, now)).await?;
        let wait = Duration::microseconds(wait);
        Ok(match what {
            0 => Entry::Free,
            1 => Entry::Last(wait),
            _ => Entry::Past(wait),
        })
    }

    /// Counts a guess as a wrong one, before it is judged.
    pub(super) async fn guess(
        &self,
        tries: &[ThrottleRule],
        budgets: &[ThrottleRule],
        now: OffsetDateTime,
    ) -> Result<Guess, StoreError> {
        let rules = || tries.iter().chain(budgets);
        let mut invocation = self.invocation(&GUESS, rules(), now);
        let answer: Vec<i64> = self.run(invocation.arg(tries.len())).await?;
        Ok(match answer.as_slice() {
            [1, wait, refusing] => Guess::OverBudget {
                wait: Duration::microseconds(*wait),
                rule: usize::try_from(*refusing - 1).ok().and_then(|index| budgets.get(index)).copied(),
            },
            [2, wait, values @ ..] => Guess::Exhausted(
                Duration::microseconds(*wait),
                Counted {
                    keys: budgets.iter().map(|rule| self.limit(&rule.key)).collect(),
                    values: values.to_vec(),
                },
            ),
            [_, values @ ..] => Guess::Counted(Counted {
                keys: rules().map(|rule| self.limit(&rule.key)).collect(),
                values: values.to_vec(),
            }),
            [] => return Err(StoreError::unavailable("Redis answered nothing")),
        })
    }

    /// Gives back what a guess that was not wrong has counted.
    pub(super) async fn give_back(&self, counted: Counted, now: OffsetDateTime) -> Result<(), StoreError> {
        let mut invocation = GIVE_BACK.arg(micros(now));
        for key in counted.keys {
            invocation.key(key);
        }
        self.run(invocation.arg(counted.values)).await
    }

    fn guard<'a>(
        &self,
        script: &'a Script,
        guard: &'a LoginGuard,
        user: Option<UserId>,
        now: OffsetDateTime,
    ) -> ScriptInvocation<'a> {
        let LoginGuard { own: _, network: _, wide: _, far: _, network_key, known_since } = guard;
        let mut invocation = self.invocation(script, guard.rules(), now);
        invocation
            .key(self.networks())
            .arg(user.map_or_else(Vec::new, |user| network_of(user, network_key)))
            .arg(micros(*known_since))
            .arg(guard.rules().count());
        invocation
    }

    /// How long a guard refuses, by a look that changes nothing.
    pub(super) async fn look_at_guard(
        &self,
        guard: &LoginGuard,
        user: Option<UserId>,
        now: OffsetDateTime,
    ) -> Result<Option<Duration>, StoreError> {
        self.wait(&self.guard(&GUARD_LOOK, guard, user, now)).await
    }

    /// Counts a failed sign-in. Answers the wait when the guard refuses, and then nothing is counted.
    pub(super) async fn count_failure(
        &self,
        guard: &LoginGuard,
        user: Option<UserId>,
        now: OffsetDateTime,
    ) -> Result<Option<Duration>, StoreError> {
        self.wait(&self.guard(&GUARD_COUNT, guard, user, now)).await
    }

    /// Judges a sign-in with the right password, unless its session is there already.
    pub(super) async fn judge(
        &self,
        guard: &LoginGuard,
        user: UserId,
        session: SessionId,
        now: OffsetDateTime,
    ) -> Result<Judged, StoreError> {
        let mut invocation = self.guard(&GUARD_JUDGE, guard, Some(user), now);
        let (wait, failures): (i64, i64) = self.run(invocation.key(self.half(session))).await?;
        Ok(if wait < 0 { Judged::Passed { failures } } else { Judged::Refused(Duration::microseconds(wait)) })
    }

    /// Makes a network a known one, and forgives the failures that a sign-in was judged by.
    pub(super) async fn signed_in(
        &self,
        user: UserId,
        network: &Digest,
        forgiven: Option<(ThrottleRule, i64)>,
        now: OffsetDateTime,
    ) -> Result<(), StoreError> {
        let mut invocation = SIGNED_IN.key(self.networks());
        invocation.arg(micros(now)).arg(network_of(user, network));
        if let Some((own, failures)) = forgiven {
            invocation.key(self.limit(&own.key)).arg(failures);
        }
        self.run(&invocation).await
    }
}
