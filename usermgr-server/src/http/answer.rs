//! Answers that are no problem.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::net::IpAddr;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::Full;
use serde::ser::Error as _;
use serde::{Serialize, Serializer};
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use usermgr_core::User;
use usermgr_core::domain::audit;
use usermgr_core::domain::email::{Email, EmailKey};
use usermgr_core::domain::event::Event;
use usermgr_core::domain::id::{AuditId, OutboxId, SessionId, UserId};
use usermgr_core::domain::page::PageSize;
use usermgr_core::domain::profile::Profile;
use usermgr_core::domain::role::{Permission, Role, Roles};
use usermgr_core::domain::session::Session;
use usermgr_core::domain::user::{Locale, Username};
use usermgr_core::flow::account::AccountExport;
use usermgr_core::flow::register::{Accepted, CodeSent};
use usermgr_core::flow::sessions::SignedIn;
use usermgr_core::port::store::outbox;
use utoipa::openapi::schema::{Array, ArrayBuilder, ObjectBuilder, SchemaType, Type};
use utoipa::openapi::{Ref, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::openapi::fields;
use super::query::export_cursor;

/// An answer: a status and a body or none.
pub(super) struct Answer {
    status: StatusCode,
    media_type: Option<&'static str>,
    body: Bytes,
    encoding: Encoding,
    policy: Option<&'static str>,
    cache: Option<&'static str>,
    allow: Option<String>,
}

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Identity,
    Gzip,
}

impl Answer {
    pub(super) fn json(status: StatusCode, body: impl Serialize) -> Self {
        match serde_json::to_vec(&body) {
            Ok(body) => Self { status, ..Self::bytes("application/json; charset=utf-8", body.into()) },
            Err(error) => {
                tracing::error!(%error, "an answer could not be written");
                Self::empty(StatusCode::INTERNAL_SERVER_ERROR)
            }
        }
    }

    pub(super) const fn empty(status: StatusCode) -> Self {
        Self {
            status,
            media_type: None,
            body: Bytes::new(),
            encoding: Encoding::Identity,
            policy: None,
            cache: None,
            allow: None,
        }
    }

    /// A body of any type.
    pub(super) fn bytes(media_type: &'static str, body: Bytes) -> Self {
        Self { media_type: Some(media_type), body, ..Self::empty(StatusCode::OK) }
    }

    /// That was compressed.
    pub(super) const fn encoded(mut self, encoding: Encoding) -> Self {
        self.encoding = encoding;
        self
    }

    /// That a browser may do more with than show it.
    pub(super) const fn under(mut self, content_security_policy: &'static str) -> Self {
        self.policy = Some(content_security_policy);
        self
    }

    /// That may be kept by whoever gets it.
    pub(super) const fn cached(mut self, cache: &'static str) -> Self {
        self.cache = Some(cache);
        self
    }

    /// That says which methods there are.
    pub(super) fn allowing(mut self, methods: String) -> Self {
        self.allow = Some(methods);
        self
    }

    pub(super) fn into_response(self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::from(self.body));
        *response.status_mut() = self.status;
        let encoding = (self.encoding == Encoding::Gzip).then_some("gzip");
        let fixed = [
            (header::CONTENT_TYPE, self.media_type),
            (header::CONTENT_ENCODING, encoding),
            (header::CONTENT_SECURITY_POLICY, self.policy),
            (header::CACHE_CONTROL, self.cache),
        ];
        for (name, value) in fixed {
            if let Some(value) = value {
                response.headers_mut().insert(name, HeaderValue::from_static(value));
            }
        }
        if let Some(allow) = self.allow.and_then(|allow| HeaderValue::from_str(&allow).ok()) {
            response.headers_mut().insert(header::ALLOW, allow);
        }
        response
    }
}

/// A time, written as RFC 3339.
struct Time(OffsetDateTime);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.format(&Rfc3339).map_err(S::Error::custom)?)
    }
}

