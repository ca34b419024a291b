//! What an upstream answers that is asked for a stream: events, or something else.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use super::event::{Event, Parser};
use crate::http1::{Framing, HeadScan, ResponseHead, Scanned, slots};
use crate::proxy::attempt::{Answered, Attempt};
use crate::proxy::fields;
use crate::tls::Stream;

/// How much is read at once.
const READ_BYTES: usize = 16 * 1024;
/// The most bytes of a body that is passed on to whoever asked for a stream.
const REFUSAL_BYTES_MAX: usize = 64 * 1024;
/// Fields that go with it.
const REFUSAL_FIELDS: [&str; 7] = [
    "cache-control",
    "content-encoding",
    "content-language",
    "content-type",
    "location",
    "retry-after",
    "www-authenticate",
];

/// An answer that is no stream of events; all who asked for one get it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) fields: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

/// What the head of an answer says.
struct Head {
    status: u16,
    body: Framing,
    is_events: bool,
    fields: Vec<(String, String)>,
}

/// An answer whose body is being read.
pub(super) struct Answer {
    head: Head,
    socket: Stream,
    /// What came and was not looked at.
    bytes: Vec<u8>,
    /// Counts at its upstream for as long as it is read.
    pub(super) attempt: Option<Attempt>,
}

impl Answer {
    /// Asks, and reads the head of the answer, past interim ones.
    pub(super) async fn ask(mut socket: Stream, head: &[u8]) -> io::Result<Self> {
        socket.write_all(head).await?;
        socket.flush().await?;
        let mut bytes = Vec::with_capacity(READ_BYTES);
        loop {
            let length = read_head(&mut socket, &mut bytes).await?;
            let head = parse(&bytes[..length])?;
            bytes.drain(..length);
            if let Some(head) = head {
                return Ok(Self {
                    head,
                    socket,
                    bytes,
                    attempt: None,
                });
            }
        }
    }

    pub(super) fn status(&self) -> u16 {
        self.head.status
    }

    /// Whether it is a stream of events.
    pub(super) fn is_events(&self) -> bool {
        self.head.is_events
    }

    /// What a breaker hears of it.
    pub(super) fn verdict(&self) -> Answered {
        let mut fields = self.head.fields.iter();
        let rest = fields.find(|(name, _)| name == "retry-after");
        let seconds = rest.and_then(|(_, value)| value.parse().ok());
        Answered {
            status: self.head.status,
            retry_after: seconds.map(Duration::from_secs),
        }
    }

    /// The whole of an answer that is no stream; `None` when it is too long, breaks off or takes too long.
    pub(super) async fn refusal(mut self, patience: Duration) -> Option<Refusal> {
        let read = timeout(patience, self.read_whole()).await;
        Some(Refusal {
            body: read.ok()?.ok()?,
            status: self.head.status,
            fields: self.head.fields,
        })
    }

    async fn read_whole(&mut self) -> io::Result<Vec<u8>> {
        let mut whole = Vec::new();
        while !self.head.body.is_done() {
            if self.bytes.is_empty() && self.socket.read_buf(&mut self.bytes).await? == 0 {
                return match self.head.body {
                    Framing::UntilClose if self.socket.is_ended() => Ok(whole),
                    _ => Err(io::ErrorKind::UnexpectedEof.into()),
                };
            }
            self.take_apart(|data| whole.extend_from_slice(data))?;
            if whole.len() > REFUSAL_BYTES_MAX {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
        Ok(whole)
    }

    /// Waits for more of the stream, and takes it apart. An error is its end, after the events that it appended. Nothing is
    /// lost when it is dropped.
    pub(super) async fn next(
        &mut self,
        parser: &mut Parser,
        events: &mut Vec<Event>,
    ) -> io::Result<()> {
        if self.bytes.is_empty() && self.socket.read_buf(&mut self.bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.take_apart(|data| parser.feed(data, events))?;
        match self.head.body.is_done() {
            true => Err(io::ErrorKind::UnexpectedEof.into()),
            false => Ok(()),
        }
    }

    /// Hands the data of what was read over.
    fn take_apart(&mut self, mut data: impl FnMut(&[u8])) -> io::Result<()> {
        let mut used = 0;
        while let Some(rest) = self.bytes.get(used..).filter(|rest| !rest.is_empty()) {
            let Some(run) = self.head.body.run(rest).map_err(invalid)? else {
                break;
            };
            if run.is_data {
                data(&rest[..run.length]);
            }
            used += run.length;
        }
        self.bytes.clear();
        Ok(())
    }
}

/// Reads until a whole head stands at the beginning of `bytes`; answers its length.
async fn read_head(socket: &mut Stream, bytes: &mut Vec<u8>) -> io::Result<usize> {
    let mut scan = HeadScan::default();
    loop {
        match scan.look(bytes) {
            Scanned::Whole(length) => return Ok(length),
            Scanned::Partial => {}
            Scanned::Malformed | Scanned::TooLong => return Err(io::ErrorKind::InvalidData.into()),
        }
        if socket.read_buf(bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// The head of an answer; `None` for an interim one, which another follows.
fn parse(bytes: &[u8]) -> io::Result<Option<Head>> {
    let mut slots = slots();
    let head = ResponseHead::parse(bytes, &mut slots, false).map_err(invalid)?;
    if head.status == 101 {
        // Nobody asked for that.
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok((!head.is_interim()).then(|| Head {
        status: head.status,
        body: head.body,
        is_events: head.status == 200 && fields::is_event_stream(&head),
        fields: kept(&head),
    }))
}

/// The fields that go with an answer that is no stream.
fn kept(head: &ResponseHead<'_>) -> Vec<(String, String)> {
    let fields = head.fields.iter().filter_map(|field| {
        let mut names = REFUSAL_FIELDS.iter();
        let name = names.find(|name| field.name.eq_ignore_ascii_case(name))?;
        let value = std::str::from_utf8(field.value).ok()?;
        Some(((*name).to_owned(), value.to_owned()))
    });
    fields.collect()
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
