//! Servers, nodes and clients, and what happens to them: one step after the other, drawn from the seed.

mod calm;
mod happening;

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
