//! A simulated fleet: several workers' hubs over one broker, a virtual clock, clients that read strictly, and one seed
//! for each schedule. `FANFARE_SEED=<n>` repeats a schedule, `FANFARE_SCHEDULES=<n>` says how many are run.
//!
//! What holds in every schedule: publications of a channel come in order and once; what does not come is told (`gap`,
//! `recovered: false`), with the right count and position; nothing comes before `subscribed` or after `unsubscribed`;
//! no frame is torn; a connection is closed once, and nothing follows; no queue and no hub passes its bounds; when it
//! becomes calm, everybody stands at the top of each stream, and nothing is held.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::Duration;

use fanfare::hub::Limits;
use fanfare::model::{ChannelKey, HistoryPolicy, Namespace, Namespaces, OverflowPolicy};

mod bus;
mod client;
mod random;
mod worker;

use bus::{Bus, Weather};
use client::{Seen, SimClient, Stage};
use random::Random;
use worker::{Worker, World};

/// What one schedule is like.
#[derive(Debug, Clone, Copy)]
struct Climate {
    workers: usize,
    clients: usize,
    steps: u64,
    weather: Weather,
    history: u32,
    limits: Limits,
    /// Chances in a thousand of a restart of the broker, in each step.
    restarts: u64,
    /// Whether all readers take what comes.
    all_fast: bool,
}

impl Climate {
    fn of(random: &mut Random) -> Self {
        let all_fast = random.chance(30);
        let weather = Weather {
            delay_max: random.below(6),
            loss: if random.chance(50) {
                random.below(20)
            } else {
                0
            },
            repetition: random.below(20),
        };
        let limits = Limits {
            pending_bytes_max: if all_fast {
                1 << 20
            } else {
                700 + random.below(3000) as usize
            },
            pending_messages_max: if all_fast {
                10_000
            } else {
                8 + random.below(40) as usize
            },
            total_pending_bytes_max: if all_fast {
                1 << 24
            } else {
                3700 + random.below(6000) as usize
            },
        };
        Self {
            workers: 1 + random.below(3) as usize,
            clients: 2 + random.below(6) as usize,
            steps: 60 + random.below(100),
            weather,
            history: if random.chance(70) {
                10_000
            } else {
                4 + random.below(20) as u32
            },
            limits,
            restarts: if random.chance(30) {
                random.below(30)
            } else {
                0
            },
            all_fast,
        }
    }

    /// Whether the broker keeps everything, so that nothing need be lost.
    fn keeps_all(&self) -> bool {
        self.history == 10_000 && self.restarts == 0
    }

    fn namespaces(&self) -> Namespaces {
        let namespace = |overflow, size| Namespace {
            history: HistoryPolicy {
                size,
                ttl: Duration::from_secs(3600),
            },
            overflow,
            ..Namespace::default_for(true)
        };
        let kept = self.history;
        Namespaces::new(
            namespace(OverflowPolicy::Disconnect, kept),
            BTreeMap::from([
                (
                    "drop".to_owned(),
                    namespace(OverflowPolicy::DropOldest, kept),
                ),
                ("latest".to_owned(), namespace(OverflowPolicy::Latest, kept)),
                ("plain".to_owned(), namespace(OverflowPolicy::Disconnect, 0)),
            ]),
        )
    }
}

struct Fleet {
    climate: Climate,
    random: Random,
    namespaces: Arc<Namespaces>,
    bus: Bus,
    workers: Vec<Worker>,
    clients: Vec<SimClient>,
    channels: Vec<ChannelKey>,
}

