//! Accounts: register, log in, log out, delete.

use axum::extract::Request;
use http::StatusCode;
use serde::Serialize;

use super::caller::Caller;
use super::fields::Fields;
use super::{SessionError, SessionState, written};
use crate::api::body;
use crate::auth::{AuthError, TokenClaims};
use crate::session::{AccountError, LoggedIn, UnixTime, UserName};

/// The longest address that mail can go to (RFC 5321, 4.5.3.1).
const EMAIL_BYTES_MAX: usize = 320;
/// The longest password. Hashing takes as long for each, but normalising does not.
const PASSWORD_BYTES_MAX: usize = 1024;
/// The most bytes of a body: three fields, every byte of which may be escaped in six.
const BODY_BYTES_MAX: usize = 2 << 20;

#[derive(Serialize)]
struct Done<'a> {
    message: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<&'a str>,
}

fn done(message: &'static str) -> Result<Vec<u8>, SessionError> {
    written(&Done {
        message,
        username: None,
    })
}

/// `{"username","email","password"}`.
pub(super) async fn register(
    state: &SessionState,
    request: Request,
) -> Result<Vec<u8>, SessionError> {
    let ip = (state.origin_of)(&request).ip;
    let body = body::read(request, BODY_BYTES_MAX).await?;
    let mut fields = Fields::parse(&body)?;
    let name = fields.new_name("username");
    let email = fields.plain_text("email", EMAIL_BYTES_MAX);
    let password = fields.text("password", PASSWORD_BYTES_MAX);
    fields.check()?;
    let name = name.ok_or_else(SessionError::internal)?;
    let username = name.text().clone();
    let registered = state.sessions.register(name, &email, &password, ip);
    registered.await?;
    written(&Done {
        message: "User registered successfully",
        username: Some(&username),
    })
}

#[derive(Serialize)]
struct Login<'a> {
    access_token: &'a str,
    token_type: &'static str,
    expires_in: u64,
    user: LoginUser<'a>,
    session_id: String,
}

#[derive(Serialize)]
struct LoginUser<'a> {
    username: &'a str,
    role: &'a str,
}

/// `{"username","password"}`.
pub(super) async fn login(state: &SessionState, request: Request) -> Result<Vec<u8>, SessionError> {
    let ip = (state.origin_of)(&request).ip;
    let body = body::read(request, BODY_BYTES_MAX).await?;
    let mut fields = Fields::parse(&body)?;
    let name = fields.text("username", PASSWORD_BYTES_MAX);
    let password = fields.text("password", PASSWORD_BYTES_MAX);
    fields.check()?;
    // Before a session begins that nobody could use.
    if state.verifier.lacks_secret() {
        return Err(AuthError::SecretUnavailable.into());
    }
    // A name that nobody can have is nobody's, like any other unknown one.
    let name = UserName::new(&name).map_err(|_| AccountError::Refused)?;
    let logged_in = state.sessions.log_in(name, &password, ip).await?;
    let token = mint(state, &logged_in)?;
    written(&Login {
        access_token: &token,
        token_type: "bearer",
        expires_in: state.token_seconds,
        user: LoginUser {
            username: &logged_in.user,
            role: &logged_in.role,
        },
        session_id: logged_in.session.to_string(),
    })
}

fn mint(state: &SessionState, logged_in: &LoggedIn) -> Result<String, SessionError> {
    let now = UnixTime::now().as_secs();
    let claims = TokenClaims {
        sub: Some(logged_in.user.to_string()),
        user_id: Some(logged_in.user.to_string()),
        role: Some(logged_in.role.to_string()),
        login_session: Some(logged_in.session.to_string()),
        exp: Some(now.saturating_add(state.token_seconds)),
        ..TokenClaims::default()
    };
    Ok(state.verifier.mint(&claims)?)
}

/// Ends the caller's session.
pub(super) async fn logout(
    state: &SessionState,
    request: Request,
) -> Result<Vec<u8>, SessionError> {
    let caller = Caller::of(state, request.headers()).await?;
    state
        .sessions
        .log_out(caller.user(), caller.login())
        .await?;
    done("Logged out successfully")
}

/// Deletes the caller's account and everything of it.
pub(super) async fn delete_account(
    state: &SessionState,
    request: Request,
) -> Result<Vec<u8>, SessionError> {
    let caller = Caller::of(state, request.headers()).await?;
    if state.sessions.delete_account(caller.user()).await? {
        done("Account deleted successfully")
    } else {
        Err(SessionError::new(StatusCode::NOT_FOUND, "User not found"))
    }
}
