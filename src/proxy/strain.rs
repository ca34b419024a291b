//! Too much to do: what a node still takes on, and what it turns away.

use std::sync::atomic::Ordering::Relaxed;

use super::Proxy;
use super::cache::Way;
use super::error::ProxyError;
use crate::telemetry::proxy::Carried;

/// How much a node has to do: what is turned away then.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Strain {
    /// Nothing.
    #[default]
    None,
    /// New streams and WebSockets: they would stay.
    Streams,
    /// Every request.
    Requests,
}

impl Proxy {
    /// Whether more requests are under way than may be.
    pub fn is_full(&self) -> bool {
        self.inflight.load(Relaxed) >= self.inflight_max
    }

    /// Whether the node has enough to do without this request, whose fields are these. What costs an upstream nothing is
    /// answered as long as anything is.
    pub(super) fn check_strain(
        &self,
        carried: Carried,
        cache: Option<&Way>,
        fields: &[u8],
    ) -> Result<(), ProxyError> {
        match bears(self.strain(), carried) || self.has_fresh(cache, fields) {
            true => Ok(()),
            false => Err(ProxyError::UnderPressure),
        }
    }

    /// How much there is to do, requests under way counted.
    fn strain(&self) -> Strain {
        match self.is_full() {
            true => Strain::Requests,
            false => (self.strain)(),
        }
    }
}

/// Whether a request is taken on under such a strain. Streams and WebSockets go first: they would stay.
fn bears(strain: Strain, carried: Carried) -> bool {
    let most = match carried {
        Carried::Http => Strain::Streams,
        Carried::Sse | Carried::Ws => Strain::None,
    };
    strain <= most
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_turned_away_before_requests_are() {
        let all = [Carried::Http, Carried::Sse, Carried::Ws];
        for (strain, expected) in [
            (Strain::None, [true, true, true]),
            (Strain::Streams, [true, false, false]),
            (Strain::Requests, [false, false, false]),
        ] {
            assert_eq!(
                all.map(|carried| bears(strain, carried)),
                expected,
                "{strain:?}"
            );
        }
    }
}
