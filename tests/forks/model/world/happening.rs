//! What happens to servers, connections and nodes.

use super::World;
use crate::model::Kind;
use crate::model::line::{Line, Treatment};

impl World {
    pub(super) fn happen(&mut self, kind: Kind, may: bool) {
        let [a, b, c] = [(); 3].map(|()| self.random.below(1000));
        if !may {
            return;
        }
        if kind != Kind::Nothing && kind != Kind::Publish {
            self.clock.note(|| format!("{kind:?} {a} {b} {c}"));
        }
        let (now, target) = (self.clock.now(), self.target);
        let at = (a % self.places.len() as u64) as usize;
        match kind {
            Kind::Nothing => {}
            Kind::Publish => {
                for _ in 0..=(b % if c < 50 { 20 } else { 3 }) {
                    self.publish(at);
                }
            }
            Kind::Replicate => self.replicate(),
            Kind::Snapshot => {
                let data = self.servers[target].data.clone();
                self.snapshots.push(data);
            }
            Kind::FailOver => self.fail_over(b < 400, c * 4),
            Kind::Restart => self.restart(),
            Kind::RollBack => self.roll_back(a, b < 300),
            Kind::ChangeId => {
                let id = self.fresh_id();
                self.servers[target].replid = id;
            }
            Kind::LoseStream => {
                (self.has_lost_data, self.waits_for_check) = (true, true);
                let data = &mut self.servers[target].data;
                match b % 4 {
                    0 => data.lose_streams(),
                    1 => data.lose_metas(),
                    2 => data.lose_positions(),
                    _ => data.lose_oldest(1 + (c % 5) as usize),
                }
                self.note_heads();
            }
            Kind::Stall => self.servers[target].stalled_until = now + b * 4,
            Kind::CutCommands => self.with_line(at, Line::cut_commands),
            Kind::CutMessages => self.with_line(at, Line::cut_messages),
            Kind::CutOff => {
                self.places[at].cut_until = now + b * 3;
                self.with_line(at, Line::cut_commands);
                self.with_line(at, Line::cut_messages);
            }
            Kind::Crash => self.crash(at, now + b),
            Kind::Weather => {
                self.treatment = match b % 3 {
                    0 => Treatment::default(),
                    _ => Treatment {
                        loss: c % 40,
                        repetition: c % 20,
                    },
                };
            }
            Kind::Delay => {
                self.delay = [0, 3, 30, 120, 1500][(b % 5) as usize];
                self.set_delays();
            }
        }
    }

    pub(super) fn set_delays(&self) {
        for node in self.places.iter().filter_map(|place| place.node.as_ref()) {
            node.line.set_delay(self.delay);
        }
    }

    pub(super) fn with_line(&self, at: usize, call: impl Fn(&Line)) {
        if let Some(node) = &self.places[at].node {
            call(&node.line);
        }
    }

    pub(super) fn fresh_id(&mut self) -> String {
        self.ids += 1;
        format!("{:040x}", self.ids)
    }

    pub(super) fn publish(&mut self, at: usize) {
        self.published += 1;
        let content = self.published;
        if let Some(node) = &self.places[at].node {
            node.publish(content);
        }
    }

    pub(super) fn replicate(&mut self) {
        let data = self.servers[self.target].data.clone();
        for server in self.servers.iter_mut().filter(|it| !it.is_master) {
            server.data = data.clone();
        }
        self.note_heads();
    }

    /// A replica takes the place of the master, with what it has.
    pub(super) fn fail_over(&mut self, lives_on: bool, for_so_long: u64) {
        if self.zombie.is_some() {
            return;
        }
        let (old, new) = (self.target, 1 - self.target);
        let (old_head, new_head) = (self.servers[old].data.head(), self.servers[new].data.head());
        self.has_lost_data |= old_head != new_head;
        // What the old master still takes is lost.
        self.has_lost_data |= lives_on;
        let id = self.fresh_id();
        let now = self.clock.now();
        let promoted = &mut self.servers[new];
        (promoted.is_master, promoted.is_up) = (true, true);
        (promoted.replid, promoted.drawn, promoted.stalled_until) = (id, 0, 0);
        self.target = new;
        match lives_on {
            true => {
                self.zombie = Some((old, now + for_so_long));
                for at in 0..self.places.len() {
                    match self.random.below(4) {
                        0 => self.with_line(at, Line::cut_commands),
                        1 => self.with_line(at, Line::cut_messages),
                        _ => {}
                    }
                }
            }
            false => {
                self.cut_all(old);
                self.servers[old].is_master = false;
                self.replicate();
            }
        }
    }

    pub(super) fn end_zombie(&mut self) {
        let Some((old, until)) = self.zombie else {
            return;
        };
        if self.clock.now() < until {
            return;
        }
        self.zombie = None;
        // Sentinel makes it a replica; whether its clients are sent away is drawn.
        self.servers[old].is_master = false;
        if self.random.chance(50) {
            self.cut_all(old);
        }
        self.replicate();
    }

    pub(super) fn cut_all(&self, server: usize) {
        for node in self.places.iter().filter_map(|place| place.node.as_ref()) {
            let (commands, messages) = node.line.servers_of_connections();
            if commands == Some(server) {
                node.line.cut_commands();
            }
            if messages == Some(server) {
                node.line.cut_messages();
            }
        }
    }

    pub(super) fn restart(&mut self) {
        let (id, target) = (self.fresh_id(), self.target);
        self.servers[target].replid = id;
        self.servers[target].drawn = 0;
        self.cut_all(target);
    }

    /// The server goes on with older data, or none; sometimes its connections stand.
    pub(super) fn roll_back(&mut self, which: u64, stands: bool) {
        let (id, target) = (self.fresh_id(), self.target);
        let count = self.snapshots.len() as u64 + 1;
        let data = self.snapshots.get((which % count) as usize).cloned();
        let server = &mut self.servers[target];
        server.data = data.unwrap_or_default();
        server.replid = id;
        server.drawn = 0;
        self.has_lost_data = true;
        self.note_heads();
        if !stands {
            self.cut_all(target);
        }
    }

    pub(super) fn crash(&mut self, at: usize, start_at: u64) {
        let place = &mut self.places[at];
        place.node = None;
        place.start_at = start_at;
        let now = self.clock.now();
        for client in &mut self.clients {
            if client.connection.is_some_and(|(node, ..)| node == at) {
                client.lose(now + self.random.below(300));
            }
        }
    }

    pub(super) fn note_heads(&mut self) {
        let now = self.clock.now();
        for (at, server) in self.servers.iter().enumerate() {
            if let Some(head) = server.data.head() {
                self.truth.note_head(at, now, head);
            }
        }
    }
}
