//! The forms in which things are kept in Redis, and back.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::model::{ClientId, NodeId, SessionId, UserId};
use crate::redis::Value;
use crate::session::store::{Begun, Chosen};
use crate::session::{Connection, ServerInfo, Session, SessionHead, UnixTime, User, UserName};

/// What a session is for that another system made and did not say.
const DEFAULT_CHAT: &str = "default";

/// A session: the FastAPI gateway's fields, and the node.
#[derive(Deserialize)]
struct Record<'a> {
    #[serde(borrow)]
    user_id: std::borrow::Cow<'a, str>,
    #[serde(borrow, default)]
    chat_id: Option<std::borrow::Cow<'a, str>>,
    #[serde(default)]
    created_at: Option<f64>,
    #[serde(borrow, default)]
    node: Option<std::borrow::Cow<'a, str>>,
    #[serde(borrow)]
    data: &'a RawValue,
}

/// What the list of a user's sessions shows.
#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow, default)]
    chat_id: Option<std::borrow::Cow<'a, str>>,
    created_at: f64,
    #[serde(borrow, default)]
    node: Option<std::borrow::Cow<'a, str>>,
}

#[derive(Serialize, Deserialize)]
struct Socket {
    session: String,
    node: String,
    /// Milliseconds since 1970.
    at: u64,
    /// The process that serves it.
    #[serde(default)]
    life: String,
}

/// A text as JSON.
pub(super) fn json_text(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A session as it is kept.
pub(super) fn write(head: &SessionHead, data: &str) -> String {
    let rest = rest(head);
    let (user, last) = (json_text(&head.user), head.last_access.as_secs_f64());
    format!(r#"{{"user_id":{user},{rest},"last_access":{last:.3},"data":{data}}}"#)
}

/// A session's place in the list of its user.
pub(super) fn write_head(head: &SessionHead) -> String {
    format!("{{{}}}", rest(head))
}

fn rest(head: &SessionHead) -> String {
    let (chat, node) = (json_text(&head.chat_id), json_text(head.node.as_str()));
    let created = head.created_at.as_secs_f64();
    format!(r#""chat_id":{chat},"created_at":{created:.3},"node":{node}"#)
}

/// A socket of this process as it is kept.
pub(super) fn write_connection(connection: &Connection, life: &str) -> String {
    let socket = Socket {
        session: connection.session.to_string(),
        node: connection.node.as_str().to_owned(),
        at: connection.connected_at.as_millis(),
        life: life.to_owned(),
    };
    // Texts and a number cannot fail to be written.
    serde_json::to_string(&socket).unwrap_or_default()
}

/// Milliseconds out of seconds with a fraction; what is before 1970 is 1970.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a float converts saturating"
)]
fn time(seconds: f64) -> UnixTime {
    UnixTime::from_millis((seconds * 1000.0).round() as u64)
}

/// 1 or 0.
pub(super) fn flag(value: &Value) -> Option<bool> {
    value.as_u64().map(|flag| flag == 1)
}

/// Fields and values.
pub(super) fn pairs(value: Value) -> Option<Vec<(String, String)>> {
    match value {
        Value::Map(pairs) => pairs
            .into_iter()
            .map(|(field, value)| Some((field.as_string()?, value.as_string()?)))
            .collect(),
        Value::Null => Some(Vec::new()),
        other => other
            .into_array()
            .chunks_exact(2)
            .map(|pair| Some((pair[0].as_string()?, pair[1].as_string()?)))
            .collect(),
    }
}

/// A user by fields and values in turn; `fallback` is the name of one that another system kept, which has it in its key
/// only.
pub(super) fn user(fallback: &str, fields: &[Value]) -> Option<User> {
    let field = |name: &str| {
        let mut pairs = fields.chunks_exact(2);
        let pair = pairs.find(|pair| pair[0].as_str() == Some(name))?;
        pair[1].as_string()
    };
    let seconds = |name: &str| field(name).and_then(|text| text.parse::<f64>().ok());
    let last_login = time(seconds("last_login").unwrap_or_default());
    Some(User {
        name: UserName::new(&field("name").unwrap_or_else(|| fallback.to_owned())).ok()?,
        email: field("email").unwrap_or_default().into(),
        password: field("password")?.into(),
        role: field("role").unwrap_or_else(|| "user".to_owned()).into(),
        created_at: seconds("created_at").map_or(last_login, time),
        last_login,
    })
}

/// Ids of sessions. What is none stands for nothing of ours.
pub(super) fn ids(value: Value) -> Option<Vec<SessionId>> {
    let ids = value.into_array().into_iter();
    Some(ids.filter_map(|id| id.as_str()?.parse().ok()).collect())
}

/// The same, or nothing at all.
pub(super) fn optional_ids(value: Value) -> Option<Option<Vec<SessionId>>> {
    match value {
        Value::Null => Some(None),
        value => ids(value).map(Some),
    }
}

/// A login: from `{role, ids}`, or nothing at all.
pub(super) fn begun(value: Value) -> Option<Option<Begun>> {
    if value.is_null() {
        return Some(None);
    }
    let mut parts = value.into_array().into_iter();
    let (role, ended) = (parts.next()?, parts.next()?);
    Some(Some(Begun {
        role: Arc::from(role.as_string()?),
        ended: ids(ended)?,
    }))
}

/// The session for a conversation: `new`, after an empty text and the ids of those that ended; or the one that there was,
/// from its id and what a script says of it, or its id alone when nobody can read it.
pub(super) fn chosen(value: Value, new: Session) -> Option<Result<Chosen, SessionId>> {
    let mut parts = value.into_array();
    let id = parts.first()?.as_string()?;
    if id.is_empty() {
        let ended = parts.drain(1..).filter_map(|id| id.as_str()?.parse().ok());
        return Some(Ok(Chosen {
            session: new,
            is_new: true,
            ended: ended.collect(),
        }));
    }
    let (id, told) = (id.parse().ok()?, parts.get(1)?.as_str()?);
    // The script has seen that it lives.
    let session = session(id, told, UnixTime::default()).flatten();
    Some(session.ok_or(id).map(|session| Chosen {
        session,
        is_new: false,
        ended: Vec::new(),
    }))
}

/// What a script says of a session, taken apart: user, last use and record.
struct Read<'a> {
    user: &'a str,
    used: UnixTime,
    record: &'a str,
}

