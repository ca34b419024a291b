//! Integers as text, without the machinery of `fmt`: its arguments, padding and signs cost more than the digits.

/// Appends the decimal digits of a number.
pub fn put_decimal(mut value: u64, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            return out.extend_from_slice(&digits[at..]);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(value: u64) -> String {
        let mut out = b"behind ".to_vec();
        put_decimal(value, &mut out);
        String::from_utf8(out).expect("UTF-8")
    }

    proptest! {
        #[test]
        fn writes_what_fmt_writes(value in any::<u64>(), zeros in 0..64) {
            let value = value >> zeros;
            prop_assert_eq!(written(value), format!("behind {value}"));
        }
    }

    #[test]
    fn writes_the_edges() {
        for value in [0, 9, 10, u64::MAX] {
            assert_eq!(written(value), format!("behind {value}"));
        }
    }
}
