//! The doors: `GET /ws/connect`, `/ws/echo` and `/sse/connect`.
//!
//! Who comes is looked at before the upgrade and refused with a plain HTTP answer; only then a place in the worker's
//! intake is taken and 101 answered. One exception: a client that brings both `session_id` and `token` in its query
//! expects to be upgraded first and then closed with 1008.

mod introduction;
mod query;
mod refusal;
mod upgrade;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Extension, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_ORIGIN, ALLOW, DATE, HOST, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::auth::{Action, Identity, Verifier, may};
use crate::events::{Consent, Visitor};
use crate::http1;
use crate::model::{ChannelKey, ErrorCode, Namespaces, WireFormat, WorkerIndex};
use crate::protocol::sse;
use crate::session::Sessions;
use crate::telemetry::metrics;

use super::Config;
use super::intake::{EventStream, Held, Intake, Place, Purpose, Resume, Slot, Ticket};
pub use introduction::AddressOf;
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
    /// Who is asked whether they may connect, and have their channels.
    pub consent: Arc<Consent>,
    /// Where they come from.
    pub address_of: AddressOf,
    /// One for each worker.
    pub intakes: Arc<[Arc<Intake>]>,
    /// Whether the node is too busy for another client.
    pub pressure: Pressure,
}

/// What somebody is attached to.
#[derive(Debug)]
pub struct Attached<'a> {
    /// The channel.
    pub channel: ChannelKey,
    /// The id of an event, after which who names none goes on.
    pub from: Option<&'a str>,
    /// They stand in the head of the stream.
    pub fields: HeaderMap,
    /// What lives as long as the connection.
    pub held: Option<Held>,
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
    let address = doors.address_of.find(&request);
    let (headers, query) = (request.headers(), request.uri().query());
    let accept = accept_key(request.version(), headers)?;
    doors.check_origin(headers)?;
    let protocol = Subprotocol::select(headers)?;
    let named = parameter(query, "session_id");
    let has_both = named.is_some() && parameter(query, "token").is_some();
    let visitor = Visitor {
        transport: "ws",
        address,
        headers,
    };
    let introduced = doors.introduce(visitor, query, named).await;
    let (identity, session, refused) = match introduced {
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
    let address = doors.address_of.find(&request);
    let (headers, query) = (request.headers(), request.uri().query());
    doors.check_origin(headers)?;
    let visitor = Visitor {
        transport: "sse",
        address,
        headers,
    };
    let (identity, _) = doors.introduce(visitor, query, None).await?;
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
    doors.consent_to_channels(&identity, &channels).await?;
    let from = resume(headers, query, &channels);
    let mut head = Vec::new();
    sse::response_head(&doors.stream_fields(headers), &mut head);
    doors.admit(&slot, worker, |place| Ticket {
        purpose: Purpose::Events(EventStream {
            channels,
            from,
            held: None,
        }),
        identity,
        session: None,
        refused: None,
        head: head.into(),
        _place: place,
    })
}

impl Doors {
    /// Attaches whoever asks to a channel that the caller has let it into: the answer to its request. It goes on after its
    /// own `Last-Event-ID`, or else after the given id, or from now on.
    pub fn attach(
        &self,
        (slot, worker): (&Slot, WorkerIndex),
        headers: &HeaderMap,
        to: Attached<'_>,
    ) -> Response {
        let attached = || {
            self.check_origin(headers)?;
            let channels = vec![to.channel];
            let from = match (resume(headers, None, &channels), to.from) {
                (Resume::Now, Some(id)) => {
                    sse::parse_last_event_id(id, &channels).map_or(Resume::Now, Resume::From)
                }
                (from, _) => from,
            };
            let mut extra = self.stream_fields(headers);
            extra.extend(to.fields);
            let mut head = Vec::new();
            sse::response_head(&extra, &mut head);
            self.admit(slot, worker, |place| Ticket {
                purpose: Purpose::Events(EventStream {
                    channels,
                    from,
                    held: to.held,
                }),
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
