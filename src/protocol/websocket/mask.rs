//! Unmasking (RFC 6455 section 5.3), eight bytes at a time; the compiler makes wider vectors of it.

/// Unmasks `payload` in place. `offset` is where in its frame's payload it begins.
pub(super) fn unmask(payload: &mut [u8], mut mask: [u8; 4], offset: u64) {
    mask.rotate_left((offset & 3) as usize);
    let [a, b, c, d] = mask;
    let word = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (chunks, rest) = payload.as_chunks_mut::<8>();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ word).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip([a, b, c, d, a, b, c]) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unmasks_every_length_from_every_offset() {
        let mask = [0x12, 0xA5, 0xFF, 0x01];
        let plain: Vec<u8> = (0..70).collect();
        for offset in 0..9u64 {
            for len in 0..plain.len() {
                let mut masked: Vec<u8> = (plain[..len].iter().zip(offset..))
                    .map(|(byte, at)| byte ^ mask[(at % 4) as usize])
                    .collect();
                unmask(&mut masked, mask, offset);
                assert_eq!(masked, plain[..len], "offset {offset}");
            }
        }
    }
}
