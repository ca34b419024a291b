//! A request's way through the cache: it is answered from there, waits for another one's answer, or asks the upstream and
//! leaves a copy of what that says.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncWrite as _;
use tokio::time::Instant;

use super::Proxy;
use super::cache::{Asking, Cache, Follower, Found, Head, Heard, Recorder, Serving, Way};
use super::call::{Call, State};
use super::course::{Asked, Course};
use super::error::ProxyError;
use super::fields::{write_date, write_response};
use super::pages::Audience;
use crate::http1::{After, Exchange as _, Framing, Peer, ReadAhead, ResponseHead};
use crate::telemetry::proxy::{self as counts, Cached, Carried, Method};
use crate::tls::Stream;

/// How long a renewal beside may take in all.
const RENEWAL_TIME_MAX: Duration = Duration::from_secs(60);

/// A request that waits for another one's answer.
#[derive(Debug)]
pub(super) struct Waiting {
    follower: Follower,
    /// Until then; afterwards it asks by itself.
    pub(super) until: Instant,
}

/// An answer out of the cache on its way.
#[derive(Debug)]
pub(super) struct Served {
    head: Vec<u8>,
    body: Bytes,
    sent: usize,
    after: After,
}

impl Proxy {
    /// Whether the cache has the answer to such a request, whose fields are these, and the upstream is not asked.
    pub(super) fn has_fresh(&self, way: Option<&Way>, fields: &[u8]) -> bool {
        match way {
            Some(Way::Wants(wanted)) => wanted.has_fresh(&self.cache, fields, Instant::now()),
            _ => false,
        }
    }
}

impl Call {
    /// Begins: with the cache, where there is one for this request, or with an upstream.
    pub(super) fn begin(&mut self) {
        self.consult(true);
    }

    fn consult(&mut self, may_wait: bool) {
        let cache = self.proxy.cache.clone();
        let now = Instant::now();
        let found = match &mut self.course {
            Some(Course {
                cache: Some(Way::Wants(wanted)),
                fields,
                ..
            }) => wanted.consult(&cache, fields, may_wait, now),
            _ => return self.try_next(),
        };
        match found {
            Found::Answer(serving, renews) => {
                if renews {
                    self.renew_beside(&cache);
                }
                self.serve(&serving);
            }
            Found::Wait(follower) => {
                let until = now + cache.wait_max();
                self.state = State::Waiting(Waiting { follower, until });
            }
            Found::Nothing => self.tell(&ProxyError::NotCached),
            Found::Ask => self.try_next(),
        }
    }

    /// Ready when it goes on.
    pub(super) fn poll_wait(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let State::Waiting(waiting) = &mut self.state else {
            return Poll::Ready(());
        };
        if waiting.follower.poll(cx).is_pending() && Instant::now() < waiting.until {
            return Poll::Pending;
        }
        self.moved = Instant::now();
        // Once: where the answer was not kept, all would wait for one after the other.
        self.consult(false);
        Poll::Ready(())
    }

    /// Answers with what stands in the cache.
    fn serve(&mut self, serving: &Serving) {
        let now = Instant::now();
        counts::cached(serving.counts_as);
        self.attempt = None;
        self.asked.keeps_alive = self.may_keep_client();
        self.asked.is_answered(serving.status(), now);
        let mut head = Vec::with_capacity(512);
        serving.write_head(now, &mut head);
        self.proxy.pages.add(self.asked.audience, &mut head);
        head.extend_from_slice(&self.asked.lines);
        if !self.asked.keeps_alive {
            head.extend_from_slice(b"connection: close\r\n");
        }
        head.extend_from_slice(b"\r\n");
        self.moved = now;
        self.state = State::Serving(Served {
            head,
            body: serving.body(),
            sent: 0,
            after: match self.asked.keeps_alive {
                true => After::KeepAlive,
                false => After::Close,
            },
        });
    }

    /// Writes head and body; ready at the end.
    pub(super) fn poll_serve(&mut self, cx: &mut Context<'_>, peer: &mut Peer<'_>) -> Poll<After> {
        let State::Serving(served) = &mut self.state else {
            return Poll::Ready(After::Cut);
        };
        let before = served.sent;
        let polled = served.poll(cx, peer.socket);
        if served.sent > before {
            // A slow client has time for as long as it takes something.
            self.moved = Instant::now();
        }
        match ready!(polled) {
            Ok(()) => Poll::Ready(served.after),
            Err(_) => Poll::Ready(After::Cut),
        }
    }

    /// The upstream's answer, as far as the cache is concerned: what stands there instead of it, or who takes it down.
    pub(super) fn hear_for_cache(&mut self, head: &ResponseHead<'_>) -> Heard {
        let cache = self.proxy.cache.clone();
        let Some(course) = &mut self.course else {
            return Heard::Pass;
        };
        let wanted = match &mut course.cache {
            Some(Way::Wants(wanted)) => wanted,
            Some(Way::Changes(key)) => {
                // Whatever was said of it may not hold any more (RFC 9111 section 4.4).
                if (200..400).contains(&head.status) {
                    cache.forget(key);
                }
                return Heard::Pass;
            }
            None => return Heard::Pass,
        };
        let asking = Asking {
            lines: &course.fields,
            is_personal: false,
            since: self.began,
            at: self.moved,
        };
        let kept = kept_head(head, &self.asked, |lower| self.proxy.removed.has(lower));
        let heard = wanted.hear(&cache, kept, head.body, &asking);
        if !matches!(heard, Heard::Answer(_)) {
            let is_recorded = matches!(heard, Heard::Record(_));
            let line = wanted.passing_line(is_recorded);
            self.asked.lines.extend_from_slice(line.as_bytes());
            counts::cached(if is_recorded {
                Cached::Miss
            } else {
                Cached::Pass
            });
        }
        heard
    }

