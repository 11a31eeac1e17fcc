//! Hooks and profiles over HTTP and on the pages: a host's own program over the store in memory.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

#[path = "support/contract.rs"]
mod contract;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tower::ServiceExt as _;
use usermgr_core::domain::refusal::Refusal;
use usermgr_core::domain::role::Role;
use usermgr_core::flow::permission::Principal;
use usermgr_core::flow::users::CreateUser;
use usermgr_core::policy::HashPolicy;
use usermgr_core::port::hook::{Hook, HookError, RegistrationAttempt, SignInAttempt};
use usermgr_core::testing::{Mailbox, MemoryStore};
use usermgr_core::{ClientContext, Password, Policies, SecretKey, UserManager, UserManagerBuilder};
use usermgr_server::pages::{Accent, Pages, PagesOptions};
use usermgr_server::{AuthService, PeerAddr, ServiceOptions, service};

const HERE: &str = "https://id.example.org";
const ANA: &str = "ana@example.org";
const PASSWORD: &str = "correct horse battery";
const INVITE: &str = "b3lw-0f9s-77qk";

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Shop {
    plan: String,
    #[serde(default)]
    seats: u8,
}

/// Asks for an invitation; sign-ins it refuses, or cannot decide, as it is told.
#[derive(Debug, Default)]
struct ByInvitation {
    sign_ins: AtomicU8,
}

const REFUSED: u8 = 1;
const UNDECIDED: u8 = 2;

#[async_trait]
impl Hook for ByInvitation {
    async fn before_registration(&self, attempt: &RegistrationAttempt) -> Result<(), HookError> {
        if attempt.extra.text("invite") == Some(INVITE) {
            return Ok(());
        }
        let refusal = Refusal::new("invite_needed", "Sign-up is by <invitation>.")?
            .also("es", "El registro es por <invitación>.")?;
        Err(refusal.into())
    }

    async fn before_sign_in(&self, _: &SignInAttempt) -> Result<(), HookError> {
        match self.sign_ins.load(Ordering::SeqCst) {
            REFUSED => Err(Refusal::new("not_approved", "Your account waits for approval.")?.into()),
            UNDECIDED => Err(HookError::undecided("the other side is down")),
            _ => Ok(()),
        }
    }
}

struct App {
    service: AuthService,
    users: UserManager,
    mailbox: Arc<Mailbox>,
}

fn app(with: impl FnOnce(UserManagerBuilder) -> UserManagerBuilder) -> App {
    app_with(None, with)
}

fn app_with(templates: Option<PathBuf>, with: impl FnOnce(UserManagerBuilder) -> UserManagerBuilder) -> App {
    let mailbox = Arc::new(Mailbox::default());
    let hashing = HashPolicy { memory_kib: 64, iterations: 1, ..HashPolicy::default() };
    let mut policies = Policies { hashing, ..Policies::default() };
    policies.mail.public_url = HERE.into();
    policies.codes.resend_interval = time::Duration::ZERO;
    let builder = UserManager::builder()
        .store(Arc::new(MemoryStore::default()))
        .mailer(mailbox.clone())
        .secret_key(SecretKey::from_bytes(*b"0123456789abcdef0123456789abcdef"))
        .policies(policies);
    let users = with(builder).build().unwrap();
    let pages = Pages::load(&PagesOptions {
        name: "Example".into(),
        logo: None,
        accent: Accent::parse("#3450c8").unwrap(),
        templates,
        public_url: HERE.into(),
    });
    let options = ServiceOptions { pages: Some(Arc::new(pages.unwrap())), ..ServiceOptions::default() };
    App { service: service(users.clone(), options), users, mailbox }
}

/// A host with both: hooks and a type of profiles.
fn host() -> (App, Arc<ByInvitation>) {
    let hook = Arc::new(ByInvitation::default());
    let asked = Arc::clone(&hook) as Arc<dyn Hook>;
    (app(|builder| builder.hook(asked).profile::<Shop>()), hook)
}

