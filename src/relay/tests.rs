//! Who wants what on a node, when several workers change their minds at once.

use std::collections::BTreeMap;

use super::*;
use crate::broker::Config;
use crate::broker::memory::MemoryBroker;
use crate::model::{Moment, Namespace, Namespaces};

fn relay() -> Relay {
    let config = Config {
        history_bytes_max: 1000,
        channels_max: 10,
        idempotency_keys_max: 10,
    };
    let namespaces = Namespaces::new(Namespace::default_for(true), BTreeMap::new());
    let broker = MemoryBroker::new(&config, Arc::new(namespaces), Moment::default);
    let inbox = || {
        Arc::new(Inbox::new(InboxLimits {
            messages_max: 10,
            bytes_max: 1000,
        }))
    };
    Relay::new(Arc::new(broker), vec![inbox(), inbox()])
}

fn news() -> ChannelKey {
    ChannelKey::new("news").expect("a name")
}

#[test]
fn a_subscriber_is_counted_though_another_workers_last_one_leaves_before_its_worker_is_told_of() {
    let relay = relay();
    relay.count_subscriber(&news());
    drop(relay.add_interest(0, &news()));
    // The second worker counts its first subscriber, and before it says so the first worker's last one is gone.
    relay.count_subscriber(&news());
    relay.discount_subscriber(&news());
    assert!(relay.remove_interest(0, &news()).is_some());
    drop(relay.add_interest(1, &news()));
    assert_eq!(relay.subscribers(&news()), 1);
    assert_eq!(relay.channels("", None, 10).len(), 1);

    relay.discount_subscriber(&news());
    assert!(relay.remove_interest(1, &news()).is_some());
    assert_eq!(relay.channel_count(), 0, "nothing is left behind");
}