impl Fleet {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let climate = Climate::of(&mut random);
        let namespaces = Arc::new(climate.namespaces());
        let channels = ["news", "more", "drop:a", "latest:a", "plain:a"];
        let clients = (0..climate.clients).map(|_| SimClient::new(usize::MAX));
        Self {
            climate,
            bus: Bus::new(climate.workers, Arc::clone(&namespaces), climate.weather),
            workers: (0..climate.workers)
                .map(|at| Worker::new(at, climate.limits))
                .collect(),
            clients: clients.collect(),
            channels: channels
                .map(|name| ChannelKey::new(name).expect("a name"))
                .into(),
            namespaces,
            random,
        }
    }

    /// Calls a worker with the rest of the world.
    fn with<T>(&mut self, worker: usize, call: impl FnOnce(&mut Worker, &mut World<'_>) -> T) -> T {
        let mut world = World {
            bus: &mut self.bus,
            random: &mut self.random,
            namespaces: &self.namespaces,
        };
        call(&mut self.workers[worker], &mut world)
    }

    fn step(&mut self, is_calm: bool) {
        self.bus.tick();
        for client in 0..self.clients.len() {
            if !is_calm {
                self.act(client);
            }
            self.reconnect(client);
        }
        for worker in 0..self.workers.len() {
            self.give_room(worker);
            self.with(worker, Worker::turn);
            self.hand_over(worker);
        }
    }

    /// What happens beside the clients.
    fn disturb(&mut self) {
        for _ in 0..self.random.below(4) {
            let channel = self.random.pick(&self.channels).clone();
            let burst = if self.random.chance(5) { 20 } else { 1 };
            for _ in 0..burst {
                let key = ["a", "b", "c"][self.random.below(3) as usize];
                self.bus.publish(&mut self.random, &channel, Some(key));
            }
        }
        if self.random.below(1000) < self.climate.restarts {
            self.bus.restart();
        }
        if self.random.below(1000) < 4 {
            let worker = self.random.below(self.workers.len() as u64) as usize;
            self.with(worker, Worker::drain);
        }
    }

    fn act(&mut self, at: usize) {
        if !self.climate.all_fast && self.random.chance(5) {
            self.clients[at].speed = *self.random.pick(&[0, 1, 7, 40, 300, usize::MAX]);
        }
        let Some((worker, connection)) = self.clients[at].connection else {
            return;
        };
        let channel = self.random.pick(&self.channels).clone();
        let stage = self.clients[at]
            .subscriptions
            .get(&channel)
            .map(|it| it.stage);
        match (self.random.below(100), stage) {
            (0..20, None) => {
                let recover = self.clients[at].ask(&channel);
                self.with(worker, |worker, world| {
                    worker.subscribe(world, connection, &channel, recover);
                });
            }
            (20..24, Some(Stage::Active)) => {
                let subscription = self.clients[at].subscriptions.get_mut(&channel);
                subscription.expect("it").stage = Stage::Leaving;
                self.with(worker, |worker, world| {
                    worker.unsubscribe(world, connection, &channel);
                });
            }
            (24..26, _) => {
                self.with(worker, |worker, world| {
                    worker.remove(world, connection.index);
                });
            }
            _ => {}
        }
    }

    fn reconnect(&mut self, at: usize) {
        if self.clients[at].connection.is_some() || self.bus.now < self.clients[at].reconnect_at {
            return;
        }
        let worker = self.random.below(self.workers.len() as u64) as usize;
        let connection = self.workers[worker].connect();
        self.clients[at].connection = Some((worker, connection));
        let channels: Vec<_> = self.clients[at].subscriptions.keys().cloned().collect();
        for channel in channels {
            let recover = self.clients[at].ask(&channel);
            self.with(worker, |worker, world| {
                worker.subscribe(world, connection, &channel, recover);
            });
        }
    }

    fn give_room(&mut self, at: usize) {
        for client in &self.clients {
            if let Some((worker, connection)) = client.connection
                && worker == at
            {
                self.workers[at].set_room(connection, client.speed);
            }
        }
    }

    /// Brings clients what was written, and the news of ends.
    fn hand_over(&mut self, at: usize) {
        let namespaces = &self.namespaces;
        let policy = |channel: &ChannelKey| namespaces.of(channel).overflow;
        let ended = std::mem::take(&mut self.workers[at].ended);
        for client in &mut self.clients {
            let Some((worker, connection)) = client.connection else {
                continue;
            };
            if worker != at {
                continue;
            }
            let sent = self.workers[at].take_sent(connection);
            client.receive(&sent, &self.bus, policy);
            if let Some((_, last)) = ended.iter().find(|(end, _)| *end == connection) {
                client.receive(last, &self.bus, policy);
                client.lost_connection(self.bus.now + self.random.below(10));
            }
        }
    }

    /// Nothing more happens, all readers are fast: everybody comes to stand at the top.
    fn calm_down(&mut self) {
        self.bus.weather = Weather {
            delay_max: 1,
            loss: 0,
            repetition: 0,
        };
        for client in &mut self.clients {
            client.speed = usize::MAX;
        }
        for _ in 0..400 {
            self.step(true);
            let is_settled = self.clients.iter().all(SimClient::is_settled);
            if is_settled && self.workers.iter().all(Worker::is_idle) {
                // What was still on its way when it became calm.
                (0..20).for_each(|_| self.step(true));
                return self.check_end();
            }
        }
        panic!("it never becomes calm: {:?}", self.climate);
    }

    fn check_end(&mut self) {
        for (at, client) in self.clients.iter().enumerate() {
            for (channel, subscription) in &client.subscriptions {
                subscription.check_told();
                let top = self.bus.position(channel);
                assert_eq!(subscription.cursor, top, "client {at} in {channel}");
            }
            if self.climate.keeps_all() {
                assert_eq!(client.seen.lost, 0, "everything is kept");
                let told = client.seen.kept_gaps;
                assert!(told == 0 || !self.climate.all_fast, "all readers are fast");
            }
        }
        for worker in 0..self.workers.len() {
            self.with(worker, Worker::drain);
            self.give_room(worker);
            self.with(worker, Worker::turn);
            self.hand_over(worker);
            let hub = &self.workers[worker].hub;
            let left = (
                hub.connection_count(),
                hub.channel_count(),
                hub.held_bytes(),
            );
            assert_eq!(left, (0, 0, 0), "a drained worker holds nothing");
        }
    }
}

