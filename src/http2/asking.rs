//! One request to a server, the other way around: what is written to a pipe as HTTP/1 goes out on a stream, and the
//! answer comes back as HTTP/1.

use std::io::ErrorKind;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use http::header::HOST;
use http::uri::{Authority, Scheme};
use http::{Request, Response, Uri};
use tokio::time::Instant;

use super::answer::fields_of;
use super::body::{Fault, Outgoing, last_chunk, poll_in};
use super::heads::{head_of, interim_head};
use super::servers::State;
use crate::http1::{FIELDS_MAX, HEAD_BYTES_MAX, HeadScan, RequestHead, Scanned};
use crate::tls::{FarEnd, Pulled};

/// What the pipe's reader sees of a request that the server has not looked at: it can be made again, whatever it was
/// (RFC 9113 section 8.7).
pub const REFUSED: ErrorKind = ErrorKind::ConnectionRefused;

/// What the pipe's reader sees of a request that has no form in HTTP/2: that is the fault of whoever asks, and of no
/// connection.
pub const UNSAYABLE: ErrorKind = ErrorKind::InvalidInput;

/// Fields of a request's head, those among them that a gateway adds to a client's.
const REQUEST_FIELDS_MAX: usize = FIELDS_MAX + 28;
/// The same for its bytes: a host, an address and a user are told more than once.
const REQUEST_HEAD_BYTES_MAX: usize = 4 * HEAD_BYTES_MAX;

/// A request that is given up sooner says nothing about its connection.
const PATIENCE: Duration = Duration::from_secs(1);

/// What is written to the pipe.
enum Up {
    Head(HeadScan),
    Body(SendStream<Bytes>, Outgoing),
    /// All of it is on its way.
    Sent(SendStream<Bytes>),
}

/// What the server answers.
enum Down {
    /// Nothing was asked yet.
    Nothing,
    /// It could not be.
    Unasked(ErrorKind),
    Head(ResponseFuture),
    Body(RecvStream, bool),
}

/// One request on its way, which the pipe's other end polls. Dropped before its end, it resets the stream.
pub(super) struct Asking {
    far: FarEnd,
    send: SendRequest<Bytes>,
    scheme: Scheme,
    state: Arc<State>,
    up: Up,
    down: Down,
    is_head: bool,
    held: Bytes,
    opened: Option<Instant>,
    has_ended: bool,
}

impl Asking {
    pub(super) fn new(
        far: FarEnd,
        send: SendRequest<Bytes>,
        scheme: Scheme,
        state: Arc<State>,
    ) -> Self {
        Self {
            far,
            send,
            scheme,
            state,
            up: Up::Head(HeadScan::default()),
            down: Down::Nothing,
            is_head: false,
            held: Bytes::new(),
            opened: None,
            has_ended: false,
        }
    }

