//! What is handed over, and from when to when.

use super::{Case, Harness, channel, numbered};

pub(crate) async fn nothing_is_handed_over_without_interest(harness: &impl Harness) {
    let case = Case::start(harness).await;
    let channel = channel("default");
    case.publish_many(&channel, 3).await;
    case.broker.add_interest(&channel).await.expect("room");
    case.flush(&channel).await;
    assert_eq!(case.sink.of(&channel).len(), 1);
}

pub(crate) async fn nothing_is_handed_over_after_interest_ended(harness: &impl Harness) {
    let case = Case::start(harness).await;
    let channel = channel("default");
    case.broker.add_interest(&channel).await.expect("room");
    case.flush(&channel).await;
    case.broker.remove_interest(&channel).await.expect("done");
    case.publish_many(&channel, 3).await;
    case.broker.add_interest(&channel).await.expect("room");
    case.publish(numbered(&channel, 9)).await;
    case.eventually(&channel, 2).await;
    let publications = case.sink.publications(&channel);
    let offsets: Vec<_> = publications.iter().map(|it| it.offset).collect();
    assert_eq!(offsets, [1, 5]);
}

pub(crate) async fn interest_answers_where_the_stream_stands(harness: &impl Harness) {
    let case = Case::start(harness).await;
    let channel = channel("default");
    let top = case.publish_many(&channel, 3).await;
    assert_eq!(case.broker.add_interest(&channel).await, Ok(Some(top)));
    case.publish_many(&channel, 2).await;
    case.eventually(&channel, 2).await;
    let publications = case.sink.publications(&channel);
    let offsets: Vec<_> = publications.iter().map(|it| it.offset).collect();
    assert_eq!(offsets, [4, 5]);
}

pub(crate) async fn asking_for_interest_again_is_harmless(harness: &impl Harness) {
    let case = Case::start(harness).await;
    let channel = channel("default");
    case.broker.add_interest(&channel).await.expect("room");
    let top = case.publish_many(&channel, 1).await;
    assert_eq!(case.broker.add_interest(&channel).await, Ok(Some(top)));
    case.flush(&channel).await;
    assert_eq!(case.sink.of(&channel).len(), 2);
}

pub(crate) async fn interest_that_never_was_can_be_removed(harness: &impl Harness) {
    let case = Case::start(harness).await;
    for namespace in ["default", "none"] {
        assert_eq!(
            case.broker.remove_interest(&channel(namespace)).await,
            Ok(())
        );
    }
}

pub(crate) async fn interest_in_one_channel_is_none_in_another(harness: &impl Harness) {
    let case = Case::start(harness).await;
    let (wanted, other) = (channel("default"), channel("default"));
    case.broker.add_interest(&wanted).await.expect("room");
    case.publish_many(&other, 3).await;
    case.flush(&wanted).await;
    assert!(case.sink.of(&other).is_empty());
}
