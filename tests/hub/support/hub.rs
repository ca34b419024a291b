//! A hub: the built binary with the variables of a test and no others.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};

use super::DEADLINE;

/// The secret that hubs with tokens have here.
pub(crate) const SECRET: &str = "black-box-secret-of-at-least-32-bytes";

/// A running hub; ends with the value, when it was started here.
#[derive(Debug)]
pub(crate) struct Hub {
    /// `None` for what somebody else runs, such as a proxy before hubs.
    child: Option<Child>,
    port: u16,
    directory: PathBuf,
}

/// A hub with two workers, open to everybody.
pub(crate) async fn hub(variables: &[(&str, &str)]) -> Hub {
    hub_with("", variables).await
}

/// The same with a configuration file of this text.
pub(crate) async fn hub_with(namespaces: &str, variables: &[(&str, &str)]) -> Hub {
    let hub = Hub::start(namespaces, variables);
    hub.until_ready().await;
    hub
}

impl Hub {
    /// Started, and perhaps not ready yet.
    pub(crate) fn start(namespaces: &str, variables: &[(&str, &str)]) -> Self {
        let port = free_port();
        let directory = own_directory(port);
        Self::start_at(port, &directory, namespaces, variables)
    }

    /// The same in a folder that others may work in, too.
    #[allow(
        dead_code,
        reason = "for suites that share this folder and have hubs with files"
    )]
    pub(crate) fn start_in(folder: &Path, namespaces: &str, variables: &[(&str, &str)]) -> Self {
        Self::start_at(free_port(), folder, namespaces, variables)
    }

    fn start_at(port: u16, folder: &Path, namespaces: &str, variables: &[(&str, &str)]) -> Self {
        let directory = own_directory(port);
        std::fs::create_dir_all(&directory).expect("a directory");
        let log = File::create(directory.join("log")).expect("a file");
        let mut command = Command::new(env!("CARGO_BIN_EXE_fanfare"));
        command
            .env_clear()
            .current_dir(folder)
            .env("NODE_ENV", "test")
            .env("HOST", "127.0.0.1")
            .env("PORT", port.to_string())
            .env("WORKERS", "2")
            .env("DRAIN_DELAY_MS", "0")
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the same file"))
            .stderr(log);
        if !namespaces.is_empty() {
            let file = directory.join("fanfare.toml");
            std::fs::write(&file, namespaces).expect("a file");
            command.env("CONFIG_FILE", file);
        }
        command.envs(variables.iter().copied());
        let child = command.spawn().expect("the binary starts");
        Self {
            child: Some(child),
            port,
            directory,
        }
    }

    /// Waits until it takes connections and says that it is ready.
    pub(crate) async fn until_ready(&self) {
        super::eventually("the hub is ready", async || {
            let stream = tokio::net::TcpStream::connect(self.address()).await.ok()?;
            drop(stream);
            (self.get("/readyz").await.status == 200).then_some(())
        })
        .await;
    }

    /// What answers at this port as a hub does; only asked, never ended.
    #[allow(
        dead_code,
        reason = "for suites that share this folder and run more than hubs"
    )]
    pub(crate) fn elsewhere(port: u16) -> Self {
        Self {
            child: None,
            port,
            directory: PathBuf::new(),
        }
    }

    fn child(&self) -> &Child {
        self.child.as_ref().expect("it was started here")
    }

    pub(crate) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    pub(crate) fn host(&self) -> String {
        self.address().to_string()
    }

    /// Everything it has logged.
    pub(crate) fn log(&self) -> String {
        let bytes = std::fs::read(self.directory.join("log")).expect("the log");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Writes its configuration file anew, in one step.
    #[allow(
        dead_code,
        reason = "for suites that share this folder and change what a hub was told"
    )]
    pub(crate) fn rewrite(&self, text: &str) {
        let (draft, file) = (
            self.directory.join("draft"),
            self.directory.join("fanfare.toml"),
        );
        std::fs::write(&draft, text).expect("a file");
        std::fs::rename(draft, file).expect("the same folder");
    }

    /// Asks it to read its configuration again.
    #[allow(
        dead_code,
        reason = "for suites that share this folder and change what a hub was told"
    )]
    pub(crate) fn hang_up(&self) {
        kill_process(self.pid(), Signal::HUP).expect("it lives");
    }

    /// Asks it to end, as an operator or an orchestrator does.
    pub(crate) fn terminate(&self) {
        kill_process(self.pid(), Signal::TERM).expect("it lives");
    }

    /// Lets it do nothing, as a machine that hangs does, until [`Hub::go_on`].
    #[allow(dead_code, reason = "not every suite that shares this folder does it")]
    pub(crate) fn stop(&self) {
        kill_process(self.pid(), Signal::STOP).expect("it lives");
    }

    /// Lets it go on where it was.
    #[allow(dead_code, reason = "not every suite that shares this folder does it")]
    pub(crate) fn go_on(&self) {
        kill_process(self.pid(), Signal::CONT).expect("it lives");
    }

    /// Its open files.
    pub(crate) fn open_files(&self) -> u64 {
        let folder = format!("/proc/{}/fd", self.child().id());
        std::fs::read_dir(folder).expect("its files").count() as u64
    }

    /// Allows it no more open files than this from now on.
    pub(crate) fn limit_files(&self, files: u64) {
        let limit = Rlimit {
            current: Some(files),
            maximum: Some(files),
        };
        prlimit(Some(self.pid()), Resource::Nofile, limit).expect("a limit");
    }

    fn pid(&self) -> Pid {
        let pid = i32::try_from(self.child().id())
            .ok()
            .and_then(Pid::from_raw);
        pid.expect("a process id")
    }

    /// Its exit code once it has ended; `None` after a signal.
    pub(crate) async fn exit_code(&mut self) -> Option<i32> {
        let began = Instant::now();
        loop {
            let child = self.child.as_mut().expect("it was started here");
            if let Some(status) = child.try_wait().expect("a child") {
                return status.code();
            }
            assert!(began.elapsed() < DEADLINE, "the hub does not end");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The value of a metric with its labels as they are written; 0 where it does not stand.
    pub(crate) async fn metric(&self, line: &str) -> f64 {
        let metrics = self.get("/metrics").await.text;
        let value = metrics
            .lines()
            .find_map(|found| found.strip_prefix(line)?.strip_prefix(' '));
        value.map_or(0.0, |value| value.parse().expect("a number"))
    }

    /// The memory that it holds, in bytes, as the kernel counts it.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let path = format!("/proc/{}/status", self.child().id());
        let status = std::fs::read_to_string(path).expect("its status");
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let kilobytes = line.and_then(|line| line.split_whitespace().nth(1));
        kilobytes
            .and_then(|kilobytes| kilobytes.parse::<u64>().ok())
            .expect("a number")
            * 1024
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        let Some(child) = &mut self.child else {
            return;
        };
        // It may have ended by itself.
        let _ = child.kill();
        let _ = child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!(
                "the hub's last lines:\n{}",
                lines[lines.len().saturating_sub(15)..].join("\n")
            );
        }
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// Where a hub's log and configuration are.
fn own_directory(port: u16) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("hub-{}-{port}", std::process::id()))
}

/// A port below those that the system gives to outgoing connections, so that no client of another test takes it.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id() % 1000).unwrap_or_default() * 20;
    loop {
        let port = 11_000 + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % 20_000;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}
