//! What `[services.<name>]` says of a service, each option by what it does.

use std::process::Command;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::node_with;
use crate::support::hub::SECRET;
use crate::support::token::token;
use crate::support::{eventually, hub_with, within};
use crate::upstream::Upstream;

#[tokio::test]
async fn the_file_has_services_beside_those_of_the_variable() {
    let (one, two) = (Upstream::start().await, Upstream::start().await);
    let variable = json!({"one": [one.url()]}).to_string();
    let file = format!(
        "[services.two]\nupstreams = [{{ url = {:?}, weight = 2 }}]\n[services.one]\ntimeout = \"200ms\"",
        two.url()
    );
    let node = hub_with(&file, &[("UPSTREAMS", &variable), ("RATE_LIMIT_MAX", "0")]).await;
    assert_eq!(node.get("/readyz").await.json()["upstreamServices"], 2);
    for service in ["one", "two"] {
        assert_eq!(node.get(&format!("/api/{service}/")).await.status, 200);
    }
    assert_eq!(node.get("/api/one/never").await.status, 504);
}

#[test]
fn every_fault_is_told_at_the_start_with_its_service() {
    let file = std::env::temp_dir().join(format!("fanfare-faults-{}.toml", std::process::id()));
    let text = "[services.a]\nupstreams = [\"nonsense\"]\nretires = 3\n[services.health]\n[services.b]\ntimeout = 5";
    std::fs::write(&file, text).expect("a file");
    let output = Command::new(env!("CARGO_BIN_EXE_fanfare"))
        .env_clear()
        .env("NODE_ENV", "test")
        .env("CONFIG_FILE", &file)
        .output()
        .expect("the binary starts");
    std::fs::remove_file(&file).expect("it was there");
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8_lossy(&output.stderr);
    for fault in [
        "line 2: services.a.upstreams=\"nonsense\" must be an http, https or h2c URL",
        "line 3: services.a.retires is not known here",
        "line 4: services.health must have another name",
        "line 4: services.health must have upstreams",
        "line 6: services.b.timeout=\"5\" must be a duration",
        "line 5: services.b must have upstreams",
    ] {
        assert!(told.contains(fault), "{fault} in {told}");
    }
}

#[test]
fn check_tells_what_holds_for_each_service() {
    let file = std::env::temp_dir().join(format!("fanfare-check-{}.toml", std::process::id()));
    let text = "[services.a]\nupstreams = [\"http://x\", { url = \"http://y\", weight = 3 }]\ntimeout = \"7s\"";
    std::fs::write(&file, text).expect("a file");
    let output = Command::new(env!("CARGO_BIN_EXE_fanfare"))
        .arg("check")
        .env_clear()
        .env("NODE_ENV", "test")
        .env("CONFIG_FILE", &file)
        .output()
        .expect("the binary starts");
    std::fs::remove_file(&file).expect("it was there");
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}");
    for line in [
        "service a:",
        "    upstreams = [\"http://x\", { url = \"http://y\", weight = 3 }]",
        "    balance = \"least-load\"",
        "    timeout = \"7s\"",
    ] {
        assert!(told.lines().any(|one| one == line), "{line} in {told}");
    }
}

#[tokio::test]
async fn a_service_says_who_may_ask() {
    let upstream = Upstream::start().await;
    let urls = format!("upstreams = [{:?}]", upstream.url());
    let file = format!(
        "[services.open]\n{urls}\n[services.closed]\n{urls}\nidentity = {{ required = true }}\n\
         [services.admins]\n{urls}\nidentity = {{ roles = [\"admin\"] }}"
    );
    let node = hub_with(&file, &[("JWT_SECRET", SECRET), ("RATE_LIMIT_MAX", "0")]).await;
    let of = |role: &str| token(json!({"sub": "alice", "role": role}));
    for (service, role, expected) in [
        ("open", None, 200),
        ("closed", None, 401),
        ("closed", Some("user"), 200),
        ("admins", None, 401),
        ("admins", Some("user"), 403),
        ("admins", Some("admin"), 200),
    ] {
        let bearer = format!("Bearer {}", of(role.unwrap_or_default()));
        let fields = [("authorization", &*bearer)];
        let fields = if role.is_some() { &fields[..] } else { &[] };
        let path = format!("/api/{service}/");
        let answer = node.request("GET", &path, fields, "").await;
        assert_eq!(answer.status, expected, "{service} {role:?} {answer:?}");
    }
}

/// The node was given no secret: it signs with the one that its store keeps.
#[tokio::test]
async fn whoever_has_an_account_here_is_known_without_a_secret_in_the_configuration() {
    let upstream = Upstream::start().await;
    let urls = format!("upstreams = [{:?}]", upstream.url());
    let file = format!(
        "[services.closed]\n{urls}\nidentity = {{ required = true }}\n\
         [services.own]\n{urls}\nshare = \"user\"\n\
         [services.few]\n{urls}\nrate_limit = {{ max = 1, window = \"1h\", by = \"user\" }}"
    );
    let node = hub_with(&file, &[("RATE_LIMIT_MAX", "0")]).await;
    let user =
        json!({"username": "ann", "email": "ann@example.com", "password": "a long password"});
    let answer = node.call("POST", "/sessions/register", "", &user).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let user = json!({"username": "ann", "password": "a long password"});
    let login = node.call("POST", "/sessions/login", "", &user).await.json();
    let bearer = format!(
        "Bearer {}",
        login["access_token"].as_str().expect("a token")
    );
    let fields = [("authorization", &*bearer)];
    assert_eq!(node.get("/api/closed/").await.status, 401);
    for (service, expected) in [("closed", 200), ("few", 200), ("few", 429)] {
        let path = format!("/api/{service}/");
        let answer = node.request("GET", &path, &fields, "").await;
        assert_eq!(answer.status, expected, "{service} {answer:?}");
    }
    assert_eq!(node.get("/api/few/").await.status, 200, "somebody else");
}

