//! The walls between the rooms of `src/`, held: who may name whom, which rooms do no I/O and read no clock, and where each
//! third-party crate lives. `docs/ARCHITECTURE.md` gives the reasons. If a better wall shows itself, move the wall,
//! the documentation and these tables together.

#[path = "architecture/checker.rs"]
mod checker;

use std::collections::BTreeSet;
use std::path::Path;

use checker::{Rules, Source, check, named, sources};

const RULES: Rules = Rules {
    floors: &[
        &["main"],
        &["cli"],
        &["app"],
        &["config"],
        &["server"],
        &["transport", "api", "proxy", "admin"],
        &["client", "relay", "events"],
        &["auth", "session"],
        &["http2"],
        &["hub", "protocol", "broker", "limits", "http1"],
        &["redis", "outbound"],
        &["tls"],
        &["telemetry"],
        &["model"],
    ],
    denied: &[
        ("cli", "app", "main hands it `serve`"),
        ("cli", "server", "main hands it `serve`"),
        ("cli", "transport", "main hands it `serve`"),
        ("cli", "proxy", "main hands it `serve`"),
        ("proxy", "client", "a wing of its own"),
        ("proxy", "relay", "a wing of its own"),
        ("proxy", "hub", "a wing of its own"),
        ("proxy", "protocol", "a wing of its own"),
        ("proxy", "broker", "a wing of its own"),
    ],
    narrow: &[
        (
            "config",
            &["transport", "api", "admin", "client", "broker", "limits"],
            &["Config"],
        ),
        ("config", &["server"], &["Browsers", "Config", "Origins"]),
        ("config", &["relay"], &["WORKERS_MAX"]),
        ("config", &["redis"], &["Address", "Config"]),
        (
            "config",
            &["auth"],
            &[
                "Config",
                "Algorithm",
                "KEY_SOURCES_RULE",
                "KeySources",
                "PublicKeys",
                "PUBLIC_KEYS_RULE",
                "sign",
            ],
        ),
        (
            "config",
            &["events"],
            &[
                "Config",
                "ConsentConfig",
                "HEADERS_RULE",
                "KINDS_RULE",
                "Kinds",
                "StreamConfig",
                "WebhookConfig",
            ],
        ),
        ("config", &["outbound"], &["Endpoint", "ENDPOINT_RULE"]),
        (
            "config",
            &["proxy"],
            &[
                "Config",
                "Address",
                "Balance",
                "BreakerPolicy",
                "CacheConfig",
                "CachePolicy",
                "HashKey",
                "HealthPolicy",
                "IdentityRule",
                "Policy",
                "RESERVED_NAMES",
                "RateKey",
                "RatePolicy",
                "RetryPolicy",
                "ServiceConfig",
                "Share",
                "StreamsPolicy",
                "UpstreamConfig",
            ],
        ),
        ("config", &["tls"], &["Acceptor", "Connector", "TlsError"]),
        (
            "config",
            &["session"],
            &[
                "Config",
                "DATABASE_RULE",
                "Database",
                "HashParameters",
                "PARAMETERS_RULE",
                "SessionLimits",
            ],
        ),
        ("config", &["telemetry"], &["Config", "LogFormat"]),
        // What is pure of it; key sets are I/O.
        ("client", &["auth"], &["Action", "Identity", "may"]),
    ],
    sans_io: &["hub", "protocol", "client", "limits"],
    io_of_std: &[
        ("env", &[]),
        ("fs", &[]),
        ("io", &["ErrorKind", "IoSlice"]),
        ("net", &[]),
        ("os", &[]),
        ("process", &[]),
        ("thread", &[]),
        ("time", &["Duration"]),
    ],
    io_crates: &[
        "axum",
        "hyper",
        "hyper_util",
        "mio",
        "rand",
        "rustix",
        "socket2",
        "tokio",
    ],
    homes: &[
        ("anyhow", &["main"]),
        (
            "arc_swap",
            &["auth/adopted", "auth/issuers", "proxy", "tls"],
        ),
        ("argon2", &["session/password"]),
        ("axum", &["app", "server", "transport", "api", "admin"]),
        ("base64", &["*"]),
        ("bytes", &["*"]),
        ("clap", &["cli"]),
        ("crc", &["redis"]),
        ("dashmap", &["relay"]),
        ("form_urlencoded", &["transport", "api", "admin"]),
        (
            "futures_util",
            &["cli", "admin/live", "api/consent", "events/consent"],
        ),
        ("h2", &["http2"]),
        ("hashbrown", &["transport", "relay", "hub", "broker"]),
        ("http", &["*"]),
        ("http_body_util", &["cli", "api", "outbound"]),
        ("http_cache_semantics", &["proxy/cache"]),
        ("httparse", &["http1"]),
        ("httpdate", &["http1"]),
        ("hyper", &["cli", "server"]),
        ("hyper_rustls", &["outbound"]),
        ("hyper_util", &["cli", "outbound"]),
        ("jsonwebtoken", &["auth"]),
        ("memchr", &["http1", "redis"]),
        ("metrics", &["telemetry"]),
        ("metrics_exporter_prometheus", &["telemetry"]),
        ("mio", &["transport"]),
        ("moka", &["events/consent", "proxy/cache"]),
        ("percent_encoding", &["redis"]),
        (
            "rand",
            &[
                "cli",
                "server",
                "transport",
                "events",
                "proxy",
                "session/password",
                "session/redis",
                "session/upkeep",
                "broker",
                "http2",
                "redis",
                "model/id",
            ],
        ),
        ("rmp", &["protocol"]),
        ("rmp_serde", &["broker"]),
        ("rustls", &["tls"]),
        ("rustls_native_certs", &["tls"]),
        ("rustix", &["config", "server", "session", "telemetry"]),
        ("serde", &["*"]),
        ("serde_json", &["*"]),
        ("sha1", &["redis"]),
        ("sha2", &["admin", "auth", "proxy", "session"]),
        ("slab", &["*"]),
        ("socket2", &["server", "transport"]),
        (
            "sqlx",
            &["session/postgres", "session/sqlite", "session/tables"],
        ),
        ("subtle", &["auth", "session"]),
        ("thiserror", &["*"]),
        (
            "tokio",
            &[
                "app",
                "auth/key_set",
                "broker/redis",
                "cli",
                "events",
                "redis",
                "server",
                "transport",
                "proxy",
                "http1",
                "http2",
                "outbound",
                "admin/live",
                "tls",
                "session",
                "model",
            ],
        ),
        (
            "tokio_tungstenite",
            &["cli", "transport/handshake", "proxy/websocket/handshake"],
        ),
        ("tokio_rustls", &["tls"]),
        ("toml", &["config"]),
        ("tower", &["server"]),
        ("tracing", &["*"]),
        ("tracing_appender", &["telemetry"]),
        ("tracing_subscriber", &["telemetry"]),
        ("unicode_normalization", &["session"]),
        ("url", &["redis"]),
        ("uuid", &["model", "proxy", "server"]),
    ],
};

