//! Why a request's body ended early, as a type that handlers can recognise under whatever wraps it.

use std::error::Error;

/// A body that `server` stopped reading. The answer (413, 408) is the handler's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// More bytes than `MAX_BODY_BYTES`.
    #[error("the body is larger than this server accepts")]
    TooLarge,
    /// No byte for longer than `BODY_TIMEOUT_MS`.
    #[error("the body did not arrive in time")]
    TimedOut,
    /// The connection or its framing broke: nobody is left to answer.
    #[error("the body ended before its time")]
    Broken,
}

impl BodyError {
    /// Finds it in an error or in what caused that error.
    pub fn find(error: &(dyn Error + 'static)) -> Option<Self> {
        let mut cause = Some(error);
        while let Some(error) = cause {
            if let Some(found) = error.downcast_ref::<Self>() {
                return Some(*found);
            }
            cause = error.source();
        }
        None
    }
}
