//! The decoder against bytes made by hand: what it hands on, what it refuses, what it keeps.

use std::ops::ControlFlow;

use proptest::prelude::*;

use super::super::*;

const LIMITS: Limits = Limits {
    message_bytes_max: 1000,
};

/// A client's frame. `head` is its first byte.
pub(crate) fn client_frame(head: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = match payload.len() {
        len @ 0..126 => vec![head, 0x80 | len as u8],
        len @ 126..0x1_0000 => {
            let [a, b] = (len as u16).to_be_bytes();
            vec![head, 0x80 | 126, a, b]
        }
        len => {
            let mut out = vec![head, 0x80 | 127];
            out.extend_from_slice(&(len as u64).to_be_bytes());
            out
        }
    };
    let mask = [0x37, 0xFA, 0x21, 0x3D];
    out.extend_from_slice(&mask);
    out.extend(
        payload
            .iter()
            .zip(mask.iter().cycle())
            .map(|(byte, key)| byte ^ key),
    );
    out
}

fn concat(frames: &[(u8, &[u8])]) -> Vec<u8> {
    frames
        .iter()
        .flat_map(|(head, payload)| client_frame(*head, payload))
        .collect()
}

fn name(event: Event<'_>) -> String {
    match event {
        Event::Text(text) => format!("text {text}"),
        Event::Binary(bytes) => format!("binary {bytes:?}"),
        Event::Ping(bytes) => format!("ping {bytes:?}"),
        Event::Pong(bytes) => format!("pong {bytes:?}"),
        Event::Close(close) => format!("close {close:?}"),
    }
}

/// Decodes `bytes` in pieces of `size`, and tells the events and how it ended.
fn decode_in_pieces(bytes: &[u8], size: usize) -> (Vec<String>, Result<(), WebSocketError>) {
    let mut partial = None;
    let mut events = Vec::new();
    for piece in bytes.chunks(size.max(1)) {
        let decoded = decode(&mut partial, LIMITS, &mut piece.to_vec(), &mut |event| {
            events.push(name(event));
            ControlFlow::Continue(())
        });
        match decoded {
            Ok(consumed) => assert_eq!(consumed, piece.len()),
            Err(fault) => return (events, Err(fault)),
        }
    }
    (events, Ok(()))
}

/// The same for every size of piece.
fn check(bytes: &[u8], wanted: &[&str], end: Result<(), WebSocketError>) {
    for size in 1..=bytes.len() {
        let (events, ended) = decode_in_pieces(bytes, size);
        assert_eq!(ended, end, "in pieces of {size}");
        assert_eq!(events, wanted, "in pieces of {size}");
    }
}

fn check_refused(bytes: &[u8], fault: WebSocketError) {
    check(bytes, &[], Err(fault));
}

#[test]
fn hands_on_whole_messages() {
    let bytes = concat(&[(0x81, "grüße".as_bytes()), (0x82, &[1, 2]), (0x81, b"")]);
    check(&bytes, &["text grüße", "binary [1, 2]", "text "], Ok(()));
}

#[test]
fn joins_fragments_with_control_frames_between_them() {
    let bytes = concat(&[
        (0x01, &"ü".as_bytes()[..1]),
        (0x89, b"?"),
        (0x00, b""),
        (0x00, &"ü".as_bytes()[1..]),
        (0x8A, b""),
        (0x80, b"!"),
        (0x02, b""),
        (0x80, b""),
    ]);
    check(
        &bytes,
        &["ping [63]", "pong []", "text ü!", "binary []"],
        Ok(()),
    );
}