struct Answer {
    status: u16,
    retry_after: Option<String>,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap()
    }

    /// The first field that is wrong, and how.
    fn fault(&self) -> String {
        let error = &self.json()["errors"][0];
        format!("{} {}/{}", self.status, error["field"].as_str().unwrap(), error["code"].as_str().unwrap())
    }
}

impl App {
    async fn send(&self, request: http::request::Builder, body: String) -> Answer {
        let peer = PeerAddr(SocketAddr::new("203.0.113.7".parse().unwrap(), 4711));
        let request = request.extension(peer).body(Full::new(Bytes::from(body))).unwrap();
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let (parts, body) = self.service.clone().oneshot(request).await.unwrap().into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let status = parts.status.as_u16();
        if path.starts_with("/v1") || path == "/openapi.json" {
            let (headers, base_path) = (&parts.headers, "/v1");
            contract::check(&contract::Exchange {
                method: &method,
                path: &path,
                base_path,
                status,
                headers,
                body: &bytes,
            });
        }
        let retry_after = parts.headers.get("retry-after").map(|value| value.to_str().unwrap().to_owned());
        Answer { status, retry_after, text: String::from_utf8(bytes.to_vec()).unwrap() }
    }

    async fn call(&self, method: Method, path: &str, token: &str, body: &Value) -> Answer {
        let mut request = Request::builder().method(method).uri(path).header("accept-language", "es");
        if !token.is_empty() {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if body.is_null() {
            return self.send(request, String::new()).await;
        }
        self.send(request.header("content-type", "application/json"), body.to_string()).await
    }

    async fn post(&self, path: &str, body: &Value) -> Answer {
        self.call(Method::POST, path, "", body).await
    }

    /// Sends a form of a page.
    async fn form(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header("content-type", "application/x-www-form-urlencoded")
            .header("origin", HERE)
            .header("accept-language", "es");
        self.send(request, body).await
    }

    /// Somebody with a profile, and their access token.
    async fn ana(&self) -> String {
        let body = json!({ "email": ANA, "password": PASSWORD, "profile": { "plan": "free" },
            "extra": { "invite": INVITE } });
        assert_eq!(self.post("/v1/users", &body).await.status, 202);
        self.users.mail_worker().run_once().await.unwrap();
        let code = self.mailbox.last_code(ANA).unwrap();
        let verified = self.post("/v1/users/verify", &json!({ "email": ANA, "code": code })).await;
        assert_eq!(verified.json()["user"]["profile"], json!({ "plan": "free", "seats": 0 }));
        let session = self.post("/v1/users/login", &json!({ "email": ANA, "password": PASSWORD })).await;
        session.json()["access_token"].as_str().unwrap().to_owned()
    }
}

#[tokio::test]
async fn a_refusal_is_told_in_the_hosts_words_and_known_addresses_are_refused_alike() {
    let (app, _) = host();
    app.ana().await;
    let mut answers = Vec::new();
    for email in [ANA, "nobody@example.org"] {
        for extra in [json!(null), json!({}), json!({ "invite": "guessed" }), json!({ "invite": [INVITE] })] {
            let body = json!({ "email": email, "password": PASSWORD, "extra": extra });
            let mut answer = app.post("/v1/users", &body).await.json();
            answer.as_object_mut().unwrap().remove("request_id");
            answers.push(answer);
        }
    }
    for answer in answers {
        let expected = json!({
            "type": "urn:usermgr:problem:refused", "title": "Refused", "status": 403, "code": "refused",
            "reason": "invite_needed", "detail": "El registro es por <invitación>.",
        });
        assert_eq!(answer, expected);
    }
}

#[tokio::test]
async fn a_sign_in_is_refused_to_its_owner_alone_and_while_nobody_can_decide() {
    let (app, hook) = host();
    app.ana().await;
    let login = |password: &str| {
        let body = json!({ "email": ANA, "password": password });
        let app = &app;
        async move { app.post("/v1/users/login", &body).await }
    };
    hook.sign_ins.store(REFUSED, Ordering::SeqCst);
    assert_eq!(login("a wrong password").await.json()["code"], "invalid_credentials");
    let refused = login(PASSWORD).await;
    assert_eq!((refused.status, &refused.json()["reason"]), (403, &json!("not_approved")));
    hook.sign_ins.store(UNDECIDED, Ordering::SeqCst);
    let undecided = login(PASSWORD).await;
    assert_eq!((undecided.status, undecided.retry_after.as_deref()), (503, Some("5")));
    assert_eq!(undecided.json()["code"], "unavailable");
    assert!(!undecided.text.contains("other side"), "{}", undecided.text);
}

#[tokio::test]
async fn pages_show_a_refusal_in_its_words() {
    let (app, hook) = host();
    app.ana().await;
    let fields = [("email", ANA), ("password", PASSWORD)];
    let refused = app.form("/sign-up", &fields).await;
    assert_eq!(refused.status, 403);
    assert!(refused.text.contains("El registro es por &lt;invitación&gt;."), "{}", refused.text);
    assert!(refused.text.contains(ANA), "the form keeps what was typed");
    hook.sign_ins.store(REFUSED, Ordering::SeqCst);
    let refused = app.form("/sign-in", &fields).await;
    assert_eq!(refused.status, 403);
    assert!(refused.text.contains("Your account waits for approval."), "{}", refused.text);
}

#[tokio::test]
async fn a_page_of_the_hosts_own_asks_for_its_fields() {
    let folder = tempfile::tempdir().unwrap();
    let own = ["extra.invite", "profile.plan"]
        .map(|name| format!(r#"<input name="{name}" value="{{{{ form.values['{name}']|default('') }}}}"> "#));
    let page = include_str!("../src/pages/templates/sign_up.html");
    let page = page.replace("<button", &format!("{}<button", own.concat()));
    std::fs::write(folder.path().join("sign_up.html"), page).unwrap();
    let hook = Arc::new(ByInvitation::default());
    let app = app_with(Some(folder.path().into()), |builder| builder.hook(hook).profile::<Shop>());

    let fields =
        [("email", ANA), ("password", PASSWORD), ("extra.invite", "gu<ess>ed"), ("profile.plan", "free")];
    let refused = app.form("/sign-up", &fields).await;
    assert_eq!(refused.status, 403);
    for kept in [r#"name="extra.invite" value="gu&lt;ess&gt;ed""#, r#"name="profile.plan" value="free""#] {
        assert!(refused.text.contains(kept), "{}", refused.text);
    }
    let wrong = [&fields[..2], &[("extra.invite", INVITE), ("profile.seats", "many")]].concat();
    let refused = app.form("/sign-up", &wrong).await;
    assert_eq!(refused.status, 422);
    assert!(refused.text.contains("profile.seats"), "{}", refused.text);

    let right = [&fields[..2], &[("extra.invite", INVITE), ("profile.plan", "free")]].concat();
    assert_eq!(app.form("/sign-up", &right).await.status, 303);
    app.users.mail_worker().run_once().await.unwrap();
    let code = app.mailbox.last_code(ANA).unwrap();
    let verified = app.post("/v1/users/verify", &json!({ "email": ANA, "code": code })).await;
    assert_eq!(verified.json()["user"]["profile"], json!({ "plan": "free", "seats": 0 }));
}

#[tokio::test]
async fn a_profile_is_read_changed_and_exported() {
    let (app, _) = host();
    let token = app.ana().await;
    let me = |app: Answer| app.json()["profile"].clone();
    let path = "/v1/users/me";
    assert_eq!(
        me(app.call(Method::GET, path, &token, &Value::Null).await),
        json!({ "plan": "free", "seats": 0 })
    );
    let change = json!({ "profile": { "plan": "paid", "seats": 3 } });
    assert_eq!(me(app.call(Method::PATCH, path, &token, &change).await), change["profile"]);
    let named = app.call(Method::PATCH, path, &token, &json!({ "username": "Ana" })).await;
    assert_eq!(me(named), change["profile"], "what is missing stays");
    let held = app.call(Method::GET, "/v1/users/me/export", &token, &Value::Null).await.json();
    assert_eq!(held["user"]["profile"], change["profile"]);
    for (profile, fault) in [
        (json!({}), "422 profile.plan/required"),
        (json!({ "plan": "paid", "seats": "3" }), "422 profile.seats/invalid_type"),
        (json!({ "plan": "paid", "roles": ["admin"] }), "422 profile.roles/unknown"),
        (json!({ "plan": "x".repeat(9000) }), "422 profile/too_large"),
        (json!([]), "422 profile/invalid_type"),
    ] {
        let refused = app.call(Method::PATCH, path, &token, &json!({ "profile": profile })).await;
        assert_eq!(refused.fault(), fault);
    }
    let deep = (0..20).fold(json!(1), |inner, _| json!([inner]));
    let refused = app.call(Method::PATCH, path, &token, &json!({ "profile": { "plan": deep } })).await;
    assert_eq!(refused.fault(), "422 profile/too_deep");
    assert_eq!(me(app.call(Method::GET, path, &token, &Value::Null).await), change["profile"]);
    assert_eq!(me(app.call(Method::PATCH, path, &token, &json!({ "profile": null })).await), json!(null));
}

#[tokio::test]
async fn administrators_change_profiles_too() {
    let (app, _) = host();
    let ana = app.ana().await;
    let id = app.call(Method::GET, "/v1/users/me", &ana, &Value::Null).await.json()["id"].clone();
    let root = "root@example.org";
    let mut admin = CreateUser { password: Some(Password::new(PASSWORD)), ..CreateUser::new(root) };
    admin.roles.insert(Role::admin());
    app.users.users().create(Principal::Operator, admin, &ClientContext::new()).await.unwrap();
    let session = app.post("/v1/users/login", &json!({ "email": root, "password": PASSWORD })).await;
    let token = session.json()["access_token"].as_str().unwrap().to_owned();
    let path = format!("/v1/users/{}", id.as_str().unwrap());
    let changed = app.call(Method::PATCH, &path, &token, &json!({ "profile": { "plan": "paid" } })).await;
    assert_eq!((changed.status, &changed.json()["profile"]["plan"]), (200, &json!("paid")));
    let read = app.call(Method::GET, &path, &token, &Value::Null).await;
    assert_eq!(read.json()["profile"], json!({ "plan": "paid", "seats": 0 }));
    let invite = json!({ "email": "eva@example.org", "profile": { "plan": "free", "seats": 2 } });
    let invited = app.call(Method::POST, "/v1/users/invite", &token, &invite).await;
    assert_eq!((invited.status, &invited.json()["profile"]), (201, &invite["profile"]));
    let refused = app.call(Method::PATCH, &path, &ana, &json!({ "profile": null })).await;
    assert_eq!(refused.status, 403);
}

#[tokio::test]
async fn a_program_without_hooks_and_type_knows_neither_field() {
    let bare = app(|builder| builder);
    for (field, value) in [("profile", json!({})), ("extra", json!({ "invite": INVITE }))] {
        let answer =
            bare.post("/v1/users", &json!({ "email": ANA, "password": PASSWORD, field: value })).await;
        assert_eq!(answer.fault(), format!("422 {field}/unknown"));
    }
    let (host, _) = host();
    for (app, taken) in [(bare, false), (host, true)] {
        let document = app.call(Method::GET, "/openapi.json", "", &Value::Null).await.json();
        let schemas = &document["components"]["schemas"];
        for (schema, field) in [
            ("Register", "extra"),
            ("Register", "profile"),
            ("UpdateMe", "profile"),
            ("UpdateUser", "profile"),
        ] {
            assert_eq!(schemas[schema]["properties"].get(field).is_some(), taken, "{schema} {field}");
        }
        for name in ["NewProfile", "Extra"] {
            assert_eq!(schemas.get(name).is_some(), taken, "{name}");
        }
    }
}
