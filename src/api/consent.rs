//! Publications about which a back end is asked first: those of callers that are no back end themselves.

use std::future::Future;
use std::sync::Arc;

use axum::extract::Request;
use futures_util::future::Either;

use super::{ApiError, ApiState};
use crate::auth::{HubCaller, Identity};
use crate::broker::Publish;
use crate::events::Asker;

/// Who calls, when a back end is asked about what it publishes.
#[derive(Debug, Clone)]
pub(super) struct Publisher(Arc<Identity>);

/// Leaves in the request who calls, where that will be asked.
pub(super) fn introduce(state: &ApiState, caller: HubCaller, request: &mut Request) {
    if let Some(publisher) = publisher_of(state, caller) {
        request.extensions_mut().insert(publisher);
    }
}

/// Who must be asked about what this caller publishes.
pub(super) fn publisher_of(state: &ApiState, caller: HubCaller) -> Option<Publisher> {
    if !state.consent.asks_publishers() {
        return None;
    }
    match caller {
        HubCaller::BackEnd => None,
        HubCaller::Token(identity) => Some(Publisher(identity)),
        HubCaller::Anybody => Some(Publisher(Identity::nobody())),
    }
}

/// Who must be asked about what this request publishes.
pub(super) fn publisher(request: &Request) -> Option<Publisher> {
    request.extensions().get().cloned()
}

/// What is to be published once that was asked. The question is on its way when this returns.
pub(super) fn consented(
    state: &ApiState,
    publisher: Option<&Publisher>,
    publish: Publish,
) -> impl Future<Output = Result<Publish, ApiError>> + Send + use<> {
    let namespace = state.namespaces.of(&publish.channel);
    let publisher = publisher.filter(|_| state.consent.is_asked_to_publish(namespace));
    let Some(Publisher(identity)) = publisher else {
        return Either::Left(std::future::ready(Ok(publish)));
    };
    let asker = Asker {
        identity,
        client: None,
        session: None,
        transport: "http",
    };
    let asked = state.consent.publish(
        &asker,
        &publish.channel,
        publish.data.clone(),
        publish.key.as_deref(),
        namespace.publication_bytes_max,
    );
    Either::Right(async move {
        match asked.await {
            Ok(data) => Ok(Publish { data, ..publish }),
            Err(withheld) => Err(ApiError::new(withheld.code(), withheld.to_string())),
        }
    })
}