/// A user.
#[derive(Serialize, ToSchema)]
#[schema(as = User)]
pub(crate) struct UserAnswer<'a> {
    #[schema(value_type = fields::Id)]
    id: UserId,
    #[schema(value_type = fields::Email)]
    email: &'a Email,
    /// Whether the user has proven to own the address.
    email_verified: bool,
    #[schema(value_type = Option<fields::Username>, required)]
    username: Option<&'a Username>,
    #[schema(value_type = Vec<fields::RoleName>)]
    roles: &'a Roles,
    #[schema(value_type = fields::UserStatus)]
    status: &'static str,
    #[schema(value_type = Option<fields::Locale>, required)]
    locale: Option<&'a Locale>,
    #[schema(value_type = Option<fields::Profile>, required)]
    profile: Option<&'a Profile>,
    #[schema(value_type = fields::Time)]
    created_at: Time,
    #[schema(value_type = fields::Time)]
    updated_at: Time,
    #[schema(value_type = Option<fields::Time>, required)]
    last_login_at: Option<Time>,
}

impl<'a> From<&'a User> for UserAnswer<'a> {
    fn from(user: &'a User) -> Self {
        Self {
            id: user.id,
            email: &user.email,
            email_verified: user.email_verified(),
            username: user.username.as_ref(),
            roles: &user.roles,
            status: user.status.as_str(),
            locale: user.locale.as_ref(),
            profile: user.profile.as_ref(),
            created_at: Time(user.created_at),
            updated_at: Time(user.updated_at),
            last_login_at: user.last_login_at.map(Time),
        }
    }
}

/// A user whose address was verified.
#[derive(Serialize, ToSchema)]
#[schema(as = Verified)]
pub(super) struct VerifiedAnswer<'a> {
    user: UserAnswer<'a>,
}

impl<'a> From<&'a User> for VerifiedAnswer<'a> {
    fn from(user: &'a User) -> Self {
        Self { user: user.into() }
    }
}

/// A registration was accepted.
#[derive(Serialize, ToSchema)]
#[schema(as = Accepted)]
pub(super) struct AcceptedAnswer<'a> {
    #[schema(value_type = fields::AcceptedStatus, inline)]
    status: &'static str,
    #[schema(value_type = fields::RegistrationToken)]
    registration_id: &'a str,
    /// How long the code will hold, from when its mail is handed over: whole seconds.
    #[schema(minimum = 0)]
    code_ttl: u64,
    /// How long to wait before asking for another: whole seconds.
    #[schema(minimum = 0)]
    resend_after: u64,
}

impl<'a> From<&'a Accepted> for AcceptedAnswer<'a> {
    fn from(accepted: &'a Accepted) -> Self {
        Self {
            status: "verification_required",
            registration_id: accepted.registration.expose(),
            code_ttl: accepted.code_ttl.as_secs(),
            resend_after: accepted.resend_after.as_secs(),
        }
    }
}

/// A code or link was asked for. It says nothing of whether there was one to send.
#[derive(Serialize, ToSchema)]
#[schema(as = CodeSent)]
pub(super) struct CodeSentAnswer {
    #[schema(value_type = fields::CodeSentStatus, inline)]
    status: &'static str,
    /// How long to wait before asking for another: whole seconds.
    #[schema(minimum = 0)]
    resend_after: u64,
}

/// A code or link was asked for.
pub(super) fn code_sent(sent: CodeSent) -> Answer {
    let body = CodeSentAnswer { status: "code_sent", resend_after: sent.resend_after.as_secs() };
    Answer::json(StatusCode::ACCEPTED, body)
}

