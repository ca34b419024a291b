//! Requests that the worker answers without the router, on connections that carry others as well.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use fanfare::server::{self, Outcome};
use http::Response;
use tokio::sync::Semaphore;

use super::{GET, Server, config, eventually};

/// Gives the request's body back: at once (`echo`) or when it may pass the gate (`gate`).
pub(super) fn reply(kind: &str, body: &[u8], gate: Arc<Semaphore>) -> Option<server::Reply> {
    let body = body.to_vec();
    match kind {
        "echo" => Some(Box::pin(async move { Response::new(body) })),
        "gate" => Some(Box::pin(async move {
            gate.acquire().await.expect("an open gate").forget();
            Response::new(body)
        })),
        "panic" => Some(Box::pin(async { panic!("a reply's bug") })),
        _ => None,
    }
}

fn post(kind: &str, body: &str) -> String {
    let length = body.len();
    format!("POST /reply/{kind} HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n{body}")
}

#[test]
fn a_reply_is_a_whole_answer_and_its_connection_goes_on() {
    let server = Server::start(config());
    let mut client = server.connect();
    for body in ["one", "two"] {
        client.send(&post("echo", body));
        let answer = client.until(body);
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.contains("content-length: 3\r\n"), "{answer}");
        assert!(answer.contains("\r\ndate: "), "{answer}");
        assert!(!answer.contains("connection:"), "{answer}");
    }
    client.send(GET);
    client.until("hello");
    assert_eq!(server.counts.requests.load(SeqCst), 3);
}

#[test]
fn replies_and_other_answers_keep_the_order_of_their_requests() {
    let server = Server::start(config());
    let mut client = server.connect();
    let mut requests = String::new();
    for n in 0..300 {
        match n % 3 {
            0 => requests.push_str(&post("echo", &format!("<{n}>"))),
            1 => requests.push_str(&format!("GET /n/{n} HTTP/1.1\r\nhost: a\r\n\r\n")),
            _ => requests.push_str(&post("gate", &format!("<{n}>"))),
        }
    }
    server.gate.add_permits(100);
    client.send(&requests);
    for n in 0..300 {
        let answer = client.until(&format!("<{n}>"));
        assert_eq!(answer.matches("HTTP/1.1 200 ").count(), 1, "{answer}");
    }
}

#[test]
fn pipelined_replies_wait_together() {
    let server = Server::start(config());
    let mut client = server.connect();
    let requests: String = (0..50).map(|n| post("gate", &format!("<{n}>"))).collect();
    client.send(&requests);
    // All have begun although none is answered.
    eventually("all requests", || server.counts.requests.load(SeqCst) == 50);
    server.gate.add_permits(50);
    for n in 0..50 {
        client.until(&format!("<{n}>"));
    }
}

#[test]
fn a_request_that_has_not_come_whole_is_the_routers() {
    let server = Server::start(config());
    let mut client = server.connect();
    let whole = post("echo", "whole");
    let (begin, rest) = whole.split_at(whole.len() - 2);
    client.send(begin);
    eventually("the request", || server.counts.requests.load(SeqCst) == 1);
    client.send(rest);
    // The router has no such path.
    let answer = client.until("\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
}

#[test]
fn a_panic_in_a_reply_is_answered_behind_earlier_ones_and_hits_nobody_else() {
    let server = Server::start(config());
    let mut other = server.connect();
    let [first, second] = [post("echo", "first"), post("panic", "")];
    let answer = server.ask(&format!("{first}{second}{GET}"));
    let (earlier, broken) = answer.split_once("first").expect("the earlier one");
    assert!(earlier.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(broken.starts_with("HTTP/1.1 500 "), "{answer}");
    assert!(!answer.contains("hello"), "{answer}");
    other.send(&post("echo", "well"));
    other.until("well");
    assert_eq!(server.counts.panics.load(SeqCst), 1);
}

#[test]
fn bad_heads_behind_replies_are_refused_after_them() {
    let server = Server::start(config());
    let answer = server.ask(&format!("{}GET / HTTP/1.1\r\n\r\n", post("echo", "fine")));
    let (_, refused) = answer.split_once("fine").expect("the reply");
    assert!(refused.starts_with("HTTP/1.1 400 "), "{answer}");
}

#[test]
fn a_reply_in_flight_at_the_drain_is_the_connections_last() {
    let mut server = Server::start(config());
    let mut client = server.connect();
    client.send(&format!("{}{}", post("gate", "one"), post("gate", "two")));
    eventually("the requests", || server.counts.requests.load(SeqCst) == 2);
    server.drain.begin();
    eventually("the workers to know", || server.told.load(SeqCst) == 1);
    server.gate.add_permits(2);
    let answer = client.rest();
    assert!(answer.ends_with("two"), "{answer}");
    assert_eq!(answer.matches("connection: close").count(), 1, "{answer}");
    let (earlier, _) = answer.split_once("one").expect("the first");
    assert!(!earlier.contains("connection: close"), "{answer}");
    assert_eq!(server.join().expect("no fault"), Outcome::Drained);
}
