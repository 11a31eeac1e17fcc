//! The OpenAPI document, made of the table of routes and of what stands beside each handler.

pub(super) mod fields;
mod operation;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};
use usermgr_core::{Policies, UserManager};
use utoipa::openapi::{RefOr, Schema};

pub(super) use operation::{Operation, Parameter, Tag};

use super::ServiceOptions;
use super::problem::{Challenge, ProblemBody, authenticate};
use super::routes::{self, Endpoint, ID};

/// What the document says before it comes to paths.
const INTRODUCTION: &str = "\
Registration, verification, passwords and sessions.

**Bodies** are JSON (`application/json`), of at most the configured size (64 KiB). A field that is not named here is \
refused. Times are RFC 3339 in UTC, durations whole seconds, identifiers UUIDs.

**Refusals** are `application/problem+json` (RFC 9457). `code` is stable; `detail` and `errors[].message` are for people, \
in the language of `Accept-Language` (English, Spanish).

**Every answer** bears `X-Request-Id`: the request's own, if it sent a sane one (1 to 128 of `A-Za-z0-9._-`), else its \
`X-Correlation-Id`, which is echoed under its own name too, else a new one. It finds the request in the log. `traceparent` (W3C Trace Context) is noted beside it.

**Every path** answers `OPTIONS` with `Allow`, a path with `GET` answers `HEAD`, and a method that is not there gets 405 \
`method_not_allowed` with `Allow`.

**Lists** come a page at a time: send `next_cursor` as `cursor` until it is null.

A request for a code or a link, a registration among them, answers the same whether or not the address is known.";

/// The document of a service with these options and policies, as OpenAPI 3.1; without a host's hooks and type of profiles.
///
/// ```
/// use usermgr_core::Policies;
/// use usermgr_server::{ServiceOptions, openapi};
///
/// let document = openapi(&ServiceOptions::default(), &Policies::default());
/// assert_eq!(document["openapi"], "3.1.0");
/// assert!(document["paths"]["/v1/users/login"]["post"].is_object());
/// ```
pub fn openapi(options: &ServiceOptions, policies: &Policies) -> Value {
    document(options, policies, &BTreeSet::from(HOSTS_FIELDS))
}

/// The document of a service, which has the fields that its manager takes.
pub(super) fn document_of(options: &ServiceOptions, manager: &UserManager) -> Value {
    let taken = [(PROFILE, manager.takes_profiles()), (EXTRA, manager.takes_extra())];
    let refused = taken.into_iter().filter(|(_, taken)| !taken).map(|(field, _)| field).collect();
    document(options, manager.policies(), &refused)
}

/// Fields of requests that only a host's own program takes.
const HOSTS_FIELDS: [&str; 2] = [PROFILE, EXTRA];
const PROFILE: &str = "profile";
const EXTRA: &str = "extra";

fn document(options: &ServiceOptions, policies: &Policies, refused: &BTreeSet<&str>) -> Value {
    let mut components = Components::default();
    let mut paths: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    let mut described: BTreeMap<Endpoint, String> = BTreeMap::new();
    for (path, method, endpoint) in routes::described(options) {
        let same_as = described.get(&endpoint);
        let operation = endpoint.operation().document(path.contains(ID), same_as, &mut components);
        described.entry(endpoint).or_insert_with(|| format!("{method} {path}"));
        paths.entry(path).or_default().insert(method.as_str().to_ascii_lowercase(), operation);
    }
    components.problems();
    components.configured(policies);
    components.without(refused);
    let tags = options.namespaces.iter().map(|namespace| {
        let (name, description) = namespace.tag();
        json!({ "name": name, "description": description })
    });
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "usermgr",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "Users for an application.",
            "description": INTRODUCTION,
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "servers": [{ "url": policies.mail.public_url, "description": "http.public_url" }],
        "security": [],
        "tags": tags.collect::<Value>(),
        "paths": paths,
        "components": components.into_value(),
    })
}

/// What operations share.
#[derive(Default)]
pub(super) struct Components {
    schemas: BTreeMap<String, Value>,
    responses: BTreeMap<String, Value>,
}

impl Components {
    /// Takes a schema and those that it names.
    fn schemas(&mut self, schemas: Vec<(String, RefOr<Schema>)>) {
        for (name, schema) in schemas {
            self.schemas.entry(name).or_insert_with(|| json!(schema));
        }
    }