/// The tokens of somebody who signed in.
#[derive(Serialize, ToSchema)]
#[schema(as = Session)]
pub(super) struct SessionAnswer<'a> {
    #[schema(value_type = fields::AccessToken)]
    access_token: &'a str,
    #[schema(value_type = fields::TokenType, inline)]
    token_type: &'static str,
    /// How long the access token holds: whole seconds.
    #[schema(minimum = 0)]
    expires_in: u64,
    #[schema(value_type = fields::RefreshToken)]
    refresh_token: &'a str,
    /// How long the refresh token holds unless it is used: whole seconds.
    #[schema(minimum = 0)]
    refresh_expires_in: u64,
    user: UserAnswer<'a>,
}

impl<'a> From<&'a SignedIn> for SessionAnswer<'a> {
    fn from(signed_in: &'a SignedIn) -> Self {
        Self {
            access_token: signed_in.access_token.expose(),
            token_type: "Bearer",
            expires_in: signed_in.expires_in.as_secs(),
            refresh_token: signed_in.refresh_token.expose(),
            refresh_expires_in: signed_in.refresh_expires_in.as_secs(),
            user: (&signed_in.user).into(),
        }
    }
}

/// A list that is whole.
#[derive(Serialize)]
pub(super) struct List<T> {
    pub(super) items: Vec<T>,
}

impl<T: ToSchema> PartialSchema for List<T> {
    fn schema() -> RefOr<Schema> {
        let items = Array::new(Ref::from_schema_name(T::name()));
        ObjectBuilder::new().property("items", items).required("items").into()
    }
}

impl<T: ToSchema> ToSchema for List<T> {
    fn name() -> Cow<'static, str> {
        format!("{}List", T::name()).into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((T::name().into_owned(), T::schema()));
        T::schemas(schemas);
    }
}

/// A page of a list.
#[derive(Serialize)]
pub(super) struct Page<T> {
    items: Vec<T>,
    next_cursor: Option<String>,
}

impl<T: ToSchema> PartialSchema for Page<T> {
    fn schema() -> RefOr<Schema> {
        let items = ArrayBuilder::new()
            .items(Ref::from_schema_name(T::name()))
            .max_items(Some(usize::from(PageSize::MAX)));
        let next = ObjectBuilder::new()
            .schema_type(SchemaType::from_iter([Type::String, Type::Null]))
            .description(Some("What to send for the next page; null at the end."));
        let page = ObjectBuilder::new().property("items", items).property("next_cursor", next);
        page.required("items").required("next_cursor").into()
    }
}

impl<T: ToSchema> ToSchema for Page<T> {
    fn name() -> Cow<'static, str> {
        format!("{}Page", T::name()).into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        List::<T>::schemas(schemas);
    }
}

/// A page of a list, and what to ask for to read on.
pub(super) fn page<T: Serialize>(items: impl Iterator<Item = T>, next_cursor: Option<String>) -> Answer {
    Answer::json(StatusCode::OK, Page { items: items.collect(), next_cursor })
}

/// A session as its owner sees it.
#[derive(Serialize, ToSchema)]
#[schema(as = Device)]
pub(super) struct SessionItem<'a> {
    #[schema(value_type = fields::Id)]
    id: SessionId,
    #[schema(value_type = fields::Time)]
    created_at: Time,
    #[schema(value_type = fields::Time)]
    last_seen_at: Time,
    /// When the owner last proved who they are.
    #[schema(value_type = fields::Time)]
    authenticated_at: Time,
    #[schema(value_type = fields::Time)]
    expires_at: Time,
    #[schema(value_type = Option<fields::Address>, required)]
    ip: Option<IpAddr>,
    #[schema(required)]
    user_agent: Option<&'a str>,
    /// Whether it is the session that asks.
    current: bool,
}

impl<'a> SessionItem<'a> {
    pub(super) fn new(session: &'a Session, current: SessionId) -> Self {
        Self {
            id: session.id,
            created_at: Time(session.created_at),
            last_seen_at: Time(session.last_seen_at),
            authenticated_at: Time(session.authenticated_at),
            expires_at: Time(session.idle_expires_at.min(session.expires_at)),
            ip: session.ip,
            user_agent: session.user_agent.as_deref(),
            current: session.id == current,
        }
    }
}

