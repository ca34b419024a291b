//! What a reader that was away gets: exactly what it missed, or the plain answer that nobody can say.

use fanfare::broker::{ReadLimit, Recovery};
use fanfare::model::{ChannelKey, Position};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;

use super::{ALL, Case, Harness, NO_HISTORY, SMALL_SIZE, at, channel, numbered, offsets};

pub(crate) async fn what_was_missed_comes_in_order(harness: &impl Harness) {
    let case = Case::start(harness).await;
    let channel = channel("default");
    let top = case.publish_many(&channel, 5).await;
    let recovered = case.recovered(&channel, at(top, 2)).await;
    assert_eq!(recovered, Some(vec![3, 4, 5]));
}

/// Reads page after page, as a client that catches up does.
async fn recover_in_pages<H: Harness>(
    case: &Case<'_, H>,
    channel: &ChannelKey,
    mut since: Position,
    limit: ReadLimit,
) -> Option<Vec<u64>> {
    let mut all = Vec::new();
    loop {
        match case.broker.recover(channel, since, limit).await {
            Ok(Recovery::Recovered(page)) => {
                assert!(page.publications.len() <= limit.publications);
                all.extend(offsets(&page));
                since.offset = all.last().copied().unwrap_or(since.offset);
                if !page.more {
                    return Some(all);
                }
            }
            Ok(Recovery::Lost { .. }) => return None,
            Err(error) => panic!("recovery is answered, not refused: {error}"),
        }
    }
}

pub(crate) async fn comes_in_pages_without_gap_or_duplicate(harness: &impl Harness) {
    let case = Case::start(harness).await;
    let channel = channel("default");
    let top = case.publish_many(&channel, 50).await;
    for publications in [1, 7, 50] {
        let limit = ReadLimit {
            publications,
            ..ALL
        };
        let recovered = recover_in_pages(&case, &channel, at(top, 10), limit).await;
        assert_eq!(recovered, Some((11..=50).collect()));
    }
}

pub(crate) async fn nothing_is_missing_at_the_top(harness: &impl Harness) {
    let case = Case::start(harness).await;
    let channel = channel("default");
    let top = case.publish_many(&channel, 5).await;
    assert_eq!(case.recovered(&channel, top).await, Some(vec![]));
}

pub(crate) async fn nothing_is_missing_in_an_empty_stream(harness: &impl Harness) {
    let case = Case::start(harness).await;
    let channel = channel("default");
    let empty = case.top(&channel).await;
    assert_eq!(case.recovered(&channel, empty).await, Some(vec![]));
}

pub(crate) async fn begins_before_the_first_publication(harness: &impl Harness) {
    let case = Case::start(harness).await;
    let channel = channel("default");
    let empty = case.top(&channel).await;
    case.publish_many(&channel, 2).await;
    assert_eq!(case.recovered(&channel, empty).await, Some(vec![1, 2]));
}

pub(crate) async fn is_lost_in_another_epoch(harness: &impl Harness) {
    let case = Case::start(harness).await;
    let asked = channel("default");
    case.publish_many(&asked, 3).await;
    let elsewhere = case.top(&channel("default")).await;
    for offset in [0, 2, 3] {
        assert_eq!(case.recovered(&asked, at(elsewhere, offset)).await, None);
    }
    // Not even a channel that nobody used has an unknown epoch.
    assert_eq!(case.recovered(&channel("default"), elsewhere).await, None);
}

pub(crate) async fn is_lost_in_the_future(harness: &impl Harness) {
    let case = Case::start(harness).await;
    let channel = channel("default");
    let top = case.publish_many(&channel, 3).await;
    for offset in [4, u64::MAX] {
        assert_eq!(case.recovered(&channel, at(top, offset)).await, None);
    }
}

pub(crate) async fn is_lost_when_what_followed_left_for_want_of_size(harness: &impl Harness) {
    let case = Case::start(harness).await;
    let channel = channel("small");
    let top = case.publish_many(&channel, SMALL_SIZE + 2).await;
    for offset in [0, 1] {
        assert_eq!(case.recovered(&channel, at(top, offset)).await, None);
    }
}

