//! A stream against a model that keeps everything and filters: slow, obvious, and with the same answers.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::model::Payload;

const EPOCH: Epoch = Epoch::from_bits(1);
const OTHER_EPOCH: Epoch = Epoch::from_bits(2);
const ALL: ReadLimit = ReadLimit {
    publications: usize::MAX,
    bytes: usize::MAX,
};

fn policy(size: u32, ttl_seconds: u64) -> HistoryPolicy {
    HistoryPolicy {
        size,
        ttl: Duration::from_secs(ttl_seconds),
    }
}

fn publication(bytes: usize) -> Publication {
    Publication {
        offset: 0,
        data: Payload::from_plain_json("x".repeat(bytes)),
        origin: None,
        key: None,
    }
}

const fn second(seconds: u64) -> Moment {
    Moment::from_millis(seconds * 1000)
}

const fn at(offset: u64) -> Position {
    Position::new(EPOCH, offset)
}

fn stream_of(publications: u64, policy: &HistoryPolicy) -> Stream {
    let mut stream = Stream::new(EPOCH);
    for _ in 0..publications {
        stream.append(publication(1), policy, second(0));
    }
    stream
}

fn offsets(page: &Page) -> Vec<u64> {
    page.publications
        .iter()
        .map(|publication| publication.offset)
        .collect()
}

fn recovered(stream: &Stream, since: Position, policy: &HistoryPolicy) -> Option<Vec<u64>> {
    match stream.recover(since, ALL, policy, second(0)) {
        Recovery::Recovered(page) => Some(offsets(&page)),
        Recovery::Lost { .. } => None,
    }
}

#[test]
fn the_first_publication_has_offset_1() {
    let policy = policy(10, 60);
    assert_eq!(stream_of(0, &policy).position(), at(0));
    let stream = stream_of(1, &policy);
    assert_eq!(stream.position(), at(1));
    assert_eq!(recovered(&stream, at(0), &policy), Some(vec![1]));
}

#[test]
fn what_left_for_want_of_size_cannot_be_recovered() {
    let policy = policy(3, 60);
    let stream = stream_of(5, &policy);
    assert_eq!(recovered(&stream, at(1), &policy), None);
    assert_eq!(recovered(&stream, at(2), &policy), Some(vec![3, 4, 5]));
    assert_eq!(recovered(&stream, at(5), &policy), Some(vec![]));
}

#[test]
fn the_future_and_other_epochs_cannot_be_recovered() {
    let policy = policy(3, 60);
    let stream = stream_of(2, &policy);
    assert_eq!(recovered(&stream, at(3), &policy), None);
    assert_eq!(
        recovered(&stream, Position::new(OTHER_EPOCH, 2), &policy),
        None
    );
}

#[test]
fn one_that_is_a_moment_younger_than_the_ttl_is_kept() {
    let policy = policy(3, 60);
    let stream = stream_of(1, &policy);
    let just_before = Moment::from_millis(59_999);
    assert_eq!(
        offsets(&stream.history(None, ALL, &policy, just_before)),
        [1]
    );
    assert_eq!(
        offsets(&stream.history(None, ALL, &policy, second(60))),
        [0; 0]
    );
}

#[test]
fn only_the_top_recovers_when_all_have_expired() {
    let policy = policy(3, 60);
    let mut stream = stream_of(2, &policy);
    for _ in 0..2 {
        let now = second(60);
        assert!(matches!(
            stream.recover(at(1), ALL, &policy, now),
            Recovery::Lost { top, .. } if top == at(2)
        ));
        assert!(matches!(
            stream.recover(at(2), ALL, &policy, now),
            Recovery::Recovered(page) if page.publications.is_empty() && !page.more
        ));
        // Again when they have been let go.
        stream.expire(&policy, now, usize::MAX);
        assert!(stream.is_empty());
    }
}

#[test]
fn numbering_goes_on_after_everything_left() {
    let policy = policy(3, 60);
    let mut stream = stream_of(2, &policy);
    stream.clear();
    assert_eq!(stream.position(), at(2));
    assert_eq!(recovered(&stream, at(1), &policy), None);
    let next = stream.append(publication(1), &policy, second(0));
    assert_eq!(next.offset, 3);
    assert_eq!(recovered(&stream, at(2), &policy), Some(vec![3]));
}

