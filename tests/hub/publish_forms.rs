//! A publish is answered alike in whatever form its request comes: whole and plain, which the hub answers without its
//! router, or with anything that needs more.

use serde_json::{Value, json};

use crate::support::http::Answer;
use crate::support::hub::{Hub, SECRET};
use crate::support::token::{token, token_of};
use crate::support::ws::Socket;
use crate::support::{hub, hub_with};

const PLAIN: &str = "content-type: application/json\r\n";
/// An id is echoed, which only the router does.
const WITH_ID: &str = "content-type: application/json\r\nx-request-id: a\r\n";

/// The answer to a publish on a connection that goes on.
async fn publish(hub: &Hub, fields: &str, body: &str) -> Answer {
    let (host, length) = (hub.host(), body.len());
    let request = format!(
        "POST /hub/publish HTTP/1.1\r\nhost: {host}\r\n{fields}content-length: {length}\r\n\r\n{body}"
    );
    let last = format!("GET /healthz HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    let bytes = hub.exchange(format!("{request}{last}").as_bytes()).await;
    let text = String::from_utf8(bytes).expect("text");
    let (head, _) = text.split_once("\r\n\r\n").expect("a head");
    let length = Answer::parse(head.as_bytes());
    let length: usize = length
        .header("content-length")
        .and_then(|length| length.parse().ok())
        .expect("a length");
    Answer::parse(&text.as_bytes()[..head.len() + 4 + length])
}

/// What does not differ between two publishes of the same: status, fields and body without their own parts.
fn comparable(answer: &Answer) -> (u16, Vec<Option<String>>, Value) {
    let names = [
        "content-type",
        "connection",
        "retry-after",
        "www-authenticate",
        "vary",
    ];
    let fields = names.map(|name| answer.header(name).map(str::to_owned));
    let mut body = answer.json();
    if let Some(body) = body.as_object_mut() {
        body.remove("offset");
    }
    (answer.status, fields.to_vec(), body)
}

async fn check(hub: &Hub, authorization: &str, body: &str, status: u16) {
    let [plain, with_id] = [PLAIN, WITH_ID].map(|fields| format!("{authorization}{fields}"));
    let (plain, with_id) = (
        publish(hub, &plain, body).await,
        publish(hub, &with_id, body).await,
    );
    assert_eq!(with_id.header("x-request-id"), Some("a"));
    assert_eq!(plain.header("x-request-id"), None);
    assert!(plain.header("date").is_some(), "{plain:?}");
    assert_eq!(plain.status, status, "{body}: {plain:?}");
    assert_eq!(comparable(&plain), comparable(&with_id), "{body}");
}

#[tokio::test]
async fn both_forms_answer_alike() {
    let hub = hub_with("[namespaces.small]\npublication_bytes_max = 10\n", &[]).await;
    let mut socket = Socket::open(&hub).await;
    socket.subscribe("news").await;
    check(&hub, "", r#"{"channel":"news","data":{"a":[1,"ä"]}}"#, 200).await;
    for _ in 0..2 {
        assert_eq!(socket.next().await["data"], json!({"a": [1, "ä"]}));
    }
    check(
        &hub,
        "",
        r#"{"channel":"news","data":1,"idempotency_key":"k","key":"x"}"#,
        200,
    )
    .await;
    assert_eq!(socket.next().await["data"], 1);
    for (body, status) in [
        ("", 400),
        ("[]", 400),
        ("{", 400),
        (r#"{"channel":"news"}"#, 400),
        (r#"{"channel":"bad name","data":1}"#, 400),
        (r#"{"channel":"~own","data":1}"#, 400),
        (r#"{"channel":"news","data":1,"more":2}"#, 400),
        (r#"{"channel":"small:a","data":"0123456789"}"#, 413),
    ] {
        check(&hub, "", body, status).await;
    }
}

#[tokio::test]
async fn both_forms_ask_for_the_same_credentials() {
    let key = "a key of the back ends that is long";
    let hub = hub(&[
        ("AUTH_REQUIRED", "true"),
        ("HUB_API_KEY", key),
        ("JWT_SECRET", SECRET),
    ])
    .await;
    let publisher = token(json!({"sub": "p", "role": "publisher"}));
    for (shown, status) in [
        (String::new(), 401),
        ("authorization: Bearer wrong\r\n".to_owned(), 401),
        (format!("authorization: Bearer {key}\r\n"), 200),
        (format!("authorization: Bearer {publisher}\r\n"), 200),
        (format!("authorization: Bearer {}\r\n", token_of("u")), 403),
    ] {
        check(&hub, &shown, r#"{"channel":"news","data":1}"#, status).await;
    }
}

#[tokio::test]
async fn pipelined_publishes_keep_their_order() {
    let hub = hub(&[]).await;
    let mut socket = Socket::open(&hub).await;
    socket.subscribe("news").await;
    let mut requests = String::new();
    for n in 0..200 {
        let body = format!(r#"{{"channel":"news","data":{n}}}"#);
        let fields = if n % 7 == 0 { WITH_ID } else { PLAIN };
        let close = if n == 199 {
            "connection: close\r\n"
        } else {
            ""
        };
        requests.push_str(&format!(
            "POST /hub/publish HTTP/1.1\r\nhost: a\r\n{fields}{close}content-length: {}\r\n\r\n{body}",
            body.len()
        ));
    }
    let answers = hub.exchange(requests.as_bytes()).await;
    let answers = String::from_utf8(answers).expect("text");
    let offsets: Vec<u64> = answers
        .split(r#""offset":"#)
        .skip(1)
        .map(|rest| {
            let digits = rest.split('}').next().expect("the end of an answer");
            digits.parse().expect("an offset")
        })
        .collect();
    assert_eq!(offsets, (1..=200).collect::<Vec<u64>>());
    assert_eq!(socket.numbers(0, 200).await, (0..200).collect::<Vec<u64>>());
}