    /// Answers from the cache after the upstream has said that it may; its connection is kept where it can be.
    pub(super) fn serve_after(&mut self, serving: &Serving, head_keeps: bool) {
        let is_clean = |wire: &super::wire::Wire| wire.read.is_empty();
        if let (true, Some(wire), Some(attempt)) = (
            head_keeps && self.upload.is_done(),
            self.wire.take(),
            &self.attempt,
        ) && is_clean(&wire)
        {
            super::wire::put(attempt.endpoint.id, wire, self.moved);
        }
        self.serve(serving);
    }

    /// Whether the cache has something better than an error.
    pub(super) fn stands_in(&mut self) -> bool {
        let now = Instant::now();
        let wanted = match &mut self.course {
            Some(Course {
                cache: Some(Way::Wants(wanted)),
                ..
            }) => wanted,
            _ => return false,
        };
        let Some(serving) = wanted.stand_in(now) else {
            return false;
        };
        self.wire = None;
        self.serve(&serving);
        true
    }

    /// The answer has passed whole.
    pub(super) fn keep(&mut self, recorder: Recorder) {
        let cache = self.proxy.cache.clone();
        if let Some(Course {
            cache: Some(Way::Wants(wanted)),
            fields,
            ..
        }) = &mut self.course
        {
            wanted.keep(&cache, recorder, fields);
        }
    }

    /// Asks the upstream for a newer answer while the client gets what is there (RFC 5861 section 3). Nobody waits for it,
    /// and nobody hears of its failure but the breaker.
    fn renew_beside(&self, cache: &Arc<Cache>) {
        let Some(course) = &self.course else { return };
        let Some(Way::Wants(wanted)) = &course.cache else {
            return;
        };
        let Some(mut wanted) = wanted.for_renewal(cache) else {
            return;
        };
        let mut fields = course.fields.clone();
        wanted.ask_validity(cache, &mut fields);
        let course = Course {
            route: course.route.clone(),
            key: course.key,
            identity: course.identity.clone(),
            target: course.target.clone(),
            fields,
            is_secure: course.is_secure,
            handshake: None,
            cache: Some(Way::Wants(Box::new(wanted))),
            permit: None,
        };
        let proxy = self.proxy.clone();
        let asked = renewal();
        tokio::task::spawn_local(async move {
            let mut call = Self::with_course(proxy, asked, course, Framing::NONE);
            call.try_next();
            let (mut nobody, mut nothing) = (Stream::Nobody, ReadAhead::default());
            let exchange = std::future::poll_fn(|cx| {
                let peer = Peer {
                    socket: &mut nobody,
                    read: &mut nothing,
                };
                call.poll(cx, peer)
            });
            // Cut off or done, the next request finds what there is.
            let _ = tokio::time::timeout(RENEWAL_TIME_MAX, exchange).await;
        });
    }
}

/// A request of our own.
fn renewal() -> Asked {
    Asked {
        carried: Carried::Http,
        method: Method::Get,
        verb: "GET".to_owned(),
        is_idempotent: true,
        is_old: false,
        keeps_alive: false,
        expects: false,
        audience: Audience::Nobody,
        is_encrypted: false,
        has_limits: false,
        accepts_problems: false,
        lines: Vec::new(),
        started: Instant::now(),
        entry: None,
    }
}

/// The head as the cache keeps it: what every client gets of it.
fn kept_head(head: &ResponseHead<'_>, asked: &Asked, is_removed: impl Fn(&[u8]) -> bool) -> Head {
    let mut lines = Vec::with_capacity(512);
    let is_dropped = |lower: &[u8]| {
        asked.replaces(lower)
            || is_removed(lower)
            || matches!(lower, b"content-length" | b"age" | b"cache-status")
    };
    write_response(head, is_dropped, &mut lines);
    write_date(head, &is_removed, &mut lines);
    let mut fields = head.fields.iter();
    let age = fields.find(|field| field.name.eq_ignore_ascii_case("age"));
    Head::new(head.status, head.reason, lines, age.map(|age| age.value))
}

impl Served {
    fn poll(&mut self, cx: &mut Context<'_>, client: &mut Stream) -> Poll<io::Result<()>> {
        while self.sent < self.head.len() + self.body.len() {
            let head = &self.head[self.sent.min(self.head.len())..];
            let body = &self.body[self.sent.saturating_sub(self.head.len())..];
            let client = Pin::new(&mut *client);
            let written = match (head, body) {
                (head, []) => ready!(client.poll_write(cx, head))?,
                ([], body) => ready!(client.poll_write(cx, body))?,
                (head, body) => {
                    let both = [IoSlice::new(head), IoSlice::new(body)];
                    ready!(client.poll_write_vectored(cx, &both))?
                }
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += written;
        }
        Pin::new(client).poll_flush(cx)
    }
}
