//! What a node knows of the other nodes.

use std::sync::LazyLock;

use ::metrics::{Counter, Gauge, counter, gauge};

use super::table::name;
use crate::model::SettingsGroup;

static NODES: LazyLock<Gauge> = LazyLock::new(|| gauge!(name::FLEET_NODES));
static DIFFERING: LazyLock<[Gauge; SettingsGroup::ALL.len()]> = LazyLock::new(|| {
    SettingsGroup::ALL.map(|group| gauge!(name::SETTINGS_DIFFER, "group" => group.name()))
});

static NODES_LOST: LazyLock<Counter> = LazyLock::new(|| counter!(name::FLEET_NODES_LOST));

/// Lets every series stand from now on: as those of a node that is alone, until it knows of others.
pub(super) fn begin() {
    fleet_nodes(1);
    LazyLock::force(&DIFFERING);
    LazyLock::force(&NODES_LOST);
}

/// A node was found to have gone without saying so.
pub fn node_lost() {
    NODES_LOST.increment(1);
}

/// So many nodes of the fleet are alive.
pub fn fleet_nodes(count: usize) {
    set(&NODES, count);
}

/// So many of them have other settings in this group than this node.
pub fn settings_differ(group: SettingsGroup, nodes: usize) {
    set(&DIFFERING[group as usize], nodes);
}

fn set(gauge: &Gauge, count: usize) {
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52 nodes")]
    gauge.set(count as f64);
}
