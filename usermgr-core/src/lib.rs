//! placeholder
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod crypto;
pub mod domain;
#[cfg(any())]
pub mod error;
#[cfg(any())]
pub mod flow;
#[cfg(any())]
pub mod manager;
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
pub use domain::secret::{AccessToken, Code, LinkToken, Password, RefreshToken, RegistrationToken, SecretKey};
pub use domain::user::User;
#[cfg(any())]
pub use error::Error;
#[cfg(any())]
pub use manager::{BuildError, BuildFault, UserManager, UserManagerBuilder};
pub use policy::Policies;
