//! One file per use case. They are the only callers of the ports, and no rule stands anywhere else.

pub mod account;
pub mod change_email;
pub mod change_password;
pub mod delete_user;
pub mod import_users;
pub mod login;
pub mod operate;
pub mod permission;
pub mod refresh;
pub mod register;
pub mod reset_password;
pub mod sessions;
pub mod set_password;
pub mod signing_keys;
pub mod undeliverable;
pub mod update_user;
pub mod users;
pub mod verify_email;

mod hashing;
mod hooks;
mod input;
mod limits;
mod redeem;
mod step_up;
mod timing;