#[test]
fn drops_everything_behind_a_close_frame() {
    let bytes = concat(&[(0x88, b"\x03\xE8bye"), (0x81, b"late")]);
    let (events, ended) = decode_in_pieces(&bytes, bytes.len());
    assert_eq!(
        (events, ended),
        (vec![r#"close Some((1000, "bye"))"#.to_owned()], Ok(()))
    );
    check(&client_frame(0x88, b""), &["close None"], Ok(()));
}

#[test]
fn accepts_the_close_codes_that_may_be_sent_and_no_other() {
    for code in 0..=u16::MAX {
        let (_, ended) = decode_in_pieces(&client_frame(0x88, &code.to_be_bytes()), 100);
        let allowed = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
        assert_eq!(ended.is_ok(), allowed, "{code}");
    }
    check_refused(&client_frame(0x88, b"\x03"), WebSocketError::BadClose);
    check_refused(
        &client_frame(0x88, b"\x03\xE8\xFF"),
        WebSocketError::InvalidUtf8,
    );
}

#[test]
fn refuses_what_rfc_6455_forbids() {
    check_refused(&[0x81, 0x01, b'a'], WebSocketError::Unmasked);
    check_refused(&client_frame(0xC1, b"a"), WebSocketError::ReservedBits);
    check_refused(&client_frame(0x91, b"a"), WebSocketError::ReservedBits);
    for opcode in [3, 4, 5, 6, 7, 0xB, 0xC, 0xD, 0xE, 0xF] {
        check_refused(
            &client_frame(0x80 | opcode, b""),
            WebSocketError::ReservedOpcode(opcode),
        );
    }
    check_refused(&client_frame(0x09, b""), WebSocketError::FragmentedControl);
    check_refused(
        &client_frame(0x89, &[0; 126]),
        WebSocketError::ControlTooLong,
    );
    check_refused(
        &client_frame(0x80, b""),
        WebSocketError::UnexpectedContinuation,
    );
    check_refused(
        &concat(&[(0x01, b"a"), (0x81, b"b")]),
        WebSocketError::ExpectedContinuation,
    );
}

#[test]
fn refuses_lengths_that_are_not_minimal_or_not_possible() {
    let mask = [0; 4];
    let header = |length: &[u8]| [&[0x82], length, &mask].concat();
    check_refused(&header(&[0xFE, 0, 125]), WebSocketError::LengthNotMinimal);
    check_refused(
        &header(&[0xFF, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF]),
        WebSocketError::LengthNotMinimal,
    );
    check_refused(
        &header(&[0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0]),
        WebSocketError::LengthOutOfRange,
    );
}

#[test]
fn refuses_a_message_over_the_limit_when_its_header_declares_it() {
    assert_eq!(
        decode_in_pieces(&client_frame(0x82, &[0; 1000]), 99)
            .0
            .len(),
        1
    );
    check_refused(
        &client_frame(0x82, &[0; 1001])[..8],
        WebSocketError::MessageTooBig,
    );
    let huge = [0x82, 0xFF, 0x7F, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4];
    check_refused(&huge, WebSocketError::MessageTooBig);
    let (events, ended) = decode_in_pieces(&concat(&[(0x02, &[0; 600]), (0x80, &[0; 401])]), 500);
    assert_eq!(
        (events.len(), ended),
        (0, Err(WebSocketError::MessageTooBig))
    );
}

#[test]
fn refuses_bad_text_before_its_message_is_complete() {
    let in_a_frame = client_frame(0x81, b"good\xC3\x28 and a tail that never arrives");
    check_refused(&in_a_frame[..12], WebSocketError::InvalidUtf8);
    // A surrogate half: the second byte already proves it.
    check_refused(
        &client_frame(0x01, b"\xED\xA0"),
        WebSocketError::InvalidUtf8,
    );
    check_refused(
        &concat(&[(0x01, b"\xCE"), (0x00, b"\xBA\xFF")]),
        WebSocketError::InvalidUtf8,
    );
    check_refused(
        &client_frame(0x81, b"cut \xCE"),
        WebSocketError::InvalidUtf8,
    );
}

#[test]
fn keeps_nothing_between_messages() {
    let bytes = concat(&[
        (0x01, b"a"),
        (0x89, b"ping"),
        (0x80, b"b"),
        (0x81, b"cd"),
        (0x8A, b"x"),
    ]);
    let ends_of_messages = [24, 32, 39];
    for cut in 1..=bytes.len() {
        let mut partial = None;
        let mut quiet = |_: Event<'_>| ControlFlow::Continue(());
        decode(&mut partial, LIMITS, &mut bytes[..cut].to_vec(), &mut quiet).expect("valid");
        assert_eq!(
            partial.is_none(),
            ends_of_messages.contains(&cut),
            "after {cut} bytes"
        );
    }
}

#[test]
fn keeps_no_more_than_twice_what_arrived() {
    let limits = Limits {
        message_bytes_max: 16 << 20,
    };
    let mut bytes = client_frame(0x82, &vec![7; 16 << 20]);
    bytes.truncate(1000);
    let mut partial = None;
    for piece in bytes.chunks_mut(10) {
        decode(&mut partial, limits, piece, &mut |_| {
            ControlFlow::Continue(())
        })
        .expect("valid");
    }
    let kept = partial
        .and_then(|partial| partial.message)
        .expect("a message is open");
    assert!(
        kept.payload.capacity() <= 2000,
        "{}",
        kept.payload.capacity()
    );
}

#[test]
fn joins_sixteen_mebibytes_of_small_fragments() {
    let limits = Limits {
        message_bytes_max: 16 << 20,
    };
    let count = (16 << 20) / 64;
    let mut bytes = Vec::new();
    for fragment in 0..count {
        let fin = if fragment == count - 1 { 0x80 } else { 0 };
        let opcode = if fragment == 0 { 1 } else { 0 };
        bytes.extend(client_frame(fin | opcode, &[b'x'; 64]));
    }
    let mut len = 0;
    let mut partial = None;
    for piece in bytes.chunks_mut(64 << 10) {
        decode(&mut partial, limits, piece, &mut |event| {
            if let Event::Text(text) = event {
                len = text.len();
            }
            ControlFlow::Continue(())
        })
        .expect("valid");
    }
    assert_eq!(len, 16 << 20);
}

#[test]
fn stops_after_an_event_and_goes_on_where_it_stopped() {
    let mut bytes = concat(&[
        (0x81, b"a"),
        (0x89, b""),
        (0x01, b"b"),
        (0x80, b"c"),
        (0x82, b""),
    ]);
    let mut partial = None;
    let mut events = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let before = events.len();
        at += decode(&mut partial, LIMITS, &mut bytes[at..], &mut |event| {
            events.push(name(event));
            ControlFlow::Break(())
        })
        .expect("valid");
        assert_eq!(events.len(), before + 1);
    }
    assert_eq!(events, ["text a", "ping []", "text bc", "binary []"]);
}

#[test]
fn errors_become_three_close_codes() {
    for (fault, code) in [
        (WebSocketError::Unmasked, 1002),
        (WebSocketError::BadClose, 1002),
        (WebSocketError::InvalidUtf8, 1007),
        (WebSocketError::MessageTooBig, 1009),
    ] {
        assert_eq!(fault.close_reason().code(), code);
    }
}

proptest! {
    #[test]
    fn never_panics_and_ends_alike_in_any_pieces(
        bytes in prop::collection::vec(any::<u8>(), 1..300),
        size in 1usize..300,
    ) {
        let whole = decode_in_pieces(&bytes, bytes.len());
        let pieces = decode_in_pieces(&bytes, size);
        // A fault in the middle of a frame shows earlier in pieces; whatever came before it is the same.
        prop_assert!(whole.0.starts_with(&pieces.0) || pieces.0.starts_with(&whole.0));
    }
}
