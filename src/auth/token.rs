//! What stands in a token: the claims as we write them, and as we read them, each by its own rule.

use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use super::{AuthError, Grants, Identity, Pattern};
use crate::model::{ChannelKey, Payload, ROLE_BYTES_MAX, Scope, SessionId};

/// The most bytes of a user's name, as of a channel's: a user stands in channel names (`#<user>`).
const USER_BYTES_MAX: usize = 255;
/// The most roles.
const ROLES_MAX: usize = 100;
/// The most bytes of `info`: it is kept for every connection and sent with every join.
const INFO_BYTES_MAX: usize = 4 * 1024;
/// How deep `info` may be nested, as every payload.
const INFO_DEPTH_MAX: usize = 64;
/// The most channels that a token subscribes to.
const CHANNELS_MAX: usize = 100;
/// The most patterns of one list of `grants`; they are walked through on every permission check.
const PATTERNS_MAX: usize = 100;

/// What a token is minted from: the claims of `docs/PROTOCOL.md`, absent ones left out.
#[derive(Debug, Clone, Default, Serialize)]
pub struct TokenClaims {
    /// The user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sub: Option<String>,
    /// The user again, as clients of the FastAPI gateway read it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    /// `user`, `publisher`, `admin` or one of the operator's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Several roles, of which `role` may be one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<String>,
    /// The login session that it is minted for: with the session, the token ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub login_session: Option<String>,
    /// Unix seconds at which it ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exp: Option<u64>,
    /// Unix seconds at which it begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nbf: Option<u64>,
    /// Who made it. `Verifier::mint` fills in the configured issuer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iss: Option<String>,
    /// Whom it is for. `Verifier::mint` fills in the configured audience.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aud: Option<String>,
    /// Any JSON, shown in presence and join.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub info: Option<serde_json::Value>,
    /// Channels to be subscribed to at connect.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub channels: Vec<String>,
    /// What it may do; without, the namespace decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grants: Option<GrantClaims>,
}

/// `grants` as a token has them: exact names, or prefixes ending in `*`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GrantClaims {
    /// Channels to subscribe to.
    pub subscribe: Vec<String>,
    /// Channels to publish to.
    pub publish: Vec<String>,
    /// Channels whose history may be read.
    pub history: Vec<String>,
    /// Channels whose presence may be read.
    pub presence: Vec<String>,
}

/// The claims as they stand in the token: each is read on its own, so that an error can name it. A claim that is there
/// twice is an error of the whole.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct SignedClaims<'a> {
    #[serde(borrow, deserialize_with = "present")]
    sub: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "present")]
    user_id: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "present")]
    role: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "present")]
    roles: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "present")]
    login_session: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "present")]
    exp: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "present")]
    nbf: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "present")]
    iss: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "present")]
    aud: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "present")]
    info: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "present")]
    channels: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "present")]
    grants: Option<&'a RawValue>,
}

/// The claims that are times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Claim {
    Exp,
    Nbf,
}

impl SignedClaims<'_> {
    /// A time, in Unix seconds.
    pub(super) fn seconds(&self, claim: Claim) -> Result<Option<u64>, AuthError> {
        match claim {
            Claim::Exp => seconds("exp", self.exp),
            Claim::Nbf => seconds("nbf", self.nbf),
        }
    }

    /// Who issued the token.
    pub(super) fn issuer(&self) -> Result<Option<String>, AuthError> {
        claim("iss", self.iss, "a string")
    }

    /// For whom it is: for nobody in particular when it does not say.
    pub(super) fn audience(&self) -> Result<OneOrMany, AuthError> {
        let audience = claim("aud", self.aud, "a string or a list of strings")?;
        Ok(audience.unwrap_or_else(|| OneOrMany::Many(Vec::new())))
    }

    /// Who it stands for. `leeway` is added to its end.
    pub(super) fn identity(&self, leeway: Duration) -> Result<Identity, AuthError> {
        let user = match user("sub", self.sub)? {
            Some(user) => Some(user),
            None => user("user_id", self.user_id)?,
        };
        let (role, other_roles) = roles(self.role, self.roles)?;
        let end = self.seconds(Claim::Exp)?;
        Ok(Identity {
            user: Arc::from(user.unwrap_or_default()),
            role,
            other_roles,
            authenticated: true,
            login_session: login_session(self.login_session)?,
            expires_at: end.map(|end| end.saturating_add(leeway.as_secs())),
            info: info(self.info)?,
            channels: channels(self.channels)?,
            grants: grants(self.grants)?,
            supplement: None,
        })
    }
}

/// `null` is there: `"exp": null` must not mean "never ends".
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// One name or several.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl From<OneOrMany> for Vec<String> {
    fn from(names: OneOrMany) -> Self {
        match names {
            OneOrMany::One(one) => vec![one],
            OneOrMany::Many(many) => many,
        }
    }
}

impl OneOrMany {
    pub(super) fn contains(&self, name: &str) -> bool {
        match self {
            Self::One(one) => one == name,
            Self::Many(many) => many.iter().any(|one| one == name),
        }
    }
}

fn claim<T: DeserializeOwned>(
    claim: &'static str,
    json: Option<&RawValue>,
    rule: &'static str,
) -> Result<Option<T>, AuthError> {
    json.map(|json| serde_json::from_str(json.get()))
        .transpose()
        .map_err(|_| AuthError::BadClaim { claim, rule })
}

fn text(
    name: &'static str,
    json: Option<&RawValue>,
    rule: &'static str,
    bytes_max: usize,
) -> Result<Option<String>, AuthError> {
    let text: Option<String> = claim(name, json, rule)?;
    match text {
        Some(text) if text.len() > bytes_max => Err(AuthError::BadClaim { claim: name, rule }),
        text => Ok(text),
    }
}

