//! Joins the dashboard's gate to `auth`.

use std::sync::Arc;

use super::unix_seconds;
use crate::admin::{Gate, Pass, Shown};
use crate::auth::{
    AdminAccess, Identity, PASS_SECONDS, Verifier, admin_pass, guard_admin, guard_admin_pass,
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

/// A token was used, and with it the session of its login. Where that has ended without a word to this node, it hears so now.
pub(super) fn used(sessions: &Sessions, identity: &Identity) {
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
