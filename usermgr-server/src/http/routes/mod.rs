//! Which path and method leads to which route. One file for each namespace.

mod account;
mod administration;
mod docs;
mod mail;
mod operations;
mod passwords;
mod registration;
mod sessions;

use std::collections::BTreeMap;
use std::future::ready;

use futures_util::future::BoxFuture;
use http::Method;

use super::answer::Answer;
use super::openapi::{Operation, Tag};
use super::problem::Problem;
use super::{Call, ServiceOptions};

/// What can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Endpoint {
    Register,
    Verify,
    Activate,
    ResendCode,
    SetPasswordWithEmailCode,
    RequestCode,
    SetWithCode,
    Forgot,
    Reset,
    ChangePassword,
    Login,
    Refresh,
    Logout,
    Sessions,
    EndSession,
    EndOtherSessions,
    Me,
    UpdateMe,
    DeleteMe,
    ChangeEmail,
    ConfirmEmail,
    UndoEmail,
    Export,
    Users,
    User,
    Invite,
    UpdateUser,
    SetRoles,
    DeleteUser,
    EndUserSessions,
    Roles,
    Audit,
    Outbox,
    RetryMail,
    Events,
    MailCallback,
    Live,
    Ready,
    Jwks,
    OpenApi,
    Docs,
    DocsAsset,
}

/// A group of routes that a service has or has not; each is a tag of the document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Namespace {
    /// A new account, by a code that is mailed.
    Registration,
    /// Setting and changing passwords.
    Passwords,
    /// Signing in and out, renewing, one's devices.
    Sessions,
    /// One's own account.
    Account,
    /// Users, for those who may.
    Administration,
    /// Callbacks of the mail service.
    Mail,
    /// Health checks and the key set, at the root of the service.
    Operations,
}

impl Namespace {
    /// All that there are, in the order in which they are told of.
    pub const ALL: [Self; 7] = [
        Self::Registration,
        Self::Passwords,
        Self::Sessions,
        Self::Account,
        Self::Administration,
        Self::Mail,
        Self::Operations,
    ];

    /// Its name in the document and what it is about.
    pub(super) const fn tag(self) -> Tag {
        match self {
            Self::Registration => registration::TAG,
            Self::Passwords => passwords::TAG,
            Self::Sessions => sessions::TAG,
            Self::Account => account::TAG,
            Self::Administration => administration::TAG,
            Self::Mail => mail::TAG,
            Self::Operations => operations::TAG,
        }
    }
}

/// Under the base path.
const ROUTES: &[(Method, &str, Endpoint)] = &[
    (Method::POST, "/users", Endpoint::Register),
    (Method::POST, "/users/register-pending", Endpoint::Register),
    (Method::POST, "/users/verify", Endpoint::Verify),
    (Method::POST, "/users/verify-account", Endpoint::Verify),
    (Method::POST, "/users/activate", Endpoint::Activate),
    (Method::POST, "/users/resend-code", Endpoint::ResendCode),
    (Method::POST, "/users/send-verification", Endpoint::ResendCode),
    (Method::POST, "/users/set-password-with-email-code", Endpoint::SetPasswordWithEmailCode),
    (Method::POST, "/passwords/request-code", Endpoint::RequestCode),
    (Method::POST, "/passwords/set-with-code", Endpoint::SetWithCode),
    (Method::POST, "/passwords/forgot", Endpoint::Forgot),
    (Method::POST, "/passwords/reset", Endpoint::Reset),
    (Method::POST, "/passwords/change", Endpoint::ChangePassword),
    (Method::POST, "/users/login", Endpoint::Login),
    (Method::POST, "/sessions", Endpoint::Login),
    (Method::POST, "/sessions/refresh", Endpoint::Refresh),
    (Method::POST, "/sessions/logout", Endpoint::Logout),
    (Method::GET, "/sessions", Endpoint::Sessions),
    (Method::DELETE, "/sessions", Endpoint::EndOtherSessions),
    (Method::DELETE, "/sessions/{id}", Endpoint::EndSession),
    (Method::GET, "/users/me", Endpoint::Me),
    (Method::PATCH, "/users/me", Endpoint::UpdateMe),
    (Method::DELETE, "/users/me", Endpoint::DeleteMe),
    (Method::POST, "/users/me/email", Endpoint::ChangeEmail),
    (Method::POST, "/users/me/email/confirm", Endpoint::ConfirmEmail),
    (Method::GET, "/users/me/export", Endpoint::Export),
    (Method::POST, "/users/undo-email-change", Endpoint::UndoEmail),
    (Method::GET, "/users", Endpoint::Users),
    (Method::POST, "/users/invite", Endpoint::Invite),
    (Method::GET, "/users/{id}", Endpoint::User),
    (Method::PATCH, "/users/{id}", Endpoint::UpdateUser),
    (Method::DELETE, "/users/{id}", Endpoint::DeleteUser),
    (Method::PUT, "/users/{id}/roles", Endpoint::SetRoles),
    (Method::DELETE, "/users/{id}/sessions", Endpoint::EndUserSessions),
    (Method::GET, "/roles", Endpoint::Roles),
    (Method::GET, "/audit", Endpoint::Audit),
    (Method::GET, "/outbox", Endpoint::Outbox),
    (Method::POST, "/outbox/{id}/retry", Endpoint::RetryMail),
    (Method::GET, "/events", Endpoint::Events),
    (Method::POST, "/mail/callback", Endpoint::MailCallback),
];

