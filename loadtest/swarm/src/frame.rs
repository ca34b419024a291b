//! A walker over the frames that a server sends (RFC 6455 section 5.2), and the masked frames that a client sends.
//! It reads headers only: no copy, no unmasking (servers do not mask), no UTF-8 check. It is a measuring tool, not a
//! conforming client: fragments are handed out as they come and are never joined.

/// Text frame.
pub(crate) const TEXT: u8 = 0x1;
/// Binary frame.
pub(crate) const BINARY: u8 = 0x2;
/// Close frame.
pub(crate) const CLOSE: u8 = 0x8;
/// Ping frame.
pub(crate) const PING: u8 = 0x9;
/// Pong frame.
pub(crate) const PONG: u8 = 0xA;

/// The example key of the RFC. A constant, because unpredictable masks protect proxies from web pages, and here
/// neither exists; not zero, so that the server's unmasking does its full work.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// What stands at the head of the buffer.
#[derive(Debug, PartialEq)]
pub(crate) enum Step<'a> {
    /// One whole frame: its opcode, its payload, and how many bytes it took with its header.
    Frame {
        opcode: u8,
        payload: &'a [u8],
        length: usize,
    },
    /// The frame goes on beyond the buffer.
    Partial,
    /// The peer broke the protocol: reserved bits or a masked server frame.
    Broken,
}

/// Reads the frame at the head of `buffer`.
#[inline]
pub(crate) fn next(buffer: &[u8]) -> Step<'_> {
    let [first, second, rest @ ..] = buffer else {
        return Step::Partial;
    };
    if first & 0x70 != 0 || second & 0x80 != 0 {
        return Step::Broken;
    }
    let (header, length): (usize, usize) = match second & 0x7f {
        126 => match rest {
            [a, b, ..] => (4, usize::from(u16::from_be_bytes([*a, *b]))),
            _ => return Step::Partial,
        },
        127 => match rest.first_chunk::<8>() {
            Some(bytes) => (10, u64::from_be_bytes(*bytes) as usize),
            None => return Step::Partial,
        },
        short => (2, usize::from(short)),
    };
    match header
        .checked_add(length)
        .and_then(|end| buffer.get(header..end))
    {
        Some(payload) => Step::Frame {
            opcode: first & 0x0f,
            payload,
            length: header + length,
        },
        None => Step::Partial,
    }
}

/// The status code of a close frame's payload; 1005 when it has none (RFC 6455 section 7.1.5).
pub(crate) fn close_code(payload: &[u8]) -> u16 {
    payload
        .first_chunk::<2>()
        .map_or(1005, |code| u16::from_be_bytes(*code))
}

/// The client's frame at the head of `buffer`, unmasked: its opcode, its payload, and how many bytes it took. `None` when
/// it goes on beyond the buffer; a frame that is not masked counts as one that never ends.
pub(crate) fn unmasked(buffer: &[u8]) -> Option<(u8, Vec<u8>, usize)> {
    let [first, second, rest @ ..] = buffer else {
        return None;
    };
    let (header, length): (usize, usize) = match second.checked_sub(0x80)? {
        126 => (4, usize::from(u16::from_be_bytes(*rest.first_chunk()?))),
        127 => (10, u64::from_be_bytes(*rest.first_chunk()?) as usize),
        short => (2, usize::from(short)),
    };
    let mask = buffer.get(header..header + 4)?;
    let end = (header + 4).checked_add(length)?;
    let payload = buffer.get(header + 4..end)?;
    let payload = payload
        .iter()
        .zip(mask.iter().cycle())
        .map(|(byte, mask)| byte ^ mask)
        .collect();
    Some((first & 0x0f, payload, end))
}

/// Appends one masked client frame to `out`.
pub(crate) fn put_masked(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    out.push(0x80 | opcode);
    match payload.len() {
        short @ 0..=125 => out.push(0x80 | short as u8),
        middle @ 126..=0xffff => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(middle as u16).to_be_bytes());
        }
        long => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&MASK);
    out.extend(
        payload
            .iter()
            .zip(MASK.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
}

/// One masked client frame.
pub(crate) fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(payload.len() + 14);
    put_masked(&mut out, opcode, payload);
    out
}

/// Appends one unmasked server frame to `out`: what the floor's writer sends.
pub(crate) fn put_plain(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    out.push(0x80 | opcode);
    match payload.len() {
        short @ 0..=125 => out.push(short as u8),
        middle @ 126..=0xffff => {
            out.push(126);
            out.extend_from_slice(&(middle as u16).to_be_bytes());
        }
        long => {
            out.push(127);
            out.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(payload);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(length: usize, header: usize) {
        let payload = vec![b'x'; length];
        let mut bytes = Vec::new();
        put_plain(&mut bytes, TEXT, &payload);
        let expected = Step::Frame {
            opcode: TEXT,
            payload: &payload,
            length: header + length,
        };
        assert_eq!(next(&bytes), expected);
        for cut in (0..bytes.len()).step_by(1 + length / 50) {
            assert_eq!(
                next(&bytes[..cut]),
                Step::Partial,
                "cut at {cut} of {}",
                bytes.len()
            );
        }
    }

    #[test]
    fn reads_each_form_of_length_and_waits_for_the_rest() {
        check(0, 2);
        check(125, 2);
        check(126, 4);
        check(0xffff, 4);
        check(0x1_0000, 10);
    }

    #[test]
    fn walks_many_frames_in_one_buffer() {
        let mut bytes = Vec::new();
        (0..300).for_each(|n| put_plain(&mut bytes, TEXT, &vec![b'a'; n]));
        let (mut at, mut seen) = (0, 0);
        while let Step::Frame {
            payload, length, ..
        } = next(&bytes[at..])
        {
            assert_eq!(payload.len(), seen);
            seen += 1;
            at += length;
        }
        assert_eq!((seen, at), (300, bytes.len()));
    }

    #[test]
    fn refuses_reserved_bits_and_masked_frames_of_a_server() {
        assert_eq!(next(&[0xC1, 0]), Step::Broken);
        assert_eq!(next(&[0x81, 0x80, 0, 0, 0, 0]), Step::Broken);
    }

    #[test]
    fn does_not_overflow_on_a_huge_declared_length() {
        assert_eq!(
            next(&[0x82, 127, 255, 255, 255, 255, 255, 255, 255, 255]),
            Step::Partial
        );
    }

    #[test]
    fn masks_as_the_example_of_the_rfc() {
        let hello = [
            0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58,
        ];
        assert_eq!(masked(TEXT, b"Hello"), hello);
    }

    #[test]
    fn unmasks_what_it_masked() {
        for length in [0, 125, 126, 0xffff, 0x1_0000] {
            let payload: Vec<u8> = (0..length).map(|n| n as u8).collect();
            let frame = masked(BINARY, &payload);
            let whole = Some((BINARY, payload, frame.len()));
            assert_eq!(unmasked(&frame), whole);
            assert_eq!(unmasked(&frame[..frame.len() - 1]), None);
        }
        assert_eq!(unmasked(&[0x82, 1, b'x']), None);
    }

    #[test]
    fn a_close_frame_without_code_is_1005() {
        assert_eq!(close_code(&[]), 1005);
        assert_eq!(close_code(&[0x03, 0xf5, b'x']), 1013);
    }
}
