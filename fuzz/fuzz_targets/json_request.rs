//! Any text as a client's JSON message.

#![no_main]

use fanfare::protocol::plain::decode_json;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Err(fault) = decode_json(text) {
        assert!(!fault.message.is_empty());
    }
});
