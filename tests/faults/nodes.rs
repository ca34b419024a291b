//! Nodes that go away.

use crate::run::Run;

/// Nothing was lost, nobody noticed.
fn expect_nothing_lost(outcome: &crate::run::Outcome) {
    assert_eq!(outcome.lost_by_redis, 0, "{outcome:?}");
    assert_eq!(outcome.told, 0, "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_node_loses_nothing() {
    let mut run = Run::start(120, &[]).await;
    // The end of the value is a SIGKILL.
    drop(run.take_out(1));
    run.publish_more(100).await;
    let outcome = run.reckon().await;
    assert!(
        outcome.recovered >= 30,
        "its clients went on elsewhere: {outcome:?}"
    );
    expect_nothing_lost(&outcome);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_node_loses_nothing() {
    let mut run = Run::start(120, &[]).await;
    let mut leaving = run.take_out(2);
    leaving.terminate();
    assert_eq!(leaving.exit_code().await, Some(0));
    let outcome = run.reckon().await;
    assert!(
        outcome.recovered >= 30,
        "its clients went on elsewhere: {outcome:?}"
    );
    expect_nothing_lost(&outcome);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_that_come_back_at_once_lose_nothing() {
    let mut run = Run::start(1000, &[]).await;
    drop(run.take_out(1));
    let outcome = run.reckon().await;
    assert!(outcome.recovered >= 300, "{outcome:?}");
    expect_nothing_lost(&outcome);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_inbox_loses_nothing() {
    let run = Run::start(60, &[("INBOX_MAX_MESSAGES", "1")]).await;
    run.publish_more(300).await;
    expect_nothing_lost(&run.reckon().await);
}
