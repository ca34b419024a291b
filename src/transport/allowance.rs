//! How much a worker takes in before what it took in was written.
//!
//! A burst must not fill the queues of those who read as fast as they are written: while a fan-out is unwritten, only so
//! much more is taken in. What is not taken in waits in the inbox, whose being full is a hole.

/// The most bytes of publications that are taken in between two times at which nothing is unwritten. More would not make
/// writes cheaper.
const BYTES_MAX: usize = 256 * 1024;

/// What a frame adds to its publication's data: channel, offset, origin, header. An estimate.
const FRAME_BYTES: usize = 160;

/// What may still be taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Allowance {
    most: (usize, usize),
    /// Bytes and messages that are left.
    left: (usize, usize),
}

impl Allowance {
    /// A quarter of what one queue may hold.
    pub(super) fn new(pending_bytes_max: usize, pending_messages_max: usize) -> Self {
        let most = (
            (pending_bytes_max / 4).min(BYTES_MAX),
            (pending_messages_max / 4).max(1),
        );
        Self { most, left: most }
    }

    /// Everything was written.
    pub(super) fn renew(&mut self) {
        self.left = self.most;
    }

    /// Whether anything may be taken in. One publication of any size is.
    pub(super) fn is_left(&self) -> bool {
        self.left.0 > 0 && self.left.1 > 0
    }

    /// A publication with so many bytes of data was taken in.
    pub(super) fn spend(&mut self, data_bytes: usize) {
        self.left.0 = self.left.0.saturating_sub(data_bytes + FRAME_BYTES);
        self.left.1 -= usize::from(self.left.1 > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_spent_by_bytes_or_by_messages_and_renewed() {
        let mut by_bytes = Allowance::new(4000, 1000);
        by_bytes.spend(500);
        assert!(by_bytes.is_left());
        by_bytes.spend(500);
        assert!(!by_bytes.is_left());
        by_bytes.renew();
        assert!(by_bytes.is_left());
        let mut by_messages = Allowance::new(4_000_000, 8);
        by_messages.spend(1);
        assert!(by_messages.is_left());
        by_messages.spend(1);
        assert!(!by_messages.is_left());
    }
}
