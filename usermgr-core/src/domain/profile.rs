//! What the host keeps of a user beside what this library knows: a JSON object that went through a type of the host's.

use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::field::{FieldError, FieldFault};
use super::json::JsonObject;

/// The profile of a user: a JSON object, kept letter by letter as it was written.
///
/// One that is stored has gone through the type of [`UserManagerBuilder::profile`], and is read by it again
/// ([`User::profile`]).
///
/// # Security
/// It is about a person: `Debug` shows nothing of it.
///
/// [`UserManagerBuilder::profile`]: crate::UserManagerBuilder::profile
/// [`User::profile`]: crate::User::profile
#[derive(Clone, Serialize)]
#[serde(transparent)]
pub struct Profile(Box<RawValue>);

/// A text that is no profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a JSON object")]
pub struct InvalidProfile;

/// A profile that is not of the type it was to be read as. What stands in it is not told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the profile does not fit its type, at {at}")]
pub struct ProfileError {
    /// Where it does not fit, as `address.zip`; a dot is the whole.
    pub at: String,
}

impl Profile {
    /// Takes a profile that was stored before.
    ///
    /// # Errors
    /// [`InvalidProfile`] for anything but a JSON object.
    pub fn from_stored(text: String) -> Result<Self, InvalidProfile> {
        let value = RawValue::from_string(text).map_err(|_| InvalidProfile)?;
        if value.get().starts_with('{') { Ok(Self(value)) } else { Err(InvalidProfile) }
    }

    /// The profile as JSON.
    pub fn as_str(&self) -> &str {
        self.0.get()
    }

    /// The profile as a value of the host's type.
    ///
    /// # Errors
    /// [`ProfileError`] when the type does not read it.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, ProfileError> {
        let mut json = serde_json::Deserializer::from_str(self.as_str());
        serde_path_to_error::deserialize(&mut json)
            .map_err(|error| ProfileError { at: error.path().to_string() })
    }
}

impl PartialEq for Profile {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Profile {}

impl fmt::Debug for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Profile([{} bytes])", self.as_str().len())
    }
}

/// The host's type, as what is sent goes through it.
#[derive(Clone, Copy)]
pub(crate) struct ProfileType {
    check: fn(&str) -> Result<Profile, ProfileFault>,
}

/// Why an object is no profile of the host's.
#[derive(Debug)]
pub(crate) enum ProfileFault {
    /// What was sent is wrong.
    Field(FieldError),
    /// The type does not write an object that it reads: the host's fault.
    Type(&'static str),
}

impl From<FieldFault> for ProfileFault {
    fn from(fault: FieldFault) -> Self {
        Self::Field(FieldError::new(FIELD, fault))
    }
}

/// The field that a profile is sent in.
const FIELD: &str = "profile";
/// The most bytes of a field's name that is told; longer ones are not repeated.
const MAX_NAME: usize = 128;

impl ProfileType {
    pub(crate) fn of<T: Serialize + DeserializeOwned>() -> Self {
        Self { check: through::<T> }
    }

