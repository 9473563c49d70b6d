//! Bytes of memory that an object costs beside its value, at a million objects with keys of 64 bytes.
//!
//! Each contestant is filled in a process of its own, where no other has left free heap behind, and the figure is what the process grew by
//! in private memory, less the values. mmc's pool is shared memory and so not in it; its own count, `mmc_stats.metadata`, stands beside.

use std::process::Command;

use mmc::ffi::report::mmc_stats;
use mmc::ffi::types::mmc_statistics;

use crate::Setting;
use crate::cache::Cache;
use crate::contestants::{PEERS, With, make};
use crate::look_ups::{OBJECTS, SMALL, fill};
use crate::report::{Operation, Report};
use crate::span::Span;
use crate::support::{Store, check, key};

const GROWTH: &str = "memory an object beside its value";
const OWN_COUNT: &str = "mmc_stats.metadata an object";

/// Fills a cache; `before` is what the process had when there was none.
struct Fill {
    before: f64,
}

impl With for Fill {
    type Result = f64;
    fn with<C: Cache + 'static>(self, cache: C) -> f64 {
        fill(&cache);
        assert!(cache.has(&key(1)));
        private_bytes() - self.before
    }
}

/// Fills the contestant of this name and prints what the process grew by in bytes an object, values left out, and what mmc says it took.
pub fn of(name: &str) {
    let (grown, own) = if name == "mmc" {
        let span = Span::new(OBJECTS);
        let before = private_bytes();
        let store = span.store();
        fill(&store);
        (private_bytes() - before, metadata(&store))
    } else {
        let before = private_bytes();
        // Room for half as much again, because shards fill unevenly and none may be evicted; tables for no more objects than there are.
        let grown = make(name, OBJECTS * SMALL * 3 / 2, OBJECTS, Fill { before });
        (grown - (OBJECTS * SMALL) as f64, 0.0)
    };
    println!("{} {}", grown / OBJECTS as f64, own / OBJECTS as f64);
}

/// Bytes of private memory that this process has touched.
fn private_bytes() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("a /proc");
    let line = status
        .lines()
        .find(|line| line.starts_with("RssAnon:"))
        .expect("RssAnon");
    let number = line.split_whitespace().nth(1).expect("a number");
    number.parse::<f64>().expect("a number") * 1024.0
}

fn metadata(store: &Store) -> f64 {
    // SAFETY: a struct of this header's size.
    unsafe {
        let mut statistics: mmc_statistics = std::mem::zeroed();
        statistics.struct_size = size_of::<mmc_statistics>() as u32;
        check(mmc_stats(store.0, &mut statistics));
        statistics.metadata as f64
    }
}

pub fn measure(report: &Report, setting: &Setting) {
    if !setting.wants(&[GROWTH, OWN_COUNT]) {
        return;
    }
    report.begin("memory an object takes");
    let program = std::env::current_exe().expect("this program");
    let sizes = ["mmc"].iter().chain(&PEERS).map(|name| {
        let output = Command::new(&program)
            .args(["footprint", name])
            .output()
            .expect("a process");
        assert!(
            output.status.success(),
            "{name}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let text = String::from_utf8(output.stdout).expect("numbers");
        let numbers: Vec<f64> = text
            .split_whitespace()
            .map(|number| number.parse().expect("a number"))
            .collect();
        (*name, numbers[0], numbers[1])
    });
    let sizes: Vec<(&str, f64, f64)> = sizes.collect();
    let (_, mmc, own) = sizes[0];
    let operation = |name| Operation {
        name,
        bytes: 0,
        count: OBJECTS,
    };
    for (name, grown, _) in &sizes {
        report.value(name, &operation(GROWTH), *grown, "bytes", "mmc", grown / mmc);
    }
    report.value("mmc", &operation(OWN_COUNT), own, "bytes", "what it grew by", own / mmc);
}
