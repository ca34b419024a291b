//! What can be read of channels: which are active, their history, presence and numbers.

use axum::RequestExt as _;
use axum::extract::{Path, Query, Request};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{ApiError, ApiState, json};
use crate::broker::{ActiveChannel, ReadLimit};
use crate::model::{ChannelKey, Epoch, ErrorCode, Member, Position, Publication};

/// Entries of a page when the caller does not say.
const PAGE_DEFAULT: usize = 100;
/// Most entries of a page; more is answered with that many and a way to go on.
const PAGE_MAX: usize = 1_000;
/// Members that presence lists when the caller does not say, and at most.
const MEMBERS_MAX: usize = 10_000;
/// Most bytes of publications in one page of history; `more` says that there are more.
const HISTORY_BYTES_MAX: usize = 1 << 20;

#[derive(Deserialize)]
struct ListQuery {
    #[serde(default)]
    prefix: String,
    cursor: Option<String>,
    limit: Option<usize>,
}

/// `{"channels":[{"channel","subscribers"}],"cursor"?}`; `cursor` is there when there are more.
pub(super) async fn list(state: &ApiState, request: Request) -> Result<Vec<u8>, ApiError> {
    let query: ListQuery = query(&request)?;
    let limit = query.limit.unwrap_or(PAGE_DEFAULT).clamp(1, PAGE_MAX);
    let cursor = query.cursor.as_deref().filter(|cursor| !cursor.is_empty());
    // One more than asked tells whether there is another page.
    let mut found = state.local.channels(&query.prefix, cursor, limit + 1);
    let elsewhere = state
        .broker
        .channels_elsewhere(&query.prefix, cursor, limit + 1);
    add(&mut found, elsewhere.await?, limit + 1);
    let page = &found[..found.len().min(limit)];
    let mut out = b"{\"channels\":[".to_vec();
    each(&mut out, page, write_active);
    out.push(b']');
    if let (true, Some(last)) = (found.len() > limit, page.last()) {
        out.extend_from_slice(b",\"cursor\":\"");
        out.extend_from_slice(last.channel.name().as_bytes());
        out.push(b'"');
    }
    out.push(b'}');
    Ok(out)
}

/// Adds what other nodes have to what this one has.
fn add(found: &mut Vec<ActiveChannel>, elsewhere: Vec<ActiveChannel>, most: usize) {
    found.extend(elsewhere);
    found.sort_by(|one, other| one.channel.name().cmp(other.channel.name()));
    found.dedup_by(|later, earlier| {
        let is_same = later.channel == earlier.channel;
        if is_same {
            earlier.subscribers += later.subscribers;
        }
        is_same
    });
    found.truncate(most);
}

#[derive(Deserialize)]
struct HistoryQuery {
    limit: Option<usize>,
    epoch: Option<String>,
    offset: Option<u64>,
}

/// `{"channel","publications":[{"offset","data","key"?,"from"?}],"epoch","offset","more"?}`: oldest first, after
/// `since` (`epoch` and `offset` of the query) or from the oldest.
pub(super) async fn history(state: &ApiState, mut request: Request) -> Result<Vec<u8>, ApiError> {
    let query: HistoryQuery = query(&request)?;
    let channel = channel(&mut request).await?;
    let since = match (&query.epoch, query.offset) {
        // An epoch that nobody ever made is one that is no longer: from the oldest.
        (Some(epoch), Some(offset)) => Epoch::parse(epoch).map(|epoch| Position { epoch, offset }),
        (None, None) => None,
        _ => return Err(ApiError::bad_request("epoch and offset go together")),
    };
    let limit = ReadLimit {
        publications: query.limit.unwrap_or(PAGE_DEFAULT).min(PAGE_MAX),
        bytes: HISTORY_BYTES_MAX,
    };
    let page = state.broker.history(&channel, since, limit).await?;
    let mut out = Vec::with_capacity(256);
    json::open_channel(&mut out, &channel);
    out.extend_from_slice(b",\"publications\":[");
    each(&mut out, &page.publications, |out, publication| {
        write_publication(out, publication);
    });
    out.push(b']');
    json::position(&mut out, Some(page.top));
    out.extend_from_slice(if page.more { b",\"more\":true}" } else { b"}" });
    Ok(out)
}

/// `{"channel","epoch","offset"}`: where the stream stands, with nothing kept.
pub(super) async fn clear_history(
    state: &ApiState,
    mut request: Request,
) -> Result<Vec<u8>, ApiError> {
    let channel = channel(&mut request).await?;
    let top = state.broker.clear_history(&channel).await?;
    let mut out = Vec::with_capacity(128);
    json::open_channel(&mut out, &channel);
    json::position(&mut out, top);
    out.push(b'}');
    Ok(out)
}

