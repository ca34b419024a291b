//! The files that deploy the hub, held to the hub: compose, Dockerfile, nginx, Redis, Kubernetes, Prometheus. They are
//! read here, not run: that variables, metrics, ports, paths and files exist, that time-outs stand in the right order, that
//! images are pinned and containers confined. `tests/topology` runs nginx, Redis and gateways from them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fanfare::config::{Inputs, Machine, Settings};
use fanfare::model::CloseReason;
use fanfare::telemetry::table::{ALIASES, METRICS};
use serde_json::{Value, json};

/// After the window of a drain, what is left is cut.
const DRAIN_GRACE: Duration = Duration::from_secs(5);

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(file: &str) -> String {
    std::fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn documents(file: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(&read(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn compose() -> Value {
    documents("docker-compose.yml").remove(0)
}

fn kubernetes(kind: &str) -> Value {
    let documents = documents("deploy/kubernetes/fanfare.yaml");
    let found = documents
        .into_iter()
        .find(|document| document["kind"] == kind);
    found.unwrap_or_else(|| panic!("no {kind}"))
}

#[track_caller]
fn list(value: &Value) -> Vec<&str> {
    let list = value
        .as_array()
        .unwrap_or_else(|| panic!("no list: {value}"));
    list.iter()
        .map(|value| value.as_str().expect("a text"))
        .collect()
}

#[track_caller]
fn object(value: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let object = value
        .as_object()
        .unwrap_or_else(|| panic!("no map: {value}"));
    object.iter().map(|(name, value)| (name.as_str(), value))
}

/// The variables that this version obeys, by the text of `fanfare --help`.
fn variables() -> BTreeSet<String> {
    let help = fanfare::config::help();
    let mut names = BTreeSet::new();
    for line in help.lines().filter(|line| line.starts_with("  ")) {
        let Some((name, rest)) = line.trim().split_once(" [") else {
            continue;
        };
        names.insert(name.to_owned());
        if let Some((_, aliases)) = rest.split_once(" (alias ") {
            let aliases = aliases.trim_end_matches(')').split(", ");
            names.extend(aliases.map(str::to_owned));
        }
    }
    assert!(names.len() > 40 && names.contains("PORT"), "{names:?}");
    names
}

/// A default in the unit of its variable, by the text of `.env.example`.
fn default(name: &str) -> u64 {
    let text = fanfare::config::env_example();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(&format!("# {name}=")));
    let number = line.and_then(|rest| rest.split(' ').next());
    number
        .and_then(|number| number.parse().ok())
        .unwrap_or_else(|| panic!("no default of {name}"))
}

/// How long a drain takes at most, with what `environment` says of it.
fn longest_drain(environment: &Value) -> Duration {
    let value = |name: &str| match environment[name].as_str() {
        Some(text) => text.parse().expect("a number"),
        None => default(name),
    };
    Duration::from_millis(value("DRAIN_DELAY_MS"))
        + Duration::from_secs(value("DRAIN_SECONDS"))
        + DRAIN_GRACE
}

#[test]
fn every_variable_that_is_set_exists() {
    let known = variables();
    let compose = compose();
    let config_map = kubernetes("ConfigMap");
    let deployment = kubernetes("Deployment");
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    let in_pod = container["env"].as_array().expect("variables");
    let set = object(&compose["services"]["gateway"]["environment"])
        .chain(object(&config_map["data"]))
        .map(|(name, _)| name)
        .chain(in_pod.iter().filter_map(|entry| entry["name"].as_str()));
    for name in set {
        assert!(known.contains(name), "there is no {name}");
    }
    let text = read("docker-compose.yml");
    for asked in text.split("${").skip(1) {
        let name = asked
            .split([':', '}'])
            .next()
            .expect("a name, perhaps empty");
        let is_known = known.contains(name) || name == "GATEWAY_MEMORY";
        assert!(is_known, "compose asks for {name}");
    }
}

/// What a replica cannot share, or what others here rely on.
const SET_BY_COMPOSE: [&str; 4] = ["HOST", "PORT", "NODE_ID", "POD_NAME"];

/// Only a few variables were passed on: the rest of `.env` was nothing, and nobody said so.
#[test]
fn compose_passes_on_whatever_env_says() {
    let gateway = &compose()["services"]["gateway"];
    assert_eq!(
        gateway["env_file"],
        json!([{ "path": ".env", "required": false }])
    );
    // What stands beside wins over the file: nothing may, but by its own name, or as one that is not to be chosen.
    for (name, value) in object(&gateway["environment"]) {
        let passes = match value.as_str() {
            None => value.is_null(),
            Some(text) => text.starts_with(&format!("${{{name}:-")),
        };
        assert_eq!(passes, !SET_BY_COMPOSE.contains(&name), "{name}: {value}");
    }
    // The container's file system begins with nothing that `CONFIG_FILE` could name.
    let volumes = list(&gateway["volumes"]);
    assert_eq!(volumes, ["./deploy/config:/etc/fanfare:ro"]);
}

/// Each gateway takes a quarter of what it sees as memory for what is pending: five would take more than the machine.
#[test]
fn gateways_know_how_much_memory_is_theirs() {
    let gateway = &compose()["services"]["gateway"];
    let limit = gateway["mem_limit"].as_str().expect("a limit");
    assert!(limit.starts_with("${GATEWAY_MEMORY:-"), "{limit}");
    let pod = &kubernetes("Deployment")["spec"]["template"]["spec"];
    let limits = &pod["containers"][0]["resources"]["limits"];
    assert!(limits["memory"].is_string(), "{limits}");
}

#[test]
fn the_example_of_a_configuration_file_is_a_good_one() {
    let example = read("deploy/config/example.toml");
    let file = "/etc/fanfare/fanfare.toml";
    assert!(example.contains(&format!("CONFIG_FILE={file} ")));
    let variables = [("NODE_ENV", "test"), ("CONFIG_FILE", file)];
    let loaded = Settings::load(&Inputs {
        environment: variables
            .map(|(name, value)| (name.into(), value.into()))
            .into(),
        machine: Machine::probe(),
        read_file: &|path| match path == Path::new(file) {
            true => Ok(example.clone()),
            false => Err(std::io::ErrorKind::NotFound.into()),
        },
    });
    let settings = loaded.unwrap_or_else(|faults| panic!("{faults}"));
    assert_eq!(settings.warnings, Vec::<String>::new());
    assert!(
        read(".gitignore")
            .lines()
            .any(|line| line == "/deploy/config/fanfare.toml")
    );
}

/// One request that went wrong, a service's fault or a client's, must never count against the gateway that carried it.
#[test]
fn nginx_leaves_no_gateway_out() {
    for file in ["nginx/compose/peers.conf", "deploy/local"] {
        let text = read(file);
        let is_peer = |line: &&str| line.contains("server ") && line.contains(" max_fails=");
        let peers: Vec<&str> = text.lines().filter(is_peer).collect();
        assert_eq!(peers.len(), 1, "{file}");
        assert!(peers[0].contains(" max_fails=0;"), "{file}: {}", peers[0]);
    }
}

/// A pod that starts while Redis is away was ended every minute, and started ever more rarely.
#[test]
fn pods_are_ended_for_nothing_but_their_own_faults() {
    let pod = &kubernetes("Deployment")["spec"]["template"]["spec"]["containers"][0];
    let path = |probe: &str| pod[probe]["httpGet"]["path"].clone();
    assert_eq!(path("startupProbe"), "/healthz");
    assert_eq!(path("livenessProbe"), "/healthz");
    assert_eq!(path("readinessProbe"), "/readyz");
}

#[test]
fn supervisors_wait_longer_than_a_drain_takes() {
    let compose = compose();
    let gateway = &compose["services"]["gateway"];
    let grace = gateway["stop_grace_period"].as_str().expect("a duration");
    let grace: u64 = grace
        .trim_end_matches('s')
        .parse()
        .expect("whole seconds, such as 45s");
    assert!(Duration::from_secs(grace) > longest_drain(&gateway["environment"]));

    let pod = &kubernetes("Deployment")["spec"]["template"]["spec"];
    let grace = pod["terminationGracePeriodSeconds"]
        .as_u64()
        .expect("seconds");
    assert!(Duration::from_secs(grace) > longest_drain(&kubernetes("ConfigMap")["data"]));

    let operations = read("docs/OPERATIONS.md");
    let (_, rest) = operations
        .split_once("TimeoutStopSec=")
        .expect("the systemd unit");
    let grace: u64 = rest
        .lines()
        .next()
        .and_then(|line| line.parse().ok())
        .expect("seconds");
    assert!(Duration::from_secs(grace) > longest_drain(&Value::Null));
}

/// Whether a reference names one version: three numbers, or for Debian and Rust two and the release.
fn is_pinned(reference: &str) -> bool {
    let Some((_, tag)) = reference.rsplit_once(':') else {
        return false;
    };
    let version = tag.trim_start_matches('v').split('-').next().unwrap_or("");
    let numbers: Vec<&str> = version.split('.').collect();
    let wanted = match reference.split(':').next() {
        Some("rust" | "debian") => 2,
        _ => 3,
    };
    numbers.len() >= wanted && numbers.iter().all(|number| number.parse::<u32>().is_ok())
}

#[test]
fn images_are_pinned() {
    assert!(is_pinned("redis:8.2.2-alpine") && is_pinned("rust:1.95-bookworm"));
    assert!(!is_pinned("redis:8-alpine") && !is_pinned("redis") && !is_pinned("redis:latest"));
    let compose = compose();
    let services = object(&compose["services"]).map(|(_, service)| &service["image"]);
    let pod = &kubernetes("Deployment")["spec"]["template"]["spec"];
    let images = services.chain([&pod["containers"][0]["image"]]);
    for image in images {
        let image = image.as_str().expect("an image");
        assert!(is_pinned(image), "{image}");
        let ours = concat!("fanfare:", env!("CARGO_PKG_VERSION"));
        assert!(
            !image.contains("fanfare:") || image.ends_with(ours),
            "{image}"
        );
    }
    let dockerfile = read("deploy/Dockerfile");
    let bases = dockerfile
        .lines()
        .filter_map(|line| line.strip_prefix("FROM "));
    for base in bases {
        let image = base.split(' ').next().unwrap_or(base);
        assert!(is_pinned(image), "{image}");
    }
    let compiler = concat!("\nFROM rust:", env!("CARGO_PKG_RUST_VERSION"), "-");
    assert!(
        dockerfile.contains(compiler),
        "another compiler than Cargo.toml names"
    );
}

#[test]
fn what_is_mounted_and_copied_exists() {
    let compose = compose();
    let named: BTreeSet<&str> = object(&compose["volumes"]).map(|(name, _)| name).collect();
    for (name, service) in object(&compose["services"]) {
        if service["volumes"].is_null() {
            continue;
        }
        for volume in list(&service["volumes"]) {
            let source = volume.split(':').next().unwrap_or(volume);
            let exists = match source.strip_prefix("./") {
                Some(path) => root().join(path).exists() && volume.ends_with(":ro"),
                None => named.contains(source),
            };
            assert!(exists, "{name}: {volume}");
        }
    }
    let ignored = read(".dockerignore");
    let dockerfile = read("deploy/Dockerfile");
    for line in dockerfile
        .lines()
        .filter_map(|line| line.strip_prefix("COPY "))
    {
        let words: Vec<&str> = line.split(' ').collect();
        if words[0].starts_with("--from") {
            continue;
        }
        for source in &words[..words.len() - 1] {
            assert!(root().join(source).exists(), "{source}");
            let kept = ignored.lines().any(|rule| rule == format!("!{source}"));
            assert!(kept, ".dockerignore leaves {source} out");
        }
    }
}

#[test]
fn containers_may_do_nothing_that_they_need_not() {
    let compose = compose();
    for name in ["gateway", "nginx"] {
        let service = &compose["services"][name];
        assert_eq!(service["read_only"], true, "{name}");
        assert_eq!(list(&service["cap_drop"]), ["ALL"], "{name}");
        assert_eq!(
            list(&service["security_opt"]),
            ["no-new-privileges:true"],
            "{name}"
        );
    }
    assert_eq!(compose["services"]["nginx"]["user"], "101:101");
    let dockerfile = read("deploy/Dockerfile");
    let (_, last_stage) = dockerfile.rsplit_once("\nFROM ").expect("two stages");
    assert!(last_stage.contains("\nUSER 10001\n"));
    assert!(last_stage.contains("CMD [\"fanfare\", \"health\"]"));

    let pod = &kubernetes("Deployment")["spec"]["template"]["spec"];
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(pod["securityContext"]["runAsUser"], 10001);
    let container = &pod["containers"][0]["securityContext"];
    assert_eq!(container["readOnlyRootFilesystem"], true);
    assert_eq!(container["allowPrivilegeEscalation"], false);
    assert_eq!(list(&container["capabilities"]["drop"]), ["ALL"]);
}

#[test]
fn gateways_can_be_as_many_as_one_likes() {
    let compose = compose();
    let gateway = &compose["services"]["gateway"];
    // Either would make the second replica fail.
    assert!(gateway["container_name"].is_null() && gateway["ports"].is_null());
    assert_eq!(
        list(&gateway["healthcheck"]["test"]),
        ["CMD", "fanfare", "health"]
    );
    assert_eq!(
        list(&compose["services"]["nginx"]["ports"]),
        ["8000:8000", "8080:8080", "3000:3000"]
    );
    assert!(compose["services"]["redis"]["ports"].is_null());
    for name in ["prometheus", "grafana"] {
        let service = &compose["services"][name];
        assert_eq!(list(&service["profiles"]), ["monitoring"]);
        let open = list(&service["ports"])
            .into_iter()
            .find(|port| !port.starts_with("127.0.0.1:"));
        assert_eq!(open, None, "{name} is open to the network");
    }
}

#[test]
fn everybody_speaks_of_the_same_port() {
    let compose = compose();
    let port = compose["services"]["gateway"]["environment"]["PORT"]
        .as_str()
        .expect("a port");
    assert!(read("nginx/compose/peers.conf").contains(&format!("server gateway:{port} resolve ")));
    let prometheus = documents("deploy/prometheus/prometheus.yml").remove(0);
    let discovery = &prometheus["scrape_configs"][0]["dns_sd_configs"][0];
    assert_eq!(discovery["port"].to_string(), port);
    assert_eq!(list(&discovery["names"]), ["gateway"]);

    let pod = &kubernetes("Deployment")["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(
        pod["ports"][0]["containerPort"].to_string(),
        kubernetes("ConfigMap")["data"]["PORT"]
            .as_str()
            .expect("a port")
    );
    for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
        let get = &pod[probe]["httpGet"];
        assert_eq!(get["port"], pod["ports"][0]["name"], "{probe}");
        let path = get["path"].as_str().expect("a path");
        let row = format!("\n| `{path}` |");
        assert!(
            read("docs/OPERATIONS.md").contains(&row),
            "{probe}: {path} is no health check"
        );
    }
}

/// The value of a setting in nginx's way, which stands once in a file.
fn nginx_setting(file: &str, inside: &str, name: &str) -> Duration {
    let text = read(file);
    let (_, block) = text
        .split_once(inside)
        .unwrap_or_else(|| panic!("{file}: no {inside}"));
    let block = block.split("\n}").next().unwrap_or(block);
    let line = block
        .lines()
        .find_map(|line| line.trim().strip_prefix(&format!("{name} ")));
    let value = line
        .unwrap_or_else(|| panic!("{inside} has no {name}"))
        .trim_end_matches(';');
    let (number, unit) = value.split_at(value.len() - 1);
    let number: u64 = number.parse().expect("a number");
    Duration::from_secs(match unit {
        "s" => number,
        "m" => number * 60,
        "h" => number * 3600,
        _ => panic!("{value}"),
    })
}

#[test]
fn time_outs_of_nginx_fit_those_of_the_gateways() {
    let idle = nginx_setting(
        "nginx/nginx.conf",
        "upstream gateways {",
        "keepalive_timeout",
    );
    assert!(
        idle < Duration::from_millis(default("HEADER_TIMEOUT_MS")),
        "a gateway would close an idle connection before nginx does"
    );
    let pings = Duration::from_secs(default("WEBSOCKETS_PING_INTERVAL"));
    assert!(
        nginx_setting("nginx/routes.conf", "location /ws/ {", "proxy_read_timeout") > 2 * pings
    );
    let comments = Duration::from_millis(default("SSE_COMMENT_INTERVAL_MS"));
    assert!(
        nginx_setting(
            "nginx/routes.conf",
            "location /sse/ {",
            "proxy_read_timeout"
        ) > 2 * comments
    );
    let body = read("nginx/nginx.conf").contains("client_max_body_size 10m;");
    assert!(body && default("MAX_BODY_BYTES") == 10 * 1024 * 1024);
}

#[test]
fn redis_is_set_to_keep_what_it_answered_for() {
    let settings = read("deploy/redis/redis.conf");
    for setting in [
        "maxclients 50000",
        "tcp-keepalive 60",
        "timeout 0",
        "appendonly yes",
        "maxmemory-policy noeviction",
    ] {
        assert!(settings.lines().any(|line| line == setting), "{setting}");
    }
}

/// The words of a query that could be metrics, as they stand in the table.
fn metrics_of(query: &str) -> impl Iterator<Item = &str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = query.split(move |c| !is_part(c));
    words
        .filter(|word| word.starts_with("fanfare_") || word.starts_with("gateway_"))
        .map(|word| {
            let parts = ["_bucket", "_count", "_sum"];
            let whole = parts.iter().find_map(|part| word.strip_suffix(part));
            whole.unwrap_or(word)
        })
}

#[test]
fn alerts_and_autoscaling_watch_metrics_that_exist() {
    let mut known: BTreeSet<&str> = METRICS.iter().map(|metric| metric.name).collect();
    known.extend(ALIASES.iter().map(|alias| alias.0));
    let alerts = documents("deploy/prometheus/alerts.yml").remove(0);
    let rules = alerts["groups"][0]["rules"].as_array().expect("rules");
    assert!(rules.len() > 10);
    for rule in rules {
        let name = rule["alert"].as_str().expect("a name");
        let query = rule["expr"].as_str().expect("a query");
        let mut watched = 0;
        for metric in metrics_of(query) {
            watched += 1;
            assert!(known.contains(metric), "{name}: there is no {metric}");
        }
        assert!(watched > 0 || query.contains("up{"), "{name}: {query}");
        for part in ["summary", "action"] {
            assert!(rule["annotations"][part].is_string(), "{name}: no {part}");
        }
    }
    let scaling = kubernetes("HorizontalPodAutoscaler");
    let metric = scaling["spec"]["metrics"][0]["pods"]["metric"]["name"].as_str();
    assert!(known.contains(metric.expect("a metric of pods")));
    let prometheus = documents("deploy/prometheus/prometheus.yml").remove(0);
    assert_eq!(list(&prometheus["rule_files"]), ["alerts.yml"]);
}

/// What `PROMTOOL` names, what `tests/run` keeps, or what is in the path.
fn promtool() -> PathBuf {
    let named = std::env::var_os("PROMTOOL").map(PathBuf::from);
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".cache")));
    let kept = cache.map(|cache| cache.join("fanfare-tests/promtool"));
    named
        .or_else(|| kept.filter(|kept| kept.exists()))
        .unwrap_or_else(|| "promtool".into())
}

