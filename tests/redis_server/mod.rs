//! A redis-server of the test's own: on a free port, with a directory of its own, ended by its process id.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

#[allow(dead_code, reason = "not every test has one")]
pub(crate) mod cluster;

/// A running server; ends with the value.
#[derive(Debug)]
pub(crate) struct RedisServer {
    child: Option<Child>,
    port: u16,
    directory: PathBuf,
    options: Vec<String>,
    /// A file that the server itself writes to: a Sentinel's.
    configuration: Option<PathBuf>,
    /// Whether it stands in a static, of which nobody takes leave: then it ends with the process.
    is_shared: bool,
}

impl RedisServer {
    /// Starts one that writes nothing: on a disk that others keep busy it would answer late.
    #[allow(dead_code, reason = "not every test wants the same")]
    pub(crate) fn start() -> Self {
        Self::start_with(&["--save", ""])
    }

    /// Starts one that keeps what it is told in an append-only file, and answers when it is written.
    #[allow(dead_code, reason = "not every test wants the same")]
    pub(crate) fn start_kept() -> Self {
        let options = [
            "--save",
            "",
            "--appendonly",
            "yes",
            "--appendfsync",
            "always",
        ];
        Self::start_with(&options)
    }

    /// Starts a Sentinel that gives a master up a second after its last word, and needs nobody's consent.
    #[allow(dead_code, reason = "not every test has one")]
    pub(crate) fn start_sentinel(master: &Self) -> Self {
        let text = format!(
            "sentinel monitor hub 127.0.0.1 {} 1\nsentinel down-after-milliseconds hub 1000\n\
             sentinel failover-timeout hub 3000\n",
            master.port
        );
        Self::start_as(&["--sentinel"], Some(&text), master.is_shared)
    }

    /// Starts one with these options.
    pub(crate) fn start_with(options: &[&str]) -> Self {
        Self::start_as(options, None, false)
    }

    /// Starts one that ends with the test's process, whatever becomes of the value.
    #[allow(dead_code, reason = "not every test shares one")]
    pub(crate) fn start_shared(options: &[&str]) -> Self {
        Self::start_as(options, None, true)
    }

    fn start_as(options: &[&str], configuration: Option<&str>, is_shared: bool) -> Self {
        let port = free_port();
        let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("redis-{}-{port}", std::process::id()));
        let _ = std::fs::remove_dir_all(&directory);
        std::fs::create_dir_all(&directory).expect("a directory");
        let file = directory.join("redis.conf");
        let configuration = configuration.map(|text| {
            std::fs::write(&file, text).expect("a file");
            file
        });
        let mut server = Self {
            child: None,
            configuration,
            port,
            directory,
            options: options.iter().map(|&word| word.to_owned()).collect(),
            is_shared,
        };
        server.start_again();
        server
    }

    /// Starts it again, with whatever its directory holds.
    pub(crate) fn start_again(&mut self) {
        std::fs::create_dir_all(self.data()).expect("a directory");
        let log = File::create(self.directory.join("log")).expect("a file");
        let mut command = match self.is_shared {
            false => Command::new(program()),
            true => {
                // When this process ends, however it does, so does the input that the shell reads.
                let script =
                    "\"$PROGRAM\" \"$@\" & cat >/dev/null; kill -9 $!; rm -rf \"$DIRECTORY\"";
                let mut shell = Command::new("sh");
                shell
                    .args(["-c", script, "sh"])
                    .env("PROGRAM", program())
                    .env("DIRECTORY", &self.directory);
                shell
            }
        };
        let child = command
            .args(self.configuration.as_deref())
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1"])
            .args(debug_options())
            .args(&self.options)
            .arg("--dir")
            .arg(self.data())
            .stdin(match self.is_shared {
                true => Stdio::piped(),
                false => Stdio::null(),
            })
            .stdout(log.try_clone().expect("the same file"))
            .stderr(log)
            .spawn()
            .expect("redis-server is installed");
        self.child = Some(child);
        let began = Instant::now();
        while !self.answers() {
            assert!(
                began.elapsed() < Duration::from_secs(10),
                "redis-server does not start"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn answers(&self) -> bool {
        use std::io::{Read as _, Write as _};
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        let Ok(mut stream) = std::net::TcpStream::connect(address) else {
            return false;
        };
        let mut answer = [0; 5];
        stream.write_all(b"PING\r\n").is_ok()
            && stream.read_exact(&mut answer).is_ok()
            && &answer == b"+PONG"
    }

    /// Kills it, as a power cut does.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Lets it do nothing, as a machine that hangs does, until [`RedisServer::go_on`].
    #[allow(dead_code, reason = "not every test does it")]
    pub(crate) fn stop(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on where it was.
    #[allow(dead_code, reason = "not every test does it")]
    pub(crate) fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("it runs");
        kill_process(Pid::from_child(child), signal).expect("it lives");
    }

    /// Makes it the replica of another one, and waits until it has everything.
    #[allow(dead_code, reason = "not every test has one")]
    pub(crate) fn follow(&self, master: &Self) {
        self.ask(&["REPLICAOF", "127.0.0.1", &master.port.to_string()]);
        let began = Instant::now();
        let follows = || {
            self.ask(&["INFO", "replication"])
                .contains("master_link_status:up")
        };
        while !follows() {
            let is_in_time = began.elapsed() < Duration::from_secs(30);
            assert!(is_in_time, "the replica does not follow");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Whether it was not killed.
    #[allow(dead_code, reason = "not every test asks")]
    pub(crate) fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// Its port on this machine.
    #[allow(dead_code, reason = "not every test asks")]
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Where it is.
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Where its data is, and nothing else.
    pub(crate) fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// What a command answers, as text.
    #[allow(dead_code, reason = "not every test asks")]
    pub(crate) fn ask(&self, words: &[&str]) -> String {
        let output = Command::new("redis-cli")
            .args(["-p", &self.port.to_string()])
            .args(words)
            .output()
            .expect("redis-cli is installed");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// What is started: another server that speaks as Redis does, when `REDIS_SERVER` names it (`valkey-server`).
fn program() -> String {
    std::env::var("REDIS_SERVER").unwrap_or_else(|_| "redis-server".to_owned())
}

/// What lets tests use `DEBUG`. Redis 6.2 does without being told, and does not know the option.
fn debug_options() -> &'static [&'static str] {
    static IS_OLD: OnceLock<bool> = OnceLock::new();
    let is_old = IS_OLD.get_or_init(|| {
        let version = Command::new(program()).arg("--version").output();
        let version = version.expect("the server is installed").stdout;
        String::from_utf8_lossy(&version).contains("v=6.")
    });
    match is_old {
        true => &[],
        false => &["--enable-debug-command", "local"],
    }
}

/// Copies a directory with all that is in it, in the place of what was there.
#[allow(dead_code, reason = "not every test changes the data")]
pub(crate) fn copy(from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    std::fs::create_dir_all(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("a directory") {
        let (from, name) = entry
            .map(|entry| (entry.path(), entry.file_name()))
            .expect("an entry");
        match from.is_dir() {
            true => copy(&from, &to.join(name)),
            false => drop(std::fs::copy(&from, to.join(name)).expect("a copy")),
        }
    }
}

/// A port below those that the system gives to outgoing connections.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id() % 100).unwrap_or_default() * 10;
    loop {
        let port = 21_000 + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % 1000;
        // Members of a Cluster talk to each other on another one.
        let is_free = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
        if is_free(port) && is_free(port + 10_000) {
            return port;
        }
    }
}
