//! What a namespace says of its channels, and which namespace a channel is in.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{ChannelKey, Role};

/// How much of a channel's stream is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HistoryPolicy {
    /// The most publications kept; 0 means no history, no positions and no recovery.
    pub size: u32,
    /// How long each is kept after it was published.
    pub ttl: Duration,
}

impl HistoryPolicy {
    /// Whether anything is kept.
    pub const fn is_on(&self) -> bool {
        self.size > 0
    }
}

/// What happens to a subscriber whose queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OverflowPolicy {
    /// The connection is closed (1013) and recovers when it comes back.
    #[default]
    Disconnect,
    /// The oldest pending publications of this channel go, and the client gets a `gap`.
    DropOldest,
    /// Of the pending publications of this channel only the newest of each key stays, and the client gets a `gap`.
    Latest,
}

/// As `CONFIG_FILE` has it.
impl fmt::Display for OverflowPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Disconnect => "disconnect",
            Self::DropOldest => "drop_oldest",
            Self::Latest => "latest",
        })
    }
}

/// Who may do something in a namespace when the token has no `grants`. The role `admin` always may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Permission {
    /// Nobody without a grant.
    Nobody,
    /// Any client with a verified identity.
    Authenticated,
    /// Any client.
    Anyone,
    /// Whoever has one of these roles.
    Roles(Arc<[Role]>),
}

/// As `CONFIG_FILE` has it.
impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nobody => f.write_str("nobody"),
            Self::Authenticated => f.write_str("authenticated"),
            Self::Anyone => f.write_str("anyone"),
            Self::Roles(roles) => {
                let names = roles.iter().map(|role| format!("\"{role}\""));
                write!(f, "[{}]", names.collect::<Vec<_>>().join(", "))
            }
        }
    }
}

/// The rules for the channels of one namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    /// What is kept.
    pub history: HistoryPolicy,
    /// Whether clients may recover by position; needs history.
    pub recovery: bool,
    /// Whether presence is kept.
    pub presence: bool,
    /// Whether join and leave are sent to clients that asked for them; needs presence.
    pub join_leave: bool,
    /// What happens to a slow consumer.
    pub overflow: OverflowPolicy,
    /// Who may subscribe.
    pub subscribe: Permission,
    /// Who may publish from a socket.
    pub publish: Permission,
    /// Who may read presence.
    pub read_presence: Permission,
    /// Who may read history.
    pub read_history: Permission,
    /// Whether back ends are asked about subscriptions and publications, where any are (`SUBSCRIBE_URL`, `PUBLISH_URL`).
    pub consent: bool,
    /// How long a channel without subscribers and publications is remembered.
    pub idle_ttl: Duration,
    /// The most bytes of one publication's data.
    pub publication_bytes_max: usize,
}

impl Namespace {
    /// The defaults that serve without a configuration file: history of 100 publications for 5 minutes, presence on,
    /// publishing from a socket for nobody without a grant. `open` (development) lets anyone do everything.
    pub fn default_for(open: bool) -> Self {
        let client = if open {
            Permission::Anyone
        } else {
            Permission::Authenticated
        };
        Self {
            history: HistoryPolicy {
                size: 100,
                ttl: Duration::from_secs(300),
            },
            recovery: true,
            presence: true,
            join_leave: true,
            overflow: OverflowPolicy::Disconnect,
            subscribe: client.clone(),
            publish: if open {
                Permission::Anyone
            } else {
                Permission::Nobody
            },
            read_presence: client.clone(),
            read_history: client,
            consent: true,
            idle_ttl: Duration::from_secs(600),
            publication_bytes_max: 65_536,
        }
    }

    /// Whether a client may come back by position.
    pub const fn can_recover(&self) -> bool {
        self.recovery && self.history.is_on()
    }
}

/// All namespaces, by the part of the channel name before the first `:`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespaces {
    default: Namespace,
    named: BTreeMap<String, Namespace>,
    /// Of streams of upstreams that many share.
    shared: Namespace,
}

impl Namespaces {
    /// The default namespace and the named ones.
    pub fn new(default: Namespace, named: BTreeMap<String, Namespace>) -> Self {
        let shared = Namespace {
            history: HistoryPolicy {
                size: 1000,
                ttl: Duration::from_secs(300),
            },
            recovery: true,
            presence: false,
            join_leave: false,
            overflow: OverflowPolicy::Disconnect,
            subscribe: Permission::Nobody,
            publish: Permission::Nobody,
            read_presence: Permission::Nobody,
            read_history: Permission::Nobody,
            ..default
        };
        Self {
            default,
            named,
            shared,
        }
    }

    /// The same, and so much is kept of streams of upstreams that many share.
    #[must_use]
    pub fn with_shared_history(mut self, history: HistoryPolicy) -> Self {
        self.shared.history = history;
        self
    }

    /// The namespace of a channel: the named one, or the default when its prefix names none.
    pub fn of(&self, channel: &ChannelKey) -> &Namespace {
        if channel.is_shared() {
            return &self.shared;
        }
        if self.named.is_empty() {
            return &self.default;
        }
        let named = channel.namespace().and_then(|name| self.named.get(name));
        named.unwrap_or(&self.default)
    }

    /// How much is kept in every namespace, and of streams that many share; the same may come several times.
    pub fn histories(&self) -> impl Iterator<Item = &HistoryPolicy> {
        let namespaces = self.named.values().chain([&self.default, &self.shared]);
        namespaces.map(|namespace| &namespace.history)
    }

    /// The default namespace first, then the named ones in order; for `fanfare check`.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Namespace)> {
        std::iter::once(("", &self.default)).chain(
            self.named
                .iter()
                .map(|(name, namespace)| (name.as_str(), namespace)),
        )
    }
}
