//! Pages for people: sign-up, sign-in, one's account and the administration, rendered here.
//!
//! They are one more face of [`UserManager`], beside the JSON interface and under the same limits. No rule of the domain
//! stands here; `routes` is the table of paths, with one file for each flow and its templates in `templates`.

mod account;
mod audit;
mod branding;
mod cookies;
mod devices;
mod email;
mod first_time_setup;
mod form;
mod language;
mod mails;
mod moment;
mod origin;
mod password;
mod reply;
mod reset;
mod routes;
mod samples;
mod sign_in;
mod sign_up;
mod templates;
mod users;
mod visit;
mod words;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::PathBuf;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Response, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};
use usermgr_core::port::clock::{Clock as _, SystemClock};
use usermgr_core::{ClientContext, UserManager};

pub use branding::Accent;
#[cfg(feature = "program")]
pub(crate) use branding::TAKES_ACCENT;
pub(crate) use routes::Found;

use crate::http::problem::{Language, Problem};
use cookies::{Carried, Change, Naming};
use form::Form;
use origin::OwnOrigin;
use reply::{Body, File, Reply};
use routes::Access;
use templates::Templates;
use visit::Visit;
use words::Words;

const SCRIPT: &str = include_str!("templates/page.js");
const FRAGMENT_SCRIPT: &str = include_str!("templates/fragment.js");
/// Of files whose address changes with their content.
const LONG: &str = "public, max-age=31536000, immutable";

/// How the pages look.
///
/// ```
/// use std::sync::Arc;
/// use usermgr_server::pages::{Accent, Pages, PagesOptions};
/// use usermgr_server::{ServiceOptions, service};
/// # use usermgr_core::testing::TestAuth;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let auth = TestAuth::new();
/// # let users = auth.users().clone();
///
/// let options = PagesOptions {
///     name: "Example".into(),
///     logo: None,
///     accent: Accent::parse("#0b6e4f").ok_or("a colour")?,
///     templates: None,
///     public_url: "https://app.example.org".into(),
/// };
/// let pages = Some(Arc::new(Pages::load(&options)?));
/// // Pages link to each other from the root: this is mounted there.
/// let whole = service(users, ServiceOptions { pages, ..ServiceOptions::default() });
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[expect(clippy::exhaustive_structs, reason = "a host gives all of it")]
pub struct PagesOptions {
    /// The name of the service, on every page.
    pub name: String,
    /// The logo: a file in SVG, PNG, WebP or JPEG. Without one, the first letter of the name.
    pub logo: Option<PathBuf>,
    /// The colour of buttons and links.
    pub accent: Accent,
    /// A folder whose templates replace the built-in ones.
    pub templates: Option<PathBuf>,
    /// Where browsers find the pages, as in mailed links; without a path.
    pub public_url: String,
}

impl PagesOptions {
    /// Whether browsers keep the cookies: the pages are read over https, or on the machine itself.
    #[cfg(feature = "program")]
    pub(crate) fn keeps_cookies(&self) -> bool {
        self.public_url.starts_with("https://") || OwnOrigin::of(&self.public_url).is_loopback()
    }
}

/// Why the pages cannot be shown: one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PagesError {
    /// A file cannot be read.
    #[error("{setting}: {file}: {source}")]
    Unreadable {
        /// The setting that names it.
        setting: &'static str,
        /// The file.
        file: String,
        /// Why.
        source: io::Error,
    },
    /// The logo is of a kind that browsers do not show.
    #[error("pages.logo: {0}: it takes a file that ends in .svg, .png, .webp or .jpg")]
    LogoKind(String),
    /// The logo is too large.
    #[error("pages.logo: {0}: it takes a file of 512 KiB at most")]
    LogoSize(String),
    /// A file of the folder is no template.
    #[error("pages.templates: {file}: no template has this name; there are {known}")]
    UnknownFile {
        /// The file.
        file: String,
        /// The templates that there are.
        known: String,
    },
    /// A template uses a variable that it does not get.
    #[error("pages.templates: {file}: the variable {variable} is not known here; it takes {takes}")]
    UnknownVariable {
        /// The template.
        file: String,
        /// The variable.
        variable: String,
        /// The variables it may use.
        takes: String,
    },
    /// A template does not parse, or fails with sample values.
    #[error("pages.templates: {file}: {detail}")]
    Faulty {
        /// The template, and the line.
        file: String,
        /// What is wrong.
        detail: String,
    },
    /// A template leaves out what its page is for.
    #[error("pages.templates: {file}: it lacks {missing}, without which the page does not work")]
    Lacks {
        /// The template.
        file: String,
        /// What its HTML has to have.
        missing: String,
    },
    /// The words of a language cannot be read.
    #[error("the words of pages, {file}: {detail}")]
    Words {
        /// The file.
        file: &'static str,
        /// What is wrong.
        detail: String,
    },
}

