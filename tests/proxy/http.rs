//! Requests and answers that go well: everything passes as it came.

use std::net::Ipv4Addr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::node;
use crate::support::{eventually, hub, within};
use crate::upstream::Upstream;

#[tokio::test]
async fn a_request_passes_with_its_method_path_query_and_body() {
    let upstream = Upstream::start().await;
    let node = node(&[&upstream], &[]).await;
    for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PURGE"] {
        let answer = node
            .request(
                method,
                "/api/example/a//b?x=1&y=%2f",
                &[],
                "{ \"n\" : 1.0 }",
            )
            .await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let first = format!("{method} /a//b?x=1&y=%2f HTTP/1.1\r\n");
        assert!(answer.text.starts_with(&first), "{answer:?}");
        assert!(
            answer.text.ends_with("\r\n\r\n{ \"n\" : 1.0 }"),
            "{answer:?}"
        );
    }
    let answer = node.get("/api/example/").await;
    assert!(answer.text.starts_with("GET / HTTP/1.1\r\n"), "{answer:?}");
}

#[tokio::test]
async fn the_base_path_of_an_upstream_is_kept() {
    let upstream = Upstream::start().await;
    let services = serde_json::json!({"example": [format!("{}/base/", upstream.url())]});
    let node = hub(&[("UPSTREAMS", &services.to_string())]).await;
    let answer = node.get("/api/example/a?b").await;
    assert!(answer.text.starts_with("GET /base/a?b HTTP"), "{answer:?}");
}

#[tokio::test]
async fn header_fields_are_added_and_removed() {
    let upstream = Upstream::start().await;
    let node = node(&[&upstream], &[]).await;
    let brought = [
        ("x-request-id", "abc"),
        ("x-forwarded-for", "6.6.6.6"),
        ("x_forwarded_for", "6.6.6.6"),
        ("x-user-id", "admin"),
        ("x-foo", "hop"),
        ("connection", "x-foo"),
        ("accept-encoding", "br"),
    ];
    let answer = node.request("GET", "/api/example/", &brought, "").await;
    let host = node.host();
    let port = host.rsplit(':').next().unwrap_or_default();
    for line in [
        format!("host: {}", upstream.host()),
        "x-request-id: abc".to_owned(),
        "x-correlation-id: abc".to_owned(),
        "x-forwarded-for: 127.0.0.1".to_owned(),
        "x-real-ip: 127.0.0.1".to_owned(),
        "x-forwarded-proto: http".to_owned(),
        format!("x-forwarded-host: {host}"),
        format!("x-forwarded-port: {port}"),
        "via: 1.1 fanfare".to_owned(),
        "accept-encoding: br".to_owned(),
    ] {
        assert!(
            answer.text.contains(&format!("{line}\r\n")),
            "{line} in {answer:?}"
        );
    }
    for gone in ["6.6.6.6", "admin", "x-foo", "connection"] {
        assert!(!answer.text.contains(gone), "{gone} in {answer:?}");
    }
    assert_eq!(answer.header("x-request-id"), Some("abc"));
    assert_eq!(
        node.get("/api/example/")
            .await
            .header("x-request-id")
            .map(str::len),
        Some(36)
    );
}

