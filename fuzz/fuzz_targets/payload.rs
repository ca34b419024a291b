//! Any bytes at the door, as JSON and as MessagePack: what passes is on one line, passes again unchanged, and has a
//! MessagePack form.

#![no_main]

use fanfare::protocol::payload::{from_json, from_message_pack, to_message_pack};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    for payload in [from_json(bytes), from_message_pack(bytes)].into_iter().flatten() {
        let json = payload.as_bytes();
        assert!(!json.iter().any(|byte| matches!(byte, b'\r' | b'\n')));
        assert_eq!(from_json(json).as_ref(), Ok(&payload));
        let mut packed = Vec::new();
        to_message_pack(&payload, &mut Vec::new(), &mut packed);
        assert!(!packed.is_empty());
    }
    // Back through the door, unless the number is one that JSON cannot say (1e999 is infinity).
    if let Ok(payload) = from_message_pack(bytes) {
        let mut packed = Vec::new();
        to_message_pack(&payload, &mut Vec::new(), &mut packed);
        assert_eq!(from_message_pack(&packed), Ok(payload));
    }
});
