//! Changes of a session's data.

use std::collections::BTreeMap;
use std::time::Duration;

use fanfare::model::NodeId;
use fanfare::session::{UnixTime, Updated};
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
    let (store, name, session) = with_session(harness).await;
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
    let next = super::session(&name, "another", alive);
    let chosen = store.choose_session(next, None).await.expect("it answers");
    assert_eq!(chosen.session.head.id, head.id);
}

pub(crate) async fn only_the_owner_updates(harness: &impl Harness) {
    let (store, _, session) = with_session(harness).await;
    let mut update = update(&session, r#"{"a":1}"#, start());
    update.user = name("bob").text().clone();
    assert_eq!(store.update_session(update).await, Ok(Updated::NotOwner));
    let kept = store.session(session.head.id, start()).await;
    assert_eq!(kept, Ok(Some(session)));
}

pub(crate) async fn every_update_within_a_second_counts(harness: &impl Harness) {
    let (store, ann, session) = with_session(harness).await;
    // The beginning of a second: the milliseconds below stay within it.
    let second = UnixTime::from_millis((start().as_secs() + 1) * 1000);
    let at = |millis| second.after(Duration::from_millis(millis));
    for (fields, now) in [
        (r#"{"a":1,"b":1}"#, at(0)),
        (r#"{"a":2}"#, at(700)),
        (r#"{"c":"\u00e4"}"#, at(300)),
    ] {
        let updated = store.update_session(update(&session, fields, now)).await;
        assert_eq!(updated, Ok(Updated::Done));
    }
    let mut by_another = update(&session, r#"{"a":3}"#, at(710));
    by_another.user = name("bob").text().clone();
    let updated = store.update_session(by_another).await;
    assert_eq!(updated, Ok(Updated::NotOwner));
    let long = format!(r#"{{"long":"{}"}}"#, "x".repeat(1000));
    let updated = store.update_session(update(&session, &long, at(720)));
    assert_eq!(updated.await, Ok(Updated::TooLarge));
    let kept = store.session(session.head.id, at(800)).await;
    let kept = kept.expect("it answers").expect("alive");
    assert_eq!(kept.head.last_access, at(700), "it never turns back");
    let fields: Value = serde_json::from_str(&kept.data).expect("an object");
    assert_eq!(
        fields,
        serde_json::json!({"api_key": null, "conversation": [], "a": 2, "b": 1, "c": "\u{e4}"})
    );
    // From the next node on, and for another conversation, the list says so at once.
    let mut moved = update(&session, "{}", at(750));
    (moved.node, moved.chat_id) = (NodeId::new("node-3"), Some("other".into()));
    assert_eq!(store.update_session(moved).await, Ok(Updated::Done));
    let heads = store.sessions(ann.text(), at(800)).await;
    let heads = heads.expect("it answers");
    assert_eq!(
        (heads[0].node.as_str(), &*heads[0].chat_id),
        ("node-3", "other")
    );
}

/// Stores join what is asked at the same time.
pub(crate) async fn what_is_asked_at_once_is_done_in_its_order(harness: &impl Harness) {
    let (store, ann, first) = with_session(harness).await;
    let second = session(&ann, "second", start());
    store.add_session(second.clone()).await.expect("added");
    let never_was = session(&ann, "never", start());
    let now = start();
    let key = |number| format!(r#"{{"api_key":{number}}}"#);
    let mut asked = Vec::new();
    for number in 0..40 {
        let session = if number % 2 == 0 { &first } else { &second };
        let updated = store.update_session(update(session, &key(number), now));
        let read = store.session(session.head.id, now);
        let missing = store.owner(never_was.head.id, now);
        asked.push((number, updated, read, missing));
    }
    for (number, updated, read, missing) in asked {
        assert_eq!(updated.await, Ok(Updated::Done));
        let read = read.await.expect("it answers").expect("alive");
        let fields: Value = serde_json::from_str(&read.data).expect("an object");
        assert_eq!(fields["api_key"], number);
        assert_eq!(missing.await, Ok(None));
    }
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
