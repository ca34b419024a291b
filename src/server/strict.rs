//! What a request's head must hold before anything routes on it, as [`http1`](crate::http1) reads it, and what is said
//! to who sends another: a proxy behind or before us may read the same bytes differently.

use super::answer::Refusal;
use crate::http1::{Framing, HeadError, RequestHead};

impl From<HeadError> for Refusal {
    fn from(error: HeadError) -> Self {
        match error {
            HeadError::Malformed => Self::BadHead,
            HeadError::TooManyFields => Self::HeadTooLarge,
            HeadError::Version => Self::UnknownVersion,
            HeadError::BadHost => Self::BadHost,
            HeadError::Connect => Self::Connect,
            HeadError::Trace => Self::Trace,
            HeadError::TargetTooLong => Self::UriTooLong,
            HeadError::AmbiguousLength => Self::AmbiguousLength,
            HeadError::Coding => Self::UnknownCoding,
        }
    }
}

/// Says whether the router may get this request, with a body of at most `body_bytes_max`.
pub(super) fn check(head: &RequestHead<'_>, body_bytes_max: u64) -> Result<(), Refusal> {
    match head.body {
        Framing::Length(length) if length > body_bytes_max => Err(Refusal::BodyTooLarge),
        _ => Ok(()),
    }
}
