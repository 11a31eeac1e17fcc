//! What texts and numbers look like in the document. The bounds are those that the code checks with.

use serde_json::{Value, json};
use usermgr_core::CodePurpose;
use usermgr_core::crypto::password_text::NormalizedPassword;
use usermgr_core::domain::audit::{AuditEvent, AuditOutcome};
use usermgr_core::domain::event::EventKind;
use usermgr_core::domain::mail::MailKind;
use usermgr_core::domain::page::PageSize;
use usermgr_core::domain::role::Permission as CorePermission;
use usermgr_core::domain::undeliverable::UndeliverableReason as UndeliverableReasons;
use usermgr_core::domain::user::UserStatus as CoreUserStatus;
use usermgr_core::domain::{email, role, user};
use usermgr_core::port::store::outbox::{OutboxEntry, OutboxStatus as CoreOutboxStatus};
use utoipa::openapi::schema::{Array, KnownFormat, ObjectBuilder, SchemaFormat, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::http::query::Query;

/// A text without control characters (Unicode `Cc`).
const NO_CONTROLS: &str = r"^[^\u0000-\u001f\u007f-\u009f]*$";
/// An identifier of this interface in an example.
pub(super) const EXAMPLE_ID: &str = "0198c3a4-7b1e-7c3d-9a50-3f6f1d2e4b7a";

fn text(description: &str) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String).description(Some(description))
}

fn secret(description: &str) -> ObjectBuilder {
    text(description).format(Some(SchemaFormat::KnownFormat(KnownFormat::Password)))
}

fn one_of<'a>(description: &str, names: impl IntoIterator<Item = &'a str>) -> ObjectBuilder {
    text(description).enum_values(Some(names.into_iter().map(Value::from)))
}

macro_rules! field {
    ($name:ident = $schema:expr) => {
        /// Stands for its schema.
        pub(in crate::http) enum $name {}

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                $schema.into()
            }
        }

        impl ToSchema for $name {}
    };
}

field!(
    Id = text("A UUID (version 7), in its one spelling with hyphens.")
        .format(Some(SchemaFormat::Custom("uuid".into())))
        .examples([EXAMPLE_ID])
);
field!(
    Time = text("A time in UTC (RFC 3339).")
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
        .examples(["2026-03-01T09:30:00Z"])
);
field!(
    Email = text("A mail address. The domain may have letters of any script; it is kept in ASCII.")
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Email)))
        .max_length(Some(email::Email::MAX))
        .examples(["ana@example.org"])
);
field!(
    Password = secret("A password, as it was set.")
        .min_length(Some(1))
        .max_length(Some(NormalizedPassword::MAX_CHARS))
        .pattern(Some(NO_CONTROLS))
        .examples(["correct horse battery"])
);
field!(
    NewPassword = secret(
        "A password to be set: any characters but control characters, counted after normalisation (NFC). Common \
         passwords, the address and the username are refused."
    )
    .min_length(Some(usermgr_core::policy::PasswordPolicy::default().min_length))
    .max_length(Some(NormalizedPassword::MAX_CHARS))
    .pattern(Some(NO_CONTROLS))
    .examples(["correct horse battery"])
);
field!(
    Code = text("The digits of a mailed code. Spaces between them do not count.")
        .min_length(Some(1))
        .max_length(Some(64))
        .pattern(Some("^ *[0-9][0-9 ]*$"))
        .examples(["123456"])
);
field!(
    LinkToken = secret("What stands behind `#token=` in a mailed link.")
        .min_length(Some(1))
        .examples(["AZjDpHsefD2aUD9vHS5LejE0x0mQ1l2rZk8vT3sYw0cAZjDpHsefD2aUD9vHS5L"])
);
field!(
    RegistrationToken =
        text("Names one registration. Opaque.").examples(["AZjDpHsefD2aUD9vHS5LejE0x0mQ1l2rZk8vT3sYw0c"])
);
field!(
    AccessToken = secret("For `Authorization: Bearer`. Opaque to the client.")
        .min_length(Some(1))
        .examples(["eyJ0eXAiOiJhdCtqd3QiLCJhbGciOiJFZERTQSJ9.eyJzdWIiOiIwMTk4In0.c2ln"])
);
field!(
    RefreshToken = secret("Renews the session, once. Opaque.")
        .min_length(Some(1))
        .examples(["umr_AZjDpHsefD2aUD9vHS5LejE0x0mQ1l2rZk8vT3sYw0cAZjDpHsefD2aUD9vHS5Lej"])
);
/// Characters that no name holds, wherever they stand. Joiners and variation selectors are taken in some places, so they are left
/// out, and so is what needs two units of UTF-16, which a pattern cannot name for every reader.
macro_rules! invisible {
    () => {
        r"\u0000-\u001f\u007f-\u009f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u2800\u3164\ufeff\uffa0\ufff0-\ufffb"
    };
}

