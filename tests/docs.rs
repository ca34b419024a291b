//! What the documentation says, held to what the program does. The tables of variables, metrics, close codes and
//! error codes are compared with the code where the code stands; here is what no single room can see: links, routes,
//! commands and their options, and names in running text.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use fanfare::model::{CloseReason, ErrorCode};
use fanfare::telemetry::table::{ALIASES, METRICS};

/// Whatever is read as documentation of the hub itself.
const DOCS: [&str; 6] = [
    "README.md",
    "CHANGELOG.md",
    "docs/ARCHITECTURE.md",
    "docs/METRICS.md",
    "docs/OPERATIONS.md",
    "docs/PROTOCOL.md",
];

/// Beside them, what has links.
const OTHERS: [&str; 3] = [
    "fuzz/README.md",
    "loadtest/README.md",
    "tests/browser/README.md",
];

/// Paths that the documentation names and nobody serves yet.
const NOT_SERVED: [&str; 1] = ["/admin"];

/// Below these the proxy answers, which has no routes in the sources: services have the names that operators give them.
const PROXIED: [&str; 3] = ["/api", "/sse", "/ws/users"];

/// What looks like a variable of ours and is the system's, compose's, or everybody's.
const NOT_OURS: [&str; 3] = ["GATEWAY_MEMORY", "NO_COLOR", "SO_REUSEPORT"];

/// What a browser reports where there was no close frame: a code that is never sent (RFC 6455 section 7.4.1).
const NO_CLOSE_FRAME: u16 = 1006;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(file: &str) -> String {
    std::fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn docs() -> impl Iterator<Item = (&'static str, String)> {
    DOCS.into_iter().map(|file| (file, read(file)))
}

/// The text between backticks, and the lines of blocks of code.
fn code(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut in_block = false;
    for line in text.lines() {
        if line.starts_with("```") {
            in_block = !in_block;
        } else if in_block {
            found.push(line);
        } else {
            found.extend(line.split('`').skip(1).step_by(2));
        }
    }
    found
}

/// The words of a text that are made of such characters.
fn words(text: &str, is_part: impl Fn(char) -> bool) -> Vec<&str> {
    let words = text.split(move |c| !is_part(c));
    words.filter(|word| !word.is_empty()).collect()
}

fn assert_none(faults: &BTreeSet<String>) {
    let faults: Vec<&str> = faults.iter().map(String::as_str).collect();
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

/// What a heading is called in a link, as GitHub makes it.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().chars().filter_map(|c| match c {
        ' ' => Some('-'),
        c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c.to_ascii_lowercase()),
        _ => None,
    });
    kept.collect()
}

fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let mut found = BTreeSet::new();
    for name in headings.map(|line| anchor(line.trim_start_matches('#'))) {
        // The second heading of a name is name-1, the third name-2.
        let again = (1..).map(|number| format!("{name}-{number}"));
        let mut names = std::iter::once(name.clone()).chain(again);
        found.extend(names.find(|name| !found.contains(name)));
    }
    found
}

/// The targets of `[…](target)`.
fn links(text: &str) -> Vec<&str> {
    let after = text.split("](").skip(1);
    after
        .filter_map(|rest| rest.split_once(')'))
        .map(|(target, _)| target)
        .collect()
}

#[test]
fn every_link_leads_somewhere() {
    let mut faults = BTreeSet::new();
    for file in DOCS.into_iter().chain(OTHERS) {
        let text = read(file);
        for link in links(&text) {
            if link.starts_with("http") {
                continue;
            }
            let (path, section) = link.split_once('#').unwrap_or((link, ""));
            let mut target: PathBuf = root().join(file);
            if !path.is_empty() {
                target.set_file_name(path);
            }
            let leads = if section.is_empty() {
                target.exists()
            } else {
                std::fs::read_to_string(&target).is_ok_and(|text| anchors(&text).contains(section))
            };
            if !leads {
                faults.insert(format!("{file}: ({link}) leads nowhere"));
            }
        }
    }
    assert_none(&faults);
}

#[test]
fn the_readme_leads_to_every_chapter() {
    let readme = read("README.md");
    let linked: BTreeSet<&str> = links(&readme)
        .into_iter()
        .map(|link| link.split('#').next().unwrap_or(link))
        .collect();
    for file in DOCS
        .into_iter()
        .skip(1)
        .chain(["LICENSE", "loadtest/README.md"])
    {
        assert!(linked.contains(file), "README.md does not link {file}");
    }
    assert!(
        links(&read("docs/OPERATIONS.md")).contains(&"METRICS.md"),
        "OPERATIONS.md does not link METRICS.md"
    );
}

/// The sources of `src/`, tests among them.
fn sources() -> String {
    fn add(folder: &Path, into: &mut String) {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                add(&path, into);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                into.push_str(&std::fs::read_to_string(path).expect("a source"));
            }
        }
    }
    let mut text = String::new();
    add(&root().join("src"), &mut text);
    text
}

