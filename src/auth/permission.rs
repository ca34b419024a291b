//! Who may do what in a channel. Pure.
//!
//! The rules, in the order in which they decide:
//! 1. The hub's own channels (`~…`) are for nobody.
//! 2. A channel whose name ends in `#<user>[,<user>…]` is for those users only, whatever a grant or the namespace says;
//!    for them the further rules decide.
//! 3. A channel that the token itself subscribes the client to (`channels`) may be subscribed to.
//! 4. With `grants` in the token the grants decide alone: an action without a list is granted nowhere.
//! 5. Without, the role `admin` may.
//! 6. For all others the namespace decides: nobody, whoever is known, anyone, or who has one of the roles that it names.
//!
//! A role opens `/hub` and `/admin` elsewhere (see `guard`).

use super::Identity;
use crate::model::{ChannelKey, Namespace, Permission, Role};

/// What somebody wants to do in a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Receive its publications.
    Subscribe,
    /// Publish to it from a socket.
    Publish,
    /// Read what is kept.
    History,
    /// Read who is there.
    Presence,
}

/// Whether `identity` may do `action` in `channel`, which is in `namespace`.
pub fn may(
    identity: &Identity,
    namespace: &Namespace,
    action: Action,
    channel: &ChannelKey,
) -> bool {
    if channel.name().starts_with('~') || !is_for(channel, identity) {
        return false;
    }
    if action == Action::Subscribe && identity.channels.contains(channel) {
        return true;
    }
    match &identity.grants {
        Some(grants) => grants
            .of(action)
            .iter()
            .any(|pattern| pattern.matches(channel.name())),
        None => identity.has_role(Role::ADMIN) || allows(permission(namespace, action), identity),
    }
}

/// Nobody has the empty name, so `room#` and `room#ann,` let no anonymous client in.
fn is_for(channel: &ChannelKey, identity: &Identity) -> bool {
    channel.limited_to().is_none_or(|mut users| {
        identity.authenticated
            && !identity.user.is_empty()
            && users.any(|user| *user == *identity.user)
    })
}

const fn permission(namespace: &Namespace, action: Action) -> &Permission {
    match action {
        Action::Subscribe => &namespace.subscribe,
        Action::Publish => &namespace.publish,
        Action::History => &namespace.read_history,
        Action::Presence => &namespace.read_presence,
    }
}

