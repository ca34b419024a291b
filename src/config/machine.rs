//! What the machine, or the container on it, gives: the defaults of some variables follow from it.

use std::num::NonZero;
use std::path::Path;

/// Memory, cores and files of this process, and where it stands.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Cores that may be used.
    pub cores: usize,
    /// Bytes of memory that may be used: the least of the control groups' limits and of what is built in.
    pub memory_bytes: u64,
    /// The most open files that the process may raise its limit to.
    pub open_files: u64,
    /// The host's name.
    pub host_name: String,
    /// This process.
    pub process_id: u32,
    /// Whether somebody looks at the output.
    pub is_terminal: bool,
}

/// What is assumed where nothing can be asked (not Linux).
const MEMORY_UNKNOWN: u64 = 1024 * 1024 * 1024;

impl Machine {
    /// Asks the system.
    pub fn probe() -> Self {
        use std::io::IsTerminal;
        let read = |path: &str| std::fs::read_to_string(path).ok();
        Self {
            cores: std::thread::available_parallelism().map_or(1, NonZero::get),
            memory_bytes: memory(&read),
            open_files: open_files(),
            host_name: host_name(&read),
            process_id: std::process::id(),
            is_terminal: std::io::stdout().is_terminal(),
        }
    }
}

fn open_files() -> u64 {
    // The server raises the soft limit to the hard one. No limit at all still means what one process can use.
    const ENOUGH: u64 = 1_048_576;
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.maximum.unwrap_or(ENOUGH).min(ENOUGH)
}

fn host_name(read: &dyn Fn(&str) -> Option<String>) -> String {
    ["/proc/sys/kernel/hostname", "/etc/hostname"]
        .iter()
        .find_map(|path| read(path))
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "node".to_owned())
}

fn memory(read: &dyn Fn(&str) -> Option<String>) -> u64 {
    let limits = control_group_files(read)
        .into_iter()
        .filter_map(|path| read(&path)?.trim().parse().ok());
    limits
        .chain(read("/proc/meminfo").and_then(|text| total(&text)))
        .min()
        .unwrap_or(MEMORY_UNKNOWN)
}

/// `MemTotal` of `/proc/meminfo`, which is in KiB.
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find(|line| line.starts_with("MemTotal:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    kib.checked_mul(1024)
}

/// Where limits of our control group and of those above it may stand. Version 2 says `max` for none, which is no number;
/// version 1 says a number near 2^63, which never is the least.
fn control_group_files(read: &dyn Fn(&str) -> Option<String>) -> Vec<String> {
    let groups = read("/proc/self/cgroup").unwrap_or_default();
    let mut files = vec![
        "/sys/fs/cgroup/memory.max".to_owned(),
        "/sys/fs/cgroup/memory/memory.limit_in_bytes".to_owned(),
    ];
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next(), fields.next().unwrap_or_default());
        let (root, file) = match controllers {
            Some("") => ("/sys/fs/cgroup", "memory.max"),
            Some(list) if list.split(',').any(|one| one == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        let above = Path::new(path).ancestors().filter_map(Path::to_str);
        files.extend(
            above
                .filter(|group| *group != "/")
                .map(|group| format!("{root}{group}/{file}")),
        );
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMINFO: &str = "MemTotal:       16384 kB\nMemFree:         100 kB\n";

    fn check(files: &[(&str, &str)], expected: u64) {
        let read = |path: &str| {
            files
                .iter()
                .find(|(name, _)| *name == path)
                .map(|(_, text)| (*text).to_owned())
        };
        assert_eq!(memory(&read), expected, "{files:?}");
    }

    #[test]
    fn memory_is_the_least_of_groups_and_machine() {
        check(&[], MEMORY_UNKNOWN);
        check(&[("/proc/meminfo", MEMINFO)], 16_777_216);
        check(
            &[
                ("/proc/meminfo", MEMINFO),
                ("/sys/fs/cgroup/memory.max", "max\n"),
            ],
            16_777_216,
        );
        check(
            &[
                ("/proc/meminfo", MEMINFO),
                ("/sys/fs/cgroup/memory.max", "1000000\n"),
            ],
            1_000_000,
        );
    }

    #[test]
    fn groups_above_ours_count_in_both_versions() {
        check(
            &[
                ("/proc/meminfo", MEMINFO),
                ("/proc/self/cgroup", "0::/a/b\n"),
                ("/sys/fs/cgroup/a/b/memory.max", "max\n"),
                ("/sys/fs/cgroup/a/memory.max", "5000\n"),
            ],
            5000,
        );
        check(
            &[
                ("/proc/meminfo", MEMINFO),
                ("/proc/self/cgroup", "3:cpu:/x\n2:memory,hugetlb:/d/c\n"),
                ("/sys/fs/cgroup/memory/d/c/memory.limit_in_bytes", "7000\n"),
                (
                    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
                    "9223372036854771712\n",
                ),
            ],
            7000,
        );
    }

    #[test]
    fn this_machine_has_something() {
        let machine = Machine::probe();
        assert!(machine.cores > 0 && machine.memory_bytes > 0 && machine.open_files > 0);
        assert!(!machine.host_name.is_empty());
    }
}
