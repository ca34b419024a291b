//! Numbering, epochs, and what of a publication arrives.

use std::sync::Arc;

use fanfare::broker::{Publish, Published};
use fanfare::model::{ChannelKey, ClientId, Event, Origin, Scope, UserId};

use super::{Case, Harness, at, channel, numbered, publish};

pub(crate) async fn the_first_publication_has_offset_1_and_the_next_ones_follow(
    harness: &impl Harness,
) {
    let case = Case::start(harness).await;
    let channel = channel("default");
    for offset in 1..=3 {
        let published = case.publish(numbered(&channel, offset)).await;
        assert!(!published.duplicate);
        assert_eq!(published.position.map(|it| it.offset), Some(offset));
        assert_eq!(published.position, Some(case.top(&channel).await));
    }
}

pub(crate) async fn an_empty_stream_has_an_epoch_and_keeps_it(harness: &impl Harness) {
    let case = Case::start(harness).await;
    let channel = channel("default");
    let empty = case.top(&channel).await;
    assert_eq!(empty.offset, 0);
    assert_eq!(case.top(&channel).await, empty);
    assert_eq!(case.publish_many(&channel, 1).await, at(empty, 1));
}

pub(crate) async fn every_stream_has_an_epoch_of_its_own(harness: &impl Harness) {
    let case = Case::start(harness).await;
    let one = case.top(&channel("default")).await;
    let other = case.top(&channel("default")).await;
    assert_ne!(one.epoch, other.epoch);
}

pub(crate) async fn channels_of_different_scopes_are_different(harness: &impl Harness) {
    let case = Case::start(harness).await;
    let unscoped = channel("default");
    let scoped = ChannelKey::scoped(Scope::new("tenant"), unscoped.name()).expect("a name");
    case.broker.add_interest(&scoped).await.expect("room");
    case.publish_many(&unscoped, 2).await;
    assert_eq!(case.top(&scoped).await.offset, 0);
    case.flush(&scoped).await;
    assert_eq!(case.sink.of(&scoped).len(), 1);
    assert!(case.sink.of(&unscoped).is_empty());
}

pub(crate) async fn several_publishes_are_answered_in_their_order(harness: &impl Harness) {
    let case = Case::start(harness).await;
    let (one, other, none) = (channel("default"), channel("default"), channel("none"));
    let order = [&one, &other, &one, &none, &one, &other];
    let publishes = order.map(|channel| publish(channel, "1")).to_vec();
    let results = case.broker.publish(publishes).await;
    let offsets = results.iter().map(|result| {
        let position = result.expect("there is room").position;
        position.map(|it| it.offset)
    });
    let expected = [Some(1), Some(1), Some(2), None, Some(3), Some(2)];
    assert_eq!(offsets.collect::<Vec<_>>(), expected);
}

pub(crate) async fn nothing_published_is_nothing_answered(harness: &impl Harness) {
    let case = Case::start(harness).await;
    assert!(case.broker.publish(Vec::new()).await.is_empty());
}

/// A publish of a client, with everything that one can have.
fn whole(channel: &ChannelKey) -> Publish {
    Publish {
        origin: Some(Origin {
            client: ClientId::from_bits(7),
            user: UserId::from("ann"),
        }),
        key: Some(Arc::from("EUR/USD")),
        ..publish(channel, "{\"text\":\"ä\"}")
    }
}

pub(crate) async fn a_publication_is_handed_over_whole(harness: &impl Harness) {
    let case = Case::start(harness).await;
    let channel = channel("default");
    let start = case.broker.add_interest(&channel).await.expect("room");
    let sent = whole(&channel);
    case.publish(sent.clone()).await;
    case.eventually(&channel, 1).await;
    let envelope = case.sink.of(&channel).remove(0);
    assert_eq!(envelope.epoch, start.map(|it| it.epoch));
    let Event::Publication(publication) = envelope.event else {
        panic!("no publication: {:?}", envelope.event);
    };
    assert_eq!(publication.offset, 1);
    assert_eq!(publication.data, sent.data);
    assert_eq!(publication.origin, sent.origin);
    assert_eq!(publication.key, sent.key);
}

pub(crate) async fn a_publication_is_kept_whole(harness: &impl Harness) {
    let case = Case::start(harness).await;
    let channel = channel("default");
    case.broker.add_interest(&channel).await.expect("room");
    case.publish(whole(&channel)).await;
    case.eventually(&channel, 1).await;
    let page = case.history(&channel, None, super::ALL).await;
    assert_eq!(page.publications, case.sink.publications(&channel));
}

pub(crate) async fn a_channel_without_history_has_no_position(harness: &impl Harness) {
    let case = Case::start(harness).await;
    let channel = channel("none");
    let nowhere = Published {
        position: None,
        duplicate: false,
    };
    assert_eq!(case.publish(numbered(&channel, 1)).await, nowhere);
    assert_eq!(case.broker.position(&channel).await, Ok(None));
    assert_eq!(case.broker.add_interest(&channel).await, Ok(None));
}

pub(crate) async fn a_channel_without_history_hands_over_once(harness: &impl Harness) {
    let case = Case::start(harness).await;
    let channel = channel("none");
    case.publish(numbered(&channel, 0)).await;
    case.broker.add_interest(&channel).await.expect("room");
    case.publish(numbered(&channel, 1)).await;
    case.publish(numbered(&channel, 2)).await;
    case.flush(&channel).await;
    let publications = case.sink.publications(&channel);
    let data: Vec<_> = publications.iter().map(|it| it.data.as_bytes()).collect();
    assert_eq!(data, [&b"1"[..], b"2", b"\"marker\""]);
    assert!(publications.iter().all(|it| it.offset == 0));
    assert!(case.sink.of(&channel).iter().all(|it| it.epoch.is_none()));
}
