//! Who comes: the token, the session that it names, and what a back end says of it.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::Request;
use http::HeaderMap;
use http::header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL};

use super::refusal::Refusal;
use super::{Doors, header};
use crate::auth::{AuthError, Identity, client_token};
use crate::client::NamedSession;
use crate::events::{Asker, Visitor, Withheld};
use crate::model::{ChannelKey, CloseReason, ErrorCode};
use crate::session::Admission;
use crate::transport::shard::unix_time;

/// Who somebody is, and the session that it names.
pub(super) type Introduced = (Arc<Identity>, Option<Box<NamedSession>>);

/// Tells from which address a request comes, whatever stands between.
#[derive(Clone)]
pub struct AddressOf(Arc<dyn Fn(&Request) -> IpAddr + Send + Sync>);

impl AddressOf {
    /// As `find` says.
    pub fn new(find: impl Fn(&Request) -> IpAddr + Send + Sync + 'static) -> Self {
        Self(Arc::new(find))
    }

    pub(super) fn find(&self, request: &Request) -> IpAddr {
        (self.0)(request)
    }
}

impl std::fmt::Debug for AddressOf {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("AddressOf")
    }
}

impl Doors {
    /// Finds out who comes, and whether it may.
    pub(super) async fn introduce(
        &self,
        visitor: Visitor<'_>,
        query: Option<&str>,
        named: Option<String>,
    ) -> Result<Introduced, Refusal> {
        let identity = self.identify(visitor.headers, query).await?;
        let (identity, session) = self.find_session(identity, named.clone()).await?;
        if !self.consent.is_asked_to_connect() {
            return Ok((identity, session));
        }
        let (had_token, name) = (identity.authenticated, session.as_ref());
        let name = name.map(|session| &*session.text);
        let consented = self.consent.connect(identity, name, visitor).await;
        let identity = consented.map_err(|withheld| refusal(&withheld))?;
        match (had_token, identity.authenticated) {
            // The user is known only now, and so is whether the session is its own.
            (false, true) => self.find_session(identity, named).await,
            (false, false) if self.config.auth_required => Err(refused(AuthError::Missing)),
            _ => Ok((identity, session)),
        }
    }

    /// Whether an event stream may have all of its channels, as the back end that is asked says.
    pub(super) async fn consent_to_channels(
        &self,
        identity: &Identity,
        channels: &[ChannelKey],
    ) -> Result<(), Refusal> {
        let asker = Asker {
            identity,
            client: None,
            session: None,
            transport: "sse",
        };
        let is_asked = |channel: &&ChannelKey| {
            !identity.channels.contains(channel)
                && self
                    .consent
                    .is_asked_to_subscribe(self.namespaces.of(channel))
        };
        // All are asked about before the first answer is waited for.
        let asked: Vec<_> = channels
            .iter()
            .filter(is_asked)
            .map(|channel| self.consent.subscribe(&asker, channel))
            .collect();
        for verdict in asked {
            verdict.await.map_err(|withheld| refusal(&withheld))?;
        }
        Ok(())
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
        match identity.await {
            // Who it is may be for the back end to say.
            Err(AuthError::Missing) if self.consent.is_asked_to_connect() => Ok(Identity::nobody()),
            identified => identified.map_err(refused),
        }
    }

    /// The session that a verified client names, or that its token was minted for. Of somebody without a token the
    /// name is taken as it is: it gives no rights.
    async fn find_session(
        &self,
        identity: Arc<Identity>,
        named: Option<String>,
    ) -> Result<Introduced, Refusal> {
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
}

/// Where nobody can say, nobody is told that the token is wrong.
fn refused(error: AuthError) -> Refusal {
    let is_wrong = error.code() != ErrorCode::Unavailable;
    Refusal {
        closes: is_wrong.then_some(CloseReason::InvalidToken),
        ..Refusal::new(error.code(), error.to_string())
    }
}

/// The same for what a back end does not allow.
fn refusal(withheld: &Withheld) -> Refusal {
    let is_denied = matches!(withheld, Withheld::Denied(_));
    Refusal {
        closes: is_denied.then_some(CloseReason::NotAllowed),
        ..Refusal::new(withheld.code(), withheld.to_string())
    }
}
