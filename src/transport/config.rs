//! What the transport room can be told.

use std::sync::Arc;
use std::time::Duration;

use crate::model::NodeId;

/// Bounds and intervals of sockets and streams.
#[derive(Debug, Clone)]
pub struct Config {
    /// This node's id, told to clients as `gateway_id`.
    pub node: NodeId,
    /// Whether a token is needed (`AUTH_REQUIRED`).
    pub auth_required: bool,
    /// Origins beside its own that a browser may connect from (`ALLOW_ORIGINS`); `None` allows any.
    pub origins: Option<Arc<[String]>>,
    /// Whether a page of a listed origin may send its cookies along (`ALLOW_CREDENTIALS`).
    pub credentials: bool,
    /// The most pending bytes of one connection; a shared frame counts in full (`WS_MAX_BUFFERED_BYTES`).
    pub pending_bytes_max: usize,
    /// The most pending messages of one connection (`WS_MAX_BUFFERED_MESSAGES`).
    pub pending_messages_max: usize,
    /// The most pending bytes of the process; a shared frame counts once (`WS_TOTAL_BUFFERED_BYTES`).
    pub total_pending_bytes_max: usize,
    /// The most bytes that the kernel holds for one connection that does not read (`WS_SOCKET_BUFFER_BYTES`).
    pub socket_buffer_bytes: usize,
    /// The most bytes of one message from a client (`WS_MAX_MESSAGE_BYTES`).
    pub message_bytes_max: usize,
    /// The most connections that wait for their worker (each worker's `Intake`).
    pub intake_capacity: usize,
    /// The most publications that wait for a worker, in messages (its inbox).
    pub inbox_messages_max: usize,
    /// The most publications that wait for a worker, in bytes.
    pub inbox_bytes_max: usize,
    /// Whether `/ws/echo` is served (`WS_ECHO`).
    pub echo: bool,
    /// Between comments of a server-sent event stream.
    pub sse_comment_interval: Duration,
    /// What an event stream is told as `retry`, before jitter.
    pub sse_retry: Duration,
}
