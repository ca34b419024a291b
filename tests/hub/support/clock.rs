//! Nodes whose clocks are wrong.

use std::path::PathBuf;

/// Where Debian has the library that gives a process another clock.
fn libfaketime() -> PathBuf {
    let folders = std::fs::read_dir("/usr/lib").expect("a directory");
    let mut libraries = folders
        .flatten()
        .map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"))
        .filter(|library| library.exists());
    libraries
        .next()
        .expect("libfaketime is installed: tests/run does that")
}

/// Variables of a node whose clock is so far off, as `+1h` or `-300`.
pub(crate) fn other_clock(off: &'static str) -> [(&'static str, &'static str); 3] {
    [
        ("LD_PRELOAD", libfaketime().display().to_string().leak()),
        ("FAKETIME", off),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ]
}