/// Runs one schedule, and says what clients saw.
fn run(seed: u64) -> Vec<Seen> {
    let mut fleet = Fleet::new(seed);
    for _ in 0..fleet.climate.steps {
        fleet.disturb();
        fleet.step(false);
    }
    fleet.calm_down();
    fleet.clients.iter().map(|client| client.seen).collect()
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().expect("a number"))
}

#[test]
fn whatever_happens_everything_comes_once_and_in_order_or_is_told() {
    let seeds = match number("FANFARE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("FANFARE_SCHEDULES").unwrap_or(800),
    };
    let mut sum = Seen::default();
    for seed in seeds.clone() {
        let seen = catch_unwind(AssertUnwindSafe(|| run(seed))).unwrap_or_else(|panic| {
            eprintln!("FANFARE_SEED={seed} repeats this");
            resume_unwind(panic)
        });
        for seen in seen {
            sum.publications += seen.publications;
            sum.gaps += seen.gaps;
            sum.kept_gaps += seen.kept_gaps;
            sum.lost += seen.lost;
            sum.recovered += seen.recovered;
            sum.closes += seen.closes;
        }
    }
    eprintln!("{} schedules: {sum:?}", seeds.end - seeds.start);
    if seeds.end - seeds.start >= 100 {
        // A simulation in which none of this happens proves nothing.
        let Seen {
            publications,
            gaps: _,
            kept_gaps,
            lost,
            recovered,
            closes,
        } = sum;
        let all = [publications, kept_gaps, lost, recovered, closes];
        assert!(all.iter().all(|count| *count > 100), "{sum:?}");
    }
}
