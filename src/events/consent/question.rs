//! What is asked, and how it is written.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::header::HeaderName;
use serde::Serialize;
use serde_json::value::RawValue;

use super::Visitor;
use crate::auth::Identity;
use crate::model::{ChannelKey, ClientId, NodeId, Payload, SessionId};

/// Who wants something.
#[derive(Debug, Clone, Copy)]
pub struct Asker<'a> {
    /// Its token, or nobody in particular.
    pub identity: &'a Identity,
    /// The connection, where there is one already.
    pub client: Option<ClientId>,
    /// The session that it was opened with.
    pub session: Option<SessionId>,
    /// `ws`, `sse`, or `http` for a call.
    pub transport: &'static str,
}

/// A question, as it is written.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Question<'a> {
    ask: &'static str,
    node: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<String>,
    #[serde(flatten)]
    subject: Subject<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    /// The user of a verified token.
    #[serde(skip)]
    pub(super) verified: Option<&'a str>,
}

/// What an answer that is kept is good for: whoever asks the same of this gets the same answer.
#[derive(Debug, Clone, Serialize)]
struct Subject<'a> {
    transport: &'static str,
    /// Empty for nobody in particular.
    user: &'a str,
    /// Whether a verified token says who it is, or an earlier answer.
    authenticated: bool,
    #[serde(skip_serializing_if = "str::is_empty")]
    role: &'a str,
    /// All of them, where there are several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    roles: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    headers: BTreeMap<&'a str, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    channel: Option<&'a str>,
}

impl<'a> Question<'a> {
    /// Whether a client may connect. `headers` are the fields that are passed on.
    pub(super) fn connect(
        node: &'a NodeId,
        identity: &'a Identity,
        session: Option<&str>,
        visitor: Visitor<'_>,
        headers: &'a [HeaderName],
    ) -> Self {
        let told = headers.iter().filter_map(|name| {
            let values = visitor.headers.get_all(name).iter();
            let values: Vec<_> = values
                .map(|value| String::from_utf8_lossy(value.as_bytes()))
                .collect();
            // RFC 9110 section 5.3, and RFC 6265 section 5.4 for cookies.
            let comma = if name == http::header::COOKIE {
                "; "
            } else {
                ", "
            };
            (!values.is_empty()).then(|| (name.as_str(), values.join(comma)))
        });
        let subject = Subject {
            session: session.map(str::to_owned),
            address: Some(visitor.address.to_string()),
            headers: told.collect(),
            ..Subject::of(identity, visitor.transport)
        };
        Self::new("connect", node, identity, subject)
    }

    /// Whether a client may subscribe.
    pub(super) fn subscribe(node: &'a NodeId, asker: &Asker<'a>, channel: &'a ChannelKey) -> Self {
        Self::about("subscribe", node, asker, channel)
    }

    /// Whether somebody may publish this.
    pub(super) fn publish(
        node: &'a NodeId,
        asker: &Asker<'a>,
        channel: &'a ChannelKey,
        data: &'a Payload,
        key: Option<&'a str>,
    ) -> Self {
        Self {
            // A payload is JSON, by what makes one.
            data: serde_json::from_slice(data.as_bytes()).ok(),
            key,
            ..Self::about("publish", node, asker, channel)
        }
    }

    fn about(
        ask: &'static str,
        node: &'a NodeId,
        asker: &Asker<'a>,
        channel: &'a ChannelKey,
    ) -> Self {
        let subject = Subject {
            session: asker.session.map(|session| session.to_string()),
            channel: Some(channel.name()),
            ..Subject::of(asker.identity, asker.transport)
        };
        Self {
            client: asker.client.map(|client| client.to_string()),
            ..Self::new(ask, node, asker.identity, subject)
        }
    }

    fn new(
        ask: &'static str,
        node: &'a NodeId,
        identity: &'a Identity,
        subject: Subject<'a>,
    ) -> Self {
        Self {
            ask,
            node: node.as_str(),
            client: None,
            subject,
            data: None,
            key: None,
            verified: identity.authenticated.then_some(&*identity.user),
        }
    }

