//! What must hold when many ask at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use fanfare::broker::{Broker, Published};
use fanfare::model::{ChannelKey, Position};

use super::idempotency::keyed;
use super::{Case, Harness, channel, numbered};

const PUBLISHERS: usize = 4;
/// Enough that a broker which hands over after it has unlocked is caught on two cores; tried. Another process, which runs
/// one script after the other, takes fewer, and each costs it a round trip.
fn publications_each(broker: &dyn Broker) -> u64 {
    match broker.kind() {
        "memory" => 5000,
        _ => 500,
    }
}

/// Publishes while others do; counts itself off at the end.
async fn publish_all(broker: Arc<dyn Broker>, channel: ChannelKey, at_work: Arc<AtomicUsize>) {
    for number in 0..publications_each(&*broker) {
        let results = broker.publish(vec![numbered(&channel, number)]).await;
        assert!(results[0].is_ok());
        if number % 64 == 0 {
            tokio::task::yield_now().await;
        }
    }
    at_work.fetch_sub(1, Ordering::Relaxed);
}

/// Adds interest, waits for a few publications, removes it, and again, until nobody publishes. Returns the spans of the
/// stream that must have been handed over: from the answered start to a top that was read under the interest.
async fn want_now_and_then(
    broker: Arc<dyn Broker>,
    channel: ChannelKey,
    at_work: Arc<AtomicUsize>,
) -> Vec<(Position, Position)> {
    let mut spans = Vec::new();
    while at_work.load(Ordering::Relaxed) > 0 {
        let start = broker.add_interest(&channel).await.expect("room");
        for _ in 0..spans.len() % 7 {
            tokio::task::yield_now().await;
        }
        let end = broker.position(&channel).await.expect("an answer");
        broker.remove_interest(&channel).await.expect("done");
        spans.extend(start.zip(end));
        tokio::task::yield_now().await;
    }
    spans
}

pub(crate) async fn publishers_are_handed_over_in_one_order_and_nothing_after_the_start_is_missed(
    harness: &impl Harness,
) {
    let case = Case::start(harness).await;
    let channel = channel("default");
    let at_work = Arc::new(AtomicUsize::new(PUBLISHERS));
    let publishers: Vec<_> = (0..PUBLISHERS)
        .map(|_| {
            tokio::spawn(publish_all(
                Arc::clone(&case.broker),
                channel.clone(),
                Arc::clone(&at_work),
            ))
        })
        .collect();
    let spans = tokio::spawn(want_now_and_then(
        Arc::clone(&case.broker),
        channel.clone(),
        at_work,
    ));
    for publisher in publishers {
        publisher.await.expect("a publisher that ends");
    }
    let spans = spans.await.expect("an end");
    case.broker.add_interest(&channel).await.expect("room");
    case.flush(&channel).await;

    let publications = case.sink.publications(&channel);
    let offsets: Vec<_> = publications.iter().map(|it| it.offset).collect();
    assert!(offsets.is_sorted_by(|one, next| one < next), "{offsets:?}");
    let covered: u64 = spans
        .iter()
        .map(|(start, end)| end.offset - start.offset)
        .sum();
    assert!(
        covered > 0,
        "no publication fell into an interest; the case shows nothing"
    );
    for (start, end) in spans {
        for offset in start.offset + 1..=end.offset {
            assert!(
                offsets.binary_search(&offset).is_ok(),
                "{offset} is missing"
            );
        }
    }
    let all = PUBLISHERS as u64 * publications_each(&*case.broker) + 1;
    assert_eq!(case.top(&channel).await.offset, all);
}

/// Publishes with one key after the other; what came of each.
async fn publish_keys(broker: Arc<dyn Broker>, channel: ChannelKey) -> Vec<Published> {
    let mut all = Vec::new();
    for number in 0..publications_each(&*broker) {
        let publish = keyed(&channel, &format!("key-{number}"));
        let published = broker.publish(vec![publish]).await.remove(0);
        all.push(published.expect("there is room"));
    }
    all
}

pub(crate) async fn one_idempotency_key_publishes_once(harness: &impl Harness) {
    let case = Case::start(harness).await;
    let channel = channel("default");
    let publishers: Vec<_> = (0..PUBLISHERS)
        .map(|_| tokio::spawn(publish_keys(Arc::clone(&case.broker), channel.clone())))
        .collect();
    let mut results = Vec::new();
    for publisher in publishers {
        results.push(publisher.await.expect("a publisher that ends"));
    }
    let each = publications_each(&*case.broker);
    for key in 0..each as usize {
        let of_key: Vec<_> = results.iter().map(|all| all[key]).collect();
        let firsts = of_key.iter().filter(|it| !it.duplicate).count();
        assert_eq!(firsts, 1, "key {key}: {of_key:?}");
        assert!(of_key.iter().all(|it| it.position == of_key[0].position));
    }
    assert_eq!(case.top(&channel).await.offset, each);
}
