//! The pages, without a socket: over the store in memory. What a browser makes of them is in `browser/pages.mjs`.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt as _, Full};
use tower::ServiceExt as _;
use usermgr_core::domain::role::{Role, Roles};
use usermgr_core::flow::permission::Principal;
use usermgr_core::flow::users::CreateUser;
use usermgr_core::testing::{Failure, Mailbox, MemoryStore, TestClock};
use usermgr_core::{ClientContext, Error, Password, Policies, SecretKey, UserManager};
use usermgr_server::pages::{Accent, Pages, PagesOptions};
use usermgr_server::{AuthService, PeerAddr, ServiceOptions, service};

const HERE: &str = "https://id.example.org";
const ANA: &str = "ana@example.org";
const PASSWORD: &str = "correct horse battery";
const OTHER: &str = "another fine password";

struct App {
    service: AuthService,
    users: UserManager,
    mailbox: Arc<Mailbox>,
    clock: Arc<TestClock>,
}

fn app_at(public_url: &str) -> App {
    app_with(public_url, |_| {})
}

fn app_with(public_url: &str, change: impl FnOnce(&mut Policies)) -> App {
    let (mailbox, clock) = (Arc::new(Mailbox::default()), Arc::new(TestClock::default()));
    let mut policies = Policies::default();
    policies.mail.public_url = public_url.into();
    policies.roles.defined.insert("support".parse().unwrap(), ["users:read".parse().unwrap()].into());
    change(&mut policies);
    let users = UserManager::builder()
        .store(Arc::new(MemoryStore::default()))
        .mailer(mailbox.clone())
        .clock(clock.clone())
        .secret_key(SecretKey::from_bytes(*b"0123456789abcdef0123456789abcdef"))
        .policies(policies)
        .build()
        .unwrap();
    let pages = Pages::load(&PagesOptions {
        name: "Example & Co".into(),
        logo: None,
        accent: Accent::parse("#3450c8").unwrap(),
        templates: None,
        public_url: public_url.into(),
    });
    let options = ServiceOptions { pages: Some(Arc::new(pages.unwrap())), ..ServiceOptions::default() };
    App { service: service(users.clone(), options), users, mailbox, clock }
}

fn app() -> App {
    app_at(HERE)
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    text: String,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    fn cookies(&self) -> Vec<&str> {
        self.headers.get_all("set-cookie").iter().map(|cookie| cookie.to_str().unwrap()).collect()
    }

    #[track_caller]
    fn see_other(&self, path: &str) {
        assert_eq!((self.status, self.header("location")), (303, path), "{}", self.text);
    }
}

/// A browser: it keeps cookies, and tells where its forms stand.
#[derive(Default, Clone)]
struct Browser {
    jar: BTreeMap<String, String>,
}

impl Browser {
    async fn call(
        &mut self,
        app: &App,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if !self.jar.is_empty() {
            let cookies: Vec<String> =
                self.jar.iter().map(|(name, value)| format!("{name}={value}")).collect();
            request = request.header("cookie", cookies.join("; "));
        }
        let peer = PeerAddr(SocketAddr::new("203.0.113.7".parse().unwrap(), 4711));
        let request =
            request.extension(peer).body(Full::new(Bytes::copy_from_slice(body.as_bytes()))).unwrap();
        let (parts, body) = app.service.clone().oneshot(request).await.unwrap().into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        let answer = Answer { status: parts.status.as_u16(), headers: parts.headers, text };
        for cookie in answer.cookies() {
            let (name, value) = cookie.split(';').next().unwrap().split_once('=').unwrap();
            if cookie.contains("Max-Age=0;") {
                self.jar.remove(name);
            } else {
                self.jar.insert(name.to_owned(), value.to_owned());
            }
        }
        answer
    }

    async fn get(&mut self, app: &App, path: &str) -> Answer {
        self.call(app, Method::GET, path, &[("accept", "text/html"), ("accept-language", "en")], "").await
    }

    async fn post(&mut self, app: &App, path: &str, fields: &[(&str, &str)]) -> Answer {
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let headers = [("content-type", "application/x-www-form-urlencoded"), ("origin", HERE)];
        self.call(app, Method::POST, path, &headers, &body).await
    }

