//! What every broker must do, as cases that know none. `broker_conformance!` makes a test of each of them for a broker.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use fanfare::broker::{Broker, BrokerError, Page, Publish, Published, ReadLimit, Recovery};
use fanfare::model::{
    ChannelKey, ClientId, Member, Namespace, Namespaces, Payload, Position, UserId,
};

use crate::recording::Recording;

pub(crate) mod history;
pub(crate) mod idempotency;
pub(crate) mod interest;
pub(crate) mod node;
pub(crate) mod parallel;
pub(crate) mod presence;
pub(crate) mod publishing;
pub(crate) mod recovery;

/// What a broker needs to be tested.
pub(crate) trait Harness {
    /// What the broker says that it stands on.
    const KIND: &str;

    /// A fresh broker for channels of these namespaces. It may share its store with the brokers of other cases: no two
    /// use a channel of the same name.
    fn broker(&self, namespaces: Namespaces) -> impl Future<Output = Arc<dyn Broker>>;

    /// Lets time pass for the broker, or waits.
    fn advance(&self, by: Duration) -> impl Future<Output = ()>;
}

/// How long the namespace `brief` keeps a publication; short, because some brokers really wait.
pub(crate) const BRIEF_TTL: Duration = Duration::from_secs(1);

/// How many publications the namespace `small` keeps.
pub(crate) const SMALL_SIZE: u64 = 3;

/// A limit that limits nothing.
pub(crate) const ALL: ReadLimit = ReadLimit {
    publications: usize::MAX,
    bytes: usize::MAX,
};

/// A broker with the namespaces that the cases use, and the sink that is attached to it.
pub(crate) struct Case<'a, H> {
    pub(crate) broker: Arc<dyn Broker>,
    pub(crate) sink: Arc<Recording>,
    harness: &'a H,
}

impl<'a, H: Harness> Case<'a, H> {
    /// A fresh broker.
    pub(crate) async fn start(harness: &'a H) -> Self {
        let broker = harness.broker(namespaces()).await;
        let sink = Arc::new(Recording::default());
        broker.attach(Arc::clone(&sink) as _);
        Self {
            broker,
            sink,
            harness,
        }
    }

    /// Lets a little more than the time pass for which `brief` keeps a publication.
    pub(crate) async fn outlast_brief(&self) {
        self.harness
            .advance(BRIEF_TTL + Duration::from_millis(100))
            .await;
    }

    /// Publishes one.
    pub(crate) async fn publish(&self, publish: Publish) -> Published {
        let result = self.broker.publish_one(publish).await;
        result.expect("there is room")
    }

    /// Publishes some and returns the position of the last.
    pub(crate) async fn publish_many(&self, channel: &ChannelKey, count: u64) -> Position {
        let publishes = (0..count).map(|number| numbered(channel, number)).collect();
        let results = self.broker.publish(publishes).await;
        let last = results.last().expect("at least one");
        last.expect("there is room").position.expect("history")
    }

    /// Where a stream stands.
    pub(crate) async fn top(&self, channel: &ChannelKey) -> Position {
        let position = self.broker.position(channel).await.expect("an answer");
        position.expect("a channel with history")
    }

    /// A page of history.
    pub(crate) async fn history(
        &self,
        channel: &ChannelKey,
        since: Option<Position>,
        limit: ReadLimit,
    ) -> Page {
        let page = self.broker.history(channel, since, limit).await;
        page.expect("a channel with history")
    }

    /// The offsets of everything that is kept.
    pub(crate) async fn kept(&self, channel: &ChannelKey) -> Vec<u64> {
        offsets(&self.history(channel, None, ALL).await)
    }

    /// The offsets of everything after a position; `None` when it is lost.
    pub(crate) async fn recovered(
        &self,
        channel: &ChannelKey,
        since: Position,
    ) -> Option<Vec<u64>> {
        match self.broker.recover(channel, since, ALL).await {
            Ok(Recovery::Recovered(page)) => {
                assert!(!page.more);
                Some(offsets(&page))
            }
            Ok(Recovery::Lost { top, .. }) => {
                assert_eq!(top, self.top(channel).await);
                None
            }
            Err(error) => panic!("recovery is answered, not refused: {error}"),
        }
    }

    /// Waits until so many envelopes of a channel were handed over.
    pub(crate) async fn eventually(&self, channel: &ChannelKey, envelopes: usize) {
        let what = format!("{envelopes} envelopes of {channel}");
        self.sink
            .eventually(&what, |sink| sink.of(channel).len() >= envelopes)
            .await;
    }

    /// Hands over one more publication, so that whatever was on its way before it has come when this returns.
    pub(crate) async fn flush(&self, channel: &ChannelKey) {
        let marker = "\"marker\"";
        self.publish(publish(channel, marker)).await;
        let is_there = |sink: &Recording| {
            let last = sink.publications(channel).pop();
            last.is_some_and(|it| it.data.as_bytes() == marker.as_bytes())
        };
        self.sink.eventually("the marker", is_there).await;
    }
}

/// What the cases use.
pub(crate) fn namespaces() -> Namespaces {
    let default = Namespace {
        join_leave: true,
        presence: true,
        ..Namespace::default_for(true)
    };
    let mut named = BTreeMap::new();
    let mut add = |name: &str, change: fn(&mut Namespace)| {
        let mut namespace = default.clone();
        change(&mut namespace);
        named.insert(name.to_owned(), namespace);
    };
    add("brief", |it| it.history.ttl = BRIEF_TTL);
    add("small", |it| it.history.size = SMALL_SIZE as u32);
    add("none", |it| it.history.size = 0);
    add("quiet", |it| it.join_leave = false);
    add("absent", |it| it.presence = false);
    Namespaces::new(default, named)
}

