//! The fleet that `deploy/local` runs, commanded over its standard input. It ends with the value: the script ends all that
//! it started when its input does, even when this process is killed.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::support::{Hub, eventually, within};

/// How long the script may take to end all that it started.
const END: Duration = Duration::from_secs(10);

/// See the head of the file.
pub(crate) struct Fleet {
    child: Child,
    commands: Option<ChildStdin>,
    lines: mpsc::UnboundedReceiver<String>,
    directory: PathBuf,
    /// What it has told of: name and port.
    ports: BTreeMap<String, u16>,
    /// Every process that it has told of.
    pids: Vec<u32>,
}

impl Fleet {
    /// So many gateways with these variables, all of them ready.
    pub(crate) async fn start(gateways: usize, variables: &[(&str, &str)]) -> Self {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        // Apart from those of other tests in this process, and below the ports of outgoing connections.
        let first_port = 12_000
            + u16::try_from(std::process::id() % 45).unwrap_or_default() * 400
            + NEXT.fetch_add(1, Ordering::Relaxed) * 40;
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fleet-{first_port}"));
        let mut child = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/local"))
            .args(["--commands", &gateways.to_string()])
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("FANFARE_BIN", env!("CARGO_BIN_EXE_fanfare"))
            .env("FIRST_PORT", first_port.to_string())
            .env("LOGS", &directory)
            .env("NODE_ENV", "test")
            .env("WORKERS", "1")
            .env("DRAIN_DELAY_MS", "200")
            .env("DRAIN_SECONDS", "1")
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("deploy/local starts");
        let output = BufReader::new(child.stdout.take().expect("its output is piped"));
        let (sender, lines) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let commands = child.stdin.take();
        let mut fleet = Self {
            child,
            commands,
            lines,
            directory,
            ports: BTreeMap::new(),
            pids: Vec::new(),
        };
        fleet.hear("ready").await;
        fleet
    }

    /// The answer at the door of nginx.
    pub(crate) fn nginx(&self) -> Hub {
        self.hub("nginx")
    }

    /// The same at the port where /health is nginx's own.
    pub(crate) fn nginx_8000(&self) -> Hub {
        self.hub("nginx-8000")
    }

    /// The same encrypted, where the examples of nginx say so.
    pub(crate) fn nginx_tls(&self) -> Hub {
        self.hub("nginx-tls")
    }

    /// A gateway, from 1.
    pub(crate) fn gateway(&self, index: usize) -> Hub {
        self.hub(&format!("gateway-{index}"))
    }

    fn hub(&self, name: &str) -> Hub {
        let port = self.ports.get(name);
        Hub::elsewhere(*port.unwrap_or_else(|| panic!("no {name} in {:?}", self.ports)))
    }

    /// Tells the script to do something.
    pub(crate) fn tell(&mut self, command: &str) {
        let commands = self.commands.as_mut().expect("it listens");
        writeln!(commands, "{command}").expect("it listens");
    }

    /// Waits until the script says a line that begins so; takes in what it says meanwhile.
    pub(crate) async fn hear(&mut self, beginning: &str) -> String {
        loop {
            let line = within(beginning, self.lines.recv()).await;
            let line = line.unwrap_or_else(|| {
                panic!(
                    "deploy/local ended before it said {beginning:?}; {}",
                    self.logs()
                )
            });
            assert!(!line.starts_with("error"), "deploy/local: {line}");
            self.take_in(&line);
            if line.starts_with(beginning) {
                return line;
            }
        }
    }

    /// `name scheme://127.0.0.1:port pid`
    fn take_in(&mut self, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [name, address, pid] = words[..] else {
            return;
        };
        let port = address
            .rsplit(':')
            .next()
            .and_then(|port| port.parse().ok());
        if let (Some(port), Ok(pid)) = (port, pid.parse()) {
            self.ports.insert(name.to_owned(), port);
            self.pids.push(pid);
        }
    }

    /// Drains a gateway, waits for its end and starts it again: a step of a rolling deploy.
    pub(crate) async fn restart(&mut self, index: usize) {
        self.tell(&format!("drain {index}"));
        let end = self.hear(&format!("gateway-{index} ended")).await;
        assert!(end.ends_with("ended 0"), "{end}");
        self.tell(&format!("start {index}"));
        self.hear(&format!("gateway-{index} ")).await;
    }

    /// The gateways that the fleet itself knows of.
    pub(crate) async fn expect_nodes(&self, names: &[&str]) {
        let nginx = self.nginx();
        eventually("the nodes", async || {
            let answer = nginx.get("/hub/nodes").await;
            let nodes = answer.json()["nodes"].as_array()?.clone();
            let found: Vec<&str> = nodes
                .iter()
                .filter_map(|node| node["id"].as_str())
                .collect();
            (found == names).then_some(())
        })
        .await;
    }

    fn logs(&self) -> String {
        let entries = std::fs::read_dir(&self.directory).into_iter().flatten();
        let paths = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
        let logs = paths.filter(|path| path.extension().is_some_and(|kind| kind == "log"));
        let mut text = String::new();
        for path in logs {
            let log = std::fs::read_to_string(&path).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let last = lines[lines.len().saturating_sub(8)..].join("\n");
            text.push_str(&format!("\n{}:\n{last}\n", path.display()));
        }
        text
    }

    /// Ends it as the end of a script's input does, and answers which of its processes live on.
    pub(crate) fn end(&mut self) -> Vec<u32> {
        drop(self.commands.take());
        let began = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && began.elapsed() < END {
            std::thread::sleep(Duration::from_millis(20));
        }
        // Only where it does not end by itself, which is a fault that the caller sees.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let lives = |pid: &u32| Path::new(&format!("/proc/{pid}/exe")).exists();
        self.pids.iter().copied().filter(lives).collect()
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        let alive = self.end();
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        } else {
            assert!(alive.is_empty(), "deploy/local left {alive:?}");
        }
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}
