//! The upgrade of HTTP to a WebSocket (RFC 6455 section 4.2).

use http::header::{
    CONNECTION, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, HeaderName, Version};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::header;
use super::refusal::Refusal;
use crate::model::{ErrorCode, WireFormat};

/// What the hub's own protocol is called in a handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Subprotocol {
    Json,
    MessagePack,
}

impl Subprotocol {
    /// The first one offered that is spoken here. None offered is JSON; only others offered (a bearer entry is none) is
    /// refused, because a browser would fail the connection.
    pub(super) fn select(headers: &HeaderMap) -> Result<Option<Self>, Refusal> {
        let mut offered_any = false;
        for value in headers.get_all(SEC_WEBSOCKET_PROTOCOL) {
            for name in value.to_str().unwrap_or_default().split(',').map(str::trim) {
                match name {
                    "fanfare.json" => return Ok(Some(Self::Json)),
                    "fanfare.msgpack" => return Ok(Some(Self::MessagePack)),
                    other => offered_any |= !other.is_empty(),
                }
            }
        }
        if offered_any {
            let text = "none of the subprotocols is spoken here: fanfare.json or fanfare.msgpack";
            return Err(Refusal::new(ErrorCode::BadRequest, text));
        }
        Ok(None)
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Json => "fanfare.json",
            Self::MessagePack => "fanfare.msgpack",
        }
    }

    pub(super) const fn format(self) -> WireFormat {
        match self {
            Self::Json => WireFormat::Json,
            Self::MessagePack => WireFormat::MessagePack,
        }
    }
}

/// The answer to the key of a handshake (RFC 6455 section 4.2.1).
pub(super) fn accept_key(version: Version, headers: &HeaderMap) -> Result<String, Refusal> {
    let has = |name: &HeaderName, token: &str| {
        headers.get_all(name).iter().any(|value| {
            let value = value.to_str().unwrap_or_default();
            value
                .split(',')
                .any(|part| part.trim().eq_ignore_ascii_case(token))
        })
    };
    // HTTP/1.0 knows no upgrade, whatever its fields say (RFC 9110 section 7.8).
    let is_handshake =
        version == Version::HTTP_11 && has(&UPGRADE, "websocket") && has(&CONNECTION, "upgrade");
    if !is_handshake || header(headers, &SEC_WEBSOCKET_VERSION) != Some("13") {
        let text = "a WebSocket handshake of version 13 is needed here";
        return Err(Refusal {
            needs_upgrade: true,
            ..Refusal::new(ErrorCode::BadRequest, text)
        });
    }
    let mut keys = headers.get_all(SEC_WEBSOCKET_KEY).iter();
    match (keys.next(), keys.next()) {
        (Some(key), None) if is_key(key.as_bytes()) => Ok(derive_accept_key(key.as_bytes())),
        _ => Err(Refusal::new(
            ErrorCode::BadRequest,
            "Sec-WebSocket-Key is missing, malformed or there twice",
        )),
    }
}

/// Whether these are 16 bytes in base64. The four bits that no byte has may be any: there are clients that draw letters.
fn is_key(key: &[u8]) -> bool {
    let is_letter = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    key.len() == 24 && key.ends_with(b"==") && key[..22].iter().all(is_letter)
}

/// The head that accepts a WebSocket (RFC 6455 section 4.2.2).
pub(super) fn switching_head(accept: &str, protocol: Option<&'static str>) -> Box<[u8]> {
    let mut head = Vec::with_capacity(192);
    head.extend_from_slice(
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n",
    );
    head.extend_from_slice(b"sec-websocket-accept: ");
    head.extend_from_slice(accept.as_bytes());
    if let Some(protocol) = protocol {
        head.extend_from_slice(b"\r\nsec-websocket-protocol: ");
        head.extend_from_slice(protocol.as_bytes());
    }
    head.extend_from_slice(b"\r\n\r\n");
    head.into()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn the_first_subprotocol_that_is_spoken_here_is_selected() {
        let select = |offer: &'static str| {
            let headers =
                HeaderMap::from_iter([(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(offer))]);
            Subprotocol::select(&headers)
        };
        assert_eq!(
            select("bearer.abc, fanfare.msgpack"),
            Ok(Some(Subprotocol::MessagePack))
        );
        assert_eq!(select("fanfare.json"), Ok(Some(Subprotocol::Json)));
        assert!(select("graphql-ws").is_err());
        assert_eq!(Subprotocol::select(&HeaderMap::new()), Ok(None));
    }
}
