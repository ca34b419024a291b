//! The heads and scalars of MessagePack, in the fewest bytes, written straight into a buffer.

/// The marker of a container of `len`: in one byte, with 16 bits, with 32 bits.
fn container_head(len: u32, [short, wide, widest]: [u8; 3], out: &mut Vec<u8>) {
    match len {
        0..16 => out.push(short | len as u8),
        16..0x1_0000 => {
            out.push(wide);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        _ => {
            out.push(widest);
            out.extend_from_slice(&len.to_be_bytes());
        }
    }
}

/// Appends the head of an array of `len` elements.
pub(in crate::protocol) fn array_head(len: u32, out: &mut Vec<u8>) {
    container_head(len, [0x90, 0xdc, 0xdd], out);
}

/// Appends the head of a map of `len` entries.
pub(in crate::protocol) fn map_head(len: u32, out: &mut Vec<u8>) {
    container_head(len, [0x80, 0xde, 0xdf], out);
}

/// Appends UTF-8 as a MessagePack string.
pub(in crate::protocol) fn text(text: &[u8], out: &mut Vec<u8>) {
    match text.len() {
        len @ 0..32 => out.push(0xa0 | len as u8),
        len @ 32..0x100 => out.extend_from_slice(&[0xd9, len as u8]),
        len @ 0x100..0x1_0000 => {
            out.push(0xda);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            out.push(0xdb);
            out.extend_from_slice(&(len as u32).to_be_bytes());
        }
    }
    out.extend_from_slice(text);
}

/// Appends an integer in the fewest bytes.
pub(in crate::protocol) fn unsigned(value: u64, out: &mut Vec<u8>) {
    // Writing into a `Vec` cannot fail.
    let _ = rmp::encode::write_uint(out, value);
}

/// Appends an integer in the fewest bytes.
pub(in crate::protocol) fn signed(value: i64, out: &mut Vec<u8>) {
    let _ = rmp::encode::write_sint(out, value);
}

/// Appends a double.
pub(in crate::protocol) fn float(value: f64, out: &mut Vec<u8>) {
    out.push(0xcb);
    out.extend_from_slice(&value.to_be_bytes());
}
