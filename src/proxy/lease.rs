//! Who of the nodes of a fleet reads a stream that many share: a lease in Redis for each channel.

use std::time::Duration;

use bytes::Bytes;

use super::fleet::Fleet;
use crate::redis::{Command, Script, Value};

/// How long a node leads after it last said so.
const LEASE: Duration = Duration::from_secs(6);
/// How long the upstream's last id is remembered: as long as positions of the channel, at least.
const ID_KEPT: Duration = Duration::from_secs(24 * 3600);

/// Takes or renews a lease. Its value is whether the stream is open (`1` or `0`), and the node.
///
/// KEYS: the lease, the upstream's last id. ARGV: this node, for how long, whether its stream is open, the last id (or
/// nothing), for how long that is kept.
/// Answers `{1, last id}` when this node has it, else `{0, whether the stream is open, how long the lease lasts}`.
pub(super) static LEAD: Script = Script::new(
    r"local lease = redis.call('GET', KEYS[1])
if lease and string.sub(lease, 2) ~= ARGV[1] then
  return {0, tonumber(string.sub(lease, 1, 1)), redis.call('PTTL', KEYS[1])}
end
redis.call('SET', KEYS[1], ARGV[3] .. ARGV[1], 'PX', ARGV[2])
if ARGV[4] == '' then return {1, redis.call('GET', KEYS[2]) or ''} end
redis.call('SET', KEYS[2], ARGV[4], 'PX', ARGV[5])
return {1, ARGV[4]}",
);

/// Gives a lease up.
///
/// KEYS: the lease. ARGV: this node. Answers how many leases that were.
pub(super) static RESIGN: Script = Script::new(
    r"local lease = redis.call('GET', KEYS[1])
if not lease or string.sub(lease, 2) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])",
);

/// What a node says of itself that wants to lead.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lead<'a> {
    /// Whether the upstream has opened the stream.
    pub(super) is_open: bool,
    /// The upstream's last id.
    pub(super) last_id: Option<&'a str>,
}

/// Whether a node is the one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is; with the upstream's last id, as far as that is known.
    Leads(Option<String>),
    /// Another one is.
    Follows {
        /// Whether that one's stream is open.
        is_open: bool,
        /// How long it leads, when it does not say so again.
        lease: Duration,
    },
}

impl Fleet {
    /// Takes or renews the lease of a channel; `None` when nobody can say who has it.
    pub(super) async fn lead(&self, channel: &str, lead: &Lead<'_>) -> Option<Standing> {
        let [lease, last_id] = self.lease_keys(channel);
        let command = Command::script(&LEAD, &[&lease, &last_id])
            .word(self.name.clone())
            .number(millis(LEASE))
            .number(u64::from(lead.is_open))
            .word(lead.last_id.unwrap_or_default())
            .number(millis(ID_KEPT));
        read(&self.redis.call_one(command).await.ok()?)
    }

    /// Gives the leases of channels up, so that other nodes need not wait for their end.
    pub(super) async fn resign(&self, channels: &[String]) {
        let resign = |channel: &String| {
            let [lease, _] = self.lease_keys(channel);
            Command::script(&RESIGN, &[&lease]).word(self.name.clone())
        };
        // What was not given up ends by itself.
        let _ = self.redis.call(channels.iter().map(resign).collect()).await;
    }

    fn lease_keys(&self, channel: &str) -> [Bytes; 2] {
        let key = |what| Bytes::from(format!("{}:{{{channel}}}:{what}", self.prefix));
        [key("lease"), key("last_id")]
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn read(answer: &Value) -> Option<Standing> {
    let Value::Array(parts) = answer else {
        return None;
    };
    match (parts.first()?.as_u64()?, parts.as_slice()) {
        (1, [_, last_id]) => {
            let last_id = last_id.as_string().filter(|id| !id.is_empty());
            Some(Standing::Leads(last_id))
        }
        (0, [_, is_open, left]) => Some(Standing::Follows {
            is_open: is_open.as_u64()? == 1,
            // Negative when it ends this very moment.
            lease: Duration::from_millis(left.as_u64().unwrap_or_default()),
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(parts: Vec<Value>, expected: Option<&Standing>) {
        assert_eq!(read(&Value::Array(parts)).as_ref(), expected);
    }

    #[test]
    fn answers_of_the_script_are_understood() {
        let number = Value::Integer;
        let leads = |id: &str| vec![number(1), Value::from(id)];
        check(leads("7"), Some(&Standing::Leads(Some("7".to_owned()))));
        check(leads(""), Some(&Standing::Leads(None)));
        let follows = |is_open, millis| Standing::Follows {
            is_open,
            lease: Duration::from_millis(millis),
        };
        check(
            vec![number(0), number(1), number(5)],
            Some(&follows(true, 5)),
        );
        check(
            vec![number(0), number(0), number(-2)],
            Some(&follows(false, 0)),
        );
        check(vec![number(0)], None);
        check(vec![], None);
    }
}
