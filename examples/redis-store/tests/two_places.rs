//! What becomes of sessions and limits when one of the two places is away, dies, or comes back as it was before.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

#[path = "../../../usermgr-sqlx/tests/support/mod.rs"]
mod databases;
mod support;

use std::sync::Arc;

use databases::Database;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
use support::{RedisServer, copy, open_sqlite, sqlite, until};
use time::Duration;
use usermgr_core::domain::audit::{AuditEvent, AuditOutcome};
use usermgr_core::domain::code::CodePurpose;
use usermgr_core::domain::secret::{Code, LinkToken, Password, SecretKey};
use usermgr_core::domain::user::UserStatus;
use usermgr_core::flow::change_password::ChangePassword;
use usermgr_core::flow::permission::Principal;
use usermgr_core::flow::sessions::SignedIn;
use usermgr_core::flow::set_password::SetWithCode;
use usermgr_core::flow::update_user::UpdateUser;
use usermgr_core::flow::users::CreateUser;
use usermgr_core::policy::{HashPolicy, Policies, TokenFormat};
use usermgr_core::port::store::Store;
use usermgr_core::port::store::audit::AuditQuery;
use usermgr_core::testing::{FaultyStore, Mailbox, StoreFault, TestClock};
use usermgr_core::{ClientContext, Error, UserManager};
use usermgr_redis_store::{OpenError, RedisStore};
use usermgr_sqlx::{PgStore, SqliteStore};

const PASSWORD: &str = "correct horse battery";
const OTHER: &str = "an even better password";
const PREFIX: &str = "usermgr";

/// A service over both places, with what a test moves.
struct Service {
    users: UserManager,
    sql: FaultyStore,
    clock: Arc<TestClock>,
    mailbox: Arc<Mailbox>,
    client: ClientContext,
}

impl Service {
    async fn over(redis: redis::Client, under: impl Store + 'static, clock: &Arc<TestClock>) -> Self {
        let sql = FaultyStore::new(Arc::new(under));
        let store = RedisStore::connect(redis, PREFIX, Arc::new(sql.clone())).await.unwrap();
        let hashing = HashPolicy { memory_kib: 8, iterations: 1, threads: Some(1), ..HashPolicy::default() };
        let mut policies = Policies { hashing, ..Policies::default() };
        policies.tokens.format = TokenFormat::Opaque;
        let mailbox = Arc::new(Mailbox::default());
        let users = UserManager::builder()
            .store(Arc::new(store))
            .mailer(mailbox.clone())
            .clock(clock.clone())
            .secret_key(SecretKey::from_bytes(*b"a key that everybody knows: test"))
            .policies(policies)
            .build()
            .unwrap();
        Self { users, sql, clock: clock.clone(), mailbox, client: ClientContext::new() }
    }

    async fn create(&self, email: &str) {
        let new = CreateUser::new(email).with_password(PASSWORD);
        self.users.users().create(Principal::Operator, new, &self.client).await.unwrap();
    }

    async fn try_sign_in(&self, email: &str, password: &str) -> Result<SignedIn, Error> {
        self.users.sessions().login(email, &Password::new(password), &self.client).await
    }

    async fn sign_in(&self, email: &str) -> SignedIn {
        self.try_sign_in(email, PASSWORD).await.unwrap()
    }

    async fn refresh(&self, session: &SignedIn) -> Result<SignedIn, Error> {
        self.users.sessions().refresh(&session.refresh_token, &self.client).await
    }

    /// Whether a session lets anybody in, by either of its tokens, or is listed.
    async fn holds(&self, session: &SignedIn) -> bool {
        let by_access = self.users.sessions().authenticate(&session.access_token).await;
        let listed = self.users.users().sessions(Principal::Operator, session.user.id, &self.client).await;
        let listed =
            listed.is_ok_and(|sessions| sessions.iter().any(|listed| listed.id == session.session_id));
        let renewed = self.refresh(session).await;
        let ways = [by_access.is_ok(), listed, renewed.is_ok()];
        assert!(ways == [true; 3] || ways == [false; 3], "access token, list, refresh token: {ways:?}");
        ways == [true; 3]
    }

