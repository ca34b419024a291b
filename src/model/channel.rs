//! Channel names and the key under which a channel is known everywhere.

use std::fmt;
use std::sync::Arc;

/// The tenant that a channel belongs to; empty where there are no tenants.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Scope(Option<Arc<str>>);

impl Scope {
    /// The scope of a tenant. An empty name is the empty scope.
    pub fn new(tenant: &str) -> Self {
        Self((!tenant.is_empty()).then(|| Arc::from(tenant)))
    }

    /// The tenant's name, or the empty string.
    pub fn as_str(&self) -> &str {
        self.0.as_deref().unwrap_or_default()
    }
}

/// What names a channel: its scope and its name. Cheap to clone (two reference counts).
///
/// A name is 1 to 255 bytes of `[A-Za-z0-9_.:@#$/=,;~-]`. Names that begin with `~` are the hub's own and can only be
/// made with [`ChannelKey::internal`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChannelKey {
    scope: Scope,
    name: Arc<str>,
}

/// Why a string is no channel name. The text is what a client is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChannelNameError {
    /// The empty string.
    #[error("channel name is empty")]
    Empty,
    /// Over 255 bytes.
    #[error("channel name has {0} bytes, at most 255 are allowed")]
    TooLong(usize),
    /// A byte outside the alphabet, at this index.
    #[error(
        "channel name has a character that is not allowed at byte {0}; allowed are A-Z a-z 0-9 _ . : @ # $ / = , ; ~ -"
    )]
    BadCharacter(usize),
    /// Begins with `~`.
    #[error("channel names that begin with ~ are reserved")]
    Reserved,
}

/// The most bytes of a channel name.
const NAME_BYTES_MAX: usize = 255;

impl ChannelKey {
    /// A channel that clients and publishers may name, in the empty scope.
    ///
    /// # Errors
    /// When `name` is no channel name.
    pub fn new(name: &str) -> Result<Self, ChannelNameError> {
        Self::scoped(Scope::default(), name)
    }

    /// A channel that clients and publishers may name, in `scope`.
    ///
    /// # Errors
    /// When `name` is no channel name.
    pub fn scoped(scope: Scope, name: &str) -> Result<Self, ChannelNameError> {
        if name.starts_with('~') {
            return Err(ChannelNameError::Reserved);
        }
        Self::internal(scope, name)
    }

    /// Any channel, the hub's own ones (`~…`) among them.
    ///
    /// # Errors
    /// When `name` is no channel name.
    pub fn internal(scope: Scope, name: &str) -> Result<Self, ChannelNameError> {
        if name.is_empty() {
            return Err(ChannelNameError::Empty);
        }
        if name.len() > NAME_BYTES_MAX {
            return Err(ChannelNameError::TooLong(name.len()));
        }
        match name.bytes().position(|byte| !is_name_byte(byte)) {
            Some(index) => Err(ChannelNameError::BadCharacter(index)),
            None => Ok(Self {
                scope,
                name: Arc::from(name),
            }),
        }
    }

    /// The tenant's scope.
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// The name, as clients write it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it is the hub's own (`~…`): no client or publisher names it, and no back end hears of it.
    pub fn is_internal(&self) -> bool {
        self.name.starts_with('~')
    }

    /// Whether it carries what an upstream says, event by event: a stream that many share (`~shared:…`).
    pub fn is_shared(&self) -> bool {
        self.name.starts_with("~shared:")
    }

    /// The part before the first `:`; `None` for a name of the default namespace.
    pub fn namespace(&self) -> Option<&str> {
        self.name.split_once(':').map(|(namespace, _)| namespace)
    }

    /// The users that a name ending in `#<user>[,<user>…]` is for; `None` for any other name.
    pub fn limited_to(&self) -> Option<impl Iterator<Item = &str>> {
        self.name
            .rsplit_once('#')
            .map(|(_, users)| users.split(','))
    }
}

impl fmt::Display for ChannelKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.scope.as_str() {
            "" => f.write_str(&self.name),
            scope => write!(f, "{scope}/{}", self.name),
        }
    }
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_.:@#$/=,;~-".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_the_whole_alphabet_and_255_bytes() {
        for name in [
            "a",
            "news",
            "chat:room-1",
            "A.b_c:@#$/=,;~-9",
            &"x".repeat(255),
        ] {
            assert_eq!(ChannelKey::new(name).expect(name).name(), name);
        }
    }

    #[test]
    fn refuses_what_is_no_name_and_says_why() {
        assert_eq!(ChannelKey::new(""), Err(ChannelNameError::Empty));
        assert_eq!(
            ChannelKey::new(&"x".repeat(256)),
            Err(ChannelNameError::TooLong(256))
        );
        assert_eq!(
            ChannelKey::new("a b"),
            Err(ChannelNameError::BadCharacter(1))
        );
        assert_eq!(ChannelKey::new("ä"), Err(ChannelNameError::BadCharacter(0)));
        assert_eq!(
            ChannelKey::new("a\0"),
            Err(ChannelNameError::BadCharacter(1))
        );
        assert_eq!(ChannelKey::new("~own"), Err(ChannelNameError::Reserved));
        let own = ChannelKey::internal(Scope::default(), "~own").expect("a name");
        let clients = ChannelKey::new("own~").expect("a name");
        assert!(own.is_internal() && !clients.is_internal());
    }

    #[test]
    fn tells_namespace_and_the_users_it_is_limited_to() {
        let key = ChannelKey::new("chat:room#ann,bob").expect("a name");
        assert_eq!(key.namespace(), Some("chat"));
        assert_eq!(
            key.limited_to().expect("limited").collect::<Vec<_>>(),
            ["ann", "bob"]
        );
        let plain = ChannelKey::new("news").expect("a name");
        assert_eq!(plain.namespace(), None);
        assert!(plain.limited_to().is_none());
    }

    #[test]
    fn keys_of_different_scopes_differ() {
        let tenant = ChannelKey::scoped(Scope::new("t1"), "news").expect("a name");
        assert_ne!(tenant, ChannelKey::new("news").expect("a name"));
        assert_eq!(tenant.to_string(), "t1/news");
    }
}
