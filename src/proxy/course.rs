//! What is known of a request once it is let in: who asks, and where it goes.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::access::Entry;
use super::address::Client;
use super::cache::Way;
use super::endpoint::Endpoint;
use super::open_streams::StreamPermit;
use super::pages::Audience;
use super::rate::Limits;
use super::table::Route;
use super::websocket::Handshake;
use super::{Balance, HashKey, hash};
use crate::auth::Identity;
use crate::http1::{RequestHead, entries, has_entry};
use crate::telemetry::proxy::{self as counts, Carried};

/// What the cookie of a sticky service is called, before the service's name.
const STICKY_PREFIX: &str = "fanfare-";

/// What is known of a request when it is let in.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) carried: Carried,
    pub(super) method: counts::Method,
    /// As the request line has it.
    pub(super) verb: String,
    /// Whether repeating it does no harm (RFC 9110 section 9.2.2).
    pub(super) is_idempotent: bool,
    /// Whether the client speaks HTTP/1.0.
    pub(super) is_old: bool,
    /// Whether the client's connection is kept.
    pub(super) keeps_alive: bool,
    /// Whether it waits for `100 Continue`.
    pub(super) expects: bool,
    /// Whether it wants errors in the form of RFC 9457.
    pub(super) accepts_problems: bool,
    /// Whose page asks.
    pub(super) audience: Audience,
    /// Whether the client's own connection is encrypted.
    pub(super) is_encrypted: bool,
    /// Whether limits are told.
    pub(super) has_limits: bool,
    /// Lines that every answer carries: ids and limits.
    pub(super) lines: Vec<u8>,
    /// When its head was read.
    pub(super) started: Instant,
    /// Its line in the access log, where there is one.
    pub(super) entry: Option<Box<Entry>>,
}

/// Where a request goes.
#[derive(Debug)]
pub(super) struct Course {
    pub(super) route: Arc<Route>,
    /// What the choice of an upstream depends on, as the route's balance has it.
    pub(super) key: u64,
    /// Who asks, when that is known.
    pub(super) identity: Option<Arc<Identity>>,
    /// Path and query, behind the upstream's base.
    pub(super) target: String,
    /// The fields, with the empty line, without `Host`.
    pub(super) fields: Vec<u8>,
    /// Whether the client's own connection, or that to a trusted proxy, is encrypted.
    pub(super) is_secure: bool,
    /// Of a WebSocket's handshake, what the upstream must answer to.
    pub(super) handshake: Option<Handshake>,
    /// What it means to the cache; none where it means nothing.
    pub(super) cache: Option<Way>,
    /// It counts as a stream of somebody's; none where those are not counted.
    pub(super) permit: Option<StreamPermit>,
}

impl Course {
    /// Whether a request like this may be repeated, should an upstream fail with it.
    pub(super) fn may_repeat(&self, asked: &Asked) -> bool {
        asked.is_idempotent || self.route.policy.retries.non_idempotent
    }

    /// How long this try may take for the head of its answer.
    pub(super) fn try_timeout(&self, is_last: bool) -> Duration {
        let policy = &self.route.policy;
        let most = policy.retries.try_timeout.filter(|_| !is_last);
        most.map_or(policy.timeout, |most| most.min(policy.timeout))
    }

    /// The line of the cookie that makes a client stick to this upstream, where it has another one or none.
    pub(super) fn cookie_of(&self, endpoint: &Endpoint) -> Option<String> {
        let is_news = self.route.policy.balance == Balance::Sticky && endpoint.token != self.key;
        is_news.then(|| {
            let (name, token) = (&self.route.name, endpoint.token);
            let secure = if self.is_secure { "; Secure" } else { "" };
            format!(
                "set-cookie: {STICKY_PREFIX}{name}={token:016x}; Path=/; HttpOnly; SameSite=Lax{secure}\r\n"
            )
        })
    }

    /// The request's head for this upstream.
    pub(super) fn head_for(&self, endpoint: &Endpoint, verb: &str) -> Vec<u8> {
        let parts = [
            verb.as_bytes(),
            b" ",
            endpoint.address.base.as_bytes(),
            self.target.as_bytes(),
            b" HTTP/1.1\r\nhost: ",
            endpoint.authority.as_bytes(),
            b"\r\n",
            &self.fields,
        ];
        parts.concat()
    }
}

/// What the choice of an upstream depends on: a hash, or the number in a sticky client's cookie.
pub(super) fn key(
    route: &Route,
    head: &RequestHead<'_>,
    target: &str,
    client: &Client,
    identity: Option<&Identity>,
) -> u64 {
    let by_address = || match client.ip {
        std::net::IpAddr::V4(ip) => hash::of(&ip.octets()),
        std::net::IpAddr::V6(ip) => hash::of(&ip.octets()),
    };
    match &route.policy.balance {
        Balance::Hash(HashKey::Path) => {
            let path = target.split('?').next().unwrap_or_default();
            hash::of(path.as_bytes())
        }
        Balance::Hash(HashKey::User) => {
            identity.map_or_else(by_address, |identity| hash::of(identity.user.as_bytes()))
        }
        Balance::Hash(HashKey::Field(name)) => head.field(name).map_or_else(by_address, hash::of),
        Balance::Hash(HashKey::Address) => by_address(),
        Balance::Sticky => sticky_token(route, head).unwrap_or_default(),
        _ => 0,
    }
}

/// The number in the cookie of ours, when the client brought a good one.
fn sticky_token(route: &Route, head: &RequestHead<'_>) -> Option<u64> {
    let cookies = head.fields.iter();
    let cookies = cookies.filter(|field| field.name.eq_ignore_ascii_case("cookie"));
    let mut pairs = cookies.flat_map(|field| field.value.split(|byte| *byte == b';'));
    let token = pairs.find_map(|pair| {
        let pair = std::str::from_utf8(pair).ok()?.trim();
        let value = pair
            .strip_prefix(STICKY_PREFIX)?
            .strip_prefix(&*route.name)?;
        value.strip_prefix('=')
    })?;
    u64::from_str_radix(token, 16).ok()
}

impl Asked {
    /// Whether an answer's field of this name, in lower case, is said by us and nobody else.
    pub(super) fn replaces(&self, lower: &[u8]) -> bool {
        match lower {
            b"x-request-id" | b"x-correlation-id" => true,
            b"cache-control" | b"x-accel-buffering" => self.carried == Carried::Sse,
            lower => self.has_limits && Limits::is_told(lower),
        }
    }

    /// The client is answered so.
    pub(super) fn is_answered(&mut self, status: u16, now: Instant) {
        counts::answered(self.carried, self.method, status, now - self.started);
        if let Some(entry) = &mut self.entry {
            entry.status = Some(status);
        }
    }
}

/// Whether a client asks for errors in the form of RFC 9457. Who merely accepts anything gets the Fastify gateway's.
pub(super) fn accepts_problems(head: &RequestHead<'_>) -> bool {
    const PROBLEM: &[u8] = b"application/problem+json";
    entries(head.fields, "accept").any(|entry| {
        let kind = entry.split(|byte| *byte == b';').next();
        kind.is_some_and(|kind| kind.trim_ascii().eq_ignore_ascii_case(PROBLEM))
    })
}

/// Whether a request waits for `100 Continue` before it sends its body.
pub(super) fn expects(head: &RequestHead<'_>) -> bool {
    has_entry(head.fields, "expect", "100-continue")
}
