//! Who is let in: the route, the path, the rate, the token; and what the upstream is told of the client.

use std::borrow::Cow;
use std::sync::Arc;

use tokio::time::Instant;

use super::access::Entry;
use super::address::{Arrival, Client, client};
use super::cache::{self, Way};
use super::call::Call;
use super::counting::Limiter;
use super::course::{Asked, Course, accepts_problems, expects, key};
use super::error::ProxyError;
use super::fields::{Introduction, is_looping, write_request};
use super::ids::{ids, request_id};
use super::open_streams::{Kind, StreamPermit};
use super::path::normalise;
use super::rate::Whose;
use super::table::{Route, Target, target};
use super::websocket::{Handshake, upstream_target};
use super::{IdentityRule, Proxy, RateKey, Strain};
use crate::auth::{Identity, bearer, client_token};
use crate::http1::{Exchange, RequestHead, has_entry};
use crate::limits::Decision;
use crate::model::ErrorCode;
use crate::telemetry::proxy::{self as counts, Carried};

/// What a token said, and where it stood.
struct Admitted {
    identity: Option<Arc<Identity>>,
    is_in_query: bool,
    is_in_protocol: bool,
}

impl Admitted {
    const NOBODY: Self = Self {
        identity: None,
        is_in_query: false,
        is_in_protocol: false,
    };
}

impl Proxy {
    /// Takes a request over whose path is the proxy's; of others it takes none.
    pub fn take(
        self: &Arc<Self>,
        head: &RequestHead<'_>,
        arrival: Arrival,
    ) -> Option<Box<dyn Exchange>> {
        let (path, query) = split(head.target);
        if !Self::takes(path) || self.pages.are_asked(head) {
            return None;
        }
        if let (Some(target), Some(route)) = self.matched(path)
            && self.shares(head, target.carried, &route, query)
            && !is_lost(head, target.carried, arrival)
        {
            // It comes back by `subscribe`.
            return None;
        }
        let (course, counted, mut asked) = self.weigh(head, arrival, Instant::now());
        let proxy = self.clone();
        Some(Box::new(match (course, counted) {
            (Ok(course), Some(counted)) => Call::counted(proxy, asked, course, head.body, counted),
            (Ok(course), None) => Call::new(proxy, asked, course, head.body),
            (Err(error), counted) => {
                if let Some((limiter, decision)) = counted {
                    limiter.limits.tell(&mut asked.lines, &decision);
                }
                Call::refuse(proxy, asked, head.body, &error)
            }
        }))
    }

