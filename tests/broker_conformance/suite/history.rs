//! What is kept, and how it is read.

use fanfare::broker::ReadLimit;

use super::{ALL, Case, Harness, NO_HISTORY, SMALL_SIZE, at, channel, numbered, offsets, publish};

pub(crate) async fn reads_from_the_oldest(harness: &impl Harness) {
    let case = Case::start(harness).await;
    let channel = channel("default");
    let top = case.publish_many(&channel, 3).await;
    let page = case.history(&channel, None, ALL).await;
    assert_eq!(
        (offsets(&page), page.top, page.more),
        (vec![1, 2, 3], top, false)
    );
}

pub(crate) async fn reads_after_a_position(harness: &impl Harness) {
    let case = Case::start(harness).await;
    let channel = channel("default");
    let top = case.publish_many(&channel, 3).await;
    let page = case.history(&channel, Some(at(top, 1)), ALL).await;
    assert_eq!(offsets(&page), [2, 3]);
}

pub(crate) async fn of_another_epoch_reads_from_the_oldest(harness: &impl Harness) {
    let case = Case::start(harness).await;
    let asked = channel("default");
    case.publish_many(&asked, 3).await;
    let elsewhere = at(case.top(&channel("default")).await, 2);
    let page = case.history(&asked, Some(elsewhere), ALL).await;
    assert_eq!(offsets(&page), [1, 2, 3]);
}

pub(crate) async fn beyond_the_top_is_an_empty_page(harness: &impl Harness) {
    let case = Case::start(harness).await;
    let channel = channel("default");
    let top = case.publish_many(&channel, 3).await;
    for offset in [3, 4, u64::MAX] {
        let page = case.history(&channel, Some(at(top, offset)), ALL).await;
        assert_eq!((offsets(&page), page.top, page.more), (vec![], top, false));
    }
}

pub(crate) async fn is_bounded_by_size(harness: &impl Harness) {
    let case = Case::start(harness).await;
    let channel = channel("small");
    case.publish_many(&channel, SMALL_SIZE).await;
    assert_eq!(case.kept(&channel).await, [1, 2, 3]);
    let top = case.publish_many(&channel, 1).await;
    assert_eq!(case.kept(&channel).await, [2, 3, 4]);
    // From before what is kept: from the oldest.
    let page = case.history(&channel, Some(at(top, 0)), ALL).await;
    assert_eq!(offsets(&page), [2, 3, 4]);
}

pub(crate) async fn is_bounded_by_time(harness: &impl Harness) {
    let case = Case::start(harness).await;
    let channel = channel("brief");
    case.publish_many(&channel, 2).await;
    assert_eq!(case.kept(&channel).await, [1, 2]);
    case.outlast_brief().await;
    assert!(case.kept(&channel).await.is_empty());
    case.publish(numbered(&channel, 3)).await;
    assert_eq!(case.kept(&channel).await, [3]);
}

pub(crate) async fn is_read_in_pages(harness: &impl Harness) {
    let case = Case::start(harness).await;
    let channel = channel("default");
    let top = case.publish_many(&channel, 5).await;
    let limit = ReadLimit {
        publications: 2,
        ..ALL
    };
    for (since, expected, more) in [
        (0, vec![1, 2], true),
        (2, vec![3, 4], true),
        (4, vec![5], false),
    ] {
        let page = case.history(&channel, Some(at(top, since)), limit).await;
        assert_eq!((offsets(&page), page.top, page.more), (expected, top, more));
    }
}

pub(crate) async fn a_page_of_none_tells_whether_there_are_any(harness: &impl Harness) {
    let case = Case::start(harness).await;
    let channel = channel("default");
    let top = case.publish_many(&channel, 2).await;
    let limit = ReadLimit {
        publications: 0,
        ..ALL
    };
    for (since, more) in [(0, true), (1, true), (2, false)] {
        let page = case.history(&channel, Some(at(top, since)), limit).await;
        assert_eq!((offsets(&page), page.top, page.more), (vec![], top, more));
    }
}

pub(crate) async fn a_page_has_one_publication_however_large(harness: &impl Harness) {
    let case = Case::start(harness).await;
    let channel = channel("default");
    case.publish(publish(&channel, &"1".repeat(1000))).await;
    case.publish(numbered(&channel, 2)).await;
    let limit = ReadLimit { bytes: 1, ..ALL };
    let page = case.history(&channel, None, limit).await;
    assert_eq!((offsets(&page), page.more), (vec![1], true));
}

pub(crate) async fn a_page_ends_at_the_most_bytes(harness: &impl Harness) {
    let case = Case::start(harness).await;
    let channel = channel("default");
    for _ in 0..3 {
        case.publish(publish(&channel, "1234")).await;
    }
    for (bytes, expected) in [(7, vec![1]), (8, vec![1, 2]), (12, vec![1, 2, 3])] {
        let limit = ReadLimit { bytes, ..ALL };
        let page = case.history(&channel, None, limit).await;
        assert_eq!(page.more, expected.len() < 3);
        assert_eq!(offsets(&page), expected);
    }
}

pub(crate) async fn numbering_goes_on_after_it_was_cleared(harness: &impl Harness) {
    let case = Case::start(harness).await;
    let channel = channel("default");
    let top = case.publish_many(&channel, 3).await;
    assert_eq!(case.broker.clear_history(&channel).await, Ok(Some(top)));
    assert!(case.kept(&channel).await.is_empty());
    assert_eq!(case.top(&channel).await, top);
    assert_eq!(case.publish_many(&channel, 1).await, at(top, 4));
    assert_eq!(case.kept(&channel).await, [4]);
}

pub(crate) async fn clearing_nothing_changes_nothing(harness: &impl Harness) {
    let case = Case::start(harness).await;
    let empty = channel("default");
    let top = case.top(&empty).await;
    assert_eq!(case.broker.clear_history(&empty).await, Ok(Some(top)));
    assert_eq!(case.broker.clear_history(&channel("none")).await, Ok(None));
}

pub(crate) async fn a_channel_without_it_says_so(harness: &impl Harness) {
    let case = Case::start(harness).await;
    let channel = channel("none");
    case.publish(numbered(&channel, 1)).await;
    let page = case.broker.history(&channel, None, ALL).await;
    assert_eq!(page, Err(NO_HISTORY));
}