    async fn signed_in(app: &App, email: &str) -> Self {
        let mut browser = Self::default();
        let answer = browser.post(app, "/sign-in", &[("email", email), ("password", PASSWORD)]).await;
        answer.see_other("/account");
        browser
    }
}

/// A user made by the operator. Answers the identifier.
async fn create(app: &App, email: &str, roles: &[&str]) -> String {
    let roles: Roles = roles.iter().map(|role| role.parse::<Role>().unwrap()).collect();
    let request = CreateUser { password: Some(Password::new(PASSWORD)), roles, ..CreateUser::new(email) };
    let user = app.users.users().create(Principal::Operator, request, &ClientContext::new()).await.unwrap();
    user.id.to_string()
}

#[tokio::test]
async fn every_page_bears_its_headers() {
    let app = app();
    create(&app, ANA, &[]).await;
    let mut browser = Browser::signed_in(&app, ANA).await;
    for (path, status) in
        [("/sign-up", 303), ("/forgot-password", 200), ("/account", 200), ("/admin", 403), ("/x", 404)]
    {
        let answer = browser.get(&app, path).await;
        assert_eq!(answer.status, status, "{path}");
        assert_eq!(answer.header("cache-control"), "no-store");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert!(answer.header("strict-transport-security").starts_with("max-age="));
        assert!(!answer.headers.contains_key("access-control-allow-origin"));
        if status == 303 {
            continue;
        }
        let policy = answer.header("content-security-policy");
        for part in [
            "default-src 'none'",
            "form-action 'self'",
            "frame-ancestors 'none'",
            "base-uri 'none'",
            "'sha256-",
        ] {
            assert!(policy.contains(part), "{part} in {policy}");
        }
        assert!(!policy.contains("unsafe") && !policy.contains('*'), "{policy}");
        assert_eq!(answer.header("referrer-policy"), "same-origin");
        assert_eq!(answer.header("content-type"), "text/html; charset=utf-8");
        assert!(
            !answer.text.contains(" style=") && !answer.text.contains(" onclick="),
            "the policy would refuse it"
        );
    }
    let style = browser.get(&app, "/pages/style.css").await;
    assert_eq!((style.status, style.header("content-type")), (200, "text/css; charset=utf-8"));
    assert!(style.header("cache-control").contains("immutable") && style.cookies().is_empty());
    let logo = browser.get(&app, "/pages/logo").await;
    assert_eq!(logo.header("content-security-policy"), "default-src 'none'; frame-ancestors 'none'");
}

#[tokio::test]
async fn cookies_are_guarded() {
    let app = app();
    create(&app, ANA, &[]).await;
    let mut browser = Browser::default();
    let answer = browser.post(&app, "/sign-in", &[("email", ANA), ("password", PASSWORD)]).await;
    assert_eq!(answer.cookies().len(), 3);
    for cookie in answer.cookies() {
        assert!(cookie.starts_with("__Host-usermgr-"), "{cookie}");
        assert!(cookie.len() < 4096);
        let attributes: Vec<&str> = cookie.split("; ").skip(1).collect();
        for attribute in ["Path=/", "HttpOnly", "SameSite=Lax", "Secure"] {
            assert!(attributes.contains(&attribute), "{attribute} of {cookie}");
        }
        assert!(!cookie.contains("Domain"));
    }
    let names: Vec<&String> = browser.jar.keys().collect();
    assert_eq!(names, ["__Host-usermgr-access", "__Host-usermgr-refresh"]);
    let here = app_at("http://localhost:8000");
    create(&here, ANA, &[]).await;
    let headers =
        [("content-type", "application/x-www-form-urlencoded"), ("origin", "http://localhost:8000")];
    let body = "email=ana%40example.org&password=correct+horse+battery";
    let answer = Browser::default().call(&here, Method::POST, "/sign-in", &headers, body).await;
    for cookie in answer.cookies() {
        assert!(
            cookie.starts_with("usermgr-") && !cookie.contains("Secure") && cookie.contains("HttpOnly"),
            "{cookie}"
        );
    }
}

