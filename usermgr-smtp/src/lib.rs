#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod console;
mod console_events;
#[cfg(feature = "smtp")]
mod conversation;
mod folder;
#[cfg(feature = "http-api")]
mod http_api;
mod mail_url;
mod message;
mod phrase;
mod sender;
#[cfg(feature = "smtp")]
mod smtp;
#[cfg(feature = "testing")]
pub mod testing;
mod transport;
#[cfg(any(feature = "smtp", feature = "http-api"))]
mod trusted_roots;
#[cfg(feature = "http-api")]
mod webhook;

pub use console::Console;
pub use console_events::ConsoleEvents;
pub use folder::Folder;
#[cfg(feature = "http-api")]
pub use http_api::HttpApi;
pub use mail_url::{MailUrlError, PlaintextPolicy};
pub use message::build_message;
pub use sender::{InvalidSender, Sender};
#[cfg(feature = "smtp")]
pub use smtp::{Smtp, SmtpBuilder};
pub use transport::from_url;
#[cfg(any(feature = "smtp", feature = "http-api"))]
pub use transport::from_url_trusting;
#[cfg(any(feature = "smtp", feature = "http-api"))]
pub use trusted_roots::{InvalidRoots, TrustedRoots};
#[cfg(feature = "http-api")]
pub use webhook::{Webhook, WebhookUrlError};