/// At the root.
const ROOT_ROUTES: &[(Method, &str, Endpoint)] = &[
    (Method::GET, "/health/live", Endpoint::Live),
    (Method::GET, "/health/ready", Endpoint::Ready),
    (Method::GET, "/.well-known/jwks.json", Endpoint::Jwks),
];

/// At the root, unless they are switched off.
const DOCS_ROUTES: &[(Method, &str, Endpoint)] = &[
    (Method::GET, "/openapi.json", Endpoint::OpenApi),
    (Method::GET, "/docs", Endpoint::Docs),
    (Method::GET, "/docs/{id}", Endpoint::DocsAsset),
];

/// The routes that the document describes: all but the parts of a page.
pub(super) fn described(
    options: &ServiceOptions,
) -> impl Iterator<Item = (String, &'static Method, Endpoint)> {
    all(options).filter(|(_, _, endpoint)| *endpoint != Endpoint::DocsAsset)
}

fn all(options: &ServiceOptions) -> impl Iterator<Item = (String, &'static Method, Endpoint)> {
    let base_path = options.base_path.trim_end_matches('/');
    let under_base =
        ROUTES.iter().map(move |(method, path, endpoint)| (format!("{base_path}{path}"), method, *endpoint));
    let at_root =
        |(method, path, endpoint): &'static (Method, &str, Endpoint)| ((*path).to_owned(), method, *endpoint);
    let wanted = |(_, _, endpoint): &(String, &'static Method, Endpoint)| {
        options.namespaces.contains(&endpoint.namespace())
    };
    let docs = if options.docs { DOCS_ROUTES } else { &[] };
    under_base.chain(ROOT_ROUTES.iter().map(at_root)).filter(wanted).chain(docs.iter().map(at_root))
}

/// The methods that a path takes, as `Allow` names them.
pub(super) fn allowed(methods: &[(Method, Endpoint)]) -> String {
    let mut allowed: Vec<&str> = methods.iter().map(|(method, _)| method.as_str()).collect();
    if allowed.contains(&"GET") {
        allowed.push("HEAD");
    }
    allowed.push("OPTIONS");
    allowed.join(", ")
}

/// What stands in a path where an identifier does.
pub(super) const ID: &str = "{id}";

/// The routes of one service.
pub(super) struct Routes {
    fixed: BTreeMap<String, Vec<(Method, Endpoint)>>,
    with_id: Vec<WithId>,
}

/// A path with an identifier in it.
struct WithId {
    pattern: String,
    before: String,
    after: String,
    methods: Vec<(Method, Endpoint)>,
}

/// A path that leads somewhere.
#[derive(Clone, Copy)]
pub(super) struct Found<'a> {
    /// The path, with `{id}` where an identifier stands.
    pub(super) pattern: &'a str,
    /// Where each method leads.
    pub(super) methods: &'a [(Method, Endpoint)],
    /// The identifier, as it came.
    pub(super) id: Option<&'a str>,
}

impl Found<'_> {
    /// Whether the path is one that health checks ask.
    pub(super) fn is_health(&self) -> bool {
        self.methods.iter().any(|(_, endpoint)| matches!(endpoint, Endpoint::Live | Endpoint::Ready))
    }
}