    /// What a path asks for, and the route that it is matched to.
    fn matched<'p>(&self, path: &'p str) -> (Option<Target<'p>>, Option<Arc<Route>>) {
        let target = target(path);
        let route = target.as_ref().and_then(|target| {
            let table = self.table.load();
            table.service(target.service).cloned()
        });
        (target, route)
    }

    /// Where a request goes, or why nowhere, and how it was counted.
    pub(super) fn weigh(
        &self,
        head: &RequestHead<'_>,
        arrival: Arrival,
        started: Instant,
    ) -> (
        Result<Course, ProxyError>,
        Option<(Limiter, Decision)>,
        Asked,
    ) {
        let (path, query) = split(head.target);
        let client = client(
            arrival.peer.ip(),
            arrival.is_encrypted,
            head.fields,
            &self.trusted,
        );
        let ids = ids(head);
        let (target, route) = self.matched(path);
        let limiter = self.limiter(route.as_ref(), Whose::address(client.ip));
        let asked = Asked {
            carried: target
                .as_ref()
                .map_or(Carried::Http, |target| target.carried),
            method: counts::Method::of(head.method),
            verb: head.method.to_owned(),
            is_idempotent: matches!(head.method, "GET" | "HEAD" | "OPTIONS" | "PUT" | "DELETE"),
            is_old: head.is_old,
            keeps_alive: head.keeps_alive,
            expects: expects(head),
            accepts_problems: accepts_problems(head),
            audience: self.pages.audience(head),
            is_encrypted: arrival.is_encrypted,
            has_limits: limiter.is_some(),
            lines: ids.clone(),
            started,
            entry: self.entry(head, &ids, &client, started),
        };
        let (course, counted) = self.count_around(limiter, self.at(started), || {
            self.course(head, (target, route), query, (&client, arrival), &ids)
        });
        (course, counted, asked)
    }

    /// Whether the body, where its length is told, is one that may come.
    fn check_length(&self, head: &RequestHead<'_>) -> Result<(), ProxyError> {
        match head.body {
            crate::http1::Framing::Length(length) if length > self.body_bytes_max => {
                Err(ProxyError::Body(crate::model::BodyError::TooLarge))
            }
            _ => Ok(()),
        }
    }

    fn course(
        &self,
        head: &RequestHead<'_>,
        (target, route): (Option<Target<'_>>, Option<Arc<Route>>),
        query: Option<&str>,
        (client, arrival): (&Client, Arrival),
        ids: &[u8],
    ) -> Result<Course, ProxyError> {
        let path = head.target.split('?').next().unwrap_or_default();
        let no_route = || ProxyError::NotFound(head.method.to_owned(), path.to_owned());
        let target = target.ok_or_else(no_route)?;
        let is_web_socket = target.carried == Carried::Ws;
        let is_left = !is_web_socket && self.pages.leave_to_upstream(head);
        if target.carried != Carried::Http && !matches!(head.method, "GET" | "HEAD") && !is_left {
            return Err(no_route());
        }
        if is_lost(head, target.carried, arrival) {
            return Err(ProxyError::NoWebSocket);
        }
        self.check_length(head)?;
        if is_looping(head) {
            return Err(ProxyError::Looping);
        }
        let rest = normalise(target.rest).map_err(|_| ProxyError::BadPath)?;
        let handshake = match is_web_socket {
            true => Some(self.handshake(head)?),
            false => None,
        };
        let rule = route
            .as_ref()
            .map_or(&self.identity, |route| &route.policy.identity);
        // Who may not ask does not get to know which services there are.
        let admitted = match self.authenticate(head, target.carried, query, rule) {
            // Browsers send no token then; whoever asks without one learns here which services there are.
            Err(ProxyError::Unauthorized) if is_left => Admitted::NOBODY,
            admitted => admitted?,
        };
        let Some(route) = &route else {
            return Err(ProxyError::UnknownService(target.service.to_owned()));
        };
        let forwarded = match is_web_socket {
            true => upstream_target(query)?,
            false => with_query(&rest, query, admitted.is_in_query),
        };
        let identity = admitted.identity.as_deref();
        let key = key(route, head, &forwarded, client, identity);
        let identity = identity.map(|identity| (&*identity.user as &str, &*identity.role));
        if identity.is_some_and(|(user, role)| !is_field_text(user) || !is_field_text(role)) {
            return Err(ProxyError::Unauthorized);
        }
        // As much as the allocator keeps ready for each thread (glibc: 1,032 bytes).
        let mut fields = Vec::with_capacity(1000);
        let introduction = Introduction {
            client,
            ids,
            identity,
            hides_bearer: admitted.is_in_protocol,
            upgrades: is_web_socket,
            is_http2: arrival.is_http2,
            tells_forwarded: self.tells_forwarded,
        };
        write_request(head, &introduction, &mut fields);
        let is_secure = is_secure(head, client);
        let policy = route.policy.cache;
        let policy = policy.filter(|_| target.carried == Carried::Http);
        let cache = policy.and_then(|policy| {
            let key = cache::key(is_secure, &route.name, &forwarded, &fields);
            Way::of(head, key, identity.is_some(), policy)
        });
        self.check_strain(target.carried, cache.as_ref(), &fields)?;
        let permit = stream_permit(route, target.carried, client, admitted.identity.as_deref())?;
        Ok(Course {
            route: route.clone(),
            key,
            identity: admitted.identity.clone(),
            target: forwarded,
            fields,
            is_secure,
            handshake,
            cache,
            permit,
        })
    }

    /// Whether the node has enough to do without this request, whose fields are these. What costs an upstream nothing is
    /// answered as long as anything is.
    fn check_strain(
        &self,
        carried: Carried,
        cache: Option<&Way>,
        fields: &[u8],
    ) -> Result<(), ProxyError> {
        match bears(self.strain(), carried) || self.has_fresh(cache, fields) {
            true => Ok(()),
            false => Err(ProxyError::UnderPressure),
        }
    }

    /// How much there is to do, requests under way counted.
    fn strain(&self) -> Strain {
        match self.is_full() {
            true => Strain::Requests,
            false => (self.strain)(),
        }
    }

    /// The line of a request in the access log, where there is one.
    fn entry(
        &self,
        head: &RequestHead<'_>,
        ids: &[u8],
        client: &Client,
        began: Instant,
    ) -> Option<Box<Entry>> {
        let percent = self.access_percent;
        (percent > 0).then(|| {
            let path = head.target.split('?').next().unwrap_or_default();
            Box::new(Entry {
                is_chosen: rand::random_range(0..100) < percent,
                method: head.method.into(),
                path: path.into(),
                client: client.ip,
                request_id: request_id(ids).into(),
                began,
                upstream: None,
                status: None,
            })
        })
    }

    fn handshake(&self, head: &RequestHead<'_>) -> Result<Handshake, ProxyError> {
        let handshake = Handshake::of(head).ok_or(ProxyError::NotWebSocket)?;
        let (Some(allowed), Some(origin)) = (&self.origins, head.field("origin")) else {
            return Ok(handshake);
        };
        let origin = std::str::from_utf8(origin).unwrap_or_default();
        let host = origin.split_once("://").map_or(origin, |(_, host)| host);
        let may = host == head.host || allowed.iter().any(|allowed| allowed == origin);
        may.then_some(handshake).ok_or(ProxyError::Origin)
    }

    /// Whether it is known who asks.
    pub(super) fn is_known(
        &self,
        head: &RequestHead<'_>,
        carried: Carried,
        query: Option<&str>,
        rule: &IdentityRule,
    ) -> bool {
        let admitted = self.authenticate(head, carried, query, rule);
        // Who is refused is refused wherever it comes to.
        admitted.is_ok_and(|admitted| admitted.identity.is_some())
    }

    /// Says who asks; what the client says of itself goes no further.
    fn authenticate(
        &self,
        head: &RequestHead<'_>,
        carried: Carried,
        query: Option<&str>,
        rule: &IdentityRule,
    ) -> Result<Admitted, ProxyError> {
        if !rule.required && !self.tokens.verifier().has_keys() {
            return Ok(Admitted::NOBODY);
        }
        let text = |name| {
            head.field(name)
                .and_then(|value| std::str::from_utf8(value).ok())
        };
        let authorization = text("authorization");
        let protocols = text("sec-websocket-protocol").filter(|_| carried == Carried::Ws);
        let in_header = authorization.and_then(bearer).is_some();
        let in_protocol = !in_header && client_token(None, None, protocols).is_some();
        let token = match carried {
            Carried::Http => authorization.and_then(bearer).map(Cow::Borrowed),
            Carried::Sse | Carried::Ws => client_token(query, authorization, protocols),
        };
        match token.map(|token| self.tokens.verify(&token, self.unix_seconds())) {
            Some(Ok(identity)) if !may(&identity, rule) => Err(ProxyError::Forbidden),
            Some(Ok(identity)) => Ok(Admitted {
                identity: Some(identity),
                is_in_query: !in_header && !in_protocol,
                is_in_protocol: in_protocol,
            }),
            // Where none is required, it may be meant for the upstream.
            Some(Err(error)) if rule.required && error.code() == ErrorCode::Unavailable => {
                Err(ProxyError::Unverifiable)
            }
            _ if rule.required => Err(ProxyError::Unauthorized),
            _ => Ok(Admitted::NOBODY),
        }
    }
}

