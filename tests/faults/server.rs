//! Redis itself: away, slow, full, and back with other data than before.

use std::time::Duration;

use crate::harness::{Fleet, Loss, Setup, address};
use crate::redis_server::{RedisServer, copy};

/// Kills Redis under load and waits until publishers know.
async fn kill(fleet: &mut Fleet) {
    fleet.redis.kill();
    fleet
        .until("publishers are told", |fleet| {
            fleet.told(|told| &told.refused) > 10
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_with_its_data_loses_nothing() {
    let mut fleet = Fleet::start("3a: Redis is killed and comes back with its data").await;
    kill(&mut fleet).await;
    let connected = fleet.connected();
    assert_eq!(connected, fleet.clients.len(), "clients stay connected");
    fleet.redis.start_again();
    fleet.back_to_normal().await;
    fleet.compare(Loss::None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_with_older_data_is_told() {
    let mut fleet = Fleet::start("3b: Redis is killed and comes back with older data").await;
    let (below, above, elsewhere) = (0..30, 30..60, 60..90);
    fleet.send_away(below.clone(), true);
    fleet.advance(2).await;
    let older = fleet.redis.data().with_extension("older");
    copy(&fleet.redis.data(), &older);
    // Members of whom the older data knows nothing, in the place of some that are no more.
    fleet.send_away(elsewhere.clone(), true);
    fleet.advance(5).await;
    fleet.send_away(above.clone(), true);
    fleet.send_away(elsewhere, false);
    fleet.advance(3).await;
    kill(&mut fleet).await;
    copy(&older, &fleet.redis.data());
    fleet.redis.start_again();
    // The numbering passes where those who are away were: of that only another epoch tells.
    fleet.advance(20).await;
    fleet.send_away(below.clone(), false);
    fleet.send_away(above.clone(), false);
    fleet.back_to_normal().await;
    let (recovered, told) = fleet.told_to(below);
    assert!(recovered > 0 && told == 0, "below: {recovered}, {told}");
    let (recovered, told) = fleet.told_to(above.clone());
    assert!(
        recovered == 0 && told >= above.len(),
        "above: {recovered}, {told}"
    );
    fleet.compare(Loss::InRedis).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_restart_is_told() {
    let mut fleet = Fleet::start("3c: Redis is killed and comes back empty").await;
    kill(&mut fleet).await;
    std::fs::remove_dir_all(fleet.redis.data()).expect("its data");
    fleet.redis.start_again();
    fleet.back_to_normal().await;
    fleet.compare(Loss::InRedis).await;
}

/// A replica that was cut off from its master a while ago.
async fn replica_left_behind(fleet: &Fleet) -> RedisServer {
    let replica = RedisServer::start_kept();
    replica.follow(&fleet.redis);
    fleet.advance(3).await;
    // It looks for its master where nobody is.
    replica.ask(&["CONFIG", "SET", "repl-timeout", "3600"]);
    replica.ask(&["REPLICAOF", "127.0.0.1", "1"]);
    fleet.advance(5).await;
    replica
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_to_a_replica_left_behind_is_told() {
    let mut fleet = Fleet::start("4: a replica that was left behind is promoted").await;
    let replica = replica_left_behind(&fleet).await;
    kill(&mut fleet).await;
    replica.ask(&["REPLICAOF", "NO", "ONE"]);
    for proxy in &fleet.proxies {
        proxy.lead_to(address(&replica));
    }
    fleet.redis = replica;
    fleet.back_to_normal().await;
    fleet.compare(Loss::InRedis).await;
}

/// How far a server has come with what is replicated.
fn replicated(server: &RedisServer, field: &str) -> Option<u64> {
    let info = server.ask(&["INFO", "replication"]);
    let mut lines = info.lines();
    let line = lines.find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line?.trim().parse().ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_by_a_sentinel_is_told() {
    let setup = Setup {
        has_sentinel: true,
        ..Setup::default()
    };
    let mut fleet = Fleet::with("4: a Sentinel promotes a replica left behind", setup).await;
    let (below, above) = (0..30, 30..60);
    fleet.send_away(below.clone(), true);
    fleet.advance(2).await;
    // What those who left have seen is with the replica.
    let sent = replicated(&fleet.redis, "master_repl_offset").expect("a number");
    let has_all = |fleet: &Fleet| {
        let replica = fleet.standby.as_ref().map(|standby| &standby.replica);
        replica.and_then(|replica| replicated(replica, "slave_repl_offset")) >= Some(sent)
    };
    fleet.until("the replica has that", has_all).await;
    // The master no longer lets the replica follow, which is what a broken network between the two looks like.
    fleet
        .redis
        .ask(&["ACL", "SETUSER", "default", "-psync", "-sync"]);
    fleet.redis.ask(&["CLIENT", "KILL", "TYPE", "replica"]);
    fleet.advance(5).await;
    fleet.send_away(above.clone(), true);
    fleet.advance(3).await;
    kill(&mut fleet).await;
    fleet.advance(20).await;
    fleet.send_away(below.clone(), false);
    fleet.send_away(above.clone(), false);
    fleet.redis = fleet.standby.take().expect("a replica").replica;
    fleet.back_to_normal().await;
    let (recovered, told) = fleet.told_to(below);
    assert!(recovered > 0 && told == 0, "below: {recovered}, {told}");
    let (recovered, told) = fleet.told_to(above.clone());
    assert!(
        recovered == 0 && told >= above.len(),
        "above: {recovered}, {told}"
    );
    fleet.compare(Loss::InRedis).await;
}

/// As above, and publications are acknowledged only when the replica has them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_takes_nothing_that_a_replica_had_to_have() {
    let setup = Setup {
        has_sentinel: true,
        variables: &[("REDIS_WAIT_REPLICAS", "1")],
        ..Setup::default()
    };
    let mut fleet = Fleet::with("4: the same with REDIS_WAIT_REPLICAS=1", setup).await;
    fleet.advance(2).await;
    fleet
        .redis
        .ask(&["ACL", "SETUSER", "default", "-psync", "-sync"]);
    fleet.redis.ask(&["CLIENT", "KILL", "TYPE", "replica"]);
    fleet
        .until("publishers are told", |fleet| {
            fleet.told(|told| &told.unknown) > 50
        })
        .await;
    kill(&mut fleet).await;
    let next = RedisServer::start_kept();
    let promoted = |fleet: &Fleet| {
        let standby = fleet.standby.as_ref().map(|standby| &standby.replica);
        standby.is_some_and(|replica| replica.ask(&["ROLE"]).starts_with("master"))
    };
    fleet.until("the replica is promoted", promoted).await;
    next.follow(&fleet.standby.as_ref().expect("a replica").replica);
    fleet.advance(2).await;
    fleet.redis = fleet.standby.take().expect("a replica").replica;
    fleet.back_to_normal().await;
    fleet.compare(Loss::Unacknowledged).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_follow_a_failover_one_by_one_are_told() {
    let mut fleet = Fleet::start("4: nodes go over to the new master one by one").await;
    let replica = replica_left_behind(&fleet).await;
    replica.ask(&["REPLICAOF", "NO", "ONE"]);
    // The old master still lives, and takes what nobody will have.
    for proxy in &fleet.proxies {
        proxy.lead_to(address(&replica));
        tokio::time::sleep(Duration::from_millis(700)).await;
    }
    fleet.redis = replica;
    fleet.back_to_normal().await;
    fleet.compare(Loss::InRedis).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stands_still_loses_nothing() {
    let mut fleet = Fleet::start("8: Redis stands still for three seconds").await;
    let port = address(&fleet.redis).port().to_string();
    let mut sleeping = std::process::Command::new("redis-cli")
        .args(["-p", &port, "DEBUG", "SLEEP", "3"])
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("redis-cli is installed");
    fleet
        .until("publishers are told", |fleet| {
            fleet.told(|told| &told.unknown) > 10
        })
        .await;
    while sleeping.try_wait().expect("a child").is_none() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    fleet.back_to_normal().await;
    fleet.compare(Loss::None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_redis_pretends_nothing() {
    let mut fleet = Fleet::start("9: Redis is out of memory").await;
    fleet
        .redis
        .ask(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    fleet.redis.ask(&["CONFIG", "SET", "maxmemory", "1"]);
    fleet
        .until("publishers are told", |fleet| {
            fleet.told(|told| &told.full) > 50
        })
        .await;
    let acknowledged = fleet.acknowledged();
    // Who comes back meanwhile still gets what is there.
    let before = fleet.sessions();
    fleet.kill(0);
    fleet
        .until("clients come back", |fleet| {
            fleet.sessions() > before && fleet.connected() == fleet.clients.len()
        })
        .await;
    assert_eq!(fleet.acknowledged(), acknowledged, "nothing is pretended");
    fleet.redis.ask(&["CONFIG", "SET", "maxmemory", "0"]);
    fleet.back_to_normal().await;
    fleet.compare(Loss::None).await;
}
