//! JSON objects as somebody sent them: bounded, and not shown by accident.

use std::fmt;

use serde::Serialize;
use serde_json::{Map, Value};

use super::field::FieldFault;

/// A JSON object that somebody sent: fields of a profile, or what a hook of the host's asks for.
///
/// # Security
/// It may hold a token or what nobody else should read: `Debug` shows no value.
#[derive(Clone, Default, PartialEq, serde::Deserialize)]
#[serde(transparent)]
pub struct JsonObject(Map<String, Value>);

/// A value that is no object when it is written as JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the value is no object when it is written as JSON")]
pub struct NotAnObject;

impl JsonObject {
    /// The most bytes of an object, written without spaces.
    pub const MAX_BYTES: usize = 8 * 1024;
    /// The most levels of an object: itself, and the lists and objects within.
    pub const MAX_DEPTH: usize = 16;

    /// What a value is in JSON.
    ///
    /// # Errors
    /// [`NotAnObject`].
    ///
    /// ```
    /// use usermgr_core::domain::json::JsonObject;
    ///
    /// let extra = JsonObject::of(&serde_json::json!({ "invite": "spring-2026" }))?;
    /// assert_eq!(extra.text("invite"), Some("spring-2026"));
    /// # Ok::<_, usermgr_core::domain::json::NotAnObject>(())
    /// ```
    pub fn of(value: &(impl Serialize + ?Sized)) -> Result<Self, NotAnObject> {
        match serde_json::to_value(value) {
            Ok(Value::Object(object)) => Ok(Self(object)),
            Ok(_) | Err(_) => Err(NotAnObject),
        }
    }

    /// A member.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// A member that is a text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name)?.as_str()
    }

    /// The object as JSON, if it keeps to its bounds.
    pub(crate) fn bounded(&self) -> Result<String, FieldFault> {
        // The depth first: writing goes as deep as the object does.
        if self.0.values().any(|value| is_deeper(value, Self::MAX_DEPTH - 1)) {
            return Err(FieldFault::TooDeep { max: Self::MAX_DEPTH });
        }
        let text = serde_json::to_string(&self.0).map_err(|_| FieldFault::Invalid)?;
        if text.len() > Self::MAX_BYTES {
            return Err(FieldFault::TooLarge { max: Self::MAX_BYTES });
        }
        Ok(text)
    }
}

fn is_deeper(value: &Value, levels: usize) -> bool {
    let below = |inner: &Value| is_deeper(inner, levels - 1);
    match value {
        Value::Array(items) => levels == 0 || items.iter().any(below),
        Value::Object(members) => levels == 0 || members.values().any(below),
        _ => false,
    }
}

impl fmt::Debug for JsonObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JsonObject([{} members])", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// An object with so many levels.
    fn nested(levels: usize) -> JsonObject {
        let mut value = json!(1);
        for level in 1..levels {
            value = if level % 2 == 0 { json!({ "a": value }) } else { json!([value]) };
        }
        JsonObject::of(&json!({ "a": value })).unwrap()
    }

    #[test]
    fn the_bounds_are_the_last_that_are_taken() {
        assert!(nested(JsonObject::MAX_DEPTH).bounded().is_ok());
        let deep = nested(JsonObject::MAX_DEPTH + 1).bounded();
        assert_eq!(deep, Err(FieldFault::TooDeep { max: 16 }));
        // Far deeper than any stack.
        assert_eq!(nested(1000).bounded(), Err(FieldFault::TooDeep { max: 16 }));

        let long = |bytes: usize| JsonObject::of(&json!({ "a": "x".repeat(bytes - 8) })).unwrap();
        assert_eq!(long(JsonObject::MAX_BYTES).bounded().unwrap().len(), JsonObject::MAX_BYTES);
        assert_eq!(long(JsonObject::MAX_BYTES + 1).bounded(), Err(FieldFault::TooLarge { max: 8192 }));
    }

    #[test]
    fn only_an_object_is_one() {
        for value in [json!(null), json!([]), json!("a"), json!(1)] {
            assert_eq!(JsonObject::of(&value), Err(NotAnObject), "{value}");
            assert!(serde_json::from_value::<JsonObject>(value).is_err());
        }
    }

    #[test]
    fn no_value_is_shown() {
        let object = JsonObject::of(&json!({ "invite": "canary-8c1f" })).unwrap();
        assert_eq!(format!("{object:?}"), "JsonObject([1 members])");
    }
}
