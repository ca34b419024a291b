//! Which server, and what this fleet's keys begin with.

use std::fmt;
use std::time::Duration;

/// Where the server is, from `REDIS_URL`. Shown without the password.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    url: String,
}

/// Where Redis is and how it is used.
#[derive(Debug, Clone)]
pub struct Config {
    /// The server.
    pub address: Address,
    /// What every key and channel begins with (`REDIS_KEY_PREFIX`).
    pub prefix: String,
    /// How long Redis may be away before the node is no longer ready (`READY_REDIS_GRACE_MS`).
    pub ready_grace: Duration,
}

impl Address {
    /// Reads `redis://[user[:password]@]host[:port][/database]`.
    ///
    /// # Errors
    /// With what is wrong, as the rest of a sentence.
    pub fn parse(url: &str) -> Result<Self, &'static str> {
        let Some((scheme, rest)) = url.split_once("://") else {
            return Err("must be redis://[user:password@]host[:port][/database]");
        };
        match scheme {
            "redis" => {}
            "rediss" => {
                return Err("begins with rediss://, but this version does not speak TLS to Redis");
            }
            "redis-cluster" | "rediss-cluster" => {
                return Err(
                    "names a Redis Cluster, but this version works with a single server only",
                );
            }
            "redis-sentinel" | "rediss-sentinel" => {
                return Err("names Sentinels, but this version works with a single server only");
            }
            _ => return Err("must begin with redis://"),
        }
        if rest.is_empty() || rest.contains('?') {
            return Err(
                "must be redis://[user:password@]host[:port][/database], without parameters",
            );
        }
        match fred::types::config::Config::from_url(url) {
            Ok(_) => Ok(Self {
                url: url.to_owned(),
            }),
            Err(_) => Err("must be redis://[user:password@]host[:port][/database]"),
        }
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({self})")
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rest = self.url.split_once("://").map_or("", |(_, rest)| rest);
        let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
        write!(f, "redis://{host}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_hides_its_password() {
        let address = Address::parse("redis://ann:secret@host:7000/2").expect("an address");
        assert_eq!(address.to_string(), "redis://host:7000/2");
        assert!(!format!("{address:?}").contains("secret"));
    }

    #[test]
    fn what_this_version_cannot_do_is_refused_by_name() {
        for (url, why) in [
            ("rediss://host", "TLS"),
            ("redis-cluster://host", "Cluster"),
            ("redis-sentinel://host", "Sentinel"),
            ("http://host", "redis://"),
            ("host:6379", "redis://"),
            ("redis://", "redis://"),
        ] {
            let refusal = Address::parse(url).expect_err(url);
            assert!(refusal.contains(why), "{url}: {refusal}");
        }
    }
}
