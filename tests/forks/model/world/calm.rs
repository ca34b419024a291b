//! The end of a schedule: nothing more happens, and everybody comes to the present.

use super::World;
use crate::model::client::Stage;
use crate::model::line::Treatment;
use crate::model::node::Node;

/// How long after the last fault everybody must be at the present, in milliseconds.
const CALM_MAX: u64 = 12_000;

/// The same where a message was lost on a connection that stood, or a key was: positions are checked every 25 s.
const CALM_WITH_CHECK_MAX: u64 = CALM_MAX + 27_000;

impl World {
    /// Nothing more happens: everybody comes to the present.
    pub(super) fn calm(&mut self) -> Result<(), String> {
        self.clock.note(|| "calm".to_owned());
        self.treatment = Treatment::default();
        self.delay = 3;
        self.set_delays();
        let now = self.clock.now();
        self.end_of_zombie();
        for server in &mut self.servers {
            server.stalled_until = server.stalled_until.min(now + 100);
        }
        for place in &mut self.places {
            place.cut_until = now;
            place.start_at = place.start_at.min(now);
            // A long way in small pages is no fault.
            self.sizes.page = if self.sizes.queue < 1000 { 8 } else { 64 };
            if let Some(node) = &mut place.node {
                node.sizes.page = self.sizes.page;
            }
        }
        for client in &mut self.clients {
            client.is_slow = false;
        }
        let most = match self.waits_for_check {
            true => CALM_WITH_CHECK_MAX,
            false => CALM_MAX,
        };
        while self.clock.now() - now < most {
            self.clock.advance(40);
            if self.servers[self.target].data.head().is_none() && self.random.chance(10) {
                // With the keys of the channel gone, only the next publication begins it anew.
                self.publish(0);
            }
            self.step()?;
            if self.clock.now() - now > 200 && self.is_current() {
                return Ok(());
            }
        }
        let head = self.servers[self.target].data.head();
        let cursors: Vec<_> = self.clients.iter().map(|client| client.cursor).collect();
        let stages: Vec<_> = self.clients.iter().map(|client| client.stage).collect();
        let nodes = self.places.iter().filter_map(|place| place.node.as_ref());
        let nodes: Vec<_> = nodes.map(Node::state).collect();
        Err(format!(
            "not at the present after {most} ms: head {head:?} of server {}, {cursors:?}, {stages:?}, nodes {nodes:?}",
            self.target
        ))
    }

    /// The old master is made a replica, or nobody does that. Then whoever has both connections there stays for ever, and is
    /// sent away; who has one finds out.
    pub(super) fn end_of_zombie(&mut self) {
        let now = self.clock.now();
        let Some((old, _)) = self.zombie else { return };
        if self.random.chance(50) {
            self.zombie = Some((old, now));
            return;
        }
        self.zombie = Some((old, u64::MAX));
        for node in self.places.iter().filter_map(|place| place.node.as_ref()) {
            if node.line.servers_of_connections() == (Some(old), Some(old)) {
                node.line.cut_commands();
                node.line.cut_messages();
            }
        }
    }

    pub(super) fn is_current(&self) -> bool {
        let head = self.servers[self.target].data.head();
        let nodes = self.places.iter().filter_map(|place| place.node.as_ref());
        nodes.clone().all(Node::is_live)
            && self.clients.iter().all(|client| {
                client.stage == Stage::Active && client.cursor.map(|it| it.place) == head
            })
    }
}
