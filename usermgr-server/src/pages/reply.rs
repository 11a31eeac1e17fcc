//! What a page answers: a page, another address to go to, or a file.

use http::StatusCode;
use serde_json::{Map, Value};

use super::cookies::{Carried, Change, Notice};
use super::form::FormState;
use crate::http::problem::Problem;

/// An answer to a browser.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) body: Body,
    pub(super) cookies: Vec<Change>,
    /// The code of the refusal that the page tells of, for the log.
    pub(super) code: Option<&'static str>,
    pub(super) retry_after: Option<u64>,
}

#[derive(Debug)]
pub(super) enum Body {
    /// A template and what it shows, beside what every page shows.
    Page {
        template: &'static str,
        values: Map<String, Value>,
    },
    /// See other (303): the address to read next.
    SeeOther(String),
    File(File),
}

/// A file that is no page.
#[derive(Debug, Clone)]
pub(super) struct File {
    pub(super) content: bytes::Bytes,
    pub(super) content_type: &'static str,
    pub(super) cache: &'static str,
    /// The name to save it under.
    pub(super) save_as: Option<&'static str>,
}

impl Reply {
    const fn new(body: Body) -> Self {
        Self { status: StatusCode::OK, body, cookies: Vec::new(), code: None, retry_after: None }
    }

    /// A page; the values are those that its sample names.
    pub(super) fn page(template: &'static str, values: Value) -> Self {
        let values = if let Value::Object(values) = values { values } else { Map::new() };
        Self::new(Body::Page { template, values })
    }

    /// A page with a form that was not sent yet.
    pub(super) fn form(template: &'static str, form: &FormState, values: Value) -> Self {
        Self::page(template, with_form(form, values))
    }

    /// A page with a form that was refused.
    pub(super) fn refused(template: &'static str, values: Value, problem: &Problem) -> Self {
        let mut reply = Self::page(template, values);
        reply.status = match problem.status() {
            // A browser would ask for credentials that no form is sent with.
            StatusCode::UNAUTHORIZED => StatusCode::UNPROCESSABLE_ENTITY,
            status => status,
        };
        reply.code = Some(problem.code());
        reply.retry_after = problem.retry_after_seconds();
        reply
    }

    /// Another page to read: what a form that was taken is answered with, so that reading it again sends nothing again.
    pub(super) fn see_other(path: impl Into<String>) -> Self {
        Self { status: StatusCode::SEE_OTHER, ..Self::new(Body::SeeOther(path.into())) }
    }

    pub(super) const fn file(file: File) -> Self {
        Self::new(Body::File(file))
    }

    pub(super) fn changing(mut self, change: Change) -> Self {
        self.cookies.push(change);
        self
    }

    pub(super) fn carrying(self, carried: Carried) -> Self {
        self.changing(Change::Carried(carried))
    }

    pub(super) fn saying(self, notice: Notice) -> Self {
        self.carrying(Carried::notice(notice))
    }
}

/// A page's values with its form among them.
pub(super) fn with_form(form: &FormState, values: Value) -> Value {
    let mut values = if let Value::Object(values) = values { values } else { Map::new() };
    values.insert("form".into(), serde_json::to_value(form).unwrap_or_default());
    Value::Object(values)
}
