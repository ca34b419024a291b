//! What the api room can be told.

/// Limits of the back ends' HTTP.
#[derive(Debug, Clone)]
pub struct Config {
    /// The most bytes of a request's body.
    pub body_bytes_max: usize,
    /// The most publications of one `/hub/batch`, and channels of one `/hub/broadcast`.
    pub batch_max: usize,
    /// Whether `/docs` shows the calls (`ENABLE_DOCS`).
    pub docs: bool,
    /// Whether `/redoc` shows them as well (`ENABLE_REDOC`).
    pub redoc: bool,
}
