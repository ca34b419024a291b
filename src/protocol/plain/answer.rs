//! What a client is told, field by field, whichever format it is written in.

use super::Message;
use crate::model::{
    ChannelKey, ClientId, Epoch, ErrorCode, Member, Payload, Position, Publication,
};
use crate::protocol::{self, CommandId, Connected, Push};

/// Where a message is written: JSON or MessagePack.
pub(in crate::protocol) trait Sink {
    /// A map whose entries `body` writes, at most 15.
    fn map(&mut self, body: impl FnOnce(&mut Self));
    /// A map with one entry for each item; `each` writes its key and value.
    fn map_of<T>(
        &mut self,
        items: impl ExactSizeIterator<Item = T>,
        each: impl FnMut(&mut Self, T),
    );
    /// A list with one element for each item; `each` writes its value.
    fn list_of<T>(
        &mut self,
        items: impl ExactSizeIterator<Item = T>,
        each: impl FnMut(&mut Self, T),
    );
    /// A key; it needs no escapes. Its value follows.
    fn key(&mut self, name: &str);
    fn text(&mut self, text: &str);
    /// A text that needs no escapes.
    fn plain_text(&mut self, text: &str);
    fn unsigned(&mut self, value: u64);
    fn signed(&mut self, value: i64);
    fn float(&mut self, value: f64);
    fn boolean(&mut self, value: bool);
    fn null(&mut self);
    fn payload(&mut self, payload: &Payload);

    /// An entry whose text needs no escapes.
    fn plain_entry(&mut self, name: &str, text: &str) {
        self.key(name);
        self.plain_text(text);
    }

    fn text_entry(&mut self, name: &str, text: &str) {
        self.key(name);
        self.text(text);
    }

    fn unsigned_entry(&mut self, name: &str, value: u64) {
        self.key(name);
        self.unsigned(value);
    }

    fn boolean_entry(&mut self, name: &str, value: bool) {
        self.key(name);
        self.boolean(value);
    }

    fn client_entry(&mut self, name: &str, client: ClientId) {
        self.key(name);
        client.with_str(|text| self.plain_text(text));
    }

    fn epoch_entry(&mut self, epoch: Epoch) {
        self.key("epoch");
        epoch.with_str(|text| self.plain_text(text));
    }

    /// Two entries, or none in a channel without history.
    fn position_entries(&mut self, position: Option<Position>) {
        if let Some(position) = position {
            self.epoch_entry(position.epoch);
            self.unsigned_entry("offset", position.offset);
        }
    }

    /// A text, or null.
    fn optional_text_entry(&mut self, name: &str, text: Option<&str>) {
        self.key(name);
        match text {
            Some(text) => self.text(text),
            None => self.null(),
        }
    }

    /// A number, or null.
    fn optional_unsigned_entry(&mut self, name: &str, value: Option<u64>) {
        self.key(name);
        match value {
            Some(value) => self.unsigned(value),
            None => self.null(),
        }
    }
}

/// A publication as subscribers see it. `epoch` only on the first of a new one.
pub(in crate::protocol) fn publication(
    sink: &mut impl Sink,
    channel: &ChannelKey,
    publication: &Publication,
    epoch: Option<Epoch>,
) {
    sink.map(|sink| {
        sink.plain_entry("type", "publication");
        sink.plain_entry("channel", channel.name());
        publication_entries(sink, publication);
        if let Some(epoch) = epoch {
            sink.epoch_entry(epoch);
        }
    });
}

fn publication_entries(sink: &mut impl Sink, publication: &Publication) {
    sink.key("data");
    sink.payload(&publication.data);
    if publication.offset > 0 {
        sink.unsigned_entry("offset", publication.offset);
    }
    if let Some(origin) = &publication.origin {
        sink.key("from");
        sink.map(|sink| {
            sink.client_entry("client", origin.client);
            sink.text_entry("user", &origin.user);
        });
    }
}