/// The pages, ready to be shown.
pub struct Pages {
    name: String,
    templates: Templates,
    english: Words,
    spanish: Words,
    own_origin: OwnOrigin,
    naming: Naming,
    policy: HeaderValue,
    style: File,
    style_address: String,
    logo: File,
    logo_address: String,
}

impl fmt::Debug for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pages").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A request that leads to a page, beside its body.
pub(crate) struct PageRequest<'a> {
    pub(crate) found: Found<'a>,
    pub(crate) method: &'a Method,
    pub(crate) path: &'a str,
    pub(crate) query: Option<&'a str>,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) client: ClientContext,
    pub(crate) request_id: &'a str,
}

/// What a page answers, and the code of the refusal it tells of.
pub(crate) type Answered = (Response<Full<Bytes>>, Option<&'static str>);

impl Pages {
    /// Reads logo and templates, and tries every template with sample values.
    ///
    /// It reads files and is meant for the start of a program.
    ///
    /// # Errors
    /// [`PagesError`]: one line with the file and what is wrong with it.
    pub fn load(options: &PagesOptions) -> Result<Self, PagesError> {
        let PagesOptions { name, logo, accent, templates, public_url } = options;
        let (english, spanish) = (words::english()?, words::spanish()?);
        let templates = Templates::load(templates.as_deref(), &english)?;
        let style = Bytes::from(accent.variables() + &templates.style);
        let style =
            File { content: style, content_type: "text/css; charset=utf-8", cache: LONG, save_as: None };
        let logo = branding::logo(logo.as_deref(), name, *accent)?;
        let own_origin = OwnOrigin::of(public_url);
        let naming = if own_origin.is_loopback() { Naming::Plain } else { Naming::Host };
        Ok(Self {
            name: name.clone(),
            style_address: format!("/pages/style.css?v={}", version(&style.content)),
            logo_address: format!("/pages/logo?v={}", version(&logo.content)),
            policy: policy(),
            templates,
            english,
            spanish,
            own_origin,
            naming,
            style,
            logo,
        })
    }

    /// Where a request leads, if it leads to a page. A browser that is led nowhere is told so by a page as well.
    pub(crate) fn find<'a>(method: &Method, path: &'a str, headers: &HeaderMap) -> Option<Found<'a>> {
        let reads_pages = || {
            let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
            method == Method::GET && accept.is_some_and(|accept| accept.contains("text/html"))
        };
        routes::find(path).or_else(|| reads_pages().then_some(routes::NOWHERE))
    }

    /// Answers a request. `body` is read once it is known that the form may be sent.
    pub(crate) async fn answer(
        &self,
        manager: &UserManager,
        request: PageRequest<'_>,
        body: impl Future<Output = Result<Bytes, Problem>>,
    ) -> Answered {
        let PageRequest { found, method, path, query, headers, client, request_id } = request;
        let mut language = language::of(headers, self.naming, None);
        if method == Method::OPTIONS {
            let mut response = Response::default();
            *response.status_mut() = StatusCode::NO_CONTENT;
            allow(&mut response, &found);
            return (response, None);
        }
        let Some(page) = found.page(method) else {
            let (mut response, code) = self.error(&Problem::method_unknown(), language, request_id);
            allow(&mut response, &found);
            return (response, code);
        };
        if !self.own_origin.allows(method, headers) {
            let problem = Problem::from(usermgr_core::Error::Forbidden);
            let detail = self.word(language, "foreign_form");
            return self.error_saying(&problem, detail, language, request_id);
        }
        let body = match body.await {
            Ok(body) => body,
            Err(problem) => return self.error(&problem, language, request_id),
        };
        // Files say nothing of anybody.
        let is_file = path.starts_with("/pages/");
        let recognised = async {
            let form = if body.is_empty() { Form::default() } else { Form::read(headers, &body)? };
            let query = Form::parse(query.unwrap_or_default().as_bytes())?;
            let (caller, change) = if is_file {
                (None, None)
            } else {
                visit::recognise(manager, self.naming, headers, &client).await?
            };
            Ok((form, query, caller, change))
        };
        let (form, query, caller, renewed) = match recognised.await {
            Ok(recognised) => recognised,
            Err(problem) => return self.error(&problem, language, request_id),
        };
        language = language::of(headers, self.naming, caller.as_ref());
        let visit = Visit {
            manager,
            pages: self,
            path,
            query,
            id: found.id,
            form,
            client,
            language,
            carried: Carried::read(self.naming, headers),
            caller,
            now: SystemClock.now().unix_timestamp(),
        };
        let reply = if page.access() == Access::SignedIn && visit.caller.is_none() {
            Ok(sign_in::ask(&visit, method))
        } else {
            page.run(&visit).await
        };
        let (mut response, code) = match reply {
            Ok(reply) => self.respond(&visit, reply, request_id),
            Err(problem) if problem.is_signed_out() => {
                let reply = sign_in::ask(&visit, method).changing(Change::SignedOut);
                self.respond(&visit, reply, request_id)
            }
            Err(problem) => {
                let detail = problem.sentence(language);
                self.respond(&visit, self.error_reply(&problem, detail, language, request_id), request_id)
            }
        };
        if let Some(renewed) = renewed
            && !response.headers().get_all(header::SET_COOKIE).iter().any(is_session)
        {
            for cookie in renewed.write(self.naming) {
                response.headers_mut().append(header::SET_COOKIE, cookie);
            }
        }
        (response, code)
    }

    /// A page that says what went wrong.
    pub(crate) fn error(&self, problem: &Problem, language: Language, request_id: &str) -> Answered {
        self.error_saying(problem, problem.sentence(language), language, request_id)
    }

    fn error_saying(
        &self,
        problem: &Problem,
        detail: &str,
        language: Language,
        request_id: &str,
    ) -> Answered {
        let reply = self.error_reply(problem, detail, language, request_id);
        let mut response = match reply.body {
            Body::Page { template, values } => self.html(template, self.common(language), values),
            Body::SeeOther(_) | Body::File(_) => Response::default(),
        };
        *response.status_mut() = reply.status;
        retry_after(&mut response, reply.retry_after);
        (response, reply.code)
    }

    fn error_reply(&self, problem: &Problem, detail: &str, language: Language, request_id: &str) -> Reply {
        let values = json!({
            "title": self.word(language, title_of(problem)), "detail": detail, "request_id": request_id,
            "wait": problem.retry_after_seconds(),
        });
        Reply::refused("error.html", values, problem)
    }

    fn respond(&self, visit: &Visit<'_>, reply: Reply, request_id: &str) -> Answered {
        let Reply { status, body, cookies, code, retry_after: wait } = reply;
        let carries = cookies.iter().any(|change| matches!(change, Change::Carried(_)));
        let shows = matches!(body, Body::Page { .. });
        let mut response = match body {
            Body::Page { template, values } => {
                let common = self.common_of(visit, template);
                let response = self.html(template, common, values);
                if response.status().is_server_error() {
                    return self.error(&Problem::internal(), visit.language, request_id);
                }
                response
            }
            Body::SeeOther(path) => {
                let mut response = Response::default();
                if let Ok(location) = HeaderValue::from_str(&path) {
                    response.headers_mut().insert(header::LOCATION, location);
                }
                response
            }
            Body::File(file) => file.into_response(),
        };
        *response.status_mut() = status;
        retry_after(&mut response, wait);
        let mut changes = cookies;
        if shows && !carries && visit.carried.notice.is_some() {
            // It was said.
            changes.push(Change::Carried(Carried { notice: None, ..visit.carried.clone() }));
        }
        for cookie in changes.iter().flat_map(|change| change.write(self.naming)) {
            response.headers_mut().append(header::SET_COOKIE, cookie);
        }
        (response, code)
    }

    fn html(
        &self,
        template: &'static str,
        common: Value,
        values: serde_json::Map<String, Value>,
    ) -> Response<Full<Bytes>> {
        let html = self.templates.render(template, common, values).unwrap_or_else(|error| {
            tracing::error!(%error, template, "a page could not be rendered");
            String::new()
        });
        let failed = html.is_empty();
        let mut response = Response::new(Full::from(html));
        if failed {
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        }
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
        headers.insert(header::CONTENT_SECURITY_POLICY, self.policy.clone());
        // Not `no-referrer`: with it, browsers keep the origin of forms to themselves (Fetch, "append a request Origin").
        headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
        headers.insert(CROSS_ORIGIN_OPENER_POLICY, HeaderValue::from_static("same-origin"));
        headers.append(header::VARY, HeaderValue::from_static("Accept-Language, Cookie"));
        response
    }

    fn common(&self, language: Language) -> Value {
        json!({
            "language": language.tag(), "t": self.words(language), "name": self.name, "logo": self.logo_address,
            "style": self.style_address, "script": SCRIPT, "fragment_script": FRAGMENT_SCRIPT, "signed_in": null,
            "administers": false, "in_administration": false, "sections": [], "notice": null, "back": null, "form": null,
        })
    }

    fn common_of(&self, visit: &Visit<'_>, template: &str) -> Value {
        let mut common = self.common(visit.language);
        // A change of language would lose the token that is in the address.
        let keeps_address = matches!(template, "reset.html" | "undo_email.html");
        let back = if keeps_address { None } else { routes::safe_return(visit.path) };
        let own = [
            ("signed_in", visit.caller_shown()),
            ("administers", json!(visit.administers())),
            ("in_administration", json!(visit.path.starts_with("/admin"))),
            ("sections", visit.sections()),
            ("notice", json!(visit.carried.notice.map(|notice| self.word(visit.language, notice.word())))),
            ("back", json!(back)),
        ];
        if let Value::Object(common) = &mut common {
            common.extend(own.map(|(name, value)| (name.to_owned(), value)));
        }
        common
    }

    fn words(&self, language: Language) -> &BTreeMap<String, String> {
        if language == Language::Spanish { &self.spanish } else { &self.english }
    }

    /// What a word says; its name where nothing does.
    fn word<'a>(&'a self, language: Language, name: &'a str) -> &'a str {
        self.words(language).get(name).map_or(name, String::as_str)
    }

    fn style(&self) -> Reply {
        Reply::file(self.style.clone())
    }

    fn logo(&self) -> Reply {
        Reply::file(self.logo.clone())
    }
}

