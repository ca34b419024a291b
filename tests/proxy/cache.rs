//! The cache before upstreams: what is answered without asking, what is asked once for all, and what never stays.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::support::http::Answer;
use crate::support::raw::read_head;
use crate::support::{Hub, eventually, hub, hub_with, within};

/// An upstream that answers what the test says, and holds answers back while the test wants that.
pub(crate) struct Origin {
    url: String,
    heads: Arc<Mutex<Vec<String>>>,
    answer: Arc<Mutex<String>>,
    holds: watch::Sender<bool>,
}

impl Origin {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let origin = Self {
            url,
            heads: Arc::default(),
            answer: Arc::default(),
            holds: watch::Sender::new(false),
        };
        let (heads, answer, holds) = (
            origin.heads.clone(),
            origin.answer.clone(),
            origin.holds.subscribe(),
        );
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(serve(socket, heads.clone(), answer.clone(), holds.clone()));
            }
        });
        origin
    }

    /// From now on it answers 200 with these fields (`;` ends one) and this body.
    pub(crate) fn says(&self, fields: &str, body: &str) {
        self.says_with("200 OK", fields, body);
    }

    fn says_with(&self, status: &str, fields: &str, body: &str) {
        let fields = fields.replace("; ", "\r\n");
        let length = body.len();
        let text =
            format!("HTTP/1.1 {status}\r\n{fields}\r\ncontent-length: {length}\r\n\r\n{body}");
        *self.answer.lock().expect("no panic") = text.replace("\r\n\r\ncontent", "\r\ncontent");
    }

    /// How many requests it got.
    pub(crate) fn asked(&self) -> usize {
        self.heads.lock().expect("no panic").len()
    }

    /// The head of the last one.
    fn last(&self) -> String {
        let heads = self.heads.lock().expect("no panic");
        heads.last().cloned().unwrap_or_default()
    }

    pub(crate) async fn node(&self, variables: &[(&str, &str)]) -> Hub {
        let services = json!({ "example": [self.url] }).to_string();
        let mut all = vec![
            ("UPSTREAMS", services.as_str()),
            ("RATE_LIMIT_MAX", "0"),
            ("CACHE_ENABLED", "true"),
        ];
        all.extend(variables);
        hub(&all).await
    }
}

async fn serve(
    mut socket: TcpStream,
    heads: Arc<Mutex<Vec<String>>>,
    answer: Arc<Mutex<String>>,
    mut holds: watch::Receiver<bool>,
) -> Option<()> {
    let mut head = Vec::new();
    loop {
        head.clear();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(socket.read_u8().await.ok()?);
        }
        let text = String::from_utf8_lossy(&head).into_owned();
        let is_head = text.starts_with("HEAD ");
        heads.lock().expect("no panic").push(text);
        holds.wait_for(|holds| !holds).await.ok()?;
        let answer = answer.lock().expect("no panic").clone();
        let end = answer.find("\r\n\r\n").map_or(0, |at| at + 4);
        let bytes = if is_head { &answer[..end] } else { &answer };
        socket.write_all(bytes.as_bytes()).await.ok()?;
    }
}

async fn get(node: &Hub, fields: &[(&str, &str)]) -> Answer {
    node.request("GET", "/api/example/x?q=1", fields, "").await
}

/// `Cache-Status` of an answer.
fn status(answer: &Answer) -> &str {
    answer.header("cache-status").unwrap_or_default()
}

