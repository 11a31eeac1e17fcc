#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(any(feature = "manager", feature = "verifier"))]
pub mod crypto;
pub mod domain;
#[cfg(feature = "manager")]
pub mod error;
#[cfg(feature = "manager")]
pub mod flow;
#[cfg(feature = "manager")]
pub mod guide;
#[cfg(feature = "manager")]
pub mod manager;
#[cfg(feature = "manager")]
pub mod policy;
#[cfg(feature = "manager")]
pub mod port;
#[cfg(feature = "manager")]
pub mod template;
#[cfg(feature = "verifier")]
pub mod verifier;
#[cfg(feature = "manager")]
pub mod worker;

#[cfg(feature = "testing")]
pub mod conformance;
#[cfg(feature = "memory")]
pub mod memory;
#[cfg(feature = "testing")]
pub mod testing;

#[cfg(feature = "manager")]
pub use domain::client::ClientContext;
#[cfg(feature = "manager")]
pub use domain::code::CodePurpose;
#[cfg(feature = "manager")]
pub use domain::email::{Email, EmailKey, InvalidEmail};
#[cfg(feature = "manager")]
pub use domain::secret::{
    AccessToken, Code, LinkToken, Password, RefreshToken, RegistrationToken, SecretKey,
};
#[cfg(feature = "manager")]
pub use domain::user::User;
#[cfg(feature = "manager")]
pub use error::Error;
#[cfg(feature = "manager")]
pub use manager::{BuildError, BuildFault, UserManager, UserManagerBuilder};
#[cfg(feature = "manager")]
pub use policy::Policies;
