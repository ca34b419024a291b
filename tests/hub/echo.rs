//! `/ws/echo`: what comes goes back unchanged, by the letter of RFC 6455.

use crate::support::raw::{self, BINARY, CLOSE, FIN, PING, PONG, Raw, TEXT};
use crate::support::{Hub, hub};

async fn echo_hub() -> Hub {
    hub(&[("WS_ECHO", "true")]).await
}

#[tokio::test]
async fn there_is_no_echo_unless_wanted() {
    let hub = hub(&[]).await;
    assert_eq!(hub.get("/ws/echo").await.status, 404);
}

#[tokio::test]
async fn text_and_binary_come_back_unchanged() {
    let hub = echo_hub().await;
    let mut raw = Raw::open(&hub, "/ws/echo").await;
    let bytes: Vec<u8> = (0..=255).collect();
    let texts = ["", "a", "grüß \u{1f600}\0", "not JSON {"];
    for text in texts {
        raw.send(&raw::text(text)).await;
        assert_eq!(
            raw.next().await,
            Some((FIN | TEXT, text.as_bytes().to_vec()))
        );
    }
    for length in [0, 1, 125, 126, 127, 65_535, 65_536] {
        let payload: Vec<u8> = bytes.iter().copied().cycle().take(length).collect();
        raw.send(&raw::frame(FIN | BINARY, &payload)).await;
        assert_eq!(raw.next().await, Some((FIN | BINARY, payload)));
    }
    // Many in one write come back in order.
    let many: Vec<u8> = (0..500).flat_map(|n| raw::text(&n.to_string())).collect();
    raw.send(&many).await;
    for n in 0..500 {
        assert_eq!(
            raw.next().await,
            Some((FIN | TEXT, n.to_string().into_bytes()))
        );
    }
}

