//! `POST /hub/publish`, `/hub/broadcast` and `/hub/batch`: from a body to the broker and back.
//!
//! A call with several publications is one call to the broker. What is wrong with one of them (its channel, its size)
//! is told in its place of `results` and does not touch the others; a body that cannot be read fails as a whole.

use axum::extract::Request;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::consent::Publisher;
use super::item::{Item, Keys, Text};
use super::{ApiError, ApiState, body, consent, json};
use crate::broker::{BrokerError, Publish, Published};
use crate::model::{ChannelKey, ErrorCode, Payload};
use crate::protocol::payload;
use crate::telemetry::metrics;

/// Bytes of an answer for one publication without its channel's name.
const RESULT_BYTES: usize = 80;

/// Publishes one.
pub(super) async fn publish(state: &ApiState, request: Request) -> Result<Vec<u8>, ApiError> {
    let publisher = consent::publisher(&request);
    let body = body::read(request, state.config.body_bytes_max).await?;
    let publish = single(state, &body::parse::<Item<'_>>(&body)?)?;
    one(state, publisher.as_ref(), publish).await
}

/// Publishes this.
pub(super) async fn one(
    state: &ApiState,
    publisher: Option<&Publisher>,
    publish: Publish,
) -> Result<Vec<u8>, ApiError> {
    let publish = consent::consented(state, publisher, publish).await?;
    let channel = publish.channel.clone();
    let published = state.broker.publish_one(publish).await?;
    metrics::http_published(u64::from(!published.duplicate));
    let mut out = Vec::with_capacity(RESULT_BYTES + channel.name().len());
    write_published(&mut out, &channel, &published);
    Ok(out)
}

/// `{"channels":[…],"data","key"?,"idempotency_key"?}`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BroadcastBody<'a> {
    #[serde(borrow)]
    channels: Vec<Text<'a>>,
    #[serde(borrow)]
    data: &'a RawValue,
    #[serde(borrow, default)]
    key: Option<Text<'a>>,
    #[serde(borrow, default)]
    idempotency_key: Option<Text<'a>>,
}

/// Publishes the same to several channels.
pub(super) async fn broadcast(state: &ApiState, request: Request) -> Result<Vec<u8>, ApiError> {
    let publisher = consent::publisher(&request);
    let body = body::read(request, state.config.body_bytes_max).await?;
    let BroadcastBody {
        channels,
        data,
        key,
        idempotency_key,
    } = body::parse(&body)?;
    check_count(state, "channels", channels.len())?;
    let keys = Keys::new(key.as_ref(), idempotency_key.as_ref())?;
    let data = plain(data)?;
    let items = channels
        .iter()
        .map(|channel| checked(state, &channel.0, data.clone(), keys.clone()))
        .collect();
    publish_all(state, publisher, &channels, items).await
}

/// `{"publications":[{…},…]}`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BatchBody<'a> {
    #[serde(borrow)]
    publications: Vec<Item<'a>>,
}

/// The same, not yet read one by one: to find which one is wrong.
#[derive(Deserialize)]
struct RawBatchBody<'a> {
    #[serde(borrow)]
    publications: Vec<&'a RawValue>,
}

/// Publishes several.
pub(super) async fn batch(state: &ApiState, request: Request) -> Result<Vec<u8>, ApiError> {
    let publisher = consent::publisher(&request);
    let body = body::read(request, state.config.body_bytes_max).await?;
    let batch: BatchBody<'_> =
        body::parse(&body).map_err(|error| first_unreadable(&body).unwrap_or(error))?;
    check_count(state, "publications", batch.publications.len())?;
    let items = batch
        .publications
        .iter()
        .map(|item| single(state, item))
        .collect();
    let channels: Vec<Text<'_>> = batch
        .publications
        .into_iter()
        .map(|item| item.channel)
        .collect();
    publish_all(state, publisher, &channels, items).await
}

/// Which publication of a batch cannot be read; `None` when the fault lies elsewhere.
fn first_unreadable(body: &[u8]) -> Option<ApiError> {
    let batch: RawBatchBody<'_> = serde_json::from_slice(body).ok()?;
    let mut publications = batch.publications.iter().enumerate();
    publications.find_map(|(index, raw)| {
        let error = serde_json::from_str::<Item<'_>>(raw.get()).err()?;
        Some(ApiError::bad_request(format!(
            "publications[{index}] cannot be read: {error} of it"
        )))
    })
}

fn check_count(state: &ApiState, field: &str, count: usize) -> Result<(), ApiError> {
    let most = state.config.batch_max;
    if (1..=most).contains(&count) {
        return Ok(());
    }
    let message = format!("{field} must have 1 to {most} entries, it has {count}");
    let code = match count {
        0 => ErrorCode::BadRequest,
        _ => ErrorCode::TooLarge,
    };
    Err(ApiError::new(code, message))
}

