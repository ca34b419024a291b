//! What stands between hyper and the router: extensions, panics, upgrades.

use std::convert::Infallible;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};

use axum::body::{Body, HttpBody};
use axum::routing::future::RouteFuture;
use bytes::Bytes;
use http::header::{CONNECTION, HeaderValue, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use hyper::body::{Frame, Incoming, SizeHint};
use tower::Service as _;

use super::answer::Refusal;
use super::link::{Handover, Link};
use super::local::Local;
use super::request_id::{Ids, is_hot};
use super::{Caller, Slot, Worker, body};
use crate::model::{Encrypted, PeerAddr};

/// One connection's service: hyper calls it for each request.
pub(super) struct Front<W: Worker> {
    pub(super) local: Rc<Local<W>>,
    pub(super) link: Rc<Link<W::Slot>>,
    pub(super) caller: Caller,
    /// Its connection ends with the answer.
    pub(super) is_last: bool,
}

impl<W: Worker> hyper::service::Service<Request<Incoming>> for Front<W> {
    type Response = Response<AnswerBody<W::Slot>>;
    type Error = Infallible;
    type Future = Answer<W>;

    fn call(&self, request: Request<Incoming>) -> Answer<W> {
        self.link.begin_request();
        let upgrade = match (request.method(), request.body().is_end_stream()) {
            (&Method::GET, true) => Ok(()),
            (_, true) => Err(Refusal::Broken),
            (_, false) => Err(Refusal::UpgradeWithBody),
        };
        let (mut head, body) = request.into_parts();
        let ids = Ids::of(&mut head.headers, head.uri.path()).map(Box::new);
        let browsers = &self.local.browsers;
        let origin = browsers.origin(&head.headers).map(Box::new);
        let is_hot = is_hot(head.uri.path());
        let is_last = self.is_last || asks_for_websocket(&head.headers);
        let stage = match browsers.preflight(&head) {
            Some(response) => Stage::Answered(Some(Box::new(response))),
            None => self.route(self.equip(head, body)),
        };
        Answer {
            stage,
            ids,
            origin,
            is_hot,
            is_last,
            is_encrypted: self.caller.is_encrypted,
            upgrade,
            local: Rc::clone(&self.local),
            link: Rc::clone(&self.link),
        }
    }
}

impl<W: Worker> Front<W> {
    /// What handlers find beside the request.
    fn equip(&self, mut head: Parts, body: Incoming) -> Request<Body> {
        let limits = self.local.body;
        head.extensions.insert(self.local.index);
        head.extensions.insert(PeerAddr(self.caller.peer));
        if self.caller.is_encrypted {
            head.extensions.insert(Encrypted);
        }
        // Nothing else can be upgraded; HEAD is here because it reaches the handlers of GET.
        if matches!(head.method, Method::GET | Method::HEAD) {
            head.extensions.insert(self.link.slot.borrow().clone());
        }
        Request::from_parts(head, body::bound(body, limits))
    }

    fn route(&self, request: Request<Body>) -> Stage {
        self.local.counts.requests.fetch_add(1, Relaxed);
        let mut router = self.local.router.clone();
        match catch_unwind(AssertUnwindSafe(|| router.call(request))) {
            Ok(future) => Stage::Routed(future),
            Err(_) => Stage::Panicked,
        }
    }
}

/// Its size is the routed one's: hyper keeps one place for it, used again by each request of the connection.
#[allow(
    clippy::large_enum_variant,
    reason = "nearly every request is routed; a box would cost each of them an allocation"
)]
enum Stage {
    Routed(RouteFuture<Infallible>),
    /// Without the router.
    Answered(Option<Box<Response<Body>>>),
    Panicked,
}

/// The answer to one request.
pub(super) struct Answer<W: Worker> {
    stage: Stage,
    /// What the answer is found again by.
    ids: Option<Box<Ids>>,
    /// Which page may read it, as it is told.
    origin: Option<Box<HeaderValue>>,
    /// Whether nothing is said that nobody asked for.
    is_hot: bool,
    /// Whether no request can follow unless it was upgraded.
    is_last: bool,
    is_encrypted: bool,
    /// Whether this request can be upgraded, or what to say when a handler tries.
    upgrade: Result<(), Refusal>,
    local: Rc<Local<W>>,
    link: Rc<Link<W::Slot>>,
}