    /// What the type makes of an object.
    pub(crate) fn check(self, sent: &JsonObject) -> Result<Profile, ProfileFault> {
        (self.check)(&sent.bounded()?)
    }
}

fn through<T: Serialize + DeserializeOwned>(sent: &str) -> Result<Profile, ProfileFault> {
    let mut json = serde_json::Deserializer::from_str(sent);
    let value: T = serde_path_to_error::deserialize(&mut json)
        .map_err(|error| ProfileFault::Field(field_error(&error)))?;
    let wrong = |_| ProfileFault::Type(std::any::type_name::<T>());
    let text = serde_json::to_string(&value).map_err(wrong)?;
    let profile = Profile::from_stored(text).map_err(|_| ProfileFault::Type(std::any::type_name::<T>()))?;
    if profile.as_str().len() > JsonObject::MAX_BYTES {
        return Err(FieldFault::TooLarge { max: JsonObject::MAX_BYTES }.into());
    }
    match profile.read::<T>() {
        Ok(_) => Ok(profile),
        Err(_) => Err(ProfileFault::Type(std::any::type_name::<T>())),
    }
}

/// The field that is wrong, by its path, and how. The value is never repeated.
fn field_error(error: &serde_path_to_error::Error<serde_json::Error>) -> FieldError {
    let message = error.inner().to_string();
    let (fault, missing) = if message.starts_with("unknown field") {
        (FieldFault::Unknown, None)
    } else if message.starts_with("missing field") {
        // Serde stands at what lacks it; only its message tells which.
        (FieldFault::Required, message.split('`').nth(1))
    } else if message.starts_with("invalid type") {
        (FieldFault::InvalidType, None)
    } else {
        (FieldFault::Invalid, None)
    };
    let path = error.path().to_string();
    let parts = [Some(FIELD), Some(path.as_str()).filter(|path| *path != "."), missing];
    let name = parts.into_iter().flatten().collect::<Vec<_>>().join(".");
    if name.len() > MAX_NAME { FieldError::new(FIELD, fault) } else { FieldError::new(name, fault) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use serde_json::{Value, json};

    #[derive(Debug, Serialize, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Shop {
        customer: Customer,
        #[serde(default)]
        tags: Vec<String>,
        #[serde(default)]
        address: Option<Address>,
    }

    #[derive(Debug, Serialize, Deserialize, PartialEq)]
    struct Address {
        zip: u32,
    }

    #[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
    #[serde(try_from = "String", into = "String")]
    struct Customer(String);

    impl TryFrom<String> for Customer {
        type Error = &'static str;

        fn try_from(text: String) -> Result<Self, Self::Error> {
            let fits = text.len() == 4 && text.bytes().all(|b| b.is_ascii_digit());
            if fits { Ok(Self(text)) } else { Err("a customer number has four digits") }
        }
    }

    impl From<Customer> for String {
        fn from(customer: Customer) -> Self {
            customer.0
        }
    }

    fn checked<T: Serialize + DeserializeOwned>(sent: &Value) -> Result<Profile, ProfileFault> {
        ProfileType::of::<T>().check(&JsonObject::of(sent).unwrap())
    }

    fn fault(sent: &Value) -> String {
        match checked::<Shop>(sent) {
            Err(ProfileFault::Field(error)) => format!("{}/{}", error.field, error.fault.as_str()),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn a_fault_has_the_name_of_its_field() {
        for (sent, expected) in [
            (json!({ "customer": "12a4" }), "profile.customer/invalid"),
            (json!({ "customer": 1234 }), "profile.customer/invalid_type"),
            (json!({}), "profile.customer/required"),
            (json!({ "customer": "1234", "role": "admin" }), "profile.role/unknown"),
            (json!({ "customer": "1234", "tags": ["a", 1] }), "profile.tags[1]/invalid_type"),
            (json!({ "customer": "1234", "address": {} }), "profile.address.zip/required"),
            (json!({ "customer": "1234", "address": { "zip": -1 } }), "profile.address.zip/invalid"),
            (json!({ "customer": "1234", "x".repeat(200): 1 }), "profile/unknown"),
            (json!({ "customer": "1234", "tags": ["x".repeat(9000)] }), "profile/too_large"),
        ] {
            assert_eq!(fault(&sent), expected, "{sent}");
        }
    }

    #[test]
    fn what_is_kept_is_what_the_type_writes() {
        let profile = checked::<Shop>(&json!({ "tags": ["a"], "customer": "1234" })).unwrap();
        assert_eq!(profile.as_str(), r#"{"customer":"1234","tags":["a"],"address":null}"#);
        let read: Shop = profile.read().unwrap();
        assert_eq!(read, Shop { customer: Customer("1234".into()), tags: vec!["a".into()], address: None });
        assert_eq!(serde_json::to_value(&profile).unwrap()["customer"], "1234");
        assert_eq!(profile.read::<Vec<u8>>(), Err(ProfileError { at: ".".into() }));
    }

    /// Writes what it does not read.
    #[derive(Serialize, Deserialize)]
    struct OneWay {
        #[serde(skip_serializing)]
        _name: String,
    }

    #[test]
    fn a_type_that_does_not_read_what_it_writes_is_the_hosts_fault() {
        let own = |checked: Result<Profile, ProfileFault>| matches!(checked, Err(ProfileFault::Type(_)));
        assert!(own(checked::<OneWay>(&json!({ "_name": "Ana" }))));
    }

    #[test]
    fn only_an_object_is_a_profile() {
        for text in ["", "1", "[]", "null", "{", "{}{}", "{\"a\":}"] {
            assert_eq!(Profile::from_stored(text.into()), Err(InvalidProfile), "{text}");
        }
        let profile = Profile::from_stored("{\"a\":\"\\u0000 1.50 canary\"}".into()).unwrap();
        assert_eq!(profile.as_str(), "{\"a\":\"\\u0000 1.50 canary\"}");
        assert!(!format!("{profile:?}").contains("canary"));
    }
}
