//! Servers, nodes and clients, and what happens to them: one step after the other, drawn from the seed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fanfare::model::{ChannelKey, HistoryPolicy, Namespace, Namespaces};
use fanfare::redis::watch::Role;

use super::client::{Client, Seen, Stage};
use super::line::{Line, Treatment, WatchRules};
use super::node::{Node, Sizes};
use super::record::Record;
use super::store::{Broken, Data, Store};
use super::tasks::Clock;
use super::truth::Truth;
use super::{Kind, Mutation, Plan};
use crate::random::Random;

/// How long after the last fault everybody must be at the present, in milliseconds.
const CALM_MAX: u64 = 12_000;

/// The same where a message was lost on a connection that stood, or a key was: positions are checked every 25 s.
const CALM_WITH_CHECK_MAX: u64 = CALM_MAX + 27_000;

struct Server {
    data: Data,
    replid: String,
    is_master: bool,
    is_up: bool,
    /// It answers nothing before then.
    stalled_until: u64,
    drawn: u64,
}

struct Place {
    node: Option<Node>,
    life: u64,
    /// Cut off from all servers until then.
    cut_until: u64,
    start_at: u64,
}

pub(crate) struct World {
    plan: Plan,
    random: Random,
    clock: Arc<Clock>,
    truth: Truth,
    servers: Vec<Server>,
    /// Which server the address leads to.
    target: usize,
    /// A master of before that does not know yet, and until when.
    zombie: Option<(usize, u64)>,
    snapshots: Vec<Data>,
    places: Vec<Place>,
    clients: Vec<Client>,
    namespaces: Arc<Namespaces>,
    sizes: Sizes,
    delay: u64,
    treatment: Treatment,
    /// Whether something happened that no connection can tell of: only the check of positions finds it.
    waits_for_check: bool,
    /// Whether anything happened to the data that excuses a `gap` or `recovered: false`.
    has_lost_data: bool,
    ids: u64,
    published: u64,
}

fn channel() -> ChannelKey {
    ChannelKey::new("news").expect("a name")
}

impl World {
    pub(crate) fn new(plan: Plan, keeps_journal: bool) -> Self {
        let mut random = Random::new(plan.seed);
        let keeps_all = random.chance(50);
        let size = if keeps_all {
            5000
        } else {
            3 + random.below(12) as u32
        };
        let namespace = Namespace {
            history: HistoryPolicy {
                size,
                ttl: Duration::from_secs(3600),
            },
            presence: false,
            ..Namespace::default_for(true)
        };
        let sizes = Sizes {
            inbox: if random.chance(25) { 2 } else { 1000 },
            page: 1 + random.below(8) as usize,
            queue: if random.chance(20) { 600 } else { 1 << 20 },
        };
        let server = |number: u64, is_master| Server {
            data: Data::default(),
            replid: format!("{number:040x}"),
            is_master,
            is_up: true,
            stalled_until: 0,
            drawn: 0,
        };
        let place = || Place {
            node: None,
            life: 0,
            cut_until: 0,
            start_at: 0,
        };
        Self {
            servers: vec![server(1, true), server(2, false)],
            places: (0..2 + random.below(2)).map(|_| place()).collect(),
            clients: (0..2 + random.below(4)).map(|_| Client::new()).collect(),
            delay: [0, 3, 30, 120][random.below(4) as usize],
            clock: Arc::new(Clock::new(keeps_journal)),
            truth: Truth::default(),
            target: 0,
            zombie: None,
            snapshots: Vec::new(),
            namespaces: Arc::new(Namespaces::new(namespace, BTreeMap::new())),
            sizes,
            treatment: Treatment::default(),
            waits_for_check: false,
            has_lost_data: !keeps_all || sizes.queue < 1000,
            ids: 2,
            published: 0,
            random,
            plan,
        }
    }

    /// What happened.
    pub(crate) fn journal(&self) -> Vec<String> {
        self.clock.journal()
    }

    fn rules(&self) -> WatchRules {
        WatchRules {
            ignores_id: self.plan.mutation == Some(Mutation::IgnoresId),
            ignores_own_id: matches!(
                self.plan.mutation,
                Some(Mutation::IgnoresId | Mutation::IgnoresIdOfCommands)
            ),
            ignores_difference: self.plan.mutation == Some(Mutation::IgnoresDifference),
        }
    }

    fn broken(&self) -> Option<Broken> {
        match self.plan.mutation {
            Some(Mutation::Script(broken)) => Some(broken),
            _ => None,
        }
    }