/// A place among the streams that somebody may have open; none for what is no stream, or where they are not counted.
fn stream_permit(
    route: &Route,
    carried: Carried,
    client: &Client,
    identity: Option<&Identity>,
) -> Result<Option<StreamPermit>, ProxyError> {
    let Some(policy) = route.policy.streams else {
        return Ok(None);
    };
    let (kind, most) = match carried {
        Carried::Http => return Ok(None),
        Carried::Sse => (Kind::Events, policy.sse_max),
        Carried::Ws => (Kind::WebSocket, policy.ws_max),
    };
    let user = identity.filter(|_| policy.by == RateKey::User);
    let whose = match user {
        Some(identity) => Whose::User(identity.user.clone()),
        None => Whose::address(client.ip),
    };
    let permit = route.open.open(whose, kind, most);
    permit.map(Some).ok_or(ProxyError::TooManyStreams)
}

/// Whether a request is taken on under such a strain. Streams and WebSockets go first: they would stay.
fn bears(strain: Strain, carried: Carried) -> bool {
    let most = match carried {
        Carried::Http => Strain::Streams,
        Carried::Sse | Carried::Ws => Strain::None,
    };
    strain <= most
}

/// Whether a WebSocket is asked for where there is none. Over HTTP/1 that is a request as any other, whose upgrade is not
/// taken (RFC 9110 section 7.8); over HTTP/2 (RFC 8441) it is nothing else.
fn is_lost(head: &RequestHead<'_>, carried: Carried, arrival: Arrival) -> bool {
    arrival.is_http2 && carried != Carried::Ws && has_entry(head.fields, "upgrade", "websocket")
}

