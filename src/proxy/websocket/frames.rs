//! Where frames begin and end (RFC 6455 section 5.2), and the few frames that a bridge writes itself.

/// The most bytes of a frame's header: two, eight of length, four of mask.
const HEADER_BYTES_MAX: usize = 14;
/// The most payload bytes of a control frame (section 5.5).
const CONTROL_BYTES_MAX: usize = 125;

const CONTINUATION: u8 = 0x0;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;

/// Follows the frames of one direction. It judges nothing but the size of messages, where that is bounded, so it cannot fail:
/// whatever the bytes are, they are the receiver's matter.
#[derive(Debug, Default)]
pub(super) struct Frames {
    header: [u8; HEADER_BYTES_MAX],
    have: usize,
    /// Payload bytes of the present frame that are still to come.
    left: u64,
    is_close: bool,
    /// A frame of a message has begun since this was last cleared.
    pub(super) has_data: bool,
    /// Payload bytes of the present message, as far as its frames have told.
    message: u64,
    /// The most that it may have.
    message_max: Option<u64>,
}

/// Where a message came to be over the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Over {
    /// With the frame that begins here.
    At(usize),
    /// With one whose header had begun before these bytes.
    Before,
}

/// What some bytes held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    /// Where in them the last frame ended that did; 0 when none did and they began with a frame.
    pub(super) boundary: Option<usize>,
    /// Whether one of those frames was a close frame.
    pub(super) close: bool,
    /// The first message that is too big.
    pub(super) over: Option<Over>,
}

impl Frames {
    /// The same with so many payload bytes in a message at most, all its frames together.
    pub(super) fn bounded(message_max: Option<u64>) -> Self {
        Self {
            message_max,
            ..Self::default()
        }
    }

    /// Whether the next byte begins a frame.
    pub(super) fn is_between(&self) -> bool {
        self.have == 0 && self.left == 0
    }

    /// Takes note of the next bytes.
    pub(super) fn follow(&mut self, bytes: &[u8]) -> Seen {
        let mut seen = Seen {
            boundary: self.is_between().then_some(0),
            close: false,
            over: None,
        };
        let (mut at, mut began) = (0, None);
        while at < bytes.len() {
            if self.left == 0 {
                if self.have == 0 {
                    began = Some(at);
                }
                let is_whole = self.take(bytes[at]);
                at += 1;
                if !is_whole {
                    continue;
                }
                if self.is_over() {
                    seen.over
                        .get_or_insert(began.map_or(Over::Before, Over::At));
                }
            }
            let step = usize::try_from(self.left).unwrap_or(usize::MAX);
            let step = step.min(bytes.len() - at);
            at += step;
            self.left -= step as u64;
            if self.left == 0 {
                seen.boundary = Some(at);
                seen.close |= self.is_close;
            }
        }
        seen
    }

    /// Takes a byte of a header; tells whether the header is whole.
    fn take(&mut self, byte: u8) -> bool {
        self.header[self.have] = byte;
        self.have += 1;
        let header = &self.header;
        if self.have < 2 {
            return false;
        }
        let masked = usize::from(header[1] >> 7) * 4;
        let (length_bytes, short) = match header[1] & 0x7f {
            126 => (2, None),
            127 => (8, None),
            short => (0, Some(u64::from(short))),
        };
        if self.have < 2 + length_bytes + masked {
            return false;
        }
        let long = || {
            let bytes = header[2..2 + length_bytes].iter();
            bytes.fold(0, |length, byte| length << 8 | u64::from(*byte))
        };
        self.left = short.unwrap_or_else(long);
        let opcode = header[0] & 0xf;
        self.is_close = opcode == CLOSE;
        self.has_data |= opcode < CLOSE;
        self.message = match opcode {
            CONTINUATION => self.message.saturating_add(self.left),
            // Control frames stand between those of a message.
            CLOSE.. => self.message,
            _ => self.left,
        };
        self.have = 0;
        true
    }

    /// Whether the present message is known to be over the most.
    fn is_over(&self) -> bool {
        self.message_max.is_some_and(|most| self.message > most)
    }
}

/// Which end a frame is for: what goes to an upstream is masked (section 5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Towards {
    Client,
    Upstream,
}

/// A ping without payload.
pub(super) fn ping(towards: Towards) -> Vec<u8> {
    control(PING, &[], towards)
}

/// A close frame; the reason is cut where it is too long.
pub(super) fn close(code: u16, reason: &str, towards: Towards) -> Vec<u8> {
    let reason = &reason[..reason.floor_char_boundary(CONTROL_BYTES_MAX - 2)];
    let payload = [&code.to_be_bytes()[..], reason.as_bytes()].concat();
    control(CLOSE, &payload, towards)
}

