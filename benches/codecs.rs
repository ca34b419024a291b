//! The codecs on the delivery path: publications in each wire format, a client's commands, and WebSocket frames beside
//! tungstenite, which parses the same bytes with its own buffers.

use std::hint::black_box;
use std::io::{self, Cursor, Read, Write};
use std::ops::ControlFlow;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, Throughput};
use fanfare::model::{ChannelKey, ClientId, Encode, Epoch, Origin, Publication, WireFormat};
use fanfare::protocol::encoder::Encoder;
use fanfare::protocol::{payload, plain, websocket};
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocket};

const DATA: &str = r#"{"id":1234567,"kind":"trade","symbol":"EURUSD","price":1.08345,"size":250000,"tags":["a","b"],"time":1700000000.125}"#;

fn publication() -> Publication {
    Publication {
        offset: 123_456,
        data: payload::from_json(DATA.as_bytes()).expect("valid"),
        origin: Some(Origin {
            client: ClientId::from_bits(7),
            user: Arc::from("ann"),
        }),
        key: None,
    }
}

fn encode(c: &mut Criterion) {
    let mut group = c.benchmark_group("encode a publication");
    let (channel, publication) = (
        ChannelKey::new("market:eurusd").expect("a name"),
        publication(),
    );
    let (mut encoder, mut out) = (Encoder::default(), Vec::new());
    for format in WireFormat::ALL {
        group.bench_function(format!("{format:?}"), |b| {
            b.iter(|| {
                out.clear();
                let epoch = Some(Epoch::from_bits(1));
                encoder.publication(
                    format,
                    &channel,
                    black_box(&publication),
                    epoch,
                    false,
                    &mut out,
                );
                out.len()
            });
        });
    }
}

fn decode(c: &mut Criterion) {
    let mut group = c.benchmark_group("decode a command");
    let epoch = Epoch::from_bits(1);
    for (name, json) in [
        ("ping", r#"{"type":"ping","id":1}"#.to_owned()),
        (
            "subscribe",
            format!(
                r#"{{"type":"subscribe","id":1,"channel":"market:eurusd","recover":{{"epoch":"{epoch}","offset":9}}}}"#
            ),
        ),
        (
            "publish",
            format!(r#"{{"type":"publish","id":1,"channel":"market:eurusd","data":{DATA}}}"#),
        ),
    ] {
        let value: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        let packed = rmp_serde::to_vec(&value).expect("MessagePack");
        group.bench_function(format!("{name}/Json"), |b| {
            b.iter(|| plain::decode_json(black_box(&json)).expect("valid"));
        });
        group.bench_function(format!("{name}/MessagePack"), |b| {
            b.iter(|| plain::decode_message_pack(black_box(&packed)).expect("valid"));
        });
    }
}

/// `count` masked text frames of `len` bytes each.
fn client_frames(count: usize, len: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for _ in 0..count {
        let start = out.len();
        websocket::frame_header(websocket::Opcode::Text, len, &mut out);
        out[start + 1] |= 0x80;
        let mask = [0x37, 0xFA, 0x21, 0x3D];
        out.extend_from_slice(&mask);
        out.extend(mask.iter().cycle().take(len).map(|key| key ^ b'x'));
    }
    out
}

/// A socket that was sent everything already.
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

fn frames(c: &mut Criterion) {
    for (count, len) in [(500, 32), (400, 128), (4, 16 << 10), (1, 1 << 20)] {
        let bytes = client_frames(count, len);
        let mut group = c.benchmark_group(format!("{count} text frames of {len} bytes"));
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        let limits = websocket::Limits {
            message_bytes_max: 16 << 20,
        };
        group.bench_function("ours", |b| {
            b.iter_batched_ref(
                || bytes.clone(),
                |bytes| {
                    let mut seen = 0;
                    // As a worker reads: at most 64 KiB a time.
                    let mut partial = None;
                    for piece in bytes.chunks_mut(64 << 10) {
                        websocket::decode(&mut partial, limits, piece, &mut |_| {
                            seen += 1;
                            ControlFlow::Continue(())
                        })
                        .expect("valid");
                    }
                    assert_eq!(seen, count);
                },
                BatchSize::LargeInput,
            );
        });
        group.bench_function("tungstenite", |b| {
            b.iter_batched_ref(
                || {
                    let socket = Recorded(Cursor::new(bytes.clone()));
                    WebSocket::from_raw_socket(socket, Role::Server, None)
                },
                |socket| {
                    for _ in 0..count {
                        black_box(socket.read().expect("valid"));
                    }
                },
                BatchSize::LargeInput,
            );
        });
    }
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    encode(&mut criterion);
    decode(&mut criterion);
    frames(&mut criterion);
    criterion.final_summary();
}