impl Routes {
    pub(super) fn new(options: &ServiceOptions) -> Self {
        let mut fixed: BTreeMap<String, Vec<(Method, Endpoint)>> = BTreeMap::new();
        for (path, method, endpoint) in all(options) {
            fixed.entry(path).or_default().push((method.clone(), endpoint));
        }
        let mut with_id = Vec::new();
        fixed.retain(|path, methods| match path.split_once(ID) {
            Some((before, after)) => {
                let (before, after) = (before.to_owned(), after.to_owned());
                let methods = std::mem::take(methods);
                with_id.push(WithId { pattern: path.clone(), before, after, methods });
                false
            }
            None => true,
        });
        Self { fixed, with_id }
    }

    /// Where a path leads. A path that is written out comes before one with an identifier in it; a slash at the end means
    /// nothing.
    pub(super) fn find<'a>(&'a self, path: &'a str) -> Option<Found<'a>> {
        let path = without_slash(path);
        if let Some((pattern, methods)) = self.fixed.get_key_value(path) {
            return Some(Found { pattern, methods, id: None });
        }
        self.with_id.iter().find_map(|WithId { pattern, before, after, methods }| {
            let id = path.strip_prefix(before.as_str())?.strip_suffix(after.as_str())?;
            let fits = !id.is_empty() && !id.contains('/');
            fits.then_some(Found { pattern, methods, id: Some(id) })
        })
    }
}

/// A path without the slash at its end, if it is more than that.
pub(crate) fn without_slash(path: &str) -> &str {
    path.strip_suffix('/').filter(|rest| !rest.is_empty() && !rest.ends_with('/')).unwrap_or(path)
}

impl Endpoint {
    /// Boxed one by one, so that whoever waits holds the state of one route and not that of the largest.
    pub(super) fn run<'a>(self, call: &'a Call<'a>) -> BoxFuture<'a, Result<Answer, Problem>> {
        match self {
            Self::Register => Box::pin(registration::register(call)),
            Self::Verify => Box::pin(registration::verify(call)),
            Self::Activate => Box::pin(registration::activate(call)),
            Self::ResendCode => Box::pin(registration::resend_code(call)),
            Self::SetPasswordWithEmailCode => Box::pin(registration::set_password_with_email_code(call)),
            Self::RequestCode => Box::pin(passwords::request_code(call)),
            Self::SetWithCode => Box::pin(passwords::set_with_code(call)),
            Self::Forgot => Box::pin(passwords::forgot(call)),
            Self::Reset => Box::pin(passwords::reset(call)),
            Self::ChangePassword => Box::pin(passwords::change(call)),
            Self::Login => Box::pin(sessions::login(call)),
            Self::Refresh => Box::pin(sessions::refresh(call)),
            Self::Logout => Box::pin(sessions::logout(call)),
            Self::Sessions => Box::pin(sessions::list(call)),
            Self::EndSession => Box::pin(sessions::end(call)),
            Self::EndOtherSessions => Box::pin(sessions::end_others(call)),
            Self::Me => Box::pin(account::me(call)),
            Self::UpdateMe => Box::pin(account::update(call)),
            Self::DeleteMe => Box::pin(account::delete(call)),
            Self::ChangeEmail => Box::pin(account::request_email_change(call)),
            Self::ConfirmEmail => Box::pin(account::confirm_email_change(call)),
            Self::UndoEmail => Box::pin(account::undo_email_change(call)),
            Self::Export => Box::pin(account::take_along(call)),
            Self::Users => Box::pin(administration::list(call)),
            Self::User => Box::pin(administration::get(call)),
            Self::Invite => Box::pin(administration::invite(call)),
            Self::UpdateUser => Box::pin(administration::update(call)),
            Self::SetRoles => Box::pin(administration::set_roles(call)),
            Self::DeleteUser => Box::pin(administration::delete(call)),
            Self::EndUserSessions => Box::pin(administration::end_sessions(call)),
            Self::Roles => Box::pin(administration::list_roles(call)),
            Self::Audit => Box::pin(administration::audit(call)),
            Self::Outbox => Box::pin(administration::outbox(call)),
            Self::RetryMail => Box::pin(administration::retry_mail(call)),
            Self::Events => Box::pin(administration::events(call)),
            Self::MailCallback => Box::pin(mail::callback(call)),
            Self::Live => Box::pin(ready(Ok(operations::live()))),
            Self::Ready => Box::pin(operations::ready(call)),
            Self::Jwks => Box::pin(operations::jwks(call)),
            Self::OpenApi => Box::pin(ready(Ok(docs::document(call)))),
            Self::Docs => Box::pin(ready(Ok(docs::page()))),
            Self::DocsAsset => Box::pin(ready(docs::asset(call))),
        }
    }