fn allows(permission: &Permission, identity: &Identity) -> bool {
    match permission {
        Permission::Nobody => false,
        Permission::Authenticated => identity.authenticated,
        Permission::Anyone => true,
        Permission::Roles(roles) => roles.iter().any(|role| identity.has_role(role.as_str())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{Grants, Pattern};
    use crate::model::Scope;

    const ACTIONS: [Action; 4] = [
        Action::Subscribe,
        Action::Publish,
        Action::History,
        Action::Presence,
    ];

    fn key(name: &str) -> ChannelKey {
        ChannelKey::new(name).expect("a channel name")
    }

    fn user(name: &str) -> Identity {
        Identity {
            user: name.into(),
            authenticated: true,
            ..Identity::anonymous()
        }
    }

    fn granted(grants: Grants) -> Identity {
        Identity {
            grants: Some(Box::new(grants)),
            ..user("ann")
        }
    }

    /// What `identity` may do in `channel`, as four letters of `SPHR`, `-` where it may not.
    fn rights(identity: &Identity, namespace: &Namespace, channel: &str) -> String {
        ACTIONS
            .iter()
            .zip("SPHR".chars())
            .map(|(action, letter)| {
                if may(identity, namespace, *action, &key(channel)) {
                    letter
                } else {
                    '-'
                }
            })
            .collect()
    }

    #[test]
    fn without_grants_the_namespace_decides() {
        let closed = Namespace::default_for(false);
        let open = Namespace::default_for(true);
        let admin = Identity {
            role: "admin".into(),
            ..user("root")
        };
        for (identity, namespace, expected) in [
            (&Identity::anonymous(), &closed, "----"),
            (&Identity::anonymous(), &open, "SPHR"),
            (&user("ann"), &closed, "S-HR"),
            (&user("ann"), &open, "SPHR"),
            (&admin, &closed, "SPHR"),
        ] {
            assert_eq!(
                rights(identity, namespace, "news"),
                expected,
                "{identity:?}"
            );
        }
    }

    #[test]
    fn a_role_opens_what_the_namespace_names_it_for() {
        let roles = |names: &[&str]| {
            let roles = names.iter().map(|name| name.parse().expect("a role"));
            Permission::Roles(roles.collect())
        };
        let namespace = Namespace {
            subscribe: roles(&["reader", "editor"]),
            publish: roles(&["editor"]),
            read_presence: Permission::Nobody,
            ..Namespace::default_for(false)
        };
        let with = |role: &str, others: &[&str]| Identity {
            role: role.into(),
            other_roles: others.iter().map(|&other| other.into()).collect(),
            ..user("ann")
        };
        for (identity, expected) in [
            (with("reader", &[]), "S-H-"),
            (with("editor", &[]), "SPH-"),
            (with("user", &["x", "editor"]), "SPH-"),
            (with("Editor", &["edito", ""]), "--H-"),
            (with("", &[]), "--H-"),
            (with("admin", &[]), "SPHR"),
            (with("user", &["admin"]), "SPHR"),
            (Identity::anonymous(), "----"),
        ] {
            assert_eq!(
                rights(&identity, &namespace, "news"),
                expected,
                "{identity:?}"
            );
        }
        let named = Identity {
            grants: Some(Box::default()),
            ..with("admin", &[])
        };
        assert_eq!(
            rights(&named, &namespace, "news"),
            "----",
            "grants decide alone"
        );
        assert_eq!(rights(&with("admin", &[]), &namespace, "room#bob"), "----");
    }

    #[test]
    fn with_grants_they_decide_alone() {
        let open = Namespace::default_for(true);
        let identity = granted(Grants {
            subscribe: vec![Pattern::new("news"), Pattern::new("chat:*")],
            publish: vec![Pattern::new("chat:ann-*")],
            history: vec![Pattern::new("*")],
            presence: Vec::new(),
        });
        for (channel, expected) in [
            ("news", "S-H-"),
            ("news2", "--H-"),
            ("chat:1", "S-H-"),
            ("chat:ann-1", "SPH-"),
            ("chat", "--H-"),
        ] {
            assert_eq!(rights(&identity, &open, channel), expected, "{channel}");
        }
        assert_eq!(rights(&granted(Grants::default()), &open, "news"), "----");
    }

    #[test]
    fn grants_open_what_the_namespace_closes() {
        let namespace = Namespace {
            subscribe: Permission::Nobody,
            ..Namespace::default_for(false)
        };
        assert_eq!(rights(&user("ann"), &namespace, "news"), "--HR");
        let identity = granted(Grants {
            subscribe: vec![Pattern::new("news")],
            ..Grants::default()
        });
        assert_eq!(rights(&identity, &namespace, "news"), "S---");
    }

    #[test]
    fn a_channel_for_named_users_is_closed_to_all_others_whatever_else_says() {
        let open = Namespace::default_for(true);
        let all = Grants {
            subscribe: vec![Pattern::new("*")],
            publish: vec![Pattern::new("*")],
            history: vec![Pattern::new("*")],
            presence: vec![Pattern::new("*")],
        };
        let mallory = Identity {
            user: "mallory".into(),
            channels: vec![key("room#ann,bob")],
            ..granted(all.clone())
        };
        let unverified = Identity {
            authenticated: false,
            ..user("ann")
        };
        for (identity, channel, expected) in [
            (&user("ann"), "room#ann,bob", "SPHR"),
            (&user("bob"), "room#ann,bob", "SPHR"),
            (&granted(all), "room#ann", "SPHR"),
            (&mallory, "room#ann,bob", "----"),
            (&user("an"), "room#ann", "----"),
            (&user("ann"), "room#bob", "----"),
            (&user("x"), "a#x#ann", "----"),
            (&unverified, "room#ann", "----"),
            (&Identity::anonymous(), "room#", "----"),
            (&user(""), "room#ann,", "----"),
        ] {
            assert_eq!(rights(identity, &open, channel), expected, "{channel}");
        }
        assert_eq!(
            rights(&user("ann"), &Namespace::default_for(false), "room#ann"),
            "S-HR",
            "the namespace still says what its users may do"
        );
    }

    #[test]
    fn a_channel_of_the_token_may_be_subscribed_to_and_no_more() {
        let identity = Identity {
            channels: vec![key("mine")],
            ..granted(Grants::default())
        };
        let closed = Namespace::default_for(false);
        assert_eq!(rights(&identity, &closed, "mine"), "S---");
        assert_eq!(rights(&identity, &closed, "other"), "----");
    }

    #[test]
    fn the_hubs_own_channels_are_for_nobody() {
        let own = ChannelKey::internal(Scope::default(), "~shared:1").expect("a name");
        let identity = granted(Grants {
            subscribe: vec![Pattern::new("*")],
            ..Grants::default()
        });
        assert!(!may(
            &identity,
            &Namespace::default_for(true),
            Action::Subscribe,
            &own
        ));
    }
}
