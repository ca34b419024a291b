//! The requests of one HTTP connection, one after the other: who answers each, and how long each may take. hyper drives the
//! router's; this task bounds their time and writes what is answered.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::server::conn;
use tokio::time::{Instant, Sleep, sleep};

use super::answer::Refusal;
use super::link::{Link, LinkIo, NextHead};
use super::local::{Local, Seat};
use super::place::Place;
use super::replies::Replies;
use super::service::Front;
use super::{Caller, Reply, Worker, strict};
use crate::http1::{self, After, Exchange, Framing, RequestHead};
use crate::http2::PREFACE_HEAD;
use crate::telemetry::metrics;

type Http<W> = conn::http1::Connection<LinkIo<<W as Worker>::Slot>, Front<W>>;

/// Why HTTP is done with a connection.
#[derive(Debug, Clone, Copy)]
pub(super) enum End {
    /// It has come to its end: closed or upgraded.
    Done,
    /// The next request's head may reach nobody.
    Refused(Refusal),
    /// The client begins with the preface of HTTP/2.
    Http2,
    /// The peer took too long with a head, with the next request, or with taking its answer.
    TimedOut,
    /// The socket has failed, or an answer broke off.
    Broken,
}

pub(super) async fn drive<W: Worker>(
    local: &Rc<Local<W>>,
    link: &Rc<Link<W::Slot>>,
    caller: Caller,
    place: &Place,
) -> End {
    let mut course = Course {
        local,
        link,
        caller,
        bound: place.bound(),
        header_timeout: place.header_timeout(local),
        http: None,
        exchange: None,
        replies: Replies::default(),
        told_to_close: false,
        end: None,
    };
    let mut seat = Seat::take(local);
    let mut timer = pin!(sleep(course.header_timeout));
    let mut lost = place.lost();
    poll_fn(|cx| {
        seat.know(cx.waker());
        // First of all what has come: who has asked is answered, whoever came later.
        let turn = course.poll_turn(cx, timer.as_mut());
        if turn.is_pending()
            && let Some(losing) = &mut lost
        {
            if course.link.is_busy() {
                place.heard();
                lost = None;
            } else if let Poll::Ready(why) = losing.as_mut().poll(cx) {
                return Poll::Ready(End::Refused(why));
            }
        }
        turn
    })
    .await
}

/// Whether a first line has the three words of a request, of which the last is no HTTP.
fn names_no_http(bytes: &[u8]) -> bool {
    let line = bytes
        .split(|byte| *byte == b'\r')
        .next()
        .unwrap_or_default();
    let words: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let is_http = |word: &[u8]| {
        let name = word.get(..5).unwrap_or_default();
        name.eq_ignore_ascii_case(b"http/")
    };
    matches!(words[..], [_, _, last] if !is_http(last))
}

struct Course<'a, W: Worker> {
    local: &'a Rc<Local<W>>,
    link: &'a Rc<Link<W::Slot>>,
    caller: Caller,
    /// Why it may only ask how the node is.
    bound: Option<Refusal>,
    header_timeout: Duration,
    /// Made for the first request that is the router's.
    http: Option<Box<Http<W>>>,
    /// Answers the present request in the router's place.
    exchange: Option<Box<dyn Exchange>>,
    /// Answer the present request, and further ones that have come, without anybody else.
    replies: Replies,
    told_to_close: bool,
    /// Known as soon as there will be no further request; what is pending is written first.
    end: Option<End>,
}

/// Who answers a request.
enum Begun {
    /// Nobody else: it has so many bytes with its body.
    Reply(Reply, usize),
    /// Nobody, before the replies are made.
    Later,
    Exchange(Box<dyn Exchange>),
    /// The router, which reads such a body.
    Routed(Framing),
}

