//! `UPSTREAMS` and `TRUSTED_PROXIES`: texts with a shape of their own. Every fault in them is told.

use std::fmt;
use std::net::IpAddr;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

use super::reader::Reader;
use super::value;
use crate::proxy::{Address, RESERVED_NAMES};

/// The most bytes of a service's name.
const NAME_BYTES_MAX: usize = 64;
/// What a service's name is made of.
pub(super) const NAME_RULE: &str = "must be named with at most 64 letters, digits and -._~";

/// The services and their upstreams; what is wrong goes to the reader.
pub(super) fn services(reader: &mut Reader) -> Vec<(String, Vec<Address>)> {
    let (services, faults) = parse(reader.text("UPSTREAMS").unwrap_or("{}"));
    for fault in faults {
        reader.fault("UPSTREAMS", fault);
    }
    services
}

fn parse(text: &str) -> (Vec<(String, Vec<Address>)>, Vec<String>) {
    let mut faults = Vec::new();
    let mut services: Vec<(String, Vec<Address>)> = Vec::new();
    match serde_json::from_str(text) {
        Err(error) => faults.push(format!("must be valid JSON: {error}")),
        Ok(Value::Object(_)) => {
            for (name, urls) in entries(text) {
                check_name(&name, &mut faults);
                if services.iter().any(|(known, _)| *known == name) {
                    faults.push(format!("must not name the service {name:?} twice"));
                }
                let addresses = addresses(&name, &urls, &mut faults);
                services.push((name, addresses));
            }
        }
        Ok(_) => faults.push("must be a JSON object of names and lists of URLs".to_owned()),
    }
    (services, faults)
}

/// The entries of a JSON object as they stand there: a map of the library's would keep the last one of each name, and
/// say nothing.
fn entries(text: &str) -> Vec<(String, Value)> {
    struct Entries(Vec<(String, Value)>);
    struct AsTheyStand;
    impl<'de> Visitor<'de> for AsTheyStand {
        type Value = Entries;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Entries, M::Error> {
            let mut entries = Vec::new();
            while let Some(entry) = map.next_entry()? {
                entries.push(entry);
            }
            Ok(Entries(entries))
        }
    }
    impl<'de> Deserialize<'de> for Entries {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            deserializer.deserialize_map(AsTheyStand)
        }
    }
    // It was read as an object before.
    serde_json::from_str(text).map_or_else(|_| Vec::new(), |Entries(entries)| entries)
}

/// Whether a service may be called so.
pub(super) fn is_service_name(name: &str) -> bool {
    let is_plain = name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte));
    is_plain && (1..=NAME_BYTES_MAX).contains(&name.len()) && !matches!(name, "." | "..")
}

fn check_name(name: &str, faults: &mut Vec<String>) {
    if !is_service_name(name) {
        faults.push(format!(
            "must name services with at most {NAME_BYTES_MAX} letters, digits and -._~, and {name:?} is none"
        ));
    }
    if RESERVED_NAMES.contains(&name) {
        faults.push(format!(
            "must not name a service {name:?}: that name is taken"
        ));
    }
}

fn addresses(name: &str, urls: &Value, faults: &mut Vec<String>) -> Vec<Address> {
    let urls = urls.as_array().map_or(&[][..], Vec::as_slice);
    if urls.is_empty() {
        faults.push(format!("must have a list of at least one URL for {name:?}"));
    }
    let mut addresses: Vec<Address> = Vec::with_capacity(urls.len());
    for url in urls {
        let Some(address) = url.as_str().and_then(Address::parse) else {
            faults.push(format!(
                "must have http, https or h2c URLs (http://host[:port][/base]) for {name:?}, and {url} is none"
            ));
            continue;
        };
        if addresses.iter().any(|known| known.is_same(&address)) {
            faults.push(format!(
                "must not have an upstream twice for {name:?}, as {url} is: weights stand in CONFIG_FILE"
            ));
        }
        addresses.push(address);
    }
    addresses
}