#[tokio::test]
async fn a_mask_is_taken_off() {
    let hub = echo_hub().await;
    let mut raw = Raw::open(&hub, "/ws/echo").await;
    let mask = [0x12, 0x34, 0x56, 0x78];
    let payload = b"thirteen byte";
    let mut frame = raw::header(FIN | TEXT, 0x80, payload.len() as u64);
    frame.extend_from_slice(&mask);
    frame.extend(
        payload
            .iter()
            .zip(mask.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
    raw.send(&frame).await;
    assert_eq!(raw.next().await, Some((FIN | TEXT, payload.to_vec())));
}

#[tokio::test]
async fn fragments_come_back_whole_with_control_frames_between() {
    let hub = echo_hub().await;
    let mut raw = Raw::open(&hub, "/ws/echo").await;
    raw.send(&raw::frame(TEXT, b"gr\xc3")).await;
    raw.send(&raw::frame(FIN | PING, b"between")).await;
    assert_eq!(raw.next().await, Some((FIN | PONG, b"between".to_vec())));
    raw.send(&raw::frame(0, &"\u{fc}".as_bytes()[1..])).await;
    raw.send(&raw::frame(FIN | PONG, b"unasked")).await;
    raw.send(&raw::frame(0, b"")).await;
    raw.send(&raw::frame(FIN, "\u{df}".as_bytes())).await;
    let (head, whole) = raw.next().await.expect("the message");
    assert_eq!(
        (head, String::from_utf8_lossy(&whole).as_ref()),
        (FIN | TEXT, "gr\u{fc}\u{df}")
    );
    let pings: Vec<u8> = (0..10)
        .flat_map(|n| raw::frame(FIN | PING, &[n; 125]))
        .collect();
    raw.send(&pings).await;
    for n in 0..10 {
        assert_eq!(raw.next().await, Some((FIN | PONG, vec![n; 125])));
    }
}

#[tokio::test]
async fn the_close_comes_back_with_the_peers_code() {
    let hub = echo_hub().await;
    for payload in [
        b"".to_vec(),
        b"\x03\xe8".to_vec(),
        b"\x03\xe8done".to_vec(),
        b"\x03\xf3".to_vec(),
        b"\x0b\xb8".to_vec(),
        [b"\x13\x87".to_vec(), vec![b'x'; 123]].concat(),
    ] {
        let mut raw = Raw::open(&hub, "/ws/echo").await;
        let mut bytes = raw::text("last words");
        bytes.extend(raw::frame(FIN | CLOSE, &payload));
        // What comes behind a close means nothing any more.
        bytes.extend(raw::text("too late"));
        raw.send(&bytes).await;
        assert_eq!(raw.next().await, Some((FIN | TEXT, b"last words".to_vec())));
        let (head, back) = raw.next().await.expect("a close");
        assert_eq!(head, FIN | CLOSE);
        assert_eq!(back.get(..2), payload.get(..2), "{payload:?}");
        assert_eq!(raw.next().await, None);
    }
}

#[tokio::test]
async fn bad_text_fails_as_soon_as_it_is_bad() {
    let hub = echo_hub().await;
    // In the first fragment, whose message never ends.
    let mut raw = Raw::open(&hub, "/ws/echo").await;
    raw.send(&raw::frame(TEXT, b"good \xff")).await;
    assert_eq!(raw.close_code().await, 1007);
    // In the middle of a frame that never ends.
    let mut raw = Raw::open(&hub, "/ws/echo").await;
    let mut begun = raw::header(FIN | TEXT, 0x80, 1000);
    begun.extend_from_slice(&[0; 4]);
    begun.extend_from_slice(b"good \xc0\xaf and more");
    raw.send(&begun).await;
    assert_eq!(raw.close_code().await, 1007);
    // A character that is split over frames is good.
    let mut raw = Raw::open(&hub, "/ws/echo").await;
    for (head, byte) in [(TEXT, 0xf0), (0, 0x9f), (0, 0x98), (FIN, 0x80)] {
        raw.send(&raw::frame(head, &[byte])).await;
    }
    let (_, whole) = raw.next().await.expect("the message");
    assert_eq!(whole, "\u{1f600}".as_bytes());
    // A message that ends in the middle of one is not.
    raw.send(&raw::frame(FIN | TEXT, b"\xf0\x9f\x98")).await;
    assert_eq!(raw.close_code().await, 1007);
}

#[tokio::test]
async fn sixteen_mebibytes_come_back_in_any_number_of_fragments() {
    const SIZE: usize = 16 << 20;
    let hub = hub(&[
        ("WS_ECHO", "true"),
        ("WS_MAX_MESSAGE_BYTES", "16777216"),
        ("WS_MAX_BUFFERED_BYTES", "17000000"),
    ])
    .await;
    let payload: Vec<u8> = (0..SIZE).map(|at| b'a' + (at % 26) as u8).collect();
    for fragment in [SIZE, 1 << 16, 5000] {
        let mut raw = Raw::open(&hub, "/ws/echo").await;
        let mut bytes = Vec::with_capacity(SIZE + SIZE / 100);
        for (index, part) in payload.chunks(fragment).enumerate() {
            let opcode = if index == 0 { TEXT } else { 0 };
            let last = if (index + 1) * fragment >= SIZE {
                FIN
            } else {
                0
            };
            bytes.extend(raw::frame(last | opcode, part));
        }
        // Twice, one behind the other: the second waits until the first has gone.
        raw.send(&bytes).await;
        let (head, back) = raw.next().await.expect("the message");
        assert_eq!(head, FIN | TEXT);
        assert!(back == payload, "changed on its way");
        raw.send(&bytes).await;
        assert_eq!(raw.next().await.expect("the message").1.len(), SIZE);
    }
    let mut raw = Raw::open(&hub, "/ws/echo").await;
    let mut begun = raw::header(FIN | BINARY, 0x80, SIZE as u64 + 1);
    begun.extend_from_slice(&[0; 4]);
    raw.send(&begun).await;
    assert_eq!(raw.close_code().await, 1009);
}

#[tokio::test]
async fn many_large_messages_in_a_row_are_all_echoed() {
    // More than the bound in all: reading waits for writing, and nobody is closed.
    let hub = hub(&[("WS_ECHO", "true"), ("WS_MAX_BUFFERED_BYTES", "200000")]).await;
    let raw = Raw::open(&hub, "/ws/echo").await;
    let (reader, mut writer) = raw.stream.into_split();
    let write = async {
        use tokio::io::AsyncWriteExt as _;
        for n in 0..300_u32 {
            let payload = [n.to_be_bytes().to_vec(), vec![0; 60_000]].concat();
            writer
                .write_all(&raw::frame(FIN | BINARY, &payload))
                .await
                .expect("taken");
        }
    };
    let read = async {
        use tokio::io::AsyncReadExt as _;
        let mut reader = tokio::io::BufReader::new(reader);
        // Let it pile up first.
        tokio::task::yield_now().await;
        for n in 0..300_u32 {
            let mut frame = vec![0; 4 + 60_004];
            let read = crate::support::within("an echo", reader.read_exact(&mut frame));
            read.await.expect("whole");
            assert_eq!(frame[4..8], n.to_be_bytes());
        }
    };
    tokio::join!(write, read);
}