#[tokio::test]
async fn a_form_of_another_site_does_nothing() {
    let app = app();
    create(&app, ANA, &[]).await;
    let browser = Browser::signed_in(&app, ANA).await;
    let form = ("content-type", "application/x-www-form-urlencoded");
    let foreign: [&[(&str, &str)]; 7] = [
        &[form],
        &[form, ("origin", "https://evil.example")],
        &[form, ("origin", "null")],
        &[form, ("origin", "null"), ("sec-fetch-site", "same-origin")],
        &[form, ("origin", HERE), ("sec-fetch-site", "cross-site")],
        &[form, ("origin", HERE), ("sec-fetch-site", "same-site")],
        &[form, ("sec-fetch-site", "cross-site")],
    ];
    for headers in foreign {
        for (path, body) in [
            ("/account/password", "current_password=x"),
            ("/account/delete", "password=correct+horse+battery"),
            ("/sign-out", ""),
            ("/sign-in", "email=mallory%40example.org&password=correct+horse+battery"),
            ("/sign-up", "email=x%40example.org&password=correct+horse+battery"),
            ("/language", "language=es"),
            ("/forgot-password", "email=ana%40example.org"),
        ] {
            let answer = browser.clone().call(&app, Method::POST, path, headers, body).await;
            assert_eq!(answer.status, 403, "{path} {headers:?}");
            assert!(answer.cookies().is_empty(), "{path}");
        }
    }
    assert_eq!(browser.clone().get(&app, "/account").await.status, 200, "still signed in");
    app.users.mail_worker().run_once().await.unwrap();
    assert!(app.mailbox.mails().is_empty(), "nothing was asked for");
}

#[tokio::test]
async fn reading_a_page_changes_nothing() {
    let app = app();
    create(&app, ANA, &[]).await;
    let mut browser = Browser::signed_in(&app, ANA).await;
    for path in
        ["/sign-out", "/account/devices/end-others", "/account/delete", "/account/export", "/language"]
    {
        let answer = browser.get(&app, path).await;
        assert_eq!((answer.status, answer.header("allow")), (405, "POST, OPTIONS"), "{path}");
    }
    for method in [Method::PUT, Method::DELETE, Method::PATCH] {
        let headers = [("origin", HERE)];
        assert_eq!(browser.call(&app, method, "/account", &headers, "").await.status, 405);
    }
    let head = browser.call(&app, Method::HEAD, "/account", &[], "").await;
    assert_eq!((head.status, head.text.len()), (200, 0));
    assert_ne!(head.header("content-length"), "0");
    assert_eq!(browser.get(&app, "/account").await.status, 200);
}

#[tokio::test]
async fn what_users_type_is_text() {
    let app = app();
    create(&app, ANA, &[]).await;
    let id = create(&app, "admin@example.org", &["admin"]).await;
    let hostile = "\"><script>alert('{{7*7}}')</script>";
    let mut browser = Browser::signed_in(&app, ANA).await;
    browser.post(&app, "/account", &[("username", hostile), ("locale", "")]).await.see_other("/account");
    let mut admin = Browser::signed_in(&app, "admin@example.org").await;
    let typed = [("email", "\"><img src=x>"), ("password", "x"), ("next", "\"><img src=x>")];
    let pages = [
        browser.get(&app, "/account").await,
        admin.get(&app, "/admin/users").await,
        admin.get(&app, "/admin/users?q=%22%3E%3Cscript%3Ealert").await,
        admin.get(&app, &format!("/admin/users/{id}")).await,
        Browser::default().post(&app, "/sign-in", &typed).await,
        Browser::default().post(&app, "/reset-password", &[("token", hostile), ("new_password", "x")]).await,
        Browser::default().get(&app, "/sign-in?next=%22%3E%3Cscript%3Ealert").await,
    ];
    for page in pages {
        assert!(!page.text.contains("<script>alert") && !page.text.contains("<img src=x"), "{}", page.text);
        assert!(page.text.contains("Example &amp; Co"));
    }
    let account = browser.get(&app, "/account").await;
    assert!(account.text.contains("{{7*7}}"), "and no template");
    let mut forged = Browser::default();
    forged.jar.insert("__Host-usermgr-carried".into(), "eyJlbWFpbCI6Ilx1MDAzY2I-In0".into());
    assert!(
        forged.get(&app, "/sign-in").await.text.contains("value=\"&lt;b&gt;\""),
        "what is carried is typed, too"
    );
}

