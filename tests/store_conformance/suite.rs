//! What every store must do, as cases that know none. `store_conformance!` makes a test of each of them for a store.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fanfare::model::{NodeId, SessionId};
use fanfare::session::{
    EMPTY_DATA, Session, SessionHead, SessionLimits, Store, UnixTime, Update, User, UserName,
};

pub(crate) mod connections;
pub(crate) mod sessions;
pub(crate) mod updates;
pub(crate) mod users;

/// What a store needs to be tested.
pub(crate) trait Harness {
    /// What the store says that it stands on.
    const KIND: &str;

    /// A store with these limits. It may share what it stands on with the stores of other cases: no two cases use the
    /// same name.
    fn store(&self, limits: SessionLimits) -> impl Future<Output = Arc<dyn Store>>;
}

pub(crate) const LIMITS: SessionLimits = SessionLimits {
    timeout: Duration::from_secs(1800),
    per_user_max: 3,
    data_bytes_max: 1000,
};

/// When most cases happen: this run's time, for some stores forget by a clock of their own.
pub(crate) fn start() -> UnixTime {
    UnixTime::now()
}

pub(crate) fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// A name that no other case uses.
pub(crate) fn name(text: &str) -> UserName {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let id = SessionId::random().to_string();
    UserName::new(&format!("{text}-{number}-{}", &id[..8])).expect("a name")
}

/// What every user's password is kept as.
pub(crate) const HASH: &str = "kept";

pub(crate) fn user(name: &UserName, now: UnixTime) -> User {
    User {
        name: name.clone(),
        email: "ann@example.com".into(),
        password: HASH.into(),
        role: "user".into(),
        created_at: now,
        last_login: now,
    }
}

/// A session of a user, begun now.
pub(crate) fn session(name: &UserName, chat_id: &str, now: UnixTime) -> Session {
    let head = SessionHead {
        id: SessionId::random(),
        user: name.text().clone(),
        chat_id: chat_id.into(),
        created_at: now,
        last_access: now,
        node: NodeId::new("node-1"),
    };
    Session {
        head,
        data: EMPTY_DATA.into(),
    }
}

pub(crate) fn update(session: &Session, fields: &str, now: UnixTime) -> Update {
    Update {
        id: session.head.id,
        user: session.head.user.clone(),
        chat_id: None,
        fields: fields.into(),
        now,
        node: NodeId::new("node-2"),
    }
}

/// A store with a session of a fresh user.
pub(crate) async fn with_session(harness: &impl Harness) -> (Arc<dyn Store>, UserName, Session) {
    let store = harness.store(LIMITS).await;
    let name = name("ann");
    let session = session(&name, "default", start());
    let ended = store.add_session(session.clone()).await;
    assert_eq!(ended, Ok(Vec::new()));
    (store, name, session)
}

/// The ids in an order that two lists can be compared in.
pub(crate) fn sorted(mut ids: Vec<SessionId>) -> Vec<SessionId> {
    ids.sort_unstable();
    ids
}

/// Makes a test of each case for one store.
#[macro_export]
macro_rules! store_conformance {
    ($store:ident, $harness:expr) => {
        mod $store {
            use super::*;

            $crate::store_cases! { $harness =>
                users: a_name_is_taken_once;
                users: one_of_many_who_want_a_name_gets_it;
                users: a_user_is_found_in_any_case_and_form;
                users: a_password_is_replaced_only_when_it_is_still_the_same;
                users: a_role_is_set;
                users: a_user_goes_with_all_sessions;
                users: users_are_listed_in_pages;
                users: idle_users_are_swept_and_busy_ones_stay;
                sessions: a_session_is_read_as_it_was_written;
                sessions: a_session_ends_without_use;
                sessions: use_keeps_a_session_alive;
                sessions: a_touch_never_turns_back_and_never_revives;
                sessions: a_login_ends_the_other_sessions;
                sessions: a_login_may_leave_the_other_sessions;
                sessions: nobody_logs_in_as_a_user_who_is_gone;
                sessions: nobody_logs_in_with_a_password_that_was_another_accounts;
                sessions: a_login_has_the_role_of_its_moment;
                sessions: too_many_sessions_end_the_oldest;
                sessions: a_conversation_has_its_session;
                sessions: many_who_want_a_conversation_get_the_same;
                sessions: a_further_conversation_ends_the_oldest_and_never_the_logins;
                sessions: sessions_are_listed_for_their_user_only;
                sessions: sessions_end_one_by_one_and_all_at_once;
                sessions: what_expired_is_swept;
                updates: fields_replace_fields;
                updates: an_update_is_use;
                updates: only_the_owner_updates;
                updates: every_update_within_a_second_counts;
                updates: what_is_asked_at_once_is_done_in_its_order;
                updates: what_is_gone_is_not_updated;
                updates: too_much_data_is_refused_and_changes_nothing;
                updates: updates_at_once_lose_nothing;
                updates: fields_that_nobody_can_read_are_refused_and_fail_nothing_else;
                connections: closing_one_leaves_the_others;
                connections: the_newest_comes_first;
                connections: it_says_what_it_stands_on;
            }
        }
    };
}

/// A test of each case.
#[macro_export]
macro_rules! store_cases {
    ($harness:expr => $($module:ident: $case:ident;)+) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $case() {
            $crate::suite::$module::$case(&$harness).await;
        }
    )+};
}