/// A role and what it permits.
#[derive(Serialize, ToSchema)]
#[schema(as = Role)]
pub(crate) struct RoleAnswer<'a> {
    #[schema(value_type = fields::RoleName)]
    name: &'a Role,
    #[schema(value_type = Vec<fields::Permission>)]
    permissions: &'a BTreeSet<Permission>,
    /// Whether it is there without being configured.
    built_in: bool,
}

impl<'a> RoleAnswer<'a> {
    pub(crate) fn new(name: &'a Role, permissions: &'a BTreeSet<Permission>) -> Self {
        let built_in = name.as_str() == Role::USER || name.as_str() == Role::ADMIN;
        Self { name, permissions, built_in }
    }
}

/// An entry of the audit log.
#[derive(Serialize, ToSchema)]
#[schema(as = AuditEntry)]
pub(crate) struct AuditAnswer<'a> {
    #[schema(value_type = fields::Id)]
    id: AuditId,
    #[schema(value_type = fields::Time)]
    at: Time,
    #[schema(value_type = fields::AuditEventName)]
    event: &'static str,
    #[schema(value_type = fields::AuditOutcomeName)]
    outcome: &'static str,
    /// Why it was refused, or what was changed.
    #[schema(required)]
    reason: Option<&'a str>,
    /// Who did it.
    #[schema(value_type = Option<fields::Id>, required)]
    actor_id: Option<UserId>,
    /// To whom it was done.
    #[schema(value_type = Option<fields::Id>, required)]
    user_id: Option<UserId>,
    /// The address it was about, in lower case.
    #[schema(required)]
    email: Option<&'a str>,
    #[schema(value_type = Option<fields::Address>, required)]
    ip: Option<IpAddr>,
    #[schema(required)]
    user_agent: Option<&'a str>,
    #[schema(required)]
    request_id: Option<&'a str>,
}

impl<'a> From<&'a audit::AuditEntry> for AuditAnswer<'a> {
    fn from(entry: &'a audit::AuditEntry) -> Self {
        Self {
            id: entry.id,
            at: Time(entry.at),
            event: entry.event.as_str(),
            outcome: entry.outcome.as_str(),
            reason: entry.reason.as_deref(),
            actor_id: entry.actor,
            user_id: entry.subject,
            email: entry.email.as_ref().map(EmailKey::as_str),
            ip: entry.ip,
            user_agent: entry.user_agent.as_deref(),
            request_id: entry.request_id.as_deref(),
        }
    }
}

/// A mail that is or was owed. No code and no link is in it.
#[derive(Serialize, ToSchema)]
#[schema(as = OutboxEntry)]
pub(crate) struct OutboxAnswer<'a> {
    #[schema(value_type = fields::Id)]
    id: OutboxId,
    #[schema(value_type = fields::MailName)]
    name: &'static str,
    #[schema(value_type = fields::Email)]
    to: &'a str,
    #[schema(value_type = fields::OutboxStatus)]
    status: &'static str,
    attempts: u32,
    #[schema(value_type = fields::Time)]
    created_at: Time,
    #[schema(value_type = fields::Time)]
    due_at: Time,
    #[schema(value_type = Option<fields::Time>, required)]
    settled_at: Option<Time>,
    #[schema(value_type = Option<fields::DeliveryError>, required)]
    error: Option<&'a str>,
}

impl<'a> From<&'a outbox::OutboxEntry> for OutboxAnswer<'a> {
    fn from(entry: &'a outbox::OutboxEntry) -> Self {
        Self {
            id: entry.mail.id,
            name: entry.mail.kind.as_str(),
            to: entry.mail.to.as_str(),
            status: entry.status.as_str(),
            attempts: entry.attempts,
            created_at: Time(entry.mail.created_at),
            due_at: Time(entry.due_at),
            settled_at: entry.settled_at.map(Time),
            error: entry.error.as_deref(),
        }
    }
}

