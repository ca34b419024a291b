//! What a client asks for in its address.

use http::HeaderMap;

use super::refusal::Refusal;
use crate::model::{ChannelKey, ErrorCode};
use crate::protocol::sse;
use crate::transport::intake::Resume;

/// The most channels of one event stream.
const STREAM_CHANNELS_MAX: usize = 32;

/// The channels of an event stream's request, in order, each once.
pub(super) fn stream_channels(query: Option<&str>) -> Result<Vec<ChannelKey>, Refusal> {
    let mut channels: Vec<ChannelKey> = Vec::new();
    for name in parameters(query, "channel") {
        let channel = ChannelKey::new(&name);
        let channel = channel
            .map_err(|error| Refusal::new(ErrorCode::BadRequest, format!("channel: {error}")))?;
        if !channels.contains(&channel) {
            channels.push(channel);
        }
    }
    match channels.len() {
        0 => Err(Refusal::new(
            ErrorCode::BadRequest,
            "channel: at least one is needed, as ?channel=news",
        )),
        1..=STREAM_CHANNELS_MAX => Ok(channels),
        more => {
            let text = format!(
                "channel: {more} are too many for one stream, at most {STREAM_CHANNELS_MAX}"
            );
            Err(Refusal::new(ErrorCode::BadRequest, text))
        }
    }
}

/// Where the stream goes on from: the header that an `EventSource` sends by itself, or the query.
pub(super) fn resume(headers: &HeaderMap, query: Option<&str>, channels: &[ChannelKey]) -> Resume {
    let from_header = headers
        .get("last-event-id")
        .map(|value| value.to_str().unwrap_or("?").to_owned());
    match from_header
        .or_else(|| parameter(query, "last_event_id"))
        .as_deref()
    {
        None | Some("") => Resume::Now,
        Some(id) => sse::parse_last_event_id(id, channels).map_or(Resume::Unreadable, Resume::From),
    }
}

pub(super) fn parameter(query: Option<&str>, name: &str) -> Option<String> {
    parameters(query, name).next()
}

fn parameters<'a>(query: Option<&'a str>, name: &'a str) -> impl Iterator<Item = String> + 'a {
    let pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    pairs
        .filter(move |(key, _)| key == name)
        .map(|(_, value)| value.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_names_one_to_32_channels_each_once() {
        let names = |query| stream_channels(Some(query)).map(|channels| channels.len());
        assert_eq!(names("channel=a&channel=b&channel=a"), Ok(2));
        assert!(names("chanel=a").is_err());
        assert!(names("channel=a%20b").is_err());
        let many: String = (0..33).map(|at| format!("channel=c{at}&")).collect();
        assert!(stream_channels(Some(&many)).is_err());
    }
}
