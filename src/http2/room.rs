//! How much a client may send unasked: more, where it brings much and that is taken at once.
//!
//! An upload gets no further than a window in each round trip: 256 KiB are 5 MB/s over 50 ms. Windows that are wide from
//! the beginning would let every client have as much held here; so a connection's grow once it has brought a lot, and only
//! as many connections have wide ones as the worker can bear.

use std::cell::Cell;
use std::rc::Rc;

use h2::server::Connection;
use tokio::io::{AsyncRead, AsyncWrite};

/// What a stream has to bring before its connection gets wider windows.
const WORTH_BYTES: u64 = 1024 * 1024;
/// What one stream may send unasked then, and all streams of the connection: as far as its client agrees.
const STREAM_BYTES: u32 = 2 * 1024 * 1024;
const CONNECTION_BYTES: u32 = 4 * 1024 * 1024;
/// Connections of one worker with wide windows: together 128 MiB, should all their upstreams stop at once.
const GROWN_MAX: usize = 32;

thread_local! {
    /// How many of this worker's connections have grown.
    static GROWN: Cell<usize> = const { Cell::new(0) };
}

/// One connection's windows, as its streams see them.
#[derive(Debug, Clone, Default)]
pub(super) struct Room(Rc<Windows>);

#[derive(Debug, Default)]
struct Windows {
    stage: Cell<Stage>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Stage {
    #[default]
    Small,
    /// The next look at the connection makes them wide.
    Wanted,
    Wide,
}

impl Drop for Windows {
    fn drop(&mut self) {
        if self.stage.get() == Stage::Wide {
            GROWN.set(GROWN.get() - 1);
        }
    }
}

impl Room {
    /// A stream has brought so many bytes, and all of them were taken.
    pub(super) fn note(&self, brought: u64) {
        if brought >= WORTH_BYTES && self.0.stage.get() == Stage::Small {
            self.0.stage.set(Stage::Wanted);
        }
    }

    /// Makes the windows wide where a stream is worth it and the worker can bear it.
    pub(super) fn grow<T>(&self, connection: &mut Connection<T, bytes::Bytes>)
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        // Settings that the client has not acknowledged yet are in the way of others: then the next look does it.
        if self.is_due() && connection.set_initial_window_size(STREAM_BYTES).is_ok() {
            connection.set_target_window_size(CONNECTION_BYTES);
            self.0.stage.set(Stage::Wide);
            GROWN.set(GROWN.get() + 1);
        }
    }

    fn is_due(&self) -> bool {
        self.0.stage.get() == Stage::Wanted && GROWN.get() < GROWN_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grown() -> Room {
        let room = Room::default();
        room.note(WORTH_BYTES);
        assert!(room.is_due());
        room.0.stage.set(Stage::Wide);
        GROWN.set(GROWN.get() + 1);
        room
    }

    #[test]
    fn only_who_brings_much_gets_more_room_and_only_so_many() {
        let small = Room::default();
        small.note(WORTH_BYTES - 1);
        assert!(!small.is_due());
        let mut wide: Vec<Room> = (0..GROWN_MAX).map(|_| grown()).collect();
        let late = Room::default();
        late.note(WORTH_BYTES);
        assert!(!late.is_due());
        wide.pop();
        assert!(late.is_due(), "one has ended");
        drop(wide);
        assert_eq!(GROWN.get(), 0);
    }
}
