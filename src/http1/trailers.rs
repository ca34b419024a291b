//! The fields behind a chunked body (RFC 9112 section 7.1.2), for whoever passes them on in another form.

use super::{FIELDS_MAX, Field};

/// Keeps what may be the trailer section while a body is followed with [`Framing::run`](super::Framing::run). Bounded by
/// what that accepts of it.
#[derive(Debug, Default)]
pub struct Trailers {
    /// What came since the last byte of data.
    framing: Vec<u8>,
    has_data: bool,
}

impl Trailers {
    /// Takes note of the bytes of a run.
    pub fn see(&mut self, bytes: &[u8], is_data: bool) {
        if is_data {
            self.has_data |= !bytes.is_empty();
            self.framing.clear();
        } else {
            self.framing.extend_from_slice(bytes);
        }
    }

    /// What `take` makes of the fields, once the body has ended; there may be none. `None` when they are malformed.
    pub fn with_fields<T>(&self, take: impl FnOnce(&[Field<'_>]) -> T) -> Option<T> {
        // The end of the last chunk's line, then the line of the one that is none.
        let framing = &self.framing[if self.has_data { 2 } else { 0 }.min(self.framing.len())..];
        let end = memchr::memchr(b'\n', framing)?;
        with_trailers(&framing[end + 1..], take)
    }
}

/// What `take` makes of the fields of a whole trailer section, its empty line included; there may be none. `None` when
/// they are malformed.
pub fn with_trailers<T>(section: &[u8], take: impl FnOnce(&[Field<'_>]) -> T) -> Option<T> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    match httparse::parse_headers(section, &mut fields) {
        Ok(httparse::Status::Complete((_, fields))) => Some(take(fields)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::Framing;
    use super::*;

    fn check(body: &str, expected: Option<&[(&str, &str)]>) {
        for cut in 1..=body.len() {
            let (mut framing, mut trailers) = (Framing::chunked(), Trailers::default());
            for mut piece in body.as_bytes().chunks(cut) {
                while !piece.is_empty() {
                    let run = framing.run(piece).expect("a body").expect("not its end");
                    trailers.see(&piece[..run.length], run.is_data);
                    piece = &piece[run.length..];
                }
            }
            assert!(framing.is_done());
            let found = trailers.with_fields(|fields| {
                let fields = fields.iter();
                let text = |value: &[u8]| String::from_utf8(value.to_vec()).expect("text");
                fields
                    .map(|field| (field.name.to_owned(), text(field.value)))
                    .collect::<Vec<_>>()
            });
            let expected = expected.map(|fields| {
                let fields = fields.iter();
                fields
                    .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                    .collect()
            });
            assert_eq!(found, expected, "{body:?} by {cut}");
        }
    }

    #[test]
    fn trailers_are_told_from_framing() {
        check("0\r\n\r\n", Some(&[]));
        check("3\r\nabc\r\n0;x=y\r\n\r\n", Some(&[]));
        check(
            "3\r\nabc\r\n0\r\ngrpc-status: 0\r\nx: y\r\n\r\n",
            Some(&[("grpc-status", "0"), ("x", "y")]),
        );
        check("0\r\nx:\r\n\r\n", Some(&[("x", "")]));
        check("0\r\nno field\r\n\r\n", None);
    }
}