fn control(opcode: u8, payload: &[u8], towards: Towards) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap_or(0);
    if towards == Towards::Client {
        return [&[0x80 | opcode, length], payload].concat();
    }
    let mask: [u8; 4] = rand::random();
    let mut frame = [&[0x80 | opcode, 0x80 | length], &mask[..]].concat();
    let masked = payload.iter().zip(mask.iter().cycle());
    frame.extend(masked.map(|(byte, mask)| byte ^ mask));
    frame
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(first: u8, length: usize, masked: bool) -> Vec<u8> {
        let mask = u8::from(masked) << 7;
        let mut frame = match length {
            0..126 => vec![first, mask | length as u8],
            126..0x1_0000 => vec![first, mask | 126, (length >> 8) as u8, length as u8],
            _ => [&[first, mask | 127][..], &(length as u64).to_be_bytes()].concat(),
        };
        // Bytes that would look like a close frame to whoever loses count.
        let rest = length + usize::from(masked) * 4;
        frame.extend([0x88, 0].iter().cycle().take(rest));
        frame
    }

    proptest! {
        #[test]
        fn boundaries_are_found_however_the_bytes_are_cut(
            frames in prop::collection::vec((any::<bool>(), 0..70_000usize, any::<bool>()), 1..6),
            cuts in prop::collection::vec(1..5_000usize, 1..20),
        ) {
            let mut bytes = Vec::new();
            let mut ends = vec![0];
            for (text, length, masked) in &frames {
                bytes.extend(frame(if *text { 0x81 } else { 0x42 }, *length, *masked));
                ends.push(bytes.len());
            }
            let mut follower = Frames::default();
            let mut at = 0;
            for cut in cuts.iter().cycle() {
                let end = bytes.len().min(at + cut);
                let seen = follower.follow(&bytes[at..end]);
                let expected = ends.iter().rev().find(|one| (at..=end).contains(one));
                prop_assert_eq!(seen.boundary, expected.map(|one| one - at));
                prop_assert!(!seen.close);
                prop_assert_eq!(follower.is_between(), ends.contains(&end));
                at = end;
                if at == bytes.len() {
                    break;
                }
            }
        }
    }

    #[test]
    fn close_frames_are_seen_when_they_are_whole() {
        let bytes = [frame(0x81, 3, true), frame(0x88, 2, true)].concat();
        let mut frames = Frames::default();
        let (most, last) = bytes.split_at(bytes.len() - 1);
        assert!(!frames.follow(most).close);
        let seen = frames.follow(last);
        assert_eq!((seen.close, seen.boundary), (true, Some(1)));
    }

    /// Where the frames of these first bytes and lengths, unmasked, are over a thousand bytes; all at once, and byte by byte.
    fn over(parts: &[(u8, usize)]) -> [Option<Over>; 2] {
        let bytes: Vec<u8> = parts
            .iter()
            .flat_map(|(first, length)| frame(*first, *length, false))
            .collect();
        let at_once = Frames::bounded(Some(1000)).follow(&bytes).over;
        let mut frames = Frames::bounded(Some(1000));
        let by_byte = bytes.iter().find_map(|byte| frames.follow(&[*byte]).over);
        [at_once, by_byte]
    }

    #[test]
    fn messages_are_measured_over_all_their_frames() {
        for fits in [
            &[(0x81, 1000), (0x81, 1000)][..],
            &[(0x01, 500), (0x80, 500), (0x82, 1000)],
            &[
                (0x01, 500),
                (0x89, 125),
                (0x00, 499),
                (0x8a, 125),
                (0x80, 1),
            ],
        ] {
            assert_eq!(over(fits), [None, None], "{fits:?}");
        }
        for (parts, at) in [
            (&[(0x81, 1001)][..], 0),
            (&[(0x81, 10), (0x82, 1001), (0x82, 2000)], 12),
            (
                &[(0x01, 10), (0x89, 1), (0x00, 990), (0x80, 1)],
                12 + 3 + 994,
            ),
            (&[(0x82, 70_000)], 0),
        ] {
            let expected = [Some(Over::At(at)), Some(Over::Before)];
            assert_eq!(over(parts), expected, "{parts:?}");
        }
        let endless = [0x82, 127, 255, 255, 255, 255, 255, 255, 255, 255];
        assert_eq!(Frames::default().follow(&endless).over, None, "no bound");
    }

    #[test]
    fn a_length_that_cannot_be_is_no_matter() {
        let mut frames = Frames::default();
        let seen = frames.follow(&[0x82, 127, 255, 255, 255, 255, 255, 255, 255, 255, 1, 2]);
        assert_eq!(seen.boundary, Some(0));
        assert!(!frames.is_between());
    }

    #[test]
    fn frames_of_ours_are_masked_towards_upstreams_only() {
        assert_eq!(ping(Towards::Client), [0x89, 0]);
        assert_eq!(
            close(1012, "ab", Towards::Client),
            [0x88, 4, 3, 244, 97, 98]
        );
        let frame = close(1001, "ab", Towards::Upstream);
        assert_eq!(frame[..2], [0x88, 0x84]);
        let payload: Vec<u8> = (6..10)
            .map(|at| frame[at] ^ frame[2 + (at - 6) % 4])
            .collect();
        assert_eq!(payload, [3, 233, 97, 98]);
        assert_eq!(close(1000, &"ä".repeat(99), Towards::Client)[1], 124);
    }
}