/// A user's name.
pub(super) fn user(
    name: &'static str,
    json: Option<&RawValue>,
) -> Result<Option<String>, AuthError> {
    text(name, json, "a string of at most 255 bytes", USER_BYTES_MAX)
}

/// The role that is told where there is room for one, and the others.
pub(super) type Roles = (Arc<str>, Box<[Arc<str>]>);

/// Without `role` the first is that of `roles`.
pub(super) fn roles(role: Option<&RawValue>, roles: Option<&RawValue>) -> Result<Roles, AuthError> {
    let rule = "a string of at most 64 bytes";
    let role = text("role", role, rule, ROLE_BYTES_MAX)?;
    let rule = "a string or a list of at most 100 strings, of at most 64 bytes each";
    let roles: Vec<String> = claim("roles", roles, rule)?.map_or_else(Vec::new, OneOrMany::into);
    if roles.len() > ROLES_MAX || roles.iter().any(|role| role.len() > ROLE_BYTES_MAX) {
        let claim = "roles";
        return Err(AuthError::BadClaim { claim, rule });
    }
    let mut all: Vec<Arc<str>> = Vec::with_capacity(1 + roles.len());
    for role in role.into_iter().chain(roles) {
        if !role.is_empty() && !all.iter().any(|known| **known == *role) {
            all.push(role.into());
        }
    }
    let others = all.split_off(1.min(all.len()));
    Ok((all.pop().unwrap_or_default(), others.into()))
}

fn login_session(json: Option<&RawValue>) -> Result<Option<SessionId>, AuthError> {
    let rule = "a UUID";
    let id: Option<String> = claim("login_session", json, rule)?;
    let id = id.map(|id| id.parse()).transpose();
    id.map_err(|_| AuthError::BadClaim {
        claim: "login_session",
        rule,
    })
}

/// A NumericDate (RFC 7519, 2) may have a fraction: it is cut off. What is before 1970 is long past.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a float converts saturating, and JSON has no NaN"
)]
pub(super) fn seconds(
    name: &'static str,
    json: Option<&RawValue>,
) -> Result<Option<u64>, AuthError> {
    let date: Option<f64> = claim(name, json, "a number of seconds")?;
    Ok(date.map(|date| date as u64))
}

pub(super) fn info(json: Option<&RawValue>) -> Result<Option<Payload>, AuthError> {
    let refused = AuthError::BadClaim {
        claim: "info",
        rule: "JSON of at most 4096 bytes, nested at most 64 deep",
    };
    match json.map(RawValue::get) {
        None | Some("null") => Ok(None),
        Some(json) => plain(json)
            .filter(|plain| plain.len() <= INFO_BYTES_MAX)
            .map(|plain| Some(Payload::from_plain_json(plain)))
            .ok_or(refused),
    }
}

/// Valid JSON without the white space between its tokens, so on one line; `None` when it is nested too deep. Numbers
/// and the order of keys stay as they were signed, which a way through `Value` would not keep.
fn plain(json: &str) -> Option<Vec<u8>> {
    let mut plain = Vec::with_capacity(json.len());
    let (mut in_string, mut escaped, mut depth) = (false, false, 0usize);
    for byte in json.bytes() {
        match byte {
            _ if in_string => {
                in_string = escaped || byte != b'"';
                escaped = !escaped && byte == b'\\';
            }
            b' ' | b'\t' | b'\r' | b'\n' => continue,
            b'"' => in_string = true,
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > INFO_DEPTH_MAX {
            return None;
        }
        plain.push(byte);
    }
    Some(plain)
}

pub(super) fn channels(json: Option<&RawValue>) -> Result<Vec<ChannelKey>, AuthError> {
    let refused = AuthError::BadClaim {
        claim: "channels",
        rule: "a list of at most 100 channel names",
    };
    let names: Vec<String> =
        claim("channels", json, "a list of at most 100 channel names")?.unwrap_or_default();
    if names.len() > CHANNELS_MAX {
        return Err(refused);
    }
    let mut channels: Vec<ChannelKey> = Vec::with_capacity(names.len());
    for name in &names {
        let channel = ChannelKey::new(name).map_err(|_| refused)?;
        if !channels.contains(&channel) {
            channels.push(channel);
        }
    }
    Ok(channels)
}

fn grants(json: Option<&RawValue>) -> Result<Option<Box<Grants>>, AuthError> {
    let rule = "an object of lists subscribe, publish, history and presence, each of at most 100 channel names or \
                prefixes ending in *";
    let Some(claims): Option<GrantClaims> = claim("grants", json, rule)? else {
        return Ok(None);
    };
    let list = |names: &[String]| {
        patterns(names).ok_or(AuthError::BadClaim {
            claim: "grants",
            rule,
        })
    };
    Ok(Some(Box::new(Grants {
        subscribe: list(&claims.subscribe)?,
        publish: list(&claims.publish)?,
        history: list(&claims.history)?,
        presence: list(&claims.presence)?,
    })))
}

/// A pattern that can match no channel (`a*b`, a blank) is refused: it says something else than its author thinks.
fn patterns(names: &[String]) -> Option<Vec<Pattern>> {
    let is_pattern = |name: &str| match name.strip_suffix('*') {
        Some("") => true,
        Some(prefix) => ChannelKey::internal(Scope::default(), prefix).is_ok(),
        None => ChannelKey::internal(Scope::default(), name).is_ok(),
    };
    (names.len() <= PATTERNS_MAX && names.iter().all(|name| is_pattern(name)))
        .then(|| names.iter().map(|name| Pattern::new(name)).collect())
}
