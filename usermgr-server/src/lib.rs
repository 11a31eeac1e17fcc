#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod cli;
pub mod config;
mod connections;
pub mod http;
mod observe;
pub mod pages;
pub mod serve;
mod tls;

pub use http::client::PeerAddr;
pub use http::{Answered, AuthService, ServiceOptions, openapi, service};
