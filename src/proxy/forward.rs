//! The road of one request: who asks, what for, which upstream, and what to do when that one fails.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use axum::extract::Request;
use axum::response::Response;
use http::header::{AUTHORIZATION, CACHE_CONTROL, HOST};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use hyper::body::Incoming;
use tokio::time::{Instant, timeout_at};

use super::Proxy;
use super::address::{Client, client};
use super::endpoint::{Attempt, Endpoint};
use super::error::ProxyError;
use super::exchange::{Failure, UpstreamBody, send};
use super::headers::{self, Ids, X_USER_ID, X_USER_ROLE};
use super::path::normalise;
use super::table::{Service, Target, target};
use super::wire::{self, Wire};
use crate::auth::{Identity, bearer, client_token};
use crate::limits::Decision;
use crate::model::PeerAddr;
use crate::telemetry::proxy::{self as counts, Carried};

/// How long an upstream may take to accept a connection.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(3);
/// Upstreams that are asked for one request, at most.
const TRIES_MAX: usize = 3;

impl Proxy {
    /// Answers a request whose path it [takes](Proxy::takes).
    pub async fn serve(&self, request: Request) -> Response {
        let started = Instant::now();
        let (mut head, body) = request.into_parts();
        let ids = Ids::of(&head.headers);
        ids.set(&mut head.headers);
        let peer = head.extensions.get::<PeerAddr>();
        let peer = peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.0.ip());
        let client = client(peer, &head.headers, &self.trusted);
        let decision = self
            .limits
            .as_ref()
            .map(|limits| limits.check(client.ip, self.now()));
        let method = counts::Method::of(head.method.as_str());
        let carried = target(head.uri.path()).map_or(Carried::Http, |target| target.carried);
        let answer = match decision {
            Some(decision) if !decision.is_allowed => Err(ProxyError::TooMany(decision)),
            _ => self.forward(head, body, &client, started).await,
        };
        let mut response = answer.unwrap_or_else(|error| error.response());
        ids.set(response.headers_mut());
        self.tell_limits(&mut response, decision.as_ref());
        counts::answered(
            carried,
            method,
            response.status().as_u16(),
            started.elapsed(),
        );
        response
    }

    fn tell_limits(&self, response: &mut Response, decision: Option<&Decision>) {
        if let (Some(limits), Some(decision)) = (&self.limits, decision) {
            limits.tell(response.headers_mut(), decision);
        }
    }

    async fn forward(
        &self,
        mut head: Parts,
        body: Body,
        client: &Client,
        started: Instant,
    ) -> Result<Response, ProxyError> {
        let uri = head.uri.clone();
        let method = head.method.clone();
        let no_route = || ProxyError::NotFound(method.clone(), uri.path().to_owned());
        let target = target(uri.path()).ok_or_else(no_route)?;
        let reads = matches!(method, Method::GET | Method::HEAD);
        if target.carried == Carried::Sse && !reads {
            return Err(no_route());
        }
        let path = normalise(target.rest).map_err(|_| ProxyError::BadPath)?;
        headers::prepare_request(&mut head.headers, client);
        let query = self.authenticate(&mut head, &target, uri.query())?;
        let table = self.table.load();
        let unknown = || ProxyError::UnknownService(target.service.to_owned());
        let service = table.service(target.service).ok_or_else(unknown)?.clone();
        drop(table);
        let course = Course {
            proxy: self,
            service: &service,
            carried: target.carried,
            path: &path,
            query: query.as_deref(),
            deadline: started + self.timeout,
        };
        let (answer, wire, attempt) = course.run(head, body).await?;
        Ok(self.answer(answer, wire, attempt, target.carried))
    }

    /// Says who asks; what the client said of itself is gone by now. Gives the query that is forwarded: without the token,
    /// where that was what let the client in.
    fn authenticate<'a>(
        &self,
        head: &mut Parts,
        target: &Target<'_>,
        query: Option<&'a str>,
    ) -> Result<Option<std::borrow::Cow<'a, str>>, ProxyError> {
        let headers = &mut head.headers;
        let config = self.verifier.config();
        if config.secrets.is_empty() && !config.required {
            return Ok(query.map(Into::into));
        }
        let authorization = headers.get(AUTHORIZATION);
        let authorization = authorization.and_then(|value| value.to_str().ok());
        let in_header = authorization.and_then(bearer);
        let token = match target.carried {
            Carried::Http => in_header.map(Into::into),
            _ => client_token(query, authorization, []),
        };
        let identity = match token.map(|token| self.verifier.verify(&token, self.unix_seconds())) {
            Some(Ok(identity)) => identity,
            // Where none is required, it may be meant for the upstream.
            _ if config.required => return Err(ProxyError::Unauthorized),
            _ => return Ok(query.map(Into::into)),
        };
        let is_in_query = in_header.is_none();
        introduce(headers, &identity).ok_or(ProxyError::Unauthorized)?;
        Ok(query.map(|query| match is_in_query {
            true => without_token(query).into(),
            false => query.into(),
        }))
    }

    fn answer(
        &self,
        answer: http::Response<Incoming>,
        wire: Box<Wire>,
        attempt: Attempt,
        carried: Carried,
    ) -> Response {
        let (mut head, body) = answer.into_parts();
        headers::prepare_response(&mut head.headers);
        head.extensions.clear();
        head.version = http::Version::HTTP_11;
        let pause_max = match carried {
            Carried::Sse => {
                let no_cache = HeaderValue::from_static("no-cache");
                head.headers.insert(CACHE_CONTROL, no_cache);
                let unbuffered = HeaderName::from_static("x-accel-buffering");
                head.headers
                    .insert(unbuffered, HeaderValue::from_static("no"));
                None
            }
            _ => Some(self.timeout),
        };
        Response::from_parts(head, UpstreamBody::stream(body, wire, attempt, pause_max))
    }
}

