//! Which sockets a user has.

use fanfare::model::{ClientId, NodeId, SessionId};
use fanfare::session::{Connection, UserName};

use super::{Harness, LIMITS, name, seconds, start};

pub(crate) fn connection(user: &UserName, age: u64) -> Connection {
    Connection {
        client: ClientId::random(),
        user: user.text().clone(),
        session: SessionId::random(),
        node: NodeId::new("node-1"),
        connected_at: start().before(seconds(age)),
    }
}

pub(crate) async fn closing_one_leaves_the_others(harness: &impl Harness) {
    let store = harness.store(LIMITS).await;
    let (ann, bob) = (name("ann"), name("bob"));
    let (first, second) = (connection(&ann, 2), connection(&ann, 1));
    let others = connection(&bob, 0);
    for connection in [&first, &second, &others] {
        let connected = store.connect(connection.clone()).await;
        assert_eq!(connected, Ok(()));
    }
    assert_eq!(
        store.disconnect(ann.text(), first.client, start()).await,
        Ok(())
    );
    assert_eq!(
        store.disconnect(ann.text(), first.client, start()).await,
        Ok(())
    );
    assert_eq!(
        store.connections(ann.text(), start()).await,
        Ok(vec![second])
    );
    assert_eq!(
        store.connections(bob.text(), start()).await,
        Ok(vec![others])
    );
    let nobody = store.connections(name("nobody").text(), start()).await;
    assert_eq!(nobody, Ok(Vec::new()));
}

pub(crate) async fn the_newest_comes_first(harness: &impl Harness) {
    let store = harness.store(LIMITS).await;
    let ann = name("ann");
    let (older, newer) = (connection(&ann, 9), connection(&ann, 1));
    // Told twice, as after a reconnect of the store: it is one.
    for connection in [&older, &newer, &older] {
        let connected = store.connect(connection.clone()).await;
        assert_eq!(connected, Ok(()));
    }
    assert_eq!(
        store.connections(ann.text(), start()).await,
        Ok(vec![newer, older])
    );
}

pub(crate) async fn it_says_what_it_stands_on<H: Harness>(harness: &H) {
    assert_eq!(harness.store(LIMITS).await.kind(), H::KIND);
}
