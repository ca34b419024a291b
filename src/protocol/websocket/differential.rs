//! The decoder beside tungstenite: the same bytes, chopped at other places, give the same messages, or both refuse.

use std::io::{self, Cursor, Read, Write};
use std::ops::ControlFlow;

use proptest::prelude::*;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocket, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::decoder::tests::client_frame;
use super::{Event, Limits, decode};

const MESSAGE_BYTES_MAX: usize = 2000;

/// A message in a form that both can be compared in.
#[derive(Debug, Clone, PartialEq)]
enum Seen {
    Data(bool, Vec<u8>),
    Control(u8, Vec<u8>),
    Close(Option<(u16, String)>),
    Refused,
}

/// A socket that was sent everything already, and forgets what is written to it.
struct Recorded(Cursor<Vec<u8>>);

impl Read for Recorded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Recorded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn with_tungstenite(bytes: &[u8]) -> Vec<Seen> {
    let config = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX));
    let socket = Recorded(Cursor::new(bytes.to_vec()));
    let mut socket = WebSocket::from_raw_socket(socket, Role::Server, Some(config));
    let mut seen = Vec::new();
    loop {
        seen.push(match socket.read() {
            Ok(Message::Text(text)) => Seen::Data(true, text.as_bytes().to_vec()),
            Ok(Message::Binary(bytes)) => Seen::Data(false, bytes.to_vec()),
            Ok(Message::Ping(bytes)) => Seen::Control(9, bytes.to_vec()),
            Ok(Message::Pong(bytes)) => Seen::Control(10, bytes.to_vec()),
            Ok(Message::Close(close)) => Seen::Close(
                close.map(|frame| (u16::from(frame.code), frame.reason.as_str().to_owned())),
            ),
            Ok(Message::Frame(_)) | Err(Error::ConnectionClosed | Error::Io(_)) => return seen,
            // The bytes ended without a close frame: no fault of the frames.
            Err(Error::Protocol(fault)) if fault.to_string().contains("without closing") => {
                return seen;
            }
            Err(_) => {
                seen.push(Seen::Refused);
                return seen;
            }
        });
    }
}

fn with_ours(bytes: &[u8], cuts: &[usize]) -> Vec<Seen> {
    let limits = Limits {
        message_bytes_max: MESSAGE_BYTES_MAX,
    };
    let mut seen = Vec::new();
    let mut partial = None;
    let mut rest = bytes;
    let mut cuts = cuts.iter().copied().cycle();
    while !rest.is_empty() {
        let (piece, behind) = rest.split_at(cuts.next().unwrap_or(1).min(rest.len()));
        rest = behind;
        let decoded = decode(&mut partial, limits, &mut piece.to_vec(), &mut |event| {
            seen.push(match event {
                Event::Text(text) => Seen::Data(true, text.as_bytes().to_vec()),
                Event::Binary(bytes) => Seen::Data(false, bytes.to_vec()),
                Event::Ping(bytes) => Seen::Control(9, bytes.to_vec()),
                Event::Pong(bytes) => Seen::Control(10, bytes.to_vec()),
                Event::Close(close) => {
                    Seen::Close(close.map(|(code, reason)| (code, reason.to_owned())))
                }
            });
            ControlFlow::Continue(())
        });
        if decoded.is_err() {
            seen.push(Seen::Refused);
        }
        if matches!(seen.last(), Some(Seen::Refused | Seen::Close(_))) {
            break;
        }
    }
    seen
}

/// Payloads: mostly text, sometimes text that is cut inside a character, sometimes any bytes, sometimes long.
fn payload() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => "[a-zäß€🎺]{0,20}".prop_map(String::into_bytes),
        2 => "[ä€🎺]{1,9}".prop_flat_map(|text| (0..=text.len()).prop_map(move |at| text.as_bytes()[..at].to_vec())),
        1 => prop::collection::vec(any::<u8>(), 0..130),
        1 => (100usize..1500).prop_map(|len| vec![b'x'; len]),
    ]
}

/// One text cut into fragments at any byte, control frames between them: valid by construction.
fn fragmented() -> impl Strategy<Value = Vec<u8>> {
    (
        "[a-zä€🎺]{0,60}",
        prop::collection::vec((0usize..9, any::<bool>()), 0..8),
    )
        .prop_map(|(text, cuts)| {
            let mut out = Vec::new();
            let mut rest = text.as_bytes();
            let mut opcode = 1;
            for (len, ping) in cuts {
                let (piece, behind) = rest.split_at(len.min(rest.len()));
                rest = behind;
                out.extend(client_frame(opcode, piece));
                opcode = 0;
                if ping {
                    out.extend(client_frame(0x89, b"between"));
                }
            }
            out.extend(client_frame(0x80 | opcode, rest));
            out
        })
}

fn frame() -> impl Strategy<Value = Vec<u8>> {
    let control = prop::collection::vec(any::<u8>(), 0..126);
    let close = (
        prop_oneof![
            Just(1000u16),
            Just(1001),
            Just(1012),
            Just(3000),
            Just(4999)
        ],
        "[a-zä]{0,20}",
    );
    prop_oneof![
        8 => payload().prop_map(|payload| client_frame(0x81, &payload)),
        8 => payload().prop_map(|payload| client_frame(0x82, &payload)),
        8 => fragmented(),
        2 => payload().prop_map(|payload| client_frame(0x01, &payload)),
        2 => payload().prop_map(|payload| client_frame(0x00, &payload)),
        2 => payload().prop_map(|payload| client_frame(0x80, &payload)),
        4 => control.prop_map(|payload| client_frame(0x89, &payload)),
        1 => Just(client_frame(0x8A, b"")),
        1 => close.prop_map(|(code, reason)| {
            client_frame(0x88, &[&code.to_be_bytes(), reason.as_bytes()].concat())
        }),
        1 => (any::<u8>(), payload()).prop_filter_map("close codes differ by design", |(head, payload)| {
            (head & 0x0F != 8).then(|| client_frame(head, &payload))
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn sees_what_tungstenite_sees(
        frames in prop::collection::vec(frame(), 0..12),
        cuts in prop::collection::vec(1usize..200, 1..20),
    ) {
        let bytes = frames.concat();
        prop_assert_eq!(with_ours(&bytes, &cuts), with_tungstenite(&bytes));
    }
}