#[tokio::test]
async fn what_is_fresh_is_answered_without_asking() {
    let origin = Origin::start().await;
    let node = origin.node(&[]).await;
    origin.says("cache-control: max-age=60; content-type: text/x; link: </1>; link: </2>; x-request-id: upstreams", "one");
    let first = get(&node, &[]).await;
    assert_eq!((first.status, &*first.text), (200, "one"));
    assert_eq!(status(&first), "fanfare; fwd=miss; stored");
    origin.says("cache-control: max-age=60", "two");
    let second = get(&node, &[("x-request-id", "mine")]).await;
    assert_eq!(
        (second.status, &*second.text, origin.asked()),
        (200, "one", 1)
    );
    assert!(
        status(&second).starts_with("fanfare; hit; ttl="),
        "{second:?}"
    );
    assert_eq!(second.header("content-type"), Some("text/x"));
    assert_eq!(second.header("link"), Some("</1>"));
    assert_eq!(second.header("x-request-id"), Some("mine"));
    assert!(second.header("age").is_some());
    // Without its body, and of another path.
    let head = node.request("HEAD", "/api/example/x?q=1", &[], "").await;
    assert_eq!(
        (head.status, &*head.text, head.header("content-length")),
        (200, "", Some("3"))
    );
    assert_eq!(origin.asked(), 1);
    assert_eq!(node.get("/api/example/x?q=2").await.text, "two");
    assert_eq!(origin.asked(), 2);
}

#[tokio::test]
async fn chunked_bodies_are_kept_and_large_ones_pass() {
    let origin = Origin::start().await;
    let node = origin.node(&[("CACHE_MAX_BODY_BYTES", "100")]).await;
    let chunked = "HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
    *origin.answer.lock().expect("no panic") = chunked.to_owned();
    get(&node, &[]).await;
    let again = get(&node, &[]).await;
    assert_eq!(
        (&*again.text, again.header("content-length")),
        ("abcde", Some("5"))
    );
    assert_eq!(origin.asked(), 1);
    origin.says("cache-control: max-age=60", &"x".repeat(101));
    for asked in 2..4 {
        let answer = node.get("/api/example/large").await;
        assert_eq!((answer.text.len(), origin.asked()), (101, asked));
        assert_eq!(status(&answer), "fanfare; fwd=miss");
    }
}

#[tokio::test]
async fn a_client_that_has_it_is_told_so() {
    let origin = Origin::start().await;
    let node = origin.node(&[]).await;
    let modified = "Sat, 21 Nov 2026 08:00:00 GMT";
    origin.says(
        &format!("cache-control: max-age=60; etag: \"a\"; last-modified: {modified}"),
        "one",
    );
    get(&node, &[]).await;
    for fields in [
        ("if-none-match", "\"x\", W/\"a\""),
        ("if-none-match", "*"),
        ("if-modified-since", modified),
        ("if-modified-since", "Sat, 21 Nov 2026 09:00:00 GMT"),
    ] {
        let answer = get(&node, &[fields]).await;
        assert_eq!((answer.status, &*answer.text), (304, ""), "{fields:?}");
        assert_eq!(answer.header("etag"), Some("\"a\""));
    }
    for fields in [
        ("if-none-match", "\"b\""),
        ("if-modified-since", "Sat, 21 Nov 2026 07:00:00 GMT"),
    ] {
        assert_eq!(get(&node, &[fields]).await.status, 200, "{fields:?}");
    }
    assert_eq!(origin.asked(), 1);
}

#[tokio::test]
async fn what_is_stale_is_asked_for_and_kept_when_it_is_still_good() {
    let origin = Origin::start().await;
    let node = origin.node(&[]).await;
    origin.says("cache-control: max-age=0; etag: \"a\"; x-version: 1", "one");
    get(&node, &[]).await;
    origin.says_with(
        "304 Not Modified",
        "cache-control: max-age=60; etag: \"a\"; x-version: 2",
        "",
    );
    // The client's own condition is not the upstream's matter.
    let answer = get(&node, &[("if-none-match", "\"other\"")]).await;
    assert_eq!((answer.status, &*answer.text), (200, "one"));
    assert_eq!(answer.header("x-version"), Some("2"));
    assert_eq!(status(&answer), "fanfare; fwd=stale; fwd-status=304");
    let head = origin.last().to_lowercase();
    assert!(
        head.contains("if-none-match: \"a\"\r\n") && !head.contains("other"),
        "{head}"
    );
    assert!(status(&get(&node, &[]).await).starts_with("fanfare; hit"));
    assert_eq!(origin.asked(), 2);
    // The client may insist, and then a new one takes its place.
    origin.says("cache-control: max-age=60; etag: \"b\"", "two");
    let insisted = get(&node, &[("cache-control", "no-cache")]).await;
    assert_eq!(
        (&*insisted.text, status(&insisted)),
        ("two", "fanfare; fwd=request; stored")
    );
    assert_eq!(get(&node, &[]).await.text, "two");
    assert_eq!(origin.asked(), 3);
}

