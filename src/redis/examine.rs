//! Whether the server lets this node do what it must. Asked once, before a node begins: one that is let in and may not
//! do its work would answer 503 for ever, and one whose reads are silently refused could not tell what it lost.

use std::time::Duration;

use tokio::time::timeout;

use super::pipeline::Pipeline;
use super::target::{OpenError, Opened};
use super::value::Value;
use super::{CallError, Command, Redis, Shared, session};
use crate::tls::TlsError;

/// How long a server may take to answer before the node begins without having asked.
const PATIENCE: Duration = Duration::from_secs(3);

/// Between two looks whether everybody is connected.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(20);

/// Why a node over Redis must not begin.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The system gives no thread.
    #[error("no thread for redis: {0}")]
    Thread(#[from] std::io::Error),
    /// Nobody can be trusted to vouch for a server.
    #[error("REDIS_CA_FILE or the system's certificates: {0}")]
    NoCertificates(#[from] TlsError),
    /// The address is none.
    #[error("REDIS_URL names no server")]
    NoAddress,
    /// The server was reached and does not let this node do its work.
    #[error("redis at {address} refuses this node: {why}")]
    Refused {
        /// Which server, without the password.
        address: String,
        /// What it says.
        why: String,
    },
}

/// What is known of the way to the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The first attempt is under way.
    Trying,
    /// Nobody answers.
    Away,
    /// Somebody does, and refuses for good: wrong password, no permission, a certificate that nobody vouches for.
    Refused(String),
    /// It lets us in.
    Open,
}

impl Shared {
    pub(super) fn judge(&self, verdict: Verdict) {
        self.verdict.send_replace(verdict);
    }

    /// What a failed attempt says.
    pub(super) fn failed(&self, error: &OpenError) {
        self.judge(refusal(error).map_or(Verdict::Away, Verdict::Refused));
    }
}

/// What the error says, when trying again would not help.
pub(super) fn refusal(error: &OpenError) -> Option<String> {
    let is_final = match error {
        OpenError::Certificate(_) | OpenError::Unusable(_) => true,
        OpenError::Refused(why) => is_for_good(why),
        OpenError::Away(_) => false,
    };
    is_final.then(|| error.to_string())
}

/// Whether a server that says so will say the same again.
pub(super) fn is_for_good(why: &str) -> bool {
    // The last two: a database that the server has not, and one before Redis 6, which does not know HELLO.
    let words = [
        "WRONGPASS",
        "NOAUTH",
        "NOPERM",
        "ERR AUTH",
        "ERR DB index",
        "ERR unknown command",
    ];
    words.iter().any(|word| why.starts_with(word))
}

impl Redis {
    /// Asks whether the user may do what it must: `probe` answers the commands that it may not run, with what the server
    /// says of each, and `channel` is one that it must hear. `Ok` as well when the server is away: then nobody knows.
    ///
    /// # Errors
    /// [`StartError::Refused`].
    pub async fn examine(&self, probe: Command, channel: &str) -> Result<(), StartError> {
        let mut verdict = self.shared.verdict.subscribe();
        let known = verdict.wait_for(|verdict| *verdict != Verdict::Trying);
        let known = timeout(PATIENCE, known).await;
        let known = known.map(|known| known.map(|verdict| verdict.clone()));
        match known {
            Ok(Ok(Verdict::Refused(why))) => return Err(self.refused(why)),
            Ok(Ok(Verdict::Open)) => {}
            _ => return Ok(()),
        }
        // The other masters of a Cluster may take a moment longer.
        let all = async {
            while !self.takes_commands() {
                tokio::time::sleep(LOOK_AGAIN_AFTER).await;
            }
        };
        let _ = timeout(PATIENCE, all).await;
        match self.call_one(probe).await {
            Ok(Value::Array(refused)) if !refused.is_empty() => {
                let refused: Vec<_> = refused.iter().filter_map(Value::as_str).collect();
                return Err(self.refused(refused.join("; ")));
            }
            Err(CallError::Refused(why)) if why.starts_with("NOPERM") => {
                return Err(self.refused(self.with_keys(why)));
            }
            // Where what belongs together is on several servers, nothing can be done in one step.
            Err(CallError::Refused(why)) if why.starts_with("CROSSSLOT") => {
                return Err(self.refused(why));
            }
            _ => {}
        }
        if let Some(why) = self.is_part_of_cluster().await {
            return Err(self.refused(why));
        }
        if let Some(why) = self.may_not_wait().await {
            return Err(self.refused(why));
        }
        match may_hear(&self.shared, channel).await {
            Some(why) => Err(self.refused(why)),
            None => Ok(()),
        }
    }

    /// What is wrong where one server was named, and it is a member of a Cluster: most channels would be elsewhere.
    async fn is_part_of_cluster(&self) -> Option<String> {
        if self.is_cluster() {
            return None;
        }
        let info = self.call_one(Command::new("INFO").word("cluster")).await;
        let is_member = info.ok()?.as_str()?.contains("cluster_enabled:1");
        is_member.then(|| "it is a member of a Cluster: say redis-cluster://".to_owned())
    }

    /// Why replicas cannot be waited for, where they are to be. Who may is told in the log when there are too few of them now:
    /// they may be about to come.
    async fn may_not_wait(&self) -> Option<String> {
        let wanted = self.shared.config.wait_replicas;
        if wanted == 0 {
            return None;
        }
        let wait = Command::new("WAIT").number(0).number(1);
        if let Err(CallError::Refused(why)) = self.call_one(wait).await {
            return Some(format!("REDIS_WAIT_REPLICAS needs WAIT: {why}"));
        }
        let info = Command::new("INFO").word("replication");
        let info = self.call_one(info).await.ok()?;
        let count = replicas_of(info.as_str()?)?;
        if count < wanted {
            tracing::warn!(
                count,
                wanted,
                "redis has fewer replicas than REDIS_WAIT_REPLICAS: until there are more, whoever publishes is told 503"
            );
        }
        None
    }

    /// What the server says of keys, which later versions do not name, with the rule that allows them.
    fn with_keys(&self, why: String) -> String {
        match why.contains(" key") {
            true => format!("{why}: it needs ~{}:*", self.shared.config.prefix),
            false => why,
        }
    }

    fn refused(&self, why: String) -> StartError {
        StartError::Refused {
            address: self.shared.config.address.to_string(),
            why,
        }
    }
}

/// How many replicas the answer to `INFO replication` tells of.
fn replicas_of(info: &str) -> Option<u32> {
    let mut lines = info.lines();
    lines.find_map(|line| line.strip_prefix("connected_slaves:")?.trim().parse().ok())
}

/// Why a channel may not be subscribed to. Asked on a connection of its own: the others are not to hear what comes there.
async fn may_hear(shared: &Shared, channel: &str) -> Option<String> {
    let server = shared.servers().into_iter().next()?;
    let Opened {
        client,
        mut connection,
        ..
    } = session::connect(shared, &server.target).await?;
    // What a Cluster says besides, of where a channel is, is its own affair.
    let kinds = ["SUBSCRIBE", "SSUBSCRIBE"];
    let kinds = &kinds[..1 + usize::from(server.is_sharded())];
    for kind in kinds.iter().rev() {
        let pipeline = Pipeline::of_words(&[kind, channel]);
        let subscribed = connection.with(client.subscribe(pipeline)).await;
        if let Ok(Err(CallError::Refused(why))) = subscribed
            && is_for_good(&why)
        {
            return Some(format!("{kind}: {why}"));
        }
    }
    None
}
