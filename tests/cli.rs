//! The binary from outside: what it prints, and how it ends.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::thread;

use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::tungstenite::Message;

const SECRET: &str = "private-secret-of-at-least-32-bytes";

/// A run of the binary with these variables only, in an empty directory of its own.
fn fanfare(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    command(arguments, variables)
        .output()
        .expect("the binary runs")
}

fn command(arguments: &[&str], variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fanfare"));
    command
        .args(arguments)
        .env_clear()
        .envs(variables.iter().copied())
        .current_dir(directory("empty", &[]));
    command
}

fn directory(name: &str, files: &[(&str, &str)]) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&path).expect("a directory");
    for (name, text) in files {
        std::fs::write(path.join(name), text).expect("a file");
    }
    path
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn tells_its_version_and_its_variables() {
    let version = fanfare(&["--version"], &[]);
    assert!(version.status.success());
    assert_eq!(
        stdout(&version).trim(),
        format!("fanfare {}", env!("CARGO_PKG_VERSION"))
    );
    let help = stdout(&fanfare(&["--help"], &[]));
    for text in [
        "Usage: fanfare",
        "check",
        "PORT [8080]",
        "WS_TOTAL_BUFFERED_BYTES [a quarter",
    ] {
        assert!(help.contains(text), "{text}: {help}");
    }
}

#[test]
fn an_unknown_argument_is_a_usage_error() {
    let output = fanfare(&["--nonsense"], &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("--nonsense"));
}

#[test]
fn check_shows_values_sources_and_no_secret() {
    let output = fanfare(
        &["check"],
        &[("DEFAULT_PORT", "8000"), ("JWT_SECRET", SECRET)],
    );
    assert!(output.status.success(), "{}", stderr(&output));
    let text = stdout(&output);
    let line = |name: &str| {
        text.lines()
            .find(|line| line.starts_with(&format!("{name} ")))
            .unwrap_or_else(|| panic!("{name}: {text}"))
    };
    assert!(line("PORT").contains("8000"));
    assert!(line("PORT").contains("from environment (DEFAULT_PORT); default: 8080"));
    assert!(line("JWT_SECRET").contains("********"));
    assert!(text.contains("namespace default: history 100 for 300s"));
    assert!(text.contains("warning: AUTH_REQUIRED is false"));
    assert!(!text.contains("private"), "{text}");
}

#[test]
fn check_reads_the_files_of_its_directory() {
    let files = [
        (".env", "CONFIG_FILE=hub.toml # here\nPORT=9001\n"),
        ("hub.toml", "[namespaces.chat]\noverflow = \"latest\"\n"),
    ];
    let output = command(&["check"], &[])
        .current_dir(directory("files", &files))
        .output()
        .expect("the binary runs");
    let text = stdout(&output);
    assert!(text.contains("from .env (PORT)"), "{text}");
    assert!(text.contains("overflow latest, subscribe anyone"), "{text}");
}

#[test]
fn check_and_serve_end_with_1_and_all_faults() {
    let variables = [
        ("PORT", "x"),
        ("NODE_ENV", "production"),
        ("SECRET_KEY", "private"),
    ];
    for arguments in [&["check"][..], &["serve"][..], &[][..], &["token"][..]] {
        let output = fanfare(arguments, &variables);
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(stdout(&output), "");
        let text = stderr(&output);
        assert!(text.contains("PORT=\"x\" must be"), "{text}");
        assert!(
            text.contains("SECRET_KEY=\"********\" must have at least 32 bytes"),
            "{text}"
        );
        assert!(!text.contains("private"), "{text}");
    }
}

#[test]
fn mints_tokens_that_the_hub_takes() {
    let output = fanfare(
        &[
            "token",
            "--sub",
            "ann",
            "--role",
            "user",
            "--ttl",
            "2h",
            "--channel",
            "news",
            "--info",
            r#"{"name":"Ann"}"#,
            "--grant-publish",
            "chat:*",
        ],
        &[("JWT_SECRET", SECRET), ("JWT_AUDIENCE", "hub")],
    );
    assert!(output.status.success(), "{}", stderr(&output));
    let verifier = fanfare::auth::Verifier::new(&fanfare::auth::Config {
        secrets: vec![SECRET.as_bytes().into()],
        audience: Some("hub".to_owned()),
        ..fanfare::auth::Config::default()
    });
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("a clock after 1970")
        .as_secs();
    let identity = verifier
        .verify(stdout(&output).trim(), now)
        .expect("a valid token");
    assert_eq!(&*identity.user, "ann");
    assert_eq!(identity.channels[0].name(), "news");
    let ends_in = identity.expires_at.expect("an end") - now;
    assert!((7100..=7200).contains(&ends_in), "{ends_in}");
    assert!(identity.grants.expect("grants").publish[0].matches("chat:1"));
}