/// A join or leave.
pub(in crate::protocol) fn member(
    sink: &mut impl Sink,
    kind: &str,
    channel: &ChannelKey,
    member: &Member,
) {
    sink.map(|sink| {
        sink.plain_entry("type", kind);
        sink.plain_entry("channel", channel.name());
        sink.client_entry("client", member.client);
        sink.text_entry("user", &member.user);
    });
}

/// Something was missed.
pub(in crate::protocol) fn gap(
    sink: &mut impl Sink,
    channel: &ChannelKey,
    dropped: Option<u64>,
    position: Option<Position>,
) {
    sink.map(|sink| {
        sink.plain_entry("type", "gap");
        sink.plain_entry("channel", channel.name());
        sink.optional_unsigned_entry("dropped", dropped);
        sink.position_entries(position);
    });
}

/// The first message of every connection; `message` says in words over what.
pub(in crate::protocol) fn connected(sink: &mut impl Sink, message: &str, connected: &Connected) {
    sink.map(|sink| {
        sink.plain_entry("type", "connected");
        sink.plain_entry("message", message);
        sink.client_entry("client_id", connected.client_id);
        sink.text_entry("user_id", &connected.user_id);
        sink.optional_text_entry("session_id", connected.session_id.as_deref());
        sink.text_entry("gateway_id", &connected.gateway_id);
        sink.unsigned_entry("ping_interval", connected.ping_interval);
        sink.unsigned_entry("inactivity_timeout", connected.inactivity_timeout);
        if let Some(expires_in) = connected.expires_in {
            sink.unsigned_entry("expires_in", expires_in);
        }
        if !connected.channels.is_empty() {
            sink.key("channels");
            sink.map_of(connected.channels.iter(), |sink, (channel, position)| {
                sink.key(channel.name());
                match position {
                    Some(_) => sink.map(|sink| sink.position_entries(*position)),
                    None => sink.null(),
                }
            });
        }
    });
}

/// The answer to a command, and what the client called the command by.
pub(super) struct Reply<'a> {
    pub(super) reply: &'a protocol::Reply,
    pub(super) id: Option<&'a CommandId>,
}

impl Message for Reply<'_> {
    fn write(&self, sink: &mut impl Sink) {
        sink.map(|sink| {
            sink.plain_entry("type", kind(self.reply));
            id_entry(sink, self.id);
            reply_entries(sink, self.reply);
        });
    }
}

impl Message for Push {
    fn write(&self, sink: &mut impl Sink) {
        match self {
            Push::Connected(it) => connected(sink, "WebSocket connection established", it),
            Push::Gap {
                channel,
                dropped,
                position,
            } => gap(sink, channel, *dropped, *position),
            Push::Unsubscribed {
                channel,
                code,
                reason,
            } => sink.map(|sink| {
                sink.plain_entry("type", "unsubscribed");
                sink.plain_entry("channel", channel.name());
                sink.unsigned_entry("code", (*code).into());
                sink.text_entry("reason", reason);
            }),
            Push::Publication {
                channel,
                publication: it,
            } => publication(sink, channel, it, None),
            Push::Ping => sink.map(|sink| sink.plain_entry("type", "ping")),
        }
    }
}

const fn kind(reply: &protocol::Reply) -> &'static str {
    use protocol::Reply;
    match reply {
        Reply::Subscribed { .. } => "subscribed",
        Reply::Unsubscribed { .. } => "unsubscribed",
        Reply::Published { .. } => "published",
        Reply::History { .. } => "history",
        Reply::Presence { .. } => "presence",
        Reply::Pong { .. } => "pong",
        Reply::Refreshed { .. } => "refreshed",
        Reply::ApiKeyUpdated { .. } => "ack",
        Reply::Error { .. } => "error",
    }
}

fn id_entry(sink: &mut impl Sink, id: Option<&CommandId>) {
    match id {
        Some(CommandId::Integer(integer)) => {
            sink.key("id");
            sink.signed(*integer);
        }
        Some(CommandId::Text(text)) => sink.text_entry("id", text),
        None => {}
    }
}

