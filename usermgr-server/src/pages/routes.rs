//! Which path and method leads to which page. One file for each flow.

use http::Method;

use super::reply::Reply;
use super::visit::Visit;
use super::{account, audit, devices, email, first_time_setup, language, mails, password, reset, sign_in};
use super::{sign_up, users};
use crate::http::problem::Problem;
use crate::http::without_slash;

/// What can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Page {
    Home,
    SignUp,
    BeginSignUp,
    SignUpCode,
    FinishSignUp,
    ResendSignUpCode,
    SignIn,
    EnterSignIn,
    SignOut,
    Forgot,
    SendResetLink,
    ResetLinkSent,
    Reset,
    SetPassword,
    UndoEmail,
    ConfirmUndoEmail,
    Setup,
    FinishSetup,
    ResendSetupCode,
    SetLanguage,
    Account,
    SaveAccount,
    Email,
    BeginEmailChange,
    EmailCode,
    FinishEmailChange,
    Password,
    ChangePassword,
    Devices,
    EndDevice,
    EndOtherDevices,
    Data,
    Export,
    DeleteAccount,
    Admin,
    Users,
    Invite,
    SendInvitation,
    User,
    SetRoles,
    SetStatus,
    EndSessions,
    ConfirmDeleteUser,
    DeleteUser,
    Mails,
    RetryMail,
    Audit,
    Style,
    Logo,
    Nowhere,
}

/// Who may ask for a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Everybody,
    /// Only who is signed in. What else an administrator's page asks for, the core decides.
    SignedIn,
}

const ROUTES: &[(Method, &str, Page)] = &[
    (Method::GET, "/", Page::Home),
    (Method::GET, "/sign-up", Page::SignUp),
    (Method::POST, "/sign-up", Page::BeginSignUp),
    (Method::GET, "/sign-up/code", Page::SignUpCode),
    (Method::POST, "/sign-up/code", Page::FinishSignUp),
    (Method::POST, "/sign-up/resend", Page::ResendSignUpCode),
    (Method::GET, "/sign-in", Page::SignIn),
    (Method::POST, "/sign-in", Page::EnterSignIn),
    (Method::POST, "/sign-out", Page::SignOut),
    (Method::GET, "/forgot-password", Page::Forgot),
    (Method::POST, "/forgot-password", Page::SendResetLink),
    (Method::GET, "/forgot-password/sent", Page::ResetLinkSent),
    (Method::GET, "/reset-password", Page::Reset),
    (Method::POST, "/reset-password", Page::SetPassword),
    (Method::GET, "/undo-email-change", Page::UndoEmail),
    (Method::POST, "/undo-email-change", Page::ConfirmUndoEmail),
    (Method::GET, "/first-time-setup", Page::Setup),
    (Method::POST, "/first-time-setup", Page::FinishSetup),
    (Method::POST, "/first-time-setup/resend", Page::ResendSetupCode),
    (Method::POST, "/language", Page::SetLanguage),
    (Method::GET, "/account", Page::Account),
    (Method::POST, "/account", Page::SaveAccount),
    (Method::GET, "/account/email", Page::Email),
    (Method::POST, "/account/email", Page::BeginEmailChange),
    (Method::GET, "/account/email/code", Page::EmailCode),
    (Method::POST, "/account/email/code", Page::FinishEmailChange),
    (Method::GET, "/account/password", Page::Password),
    (Method::POST, "/account/password", Page::ChangePassword),
    (Method::GET, "/account/devices", Page::Devices),
    (Method::POST, "/account/devices/{id}/end", Page::EndDevice),
    (Method::POST, "/account/devices/end-others", Page::EndOtherDevices),
    (Method::GET, "/account/data", Page::Data),
    (Method::POST, "/account/export", Page::Export),
    (Method::POST, "/account/delete", Page::DeleteAccount),
    (Method::GET, "/admin", Page::Admin),
    (Method::GET, "/admin/users", Page::Users),
    (Method::GET, "/admin/invite", Page::Invite),
    (Method::POST, "/admin/invite", Page::SendInvitation),
    (Method::GET, "/admin/users/{id}", Page::User),
    (Method::POST, "/admin/users/{id}/roles", Page::SetRoles),
    (Method::POST, "/admin/users/{id}/status", Page::SetStatus),
    (Method::POST, "/admin/users/{id}/sessions", Page::EndSessions),
    (Method::GET, "/admin/users/{id}/delete", Page::ConfirmDeleteUser),
    (Method::POST, "/admin/users/{id}/delete", Page::DeleteUser),
    (Method::GET, "/admin/mails", Page::Mails),
    (Method::POST, "/admin/mails/{id}/retry", Page::RetryMail),
    (Method::GET, "/admin/audit", Page::Audit),
    (Method::GET, "/pages/style.css", Page::Style),
    (Method::GET, "/pages/logo", Page::Logo),
];

