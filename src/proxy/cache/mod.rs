//! A shared cache of upstreams' answers (RFC 9111), in memory, bounded by bytes.
//!
//! Whether and for how long an answer may be kept, `http-cache-semantics` says; what the operator's default time is for
//! is an answer that says nothing itself. Found are answers by scheme, host, service, path and query (the first two
//! as the upstream is told them), and by the request fields that `Vary` names. One that is asked for with credentials or a
//! cookie is kept, and given to such requests, only where it says itself that it is for all.
//!
//! Not here: how a request goes through it (`caching` beside this room).

mod directives;
mod flights;
mod lines;
mod recorder;
mod stored;
mod wanted;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant as StdInstant};

use moka::Expiry;
use moka::sync::Cache as Entries;

pub(super) use flights::Follower;
pub(super) use recorder::Recorder;
pub(super) use stored::{Asking, Head};
pub(super) use wanted::{Found, Heard, Serving, Way};

use super::CacheConfig;
use flights::{Flights, Joined, Leader};
use stored::{Stored, Use};

/// The most fields that an answer may vary by.
const VARY_MAX: usize = 16;

/// Every answer that is kept. Shared by all workers.
pub(super) struct Cache {
    entries: Entries<Arc<str>, Entry>,
    flights: Arc<Flights>,
    config: CacheConfig,
    /// Numbers what varies, so that what was kept under an older number is never found again.
    generation: AtomicU64,
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Cache")
            .field("entries", &self.entries.entry_count())
            .finish_non_exhaustive()
    }
}

/// What is found under a key.
#[derive(Debug, Clone)]
enum Entry {
    Stored(Arc<Stored>),
    Varies(Arc<Varies>),
}

/// The fields of requests that decide, in lower case; the answers stand under keys of their own.
#[derive(Debug)]
struct Varies {
    names: Vec<String>,
    generation: u64,
}

impl Varies {
    fn key(&self, key: &str, request: &[u8]) -> Arc<str> {
        let mut text = format!("{key}\n{}", self.generation);
        for name in &self.names {
            let value = lines::joined(request, name);
            text.push('\n');
            text.extend(as_text(&value));
        }
        text.into()
    }
}

/// Entries go when they are of no use any more, even if nobody asks for them.
struct Useful;

impl Expiry<Arc<str>, Entry> for Useful {
    fn expire_after_create(&self, _: &Arc<str>, entry: &Entry, _: StdInstant) -> Option<Duration> {
        match entry {
            Entry::Stored(stored) => Some(stored.useful_for()),
            Entry::Varies(_) => None,
        }
    }

    fn expire_after_update(
        &self,
        key: &Arc<str>,
        entry: &Entry,
        at: StdInstant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        self.expire_after_create(key, entry, at)
    }
}

impl Cache {
    /// An empty one.
    pub(super) fn new(config: CacheConfig) -> Self {
        let weigh = |key: &Arc<str>, entry: &Entry| {
            let of_entry = match entry {
                Entry::Stored(stored) => stored.weight(),
                Entry::Varies(varies) => 128 + 32 * varies.names.len(),
            };
            u32::try_from(key.len() + of_entry).unwrap_or(u32::MAX)
        };
        let entries = Entries::builder()
            .weigher(weigh)
            .max_capacity(config.total_bytes_max)
            .expire_after(Useful)
            .build();
        Self {
            entries,
            flights: Arc::default(),
            config,
            generation: AtomicU64::new(0),
        }
    }

    /// How long a request waits for another one's answer.
    pub(super) fn wait_max(&self) -> Duration {
        self.config.wait_max
    }

    /// What is kept under this key for a request with these fields.
    fn find(&self, key: &str, request: &[u8]) -> Option<Arc<Stored>> {
        match self.entries.get(key)? {
            Entry::Stored(stored) => Some(stored),
            Entry::Varies(varies) => match self.entries.get(&varies.key(key, request))? {
                Entry::Stored(stored) => Some(stored),
                Entry::Varies(_) => None,
            },
        }
    }