/// Path and query.
fn split(target: &str) -> (&str, Option<&str>) {
    match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    }
}

/// Whether a role of the token is one of those that may.
fn may(identity: &Identity, rule: &IdentityRule) -> bool {
    let mut roles = rule.roles.iter();
    rule.roles.is_empty() || roles.any(|role| identity.has_role(role))
}

/// Whether the client's connection is encrypted: to us, or to a trusted proxy that says so.
fn is_secure(head: &RequestHead<'_>, client: &Client) -> bool {
    let proto = head.field("x-forwarded-proto");
    let is_https = proto.is_some_and(|proto| proto.eq_ignore_ascii_case(b"https"));
    client.is_encrypted || (client.is_behind_trusted && is_https)
}

/// Whether a text can stand in a field as it is.
fn is_field_text(text: &str) -> bool {
    text.bytes().all(|byte| byte >= b' ' && byte != 0x7f)
}

/// Path and query as the upstream gets them: without the token, where that stood in the query and let the client in.
fn with_query(path: &str, query: Option<&str>, hides_token: bool) -> String {
    let Some(query) = query.filter(|query| !query.is_empty()) else {
        return path.to_owned();
    };
    if !hides_token {
        return [path, "?", query].concat();
    }
    let kept: Vec<&str> = query
        .split('&')
        .filter(|pair| !pair.starts_with("token="))
        .collect();
    match kept.is_empty() {
        true => path.to_owned(),
        false => [path, "?", &kept.join("&")].concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_turned_away_before_requests_are() {
        let all = [Carried::Http, Carried::Sse, Carried::Ws];
        for (strain, expected) in [
            (Strain::None, [true, true, true]),
            (Strain::Streams, [true, false, false]),
            (Strain::Requests, [false, false, false]),
        ] {
            assert_eq!(
                all.map(|carried| bears(strain, carried)),
                expected,
                "{strain:?}"
            );
        }
    }
}