impl<W: Worker> Course<'_, W> {
    fn poll_turn(&mut self, cx: &mut Context<'_>, timer: Pin<&mut Sleep>) -> Poll<End> {
        let (read, buffer) = (&self.local.read_buffer, &self.local.buffer);
        self.link
            .lend(&mut read.borrow_mut(), &mut buffer.borrow_mut());
        if self.end.is_none()
            && let Poll::Ready(end) = self.poll_requests(cx)
        {
            self.end = Some(end);
        }
        let sent = self.link.poll_send(cx);
        self.link
            .reclaim(&mut read.borrow_mut(), &mut buffer.borrow_mut());
        match (sent, self.end) {
            (_, Some(End::Broken)) | (Poll::Ready(Err(_)), _) => Poll::Ready(End::Broken),
            (Poll::Ready(Ok(())), Some(end)) => Poll::Ready(end),
            _ => self.poll_time(cx, timer).map(|()| End::TimedOut),
        }
    }

    /// One request after the other, as far as they have come.
    fn poll_requests(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        loop {
            if let Some(end) = ready!(self.poll_exchange(cx)) {
                return Poll::Ready(end);
            }
            if let Some(end) = ready!(self.poll_replies(cx)) {
                return Poll::Ready(end);
            }
            // Even when it seems to have nothing to do: it may have been woken to close.
            if self.poll_http(cx) {
                return Poll::Ready(End::Done);
            }
            if !self.link.is_hyper_idle() {
                return Poll::Pending;
            }
            if let Err(end) = ready!(self.poll_next(cx)) {
                return Poll::Ready(end);
            }
        }
    }

    /// Ready when there is no exchange, or none any more; with an end when it was the last.
    fn poll_exchange(&mut self, cx: &mut Context<'_>) -> Poll<Option<End>> {
        let Some(exchange) = &mut self.exchange else {
            return Poll::Ready(None);
        };
        // Answers to earlier requests go first.
        if ready!(self.link.poll_send(cx)).is_err() {
            return Poll::Ready(Some(End::Broken));
        }
        if let Some(window) = self.local.closing()
            && !self.told_to_close
        {
            self.told_to_close = true;
            exchange.handle_drain(window);
        }
        let Poll::Ready(after) = self.link.with_peer(|peer| exchange.poll(cx, peer)) else {
            if let Some(successor) = exchange.successor() {
                self.exchange = Some(successor);
            }
            return Poll::Pending;
        };
        self.exchange = None;
        self.link.end_request();
        Poll::Ready(match after {
            After::KeepAlive if self.local.closing().is_none() => None,
            After::KeepAlive | After::Close => Some(End::Done),
            After::Cut => Some(End::Broken),
        })
    }

    /// Ready when no reply is being made, or none any more; with an end when it was the last.
    fn poll_replies(&mut self, cx: &mut Context<'_>) -> Poll<Option<End>> {
        if self.replies.is_empty() {
            return Poll::Ready(None);
        }
        // What is wrong with another request is said when it is its turn.
        while !self.replies.is_full()
            && let Some(length) = self.link.whole_head()
            && self.begin(length) == Ok(true)
        {}
        self.replies.poll(cx);
        while let Some(made) = self.replies.next() {
            let is_last = self.replies.is_empty();
            let Ok(response) = made else {
                self.local.counts.panics.fetch_add(1, Relaxed);
                return Poll::Ready(Some(End::Refused(Refusal::Broken)));
            };
            let is_turning_away = self.local.is_turning_away() || self.local.closing().is_some();
            self.link.put(&response, is_last && is_turning_away);
            if is_last {
                self.link.end_request();
                return Poll::Ready(is_turning_away.then_some(End::Done));
            }
        }
        Poll::Pending
    }

    /// Tells whether hyper is done with the connection.
    fn poll_http(&mut self, cx: &mut Context<'_>) -> bool {
        let close = self.local.closing().is_some() && !self.told_to_close;
        if close && self.link.is_busy() {
            // Before the answer, so that its head says so.
            self.close();
        }
        let mut done = self.poll_hyper(cx);
        if close && !self.told_to_close && !done {
            // After a look at what it was given: that is still answered.
            self.close();
            done = self.poll_hyper(cx);
        }
        done
    }

    fn close(&mut self) {
        self.told_to_close = true;
        if let Some(http) = &mut self.http {
            Pin::new(&mut **http).graceful_shutdown();
        }
    }

    fn poll_hyper(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(http) = &mut self.http else {
            return false;
        };
        match http.poll_without_shutdown(cx) {
            Poll::Pending => false,
            Poll::Ready(end) => {
                if let Err(error) = end {
                    tracing::debug!(%error, "an HTTP connection ended with an error");
                }
                self.http = None;
                true
            }
        }
    }

    /// Waits for a request and says who answers it; or with which end there is none.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        // A peer that takes none of its answers gets no more of them.
        if self.link.is_full() && ready!(self.link.poll_send(cx)).is_err() {
            return Poll::Ready(Err(End::Broken));
        }
        let length = match self.link.poll_head(cx) {
            Poll::Ready(Ok(NextHead::Whole(length))) => length,
            Poll::Ready(Ok(NextHead::Refused(refusal))) => {
                return Poll::Ready(Err(End::Refused(refusal)));
            }
            Poll::Ready(Ok(NextHead::Ended)) => return Poll::Ready(Err(End::Done)),
            Poll::Ready(Err(_)) => return Poll::Ready(Err(End::Broken)),
            Poll::Pending if self.local.closing().is_some() => return Poll::Ready(Err(End::Done)),
            Poll::Pending => return Poll::Pending,
        };
        let begun = self.begin(length);
        Poll::Ready(begun.map(|_| ()).map_err(|refusal| self.end_for(refusal)))
    }

    /// The preface of HTTP/2 looks like a head of an unknown version, so whoever speaks HTTP/1 pays nothing for it.
    fn end_for(&self, refusal: Refusal) -> End {
        if let (Refusal::UnknownVersion, Some(bound)) = (refusal, self.bound) {
            return End::Refused(bound);
        }
        let may_begin = refusal == Refusal::UnknownVersion
            && self.link.is_new()
            && self.local.speaks_http2()
            && !self.caller.is_encrypted;
        match may_begin
            && self
                .link
                .with_unread(|bytes| bytes.starts_with(PREFACE_HEAD))
        {
            true => End::Http2,
            // What names another protocol, or a preface that went wrong, gets no answer that it could not read.
            false if self.link.is_new() && self.link.with_unread(names_no_http) => End::Done,
            false => End::Refused(refusal),
        }
    }

    /// Begins to answer the request whose head has so many bytes. While replies are being made only one that is a reply
    /// as well: false otherwise.
    fn begin(&mut self, length: usize) -> Result<bool, Refusal> {
        let begun = self.link.with_unread(|bytes| self.look(bytes, length))?;
        match begun {
            Begun::Reply(reply, length) => {
                self.count_request(length);
                self.replies.push(reply);
            }
            Begun::Later => return Ok(false),
            Begun::Exchange(exchange) => {
                self.count_request(length);
                self.exchange = Some(exchange);
            }
            Begun::Routed(body) => self.route(length, body),
        }
        Ok(true)
    }

    /// Who answers the request with which these bytes begin.
    fn look(&self, bytes: &[u8], length: usize) -> Result<Begun, Refusal> {
        let Local { worker, body, .. } = &**self.local;
        let (head, behind) = bytes.split_at(length);
        let mut slots = http1::slots();
        let head = RequestHead::parse(head, &mut slots)?;
        if let Some(refusal) = self.bound {
            return match worker.is_vital(&head) {
                true => strict::check(&head, body.bytes_max).map(|()| Begun::Routed(head.body)),
                false => Err(refusal),
            };
        }
        if let Framing::Length(body_bytes) = head.body
            && let Ok(body_bytes) = usize::try_from(body_bytes)
            && let Some(body) = behind.get(..body_bytes)
            && head.keeps_alive
            && !head.is_old
            && let Some(reply) = worker.reply(&head, body)
        {
            return Ok(Begun::Reply(reply, length + body_bytes));
        }
        if !self.replies.is_empty() {
            return Ok(Begun::Later);
        }
        if let Some(exchange) = worker.take(&head, self.caller) {
            return Ok(Begun::Exchange(exchange));
        }
        strict::check(&head, body.bytes_max)?;
        Ok(Begun::Routed(head.body))
    }

    fn count_request(&self, length: usize) {
        self.local.counts.requests.fetch_add(1, Relaxed);
        self.link.take_request(length);
        self.link.begin_request();
    }

    /// Leaves the request to hyper.
    fn route(&mut self, length: usize, body: Framing) {
        self.link.grant(length, body);
        let (local, link) = (self.local, self.link);
        self.http.get_or_insert_with(|| {
            let service = Front {
                local: Rc::clone(local),
                link: Rc::clone(link),
                caller: self.caller,
                is_last: self.bound.is_some(),
            };
            let io = LinkIo(Rc::clone(link));
            Box::new(local.http.serve_connection(io, service))
        });
    }

    /// One timer for the connection's life. It is moved forward when something is due sooner, which is rare; otherwise
    /// it fires late at most, sees that all is well, and is set again.
    fn poll_time(&mut self, cx: &mut Context<'_>, mut timer: Pin<&mut Sleep>) -> Poll<()> {
        let header_timeout = self.header_timeout;
        let due = self.link.due(header_timeout, self.local.body.pause_max);
        let exchange_due = self.exchange.as_ref().and_then(|exchange| exchange.due());
        let due = due.into_iter().chain(exchange_due).min();
        if let Some(due) = due.filter(|due| *due < timer.deadline()) {
            timer.as_mut().reset(due);
        }
        while timer.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            match due {
                Some(due) if due <= now => {
                    if exchange_due == Some(due) {
                        self.tell_exchange(now);
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                    if self.link.is_mid_head() {
                        self.local.counts.header_timeouts.fetch_add(1, Relaxed);
                        metrics::refused(metrics::Refusal::HeaderTimeout);
                    }
                    return Poll::Ready(());
                }
                Some(due) => timer.as_mut().reset(due),
                None => timer.as_mut().reset(now + header_timeout),
            }
        }
        Poll::Pending
    }

    fn tell_exchange(&mut self, now: Instant) {
        if let Some(exchange) = &mut self.exchange {
            exchange.handle_timeout(now);
        }
    }
}