    /// Keeps an answer to a request with these fields.
    fn keep(&self, key: &Arc<str>, request: &[u8], stored: Stored) {
        let vary = lines::joined(&stored.head.lines, "vary").to_ascii_lowercase();
        let vary = String::from_utf8_lossy(&vary);
        let names = vary.split(',').map(|name| name.trim().to_owned());
        let mut names: Vec<String> = names.filter(|name| !name.is_empty()).collect();
        names.sort_unstable();
        names.dedup();
        let entry = Entry::Stored(Arc::new(stored));
        if names.is_empty() {
            return self.entries.insert(key.clone(), entry);
        }
        if names.len() > VARY_MAX {
            return;
        }
        let varies = match self.entries.get(key) {
            Some(Entry::Varies(varies)) if varies.names == names => varies,
            _ => {
                let generation = self.generation.fetch_add(1, Relaxed);
                let varies = Arc::new(Varies { names, generation });
                self.entries
                    .insert(key.clone(), Entry::Varies(varies.clone()));
                varies
            }
        };
        self.entries.insert(varies.key(key, request), entry);
    }

    /// Forgets what is kept under this key, however it varies.
    pub(super) fn forget(&self, key: &str) {
        self.entries.invalidate(key);
    }

    /// Forgets everything of a service whose path (with its query) begins with this; tells how many entries went.
    pub(super) fn purge(&self, service: &str, prefix: &str) -> usize {
        let is_meant = |key: &str| {
            let mut parts = key.split('\n').skip(2);
            parts.next() == Some(service)
                && parts
                    .next()
                    .is_some_and(|target| target.starts_with(prefix))
        };
        let keys: Vec<Arc<str>> = self
            .entries
            .iter()
            .filter(|(key, _)| is_meant(key))
            .map(|(key, _)| (*key).clone())
            .collect();
        for key in &keys {
            self.entries.invalidate(key);
        }
        keys.len()
    }
}

/// The key of what a request with these fields, as its upstream gets them, asks for. No part of it can hold a line feed.
///
/// The upstream may make links of whatever it is told of the address that the client used, so all of that is part of the
/// key: two requests that it can tell apart by it never share an answer.
pub(super) fn key(is_encrypted: bool, service: &str, target: &str, fields: &[u8]) -> Arc<str> {
    let scheme = if is_encrypted { "https" } else { "http" };
    let mut text = format!("{scheme}\n");
    for (name, value) in lines::fields(fields) {
        let lower = name.to_ascii_lowercase();
        match &*lower {
            b"x-forwarded-for" => {}
            b"forwarded" => said_of_address(value).for_each(|part| part_of_key(&mut text, part)),
            lower if lower.starts_with(b"x-forwarded-") => {
                part_of_key(&mut text, lower);
                part_of_key(&mut text, value);
            }
            _ => {}
        }
    }
    for part in [service, target] {
        text.push('\n');
        text.push_str(part);
    }
    text.into()
}

/// What elements of `Forwarded` (RFC 7239) say of the address that the client used, and not of who it is.
fn said_of_address(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let pairs = value.split(|byte| matches!(byte, b',' | b';'));
    let pairs = pairs.map(<[u8]>::trim_ascii);
    pairs.filter(|pair| {
        let name = pair.get(..4).unwrap_or_default();
        !name.eq_ignore_ascii_case(b"for=")
    })
}

/// In lower case, as hosts and schemes are the same in any. No field holds a carriage return.
fn part_of_key(text: &mut String, bytes: &[u8]) {
    text.extend(as_text(&bytes.to_ascii_lowercase()));
    text.push('\r');
}

/// Each byte as the character of its number, so that different bytes are different texts.
fn as_text(bytes: &[u8]) -> impl Iterator<Item = char> {
    bytes.iter().map(|byte| char::from(*byte))
}

#[cfg(test)]
#[path = "cache_tests.rs"]
mod tests;
