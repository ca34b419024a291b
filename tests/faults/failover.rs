//! A master that dies, and a replica that takes its place without having heard of everything.

use crate::link::{Link, Mode};
use crate::redis_server::RedisServer;
use crate::run::Run;
use crate::support::eventually;

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_is_behind_deceives_nobody() {
    let master = RedisServer::start();
    let link = Link::start_for_replica(master.port()).await;
    let (host, port) = (
        link.address.ip().to_string(),
        link.address.port().to_string(),
    );
    let replica = RedisServer::start_with(&["--save", "", "--replicaof", &host, &port]);
    let replicas = |server: &RedisServer| server.ask(&["INFO", "replication"]);
    eventually("a replica", async || {
        replicas(&master).contains("state=online").then_some(())
    })
    .await;
    let sentinel = RedisServer::start_sentinel(&master);
    eventually("the Sentinel knows it", async || {
        let known = sentinel.ask(&["SENTINEL", "REPLICAS", "hub"]);
        known.contains(&replica.port().to_string()).then_some(())
    })
    .await;
    let url = format!(
        "redis-sentinel://127.0.0.1:{}?sentinelServiceName=hub",
        sentinel.port()
    );
    let urls = [url.clone(), url.clone(), url];
    let mut run = Run::start_at(master, link, urls, 120, &[]).await;
    run.publish_more(30).await;
    let below = run.send_away(10);
    // What those who left have seen is with the replica.
    let offset = |server: &RedisServer, name: &str| {
        let info = server.ask(&["INFO", "replication"]);
        let mut lines = info.lines();
        let line = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|line| line.trim().parse::<u64>().ok())
    };
    let sent = offset(&run.redis, "master_repl_offset").expect("a number");
    eventually("the replica follows", async || {
        (offset(&replica, "slave_repl_offset")? >= sent).then_some(())
    })
    .await;
    // From here on the replica hears nothing.
    run.link.set(Mode::BlackHole);
    run.publish_more(60).await;
    // These come back when the numbering has passed where they were: only another epoch tells.
    let above = run.send_away(10);
    run.redis.kill();
    run.publish_more(120).await;
    assert!(replicas(&replica).contains("role:master"));
    run.bring_back(below);
    run.bring_back(above);
    let outcome = run.reckon().await;
    assert!(
        outcome.lost_by_redis >= 50,
        "the fault was one: {outcome:?}"
    );
    assert!(
        outcome.told >= 110,
        "all but ten saw what is gone: {outcome:?}"
    );
    assert!(outcome.recovered >= 10, "ten did not: {outcome:?}");
}