    async fn deliver(&self) {
        let worker = self.users.mail_worker();
        while worker.run_once().await.unwrap().attempts() > 0 {}
    }

    /// The outcomes of a kind of audit entry, the oldest first.
    async fn audited(&self, event: AuditEvent) -> Vec<AuditOutcome> {
        let query = AuditQuery { event: Some(event), ..AuditQuery::default() };
        let page = self.users.users().audit(Principal::Operator, query, &self.client).await.unwrap();
        page.items.iter().rev().map(|entry| entry.outcome).collect()
    }
}

/// The ways in which a session ends before its time.
#[derive(Debug, Clone, Copy)]
enum End {
    SignOut,
    OthersSignedOut,
    SignedOutByTheOperator,
    NewPassword,
    PasswordByCode,
    PasswordByTheOperator,
    DisabledAndEnabled,
    DeletedAndBack,
    ChangeOfAddressUndone,
    UsedToken,
}

impl End {
    const ALL: [Self; 10] = [
        Self::SignOut,
        Self::OthersSignedOut,
        Self::SignedOutByTheOperator,
        Self::NewPassword,
        Self::PasswordByCode,
        Self::PasswordByTheOperator,
        Self::DisabledAndEnabled,
        Self::DeletedAndBack,
        Self::ChangeOfAddressUndone,
        Self::UsedToken,
    ];

    fn address(self) -> String {
        format!("{self:?}@example.org").to_lowercase()
    }

    /// Ends a session that was renewed once. `first` is it as it was before that, `other` another session of its user.
    async fn end(self, service: &Service, first: &SignedIn, session: &SignedIn, other: &SignedIn) {
        let (users, client, id) = (&service.users, &service.client, session.user.id);
        let caller =
            async |session: &SignedIn| users.sessions().authenticate(&session.access_token).await.unwrap();
        let password = Password::new(PASSWORD);
        match self {
            Self::SignOut => users.sessions().logout(&caller(session).await, client).await.unwrap(),
            Self::OthersSignedOut => {
                assert!(users.sessions().end_others(&caller(other).await, client).await.unwrap() > 0);
            }
            Self::SignedOutByTheOperator => {
                users.users().end_sessions(Principal::Operator, id, client).await.map(drop).unwrap();
            }
            Self::NewPassword => {
                let change = ChangePassword::new(PASSWORD, OTHER);
                users.passwords().change(&caller(other).await, change, client).await.unwrap();
            }
            Self::PasswordByCode => {
                let (address, purpose) = (self.address(), CodePurpose::ResetPassword);
                users.passwords().request_code(&address, purpose, None, client).await.unwrap();
                service.deliver().await;
                let code = service.mailbox.last_code(&address).unwrap();
                let set = SetWithCode::new(address, code, OTHER);
                users.passwords().set_with_code(set, client).await.map(drop).unwrap();
            }
            Self::PasswordByTheOperator => {
                users.users().set_password(id, &Password::new(OTHER), client).await.unwrap();
            }
            Self::DisabledAndEnabled => {
                for status in [UserStatus::Disabled, UserStatus::Active] {
                    let update = UpdateUser::new().with_status(status);
                    users.users().update(Principal::Operator, id, update, client).await.unwrap();
                }
            }
            Self::DeletedAndBack => {
                users.account().delete(&caller(other).await, Some(&password), client).await.unwrap();
                service.sign_in(&self.address()).await;
            }
            Self::ChangeOfAddressUndone => {
                let (caller, new) = (caller(other).await, "new@example.org");
                users.account().request_email_change(&caller, new, Some(&password), client).await.unwrap();
                service.deliver().await;
                let code = Code::new(service.mailbox.last_code(new).unwrap());
                users.account().confirm_email_change(&caller, &code, client).await.unwrap();
                service.deliver().await;
                let link = service.mailbox.last_link(&self.address()).unwrap();
                let token = LinkToken::new(link.split_once("#token=").unwrap().1);
                users.account().undo_email_change(&token, client).await.unwrap();
            }
            Self::UsedToken => {
                service.clock.advance(Duration::MINUTE);
                assert!(matches!(service.refresh(first).await, Err(Error::SessionEnded)));
            }
        }
    }
}