#[tokio::test]
async fn a_whole_exchange_takes_no_longer_than_the_service_says() {
    let upstreams = [Upstream::start().await, Upstream::start().await];
    let lines = "total_timeout = \"1s\"\nretries = { try_timeout = \"600ms\" }";
    let node = node_with(&[&upstreams[0], &upstreams[1]], lines, &[]).await;
    let answer = node.get("/api/example/never").await;
    answer.expect_error(504, "upstream_timeout");
    // As long as it takes: it moves all the time.
    let answer = node.get("/api/example/endless").await;
    assert_eq!(answer.status, 200);
    assert!(!answer.text.ends_with("\r\n0\r\n\r\n"), "it has no end");
    let slow = b"POST /api/example/ HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nabc";
    let answer = node.exchange(slow).await;
    assert!(answer.starts_with(b"HTTP/1.1 408 "), "{answer:?}");
    assert_eq!(node.get("/api/example/").await.status, 200);
}

#[tokio::test]
async fn a_sticky_client_comes_back_to_its_upstream() {
    let (one, two) = (Upstream::start().await, Upstream::start().await);
    let node = node_with(&[&one, &two], "balance = \"sticky\"", &[]).await;
    let first = node.get("/api/example/").await;
    let cookie = first.header("set-cookie").expect("a cookie").to_owned();
    assert!(cookie.starts_with("fanfare-example="), "{cookie}");
    assert!(
        cookie.ends_with("; Path=/; HttpOnly; SameSite=Lax"),
        "{cookie}"
    );
    let pair = cookie.split(';').next().expect("its pair");
    let cookies = format!("a=b; {pair}; c=d");
    let (its, other) = match one.requests() {
        1 => (&one, &two),
        _ => (&two, &one),
    };
    for _ in 0..20 {
        let answer = node
            .request("GET", "/api/example/", &[("cookie", &*cookies)], "")
            .await;
        assert_eq!((answer.status, answer.header("set-cookie")), (200, None));
    }
    assert_eq!((its.requests(), other.requests()), (21, 0));
    let strange = [("cookie", "fanfare-example=zz")];
    let answer = node.request("GET", "/api/example/", &strange, "").await;
    assert!(answer.header("set-cookie").is_some(), "a cookie of nobody");
}

#[tokio::test]
async fn a_hash_leads_the_same_key_to_the_same_upstream() {
    let upstreams = [Upstream::start().await, Upstream::start().await];
    let lines = "balance = \"hash\"\nhash_on = \"header:X-Tenant\"";
    let node = node_with(&[&upstreams[0], &upstreams[1]], lines, &[]).await;
    let mut by_first = 0;
    for tenant in 0..20 {
        let before = upstreams[0].requests();
        for _ in 0..3 {
            let tenant = format!("tenant-{tenant}");
            let fields = [("x-tenant", &*tenant)];
            node.request("GET", "/api/example/", &fields, "").await;
        }
        let of_first = upstreams[0].requests() - before;
        assert!([0, 3].contains(&of_first), "{tenant}: {of_first} of 3");
        by_first += of_first;
    }
    assert!((1..60).contains(&by_first), "{by_first}");
}

#[tokio::test]
async fn no_more_is_under_way_to_an_upstream_than_may_be() {
    let upstream = Upstream::start().await;
    let node = node_with(&[&upstream], "connections_max = 1", &[]).await;
    let mut stream = tokio::net::TcpStream::connect(node.address())
        .await
        .expect("the node");
    let request = "GET /sse/example/events HTTP/1.1\r\nhost: x\r\n\r\n";
    stream.write_all(request.as_bytes()).await.expect("sent");
    within("an answer", stream.read_u8())
        .await
        .expect("an answer");
    let answer = node.get("/api/example/").await;
    assert_eq!(answer.status, 503, "{answer:?}");
    assert_eq!(answer.json()["error"], "upstream_overloaded");
    assert_eq!(answer.header("retry-after"), Some("1"));
    drop(stream);
    eventually("there is room again", async || {
        (node.get("/api/example/").await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn one_that_health_checks_find_ill_is_left_alone_until_it_is_well() {
    let (well, ill) = (Upstream::start().await, Upstream::start().await);
    ill.set_ill(true);
    let lines = "balance = \"round-robin\"\n\
        health = { path = \"/up\", interval = \"50ms\", timeout = \"1s\", healthy = 2, unhealthy = 2 }";
    let node = node_with(&[&well, &ill], lines, &[]).await;
    let healthy = async |count: u64| {
        eventually("health checks find it out", async || {
            let stats = node.get("/admin/stats").await.json();
            (stats["services"]["example"]["healthy"] == count).then_some(())
        })
        .await;
    };
    healthy(1).await;
    for _ in 0..10 {
        assert_eq!(node.get("/api/example/").await.status, 200);
    }
    ill.set_ill(false);
    healthy(2).await;
    let metrics = node.get("/metrics").await.text;
    for to in ["ill", "well"] {
        let line = format!("fanfare_upstream_health_changes_total{{to=\"{to}\"}} 1");
        assert!(metrics.contains(&line), "{line}");
    }
}