    /// The body. Texts cannot fail to be written.
    pub(super) fn write(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Under what its answer is kept.
    pub(super) fn subject(&self) -> Arc<str> {
        let subject = serde_json::to_string(&self.subject);
        subject.unwrap_or_default().into()
    }
}

impl<'a> Subject<'a> {
    fn of(identity: &'a Identity, transport: &'static str) -> Self {
        Self {
            transport,
            user: &identity.user,
            authenticated: identity.authenticated,
            role: &identity.role,
            roles: match identity.other_roles.is_empty() {
                true => Vec::new(),
                false => identity.roles().collect(),
            },
            session: None,
            address: None,
            headers: BTreeMap::new(),
            channel: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use http::{HeaderMap, HeaderValue, header};

    use super::*;

    fn ann() -> Identity {
        Identity {
            user: "ann".into(),
            role: "user".into(),
            authenticated: true,
            ..Identity::anonymous()
        }
    }

    #[test]
    fn a_connect_question_tells_the_listed_fields_and_no_others() {
        let mut headers = HeaderMap::new();
        headers.append(header::COOKIE, HeaderValue::from_static("a=1"));
        headers.append(header::COOKIE, HeaderValue::from_static("b=2"));
        headers.append(header::AUTHORIZATION, HeaderValue::from_static("Bearer x"));
        let visitor = Visitor {
            transport: "ws",
            address: Ipv4Addr::new(192, 0, 2, 1).into(),
            headers: &headers,
        };
        let (node, nobody) = (NodeId::new("node-1"), Identity::anonymous());
        let listed = [header::COOKIE, header::ORIGIN];
        let question = Question::connect(&node, &nobody, Some("s"), visitor, &listed);
        assert_eq!(
            question.write(),
            r#"{"ask":"connect","node":"node-1","transport":"ws","user":"","authenticated":false,"session":"s","address":"192.0.2.1","headers":{"cookie":"a=1; b=2"}}"#
        );
    }

    #[test]
    fn several_roles_are_told_and_an_answer_is_for_all_of_them() {
        let several = Identity {
            other_roles: ["editor".into()].into(),
            ..ann()
        };
        let (node, one) = (NodeId::new("node-1"), ann());
        let news = ChannelKey::new("news").expect("a name");
        let asker = |identity| Asker {
            identity,
            client: None,
            session: None,
            transport: "ws",
        };
        let (first, second) = (asker(&several), asker(&one));
        let asked = Question::subscribe(&node, &first, &news);
        assert_eq!(
            asked.write(),
            r#"{"ask":"subscribe","node":"node-1","transport":"ws","user":"ann","authenticated":true,"role":"user","roles":["user","editor"],"channel":"news"}"#
        );
        let other = Question::subscribe(&node, &second, &news);
        assert_ne!(asked.subject(), other.subject());
    }

    #[test]
    fn an_answer_is_good_for_the_subject_whatever_the_client_and_the_data() {
        let (node, ann) = (NodeId::new("node-1"), ann());
        let news = ChannelKey::new("news").expect("a name");
        let asker = |client| Asker {
            identity: &ann,
            client,
            session: None,
            transport: "ws",
        };
        let client = ClientId::random();
        let (one, two) = (asker(Some(client)), asker(None));
        let data = Payload::from_plain_json(r#"{"n":1}"#);
        let first = Question::publish(&node, &one, &news, &data, Some("k"));
        assert_eq!(
            first.write(),
            format!(
                r#"{{"ask":"publish","node":"node-1","client":"{client}","transport":"ws","user":"ann","authenticated":true,"role":"user","channel":"news","data":{{"n":1}},"key":"k"}}"#
            )
        );
        let other = Payload::from_plain_json("2");
        let second = Question::publish(&node, &two, &news, &other, None);
        assert_eq!(first.subject(), second.subject());
        let sport = ChannelKey::new("sport").expect("a name");
        let third = Question::subscribe(&node, &two, &sport);
        assert_ne!(first.subject(), third.subject());
    }
}
