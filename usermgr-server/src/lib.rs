#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "program")]
pub mod cli;
#[cfg(feature = "program")]
pub mod config;
#[cfg(feature = "program")]
mod connections;
pub mod guard;
pub mod http;
#[cfg(feature = "program")]
mod observe;
pub mod pages;
#[cfg(feature = "program")]
pub mod serve;
#[cfg(feature = "program")]
mod tls;

#[cfg(feature = "axum")]
pub use guard::CurrentUser;
pub use guard::{Refusal, RequirePermission, authenticate};
pub use http::client::{PeerAddr, client_context, client_context_by};
pub use http::{Answered, AuthService, ForwardedHeader, Hsts, Namespace, ServiceOptions, openapi, service};
