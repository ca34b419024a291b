//! Takes down an answer's body as it passes to the client, to keep it when it is whole.

use super::stored::Stored;
use crate::http1::Framing;

/// One body that is taken down.
#[derive(Debug)]
pub(in crate::proxy) struct Recorder {
    framing: Framing,
    body: Vec<u8>,
    bytes_max: usize,
    /// None for one that has become too large.
    stored: Option<Stored>,
}

impl Recorder {
    /// Of a body with this framing. None when it is too large from the beginning, or has no end of its own.
    pub(super) fn new(stored: Stored, framing: Framing, bytes_max: usize) -> Option<Self> {
        let known = match framing {
            Framing::Length(length) => usize::try_from(length).unwrap_or(usize::MAX),
            Framing::Chunked(_) => 0,
            // Nobody can tell whether it came whole.
            Framing::UntilClose => return None,
        };
        (known <= bytes_max).then(|| Self {
            framing,
            body: Vec::with_capacity(known),
            bytes_max,
            stored: Some(stored),
        })
    }

    /// These bytes of the body, its framing included, have come.
    pub(in crate::proxy) fn see(&mut self, bytes: &[u8]) {
        let mut used = 0;
        while used < bytes.len() && self.stored.is_some() {
            // What breaks the framing ends the answer as well, and then this is dropped.
            let Ok(Some(run)) = self.framing.run(&bytes[used..]) else {
                return;
            };
            if run.is_data {
                self.take(&bytes[used..used + run.length]);
            }
            used += run.length;
        }
    }

    fn take(&mut self, data: &[u8]) {
        if self.body.len() + data.len() > self.bytes_max {
            self.stored = None;
            self.body = Vec::new();
        } else {
            self.body.extend_from_slice(data);
        }
    }

    /// The answer with its body, which is whole now; none when it was too large.
    pub(super) fn finish(self) -> Option<Stored> {
        Some(self.stored?.with_body(self.body))
    }
}
