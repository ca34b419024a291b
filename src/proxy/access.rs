//! The access log: a line for each request to an upstream, or for a part of them, when it is over. The query is not in
//! it: tokens stand there.

use std::net::IpAddr;
use std::sync::Arc;

use tokio::time::Instant;

use super::Proxy;
use super::address::Client;
use super::endpoint::Endpoint;
use super::ids::request_id;
use crate::http1::RequestHead;

/// What is answered in the log for a client that went away before it got an answer.
const CLIENT_GONE: u16 = 499;

/// The line of one request; it is written when this is dropped.
#[derive(Debug)]
pub(super) struct Entry {
    /// Whether it is written whatever comes of the request; failures always are.
    pub(super) is_chosen: bool,
    pub(super) method: Box<str>,
    pub(super) path: Box<str>,
    pub(super) client: IpAddr,
    pub(super) request_id: Box<str>,
    pub(super) began: Instant,
    /// Who was asked last.
    pub(super) upstream: Option<Arc<Endpoint>>,
    /// What the client was answered; none so far.
    pub(super) status: Option<u16>,
}

impl Proxy {
    /// The line of a request in the access log, where there is one.
    pub(super) fn entry(
        &self,
        head: &RequestHead<'_>,
        ids: &[u8],
        client: &Client,
        began: Instant,
    ) -> Option<Box<Entry>> {
        let percent = self.access_percent;
        (percent > 0).then(|| {
            let path = head.target.split('?').next().unwrap_or_default();
            Box::new(Entry {
                is_chosen: rand::random_range(0..100) < percent,
                method: head.method.into(),
                path: path.into(),
                client: client.ip,
                request_id: request_id(ids).into(),
                began,
                upstream: None,
                status: None,
            })
        })
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let status = self.status.unwrap_or(CLIENT_GONE);
        if !self.is_chosen && !(CLIENT_GONE..600).contains(&status) {
            return;
        }
        let upstream = self.upstream.as_ref();
        let upstream = upstream.map_or("-", |endpoint| &*endpoint.address.url);
        tracing::info!(
            target: "fanfare::access",
            method = &*self.method,
            path = &*self.path,
            status,
            upstream,
            client = %self.client,
            request_id = &*self.request_id,
            duration_ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX),
            "request"
        );
    }
}
