//! What the kernel says of a process or of this thread: CPU time and memory, read from /proc. The clock of
//! `/proc/<pid>/stat` ticks in hundredths of a second, so a window of ten seconds is good to a tenth of a percent.

use std::fs;

use anyhow::{Context, Result};

/// A process that is watched.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Process {
    pid: u32,
}

/// Memory of a process, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memory {
    /// All resident pages (`VmRSS`).
    pub(crate) resident: u64,
    /// Those that are no file's (`RssAnon`): heap and stacks.
    pub(crate) anonymous: u64,
}

impl Process {
    /// The process of that id.
    pub(crate) fn new(pid: u32) -> Self {
        Process { pid }
    }

    /// The generator itself.
    pub(crate) fn own() -> Self {
        Process::new(std::process::id())
    }

    /// User and system time that all its threads have used, in seconds.
    pub(crate) fn cpu(self) -> Result<f64> {
        cpu_of(&format!("/proc/{}/stat", self.pid))
    }

    /// Its memory now.
    pub(crate) fn memory(self) -> Result<Memory> {
        let path = format!("/proc/{}/status", self.pid);
        let status = fs::read_to_string(&path).with_context(|| path.clone())?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace()
                .next()?
                .parse::<u64>()
                .ok()
                .map(|kilobytes| kilobytes * 1024)
        };
        let resident = field("VmRSS:").with_context(|| format!("{path} has no VmRSS"))?;
        Ok(Memory {
            resident,
            anonymous: field("RssAnon:").unwrap_or(resident),
        })
    }
}

/// User and system time of the calling thread, in seconds.
pub(crate) fn thread_cpu() -> Result<f64> {
    cpu_of("/proc/thread-self/stat")
}

/// Time that all cores of the machine were busy since it started, in seconds: what is neither this run's nor the
/// server's is somebody else's work, which spoils the figures.
pub(crate) fn machine_cpu() -> Result<f64> {
    let stat = fs::read_to_string("/proc/stat").context("/proc/stat")?;
    let ticks = busy_ticks(&stat).context("/proc/stat is not as proc(5) says")?;
    Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// Memory that the kernel itself holds in small objects, in bytes: sockets, their files and what waits on them.
pub(crate) fn kernel_objects() -> Result<u64> {
    let meminfo = fs::read_to_string("/proc/meminfo").context("/proc/meminfo")?;
    slab_bytes(&meminfo).context("/proc/meminfo has no Slab")
}

fn slab_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("Slab:"))?;
    let kilobytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kilobytes * 1024)
}

/// The first line: user, nice, system, idle, iowait, irq, softirq, steal. What follows is counted in those already.
fn busy_ticks(stat: &str) -> Option<u64> {
    let fields = stat
        .lines()
        .next()?
        .strip_prefix("cpu ")?
        .split_whitespace();
    let ticks: Vec<u64> = fields
        .take(8)
        .map(|field| field.parse().ok())
        .collect::<Option<_>>()?;
    let idle = ticks.get(3)? + ticks.get(4)?;
    Some(ticks.iter().sum::<u64>() - idle)
}

fn cpu_of(path: &str) -> Result<f64> {
    let stat = fs::read_to_string(path).with_context(|| path.to_owned())?;
    let ticks = ticks(&stat).with_context(|| format!("{path} is not as proc(5) says"))?;
    Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// Fields 14 and 15 (`utime`, `stime`). The second field, the name, may hold blanks and brackets.
fn ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_cpu_behind_a_name_with_blanks_and_brackets() {
        let stat = "42 (a b) c) S 1 42 42 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 1 0 100 0";
        assert_eq!(ticks(stat), Some(300));
        assert_eq!(ticks("nonsense"), None);
    }

    #[test]
    fn neither_idling_nor_waiting_is_busy() {
        assert_eq!(
            busy_ticks("cpu  10 1 20 5000 300 2 3 4 99 99\ncpu0 1"),
            Some(40)
        );
        assert_eq!(busy_ticks("cpu"), None);
    }

    #[test]
    fn reads_what_the_kernel_holds() {
        let meminfo = "MemTotal:  100 kB\nSlab:             2 kB\nSReclaimable:  1 kB\n";
        assert_eq!(slab_bytes(meminfo), Some(2048));
        assert_eq!(slab_bytes("MemTotal: 100 kB"), None);
    }

    #[test]
    fn reads_its_own_figures() {
        let own = Process::own();
        assert!(own.cpu().expect("/proc is there") >= 0.0);
        let memory = own.memory().expect("/proc is there");
        assert!(memory.resident >= memory.anonymous && memory.anonymous > 0);
        assert!(thread_cpu().expect("/proc is there") >= 0.0);
    }
}
