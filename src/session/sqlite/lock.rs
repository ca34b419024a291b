//! One node at a time works with a data file. SQLite itself would let several: but they would not hear of each other, so a
//! logout at one would leave the sockets of the other open, and each would count logins for itself.
//!
//! The lock is on a file beside it: SQLite has locks of its own on the data file, which closing a second descriptor of it
//! would give up. The system frees it when the process ends, however it ends. Commands like `fanfare seed` take none.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::{FILE_MODE, IN_MEMORY, OpenError};

/// Held for as long as the value lives.
#[derive(Debug)]
pub struct FileLock {
    _held: Option<File>,
}

impl FileLock {
    /// Takes the lock of a data file; there is none in memory.
    ///
    /// # Errors
    /// When another process has it, or its file cannot be made.
    pub fn take(file: &str) -> Result<Self, OpenError> {
        if file == IN_MEMORY {
            return Ok(Self { _held: None });
        }
        let failed = |cause| OpenError::File {
            file: file.to_owned(),
            cause: sqlx::Error::Io(cause),
        };
        let path = lock_file(Path::new(file)).map_err(failed)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut lock = options.mode(FILE_MODE).open(path).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::Error(cause)) => return Err(failed(cause)),
            Err(TryLockError::WouldBlock) => {
                let mut process = String::new();
                // Who holds it may be about to write that.
                let _ = lock.read_to_string(&mut process);
                return Err(OpenError::InUse {
                    file: file.to_owned(),
                    process: process.trim().to_owned(),
                });
            }
        }
        // For whoever comes second; the lock holds without it.
        let _ = lock.rewind().and_then(|()| lock.set_len(0));
        let _ = writeln!(lock, "{}", std::process::id());
        Ok(Self { _held: Some(lock) })
    }
}

/// Whether a node could work with this data file, found out without making it or keeping anything: the folder must be there and take new
/// files, and a file that is there must be open to reading and writing.
///
/// # Errors
/// When it could not, as [`FileLock::take`] and opening the store would say.
pub fn check_data_file(file: &str) -> Result<(), OpenError> {
    if file == IN_MEMORY {
        return Ok(());
    }
    check_access(Path::new(file)).map_err(|cause| OpenError::File {
        file: file.to_owned(),
        cause: sqlx::Error::Io(cause),
    })
}

fn check_access(file: &Path) -> std::io::Result<()> {
    // Beside the data file stand its lock and SQLite's journal. Only making a file tells whether one can be made: rights
    // say nothing of quotas and of file systems that take none.
    let mut probe = lock_file(file)?.into_os_string();
    probe.push(".check");
    File::create(&probe)?;
    std::fs::remove_file(&probe)?;
    match OpenOptions::new().read(true).write(true).open(file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The same for all ways to write the path of a file.
fn lock_file(file: &Path) -> std::io::Result<PathBuf> {
    let whole = match file.canonicalize() {
        Ok(whole) => whole,
        Err(_) => {
            let parent = file
                .parent()
                .filter(|parent| !parent.as_os_str().is_empty());
            let parent = parent.unwrap_or(Path::new(".")).canonicalize()?;
            parent.join(file.file_name().unwrap_or_default())
        }
    };
    let mut name = whole.into_os_string();
    name.push(".lock");
    Ok(name.into())
}