    const fn namespace(self) -> Namespace {
        match self {
            Self::Register
            | Self::Verify
            | Self::Activate
            | Self::ResendCode
            | Self::SetPasswordWithEmailCode => Namespace::Registration,
            Self::RequestCode | Self::SetWithCode | Self::Forgot | Self::Reset | Self::ChangePassword => {
                Namespace::Passwords
            }
            Self::Login
            | Self::Refresh
            | Self::Logout
            | Self::Sessions
            | Self::EndSession
            | Self::EndOtherSessions => Namespace::Sessions,
            Self::Me
            | Self::UpdateMe
            | Self::DeleteMe
            | Self::ChangeEmail
            | Self::ConfirmEmail
            | Self::UndoEmail
            | Self::Export => Namespace::Account,
            Self::Users
            | Self::User
            | Self::Invite
            | Self::UpdateUser
            | Self::SetRoles
            | Self::DeleteUser
            | Self::EndUserSessions
            | Self::Roles
            | Self::Audit
            | Self::Outbox
            | Self::RetryMail
            | Self::Events => Namespace::Administration,
            Self::MailCallback => Namespace::Mail,
            Self::Live | Self::Ready | Self::Jwks | Self::OpenApi | Self::Docs | Self::DocsAsset => {
                Namespace::Operations
            }
        }
    }