/// From the length of the user's name, the last use, the name and the record; nothing where there is no session.
fn read(text: &str) -> Option<Option<Read<'_>>> {
    if text.is_empty() {
        return Some(None);
    }
    let (length, rest) = text.split_once(' ')?;
    let (used, rest) = rest.split_once(' ')?;
    let (user, record) = rest.split_at_checked(length.parse().ok()?)?;
    let used = UnixTime::from_millis(used.parse().ok()?);
    Some(Some(Read { user, used, record }))
}

/// Whose a session is that was used since then; `None` when nobody can read it.
pub(super) fn owner(text: &str, alive_since: UnixTime) -> Option<Option<UserId>> {
    let alive = read(text)?.filter(|read| read.used >= alive_since);
    Some(alive.map(|read| UserId::from(read.user)))
}

/// A session that was used since then; `None` when nobody can read it.
pub(super) fn session(id: SessionId, text: &str, alive_since: UnixTime) -> Option<Option<Session>> {
    let Some(read) = read(text)?.filter(|read| read.used >= alive_since) else {
        return Some(None);
    };
    let record: Record<'_> = serde_json::from_str(read.record).ok()?;
    Some(Some(Session {
        head: SessionHead {
            id,
            user: UserId::from(&*record.user_id),
            chat_id: record.chat_id.as_deref().unwrap_or(DEFAULT_CHAT).into(),
            created_at: record.created_at.map_or(read.used, time),
            last_access: read.used,
            node: NodeId::new(record.node.as_deref().unwrap_or_default()),
        },
        data: record.data.get().into(),
    }))
}

/// A session of the list: from id, last use and head.
pub(super) fn head(user: &UserId, part: &[Value]) -> Option<SessionHead> {
    let [id, used, text] = part else { return None };
    let text = text.as_str()?;
    let head: Head<'_> = serde_json::from_str(text).ok()?;
    Some(SessionHead {
        id: id.as_str()?.parse().ok()?,
        user: user.clone(),
        chat_id: head.chat_id.as_deref().unwrap_or(DEFAULT_CHAT).into(),
        created_at: time(head.created_at),
        last_access: UnixTime::from_millis(number(used)?),
        node: NodeId::new(head.node.as_deref().unwrap_or_default()),
    })
}

/// A socket of a user.
pub(super) fn connection(user: &UserId, client: &str, json: &str) -> Option<Connection> {
    let socket: Socket = serde_json::from_str(json).ok()?;
    Some(Connection {
        client: client.parse::<ClientId>().ok()?,
        user: user.clone(),
        session: socket.session.parse().ok()?,
        node: NodeId::new(&socket.node),
        connected_at: UnixTime::from_millis(socket.at),
    })
}

/// The answer to `TIME`: seconds and microseconds.
pub(super) fn server_time(value: Value) -> Option<UnixTime> {
    let parts = value.into_array();
    let [seconds, micros] = parts.as_slice() else {
        return None;
    };
    let millis = number(seconds)?.checked_mul(1000)?;
    Some(UnixTime::from_millis(millis + number(micros)? / 1000))
}

/// The answer to `INFO`: lines of a name, a colon and a value.
pub(super) fn server(info: &str) -> Option<ServerInfo> {
    let text = |name: &str| {
        let mut lines = info.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
    };
    let count = |name| text(name)?.trim().parse().ok();
    Some(ServerInfo {
        connected_clients: count("connected_clients")?,
        used_memory_human: text("used_memory_human")?.trim().to_owned(),
        used_memory_peak_human: text("used_memory_peak_human")?.trim().to_owned(),
        keyspace_hits: count("keyspace_hits")?,
        keyspace_misses: count("keyspace_misses")?,
        total_commands_processed: count("total_commands_processed")?,
    })
}

fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}
