//! What the server's answers say.

use std::sync::Arc;

use super::{
    ActiveChannel, BrokerError, CallError, NodeInfo, Page, Position, Presence, Publication,
    Published, Start, Value, broker_error, envelope, garbled, keys,
};
use crate::model::Epoch;

/// A part of a stream, and whether it is everything after the position that was asked for.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) page: Page,
    pub(super) stands: bool,
    /// Where the reader's stream and this one parted, when it is above that and what followed is kept.
    pub(super) fork: Option<Position>,
}

/// A count or an offset.
pub(super) fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

fn position(epoch: &Value, offset: &Value) -> Option<Position> {
    Some(Position::new(
        Epoch::parse(epoch.as_str()?)?,
        number(offset)?,
    ))
}

/// The position of its copy, `epoch:offset`.
pub(super) fn copied_position(value: &Value) -> Option<Position> {
    let text = value.as_str()?;
    let (epoch, offset) = text.split_once(':')?;
    position_of(epoch, offset)
}

fn position_of(epoch: &str, offset: &str) -> Option<Position> {
    Some(Position::new(Epoch::parse(epoch)?, offset.parse().ok()?))
}

/// In which of three ways something was published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// In a channel with history.
    Kept,
    /// Without history, with an idempotency key.
    Once,
    /// Without either: the answer is how many nodes heard it.
    Plain,
}

/// What came of a publish.
pub(super) fn published(answer: &Value, kind: Kind) -> Result<Published, BrokerError> {
    if kind != Kind::Kept {
        return Ok(Published {
            position: None,
            duplicate: kind == Kind::Once && number(answer) == Some(1),
        });
    }
    let text = answer.as_str().ok_or_else(garbled)?;
    let (epoch, offset) = text.split_once(':').ok_or_else(garbled)?;
    let first = offset.strip_suffix(":1");
    Ok(Published {
        position: Some(position_of(epoch, first.unwrap_or(offset)).ok_or_else(garbled)?),
        duplicate: first.is_some(),
    })
}

/// Where a stream stands.
pub(super) fn start(answer: Result<Value, CallError>) -> Result<Start, BrokerError> {
    let parts = answer.map_err(broker_error)?.into_array();
    match parts.as_slice() {
        [epoch, offset] => position(epoch, offset).map(Some).ok_or_else(garbled),
        _ => Err(garbled()),
    }
}

/// A part of a stream; `None` when the channel has no meta.
pub(super) fn page(answer: Value) -> Option<Read> {
    let Value::Array(parts) = answer else {
        return None;
    };
    let [epoch, offset, stands, Value::Array(entries), fork] = parts.as_slice() else {
        return None;
    };
    let top = position(epoch, offset)?;
    let publications: Option<Vec<_>> = entries.iter().map(entry).collect();
    let publications = publications?;
    let more = publications
        .last()
        .is_some_and(|last| last.offset < top.offset);
    Some(Read {
        page: Page {
            publications,
            top,
            more,
        },
        stands: number(stands) == Some(1),
        fork: number(fork).map(|offset| Position::new(top.epoch, offset)),
    })
}

fn entry(value: &Value) -> Option<Arc<Publication>> {
    let Value::Array(parts) = value else {
        return None;
    };
    let [offset, data, rest] = parts.as_slice() else {
        return None;
    };
    envelope::publication(number(offset)?, data.as_bytes()?, rest.as_bytes()?).map(Arc::new)
}

/// Who is present.
pub(super) fn presence(answer: Value) -> Result<Presence, BrokerError> {
    let parts = answer.into_array();
    let [clients, users, members] = parts.as_slice() else {
        return Err(garbled());
    };
    let count = |value: &Value| number(value).and_then(|count| usize::try_from(count).ok());
    let members = members.clone().into_array();
    let members = members
        .iter()
        .filter_map(|member| envelope::unpack_member(member.as_bytes()?));
    Ok(Presence {
        members: members.map(Arc::new).collect(),
        clients: count(clients).ok_or_else(garbled)?,
        users: count(users).ok_or_else(garbled)?,
    })
}

/// The nodes alive.
pub(super) fn nodes(answer: Value) -> Vec<NodeInfo> {
    let infos = answer.into_array();
    let nodes = infos
        .iter()
        .filter_map(|info| envelope::unpack_node(info.as_bytes()?));
    nodes.collect()
}

/// Channels and their subscribers: a tag and its count, and so on.
pub(super) fn active_channels(answer: Value, into: &mut Vec<ActiveChannel>) {
    for pair in answer.into_array().chunks_exact(2) {
        let channel = pair[0].as_string().and_then(|tag| keys::channel_of(&tag));
        if let Some((channel, subscribers)) = channel.zip(number(&pair[1])) {
            into.push(ActiveChannel {
                channel,
                subscribers,
            });
        }
    }
}
