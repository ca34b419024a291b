//! Joins the dashboard's gate to `auth`.

use std::sync::Arc;

use super::unix_seconds;
use crate::admin::{Gate, Pass, Shown};
use crate::auth::{AdminAccess, PASS_SECONDS, Verifier, admin_pass, guard_admin, guard_admin_pass};

/// Who may look at `/admin`.
pub(super) struct AdminGate(pub(super) Arc<Verifier>);

impl Gate for AdminGate {
    fn may_look(&self, shown: Shown<'_>) -> bool {
        let now = unix_seconds();
        let read = AdminAccess::Read;
        guard_admin(&self.0, shown.key, shown.authorization, read, now).is_ok()
            || shown
                .pass
                .is_some_and(|pass| guard_admin_pass(&self.0, pass, now).is_ok())
    }

    fn may_change(&self, shown: Shown<'_>) -> bool {
        let (key, authorization) = (shown.key, shown.authorization);
        let write = AdminAccess::Write;
        guard_admin(&self.0, key, authorization, write, unix_seconds()).is_ok()
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