/// A path that leads somewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found<'a> {
    /// The path, with `{id}` where an identifier stands.
    pub(crate) pattern: &'static str,
    /// The identifier, as it came.
    pub(super) id: Option<&'a str>,
}

/// A path that leads nowhere, which a browser is told by a page.
pub(super) const NOWHERE: Found<'static> = Found { pattern: "-", id: None };

/// Where a path leads. A slash at the end means nothing.
pub(super) fn find(path: &str) -> Option<Found<'_>> {
    let path = without_slash(path);
    ROUTES.iter().find_map(|(_, pattern, _)| Some(Found { pattern, id: matches(pattern, path)? }))
}

/// Whether a path is one of this pattern, and the identifier in it.
#[expect(clippy::option_option, reason = "outside: does it fit; inside: is there an identifier")]
fn matches<'a>(pattern: &str, path: &'a str) -> Option<Option<&'a str>> {
    let Some((before, after)) = pattern.split_once("{id}") else { return (pattern == path).then_some(None) };
    let id = path.strip_prefix(before)?.strip_suffix(after)?;
    (!id.is_empty() && !id.contains('/')).then_some(Some(id))
}

impl Found<'_> {
    /// Where a method leads.
    pub(super) fn page(&self, method: &Method) -> Option<Page> {
        if self.pattern == NOWHERE.pattern {
            return Some(Page::Nowhere);
        }
        let asked = if method == Method::HEAD { &Method::GET } else { method };
        let fits = |(known, pattern, _): &&(Method, &str, Page)| known == asked && *pattern == self.pattern;
        ROUTES.iter().find(fits).map(|(_, _, page)| *page)
    }

    /// The methods that the path takes, as `Allow` names them.
    pub(super) fn allowed(&self) -> String {
        let mut allowed: Vec<&str> = Vec::new();
        for (method, pattern, _) in ROUTES {
            if *pattern == self.pattern {
                allowed.push(method.as_str());
            }
        }
        if allowed.contains(&"GET") {
            allowed.push("HEAD");
        }
        allowed.push("OPTIONS");
        allowed.join(", ")
    }
}

impl Page {
    pub(super) fn access(self) -> Access {
        let of = |prefix: &str| {
            ROUTES.iter().any(|(_, pattern, page)| *page == self && pattern.starts_with(prefix))
        };
        if of("/account") || of("/admin") { Access::SignedIn } else { Access::Everybody }
    }

    pub(super) async fn run(self, visit: &Visit<'_>) -> Result<Reply, Problem> {
        match self {
            Self::Home => Ok(sign_in::home(visit)),
            Self::SignUp => Ok(sign_up::show(visit)),
            Self::BeginSignUp => sign_up::begin(visit).await,
            Self::SignUpCode => Ok(sign_up::show_code(visit)),
            Self::FinishSignUp => sign_up::finish(visit).await,
            Self::ResendSignUpCode => sign_up::resend(visit).await,
            Self::SignIn => Ok(sign_in::show(visit)),
            Self::EnterSignIn => sign_in::enter(visit).await,
            Self::SignOut => sign_in::leave(visit).await,
            Self::Forgot => Ok(reset::show_forgot()),
            Self::SendResetLink => reset::send(visit).await,
            Self::ResetLinkSent => Ok(reset::sent(visit)),
            Self::Reset => Ok(reset::show(visit)),
            Self::SetPassword => reset::set(visit).await,
            Self::UndoEmail => Ok(email::show_undo()),
            Self::ConfirmUndoEmail => email::undo(visit).await,
            Self::Setup => Ok(first_time_setup::show(visit)),
            Self::FinishSetup => first_time_setup::finish(visit).await,
            Self::ResendSetupCode => first_time_setup::resend(visit).await,
            Self::SetLanguage => language::set(visit),
            Self::Account => account::show(visit),
            Self::SaveAccount => account::save(visit).await,
            Self::Email => email::show(visit),
            Self::BeginEmailChange => email::begin(visit).await,
            Self::EmailCode => email::show_code(visit),
            Self::FinishEmailChange => email::finish(visit).await,
            Self::Password => password::show(visit),
            Self::ChangePassword => password::change(visit).await,
            Self::Devices => devices::list(visit).await,
            Self::EndDevice => devices::end(visit).await,
            Self::EndOtherDevices => devices::end_others(visit).await,
            Self::Data => account::data(visit),
            Self::Export => account::export(visit).await,
            Self::DeleteAccount => account::delete(visit).await,
            Self::Admin => users::home(visit).await,
            Self::Users => users::list(visit).await,
            Self::Invite => users::show_invite(visit).await,
            Self::SendInvitation => users::invite(visit).await,
            Self::User => users::show(visit).await,
            Self::SetRoles => users::set_roles(visit).await,
            Self::SetStatus => users::set_status(visit).await,
            Self::EndSessions => users::end_sessions(visit).await,
            Self::ConfirmDeleteUser => users::confirm_delete(visit).await,
            Self::DeleteUser => users::delete(visit).await,
            Self::Mails => mails::list(visit).await,
            Self::RetryMail => mails::retry(visit).await,
            Self::Audit => audit::list(visit).await,
            Self::Style => Ok(visit.pages.style()),
            Self::Logo => Ok(visit.pages.logo()),
            Self::Nowhere => Err(Problem::not_found()),
        }
    }
}

