//! A Cluster of the test's own: three masters, with a replica each where one is to take over.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::RedisServer;

/// How many masters share the slots.
const MASTERS: usize = 3;

/// A running Cluster; ends with the value.
#[derive(Debug)]
pub(crate) struct Cluster {
    servers: Vec<RedisServer>,
}

impl Cluster {
    /// Starts it and waits until every member knows that all is well.
    pub(crate) fn start(has_replicas: bool, is_shared: bool) -> Self {
        let count = if has_replicas { 2 * MASTERS } else { MASTERS };
        let options = [
            "--save",
            "",
            "--cluster-enabled",
            "yes",
            "--cluster-node-timeout",
            "1500",
            // A replica that is behind, or has not heard of its master for long, takes over all the same.
            "--cluster-replica-validity-factor",
            "0",
            "--repl-diskless-sync-delay",
            "0",
        ];
        let servers: Vec<_> = (0..count)
            .map(|_| match is_shared {
                true => RedisServer::start_shared(&options),
                false => RedisServer::start_with(&options),
            })
            .collect();
        let cluster = Self { servers };
        cluster.join(has_replicas);
        let began = Instant::now();
        while !cluster.is_well(has_replicas) {
            assert!(began.elapsed() < Duration::from_secs(30), "it is not well");
            std::thread::sleep(Duration::from_millis(50));
        }
        cluster
    }

    fn join(&self, has_replicas: bool) {
        let members = self
            .servers
            .iter()
            .map(|server| format!("127.0.0.1:{}", server.port()));
        let replicas = if has_replicas { "1" } else { "0" };
        let output = Command::new("redis-cli")
            .args(["--cluster", "create"])
            .args(members)
            .args(["--cluster-replicas", replicas, "--cluster-yes"])
            .stdin(Stdio::null())
            .output()
            .expect("redis-cli is installed");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{text}");
    }

    fn is_well(&self, has_replicas: bool) -> bool {
        let is_ok = |server: &RedisServer| {
            server
                .ask(&["CLUSTER", "INFO"])
                .contains("cluster_state:ok")
        };
        let is_followed = |server: &RedisServer| {
            let info = server.ask(&["INFO", "replication"]);
            info.contains("role:slave") || info.contains("state=online")
        };
        self.servers.iter().all(is_ok) && (!has_replicas || self.servers.iter().all(is_followed))
    }

    /// Where it is: one member is enough to find the others.
    pub(crate) fn url(&self) -> String {
        let (first, second) = (self.servers[0].port(), self.servers[1].port());
        format!("redis-cluster://127.0.0.1:{first}?node=127.0.0.1:{second}")
    }

    /// All members that run.
    pub(crate) fn members(&self) -> impl Iterator<Item = &RedisServer> {
        self.servers.iter().filter(|server| server.is_running())
    }

    /// The master that has a key.
    pub(crate) fn owner_of(&self, key: &str) -> usize {
        let has = |server: &RedisServer| {
            server.is_running() && !server.ask(&["GET", key]).contains("MOVED")
        };
        let owner = self.servers.iter().position(has);
        owner.expect("somebody has it")
    }

    /// Kills a member, as a power cut does.
    pub(crate) fn kill(&mut self, index: usize) {
        self.servers[index].kill();
    }

    /// Starts it again; it finds the others by itself.
    pub(crate) fn start_again(&mut self, index: usize) {
        self.servers[index].start_again();
    }

    /// Gives a key's slot, with all that is in it, to another master, one key after the other. Answers which.
    pub(crate) fn move_slot_of(&self, key: &str) -> usize {
        let from = self.owner_of(key);
        let to = (0..MASTERS).find(|index| *index != from && self.is_master(*index));
        let to = to.expect("another master");
        let slot = self.servers[from].ask(&["CLUSTER", "KEYSLOT", key]);
        let id = |index: usize| self.servers[index].ask(&["CLUSTER", "MYID"]);
        let (from_id, to_id) = (id(from), id(to));
        let set = |index: usize, words: [&str; 2]| {
            let answer =
                self.servers[index].ask(&["CLUSTER", "SETSLOT", &slot, words[0], words[1]]);
            assert_eq!(answer, "OK", "{words:?}");
        };
        set(to, ["IMPORTING", &from_id]);
        set(from, ["MIGRATING", &to_id]);
        let port = self.servers[to].port().to_string();
        loop {
            let keys = self.servers[from].ask(&["CLUSTER", "GETKEYSINSLOT", &slot, "10"]);
            let keys: Vec<&str> = keys.lines().filter(|key| !key.is_empty()).collect();
            if keys.is_empty() {
                break;
            }
            let mut words = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "2000", "KEYS"];
            words.extend(keys);
            let answer = self.servers[from].ask(&words);
            assert!(answer == "OK" || answer == "NOKEY", "{answer}");
        }
        set(to, ["NODE", &to_id]);
        set(from, ["NODE", &to_id]);
        to
    }

    fn is_master(&self, index: usize) -> bool {
        let server = &self.servers[index];
        server.is_running() && server.ask(&["ROLE"]).starts_with("master")
    }
}
