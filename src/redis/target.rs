//! What is connected to, and as whom.

use std::fmt;
use std::io;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use tokio::net::TcpStream;
use tokio::time::timeout;
use url::Url;

use super::CallError;
use super::client::{Client, Connection};
use super::command::Command;
use super::pipeline::Pipeline;
use super::sentinel;
use super::value::Value;
use crate::tls::{Connector, Stream};

/// How long a connection may take. The greeting has the time of a command.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Where Redis listens when nobody says otherwise.
const PORT: u16 = 6379;

/// Where Sentinels do.
const SENTINEL_PORT: u16 = 26_379;

/// Where a server is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Host {
    pub(super) name: String,
    pub(super) port: u16,
}

impl Host {
    /// Reads `host:port`; a host of IPv6 in brackets.
    fn parse(text: &str) -> Option<Self> {
        let (name, port) = text.rsplit_once(':')?;
        let is_right = name.starts_with('[') || !name.contains(':');
        is_right.then(|| Self::new(name, port.parse().ok()?))?
    }

    fn new(name: &str, port: u16) -> Option<Self> {
        let name = name.trim_start_matches('[').trim_end_matches(']');
        (!name.is_empty()).then(|| Self {
            name: name.to_owned(),
            port,
        })
    }
}

/// As MOVED and ASK say it. A host that has colons itself is one of IPv6.
impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, self.port)
    }
}

/// Who is let in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Credentials {
    pub(super) username: Option<String>,
    pub(super) password: Option<String>,
}

/// Where it is, or who knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// One server; over TLS the name that its certificate is to have, where it is not the host's.
    Server {
        host: Host,
        tls_name: Option<String>,
    },
    /// The master of this name, which any of these knows.
    Sentinels {
        hosts: Vec<Host>,
        master: String,
        credentials: Credentials,
    },
    /// The masters of a Cluster, of which any member tells.
    Cluster(Vec<Host>),
}

impl Place {
    /// One server, under its own name.
    pub(super) const fn of(host: Host) -> Self {
        Self::Server {
            host,
            tls_name: None,
        }
    }
}

/// What is connected to.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) place: Place,
    pub(super) credentials: Credentials,
    pub(super) database: u8,
    /// Over TLS, where it is there.
    pub(super) tls: Option<Connector>,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    /// Nobody vouches for the server.
    #[error("its certificate is not accepted: {0}")]
    Certificate(String),
    /// What the server says that does not let us in.
    #[error("{0}")]
    Refused(String),
    /// Somebody answers and cannot help, now or later.
    #[error("{0}")]
    Unusable(String),
    /// There is none that answers.
    #[error("{0}")]
    Away(String),
}

impl From<io::Error> for OpenError {
    fn from(error: io::Error) -> Self {
        Self::Away(error.to_string())
    }
}

impl From<CallError> for OpenError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Refused(why) => Self::Refused(why),
            other => Self::Away(other.to_string()),
        }
    }
}

/// A connection that was made, and what the other end said of itself.
pub(super) struct Opened {
    pub(super) client: Client,
    pub(super) connection: Connection,
    /// Of the server: 7 of 7.2.4. A server that tells none counts as one of the oldest.
    pub(super) version: u64,
}

impl Target {
    /// Reads the URL of a scheme that is known, without TLS.
    pub(super) fn parse(url: &str) -> Option<Self> {
        let url = Url::parse(url).ok()?;
        let decoded = |text: &str| {
            percent_decode_str(text)
                .decode_utf8()
                .ok()
                .map(String::from)
        };
        let password = decoded(url.password().unwrap_or_default())?;
        let username = decoded(url.username())?;
        let database = match url.path().trim_start_matches('/') {
            "" => 0,
            number => number.parse().ok()?,
        };
        let host = |port| Host::new(url.host_str()?, url.port().unwrap_or(port));
        let parameter = |wanted: &str| {
            let mut pairs = url.query_pairs();
            pairs.find_map(|(name, value)| (name == wanted).then(|| value.into_owned()))
        };
        let nodes = || -> Option<Vec<Host>> {
            let pairs = url.query_pairs().filter(|(name, _)| name == "node");
            pairs.map(|(_, node)| Host::parse(&node)).collect()
        };
        let place = match url
            .scheme()
            .trim_start_matches("rediss")
            .trim_start_matches("redis")
        {
            "-sentinel" => Place::Sentinels {
                hosts: [vec![host(SENTINEL_PORT)?], nodes()?].concat(),
                master: parameter("sentinelServiceName")?,
                credentials: Credentials {
                    username: parameter("sentinelUsername"),
                    password: parameter("sentinelPassword"),
                },
            },
            "-cluster" => Place::Cluster([vec![host(PORT)?], nodes()?].concat()),
            _ => Place::of(host(PORT)?),
        };
        Some(Self {
            place,
            credentials: Credentials {
                username: Some(username).filter(|name| !name.is_empty()),
                password: Some(password).filter(|password| !password.is_empty()),
            },
            database,
            tls: None,
        })
    }

    /// The same way to another server.
    pub(super) fn at(&self, place: Place) -> Self {
        Self {
            place,
            ..self.clone()
        }
    }

    /// Whether keys are spread over several servers.
    pub(super) const fn is_cluster(&self) -> bool {
        matches!(self.place, Place::Cluster(_))
    }