#[tokio::test]
async fn signing_in_leads_back_and_nowhere_else() {
    let app = app();
    create(&app, ANA, &[]).await;
    let asked = Browser::default().get(&app, "/account/devices").await;
    asked.see_other("/sign-in?next=%2Faccount%2Fdevices");
    for (next, to) in [
        ("/account/devices", "/account/devices"),
        ("//evil.example", "/account"),
        ("https://evil.example/account", "/account"),
        ("/\\evil.example", "/account"),
        ("/account\r\nx: y", "/account"),
        ("/sign-out", "/account"),
    ] {
        let form = [("email", ANA), ("password", PASSWORD), ("next", next)];
        Browser::default().post(&app, "/sign-in", &form).await.see_other(to);
    }
    let mut browser = Browser::signed_in(&app, ANA).await;
    browser.get(&app, "/sign-in?next=//evil.example").await.see_other("/account");
    browser.post(&app, "/language", &[("language", "es"), ("return", "//evil.example")]).await.see_other("/");
}

#[tokio::test]
async fn limits_hold_here_as_they_do_there() {
    let app = app();
    create(&app, ANA, &[]).await;
    let mut browser = Browser::default();
    for _ in 0..10 {
        let answer = browser.post(&app, "/sign-in", &[("email", ANA), ("password", OTHER)]).await;
        assert_eq!((answer.status, answer.header("www-authenticate")), (422, ""));
    }
    let answer = browser.post(&app, "/sign-in", &[("email", ANA), ("password", PASSWORD)]).await;
    assert_eq!(answer.status, 429);
    assert!(answer.header("retry-after").parse::<u64>().unwrap() > 0);
    assert!(answer.text.contains("Too many attempts"));
    let form = [("email", "new@example.org"), ("password", PASSWORD)];
    browser.post(&app, "/sign-up", &form).await.see_other("/sign-up/code");
    let again = browser.post(&app, "/sign-up", &form).await;
    assert_eq!(again.status, 429, "30 seconds between two");
}

#[tokio::test]
async fn a_request_that_is_no_form_is_refused() {
    let app = app();
    let mut browser = Browser::default();
    let form = ("content-type", "application/x-www-form-urlencoded");
    let own = ("origin", HERE);
    for (headers, body, status) in [
        (vec![own, ("content-type", "application/json")], "{}", 415),
        (vec![own, ("content-type", "text/plain")], "email=a", 415),
        (vec![own], "email=a", 415),
        (vec![own, form], "email=%FF", 400),
        (vec![own, form], "", 422),
        (vec![own, form], "email=a&email=b&password=c", 422),
    ] {
        let answer = browser.call(&app, Method::POST, "/sign-in", &headers, body).await;
        assert_eq!(answer.status, status, "{body}");
        assert_eq!(answer.header("content-type"), "text/html; charset=utf-8");
    }
    let large = "x".repeat(70_000);
    assert_eq!(browser.call(&app, Method::POST, "/sign-in", &[own, form], &large).await.status, 413);
    let elsewhere = browser.call(&app, Method::GET, "/nowhere", &[], "").await;
    assert_eq!(elsewhere.header("content-type"), "application/problem+json", "who reads no pages gets none");
}

#[tokio::test]
async fn a_code_finishes_what_this_form_began() {
    let app = app();
    let mut mallory = Browser::default();
    let form = [("email", ANA), ("password", "mallory's password")];
    mallory.post(&app, "/sign-up", &form).await.see_other("/sign-up/code");
    app.users.mail_worker().run_once().await.unwrap();
    let of_mallory = app.mailbox.last_code(ANA).unwrap();
    app.clock.advance(time::Duration::minutes(1));
    let mut ana = Browser::default();
    ana.post(&app, "/sign-up", &[("email", ANA), ("password", PASSWORD)]).await.see_other("/sign-up/code");
    app.users.mail_worker().run_once().await.unwrap();
    let page = ana.get(&app, "/sign-up/code").await;
    let token = |text: &str| {
        let (_, rest) = text.split_once("name=\"registration_id\" value=\"").unwrap();
        rest.split('"').next().unwrap().to_owned()
    };
    let registration = token(&page.text);
    let send = |code: String| {
        let registration = registration.clone();
        move |mut browser: Browser, app: Arc<App>| async move {
            let form = [("email", ANA), ("registration_id", registration.as_str()), ("code", code.as_str())];
            browser.post(&app, "/sign-up/code", &form).await
        }
    };
    let own = app.mailbox.last_code(ANA).unwrap();
    let app = Arc::new(app);
    if own != of_mallory {
        let answer = send(of_mallory)(ana.clone(), app.clone()).await;
        assert_eq!(answer.status, 400, "the other registration's code");
    }
    // Without the registration, the password says whose it is.
    let form = [("email", ANA), ("code", own.as_str()), ("password", "mallory's password")];
    assert_eq!(ana.clone().post(&app, "/sign-up/code", &form).await.status, 400);
    send(own)(ana.clone(), app.clone()).await.see_other("/sign-in");
    assert!(Browser::signed_in(&app, ANA).await.jar.len() == 2);
}

