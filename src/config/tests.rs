//! The configuration as a whole: what each input becomes, and every fault that is refused.

use super::*;
use crate::auth::Algorithm;
use crate::model::{ChannelKey, Permission};
use crate::telemetry::LogFormat;

mod documents;
mod fleet;

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const GIB: u64 = 1024 * 1024 * 1024;

fn machine() -> Machine {
    Machine {
        cores: 2,
        memory_bytes: 8 * GIB,
        open_files: 1024,
        host_name: "box".to_owned(),
        process_id: 7,
        is_terminal: true,
    }
}

fn load_with_files(
    variables: &[(&str, &str)],
    files: &[(&str, &str)],
) -> Result<Settings, ConfigError> {
    Settings::load(&Inputs {
        environment: variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        machine: machine(),
        read_file: &|path| {
            files
                .iter()
                .find(|(name, _)| Path::new(name) == path)
                .map(|(_, text)| (*text).to_owned())
                .ok_or_else(|| io::ErrorKind::NotFound.into())
        },
    })
}

fn load(variables: &[(&str, &str)]) -> Result<Settings, ConfigError> {
    load_with_files(variables, &[])
}

fn settings(variables: &[(&str, &str)]) -> Settings {
    load(variables).unwrap_or_else(|error| panic!("{error}"))
}

/// Exactly one fault, and it says this.
fn check_fault(variables: &[(&str, &str)], expected: &str) {
    let error = load(variables).expect_err("a fault");
    assert_eq!(error.faults.len(), 1, "{error}");
    assert!(
        error.faults[0].to_string().starts_with(expected),
        "expected {expected:?}, found {:?}",
        error.faults[0].to_string()
    );
}

fn shown(settings: &Settings, name: &str) -> (String, Source) {
    settings
        .resolved
        .iter()
        .find(|row| row.name == name)
        .map(|row| (row.value.clone(), row.source))
        .expect(name)
}

#[test]
fn nothing_set_is_a_development_node_that_says_it_is_open() {
    let settings = settings(&[]);
    assert_eq!(settings.stage, Stage::Development);
    assert_eq!(settings.server.host.to_string(), "0.0.0.0");
    assert_eq!(settings.server.port, 8080);
    assert_eq!(settings.server.workers, 2);
    assert_eq!(settings.server.connections_max, 1024 - 128);
    assert_eq!(settings.server.handshakes_max, 1024 - 128);
    assert_eq!(settings.server.drain_window, Duration::from_secs(30));
    assert_eq!(settings.transport.node.as_str(), "box-7");
    assert_eq!(settings.transport.pending_bytes_max, 2_000_000);
    assert_eq!(settings.transport.total_pending_bytes_max as u64, 2 * GIB);
    assert_eq!(settings.transport.message_bytes_max, 65_536);
    assert!(settings.transport.origins.is_none() && !settings.transport.echo);
    assert_eq!(settings.broker.history_bytes_max as u64, GIB);
    assert_eq!(settings.client.ping_interval, Duration::from_secs(25));
    assert_eq!(settings.client.inactivity_timeout, Duration::from_secs(60));
    assert_eq!(settings.telemetry.log_format, LogFormat::Pretty);
    assert!(settings.telemetry.metrics);
    assert!(!settings.auth.required && settings.auth.secrets.is_empty());
    assert_eq!(settings.auth.algorithms, [Algorithm::HS256]);
    let news = ChannelKey::new("news").expect("a name");
    let namespace = settings.namespaces.of(&news);
    assert_eq!(namespace.publish, Permission::Anyone);
    assert_eq!(settings.warnings.len(), 1);
    assert!(settings.warnings[0].contains("/hub is open"));
}