/// What routers are given: the text after each `.route(`.
fn routes() -> BTreeSet<String> {
    let sources = sources();
    let after = sources.split(".route(").skip(1);
    let paths = after.filter_map(|rest| rest.trim_start().strip_prefix('"'));
    let paths = paths.filter_map(|rest| rest.split_once('"'));
    paths.map(|(path, _)| path.to_owned()).collect()
}

fn serves(route: &str, path: &str) -> bool {
    if route.contains("{*") {
        return false;
    }
    let (route, path): (Vec<_>, Vec<_>) = (route.split('/').collect(), path.split('/').collect());
    route.len() == path.len()
        && route
            .iter()
            .zip(&path)
            .all(|(route, path)| route.starts_with('{') || route == path)
}

fn is_proxied(path: &str) -> bool {
    let below = |prefix: &str| {
        path.strip_prefix(prefix)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    // The prefix itself is what is left of a path with a placeholder.
    path == "/ws/" || PROXIED.into_iter().any(below)
}

/// The paths on the hub that a text names, in code: after a method, a host, or alone.
fn paths(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for code in code(text) {
        for host in ["localhost:8080", "127.0.0.1:8080"] {
            found.extend(code.split(host).skip(1).map(str::to_owned));
        }
        let bare = code.trim_start_matches("GET ").trim_start_matches("POST ");
        let is_alone = bare.starts_with('/') && !bare.starts_with("//") && !bare.starts_with("/**");
        if is_alone {
            found.extend(
                bare.split(' ')
                    .filter(|word| word.starts_with('/'))
                    .map(str::to_owned),
            );
        }
    }
    let end = |c: char| !(c.is_ascii_alphanumeric() || "/_.-{}".contains(c));
    found
        .iter()
        .map(|path| path.split(end).next().unwrap_or_default().to_owned())
        .filter(|path| !path.is_empty())
        .collect()
}

#[test]
fn every_path_in_the_docs_is_served_and_every_route_is_told() {
    let routes = routes();
    assert!(routes.len() > 20, "{routes:?}");
    let mut faults = BTreeSet::new();
    let mut told = BTreeSet::new();
    for (file, text) in docs() {
        for path in paths(&text) {
            if !NOT_SERVED.contains(&path.as_str())
                && !is_proxied(&path)
                && !routes.iter().any(|route| serves(route, &path))
            {
                faults.insert(format!("{file}: nobody serves {path}"));
            }
            told.insert(path);
        }
    }
    for route in routes
        .iter()
        .filter(|route| !route.contains("{*") && !["/hub/", "/sessions/"].contains(&route.as_str()))
    {
        if !told.iter().any(|path| serves(route, path)) {
            faults.insert(format!("no document tells of {route}"));
        }
    }
    assert_none(&faults);
}

/// What the sources call a variable, in force or not yet.
fn variables() -> BTreeSet<String> {
    let table = fanfare::config::markdown();
    let named = code(&table).into_iter().map(str::to_owned);
    let source = read("src/config/variable.rs");
    let not_yet = ["refused(\"", "ignored(\""]
        .iter()
        .flat_map(|open| source.split(open).skip(1))
        .filter_map(|rest| rest.split_once('"'))
        .map(|(name, _)| name.to_owned());
    named.chain(not_yet).collect()
}

#[test]
fn every_variable_named_anywhere_exists() {
    let known = variables();
    let is_name = |word: &str| {
        word.contains('_')
            && word.starts_with(|c: char| c.is_ascii_uppercase())
            && word
                .chars()
                .all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
    };
    let others = ["deploy/Dockerfile", "docker-compose.yml", ".env.example"];
    let mut faults = BTreeSet::new();
    for file in DOCS.into_iter().chain(others) {
        let text = read(file);
        for word in words(&text, |c| c.is_ascii_alphanumeric() || c == '_') {
            if is_name(word) && !known.contains(word) && !NOT_OURS.contains(&word) {
                faults.insert(format!("{file}: there is no {word}"));
            }
        }
    }
    assert_none(&faults);
}

#[test]
fn every_metric_named_anywhere_exists() {
    let mut known: BTreeSet<&str> = METRICS.iter().map(|metric| metric.name).collect();
    known.extend(ALIASES.iter().map(|alias| alias.0));
    let mut faults = BTreeSet::new();
    for (file, text) in docs() {
        for word in words(&text, |c| c.is_ascii_alphanumeric() || c == '_') {
            if word.starts_with("fanfare_") && !known.contains(word) {
                faults.insert(format!("{file}: there is no metric {word}"));
            }
        }
    }
    assert_none(&faults);
}

#[test]
fn every_close_code_in_running_text_is_on_the_list() {
    let known: BTreeSet<u16> = CloseReason::ALL
        .iter()
        .map(|reason| reason.code())
        .collect();
    let mut faults = BTreeSet::new();
    for (file, text) in docs() {
        // With commas and points, so that 1,000 and 1.28 are not taken for codes.
        for word in words(&text, |c| c.is_ascii_alphanumeric() || ",.".contains(c)) {
            let Ok(code) = word.trim_end_matches([',', '.']).parse::<u16>() else {
                continue;
            };
            let is_code = (1000..1016).contains(&code) || (4000..4016).contains(&code);
            if is_code && code != NO_CLOSE_FRAME && !known.contains(&code) {
                faults.insert(format!("{file}: nothing closes with {code}"));
            }
        }
    }
    assert_none(&faults);
}

#[test]
fn every_error_code_in_an_example_or_beside_a_limit_is_on_the_list() {
    let known: BTreeSet<&str> = ErrorCode::ALL.iter().map(|code| code.as_str()).collect();
    let mut faults = BTreeSet::new();
    for (file, text) in docs() {
        let open = ["\"error\":\"", "\"code\":\""];
        let named = open.iter().flat_map(|open| text.split(open).skip(1));
        for code in named.filter_map(|rest| rest.split('"').next()) {
            if !known.contains(code) {
                faults.insert(format!("{file}: there is no error {code}"));
            }
        }
    }
    let protocol = read("docs/PROTOCOL.md");
    let (_, limits) = protocol.split_once("\n## Limits\n").expect("the chapter");
    for row in limits.lines().filter(|line| line.starts_with('|')) {
        let beyond = row.trim_matches('|').rsplit('|').next().unwrap_or_default();
        for name in code(beyond) {
            if !name.contains('"') && name.contains('_') && !known.contains(name) {
                faults.insert(format!("limits: there is no error {name}"));
            }
        }
    }
    assert_none(&faults);
}

fn help(command: Option<&str>) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_fanfare"))
        .args(command)
        .arg("--help")
        .output()
        .expect("the binary");
    String::from_utf8(output.stdout).expect("text")
}

