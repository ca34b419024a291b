//! Any bytes as a client's MessagePack message.

#![no_main]

use fanfare::protocol::plain::decode_message_pack;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Err(fault) = decode_message_pack(bytes) {
        assert!(!fault.message.is_empty());
    }
});
