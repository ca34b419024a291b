//! The way between one node and Redis.

use std::time::Duration;

use crate::link::Mode;
use crate::run::Run;

async fn expect_harmless(mode: Mode, lasts: Duration) {
    let run = Run::start(120, &[]).await;
    run.link.set(mode);
    tokio::time::sleep(lasts).await;
    run.link.set(Mode::Whole);
    let outcome = run.reckon().await;
    assert_eq!((outcome.lost_by_redis, outcome.told), (0, 0), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_connection_loses_nothing() {
    expect_harmless(Mode::Cut, Duration::from_secs(2)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_black_hole_loses_nothing() {
    expect_harmless(Mode::BlackHole, Duration::from_secs(3)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_black_hole_that_outlasts_patience_loses_nothing() {
    expect_harmless(Mode::BlackHole, Duration::from_secs(8)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_connection_loses_nothing() {
    expect_harmless(
        Mode::Slow(Duration::from_millis(300)),
        Duration::from_secs(3),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn publications_lost_on_the_way_are_read_again() {
    let run = Run::start(120, &[]).await;
    run.link.set(Mode::Losing(5));
    run.publish_more(300).await;
    assert!(run.link.lost() > 20, "{}", run.link.lost());
    run.link.set(Mode::Whole);
    let outcome = run.reckon().await;
    assert_eq!((outcome.lost_by_redis, outcome.told), (0, 0), "{outcome:?}");
}