fn reply_entries(sink: &mut impl Sink, reply: &protocol::Reply) {
    use protocol::Reply;
    match reply {
        Reply::Subscribed {
            channel,
            position,
            recovered,
        } => {
            sink.plain_entry("channel", channel.name());
            sink.position_entries(*position);
            if let Some(recovered) = recovered {
                sink.boolean_entry("recovered", *recovered);
            }
        }
        Reply::Unsubscribed { channel } => sink.plain_entry("channel", channel.name()),
        Reply::Published { channel, position } => {
            sink.plain_entry("channel", channel.name());
            sink.position_entries(*position);
        }
        Reply::History { .. } => history_entries(sink, reply),
        Reply::Presence { .. } => presence_entries(sink, reply),
        Reply::Pong { timestamp } => {
            sink.key("timestamp");
            sink.float(*timestamp);
        }
        Reply::Refreshed { expires_in } => sink.optional_unsigned_entry("expires_in", *expires_in),
        Reply::ApiKeyUpdated {
            api_key,
            session_id,
            gateway_id,
        } => api_key_entries(sink, api_key, session_id.as_deref(), gateway_id),
        Reply::Error { code, message } => error_entries(sink, *code, message),
    }
}

fn history_entries(sink: &mut impl Sink, reply: &protocol::Reply) {
    let protocol::Reply::History {
        channel,
        publications,
        position,
        more,
    } = reply
    else {
        return;
    };
    sink.plain_entry("channel", channel.name());
    sink.key("publications");
    sink.list_of(publications.iter(), |sink, publication| {
        sink.map(|sink| publication_entries(sink, publication));
    });
    sink.position_entries(Some(*position));
    if *more {
        sink.boolean_entry("more", true);
    }
}

fn presence_entries(sink: &mut impl Sink, reply: &protocol::Reply) {
    let protocol::Reply::Presence {
        channel,
        members,
        clients,
        users,
        more,
    } = reply
    else {
        return;
    };
    sink.plain_entry("channel", channel.name());
    sink.key("clients");
    sink.map_of(members.iter(), |sink, member| {
        member.client.with_str(|text| sink.key(text));
        sink.map(|sink| {
            sink.text_entry("user", &member.user);
            sink.key("info");
            match &member.info {
                Some(info) => sink.payload(info),
                None => sink.null(),
            }
        });
    });
    sink.unsigned_entry("count", *clients as u64);
    sink.unsigned_entry("users", *users as u64);
    if *more {
        sink.boolean_entry("more", true);
    }
}

fn api_key_entries(
    sink: &mut impl Sink,
    api_key: &str,
    session_id: Option<&str>,
    gateway_id: &str,
) {
    sink.plain_entry("message", "API key update acknowledged");
    sink.text_entry("api_key", api_key);
    sink.key("data");
    sink.null();
    sink.optional_text_entry("session_id", session_id);
    sink.text_entry("gateway_id", gateway_id);
}

fn error_entries(sink: &mut impl Sink, code: ErrorCode, message: &str) {
    sink.plain_entry("code", code.as_str());
    sink.text_entry("message", message);
}

/// About how many bytes a publication's data and origin take.
pub(in crate::protocol) fn publication_bytes(publication: &Publication) -> usize {
    let origin = publication
        .origin
        .as_ref()
        .map_or(0, |origin| 70 + origin.user.len());
    30 + publication.data.len() + origin
}

/// About how many bytes a reply takes.
pub(super) fn reply_bytes(reply: &protocol::Reply) -> usize {
    use protocol::Reply;
    match reply {
        Reply::History { publications, .. } => publications
            .iter()
            .map(|publication| publication_bytes(publication))
            .sum::<usize>()
            .saturating_add(150),
        Reply::Presence { members, .. } => members
            .iter()
            .map(|member| 60 + member.user.len() + member.info.as_ref().map_or(4, Payload::len))
            .sum::<usize>()
            .saturating_add(100),
        _ => 100,
    }
}

/// About how many bytes a push takes.
pub(super) fn push_bytes(push: &Push) -> usize {
    match push {
        Push::Connected(connected) => 300 + connected.channels.len() * 80,
        Push::Publication { publication, .. } => 60 + publication_bytes(publication),
        _ => 100,
    }
}