#[tokio::test]
async fn answers_that_vary_are_given_to_those_they_are_for() {
    let origin = Origin::start().await;
    let node = origin.node(&[]).await;
    let german = [("accept-language", "de")];
    origin.says("cache-control: max-age=60; vary: Accept-Language", "hallo");
    assert_eq!(get(&node, &german).await.text, "hallo");
    origin.says("cache-control: max-age=60; vary: Accept-Language", "hello");
    assert_eq!(get(&node, &[]).await.text, "hello");
    assert_eq!(get(&node, &german).await.text, "hallo");
    assert_eq!(origin.asked(), 2);
}

#[tokio::test]
async fn what_belongs_to_somebody_stays_his() {
    let origin = Origin::start().await;
    let node = origin.node(&[]).await;
    for fields in [("authorization", "Bearer x"), ("cookie", "a=b")] {
        origin.says("cache-control: max-age=60", "private");
        assert_eq!(get(&node, &[fields]).await.text, "private");
    }
    origin.says("cache-control: max-age=60", "public");
    assert_eq!(get(&node, &[]).await.text, "public");
    // Kept for those who show nothing, and not given to who shows something.
    origin.says("cache-control: max-age=60", "private");
    assert_eq!(get(&node, &[("cookie", "a=b")]).await.text, "private");
    for refused in [
        "set-cookie: a=b; cache-control: max-age=60",
        "cache-control: no-store",
        "cache-control: private",
    ] {
        let before = origin.asked();
        origin.says(refused, "once");
        for _ in 0..2 {
            node.get("/api/example/once").await;
        }
        assert_eq!(origin.asked(), before + 2, "{refused}");
    }
}

#[tokio::test]
async fn a_change_forgets_what_stood_there_and_a_purge_all_of_it() {
    let origin = Origin::start().await;
    let node = origin
        .node(&[("ADMIN_API_KEY", "the admin key of these tests")])
        .await;
    origin.says("cache-control: max-age=60", "one");
    get(&node, &[]).await;
    origin.says("cache-control: max-age=60", "two");
    let failed = "HTTP/1.1 500 Broken\r\ncontent-length: 0\r\n\r\n".to_owned();
    let good = std::mem::replace(&mut *origin.answer.lock().expect("no panic"), failed);
    node.request("DELETE", "/api/example/x?q=1", &[], "").await;
    assert_eq!(
        get(&node, &[]).await.text,
        "one",
        "a change that failed changes nothing"
    );
    *origin.answer.lock().expect("no panic") = good;
    node.request("DELETE", "/api/example/x", &[], "").await;
    assert_eq!(
        get(&node, &[]).await.text,
        "one",
        "one of another query is of something else"
    );
    node.request("DELETE", "/api/example/x?q=1", &[], "").await;
    assert_eq!(get(&node, &[]).await.text, "two");
    origin.says("cache-control: max-age=60", "three");
    let key = [("x-admin-key", "the admin key of these tests")];
    let purge = async |query: &str| {
        let path = format!("/admin/cache?service=example&prefix={query}");
        node.request("DELETE", &path, &key, "").await
    };
    assert_eq!(purge("/other").await.json(), json!({"purged": 0}));
    assert_eq!(get(&node, &[]).await.text, "two");
    assert_eq!(purge("/x").await.json(), json!({"purged": 1}));
    assert_eq!(get(&node, &[]).await.text, "three");
}

