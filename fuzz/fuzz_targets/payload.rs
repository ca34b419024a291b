//! Any bytes at the door, as JSON and as MessagePack: what passes is on one line, passes again unchanged, and has a
//! MessagePack form.

#![no_main]

use fanfare::model::Payload;
use fanfare::protocol::payload::{from_json, from_message_pack, to_message_pack};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    for payload in [from_json(bytes), from_message_pack(bytes)]
        .into_iter()
        .flatten()
    {
        let json = payload.as_bytes();
        assert!(!json.iter().any(|byte| matches!(byte, b'\r' | b'\n')));
        assert_eq!(from_json(json).as_ref(), Ok(&payload));
        assert!(!packed(&payload).is_empty());
    }
    // Back through the door it says the same. The text can differ: a single is written with fewer digits than a double.
    if let Ok(payload) = from_message_pack(bytes) {
        let packed = packed(&payload);
        let again = from_message_pack(&packed).expect("what passed once");
        assert_eq!(self::packed(&again), packed);
    }
});

fn packed(payload: &Payload) -> Vec<u8> {
    let mut out = Vec::new();
    to_message_pack(payload, &mut Vec::new(), &mut out);
    out
}
