//! What a route takes, answers and refuses, as it is described beside the handler.

use std::collections::{BTreeMap, BTreeSet};

use http::StatusCode;
use serde_json::{Map, Value, json};
use usermgr_core::domain::role::Permission;
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::Components;
use super::fields::{EXAMPLE_ID, Id, Limit};
use crate::http::problem::{self, Language, Problem};

/// A namespace: its name and what it is about.
pub(in crate::http) type Tag = (&'static str, &'static str);

/// A route's description. What every route may answer is added by itself.
pub(in crate::http) struct Operation {
    tag: Tag,
    id: &'static str,
    summary: &'static str,
    description: String,
    security: Vec<Value>,
    parameters: Vec<Parameter>,
    body: Option<Value>,
    answers: BTreeMap<u16, Value>,
    refusals: BTreeSet<&'static str>,
    schemas: Vec<(String, RefOr<Schema>)>,
    /// A schema, a property of it, and the property's other name.
    other_names: Vec<(String, &'static str, &'static str)>,
}

impl Operation {
    /// An operation of a namespace. The identifier is what generated clients call it.
    pub(in crate::http) fn new(tag: Tag, id: &'static str, summary: &'static str) -> Self {
        Self {
            tag,
            id,
            summary,
            description: String::new(),
            security: Vec::new(),
            parameters: Vec::new(),
            body: None,
            answers: BTreeMap::new(),
            refusals: ["malformed_request", "payload_too_large", "internal", "unavailable"].into(),
            schemas: Vec::new(),
            other_names: Vec::new(),
        }
    }

    /// The namespace it belongs to.
    #[cfg(test)]
    pub(in crate::http) const fn tag(&self) -> Tag {
        self.tag
    }

    /// What else there is to know.
    pub(in crate::http) fn says(mut self, description: &str) -> Self {
        if !self.description.is_empty() {
            self.description.push_str("\n\n");
        }
        self.description.push_str(description);
        self
    }

    /// Needs an access token.
    pub(in crate::http) fn bearer(mut self) -> Self {
        self.security.push(json!({ "bearer": [] }));
        self.refuses(&["missing_token", "invalid_token", "session_ended"])
    }

    /// Needs an access token of somebody whose roles permit this.
    pub(in crate::http) fn permitted(self, permission: &Permission) -> Self {
        self.bearer().says(&format!("Needs the permission `{permission}`.")).refuses(&["forbidden"])
    }

    /// Gives or takes power: needs a recent sign-in of who asks.
    pub(in crate::http) fn after_recent_sign_in(self) -> Self {
        self.says("Needs a recent sign-in (`sessions.step_up_age`).").refuses(&["reauthentication_required"])
    }

    /// Takes Basic credentials.
    pub(in crate::http) fn basic(mut self) -> Self {
        self.security.push(json!({ "basic": [] }));
        self.refuses(&["invalid_credentials"])
    }

    /// Works without credentials too.
    pub(in crate::http) fn or_anonymous(mut self) -> Self {
        self.security.push(json!({}));
        self
    }

    /// Takes this body.
    pub(in crate::http) fn takes<T: ToSchema>(self) -> Self {
        self.body::<T>(true)
    }

    /// Takes this body or none.
    pub(in crate::http) fn may_take<T: ToSchema>(self) -> Self {
        self.body::<T>(false)
    }

    /// Takes this body, signed byte for byte, whatever type it says it is of.
    pub(in crate::http) fn takes_signed<T: ToSchema>(self) -> Self {
        let mut operation = self.body::<T>(true).refuses(&["invalid_signature"]);
        operation.refusals.remove("unsupported_media_type");
        operation
    }

    fn body<T: ToSchema>(mut self, required: bool) -> Self {
        let schema = self.schema::<T>();
        self.body =
            Some(json!({ "required": required, "content": { "application/json": { "schema": schema } } }));
        self.refuses(&["unsupported_media_type", "validation_failed"])
    }

    /// A field of the body goes by another name too; exactly one of them is sent.
    pub(in crate::http) fn or_named<T: ToSchema>(mut self, field: &'static str, other: &'static str) -> Self {
        self.other_names.push((T::name().into_owned(), field, other));
        self
    }

    /// Does not look at a body that is sent.
    pub(in crate::http) fn reads_nothing(mut self) -> Self {
        self.refusals.retain(|code| !["malformed_request", "payload_too_large"].contains(code));
        self
    }

    /// Takes a parameter behind the `?`.
    pub(in crate::http) fn query(mut self, parameter: Parameter) -> Self {
        self.schemas.extend(parameter.schemas.iter().cloned());
        self.parameters.push(parameter);
        self.refuses(&["validation_failed"])
    }

    /// Answers a page at a time, which cursors of this kind follow.
    pub(in crate::http) fn paged<C: ToSchema>(self) -> Self {
        self.query(Parameter::of::<C>("cursor", "`next_cursor` of the page before."))
            .query(Parameter::limit())
    }

    /// Answers this body.
    pub(in crate::http) fn answers<T: ToSchema>(mut self, status: StatusCode, description: &str) -> Self {
        let schema = self.schema::<T>();
        self.answer(status, description, "application/json", &schema)
    }

    /// Answers something of another type.
    pub(in crate::http) fn answers_with(self, description: &str, media_type: &str, schema: &Value) -> Self {
        self.answer(StatusCode::OK, description, media_type, schema)
    }