#[tokio::test]
async fn a_session_is_renewed_and_parallel_tabs_stay_signed_in() {
    let app = app();
    create(&app, ANA, &[]).await;
    let mut browser = Browser::signed_in(&app, ANA).await;
    let before = browser.jar.clone();
    app.clock.advance(time::Duration::minutes(16));
    let (mut one, mut other) = (browser.clone(), browser.clone());
    assert_eq!(one.get(&app, "/account").await.status, 200);
    assert_eq!(other.get(&app, "/account/devices").await.status, 200);
    assert_eq!(one.jar["__Host-usermgr-refresh"], other.jar["__Host-usermgr-refresh"]);
    assert_ne!(one.jar["__Host-usermgr-refresh"], before["__Host-usermgr-refresh"]);
    app.clock.advance(time::Duration::minutes(16));
    assert_eq!(one.get(&app, "/account").await.status, 200);
    // A copy of what was used up ends the session.
    browser.jar.remove("__Host-usermgr-access");
    app.clock.advance(time::Duration::minutes(1));
    browser.get(&app, "/account").await.see_other("/sign-in");
    assert!(browser.jar.is_empty());
    one.get(&app, "/account").await.see_other("/sign-in");
}

#[tokio::test]
async fn signing_in_ends_the_session_before_and_signing_out_this_one() {
    let app = app();
    create(&app, ANA, &[]).await;
    let mut browser = Browser::signed_in(&app, ANA).await;
    let mut before = browser.clone();
    browser.post(&app, "/sign-in", &[("email", ANA), ("password", PASSWORD)]).await.see_other("/account");
    before.get(&app, "/account").await.see_other("/sign-in");
    let mut copy = browser.clone();
    browser.post(&app, "/sign-out", &[]).await.see_other("/sign-in");
    assert!(browser.get(&app, "/sign-in").await.text.contains("You are signed out."));
    assert!(browser.jar.is_empty(), "and it is said once: {:?}", browser.jar);
    copy.get(&app, "/account").await.see_other("/sign-in");
    let mut fixed = Browser::default();
    fixed.jar.insert("__Host-usermgr-access".into(), "chosen-by-somebody-else".into());
    fixed.jar.insert("__Host-usermgr-refresh".into(), "chosen-by-somebody-else".into());
    fixed.get(&app, "/account").await.see_other("/sign-in");
    assert!(fixed.jar.is_empty());
}

