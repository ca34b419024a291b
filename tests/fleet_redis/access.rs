//! Who gets into Redis, and how: TLS, users and what they may do. A node that may not do its work does not begin.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::net::TcpStream;

use crate::redis_server::cluster::Cluster;
use crate::redis_server::{RedisServer, free_port};
use crate::support::ws::Socket;
use crate::support::{DEADLINE, Hub, eventually, hub};

/// What `docs/OPERATIONS.md` tells operators to allow.
fn documented_rules() -> Vec<String> {
    let text = include_str!("../../docs/OPERATIONS.md");
    let (_, after) = text.split_once("ACL SETUSER fanfare").expect("the rules");
    let (rules, _) = after.split_once("```").expect("the end of the rules");
    rules
        .split_whitespace()
        .filter(|word| *word != "\\")
        .map(str::to_owned)
        .collect()
}

/// A server with the documented user, and these rules after those.
fn server_with_user(more: &[&str]) -> RedisServer {
    let redis = RedisServer::start_with(&["--save", ""]);
    let rules = documented_rules();
    let mut words = vec!["ACL", "SETUSER", "fanfare"];
    words.extend(rules.iter().map(String::as_str));
    words.extend(["resetpass", ">sec/ret"]);
    words.extend(more);
    assert_eq!(redis.ask(&words), "OK");
    redis
}

fn url_of_user(redis: &RedisServer) -> String {
    format!("redis://fanfare:sec%2Fret@127.0.0.1:{}", redis.port())
}

