//! HTTP/1 as bytes, read strictly (RFC 9112): where heads and bodies end, and what another server could read otherwise.
//!
//! Parsing is sans-IO and judges only. `server` holds every request to it before anything routes; `proxy` reads both
//! sides with it. The two meet in [`Exchange`]: what answers a request with bytes of its own, on a connection that is the
//! server's.

mod body;
mod chunks;
mod exchange;
mod read_ahead;
mod request;
mod response;
mod scan;
mod standard;
mod trailers;

pub use body::{BodyFault, Framing, Run};
pub use exchange::{After, Exchange, Peer};
pub use read_ahead::ReadAhead;
pub use request::{HeadError, RequestHead, is_host};
pub use response::{ResponseError, ResponseHead};
pub use scan::{HeadScan, Scanned};
pub use standard::forwarded_pair;
pub use trailers::{Trailers, with_trailers};

use std::cell::RefCell;
use std::mem::MaybeUninit;
use std::time::SystemTime;

/// The most fields of a head.
pub const FIELDS_MAX: usize = 100;
/// The most bytes of a head.
pub const HEAD_BYTES_MAX: usize = 64 * 1024;

/// One field of a head, as it came.
pub type Field<'a> = httparse::Header<'a>;

/// Where the fields of a head are put while it is looked at.
pub type Slots<'a> = [MaybeUninit<Field<'a>>; FIELDS_MAX];

/// Empty places for fields.
pub const fn slots<'a>() -> Slots<'a> {
    [const { MaybeUninit::uninit() }; FIELDS_MAX]
}

/// The `Date` of an answer that is made now (RFC 9110 section 6.6.1). What hyper writes has it by hyper.
pub fn date() -> String {
    httpdate::fmt_http_date(SystemTime::now())
}

/// The same, behind `out`; written anew once a second.
pub fn put_date(out: &mut Vec<u8>) {
    thread_local! {
        static LAST: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
    }
    let now = SystemTime::now();
    let since = now.duration_since(SystemTime::UNIX_EPOCH);
    let second = since.map_or(0, |since| since.as_secs());
    LAST.with_borrow_mut(|(of, text)| {
        if *of != second || text.is_empty() {
            (*of, *text) = (second, httpdate::fmt_http_date(now));
        }
        out.extend_from_slice(text.as_bytes());
    });
}

/// The time that a date says, in any of its forms (RFC 9110 section 5.6.7).
pub fn parse_date(value: &[u8]) -> Option<SystemTime> {
    httpdate::parse_http_date(std::str::from_utf8(value).ok()?).ok()
}

/// The comma-separated entries of all fields of this name.
pub fn entries<'a>(fields: &'a [Field<'a>], name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    fields
        .iter()
        .filter(move |field| field.name.eq_ignore_ascii_case(name))
        .flat_map(|field| field.value.split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|entry| !entry.is_empty())
}

/// Whether a field of this name has this entry, in any case.
pub fn has_entry(fields: &[Field<'_>], name: &str, entry: &str) -> bool {
    entries(fields, name).any(|one| one.eq_ignore_ascii_case(entry.as_bytes()))
}
