//! What an upstream answers, and what becomes of it: another head follows, another upstream is asked, or the client gets
//! it.

use std::borrow::Cow;
use std::time::Duration;

use tokio::time::Instant;

use super::attempt::Answered;
use super::cache::{self, Recorder, Serving};
use super::call::{Call, State};
use super::cause::Cause;
use super::download::{Download, Form};
use super::error::ProxyError;
use super::fields::is_event_stream;
use super::reply;
use super::websocket::{Tunnel, TunnelConfig};
use super::wire::Wire;
use crate::http1::{After, Exchange as _, Framing, HeadScan, ResponseHead, slots};
use crate::telemetry::proxy::{self as counts, Carried};

/// What an upstream said.
enum Heard {
    /// No answer to this request; why.
    Nonsense(Cow<'static, str>),
    /// Another head follows.
    Interim,
    /// Another upstream may do better.
    TryAgain,
    /// The cache has it.
    Kept { serving: Serving, keeps_wire: bool },
    /// The answer.
    Final {
        body: Framing,
        form: Form,
        is_events: bool,
        keeps_wire: bool,
        recorder: Option<Box<Recorder>>,
    },
    /// A WebSocket from here on.
    Switched,
}

impl Call {
    /// The head of an answer has come.
    pub(super) fn hear(&mut self, length: usize) {
        let Some(mut wire) = self.wire.take() else {
            return;
        };
        let mut out = Vec::with_capacity(512);
        let heard = {
            let bytes = &wire.read.unread()[..length];
            let mut slots = slots();
            match ResponseHead::parse(bytes, &mut slots, self.asked.method == counts::Method::Head)
            {
                Ok(head) => self.answer(&head, &mut out),
                Err(error) => Heard::Nonsense(error.to_string().into()),
            }
        };
        wire.read.consume(length);
        match heard {
            Heard::Nonsense(what) => {
                // A connection that talks nonsense is not the fault of having been kept.
                wire.is_reused = false;
                self.wire = Some(wire);
                self.fail(&ProxyError::Unavailable, &Cause::NoAnswer(&what));
            }
            Heard::Interim => {
                self.scan = HeadScan::default();
                self.moved = Instant::now();
                wire.is_reused = false;
                self.wire = Some(wire);
                self.state = State::Asking;
                if !out.is_empty() {
                    self.interim(out);
                }
            }
            // The connection goes, with whatever body it still carries.
            Heard::TryAgain => self.try_next(),
            Heard::Kept {
                serving,
                keeps_wire,
            } => {
                self.wire = Some(wire);
                self.serve_after(&serving, keeps_wire);
            }
            Heard::Final {
                body,
                form,
                is_events,
                keeps_wire,
                recorder,
            } => {
                self.wire = Some(wire);
                self.upload.forget();
                let mut download = Download::new(out, body, form).recorded_by(recorder);
                if is_events {
                    download = download.with_events(self.has_heartbeats());
                }
                self.state = State::Answering {
                    download,
                    keeps_wire,
                };
            }
            Heard::Switched => self.switch(wire, out),
        }
    }

    /// A WebSocket from here on, whose client gets this first.
    fn switch(&mut self, wire: Wire, out: Vec<u8>) {
        // It lives long, and takes the call's place: nothing else of that is needed any more.
        let permit = self.course.as_mut().and_then(|course| course.permit.take());
        let kept = (self.attempt.take(), self.asked.entry.take(), permit);
        let policy = self.course.as_ref().map(|course| &course.route.policy);
        let config = TunnelConfig {
            idle_timeout: policy.and_then(|policy| policy.idle_timeout),
            message_bytes_max: policy.and_then(|policy| policy.message_bytes_max),
            ..self.proxy.tunnel
        };
        let mut tunnel = Tunnel::new(wire, out, kept, config);
        if let Some(window) = self.draining {
            tunnel.handle_drain(window);
        }
        self.state = State::Tunnel(Box::new(tunnel));
    }