#[tokio::test]
async fn many_who_want_the_same_ask_once() {
    let origin = Origin::start().await;
    let node = origin.node(&[]).await;
    origin.says("cache-control: max-age=60", "one");
    origin.holds.send_replace(true);
    let node = Arc::new(node);
    let asking: Vec<_> = (0..20)
        .map(|_| {
            let node = node.clone();
            tokio::spawn(async move { get(&node, &[]).await })
        })
        .collect();
    eventually("the upstream is asked", async || {
        (origin.asked() > 0).then_some(())
    })
    .await;
    origin.holds.send_replace(false);
    for answer in asking {
        assert_eq!(answer.await.expect("an answer").text, "one");
    }
    assert_eq!(origin.asked(), 1);
}

#[tokio::test]
async fn nobody_waits_for_ever_nor_for_what_is_not_kept() {
    let origin = Origin::start().await;
    let node = Arc::new(origin.node(&[("CACHE_WAIT_MS", "50")]).await);
    origin.says("cache-control: max-age=60", "one");
    origin.holds.send_replace(true);
    let ask = || {
        let node = node.clone();
        tokio::spawn(async move { get(&node, &[]).await })
    };
    let (first, second) = (ask(), ask());
    eventually("both ask", async || (origin.asked() == 2).then_some(())).await;
    origin.holds.send_replace(false);
    assert_eq!(first.await.expect("an answer").status, 200);
    assert_eq!(second.await.expect("an answer").status, 200);
    let nothing = [("cache-control", "only-if-cached")];
    let answer = node
        .request("GET", "/api/example/unknown", &nothing, "")
        .await;
    answer.expect_error(504, "not_cached");
}

#[tokio::test]
async fn who_would_not_get_it_does_not_wait_for_it() {
    let origin = Origin::start().await;
    let node = origin
        .node(&[
            ("CACHE_WAIT_MS", "600000"),
            ("HTTP_PROXY_TIMEOUT_MS", "600000"),
        ])
        .await;
    let ask = async |fields: &str| {
        let mut client = TcpStream::connect(node.address()).await.expect("the node");
        let request = format!("GET /api/example/x HTTP/1.1\r\nhost: a\r\n{fields}\r\n");
        client.write_all(request.as_bytes()).await.expect("sent");
        client
    };
    let asked = async |count| {
        eventually("it is asked", async || {
            (origin.asked() == count).then_some(())
        })
        .await;
    };
    // Nobody knows yet what it will be, but it will not be for who shows a cookie.
    origin.holds.send_replace(true);
    let mut first = ask("").await;
    asked(1).await;
    let _personal = ask("cookie: a=b\r\n").await;
    asked(2).await;
    // It is not kept: nobody waits for its end, which never comes.
    let half = "HTTP/1.1 200 OK\r\ncache-control: no-store\r\ncontent-length: 9\r\n\r\nhalf";
    half.clone_into(&mut origin.answer.lock().expect("no panic"));
    origin.holds.send_replace(false);
    assert!(read_head(&mut first).await.starts_with("HTTP/1.1 200 "));
    let _second = ask("").await;
    asked(3).await;
}

#[tokio::test]
async fn stale_answers_stand_in_for_errors_and_while_a_newer_one_comes() {
    let origin = Origin::start().await;
    let node = origin.node(&[]).await;
    origin.says("cache-control: max-age=0, stale-if-error=60", "one");
    get(&node, &[]).await;
    origin.says_with("500 Broken", "x: y", "broken");
    let answer = get(&node, &[]).await;
    assert_eq!((answer.status, &*answer.text), (200, "one"));
    let renewed = "/api/example/renewed";
    origin.says("cache-control: max-age=0, stale-while-revalidate=60", "old");
    assert_eq!(node.get(renewed).await.text, "old");
    origin.says("cache-control: max-age=60", "new");
    assert_eq!(node.get(renewed).await.text, "old");
    eventually("the newer one is there", async || {
        (node.get(renewed).await.text == "new").then_some(())
    })
    .await;
    let asked = origin.asked();
    assert_eq!(node.get(renewed).await.text, "new");
    assert_eq!(origin.asked(), asked);
}