field!(
    Username = text("A name to show: any characters but control characters and invisible ones, at least one of them no blank.")
        .min_length(Some(1))
        .max_length(Some(user::Username::MAX))
        .pattern(Some(
            concat!("^[^", invisible!(), "]*[^", invisible!(), r"\s][^", invisible!(), "]*$")
        ))
        .examples(["Ana"])
);
field!(
    Locale = text("A language tag (BCP 47).")
        .max_length(Some(user::Locale::MAX))
        .pattern(Some("^[A-Za-z]{2,3}(-[A-Za-z0-9]{1,8})*$"))
        .examples(["es-MX"])
);
field!(
    Profile = ObjectBuilder::new()
        .additional_properties(Some(utoipa::openapi::schema::AdditionalProperties::FreeForm(true)))
        .description(Some("What the host keeps of the user. Its members are the host's."))
);
field!(
    NewProfile = ObjectBuilder::new()
        .additional_properties(Some(utoipa::openapi::schema::AdditionalProperties::FreeForm(true)))
        .description(Some(
            "What the host keeps of the user, as a whole: at most 8 KiB and 16 levels. Its members are the host's, which \
             checks them."
        ))
);
field!(
    Extra = ObjectBuilder::new()
        .additional_properties(Some(utoipa::openapi::schema::AdditionalProperties::FreeForm(true)))
        .description(Some(
            "What the host asks for, such as the token of an invitation: at most 8 KiB and 16 levels. It is not kept."
        ))
);
field!(
    RefusalReason = text("Why the host refuses it, as a word of the host's: stable.")
        .max_length(Some(usermgr_core::domain::refusal::Refusal::MAX_REASON))
        .pattern(Some("^[a-z][a-z0-9_]*$"))
        .examples(["invite_needed"])
);
field!(
    RoleName = text("The name of a role.")
        .max_length(Some(role::Role::MAX))
        .pattern(Some("^[a-z][a-z0-9_-]*$"))
        .examples(["user"])
);
field!(DefinedRole = one_of("A role that is defined.", [role::Role::USER, role::Role::ADMIN]));
field!(
    Permission = text(&format!(
        "What a role permits. Built in: {}.",
        CorePermission::ALL.iter().map(|known| format!("`{known}`")).collect::<Vec<_>>().join(", ")
    ))
    .pattern(Some("^[a-z0-9_-]+:[a-z0-9_-]+$"))
    .examples(["users:read"])
);
field!(
    UserStatus = one_of(
        "Whether the user can sign in.",
        [CoreUserStatus::Active, CoreUserStatus::Disabled].map(CoreUserStatus::as_str)
    )
);
field!(
    Purpose = one_of(
        "What a code is good for.",
        // A code of the other purpose sets no password.
        CodePurpose::ALL
            .iter()
            .filter(|known| **known != CodePurpose::ChangeEmail)
            .map(|known| known.as_str())
    )
);
field!(AuditEventName = one_of("What was done or tried.", AuditEvent::ALL.map(AuditEvent::as_str)));
field!(
    AuditOutcomeName =
        one_of("How it ended.", [AuditOutcome::Done, AuditOutcome::Refused].map(AuditOutcome::as_str))
);
field!(MailName = one_of("Which mail it is.", MailKind::ALL.map(MailKind::as_str)));
field!(
    OutboxStatus = one_of(
        "`queued`, `sent`, given up (`dead`), or without a use any more (`void`).",
        CoreOutboxStatus::ALL.map(CoreOutboxStatus::as_str)
    )
);
field!(DeliveryError = text("What the mail server said last.").max_length(Some(OutboxEntry::MAX_ERROR)));
field!(Address = text("The client's address.").examples(["203.0.113.9"]));
field!(
    Seconds = ObjectBuilder::new()
        .schema_type(Type::Integer)
        .minimum(Some(0))
        .description(Some("Whole seconds."))
        .examples([json!(30)])
);
field!(
    Limit = ObjectBuilder::new()
        .schema_type(Type::Integer)
        .description(Some("A number of items."))
        .minimum(Some(1))
        .maximum(Some(PageSize::MAX))
        .default(Some(json!(PageSize::default().get())))
);
field!(
    Event = ObjectBuilder::new()
        .description(Some("What happened to a user. `docs/events.md` says what a receiver may rely on."))
        .property("id", Id::schema())
        .property("position", EventPosition::schema())
        .property("kind", one_of("What happened.", EventKind::ALL.map(EventKind::as_str)))
        .property("at", Time::schema())
        .property("user_id", Id::schema())
        .property(
            "session_id",
            text("The session it happened in.")
                .schema_type(utoipa::openapi::schema::SchemaType::from_iter([Type::String, Type::Null]))
                .format(Some(SchemaFormat::Custom("uuid".into())))
        )
        .required("id")
        .required("position")
        .required("kind")
        .required("at")
        .required("user_id")
        .required("session_id")
);
field!(
    EventPosition = ObjectBuilder::new()
        .schema_type(Type::Integer)
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)))
        .description(Some("A place in the order of events."))
        .minimum(Some(0))
        .maximum(Some(i64::MAX))
        .examples([json!(42)])
);
field!(AcceptedStatus = one_of("What is to be done now.", ["verification_required"]));
field!(CodeSentStatus = one_of("What was done, if there was anything to do.", ["code_sent"]));
field!(QueuedStatus = one_of("What became of it.", ["queued"]));
field!(HealthStatus = one_of("How the program is.", ["live", "ready"]));
field!(TokenType = one_of("The scheme under which the access token is sent.", ["Bearer"]));
field!(ExportFormat = one_of("The form of the export.", ["usermgr-export-1"]));
field!(
    FieldFaultName = one_of(
        "What is wrong with a field: stable.",
        [
            "required",
            "invalid",
            "invalid_type",
            "unknown",
            "duplicate",
            "too_short",
            "too_long",
            "too_common",
            "same_as_identity",
            "control_character",
            "unchanged",
            "mismatch",
            "unsupported",
            "too_large",
            "too_deep",
        ]
    )
);
field!(
    Search = text("The beginning of a text.").max_length(Some(Query::MAX_CHARS)).pattern(Some(NO_CONTROLS))
);
field!(
    ExportCursor = text("Where a part of an export ended. Opaque.")
        .pattern(Some("^([A-Za-z0-9_-]{42}[AEIMQUYcgkosw048])?$"))
);
field!(Cursor = text("Where a page ended. Opaque.").pattern(Some("^([A-Za-z0-9_-]{21}[AQgw])?$")));
field!(
    UserCursor = text("Where a page of users ended. Opaque.")
        .max_length(Some(Query::MAX_CHARS))
        .pattern(Some("^([A-Za-z0-9_-]{22,})?$"))
);
field!(
    UndeliverableReason =
        one_of("What became of a mail.", UndeliverableReasons::ALL.map(UndeliverableReasons::as_str))
);
field!(
    JsonWebKeys = Array::new(
        ObjectBuilder::new()
            .property("kty", text("The family of the key."))
            .property("kid", text("Its name, as in the header of a token."))
            .property("alg", text("The algorithm it is for."))
            .property("use", text("`sig`."))
            .required("kty")
            .required("kid")
            .required("alg")
            .required("use")
            .description(Some("A JSON Web Key (RFC 7517), with the members of its family."))
    )
);