/// An event, as the core writes it.
#[derive(Serialize)]
#[serde(transparent)]
pub(super) struct EventItem(pub(super) Event);

impl PartialSchema for EventItem {
    fn schema() -> RefOr<Schema> {
        fields::Event::schema()
    }
}

impl ToSchema for EventItem {
    fn name() -> Cow<'static, str> {
        fields::Event::name()
    }
}

/// A mail will be sent again.
#[derive(Serialize, ToSchema)]
#[schema(as = Queued)]
pub(super) struct QueuedAnswer {
    #[schema(value_type = fields::QueuedStatus, inline)]
    pub(super) status: &'static str,
}

/// Everything held about a user, for the user. `docs/export.md` says what each part is.
#[derive(Serialize, ToSchema)]
#[schema(as = Export)]
pub(super) struct ExportAnswer<'a> {
    #[schema(value_type = fields::ExportFormat, inline)]
    format: &'static str,
    user: UserAnswer<'a>,
    #[schema(value_type = Option<fields::Time>, required)]
    email_verified_at: Option<Time>,
    sessions: Vec<SessionItem<'a>>,
    #[schema(max_items = 1000)]
    audit: Vec<AuditAnswer<'a>>,
    #[schema(max_items = 1000)]
    outbox: Vec<OutboxAnswer<'a>>,
    /// What to send as `cursor` for the next part; null at the end.
    #[schema(value_type = Option<String>, required)]
    next_cursor: Option<String>,
}

impl<'a> ExportAnswer<'a> {
    pub(super) fn new(held: &'a AccountExport, current: SessionId) -> Self {
        Self {
            format: "usermgr-export-1",
            user: (&held.user).into(),
            email_verified_at: held.user.email_verified_at.map(Time),
            sessions: held.sessions.iter().map(|item| SessionItem::new(item, current)).collect(),
            audit: held.audit.iter().map(AuditAnswer::from).collect(),
            outbox: held.outbox.iter().map(OutboxAnswer::from).collect(),
            next_cursor: held.next.map(export_cursor),
        }
    }
}

/// What a program says of itself.
#[derive(Serialize, ToSchema)]
#[schema(as = Health)]
pub(super) struct HealthAnswer {
    #[schema(value_type = fields::HealthStatus, inline)]
    pub(super) status: &'static str,
}

/// The public keys that verify access tokens (RFC 7517).
#[derive(ToSchema)]
#[schema(as = JsonWebKeySet)]
#[expect(dead_code, reason = "describes what the core writes")]
pub(super) struct JsonWebKeySet {
    #[schema(value_type = fields::JsonWebKeys)]
    keys: Value,
}

/// A user, for the command line.
#[cfg(feature = "program")]
pub(crate) fn user_json(user: &User) -> Value {
    as_json(UserAnswer::from(user))
}

/// A role, for the command line.
#[cfg(feature = "program")]
pub(crate) fn role_json(name: &Role, permissions: &BTreeSet<Permission>) -> Value {
    as_json(RoleAnswer::new(name, permissions))
}

/// An entry of the audit log, for the command line.
#[cfg(feature = "program")]
pub(crate) fn audit_json(entry: &audit::AuditEntry) -> Value {
    as_json(AuditAnswer::from(entry))
}

/// A mail, for the command line.
#[cfg(feature = "program")]
pub(crate) fn outbox_json(entry: &outbox::OutboxEntry) -> Value {
    as_json(OutboxAnswer::from(entry))
}

/// Everything held about a user, for its page.
pub(crate) fn export_json(held: &AccountExport, current: SessionId) -> Value {
    as_json(ExportAnswer::new(held, current))
}

fn as_json(answer: impl Serialize) -> Value {
    serde_json::to_value(answer).unwrap_or_default()
}
