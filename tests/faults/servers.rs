//! Redis itself: away, back, rolled back, empty, slow, full.

use std::time::Duration;

use crate::redis_server::copy;
use crate::run::Run;

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_with_all_data_loses_nothing() {
    let mut run = Run::start(120, &[]).await;
    run.redis.kill();
    tokio::time::sleep(Duration::from_secs(1)).await;
    run.redis.start_again();
    let outcome = run.reckon().await;
    assert_eq!((outcome.lost_by_redis, outcome.told), (0, 0), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn older_data_deceives_nobody() {
    let mut run = Run::start(120, &[]).await;
    let old = run.redis.data().with_extension("old");
    let below = run.send_away(10);
    copy(&run.redis.data(), &old);
    run.publish_more(100).await;
    // These come back when the numbering has passed where they were: only another epoch tells.
    let above = run.send_away(10);
    run.redis.kill();
    copy(&old, &run.redis.data());
    run.redis.start_again();
    run.publish_more(150).await;
    run.bring_back(below);
    run.bring_back(above);
    let clients = run.subscribers.len();
    let outcome = run.reckon().await;
    assert!(
        outcome.lost_by_redis >= 90,
        "the fault was one: {outcome:?}"
    );
    assert!(
        outcome.told >= clients - 10,
        "all but ten saw what is gone: {outcome:?}"
    );
    assert!(outcome.recovered >= 10, "ten did not: {outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_server_deceives_nobody() {
    let mut run = Run::start(120, &[]).await;
    run.publish_more(50).await;
    run.redis.kill();
    let _ = std::fs::remove_dir_all(run.redis.data());
    run.redis.start_again();
    let clients = run.subscribers.len();
    let outcome = run.reckon().await;
    assert!(
        outcome.lost_by_redis >= 50,
        "the fault was one: {outcome:?}"
    );
    assert!(outcome.told >= clients, "everybody is told: {outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stands_still_loses_nothing() {
    let run = Run::start(120, &[]).await;
    run.redis.ask(&["DEBUG", "SLEEP", "3"]);
    let outcome = run.reckon().await;
    assert!(outcome.unknown > 0, "publishers were told: {outcome:?}");
    assert_eq!((outcome.lost_by_redis, outcome.told), (0, 0), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_server_pretends_nothing() {
    let run = Run::start(120, &[]).await;
    run.redis.ask(&["CONFIG", "SET", "maxmemory", "1"]);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = run.acknowledged();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(run.acknowledged(), before, "nothing is taken");
    run.redis.ask(&["CONFIG", "SET", "maxmemory", "0"]);
    let outcome = run.reckon().await;
    assert!(outcome.refused > 0, "publishers were told: {outcome:?}");
    assert_eq!(
        outcome.unknown, 0,
        "and know that nothing was done: {outcome:?}"
    );
    assert_eq!((outcome.lost_by_redis, outcome.told), (0, 0), "{outcome:?}");
}