/// A channel that no other case uses, in this namespace (`default` or any other name that none has: the default one).
pub(crate) fn channel(namespace: &str) -> ChannelKey {
    let name = format!("{namespace}:{}", ClientId::random());
    ChannelKey::new(&name).expect("a channel name")
}

/// A publish of a back end.
pub(crate) fn publish(channel: &ChannelKey, json: &str) -> Publish {
    Publish {
        channel: channel.clone(),
        data: Payload::from_plain_json(json.to_owned()),
        origin: None,
        key: None,
        idempotency_key: None,
    }
}

/// A publish whose data is a number.
pub(crate) fn numbered(channel: &ChannelKey, number: u64) -> Publish {
    publish(channel, &number.to_string())
}

/// The position at another offset of the same epoch.
pub(crate) const fn at(position: Position, offset: u64) -> Position {
    Position::new(position.epoch, offset)
}

/// The offsets of a page.
pub(crate) fn offsets(page: &Page) -> Vec<u64> {
    page.publications.iter().map(|it| it.offset).collect()
}

/// A member.
pub(crate) fn member(client: ClientId, user: &str) -> Arc<Member> {
    Arc::new(Member {
        client,
        user: UserId::from(user),
        info: Some(Payload::from_plain_json("{\"name\":\"A\"}")),
    })
}

/// What a channel without history says when it is asked for some.
pub(crate) const NO_HISTORY: BrokerError = BrokerError::NoHistory;

/// Makes a test of each case, in a module of the broker's name. A case that is missing here is dead code, which the
/// compiler tells.
#[macro_export]
macro_rules! broker_conformance {
    ($broker:ident, $harness:expr) => {
        broker_conformance!($broker, $harness,
            publishing: [
                the_first_publication_has_offset_1_and_the_next_ones_follow,
                an_empty_stream_has_an_epoch_and_keeps_it,
                every_stream_has_an_epoch_of_its_own,
                channels_of_different_scopes_are_different,
                several_publishes_are_answered_in_their_order,
                nothing_published_is_nothing_answered,
                a_publication_is_handed_over_whole,
                a_publication_is_kept_whole,
                a_channel_without_history_has_no_position,
                a_channel_without_history_hands_over_once,
            ],
            interest: [
                nothing_is_handed_over_without_interest,
                nothing_is_handed_over_after_interest_ended,
                interest_answers_where_the_stream_stands,
                asking_for_interest_again_is_harmless,
                interest_that_never_was_can_be_removed,
                interest_in_one_channel_is_none_in_another,
            ],
            history: [
                reads_from_the_oldest,
                reads_after_a_position,
                of_another_epoch_reads_from_the_oldest,
                beyond_the_top_is_an_empty_page,
                is_bounded_by_size,
                is_bounded_by_time,
                is_read_in_pages,
                a_page_of_none_tells_whether_there_are_any,
                a_page_has_one_publication_however_large,
                a_page_ends_at_the_most_bytes,
                numbering_goes_on_after_it_was_cleared,
                clearing_nothing_changes_nothing,
                a_channel_without_it_says_so,
            ],
            recovery: [
                what_was_missed_comes_in_order,
                comes_in_pages_without_gap_or_duplicate,
                nothing_is_missing_at_the_top,
                nothing_is_missing_in_an_empty_stream,
                begins_before_the_first_publication,
                is_lost_in_another_epoch,
                is_lost_in_the_future,
                is_lost_when_what_followed_left_for_want_of_size,
                begins_just_before_the_oldest,
                only_the_top_recovers_when_all_have_expired,
                only_the_top_recovers_when_history_was_cleared,
                a_channel_without_history_says_so,
                agrees_with_a_naive_model,
            ],
            idempotency: [
                the_same_key_answers_the_first_result,
                the_same_key_in_one_batch_publishes_once,
                another_key_publishes,
                a_key_belongs_to_its_channel,
                a_key_works_without_history,
                a_key_outlives_a_cleared_history,
            ],
            presence: [
                members_are_listed_by_client_id_and_all_are_counted,
                a_user_with_two_connections_is_one_user,
                nobody_is_present_in_a_channel_that_nobody_used,
                joining_is_told_whole,
                joining_twice_is_told_once_and_the_newer_member_stays,
                leaving_is_told_once_with_the_member,
                leaving_without_having_joined_is_harmless,
                of_many_at_once_each_is_told_once_and_counted,
                nothing_is_told_where_the_namespace_says_so,
                nobody_is_present_where_the_namespace_has_no_presence,
                works_without_history,
            ],
            node: [
                says_what_it_stands_on_and_is_ready,
                an_order_reaches_this_node,
                an_announced_node_is_among_the_nodes_once,
            ],
            parallel: [
                publishers_are_handed_over_in_one_order_and_nothing_after_the_start_is_missed,
                one_idempotency_key_publishes_once,
            ],
        );
    };
    ($broker:ident, $harness:expr, $($subject:ident: [$($case:ident,)*],)*) => {
        mod $broker {
            $(
                mod $subject {
                    $(
                        #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
                        async fn $case() {
                            use super::super::*;
                            suite::$subject::$case(&$harness).await;
                        }
                    )*
                }
            )*
        }
    };
}
