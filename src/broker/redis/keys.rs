//! What the keys are called. All keys of one channel have one hash tag, scope and name: `{scope|name}`. No name has a
//! `|`, so the last one divides them.

use bytes::Bytes;

use crate::model::{ChannelKey, Scope};

/// The keys of a fleet.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    prefix: String,
}

/// The keys of one channel.
#[derive(Debug, Clone)]
pub(super) struct ChannelKeys {
    base: String,
    /// Epoch, top, forks.
    pub(super) meta: String,
    /// The publications.
    pub(super) stream: String,
    /// A copy of epoch and top, for cheap checks.
    pub(super) position: String,
    /// Where envelopes are published.
    pub(super) envelopes: String,
}

impl Keys {
    pub(super) fn new(prefix: &str) -> Self {
        Self {
            prefix: prefix.to_owned(),
        }
    }

    pub(super) fn channel(&self, channel: &ChannelKey) -> ChannelKeys {
        let scope = channel.scope().as_str();
        let base = [&self.prefix, ":{", scope, "|", channel.name(), "}"].concat();
        let key = |what: &str| [base.as_str(), what].concat();
        ChannelKeys {
            meta: key(":meta"),
            stream: key(":stream"),
            position: key(":position"),
            envelopes: key(":envelopes"),
            base,
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
    /// What was answered to an idempotency key.
    pub(super) fn idempotency(&self, key: &str) -> String {
        [self.base.as_str(), ":once:", key].concat()
    }

    /// The nodes that have subscribers.
    pub(super) fn occupants(&self) -> String {
        [self.base.as_str(), ":occupants"].concat()
    }

    /// The members, their order, the users.
    pub(super) fn presence(&self) -> [String; 3] {
        ["members", "clients", "users"].map(|what| format!("{}:{what}", self.base))
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
            &keys.meta,
            &keys.stream,
            &keys.position,
            &keys.idempotency("k"),
            &keys.occupants(),
            &members,
            &clients,
            &users,
        ] {
            assert!(key.starts_with("fanfare:{t1|chat:a}:"), "{key:?}");
        }
        assert_eq!(keys.envelopes, Keys::new("fanfare").envelopes(&channel));
    }

    #[test]
    fn a_tag_tells_its_channel() {
        for (scope, name) in [("", "a"), ("t|1", "b:c"), ("t", "~own")] {
            let channel = ChannelKey::internal(Scope::new(scope), name).expect("a name");
            assert_eq!(channel_of(&tag(&channel)), Some(channel));
        }
    }
}
