//! Strings become values: what a variable of each kind may look like.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use crate::auth::{KeySources, PublicKeys};
use crate::events::Kinds;
use crate::model::parse_rfc3339;
use crate::outbound::Endpoint;
use crate::session::{Database, HashParameters};

/// Makes a string the one form that the rooms know, or nothing when it breaks the rule.
pub(super) type Normalise = fn(&str) -> Option<String>;

/// true/1/yes/y/on/t and false/0/no/n/off/f, in any case.
pub(super) fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "y" | "on" | "t" => Some(true),
        "false" | "0" | "no" | "n" | "off" | "f" => Some(false),
        _ => None,
    }
}

/// A number and its unit, as `5m` or `300s`: ms, s, m, h or d.
pub fn duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let count: u64 = text[..digits].parse().ok()?;
    let millis = match &text[digits..] {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    count.checked_mul(millis).map(Duration::from_millis)
}

/// Any text at all.
pub(super) fn any(text: &str) -> Option<String> {
    Some(text.to_owned())
}

/// A name of the node: it stands in JSON, in metrics and in logs.
pub(super) fn node_id(text: &str) -> Option<String> {
    let is_name = text.len() <= 128 && text.bytes().all(|byte| byte.is_ascii_graphic());
    is_name.then(|| text.to_owned())
}

/// What keys of Redis begin with. Braces would be the tag by which a Cluster finds the server of a key: all of them on one.
pub(super) fn key_prefix(text: &str) -> Option<String> {
    node_id(text).filter(|text| !text.contains(['{', '}']))
}

/// An address to listen on.
pub(super) fn host(text: &str) -> Option<String> {
    if text.eq_ignore_ascii_case("localhost") {
        return Some(Ipv4Addr::LOCALHOST.to_string());
    }
    let text = text.trim_start_matches('[').trim_end_matches(']');
    text.parse::<IpAddr>().ok().map(|ip| ip.to_string())
}

/// `NODE_ENV`, its short forms too.
pub(super) fn stage(text: &str) -> Option<String> {
    let stage = match text.to_ascii_lowercase().as_str() {
        "development" | "dev" => "development",
        "test" => "test",
        "production" | "prod" => "production",
        _ => return None,
    };
    Some(stage.to_owned())
}

/// A level by pino's, Python's or our name, or a filter as `info,fanfare::hub=debug`. Only what names a target is taken
/// for a filter: a mistyped level would be a target that never logs.
pub(super) fn log_level(text: &str) -> Option<String> {
    if !text.contains('=') {
        return level(text).map(str::to_owned);
    }
    let directive = |part: &str| match part.rsplit_once('=') {
        Some((target, name)) => level(name).map(|level| format!("{target}={level}")),
        None => level(part).map(str::to_owned),
    };
    let directives: Vec<String> = list(text).map(directive).collect::<Option<_>>()?;
    Some(directives.join(","))
}

fn level(text: &str) -> Option<&'static str> {
    let level = match text.to_ascii_lowercase().as_str() {
        "off" | "silent" | "none" => "off",
        "error" | "fatal" | "critical" => "error",
        "warn" | "warning" => "warn",
        "info" => "info",
        "debug" => "debug",
        "trace" | "notset" => "trace",
        _ => return None,
    };
    Some(level)
}

/// How log lines look.
pub(super) fn log_format(text: &str) -> Option<String> {
    let text = text.to_ascii_lowercase();
    matches!(text.as_str(), "json" | "pretty").then_some(text)
}

/// How an upstream is chosen.
pub(super) fn balance(text: &str) -> Option<String> {
    let text = text.to_ascii_lowercase();
    super::services::balance(&text).map(|_| text)
}

/// A file, by its path.
pub(super) fn data_file(text: &str) -> Option<String> {
    (!text.contains('\0')).then(|| text.to_owned())
}

/// A database of PostgreSQL.
pub(super) fn database(text: &str) -> Option<String> {
    text.parse::<Database>().ok().map(|_| text.to_owned())
}

/// The cost of password hashes.
pub(super) fn password_hash(text: &str) -> Option<String> {
    let parameters: HashParameters = text.parse().ok()?;
    Some(parameters.to_string())
}

/// Public keys in PEM.
pub(super) fn public_keys(text: &str) -> Option<String> {
    text.parse::<PublicKeys>().ok().map(|_| text.to_owned())
}

/// Where to call.
pub(super) fn endpoint(text: &str) -> Option<String> {
    text.parse::<Endpoint>().ok().map(|_| text.to_owned())
}

/// Where issuers show their keys.
pub(super) fn key_sources(text: &str) -> Option<String> {
    text.parse::<KeySources>().ok().map(|_| text.to_owned())
}

/// Kinds of events.
pub(super) fn kinds(text: &str) -> Option<String> {
    text.parse::<Kinds>().ok().map(|_| text.to_owned())
}

/// Names of header fields with commas between, or `-` for none.
pub(super) fn header_names(text: &str) -> Option<String> {
    match text.trim() {
        "-" => Some("-".to_owned()),
        text => tokens(text).filter(|names| !names.is_empty() && !names.contains('*')),
    }
}

/// A moment, in seconds of Unix time.
pub(super) fn unix_time(text: &str) -> Option<String> {
    parse_rfc3339(text).map(|seconds| seconds.to_string())
}

