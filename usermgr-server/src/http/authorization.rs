//! The `Authorization` header: Bearer (RFC 6750) and Basic (RFC 7617).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, header};
use usermgr_core::crypto::password_text::NormalizedPassword;
use usermgr_core::domain::email::Email;
use usermgr_core::flow::sessions::Authenticated;
use usermgr_core::{AccessToken, Error, Password, UserManager};

use super::Call;
use super::problem::{Challenge, Problem};

enum Authorization<'a> {
    None,
    Bearer(&'a str),
    Basic(&'a str),
    Other,
}

fn authorization(headers: &HeaderMap) -> Authorization<'_> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(only), None) = (values.next(), values.next()) else {
        return if headers.contains_key(header::AUTHORIZATION) {
            Authorization::Other
        } else {
            Authorization::None
        };
    };
    match only.to_str().ok().and_then(|text| text.trim().split_once(' ')) {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("bearer") => Authorization::Bearer(rest.trim()),
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("basic") => Authorization::Basic(rest.trim()),
        _ => Authorization::Other,
    }
}

/// Whoever the token belongs to, if the request carries one.
async fn bearer(users: &UserManager, headers: &HeaderMap) -> Result<Option<Authenticated>, Error> {
    match authorization(headers) {
        Authorization::None => Ok(None),
        Authorization::Bearer(token) => {
            users.sessions().authenticate(&AccessToken::new(token)).await.map(Some)
        }
        Authorization::Basic(_) | Authorization::Other => Err(Error::InvalidToken),
    }
}

/// Whoever the request's token belongs to; it must carry one.
pub(crate) async fn authenticated(users: &UserManager, headers: &HeaderMap) -> Result<Authenticated, Error> {
    bearer(users, headers).await?.ok_or(Error::MissingToken)
}

/// The caller, if the request carries a token.
pub(super) async fn caller_if_any(call: &Call<'_>) -> Result<Option<Authenticated>, Problem> {
    Ok(bearer(call.manager, call.headers).await?)
}

/// The caller, who must have a token.
pub(super) async fn caller(call: &Call<'_>) -> Result<Authenticated, Problem> {
    Ok(authenticated(call.manager, call.headers).await?)
}

/// The name and password of Basic credentials, if the request carries some.
pub(super) fn basic(headers: &HeaderMap) -> Result<Option<(String, Password)>, Problem> {
    let Authorization::Basic(encoded) = authorization(headers) else { return Ok(None) };
    // Whatever does not decode is no credential that could be right.
    let refused = || Problem::from(Error::InvalidCredentials).challenged(Challenge::Basic);
    let decoded = STANDARD.decode(encoded).map_err(|_| refused())?;
    let text = String::from_utf8(decoded).map_err(|_| refused())?;
    let (name, password) = text.split_once(':').ok_or_else(refused)?;
    let password = Password::new(password);
    // Nor is what no account could have: an answer that named a field would name none of the request.
    if Email::parse(name).is_err() || NormalizedPassword::parse(&password).is_err() {
        return Err(refused());
    }
    Ok(Some((name.to_owned(), password)))
}
