//! Who asks, by the token that is shown, and whether that may.

use std::borrow::Cow;
use std::sync::Arc;

use super::error::ProxyError;
use super::{IdentityRule, Proxy};
use crate::auth::{Identity, bearer, client_token};
use crate::http1::RequestHead;
use crate::model::ErrorCode;
use crate::telemetry::proxy::Carried;

/// What a token said, and where it stood.
pub(super) struct Admitted {
    pub(super) identity: Option<Arc<Identity>>,
    pub(super) is_in_query: bool,
    pub(super) is_in_protocol: bool,
}

impl Admitted {
    pub(super) const NOBODY: Self = Self {
        identity: None,
        is_in_query: false,
        is_in_protocol: false,
    };

    /// User and role, as they stand in fields; nobody's where there is no token.
    pub(super) fn for_fields(&self) -> Result<Option<(&str, &str)>, ProxyError> {
        let Some(identity) = &self.identity else {
            return Ok(None);
        };
        let (user, role): (&str, &str) = (&identity.user, &identity.role);
        match is_field_text(user) && is_field_text(role) {
            true => Ok(Some((user, role))),
            false => Err(ProxyError::Unauthorized),
        }
    }
}

impl Proxy {
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
    pub(super) fn authenticate(
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

/// Whether a role of the token is one of those that may.
fn may(identity: &Identity, rule: &IdentityRule) -> bool {
    let mut roles = rule.roles.iter();
    rule.roles.is_empty() || roles.any(|role| identity.has_role(role))
}

/// Whether a text can stand in a field as it is.
fn is_field_text(text: &str) -> bool {
    text.bytes().all(|byte| byte >= b' ' && byte != 0x7f)
}