    /// The refusals of one status, as a response by reference.
    fn refusal(&mut self, status: u16, codes: &[&'static str]) -> Value {
        let name = format!("{status}_{}", codes.join("."));
        let response = self.responses.entry(name.clone());
        response.or_insert_with(|| operation::refusal(status, codes));
        json!({ "$ref": format!("#/components/responses/{name}") })
    }

    /// Lets a property go by another name too.
    fn other_name(&mut self, schema: &str, property: &str, other: &str) {
        let Some(schema) = self.schemas.get_mut(schema) else { return };
        let same = schema["properties"][property].clone();
        schema["properties"][other] = same;
        if let Some(required) = schema["required"].as_array_mut() {
            required.retain(|name| name != property);
        }
        schema["oneOf"] = json!([{ "required": [property] }, { "required": [other] }]);
    }

    fn problems(&mut self) {
        use utoipa::{PartialSchema as _, ToSchema as _};
        let mut schemas = vec![(ProblemBody::name().into_owned(), ProblemBody::schema())];
        ProblemBody::schemas(&mut schemas);
        self.schemas(schemas);
    }

    /// Writes in what is configured, and what utoipa has no word for.
    fn configured(&mut self, policies: &Policies) {
        if let Some(email) = self.schemas.get_mut("Email") {
            // Mail software would read an encoded word (RFC 2047).
            email["not"] = json!({ "pattern": r"^=\?" });
        }
        if let Some(password) = self.schemas.get_mut("NewPassword") {
            password["minLength"] = json!(policies.passwords.min_length);
        }
        if let Some(role) = self.schemas.get_mut("DefinedRole") {
            role["enum"] = policies.roles.all().keys().map(|role| json!(role)).collect();
        }
    }

    /// Takes away fields of requests that are refused.
    fn without(&mut self, refused: &BTreeSet<&str>) {
        for name in ["Register", "Invite", "UpdateMe", "UpdateUser"] {
            let schema = self.schemas.get_mut(name).and_then(|schema| schema["properties"].as_object_mut());
            if let Some(properties) = schema {
                properties.retain(|field, _| !refused.contains(field.as_str()));
            }
        }
        for (field, schema) in [(PROFILE, "NewProfile"), (EXTRA, "Extra")] {
            if refused.contains(field) {
                self.schemas.remove(schema);
            }
        }
    }

    fn into_value(self) -> Value {
        let text = |description: &str, schema: Value| json!({ "description": description, "required": true, "schema": schema });
        json!({
            "schemas": self.schemas,
            "responses": self.responses,
            "headers": {
                "X-Request-Id": text(
                    "Finds the request in the log.",
                    json!({ "type": "string", "pattern": "^[A-Za-z0-9._-]{1,128}$" }),
                ),
                "Retry-After": text(
                    "How long to wait before trying again: whole seconds.",
                    json!({ "type": "integer", "minimum": 0 }),
                ),
                "WWW-Authenticate": text(
                    "The scheme that is asked for (RFC 6750, RFC 7617), with `max_age` where the sign-in is too long \
                     ago (RFC 9470).",
                    json!({ "type": "string", "examples": [authenticate("missing_token", Challenge::Bearer)] }),
                ),
                "Content-Language": text(
                    "The language of `detail`.",
                    json!({ "type": "string", "enum": ["en", "es"] }),
                ),
            },
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "The `access_token` of a session.",
                },
                "basic": {
                    "type": "http",
                    "scheme": "basic",
                    "description": "Address and password, in UTF-8.",
                },
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document() -> Value {
        openapi(&ServiceOptions::default(), &Policies::default())
    }

    #[test]
    fn names_of_operations_are_their_own() {
        let document = document();
        let mut seen = std::collections::BTreeSet::new();
        for item in document["paths"].as_object().unwrap().values() {
            for operation in item.as_object().unwrap().values() {
                assert!(seen.insert(operation["operationId"].as_str().unwrap().to_owned()), "{operation}");
            }
        }
    }

    #[test]
    fn what_is_referred_to_is_there() {
        let document = document();
        let text = document.to_string();
        for reference in text.split(r##""$ref":"#"##).skip(1) {
            let pointer = reference.split('"').next().unwrap();
            assert!(document.pointer(pointer).is_some(), "{pointer}");
        }
    }

    #[test]
    fn the_configuration_is_told() {
        let options =
            ServiceOptions { base_path: "/api/v4".into(), docs: false, ..ServiceOptions::default() };
        let mut policies = Policies::default();
        policies.mail.public_url = "https://auth.example.org".into();
        policies.passwords.min_length = 12;
        policies.roles.defined.insert("support".parse().unwrap(), [].into());
        let document = openapi(&options, &policies);
        assert_eq!(document["servers"][0]["url"], "https://auth.example.org");
        assert!(document["paths"].get("/api/v4/users/send-verification").is_some());
        assert!(document["paths"].get("/openapi.json").is_none());
        let schemas = &document["components"]["schemas"];
        assert_eq!(schemas["NewPassword"]["minLength"], 12);
        assert_eq!(schemas["DefinedRole"]["enum"], json!(["admin", "support", "user"]));
    }
}