    /// Connects and says who we are. Of a Cluster the first member that is there.
    ///
    /// # Errors
    /// Why it did not come to that.
    pub(super) async fn open(&self) -> Result<Opened, OpenError> {
        match &self.place {
            Place::Server { host, tls_name } => {
                let name = tls_name.as_deref().unwrap_or(&host.name);
                self.open_at(host, name).await
            }
            Place::Sentinels {
                hosts,
                master,
                credentials,
            } => {
                let host = sentinel::master(self, hosts, master, credentials).await?;
                self.open_at(&host, &host.name).await
            }
            Place::Cluster(hosts) => {
                let first = hosts.first().ok_or(io::ErrorKind::AddrNotAvailable);
                let first = first.map_err(io::Error::from)?;
                self.open_at(first, &first.name).await
            }
        }
    }

    async fn open_at(&self, host: &Host, tls_name: &str) -> Result<Opened, OpenError> {
        let late = |_| OpenError::Away("it does not answer in time".to_owned());
        let stream = timeout(CONNECT_TIMEOUT, self.connect(host, tls_name));
        let (client, mut connection) = Client::over(stream.await.map_err(late)??);
        let version = connection.with(self.greet(&client)).await??;
        connection.trust();
        Ok(Opened {
            client,
            connection,
            version,
        })
    }

    async fn connect(&self, host: &Host, tls_name: &str) -> Result<Stream, OpenError> {
        let socket = TcpStream::connect((host.name.as_str(), host.port)).await?;
        socket.set_nodelay(true)?;
        match &self.tls {
            None => Ok(Stream::Plain(socket)),
            Some(connector) => connector
                .connect(tls_name, socket)
                .await
                .map_err(|error| untrusted(&error).unwrap_or_else(|| error.into())),
        }
    }

    /// Says which protocol we speak, who we are and which database is meant. The version of the server.
    async fn greet(&self, client: &Client) -> Result<u64, OpenError> {
        let mut hello = Command::new("HELLO").word("3");
        let Credentials { username, password } = &self.credentials;
        if username.is_some() || password.is_some() {
            // A user may need no password, and takes any then.
            let username = username.as_deref().unwrap_or("default");
            let password = password.as_deref().unwrap_or_default();
            hello = hello.word("AUTH").word(username).word(password);
        }
        let mut pipeline = Pipeline::of(&hello.word("SETNAME").word("fanfare"));
        if self.database != 0 {
            let database = Command::new("SELECT").number(u64::from(self.database));
            pipeline.add(&[&database], false);
        }
        let answers: Result<Vec<Value>, CallError> =
            client.ask(pipeline).await.into_iter().collect();
        let told = answers?.into_iter().next();
        Ok(told.and_then(|told| version_of(&told)).unwrap_or(0))
    }
}

/// What the answer to HELLO says of the server's version.
fn version_of(told: &Value) -> Option<u64> {
    let Value::Map(fields) = told else {
        return None;
    };
    let (_, version) = fields
        .iter()
        .find(|(name, _)| name.as_str() == Some("version"))?;
    version.as_str()?.split('.').next()?.parse().ok()
}

/// What is wrong with a certificate, if that is why there is no connection.
fn untrusted(error: &io::Error) -> Option<OpenError> {
    let why = crate::tls::untrusted(error)?;
    Some(OpenError::Certificate(why))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str, port: u16) -> Host {
        Host {
            name: name.to_owned(),
            port,
        }
    }

    fn target(url: &str) -> Target {
        Target::parse(url).expect(url)
    }

    #[test]
    fn urls_name_places() {
        let one = target("redis://ann:p%40ss@[::1]/2");
        assert_eq!(one.place, Place::of(host("::1", 6379)));
        assert_eq!(one.credentials.password.as_deref(), Some("p@ss"));
        assert_eq!(one.database, 2);
        let cluster = target("redis-cluster://:pass@a:7000?node=b:7001&node=[::1]:7002");
        let hosts = [host("a", 7000), host("b", 7001), host("::1", 7002)];
        assert_eq!(cluster.place, Place::Cluster(hosts.to_vec()));
        assert_eq!(cluster.credentials.username, None);
        let sentinels = target(
            "redis-sentinel://ann:one@a/3?sentinelServiceName=hub&node=b:1&sentinelPassword=t%26wo",
        );
        let Place::Sentinels {
            hosts,
            master,
            credentials,
        } = sentinels.place
        else {
            panic!("no Sentinels");
        };
        assert_eq!(hosts, [host("a", 26_379), host("b", 1)]);
        assert_eq!(master, "hub");
        assert_eq!(credentials.password.as_deref(), Some("t&wo"));
        assert_eq!(sentinels.credentials.password.as_deref(), Some("one"));
        assert_eq!(sentinels.database, 3);
    }

    #[test]
    fn the_version_is_the_first_number() {
        let told = |version: &str| {
            let fields = [("server", "redis"), ("version", version)];
            let fields = fields.map(|(name, value)| (Value::from(name), Value::from(value)));
            version_of(&Value::Map(fields.to_vec()))
        };
        assert_eq!(told("7.0.15"), Some(7));
        assert_eq!(told("255.255.255"), Some(255));
        assert_eq!(told("unstable"), None);
        assert_eq!(version_of(&Value::Null), None);
    }
}
