//! One's own account.

use http::StatusCode;

use crate::http::Call;
use crate::http::answer::{Answer, user};
use crate::http::authorization::caller;
use crate::http::problem::Problem;

pub(super) async fn me(call: &Call<'_>) -> Result<Answer, Problem> {
    let caller = caller(call).await?;
    Ok(Answer::json(StatusCode::OK, user(&caller.user)))
}
