//! Sessions: how they begin, last and end.

use fanfare::session::{Chosen, Session, Store, UnixTime, Used};

use super::{HASH, Harness, LIMITS, name, seconds, session, sorted, start, user, with_session};

async fn is_there(store: &dyn Store, session: &Session, now: UnixTime) -> bool {
    let found = store.session(session.head.id, now).await;
    found.expect("it answers").is_some()
}

fn use_of(session: &Session, at: UnixTime) -> Used {
    Used {
        session: session.head.id,
        user: session.head.user.clone(),
        at,
    }
}

pub(crate) async fn a_session_is_read_as_it_was_written(harness: &impl Harness) {
    let store = harness.store(LIMITS).await;
    let mut written = session(&name("René 🦀"), "Chat \"1\"\n", start());
    written.data = r#"{"a":[],"big":12345678901234567890123,"t":"\u0000ä","x":{"y":null}}"#.into();
    store.add_session(written.clone()).await.expect("added");
    let read = store.session(written.head.id, start()).await;
    assert_eq!(read, Ok(Some(written.clone())));
    let owner = store.owner(written.head.id, start()).await;
    assert_eq!(owner, Ok(Some(written.head.user.clone())));
    let nobodys = session(&name("nobody"), "a", start()).head.id;
    assert_eq!(store.session(nobodys, start()).await, Ok(None));
    assert_eq!(store.owner(nobodys, start()).await, Ok(None));
}

pub(crate) async fn a_session_ends_without_use(harness: &impl Harness) {
    let (store, ann, session) = with_session(harness).await;
    let began = session.head.last_access;
    let last = began.after(LIMITS.timeout);
    assert!(is_there(&*store, &session, last).await);
    let over = last.after(seconds(1));
    assert!(!is_there(&*store, &session, over).await);
    assert_eq!(store.sessions(ann.text(), over).await, Ok(Vec::new()));
    assert_eq!(store.owner(session.head.id, over).await, Ok(None));
    let next = super::session(&ann, "default", over);
    let chosen = store.choose_session(next.clone(), None).await;
    assert_eq!(chosen, Ok(new(next)));
}

pub(crate) async fn use_keeps_a_session_alive(harness: &impl Harness) {
    let (store, _, session) = with_session(harness).await;
    let used = session.head.last_access.after(seconds(600));
    let touched = store.touch(vec![use_of(&session, used)]).await;
    assert_eq!(touched, Ok(Vec::new()));
    let last = used.after(LIMITS.timeout);
    let found = store.session(session.head.id, last).await;
    let found = found.expect("it answers").expect("alive");
    assert_eq!(found.head.last_access, used);
    assert_eq!(found.head.created_at, session.head.created_at);
}

pub(crate) async fn a_touch_never_turns_back_and_never_revives(harness: &impl Harness) {
    let (store, ann, first) = with_session(harness).await;
    let second = session(&ann, "gone", start());
    let earlier = first.head.last_access.before(seconds(60));
    let used = vec![use_of(&first, earlier), use_of(&second, start())];
    assert_eq!(store.touch(used).await, Ok(vec![second.head.id]));
    let found = store.session(first.head.id, start()).await;
    assert_eq!(found, Ok(Some(first)));
    assert!(!is_there(&*store, &second, start()).await);
}

pub(crate) async fn a_login_ends_the_other_sessions(harness: &impl Harness) {
    let (store, ann, first) = with_session(harness).await;
    let now = first.head.created_at.after(seconds(1));
    store.add_user(user(&ann, start())).await.expect("added");
    let second = session(&ann, "other", now);
    store.add_session(second.clone()).await.expect("added");
    let login = session(&ann, "default", now);
    let ended = store
        .begin_login(ann.clone(), HASH.into(), login.clone(), true)
        .await;
    let begun = ended.expect("it answers").expect("a user");
    let expected = sorted(vec![first.head.id, second.head.id]);
    assert_eq!(sorted(begun.ended), expected);
    assert!(!is_there(&*store, &first, now).await && !is_there(&*store, &second, now).await);
    assert!(is_there(&*store, &login, now).await);
    let kept = store.user(&ann).await.expect("it answers").expect("a user");
    assert_eq!(kept.last_login, now);
}

