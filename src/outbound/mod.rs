//! What this node asks of others over HTTP: an issuer's keys, webhooks, questions to back ends.
//!
//! One client for all of it, on a thread of its own, so that a slow name server or a TLS handshake costs no worker
//! anything. Every call is bounded in time and in bytes. Redirects are not followed: an answer comes from where the
//! operator said, or not at all. `https` is trusted by the system's certificate authorities.

mod endpoint;

use std::error::Error;
use std::future::Future;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, USER_AGENT};
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::JoinHandle;

pub use endpoint::{ENDPOINT_RULE, Endpoint, EndpointError};

/// How long a connection may be idle that is kept for the next call.
const IDLE: Duration = Duration::from_secs(30);
/// The most idle connections to one place.
const IDLE_MAX: usize = 32;

/// One call.
#[derive(Debug, Clone)]
pub struct Call {
    method: Method,
    endpoint: Endpoint,
    headers: HeaderMap,
    body: Bytes,
    timeout: Duration,
    answer_bytes_max: usize,
}

impl Call {
    /// `GET`, answered within so long with so many bytes at most.
    pub fn get(endpoint: &Endpoint, timeout: Duration, answer_bytes_max: usize) -> Self {
        Self {
            method: Method::GET,
            endpoint: endpoint.clone(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
            timeout,
            answer_bytes_max,
        }
    }

    /// `POST` of JSON, bounded alike.
    pub fn post(
        endpoint: &Endpoint,
        json: impl Into<Bytes>,
        timeout: Duration,
        answer_bytes_max: usize,
    ) -> Self {
        let call = Self::get(endpoint, timeout, answer_bytes_max);
        Self {
            method: Method::POST,
            body: json.into(),
            ..call.header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
        }
    }

    /// The same with a further header.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }
}

/// An answer, whatever its status.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The whole body.
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OutboundError {
    /// It cannot be reached, or broke off.
    #[error("it cannot be reached: {0}")]
    Unreachable(String),
    /// It took too long.
    #[error("it did not answer in time")]
    TimedOut,
    /// It said too much.
    #[error("its answer has too many bytes")]
    TooLarge,
    /// This node ends.
    #[error("the node ends")]
    Stopped,
}

type HttpClient = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// Calls others.
#[derive(Debug)]
pub struct Outbound {
    client: HttpClient,
    handle: Handle,
    /// Taken at the end.
    runtime: Mutex<Option<Runtime>>,
}

impl Outbound {
    /// Starts its thread.
    ///
    /// # Errors
    /// When the system gives no thread, or has no certificate authorities to trust.
    pub fn start() -> io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("fanfare-outbound")
            .enable_all()
            .build()?;
        let mut connector = HttpConnector::new();
        // Which scheme is right is for the TLS around it to say.
        connector.enforce_http(false);
        connector.set_nodelay(true);
        let connector = HttpsConnectorBuilder::new()
            .with_native_roots()?
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(IDLE_MAX)
            .build(connector);
        Ok(Self {
            client,
            handle: runtime.handle().clone(),
            runtime: Mutex::new(Some(runtime)),
        })
    }

    /// Runs a task beside the calls, until this ends.
    pub fn spawn<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        self.handle.spawn(task)
    }

    /// Calls. The call goes on although nobody waits for the answer any more.
    pub fn send(
        &self,
        call: Call,
    ) -> impl Future<Output = Result<Answer, OutboundError>> + Send + use<> {
        let client = self.client.clone();
        let limit = call.timeout;
        let task = self.handle.spawn(async move {
            let exchanged = tokio::time::timeout(limit, exchange(client, call)).await;
            exchanged.unwrap_or(Err(OutboundError::TimedOut))
        });
        async move { task.await.unwrap_or(Err(OutboundError::Stopped)) }
    }

    /// Waits for a task, for a thread that is no worker; `None` when it takes longer.
    pub fn wait<T>(&self, limit: Duration, task: impl Future<Output = T>) -> Option<T> {
        self.handle
            .block_on(async { tokio::time::timeout(limit, task).await.ok() })
    }

    /// Ends everything that is under way.
    pub fn end(&self) {
        let mut runtime = self.runtime.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(runtime) = runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Outbound {
    fn drop(&mut self) {
        // A runtime may not be dropped where tasks run; in the background it may.
        self.end();
    }
}

async fn exchange(client: HttpClient, call: Call) -> Result<Answer, OutboundError> {
    let mut request = Request::new(Full::new(call.body));
    *request.method_mut() = call.method;
    *request.uri_mut() = call.endpoint.uri().clone();
    *request.headers_mut() = call.headers;
    let agent = concat!("fanfare/", env!("CARGO_PKG_VERSION"));
    let agent = HeaderValue::from_static(agent);
    request.headers_mut().insert(USER_AGENT, agent);
    let response = client
        .request(request)
        .await
        .map_err(|error| OutboundError::Unreachable(in_full(&error)))?;
    let status = response.status().as_u16();
    let body = Limited::new(response.into_body(), call.answer_bytes_max);
    match body.collect().await {
        Ok(body) => Ok(Answer {
            status,
            body: body.to_bytes(),
        }),
        Err(error) if error.is::<LengthLimitError>() => Err(OutboundError::TooLarge),
        Err(error) => Err(OutboundError::Unreachable(in_full(&*error))),
    }
}

/// The client's own text says only "connect"; why stands in the causes.
fn in_full(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