/// Names of fields with commas between, perhaps with a `*` at the end, in lower case; for the table of variables. `-` is
/// none at all.
pub(super) fn patterns(text: &str) -> Option<String> {
    /// Names are looked at up to here.
    const BYTES_MAX: usize = 32;
    const FRAMING: [&str; 7] = [
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    let pattern = |text: &str| {
        let name = text.to_ascii_lowercase();
        let bare = name.trim_end_matches('*');
        let is_name =
            http::HeaderName::from_bytes(bare.as_bytes()).is_ok() && name.len() - bare.len() < 2;
        let frames = |one: &&str| match name.ends_with('*') {
            true => one.starts_with(bare),
            false => *one == bare,
        };
        let is_good = is_name && bare.len() <= BYTES_MAX && !FRAMING.iter().any(frames);
        is_good.then_some(name)
    };
    if text.trim() == "-" {
        return Some("-".to_owned());
    }
    let patterns: Option<Vec<String>> = value::list(text).map(pattern).collect();
    patterns.map(|patterns| patterns.join(","))
}

/// Networks, normalised to `address/bits`; for the table of variables.
pub(super) fn networks(text: &str) -> Option<String> {
    let networks: Option<Vec<String>> = value::list(text)
        .map(|text| network(text).map(|(ip, bits)| format!("{ip}/{bits}")))
        .collect();
    networks.map(|networks| networks.join(","))
}

/// One network: an address, or an address and how many of its bits count.
pub(super) fn network(text: &str) -> Option<(IpAddr, u8)> {
    let (ip, bits) = match text.split_once('/') {
        Some((ip, bits)) => (ip, Some(bits.parse().ok()?)),
        None => (text, None),
    };
    let ip: IpAddr = ip.parse().ok()?;
    let most = if ip.is_ipv4() { 32 } else { 128 };
    let bits: u8 = bits.unwrap_or(most);
    (bits <= most).then_some((ip, bits))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[&str]) {
        let (_, faults) = parse(text);
        assert_eq!(faults.len(), expected.len(), "{text}: {faults:?}");
        for (fault, expected) in faults.iter().zip(expected) {
            assert!(fault.contains(expected), "{text}: {fault}");
        }
    }

    #[test]
    fn services_are_read() {
        let (services, faults) = parse(r#"{"a":["http://x:1/","http://y/b/"],"b-2":["http://z"]}"#);
        assert_eq!(faults, [""; 0]);
        let urls: Vec<(&str, Vec<&str>)> = services
            .iter()
            .map(|(name, all)| (name.as_str(), all.iter().map(|one| &*one.url).collect()))
            .collect();
        assert_eq!(
            urls,
            [
                ("a", vec!["http://x:1", "http://y/b"]),
                ("b-2", vec!["http://z"])
            ]
        );
    }

    #[test]
    fn every_fault_is_told() {
        check("{}", &[]);
        check("nonsense", &["valid JSON"]);
        check("[]", &["JSON object"]);
        check(r#"{"a":[]}"#, &["at least one URL"]);
        check(r#"{"a":"http://x"}"#, &["at least one URL"]);
        check(
            r#"{"a":["ftp://x",3],"connect":["http://x"],"x/y":["http://x"]}"#,
            &[
                "\"ftp://x\" is none",
                "3 is none",
                "is taken",
                "\"x/y\" is none",
            ],
        );
    }

    #[test]
    fn nothing_stands_there_twice() {
        check(
            r#"{"a":["http://x"],"b":["http://x"],"a":["ftp://y"]}"#,
            &[
                "must not name the service \"a\" twice",
                "\"ftp://y\" is none",
            ],
        );
        for (one, other) in [
            ("http://x", "http://x/"),
            ("http://x", "http://X:80"),
            ("https://x:443/b", "https://x/b/"),
        ] {
            let text = format!(r#"{{"a":["http://z","{one}","{other}"]}}"#);
            let fault = format!("twice for \"a\", as \"{other}\" is");
            check(&text, &[&fault]);
        }
        check(
            r#"{"a":["http://x","https://x","h2c://x","http://x/b","http://x/B","http://x:81"]}"#,
            &[],
        );
    }

    #[test]
    fn patterns_of_fields() {
        let check = |text, expected| assert_eq!(patterns(text).as_deref(), expected, "{text}");
        check("X-Internal-*, Server", Some("x-internal-*,server"));
        check("-", Some("-"));
        for bad in [
            "*",
            "x**",
            "a b",
            "Content-Length",
            "content-*",
            "transfer-encoding",
            "x-a-name-that-is-longer-than-thirty-two",
        ] {
            check(bad, None);
        }
    }

    #[test]
    fn networks_in_their_spellings() {
        let check = |text, expected| assert_eq!(networks(text).as_deref(), expected, "{text}");
        check("10.0.0.0/8, ::1", Some("10.0.0.0/8,::1/128"));
        check("1.2.3.4", Some("1.2.3.4/32"));
        for bad in ["10.0.0.0/33", "a", "10.0.0.0/-1", "::/129", "1.2.3.4/"] {
            check(bad, None);
        }
    }
}
