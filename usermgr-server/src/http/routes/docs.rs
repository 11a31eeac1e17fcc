//! The OpenAPI document, and a page that shows it and lets one try it. The page loads nothing from elsewhere.

use bytes::Bytes;
use serde_json::json;

use super::operations::TAG;
use crate::http::Call;
use crate::http::answer::{Answer, Encoding};
use crate::http::openapi::Operation;
use crate::http::problem::Problem;

/// What the page may do: run its own script files, talk to its own origin, show the pictures of its style sheet.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

/// The parts of the page: name, type, how it is encoded, and its bytes. Browsers that do not take gzip are gone.
const ASSETS: &[(&str, &str, Encoding, &[u8])] = &[
    ("docs.js", JAVASCRIPT, Encoding::Identity, include_bytes!("../../../assets/docs/docs.js")),
    (
        "swagger-ui-bundle.js",
        JAVASCRIPT,
        Encoding::Gzip,
        include_bytes!(concat!(env!("OUT_DIR"), "/swagger-ui-bundle.js.gz")),
    ),
    (
        "swagger-ui.css",
        "text/css; charset=utf-8",
        Encoding::Gzip,
        include_bytes!(concat!(env!("OUT_DIR"), "/swagger-ui.css.gz")),
    ),
];

pub(super) fn document_operation() -> Operation {
    Operation::new(TAG, "openapi", "Read this document").answers_with(
        "The document.",
        "application/json",
        &json!({ "type": "object" }),
    )
}

pub(super) fn document(call: &Call<'_>) -> Answer {
    Answer::bytes("application/json; charset=utf-8", call.app.document())
}

pub(super) fn page_operation() -> Operation {
    Operation::new(TAG, "docs", "Show this document as a page on which to try it").answers_with(
        "The page.",
        "text/html",
        &json!({ "type": "string" }),
    )
}

pub(super) fn page() -> Answer {
    let page = include_bytes!("../../../assets/docs/index.html");
    Answer::bytes("text/html; charset=utf-8", Bytes::from_static(page)).under(POLICY)
}

pub(super) fn asset(call: &Call<'_>) -> Result<Answer, Problem> {
    let asset = ASSETS.iter().find(|(name, ..)| call.id == Some(name));
    let (_, media_type, encoding, bytes) = asset.ok_or_else(Problem::not_found)?;
    let answer = Answer::bytes(media_type, Bytes::from_static(bytes)).encoded(*encoding);
    Ok(answer.cached("public, max-age=3600"))
}
