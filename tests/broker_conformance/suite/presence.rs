//! Who is present, and who is told of coming and going.

use std::sync::Arc;

use fanfare::broker::Presence;
use fanfare::model::{ChannelKey, ClientId, Event, Member};

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

/// The joins and leaves that were handed over.
fn told<H: Harness>(case: &Case<'_, H>, channel: &ChannelKey) -> Vec<Event> {
    let envelopes = case.sink.of(channel).into_iter();
    envelopes
        .map(|it| it.event)
        .filter(|event| !matches!(event, Event::Publication(_)))
        .collect()
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
    assert_eq!(envelope.event, Event::Join(ann));
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
    assert_eq!(told(&case, &channel), [Event::Join(older)]);
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
    assert_eq!(told(&case, &channel), [Event::Leave(ann)]);
    assert_eq!(present(&case, &channel, 10).await, Presence::default());
}

pub(crate) async fn leaving_without_having_joined_is_harmless(harness: &impl Harness) {
    let case = Case::start(harness).await;
    for namespace in ["default", "none", "absent"] {
        let left = case.broker.leave(&channel(namespace), client(1)).await;
        assert_eq!(left, Ok(()));
    }
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
    assert_eq!(told(&case, &channel), [Event::Join(Arc::clone(&ann))]);
    assert_eq!(case.sink.of(&channel)[0].epoch, None);
    assert_eq!(present(&case, &channel, 10).await.members, [ann]);
}