    /// What the client gets of a head, and what follows it.
    fn answer(&mut self, head: &ResponseHead<'_>, out: &mut Vec<u8>) -> Heard {
        if head.is_interim() {
            let passes = head.status != 100 || self.asked.expects;
            if passes && !self.asked.is_old {
                reply::interim(head, &self.proxy.removed, out);
            }
            return Heard::Interim;
        }
        let switched = head.status == 101;
        let course = self.course.as_ref();
        let handshake = course.and_then(|course| course.handshake.as_ref());
        if switched && !handshake.is_some_and(|handshake| handshake.is_answered_by(head)) {
            return Heard::Nonsense("a 101 that was not asked for".into());
        }
        let now = Instant::now();
        self.moved = now;
        if let Some(attempt) = &mut self.attempt {
            let answered = Answered {
                status: head.status,
                retry_after: retry_after(head),
            };
            attempt.answered(&answered, now - self.began, self.proxy.at(now));
        }
        if !self.has_begun && self.is_worth_another(head.status) {
            self.attempt = None;
            return Heard::TryAgain;
        }
        let recorder = match self.hear_for_cache(head) {
            cache::Heard::Answer(serving) => {
                return Heard::Kept {
                    serving,
                    keeps_wire: head.keeps_alive && head.body.is_done(),
                };
            }
            cache::Heard::Record(recorder) => Some(recorder),
            cache::Heard::Pass => None,
        };
        self.asked.is_answered(head.status, now);
        self.note_stickiness();
        if switched {
            reply::switched(head, (&self.asked, &self.proxy.removed), out);
            return Heard::Switched;
        }
        let is_events = self.is_events(head);
        let form = match head.body {
            Framing::Chunked(_) if self.asked.is_old => Form::Bare,
            Framing::UntilClose if self.asked.is_old && is_events => Form::Bare,
            Framing::UntilClose if !self.asked.is_old => Form::Chunks,
            Framing::Chunked(_) if is_events => Form::Chunks,
            _ => Form::Same,
        };
        self.asked.keeps_alive = self.may_keep_client() && !self.asked.is_old;
        reply::head(head, (&self.asked, &self.proxy), form, out);
        Heard::Final {
            body: head.body,
            form,
            is_events,
            keeps_wire: head.keeps_alive,
            recorder,
        }
    }

    /// Whether something of ours can stand between the events of this answer: it is a stream of events, as plain text and
    /// without an end that was told.
    fn is_events(&self, head: &ResponseHead<'_>) -> bool {
        self.asked.carried == Carried::Sse
            && !matches!(head.body, Framing::Length(_))
            && is_event_stream(head)
    }

    /// Whether the service wants comments there.
    fn has_heartbeats(&self) -> bool {
        let course = self.course.as_ref();
        course.is_some_and(|course| course.route.policy.heartbeat.is_some())
    }

    /// Tells a client that sticks to its upstream which one that is, when it is another than it thinks.
    fn note_stickiness(&mut self) {
        let (Some(course), Some(attempt)) = (&self.course, &self.attempt) else {
            return;
        };
        if let Some(line) = course.cookie_of(&attempt.endpoint) {
            self.asked.lines.extend_from_slice(line.as_bytes());
        }
    }

    /// An interim answer goes out whole or, to a client that takes nothing, not at all: it may be left out.
    fn interim(&mut self, out: Vec<u8>) {
        self.has_begun = true;
        self.state = State::Telling {
            bytes: out,
            sent: 0,
            after: After::KeepAlive,
        };
    }
}

/// `Retry-After` of who has too much to do, in seconds (RFC 9110 section 10.2.3). A date would have to be held against a clock that the upstream may
/// not share.
fn retry_after(head: &ResponseHead<'_>) -> Option<Duration> {
    if !matches!(head.status, 429 | 503) {
        return None;
    }
    let mut fields = head.fields.iter();
    let field = fields.find(|field| field.name.eq_ignore_ascii_case("retry-after"))?;
    let seconds = std::str::from_utf8(field.value).ok()?.trim().parse();
    seconds.ok().map(Duration::from_secs)
}
