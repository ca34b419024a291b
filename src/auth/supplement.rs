//! What a back end that was asked about a new client says of it, beside yes.

use std::sync::Arc;

use serde_json::value::RawValue;

use super::{AuthError, Identity, token};
use crate::model::{ChannelKey, Payload, UserId};

/// What an answer adds to an identity. It stays when the client's token is refreshed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Supplement {
    /// Who the client is, for one without a token.
    pub user: Option<UserId>,
    /// Roles that it has beside the token's, each once.
    pub roles: Box<[Arc<str>]>,
    /// Shown in presence and join, in place of the token's.
    pub info: Option<Payload>,
    /// Channels to be subscribed to, beside the token's.
    pub channels: Vec<ChannelKey>,
    /// Unix seconds at which the connection ends, unless the token ends before.
    pub expires_at: Option<u64>,
}

/// The fields of an answer, as they stand there.
#[derive(Debug, Clone, Copy, Default)]
pub struct SupplementFields<'a> {
    /// `user`: a string of 1 to 255 bytes.
    pub user: Option<&'a RawValue>,
    /// `roles`: a role, or at most 100, of at most 64 bytes each.
    pub roles: Option<&'a RawValue>,
    /// `info`: JSON of at most 4,096 bytes.
    pub info: Option<&'a RawValue>,
    /// `channels`: at most 100 names.
    pub channels: Option<&'a RawValue>,
    /// `expires_at`: Unix seconds.
    pub expires_at: Option<&'a RawValue>,
}

impl Supplement {
    /// Reads the fields by the rules that a token's claims of these names have.
    ///
    /// # Errors
    /// Names the first field that breaks its rule.
    pub fn read(fields: SupplementFields<'_>) -> Result<Self, AuthError> {
        let user = token::user("user", fields.user)?;
        if user.as_deref() == Some("") {
            let rule = "a name, or left out for nobody";
            return Err(AuthError::BadClaim {
                claim: "user",
                rule,
            });
        }
        let (role, others) = token::roles(None, fields.roles)?;
        let role = Some(role).filter(|role| !role.is_empty());
        Ok(Self {
            user: user.map(Arc::from),
            roles: role.into_iter().chain(others).collect(),
            info: token::info(fields.info)?,
            channels: token::channels(fields.channels)?,
            expires_at: token::seconds("expires_at", fields.expires_at)?,
        })
    }

    /// How many bytes it takes, about.
    pub fn bytes(&self) -> usize {
        let channels = self
            .channels
            .iter()
            .map(|channel| channel.name().len() + 64);
        let info = self.info.as_ref().map_or(0, Payload::len);
        let user = self.user.as_ref().map_or(0, |user| user.len());
        let roles = self.roles.iter().map(|role| role.len() + 32);
        size_of::<Self>() + user + info + channels.sum::<usize>() + roles.sum::<usize>()
    }
}

impl Identity {
    /// The identity with what a back end said of it. A verified token's user stays its user.
    #[must_use]
    pub fn supplemented(&self, supplement: &Arc<Supplement>) -> Self {
        let mut identity = self.clone();
        if let (false, Some(user)) = (identity.authenticated, &supplement.user) {
            identity.user = user.clone();
            identity.authenticated = true;
        }
        identity.add_roles(&supplement.roles);
        if supplement.info.is_some() {
            identity.info.clone_from(&supplement.info);
        }
        for channel in &supplement.channels {
            if !identity.channels.contains(channel) {
                identity.channels.push(channel.clone());
            }
        }
        let ends = [identity.expires_at, supplement.expires_at];
        identity.expires_at = ends.into_iter().flatten().min();
        identity.supplement = Some(supplement.clone());
        identity
    }

    /// Adds those that it does not have; the first is told where there is room for one, unless it has one already.
    fn add_roles(&mut self, roles: &[Arc<str>]) {
        let mut others = std::mem::take(&mut self.other_roles).into_vec();
        for role in roles {
            if self.role.is_empty() {
                self.role = role.clone();
            } else if self.role != *role && !others.contains(role) {
                others.push(role.clone());
            }
        }
        self.other_roles = others.into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Supplement, AuthError> {
        #[derive(serde::Deserialize)]
        #[serde(default)]
        #[derive(Default)]
        struct Fields<'a> {
            #[serde(borrow)]
            user: Option<&'a RawValue>,
            #[serde(borrow)]
            roles: Option<&'a RawValue>,
            #[serde(borrow)]
            info: Option<&'a RawValue>,
            #[serde(borrow)]
            channels: Option<&'a RawValue>,
            #[serde(borrow)]
            expires_at: Option<&'a RawValue>,
        }
        let fields: Fields<'_> = serde_json::from_str(json).expect("JSON");
        Supplement::read(SupplementFields {
            user: fields.user,
            roles: fields.roles,
            info: fields.info,
            channels: fields.channels,
            expires_at: fields.expires_at,
        })
    }

