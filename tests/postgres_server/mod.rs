//! A PostgreSQL server of the test's own: in a directory of its own, by a user who is nobody in particular, since it refuses
//! to run as root; on a free port; ended by its process id, or with the process of the test.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

/// A running server; ends with the value.
#[derive(Debug)]
pub(crate) struct PostgresServer {
    child: Option<Child>,
    port: u16,
    directory: PathBuf,
}

/// Whoever owns no files: Debian's nobody, and everybody else's too.
const NOBODY: u32 = 65_534;

impl PostgresServer {
    /// Makes a cluster of databases and starts it.
    pub(crate) fn start() -> Self {
        let port = free_port();
        // Nobody must be able to walk there, which a build's directory may not allow.
        let directory =
            std::env::temp_dir().join(format!("fanfare-pg-{}-{port}", std::process::id()));
        let _ = std::fs::remove_dir_all(&directory);
        std::fs::create_dir_all(&directory).expect("a directory");
        if is_root() {
            chown(&directory, Some(NOBODY), Some(NOBODY)).expect("given away");
        }
        let data = directory.join("data");
        let output = as_nobody(&program("initdb"))
            .args([
                "--auth=trust",
                "--username=fanfare",
                "--no-sync",
                "--encoding=UTF8",
            ])
            // Names sort otherwise than their bytes here, which must make no difference.
            .args(["--locale=C.UTF-8", "-D"])
            .arg(&data)
            .current_dir(&directory)
            .output()
            .expect("initdb runs");
        assert!(output.status.success(), "{output:?}");
        let mut server = Self {
            child: None,
            port,
            directory,
        };
        server.start_again();
        server
    }

    /// Starts it again with what it has kept.
    pub(crate) fn start_again(&mut self) {
        let log = File::create(self.directory.join("log")).expect("a file");
        // When this process ends, however it does, so does the input that the shell reads.
        let script = "\"$PROGRAM\" \"$@\" </dev/null & cat >/dev/null; kill -QUIT $!; wait; \
                      rm -rf \"$DIRECTORY\"";
        let child = as_nobody(Path::new("sh"))
            .args(["-c", script, "sh"])
            .arg("-D")
            .arg(self.directory.join("data"))
            .args(["-p", &self.port.to_string(), "-k", ""])
            .args([
                "-c",
                "listen_addresses=127.0.0.1",
                "-c",
                "max_connections=300",
            ])
            .args(["-c", "synchronous_commit=on", "-c", "fsync=off"])
            .env("PROGRAM", program("postgres"))
            .env("DIRECTORY", &self.directory)
            .current_dir(&self.directory)
            .stdin(Stdio::piped())
            .stdout(log.try_clone().expect("the same file"))
            .stderr(log)
            .spawn()
            .expect("it starts");
        self.child = Some(child);
        let began = Instant::now();
        while !self.answers() {
            let is_late = began.elapsed() > Duration::from_secs(30);
            assert!(!is_late, "postgres does not start: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    fn answers(&self) -> bool {
        self.log().contains("ready to accept connections")
            && TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok()
    }

    /// Kills it as a crash does.
    pub(crate) fn kill(&mut self) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        let pid = std::fs::read_to_string(self.directory.join("data/postmaster.pid"));
        let pid = pid.expect("its process id");
        let pid = pid.lines().next().expect("a line").trim().to_owned();
        let status = Command::new("kill").args(["-QUIT", &pid]).status();
        assert!(status.expect("kill runs").success());
        // Nothing is left to read: the shell goes as well, and must not take the directory along.
        let began = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok() {
            assert!(began.elapsed() < Duration::from_secs(10), "it does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
        child.kill().expect("the shell ends");
        let _ = child.wait();
    }

    /// Where it is; each `schema` is a world of its own, and must have been made.
    pub(crate) fn url(&self, schema: &str) -> String {
        format!(
            "postgres://fanfare@127.0.0.1:{}/postgres?options=-c%20search_path%3D{schema}",
            self.port
        )
    }

    /// Does what a statement says, and answers what it shows.
    #[allow(dead_code, reason = "not every test looks inside")]
    pub(crate) fn ask(&self, statement: &str) -> String {
        let output = Command::new(program("psql"))
            .args(["-h", "127.0.0.1", "-p", &self.port.to_string()])
            .args([
                "-U", "fanfare", "-d", "postgres", "-X", "-A", "-t", "-c", statement,
            ])
            .stdin(Stdio::null())
            .output()
            .expect("psql runs");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout)
            .expect("text")
            .trim()
            .to_owned()
    }

    /// A world of its own, and where it is.
    #[allow(dead_code, reason = "not every test looks inside")]
    pub(crate) fn schema(&self, name: &str) -> String {
        self.ask(&format!("CREATE SCHEMA {name}"));
        self.url(name)
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Its end is the end of the server.
            drop(child.stdin.take());
            let _ = child.wait();
        }
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn as_nobody(program: &Path) -> Command {
    let mut command = Command::new(program);
    if is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

/// Debian keeps the server's programs apart, by version: the newest.
fn program(name: &str) -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql");
    let versions = versions.into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = versions
        .map(|version| version.path().join("bin").join(name))
        .filter(|path| path.exists())
        .collect();
    found.sort();
    found.pop().unwrap_or_else(|| PathBuf::from(name))
}

/// A port below those that the system gives to outgoing connections; no two of one process are the same.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id() % 450).unwrap_or_default() * 2;
    loop {
        let port = 31_000 + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % 900;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}