pub(crate) async fn begins_just_before_the_oldest(harness: &impl Harness) {
    let case = Case::start(harness).await;
    let channel = channel("small");
    let top = case.publish_many(&channel, SMALL_SIZE + 2).await;
    let recovered = case.recovered(&channel, at(top, 2)).await;
    assert_eq!(recovered, Some(vec![3, 4, 5]));
}

pub(crate) async fn only_the_top_recovers_when_all_have_expired(harness: &impl Harness) {
    let case = Case::start(harness).await;
    let channel = channel("brief");
    let top = case.publish_many(&channel, 2).await;
    case.outlast_brief().await;
    assert_eq!(case.recovered(&channel, at(top, 1)).await, None);
    assert_eq!(case.recovered(&channel, top).await, Some(vec![]));
    // And so it stays when the stream goes on.
    case.publish(numbered(&channel, 3)).await;
    assert_eq!(case.recovered(&channel, at(top, 1)).await, None);
    assert_eq!(case.recovered(&channel, top).await, Some(vec![3]));
}

pub(crate) async fn only_the_top_recovers_when_history_was_cleared(harness: &impl Harness) {
    let case = Case::start(harness).await;
    let channel = channel("default");
    let top = case.publish_many(&channel, 2).await;
    case.broker.clear_history(&channel).await.expect("done");
    assert_eq!(case.recovered(&channel, at(top, 1)).await, None);
    assert_eq!(case.recovered(&channel, top).await, Some(vec![]));
}

pub(crate) async fn a_channel_without_history_says_so(harness: &impl Harness) {
    let case = Case::start(harness).await;
    let somewhere = case.top(&channel("default")).await;
    let recovery = case.broker.recover(&channel("none"), somewhere, ALL).await;
    assert_eq!(recovery, Err(NO_HISTORY));
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Publish { count: u64 },
    Clear,
    Recover { offset: u64, publications: usize },
}

/// Up to thirty steps on a stream that keeps three publications.
fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1u64..4).prop_map(|count| Step::Publish { count }),
        1 => Just(Step::Clear),
        6 => (0u64..30, 1usize..4).prop_map(|(offset, publications)| Step::Recover {
            offset,
            publications
        }),
    ];
    prop::collection::vec(step, 1..30)
}

/// The runner's own seed, so that a failing schedule comes again.
pub(crate) async fn agrees_with_a_naive_model(harness: &impl Harness) {
    let case = Case::start(harness).await;
    let mut runner = TestRunner::deterministic();
    for _ in 0..50 {
        let schedule = steps().new_tree(&mut runner).expect("a schedule").current();
        run(&case, &schedule).await;
    }
}

/// The model is two numbers: the top, and the offset up to which everything has left.
async fn run<H: Harness>(case: &Case<'_, H>, schedule: &[Step]) {
    let channel = channel("small");
    let mut top = case.top(&channel).await;
    let mut gone_up_to = 0;
    for step in schedule {
        match *step {
            Step::Publish { count } => {
                top.offset += count;
                assert_eq!(case.publish_many(&channel, count).await, top);
                gone_up_to = gone_up_to.max(top.offset.saturating_sub(SMALL_SIZE));
            }
            Step::Clear => {
                let cleared = case.broker.clear_history(&channel).await;
                assert_eq!(cleared, Ok(Some(top)));
                gone_up_to = top.offset;
            }
            Step::Recover {
                offset,
                publications,
            } => {
                let limit = ReadLimit {
                    publications,
                    ..ALL
                };
                let recovered = recover_in_pages(case, &channel, at(top, offset), limit).await;
                let expected = (gone_up_to..=top.offset).contains(&offset);
                let expected = expected.then(|| (offset + 1..=top.offset).collect());
                assert_eq!(recovered, expected, "{step:?} of {schedule:?}");
            }
        }
    }
}
