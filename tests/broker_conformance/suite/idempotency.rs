//! A retry with the same key answers the first result and delivers nothing again.

use std::sync::Arc;

use fanfare::broker::{Publish, Published};
use fanfare::model::ChannelKey;

use super::{Case, Harness, at, channel, publish};

/// A publish with an idempotency key.
pub(crate) fn keyed(channel: &ChannelKey, key: &str) -> Publish {
    Publish {
        idempotency_key: Some(Arc::from(key)),
        ..publish(channel, "1")
    }
}

fn duplicate_of(first: Published) -> Published {
    Published {
        duplicate: true,
        ..first
    }
}

pub(crate) async fn the_same_key_answers_the_first_result(harness: &impl Harness) {
    let case = Case::start(harness).await;
    let channel = channel("default");
    case.broker.add_interest(&channel).await.expect("room");
    let first = case.publish(keyed(&channel, "k")).await;
    assert!(!first.duplicate);
    case.publish(publish(&channel, "2")).await;
    let again = case.publish(keyed(&channel, "k")).await;
    assert_eq!(again, duplicate_of(first));
    case.flush(&channel).await;
    assert_eq!(case.sink.of(&channel).len(), 3);
    assert_eq!(case.kept(&channel).await, [1, 2, 3]);
}

pub(crate) async fn the_same_key_in_one_batch_publishes_once(harness: &impl Harness) {
    let case = Case::start(harness).await;
    let channel = channel("default");
    let results = case.broker.publish(vec![keyed(&channel, "k"); 3]).await;
    let first = results[0].expect("there is room");
    assert!(!first.duplicate);
    assert_eq!(results[1..], [Ok(duplicate_of(first)); 2]);
    assert_eq!(case.kept(&channel).await, [1]);
}

pub(crate) async fn another_key_publishes(harness: &impl Harness) {
    let case = Case::start(harness).await;
    let channel = channel("default");
    case.publish(keyed(&channel, "k")).await;
    assert!(!case.publish(keyed(&channel, "l")).await.duplicate);
    assert_eq!(case.kept(&channel).await, [1, 2]);
}

pub(crate) async fn a_key_belongs_to_its_channel(harness: &impl Harness) {
    let case = Case::start(harness).await;
    case.publish(keyed(&channel("default"), "k")).await;
    let other = case.publish(keyed(&channel("default"), "k")).await;
    assert!(!other.duplicate);
}

pub(crate) async fn a_key_works_without_history(harness: &impl Harness) {
    let case = Case::start(harness).await;
    let channel = channel("none");
    case.broker.add_interest(&channel).await.expect("room");
    let first = case.publish(keyed(&channel, "k")).await;
    let again = case.publish(keyed(&channel, "k")).await;
    assert_eq!((first.duplicate, again.duplicate), (false, true));
    assert_eq!((first.position, again.position), (None, None));
    case.flush(&channel).await;
    assert_eq!(case.sink.of(&channel).len(), 2);
}

pub(crate) async fn a_key_outlives_a_cleared_history(harness: &impl Harness) {
    let case = Case::start(harness).await;
    let channel = channel("default");
    let first = case.publish(keyed(&channel, "k")).await;
    case.broker.clear_history(&channel).await.expect("done");
    let again = case.publish(keyed(&channel, "k")).await;
    assert_eq!(again, duplicate_of(first));
    let top = case.top(&channel).await;
    assert_eq!(top, at(top, 1));
}
