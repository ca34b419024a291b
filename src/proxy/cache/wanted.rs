//! What one request wants of the cache, and what becomes of that: it is served, waits for another's answer, or asks the
//! upstream, whose answer is then heard.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::time::Instant;

use super::directives::Directives;
use super::{Asking, Cache, Follower, Head, Joined, Leader, Recorder, Stored, Use, lines};
use crate::http1::{Framing, RequestHead, entries, parse_date};
use crate::proxy::CachePolicy;
use crate::telemetry::proxy::Cached;

/// Fields with which a request asks for a part, or for something on a condition that only the upstream can judge.
const UPSTREAMS_OWN: [&str; 4] = ["range", "if-range", "if-match", "if-unmodified-since"];

/// What a request means to the cache.
#[derive(Debug)]
pub(in crate::proxy) enum Way {
    /// Its answer may stand in the cache, or come to stand there.
    Wants(Box<Wanted>),
    /// It may change what stands under this key.
    Changes(Arc<str>),
}

/// A request whose answer may stand in the cache.
#[derive(Debug)]
pub(in crate::proxy) struct Wanted {
    key: Arc<str>,
    policy: CachePolicy,
    is_head: bool,
    /// It shows credentials or a cookie.
    is_personal: bool,
    directives: Directives,
    none_match: Vec<u8>,
    modified_since: Option<SystemTime>,
    /// What stands there and is not fresh.
    stale: Option<Arc<Stored>>,
    /// The upstream is asked whether that is still good.
    asks_validity: bool,
    /// It has waited for another one's answer.
    has_waited: bool,
    /// Others wait for its answer.
    leader: Option<Leader>,
}

/// What the cache has for a request.
#[derive(Debug)]
pub(in crate::proxy) enum Found {
    /// The answer, and whether a newer one is to be got beside.
    Answer(Serving, bool),
    /// Somebody asks for it already.
    Wait(Follower),
    /// Nothing, and the client wants nothing else.
    Nothing,
    /// The upstream is to be asked.
    Ask,
}

/// What the cache makes of an upstream's answer.
#[derive(Debug)]
pub(in crate::proxy) enum Heard {
    /// The client gets what stands in the cache.
    Answer(Serving),
    /// It passes, and is taken down.
    Record(Box<Recorder>),
    /// It passes.
    Pass,
}

/// An answer out of the cache.
#[derive(Debug)]
pub(in crate::proxy) struct Serving {
    stored: Arc<Stored>,
    is_head: bool,
    not_modified: bool,
    /// `Cache-Status` of it (RFC 9211).
    status_line: String,
    /// As what it is counted.
    pub(in crate::proxy) counts_as: Cached,
}

impl Way {
    /// What a request with this head means. `is_personal` is one that shows credentials in another way than a field.
    pub(in crate::proxy) fn of(
        head: &RequestHead<'_>,
        key: Arc<str>,
        is_personal: bool,
        policy: CachePolicy,
    ) -> Option<Self> {
        match head.method {
            "GET" | "HEAD" => {
                let wanted = Wanted::of(head, key, is_personal, policy)?;
                Some(Self::Wants(Box::new(wanted)))
            }
            "OPTIONS" => None,
            _ => Some(Self::Changes(key)),
        }
    }
}

impl Wanted {
    fn of(
        head: &RequestHead<'_>,
        key: Arc<str>,
        is_personal: bool,
        policy: CachePolicy,
    ) -> Option<Self> {
        let has_body = !matches!(head.body, Framing::Length(0));
        if has_body || UPSTREAMS_OWN.iter().any(|name| head.field(name).is_some()) {
            return None;
        }
        let mut own = Vec::new();
        for value in entries(head.fields, "cache-control") {
            lines::push(&mut own, b"cache-control", value);
        }
        let says_pragma = || entries(head.fields, "pragma").any(|entry| entry == b"no-cache");
        if own.is_empty() && says_pragma() {
            lines::push(&mut own, b"cache-control", b"no-cache");
        }
        let directives = Directives::of(&own);
        if directives.has("no-store") {
            return None;
        }
        let none_match: Vec<&[u8]> = entries(head.fields, "if-none-match").collect();
        let shows = |name| head.field(name).is_some();
        Some(Self {
            key,
            policy,
            is_head: head.method == "HEAD",
            is_personal: is_personal || shows("authorization") || shows("cookie"),
            directives,
            none_match: none_match.join(&b","[..]),
            modified_since: head.field("if-modified-since").and_then(parse_date),
            stale: None,
            asks_validity: false,
            has_waited: false,
            leader: None,
        })
    }