/// Where to go after signing in: a page for who is signed in, of this server, and nowhere else.
///
/// # Security
/// CWE-601: what is answered is made of what was found, never a host, and begins with the path of a page.
pub(super) fn safe_next(wanted: &str) -> Option<String> {
    let (path, query) = wanted.split_once('?').map_or((wanted, None), |(path, query)| (path, Some(query)));
    let page = find(path)?.page(&Method::GET)?;
    let plain = |text: &str| {
        text.len() <= 512 && text.bytes().all(|b| b.is_ascii_graphic() && b != b'\\' && b != b'#')
    };
    let fits = page.access() == Access::SignedIn && plain(path) && query.is_none_or(plain);
    fits.then(|| wanted.to_owned())
}

/// The page that a form stands on, for who is to come back to it: as [`safe_next`], of any page.
pub(super) fn safe_return(wanted: &str) -> Option<String> {
    let page = find(wanted)?.page(&Method::GET)?;
    let plain = wanted.len() <= 512 && wanted.bytes().all(|b| b.is_ascii_graphic() && b != b'\\');
    (plain && !matches!(page, Page::Style | Page::Logo)).then(|| wanted.to_owned())
}

/// The page to read before the form of this pattern can be sent again.
pub(super) fn page_of_form(path: &str) -> String {
    let mut path = path;
    while find(path).and_then(|found| found.page(&Method::GET)).is_none() {
        match path.rsplit_once('/') {
            Some((shorter, _)) if !shorter.is_empty() => path = shorter,
            _ => return "/".to_owned(),
        }
    }
    path.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_has_one_path() {
        for (method, pattern, page) in ROUTES {
            let path = pattern.replace("{id}", "x");
            let found = find(&path).unwrap();
            assert_eq!(found.pattern, *pattern);
            assert_eq!(found.page(method), Some(*page));
        }
        assert_eq!(find("/sign-in/"), find("/sign-in"));
        assert_eq!(find("/admin/users/x/").unwrap().id, Some("x"));
        for nowhere in ["", "//", "/sign-in//", "/account/devices//end", "/admin/users/x/y", "/v1/users"] {
            assert_eq!(find(nowhere), None, "{nowhere}");
        }
        assert_eq!(find("/sign-in").unwrap().allowed(), "GET, POST, HEAD, OPTIONS");
    }

    #[test]
    fn nobody_is_led_elsewhere_after_signing_in() {
        for fine in ["/account", "/account/devices", "/admin/users?q=ana&status=active", "/admin/users/x"] {
            assert_eq!(safe_next(fine).as_deref(), Some(fine));
        }
        for bad in [
            "",
            "/",
            "//",
            "//evil.example",
            "///evil.example",
            "/\\evil.example",
            "\\\\evil.example",
            "/\\/evil.example",
            "https://evil.example",
            "http:evil.example",
            "https:/evil.example",
            "https:evil.example",
            "javascript:alert(1)",
            "data:text/html,x",
            "/account//evil.example",
            "/account\\evil.example",
            "/account/../../evil.example",
            "/account@evil.example",
            "/account.evil.example",
            "@evil.example",
            ".evil.example",
            "evil.example",
            "/%2f%2fevil.example",
            "/account%0d%0aset-cookie:x",
            "/account\r\nset-cookie: x",
            "/account?x=\r\nset-cookie: x",
            "/account#//evil.example",
            "/account?x#y",
            "\t//evil.example",
            " /account",
            "/account ",
            "/sign-in",
            "/sign-out",
            "/pages/logo",
            "/admin/users//",
        ] {
            assert_eq!(safe_next(bad), None, "{bad:?}");
        }
        assert_eq!(safe_return("/sign-in").as_deref(), Some("/sign-in"));
        for bad in
            ["//evil.example", "/sign-out", "/pages/logo", "/sign-in?x", "https://evil.example/sign-in"]
        {
            assert_eq!(safe_return(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_form_that_cannot_be_sent_leads_to_its_page() {
        for (form, page) in [
            ("/account/devices/x/end", "/account/devices"),
            ("/account/delete", "/account"),
            ("/admin/users/x/roles", "/admin/users/x"),
            ("/admin/mails/x/retry", "/admin/mails"),
        ] {
            assert_eq!(page_of_form(form), page);
        }
    }
}