pub(crate) async fn a_login_may_leave_the_other_sessions(harness: &impl Harness) {
    let (store, ann, first) = with_session(harness).await;
    store.add_user(user(&ann, start())).await.expect("added");
    let login = session(&ann, "default", start());
    let ended = store
        .begin_login(ann, HASH.into(), login.clone(), false)
        .await;
    let begun = ended.expect("it answers").expect("a user");
    assert_eq!(begun.ended, Vec::new());
    assert!(is_there(&*store, &first, start()).await);
    assert!(is_there(&*store, &login, start()).await);
}

pub(crate) async fn nobody_logs_in_as_a_user_who_is_gone(harness: &impl Harness) {
    let store = harness.store(LIMITS).await;
    let ann = name("ann");
    let login = session(&ann, "default", start());
    let begun = store
        .begin_login(ann, HASH.into(), login.clone(), true)
        .await;
    assert_eq!(begun, Ok(None));
    assert!(!is_there(&*store, &login, start()).await);
}

/// The account was deleted while the password was checked, and somebody else has the name.
pub(crate) async fn nobody_logs_in_with_a_password_that_was_another_accounts(
    harness: &impl Harness,
) {
    let (store, ann, first) = with_session(harness).await;
    let mut second = user(&ann, start());
    second.password = "another".into();
    assert_eq!(store.add_user(second.clone()).await, Ok(true));
    let login = session(&ann, "default", start().after(seconds(1)));
    let begun = store
        .begin_login(ann.clone(), HASH.into(), login.clone(), true)
        .await;
    assert_eq!(begun, Ok(None));
    assert!(!is_there(&*store, &login, start()).await);
    assert!(is_there(&*store, &first, start()).await, "nothing ended");
    assert_eq!(store.user(&ann).await, Ok(Some(second)), "nor was noted");
}

pub(crate) async fn a_login_has_the_role_of_its_moment(harness: &impl Harness) {
    let store = harness.store(LIMITS).await;
    let (ann, now) = (name("ann"), start());
    assert_eq!(store.add_user(user(&ann, now)).await, Ok(true));
    for role in ["user", "admin", "user"] {
        assert_eq!(store.set_role(&ann, role).await, Ok(true));
        let login = session(&ann, "default", now);
        let begun = store
            .begin_login(ann.clone(), HASH.into(), login, true)
            .await;
        assert_eq!(&*begun.expect("it answers").expect("a user").role, role);
    }
}

pub(crate) async fn too_many_sessions_end_the_oldest(harness: &impl Harness) {
    let store = harness.store(LIMITS).await;
    let (ann, now) = (name("ann"), start());
    let ages = [30, 40, 10];
    let sessions = ages.map(|age| session(&ann, "chat", now.before(seconds(age))));
    for session in &sessions {
        let ended = store.add_session(session.clone()).await;
        assert_eq!(ended, Ok(Vec::new()));
    }
    let further = session(&ann, "chat", now);
    let ended = store.add_session(further.clone()).await;
    assert_eq!(ended, Ok(vec![sessions[1].head.id]));
    assert!(!is_there(&*store, &sessions[1], now).await);
    assert!(is_there(&*store, &sessions[0], now).await && is_there(&*store, &further, now).await);
}

pub(crate) async fn a_conversation_has_its_session(harness: &impl Harness) {
    let (store, ann, _) = with_session(harness).await;
    let now = start();
    let (older, newer) = (
        session(&ann, "chat", now.before(seconds(5))),
        session(&ann, "chat", now),
    );
    for session in [&newer, &older] {
        store.add_session(session.clone()).await.expect("added");
    }
    let chosen = store.choose_session(session(&ann, "chat", now), None).await;
    assert_eq!(chosen, Ok(known(newer)));
    for (user, chat_id) in [(&name("ann"), "Chat"), (&name("bob"), "chat")] {
        let next = session(user, chat_id, now);
        let chosen = store.choose_session(next.clone(), None).await;
        assert_eq!(chosen, Ok(new(next.clone())));
        let again = session(user, chat_id, now);
        let chosen = store.choose_session(again, None).await;
        assert_eq!(chosen, Ok(known(next)));
    }
}

fn new(session: Session) -> Chosen {
    Chosen {
        session,
        is_new: true,
        ended: Vec::new(),
    }
}

