//! Tells the operator of nodes whose settings are not this one's where they must be.

use std::collections::BTreeMap;

use crate::broker::NodeInfo;
use crate::model::{NodeId, SettingsGroup};
use crate::telemetry::fleet::settings_differ;

/// What was told: of each node that differs, in what.
#[derive(Debug, Default)]
pub(super) struct Watch {
    told: BTreeMap<NodeId, Vec<SettingsGroup>>,
}

impl Watch {
    /// Looks at the nodes that are alive; tells what is new.
    pub(super) fn look(&mut self, this: &NodeInfo, nodes: &[NodeInfo]) {
        let others = nodes.iter().filter(|node| node.id != this.id);
        let differing: BTreeMap<_, _> = others
            .map(|node| (node.id.clone(), this.differing(node)))
            .filter(|(_, groups)| !groups.is_empty())
            .collect();
        for (node, groups) in &differing {
            if self.told.get(node) != Some(groups) {
                let settings: Vec<_> = groups.iter().map(|group| group.name()).collect();
                tracing::warn!(
                    node = node.as_str(),
                    settings = settings.join(", "),
                    "a node of this fleet has other settings than this one where all must have the same"
                );
            }
        }
        for node in self.told.keys() {
            let is_alive = nodes.iter().any(|one| one.id == *node);
            if is_alive && !differing.contains_key(node) {
                tracing::info!(
                    node = node.as_str(),
                    "a node has the same settings as this one now"
                );
            }
        }
        for group in SettingsGroup::ALL {
            let count = differing.values().filter(|groups| groups.contains(&group));
            settings_differ(group, count.count());
        }
        self.told = differing;
    }
}