/// Redis is set back to before sessions ended: they stay over. One that goes on shows that it was set back.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Redis: run scripts/test"]
async fn an_older_redis_brings_no_ended_session_back() {
    let mut redis = RedisServer::durable();
    let (under, _folder) = sqlite().await;
    let clock = Arc::new(TestClock::default());
    let service = Service::over(redis.client(), under, &clock).await;
    let mut begun = Vec::new();
    for way in End::ALL {
        service.create(&way.address()).await;
        let first = service.sign_in(&way.address()).await;
        let (session, other) =
            (service.refresh(&first).await.unwrap(), service.sign_in(&way.address()).await);
        begun.push((way, first, session, other));
    }
    service.create("goes-on@example.org").await;
    let goes_on = service.sign_in("goes-on@example.org").await;

    redis.kill();
    let older = tempfile::tempdir().unwrap();
    copy(&redis.data(), older.path());
    redis.start_again();
    until("Redis is reached again", async || {
        service.users.sessions().authenticate(&goes_on.access_token).await.is_ok()
    })
    .await;
    for (way, first, session, other) in &begun {
        way.end(&service, first, session, other).await;
    }
    let newer = service.refresh(&goes_on).await.unwrap();
    service.clock.advance(Duration::MINUTE);

    redis.kill();
    std::fs::remove_dir_all(redis.data()).unwrap();
    copy(older.path(), &redis.data());
    redis.start_again();
    until("Redis is reached again", async || {
        service.users.sessions().authenticate(&goes_on.access_token).await.is_ok()
    })
    .await;
    for (way, _, session, _) in &begun {
        assert!(!service.holds(session).await, "{way:?}");
    }
    assert!(service.users.sessions().authenticate(&newer.access_token).await.is_err(), "it was not set back");
    assert!(service.holds(&goes_on).await);
}

/// Who ends sessions needs no Redis, and what it does later changes nothing.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Redis: run scripts/test"]
async fn sessions_are_ended_while_redis_is_away() {
    let redis = RedisServer::start();
    let (under, _folder) = sqlite().await;
    let clock = Arc::new(TestClock::default());
    let service = Service::over(redis.client(), under, &clock).await;
    let ways = [End::SignedOutByTheOperator, End::PasswordByTheOperator, End::DisabledAndEnabled];
    let mut begun = Vec::new();
    for way in ways {
        service.create(&way.address()).await;
        begun.push((way, service.sign_in(&way.address()).await));
    }
    redis.freeze();
    for (way, session) in &begun {
        way.end(&service, session, session, session).await;
    }
    redis.thaw();
    for (way, session) in &begun {
        assert!(!service.holds(session).await, "{way:?}");
    }
}

/// The commit came, and its answer never did: what it ended is over.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Redis: run scripts/test"]
async fn an_end_whose_answer_was_lost_is_one() {
    let redis = RedisServer::start();
    let (under, _folder) = sqlite().await;
    let clock = Arc::new(TestClock::default());
    let service = Service::over(redis.client(), under, &clock).await;
    for way in [End::SignedOutByTheOperator, End::UsedToken] {
        service.create(&way.address()).await;
        let first = service.sign_in(&way.address()).await;
        let session = service.refresh(&first).await.unwrap();
        service.clock.advance(Duration::MINUTE);
        service.sql.fail(Some(StoreFault::CommitUnanswered));
        let (users, id) = (service.users.users(), session.user.id);
        let ended = match way {
            End::UsedToken => service.refresh(&first).await.map(drop),
            _ => users.end_sessions(Principal::Operator, id, &service.client).await.map(drop),
        };
        assert!(matches!(ended, Err(Error::Unavailable(_))), "{way:?}: {ended:?}");
        service.sql.fail(None);
        assert!(!service.holds(&session).await, "{way:?}");
    }
}

/// Two places, of which SQLite can be kept from writing.
struct Places {
    redis: RedisServer,
    folder: tempfile::TempDir,
    clock: Arc<TestClock>,
}

impl Places {
    async fn new() -> Self {
        let (_, folder) = sqlite().await;
        Self { redis: RedisServer::start(), folder, clock: Arc::default() }
    }

    fn database(&self) -> SqliteConnectOptions {
        SqliteConnectOptions::new().filename(self.folder.path().join("users.db"))
    }

