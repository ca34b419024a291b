//! Rules between variables, and of secrets: what must hold before the node starts.

use super::Stage;
use super::reader::Reader;
use super::value;
use crate::auth::KeySources;
use crate::model::Namespaces;
use crate::redis::Address;

/// What a publication's frame may add to its data: names, positions, the head of the frame.
pub(super) const FRAME_BYTES: usize = 1024;
/// The least bytes of a secret that signs (RFC 7518, 3.2 for HS256).
const SECRET_BYTES_MIN: usize = 32;
/// The least bytes of an API key before we warn.
const KEY_BYTES_MIN: usize = 16;
/// Secrets that stand in everybody's example.
const KNOWN_SECRETS: [&str; 6] = [
    "admin",
    "your-secret-key-here",
    "secret",
    "password",
    "changeme",
    "change-me",
];

/// Checks everything; faults and warnings go to the reader.
pub(super) fn check(reader: &mut Reader, stage: Stage, namespaces: &Namespaces) {
    limits(reader);
    publications(reader, namespaces);
    heartbeat(reader);
    origins(reader);
    for name in [
        "JWT_SECRET",
        "SECRET_KEY",
        "JWT_PREVIOUS_SECRET",
        "WEBHOOK_SECRET",
    ] {
        signing_secret(reader, stage, name);
    }
    for name in ["HUB_API_KEY", "ADMIN_API_KEY"] {
        api_key(reader, stage, name);
    }
    issuers(reader, stage);
    events(reader);
    openness(reader, stage);
    redis_url(reader);
}

fn redis_url(reader: &mut Reader) {
    let url = reader.text("REDIS_URL").map(|url| url.trim().to_owned());
    let url = url.as_deref();
    let is_secure = url.is_some_and(|url| url.starts_with("rediss"));
    if let Some(Err(rule)) = url.map(Address::parse) {
        reader.fault("REDIS_URL", rule);
    }
    let of_one_node = ["HISTORY_MAX_BYTES", "MAX_CHANNELS", "MAX_IDEMPOTENCY_KEYS"];
    for name in of_one_node {
        if url.is_some() && reader.is_set(name) {
            reader.warn(format!("{name} is set, but has no effect with REDIS_URL"));
        }
    }
    if reader.text("REDIS_CA_FILE").is_some() && !is_secure {
        let rule = "is for TLS, but REDIS_URL does not begin with rediss";
        reader.fault("REDIS_CA_FILE", rule);
    }
    if reader.integer("REDIS_WAIT_REPLICAS") > 0 && url.is_none() {
        let rule = "needs REDIS_URL: a node that is alone has no replicas";
        reader.fault("REDIS_WAIT_REPLICAS", rule);
    }
}

/// Each row: this variable must be at most that one.
fn limits(reader: &mut Reader) {
    for (less, more) in [
        ("WS_MAX_MESSAGE_BYTES", "WS_MAX_BUFFERED_BYTES"),
        ("MAX_HANDSHAKES", "MAX_CONNECTIONS"),
    ] {
        let most = reader.integer(more);
        if reader.integer(less) > most {
            reader.fault(less, format!("must be at most {more}, which is {most}"));
        }
    }
    let share = reader.integer("WS_TOTAL_BUFFERED_BYTES") / reader.integer("WORKERS").max(1);
    if share < reader.integer("WS_MAX_BUFFERED_BYTES") {
        reader.fault(
            "WS_TOTAL_BUFFERED_BYTES",
            "must be at least WS_MAX_BUFFERED_BYTES for each of the WORKERS, between which it is split",
        );
    }
}

fn publications(reader: &mut Reader, namespaces: &Namespaces) {
    for (name, namespace) in namespaces.iter() {
        let name = if name.is_empty() { "default" } else { name };
        let bytes = namespace.publication_bytes_max.saturating_add(FRAME_BYTES);
        for bound in ["WS_MAX_BUFFERED_BYTES", "INBOX_MAX_BYTES"] {
            if bytes > reader.size(bound) {
                let rule = format!(
                    "must be at least {bytes}: publication_bytes_max of the namespace {name}, and 1024 for its frame"
                );
                reader.fault(bound, rule);
            }
        }
    }
}

fn heartbeat(reader: &mut Reader) {
    let ping = reader.integer("WS_PING_INTERVAL_MS");
    if reader.integer("WEBSOCKETS_INACTIVITY_TIMEOUT") * 1000 <= ping {
        reader.fault(
            "WEBSOCKETS_INACTIVITY_TIMEOUT",
            format!("must be more than the ping interval, which is {ping} ms"),
        );
    }
}

