//! HTTP/2 (RFC 9113) as the HTTP/1 that server and proxy speak: each stream is one exchange over a pipe.
//!
//! The `h2` crate does frames, header compression and flow control. Here a stream's request becomes a head and a body in
//! HTTP/1 for whoever serves the other end of its pipe, exactly as it would a connection of its own, and the answer in
//! HTTP/1 becomes one of HTTP/2. So there is one place that judges requests and answers, for both versions; what RFC 9113
//! asks beyond it (fields of one connection, the authority, resets) is judged here. [`Serving`] carries a client's
//! stream; an [`Asker`] makes requests on a connection to a server, the same way around.
//!
//! Bounded: a stream holds at most what its pipe does each way, and one piece; a connection's windows bound what its
//! peer may send unasked.

mod answer;
mod asking;
mod body;
mod connection;
mod heads;
mod request;
mod room;
mod servers;
mod serving;
mod socket;

pub use asking::{REFUSED, UNSAYABLE};
pub use connection::{Incoming, Limits, Served, handshake};
pub use servers::{Asker, begin};
pub use serving::{Carried, Serving};
pub use socket::Socket;

/// What a peer may send on one stream before it is taken further.
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
/// The same for all streams of a connection together.
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
/// What of one stream is encrypted or on its way.
const SEND_BYTES_MAX: usize = 128 * 1024;

/// What a connection of HTTP/2 begins with (RFC 9113 section 3.4), as far as it looks like a head of HTTP/1.
pub const PREFACE_HEAD: &[u8] = b"PRI * HTTP/2.0\r\n\r\n";

/// Fields that belong to one connection of HTTP/1, and to no message of HTTP/2 (section 8.2.2).
fn is_of_connection(lower: &[u8]) -> bool {
    matches!(
        lower,
        b"connection" | b"keep-alive" | b"proxy-connection" | b"transfer-encoding" | b"upgrade"
    )
}