    fn poll_both(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ErrorKind>> {
        if let Poll::Ready(Err(fault)) = self.poll_up(cx)
            && fault == Fault::Inside
        {
            // What was asked is nonsense.
            self.give_up();
            return Poll::Ready(Err(ErrorKind::ConnectionReset));
        }
        // Where the stream takes no more, what the server says of it decides.
        self.poll_down(cx)
    }

    fn give_up(&mut self) {
        if let Up::Body(stream, _) | Up::Sent(stream) = &mut self.up {
            stream.send_reset(Reason::CANCEL);
        }
        if let Some(opened) = self.opened
            && matches!(self.down, Down::Head(_))
            && opened.elapsed() >= PATIENCE
        {
            // It may have waited for a connection that is dead.
            self.state.doubt();
        }
    }

    fn poll_up(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        loop {
            match &mut self.up {
                Up::Head(scan) => match scan.look_up_to(&self.held, REQUEST_HEAD_BYTES_MAX) {
                    Scanned::Whole(length) => {
                        self.begin(length)?;
                        continue;
                    }
                    Scanned::Partial => {}
                    Scanned::Malformed | Scanned::TooLong => {
                        self.down = Down::Unasked(UNSAYABLE);
                        return Poll::Ready(Err(Fault::Stream));
                    }
                },
                Up::Body(stream, body) => {
                    if ready!(body.poll(cx, stream, &mut self.held, true))? {
                        let Up::Body(stream, _) =
                            std::mem::replace(&mut self.up, Up::Head(HeadScan::default()))
                        else {
                            return Poll::Ready(Err(Fault::Inside));
                        };
                        self.up = Up::Sent(stream);
                        continue;
                    }
                }
                Up::Sent(_) => {}
            }
            match ready!(self.far.poll_pull(cx)) {
                Pulled::Bytes(bytes) if self.held.is_empty() => self.held = bytes,
                Pulled::Bytes(bytes) => self.held = [&self.held[..], &bytes].concat().into(),
                Pulled::End | Pulled::Cut => return Poll::Ready(Err(Fault::Inside)),
            }
        }
    }

    /// The head has come: the stream is opened.
    fn begin(&mut self, length: usize) -> Result<(), Fault> {
        let bytes = self.held.split_to(length);
        let mut slots = [const { MaybeUninit::uninit() }; REQUEST_FIELDS_MAX];
        let head = RequestHead::parse(&bytes, &mut slots).ok();
        let said = head.and_then(|head| {
            let whom = (self.scheme.clone(), self.state.authority(head.host)?);
            Some((request(&head, &bytes, whom)?, head))
        });
        let Some((request, head)) = said else {
            self.down = Down::Unasked(UNSAYABLE);
            return Err(Fault::Stream);
        };
        self.is_head = head.method == "HEAD";
        let ends = head.body.is_done();
        match self.send.send_request(request, ends) {
            Ok((response, stream)) => {
                self.down = Down::Head(response);
                self.opened = Some(Instant::now());
                self.up = match ends {
                    true => Up::Sent(stream),
                    false => Up::Body(stream, Outgoing::new(head.body)),
                };
                Ok(())
            }
            // Nothing was sent: the connection takes no more streams.
            Err(_) => {
                self.down = Down::Unasked(REFUSED);
                Err(Fault::Stream)
            }
        }
    }

    fn poll_down(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ErrorKind>> {
        loop {
            match &mut self.down {
                Down::Nothing => return Poll::Pending,
                Down::Unasked(kind) => return Poll::Ready(Err(*kind)),
                Down::Head(response) => {
                    if let Poll::Ready(Some(interim)) = response.poll_informational(cx) {
                        self.far
                            .push(interim_head(&interim.map_err(|error| kind(&error))?));
                        continue;
                    }
                    let response =
                        ready!(Pin::new(response).poll(cx)).map_err(|error| kind(&error))?;
                    let (head, body) = response.into_parts();
                    let response = Response::from_parts(head, ());
                    let ends = body.is_end_stream();
                    let (bytes, is_chunked) = head_of(&response, ends, self.is_head);
                    self.far.push(bytes);
                    self.down = Down::Body(body, is_chunked);
                }
                Down::Body(body, is_chunked) => {
                    let trailers = ready!(poll_in(cx, body, &mut self.far, *is_chunked, &mut 0));
                    if let (true, Some(trailers)) =
                        (*is_chunked, trailers.map_err(|error| kind(&error))?)
                    {
                        self.far.push(last_chunk(&trailers));
                    }
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}

/// Carries it to its end.
impl Future for Asking {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match ready!(self.poll_both(cx)) {
            Ok(()) => self.far.end(),
            Err(kind) => self.far.cut(kind),
        }
        self.has_ended = true;
        Poll::Ready(())
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        if !self.has_ended {
            // Nobody waits for the answer.
            self.give_up();
        }
        self.state.end_stream();
    }
}

/// Whether a failure means that the server has not looked at the request: it said so of the stream, or it closes in good
/// order and the stream was beyond the last that it takes. Those within it end with what they are answered.
fn kind(error: &h2::Error) -> ErrorKind {
    let is_refused = error.reason() == Some(Reason::REFUSED_STREAM)
        || (error.is_go_away() && error.is_remote() && error.reason() == Some(Reason::NO_ERROR));
    match is_refused {
        true => REFUSED,
        false => ErrorKind::ConnectionReset,
    }
}

/// The request whose head stands in these bytes.
fn request(
    head: &RequestHead<'_>,
    bytes: &Bytes,
    (scheme, authority): (Scheme, Authority),
) -> Option<Request<()>> {
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(scheme);
    parts.authority = Some(authority);
    parts.path_and_query = Some(head.target.parse().ok()?);
    let mut fields = fields_of(head.fields, bytes)?;
    fields.remove(HOST);
    let mut request = Request::new(());
    *request.method_mut() = head.method.parse().ok()?;
    *request.uri_mut() = Uri::from_parts(parts).ok()?;
    *request.version_mut() = http::Version::HTTP_2;
    *request.headers_mut() = fields;
    Some(request)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::slots;

    #[test]
    fn requests_lose_what_belongs_to_a_connection() {
        let text = "POST /a?b HTTP/1.1\r\nhost: up.test:81\r\nte: trailers\r\nconnection: x\r\n\
                    transfer-encoding: chunked\r\ncookie: a=b\r\n\r\n";
        let mut slots = slots();
        let bytes = Bytes::from_static(text.as_bytes());
        let head = RequestHead::parse(&bytes, &mut slots).expect("a head");
        let authority = head.host.parse().expect("an authority");
        let request = request(&head, &bytes, (Scheme::HTTPS, authority)).expect("a request");
        assert_eq!(request.uri(), "https://up.test:81/a?b");
        let fields = request.headers();
        let kept = (&fields["te"], &fields["cookie"], fields.len());
        assert_eq!(
            kept,
            (
                &"trailers".parse().expect("a value"),
                &"a=b".parse().expect("a value"),
                2
            )
        );
    }

    #[test]
    fn what_the_server_has_not_looked_at_is_told_from_the_rest() {
        for (reason, expected) in [
            (Reason::REFUSED_STREAM, REFUSED),
            (Reason::INTERNAL_ERROR, ErrorKind::ConnectionReset),
            (Reason::NO_ERROR, ErrorKind::ConnectionReset),
        ] {
            assert_eq!(kind(&reason.into()), expected);
        }
    }
}