pub(super) fn single(state: &ApiState, item: &Item<'_>) -> Result<Publish, ApiError> {
    let keys = Keys::new(item.key.as_ref(), item.idempotency_key.as_ref())?;
    checked(state, &item.channel.0, plain(item.data)?, keys)
}

/// The payload of what was sent as `data`.
fn plain(data: &RawValue) -> Result<Payload, ApiError> {
    payload::from_raw(data).map_err(|error| ApiError::bad_request(format!("data is {error}")))
}

/// A publish whose channel exists in name and takes so much data.
fn checked(
    state: &ApiState,
    channel: &str,
    data: Payload,
    keys: Keys,
) -> Result<Publish, ApiError> {
    let channel = ChannelKey::new(channel)?;
    let most = state.namespaces.of(&channel).publication_bytes_max;
    if data.len() > most {
        let message = format!("data has {} bytes, the channel takes {most}", data.len());
        return Err(ApiError::new(ErrorCode::TooLarge, message));
    }
    Ok(Publish {
        channel,
        data,
        origin: None,
        key: keys.key,
        idempotency_key: keys.idempotency_key,
    })
}

/// Hands what is right to the broker at once and answers in the order of the request.
async fn publish_all(
    state: &ApiState,
    publisher: Option<Publisher>,
    names: &[Text<'_>],
    items: Vec<Result<Publish, ApiError>>,
) -> Result<Vec<u8>, ApiError> {
    let items = match publisher {
        Some(publisher) => consented(state, &publisher, items).await,
        None => items,
    };
    let mut publishes = Vec::with_capacity(items.len());
    let mut channels = Vec::with_capacity(items.len());
    for item in items {
        channels.push(item.map(|publish| {
            let channel = publish.channel.clone();
            publishes.push(publish);
            channel
        }));
    }
    let mut answers = match publishes.is_empty() {
        true => Vec::new(),
        false => state.broker.publish(publishes).await,
    }
    .into_iter();
    let results: Vec<_> = channels
        .into_iter()
        .map(|channel| {
            let channel = channel?;
            let answer = answers.next().unwrap_or(Err(BrokerError::OutcomeUnknown));
            Ok((channel, answer?))
        })
        .collect();
    if let Some(error) = all_unavailable(&results) {
        return Err(error);
    }
    let is_new = |result: &&ItemResult| matches!(result, Ok((_, new)) if !new.duplicate);
    metrics::http_published(results.iter().filter(is_new).count() as u64);
    Ok(write_results(names, &results))
}

/// What is to be published of several once that was asked; all are asked about before the first answer is waited for.
async fn consented(
    state: &ApiState,
    publisher: &Publisher,
    items: Vec<Result<Publish, ApiError>>,
) -> Vec<Result<Publish, ApiError>> {
    let ask = |publish| consent::consented(state, Some(publisher), publish);
    let asked: Vec<_> = items.into_iter().map(|item| item.map(ask)).collect();
    let mut items = Vec::with_capacity(asked.len());
    for item in asked {
        items.push(match item {
            Ok(asked) => asked.await,
            Err(error) => Err(error),
        });
    }
    items
}

/// What came of one publication of several.
type ItemResult = Result<(ChannelKey, Published), ApiError>;

/// A broker that took nothing is a failed call (503), not a success with a list of failures.
fn all_unavailable(results: &[ItemResult]) -> Option<ApiError> {
    let mut errors = Vec::with_capacity(results.len());
    for result in results {
        let error = result.as_ref().err()?;
        if error.code() != ErrorCode::BrokerUnavailable {
            return None;
        }
        errors.push(error);
    }
    let worst = errors.iter().max_by_key(|error| error.outcome_unknown())?;
    Some((*worst).clone())
}

fn write_results(names: &[Text<'_>], results: &[ItemResult]) -> Vec<u8> {
    let names_bytes: usize = names.iter().map(|name| name.0.len()).sum();
    let mut out = Vec::with_capacity(names_bytes + RESULT_BYTES * (results.len() + 1));
    out.extend_from_slice(b"{\"results\":[");
    for (index, (name, result)) in names.iter().zip(results).enumerate() {
        if index > 0 {
            out.push(b',');
        }
        match result {
            Ok((channel, published)) => write_published(&mut out, channel, published),
            Err(error) => write_failed(&mut out, &name.0, error),
        }
    }
    out.extend_from_slice(b"]}");
    out
}

fn write_published(out: &mut Vec<u8>, channel: &ChannelKey, published: &Published) {
    json::open_channel(out, channel);
    json::position(out, published.position);
    out.push(b'}');
}

/// The envelope with the channel's name, as the caller wrote it, in front.
fn write_failed(out: &mut Vec<u8>, name: &str, error: &ApiError) {
    #[derive(serde::Serialize)]
    struct Failed<'a> {
        channel: &'a str,
        #[serde(flatten)]
        envelope: super::error::Envelope<'a>,
    }
    json::value(
        out,
        &Failed {
            channel: name,
            envelope: error.envelope(),
        },
    );
}