#[test]
fn refuses_to_mint_what_the_hub_would_refuse() {
    let secret = [("JWT_SECRET", SECRET)];
    for (arguments, variables, expected) in [
        (&["token"][..], &[][..], "set JWT_SECRET"),
        (
            &["token", "--ttl", "5"],
            &secret,
            "--ttl must be a duration",
        ),
        (&["token", "--info", "{"], &secret, "--info must be JSON"),
        (
            &["token", "--channel", "a b"],
            &secret,
            "claim channels must be",
        ),
        (
            &["token", "--grant-history", "a*b"],
            &secret,
            "claim grants must be",
        ),
        (
            &["token", "--role", "clerk", "--role", &"x".repeat(65)],
            &secret,
            "claim roles must be",
        ),
    ] {
        let output = fanfare(arguments, variables);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        let text = stderr(&output);
        assert!(text.contains(expected), "{text}");
        // What does not help is not advised.
        assert_eq!(text.contains("JWT_SECRET"), variables.is_empty(), "{text}");
    }
}

#[test]
fn check_and_serve_refuse_a_data_file_that_cannot_be_used() {
    let folder = directory(
        "data-files",
        &[("none.db", "this is no database, it is text")],
    );
    let missing = folder.join("missing/users.db").display().to_string();
    let is_folder = folder.display().to_string();
    for arguments in [["check"], ["serve"], ["migrate"]] {
        for file in [&missing, &is_folder] {
            let output = fanfare(&arguments, &[("DATA_FILE", file), ("PORT", "23990")]);
            let text = stderr(&output);
            assert_eq!(output.status.code(), Some(1), "{arguments:?}: {text}");
            assert!(text.contains(&format!("{file}: ")), "{arguments:?}: {text}");
        }
    }
    let file = folder.join("none.db").display().to_string();
    let variables = [("DATA_FILE", file.as_str()), ("PORT", "23990")];
    for arguments in [["serve"], ["migrate"]] {
        let text = stderr(&fanfare(&arguments, &variables));
        let said = text.matches("file is not a database").count();
        assert_eq!(said, 1, "{text}");
    }
}

#[test]
fn check_refuses_a_folder_that_cannot_be_written() {
    // Nobody may write there, root neither.
    let output = fanfare(&["check"], &[("DATA_FILE", "/proc/self/users.db")]);
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    assert!(text.contains("/proc/self/users.db: "), "{text}");
}

#[test]
fn seed_makes_no_admin_who_is_gone_at_once() {
    let said = [("DATA_FILE", ":memory:")];
    for variables in [&[("NODE_ENV", "test")][..], &said] {
        let output = fanfare(&["seed"], variables);
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(stdout(&output), "");
        let text = stderr(&output);
        assert!(text.contains("DATA_FILE is :memory:"), "{text}");
    }
    let folder = directory("seed", &[]);
    let file = folder.join("users.db");
    let _ = std::fs::remove_file(&file);
    let variables = [
        ("NODE_ENV", "test"),
        ("DATA_FILE", &file.display().to_string()),
    ];
    let output = fanfare(&["seed"], &variables);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stdout(&output).contains("the admin is admin with the password "));
}

/// Answers one HTTP request with `answer`; the request's text comes back when it is joined.
fn stub(answer: &'static str) -> (String, thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let served = thread::spawn(move || {
        let (mut socket, _) = listener.accept().expect("a connection");
        let mut reader = BufReader::new(socket.try_clone().expect("a handle"));
        let (mut head, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).expect("a line");
            let lower = line.to_ascii_lowercase();
            if let Some(value) = lower.strip_prefix("content-length:") {
                length = value.trim().parse().expect("a length");
            }
            head.push_str(&lower);
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).expect("the body");
        socket.write_all(answer.as_bytes()).expect("an answer");
        head + &String::from_utf8_lossy(&body)
    });
    (url, served)
}

const FINE: &str = "HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n{\"ok\":true}";

