//! Which server has what: one for everything, or the masters of a Cluster with a part of the slots each.

use std::sync::Arc;

use crc::{CRC_16_XMODEM, Crc};

use super::server::{Server, ServerId};
use super::target::Host;

/// The slots of a Cluster.
pub(super) const SLOTS: usize = 16_384;

/// Where a slot is that nobody has.
const NOBODY: u16 = u16::MAX;

/// How keys are spread over the slots.
static SPREAD: Crc<u16> = Crc::<u16>::new(&CRC_16_XMODEM);

/// Of which slot a key or channel is: of what stands between its first brace and the next that closes, or of all of it
/// (<https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#hash-tags>).
fn slot_of(key: &[u8]) -> usize {
    let place = |of: u8, text: &[u8]| memchr::memchr(of, text);
    let tag = place(b'{', key).and_then(|open| {
        let rest = key.get(open + 1..)?;
        rest.get(..place(b'}', rest)?)
    });
    let tag = tag.filter(|tag| !tag.is_empty());
    usize::from(SPREAD.checksum(tag.unwrap_or(key))) % SLOTS
}

/// The servers of the moment.
#[derive(Debug, Default)]
pub(super) struct Topology {
    pub(super) servers: Vec<Arc<Server>>,
    /// By slot, which of the servers; `None` where one has everything.
    slots: Option<Vec<u16>>,
    /// The Cluster's count of its own changes, when it looked like this.
    pub(super) epoch: u64,
}

/// What a Cluster says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct View {
    pub(super) epoch: u64,
    /// From slot, to slot, and the master of both and what is between.
    pub(super) ranges: Vec<(u16, u16, Host)>,
}

impl Topology {
    /// One server for everything.
    pub(super) fn single(server: Arc<Server>) -> Self {
        Self {
            servers: vec![server],
            slots: None,
            epoch: 0,
        }
    }

    /// The servers of a view. Those that were known before stay the same; `make` makes the others.
    pub(super) fn of(
        view: &View,
        before: &Self,
        mut make: impl FnMut(&Host) -> Arc<Server>,
    ) -> Self {
        let mut servers: Vec<Arc<Server>> = Vec::new();
        let mut slots = vec![NOBODY; SLOTS];
        for (from, to, host) in &view.ranges {
            let address = host.to_string();
            let known = servers.iter().position(|server| server.address == address);
            let at = known.unwrap_or_else(|| {
                let old = before
                    .servers
                    .iter()
                    .find(|server| server.address == address);
                servers.push(old.cloned().unwrap_or_else(|| make(host)));
                servers.len() - 1
            });
            let range = usize::from(*from)..=usize::from(*to).min(SLOTS - 1);
            if let Some(range) = slots.get_mut(range) {
                range.fill(u16::try_from(at).unwrap_or(NOBODY));
            }
        }
        Self {
            servers,
            slots: Some(slots),
            epoch: view.epoch,
        }
    }

    /// Who has a key; `None` while nobody does.
    pub(super) fn server_of(&self, key: &[u8]) -> Option<&Arc<Server>> {
        let at = match &self.slots {
            None => 0,
            Some(slots) => usize::from(*slots.get(slot_of(key))?),
        };
        self.servers.get(at)
    }

    pub(super) fn server(&self, id: ServerId) -> Option<&Arc<Server>> {
        self.servers.iter().find(|server| server.id == id)
    }

    pub(super) fn server_at(&self, address: &str) -> Option<&Arc<Server>> {
        self.servers.iter().find(|server| server.address == address)
    }

    /// Whether the same servers have the same slots.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let ids = |topology: &Self| -> Vec<ServerId> {
            topology.servers.iter().map(|server| server.id).collect()
        };
        ids(self) == ids(other) && self.slots == other.slots
    }

    /// Whether every slot has a server that both connections lead to.
    pub(super) fn is_connected(&self) -> bool {
        self.is_whole() && self.servers.iter().all(|server| server.is_connected())
    }

    /// The same of the connections for commands.
    pub(super) fn takes_commands(&self) -> bool {
        self.is_whole()
            && self
                .servers
                .iter()
                .all(|server| server.commands.client().is_some())
    }

    fn is_whole(&self) -> bool {
        let has_all = |slots: &Vec<u16>| !slots.contains(&NOBODY);
        !self.servers.is_empty() && self.slots.as_ref().is_none_or(has_all)
    }
}

#[cfg(test)]
mod tests {
    use super::super::target::Target;
    use super::*;

    fn host(port: u16) -> Host {
        Host {
            name: "127.0.0.1".to_owned(),
            port,
        }
    }

    fn made(view: &View, before: &Topology, ids: &mut u32) -> Topology {
        Topology::of(view, before, |host| {
            *ids += 1;
            let target = Target::parse("redis://any").expect("a target");
            Server::new(*ids, host.to_string(), target)
        })
    }

    #[test]
    fn what_is_in_braces_decides_the_slot() {
        // As CLUSTER KEYSLOT says.
        for (key, slot) in [
            ("foo", 12_182),
            ("a:{foo}:b{bar}", 12_182),
            ("bar", 5061),
            ("foo{}{bar}", 8363),
            ("foo{{bar}}zap", 4015),
            ("foo{bar", 15_278),
            ("", 0),
        ] {
            assert_eq!(slot_of(key.as_bytes()), slot, "{key}");
        }
    }

    #[test]
    fn a_key_is_where_its_slot_is() {
        let view = View {
            epoch: 1,
            ranges: vec![(0, 8191, host(1)), (8192, 16_383, host(2))],
        };
        let topology = made(&view, &Topology::default(), &mut 0);
        // CLUSTER KEYSLOT says 12182 of foo, and the same of what is in braces.
        for key in ["foo", "a:{foo}:b"] {
            let server = topology.server_of(key.as_bytes()).expect("a server");
            assert_eq!(server.address, "127.0.0.1:2", "{key}");
        }
        assert_eq!(
            topology.server_of(b"bar").expect("a server").address,
            "127.0.0.1:1"
        );
    }

    #[test]
    fn a_server_stays_the_same_while_it_has_anything() {
        let mut ids = 0;
        let halves = View {
            epoch: 1,
            ranges: vec![(0, 8191, host(1)), (8192, 16_383, host(2))],
        };
        let before = made(&halves, &Topology::default(), &mut ids);
        let moved = View {
            epoch: 2,
            ranges: vec![(0, 8192, host(1)), (8193, 16_383, host(2))],
        };
        let after = made(&moved, &before, &mut ids);
        assert_eq!(ids, 2, "none is new");
        assert!(!after.is_same(&before), "a slot has moved");
        assert!(made(&moved, &after, &mut ids).is_same(&after));
        let promoted = View {
            epoch: 3,
            ranges: vec![(0, 8192, host(3)), (8193, 16_383, host(2))],
        };
        let last = made(&promoted, &after, &mut ids);
        assert_eq!(ids, 3);
        assert!(last.server_at("127.0.0.1:1").is_none());
    }

    #[test]
    fn what_nobody_has_is_nowhere() {
        let view = View {
            epoch: 1,
            ranges: vec![(0, 8191, host(1))],
        };
        let topology = made(&view, &Topology::default(), &mut 0);
        assert!(topology.server_of(b"foo").is_none());
        assert!(Topology::default().server_of(b"foo").is_none());
    }
}
