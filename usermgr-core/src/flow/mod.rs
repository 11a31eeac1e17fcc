//! One file per use case. They are the only callers of the ports, and no rule stands anywhere else.

pub mod change_password;
pub mod login;
pub mod register;
pub mod reset_password;
pub mod sessions;
pub mod set_password;
pub mod users;
pub mod verify_email;

mod input;
mod limits;
mod redeem;