/// What stays the same over all tries of a request.
struct Course<'a> {
    proxy: &'a Proxy,
    service: &'a Service,
    carried: Carried,
    path: &'a str,
    query: Option<&'a str>,
    deadline: Instant,
}

/// What became of one try.
enum Tried {
    Answered(http::Response<Incoming>, Box<Wire>, Attempt),
    /// This upstream failed; the request may be tried with another, if there is something to send.
    Failed(ProxyError, Option<(Parts, Body)>),
}

impl Course<'_> {
    async fn run(
        &self,
        head: Parts,
        body: Body,
    ) -> Result<(http::Response<Incoming>, Box<Wire>, Attempt), ProxyError> {
        self.service.requested(self.proxy.now());
        let mut next = (head, body);
        let mut avoid = None;
        for left in (0..TRIES_MAX.min(self.service.endpoints.len())).rev() {
            let now = self.proxy.now();
            let (endpoint, pass) = self.service.choose(now, avoid);
            avoid = Some(endpoint.id);
            let attempt = Attempt::begin(endpoint, pass, self.carried, now);
            match self.attempt(attempt, next).await {
                Tried::Answered(answer, wire, attempt) => return Ok((answer, wire, attempt)),
                Tried::Failed(_, Some(again))
                    if left > 0 && self.service.may_retry(self.proxy.now()) =>
                {
                    next = again;
                }
                Tried::Failed(error, _) => return Err(error),
            }
        }
        Err(ProxyError::Unavailable)
    }

    /// Asks one upstream. A pooled connection that turns out to be closed is replaced by a new one, once, and is no
    /// failure of the upstream's.
    async fn attempt(&self, mut attempt: Attempt, (head, body): (Parts, Body)) -> Tried {
        let endpoint = attempt.endpoint.clone();
        let mut pooled = wire::take(endpoint.id);
        let (mut head, mut body) = (head, body);
        loop {
            let began = Instant::now();
            let mut wire = match pooled.take() {
                Some(wire) => wire,
                None => match self.dial(&endpoint).await {
                    Ok(wire) => wire,
                    Err(error) => {
                        attempt.failed(self.proxy.now());
                        // Nothing was sent, so even a POST can go elsewhere.
                        return Tried::Failed(error, Some((head, body)));
                    }
                },
            };
            let replay = self.replay(&wire, &head, &body);
            let Some(request) = self.request(&endpoint, head, body) else {
                return Tried::Failed(ProxyError::BadPath, None);
            };
            let failure = match send(&mut wire, request, self.deadline).await {
                Ok(answer) if answer.status() != StatusCode::SWITCHING_PROTOCOLS => {
                    let status = answer.status().as_u16();
                    attempt.answered(status, began.elapsed(), self.proxy.now());
                    return Tried::Answered(answer, wire, attempt);
                }
                // Nobody asked for another protocol.
                Ok(_) => Failure::Broken,
                Err(failure) => failure,
            };
            let (error, again) = match failure {
                Failure::Body(error) => return Tried::Failed(ProxyError::Body(error), None),
                Failure::TimedOut => (ProxyError::TimedOut, None),
                Failure::Broken => (ProxyError::Unavailable, replay),
                Failure::Unsent(request) => (ProxyError::Unavailable, Some(request.into_parts())),
            };
            match again {
                Some(again) if wire.is_reused => (head, body) = again,
                again => {
                    attempt.failed(self.proxy.now());
                    return Tried::Failed(error, again);
                }
            }
        }
    }

    async fn dial(&self, endpoint: &Endpoint) -> Result<Box<Wire>, ProxyError> {
        let until = self.deadline.min(Instant::now() + CONNECT_TIME_MAX);
        let socket = timeout_at(until, endpoint.dial()).await;
        let socket = socket.map_err(|_| ProxyError::TimedOut)?;
        let socket = socket.map_err(|error| {
            tracing::debug!(%error, upstream = %endpoint.address.url, "cannot reach an upstream");
            ProxyError::Unavailable
        })?;
        Wire::new(socket).await.map_err(|_| ProxyError::Unavailable)
    }

    /// A copy of a request that may be sent twice, where that may become necessary.
    fn replay(&self, wire: &Wire, head: &Parts, body: &Body) -> Option<(Parts, Body)> {
        let is_idempotent = matches!(
            head.method,
            Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE
        );
        let is_useful = wire.is_reused || self.service.endpoints.len() > 1;
        (is_useful && is_idempotent && body.is_end_stream()).then(|| (head.clone(), Body::empty()))
    }

    /// The request as this upstream gets it.
    fn request(&self, endpoint: &Endpoint, mut head: Parts, body: Body) -> Option<Request> {
        let base = &*endpoint.address.base;
        let query = self.query.unwrap_or_default();
        let mut text = String::with_capacity(base.len() + self.path.len() + query.len() + 1);
        text.push_str(base);
        text.push_str(self.path);
        if !query.is_empty() {
            text.push('?');
            text.push_str(query);
        }
        head.uri = Uri::from_maybe_shared(bytes::Bytes::from(text)).ok()?;
        head.headers.insert(HOST, endpoint.authority.clone());
        head.extensions.clear();
        head.version = http::Version::HTTP_11;
        Some(Request::from_parts(head, body))
    }
}

/// `None` when what the token says cannot stand in a field.
fn introduce(headers: &mut HeaderMap, identity: &Identity) -> Option<()> {
    for (name, text) in [(X_USER_ID, &*identity.user), (X_USER_ROLE, &*identity.role)] {
        if !text.is_empty() {
            headers.insert(name, HeaderValue::from_bytes(text.as_bytes()).ok()?);
        }
    }
    Some(())
}

fn without_token(query: &str) -> String {
    let kept: Vec<&str> = query
        .split('&')
        .filter(|pair| !pair.starts_with("token="))
        .collect();
    kept.join("&")
}