/// HMAC algorithms with commas between; the first signs.
pub(super) fn algorithms(text: &str) -> Option<String> {
    let names: Vec<String> = list(text).map(str::to_ascii_uppercase).collect();
    let known = |name: &String| matches!(name.as_str(), "HS256" | "HS384" | "HS512");
    (!names.is_empty() && names.iter().all(known)).then(|| names.join(","))
}

/// Names of methods or header fields (RFC 9110 section 5.6.2) with commas between; empty parts are skipped, as the
/// FastAPI gateway's default begins with one.
pub(super) fn tokens(text: &str) -> Option<String> {
    let is_token =
        |name: &str| http::HeaderName::from_bytes(name.as_bytes()).is_ok() || name == "*";
    let names: Vec<&str> = list(text).collect();
    names
        .iter()
        .all(|name| is_token(name))
        .then(|| names.join(","))
}

/// `*`, or origins (`scheme://host[:port]`) with commas between, as browsers send them: in lower case, without a path
/// and without the scheme's own port.
pub(super) fn origins(text: &str) -> Option<String> {
    let origins: Vec<String> = list(text).map(origin).collect::<Option<_>>()?;
    let alone = origins.len() == 1 || !origins.iter().any(|origin| origin == "*");
    alone.then(|| origins.join(","))
}

fn origin(text: &str) -> Option<String> {
    if text == "*" {
        return Some(text.to_owned());
    }
    let text = text.trim_end_matches('/').to_ascii_lowercase();
    let (scheme, authority) = text.split_once("://")?;
    let is_scheme = !scheme.is_empty() && scheme.bytes().all(|b| b.is_ascii_alphanumeric());
    let is_authority = !authority.is_empty()
        && !authority.contains(|c: char| "/?#@*".contains(c) || c.is_whitespace());
    let own_port = match scheme {
        "http" => ":80",
        "https" => ":443",
        _ => "",
    };
    let authority = match authority.strip_suffix(own_port) {
        Some(host) if !own_port.is_empty() => host,
        _ => authority,
    };
    (is_scheme && is_authority).then(|| format!("{scheme}://{authority}"))
}

/// The parts of a list with commas between, without blanks and empty parts.
pub(super) fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(normalise: Normalise, text: &str, expected: Option<&str>) {
        assert_eq!(normalise(text).as_deref(), expected, "{text}");
    }

    #[test]
    fn booleans_in_all_their_spellings() {
        for text in ["true", "1", "yes", "y", "on", "t", "TRUE", "Yes", "T"] {
            assert_eq!(boolean(text), Some(true), "{text}");
        }
        for text in ["false", "0", "no", "n", "off", "f", "False", "OFF"] {
            assert_eq!(boolean(text), Some(false), "{text}");
        }
        for text in ["", "2", "ja", "truee", "null"] {
            assert_eq!(boolean(text), None, "{text}");
        }
    }

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(duration("5m"), Some(Duration::from_secs(300)));
        assert_eq!(duration("300s"), Some(Duration::from_secs(300)));
        assert_eq!(duration("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(duration("2h"), Some(Duration::from_secs(7200)));
        assert_eq!(duration("1d"), Some(Duration::from_secs(86_400)));
        for text in [
            "",
            "5",
            "m",
            "5 m",
            "-5m",
            "1.5s",
            "5M",
            "99999999999999999999s",
            "9999999999999999999d",
        ] {
            assert_eq!(duration(text), None, "{text}");
        }
    }

    #[test]
    fn levels_of_pino_python_and_tracing() {
        check(log_level, "fatal", Some("error"));
        check(log_level, "CRITICAL", Some("error"));
        check(log_level, "WARNING", Some("warn"));
        check(log_level, "silent", Some("off"));
        check(log_level, "Info", Some("info"));
        check(
            log_level,
            "info,fanfare::hub=debug",
            Some("info,fanfare::hub=debug"),
        );
        check(log_level, "inof", None);
        check(log_level, "fanfare=loud", None);
        check(log_level, "", None);
    }

    #[test]
    fn origins_as_browsers_send_them() {
        check(origins, "*", Some("*"));
        check(
            origins,
            "https://A.example/, http://localhost:3000",
            Some("https://a.example,http://localhost:3000"),
        );
        check(
            origins,
            "https://a.example:443,http://b:80,http://c:443",
            Some("https://a.example,http://b,http://c:443"),
        );
        for text in [
            "a.example",
            "https://",
            "https://a/b",
            "https://*.a",
            "*,https://a",
            "https://u@a",
        ] {
            check(origins, text, None);
        }
    }

    #[test]
    fn names_with_commas_between() {
        check(tokens, ",Authorization", Some("Authorization"));
        check(tokens, "*", Some("*"));
        check(tokens, "GET, POST", Some("GET,POST"));
        check(tokens, "a b", None);
        check(tokens, "a\nb", None);
    }

    #[test]
    fn hosts_algorithms_stages_and_names() {
        check(host, "localhost", Some("127.0.0.1"));
        check(host, "[::]", Some("::"));
        check(host, "example.com", None);
        check(algorithms, "hs256, HS512", Some("HS256,HS512"));
        check(algorithms, "RS256", None);
        check(algorithms, "none", None);
        check(algorithms, ",", None);
        check(stage, "Prod", Some("production"));
        check(stage, "staging", None);
        check(node_id, "gateway-1", Some("gateway-1"));
        check(node_id, "a b", None);
    }
}
