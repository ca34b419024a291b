//! The doors: `GET /ws/connect`, `/ws/echo` and `/sse/connect`.
//!
//! Who comes is looked at before the upgrade and refused with a plain HTTP answer; only then a place in the worker's
//! intake is taken and 101 answered. One exception: a client that brings both `session_id` and `token` in its query
//! expects to be upgraded first and then closed with 1008.

mod query;
mod refusal;
mod upgrade;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Extension, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_ORIGIN, ALLOW, AUTHORIZATION, DATE,
    HOST, ORIGIN, SEC_WEBSOCKET_PROTOCOL, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::auth::{Action, Identity, Verifier, client_token, may};
use crate::client::NamedSession;
use crate::http1;
use crate::model::{ChannelKey, CloseReason, ErrorCode, Namespaces, WireFormat, WorkerIndex};
use crate::protocol::sse;
use crate::session::{Admission, Sessions};
use crate::telemetry::metrics;

use super::Config;
use super::intake::{EventStream, Intake, Place, Purpose, Resume, Slot, Ticket};
use super::shard::unix_time;
use query::{parameter, resume, stream_channels};
use refusal::Refusal;
use upgrade::{Subprotocol, accept_key, switching_head};

/// What the handlers stand on.
#[derive(Debug, Clone)]
pub struct Doors {
    /// Origins, and whether there is an echo.
    pub config: Arc<Config>,
    /// Whether clients may have the channels that they ask for.
    pub namespaces: Arc<Namespaces>,
    /// Users' sessions.
    pub sessions: Arc<Sessions>,
    /// Who clients are.
    pub verifier: Arc<Verifier>,
    /// One for each worker.
    pub intakes: Arc<[Arc<Intake>]>,
    /// Whether the node is too busy for another client.
    pub pressure: Pressure,
}

/// Tells whether the node is too busy for another client. Asked at each handshake, so it has to be cheap.
#[derive(Clone)]
pub struct Pressure(Arc<dyn Fn() -> bool + Send + Sync>);

impl Pressure {
    /// As `is_high` says.
    pub fn new(is_high: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(is_high))
    }
}

impl std::fmt::Debug for Pressure {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Pressure")
    }
}

/// The routes of the doors.
pub fn router(doors: Doors) -> Router {
    // `get` would take HEAD too, whose answer carries no stream.
    let routes = Router::new()
        .route("/ws/connect", get(ws_connect).head(only_get))
        .route("/sse/connect", get(sse_connect).head(only_get));
    let routes = if doors.config.echo {
        routes.route("/ws/echo", get(ws_echo).head(only_get))
    } else {
        routes
    };
    routes
        .method_not_allowed_fallback(only_get)
        .with_state(Arc::new(doors))
}

async fn only_get() -> Response {
    let refusal = Refusal::new(ErrorCode::MethodNotAllowed, "only GET opens this door");
    ([(ALLOW, HeaderValue::from_static("GET"))], refusal).into_response()
}

async fn ws_connect(
    State(doors): State<Arc<Doors>>,
    Extension(slot): Extension<Slot>,
    Extension(worker): Extension<WorkerIndex>,
    request: Request,
) -> Result<Response, Refusal> {
    let (headers, query) = (request.headers(), request.uri().query());
    let accept = accept_key(request.version(), headers)?;
    doors.check_origin(headers)?;
    let protocol = Subprotocol::select(headers)?;
    let named = parameter(query, "session_id");
    let has_both = named.is_some() && parameter(query, "token").is_some();
    let identified = match doors.identify(headers, query).await {
        Ok(identity) => doors.find_session(identity, named).await,
        Err(refusal) => Err(refusal),
    };
    let (identity, session, refused) = match identified {
        Ok((identity, session)) => (identity, session, None),
        Err(Refusal {
            closes: Some(reason),
            ..
        }) if has_both => (Identity::nobody(), None, Some(reason)),
        Err(refusal) => return Err(refusal),
    };
    let purpose = Purpose::Messages(protocol.map_or(WireFormat::Json, Subprotocol::format));
    let head = switching_head(&accept, protocol.map(Subprotocol::name));
    doors.admit(&slot, worker, |place| Ticket {
        purpose,
        identity,
        session,
        refused,
        head,
        _place: place,
    })
}