#[tokio::test]
async fn what_cannot_be_taken_back_asks_for_the_password() {
    let app = app();
    create(&app, "admin@example.org", &["admin"]).await;
    let id = create(&app, ANA, &[]).await;
    let mut admin = Browser::signed_in(&app, "admin@example.org").await;
    let (page, roles) = (format!("/admin/users/{id}"), format!("/admin/users/{id}/roles"));
    assert!(!admin.get(&app, &page).await.text.contains("name=\"password\""));
    app.clock.advance(time::Duration::minutes(20));
    let asked = admin.post(&app, &roles, &[("roles", "support")]).await;
    assert_eq!(asked.status, 422);
    assert!(asked.text.contains("name=\"password\"") && asked.text.contains("value=\"support\" checked"));
    let wrong = admin.post(&app, &roles, &[("roles", "support"), ("password", OTHER)]).await;
    assert!(wrong.status == 422 && wrong.text.contains("aria-describedby=\"password-fault"));
    admin.post(&app, &roles, &[("roles", "support"), ("password", PASSWORD)]).await.see_other(&page);
    assert!(admin.get(&app, &page).await.text.contains("value=\"support\" checked"));
    let delete = format!("/admin/users/{id}/delete");
    let forms = [
        ("/admin/invite".to_owned(), vec![("email", "new@example.org"), ("roles", "support")], None),
        (format!("{page}/status"), vec![("status", "disabled")], Some(page.as_str())),
        (format!("{page}/status"), vec![("status", "active")], Some(page.as_str())),
        (format!("{page}/sessions"), vec![], Some(page.as_str())),
    ];
    for (path, mut fields, leads_to) in forms {
        if path.ends_with("/sessions") {
            Browser::signed_in(&app, ANA).await;
        }
        let asked = admin.post(&app, &path, &fields).await;
        assert_eq!(asked.status, 422, "{path}");
        let form = asked.text.split(&format!("action=\"{path}\"")).nth(1).unwrap();
        let form = form.split("</form>").next().unwrap();
        assert!(form.contains("name=\"password\""), "{path}: the form asks for the password");
        assert_eq!(asked.text.matches("name=\"password\"").count(), 1, "{path}: and no other does");
        fields.push(("password", OTHER));
        let wrong = admin.post(&app, &path, &fields).await;
        assert!(wrong.status == 422 && wrong.text.contains("aria-describedby=\"password-fault"), "{path}");
        fields.pop();
        fields.push(("password", PASSWORD));
        let done = admin.post(&app, &path, &fields).await;
        assert_eq!(done.status, 303, "{path}");
        assert!(leads_to.is_none_or(|leads_to| done.header("location") == leads_to), "{path}");
    }
    admin.post(&app, "/admin/invite", &[("email", "plain@example.org")]).await;
    let mut ana = Browser::signed_in(&app, ANA).await;
    let asked = admin.post(&app, &delete, &[]).await;
    assert!(asked.status == 422 && asked.text.contains("name=\"password\""));
    let answer = ana.post(&app, "/account/delete", &[]).await;
    assert_eq!(answer.status, 422, "the password, however short ago one signed in");
    let answer = ana.post(&app, "/account/email", &[("new_email", "b@example.org")]).await;
    assert_eq!(answer.status, 422);
    admin.post(&app, &delete, &[("password", PASSWORD)]).await.see_other("/admin/users");
}

#[tokio::test]
async fn the_store_decides_who_administers() {
    let app = app();
    let admin = create(&app, "admin@example.org", &["admin"]).await;
    create(&app, "support@example.org", &["support"]).await;
    let ana = create(&app, ANA, &[]).await;
    let reading = [
        ("/admin/users".to_owned(), [403, 200, 200]),
        ("/admin/users?q=&role=&status=".to_owned(), [403, 200, 200]),
        ("/admin/audit?event=&user_id=".to_owned(), [403, 403, 200]),
        (format!("/admin/users/{ana}"), [403, 200, 200]),
        ("/admin/invite".to_owned(), [403, 403, 200]),
        (format!("/admin/users/{ana}/delete"), [403, 200, 200]),
        ("/admin/mails".to_owned(), [403, 403, 200]),
        ("/admin/audit".to_owned(), [403, 403, 200]),
    ];
    let mut browsers = [
        Browser::signed_in(&app, ANA).await,
        Browser::signed_in(&app, "support@example.org").await,
        Browser::signed_in(&app, "admin@example.org").await,
    ];
    let encoded = |path: &str| url::form_urlencoded::byte_serialize(path.as_bytes()).collect::<String>();
    for (path, statuses) in &reading {
        Browser::default().get(&app, path).await.see_other(&format!("/sign-in?next={}", encoded(path)));
        for (browser, status) in browsers.iter_mut().zip(statuses) {
            assert_eq!(browser.get(&app, path).await.status, *status, "{path}");
        }
    }
    let [of_ana, support, _] = &mut browsers;
    for browser in [of_ana, support] {
        for (path, form) in [
            (format!("/admin/users/{ana}/roles"), ("roles", "admin")),
            (format!("/admin/users/{admin}/status"), ("status", "disabled")),
            (format!("/admin/users/{admin}/sessions"), ("x", "y")),
            (format!("/admin/users/{admin}/delete"), ("x", "y")),
            ("/admin/invite".to_owned(), ("email", "x@example.org")),
            (format!("/admin/mails/{admin}/retry"), ("x", "y")),
        ] {
            assert_eq!(browser.post(&app, &path, &[form]).await.status, 403, "{path}");
        }
        let page = browser.get(&app, &format!("/admin/users/{ana}")).await;
        assert!(!page.text.contains("203.0.113.7"), "nor where from others signed in");
    }
    let [.., admin_browser] = &mut browsers;
    let last =
        admin_browser.post(&app, &format!("/admin/users/{admin}/status"), &[("status", "disabled")]).await;
    assert_eq!(last.status, 409);
    for nothing in ["/admin/users/x", "/admin/users/01980000-0000-7000-8000-000000000000"] {
        assert_eq!(admin_browser.get(&app, nothing).await.status, 404);
    }
    assert_eq!(admin_browser.get(&app, "/admin/users?cursor=x").await.status, 422);
}

