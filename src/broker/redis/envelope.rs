//! What travels between nodes: MessagePack maps with a version. Fields that this version does not know are left out,
//! kinds that it does not know are passed over: a node of the next version must not break one of this.
//!
//! A publication's envelope is `{v, k, e?, o?, m, d?}`: version, kind (`p`), epoch, offset, the rest (`{c?, u?, i?, n?}`:
//! client, user, info, key), data. That of members who came (`j`) or went (`l`) is `{v, k, e?, b}`: `b` has what would be the
//! rest, of each of them. Payloads are raw JSON text; nobody here parses it.
//!
//! Nearly all envelopes are publications of this version: those are read without the general reader (`publication`).

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::broker::{Control, NodeInfo, Purged, Target};
use crate::model::{
    ChannelKey, ClientId, Envelope, Epoch, Event, Fingerprints, Member, NodeId, Origin, Payload,
    Publication, SessionId, SettingsGroup, UserId,
};

use super::keys::{channel_of, tag};
use super::orders::Order;

mod publication;

const VERSION: u8 = 1;

/// The rest where there is none: a map without entries.
const NOTHING: &[u8] = b"\x80";

/// What stands beside the data of a publication, and what a member is.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Rest<'a> {
    #[serde(rename = "c", default, skip_serializing_if = "Option::is_none")]
    client: Option<ClientId>,
    #[serde(rename = "u", default, borrow, skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(rename = "i", default, borrow, skip_serializing_if = "Option::is_none")]
    info: Option<&'a str>,
    #[serde(rename = "n", default, borrow, skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Wire<'a> {
    #[serde(rename = "v")]
    version: u8,
    #[serde(rename = "k", borrow)]
    kind: &'a str,
    #[serde(rename = "e", default, borrow, skip_serializing_if = "Option::is_none")]
    epoch: Option<&'a str>,
    #[serde(rename = "o", default)]
    offset: u64,
    #[serde(rename = "m", default, borrow)]
    rest: Rest<'a>,
    #[serde(rename = "d", default, borrow, skip_serializing_if = "Option::is_none")]
    data: Option<&'a str>,
    #[serde(rename = "b", default, borrow, skip_serializing_if = "Vec::is_empty")]
    members: Vec<Rest<'a>>,
}

fn pack(value: &impl Serialize) -> Bytes {
    // Nothing here can fail to be packed: no float keys, no sequences of unknown length.
    rmp_serde::to_vec_named(value).unwrap_or_default().into()
}

fn text(payload: &Payload) -> &str {
    // JSON is UTF-8; the door has looked.
    std::str::from_utf8(payload.as_bytes()).unwrap_or("null")
}

fn payload(text: &str) -> Payload {
    Payload::from_plain_json(text.to_owned())
}

/// What stands beside a publication's data.
pub(super) fn pack_rest(origin: Option<&Origin>, key: Option<&str>) -> Bytes {
    if origin.is_none() && key.is_none() {
        return Bytes::from_static(NOTHING);
    }
    pack(&Rest {
        client: origin.map(|origin| origin.client),
        user: origin.map(|origin| &*origin.user),
        key,
        info: None,
    })
}

/// A member.
pub(super) fn pack_member(member: &Member) -> Bytes {
    pack(&Rest {
        client: Some(member.client),
        user: Some(&member.user),
        info: member.info.as_ref().map(text),
        key: None,
    })
}

/// The member of these bytes.
pub(super) fn unpack_member(bytes: &[u8]) -> Option<Member> {
    let rest: Rest<'_> = rmp_serde::from_slice(bytes).ok()?;
    member(&rest)
}

fn member(rest: &Rest<'_>) -> Option<Member> {
    Some(Member {
        client: rest.client?,
        user: Arc::from(rest.user.unwrap_or_default()),
        info: rest.info.map(payload),
    })
}

