//! Who is present, and who is told of coming and going.

use std::sync::Arc;

use fanfare::broker::Presence;
use fanfare::model::{ChannelKey, ClientId, Event, Member};
use futures_util::future::join_all;

use super::{Case, Harness, channel, member};

const fn client(bits: u128) -> ClientId {
    ClientId::from_bits(bits)
}

async fn join<H: Harness>(case: &Case<'_, H>, channel: &ChannelKey, member: &Arc<Member>) {
    let joined = case.broker.join(channel, Arc::clone(member)).await;
    joined.expect("there is room");
}

async fn present<H: Harness>(case: &Case<'_, H>, channel: &ChannelKey, limit: usize) -> Presence {
    let presence = case.broker.presence(channel, limit).await;
    presence.expect("an answer")
}

/// What was told of a member.
#[derive(Debug, PartialEq)]
enum Told {
    Join(Arc<Member>),
    Leave(Arc<Member>),
}

/// The joins and leaves that were handed over, one by one.
fn told<H: Harness>(case: &Case<'_, H>, channel: &ChannelKey) -> Vec<Told> {
    let one_by_one = |event| match event {
        Event::Publication(_) => Vec::new(),
        Event::Join(members) => members.iter().cloned().map(Told::Join).collect(),
        Event::Leave(members) => members.iter().cloned().map(Told::Leave).collect(),
    };
    let envelopes = case.sink.of(channel).into_iter();
    envelopes.flat_map(|it| one_by_one(it.event)).collect()
}

pub(crate) async fn members_are_listed_by_client_id_and_all_are_counted(harness: &impl Harness) {
    let case = Case::start(harness).await;
    let channel = channel("default");
    let members = [3, 1, 5, 2, 4].map(|bits| member(client(bits), &bits.to_string()));
    for member in &members {
        join(&case, &channel, member).await;
    }
    let presence = present(&case, &channel, 3).await;
    let expected = [1, 2, 3].map(|bits| member(client(bits), &bits.to_string()));
    assert_eq!(presence.members, expected);
    assert_eq!((presence.clients, presence.users), (5, 5));
    assert_eq!(present(&case, &channel, 0).await.clients, 5);
}

pub(crate) async fn a_user_with_two_connections_is_one_user(harness: &impl Harness) {
    let case = Case::start(harness).await;
    let channel = channel("default");
    for (bits, user) in [(1, "ann"), (2, "ann"), (3, "bob")] {
        join(&case, &channel, &member(client(bits), user)).await;
    }
    let presence = present(&case, &channel, 10).await;
    assert_eq!((presence.clients, presence.users), (3, 2));
    case.broker.leave(&channel, client(1)).await.expect("done");
    let presence = present(&case, &channel, 10).await;
    assert_eq!((presence.clients, presence.users), (2, 2));
}

pub(crate) async fn nobody_is_present_in_a_channel_that_nobody_used(harness: &impl Harness) {
    let case = Case::start(harness).await;
    let presence = present(&case, &channel("default"), 10).await;
    assert_eq!(presence, Presence::default());
}

pub(crate) async fn joining_is_told_whole(harness: &impl Harness) {
    let case = Case::start(harness).await;
    let channel = channel("default");
    let start = case.broker.add_interest(&channel).await.expect("room");
    let ann = member(client(1), "ann");
    join(&case, &channel, &ann).await;
    case.eventually(&channel, 1).await;
    let envelope = case.sink.of(&channel).remove(0);
    assert_eq!(envelope.event, Event::Join([ann].into()));
    assert_eq!(envelope.epoch, start.map(|it| it.epoch));
}

pub(crate) async fn joining_twice_is_told_once_and_the_newer_member_stays(harness: &impl Harness) {
    let case = Case::start(harness).await;
    let channel = channel("default");
    case.broker.add_interest(&channel).await.expect("room");
    let (older, newer) = (member(client(1), "ann"), member(client(1), "bob"));
    join(&case, &channel, &older).await;
    join(&case, &channel, &newer).await;
    case.flush(&channel).await;
    assert_eq!(told(&case, &channel), [Told::Join(older)]);
    let presence = present(&case, &channel, 10).await;
    assert_eq!((presence.members, presence.clients), (vec![newer], 1));
}

