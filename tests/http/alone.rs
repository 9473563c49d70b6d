//! A process for one test alone, and what belongs to a process: descriptors, threads, mapped memory.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

/// Set for a process that runs one test alone.
const ALONE: &str = "MMC_TEST_ALONE";

/// Runs `test` in a new process that has these variables in its environment. `path` is the test's own, with the crate's name before it.
pub fn run(path: &str, variables: &[(&str, &str)], test: impl FnOnce()) {
    if std::env::var_os(ALONE).is_some() {
        return test();
    }
    let (_, name) = path.split_once("::").unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--test-threads=1", "--nocapture", name])
        .envs(variables.iter().copied())
        .env(ALONE, name)
        .output()
        .unwrap();
    let (text, errors) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    let has_passed = output.status.success() && text.contains("1 passed");
    assert!(has_passed, "{name}: {}\n{text}\n{errors}", output.status);
}

pub fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

pub fn threads() -> usize {
    fs::read_dir("/proc/self/task").unwrap().count()
}

/// Bytes of address space that are mapped.
pub fn mapped_bytes() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').next().unwrap().parse::<u64>().unwrap() * 4096
}

/// Waits until something is so; fails when it is not within `within`.
pub fn wait_until(what: &str, within: Duration, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < within, "not within {within:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