    fn answer(mut self, status: StatusCode, description: &str, media_type: &str, schema: &Value) -> Self {
        let response = json!({
            "description": description,
            "headers": headers(&["X-Request-Id"]),
            "content": { media_type: { "schema": schema } },
        });
        self.answers.insert(status.as_u16(), response);
        self
    }

    /// Answers 204.
    pub(in crate::http) fn answers_nothing(mut self, description: &str) -> Self {
        let response = json!({ "description": description, "headers": headers(&["X-Request-Id"]) });
        self.answers.insert(StatusCode::NO_CONTENT.as_u16(), response);
        self
    }

    /// May refuse with these codes.
    pub(in crate::http) fn refuses(mut self, codes: &[&'static str]) -> Self {
        self.refusals.extend(codes);
        self
    }

    fn schema<T: ToSchema>(&mut self) -> Value {
        self.schemas.push((T::name().into_owned(), T::schema()));
        T::schemas(&mut self.schemas);
        json!({ "$ref": format!("#/components/schemas/{}", T::name()) })
    }

    /// The operation in the document. `same_as` names the route it stood at before, if this is another name of it.
    pub(super) fn document(
        mut self,
        has_id: bool,
        same_as: Option<&String>,
        components: &mut Components,
    ) -> Value {
        components.schemas(std::mem::take(&mut self.schemas));
        for (schema, field, other) in std::mem::take(&mut self.other_names) {
            components.other_name(&schema, field, other);
        }
        let mut parameters: Vec<Value> =
            self.parameters.into_iter().map(|parameter| parameter.value).collect();
        if has_id {
            let schema = json!({ "$ref": "#/components/schemas/Id" });
            components.schemas(vec![("Id".into(), Id::schema())]);
            parameters.push(json!({ "name": "id", "in": "path", "required": true, "schema": schema }));
            self.refusals.insert("not_found");
        }
        let mut by_status: BTreeMap<u16, Vec<&'static str>> = BTreeMap::new();
        for code in self.refusals {
            by_status.entry(problem::status(code).as_u16()).or_default().push(code);
        }
        if by_status.contains_key(&StatusCode::PAYLOAD_TOO_LARGE.as_u16()) {
            by_status.insert(StatusCode::REQUEST_TIMEOUT.as_u16(), vec!["malformed_request"]);
        }
        let refusals =
            by_status.into_iter().map(|(status, codes)| (status, components.refusal(status, &codes)));
        let responses: Map<String, Value> =
            refusals.chain(self.answers).map(|(status, response)| (status.to_string(), response)).collect();
        let mut operation = json!({
            "tags": [self.tag.0],
            "operationId": self.id,
            "summary": self.summary,
            "security": self.security,
            "responses": responses,
        });
        if let Some(same_as) = same_as {
            operation["operationId"] = json!(format!("{}_alias", self.id));
            operation["summary"] = json!(format!("{} (as {same_as})", self.summary));
        }
        if !self.description.is_empty() {
            operation["description"] = json!(self.description);
        }
        if !parameters.is_empty() {
            operation["parameters"] = json!(parameters);
        }
        if let Some(body) = self.body {
            operation["requestBody"] = body;
        }
        operation
    }
}

/// A parameter behind the `?`.
pub(in crate::http) struct Parameter {
    value: Value,
    schemas: Vec<(String, RefOr<Schema>)>,
}

impl Parameter {
    /// How many items a page shall hold.
    pub(in crate::http) fn limit() -> Self {
        Self::of::<Limit>("limit", "How many items a page shall hold.")
    }

    /// One that looks as a field does.
    pub(in crate::http) fn of<T: ToSchema>(name: &str, description: &str) -> Self {
        let schema = json!({ "$ref": format!("#/components/schemas/{}", T::name()) });
        let value = json!({ "name": name, "in": "query", "description": description, "schema": schema });
        Self { value, schemas: vec![(T::name().into_owned(), T::schema())] }
    }
}

fn headers(names: &[&str]) -> Value {
    let refer = |name: &&str| ((*name).to_owned(), json!({ "$ref": format!("#/components/headers/{name}") }));
    Value::Object(names.iter().map(refer).collect())
}

/// The response of a status to which these codes belong.
pub(super) fn refusal(status: u16, codes: &[&'static str]) -> Value {
    let mut names = vec!["X-Request-Id", "Content-Language"];
    if status == StatusCode::UNAUTHORIZED.as_u16() {
        names.push("WWW-Authenticate");
    }
    if status == StatusCode::TOO_MANY_REQUESTS.as_u16() || status == StatusCode::SERVICE_UNAVAILABLE.as_u16()
    {
        names.push("Retry-After");
    }
    let example = |code: &&'static str| {
        let mut example = Problem::example(code).body(Language::English, EXAMPLE_ID);
        example["status"] = json!(status);
        ((*code).to_owned(), json!({ "value": example }))
    };
    let examples: Map<String, Value> = codes.iter().map(example).collect();
    let titles: Vec<&str> = codes.iter().map(|code| problem::sentence(code, Language::English).0).collect();
    let schema = json!({
        "allOf": [{ "$ref": "#/components/schemas/Problem" }],
        "properties": { "status": { "const": status }, "code": { "enum": codes } },
    });
    json!({
        "description": format!("{}.", titles.join(", or ")),
        "headers": headers(&names),
        "content": { "application/problem+json": { "schema": schema, "examples": examples } },
    })
}
