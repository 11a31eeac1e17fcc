//! Problems (RFC 9457): every refusal has a stable code, a status, and a sentence for people in their language.

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{HeaderMap, Method, Response, StatusCode};
use http_body_util::Full;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use usermgr_core::Error;
use usermgr_core::domain::event::EventPosition;
use usermgr_core::domain::field::{FieldError, FieldFault};
use usermgr_core::domain::refusal::Refusal;
use utoipa::ToSchema;

use super::openapi::fields;
use super::routes::{Endpoint, allowed};

/// The language of sentences for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Language {
    English,
    Spanish,
}

impl Language {
    /// The first language of `Accept-Language` that we speak, by its weights; else English.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        Self::accepted(headers).unwrap_or(Self::English)
    }

    /// The first language of `Accept-Language` that we speak, by its weights.
    pub(crate) fn accepted(headers: &HeaderMap) -> Option<Self> {
        let accepted =
            headers.get(header::ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let mut best = (None, 0.0);
        for choice in accepted.split(',').take(20) {
            let mut parts = choice.split(';').map(str::trim);
            let tag = parts.next().unwrap_or_default().to_ascii_lowercase();
            let weight = parts.find_map(|part| part.strip_prefix("q=")?.parse().ok()).unwrap_or(1.0_f32);
            let language = match tag.split('-').next() {
                Some("es") => Self::Spanish,
                Some("en") => Self::English,
                _ => continue,
            };
            if weight > best.1 {
                best = (Some(language), weight);
            }
        }
        best.0
    }
}

impl Language {
    /// The language's tag (BCP 47).
    pub(crate) const fn tag(self) -> &'static str {
        match self {
            Self::English => "en",
            Self::Spanish => "es",
        }
    }
}

/// Which scheme a 401 asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Challenge {
    Bearer,
    Basic,
}

/// A refusal.
#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    code: &'static str,
    errors: Vec<(String, &'static str, Option<usize>)>,
    retry_after: Option<Duration>,
    allow: Option<Box<str>>,
    challenge: Challenge,
    /// How long ago the last sign-in may be (RFC 9470).
    max_age: Option<Duration>,
    /// From where on a reader of the feed lacks nothing.
    resume_after: Option<EventPosition>,
    /// What a hook of the host's says.
    refusal: Option<Box<Refusal>>,
}

impl Problem {
    fn new(code: &'static str) -> Self {
        Self {
            status: status(code),
            code,
            errors: Vec::new(),
            retry_after: None,
            allow: None,
            challenge: Challenge::Bearer,
            max_age: None,
            resume_after: None,
            refusal: None,
        }
    }

