//! placeholder
#![forbid(unsafe_code)]

pub mod crypto;
pub mod domain;
pub mod policy;
pub mod port;
pub mod template;
pub mod worker;

#[cfg(feature = "testing")]
pub mod conformance;
#[cfg(feature = "testing")]
pub mod memory;

pub use domain::client::ClientContext;
pub use domain::code::CodePurpose;
pub use domain::email::{Email, EmailKey, InvalidEmail};
pub use domain::secret::RegistrationToken;