#[tokio::test]
async fn answers_pass_untouched_but_for_what_is_internal() {
    let upstream = Upstream::start().await;
    let node = node(&[&upstream], &[]).await;
    let redirect = node.get("/api/example/redirect").await;
    assert_eq!(
        (redirect.status, redirect.header("location")),
        (302, Some("/elsewhere"))
    );
    let range = node.get("/api/example/range").await;
    assert_eq!((range.status, &*range.text), (206, "ab"));
    assert_eq!(range.header("content-range"), Some("bytes 0-1/9"));
    let internal = node.get("/api/example/internal").await;
    assert_eq!(internal.header("content-encoding"), Some("gzip"));
    for name in ["x-internal-service-name", "x-db-query-count", "x-hop"] {
        assert_eq!(internal.header(name), None, "{name}");
    }
    let head = node.request("HEAD", "/api/example/head", &[], "").await;
    assert_eq!(
        (head.status, head.header("content-length"), &*head.text),
        (200, Some("12"), "")
    );
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    let upstream = Upstream::start().await;
    let node = node(&[&upstream], &[]).await;
    let answer = node
        .request("GET", "/api/example/trailers", &[("te", "trailers")], "")
        .await;
    assert!(answer.text.ends_with("0\r\nx-sum: 7\r\n\r\n"), "{answer:?}");
    let request = format!(
        "POST /api/example/ HTTP/1.1\r\nhost: {}\r\nconnection: close\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n\
         3\r\nabc\r\n0\r\nx-sum: 9\r\n\r\n",
        node.host()
    );
    let answer = node.exchange(request.as_bytes()).await;
    let answer = String::from_utf8_lossy(&answer);
    assert!(
        answer.ends_with("3\r\nabc\r\n0\r\nx-sum: 9\r\n\r\n"),
        "{answer}"
    );
}

#[tokio::test]
async fn connections_to_upstreams_are_used_again() {
    let upstream = Upstream::start().await;
    let node = node(&[&upstream], &[("WORKERS", "1")]).await;
    for _ in 0..10 {
        assert_eq!(node.get("/api/example/").await.status, 200);
    }
    assert_eq!((upstream.connections(), upstream.requests()), (1, 10));
}

#[tokio::test]
async fn paths_are_routed_as_they_are_forwarded() {
    let upstream = Upstream::start().await;
    let node = node(&[&upstream], &[]).await;
    let answer = node.get("/api/example/a/%2e%2e/%7Eb").await;
    assert!(answer.text.starts_with("GET /~b HTTP"), "{answer:?}");
    for bad in [
        "/..",
        "/a/../../hub",
        "/%2e%2e/x",
        "/a%2fb",
        "/a%5cb",
        "/%00",
        "/%zz",
    ] {
        let answer = node.get(&format!("/api/example{bad}")).await;
        assert_eq!(answer.status, 400, "{bad} {answer:?}");
        assert_eq!(answer.json()["code"], "FST_ERR_BAD_URL", "{bad}");
    }
}

#[tokio::test]
async fn what_is_no_route_is_told_as_fastify_tells_it() {
    let upstream = Upstream::start().await;
    let node = node(&[&upstream], &[]).await;
    let check = async |method, path, body: &str| {
        let answer = node.request(method, path, &[], "").await;
        assert_eq!((answer.status, &*answer.text), (404, body), "{path}");
    };
    let unknown =
        r#"{"error":"unknown_service","message":"No upstream configured for service: nobody"}"#;
    check("GET", "/api/nobody/x", unknown).await;
    let no_route =
        r#"{"message":"Route GET:/api/example not found","error":"Not Found","statusCode":404}"#;
    check("GET", "/api/example", no_route).await;
    let no_post =
        r#"{"message":"Route POST:/sse/example/x not found","error":"Not Found","statusCode":404}"#;
    check("POST", "/sse/example/x", no_post).await;
    assert_eq!(node.get("/readyz").await.json()["upstreamServices"], 1);
}

#[tokio::test]
async fn errors_take_the_standard_form_for_who_asks_for_it() {
    let upstream = Upstream::start().await;
    let node = node(&[&upstream], &[]).await;
    let fields = [("accept", "text/html, application/problem+json;q=0.9")];
    let answer = node.request("GET", "/api/nobody/x", &fields, "").await;
    assert_eq!(answer.status, 404, "{answer:?}");
    assert_eq!(
        answer.header("content-type"),
        Some("application/problem+json")
    );
    let problem = answer.json();
    assert_eq!(
        (&problem["status"], &problem["title"]),
        (&404.into(), &"Not Found".into())
    );
    assert!(problem["detail"].is_string(), "{problem}");
}

#[tokio::test]
async fn bodies_over_the_limit_are_413() {
    let upstream = Upstream::start().await;
    let node = node(&[&upstream], &[("MAX_BODY_BYTES", "10")]).await;
    let request = format!(
        "POST /api/example/ HTTP/1.1\r\nhost: {}\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n\
         b\r\n01234567890\r\n0\r\n\r\n",
        node.host()
    );
    let answer = node.exchange(request.as_bytes()).await;
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert!(answer.contains("FST_ERR_CTP_BODY_TOO_LARGE"), "{answer}");
}