    pub(crate) const fn code(&self) -> &'static str {
        self.code
    }

    pub(super) const fn challenged(mut self, challenge: Challenge) -> Self {
        self.challenge = challenge;
        self
    }

    pub(crate) fn not_found() -> Self {
        Self::new("not_found")
    }

    /// The reader of the feed may lack events.
    pub(super) fn events_gone(resume_after: EventPosition) -> Self {
        Self { resume_after: Some(resume_after), ..Self::new("events_gone") }
    }

    pub(crate) fn internal() -> Self {
        Self::new("internal")
    }

    pub(super) fn unavailable() -> Self {
        Self { retry_after: Some(Duration::from_secs(5)), ..Self::new("unavailable") }
    }

    /// The request came over a connection beyond the limits of the listener.
    pub(super) fn no_connection_left() -> Self {
        Self { retry_after: Some(Duration::from_secs(5)), ..Self::new("overloaded") }
    }

    pub(super) fn payload_too_large() -> Self {
        Self::new("payload_too_large")
    }

    pub(crate) fn unsupported_media_type() -> Self {
        Self::new("unsupported_media_type")
    }

    pub(super) fn timeout() -> Self {
        Self { status: StatusCode::REQUEST_TIMEOUT, ..Self::new("malformed_request") }
    }

    pub(crate) fn malformed(why: &'static str) -> Self {
        tracing::debug!(why, "malformed request");
        Self::new("malformed_request")
    }

    pub(crate) fn field(field: &str, code: &'static str) -> Self {
        let mut problem = Self::new("validation_failed");
        problem.errors.push((field.to_owned(), code, None));
        problem
    }

    pub(super) fn method_not_allowed(methods: &[(Method, Endpoint)]) -> Self {
        Self { allow: Some(allowed(methods).into()), ..Self::new("method_not_allowed") }
    }

    /// The problem of a code, with all that may come with it, to be shown.
    pub(super) fn example(code: &'static str) -> Self {
        let mut problem = Self::new(code);
        match code {
            "validation_failed" => problem.errors.push(("email".to_owned(), "invalid", None)),
            "events_gone" => problem.resume_after = Some(EventPosition::from_u64(42)),
            "refused" => {
                problem.refusal =
                    Refusal::new("invite_needed", "Sign-up is by invitation.").ok().map(Box::new);
            }
            "rate_limited" | "too_many_attempts" | "overloaded" | "unavailable" => {
                problem.retry_after = Some(Duration::from_secs(30));
            }
            _ => {}
        }
        problem
    }

    /// What the answer says.
    pub(super) fn body(&self, language: Language, request_id: &str) -> Value {
        let (title, _) = sentence(self.code, language);
        let message = |(field, code, bound): &(String, &'static str, Option<usize>)| FieldProblem {
            field: field.clone(),
            code,
            message: field_sentence(code, *bound, language),
        };
        let body = ProblemBody {
            r#type: format!("urn:usermgr:problem:{}", self.code),
            title,
            status: self.status.as_u16(),
            detail: self.sentence(language),
            code: self.code,
            reason: self.refusal.as_ref().map(|refusal| refusal.reason()),
            request_id,
            errors: self.errors.iter().map(message).collect(),
            resume_after: self.resume_after.map(|position| position.to_string()),
            retry_after: self.retry_after.map(whole_seconds),
        };
        json!(body)
    }

    pub(crate) fn into_response(self, language: Language, request_id: &str) -> Response<Full<Bytes>> {
        let body = self.body(language, request_id).to_string();
        let Self { status, code, retry_after, allow, challenge, max_age, .. } = self;
        let mut response = Response::new(Full::from(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CONTENT_LANGUAGE, HeaderValue::from_static(language.tag()));
        headers.append(header::VARY, HeaderValue::from_static("Accept-Language"));
        if let Some(wait) = retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(whole_seconds(wait)));
        }
        if let Some(allow) = allow.and_then(|allow| HeaderValue::from_str(&allow).ok()) {
            headers.insert(header::ALLOW, allow);
        }
        if status == StatusCode::UNAUTHORIZED {
            let mut asked = authenticate(code, challenge).to_owned();
            if let Some(max_age) = max_age {
                asked = format!("{asked}, max_age={}", max_age.as_secs());
            }
            if let Ok(asked) = HeaderValue::from_str(&asked) {
                headers.insert(header::WWW_AUTHENTICATE, asked);
            }
        }
        response
    }
}

/// A wait, rounded up.
const fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs() + (wait.subsec_nanos() > 0) as u64
}

/// A refusal (RFC 9457).
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub(super) struct ProblemBody<'a> {
    /// `urn:usermgr:problem:` and the code.
    r#type: String,
    /// The code in words.
    title: &'a str,
    /// The status of the answer.
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// What to do, for people.
    detail: &'a str,
    /// What it is, for programs: stable.
    code: &'a str,
    /// What it is that the host refuses; only with `refused`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = fields::RefusalReason, required = false)]
    reason: Option<&'a str>,
    /// Finds the request in the log.
    request_id: &'a str,
    /// Which fields are wrong.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<FieldProblem>,
    /// From where on a reader of events lacks nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, pattern = "^[0-9]+$")]
    resume_after: Option<String>,
    /// How long to wait before trying again.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = fields::Seconds)]
    retry_after: Option<u64>,
}

/// A field that is wrong.
#[derive(Serialize, ToSchema)]
struct FieldProblem {
    /// Its name; `body` when it is the whole body.
    field: String,
    #[schema(value_type = fields::FieldFaultName)]
    code: &'static str,
    /// The same, for people.
    message: String,
}

