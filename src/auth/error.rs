//! Why credentials were refused, sorted by whose fault it is.

use crate::model::ErrorCode;

/// Why credentials were refused. Its text may be shown to the one who sent them: it never holds a token, a key or the
/// value of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// None were sent.
    #[error("credentials are missing")]
    Missing,
    /// Not a JSON Web Token, or one over the size limit, or with an extension that must be understood and is not.
    #[error("the token cannot be read: {0}")]
    Malformed(&'static str),
    /// The token is signed, but a claim has the wrong type or is over its limit.
    #[error("the token's claim {claim} must be {rule}")]
    BadClaim {
        /// The claim's name.
        claim: &'static str,
        /// What it must be.
        rule: &'static str,
    },
    /// Signed with an algorithm that is not accepted, or not signed at all.
    #[error("the token's algorithm is not accepted")]
    WrongAlgorithm,
    /// Signed by somebody else, or changed since.
    #[error("the token's signature is wrong")]
    BadSignature,
    /// Signed by a key that its issuer does not show.
    #[error("the token's key is not known")]
    UnknownKey,
    /// Our side: the issuer's keys could not be fetched yet.
    #[error("the issuer's keys are not here yet")]
    KeysUnavailable,
    /// Our side: the secret that the nodes of this fleet share could not be found yet.
    #[error("the secret of tokens is not here yet")]
    SecretUnavailable,
    /// The session of the login that it was minted for is over.
    #[error("the session of the token has ended")]
    LoginEnded,
    /// `exp` has passed.
    #[error("the token has expired")]
    Expired,
    /// `nbf` has not come.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// `aud` does not name the configured audience.
    #[error("the token is for another audience")]
    WrongAudience,
    /// `iss` is not the configured issuer.
    #[error("the token is of another issuer")]
    WrongIssuer,
    /// Who it is, is known; it may not do that.
    #[error("the role of the token may not do this")]
    NotAllowed,
    /// The key in the header is not the right one.
    #[error("the key is wrong")]
    WrongKey,
    /// Our side: no secret is configured, so no token can be verified or made.
    #[error("no secret is configured, so tokens cannot be verified")]
    NoKey,
}

impl AuthError {
    /// The one map from here to what clients and back ends are told.
    pub const fn code(self) -> ErrorCode {
        match self {
            Self::Missing | Self::WrongKey => ErrorCode::Unauthorized,
            Self::NotAllowed => ErrorCode::Forbidden,
            Self::KeysUnavailable | Self::SecretUnavailable => ErrorCode::Unavailable,
            Self::Malformed(_)
            | Self::BadClaim { .. }
            | Self::WrongAlgorithm
            | Self::BadSignature
            | Self::UnknownKey
            | Self::LoginEnded
            | Self::Expired
            | Self::NotYetValid
            | Self::WrongAudience
            | Self::WrongIssuer
            | Self::NoKey => ErrorCode::InvalidToken,
        }
    }
}