    /// Runs the schedule. `Err` says what went wrong.
    pub(crate) fn run(&mut self) -> Result<Seen, String> {
        for _ in 0..self.plan.steps {
            let length = *self.random.pick(&[1, 5, 5, 20, 20, 100, 400]);
            self.clock.advance(length);
            let kind = Kind::draw(&mut self.random);
            let may = !self.plan.without.contains(&kind);
            self.happen(kind, may);
            self.act()?;
            self.step()?;
        }
        if self.plan.tells_id {
            self.calm()?;
        }
        let mut sum = Seen::default();
        for client in &self.clients {
            sum.publications += client.seen.publications;
            sum.gaps += client.seen.gaps;
            sum.recovered += client.seen.recovered;
            sum.lost += client.seen.lost;
            sum.refused += client.seen.refused;
        }
        if !self.plan.tells_id && sum.publications > 0 {
            return Err("published by servers that could be rolled back unnoticed".to_owned());
        }
        if !self.has_lost_data && sum.gaps + sum.lost > 0 {
            return Err(format!(
                "nothing was lost, and clients were told so: {sum:?}"
            ));
        }
        Ok(sum)
    }

    // --- what happens ---

    fn happen(&mut self, kind: Kind, may: bool) {
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

    fn set_delays(&self) {
        for node in self.places.iter().filter_map(|place| place.node.as_ref()) {
            node.line.set_delay(self.delay);
        }
    }

    fn with_line(&self, at: usize, call: impl Fn(&Line)) {
        if let Some(node) = &self.places[at].node {
            call(&node.line);
        }
    }

    fn fresh_id(&mut self) -> String {
        self.ids += 1;
        format!("{:040x}", self.ids)
    }

    fn publish(&mut self, at: usize) {
        self.published += 1;
        let content = self.published;
        if let Some(node) = &self.places[at].node {
            node.publish(content);
        }
    }

    fn replicate(&mut self) {
        let data = self.servers[self.target].data.clone();
        for server in self.servers.iter_mut().filter(|it| !it.is_master) {
            server.data = data.clone();
        }
        self.note_heads();
    }

    /// A replica takes the place of the master, with what it has.
    fn fail_over(&mut self, lives_on: bool, for_so_long: u64) {
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

    fn end_zombie(&mut self) {
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

    fn cut_all(&self, server: usize) {
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

    fn restart(&mut self) {
        let (id, target) = (self.fresh_id(), self.target);
        self.servers[target].replid = id;
        self.servers[target].drawn = 0;
        self.cut_all(target);
    }

    /// The server goes on with older data, or none; sometimes its connections stand.
    fn roll_back(&mut self, which: u64, stands: bool) {
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

    fn crash(&mut self, at: usize, start_at: u64) {
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

    fn note_heads(&mut self) {
        let now = self.clock.now();
        for (at, server) in self.servers.iter().enumerate() {
            if let Some(head) = server.data.head() {
                self.truth.note_head(at, now, head);
            }
        }
    }

    // --- clients ---

    fn act(&mut self) -> Result<(), String> {
        let now = self.clock.now();
        for at in 0..self.clients.len() {
            if !self.random.chance(4) {
                continue;
            }
            let what = self.random.below(4);
            let client = &mut self.clients[at];
            client.is_slow = what == 0 && !client.is_slow;
            let Some((node, _, connection)) = client.connection else {
                continue;
            };
            let Some(node) = &mut self.places[node].node else {
                continue;
            };
            match (what, client.stage) {
                (1, _) => {
                    node.disconnect(connection);
                    client.lose(now + self.random.below(3000));
                }
                (2, Stage::Active) if client.buffer.is_empty() => {
                    // Reads what was sent before, then leaves and comes back later.
                    node.take_sent(connection, &mut client.buffer);
                    node.unsubscribe(connection);
                    while let Some(record) = Record::take(&mut client.buffer) {
                        client.receive(record, now, &self.truth)?;
                    }
                    client.stage = Stage::Away(now + self.random.below(1500));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Clients come back, and ask from where they stand.
    fn come_back(&mut self) {
        let now = self.clock.now();
        for at in 0..self.clients.len() {
            if self.clients[at].connection.is_none() && now >= self.clients[at].reconnect_at {
                let place = self.random.below(self.places.len() as u64) as usize;
                let life = self.places[place].life;
                if let Some(node) = &mut self.places[place].node {
                    self.clients[at].connection = Some((place, life, node.connect()));
                }
            }
            let client = &mut self.clients[at];
            let (Some((place, _, connection)), Stage::Away(until)) =
                (client.connection, client.stage)
            else {
                continue;
            };
            if now < until {
                continue;
            }
            let claimed = client.cursor;
            client.stage = Stage::Asked(now, claimed);
            if let Some(node) = &mut self.places[place].node {
                node.subscribe(connection, claimed.map(|cursor| cursor.position));
            }
        }
    }

    fn hand_over(&mut self) -> Result<(), String> {
        let now = self.clock.now();
        for (at, client) in self.clients.iter_mut().enumerate() {
            let Some((place, _, connection)) = client.connection else {
                continue;
            };
            let Some(node) = &mut self.places[place].node else {
                continue;
            };
            if !client.is_slow {
                node.take_sent(connection, &mut client.buffer);
            }
            while let Some(record) = Record::take(&mut client.buffer) {
                self.clock
                    .note(|| format!("  client {at} on {place}: {record:?}"));
                let told = client.receive(record, now, &self.truth);
                told.map_err(|why| format!("client {at} on node {place}: {why}"))?;
            }
            if node.closed.contains(&connection) {
                client.lose(now + 50);
            }
        }
        for place in &mut self.places {
            if let Some(node) = &mut place.node {
                node.closed.clear();
            }
        }
        Ok(())
    }

    // --- a step ---

    fn step(&mut self) -> Result<(), String> {
        self.end_zombie();
        self.start_nodes();
        self.come_back();
        self.serve();
        for at in 0..self.places.len() {
            let target = self.target_of(at);
            let rules = self.rules();
            let Some(node) = &mut self.places[at].node else {
                continue;
            };
            let (servers, now) = (&self.servers, self.clock.now());
            let line = node.line.clone();
            let (plan, mutation) = (&self.plan, self.plan.mutation);
            let role = |server: usize| match role(&servers[server], now, plan.tells_id) {
                Role::Other if mutation == Some(Mutation::TakesAnybody) => {
                    Role::Master(String::new())
                }
                role => role,
            };
            line.watch(target, role, rules);
            line.hand_over();
            line.tasks.run(&mut self.random);
            node.turn();
            line.tasks.run(&mut self.random);
            node.turn();
        }
        self.hand_over()?;
        match self.truth.collision {
            Some(position) => Err(format!("two publications at {position}")),
            None => Ok(()),
        }
    }

    fn target_of(&self, at: usize) -> Option<usize> {
        let now = self.clock.now();
        let server = &self.servers[self.target];
        let is_there = server.is_up && now >= server.stalled_until;
        (is_there && now >= self.places[at].cut_until).then_some(self.target)
    }

    fn start_nodes(&mut self) {
        let now = self.clock.now();
        for (at, place) in self.places.iter_mut().enumerate() {
            if place.node.is_some() || now < place.start_at {
                continue;
            }
            place.life += 1;
            let seed = self.random.below(u64::MAX);
            let name = format!("node {at}.{}", place.life);
            let line = Line::new(name, self.clock.clone(), self.delay, seed);
            let namespaces = self.namespaces.clone();
            place.node = Some(Node::new(line, channel(), namespaces, self.sizes));
        }
    }

    /// Servers do what they have been asked, in an order that is drawn.
    fn serve(&mut self) {
        let now = self.clock.now();
        let mut order: Vec<usize> = (0..self.places.len()).collect();
        self.random.shuffle(&mut order);
        for server in 0..self.servers.len() {
            if !self.servers[server].is_up || now < self.servers[server].stalled_until {
                continue;
            }
            for at in &order {
                let Some(node) = &self.places[*at].node else {
                    continue;
                };
                let line = node.line.clone();
                line.serve_messages(server);
                while let Some(call) = line.next_call(server) {
                    let answers = call.commands.iter();
                    let answers = answers.map(|command| self.execute(server, command));
                    let answers = answers.collect();
                    line.answer(call, answers);
                }
            }
        }
        self.note_heads();
    }

    fn execute(
        &mut self,
        at: usize,
        command: &fanfare::redis::Command,
    ) -> Result<fanfare::redis::Value, fanfare::redis::CallError> {
        let broken = self.broken();
        let server = &mut self.servers[at];
        if !server.is_master {
            let why = "READONLY You can't write against a read only replica.";
            return Err(fanfare::redis::CallError::Refused(why.to_owned()));
        }
        let mut store = Store {
            data: &mut server.data,
            replid: if self.plan.tells_id {
                &server.replid
            } else {
                ""
            },
            broken,
            drawn: &mut server.drawn,
            truth: &mut self.truth,
        };
        let (answer, sent) = store.execute(command);
        if let Some(sent) = sent {
            for node in self.places.iter().filter_map(|place| place.node.as_ref()) {
                let lost = node
                    .line
                    .publish(at, &sent, self.treatment, &mut self.random);
                self.waits_for_check |= lost;
            }
            let head = server.data.head();
            self.clock
                .note(|| format!("  server {at}: {answer:?}, head {head:?}"));
        }
        answer
    }

    // --- the end ---

    /// Nothing more happens: everybody comes to the present.
    fn calm(&mut self) -> Result<(), String> {
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
    fn end_of_zombie(&mut self) {
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

    fn is_current(&self) -> bool {
        let head = self.servers[self.target].data.head();
        let nodes = self.places.iter().filter_map(|place| place.node.as_ref());
        nodes.clone().all(Node::is_live)
            && self.clients.iter().all(|client| {
                client.stage == Stage::Active && client.cursor.map(|it| it.place) == head
            })
    }
}

/// What a server says of itself.
fn role(server: &Server, now: u64, tells_id: bool) -> Role {
    if !server.is_up || now < server.stalled_until {
        return Role::Silent;
    }
    let role = if server.is_master { "master" } else { "slave" };
    let id = if tells_id { &*server.replid } else { "" };
    Role::of(&format!("role:{role}\r\nmaster_replid:{id}\r\n"))
}
