//! Frames: bytes that are ready to be written, shared by every queue that holds them.

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use crate::model::Position;

/// How many bytes of frames a worker holds, each frame counted once however many queues share it.
#[derive(Debug, Clone, Default)]
pub struct Ledger(Rc<Cell<usize>>);

impl Ledger {
    /// The bytes held now.
    pub fn held(&self) -> usize {
        self.0.get()
    }
}

/// What the queue must know of the publications in a frame, to drop them and say so.
#[derive(Debug, Clone, Default)]
pub struct Contents {
    /// How many publications the frame carries; 0 for a reply, a push or a control frame.
    pub publications: u32,
    /// Where the last of them stands; `None` without history.
    pub last: Option<Position>,
    /// What `latest` keeps one of; `None` stands for the channel.
    pub key: Option<Arc<str>>,
}

/// Bytes that are ready to be written, one wire frame or several. Eight bytes; a clone is one count, not atomic: a
/// frame never leaves the worker that encoded it.
#[derive(Clone)]
pub struct Frame(Rc<Shared>);

struct Shared {
    bytes: Box<[u8]>,
    contents: Contents,
    ledger: Ledger,
}

impl Drop for Shared {
    fn drop(&mut self) {
        let held = &self.ledger.0;
        held.set(held.get().saturating_sub(self.bytes.len()));
    }
}

impl Frame {
    /// Takes the bytes into a frame that `ledger` counts until the last queue lets go of it.
    pub fn new(bytes: &[u8], contents: Contents, ledger: &Ledger) -> Self {
        ledger.0.set(ledger.0.get() + bytes.len());
        Self(Rc::new(Shared {
            bytes: bytes.into(),
            contents,
            ledger: ledger.clone(),
        }))
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0.bytes
    }

    /// How many bytes.
    pub fn len(&self) -> usize {
        self.0.bytes.len()
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.0.bytes.is_empty()
    }

    /// What it carries.
    pub fn contents(&self) -> &Contents {
        &self.0.contents
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame")
            .field("bytes", &self.len())
            .field("contents", self.contents())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ledger_counts_a_shared_frame_once_and_until_the_last_clone_goes() {
        let ledger = Ledger::default();
        let frame = Frame::new(b"twelve bytes", Contents::default(), &ledger);
        let clone = frame.clone();
        assert_eq!(ledger.held(), 12);
        drop(frame);
        assert_eq!(ledger.held(), 12);
        drop(clone);
        assert_eq!(ledger.held(), 0);
    }
}