/// What a node says that does not begin.
fn refusal(variables: &[(&str, &str)]) -> String {
    let mut node = Command::new(env!("CARGO_BIN_EXE_fanfare"))
        .env_clear()
        .current_dir(env!("CARGO_TARGET_TMPDIR"))
        .envs([("NODE_ENV", "test"), ("PORT", "0"), ("HOST", "127.0.0.1")])
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs");
    let began = Instant::now();
    let has_ended = loop {
        if node.try_wait().expect("it is ours").is_some() {
            break true;
        }
        if began.elapsed() > DEADLINE {
            node.kill().expect("it is ours");
            break false;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let output = node.wait_with_output().expect("what it said");
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(has_ended, "it runs: {text}");
    assert!(!output.status.success(), "{text}");
    text
}

/// It is refused, with these words.
fn check_refused(more: &[&str], words: &[&str]) {
    let redis = server_with_user(more);
    let text = refusal(&[("REDIS_URL", &url_of_user(&redis))]);
    for word in words {
        assert!(text.contains(word), "{word}: {text}");
    }
    assert!(!text.contains("sec/ret") && !text.contains("sec%2Fret"));
}

/// What is published on one node is heard on the other.
async fn check_hears(one: &[(&str, &str)], other: &[(&str, &str)]) {
    let (one, other) = (hub(one).await, hub(other).await);
    let mut socket = Socket::open(&other).await;
    socket.subscribe("news").await;
    one.publish("news", &json!({"a": 1})).await;
    let publication = socket.next_of("publication").await;
    assert_eq!(publication["data"], json!({"a": 1}));
}

#[tokio::test]
async fn the_documented_rules_are_enough() {
    let redis = server_with_user(&[]);
    let url = url_of_user(&redis);
    let variables = [("REDIS_URL", url.as_str()), ("REDIS_KEY_PREFIX", "fanfare")];
    check_hears(&variables, &variables).await;
    let hub = hub(&variables).await;
    let account = json!({"username": "ann", "email": "ann@example.org", "password": "long enough"});
    // Sessions have a connection of their own, which may stand a moment later.
    eventually("an account", async || {
        let answer = hub.post("/sessions/register", &account).await;
        (answer.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_password_may_have_any_character() {
    let redis = server_with_user(&[">a \"b\" 'c'\tä"]);
    let port = redis.port();
    let url = format!("redis://fanfare:a%20%22b%22%20%27c%27%09%C3%A4@127.0.0.1:{port}");
    let variables = [("REDIS_URL", url.as_str()), ("REDIS_KEY_PREFIX", "fanfare")];
    check_hears(&variables, &variables).await;
}

#[tokio::test]
async fn a_user_without_a_password_is_not_another() {
    let redis = server_with_user(&["nopass"]);
    // Who is not named is let in nowhere.
    assert_eq!(
        redis.ask(&["ACL", "SETUSER", "default", "-@all", "+acl"]),
        "OK"
    );
    let url = format!("redis://fanfare@127.0.0.1:{}", redis.port());
    let variables = [("REDIS_URL", url.as_str()), ("REDIS_KEY_PREFIX", "fanfare")];
    check_hears(&variables, &variables).await;
}

#[tokio::test]
async fn a_sentinel_that_does_not_know_the_master_does_not_hide_the_others() {
    let master = RedisServer::start();
    let knows = RedisServer::start_sentinel(&master);
    let (other, mut away) = (RedisServer::start(), RedisServer::start());
    away.kill();
    let url = format!(
        "redis-sentinel://127.0.0.1:{}?sentinelServiceName=hub&node=127.0.0.1:{}&node=127.0.0.1:{}",
        away.port(),
        other.port(),
        knows.port(),
    );
    let variables = [("REDIS_URL", url.as_str())];
    check_hears(&variables, &variables).await;
}

#[test]
fn the_documented_rules_have_every_command_of_a_script() {
    let rules = documented_rules();
    for text in [
        include_str!("../../src/broker/redis/scripts.rs"),
        include_str!("../../src/broker/redis/scripts/members.rs"),
        include_str!("../../src/broker/redis/scripts/orders.rs"),
        include_str!("../../src/session/redis/scripts.rs"),
        include_str!("../../src/session/redis/prelude.lua"),
    ] {
        let calls = text.split("redis.call('").skip(1);
        let commands = calls.filter_map(|call| call.split('\'').next());
        let is_command = |word: &&str| word.bytes().all(|byte| byte.is_ascii_uppercase());
        for command in commands.filter(is_command) {
            let rule = format!("+{}", command.to_lowercase());
            assert!(rules.contains(&rule), "{command}");
        }
    }
}

#[test]
fn a_command_that_is_not_allowed_is_named() {
    check_refused(&["-info"], &["refuses this node", "INFO", "NOPERM"]);
    check_refused(&["-xadd"], &["refuses this node", "XADD"]);
    check_refused(&["-evalsha"], &["refuses this node", "evalsha"]);
}

#[test]
fn who_may_not_wait_for_replicas_is_told_where_they_are_to_be_waited_for() {
    let redis = server_with_user(&["-wait"]);
    let url = url_of_user(&redis);
    let text = refusal(&[("REDIS_URL", &url), ("REDIS_WAIT_REPLICAS", "1")]);
    assert!(text.contains("REDIS_WAIT_REPLICAS needs WAIT"), "{text}");
}

#[test]
fn keys_and_channels_that_are_not_allowed_are_named() {
    check_refused(
        &["resetkeys", "~other:*"],
        &["refuses this node", "NOPERM", "needs ~fanfare:*"],
    );
    check_refused(
        &["resetchannels", "&other:*"],
        &["refuses this node", "PUBLISH"],
    );
    check_refused(&["-subscribe"], &["refuses this node", "SUBSCRIBE"]);
}

#[test]
fn a_wrong_password_is_told_and_not_shown() {
    check_refused(&["resetpass", ">another"], &["refuses", "WRONGPASS"]);
}

#[test]
fn a_server_of_another_kind_is_told() {
    let single = RedisServer::start();
    let cluster = Cluster::start(false, false);
    let member = cluster.members().next().expect("a member");
    let port = single.port();
    for (url, word) in [
        (format!("{}/99", single.url()), "DB index"),
        (member.url(), "redis-cluster://"),
        (
            format!("redis-cluster://127.0.0.1:{port}"),
            "it is no Cluster",
        ),
        (
            format!("redis-sentinel://127.0.0.1:{port}?sentinelServiceName=hub"),
            "is no Sentinel",
        ),
    ] {
        let text = refusal(&[("REDIS_URL", &url)]);
        assert!(
            text.contains("refuses this node") && text.contains(word),
            "{url}: {text}"
        );
    }
}

#[test]
fn members_that_must_not_tell_of_a_cluster_are_told() {
    let cluster = Cluster::start(false, false);
    for member in cluster.members() {
        let rule = ["ACL", "SETUSER", "default", "-cluster|slots"];
        assert_eq!(member.ask(&rule), "OK");
    }
    let text = refusal(&[("REDIS_URL", &cluster.url())]);
    assert!(
        text.contains("refuses this node: CLUSTER: NOPERM"),
        "{text}"
    );
}

#[test]
fn what_is_wrong_with_the_way_to_sentinels_is_told() {
    let master = RedisServer::start();
    let sentinel = RedisServer::start_sentinel(&master);
    let port = sentinel.port();
    let check = |parameters: &str, words: &[&str]| {
        let url = format!("redis-sentinel://127.0.0.1:{port}?{parameters}");
        let text = refusal(&[("REDIS_URL", &url)]);
        let named = format!("refuses this node: the Sentinel at 127.0.0.1:{port}");
        assert!(text.contains(&named), "{text}");
        for word in words {
            assert!(text.contains(word), "{word}: {text}");
        }
        assert!(!text.contains("secret"), "{text}");
    };
    check(
        "sentinelServiceName=other",
        &["knows no master of the name other"],
    );
    let rule = ["ACL", "SETUSER", "default", "resetpass", ">right"];
    assert_eq!(sentinel.ask(&rule), "OK");
    check(
        "sentinelServiceName=hub&sentinelPassword=secret",
        &["sentinelPassword", "WRONGPASS"],
    );
    check("sentinelServiceName=hub", &["NOAUTH"]);
}

#[tokio::test]
async fn sentinels_that_are_away_are_waited_for() {
    let master = RedisServer::start();
    let mut sentinel = RedisServer::start_sentinel(&master);
    sentinel.kill();
    let port = sentinel.port();
    let url = format!("redis-sentinel://127.0.0.1:{port}?sentinelServiceName=hub");
    let hub = Hub::start("", &[("REDIS_URL", &url), ("READY_REDIS_GRACE_MS", "0")]);
    eventually("the node runs", async || {
        let listens = TcpStream::connect(hub.address()).await.is_ok();
        (listens && hub.get("/readyz").await.status == 503).then_some(())
    })
    .await;
    sentinel.start_again();
    hub.until_ready().await;
    hub.publish("news", &json!(1)).await;
}

/// A server that speaks TLS too, and who vouches for it.
struct Secure {
    _redis: RedisServer,
    port: u16,
    directory: PathBuf,
}

impl Secure {
    fn start(name: &str) -> Self {
        let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("tls-{name}"));
        let _ = std::fs::remove_dir_all(&directory);
        std::fs::create_dir_all(&directory).expect("a directory");
        for words in [
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=vouch",
            "req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout server.key -out server.csr -subj /CN=redis \
             -addext subjectAltName=IP:127.0.0.1",
            "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out server.pem -days 2 -copy_extensions copy",
        ] {
            let done = Command::new("openssl")
                .args(words.split_whitespace())
                .current_dir(&directory)
                .stderr(Stdio::null())
                .status();
            assert!(done.expect("openssl is installed").success(), "{words}");
        }
        let port = free_port();
        let file = |name: &str| directory.join(name).display().to_string();
        let (certificate, key, ca) = (file("server.pem"), file("server.key"), file("ca.pem"));
        let redis = RedisServer::start_with(&[
            "--save",
            "",
            "--tls-port",
            &port.to_string(),
            "--tls-cert-file",
            &certificate,
            "--tls-key-file",
            &key,
            "--tls-ca-cert-file",
            &ca,
            "--tls-auth-clients",
            "no",
        ]);
        Self {
            _redis: redis,
            port,
            directory,
        }
    }

    fn url(&self, host: &str) -> String {
        format!("rediss://{host}:{}", self.port)
    }

    fn ca_file(&self) -> String {
        self.directory.join("ca.pem").display().to_string()
    }
}

impl Drop for Secure {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

#[tokio::test]
async fn nodes_speak_tls_to_redis() {
    let secure = Secure::start("both");
    let (url, ca_file) = (secure.url("127.0.0.1"), secure.ca_file());
    let variables = [
        ("REDIS_URL", url.as_str()),
        ("REDIS_CA_FILE", ca_file.as_str()),
    ];
    check_hears(&variables, &variables).await;
}

#[test]
fn a_server_that_nobody_vouches_for_is_refused() {
    let secure = Secure::start("refused");
    let url = secure.url("127.0.0.1");
    let text = refusal(&[("REDIS_URL", &url)]);
    assert!(text.contains("certificate"), "{text}");
    // The certificate is for another name.
    let (url, ca_file) = (secure.url("localhost"), secure.ca_file());
    let text = refusal(&[("REDIS_URL", &url), ("REDIS_CA_FILE", &ca_file)]);
    assert!(text.contains("certificate"), "{text}");
}

#[test]
fn a_file_without_certificates_is_told() {
    for file in ["/nonexistent/ca.pem", "/dev/null"] {
        let text = refusal(&[
            ("REDIS_URL", "rediss://127.0.0.1:1"),
            ("REDIS_CA_FILE", file),
        ]);
        assert!(
            text.contains("REDIS_CA_FILE") && text.contains(file),
            "{text}"
        );
    }
}