const CROSS_ORIGIN_OPENER_POLICY: HeaderName = HeaderName::from_static("cross-origin-opener-policy");

impl File {
    fn into_response(self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::from(self.content));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(self.cache));
        if let Some(name) = self.save_as
            && let Ok(disposition) = HeaderValue::from_str(&format!("attachment; filename=\"{name}\""))
        {
            headers.insert(header::CONTENT_DISPOSITION, disposition);
        }
        response
    }
}

/// What pages may load and do: our stylesheet, the logo and two scripts, named by their hashes.
fn policy() -> HeaderValue {
    let hash = |script: &str| STANDARD.encode(digest(&SHA256, script.as_bytes()));
    let policy = format!(
        "default-src 'none'; style-src 'self'; img-src 'self'; script-src 'sha256-{}' 'sha256-{}'; form-action 'self'; \
         frame-ancestors 'none'; base-uri 'none'",
        hash(SCRIPT),
        hash(FRAGMENT_SCRIPT)
    );
    HeaderValue::from_str(&policy).unwrap_or_else(|_| HeaderValue::from_static("default-src 'none'"))
}

/// The word for the title of a page that tells of a refusal.
fn title_of(problem: &Problem) -> &'static str {
    match problem.status() {
        StatusCode::FORBIDDEN => "error_forbidden",
        StatusCode::NOT_FOUND => "error_missing",
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => "error_busy",
        _ => "error_other",
    }
}

fn version(content: &[u8]) -> String {
    let digest = digest(&SHA256, content);
    URL_SAFE_NO_PAD.encode(digest.as_ref().get(..12).unwrap_or_default())
}

fn allow(response: &mut Response<Full<Bytes>>, found: &Found<'_>) {
    if let Ok(allowed) = HeaderValue::from_str(&found.allowed()) {
        response.headers_mut().insert(header::ALLOW, allowed);
    }
}

fn retry_after(response: &mut Response<Full<Bytes>>, seconds: Option<u64>) {
    if let Some(seconds) = seconds {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
}

fn is_session(cookie: &HeaderValue) -> bool {
    cookie
        .to_str()
        .is_ok_and(|cookie| cookie.split('=').next().is_some_and(|name| name.ends_with("usermgr-refresh")))
}