#[test]
fn a_page_ends_at_the_most_publications_and_says_that_there_are_more() {
    let policy = policy(9, 60);
    let stream = stream_of(5, &policy);
    let limit = ReadLimit {
        publications: 2,
        ..ALL
    };
    let page = stream.history(Some(at(1)), limit, &policy, second(0));
    assert_eq!(
        (offsets(&page), page.more, page.top),
        (vec![2, 3], true, at(5))
    );
    let page = stream.history(Some(at(3)), limit, &policy, second(0));
    assert_eq!((offsets(&page), page.more), (vec![4, 5], false));
}

#[test]
fn a_page_ends_at_the_most_bytes_but_has_one_publication() {
    let policy = policy(9, 60);
    let mut stream = Stream::new(EPOCH);
    for bytes in [4, 4, 100, 1] {
        stream.append(publication(bytes), &policy, second(0));
    }
    let limit = ReadLimit { bytes: 8, ..ALL };
    let read = |since| offsets(&stream.history(Some(at(since)), limit, &policy, second(0)));
    assert_eq!(read(0), [1, 2]);
    assert_eq!(read(2), [3]);
    assert_eq!(read(3), [4]);
}

#[test]
fn a_page_of_no_publications_tells_whether_there_are_any() {
    let policy = policy(9, 60);
    let none = ReadLimit {
        publications: 0,
        ..ALL
    };
    let page = stream_of(1, &policy).history(None, none, &policy, second(0));
    assert!(page.publications.is_empty() && page.more);
}

#[test]
fn history_before_what_is_kept_begins_at_the_oldest() {
    let policy = policy(2, 60);
    let stream = stream_of(5, &policy);
    for since in [None, Some(at(0)), Some(Position::new(OTHER_EPOCH, 5))] {
        assert_eq!(
            offsets(&stream.history(since, ALL, &policy, second(0))),
            [4, 5]
        );
    }
}

#[test]
fn history_beyond_the_top_is_an_empty_page() {
    let policy = policy(9, 60);
    let page = stream_of(1, &policy).history(Some(at(u64::MAX)), ALL, &policy, second(0));
    assert!(page.publications.is_empty() && !page.more);
}

#[test]
fn a_trim_frees_at_least_what_is_asked_and_no_publication_more() {
    let policy = policy(9, 60);
    let mut stream = stream_of(5, &policy);
    let each = stream.bytes() / 5;
    stream.trim(each + 1);
    assert_eq!(stream.bytes(), 3 * each);
    assert_eq!(recovered(&stream, at(2), &policy), Some(vec![3, 4, 5]));
    stream.trim(usize::MAX);
    assert_eq!((stream.bytes(), stream.position()), (0, at(5)));
}

#[test]
fn a_clock_that_two_threads_read_out_of_order_does_not_hide_what_is_kept() {
    let policy = policy(9, 60);
    let mut stream = Stream::new(EPOCH);
    for now in [1, 3, 2, 2, 2] {
        stream.append(publication(1), &policy, second(now));
    }
    // Only the first has expired; those that seem older than the one before them count as young as it.
    assert_eq!(
        offsets(&stream.history(None, ALL, &policy, second(62))),
        [2, 3, 4, 5]
    );
}

#[test]
fn the_queue_is_given_back_when_all_have_left() {
    let policy = policy(1000, 60);
    let mut stream = stream_of(1000, &policy);
    stream.expire(&policy, second(60), usize::MAX);
    assert_eq!((stream.kept.capacity(), stream.bytes()), (0, 0));
}

/// Everything that was ever published, and the lowest offset that can still be there.
struct Model {
    published: Vec<(Arc<Publication>, Moment)>,
    gone_up_to: u64,
    policy: HistoryPolicy,
    now: Moment,
}

impl Model {
    fn new(policy: HistoryPolicy) -> Self {
        Self {
            published: Vec::new(),
            gone_up_to: 0,
            policy,
            now: Moment::default(),
        }
    }

    fn top(&self) -> u64 {
        self.published.len() as u64
    }

    fn kept(&self) -> Vec<Arc<Publication>> {
        let is_kept = |publication: &Publication, at: Moment| {
            publication.offset > self.gone_up_to
                && publication.offset + u64::from(self.policy.size) > self.top()
                && self.now.since(at) < self.policy.ttl
        };
        self.published
            .iter()
            .filter(|(publication, at)| is_kept(publication, *at))
            .map(|(publication, _)| Arc::clone(publication))
            .collect()
    }