    async fn service(&self) -> Service {
        Service::over(self.redis.client(), open_sqlite(self.folder.path()).await, &self.clock).await
    }

    /// Lets somebody else write to the database until the answer is dropped.
    async fn held(&self) -> sqlx::Transaction<'static, sqlx::Sqlite> {
        let other = SqlitePool::connect_with(self.database()).await.unwrap();
        other.begin_with("BEGIN IMMEDIATE").await.unwrap()
    }

    /// Runs something by a service in a runtime of its own, and ends that when Redis was written and SQLite was not: no task
    /// goes on, as when the process dies.
    async fn die_between<F>(&self, command: impl FnOnce(Service) -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let held = self.held().await;
        let before = self.written().await;
        let process = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let (redis, folder, clock) = (self.redis.client(), self.folder.path().to_owned(), self.clock.clone());
        let running = process.spawn(async move {
            command(Service::over(redis, open_sqlite(&folder).await, &clock).await).await;
        });
        until("Redis was written", async || self.written().await > before).await;
        assert!(!running.is_finished(), "it was answered before SQLite was written");
        let patience = std::time::Duration::from_secs(30);
        tokio::task::spawn_blocking(move || process.shutdown_timeout(patience)).await.unwrap();
        assert!(running.is_finished());
        held.rollback().await.unwrap();
    }

    /// How often Redis was written to.
    async fn written(&self) -> u64 {
        let mut connection = self.redis.client().get_multiplexed_async_connection().await.unwrap();
        let info: redis::InfoDict =
            redis::cmd("INFO").arg("persistence").query_async(&mut connection).await.unwrap();
        info.get("rdb_changes_since_last_save").unwrap()
    }
}

const ANA: &str = "ana@example.org";

/// A sign-in that died has opened nothing, and the next one does.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Redis: run scripts/test"]
async fn a_sign_in_that_died_opened_no_session() {
    let places = Places::new().await;
    let service = places.service().await;
    service.create(ANA).await;
    places.die_between(async move |service| drop(service.try_sign_in(ANA, PASSWORD).await)).await;
    let user = service.users.users().by_email(ANA).await.unwrap();
    assert_eq!((user.last_login_at, service.audited(AuditEvent::SignIn).await), (None, vec![]));
    let session = service.sign_in(ANA).await;
    let all = service.users.users().sessions(Principal::Operator, user.id, &service.client).await.unwrap();
    assert_eq!(all.iter().map(|listed| listed.id).collect::<Vec<_>>(), [session.session_id]);
}

/// A failure that died was counted: who dies with each guess does not guess more often.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Redis: run scripts/test"]
async fn a_failure_that_died_was_counted() {
    let places = Places::new().await;
    let service = places.service().await;
    service.create(ANA).await;
    let allowed = service.users.policies().throttle.login_failures;
    for _ in 1..allowed {
        assert!(matches!(service.try_sign_in(ANA, OTHER).await, Err(Error::InvalidCredentials)));
    }
    places.die_between(async move |service| drop(service.try_sign_in(ANA, OTHER).await)).await;
    let refused = service.try_sign_in(ANA, PASSWORD).await;
    assert!(matches!(refused, Err(Error::TooManyAttempts { .. })), "{refused:?}");
    let audited = u32::try_from(service.audited(AuditEvent::SignIn).await.len()).unwrap();
    assert_eq!(audited, allowed - 1);
}

/// A renewal that died: asked again it is answered and audited; by a token that waits too long it is over.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Redis: run scripts/test"]
async fn a_renewal_that_died_is_asked_again_or_over() {
    let places = Places::new().await;
    let service = places.service().await;
    for (address, asked_again) in [("soon@example.org", true), ("late@example.org", false)] {
        service.create(address).await;
        let session = service.sign_in(address).await;
        let dying = session.clone();
        places.die_between(async move |service| drop(service.refresh(&dying).await)).await;
        let before = service.audited(AuditEvent::SessionRefresh).await.len();
        service.clock.advance(Duration::seconds(if asked_again { 5 } else { 60 }));
        match service.refresh(&session).await {
            Ok(renewed) => assert!(asked_again && service.holds(&renewed).await, "{address}"),
            Err(error) => {
                assert!(!asked_again && matches!(error, Error::SessionEnded), "{address}: {error:?}");
            }
        }
        let since = service.audited(AuditEvent::SessionRefresh).await.split_off(before);
        let expected = if asked_again { AuditOutcome::Done } else { AuditOutcome::Refused };
        assert_eq!((before, since.first()), (usize::from(!asked_again) * 2, Some(&expected)), "{address}");
    }
}