/// Whether a back end says who a client is by what browsers send along for any page: then the origin alone tells a user's
/// page from one that acts as its visitor.
pub(super) fn knows_browsers(reader: &Reader) -> bool {
    let told = value::list(reader.text("CONNECT_HEADERS").unwrap_or_default());
    let mut told = told.map(str::to_ascii_lowercase);
    reader.text("CONNECT_URL").is_some()
        && told.any(|name| name == "cookie" || name == "authorization")
}

fn origins(reader: &mut Reader) {
    if knows_browsers(reader) {
        match reader.text("ALLOW_ORIGINS") {
            None => reader.warn(
                "CONNECT_URL is told cookies and ALLOW_ORIGINS is not set: only pages of the hub's own origin may connect",
            ),
            Some("*") => reader.warn(
                "CONNECT_URL is told cookies and ALLOW_ORIGINS is *: any page may connect as its visitor",
            ),
            Some(_) => {}
        }
    }
    if reader.text("ALLOW_ORIGINS") == Some("*") && reader.boolean("ALLOW_CREDENTIALS") {
        reader.fault(
            "ALLOW_ORIGINS",
            "must be a list of origins when ALLOW_CREDENTIALS is true: any page could act as its visitor",
        );
    }
}

fn signing_secret(reader: &mut Reader, stage: Stage, name: &'static str) {
    let Some(secret) = reader.text(name) else {
        return;
    };
    let rule = if is_known(secret) {
        "must not be a secret that stands in examples".to_owned()
    } else if secret.len() < SECRET_BYTES_MIN {
        format!("must have at least {SECRET_BYTES_MIN} bytes in production")
    } else {
        return;
    };
    match stage {
        Stage::Production => reader.fault(name, rule),
        _ => reader.warn(format!("{name} {rule}; production would refuse it")),
    }
}

/// Older gateways ask for one character only, so a short key is not refused; one out of an example is.
fn api_key(reader: &mut Reader, stage: Stage, name: &'static str) {
    let Some(key) = reader.text(name) else {
        return;
    };
    if is_known(key) && stage == Stage::Production {
        reader.fault(name, "must not be a key that stands in examples");
    } else if key.len() < KEY_BYTES_MIN {
        reader.warn(format!("{name} should have at least {KEY_BYTES_MIN} bytes"));
    }
}

fn is_known(secret: &str) -> bool {
    KNOWN_SECRETS
        .iter()
        .any(|known| secret.eq_ignore_ascii_case(known))
}

/// Keys of issuers elsewhere, and the secret before.
fn issuers(reader: &mut Reader, stage: Stage) {
    let (secret, until) = ("JWT_PREVIOUS_SECRET", "JWT_PREVIOUS_SECRET_UNTIL");
    for (name, other) in [(secret, until), (until, secret)] {
        if reader.is_set(name) && !reader.is_set(other) {
            reader.fault(name, format!("needs {other} beside it"));
        }
    }
    let is_plain = |text: &str| {
        let sources: Result<KeySources, _> = text.parse();
        sources.is_ok_and(|sources| sources.iter().any(|source| !source.url.is_secure()))
    };
    if stage == Stage::Production && reader.text("JWKS_URL").is_some_and(is_plain) {
        let rule = "must be https in production: whoever is in between could make keys";
        reader.fault("JWKS_URL", rule);
    }
}

fn events(reader: &mut Reader) {
    for url in ["WEBHOOK_URL", "CONNECT_URL", "SUBSCRIBE_URL", "PUBLISH_URL"] {
        if reader.is_set(url) && !reader.is_set("WEBHOOK_SECRET") {
            let rule = "needs WEBHOOK_SECRET beside it: nobody could tell this hub from others";
            reader.fault(url, rule);
        }
    }
    if reader.boolean("EVENT_STREAM") && !reader.is_set("REDIS_URL") {
        reader.fault("EVENT_STREAM", "needs REDIS_URL");
    }
}

/// Whether tokens can be verified.
pub(super) fn has_key(reader: &Reader) -> bool {
    let keys = ["JWT_SECRET", "SECRET_KEY", "JWT_PUBLIC_KEY", "JWKS_URL"];
    keys.iter().any(|name| reader.is_set(name))
}

fn openness(reader: &mut Reader, stage: Stage) {
    if reader.boolean("AUTH_REQUIRED") {
        if !has_key(reader) {
            reader.faults.push(super::Fault::new(
                "JWT_SECRET",
                None,
                "is required when AUTH_REQUIRED is true",
            ));
        }
        return;
    }
    let hub = match reader.text("HUB_API_KEY") {
        Some(_) => "",
        None => ", and /hub is open because HUB_API_KEY is not set either",
    };
    if stage != Stage::Test {
        reader.warn(format!(
            "AUTH_REQUIRED is false: anyone may connect, subscribe and publish{hub}"
        ));
    }
}
