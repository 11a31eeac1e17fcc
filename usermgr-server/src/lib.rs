#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

pub mod cli;
pub mod config;
pub mod http;
pub mod pages;
pub mod serve;

pub use http::client::PeerAddr;
pub use http::{AuthService, ServiceOptions, service};