    /// What the route takes, answers and refuses.
    pub(super) fn operation(self) -> Operation {
        match self {
            Self::Register => registration::register_operation(),
            Self::Verify => registration::verify_operation(),
            Self::Activate => registration::activate_operation(),
            Self::ResendCode => registration::resend_code_operation(),
            Self::SetPasswordWithEmailCode => registration::set_password_with_email_code_operation(),
            Self::RequestCode => passwords::request_code_operation(),
            Self::SetWithCode => passwords::set_with_code_operation(),
            Self::Forgot => passwords::forgot_operation(),
            Self::Reset => passwords::reset_operation(),
            Self::ChangePassword => passwords::change_operation(),
            Self::Login => sessions::login_operation(),
            Self::Refresh => sessions::refresh_operation(),
            Self::Logout => sessions::logout_operation(),
            Self::Sessions => sessions::list_operation(),
            Self::EndSession => sessions::end_operation(),
            Self::EndOtherSessions => sessions::end_others_operation(),
            Self::Me => account::me_operation(),
            Self::UpdateMe => account::update_operation(),
            Self::DeleteMe => account::delete_operation(),
            Self::ChangeEmail => account::request_email_change_operation(),
            Self::ConfirmEmail => account::confirm_email_change_operation(),
            Self::UndoEmail => account::undo_email_change_operation(),
            Self::Export => account::take_along_operation(),
            Self::Users => administration::list_operation(),
            Self::User => administration::get_operation(),
            Self::Invite => administration::invite_operation(),
            Self::UpdateUser => administration::update_operation(),
            Self::SetRoles => administration::set_roles_operation(),
            Self::DeleteUser => administration::delete_operation(),
            Self::EndUserSessions => administration::end_sessions_operation(),
            Self::Roles => administration::list_roles_operation(),
            Self::Audit => administration::audit_operation(),
            Self::Outbox => administration::outbox_operation(),
            Self::RetryMail => administration::retry_mail_operation(),
            Self::Events => administration::events_operation(),
            Self::MailCallback => mail::callback_operation(),
            Self::Live => operations::live_operation(),
            Self::Ready => operations::ready_operation(),
            Self::Jwks => operations::jwks_operation(),
            Self::OpenApi => docs::document_operation(),
            Self::Docs | Self::DocsAsset => docs::page_operation(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use usermgr_core::Policies;

    use super::*;
    use crate::http::openapi;

    #[test]
    fn the_matrix_of_roles_has_every_endpoint() {
        let without_spaces = |text: &str| text.split_whitespace().collect::<String>();
        let matrix = without_spaces(include_str!("../../../tests/administration.rs"));
        for (method, path, _) in ROUTES {
            let row = format!("row(\"{method}\",\"{path}\",");
            assert!(matrix.contains(&row), "{row} is missing");
        }
    }

    #[test]
    fn what_the_documentation_of_the_service_names_is_there() {
        let lines = include_str!("../mod.rs").lines().filter(|line| line.starts_with("/// | "));
        let mut named = 0;
        for line in lines {
            for quoted in line.split('`').skip(1).step_by(2) {
                let Some((method, path)) = quoted.split_once(' ') else { continue };
                let there = ROUTES.iter().any(|(known, at, _)| known == method && *at == path);
                assert!(there, "there is no {quoted}");
                named += 1;
            }
        }
        assert!(named >= 15, "{named}");
    }

    #[test]
    fn every_route_has_its_operation_and_every_operation_its_route() {
        let document = openapi(&ServiceOptions::default(), &Policies::default());
        let mut described = BTreeMap::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let id = operation["operationId"].as_str().unwrap().trim_end_matches("_alias").to_owned();
                described.insert(format!("{} {path}", method.to_ascii_uppercase()), id);
            }
        }
        let under_base = ROUTES.iter().map(|(method, path, _)| format!("{method} /v1{path}"));
        let at_root = ROOT_ROUTES.iter().map(|(method, path, _)| format!("{method} {path}"));
        let docs = ["GET /openapi.json", "GET /docs"].map(String::from);
        let mut routed: Vec<String> = under_base.chain(at_root).chain(docs).collect();
        routed.sort();
        assert_eq!(described.keys().cloned().collect::<Vec<_>>(), routed);
        // No two routes but a route and its other name are told of as one.
        let endpoints: BTreeSet<Endpoint> =
            super::described(&ServiceOptions::default()).map(|(_, _, endpoint)| endpoint).collect();
        assert_eq!(described.into_values().collect::<BTreeSet<_>>().len(), endpoints.len());
    }

    #[test]
    fn a_route_is_told_of_in_its_namespace() {
        for (_, path, endpoint) in ROUTES.iter().chain(ROOT_ROUTES).chain(DOCS_ROUTES) {
            assert_eq!(endpoint.operation().tag(), endpoint.namespace().tag(), "{path}");
        }
    }

    #[test]
    fn what_is_left_out_is_neither_found_nor_told_of() {
        let namespaces = [Namespace::Registration, Namespace::Sessions].into();
        let options = ServiceOptions { namespaces, ..ServiceOptions::default() };
        let (routes, document) = (Routes::new(&options), openapi(&options, &Policies::default()));
        let all = Routes::new(&ServiceOptions::default());
        // `GET /users` is the administration's, `POST /users` is not.
        assert_eq!(routes.find("/v1/users").map(|found| allowed(found.methods)).unwrap(), "POST, OPTIONS");
        for (path, there) in [
            ("/v1/users/verify", true),
            ("/v1/sessions/x", true),
            ("/v1/users/x", false),
            ("/v1/users/me", false),
            ("/v1/passwords/forgot", false),
            ("/v1/mail/callback", false),
            ("/health/live", false),
            ("/docs", true),
        ] {
            assert!(all.find(path).is_some(), "{path}");
            assert_eq!(routes.find(path).is_some(), there, "{path}");
        }
        let paths = document["paths"].as_object().unwrap();
        assert!(paths.keys().all(|path| routes.find(&path.replace("{id}", "x")).is_some()), "{paths:?}");
        assert!(paths["/v1/users"].get("get").is_none());
        let tags: Vec<_> = document["tags"].as_array().unwrap().iter().map(|tag| &tag["name"]).collect();
        assert_eq!(tags, ["Registration", "Sessions"]);
    }

    #[test]
    fn a_path_leads_where_it_says() {
        let options = ServiceOptions { base_path: "/v1/".into(), ..ServiceOptions::default() };
        let routes = Routes::new(&options);
        let id = |path| routes.find(path).map(|found| (found.pattern, found.id));
        assert_eq!(id("/v1/users/me"), Some(("/v1/users/me", None)));
        assert_eq!(id("/v1/users/x"), Some(("/v1/users/{id}", Some("x"))));
        assert_eq!(id("/v1/users/x/roles"), Some(("/v1/users/{id}/roles", Some("x"))));
        assert_eq!(id("/v1/users/"), Some(("/v1/users", None)));
        assert_eq!(id("/v1/users/x/"), Some(("/v1/users/{id}", Some("x"))));
        assert_eq!(id("/v1/users/x/roles/"), Some(("/v1/users/{id}/roles", Some("x"))));
        assert_eq!(id("/health/live/"), Some(("/health/live", None)));
        for nowhere in [
            "/v1/users//",
            "/v1/users//roles",
            "/v1/users/x/y",
            "/v1/users/x/roles//",
            "/users/x",
            "/v1",
            "/v1/",
            "/",
            "//",
            "",
        ] {
            assert_eq!(id(nowhere), None, "{nowhere}");
        }
    }
}
