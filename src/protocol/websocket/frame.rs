//! Writing server frames: never masked, never fragmented (RFC 6455 section 5).

use super::Opcode;
use crate::model::CloseReason;

/// The most payload bytes of a control frame (section 5.5).
const CONTROL_BYTES_MAX: usize = 125;

/// The most bytes of a server frame's header.
const HEADER_BYTES_MAX: usize = 10;

/// Appends the header of a whole server frame whose payload has `len` bytes. The payload follows it.
pub fn frame_header(opcode: Opcode, len: usize, out: &mut Vec<u8>) {
    let (bytes, used) = header_bytes(opcode, len);
    out.extend_from_slice(&bytes[..used]);
}

/// Appends a whole server frame whose payload `write` appends. `expected` is a guess at the payload's length: a good one
/// (the same of below 126, below 65,536, above) saves moving the payload by a few bytes afterwards.
pub fn frame(opcode: Opcode, expected: usize, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    let room = header_len(expected);
    out.reserve(room + expected);
    out.resize(start + room, 0);
    write(out);
    let len = out.len() - start - room;
    let (bytes, used) = header_bytes(opcode, len);
    move_payload(out, start + room, start + used);
    out[start..start + used].copy_from_slice(&bytes[..used]);
}

/// Appends a close frame with the reason's code and text.
pub fn close_frame(reason: CloseReason, out: &mut Vec<u8>) {
    close_frame_echo(Some((reason.code(), reason.text())), out);
}

/// Appends the answer to a client's close frame: its own code and reason (section 5.5.1), or none when it gave none.
pub fn close_frame_echo(received: Option<(u16, &str)>, out: &mut Vec<u8>) {
    let Some((code, reason)) = received else {
        return frame_header(Opcode::Close, 0, out);
    };
    let reason = &reason[..reason.floor_char_boundary(CONTROL_BYTES_MAX - 2)];
    frame_header(Opcode::Close, 2 + reason.len(), out);
    out.extend_from_slice(&code.to_be_bytes());
    out.extend_from_slice(reason.as_bytes());
}

/// Appends a ping. What is over 125 bytes of the payload is cut off.
pub fn ping(payload: &[u8], out: &mut Vec<u8>) {
    control(Opcode::Ping, payload, out);
}

/// Appends the answer to a ping of this payload. What is over 125 bytes of it is cut off.
pub fn pong(payload: &[u8], out: &mut Vec<u8>) {
    control(Opcode::Pong, payload, out);
}

fn control(opcode: Opcode, payload: &[u8], out: &mut Vec<u8>) {
    let payload = &payload[..payload.len().min(CONTROL_BYTES_MAX)];
    frame_header(opcode, payload.len(), out);
    out.extend_from_slice(payload);
}

const fn header_len(len: usize) -> usize {
    match len {
        0..126 => 2,
        126..0x1_0000 => 4,
        _ => HEADER_BYTES_MAX,
    }
}

fn header_bytes(opcode: Opcode, len: usize) -> ([u8; HEADER_BYTES_MAX], usize) {
    let mut bytes = [0; HEADER_BYTES_MAX];
    let used = header_len(len);
    let wide = (len as u64).to_be_bytes();
    bytes[0] = 0x80 | opcode as u8;
    match used {
        2 => bytes[1] = wide[7],
        4 => {
            bytes[1] = 126;
            bytes[2..4].copy_from_slice(&wide[6..]);
        }
        _ => {
            bytes[1] = 127;
            bytes[2..].copy_from_slice(&wide);
        }
    }
    (bytes, used)
}

/// Moves the bytes from `from` to the end so that they begin at `to`.
fn move_payload(out: &mut Vec<u8>, from: usize, to: usize) {
    let end = out.len();
    if to > from {
        out.resize(end + to - from, 0);
    }
    if to != from {
        out.copy_within(from..end, to);
        out.truncate(end + to - from);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_encoded_in_the_fewest_bytes() {
        for (len, header) in [
            (0, vec![0x82, 0]),
            (125, vec![0x82, 125]),
            (126, vec![0x82, 126, 0, 126]),
            (0xFFFF, vec![0x82, 126, 0xFF, 0xFF]),
            (0x1_0000, vec![0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let mut out = Vec::new();
            frame_header(Opcode::Binary, len, &mut out);
            assert_eq!(out, header, "{len}");
        }
    }

    #[test]
    fn a_wrong_guess_at_the_length_makes_the_same_frame() {
        for len in [0, 1, 125, 126, 0xFFFF, 0x1_0000] {
            let payload: Vec<u8> = (0..len).map(|at| at as u8).collect();
            let mut wanted = b"before".to_vec();
            frame_header(Opcode::Text, len, &mut wanted);
            wanted.extend_from_slice(&payload);
            for expected in [0, 200, 100_000] {
                let mut out = b"before".to_vec();
                frame(Opcode::Text, expected, &mut out, |out| {
                    out.extend_from_slice(&payload);
                });
                assert!(out == wanted, "{len} bytes where {expected} were expected");
            }
        }
    }

    #[test]
    fn close_frames_carry_code_and_reason() {
        let mut out = Vec::new();
        close_frame(CloseReason::NoPong, &mut out);
        assert_eq!(out, b"\x88\x09\x0f\xa4no pong");
        out.clear();
        close_frame_echo(None, &mut out);
        assert_eq!(out, b"\x88\x00");
    }

    #[test]
    fn control_frames_never_pass_125_bytes() {
        let mut out = Vec::new();
        pong(&[7; 200], &mut out);
        assert_eq!((out[1], out.len()), (125, 127));
        out.clear();
        close_frame_echo(Some((1000, &"ä".repeat(100))), &mut out);
        assert_eq!((out[1], out.len()), (124, 126));
    }
}
