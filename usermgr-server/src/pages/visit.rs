//! A request as a page sees it, and who makes it.

use serde_json::{Value, json};
use usermgr_core::domain::role::Permission;
use usermgr_core::flow::permission::Principal;
use usermgr_core::flow::sessions::Authenticated;
use usermgr_core::{AccessToken, ClientContext, Error, Password, RefreshToken, UserManager};

use super::Pages;
use super::cookies::{Carried, Change, Kind, Naming};
use super::form::{Form, FormState};
use super::reply::{Reply, with_form};
use crate::http::problem::{Language, Problem};

/// A request as a page sees it.
pub(super) struct Visit<'a> {
    pub(super) manager: &'a UserManager,
    pub(super) pages: &'a Pages,
    pub(super) path: &'a str,
    pub(super) query: Form,
    pub(super) id: Option<&'a str>,
    pub(super) form: Form,
    pub(super) client: ClientContext,
    pub(super) language: Language,
    pub(super) carried: Carried,
    pub(super) caller: Option<Authenticated>,
    /// When it is, in seconds since 1970.
    pub(super) now: i64,
}

impl Visit<'_> {
    /// Who is signed in.
    pub(super) fn caller(&self) -> Result<&Authenticated, Problem> {
        self.caller.as_ref().ok_or_else(|| Problem::from(Error::MissingToken))
    }

    /// On whose authority an administrator's page acts.
    pub(super) fn principal(&self) -> Result<Principal<'_>, Problem> {
        self.caller().map(Principal::User)
    }

    /// The current password of who is signed in, where a form asked for it.
    pub(super) fn password(&self) -> Option<Password> {
        self.form.optional("password").map(Password::new)
    }

    /// Whether who is signed in may do something, to show what they can use. The core decides when they use it.
    pub(super) fn may(&self, permission: &Permission) -> bool {
        let roles = &self.manager.policies().roles;
        self.caller.as_ref().is_some_and(|caller| roles.permit(&caller.user.roles, permission))
    }

    /// The identifier in the path. What is none names nothing.
    pub(super) fn id<T: std::str::FromStr>(&self) -> Result<T, Problem> {
        self.id.and_then(|id| id.parse().ok()).ok_or_else(Problem::not_found)
    }

    /// A page with its form again, after a refusal that another form can mend.
    ///
    /// # Errors
    /// The refusal, when it cannot.
    pub(super) fn again(
        &self,
        template: &'static str,
        form: FormState,
        (error, password): (Error, Option<&str>),
        values: Value,
    ) -> Result<Reply, Problem> {
        let (form, problem) = form.refused(error, password, self.language)?;
        Ok(Reply::refused(template, with_form(&form, values), &problem))
    }

    /// The second in which so long a time has passed for sure, since 1970.
    pub(super) fn later(&self, wait: std::time::Duration) -> i64 {
        self.now.saturating_add_unsigned(wait.as_secs()).saturating_add(1)
    }

    /// In how many seconds another code may be asked for.
    pub(super) fn resend_after(&self) -> i64 {
        self.carried.resend_at.map_or(0, |at| (at - self.now).clamp(0, 3600))
    }

    /// Who is signed in, as pages show them.
    pub(super) fn caller_shown(&self) -> Value {
        let Some(Authenticated { user, .. }) = &self.caller else { return Value::Null };
        json!({ "email": user.email.as_str(), "username": user.username.as_ref().map(ToString::to_string) })
    }

    /// The sections that who is signed in can read, and which of them this page is in.
    pub(super) fn sections(&self) -> Value {
        if self.caller.is_none() {
            return json!([]);
        }
        let own = [
            ("section_account", "/account"),
            ("section_email", "/account/email"),
            ("section_password", "/account/password"),
            ("section_devices", "/account/devices"),
            ("section_data", "/account/data"),
        ];
        let administration = [
            ("section_users", "/admin/users", Permission::USERS_READ),
            ("section_mails", "/admin/mails", Permission::OUTBOX_MANAGE),
            ("section_audit", "/admin/audit", Permission::AUDIT_READ),
        ];
        let word = |name: &'static str| self.pages.word(self.language, name);
        let of = |path: &str| self.path == path || self.path.starts_with(&format!("{path}/"));
        let administered = administration.iter().filter(|(_, _, permission)| self.may(permission));
        let in_administration = self.path.starts_with("/admin");
        let shown: Vec<Value> = if in_administration {
            administered
                .map(|(name, path, _)| {
                    let current = of(path) || (*path == "/admin/users" && self.path == "/admin/invite");
                    json!({ "name": word(name), "path": path, "current": current })
                })
                .collect()
        } else {
            own.iter()
                .map(|(name, path)| {
                    let current = if *path == "/account" { self.path == *path } else { of(path) };
                    json!({ "name": word(name), "path": path, "current": current })
                })
                .collect()
        };
        Value::Array(shown)
    }

    /// Whether there is a page of the administration for who is signed in.
    pub(super) fn administers(&self) -> bool {
        [Permission::USERS_READ, Permission::OUTBOX_MANAGE, Permission::AUDIT_READ]
            .iter()
            .any(|permission| self.may(permission))
    }
}

/// Who the cookies say is signed in, and what becomes of the cookies.
///
/// # Errors
/// When the store cannot tell: nobody is signed out for that.
pub(super) async fn recognise(
    manager: &UserManager,
    naming: Naming,
    headers: &http::HeaderMap,
    client: &ClientContext,
) -> Result<(Option<Authenticated>, Option<Change>), Problem> {
    let sessions = manager.sessions();
    let over = |error: &Error| matches!(error, Error::InvalidToken | Error::SessionEnded);
    let access = naming.read(headers, Kind::Access);
    if let Some(access) = access {
        match sessions.authenticate(&AccessToken::new(access)).await {
            Ok(caller) => return Ok((Some(caller), None)),
            Err(error) if over(&error) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let Some(refresh) = naming.read(headers, Kind::Refresh) else {
        return Ok((None, access.map(|_| Change::SignedOut)));
    };
    match sessions.refresh(&RefreshToken::new(refresh), client).await {
        Ok(renewed) => {
            let caller = sessions.authenticate(&renewed.access_token).await;
            match caller {
                Ok(caller) => Ok((Some(caller), Some(Change::SignedIn(Box::new(renewed))))),
                Err(error) if over(&error) => Ok((None, Some(Change::SignedOut))),
                Err(error) => Err(error.into()),
            }
        }
        Err(error) if over(&error) => Ok((None, Some(Change::SignedOut))),
        Err(error) => Err(error.into()),
    }
}