/// The status that a code is answered with.
pub(super) fn status(code: &str) -> StatusCode {
    match code {
        "malformed_request" | "invalid_code" | "code_expired" | "invalid_link" | "invalid_signature" => {
            StatusCode::BAD_REQUEST
        }
        "invalid_credentials"
        | "missing_token"
        | "invalid_token"
        | "session_ended"
        | "reauthentication_required" => StatusCode::UNAUTHORIZED,
        "registration_closed" | "refused" | "forbidden" => StatusCode::FORBIDDEN,
        "not_found" => StatusCode::NOT_FOUND,
        "method_not_allowed" => StatusCode::METHOD_NOT_ALLOWED,
        "registration_ambiguous" | "already_verified" | "email_taken" | "last_admin" => StatusCode::CONFLICT,
        "events_gone" => StatusCode::GONE,
        "payload_too_large" => StatusCode::PAYLOAD_TOO_LARGE,
        "unsupported_media_type" => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "validation_failed" => StatusCode::UNPROCESSABLE_ENTITY,
        "rate_limited" | "too_many_attempts" => StatusCode::TOO_MANY_REQUESTS,
        "overloaded" | "unavailable" => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// What pages say of a refusal.
impl Problem {
    pub(crate) const fn status(&self) -> StatusCode {
        self.status
    }

    /// The page does not take this method.
    pub(crate) fn method_unknown() -> Self {
        Self::new("method_not_allowed")
    }

    /// Whether nobody is signed in any more.
    pub(crate) fn is_signed_out(&self) -> bool {
        matches!(self.code, "missing_token" | "invalid_token" | "session_ended")
    }

    pub(crate) fn retry_after_seconds(&self) -> Option<u64> {
        self.retry_after.map(whole_seconds)
    }

    /// What to do, for people: in the host's words, where the host refuses.
    pub(crate) fn sentence(&self, language: Language) -> &str {
        match &self.refusal {
            Some(refusal) => refusal.text(language.tag()),
            None => sentence(self.code, language).1,
        }
    }

    /// Each field that is wrong, and what is wrong with it.
    pub(crate) fn field_sentences(&self, language: Language) -> BTreeMap<String, String> {
        let said = |(field, code, bound): &(String, &'static str, Option<usize>)| {
            (field.clone(), field_sentence(code, *bound, language))
        };
        self.errors.iter().map(said).collect()
    }
}

/// The scheme that a refusal of this code asks for, as the header says it.
pub(super) fn authenticate(code: &str, challenge: Challenge) -> &'static str {
    match (code, challenge) {
        (_, Challenge::Basic) => "Basic realm=\"usermgr\", charset=\"UTF-8\"",
        ("invalid_token" | "session_ended", Challenge::Bearer) => {
            "Bearer realm=\"usermgr\", error=\"invalid_token\""
        }
        ("reauthentication_required", Challenge::Bearer) => {
            "Bearer realm=\"usermgr\", error=\"insufficient_user_authentication\""
        }
        (_, Challenge::Bearer) => "Bearer realm=\"usermgr\"",
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let status = status(error.reason());
        if status.is_server_error() {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            let source = std::error::Error::source(&error)
                .and_then(std::error::Error::source)
                .map(ToString::to_string);
            tracing::error!(%error, cause, source, "a request failed");
        }
        let mut problem = Self::new(error.reason());
        problem.retry_after = error.retry_after();
        if let Error::ReauthenticationRequired { max_age } = &error {
            problem.max_age = Some(*max_age);
        }
        match error {
            Error::Invalid(faults) => problem.errors = faults.into_iter().map(entry).collect(),
            Error::Refused(refusal) => problem.refusal = Some(Box::new(refusal)),
            _ => {}
        }
        problem
    }
}

fn entry(error: FieldError) -> (String, &'static str, Option<usize>) {
    let bound = match error.fault {
        FieldFault::TooShort { min } => Some(min),
        FieldFault::TooLong { max } | FieldFault::TooLarge { max } | FieldFault::TooDeep { max } => Some(max),
        _ => None,
    };
    (error.field.into_owned(), error.fault.as_str(), bound)
}

/// The title and the sentence of a code.
#[expect(clippy::too_many_lines, reason = "one table")]
pub(super) fn sentence(code: &str, language: Language) -> (&'static str, &'static str) {
    let (title, english, spanish) = match code {
        "malformed_request" => {
            ("Malformed request", "The request cannot be read.", "No se puede leer la petición.")
        }
        "invalid_code" => (
            "Invalid code",
            "The code is not valid. Check it, or ask for a new one.",
            "El código no es válido. Revísalo o pide uno nuevo.",
        ),
        "code_expired" => (
            "Code expired",
            "The code has expired. Ask for a new one.",
            "El código ha caducado. Pide uno nuevo.",
        ),
        "invalid_link" => (
            "Invalid link",
            "The link is not valid any more. Ask for a new one.",
            "El enlace ya no es válido. Pide uno nuevo.",
        ),
        "invalid_signature" => (
            "Invalid signature",
            "The signature is not valid, or its time is not now.",
            "La firma no es válida o su hora no es la actual.",
        ),
        "registration_ambiguous" => (
            "Several registrations",
            "Several registrations of this address are waiting. Send registration_id or password along.",
            "Hay varios registros pendientes con esta dirección. Envía también registration_id o password.",
        ),
        "already_verified" => (
            "Already verified",
            "This address is verified already. Sign in.",
            "Esta dirección ya está verificada. Inicia sesión.",
        ),
        "email_taken" => {
            ("Address taken", "This address has an account already.", "Esta dirección ya tiene una cuenta.")
        }
        "registration_closed" => {
            ("Registration closed", "Registration is closed.", "El registro está cerrado.")
        }
        // The host says it in its own words.
        "refused" => ("Refused", "This is not allowed.", "Esto no está permitido."),
        "invalid_credentials" => (
            "Invalid credentials",
            "The address or the password is wrong.",
            "La dirección o la contraseña no son correctas.",
        ),
        "missing_token" => ("Missing token", "Sign in to do this.", "Inicia sesión para continuar."),
        "invalid_token" => (
            "Invalid token",
            "The access token is not valid. Sign in again.",
            "El token de acceso no es válido. Vuelve a iniciar sesión.",
        ),
        "session_ended" => (
            "Session ended",
            "The session has ended. Sign in again.",
            "La sesión ha terminado. Vuelve a iniciar sesión.",
        ),
        "forbidden" => ("Forbidden", "You may not do this.", "No tienes permiso para hacer esto."),
        "reauthentication_required" => (
            "Sign in again",
            "This needs a recent sign-in. Sign in again, or send your current password along where it is taken.",
            "Esto requiere haber iniciado sesión hace poco. Vuelve a iniciar sesión o envía tu contraseña actual donde se admita.",
        ),
        "last_admin" => (
            "Last administrator",
            "The last administrator cannot be deleted, disabled or demoted.",
            "No se puede eliminar, desactivar ni degradar al último administrador.",
        ),
        "not_found" => ("Not found", "There is nothing here.", "Aquí no hay nada."),
        "events_gone" => (
            "Events gone",
            "Events after this position may be gone. Read all users anew, then the events after resume_after.",
            "Puede que falten eventos posteriores a esta posición. Vuelve a leer todos los usuarios y luego los eventos posteriores a resume_after.",
        ),
        "method_not_allowed" => (
            "Method not allowed",
            "This address does not take that method.",
            "Esta dirección no admite ese método.",
        ),
        "payload_too_large" => {
            ("Payload too large", "The request is too large.", "La petición es demasiado grande.")
        }
        "unsupported_media_type" => (
            "Unsupported media type",
            "Send the body as application/json, not compressed.",
            "Envía el cuerpo como application/json, sin comprimir.",
        ),
        "validation_failed" => {
            ("Validation failed", "Some fields are not valid.", "Algunos campos no son válidos.")
        }
        "rate_limited" => (
            "Too many requests",
            "Too many requests. Wait a little.",
            "Demasiadas peticiones. Espera un poco.",
        ),
        "too_many_attempts" => {
            ("Too many attempts", "Too many attempts. Wait a little.", "Demasiados intentos. Espera un poco.")
        }
        "overloaded" => (
            "Overloaded",
            "The service is busy. Try again shortly.",
            "El servicio está ocupado. Inténtalo de nuevo en breve.",
        ),
        "unavailable" => (
            "Unavailable",
            "The service is not available right now. Try again shortly.",
            "El servicio no está disponible. Inténtalo de nuevo en breve.",
        ),
        _ => (
            "Internal error",
            "Something went wrong on our side. The request id finds it in the log.",
            "Algo ha fallado por nuestra parte. El identificador de la petición lo localiza en el registro.",
        ),
    };
    (title, if language == Language::Spanish { spanish } else { english })
}

fn field_sentence(code: &str, bound: Option<usize>, language: Language) -> String {
    let bound = bound.map(|bound| bound.to_string()).unwrap_or_default();
    let (english, spanish) = match code {
        "required" => ("It is required.".into(), "Es obligatorio.".into()),
        "invalid" => ("It is not valid.".into(), "No es válido.".into()),
        "invalid_type" => ("It has the wrong type.".into(), "Tiene un tipo incorrecto.".into()),
        "unknown" => ("This field is not known.".into(), "Este campo no existe.".into()),
        "duplicate" => ("It is given twice.".into(), "Está repetido.".into()),
        "too_short" => (
            format!("It needs at least {bound} characters."),
            format!("Necesita al menos {bound} caracteres."),
        ),
        "too_long" => (
            format!("It may have at most {bound} characters."),
            format!("Puede tener como máximo {bound} caracteres."),
        ),
        "too_large" => (
            format!("It may take at most {bound} bytes."),
            format!("Puede ocupar como máximo {bound} bytes."),
        ),
        "too_deep" => (
            format!("It may have at most {bound} levels."),
            format!("Puede tener como máximo {bound} niveles."),
        ),
        "too_common" => {
            ("Too many people use this password.".into(), "Demasiada gente usa esta contraseña.".into())
        }
        "same_as_identity" => (
            "A password must not be your address or name.".into(),
            "La contraseña no puede ser tu dirección ni tu nombre.".into(),
        ),
        "control_character" => (
            "It has a character that cannot be typed.".into(),
            "Contiene un carácter que no se puede escribir.".into(),
        ),
        "unchanged" => ("It is the same as before.".into(), "Es lo mismo que antes.".into()),
        "mismatch" => ("The two are not the same.".into(), "No coinciden.".into()),
        _ => ("It is not supported here.".to_owned(), "Aquí no se admite.".to_owned()),
    };
    if language == Language::Spanish { spanish } else { english }
}