#[test]
fn a_limit_of_few_files_is_warned_of() {
    let warned = |open_files, variables: &[(&str, &str)]| {
        let settings = Settings::load(&Inputs {
            environment: variables
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            machine: Machine {
                open_files,
                ..machine()
            },
            read_file: &|_| Err(io::ErrorKind::NotFound.into()),
        })
        .expect("a sound configuration");
        let said = |warning: &String| warning.contains("the limit of open files is");
        (
            settings.server.connections_max,
            settings.warnings.iter().any(said),
        )
    };
    let upstreams = ("UPSTREAMS", r#"{"a":["http://a:1"]}"#);
    assert_eq!(warned(100, &[]), (1, true));
    assert_eq!(warned(383, &[]), (255, true));
    assert_eq!(warned(384, &[]), (256, false));
    assert_eq!(warned(384, &[upstreams]), (128, true));
    assert_eq!(warned(384, &[("MAX_CONNECTIONS", "100")]), (100, false));
}

#[test]
fn production_is_closed_and_logs_json() {
    let settings = settings(&[("NODE_ENV", "production"), ("JWT_SECRET", SECRET)]);
    assert!(settings.auth.required && settings.transport.auth_required);
    assert_eq!(settings.telemetry.log_format, LogFormat::Json);
    let news = ChannelKey::new("news").expect("a name");
    let namespace = settings.namespaces.of(&news);
    assert_eq!(namespace.publish, Permission::Nobody);
    assert_eq!(namespace.subscribe, Permission::Authenticated);
    assert_eq!(settings.warnings, [""; 0]);
}

#[test]
fn aliases_serve_and_the_name_itself_wins() {
    let aliases = settings(&[
        ("DEFAULT_PORT", "8000"),
        ("APP_ENV", "test"),
        ("LOGGING_LEVEL", "CRITICAL"),
        ("POD_NAME", "gateway-3"),
        ("SECRET_KEY", SECRET),
    ]);
    assert_eq!(aliases.server.port, 8000);
    assert_eq!(aliases.stage, Stage::Test);
    assert_eq!(aliases.telemetry.log_level, "error");
    assert_eq!(aliases.transport.node.as_str(), "gateway-3");
    assert_eq!(aliases.auth.secrets, [SECRET.as_bytes().into()]);
    assert_eq!(
        shown(&aliases, "PORT"),
        ("8000".to_owned(), Source::Environment("DEFAULT_PORT"))
    );
    let both = settings(&[
        ("DEFAULT_PORT", "8000"),
        ("PORT", "9000"),
        ("LOGGING_LEVEL", "DEBUG"),
        ("LOG_LEVEL", "warn"),
    ]);
    assert_eq!(both.server.port, 9000);
    assert_eq!(both.telemetry.log_level, "warn");
}

#[test]
fn two_secrets_both_verify_and_secret_key_signs() {
    let other = "another-secret-of-at-least-32-bytes";
    let both = settings(&[("JWT_SECRET", SECRET), ("SECRET_KEY", other)]);
    assert_eq!(
        both.auth.secrets,
        [other.as_bytes().into(), SECRET.as_bytes().into()]
    );
    let same = settings(&[("JWT_SECRET", SECRET), ("SECRET_KEY", SECRET)]);
    assert_eq!(same.auth.secrets.len(), 1);
    let blank = settings(&[("JWT_SECRET", " x ")]);
    assert_eq!(
        blank.auth.secrets,
        [b" x ".as_slice().into()],
        "secrets are taken as they are"
    );
}

#[test]
fn the_ping_interval_in_milliseconds_wins() {
    let both = settings(&[
        ("WS_PING_INTERVAL_MS", "1500"),
        ("WEBSOCKETS_PING_INTERVAL", "40"),
    ]);
    assert_eq!(both.client.ping_interval, Duration::from_millis(1500));
    let slow = settings(&[("WS_PING_INTERVAL_MS", "90000")]);
    assert_eq!(
        slow.client.inactivity_timeout,
        Duration::from_secs(180),
        "the default follows"
    );
    let slower = settings(&[("WEBSOCKETS_PING_INTERVAL", "40")]);
    assert_eq!(slower.client.ping_interval, Duration::from_secs(40));
    assert_eq!(slower.client.inactivity_timeout, Duration::from_secs(80));
}

#[test]
fn a_small_buffer_brings_small_messages_along() {
    let settings = settings(&[("WS_MAX_BUFFERED_BYTES", "50000")]);
    assert_eq!(settings.transport.message_bytes_max, 50_000);
    let (_, default) = settings.namespaces.iter().next().expect("a default");
    assert_eq!(default.publication_bytes_max, 50_000 - 1024);
}

#[test]
fn booleans_and_numbers_may_carry_comments_and_false_is_false() {
    let settings = settings(&[
        ("METRICS_ENABLED", "false"),
        ("WS_ECHO", "Yes # for tests"),
        ("WEBSOCKETS_JSON_PING", "on"),
        ("ACCESS_TOKEN_EXPIRE_MINUTES", "45  # minutes"),
        ("DRAIN_SECONDS", ""),
    ]);
    assert!(!settings.telemetry.metrics);
    assert!(settings.transport.echo && settings.client.json_ping);
    assert_eq!(settings.token_ttl, Duration::from_secs(45 * 60));
    assert_eq!(
        settings.server.drain_window,
        Duration::from_secs(30),
        "an empty value is none"
    );
}

#[test]
fn an_unlimited_body_is_still_bounded_where_it_is_held() {
    let settings = settings(&[("MAX_BODY_BYTES", "0")]);
    assert_eq!(settings.server.body_bytes_max, 0);
    assert_eq!(settings.api.body_bytes_max, 10_485_760);
}

#[test]
fn origins_are_a_list_or_anything() {
    let listed = settings(&[("ALLOW_ORIGINS", "https://a.example, http://localhost:3000/")]);
    assert_eq!(
        listed.transport.origins.as_deref(),
        Some(
            [
                "https://a.example".to_owned(),
                "http://localhost:3000".to_owned()
            ]
            .as_slice()
        )
    );
    assert!(
        settings(&[("ALLOW_ORIGINS", "*")])
            .transport
            .origins
            .is_none()
    );
}

#[test]
fn where_cookies_say_who_comes_only_the_own_origin_is_let_in_unasked() {
    let asked = [
        ("CONNECT_URL", "http://back-end/connect"),
        ("WEBHOOK_SECRET", "a secret of thirty-two bytes or more"),
    ];
    for (more, expected) in [
        (&[][..], Some(0)),
        (&[("CONNECT_HEADERS", "X-Id, Cookie")], Some(0)),
        (&[("CONNECT_HEADERS", "authorization")], Some(0)),
        (&[("CONNECT_HEADERS", "x-id")], None),
        (&[("CONNECT_HEADERS", "-")], None),
        (&[("ALLOW_ORIGINS", "https://a.example")], Some(1)),
        (&[("ALLOW_ORIGINS", "*")], None),
    ] {
        let origins = settings(&[&asked, more].concat()).transport.origins;
        let count = origins.map(|origins| origins.len());
        assert_eq!(count, expected, "{more:?}");
    }
    assert!(settings(&[]).transport.origins.is_none());
}

#[test]
fn the_environment_wins_over_the_file_which_is_read_in_development_only() {
    let files = [(
        ".env",
        "PORT=9001 # here\nHOST=127.0.0.1\nNODE_ID=\"from file\"\nNODE_ID=file",
    )];
    let development = load_with_files(&[("PORT", "9002")], &files).expect("valid");
    assert_eq!(development.server.port, 9002);
    assert_eq!(development.server.host.to_string(), "127.0.0.1");
    assert_eq!(
        shown(&development, "NODE_ID"),
        ("file".to_owned(), Source::DotEnv("NODE_ID"))
    );
    for stage in ["production", "test"] {
        let other =
            load_with_files(&[("NODE_ENV", stage), ("JWT_SECRET", SECRET)], &files).expect("valid");
        assert_eq!(other.server.port, 8080, "{stage}");
    }
    let says_production =
        load_with_files(&[], &[(".env", "NODE_ENV=production")]).expect_err("no secret");
    assert!(says_production.to_string().contains("JWT_SECRET"));
}

#[test]
fn namespaces_come_from_the_file() {
    let files = [("hub.toml", "[namespaces.chat]\npublish = \"authenticated\"")];
    let settings = load_with_files(&[("CONFIG_FILE", "hub.toml")], &files).expect("valid");
    let chat = ChannelKey::new("chat:1").expect("a name");
    assert_eq!(
        settings.namespaces.of(&chat).publish,
        Permission::Authenticated
    );
}

#[test]
fn each_variable_keeps_its_rule() {
    for (name, value) in [
        ("PORT", "eighty"),
        ("PORT", "65536"),
        ("PORT", "-1"),
        ("PORT", "+80"),
        ("PORT", "80.5"),
        ("WORKERS", "0"),
        ("WORKERS", "65"),
        ("HOST", "example.com"),
        ("NODE_ENV", "staging"),
        ("NODE_ID", "a b"),
        ("LOG_LEVEL", "loud"),
        ("LOG_FORMAT", "xml"),
        ("AUTH_REQUIRED", "maybe"),
        ("ALGORITHM", "none"),
        ("ALGORITHM", "HS256,RS256"),
        ("ALLOW_ORIGINS", "a.example"),
        ("METRICS_ENABLED", "2"),
        ("WS_MAX_BUFFERED_BYTES", "2MB"),
        ("DRAIN_SECONDS", "99999999999999999999999"),
    ] {
        check_fault(&[(name, value)], &format!("{name}={value:?} must be "));
    }
    check_fault(
        &[("DEFAULT_PORT", "x")],
        "DEFAULT_PORT=\"x\" must be a whole number from 0 to 65535",
    );
    check_fault(
        &[("JWT_SECRET", "a\u{fffd}")],
        "JWT_SECRET must be valid UTF-8",
    );
}

#[test]
fn relations_between_limits_hold() {
    check_fault(
        &[
            ("WS_MAX_MESSAGE_BYTES", "70000"),
            ("WS_MAX_BUFFERED_BYTES", "69000"),
        ],
        "WS_MAX_MESSAGE_BYTES=\"70000\" must be at most WS_MAX_BUFFERED_BYTES, which is 69000",
    );
    check_fault(
        &[("WS_TOTAL_BUFFERED_BYTES", "3000000")],
        "WS_TOTAL_BUFFERED_BYTES=\"3000000\" must be at least WS_MAX_BUFFERED_BYTES for each",
    );
    check_fault(
        &[("MAX_HANDSHAKES", "10"), ("MAX_CONNECTIONS", "9")],
        "MAX_HANDSHAKES=\"10\" must be at most MAX_CONNECTIONS, which is 9",
    );
    check_fault(
        &[("WEBSOCKETS_INACTIVITY_TIMEOUT", "25")],
        "WEBSOCKETS_INACTIVITY_TIMEOUT=\"25\" must be more than the ping interval, which is 25000 ms",
    );
    check_fault(
        &[("ALLOW_ORIGINS", "*"), ("ALLOW_CREDENTIALS", "true")],
        "ALLOW_ORIGINS=\"*\" must be a list",
    );
}

#[test]
fn every_publication_must_fit_a_connections_buffer() {
    let files = [(
        "hub.toml",
        "[namespaces.big]\npublication_bytes_max = 1999000",
    )];
    let variables = [("CONFIG_FILE", "hub.toml")];
    let error = load_with_files(&variables, &files).expect_err("too big");
    assert_eq!(
        error.faults[0].to_string(),
        "WS_MAX_BUFFERED_BYTES=\"2000000\" must be at least 2000024: publication_bytes_max of the namespace big, and \
         1024 for its frame"
    );
}

#[test]
fn required_credentials_need_a_secret() {
    for variables in [[("AUTH_REQUIRED", "true")], [("NODE_ENV", "production")]] {
        check_fault(
            &variables,
            "JWT_SECRET is required when AUTH_REQUIRED is true",
        );
    }
    let open = settings(&[("NODE_ENV", "production"), ("AUTH_REQUIRED", "no")]);
    assert!(open.warnings[0].contains("AUTH_REQUIRED is false"));
}

#[test]
fn weak_secrets_are_refused_in_production_and_warned_of_elsewhere() {
    let production = ("NODE_ENV", "production");
    for name in ["JWT_SECRET", "SECRET_KEY"] {
        for secret in [
            "admin",
            "your-secret-key-here",
            "0123456789abcdef0123456789abcde",
        ] {
            check_fault(
                &[production, (name, secret)],
                &format!("{name}=\"********\" must "),
            );
            let development = settings(&[(name, secret)]);
            assert!(
                development
                    .warnings
                    .iter()
                    .any(|text| text.starts_with(name))
            );
        }
    }
    let strong = ("JWT_SECRET", SECRET);
    check_fault(
        &[production, strong, ("ADMIN_API_KEY", "admin")],
        "ADMIN_API_KEY=\"********\" must not",
    );
    let short = settings(&[production, strong, ("HUB_API_KEY", "k")]);
    assert_eq!(
        short.warnings,
        ["HUB_API_KEY should have at least 16 bytes"]
    );
}

#[test]
fn what_this_version_does_not_do_is_refused_or_said() {
    check_fault(&[("LISTEN", "0.0.0.0:81")], "LISTEN is set, but");
    let settings = settings(&[
        ("TRACING_ENABLED", "true"),
        ("WS_MAX_BUFERED_BYTES", "5"),
        ("SOMETHING_ELSE", "1"),
        ("REDIS_URL", ""),
    ]);
    assert!(
        settings
            .warnings
            .contains(&"TRACING_ENABLED is set, but has no effect in this version".to_owned())
    );
    assert!(
        settings
            .warnings
            .contains(&"WS_MAX_BUFERED_BYTES is set, but there is no such variable".to_owned())
    );
    assert_eq!(settings.warnings.len(), 3);
}

#[test]
fn all_faults_are_told_at_once() {
    let error = load_with_files(
        &[
            ("PORT", "x"),
            ("WORKERS", "0"),
            ("AUTH_REQUIRED", "true"),
            ("CONFIG_FILE", "hub.toml"),
            ("WS_MAX_MESSAGE_BYTES", "3000000"),
            ("REDIS_URL", "http://r"),
        ],
        &[
            (".env", "nonsense\nHOST=nowhere"),
            ("hub.toml", "[namespaces.a]\nx = 1\n"),
        ],
    )
    .expect_err("faults");
    let text = error.to_string();
    assert!(text.starts_with("Environment validation failed:\n  "));
    for name in [
        "PORT",
        "WORKERS",
        "JWT_SECRET",
        "hub.toml line 2: namespaces.a.x",
        "WS_MAX_MESSAGE_BYTES",
        "REDIS_URL",
        ".env line 1",
        "HOST",
    ] {
        assert!(
            error.faults.iter().any(|fault| fault.name == name),
            "{name}: {text}"
        );
    }
    assert_eq!(error.faults.len(), 8, "{text}");
}

#[test]
fn a_file_that_is_not_there_is_a_fault() {
    check_fault(
        &[("CONFIG_FILE", "none.toml")],
        "CONFIG_FILE=\"none.toml\" cannot be read",
    );
}

#[test]
fn secrets_are_never_shown() {
    let secrets = [
        ("JWT_SECRET", "private-jwt-secret-of-enough-bytes"),
        ("SECRET_KEY", "private-secret-key-of-enough-bytes"),
        ("HUB_API_KEY", "private-hub"),
        ("ADMIN_API_KEY", "private-admin"),
    ];
    let settings = settings(&secrets);
    let text = format!("{settings:?}");
    assert!(!text.contains("private"), "{text}");
    assert_eq!(shown(&settings, "HUB_API_KEY").0, "********");
    let mut faulty = secrets.to_vec();
    faulty.extend([
        ("NODE_ENV", "production"),
        ("REDIS_URL", "http://:private@r"),
    ]);
    faulty.push(("JWT_SECRET", "private"));
    let text = load(&faulty).expect_err("faults").to_string();
    assert!(!text.contains("private"), "{text}");
}

/// Among the faults there is one of this variable, and its rule says this.
fn check_rule(variables: &[(&str, &str)], name: &str, rule: &str) {
    let error = load(variables).expect_err("a fault");
    let mut faults = error.faults.iter();
    let is_told = faults.any(|fault| fault.name == name && fault.rule.contains(rule));
    assert!(is_told, "expected {name} {rule}, found {error}");
}

#[test]
fn keys_of_issuers_are_checked_at_the_start() {
    let private = "-----BEGIN PRIVATE KEY-----";
    let variables = [("JWT_PUBLIC_KEY", private)];
    check_rule(&variables, "JWT_PUBLIC_KEY", "public keys in PEM");
    let shown = load(&variables).expect_err("a fault").to_string();
    assert!(!shown.contains("PRIVATE"), "{shown}");
    check_rule(
        &[("JWKS_URL", "example.com")],
        "JWKS_URL",
        "must be a URL (https://",
    );
    let plain = [
        ("NODE_ENV", "production"),
        ("JWKS_URL", "http://issuer/keys"),
    ];
    check_rule(&plain, "JWKS_URL", "must be https in production");
    // An issuer's keys are enough where credentials are required.
    let settings = settings(&[
        ("AUTH_REQUIRED", "true"),
        ("JWKS_URL", "https://issuer/keys"),
    ]);
    assert!(!settings.auth.key_sources.is_empty());
    let one_plain = "a https://a/keys, b http://b/keys";
    let variables = [("NODE_ENV", "production"), ("JWKS_URL", one_plain)];
    check_rule(&variables, "JWKS_URL", "must be https in production");
    let nameless = [("JWKS_URL", "https://a/keys, https://b/keys")];
    check_rule(&nameless, "JWKS_URL", "must be a URL");
    let (secret, until) = ("JWT_PREVIOUS_SECRET", "JWT_PREVIOUS_SECRET_UNTIL");
    check_rule(
        &[(secret, SECRET)],
        secret,
        "needs JWT_PREVIOUS_SECRET_UNTIL",
    );
    check_rule(
        &[(until, "2026-12-31")],
        until,
        "needs JWT_PREVIOUS_SECRET ",
    );
    let soon = [(secret, SECRET), (until, "soon")];
    check_rule(&soon, until, "must be a day");
}

#[test]
fn events_need_what_they_stand_on() {
    let unsigned = [("WEBHOOK_URL", "http://localhost/hook")];
    check_rule(&unsigned, "WEBHOOK_URL", "needs WEBHOOK_SECRET");
    check_rule(
        &[("EVENT_STREAM", "true")],
        "EVENT_STREAM",
        "needs REDIS_URL",
    );
    let url = "http://localhost/may";
    for name in ["CONNECT_URL", "SUBSCRIBE_URL", "PUBLISH_URL"] {
        check_rule(&[(name, url)], name, "needs WEBHOOK_SECRET");
        check_rule(&[(name, "localhost")], name, "must be http://host");
    }
    let wild = [("CONNECT_HEADERS", "cookie,*")];
    check_rule(&wild, "CONNECT_HEADERS", "must be names of header fields");
    let unknown = [("WEBHOOK_EVENTS", "connect,join")];
    check_rule(&unknown, "WEBHOOK_EVENTS", "must be connect, disconnect");
    let settings = settings(&[
        ("WEBHOOK_URL", "https://example.com/hook"),
        ("WEBHOOK_SECRET", SECRET),
        ("WEBHOOK_EVENTS", "connect, disconnect"),
        ("EVENT_STREAM", "true"),
        ("REDIS_URL", "redis://localhost"),
        ("REDIS_KEY_PREFIX", "mine"),
    ]);
    let webhook = settings.events.webhook.expect("a webhook");
    assert_eq!(webhook.kinds, "connect,disconnect".parse().expect("kinds"));
    assert!(!format!("{webhook:?}").contains(SECRET));
    assert_eq!(settings.events.stream.expect("a stream").key, "mine:events");
}

/// As the row of the variable says, which operators read.
#[test]
fn users_have_a_prefix_only_where_one_is_set() {
    let prefixes = |set: &[(&str, &str)]| {
        let all = [&[("REDIS_URL", "redis://localhost")], set].concat();
        let settings = settings(&all);
        let fleet = settings.redis.expect("a fleet").prefix;
        (fleet, settings.session.redis_prefix)
    };
    let expected = |fleet: &str, users: &str| (fleet.to_owned(), users.to_owned());
    assert_eq!(prefixes(&[]), expected("fanfare", ""));
    for value in ["fanfare", "mine"] {
        let set = prefixes(&[("REDIS_KEY_PREFIX", value)]);
        assert_eq!(set, expected(value, &format!("{value}:")));
    }
    let row = variable::variable("REDIS_KEY_PREFIX").expect("a row");
    assert!(row.doc.contains("only where it is set"), "{}", row.doc);
}