#[derive(Deserialize)]
struct PresenceQuery {
    limit: Option<usize>,
}

/// `{"channel","clients":{id:{"user","info"?}},"count","users","more"?}`.
pub(super) async fn presence(state: &ApiState, mut request: Request) -> Result<Vec<u8>, ApiError> {
    let query: PresenceQuery = query(&request)?;
    let channel = channel(&mut request).await?;
    if !state.namespaces.of(&channel).presence {
        let message = "the channel keeps no presence";
        return Err(ApiError::new(ErrorCode::NotAvailable, message));
    }
    let limit = query.limit.unwrap_or(MEMBERS_MAX).min(MEMBERS_MAX);
    let presence = state.broker.presence(&channel, limit).await?;
    let mut out = Vec::with_capacity(256);
    json::open_channel(&mut out, &channel);
    out.extend_from_slice(b",\"clients\":{");
    each(&mut out, &presence.members, |out, member| {
        write_member(out, member);
    });
    out.push(b'}');
    json::number(&mut out, "count", presence.clients as u64);
    json::number(&mut out, "users", presence.users as u64);
    let is_cut = presence.members.len() < presence.clients;
    out.extend_from_slice(if is_cut { b",\"more\":true}" } else { b"}" });
    Ok(out)
}

/// `{"channel","subscribers","clients"?,"users"?,"epoch"?,"offset"?}`: the middle two where presence is kept, the last
/// two where history is.
pub(super) async fn stats(state: &ApiState, mut request: Request) -> Result<Vec<u8>, ApiError> {
    let channel = channel(&mut request).await?;
    let mut out = Vec::with_capacity(160);
    json::open_channel(&mut out, &channel);
    let elsewhere = state.broker.subscribers_elsewhere(&channel).await?;
    let subscribers = state.local.subscribers(&channel) + elsewhere;
    json::number(&mut out, "subscribers", subscribers);
    let namespace = state.namespaces.of(&channel);
    if namespace.presence {
        let presence = state.broker.presence(&channel, 0).await?;
        json::number(&mut out, "clients", presence.clients as u64);
        json::number(&mut out, "users", presence.users as u64);
    }
    if namespace.history.is_on() {
        json::position(&mut out, state.broker.position(&channel).await?);
    }
    out.push(b'}');
    Ok(out)
}

/// The query of a request.
///
/// # Errors
/// 400 that names the field.
fn query<T: DeserializeOwned>(request: &Request) -> Result<T, ApiError> {
    Query::try_from_uri(request.uri())
        .map(|Query(query)| query)
        .map_err(|rejection| ApiError::bad_request(rejection.body_text()))
}

/// The channel that the path names.
///
/// # Errors
/// 400 when it is no channel name, 403 for one of the hub's own.
async fn channel(request: &mut Request) -> Result<ChannelKey, ApiError> {
    let Path(name) = request
        .extract_parts::<Path<String>>()
        .await
        .map_err(|rejection| ApiError::bad_request(rejection.body_text()))?;
    Ok(ChannelKey::new(&name)?)
}

/// Writes items with commas between them.
fn each<T>(out: &mut Vec<u8>, items: &[T], write: impl Fn(&mut Vec<u8>, &T)) {
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write(out, item);
    }
}

fn write_active(out: &mut Vec<u8>, active: &ActiveChannel) {
    json::open_channel(out, &active.channel);
    json::number(out, "subscribers", active.subscribers);
    out.push(b'}');
}

fn write_publication(out: &mut Vec<u8>, publication: &Publication) {
    out.extend_from_slice(b"{\"data\":");
    out.extend_from_slice(publication.data.as_bytes());
    json::number(out, "offset", publication.offset);
    if let Some(key) = &publication.key {
        out.extend_from_slice(b",\"key\":");
        json::value(out, &**key);
    }
    if let Some(origin) = &publication.origin {
        out.extend_from_slice(b",\"from\":{\"client\":");
        json::value(out, &origin.client);
        out.extend_from_slice(b",\"user\":");
        json::value(out, &*origin.user);
        out.push(b'}');
    }
    out.push(b'}');
}

fn write_member(out: &mut Vec<u8>, member: &Member) {
    json::value(out, &member.client);
    out.extend_from_slice(b":{\"user\":");
    json::value(out, &*member.user);
    out.extend_from_slice(b",\"info\":");
    let info = member
        .info
        .as_ref()
        .map_or(&b"null"[..], |info| info.as_bytes());
    out.extend_from_slice(info);
    out.push(b'}');
}
