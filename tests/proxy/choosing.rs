//! Which upstream is asked, and which one instead.

use crate::support::eventually;
use crate::upstream::Upstream;
use crate::{node, node_with};

#[tokio::test]
async fn round_robin_goes_round() {
    let (one, two) = (Upstream::start().await, Upstream::start().await);
    let node = node(&[&one, &two], &[("LOAD_BALANCING", "round-robin")]).await;
    for _ in 0..10 {
        assert_eq!(node.get("/api/example/").await.status, 200);
    }
    assert_eq!((one.requests(), two.requests()), (5, 5));
}

#[tokio::test]
async fn a_request_that_one_upstream_fails_is_answered_by_another() {
    let (well, away) = (Upstream::start().await, Upstream::refusing().await);
    let node = node(&[&well, &away], &[("LOAD_BALANCING", "round-robin")]).await;
    for method in ["GET", "POST"] {
        for _ in 0..4 {
            let answer = node.request(method, "/api/example/", &[], "").await;
            assert_eq!(answer.status, 200, "{answer:?}");
        }
    }
}

#[tokio::test]
async fn what_may_have_been_done_is_not_done_twice() {
    let (one, two) = (Upstream::start().await, Upstream::start().await);
    let node = node(&[&one, &two], &[]).await;
    let answer = node
        .request("POST", "/api/example/cut-head", &[], "x")
        .await;
    assert_eq!(answer.status, 502, "{answer:?}");
    assert_eq!(one.requests() + two.requests(), 1);
    let answer = node.get("/api/example/cut-head").await;
    assert_eq!(answer.status, 502, "{answer:?}");
    assert_eq!(
        one.requests() + two.requests(),
        3,
        "a GET goes to the other one too"
    );
}

#[tokio::test]
async fn an_upstream_that_fails_five_times_is_left_alone() {
    let (well, ill) = (Upstream::start().await, Upstream::start().await);
    ill.set_ill(true);
    let node = node(&[&well, &ill], &[("LOAD_BALANCING", "round-robin")]).await;
    let mut failed = 0;
    for _ in 0..40 {
        failed += usize::from(node.get("/api/example/").await.status == 500);
    }
    assert_eq!((failed, ill.requests()), (5, 5));
}

/// A 429 is an answer as any other, unless the service counts the good ones.
#[tokio::test]
async fn an_upstream_with_too_few_good_answers_is_left_alone_where_the_service_says_so() {
    let (well, busy) = (Upstream::start().await, Upstream::start().await);
    busy.set_status(429);
    let even = "balance = \"round-robin\"\n";
    let counts = "breaker = { success_percent = 80, requests_min = 10 }";
    for (lines, expected) in [("", 20), (counts, 10)] {
        let before = busy.requests();
        let node = node_with(&[&well, &busy], &format!("{even}{lines}"), &[]).await;
        let mut limited = 0;
        for _ in 0..40 {
            limited += usize::from(node.get("/api/example/").await.status == 429);
        }
        let asked = busy.requests() - before;
        assert_eq!((limited, asked), (expected, expected), "{lines}");
        if !lines.is_empty() {
            eventually("why stands in the log", async || {
                node.log().contains("it answered 429").then_some(())
            })
            .await;
        }
    }
}

#[tokio::test]
async fn when_all_fail_they_are_still_asked() {
    let only = Upstream::start().await;
    only.set_ill(true);
    let node = node(&[&only], &[]).await;
    for _ in 0..8 {
        assert_eq!(node.get("/api/example/").await.text, "ill");
    }
    only.set_ill(false);
    assert_eq!(node.get("/api/example/").await.status, 200);
}
