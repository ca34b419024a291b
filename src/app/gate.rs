//! Joins the doors of `/hub` and `/admin` to `auth`.

use std::sync::Arc;

use http::header::AUTHORIZATION;

use super::unix_seconds;
use crate::admin::{Gate, Pass, Shown};
use crate::api::{ApiError, Guard};
use crate::auth::{
    AdminAccess, HubCaller, Identity, PASS_SECONDS, Verifier, admin_pass, guard_admin,
    guard_admin_pass, guard_hub,
};
use crate::session::Sessions;

/// Who may look at `/admin`.
pub(super) struct AdminGate(pub(super) Arc<Verifier>, pub(super) Arc<Sessions>);

impl AdminGate {
    fn allows(&self, shown: &Shown<'_>, access: AdminAccess) -> bool {
        let guarded = guard_admin(
            &self.0,
            shown.key,
            shown.authorization,
            access,
            unix_seconds(),
        );
        if let Ok(Some(identity)) = &guarded {
            used(&self.1, identity);
        }
        guarded.is_ok()
    }
}

/// Judges who uses `/hub`.
pub(super) fn hub_guard(verifier: &Arc<Verifier>, sessions: &Arc<Sessions>) -> Guard {
    let (verifier, sessions) = (verifier.clone(), sessions.clone());
    Arc::new(move |headers| {
        let authorization = headers
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok());
        let guarded = guard_hub(&verifier, authorization, unix_seconds());
        if let Ok(HubCaller::Token(identity)) = &guarded {
            used(&sessions, identity);
        }
        guarded.map_err(|error| ApiError::new(error.code(), error.to_string()))
    })
}

/// A token was used, and with it the session of its login. Where that has ended without a word to this node, it hears so now.
fn used(sessions: &Sessions, identity: &Identity) {
    if let Some(login) = identity.login_session {
        sessions.saw(login, &identity.user);
    }
}

impl Gate for AdminGate {
    fn may_look(&self, shown: Shown<'_>) -> bool {
        let now = unix_seconds();
        self.allows(&shown, AdminAccess::Read)
            || shown
                .pass
                .is_some_and(|pass| guard_admin_pass(&self.0, pass, now).is_ok())
    }

    fn may_change(&self, shown: Shown<'_>) -> bool {
        self.allows(&shown, AdminAccess::Write)
    }

    fn pass<'a>(&'a self, key_or_token: &'a str) -> Pass<'a> {
        Box::pin(async move {
            let now = unix_seconds();
            // A key of this node's is no token, and nobody is asked about it.
            let _ = self.0.identify_or_ask(Some(key_or_token), now).await;
            let pass = admin_pass(&self.0, key_or_token, now).ok()?;
            Some((pass, PASS_SECONDS))
        })
    }
}