async fn ws_echo(
    State(doors): State<Arc<Doors>>,
    Extension(slot): Extension<Slot>,
    Extension(worker): Extension<WorkerIndex>,
    request: Request,
) -> Result<Response, Refusal> {
    let accept = accept_key(request.version(), request.headers())?;
    doors.check_origin(request.headers())?;
    let head = switching_head(&accept, None);
    doors.admit(&slot, worker, |place| Ticket {
        purpose: Purpose::Echo,
        identity: Identity::nobody(),
        session: None,
        refused: None,
        head,
        _place: place,
    })
}

async fn sse_connect(
    State(doors): State<Arc<Doors>>,
    Extension(slot): Extension<Slot>,
    Extension(worker): Extension<WorkerIndex>,
    request: Request,
) -> Result<Response, Refusal> {
    let (headers, query) = (request.headers(), request.uri().query());
    doors.check_origin(headers)?;
    let identity = doors.identify(headers, query).await?;
    let (identity, _) = doors.find_session(identity, None).await?;
    let channels = stream_channels(query)?;
    for channel in &channels {
        if !may(
            &identity,
            doors.namespaces.of(channel),
            Action::Subscribe,
            channel,
        ) {
            let text = format!("this client may not subscribe to {}", channel.name());
            return Err(Refusal::new(ErrorCode::Forbidden, text));
        }
    }
    let from = resume(headers, query, &channels);
    let mut head = Vec::new();
    sse::response_head(&doors.stream_fields(headers), &mut head);
    doors.admit(&slot, worker, |place| Ticket {
        purpose: Purpose::Events(EventStream { channels, from }),
        identity,
        session: None,
        refused: None,
        head: head.into(),
        _place: place,
    })
}

impl Doors {
    /// Attaches whoever asks to a channel that the caller has let it into: the answer to its request. It goes on after its
    /// own `Last-Event-ID`, or else after the given id, or from now on. `fields` stand in the head of the stream.
    pub fn attach(
        &self,
        (slot, worker): (&Slot, WorkerIndex),
        headers: &HeaderMap,
        (channel, id): (ChannelKey, Option<&str>),
        fields: HeaderMap,
    ) -> Response {
        let attached = || {
            self.check_origin(headers)?;
            let channels = vec![channel];
            let from = match (resume(headers, None, &channels), id) {
                (Resume::Now, Some(id)) => {
                    sse::parse_last_event_id(id, &channels).map_or(Resume::Now, Resume::From)
                }
                (from, _) => from,
            };
            let mut extra = self.stream_fields(headers);
            extra.extend(fields);
            let mut head = Vec::new();
            sse::response_head(&extra, &mut head);
            self.admit(slot, worker, |place| Ticket {
                purpose: Purpose::Events(EventStream { channels, from }),
                identity: Identity::nobody(),
                session: None,
                refused: None,
                head: head.into(),
                _place: place,
            })
        };
        attached().unwrap_or_else(IntoResponse::into_response)
    }

    /// A browser may come from the listed origins, and from the page's own.
    fn check_origin(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let Some(allowed) = &self.config.origins else {
            return Ok(());
        };
        let Some(origin) = header(headers, &ORIGIN) else {
            return Ok(());
        };
        let host = origin.split_once("://").map_or(origin, |(_, host)| host);
        if header(headers, &HOST) == Some(host)
            || allowed
                .iter()
                .any(|allowed| allowed == origin || allowed == "*")
        {
            return Ok(());
        }
        Err(Refusal {
            counts_as: metrics::Refusal::Origin,
            ..Refusal::new(ErrorCode::Forbidden, "this origin is not allowed")
        })
    }

