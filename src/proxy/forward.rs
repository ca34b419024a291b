//! A request comes: the route that it is matched to, what stands in its way, and where it goes.

use std::sync::Arc;

use tokio::time::Instant;

use super::Proxy;
use super::address::{Arrival, Client, client};
use super::admitting::Admitted;
use super::cache::{self, Way};
use super::call::Call;
use super::counting::Limiter;
use super::course::{Asked, Course, accepts_problems, expects, key};
use super::error::ProxyError;
use super::fields::{Introduction, is_looping, write_request};
use super::ids::ids;
use super::path::normalise;
use super::rate::Whose;
use super::table::{Route, Target, target};
use super::websocket::{Handshake, upstream_target};
use crate::http1::{Exchange, RequestHead, has_entry};
use crate::limits::Decision;
use crate::telemetry::proxy::{self as counts, Carried};

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
        let identity = admitted.for_fields()?;
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
        let is_secure = client.is_secure(head.fields);
        let policy = route.policy.cache;
        let policy = policy.filter(|_| target.carried == Carried::Http);
        let cache = policy.and_then(|policy| {
            let key = cache::key(is_secure, &route.name, &forwarded, &fields);
            Way::of(head, key, identity.is_some(), policy)
        });
        self.check_strain(target.carried, cache.as_ref(), &fields)?;
        let permit = route.stream_permit(target.carried, client, admitted.identity.as_deref())?;
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