    /// The publications after `since` when none of them is missing.
    fn recover(&self, since: Position) -> Option<Vec<Arc<Publication>>> {
        if since.epoch != EPOCH || since.offset > self.top() {
            return None;
        }
        let after: Vec<_> = self
            .kept()
            .into_iter()
            .filter(|publication| publication.offset > since.offset)
            .collect();
        (after.len() as u64 == self.top() - since.offset).then_some(after)
    }
}

/// Reads page after page, as a client that catches up does, and checks each page on its own.
fn recover_in_pages(
    stream: &Stream,
    model: &Model,
    mut since: Position,
    limit: ReadLimit,
) -> Option<Vec<Arc<Publication>>> {
    let mut all = Vec::new();
    loop {
        match stream.recover(since, limit, &model.policy, model.now) {
            Recovery::Lost { top, .. } => {
                assert_eq!(top, stream.position());
                assert!(all.is_empty(), "lost in the middle of unchanged pages");
                return None;
            }
            Recovery::Recovered(page) => {
                let bytes: usize = page.publications.iter().map(|p| p.data.len()).sum();
                assert!(page.publications.len() <= limit.publications);
                assert!(page.publications.len() == 1 || bytes <= limit.bytes);
                assert_eq!(page.top, stream.position());
                assert!(!page.more || !page.publications.is_empty());
                since.offset += page.publications.len() as u64;
                all.extend(page.publications);
                if !page.more {
                    return Some(all);
                }
            }
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Publish { bytes: usize },
    Wait { seconds: u64 },
    Expire { most: usize },
    Trim { bytes: usize },
    Clear,
    Recover { since: Position, limit: ReadLimit },
}

fn step() -> impl Strategy<Value = Step> {
    let epoch = prop_oneof![9 => Just(EPOCH), 1 => Just(OTHER_EPOCH)];
    let limit = (1usize..6, 0usize..60).prop_map(|(publications, bytes)| ReadLimit {
        publications,
        bytes,
    });
    prop_oneof![
        8 => (0usize..30).prop_map(|bytes| Step::Publish { bytes }),
        2 => (0u64..20).prop_map(|seconds| Step::Wait { seconds }),
        1 => (0usize..5).prop_map(|most| Step::Expire { most }),
        1 => (0usize..600).prop_map(|bytes| Step::Trim { bytes }),
        1 => Just(Step::Clear),
        8 => (epoch, 0u64..80, limit).prop_map(|(epoch, offset, limit)| Step::Recover {
            since: Position::new(epoch, offset),
            limit,
        }),
    ]
}

fn run(stream: &mut Stream, model: &mut Model, step: &Step) {
    match *step {
        Step::Publish { bytes } => {
            let published = stream.append(publication(bytes), &model.policy, model.now);
            assert_eq!(published.offset, model.top() + 1);
            model.published.push((published, model.now));
        }
        Step::Wait { seconds } => model.now = model.now + Duration::from_secs(seconds),
        Step::Expire { most } => {
            assert!(stream.expire(&model.policy, model.now, most) <= most);
        }
        Step::Trim { bytes } => {
            stream.trim(bytes);
            // How many that were is the stream's to say; `a_trim_frees_…` checks it.
            model.gone_up_to = stream.before_oldest();
        }
        Step::Clear => {
            stream.clear();
            model.gone_up_to = model.top();
        }
        Step::Recover { since, limit } => {
            let recovered = recover_in_pages(stream, model, since, limit);
            assert_eq!(recovered, model.recover(since), "since {since}");
        }
    }
    let page = stream.history(None, ALL, &model.policy, model.now);
    assert_eq!(page.publications, model.kept());
    assert_eq!(page.top, at(model.top()));
    let cost: usize = stream.kept.iter().map(|kept| cost(&kept.publication)).sum();
    assert_eq!(stream.bytes(), cost);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn recovers_exactly_what_is_missing_or_says_that_it_is_lost(
        size in 1u32..12,
        ttl_seconds in 1u64..40,
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let mut model = Model::new(policy(size, ttl_seconds));
        let mut stream = Stream::new(EPOCH);
        for step in &steps {
            run(&mut stream, &mut model, step);
        }
    }
}
