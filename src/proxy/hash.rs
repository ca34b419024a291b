//! A hash that is the same on every node, in every version and after every start: what it chooses must not move when a
//! node is built anew. Not for maps, and no defence against who chooses keys to collide.

/// FNV-1a, 64 bits, with the finaliser of `SplitMix64` behind it: FNV alone leaves the upper bits of short keys alike.
pub(super) fn of(bytes: &[u8]) -> u64 {
    let fnv = bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    mix(fnv)
}

/// Two hashes as one.
pub(super) fn join(one: u64, other: u64) -> u64 {
    mix(one ^ other.rotate_left(32))
}

fn mix(mut hash: u64) -> u64 {
    hash = (hash ^ hash >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ hash >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ hash >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_never_changes() {
        assert_eq!(of(b""), 0xf52a_15e9_a9b5_e89b);
        assert_eq!(of(b"http://a:1"), of(b"http://a:1"));
        assert_ne!(of(b"http://a:1"), of(b"http://a:2"));
    }

    #[test]
    fn short_keys_spread() {
        let mut counts = [0_u32; 8];
        for key in 0..8000_u32 {
            let hash = join(of(&key.to_be_bytes()), of(b"http://a:1"));
            counts[usize::try_from(hash >> 61).expect("three bits")] += 1;
        }
        assert!(
            counts.iter().all(|count| (850..1150).contains(count)),
            "{counts:?}"
        );
    }
}