/// What was refused of a body is not taken for the next request.
#[tokio::test]
async fn nothing_of_a_refused_body_is_a_request() {
    let upstream = Upstream::start().await;
    let node = node(&[&upstream], &[("MAX_BODY_BYTES", "10")]).await;
    let inner = format!("GET /healthz HTTP/1.1\r\nhost: {}\r\n\r\n", node.host());
    let request = format!(
        "POST /api/example/ HTTP/1.1\r\nhost: {}\r\ntransfer-encoding: chunked\r\n\r\n\
         {:x}\r\n{inner}\r\n0\r\n\r\n{inner}",
        node.host(),
        inner.len(),
    );
    let answer = node.exchange(request.as_bytes()).await;
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    assert!(
        answer
            .to_ascii_lowercase()
            .contains("connection: close\r\n"),
        "{answer}"
    );
}

/// An upstream that answers before the request has ended has not read the rest of a body that was then refused.
#[tokio::test]
async fn an_upstream_that_waits_for_a_refused_body_gets_no_other_request() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
    let listener = listener.expect("a port");
    let address = listener.local_addr().expect("an address");
    let services = format!("{{\"example\":[\"http://{address}\"]}}");
    let variables = [
        ("UPSTREAMS", &*services),
        ("MAX_BODY_BYTES", "10"),
        ("WORKERS", "1"),
    ];
    for rest in [
        "b\r\n01234567890\r\n0\r\n\r\n",
        "1\r\nx\r\nnonsense\r\n0\r\n\r\n",
    ] {
        let node = hub(&variables).await;
        let mut client = TcpStream::connect(node.address())
            .await
            .expect("a connection");
        let head = "POST /api/example/ HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
        client.write_all(head.as_bytes()).await.expect("a request");
        let (mut early, _) = listener.accept().await.expect("a connection");
        let begun = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhe";
        early.write_all(begun).await.expect("half of an answer");
        let mut seen = Vec::new();
        while !seen.ends_with(b"\r\n\r\nhe") {
            client.read_buf(&mut seen).await.expect("half of an answer");
        }
        client.write_all(rest.as_bytes()).await.expect("a body");
        early.write_all(b"llo").await.expect("the other half");
        within("an end", client.read_to_end(&mut seen))
            .await
            .expect("an end");
        assert!(
            seen.ends_with(b"hello"),
            "{}",
            String::from_utf8_lossy(&seen)
        );
        let next = node.get("/api/example/");
        let served = async {
            let (mut other, _) = listener.accept().await.expect("a connection of its own");
            other
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                .await
                .expect("an answer");
            other
        };
        let (answer, _other) =
            within("another connection", async { tokio::join!(next, served) }).await;
        assert_eq!(answer.text, "ok");
    }
}

#[tokio::test]
async fn operators_say_which_fields_of_answers_are_internal() {
    let upstream = Upstream::start().await;
    let node_of = async |list| node(&[&upstream], &[("REMOVE_RESPONSE_HEADERS", list)]).await;
    for (list, service, count) in [
        ("-", Some("s"), Some("3")),
        ("X-DB-Query-Count", Some("s"), None),
        ("x-internal-*", None, Some("3")),
    ] {
        let answer = node_of(list).await.get("/api/example/internal").await;
        assert_eq!(answer.header("x-internal-service-name"), service, "{list}");
        assert_eq!(answer.header("x-db-query-count"), count, "{list}");
    }
}

