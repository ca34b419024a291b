//! What the operating system says of this process, read when somebody scrapes.
//!
//! On Linux from `/proc/self`; elsewhere only the limit of file descriptors is known and the rest stays unset.

use std::fs;
use std::time::Duration;

use ::metrics::gauge;

use super::table::name;

/// Memory, descriptors and processor time of this process; `None` where the system does not tell.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ProcessStats {
    /// Resident memory in bytes.
    pub resident_bytes: Option<u64>,
    /// Of it what no file holds, in bytes: heap and stacks.
    pub heap_bytes: Option<u64>,
    /// Open file descriptors.
    pub open_fds: Option<u64>,
    /// The soft limit of file descriptors; `None` also when there is no limit.
    pub max_fds: Option<u64>,
    /// User and system time since the start.
    pub cpu: Option<Duration>,
    /// Threads.
    pub threads: Option<u64>,
}

impl ProcessStats {
    /// Reads them now: three small files, about 50 us.
    pub fn read() -> Self {
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let stat = after_command(&stat);
        let (resident_bytes, heap_bytes) = memory_bytes().unzip();
        Self {
            resident_bytes,
            heap_bytes,
            open_fds: open_fds(),
            max_fds: rustix::process::getrlimit(rustix::process::Resource::Nofile).current,
            cpu: cpu(&stat),
            threads: field(&stat, STAT_THREADS),
        }
    }

    /// Sets the gauges.
    #[expect(
        clippy::cast_precision_loss,
        reason = "a gauge is a float; these stay below 2^53"
    )]
    pub fn set_gauges(&self) {
        let gauges = [
            (name::RESIDENT_BYTES, self.resident_bytes),
            (name::OPEN_FDS, self.open_fds),
            (name::MAX_FDS, self.max_fds),
            (name::THREADS, self.threads),
        ];
        for (name, value) in gauges {
            if let Some(value) = value {
                gauge!(name).set(value as f64);
            }
        }
        if let Some(cpu) = self.cpu {
            gauge!(name::CPU_SECONDS).set(cpu.as_secs_f64());
        }
    }
}

/// Places of fields in `/proc/self/stat` after the command (proc_pid_stat(5) counts from 1 and begins with pid and
/// command).
const STAT_USER_TICKS: usize = 14 - 3;
const STAT_SYSTEM_TICKS: usize = 15 - 3;
const STAT_THREADS: usize = 20 - 3;

/// The fields after the command's closing bracket: the command may itself hold blanks and brackets.
fn after_command(stat: &str) -> Vec<&str> {
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    fields.split_ascii_whitespace().collect()
}

fn field(stat: &[&str], index: usize) -> Option<u64> {
    stat.get(index)?.parse().ok()
}

fn cpu(stat: &[&str]) -> Option<Duration> {
    let ticks = field(stat, STAT_USER_TICKS)? + field(stat, STAT_SYSTEM_TICKS)?;
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    Some(Duration::from_millis(ticks * 1000 / per_second))
}

/// Resident memory, and that part of it that no file and no shared memory holds.
fn memory_bytes() -> Option<(u64, u64)> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let mut pages = statm.split_ascii_whitespace().skip(1);
    let resident: u64 = pages.next()?.parse().ok()?;
    let shared: u64 = pages.next()?.parse().ok()?;
    let size = u64::try_from(rustix::param::page_size()).ok()?;
    Some((resident * size, resident.saturating_sub(shared) * size))
}

/// Since Linux 6.2 the directory's size is their number; before, they must be listed (some 10 ms for 20,000).
fn open_fds() -> Option<u64> {
    match fs::metadata("/proc/self/fd").ok()?.len() {
        0 => u64::try_from(fs::read_dir("/proc/self/fd").ok()?.count()).ok(),
        count => Some(count),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_past_a_command_with_blanks_and_brackets() {
        let stat = "7 (a (b) c) S 1 2 3 4 5 6 7 8 9 10 150 50 13 14 15 16 9 18";
        let fields = after_command(stat);
        assert_eq!(field(&fields, STAT_USER_TICKS), Some(150));
        assert_eq!(field(&fields, STAT_SYSTEM_TICKS), Some(50));
        assert_eq!(field(&fields, STAT_THREADS), Some(9));
    }

    #[test]
    fn text_that_is_no_stat_is_unknown() {
        for text in ["", "7 (x", "7 (x) S 1"] {
            assert_eq!(cpu(&after_command(text)), None, "{text}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_has_memory_threads_and_descriptors() {
        let stats = ProcessStats::read();
        assert!(stats.resident_bytes.is_some_and(|bytes| bytes > 1 << 20));
        assert!(
            stats
                .heap_bytes
                .is_some_and(|bytes| bytes > 0 && Some(bytes) < stats.resident_bytes)
        );
        assert!(stats.open_fds.is_some_and(|fds| fds >= 3));
        assert!(stats.threads.is_some_and(|threads| threads >= 1));
    }
}
