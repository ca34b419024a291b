//! When the configuration is read again while the node runs: on SIGHUP, and when a file of it changes.

use std::fs::metadata;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use tokio::signal::unix::{SignalKind, signal};

/// How often the files are looked at. A change is taken when two looks in a row see the same: by then it is written.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// What tells one state of a file from another: when it was written, how long it is, and which file it is, for those that
/// are replaced by another one (as Kubernetes does).
type Stamp = (SystemTime, u64, u64);

fn stamps(files: &[PathBuf]) -> Vec<Option<Stamp>> {
    let stamp = |file: &PathBuf| {
        let data = metadata(file).ok()?;
        Some((data.modified().ok()?, data.len(), data.ino()))
    };
    files.iter().map(stamp).collect()
}

/// Calls `reload` with the reason each time, for as long as the process lives.
///
/// # Errors
/// When the system refuses a runtime or a signal handler.
pub(super) fn watch(files: &[PathBuf], mut reload: impl FnMut(&'static str)) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut hangup = signal(SignalKind::hangup())?;
        let mut seen = stamps(files);
        let mut is_settled = true;
        loop {
            tokio::select! {
                _ = hangup.recv() => {
                    (seen, is_settled) = (stamps(files), true);
                    reload("SIGHUP");
                }
                () = tokio::time::sleep(LOOK_INTERVAL) => {
                    let now = stamps(files);
                    if now != seen {
                        (seen, is_settled) = (now, false);
                    } else if !is_settled {
                        is_settled = true;
                        reload("a file changed");
                    }
                }
            }
        }
    })
}