fn crate_sources() -> Vec<Source> {
    let sources = sources(Path::new(env!("CARGO_MANIFEST_DIR")));
    assert!(sources.len() > 100, "{} files are not all", sources.len());
    sources
}

#[test]
fn the_walls_hold() {
    let sources = crate_sources();
    let faults: BTreeSet<String> = sources
        .iter()
        .flat_map(|source| check(source, &RULES))
        .collect();
    let faults: Vec<String> = faults.into_iter().collect();
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

#[test]
fn every_room_stands_on_a_floor() {
    let stands: BTreeSet<String> = crate_sources()
        .into_iter()
        .filter_map(|source| source.module.into_iter().next())
        .collect();
    let floors: BTreeSet<String> = RULES
        .floors
        .concat()
        .into_iter()
        .map(str::to_owned)
        .collect();
    assert_eq!(stands, floors);
}

#[test]
fn every_dependency_has_a_home_and_every_home_is_lived_in() {
    let manifest: toml::Table = include_str!("../Cargo.toml").parse().expect("a manifest");
    let dependencies = manifest["dependencies"].as_table().expect("a table");
    let depends: BTreeSet<String> = dependencies
        .keys()
        .map(|name| name.replace('-', "_"))
        .collect();
    let housed: BTreeSet<String> = RULES.homes.iter().map(|row| row.0.to_owned()).collect();
    assert_eq!(
        depends, housed,
        "Cargo.toml's dependencies and the table of homes"
    );

    let sources = crate_sources();
    for (name, homes) in RULES.homes {
        for home in *homes {
            let mut lodgers = sources.iter().filter(|source| source.is_in(home));
            assert!(
                lodgers.any(|source| named(source).contains(*name)),
                "nothing in {home} names {name}: take it out of the table"
            );
        }
    }
}

/// The faults of one line of code in a room.
fn faults(room: &str, code: &str) -> Vec<String> {
    let source = Source::parse(&format!("src/{room}/mod.rs"), &[room], code);
    check(&source, &RULES).into_iter().collect()
}

fn refused(room: &str, code: &str, rule: &str) {
    let faults = faults(room, code);
    assert!(
        faults.len() == 1 && faults[0].contains(rule),
        "{code:?} in {room} should be refused with {rule:?}, and is with {faults:?}"
    );
}

fn allowed(room: &str, code: &str) {
    assert_eq!(faults(room, code), [""; 0], "{code:?} in {room}");
}

#[test]
fn an_import_may_run_down_only() {
    refused(
        "hub",
        "use crate::client::Client;",
        "hub stands below client",
    );
    refused(
        "model",
        "use crate::{telemetry::metrics};",
        "model stands below telemetry",
    );
    refused(
        "client",
        "fn f() { crate::transport::g(); }",
        "client stands below transport",
    );
    refused(
        "auth",
        "use super::relay::Relay;",
        "auth stands below relay",
    );
    allowed(
        "transport",
        "use crate::hub::Hub; fn f(_: crate::model::Moment) {}",
    );
    allowed(
        "hub",
        "use crate::hub::frame::Frame; use super::hub::Frame;",
    );
}

#[test]
fn a_fault_names_file_line_path_and_rule() {
    let found = faults(
        "hub",
        "\n\nuse crate::model::Moment;\nuse crate::app::serve;",
    );
    let expected =
        "src/hub/mod.rs:4: `crate::app::serve`: hub stands below app and may not name it";
    assert_eq!(found, [expected]);
}

#[test]
fn siblings_do_not_know_each_other() {
    refused("hub", "use crate::protocol::Encoder;", "side by side");
    refused("api", "use crate::admin;", "side by side");
    refused("proxy", "use crate::transport;", "side by side");
    refused("client", "type T = crate::relay::Relay;", "side by side");
}

#[test]
fn an_import_is_found_wherever_it_hides() {
    let below = "model stands below hub";
    refused("model", "fn f() { use crate::hub; }", below);
    refused("model", "mod inner { use super::super::hub::Hub; }", below);
    refused(
        "model",
        "fn f() { println!(\"{}\", crate::hub::LIMIT); }",
        below,
    );
    refused(
        "model",
        "macro_rules! m { () => { $crate::hub::f() } }",
        below,
    );
    refused("model", "#[derive(crate::hub::Derive)] struct S;", below);
    refused("model", "pub(in crate::hub) struct S;", below);
    refused("model", "pub use crate::hub as anything;", below);
    refused("main", "use fanfare::nowhere::X;", "no room of the table");
}

#[test]
fn what_only_tests_compile_is_free() {
    allowed(
        "model",
        "#[cfg(test)] mod tests { use crate::hub::Hub; use tokio::time; }",
    );
    allowed("model", "#[cfg(test)] use crate::hub::Hub;");
    allowed(
        "model",
        "impl S { #[cfg(test)] fn f() { crate::hub::f(); } }",
    );
    allowed("model", "#![cfg(test)] use crate::hub::Hub;");
    refused(
        "model",
        "#[cfg(not(test))] use crate::hub::Hub;",
        "model stands below hub",
    );
}

#[test]
fn some_arrows_are_denied_or_narrow() {
    refused("cli", "use crate::app::serve;", "main hands it");
    refused("proxy", "use crate::hub::Hub;", "a wing of its own");
    allowed("proxy", "use crate::auth::Verifier;");
    refused(
        "config",
        "use crate::transport::Worker;",
        "of transport, config may name only Config",
    );
    refused(
        "config",
        "use crate::{transport}; fn f(_: transport::Worker) {}",
        "may name only Config",
    );
    refused(
        "client",
        "use crate::auth::Verifier;",
        "of auth, client may name only",
    );
    allowed(
        "config",
        "use crate::transport; fn f(_: transport::Config) {}",
    );
}

#[test]
fn a_sans_io_room_does_no_io_and_reads_no_clock() {
    for code in [
        "use std::net::TcpStream;",
        "use std::fs;",
        "use std::{io};",
        "use std::io::{self, IoSlice};",
        "use std::io::Read as _;",
        "use std::time::{Duration, Instant};",
        "use std::time::*;",
        "fn f() { std::thread::yield_now(); }",
        "fn f() { let _ = std::time::SystemTime::now(); }",
    ] {
        refused("hub", code, "hub is sans-IO");
    }
    refused("limits", "use tokio::time;", "limits is sans-IO");
    refused("client", "fn f() { rand::random(); }", "client is sans-IO");
    allowed(
        "hub",
        "use std::io::IoSlice; use std::io::ErrorKind; use std::time::Duration;",
    );
    allowed(
        "transport",
        "use std::time::Instant; use std::net::TcpStream;",
    );
}

#[test]
fn a_crate_stays_at_home() {
    refused(
        "relay",
        "use axum::Router;",
        "axum lives in app, server, transport, api, admin",
    );
    refused(
        "broker",
        "fn f() { metrics::counter!(\"x\"); }",
        "metrics lives in telemetry",
    );
    refused(
        "transport",
        "use tokio_tungstenite::tungstenite;",
        "lives in cli, transport/handshake",
    );
    refused(
        "server",
        "fn f() -> anyhow::Result<()> { Ok(()) }",
        "anyhow lives in main",
    );
    allowed(
        "api",
        "use crate::telemetry::metrics; fn f() { metrics::published(); }",
    );
    allowed(
        "relay",
        "use dashmap::DashMap; fn f(metrics: u8) -> u8 { metrics }",
    );
}

#[test]
fn lib_holds_mod_lines_only() {
    let lib = |text| check(&Source::parse("src/lib.rs", &[], text), &RULES).len();
    assert_eq!(lib("pub mod hub;"), 0);
    assert_eq!(lib("pub mod hub; pub struct S;"), 1);
    assert_eq!(lib("mod inner { }"), 1);
}
