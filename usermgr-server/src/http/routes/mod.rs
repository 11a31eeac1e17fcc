//! Which path and method leads to which route. One file for each namespace.

mod account;
mod operations;
mod passwords;
mod registration;
mod sessions;

use std::collections::BTreeMap;

use http::Method;

use super::Call;
use super::answer::Answer;
use super::problem::Problem;

/// What can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    Logout,
    Me,
    Live,
    Ready,
    Jwks,
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
    (Method::POST, "/sessions/logout", Endpoint::Logout),
    (Method::GET, "/users/me", Endpoint::Me),
];

/// At the root.
const ROOT_ROUTES: &[(Method, &str, Endpoint)] = &[
    (Method::GET, "/health/live", Endpoint::Live),
    (Method::GET, "/health/ready", Endpoint::Ready),
    (Method::GET, "/.well-known/jwks.json", Endpoint::Jwks),
];

/// The routes under one base path.
pub(super) struct Routes(BTreeMap<String, Vec<(Method, Endpoint)>>);

impl Routes {
    pub(super) fn new(base_path: &str) -> Self {
        let base_path = base_path.trim_end_matches('/');
        let under_base =
            ROUTES.iter().map(|(method, path, endpoint)| (format!("{base_path}{path}"), method, endpoint));
        let at_root =
            ROOT_ROUTES.iter().map(|(method, path, endpoint)| ((*path).to_owned(), method, endpoint));
        let mut routes: BTreeMap<String, Vec<(Method, Endpoint)>> = BTreeMap::new();
        for (path, method, endpoint) in under_base.chain(at_root) {
            routes.entry(path).or_default().push((method.clone(), *endpoint));
        }
        Self(routes)
    }

    /// The route of a path, and what its methods lead to.
    pub(super) fn find(&self, path: &str) -> Option<(&str, &[(Method, Endpoint)])> {
        self.0.get_key_value(path).map(|(path, methods)| (path.as_str(), methods.as_slice()))
    }
}

impl Endpoint {
    pub(super) async fn run(self, call: &Call<'_>) -> Result<Answer, Problem> {
        match self {
            Self::Register => registration::register(call).await,
            Self::Verify => registration::verify(call).await,
            Self::Activate => registration::activate(call).await,
            Self::ResendCode => registration::resend_code(call).await,
            Self::SetPasswordWithEmailCode => registration::set_password_with_email_code(call).await,
            Self::RequestCode => passwords::request_code(call).await,
            Self::SetWithCode => passwords::set_with_code(call).await,
            Self::Forgot => passwords::forgot(call).await,
            Self::Reset => passwords::reset(call).await,
            Self::ChangePassword => passwords::change(call).await,
            Self::Login => sessions::login(call).await,
            Self::Logout => sessions::logout(call).await,
            Self::Me => account::me(call).await,
            Self::Live => Ok(operations::live()),
            Self::Ready => operations::ready(call).await,
            Self::Jwks => operations::jwks(call).await,
        }
    }
}
