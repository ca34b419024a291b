//! Chaos: a fleet under load to which random things happen, several at a time, from one seed.
//!
//! ```sh
//! CHAOS_SECONDS=300 CHAOS_SEED=7 cargo test --test chaos -- --nocapture
//! ```
//!
//! Without variables it takes half a minute and the same seed each time; `CHAOS_SEED=random` draws one, which is printed. The
//! seed decides what happens and for how
//! long; processes and networks are real, so a run is not repeated to the byte.

#[allow(
    dead_code,
    unused_imports,
    reason = "the hub's suite uses all of it, this one a part"
)]
#[path = "../hub/support/mod.rs"]
mod support;

#[path = "../redis_server/mod.rs"]
mod redis_server;

#[allow(dead_code, reason = "`tests/faults` uses the rest")]
#[path = "../faults/harness/mod.rs"]
mod harness;

#[allow(dead_code, reason = "`tests/fleet` uses the rest")]
#[path = "../fleet/random.rs"]
mod random;

use std::time::{Duration, Instant};

use harness::proxy::Traffic;
use harness::{Fleet, Loss, NODES, Setup};
use random::Random;
use redis_server::copy;

/// What can happen.
#[derive(Debug, Clone, Copy)]
enum Fault {
    Kill(usize),
    Drain(usize),
    Network(usize, Traffic),
    RedisRestarts,
    RedisComesBackOlder,
    RedisComesBackEmpty,
    RedisIsFull,
    RedisStandsStill,
    ClientsAreAway(usize),
}

impl Fault {
    fn any(random: &mut Random) -> Self {
        let index = |random: &mut Random, below: usize| random.below(below as u64) as usize;
        let node = index(random, NODES);
        match random.below(12) {
            0 | 1 => Self::Kill(node),
            2 => Self::Drain(node),
            3 => Self::RedisRestarts,
            4 => Self::RedisComesBackOlder,
            5 if random.chance(50) => Self::RedisComesBackEmpty,
            6 => Self::RedisIsFull,
            7 => Self::RedisStandsStill,
            8 => Self::ClientsAreAway(index(random, 6)),
            _ => Self::Network(
                node,
                *random.pick(&[
                    Traffic::Cut,
                    Traffic::Swallowed,
                    Traffic::Mute,
                    Traffic::Slow(Duration::from_millis(200)),
                    Traffic::Lossy(30),
                    Traffic::Deaf,
                ]),
            ),
        }
    }

    /// Two of these at a time would be one too many: there is one Redis, and a node ends once.
    fn excludes(self, other: Self) -> bool {
        let is_server = |fault| {
            matches!(
                fault,
                Self::RedisRestarts
                    | Self::RedisComesBackOlder
                    | Self::RedisComesBackEmpty
                    | Self::RedisIsFull
                    | Self::RedisStandsStill
            )
        };
        let node = |fault| match fault {
            Self::Kill(node) | Self::Drain(node) | Self::Network(node, _) => Some(node),
            _ => None,
        };
        let is_same_node = node(self).is_some() && node(self) == node(other);
        let are_clients = |fault| matches!(fault, Self::ClientsAreAway(_));
        (is_server(self) && is_server(other))
            || is_same_node
            || (are_clients(self) && are_clients(other))
    }

    async fn begin(self, fleet: &mut Fleet) {
        match self {
            Self::Kill(node) => fleet.kill(node),
            Self::Drain(node) => {
                let mut hub = fleet.nodes[node].take().expect("it lives");
                hub.terminate();
                assert_eq!(hub.exit_code().await, Some(0));
            }
            Self::Network(node, traffic) => fleet.proxies[node].set(traffic),
            Self::RedisRestarts | Self::RedisComesBackOlder | Self::RedisComesBackEmpty => {
                fleet.redis.kill();
            }
            Self::RedisIsFull => {
                fleet.redis.ask(&["CONFIG", "SET", "maxmemory", "1"]);
            }
            Self::RedisStandsStill => {
                fleet.redis.ask(&["DEBUG", "SLEEP", "1.5"]);
            }
            Self::ClientsAreAway(part) => fleet.send_away(part * 40..part * 40 + 40, true),
        }
    }

    async fn end(self, fleet: &mut Fleet) {
        match self {
            Self::Kill(node) | Self::Drain(node) => fleet.start_again(node).await,
            Self::Network(node, _) => fleet.proxies[node].set(Traffic::Passing),
            Self::RedisRestarts => fleet.redis.start_again(),
            Self::RedisComesBackOlder => {
                copy(
                    &fleet.redis.data().with_extension("older"),
                    &fleet.redis.data(),
                );
                fleet.redis.start_again();
            }
            Self::RedisComesBackEmpty => {
                std::fs::remove_dir_all(fleet.redis.data()).expect("its data");
                fleet.redis.start_again();
            }
            Self::RedisIsFull => {
                fleet.redis.ask(&["CONFIG", "SET", "maxmemory", "0"]);
            }
            Self::RedisStandsStill => {}
            Self::ClientsAreAway(part) => fleet.send_away(part * 40..part * 40 + 40, false),
        }
    }
}

fn variable(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(
        value
            .parse()
            .unwrap_or_else(|_| panic!("{name} must be a number")),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_nobody_is_told_a_lie() {
    let is_random = std::env::var("CHAOS_SEED").is_ok_and(|seed| seed == "random");
    let seed = match is_random {
        true => rand::random(),
        false => variable("CHAOS_SEED").unwrap_or(1),
    };
    let lasts = Duration::from_secs(variable("CHAOS_SECONDS").unwrap_or(30));
    eprintln!("CHAOS_SEED={seed} CHAOS_SECONDS={}", lasts.as_secs());
    let mut random = Random::new(seed);
    let setup = Setup {
        variables: &[("DRAIN_SECONDS", "1")],
        ..Setup::default()
    };
    let mut fleet = Fleet::with("chaos", setup).await;
    let began = Instant::now();
    while began.elapsed() < lasts {
        if random.chance(50) {
            copy(
                &fleet.redis.data(),
                &fleet.redis.data().with_extension("older"),
            );
        }
        round(&mut fleet, &mut random).await;
    }
    fleet.compare(Loss::Any).await;
}

/// One or more things happen, last for a while, and end in some order; then everything is as before.
async fn round(fleet: &mut Fleet, random: &mut Random) {
    let mut faults: Vec<Fault> = Vec::new();
    for _ in 0..=random.below(3) {
        let fault = Fault::any(random);
        let has_older = fleet.redis.data().with_extension("older").exists();
        let is_possible = has_older || !matches!(fault, Fault::RedisComesBackOlder);
        if is_possible && !faults.iter().any(|other| fault.excludes(*other)) {
            faults.push(fault);
        }
    }
    eprintln!("chaos: {faults:?}");
    for fault in &faults {
        fault.begin(fleet).await;
        pause(random, 800).await;
    }
    pause(random, 4000).await;
    random.shuffle(&mut faults);
    // A node begins only when it reaches Redis.
    faults.sort_by_key(|fault| matches!(fault, Fault::Kill(_) | Fault::Drain(_)));
    for fault in &faults {
        fault.end(fleet).await;
        pause(random, 300).await;
    }
    fleet.back_to_normal().await;
}

/// Lets things be as they are for a while: what the schedule consists of, not a wait for something.
async fn pause(random: &mut Random, millis_max: u64) {
    tokio::time::sleep(Duration::from_millis(random.below(millis_max))).await;
}