fn members(rests: &[Rest<'_>]) -> Option<Arc<[Arc<Member>]>> {
    rests
        .iter()
        .map(|rest| member(rest).map(Arc::new))
        .collect()
}

/// A publication of a channel without history.
pub(super) fn pack_unkept(origin: Option<&Origin>, key: Option<&str>, data: &Payload) -> Bytes {
    let rest = Rest {
        client: origin.map(|origin| origin.client),
        user: origin.map(|origin| &*origin.user),
        key,
        info: None,
    };
    pack(&Wire {
        version: VERSION,
        kind: "p",
        epoch: None,
        offset: 0,
        rest,
        data: Some(text(data)),
        members: Vec::new(),
    })
}

/// The publication of a stream's entry.
pub(super) fn publication(offset: u64, data: &[u8], rest: &[u8]) -> Option<Publication> {
    let rest: Rest<'_> = rmp_serde::from_slice(rest).ok()?;
    let data = Payload::from_plain_json(Bytes::copy_from_slice(data));
    Some(publication_of(offset, data, &rest))
}

fn publication_of(offset: u64, data: Payload, rest: &Rest<'_>) -> Publication {
    Publication {
        offset,
        data,
        origin: rest.client.map(|client| Origin {
            client,
            user: Arc::from(rest.user.unwrap_or_default()),
        }),
        key: rest.key.map(Arc::from),
    }
}

/// The envelope of these bytes; `None` for a kind that this version does not know.
pub(super) fn unpack(channel: &ChannelKey, bytes: &[u8]) -> Option<Envelope> {
    let wire = publication::read(bytes).or_else(|| rmp_serde::from_slice(bytes).ok())?;
    let event = match wire.kind {
        "p" => {
            // Copied: who is slow would keep all that was read with it.
            let data = Bytes::copy_from_slice(wire.data?.as_bytes());
            let data = Payload::from_plain_json(data);
            Event::Publication(Arc::new(publication_of(wire.offset, data, &wire.rest)))
        }
        "j" => Event::Join(members(&wire.members)?),
        "l" => Event::Leave(members(&wire.members)?),
        _ => return None,
    };
    Some(Envelope {
        channel: channel.clone(),
        epoch: wire.epoch.and_then(Epoch::parse),
        event,
    })
}

#[derive(Serialize, Deserialize)]
struct WireOrder<'a> {
    #[serde(rename = "v")]
    version: u8,
    #[serde(rename = "k", borrow)]
    kind: &'a str,
    #[serde(rename = "u", default, borrow, skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(rename = "c", default, skip_serializing_if = "Option::is_none")]
    client: Option<ClientId>,
    #[serde(rename = "n", default, skip_serializing_if = "Option::is_none")]
    channel: Option<String>,
    #[serde(rename = "s", default, skip_serializing_if = "Vec::is_empty")]
    sessions: Vec<String>,
    #[serde(rename = "w", default, skip_serializing_if = "Option::is_none")]
    service: Option<String>,
    #[serde(rename = "p", default, skip_serializing_if = "Option::is_none")]
    prefix: Option<String>,
    #[serde(rename = "i", default, skip_serializing_if = "Option::is_none")]
    id: Option<u64>,
}

/// An order to all nodes.
pub(super) fn pack_order(order: &Order) -> Bytes {
    let control = &order.control;
    let user = |user: &UserId| Some(Target::User(user.clone()));
    let (kind, target, channel) = match control {
        Control::Disconnect(target) => ("disconnect", Some(target.clone()), None),
        Control::LogOut(of) => ("log_out", user(of), None),
        Control::EndSessions(of, _) => ("end_sessions", user(of), None),
        Control::Subscribe(target, channel) => {
            ("subscribe", Some(target.clone()), Some(tag(channel)))
        }
        Control::Unsubscribe(target, channel) => {
            ("unsubscribe", Some(target.clone()), Some(tag(channel)))
        }
        Control::EndStreams(channel) => ("end_streams", None, Some(tag(channel))),
        Control::Purge(_) => ("purge", None, None),
    };
    let (user, client) = match &target {
        Some(Target::User(user)) => (Some(&**user), None),
        Some(Target::Client(client)) => (None, Some(*client)),
        None => (None, None),
    };
    let sessions = match control {
        Control::EndSessions(_, sessions) => sessions.iter().map(SessionId::to_string).collect(),
        _ => Vec::new(),
    };
    let purged = match control {
        Control::Purge(purged) => Some(purged.clone()),
        _ => None,
    };
    let (service, prefix) = purged.map(|purged| (purged.service, purged.prefix)).unzip();
    pack(&WireOrder {
        version: VERSION,
        kind,
        user,
        client,
        channel,
        sessions,
        service,
        prefix,
        id: order.id,
    })
}

/// The order of these bytes; `None` for one that this version does not know.
pub(super) fn unpack_order(bytes: &[u8]) -> Option<Order> {
    let order: WireOrder<'_> = rmp_serde::from_slice(bytes).ok()?;
    let control = control(&order)?;
    Some(Order {
        id: order.id,
        control,
    })
}

fn control(order: &WireOrder<'_>) -> Option<Control> {
    let channel = order.channel.as_deref().and_then(channel_of);
    let target = match (order.user, order.client) {
        (Some(user), _) => Target::User(Arc::from(user)),
        (None, Some(client)) => Target::Client(client),
        (None, None) if order.kind == "end_streams" => return channel.map(Control::EndStreams),
        (None, None) if order.kind == "purge" => {
            return Some(Control::Purge(Purged {
                service: order.service.clone()?,
                prefix: order.prefix.clone()?,
            }));
        }
        (None, None) => return None,
    };
    Some(match (order.kind, target, channel) {
        ("disconnect", target, _) => Control::Disconnect(target),
        ("log_out", Target::User(user), _) => Control::LogOut(user),
        ("end_sessions", Target::User(user), _) => {
            let sessions = order.sessions.iter().filter_map(|id| id.parse().ok());
            Control::EndSessions(user, sessions.collect())
        }
        ("subscribe", target, Some(channel)) => Control::Subscribe(target, channel),
        ("unsubscribe", target, Some(channel)) => Control::Unsubscribe(target, channel),
        _ => return None,
    })
}

