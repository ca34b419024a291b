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
    /// Reads `redis://[user[:password]@]host[:port][/database]`, or of Sentinels `redis-sentinel://…` with the parameters
    /// `sentinelServiceName`, `node` (further Sentinels), `sentinelUsername` and `sentinelPassword`.
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
            "redis-sentinel" => return Self::parse_sentinels(url),
            "rediss-sentinel" => {
                return Err(
                    "begins with rediss-sentinel://, but this version does not speak TLS to Redis",
                );
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

    fn parse_sentinels(url: &str) -> Result<Self, &'static str> {
        const RULE: &str = "must be redis-sentinel://[user:password@]host[:port][/database]?sentinelServiceName=name, \
             with &node=host:port for each further Sentinel";
        let (_, query) = url.split_once('?').ok_or(RULE)?;
        let names_service = query.split('&').any(|parameter| {
            let value = parameter.strip_prefix("sentinelServiceName=");
            value.is_some_and(|value| !value.is_empty())
        });
        match fred::types::config::Config::from_url(url) {
            Ok(_) if names_service => Ok(Self {
                url: url.to_owned(),
            }),
            _ => Err(RULE),
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
        let (scheme, rest) = self.url.split_once("://").unwrap_or_default();
        // Parameters may be secrets as well.
        let rest = rest.split_once('?').map_or(rest, |(rest, _)| rest);
        let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
        write!(f, "{scheme}://{host}")
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
    fn sentinels_hide_both_passwords() {
        let url = "redis-sentinel://ann:one@host:26379/1?sentinelServiceName=hub&node=other:26379&sentinelPassword=two";
        let address = Address::parse(url).expect("an address");
        assert_eq!(address.to_string(), "redis-sentinel://host:26379/1");
    }

    #[test]
    fn what_this_version_cannot_do_is_refused_by_name() {
        for (url, why) in [
            ("rediss://host", "TLS"),
            ("redis-cluster://host", "Cluster"),
            ("rediss-sentinel://host", "TLS"),
            ("redis-sentinel://host", "sentinelServiceName"),
            (
                "redis-sentinel://host?sentinelServiceName=",
                "sentinelServiceName",
            ),
            ("http://host", "redis://"),
            ("host:6379", "redis://"),
            ("redis://", "redis://"),
        ] {
            let refusal = Address::parse(url).expect_err(url);
            assert!(refusal.contains(why), "{url}: {refusal}");
        }
    }
}