pub(crate) async fn leaving_is_told_once_with_the_member(harness: &impl Harness) {
    let case = Case::start(harness).await;
    let channel = channel("default");
    let ann = member(client(1), "ann");
    join(&case, &channel, &ann).await;
    case.broker.add_interest(&channel).await.expect("room");
    for _ in 0..2 {
        case.broker.leave(&channel, ann.client).await.expect("done");
    }
    case.flush(&channel).await;
    assert_eq!(told(&case, &channel), [Told::Leave(ann)]);
    assert_eq!(present(&case, &channel, 10).await, Presence::default());
}

pub(crate) async fn leaving_without_having_joined_is_harmless(harness: &impl Harness) {
    let case = Case::start(harness).await;
    for namespace in ["default", "none", "absent"] {
        let left = case.broker.leave(&channel(namespace), client(1)).await;
        assert_eq!(left, Ok(()));
    }
}

/// A crowd comes and goes at once: as many as several batches of a broker that tells of some together.
pub(crate) async fn of_many_at_once_each_is_told_once_and_counted(harness: &impl Harness) {
    let case = Case::start(harness).await;
    let channel = channel("default");
    case.broker.add_interest(&channel).await.expect("room");
    let user = |bits: u128| ["ann", "bob", "eve"][(bits % 3) as usize];
    let members: Vec<_> = (0..300)
        .map(|bits| member(client(bits), user(bits)))
        .collect();
    join_all(members.iter().map(|member| join(&case, &channel, member))).await;
    let presence = present(&case, &channel, 300).await;
    assert_eq!((presence.clients, presence.users), (300, 3));
    assert!(presence.members == members, "all of them, as they are");
    // Some of them, and all of one user.
    let goes = |member: &&Arc<Member>| *member.user == *"ann" || member.client.bits() < 100;
    let gone: Vec<_> = members.iter().filter(goes).collect();
    join_all(
        gone.iter()
            .map(|member| case.broker.leave(&channel, member.client)),
    )
    .await;
    let presence = present(&case, &channel, 0).await;
    let stayed = 300 - gone.len();
    assert_eq!((presence.clients, presence.users), (stayed, 2));
    case.flush(&channel).await;
    let mut told = told(&case, &channel);
    let left = told.split_off(300);
    let by_client = |told: &Told| match told {
        Told::Join(member) | Told::Leave(member) => member.client,
    };
    let sorted = |mut told: Vec<Told>| {
        told.sort_by_key(by_client);
        told
    };
    let joins = members.iter().cloned().map(Told::Join);
    assert!(sorted(told) == joins.collect::<Vec<_>>(), "joins");
    let leaves = gone.into_iter().cloned().map(Told::Leave);
    assert!(sorted(left) == leaves.collect::<Vec<_>>(), "leaves");
}

pub(crate) async fn nothing_is_told_where_the_namespace_says_so(harness: &impl Harness) {
    let case = Case::start(harness).await;
    let channel = channel("quiet");
    case.broker.add_interest(&channel).await.expect("room");
    join(&case, &channel, &member(client(1), "ann")).await;
    assert_eq!(present(&case, &channel, 10).await.clients, 1);
    case.broker.leave(&channel, client(1)).await.expect("done");
    case.flush(&channel).await;
    assert_eq!(told(&case, &channel), []);
}

pub(crate) async fn nobody_is_present_where_the_namespace_has_no_presence(harness: &impl Harness) {
    let case = Case::start(harness).await;
    let channel = channel("absent");
    case.broker.add_interest(&channel).await.expect("room");
    join(&case, &channel, &member(client(1), "ann")).await;
    case.flush(&channel).await;
    assert_eq!(told(&case, &channel), []);
    assert_eq!(present(&case, &channel, 10).await, Presence::default());
}

pub(crate) async fn works_without_history(harness: &impl Harness) {
    let case = Case::start(harness).await;
    let channel = channel("none");
    case.broker.add_interest(&channel).await.expect("room");
    let ann = member(client(1), "ann");
    join(&case, &channel, &ann).await;
    case.eventually(&channel, 1).await;
    assert_eq!(told(&case, &channel), [Told::Join(Arc::clone(&ann))]);
    assert_eq!(case.sink.of(&channel)[0].epoch, None);
    assert_eq!(present(&case, &channel, 10).await.members, [ann]);
}
