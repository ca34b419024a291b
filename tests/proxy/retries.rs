//! When another upstream is asked, and when it is not.

use crate::node_with;
use crate::upstream::Upstream;

const EVEN: &str = "balance = \"round-robin\"\nbreaker = { failures = 1000 }\n";

#[tokio::test]
async fn an_answer_that_is_worth_it_is_asked_for_elsewhere() {
    let (well, ill) = (Upstream::start().await, Upstream::start().await);
    let node = node_with(&[&well, &ill], EVEN, &[]).await;
    for (status, is_retried) in [(502, true), (504, true), (500, false), (429, false)] {
        ill.set_status(status);
        for _ in 0..4 {
            let answer = node.get("/api/example/").await;
            assert!(!is_retried || answer.status == 200, "{status} {answer:?}");
        }
        let asked = ill.requests();
        let passed = (0..4).map(|_| node.get("/api/example/"));
        let mut statuses = Vec::new();
        for answer in passed {
            statuses.push(answer.await.status);
        }
        assert!(ill.requests() > asked, "round robin asks it too");
        assert_eq!(statuses.contains(&status), !is_retried, "{statuses:?}");
    }
}

#[tokio::test]
async fn a_body_goes_to_the_next_upstream_whole_unless_it_is_long() {
    let (well, ill) = (Upstream::start().await, Upstream::start().await);
    ill.set_status(502);
    let node = node_with(&[&well, &ill], EVEN, &[]).await;
    for _ in 0..4 {
        let answer = node.request("PUT", "/api/example/", &[], "the body").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(answer.text.ends_with("\r\n\r\nthe body"), "{answer:?}");
    }
    let long = "x".repeat(100_000);
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(
            node.request("PUT", "/api/example/", &[], &long)
                .await
                .status,
        );
    }
    assert!(statuses.contains(&502), "{statuses:?}");
}

#[tokio::test]
async fn what_may_do_something_twice_is_repeated_only_where_the_service_says_so() {
    let (well, ill) = (Upstream::start().await, Upstream::start().await);
    ill.set_status(502);
    for (lines, is_repeated) in [("", false), ("retries = { non_idempotent = true }", true)] {
        let node = node_with(&[&well, &ill], &format!("{EVEN}{lines}"), &[]).await;
        let mut statuses = Vec::new();
        for _ in 0..4 {
            let answer = node.request("POST", "/api/example/", &[], "the body").await;
            statuses.push(answer.status);
            assert!(
                answer.status == 502 || answer.text.ends_with("\r\n\r\nthe body"),
                "{answer:?}"
            );
        }
        assert_eq!(
            statuses.contains(&502),
            !is_repeated,
            "{lines} {statuses:?}"
        );
    }
}

#[tokio::test]
async fn no_upstream_is_asked_twice_and_no_more_than_may_be() {
    let ill: Vec<Upstream> = [
        Upstream::start().await,
        Upstream::start().await,
        Upstream::start().await,
    ]
    .into();
    for (tries, expected) in [(1, 1), (2, 2), (9, 3)] {
        ill.iter().for_each(|one| one.set_status(502));
        let before: Vec<usize> = ill.iter().map(Upstream::requests).collect();
        let lines = format!("{EVEN}retries = {{ tries = {tries} }}");
        let all: Vec<&Upstream> = ill.iter().collect();
        let node = node_with(&all, &lines, &[]).await;
        let answer = node.get("/api/example/").await;
        assert_eq!(
            (answer.status, &*answer.text),
            (502, "ill"),
            "the last one's"
        );
        let asked = ill.iter().zip(before);
        let asked: Vec<usize> = asked.map(|(one, before)| one.requests() - before).collect();
        assert!(asked.iter().all(|count| *count < 2), "{asked:?}");
        assert_eq!(asked.iter().sum::<usize>(), expected, "{asked:?}");
    }
}

#[tokio::test]
async fn one_that_asks_for_rest_is_left_alone() {
    let (well, busy) = (Upstream::start().await, Upstream::start().await);
    busy.set_status(503);
    let node = node_with(&[&well, &busy], EVEN, &[]).await;
    for _ in 0..10 {
        assert_eq!(node.get("/api/example/").await.status, 200);
    }
    assert_eq!(busy.requests(), 1, "`Retry-After` is heeded");
}

#[tokio::test]
async fn a_try_that_takes_too_long_is_given_to_another() {
    let (well, silent) = (Upstream::start().await, Upstream::start().await);
    silent.fall_silent();
    let lines = format!("{EVEN}timeout = \"10s\"\nretries = {{ try_timeout = \"100ms\" }}");
    let node = node_with(&[&well, &silent], &lines, &[]).await;
    for _ in 0..4 {
        assert_eq!(node.get("/api/example/").await.status, 200);
    }
    assert!(silent.requests() > 0, "it was asked");
}

#[tokio::test]
async fn nothing_is_repeated_once_the_client_has_got_something() {
    let (one, two) = (Upstream::start().await, Upstream::start().await);
    let node = node_with(&[&one, &two], EVEN, &[]).await;
    let answer = node.get("/api/example/cut-body").await;
    assert_eq!((answer.status, &*answer.text), (200, "abc"));
    assert_eq!(one.requests() + two.requests(), 1);
    let answer = node.get("/api/example/hints-and-cut").await;
    assert_eq!(
        answer.status, 103,
        "an interim answer is something: {answer:?}"
    );
    assert!(answer.text.starts_with("HTTP/1.1 502 "), "{answer:?}");
    assert_eq!(one.requests() + two.requests(), 2);
}