fn known(session: Session) -> Chosen {
    Chosen {
        is_new: false,
        ..new(session)
    }
}

/// With names that need escapes, as JSON and as patterns.
pub(crate) async fn many_who_want_a_conversation_get_the_same(harness: &impl Harness) {
    let store = harness.store(LIMITS).await;
    for chat_id in ["default", "a \"b\" \\ é %d [x]"] {
        let ann = name("ann");
        let tasks = (0..20).map(|_| {
            let (store, session) = (store.clone(), session(&ann, chat_id, start()));
            tokio::spawn(async move { store.choose_session(session, None).await })
        });
        let tasks: Vec<_> = tasks.collect();
        let mut chosen = Vec::new();
        for task in tasks {
            chosen.push(task.await.expect("no panic").expect("it answers"));
        }
        assert_eq!(chosen.iter().filter(|one| one.is_new).count(), 1);
        let id = chosen[0].session.head.id;
        assert!(chosen.iter().all(|one| one.session.head.id == id));
        let kept = store.sessions(ann.text(), start()).await;
        assert_eq!(kept.expect("it answers").len(), 1, "{chat_id}");
    }
}

pub(crate) async fn a_further_conversation_ends_the_oldest_and_never_the_logins(
    harness: &impl Harness,
) {
    let store = harness.store(LIMITS).await;
    let (ann, now) = (name("ann"), start());
    let mut ids = Vec::new();
    for (number, chat_id) in ["login", "b", "c"].iter().enumerate() {
        let at = now.after(seconds(number as u64));
        let session = session(&ann, chat_id, at);
        ids.push(session.head.id);
        assert_eq!(store.add_session(session).await, Ok(Vec::new()));
    }
    let next = session(&ann, "d", now.after(seconds(10)));
    let chosen = store.choose_session(next, Some(ids[0])).await;
    assert_eq!(chosen.expect("it answers").ended, [ids[1]]);
    let next = session(&ann, "e", now.after(seconds(20)));
    let chosen = store.choose_session(next, None).await;
    assert_eq!(chosen.expect("it answers").ended, [ids[2]]);
}

pub(crate) async fn sessions_are_listed_for_their_user_only(harness: &impl Harness) {
    let (store, ann, first) = with_session(harness).await;
    let second = session(&ann, "other", first.head.created_at.after(seconds(1)));
    let others = session(&name("bob"), "default", start());
    for session in [&second, &others] {
        store.add_session(session.clone()).await.expect("added");
    }
    let heads = store.sessions(ann.text(), start()).await;
    assert_eq!(heads, Ok(vec![second.head, first.head]));
}

pub(crate) async fn sessions_end_one_by_one_and_all_at_once(harness: &impl Harness) {
    let (store, ann, first) = with_session(harness).await;
    let rest = [session(&ann, "a", start()), session(&ann, "b", start())];
    for session in &rest {
        store.add_session(session.clone()).await.expect("added");
    }
    assert_eq!(store.end_session(first.head.id).await, Ok(true));
    assert_eq!(store.end_session(first.head.id).await, Ok(false));
    assert!(is_there(&*store, &rest[0], start()).await);
    let ended = store.end_sessions(ann.text()).await.expect("it answers");
    let expected = sorted(rest.iter().map(|session| session.head.id).collect());
    assert_eq!(sorted(ended), expected);
    assert_eq!(store.end_sessions(ann.text()).await, Ok(Vec::new()));
    assert_eq!(store.sessions(ann.text(), start()).await, Ok(Vec::new()));
}

pub(crate) async fn what_expired_is_swept(harness: &impl Harness) {
    let store = harness.store(LIMITS).await;
    let (ann, now) = (name("ann"), start());
    let old = session(&ann, "old", now.before(LIMITS.timeout).before(seconds(1)));
    let new = session(&ann, "new", now);
    for session in [&old, &new] {
        store.add_session(session.clone()).await.expect("added");
    }
    let never = UnixTime::from_millis(0);
    store.sweep(now, never).await.expect("it answers");
    // What is gone is gone for an earlier time as well.
    assert!(!is_there(&*store, &old, now.before(LIMITS.timeout)).await);
    assert!(is_there(&*store, &new, now).await);
    let counts = store.counts(now).await.expect("it answers");
    assert!(counts.sessions >= 1, "{counts:?}");
}
