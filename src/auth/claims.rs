//! What a verified token says.

use std::sync::{Arc, LazyLock};

use super::{Action, Supplement};
use crate::model::{ChannelKey, Payload, SessionId, UserId};

/// An exact channel name, or a prefix ending in `*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(Box<str>);

impl Pattern {
    /// The pattern as the token has it.
    pub fn new(pattern: &str) -> Self {
        Self(pattern.into())
    }

    /// Whether `name` is meant.
    pub fn matches(&self, name: &str) -> bool {
        match self.0.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => *self.0 == *name,
        }
    }
}

/// What a token grants; each list is of exact names or prefixes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grants {
    /// Channels to subscribe to.
    pub subscribe: Vec<Pattern>,
    /// Channels to publish to.
    pub publish: Vec<Pattern>,
    /// Channels whose history may be read.
    pub history: Vec<Pattern>,
    /// Channels whose presence may be read.
    pub presence: Vec<Pattern>,
}

impl Grants {
    /// The list that decides about an action.
    pub fn of(&self, action: Action) -> &[Pattern] {
        match action {
            Action::Subscribe => &self.subscribe,
            Action::Publish => &self.publish,
            Action::History => &self.history,
            Action::Presence => &self.presence,
        }
    }
}

/// Who a client is, and what its token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The user; empty for nobody.
    pub user: UserId,
    /// The role: `user`, `publisher`, `admin` or one of the operator's own; empty for nobody.
    pub role: Arc<str>,
    /// The roles that it has beside that one.
    pub other_roles: Box<[Arc<str>]>,
    /// Whether a verified token stands behind it.
    pub authenticated: bool,
    /// The login session that the token was minted for; `None` for a token that was made elsewhere.
    pub login_session: Option<SessionId>,
    /// Unix seconds after which the token is worth nothing.
    pub expires_at: Option<u64>,
    /// Shown in presence and join.
    pub info: Option<Payload>,
    /// Channels to be subscribed to at connect.
    pub channels: Vec<ChannelKey>,
    /// What it may do; without them the namespace decides.
    pub grants: Option<Box<Grants>>,
    /// What a back end that was asked said of it; contained in the rest.
    pub supplement: Option<Arc<Supplement>>,
}

/// Nobody, once for all clients that are nobody.
static NOBODY: LazyLock<Arc<Identity>> = LazyLock::new(|| Arc::new(Identity::anonymous()));

impl Identity {
    /// Nobody in particular, as all clients that are nobody share it.
    pub fn nobody() -> Arc<Self> {
        NOBODY.clone()
    }

    /// Whether it has this role.
    pub fn has_role(&self, role: &str) -> bool {
        self.roles().any(|own| own == role)
    }

    /// All roles.
    pub fn roles(&self) -> impl Iterator<Item = &str> {
        let first = Some(&*self.role).filter(|role| !role.is_empty());
        first
            .into_iter()
            .chain(self.other_roles.iter().map(|role| &**role))
    }

    /// Nobody in particular.
    pub fn anonymous() -> Self {
        Self {
            user: Arc::from(""),
            role: Arc::from(""),
            other_roles: Box::default(),
            authenticated: false,
            login_session: None,
            expires_at: None,
            info: None,
            channels: Vec::new(),
            grants: None,
            supplement: None,
        }
    }
}