/// A renewal that cannot be audited is taken back: its token is good for as long as it was.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Redis: run scripts/test"]
async fn a_renewal_that_cannot_be_audited_is_taken_back() {
    let places = Places::new().await;
    let hasty = places.database().busy_timeout(std::time::Duration::from_millis(1));
    let store = SqliteStore::with_pool(SqlitePool::connect_with(hasty).await.unwrap());
    let service = Service::over(places.redis.client(), store, &places.clock).await;
    service.create(ANA).await;
    let session = service.sign_in(ANA).await;
    let (held, before) = (places.held().await, places.written().await);
    let refused = service.refresh(&session).await;
    assert!(matches!(refused, Err(Error::Unavailable(_))), "{refused:?}");
    assert!(places.written().await > before, "it failed before it had come to Redis");
    held.rollback().await.unwrap();
    service.clock.advance(Duration::HOUR);
    service.refresh(&session).await.unwrap();
}

/// A right guess that died has spent nothing, and is right again.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Redis: run scripts/test"]
async fn a_right_guess_that_died_is_right_again() {
    let places = Places::new().await;
    let service = places.service().await;
    service.create(ANA).await;
    let purpose = CodePurpose::ResetPassword;
    service.users.passwords().request_code(ANA, purpose, None, &service.client).await.unwrap();
    service.deliver().await;
    let code = service.mailbox.last_code(ANA).unwrap();
    let set = SetWithCode::new(ANA, code, OTHER);
    let dying = set.clone();
    places
        .die_between(async move |service| {
            drop(service.users.passwords().set_with_code(dying, &service.client).await);
        })
        .await;
    service.sign_in(ANA).await;
    service.users.passwords().set_with_code(set, &service.client).await.unwrap();
    service.try_sign_in(ANA, OTHER).await.unwrap();
}

/// Nobody gets in without Redis, and nobody is sent away for good: it is asked again once it is back.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Redis: run scripts/test"]
async fn without_redis_nothing_is_done_and_with_it_everything_again() {
    let mut redis = RedisServer::durable();
    let (under, _folder) = sqlite().await;
    let service = Service::over(redis.client(), under, &Arc::default()).await;
    service.create(ANA).await;
    let session = service.sign_in(ANA).await;
    for killed in [false, true] {
        if killed {
            redis.kill();
        } else {
            redis.freeze();
        }
        let audited = service.audited(AuditEvent::SignIn).await;
        let user = service.users.users().by_email(ANA).await.unwrap();
        for password in [PASSWORD, OTHER] {
            let refused = service.try_sign_in(ANA, password).await;
            assert!(matches!(refused, Err(Error::Unavailable(_))), "killed: {killed}: {refused:?}");
        }
        let sessions = service.users.sessions();
        assert!(matches!(sessions.authenticate(&session.access_token).await, Err(Error::Unavailable(_))));
        let code = service.users.passwords();
        let asked = code.request_code(ANA, CodePurpose::ResetPassword, None, &service.client).await;
        assert!(matches!(asked, Err(Error::Unavailable(_))), "killed: {killed}: {asked:?}");
        assert_eq!(service.users.users().by_email(ANA).await.unwrap(), user);
        assert_eq!(service.audited(AuditEvent::SignIn).await, audited);
        if killed {
            redis.start_again();
        } else {
            redis.thaw();
        }
        until("Redis is reached again", async || service.try_sign_in(ANA, PASSWORD).await.is_ok()).await;
        assert!(sessions.authenticate(&session.access_token).await.is_ok(), "killed: {killed}");
    }
}

