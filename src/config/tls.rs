//! `TLS_CERT`, `TLS_KEY` and `UPSTREAM_CA`: files that must be right before the node starts, for without them it would
//! speak in clear, or believe anybody.

use std::path::Path;

use super::reader::Reader;
use crate::proxy::ServiceConfig;
use crate::tls::{Acceptor, Connector};

/// The node's certificate; none where TLS is not spoken.
pub(super) fn acceptor(reader: &mut Reader) -> Option<Acceptor> {
    let text = |name| reader.text(name).map(str::to_owned);
    let (certificate, key) = (text("TLS_CERT"), text("TLS_KEY"));
    match (certificate, key) {
        (None, None) => None,
        (Some(certificate), Some(key)) => {
            let loaded = Acceptor::load(
                Path::new(&certificate),
                Path::new(&key),
                reader.integer("HTTP2_MAX_STREAMS") > 0,
            );
            or_fault(reader, "TLS_CERT", loaded)
        }
        (Some(_), None) => {
            reader.fault("TLS_KEY", "must be set where TLS_CERT is".to_owned());
            None
        }
        (None, Some(_)) => {
            reader.fault("TLS_CERT", "must be set where TLS_KEY is".to_owned());
            None
        }
    }
}

/// Whom to believe behind us; none where no upstream is asked over TLS.
pub(super) fn connector(reader: &mut Reader, services: &[ServiceConfig]) -> Option<Connector> {
    let roots = reader.text("UPSTREAM_CA").map(str::to_owned);
    let mut upstreams = services.iter().flat_map(|service| &service.upstreams);
    if roots.is_none() && !upstreams.any(|upstream| upstream.address.is_encrypted) {
        return None;
    }
    let http2 = reader.boolean("UPSTREAM_HTTP2");
    let loaded = Connector::load(roots.as_deref().map(Path::new), http2);
    or_fault(reader, "UPSTREAM_CA", loaded)
}

fn or_fault<T>(
    reader: &mut Reader,
    name: &'static str,
    loaded: Result<T, crate::tls::TlsError>,
) -> Option<T> {
    match loaded {
        Ok(loaded) => Some(loaded),
        Err(error) => {
            reader.fault(name, format!("is of no use: {error}"));
            None
        }
    }
}
