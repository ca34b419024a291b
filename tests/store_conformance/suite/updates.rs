//! Changes of a session's data.

use std::collections::BTreeMap;

use fanfare::session::Updated;
use serde_json::Value;

use super::{Harness, LIMITS, name, seconds, session, start, update, with_session};

pub(crate) async fn fields_replace_fields(harness: &impl Harness) {
    let (store, _, session) = with_session(harness).await;
    let now = start();
    for fields in [
        r#"{"api_key":"sk-1","odd":{"empty":[],"object":{},"big":12345678901234567890123}}"#,
        r#"{"api_key":"sk-2","nothing":null}"#,
        "{}",
    ] {
        let updated = store.update_session(update(&session, fields, now)).await;
        assert_eq!(updated, Ok(Updated::Done));
    }
    let kept = store.session(session.head.id, now).await;
    let kept = kept.expect("it answers").expect("alive");
    let fields: BTreeMap<String, Value> = serde_json::from_str(&kept.data).expect("an object");
    let expected = [
        ("api_key", r#""sk-2""#),
        ("conversation", "[]"),
        ("nothing", "null"),
        (
            "odd",
            r#"{"empty":[],"object":{},"big":12345678901234567890123}"#,
        ),
    ];
    let expected: BTreeMap<String, Value> = expected
        .into_iter()
        .map(|(name, json)| (name.to_owned(), serde_json::from_str(json).expect("JSON")))
        .collect();
    assert_eq!(fields, expected);
    // Numbers are kept digit by digit, an empty list stays a list.
    assert!(kept.data.contains("12345678901234567890123"), "{kept:?}");
    assert_eq!(kept.head.chat_id, session.head.chat_id);
}

pub(crate) async fn an_update_is_use(harness: &impl Harness) {
    let (store, _, session) = with_session(harness).await;
    let now = session.head.last_access.after(seconds(600));
    let mut update = update(&session, "{}", now);
    update.chat_id = Some("another".into());
    assert_eq!(store.update_session(update).await, Ok(Updated::Done));
    let alive = now.after(LIMITS.timeout);
    let kept = store.session(session.head.id, alive).await;
    let head = kept.expect("it answers").expect("alive").head;
    assert_eq!(head.last_access, now);
    assert_eq!(&*head.chat_id, "another");
    assert_eq!(head.node.as_str(), "node-2");
    let found = store.session_for(&head.user, "another", alive).await;
    assert!(found.expect("it answers").is_some());
}

pub(crate) async fn only_the_owner_updates(harness: &impl Harness) {
    let (store, _, session) = with_session(harness).await;
    let mut update = update(&session, r#"{"a":1}"#, start());
    update.user = name("bob").text().clone();
    assert_eq!(store.update_session(update).await, Ok(Updated::NotOwner));
    let kept = store.session(session.head.id, start()).await;
    assert_eq!(kept, Ok(Some(session)));
}

pub(crate) async fn what_is_gone_is_not_updated(harness: &impl Harness) {
    let (store, ann, first) = with_session(harness).await;
    let never_was = session(&ann, "default", start());
    let updated = store
        .update_session(update(&never_was, "{}", start()))
        .await;
    assert_eq!(updated, Ok(Updated::Missing));
    let over = first
        .head
        .last_access
        .after(LIMITS.timeout)
        .after(seconds(1));
    let updated = store.update_session(update(&first, "{}", over)).await;
    assert_eq!(updated, Ok(Updated::Missing));
    assert_eq!(store.end_session(first.head.id).await, Ok(true));
    let updated = store.update_session(update(&first, "{}", start())).await;
    assert_eq!(updated, Ok(Updated::Missing));
    assert_eq!(store.session(first.head.id, start()).await, Ok(None));
}

pub(crate) async fn too_much_data_is_refused_and_changes_nothing(harness: &impl Harness) {
    let (store, _, session) = with_session(harness).await;
    let fields = format!(r#"{{"long":"{}"}}"#, "x".repeat(600));
    let updated = store
        .update_session(update(&session, &fields, start()))
        .await;
    assert_eq!(updated, Ok(Updated::Done));
    let fields = format!(r#"{{"longer":"{}"}}"#, "y".repeat(600));
    let updated = store
        .update_session(update(&session, &fields, start()))
        .await;
    assert_eq!(updated, Ok(Updated::TooLarge));
    let kept = store.session(session.head.id, start()).await;
    let kept = kept.expect("it answers").expect("alive");
    assert!(kept.data.contains("xxx") && !kept.data.contains("yyy"));
}

pub(crate) async fn updates_at_once_lose_nothing(harness: &impl Harness) {
    const WRITERS: u64 = 8;
    const UPDATES: u64 = 20;
    let limits = fanfare::session::SessionLimits {
        data_bytes_max: 1 << 20,
        ..LIMITS
    };
    let (first, second) = (harness.store(limits).await, harness.store(limits).await);
    let session = session(&name("ann"), "default", start());
    first.add_session(session.clone()).await.expect("added");
    // Another node, where the stores share what they stand on.
    let is_shared = second.session(session.head.id, start()).await;
    let second = match is_shared.expect("it answers") {
        Some(_) => second,
        None => first.clone(),
    };
    let tasks = (0..WRITERS).map(|writer| {
        let store = if writer % 2 == 0 { &first } else { &second };
        let (store, session) = (store.clone(), session.clone());
        tokio::spawn(async move {
            for number in 0..UPDATES {
                let fields = format!(r#"{{"w{writer}-{number}":{number}}}"#);
                let updated = store.update_session(update(&session, &fields, start()));
                assert_eq!(updated.await, Ok(Updated::Done));
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.expect("every update is done");
    }
    let kept = second.session(session.head.id, start()).await;
    let kept = kept.expect("it answers").expect("alive");
    let fields: BTreeMap<String, Value> = serde_json::from_str(&kept.data).expect("an object");
    for writer in 0..WRITERS {
        for number in 0..UPDATES {
            assert_eq!(fields[&format!("w{writer}-{number}")], number);
        }
    }
}

pub(crate) async fn fields_that_nobody_can_read_are_refused_and_fail_nothing_else(
    harness: &impl Harness,
) {
    let (store, _, session) = with_session(harness).await;
    let odd = [r#"{"a":1,"\ud800":2}"#, r#"{"\udc00\ud800":1}"#];
    // Asked together, as by users who know nothing of each other.
    let good = store.update_session(update(&session, r#"{"first":1}"#, start()));
    let bad = odd.map(|fields| store.update_session(update(&session, fields, start())));
    let last = store.update_session(update(&session, r#"{"last":1}"#, start()));
    for bad in bad {
        assert_eq!(bad.await, Ok(Updated::Unreadable));
    }
    assert_eq!(good.await, Ok(Updated::Done));
    assert_eq!(last.await, Ok(Updated::Done));
    let kept = store.session(session.head.id, start()).await;
    let kept = kept.expect("it answers").expect("alive");
    let fields: BTreeMap<String, Value> = serde_json::from_str(&kept.data).expect("an object");
    let names: Vec<&str> = fields.keys().map(String::as_str).collect();
    assert_eq!(names, ["api_key", "conversation", "first", "last"]);
}
