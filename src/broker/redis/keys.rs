//! What the keys are called. All keys of one channel have one hash tag, scope and name: `{scope|name}`. No name has a
//! `|`, so the last one divides them.

use bytes::Bytes;

use crate::model::{ChannelKey, Scope};

/// The keys of a fleet.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    prefix: String,
}

/// The keys of one channel. Those of its stream stand in one buffer: with an allocation for each they were a third of what
/// the broker does for a publication.
#[derive(Debug, Clone)]
pub(super) struct ChannelKeys {
    /// The meta, the stream, the position.
    text: String,
    /// How long the beginning is that all keys have.
    base: usize,
    /// Where the first two end.
    ends: [usize; 2],
}

impl Keys {
    pub(super) fn new(prefix: &str) -> Self {
        Self {
            prefix: prefix.to_owned(),
        }
    }

    pub(super) fn channel(&self, channel: &ChannelKey) -> ChannelKeys {
        let (scope, name) = (channel.scope().as_str(), channel.name());
        let base = self.prefix.len() + scope.len() + name.len() + ":{|}".len();
        let mut text = String::with_capacity(3 * base + ":meta:stream:position".len());
        for part in [&self.prefix, ":{", scope, "|", name, "}:meta"] {
            text.push_str(part);
        }
        let meta = text.len();
        text.extend_from_within(..base);
        text.push_str(":stream");
        let stream = text.len();
        text.extend_from_within(..base);
        text.push_str(":position");
        ChannelKeys {
            text,
            base,
            ends: [meta, stream],
        }
    }

    /// Where a channel's envelopes are published.
    pub(super) fn envelopes(&self, channel: &ChannelKey) -> String {
        format!("{}:{{{}}}:envelopes", self.prefix, tag(channel))
    }

    /// Where orders to all nodes are published.
    pub(super) fn control(&self) -> String {
        format!("{}:{{fleet}}:control", self.prefix)
    }

    /// Where they are kept for a while.
    pub(super) fn orders(&self) -> Bytes {
        self.fleet("orders")
    }

    /// Where a node publishes marks to itself.
    pub(super) fn marks(&self, node: &str) -> String {
        format!("{}:marks:{node}", self.prefix)
    }

    fn fleet(&self, what: &str) -> Bytes {
        format!("{}:{{fleet}}:{what}", self.prefix).into()
    }

    fn probe_key(&self, what: &str) -> String {
        format!("{}:{{probe}}:{what}", self.prefix)
    }

    /// Where it is tried what the user may do: a hash, a stream, a text, a sorted set, a set.
    pub(super) fn probe(&self) -> [Bytes; 5] {
        ["hash", "stream", "text", "ordered", "set"].map(|what| self.probe_key(what).into())
    }

    /// A channel for the same.
    pub(super) fn probe_channel(&self) -> String {
        self.probe_key("envelopes")
    }

    /// Until when each node is alive.
    pub(super) fn leases(&self) -> Bytes {
        self.fleet("leases")
    }

    /// What each node says of itself.
    pub(super) fn infos(&self) -> Bytes {
        self.fleet("infos")
    }

    /// The nodes whose leases ended, and when.
    pub(super) fn given_up(&self) -> Bytes {
        self.fleet("given_up")
    }

    /// Who cleans up after dead nodes.
    pub(super) fn reaper(&self) -> Bytes {
        self.fleet("reaper")
    }

    /// How many subscribers a node has in each channel, and the channels in the order of their tags.
    pub(super) fn counts_of(&self, node: &str) -> [Bytes; 2] {
        ["counts", "names"].map(|what| self.fleet(&format!("{what}:{node}")))
    }

    /// In which channels a node has members.
    pub(super) fn channels_of(&self, node: &str) -> Bytes {
        self.fleet(&format!("channels:{node}"))
    }

    /// In which channels a node has subscribers, where back ends hear of occupied channels.
    pub(super) fn occupied_by(&self, node: &str) -> Bytes {
        self.fleet(&format!("occupied:{node}"))
    }
}

impl ChannelKeys {
    /// Epoch, top, forks.
    pub(super) fn meta(&self) -> &str {
        &self.text[..self.ends[0]]
    }

    /// The publications.
    pub(super) fn stream(&self) -> &str {
        &self.text[self.ends[0]..self.ends[1]]
    }

    /// A copy of epoch and top, for cheap checks.
    pub(super) fn position(&self) -> &str {
        &self.text[self.ends[1]..]
    }

    fn base(&self) -> &str {
        &self.text[..self.base]
    }

    /// What was answered to an idempotency key.
    pub(super) fn idempotency(&self, key: &str) -> String {
        [self.base(), ":once:", key].concat()
    }

    /// The nodes that have subscribers.
    pub(super) fn occupants(&self) -> String {
        [self.base(), ":occupants"].concat()
    }

    /// The members, their order, the users.
    pub(super) fn presence(&self) -> [String; 3] {
        ["members", "clients", "users"].map(|what| format!("{}:{what}", self.base()))
    }
}

/// Scope and name in one word.
pub(super) fn tag(channel: &ChannelKey) -> String {
    tag_of(channel.scope(), channel.name())
}

/// The same of a scope and the beginning of a name.
pub(super) fn tag_of(scope: &Scope, name: &str) -> String {
    format!("{}|{name}", scope.as_str())
}

/// The channel of a tag.
pub(super) fn channel_of(tag: &str) -> Option<ChannelKey> {
    let (scope, name) = tag.rsplit_once('|')?;
    ChannelKey::internal(Scope::new(scope), name).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_keys_of_a_channel_have_one_hash_tag() {
        let channel = ChannelKey::scoped(Scope::new("t1"), "chat:a").expect("a name");
        let keys = Keys::new("fanfare").channel(&channel);
        let [members, clients, users] = keys.presence();
        for key in [
            keys.meta(),
            keys.stream(),
            keys.position(),
            &keys.idempotency("k"),
            &keys.occupants(),
            &members,
            &clients,
            &users,
        ] {
            assert!(key.starts_with("fanfare:{t1|chat:a}:"), "{key:?}");
        }
        // The script that publishes makes it of the meta's.
        let envelopes = Keys::new("fanfare").envelopes(&channel);
        assert_eq!(envelopes.replace("envelopes", "meta"), keys.meta());
        assert_eq!(keys.stream(), "fanfare:{t1|chat:a}:stream");
        assert_eq!(keys.position(), "fanfare:{t1|chat:a}:position");
    }

    #[test]
    fn a_tag_tells_its_channel() {
        for (scope, name) in [("", "a"), ("t|1", "b:c"), ("t", "~own")] {
            let channel = ChannelKey::internal(Scope::new(scope), name).expect("a name");
            assert_eq!(channel_of(&tag(&channel)), Some(channel));
        }
    }
}