    fn names(channels: &[ChannelKey]) -> Vec<&str> {
        channels.iter().map(ChannelKey::name).collect()
    }

    #[test]
    fn nobody_becomes_the_user_of_the_answer() {
        let said = r#"{"user":"ann","info":{"n": 1},"channels":["a"],"expires_at":50}"#;
        let supplement = Arc::new(read(said).expect("fields"));
        let ann = Identity::anonymous().supplemented(&supplement);
        assert!(ann.authenticated && *ann.user == *"ann");
        assert_eq!(names(&ann.channels), ["a"]);
        assert_eq!(ann.expires_at, Some(50));
        assert_eq!(ann.info.expect("info").as_bytes(), br#"{"n":1}"#);
        let nobody = Identity::anonymous().supplemented(&Arc::default());
        assert!(!nobody.authenticated && nobody.user.is_empty());
    }

    #[test]
    fn roles_are_added_to_those_of_the_token() {
        let with = |role: &str, others: &[&str]| Identity {
            role: role.into(),
            other_roles: others.iter().map(|&other| other.into()).collect(),
            ..Identity::anonymous()
        };
        for (said, before, expected) in [
            (
                r#"["editor","clerk"]"#,
                with("", &[]),
                &["editor", "clerk"][..],
            ),
            (r#""editor""#, with("user", &[]), &["user", "editor"]),
            (
                r#"["user","clerk","editor","editor"]"#,
                with("user", &["clerk"]),
                &["user", "clerk", "editor"],
            ),
            ("[]", with("user", &[]), &["user"]),
        ] {
            let supplement = Arc::new(read(&format!(r#"{{"roles":{said}}}"#)).expect("fields"));
            let after = before.supplemented(&supplement);
            assert_eq!(after.roles().collect::<Vec<_>>(), expected, "{said}");
            assert_eq!(after.supplemented(&supplement), after, "{said}, twice");
        }
    }

    #[test]
    fn a_tokens_user_stays_and_the_earlier_end_counts() {
        let said = r#"{"user":"ann","channels":["b","a"],"expires_at":50}"#;
        let supplement = Arc::new(read(said).expect("fields"));
        let bob = |expires_at| Identity {
            user: "bob".into(),
            authenticated: true,
            expires_at,
            info: Some(Payload::from_plain_json("1")),
            channels: vec![ChannelKey::new("a").expect("a name")],
            ..Identity::anonymous()
        };
        let longer = bob(Some(60)).supplemented(&supplement);
        assert_eq!((&*longer.user, longer.expires_at), ("bob", Some(50)));
        assert_eq!(names(&longer.channels), ["a", "b"]);
        assert_eq!(longer.info.expect("the token's").as_bytes(), b"1");
        assert_eq!(bob(Some(40)).supplemented(&supplement).expires_at, Some(40));
    }

    #[test]
    fn a_field_that_breaks_its_rule_is_named() {
        let long_role = format!(r#"{{"roles":["{}"]}}"#, "x".repeat(65));
        let long = format!(r#"{{"info":"{}"}}"#, "x".repeat(4096));
        for (said, field) in [
            (r#"{"user":7}"#, "user"),
            (r#"{"user":""}"#, "user"),
            (long.as_str(), "info"),
            (r#"{"roles":["editor",7]}"#, "roles"),
            (long_role.as_str(), "roles"),
            (r#"{"channels":"a"}"#, "channels"),
            (r#"{"channels":["~a"]}"#, "channels"),
            (r#"{"expires_at":"soon"}"#, "expires_at"),
        ] {
            let error = read(said).expect_err(said);
            let is_named = matches!(error, AuthError::BadClaim { claim, .. } if claim == field);
            assert!(is_named, "{said}: {error}");
        }
    }
}