#[test]
fn publishes_json_and_what_is_none_as_a_string() {
    for (data, variables, key, sent, credential) in [
        (
            r#"{"n":1}"#,
            &[][..],
            &["--key", "k1"][..],
            r#"{"n":1}"#,
            "bearer k1",
        ),
        (
            "hello you",
            &[("HUB_API_KEY", "k2")],
            &[],
            r#""hello you""#,
            "bearer k2",
        ),
    ] {
        let (url, served) = stub(FINE);
        let arguments = [&["pub", "news", data, "--url", &url][..], key].concat();
        let output = fanfare(&arguments, variables);
        assert!(output.status.success(), "{}", stderr(&output));
        assert_eq!(stdout(&output), "{\"ok\":true}\n");
        let request = served.join().expect("a request");
        assert!(
            request.starts_with("post /hub/publish http/1.1\r\n"),
            "{request}"
        );
        assert!(
            request.contains(&format!("authorization: {credential}\r\n")),
            "{request}"
        );
        assert!(request.contains(&format!(r#""data":{sent}"#)), "{request}");
        assert!(request.contains(r#""channel":"news""#), "{request}");
    }
}

#[test]
fn tells_what_the_hub_refused() {
    let (url, served) =
        stub("HTTP/1.1 401 Unauthorized\r\ncontent-length: 24\r\n\r\n{\"error\":\"unauthorized\"}");
    let output = fanfare(&["pub", "news", "1", "--url", &url], &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("answered 401: {\"error\":\"unauthorized\"}"));
    assert!(!served.join().expect("a request").contains("authorization"));
}

#[test]
fn health_and_pub_ask_the_configured_port() {
    for (arguments, expected) in [
        (&["health"][..], "get /healthz"),
        (&["pub", "news", "1"], "post /hub/publish"),
    ] {
        let (url, served) = stub(FINE);
        let port = url.rsplit(':').next().expect("a port");
        let output = fanfare(arguments, &[("PORT", port), ("HOST", "0.0.0.0")]);
        assert!(output.status.success(), "{}", stderr(&output));
        let request = served.join().expect("a request");
        assert!(request.starts_with(expected), "{request}");
        assert!(
            request.contains(&format!("host: 127.0.0.1:{port}\r\n")),
            "{request}"
        );
    }
}

#[test]
fn sub_asks_the_configured_port() {
    let free = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = free.local_addr().expect("an address").port().to_string();
    drop(free);
    let output = fanfare(&["sub", "news"], &[("PORT", &port)]);
    let text = stderr(&output);
    assert!(
        text.contains(&format!("cannot reach http://127.0.0.1:{port}")),
        "{text}"
    );
}

#[test]
fn health_fails_when_nobody_is_there() {
    let free = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", free.local_addr().expect("an address"));
    drop(free);
    let output = fanfare(&["health", "--url", &url], &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("cannot reach"),
        "{}",
        stderr(&output)
    );
    for wrong in [
        "ftp://hub",
        "hub",
        "http://",
        "http://hub/base",
        "http://hub/?a",
    ] {
        let wrong = fanfare(&["health", "--url", wrong], &[]);
        assert!(stderr(&wrong).contains("--url must be http://host[:port] or https://host[:port]"));
    }
    let wrong = fanfare(&["health", "--url", "https://hub", "--ca", "/nowhere"], &[]);
    assert!(
        stderr(&wrong).contains("--ca is of no use: /nowhere cannot be read"),
        "{}",
        stderr(&wrong)
    );
}

#[tokio::test]
async fn follows_a_channel_and_comes_back_from_where_it_was() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let run = tokio::task::spawn_blocking(move || {
        fanfare(&["sub", "news", "--url", &url, "--count", "2"], &[])
    });
    let mut asked = Vec::new();
    for (connection, says) in [
        [
            r#"{"type":"subscribed","channel":"news","epoch":"E","offset":6}"#,
            r#"{"type":"publication","channel":"news","data":{"n": 1},"offset":7}"#,
        ],
        [
            r#"{"type":"subscribed","channel":"news","epoch":"E","offset":7,"recovered":true}"#,
            r#"{"type":"publication","channel":"news","data":2,"offset":8}"#,
        ],
    ]
    .iter()
    .enumerate()
    {
        let (socket, _) = listener.accept().await.expect("a connection");
        let mut socket = tokio_tungstenite::accept_async(socket)
            .await
            .expect("a WebSocket");
        asked.push(
            socket
                .next()
                .await
                .expect("a message")
                .expect("text")
                .to_string(),
        );
        for text in says {
            socket.send(Message::text(*text)).await.expect("sent");
        }
        if connection == 1 {
            // Until the client closes: it has enough.
            while let Some(Ok(_)) = socket.next().await {}
        }
    }
    let output = run.await.expect("it ends");
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(stdout(&output), "news 7 {\"n\": 1}\nnews 8 2\n");
    assert_eq!(
        asked,
        [
            r#"{"channel":"news","id":0,"type":"subscribe"}"#,
            r#"{"channel":"news","id":0,"recover":{"epoch":"E","offset":7},"type":"subscribe"}"#
        ]
    );
}
