//! Orders about connections wherever they are, and the replicas alive.

use std::sync::Arc;

use axum::extract::Request;
use serde::{Deserialize, Serialize};

use super::{ApiError, ApiState, body};
use crate::broker::{Control, NodeInfo, Target};
use crate::model::{ChannelKey, ClientId, SettingsGroup};

/// `{"user" or "client", "channel"?}`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OrderBody {
    user: Option<String>,
    client: Option<String>,
    channel: Option<String>,
}

/// An order was handed to every node. Whether anybody is connected there, the nodes know; that nobody is, is no error.
const DONE: &[u8] = b"{\"ok\":true}";

/// Subscribes a user's connections, or one connection, to a channel.
pub(super) async fn subscribe(state: &ApiState, request: Request) -> Result<Vec<u8>, ApiError> {
    let order = read(state, request).await?;
    let control = Control::Subscribe(order.target()?, order.channel()?);
    send(state, control).await
}

/// Ends the subscriptions of a user's connections, or of one connection, to a channel.
pub(super) async fn unsubscribe(state: &ApiState, request: Request) -> Result<Vec<u8>, ApiError> {
    let order = read(state, request).await?;
    let control = Control::Unsubscribe(order.target()?, order.channel()?);
    send(state, control).await
}

/// Closes a user's connections, or one connection (4002).
pub(super) async fn disconnect(state: &ApiState, request: Request) -> Result<Vec<u8>, ApiError> {
    let order = read(state, request).await?;
    if order.channel.is_some() {
        let message = "disconnect takes no channel; to end one subscription, call /hub/unsubscribe";
        return Err(ApiError::bad_request(message));
    }
    send(state, Control::Disconnect(order.target()?)).await
}

/// `{"nodes":[{"id","connections","channels","version","uptime_seconds","differs"}],"broker"}`: this node as it is now, the
/// others as their leases tell; `differs` names the settings that are not those of this node and must be.
pub(super) async fn nodes(state: &ApiState, _: Request) -> Result<Vec<u8>, ApiError> {
    let mut nodes = state.broker.nodes().await?;
    let this = (state.node)();
    nodes.retain(|node| node.id != this.id);
    nodes.push(this.clone());
    nodes.sort_by(|one, other| one.id.cmp(&other.id));
    let answer = Nodes {
        nodes: nodes.iter().map(|node| Node::of(node, &this)).collect(),
        broker: state.broker.kind(),
    };
    Ok(serde_json::to_vec(&answer).unwrap_or_default())
}

#[derive(Serialize)]
struct Nodes<'a> {
    nodes: Vec<Node<'a>>,
    broker: &'static str,
}

#[derive(Serialize)]
struct Node<'a> {
    id: &'a str,
    connections: u64,
    channels: u64,
    version: &'a str,
    uptime_seconds: u64,
    differs: Vec<&'static str>,
}

impl<'a> Node<'a> {
    /// A node as `this` one sees it.
    fn of(node: &'a NodeInfo, this: &NodeInfo) -> Self {
        let differing = this.differing(node).into_iter();
        Self {
            id: node.id.as_str(),
            connections: node.connections,
            channels: node.channels,
            version: &node.version,
            uptime_seconds: node.uptime_seconds,
            differs: differing.map(SettingsGroup::name).collect(),
        }
    }
}

async fn read(state: &ApiState, request: Request) -> Result<OrderBody, ApiError> {
    let body = body::read(request, state.config.body_bytes_max).await?;
    body::parse(&body)
}

async fn send(state: &ApiState, control: Control) -> Result<Vec<u8>, ApiError> {
    state.broker.control(control).await?;
    Ok(DONE.to_vec())
}

impl OrderBody {
    fn target(&self) -> Result<Target, ApiError> {
        match (self.user.as_deref(), self.client.as_deref()) {
            // The empty user is everybody without a name: too easily meant otherwise.
            (Some(""), None) => Err(ApiError::bad_request("user is empty")),
            (Some(user), None) => Ok(Target::User(Arc::from(user))),
            (None, Some(client)) => client
                .parse::<ClientId>()
                .map(Target::Client)
                .map_err(|_| ApiError::bad_request("client is no client id (a UUID)")),
            _ => Err(ApiError::bad_request(
                "exactly one of user and client is needed",
            )),
        }
    }

    fn channel(&self) -> Result<ChannelKey, ApiError> {
        let name = self.channel.as_deref();
        let name = name.ok_or_else(|| ApiError::bad_request("channel is missing"))?;
        Ok(ChannelKey::new(name)?)
    }
}