#[tokio::test]
async fn upstreams_are_told_who_asks_in_the_standard_form_too() {
    let upstream = Upstream::start().await;
    let node = node(
        &[&upstream],
        &[("FORWARDED", "true"), ("TRUSTED_PROXIES", "127.0.0.1")],
    )
    .await;
    let fields = [
        ("forwarded", "for=9.9.9.9"),
        (
            "traceparent",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ),
    ];
    let answer = node.request("GET", "/api/example/", &fields, "").await;
    let element = format!("for=127.0.0.1;host=\"{}\";proto=http", node.host());
    for line in [
        format!("forwarded: for=9.9.9.9, {element}"),
        "x-real-ip: 9.9.9.9".to_owned(),
        format!("{}: {}", fields[1].0, fields[1].1),
    ] {
        assert!(
            answer.text.contains(&format!("{line}\r\n")),
            "{line} in {answer:?}"
        );
    }
}

#[tokio::test]
async fn the_access_log_has_what_was_asked_and_no_token() {
    let (upstream, away) = (Upstream::start().await, Upstream::refusing().await);
    let all = node(
        &[&upstream],
        &[("ACCESS_LOG_PERCENT", "100"), ("LOG_FORMAT", "json")],
    )
    .await;
    let fields = [("x-request-id", "the-id")];
    all.request("GET", "/api/example/a/b?token=secret", &fields, "")
        .await;
    let line = eventually("a line", async || {
        let log = all.log();
        let line = log.lines().find(|line| line.contains("fanfare::access"));
        line.map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"))
    })
    .await;
    let text = line.to_string();
    for part in [
        "\"/api/example/a/b\"",
        "\"GET\"",
        "200",
        "\"the-id\"",
        "127.0.0.1",
        &upstream.url(),
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(!text.contains("secret"), "{text}");
    let failing = node(&[&away], &[("ACCESS_LOG_PERCENT", "1")]).await;
    for _ in 0..3 {
        failing.get("/api/example/").await;
    }
    eventually("every failure is logged", async || {
        let log = failing.log();
        (log.matches("fanfare::access").count() == 3).then_some(())
    })
    .await;
}

#[tokio::test]
async fn fields_behind_a_body_are_judged_as_those_before_it() {
    let upstream = Upstream::start().await;
    let node = node(&[&upstream], &[]).await;
    for cut in [1, 7, 1000] {
        let text = "POST /api/example/ HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\
                    transfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-user-id: admin\r\nx-sum: 7\r\n\
                    X-Forwarded-For: 6.6.6.6\r\n\r\n";
        let mut client = TcpStream::connect(node.address()).await.expect("the node");
        client.set_nodelay(true).expect("a socket");
        for piece in text.as_bytes().chunks(cut) {
            client.write_all(piece).await.expect("sent");
        }
        let mut answer = String::new();
        let read = client.read_to_string(&mut answer);
        within("an answer", read).await.expect("text");
        assert!(
            answer.ends_with("\r\n2\r\nok\r\n0\r\nx-sum: 7\r\n\r\n"),
            "{answer}"
        );
        assert!(
            !answer.contains("admin") && !answer.contains("6.6.6.6"),
            "{answer}"
        );
    }
}

/// RFC 9110 section 6.6.1.
#[tokio::test]
async fn answers_that_tell_no_date_get_one() {
    let upstream = Upstream::start().await;
    let variables = [("CACHE_ENABLED", "true"), ("CACHE_DEFAULT_TTL_MS", "60000")];
    let node = node(&[&upstream], &variables).await;
    let dates = async |path: &str| -> Vec<String> {
        let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        let answer = node.exchange(request.as_bytes()).await;
        let answer = String::from_utf8_lossy(&answer).to_ascii_lowercase();
        let dates = answer
            .lines()
            .filter_map(|line| line.strip_prefix("date: "));
        dates.map(str::to_owned).collect()
    };
    let found = dates("/api/example/range").await;
    assert!(
        matches!(&found[..], [date] if date.ends_with(" gmt")),
        "{found:?}"
    );
    let found = dates("/api/example/dated").await;
    assert_eq!(found, ["tue, 15 nov 1994 08:12:31 gmt"]);
    let asked = upstream.requests();
    let first = dates("/api/example/kept").await;
    let kept = dates("/api/example/kept").await;
    assert_eq!(upstream.requests(), asked + 1, "one is of the cache");
    assert_eq!((kept.len(), kept), (1, first));
}