#[tokio::test]
async fn parts_and_conditions_of_the_upstreams_own_pass() {
    let origin = Origin::start().await;
    let node = origin.node(&[]).await;
    origin.says("cache-control: max-age=60", "one");
    get(&node, &[]).await;
    for field in [
        ("range", "bytes=0-1"),
        ("if-match", "\"a\""),
        ("if-unmodified-since", "Sat, 21 Nov 2026 08:00:00 GMT"),
        ("cache-control", "no-store"),
    ] {
        let before = origin.asked();
        let answer = get(&node, &[field]).await;
        assert_eq!(origin.asked(), before + 1, "{field:?}");
        assert_eq!(answer.header("cache-status"), None, "{field:?}");
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_not_kept() {
    let origin = Origin::start().await;
    let node = origin.node(&[("HTTP_PROXY_TIMEOUT_MS", "200")]).await;
    let broken = "HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\ncontent-length: 10\r\n\r\nabc";
    *origin.answer.lock().expect("no panic") = broken.to_owned();
    assert_eq!(get(&node, &[]).await.text, "abc");
    origin.says("cache-control: max-age=60", "whole");
    assert_eq!(get(&node, &[]).await.text, "whole");
}

#[tokio::test]
async fn each_service_says_for_itself_what_is_kept() {
    let origin = Origin::start().await;
    let service = |name: &str, line: &str| {
        format!(
            "[services.{name}]\nupstreams = [{:?}]\n{line}\n",
            origin.url
        )
    };
    let file = [
        service("on", "cache = { ttl = \"1h\", max_body_bytes = 10 }"),
        service("off", "cache = { enabled = false }"),
        service("plain", ""),
    ];
    let node = async |enabled: &str| {
        let variables = [
            ("RATE_LIMIT_MAX", "0"),
            ("CACHE_ENABLED", enabled),
            ("CACHE_DEFAULT_TTL_MS", "3600000"),
        ];
        hub_with(&file.concat(), &variables).await
    };
    let (on, off) = (node("true").await, node("false").await);
    for (node, service, body, expected) in [
        (&off, "on", "short", 1),
        (&off, "on", "longer than ten", 2),
        (&off, "off", "short", 2),
        (&off, "plain", "short", 2),
        (&on, "on", "longer than ten", 2),
        (&on, "off", "short", 2),
        (&on, "plain", "longer than ten", 1),
    ] {
        origin.says("", body);
        let before = origin.asked();
        let path = format!("/api/{service}/{}", body.len());
        for _ in 0..2 {
            assert_eq!(node.get(&path).await.text, body);
        }
        assert_eq!(origin.asked() - before, expected, "{service}: {body}");
    }
}

/// Who takes all of it bit by bit has more time than who takes nothing.
#[tokio::test]
async fn a_slow_client_gets_all_of_what_is_kept() {
    const BYTES: usize = 32 << 20;
    let origin = Origin::start().await;
    let most = (BYTES + 1).to_string();
    let node = origin
        .node(&[
            ("BODY_TIMEOUT_MS", "1000"),
            ("CACHE_MAX_BODY_BYTES", &most),
            ("CACHE_MAX_TOTAL_BYTES", "200000000"),
        ])
        .await;
    origin.says("cache-control: max-age=60", &"x".repeat(BYTES));
    assert_eq!(get(&node, &[]).await.text.len(), BYTES);
    let mut client = TcpStream::connect(node.address()).await.expect("the node");
    let line = "GET /api/example/x?q=1 HTTP/1.1";
    let request = format!(
        "{line}\r\nhost: {}\r\nconnection: close\r\n\r\n",
        node.host()
    );
    client.write_all(request.as_bytes()).await.expect("sent");
    let mut pace = tokio::time::interval(std::time::Duration::from_millis(100));
    let mut piece = vec![0; BYTES / 32];
    let mut read = 0;
    // Three times as long as somebody may take nothing.
    for _ in 0..32 {
        pace.tick().await;
        read += within("more", client.read_exact(&mut piece))
            .await
            .expect("more");
    }
    read += within("the rest", client.read_to_end(&mut piece))
        .await
        .expect("the rest");
    assert!(read > BYTES, "{read}");
    assert_eq!(origin.asked(), 1);
}
