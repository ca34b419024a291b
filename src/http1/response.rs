//! An answer's head, as an upstream sends it. An upstream that frames badly is cut off, not repaired: what it says next
//! would be taken for somebody else's answer.

use super::request::parse_length;
use super::{Field, Framing, Slots, entries, has_entry};

/// Why an answer is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the answer's head is malformed")]
pub struct ResponseError;

/// An answer's head.
#[derive(Debug)]
pub struct ResponseHead<'a> {
    /// 100 to 999.
    pub status: u16,
    /// What stands behind it; often empty.
    pub reason: &'a str,
    /// All fields, in order.
    pub fields: &'a [Field<'a>],
    /// Where the body ends.
    pub body: Framing,
    /// Whether the connection can carry another request afterwards.
    pub keeps_alive: bool,
}

impl<'a> ResponseHead<'a> {
    /// Reads a whole head, as [`HeadScan`](super::HeadScan) found it, of the answer to a request that was `HEAD` or
    /// was not.
    ///
    /// # Errors
    /// When it is no HTTP/1, or does not say clearly where its body ends.
    pub fn parse(
        head: &'a [u8],
        slots: &'a mut Slots<'a>,
        is_head: bool,
    ) -> Result<Self, ResponseError> {
        let mut response = httparse::Response::new(&mut []);
        let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(
            &mut response,
            head,
            slots,
        );
        if parsed != Ok(httparse::Status::Complete(head.len())) {
            return Err(ResponseError);
        }
        let fields: &'a [Field<'a>] = response.headers;
        let status = response
            .code
            .filter(|code| *code >= 100)
            .ok_or(ResponseError)?;
        let is_old = response.version == Some(0);
        let body = framing(fields, status, is_head, is_old)?;
        let keeps_alive = match is_old {
            true => false,
            false => !has_entry(fields, "connection", "close"),
        };
        Ok(Self {
            status,
            reason: response.reason.unwrap_or_default(),
            fields,
            keeps_alive: keeps_alive && !matches!(body, Framing::UntilClose),
            body,
        })
    }

    /// Whether another head follows for the same request.
    pub fn is_interim(&self) -> bool {
        self.status < 200 && self.status != 101
    }
}

fn framing(
    fields: &[Field<'_>],
    status: u16,
    is_head: bool,
    is_old: bool,
) -> Result<Framing, ResponseError> {
    let named = |name: &'static str| {
        fields
            .iter()
            .filter(move |field| field.name.eq_ignore_ascii_case(name))
    };
    let mut lengths = named("content-length");
    let length = lengths
        .next()
        .map(|field| parse_length(field.value).ok_or(ResponseError));
    let length = length.transpose()?;
    if lengths.next().is_some() {
        return Err(ResponseError);
    }
    let has_coding = named("transfer-encoding").next().is_some();
    if has_coding && (length.is_some() || is_old) {
        return Err(ResponseError);
    }
    if is_head || status < 200 || matches!(status, 204 | 304) {
        return Ok(Framing::NONE);
    }
    if has_coding {
        let mut codings = entries(fields, "transfer-encoding");
        return match (codings.next(), codings.next()) {
            (Some(coding), None) if coding.eq_ignore_ascii_case(b"chunked") => {
                Ok(Framing::chunked())
            }
            _ => Err(ResponseError),
        };
    }
    Ok(length.map_or(Framing::UntilClose, Framing::Length))
}

#[cfg(test)]
mod tests {
    use super::super::slots;
    use super::*;

    /// Status, how the body is framed, whether the connection is kept.
    fn read(head: &str, is_head: bool) -> Option<(u16, &'static str, bool)> {
        let mut slots = slots();
        let head = ResponseHead::parse(head.as_bytes(), &mut slots, is_head).ok()?;
        let framing = match head.body {
            Framing::Length(0) => "none",
            Framing::Length(_) => "length",
            Framing::Chunked(_) => "chunked",
            Framing::UntilClose => "close",
        };
        Some((head.status, framing, head.keeps_alive))
    }

    #[test]
    fn answers_say_where_they_end() {
        for (head, expected) in [
            (
                "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n",
                Some((200, "length", true)),
            ),
            (
                "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\n",
                Some((200, "length", false)),
            ),
            ("HTTP/1.1 200 OK\r\n\r\n", Some((200, "close", false))),
            (
                "HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\n",
                Some((200, "length", false)),
            ),
            (
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
                Some((200, "chunked", true)),
            ),
            ("HTTP/1.1 204 No Content\r\n\r\n", Some((204, "none", true))),
            (
                "HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n",
                Some((304, "none", true)),
            ),
            (
                "HTTP/1.1 101 Switching Protocols\r\n\r\n",
                Some((101, "none", true)),
            ),
            (
                "HTTP/1.1 200\r\ncontent-length: 0\r\n\r\n",
                Some((200, "none", true)),
            ),
            (
                "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 5\r\n\r\n",
                None,
            ),
            ("HTTP/1.1 200 OK\r\ncontent-length: 5, 5\r\n\r\n", None),
            ("HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\n", None),
            (
                "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n",
                None,
            ),
            (
                "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
                None,
            ),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n", None),
            ("HTTP/1.1 099 OK\r\n\r\n", None),
            ("HTTP/1.1 2x0 OK\r\n\r\n", None),
            ("nonsense\r\n\r\n", None),
        ] {
            assert_eq!(read(head, false), expected, "{head:?}");
        }
        let head = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n";
        assert_eq!(read(head, true), Some((200, "none", true)));
    }
}