/// The commands of `fanfare`, each with its help.
fn commands() -> BTreeMap<String, String> {
    let help_text = help(None);
    let (_, rest) = help_text.split_once("Commands:\n").expect("commands");
    let lines = rest.lines().take_while(|line| line.starts_with("  "));
    let names = lines.filter_map(|line| line.split_whitespace().next());
    let names = names.filter(|name| *name != "help");
    names
        .map(|name| (name.to_owned(), help(Some(name))))
        .collect()
}

#[test]
fn every_command_and_option_in_the_docs_exists_and_every_command_is_told() {
    let commands = commands();
    let mut told = BTreeSet::new();
    let mut faults = BTreeSet::new();
    for (file, text) in docs() {
        for line in code(&text) {
            let Some(call) = line.strip_prefix("fanfare ") else {
                continue;
            };
            let call = call.split('#').next().unwrap_or(call);
            let name = call.split_whitespace().next().unwrap_or_default();
            let Some(help) = commands
                .get(name)
                .cloned()
                .or_else(|| name.starts_with("--").then(|| help(None)))
            else {
                faults.insert(format!("{file}: there is no command `fanfare {name}`"));
                continue;
            };
            told.insert(name.to_owned());
            for option in call
                .split_whitespace()
                .filter(|word| word.starts_with("--"))
            {
                if !help.contains(option) {
                    faults.insert(format!("{file}: `fanfare {name}` has no {option}"));
                }
            }
        }
    }
    let changelog = read("CHANGELOG.md");
    for name in commands.keys() {
        if !told.contains(name) && !code(&changelog).contains(&name.as_str()) {
            faults.insert(format!("no document tells of `fanfare {name}`"));
        }
    }
    assert_none(&faults);
}

#[test]
fn the_changelog_keeps_its_form() {
    let kinds = [
        "Added",
        "Changed",
        "Deprecated",
        "Removed",
        "Fixed",
        "Security",
    ];
    let text = read("CHANGELOG.md");
    let mut versions = text.lines().filter_map(|line| line.strip_prefix("## "));
    assert_eq!(versions.next(), Some("[Unreleased]"));
    for version in versions {
        assert!(
            version.starts_with('[') && version.contains("] - 20"),
            "{version}: a version and its date are wanted"
        );
    }
    for kind in text.lines().filter_map(|line| line.strip_prefix("### ")) {
        assert!(kinds.contains(&kind), "{kind} is no kind of change");
    }
}

#[test]
fn the_port_of_the_readme_is_the_default() {
    let readme = read("README.md");
    assert!(fanfare::config::env_example().contains("# PORT=8080\n"));
    assert!(readme.contains("port 8080") && readme.contains("./tests/run"));
}