#[tokio::test]
async fn answers_do_not_tell_who_has_an_account() {
    let app = app();
    create(&app, ANA, &[]).await;
    for path in ["/forgot-password", "/first-time-setup/resend"] {
        let mut answers = Vec::new();
        for email in [ANA, "nobody@example.org"] {
            let mut browser = Browser::default();
            let answer = browser.post(&app, path, &[("email", email)]).await;
            let page = browser.get(&app, answer.header("location")).await;
            answers.push((
                answer.status,
                answer.header("location").to_owned(),
                page.text.replace(email, "…"),
            ));
        }
        assert_eq!(answers[0], answers[1], "{path}");
    }
    let mut answers = Vec::new();
    for email in [ANA, "nobody@example.org"] {
        let answer =
            Browser::default().post(&app, "/sign-in", &[("email", email), ("password", OTHER)]).await;
        answers.push((answer.status, answer.text.replace(email, "…")));
    }
    assert_eq!(answers[0], answers[1]);
}

#[tokio::test]
async fn pages_speak_the_language_of_whoever_reads() {
    let app = app();
    create(&app, ANA, &[]).await;
    let mut browser = Browser::default();
    let spanish = [("accept", "text/html"), ("accept-language", "es-MX,en;q=0.5")];
    let page = browser.call(&app, Method::GET, "/sign-in", &spanish, "").await;
    assert!(page.text.contains("<html lang=\"es\">") && page.text.contains("Iniciar sesión"));
    browser
        .post(&app, "/language", &[("language", "en"), ("return", "/sign-in")])
        .await
        .see_other("/sign-in");
    let page = browser.call(&app, Method::GET, "/sign-in", &spanish, "").await;
    assert!(page.text.contains("<html lang=\"en\">"), "the switch stands over the browser");
    let mut ana = Browser::signed_in(&app, ANA).await;
    ana.post(&app, "/account", &[("username", ""), ("locale", "es")]).await.see_other("/account");
    ana.jar.remove("__Host-usermgr-language");
    assert!(
        ana.get(&app, "/account").await.text.contains("Tu cuenta"),
        "the user's own stands over the browser"
    );
}

#[tokio::test]
async fn a_dead_mail_is_sent_again() {
    let app = app();
    create(&app, "admin@example.org", &["admin"]).await;
    let mut admin = Browser::signed_in(&app, "admin@example.org").await;
    app.mailbox.fail(Some(Failure::Permanent));
    admin.post(&app, "/admin/invite", &[("email", ANA), ("locale", "es")]).await;
    app.users.mail_worker().run_once().await.unwrap();
    app.mailbox.fail(None);
    let page = admin.get(&app, "/admin/mails?status=dead").await;
    let (_, rest) = page.text.split_once("action=\"/admin/mails/").unwrap();
    let retry = format!("/admin/mails/{}", rest.split('"').next().unwrap());
    admin.post(&app, &retry, &[]).await.see_other("/admin/mails");
    assert!(!admin.get(&app, "/admin/mails?status=dead").await.text.contains("/retry"));
    app.users.mail_worker().run_once().await.unwrap();
    let code = app.mailbox.last_code(ANA).unwrap();
    assert!(!admin.get(&app, "/admin/mails").await.text.contains(&code), "no code is shown");
    assert_eq!(admin.post(&app, &retry, &[]).await.status, 404);
}