#[derive(Serialize, Deserialize)]
struct Info {
    id: String,
    connections: u64,
    channels: u64,
    version: String,
    uptime_seconds: u64,
    /// By the names of the groups; those of another version may have others.
    #[serde(default)]
    settings: BTreeMap<String, u16>,
}

/// What a node says of itself.
pub(super) fn pack_node(node: &NodeInfo) -> Bytes {
    pack(&Info {
        id: node.id.as_str().to_owned(),
        connections: node.connections,
        channels: node.channels,
        version: node.version.clone(),
        uptime_seconds: node.uptime_seconds,
        settings: node
            .settings
            .known()
            .map(|(group, fingerprint)| (group.name().to_owned(), fingerprint))
            .collect(),
    })
}

/// What a node said of itself.
pub(super) fn unpack_node(bytes: &[u8]) -> Option<NodeInfo> {
    let info: Info = rmp_serde::from_slice(bytes).ok()?;
    let mut settings = Fingerprints::default();
    for (name, fingerprint) in &info.settings {
        if let Some(group) = SettingsGroup::of(name) {
            settings.set(group, *fingerprint);
        }
    }
    Some(NodeInfo {
        id: NodeId::new(&info.id),
        connections: info.connections,
        channels: info.channels,
        version: info.version,
        uptime_seconds: info.uptime_seconds,
        settings,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn news() -> ChannelKey {
        ChannelKey::new("news").expect("a name")
    }

    #[test]
    fn a_publication_survives() {
        let origin = Origin {
            client: ClientId::from_bits(7),
            user: Arc::from("ann"),
        };
        let bytes = pack_unkept(Some(&origin), Some("k"), &payload("{\"a\":\"ä\"}"));
        let envelope = unpack(&news(), &bytes).expect("an envelope");
        let Event::Publication(publication) = envelope.event else {
            panic!("no publication");
        };
        assert_eq!(publication.data, payload("{\"a\":\"ä\"}"));
        assert_eq!(publication.origin, Some(origin));
        assert_eq!(publication.key.as_deref(), Some("k"));
    }

    #[test]
    fn a_rest_without_anything_is_packed_as_any_other() {
        assert_eq!(pack_rest(None, None), pack(&Rest::default()));
    }

    #[derive(Serialize)]
    struct Future {
        v: u8,
        k: &'static str,
        d: &'static str,
        later: [u8; 3],
        m: FutureRest,
        b: [FutureRest; 1],
    }

    #[derive(Serialize)]
    struct FutureRest {
        u: &'static str,
        c: ClientId,
        z: f64,
    }

    fn future(kind: &'static str) -> Bytes {
        let rest = || FutureRest {
            u: "ann",
            c: ClientId::from_bits(1),
            z: 0.5,
        };
        pack(&Future {
            v: 2,
            k: kind,
            d: "1",
            later: [1, 2, 3],
            m: rest(),
            b: [rest()],
        })
    }

    #[test]
    fn the_next_version_may_add_fields_and_kinds() {
        for kind in ["p", "j", "l"] {
            assert!(unpack(&news(), &future(kind)).is_some(), "{kind}");
        }
        assert_eq!(unpack(&news(), &future("later")), None);
        assert_eq!(unpack_order(&future("later")), None);
    }

    #[test]
    fn noise_is_passed_over() {
        for bytes in [&b""[..], b"\xc1", b"\x81\xa1v", b"hello"] {
            assert_eq!(unpack(&news(), &Bytes::copy_from_slice(bytes)), None);
            assert_eq!(unpack_order(bytes), None);
        }
    }

    #[test]
    fn orders_survive() {
        let (user, client) = (
            Target::User(Arc::from("ann")),
            Target::Client(ClientId::from_bits(1)),
        );
        for control in [
            Control::Disconnect(user.clone()),
            Control::LogOut(Arc::from("ann")),
            Control::EndSessions(
                Arc::from("ann"),
                [SessionId::from_bits(1), SessionId::from_bits(u128::MAX)].into(),
            ),
            Control::Subscribe(client, news()),
            Control::Unsubscribe(user, news()),
            Control::EndStreams(news()),
            Control::Purge(Purged {
                service: "users".to_owned(),
                prefix: String::new(),
            }),
        ] {
            for id in [None, Some(u64::MAX)] {
                let control = control.clone();
                let order = Order { id, control };
                assert_eq!(unpack_order(&pack_order(&order)), Some(order));
            }
        }
    }
}
