//! Caches of a whole fleet: joins the call that purges to the cache of this node, and by the broker to those of the others.

use std::sync::Arc;

use crate::admin::{Purge, Purged};
use crate::broker::{self, Broker, Control};
use crate::proxy::Proxy;
use crate::relay::PurgeObserver;

/// Forgets here at once, so that it can be told how much, and everywhere.
pub(super) fn purge(proxy: Arc<Proxy>, broker: Arc<dyn Broker>) -> Purge {
    Arc::new(move |service, prefix| {
        let here = proxy.purge(&service, &prefix);
        let broker = broker.clone();
        Box::pin(async move {
            let here = here?;
            let order = Control::Purge(broker::Purged { service, prefix });
            let is_told = broker.control(order).await.is_ok();
            Some(Purged { here, is_told })
        })
    })
}

/// Forgets what some node of the fleet was asked to.
pub(super) fn observer(proxy: &Arc<Proxy>) -> PurgeObserver {
    let proxy = proxy.clone();
    Box::new(move |purged| {
        proxy.purge(&purged.service, &purged.prefix);
    })
}