/// Two services over the same two places count together.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Redis and Postgres: run scripts/test"]
async fn two_services_obey_the_limits_together() {
    let (redis, database) = (RedisServer::start(), Database::create().await);
    let clock = Arc::new(TestClock::default());
    let mut services = Vec::new();
    for _ in 0..2 {
        let under = PgStore::connect(&database.url, 8).await.unwrap();
        under.migrate().await.unwrap();
        services.push(Arc::new(Service::over(redis.client(), under, &clock).await));
    }
    services[0].create(ANA).await;
    let allowed = services[0].users.policies().throttle.login_failures;
    let guesses: Vec<_> = (0..4 * allowed)
        .map(|n| {
            let service = services[n as usize % 2].clone();
            tokio::spawn(async move { service.try_sign_in(ANA, OTHER).await })
        })
        .collect();
    let mut judged = 0;
    for guess in guesses {
        match guess.await.unwrap() {
            Err(Error::InvalidCredentials) => judged += 1,
            Err(Error::TooManyAttempts { .. }) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(judged, allowed);
    for service in &services {
        assert!(matches!(service.try_sign_in(ANA, PASSWORD).await, Err(Error::TooManyAttempts { .. })));
    }
    clock.advance(services[0].users.policies().throttle.window);
    let session = services[0].sign_in(ANA).await;
    let renewed = services[1].refresh(&session).await.unwrap();
    services[0]
        .users
        .users()
        .end_sessions(Principal::Operator, session.user.id, &services[0].client)
        .await
        .unwrap();
    assert!(!services[1].holds(&renewed).await);
}

/// A Redis that forgets limits is not taken, and one that is full lets nobody guess.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Redis: run scripts/test"]
async fn no_limit_is_lost_for_want_of_memory() {
    let evicting = RedisServer::with(&["--save", "", "--maxmemory-policy", "allkeys-lru"]);
    let (under, _folder) = sqlite().await;
    let refused = RedisStore::connect(evicting.client(), PREFIX, Arc::new(under.clone())).await.unwrap_err();
    assert!(matches!(&refused, OpenError::Evicts(policy) if policy == "allkeys-lru"), "{refused}");

    let redis = RedisServer::start();
    let service = Service::over(redis.client(), under, &Arc::default()).await;
    service.create(ANA).await;
    let session = service.sign_in(ANA).await;
    let mut connection = redis.client().get_multiplexed_async_connection().await.unwrap();
    let mut set = async |most: &str| {
        let set =
            redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg(most).exec_async(&mut connection).await;
        set.unwrap();
    };
    set("1").await;
    for password in [PASSWORD, OTHER] {
        let refused = service.try_sign_in(ANA, password).await;
        assert!(matches!(refused, Err(Error::Unavailable(_))), "{refused:?}");
    }
    set("0").await;
    assert!(service.holds(&session).await);
    service.sign_in(ANA).await;
}

/// What stands in Redis names nobody and opens nothing.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Redis: run scripts/test"]
async fn redis_holds_neither_addresses_nor_tokens() {
    let redis = RedisServer::durable();
    let (under, _folder) = sqlite().await;
    let service = Service::over(redis.client(), under, &Arc::default()).await;
    service.create(ANA).await;
    drop(service.try_sign_in(ANA, OTHER).await);
    let session = service.sign_in(ANA).await;
    let renewed = service.refresh(&session).await.unwrap();
    service
        .users
        .passwords()
        .request_code(ANA, CodePurpose::ResetPassword, None, &service.client)
        .await
        .unwrap();
    service.deliver().await;
    let code = service.mailbox.last_code(ANA).unwrap();
    let set = SetWithCode::new(ANA, code.clone(), OTHER);
    service.users.passwords().set_with_code(set, &service.client).await.unwrap();

    let folder = redis.data().join("appendonlydir");
    let written: Vec<u8> = std::fs::read_dir(folder)
        .unwrap()
        .flat_map(|file| std::fs::read(file.unwrap().path()).unwrap())
        .collect();
    let has = |text: &str| written.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(has(&session.session_id.to_string()), "these are not the files");
    let tokens = [&session, &renewed].map(|held| [held.access_token.expose(), held.refresh_token.expose()]);
    for secret in [ANA, "example.org", PASSWORD, OTHER, &code].into_iter().chain(tokens.concat()) {
        assert!(!has(secret), "{secret}");
    }
}
