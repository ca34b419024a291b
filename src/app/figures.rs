//! What the node says of itself, for health, metrics and the dashboard.

use std::sync::Arc;
use std::time::Duration;

use super::Node;
use crate::admin::{Liveness, NodeRow, Nodes, Snapshot, Source, Upstream};
use crate::broker::NodeInfo;
use crate::proxy;
use crate::server::Drain;
use crate::transport::Levels;

/// What health and metrics are answered from.
pub(super) struct NodeSource {
    pub(super) node: Arc<Node>,
    pub(super) drain: Drain,
}

impl Source for NodeSource {
    fn upstreams(&self) -> Vec<Upstream> {
        let services = self.node.proxy.stats().into_iter();
        services
            .flat_map(|service| {
                let upstreams = service.upstreams.into_iter();
                upstreams
                    .map(|upstream| shown(&service.name, upstream))
                    .collect::<Vec<_>>()
            })
            .collect()
    }

    fn nodes(&self) -> Nodes<'_> {
        Box::pin(async {
            let this = self.node.info();
            let mut nodes = self.node.broker.nodes().await.ok()?;
            nodes.retain(|node| node.id != this.id);
            nodes.push(this);
            Some(nodes.into_iter().map(row).collect())
        })
    }

    fn snapshot(&self) -> Snapshot {
        let Node {
            settings,
            context,
            broker,
            started,
            ..
        } = &*self.node;
        Snapshot {
            id: settings.transport.node.to_string(),
            web_sockets: context.levels.iter().map(Levels::web_sockets).sum(),
            event_streams: context.levels.iter().map(Levels::event_streams).sum(),
            channels: context.relay.channel_count(),
            broker: broker.kind(),
            // A node whose store has not told it the fleet's secret yet would refuse everybody's tokens.
            broker_ready: broker.is_ready() && !context.verifier.lacks_secret(),
            has_users: context.sessions.store().has_users(),
            draining: self.drain.is_draining(),
            version: env!("CARGO_PKG_VERSION"),
            uptime: started.elapsed(),
            upstream_services: self.node.proxy.service_count(),
            is_full: self.node.proxy.is_full(),
            loop_delay: context
                .levels
                .iter()
                .map(Levels::loop_delay)
                .max()
                .unwrap_or_default(),
            liveness: Liveness {
                ping_interval: settings.client.ping_interval,
                pong_timeout: settings.client.pong_timeout,
                inactivity_timeout: settings.client.inactivity_timeout,
            },
        }
    }
}

/// A replica as the admin room shows it.
fn row(node: NodeInfo) -> NodeRow {
    NodeRow {
        id: node.id.to_string(),
        connections: node.connections,
        channels: node.channels,
        version: node.version,
        uptime_seconds: node.uptime_seconds,
    }
}

/// An upstream as the admin room shows it.
fn shown(service: &str, upstream: proxy::UpstreamStats) -> Upstream {
    let [http, sse, ws] = upstream.inflight.map(|count| count as u64);
    Upstream {
        service: service.to_owned(),
        url: upstream.url,
        is_healthy: upstream.is_healthy,
        open_for: upstream.open_for_millis.map(Duration::from_millis),
        http,
        sse,
        ws,
        requests: upstream.requests,
        errors: upstream.errors,
        rate: upstream.rate,
        error_rate: upstream.error_rate,
        latency: upstream.latency,
        last_latency: upstream.last_latency,
        last_error: upstream
            .last_error
            .map(|last| (last.text, Duration::from_millis(last.millis_ago))),
    }
}