/// Prometheus' own tool plays the stories of `alerts_test.yml`; each alert fires in one of them.
#[test]
fn every_alert_fires_when_it_should() {
    let folder = root().join("deploy/prometheus");
    let run = |arguments: &[&str]| {
        let output = std::process::Command::new(promtool())
            .args(arguments)
            .current_dir(&folder)
            .output();
        let output = output.expect("promtool; tests/run gets it");
        let said = [output.stdout, output.stderr].concat();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&said)
        );
    };
    run(&["check", "config", "prometheus.yml"]);
    run(&["test", "rules", "alerts_test.yml"]);
    let alerts = documents("deploy/prometheus/alerts.yml").remove(0);
    let stories = read("deploy/prometheus/alerts_test.yml");
    for rule in alerts["groups"][0]["rules"].as_array().expect("rules") {
        let name = rule["alert"].as_str().expect("a name");
        let fires = format!("alertname=\"{name}\"");
        assert!(stories.contains(&fires), "no story in which {name} fires");
    }
}

/// A node in its drain answers nobody: what wakes somebody then has to wait for longer.
#[test]
fn a_drain_wakes_nobody() {
    let alerts = documents("deploy/prometheus/alerts.yml").remove(0);
    let rules = alerts["groups"][0]["rules"].as_array().expect("rules");
    let silent = rules
        .iter()
        .find(|rule| rule["alert"] == "FanfareNodeSilent");
    let minutes = silent.and_then(|rule| rule["for"].as_str()?.strip_suffix('m')?.parse().ok());
    let waits = Duration::from_secs(60 * minutes.unwrap_or(0));
    let gateway = &compose()["services"]["gateway"];
    assert!(waits > longest_drain(&gateway["environment"]));
}

#[test]
fn alerts_on_closes_name_reasons_that_exist() {
    let labels: BTreeSet<&str> = CloseReason::ALL
        .iter()
        .map(|reason| reason.label())
        .collect();
    let alerts = read("deploy/prometheus/alerts.yml");
    let named: Vec<&str> = alerts
        .split("fanfare_closes_total{reason=\"")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .collect();
    assert!(!named.is_empty());
    for reason in named {
        assert!(labels.contains(reason), "nothing closes with {reason}");
    }
}
