//! Any bytes in any pieces: the decoder does not panic, consumes what it says, and ends alike in one piece and in many.

#![no_main]

use std::ops::ControlFlow;

use fanfare::protocol::websocket::{Event, Limits, WebSocketError, decode};
use libfuzzer_sys::fuzz_target;

const LIMITS: Limits = Limits {
    message_bytes_max: 1000,
};

/// How many events there were, and how it ended. `stop` ends each call after one event.
fn run(bytes: &[u8], piece: usize, stop: bool) -> (usize, Result<(), WebSocketError>) {
    let (mut events, mut partial) = (0, None);
    for piece in bytes.chunks(piece) {
        let mut piece = piece.to_vec();
        let mut at = 0;
        let mut closed = false;
        while at < piece.len() && !closed {
            let decoded = decode(&mut partial, LIMITS, &mut piece[at..], &mut |event| {
                events += 1;
                closed = matches!(event, Event::Close(_));
                match stop {
                    true => ControlFlow::Break(()),
                    false => ControlFlow::Continue(()),
                }
            });
            match decoded {
                Ok(0) => panic!("no progress"),
                Ok(consumed) => at += consumed,
                Err(fault) => return (events, Err(fault)),
            }
        }
        if closed {
            break;
        }
    }
    (events, Ok(()))
}

fuzz_target!(|input: (u8, Vec<u8>)| {
    let (piece, mut bytes) = input;
    // Most random frames are unmasked, and end there.
    if piece & 1 == 0 && bytes.len() > 1 {
        bytes[1] |= 0x80;
    }
    let whole = run(&bytes, bytes.len().max(1), false);
    let pieces = run(&bytes, usize::from(piece / 2) + 1, true);
    match whole.1 {
        Ok(()) if pieces.1.is_ok() => assert_eq!(whole, pieces),
        // Bad text shows earlier in pieces than in a frame that never ends.
        _ => assert!(pieces.0 <= whole.0),
    }
});
