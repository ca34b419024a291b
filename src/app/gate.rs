//! Joins the dashboard's gate to `auth`.

use std::sync::Arc;

use super::unix_seconds;
use crate::admin::{Gate, Shown};
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

    fn pass(&self, key_or_token: &str) -> Option<(String, u64)> {
        let pass = admin_pass(&self.0, key_or_token, unix_seconds()).ok()?;
        Some((pass, PASS_SECONDS))
    }
}
