//! The model: a few nodes, servers and clients in one thread, on a clock of its own, in schedules drawn from a seed.
//!
//! What nodes decide is decided by the code that runs in a node: the broker over Redis with its interest, checks and shared
//! reads, the relay and its inboxes, the hub, `relay::follow` and `redis::watch`. The model's own are the servers (what the
//! scripts do is held to the real ones in `scripts.rs`), the network, and the clients.
//!
//! What happens: publications, failovers that lose what the replica had not heard of, old masters that live on, restarts
//! with the same, older or no data, data that changes under connections that stand, ids that change for nothing, streams
//! and metas that are lost, messages that are lost, repeated or late, connections that are cut, silent servers, crashes.
//!
//! What holds: who is told `recovered` misses nothing; publications come in order, once, and none is left out untold; a
//! position means one place for ever; where nothing was lost nobody is told so; and soon after the last fault everybody
//! stands at the present.
//!
//! `FANFARE_SEED=<n>` repeats a schedule and shows what happened, `FANFARE_SCHEDULES=<n>` says how many are run.

use std::collections::BTreeSet;

mod client;
mod line;
mod node;
mod record;
pub(crate) mod store;
pub(crate) mod tasks;
pub(crate) mod truth;
mod world;

use crate::random::Random;
use client::Seen;
pub(crate) use store::Broken;
use world::World;

/// What can happen in a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Nothing,
    Publish,
    Replicate,
    Snapshot,
    FailOver,
    Restart,
    RollBack,
    ChangeId,
    LoseStream,
    Stall,
    CutCommands,
    CutMessages,
    CutOff,
    Crash,
    Weather,
    Delay,
}

/// How often each happens, in a thousand steps.
const KINDS: [(Kind, u64); 15] = [
    (Kind::Publish, 300),
    (Kind::Replicate, 60),
    (Kind::Snapshot, 20),
    (Kind::FailOver, 20),
    (Kind::Restart, 10),
    (Kind::RollBack, 16),
    (Kind::ChangeId, 6),
    (Kind::LoseStream, 6),
    (Kind::Stall, 8),
    (Kind::CutCommands, 10),
    (Kind::CutMessages, 10),
    (Kind::CutOff, 10),
    (Kind::Crash, 8),
    (Kind::Weather, 6),
    (Kind::Delay, 6),
];

impl Kind {
    fn draw(random: &mut Random) -> Self {
        let mut at = random.below(1000);
        for (kind, often) in KINDS {
            match at.checked_sub(often) {
                Some(rest) => at = rest,
                None => return kind,
            }
        }
        Self::Nothing
    }
}

/// A defect that is put in on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mutation {
    /// The scripts break a rule.
    Script(Broken),
    /// 8: a replication id that changes is not minded.
    IgnoresId,
    /// 8: one that changes where commands go is not.
    IgnoresIdOfCommands,
    /// 8: two connections that lead to two servers are not minded.
    IgnoresDifference,
    /// 10: a server that tells no id is taken for a master.
    TakesAnybody,
}

/// A schedule.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    seed: u64,
    steps: u64,
    /// Whether servers tell their ids.
    tells_id: bool,
    without: BTreeSet<Kind>,
    mutation: Option<Mutation>,
}

impl Plan {
    fn of(seed: u64, mutation: Option<Mutation>) -> Self {
        let mut random = Random::new(seed ^ 0x5EED);
        // Each schedule is without some of what can happen, so that each is seen with little else around it.
        let kinds = KINDS.iter().map(|(kind, _)| *kind);
        let without = kinds.filter(|kind| *kind != Kind::Publish && random.chance(40));
        Self {
            without: without.collect(),
            tells_id: !random.chance(2),
            steps: 20 + random.below(130),
            seed,
            mutation,
        }
    }

    fn run(&self) -> Result<Seen, String> {
        World::new(self.clone(), false).run()
    }

    /// The same with as little as still goes wrong.
    fn shrunk(mut self) -> Self {
        for (kind, _) in KINDS {
            let mut less = self.clone();
            if less.without.insert(kind) && less.run().is_err() {
                self = less;
            }
        }
        while self.steps > 1 {
            let mut less = self.clone();
            less.steps -= (less.steps / 8).max(1);
            if less.run().is_ok() {
                break;
            }
            self = less;
        }
        self
    }
}

/// The first of so many schedules that goes wrong.
fn first_failure(seeds: std::ops::Range<u64>, mutation: Mutation) -> Option<(u64, String)> {
    seeds.into_iter().find_map(|seed| {
        let why = Plan::of(seed, Some(mutation)).run().err()?;
        Some((seed, why))
    })
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().expect("a number"))
}

fn fail(plan: Plan, why: &str) -> ! {
    let plan = plan.shrunk();
    let mut world = World::new(plan.clone(), true);
    let told = world.run();
    let journal = world.journal().join("\n");
    panic!(
        "{journal}\n{why}\nas little as goes wrong: {plan:?}: {told:?}\nFANFARE_SEED={} repeats this",
        plan.seed
    );
}

#[test]
fn nobody_is_told_a_lie_whatever_happens() {
    let seeds = match number("FANFARE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("FANFARE_SCHEDULES").unwrap_or(2000),
    };
    let mut sum = Seen::default();
    for seed in seeds.clone() {
        let plan = Plan::of(seed, None);
        match plan.run() {
            Ok(seen) => {
                sum.publications += seen.publications;
                sum.gaps += seen.gaps;
                sum.recovered += seen.recovered;
                sum.lost += seen.lost;
                sum.refused += seen.refused;
            }
            Err(why) => fail(plan, &why),
        }
    }
    eprintln!("{} schedules: {sum:?}", seeds.end - seeds.start);
    if seeds.end - seeds.start >= 500 {
        let all = [
            sum.publications,
            sum.gaps,
            sum.recovered,
            sum.lost,
            sum.refused,
        ];
        assert!(all.iter().all(|count| *count > 100), "{sum:?}");
    }
}

#[test]
fn each_broken_rule_is_found() {
    let script = [
        Broken::Id,
        Broken::NoFork,
        Broken::LateFork,
        Broken::TopOfStream,
        Broken::SameEpochs,
        Broken::Ahead,
        Broken::AboveFork,
        Broken::Trimmed,
        Broken::Renumbered,
        Broken::NoMeta,
    ];
    let watch = [
        Mutation::IgnoresId,
        Mutation::IgnoresIdOfCommands,
        Mutation::IgnoresDifference,
        Mutation::TakesAnybody,
    ];
    let mutations = script.map(Mutation::Script).into_iter().chain(watch);
    let mut missed = Vec::new();
    for mutation in mutations {
        match first_failure(0..2000, mutation) {
            Some((seed, why)) => eprintln!("{mutation:?}: seed {seed}: {why}"),
            None => missed.push(mutation),
        }
    }
    assert!(missed.is_empty(), "not found: {missed:?}");
}
