//! The guide: what one needs to know beyond the items, page by page.
//!
//! | page | answers |
//! |---|---|
//! | [`concepts`] | what there is: users, registrations, codes, links, sessions, roles, and who keeps what |
//! | [`flows`] | how each of them comes to be and ends, as diagrams, with the calls that move it |
//! | [`security`] | what is defended against what, what the host must do, and what is not done |
//! | [`errors`] | every reason, what it means and what to do about it |
//! | [`migrating`] | coming from Devise, Django, better-auth or torii, with everybody's password |
//!
//! There is no code here, only text. Its examples are compiled and run by the tests.

#[doc = include_str!("concepts.md")]
pub mod concepts {}

#[doc = include_str!("flows.md")]
pub mod flows {}

#[doc = include_str!("security.md")]
pub mod security {}

#[doc = include_str!("errors.md")]
pub mod errors {}

#[doc = include_str!("migrating.md")]
pub mod migrating {}