impl<W: Worker> Future for Answer<W> {
    type Output = Result<Response<AnswerBody<W::Slot>>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut response = match &mut self.stage {
            Stage::Panicked => self.panicked(),
            // Taken once: an answer is not polled again.
            Stage::Answered(response) => match response.take() {
                Some(response) => *response,
                None => self.panicked(),
            },
            Stage::Routed(future) => {
                // A handler that panicked is not polled again, so what it left half done is never looked at.
                match catch_unwind(AssertUnwindSafe(|| Pin::new(future).poll(cx))) {
                    Ok(response) => {
                        let Ok(response) = ready!(response);
                        self.check_upgrade(response)
                    }
                    Err(_) => self.panicked(),
                }
            }
        };
        // hyper ends a connection whose answer says so.
        let is_last = self.is_last || self.local.is_turning_away();
        if is_last && response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let fields = response.headers_mut();
            // What may be upgraded to is still said (RFC 9110 section 15.5.22).
            let close = match fields.contains_key(UPGRADE) {
                true => HeaderValue::from_static("upgrade, close"),
                false => HeaderValue::from_static("close"),
            };
            fields.insert(CONNECTION, close);
        }
        if self.link.handover.get() == Handover::Swallowed {
            // What a client said must not stand in a head that is looked for to be left out.
            if let Some(ids) = self.ids.take() {
                let mut fields = HeaderMap::new();
                ids.tell(&mut fields);
                self.link.slot.borrow().add_fields(&fields);
            }
            let link = Rc::clone(&self.link);
            return Poll::Ready(Ok(response.map(|body| AnswerBody { body, link })));
        }
        if let Some(ids) = self.ids.take() {
            ids.tell(response.headers_mut());
        }
        if !self.is_hot || self.origin.is_some() {
            let origin = self.origin.take().map(|origin| *origin);
            let headers = response.headers_mut();
            self.local.browsers.tell(origin, self.is_encrypted, headers);
        }
        let link = Rc::clone(&self.link);
        Poll::Ready(Ok(response.map(|body| AnswerBody { body, link })))
    }
}

/// Whether a request is the handshake of a WebSocket, or like one: its client may send frames behind it, whatever is
/// answered.
fn asks_for_websocket(fields: &HeaderMap) -> bool {
    let names_it = |value: &HeaderValue| {
        let mut protocols = value.as_bytes().split(|byte| *byte == b',');
        protocols.any(|name| name.trim_ascii().eq_ignore_ascii_case(b"websocket"))
    };
    fields.get_all(UPGRADE).iter().any(names_it)
}

impl<W: Worker> Answer<W> {
    fn panicked(&self) -> Response<Body> {
        self.local.counts.panics.fetch_add(1, Relaxed);
        Refusal::Broken.response()
    }

    /// Notes where the socket goes after this response; a 101 that leads nowhere becomes a refusal.
    fn check_upgrade(&self, response: Response<Body>) -> Response<Body> {
        let mut slot = self.link.slot.borrow_mut();
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            if let Err(refusal) = self.upgrade {
                return refusal.response();
            }
            if !slot.is_filled() {
                tracing::error!("a handler answered 101 without saying what for");
                return Refusal::Broken.response();
            }
            self.link.handover.set(match slot.swallows_head() {
                true => Handover::Swallowed,
                false => Handover::Written,
            });
        } else if slot.is_filled() {
            // The handler changed its mind; the connection's next request must not find this.
            *slot = W::Slot::default();
        }
        response
    }
}

/// A response's body. Its end is the end of the request, which only hyper sees otherwise.
pub(super) struct AnswerBody<S: Default> {
    body: Body,
    link: Rc<Link<S>>,
}

impl<S: Default> Drop for AnswerBody<S> {
    fn drop(&mut self) {
        self.link.end_request();
    }
}

impl<S: Default> HttpBody for AnswerBody<S> {
    type Data = Bytes;
    type Error = BodyFault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        let body = &mut self.body;
        match catch_unwind(AssertUnwindSafe(|| Pin::new(body).poll_frame(cx))) {
            Ok(frame) => frame.map(|frame| frame.map(|frame| frame.map_err(BodyFault::Failed))),
            Err(_) => Poll::Ready(Some(Err(BodyFault::Panicked))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Why an answer stops in its middle: the connection is cut, which is how the peer learns of it.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyFault {
    /// What the handler streams has failed.
    #[error("the answer's body failed")]
    Failed(#[source] axum::Error),
    /// What the handler streams has panicked.
    #[error("the answer's body panicked")]
    Panicked,
}