    /// A request of our own for the same, to have a newer answer; none where somebody asks already.
    pub(in crate::proxy) fn for_renewal(&self, cache: &Cache) -> Option<Self> {
        let Joined::Leads(leader) = cache.flights.join(&self.key) else {
            return None;
        };
        Some(Self {
            key: self.key.clone(),
            policy: self.policy,
            is_head: false,
            is_personal: self.is_personal,
            directives: Directives::default(),
            none_match: Vec::new(),
            modified_since: None,
            stale: None,
            asks_validity: false,
            has_waited: false,
            leader: Some(leader),
        })
    }

    /// Asks whether what stands there is still good, by the fields that go to the upstream, instead of what the client
    /// asked on its own account.
    pub(in crate::proxy) fn ask_validity(&mut self, cache: &Cache, request: &mut Vec<u8>) {
        self.stale = cache.find(&self.key, request);
        let Some(stale) = self.stale.as_ref().filter(|stale| stale.has_validator()) else {
            return;
        };
        let is_condition = |name: &[u8]| name == b"if-none-match" || name == b"if-modified-since";
        let mut fields = lines::without(request, is_condition);
        if let Some(tag) = stale.validator("etag") {
            lines::push(&mut fields, b"if-none-match", tag);
        }
        if let Some(date) = stale.validator("last-modified") {
            lines::push(&mut fields, b"if-modified-since", date);
        }
        fields.extend_from_slice(b"\r\n");
        *request = fields;
        self.asks_validity = true;
    }

    /// What it may be given of what stands there.
    fn usable(&self, cache: &Cache, request: &[u8]) -> Option<Arc<Stored>> {
        let stored = cache.find(&self.key, request)?;
        (stored.is_for_all || !self.is_personal).then_some(stored)
    }

    /// Whether it will be answered without anybody being asked.
    pub(in crate::proxy) fn has_fresh(&self, cache: &Cache, request: &[u8], now: Instant) -> bool {
        let stored = self.usable(cache, request);
        stored.is_some_and(|stored| stored.use_for(&self.directives, now) != Use::Stale)
    }

    /// What the cache has for it. `request` are the fields that go to the upstream.
    pub(in crate::proxy) fn consult(
        &mut self,
        cache: &Cache,
        request: &mut Vec<u8>,
        may_wait: bool,
        now: Instant,
    ) -> Found {
        let stored = self.usable(cache, request);
        if let Some(stored) = &stored {
            match stored.use_for(&self.directives, now) {
                Use::Fresh => return Found::Answer(self.serving(stored.clone(), now, None), false),
                Use::WhileRevalidating => {
                    return Found::Answer(self.serving(stored.clone(), now, None), true);
                }
                Use::Stale => {}
            }
        }
        if self.directives.has("only-if-cached") {
            return Found::Nothing;
        }
        // Who is not to get another one's answer does not wait for it.
        if may_wait && !self.is_personal && !self.is_head {
            match cache.flights.join(&self.key) {
                Joined::Leads(leader) => self.leader = Some(leader),
                Joined::Follows(follower) => {
                    self.has_waited = true;
                    return Found::Wait(follower);
                }
            }
        }
        if stored.is_some() {
            self.ask_validity(cache, request);
        }
        Found::Ask
    }

    /// What the cache makes of the head of an answer, whose fields are `head`.
    pub(in crate::proxy) fn hear(
        &mut self,
        cache: &Cache,
        head: Head,
        framing: Framing,
        asking: &Asking<'_>,
    ) -> Heard {
        let asking = Asking {
            is_personal: self.is_personal,
            ..*asking
        };
        let default_ttl = self.policy.default_ttl;
        if head.status == 304
            && self.asks_validity
            && let Some(stale) = self.stale.take()
        {
            return self.revalidated(cache, &stale, &head, &asking);
        }
        if head.status >= 500
            && let Some(serving) = self.stand_in(asking.at)
        {
            return Heard::Answer(serving);
        }
        let stored = (!self.is_head && head.status != 206)
            .then(|| head.keep(&asking, default_ttl))
            .flatten();
        let most = self.policy.body_bytes_max;
        let recorder = stored.and_then(|stored| Recorder::new(stored, framing, most));
        match recorder {
            Some(recorder) => Heard::Record(Box::new(recorder)),
            None => {
                // Nobody waits for what is not kept.
                self.leader = None;
                Heard::Pass
            }
        }
    }