    /// The fields of this very stream: its date, and that an origin that was let in may read it, with its cookies where
    /// it was listed and that is allowed.
    fn stream_fields(&self, headers: &HeaderMap) -> HeaderMap {
        let mut extra = HeaderMap::new();
        if let Ok(date) = HeaderValue::try_from(http1::date()) {
            extra.insert(DATE, date);
        }
        if let Some(origin) = headers.get(ORIGIN) {
            extra.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            extra.insert(VARY, HeaderValue::from_static("Origin"));
            if self.config.credentials && self.config.origins.is_some() {
                let yes = HeaderValue::from_static("true");
                extra.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, yes);
            }
        }
        extra
    }

    async fn identify(
        &self,
        headers: &HeaderMap,
        query: Option<&str>,
    ) -> Result<Arc<Identity>, Refusal> {
        let protocols = headers
            .get_all(SEC_WEBSOCKET_PROTOCOL)
            .iter()
            .filter_map(|value| value.to_str().ok());
        let token = client_token(query, header(headers, &AUTHORIZATION), protocols);
        let identity = self
            .verifier
            .identify_or_ask(token.as_deref(), unix_time().as_secs());
        identity.await.map_err(|error| {
            // Where nobody can say, nobody is told that the token is wrong.
            let is_wrong = error.code() != ErrorCode::Unavailable;
            Refusal {
                closes: is_wrong.then_some(CloseReason::InvalidToken),
                ..Refusal::new(error.code(), error.to_string())
            }
        })
    }

    /// The session that a verified client names, or that its token was minted for. Of somebody without a token the
    /// name is taken as it is: it gives no rights.
    async fn find_session(
        &self,
        identity: Arc<Identity>,
        named: Option<String>,
    ) -> Result<(Arc<Identity>, Option<Box<NamedSession>>), Refusal> {
        let text = named.as_deref().map(Arc::from);
        let (login, has_token) = (identity.login_session, identity.authenticated);
        if !has_token || (login.is_none() && named.is_none()) {
            let unverified = |text| {
                Box::new(NamedSession {
                    text,
                    verified: None,
                })
            };
            return Ok((identity, text.map(unverified)));
        }
        let admitted = self.sessions.admit(&identity.user, login, named.as_deref());
        let admission = admitted.await.map_err(|error| {
            let unavailable = error.to_string();
            Refusal::new(ErrorCode::Unavailable, unavailable)
        })?;
        match admission {
            Admission::Admitted(verified) => {
                let text = text.or_else(|| verified.map(|id| id.to_string().into()));
                let named = text.map(|text| Box::new(NamedSession { text, verified }));
                Ok((identity, named))
            }
            Admission::Ended => Err(Refusal {
                closes: Some(CloseReason::InvalidToken),
                ..Refusal::new(
                    ErrorCode::InvalidToken,
                    "the session of the token has ended",
                )
            }),
            Admission::Mismatch => Err(Refusal {
                closes: Some(CloseReason::SessionMismatch),
                ..Refusal::new(ErrorCode::Forbidden, "Session mismatch")
            }),
        }
    }

    /// Takes a place in the worker's intake and leaves the ticket. The answer stays within the process: the worker
    /// writes the ticket's head in its place.
    fn admit(
        &self,
        slot: &Slot,
        worker: WorkerIndex,
        ticket: impl FnOnce(Place) -> Ticket,
    ) -> Result<Response, Refusal> {
        if (self.pressure.0)() {
            let text = "the node is under pressure";
            return Err(Refusal::new(ErrorCode::Unavailable, text));
        }
        let place = self.intakes.get(worker.0).and_then(Intake::reserve);
        let Some(place) = place else {
            return Err(Refusal::new(
                ErrorCode::Unavailable,
                "too many connections at once",
            ));
        };
        slot.fill(ticket(place));
        Ok(StatusCode::SWITCHING_PROTOCOLS.into_response())
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}