#[tokio::test]
async fn lists_go_on_page_by_page() {
    let app = app();
    create(&app, "admin@example.org", &["admin"]).await;
    for number in 0..60 {
        let request = CreateUser::new(format!("user{number}@example.org"));
        app.users.users().create(Principal::Operator, request, &ClientContext::new()).await.unwrap();
    }
    let mut admin = Browser::signed_in(&app, "admin@example.org").await;
    for (path, pages, rows) in
        [("/admin/users?q=user&status=active", 2, 60), ("/admin/mails", 2, 60), ("/admin/audit", 2, 63)]
    {
        let (mut next, mut seen, mut read) = (Some(path.to_owned()), 0, 0);
        while let Some(path) = next {
            let page = admin.get(&app, &path).await;
            assert_eq!(page.status, 200, "{}", page.text);
            seen += page.text.matches("<tr><td").count();
            read += 1;
            next = page.text.split_once("rel=\"next\" href=\"").map(|(_, rest)| {
                rest.split('"').next().unwrap().replace("&#x2f;", "/").replace("&amp;", "&")
            });
        }
        assert_eq!((read, seen), (pages, rows), "{path}");
    }
}

#[tokio::test]
async fn who_may_not_end_sessions_does_not_see_them() {
    let app = app();
    let id = create(&app, ANA, &[]).await.parse().unwrap();
    create(&app, "support@example.org", &["support"]).await;
    let client = ClientContext::new();
    let sessions = app.users.sessions();
    let signed_in = sessions.login("support@example.org", &Password::new(PASSWORD), &client).await.unwrap();
    let support = sessions.authenticate(&signed_in.access_token).await.unwrap();
    let refused = app.users.users().sessions(Principal::User(&support), id, &client).await;
    assert!(matches!(refused, Err(Error::Forbidden)), "{refused:?}");
    let seen = app.users.users().sessions(Principal::Operator, support.user.id, &client).await.unwrap();
    assert_eq!(seen.len(), 1);
}

#[tokio::test]
async fn nobody_sees_the_sessions_of_those_above_them() {
    let app = app_with("https://id.example.org", |policies| {
        let desk = ["users:read".parse().unwrap(), "users:write".parse().unwrap()];
        policies.roles.defined.insert("desk".parse().unwrap(), desk.into());
    });
    let (admin, ana) = (create(&app, "admin@example.org", &["admin"]).await, create(&app, ANA, &[]).await);
    create(&app, "desk@example.org", &["desk"]).await;
    for email in ["admin@example.org", ANA] {
        Browser::signed_in(&app, email).await;
    }
    let mut desk = Browser::signed_in(&app, "desk@example.org").await;
    let sessions = |id: &str| format!("action=\"/admin/users/{id}/sessions\"");
    let page = desk.get(&app, &format!("/admin/users/{ana}")).await;
    assert!(page.status == 200 && page.text.contains(&sessions(&ana)));
    let page = desk.get(&app, &format!("/admin/users/{admin}")).await;
    assert!(
        page.status == 200 && !page.text.contains(&sessions(&admin)) && !page.text.contains("203.0.113.7")
    );
    let client = ClientContext::new();
    let login = app.users.sessions().login("desk@example.org", &Password::new(PASSWORD), &client).await;
    let caller = app.users.sessions().authenticate(&login.unwrap().access_token).await.unwrap();
    let by = Principal::User(&caller);
    let refused = app.users.users().sessions(by, admin.parse().unwrap(), &client).await;
    assert!(matches!(refused, Err(Error::Forbidden)), "{refused:?}");
    assert_eq!(app.users.users().sessions(by, ana.parse().unwrap(), &client).await.unwrap().len(), 1);
}

#[test]
fn a_wrong_template_stops_the_start_with_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let templates = folder.path().join("templates");
    std::fs::create_dir(&templates).unwrap();
    let fine = "{% extends \"layout.html\" %}{% block title %}{{ name }}{% endblock %}\
                {% block content %}<form method=\"post\"><input name=\"email\"></form>{% endblock %}";
    std::fs::write(templates.join("forgot.html"), fine).unwrap();
    std::fs::write(templates.join("devices.html"), "{{ devcies }}").unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_usermgr-server"))
        .current_dir(folder.path())
        .env("USERMGR_DATABASE_URL", "memory:")
        .env("USERMGR_HTTP_LISTEN", "127.0.0.1:0")
        .env("USERMGR_PAGES_TEMPLATES", &templates)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    let last = said.lines().last().unwrap();
    let begins =
        "usermgr-server: pages.templates: devices.html: the variable devcies is not known here; it takes ";
    assert!(last.starts_with(begins), "{said}");
}