    fn revalidated(
        &mut self,
        cache: &Cache,
        stale: &Arc<Stored>,
        head: &Head,
        asking: &Asking<'_>,
    ) -> Heard {
        let renewed = stale.renewed(head, asking, self.policy.default_ttl);
        let serving = match renewed {
            Some(renewed) => {
                cache.keep(&self.key, asking.lines, renewed);
                cache.find(&self.key, asking.lines)
            }
            None => {
                cache.forget(&self.key);
                None
            }
        };
        let stored = serving.unwrap_or_else(|| stale.clone());
        self.leader = None;
        Heard::Answer(self.serving(stored, asking.at, Some(304)))
    }

    /// What stands in the cache in place of an error.
    pub(in crate::proxy) fn stand_in(&mut self, now: Instant) -> Option<Serving> {
        let stale = self.stale.take()?;
        if !stale.may_stand_in(&self.directives, now) {
            return None;
        }
        self.leader = None;
        Some(Serving {
            counts_as: Cached::StaleOnError,
            ..self.serving(stale, now, None)
        })
    }

    /// Keeps an answer that was taken down to its end.
    pub(in crate::proxy) fn keep(&mut self, cache: &Cache, recorder: Recorder, request: &[u8]) {
        if let Some(stored) = recorder.finish() {
            cache.keep(&self.key, request, stored);
        }
        self.leader = None;
    }

    /// `Cache-Status` of an answer that passes.
    pub(in crate::proxy) fn passing_line(&self, is_recorded: bool) -> String {
        let why = match &self.stale {
            Some(_) if self.directives.has("no-cache") => "request",
            Some(_) => "stale",
            None => "miss",
        };
        let stored = if is_recorded { "; stored" } else { "" };
        let collapsed = if self.has_waited { "; collapsed" } else { "" };
        format!("cache-status: fanfare; fwd={why}{stored}{collapsed}\r\n")
    }

    fn serving(&self, stored: Arc<Stored>, now: Instant, upstream_said: Option<u16>) -> Serving {
        let (status_line, counts_as) = match (upstream_said, self.has_waited) {
            (Some(status), _) => (
                format!("cache-status: fanfare; fwd=stale; fwd-status={status}\r\n"),
                Cached::Revalidated,
            ),
            (None, true) => (
                "cache-status: fanfare; fwd=miss; collapsed\r\n".to_owned(),
                Cached::Collapsed,
            ),
            (None, false) => {
                let fresh_for = stored.fresh_for(now).as_secs();
                let stale = stored.staleness(now).as_secs();
                let line = match fresh_for {
                    0 if stale > 0 => format!("cache-status: fanfare; hit; ttl=-{stale}\r\n"),
                    ttl => format!("cache-status: fanfare; hit; ttl={ttl}\r\n"),
                };
                (line, Cached::Hit)
            }
        };
        Serving {
            not_modified: self.has_it(&stored),
            is_head: self.is_head,
            stored,
            status_line,
            counts_as,
        }
    }

    /// Whether the client says that it has this very answer (RFC 9110 section 13.2.2).
    fn has_it(&self, stored: &Stored) -> bool {
        if stored.head.status != 200 {
            return false;
        }
        if !self.none_match.is_empty() {
            let weak = |tag: &[u8]| tag.strip_prefix(b"W/").unwrap_or(tag).to_vec();
            let ours = stored.validator("etag").map(weak);
            let mut tags = self.none_match.split(|byte| *byte == b',');
            return tags.any(|tag| {
                let tag = tag.trim_ascii();
                tag == b"*" || ours.as_ref().is_some_and(|ours| *ours == weak(tag))
            });
        }
        let modified = stored.validator("last-modified").and_then(parse_date);
        modified
            .zip(self.modified_since)
            .is_some_and(|(modified, since)| modified <= since)
    }
}

impl Serving {
    /// The status that the client gets.
    pub(in crate::proxy) fn status(&self) -> u16 {
        match self.not_modified {
            true => 304,
            false => self.stored.head.status,
        }
    }

    /// Writes the head without its empty line.
    pub(in crate::proxy) fn write_head(&self, now: Instant, out: &mut Vec<u8>) {
        match self.not_modified {
            true => self.stored.write_not_modified(now, out),
            false => self.stored.write_head(now, out),
        }
        out.extend_from_slice(self.status_line.as_bytes());
    }

    /// The body that follows it.
    pub(in crate::proxy) fn body(&self) -> bytes::Bytes {
        match self.not_modified || self.is_head {
            true => bytes::Bytes::new(),
            false => self.stored.body.clone(),
        }
    }
}
