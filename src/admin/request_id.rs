//! `x-request-id`: a name for a request by which its answer and its log lines are found again.
//!
//! A caller's id (1 to 128 visible characters) is kept; otherwise one is made, and the handler finds it in the
//! request's headers. The hot paths (publishing, connecting) get none of ours: at tens of thousands a second a random
//! number and a boxed future each are a cost that nobody reads. A caller's own id is answered there too.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::future::Either;
use http::{HeaderName, HeaderValue, Request, Response};
use tower::{Layer, Service};

/// The header.
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longest id of a caller that is kept.
const ID_BYTES_MAX: usize = 128;

/// Paths that get an id only when the caller brought one.
const HOT_PATHS: [&str; 6] = [
    "/hub/publish",
    "/hub/broadcast",
    "/hub/batch",
    "/ws/connect",
    "/ws/echo",
    "/sse/connect",
];

/// Puts [`RequestId`] around a service. Around the whole router (not as a layer of each route) it costs the hot paths
/// two comparisons.
#[derive(Debug, Clone, Copy, Default)]
pub struct RequestIdLayer;

impl<S> Layer<S> for RequestIdLayer {
    type Service = RequestId<S>;

    fn layer(&self, inner: S) -> RequestId<S> {
        RequestId { inner }
    }
}

/// A service whose answers carry the id of their request.
#[derive(Debug, Clone)]
pub struct RequestId<S> {
    inner: S,
}

impl<S, B, R> Service<Request<B>> for RequestId<S>
where
    S: Service<Request<B>, Response = Response<R>>,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = Either<S::Future, Named<S::Future>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let brought = request.headers().get(X_REQUEST_ID).filter(|id| is_kept(id));
        let id = match brought {
            Some(id) => id.clone(),
            None if HOT_PATHS.contains(&request.uri().path()) => {
                return Either::Left(self.inner.call(request));
            }
            None => {
                let id = random();
                request.headers_mut().insert(X_REQUEST_ID, id.clone());
                id
            }
        };
        Either::Right(Named {
            inner: Box::pin(self.inner.call(request)),
            id: Some(id),
        })
    }
}

/// An answer that will carry an id.
#[derive(Debug)]
pub struct Named<F> {
    inner: Pin<Box<F>>,
    id: Option<HeaderValue>,
}

impl<F, R, E> Future for Named<F>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut result = ready!(self.inner.as_mut().poll(cx));
        if let (Ok(response), Some(id)) = (&mut result, self.id.take()) {
            response.headers_mut().insert(X_REQUEST_ID, id);
        }
        Poll::Ready(result)
    }
}

/// Visible ASCII only: the id goes into headers and logs.
fn is_kept(id: &HeaderValue) -> bool {
    (1..=ID_BYTES_MAX).contains(&id.len()) && id.to_str().is_ok()
}

fn random() -> HeaderValue {
    let mut text = uuid::Uuid::encode_buffer();
    let id = uuid::Uuid::new_v4().hyphenated().encode_lower(&mut text);
    HeaderValue::from_str(id).expect("a UUID is ASCII")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    /// The id that a request to `path` that brings `id` is answered with.
    async fn check(path: &str, id: Option<&str>) -> Option<String> {
        let service =
            tower::service_fn(|_: Request<()>| async { Ok::<_, Infallible>(Response::new(())) });
        let mut request = Request::get(path);
        if let Some(id) = id {
            request = request.header(X_REQUEST_ID, id);
        }
        let request = request.body(()).expect("a request");
        let mut service = RequestIdLayer.layer(service);
        let response = service.call(request).await.expect("infallible");
        let id = response.headers().get(X_REQUEST_ID)?;
        Some(id.to_str().expect("ASCII").to_owned())
    }

    #[tokio::test]
    async fn keeps_a_callers_id_and_makes_one_otherwise() {
        assert_eq!(check("/health", Some("abc")).await.as_deref(), Some("abc"));
        for bad in [None, Some(""), Some(&*"x".repeat(129))] {
            assert_eq!(check("/health", bad).await.map(|id| id.len()), Some(36));
        }
    }

    #[tokio::test]
    async fn hot_paths_answer_only_a_callers_own() {
        assert_eq!(check("/hub/publish", None).await, None);
        assert_eq!(
            check("/hub/publish", Some("abc")).await.as_deref(),
            Some("abc")
        );
        assert_eq!(check("/hub/publish", Some("")).await, None);
    }
}
