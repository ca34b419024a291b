//! Which server, and what this fleet's keys begin with.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::target::Target;

/// Where the server is, from `REDIS_URL`. Shown without the password.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    url: String,
    is_secure: bool,
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
    /// How many replicas must have a publication before it is acknowledged (`REDIS_WAIT_REPLICAS`).
    pub wait_replicas: u32,
    /// Who vouches for the server over TLS: certificates, PEM (`REDIS_CA_FILE`). `None`: those whom the system trusts.
    pub ca_file: Option<PathBuf>,
}

/// What every address looks like.
const SINGLE: &str = "must be redis://[[user]:password@]host[:port][/database], or rediss:// over TLS, without parameters";

/// The same of Sentinels.
const SENTINELS: &str = "must be redis-sentinel://[[user]:password@]host[:port][/database]?sentinelServiceName=name, \
     or rediss-sentinel:// over TLS, with &node=host:port for each further Sentinel";

/// The same of a Cluster.
const CLUSTER: &str = "must be redis-cluster://[[user]:password@]host[:port], or rediss-cluster:// over TLS, with \
     ?node=host:port&node=host:port for further members; a Cluster has one database";

impl Address {
    /// Reads `redis://[[user]:password@]host[:port][/database]`, or of Sentinels `redis-sentinel://…` with the parameters
    /// `sentinelServiceName`, `node` (further Sentinels), `sentinelUsername` and `sentinelPassword`, or of a Cluster
    /// `redis-cluster://…` with `node` for further members; over TLS `rediss` instead of `redis`. What is special in user or password is percent-encoded.
    ///
    /// # Errors
    /// With what is wrong, as the rest of a sentence.
    pub fn parse(url: &str) -> Result<Self, &'static str> {
        let (scheme, rest) = url.split_once("://").ok_or(SINGLE)?;
        let is_secure = scheme.starts_with("rediss");
        let (rule, is_right) = match scheme {
            "redis" | "rediss" => (SINGLE, !rest.is_empty() && !rest.contains('?')),
            "redis-sentinel" | "rediss-sentinel" => (SENTINELS, names_service(rest)),
            "redis-cluster" | "rediss-cluster" => (CLUSTER, is_cluster(rest)),
            _ => {
                return Err(
                    "must begin with redis://, rediss://, redis-sentinel:// or redis-cluster://",
                );
            }
        };
        let address = Self {
            url: url.to_owned(),
            is_secure,
        };
        match address.target() {
            Some(_) if is_right => Ok(address),
            _ => Err(rule),
        }
    }

    /// What is connected to, without TLS.
    pub(super) fn target(&self) -> Option<Target> {
        Target::parse(&self.url)
    }

    /// Which of the server's databases.
    pub fn database(&self) -> u8 {
        self.target().map_or(0, |target| target.database)
    }

    /// Whether everything goes over TLS.
    pub(super) const fn is_secure(&self) -> bool {
        self.is_secure
    }
}

fn names_service(rest: &str) -> bool {
    let query = rest.split_once('?').map_or("", |(_, query)| query);
    query.split('&').any(|parameter| {
        let value = parameter.strip_prefix("sentinelServiceName=");
        value.is_some_and(|value| !value.is_empty())
    })
}

fn is_cluster(rest: &str) -> bool {
    let (host, query) = rest.split_once('?').unwrap_or((rest, ""));
    let is_known = |parameter: &str| parameter.starts_with("node=");
    !host.is_empty()
        && !host.trim_end_matches('/').contains('/')
        && query
            .split('&')
            .filter(|parameter| !parameter.is_empty())
            .all(is_known)
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
    fn a_password_may_have_any_other_character() {
        let url = "rediss://fan%2Ffare:p%40ss%2F%3A%25@host";
        let address = Address::parse(url).expect("an address");
        let target = address.target().expect("a target");
        assert_eq!(target.credentials.username.as_deref(), Some("fan/fare"));
        assert_eq!(target.credentials.password.as_deref(), Some("p@ss/:%"));
        assert!(address.is_secure());
        assert!(target.tls.is_none(), "made from the wanted certificates");
    }

    #[test]
    fn what_cannot_be_is_refused_with_the_rule() {
        for (url, why) in [
            ("redis-cluster://host/1", "one database"),
            ("redis-cluster://host?nodes=a:1", "node=host:port"),
            ("redis-cluster://", "redis-cluster://"),
            ("rediss-sentinel://host", "sentinelServiceName"),
            ("redis-sentinel://host", "sentinelServiceName"),
            (
                "redis-sentinel://host?sentinelServiceName=",
                "sentinelServiceName",
            ),
            ("http://host", "redis://"),
            ("host:6379", "redis://"),
            ("redis://", "redis://"),
            ("redis://host?node=other:1", "without parameters"),
            ("redis://host/notanumber", "[/database]"),
            ("redis://host/256", "[/database]"),
            ("redis://host:99999", "[:port]"),
            ("redis-cluster://host?node=other", "node=host:port"),
            ("redis-cluster://host?node=::1:7000", "node=host:port"),
        ] {
            let refusal = Address::parse(url).expect_err(url);
            assert!(refusal.contains(why), "{url}: {refusal}");
        }
    }
}
