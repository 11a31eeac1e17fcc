#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod crypto;
pub mod domain;
pub mod error;
pub mod flow;
pub mod manager;
pub mod policy;
pub mod port;
pub mod template;
pub mod worker;

#[cfg(feature = "testing")]
pub mod conformance;
#[cfg(feature = "testing")]
pub mod memory;
#[cfg(feature = "testing")]
pub mod testing;

pub use domain::client::ClientContext;
pub use domain::code::CodePurpose;
pub use domain::email::{Email, EmailKey, InvalidEmail};
pub use domain::secret::{
    AccessToken, Code, LinkToken, Password, RefreshToken, RegistrationToken, SecretKey,
};
pub use domain::user::User;
pub use error::Error;
pub use manager::{BuildError, BuildFault, UserManager, UserManagerBuilder};
pub use policy::Policies;
