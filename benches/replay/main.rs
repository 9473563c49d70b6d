//! Prefix hit ratios on real traces: the store's policies, through the C ABI, beside other ones and the clairvoyant bound.
//!
//! A pool has room for 1, 2, 5, 10, 20 and 50 % of a trace's unique blocks; a figure is prefix hits over block references. One JSON line a
//! row on standard output, a table on standard error. The traces are every `*.kvt.gz` of a directory.
//!
//!     cargo bench --bench replay -- [--traces DIRECTORY] [--policy NAME]...

mod compared;
#[path = "../support/replay.rs"]
mod replay;
#[path = "../support/trace.rs"]
mod trace;

use std::path::{Path, PathBuf};

use mmc::ffi::types::{MMC_EVICTION_ADAPTIVE, MMC_EVICTION_PREFIX};
use trace::Trace;

const PERCENTS: [usize; 6] = [1, 2, 5, 10, 20, 50];

/// Prefix hits of a trace in a pool of some capacity, in blocks.
type Policy = Box<dyn Fn(&Trace, usize) -> usize>;

/// A row of the table for each.
fn policies() -> Vec<(&'static str, Policy)> {
    let store = |policy: u32| -> Policy { Box::new(move |trace, capacity| replay::replay(trace, capacity, policy)) };
    let simulated = compared::SIMULATIONS.map(|(name, simulate)| (name, Box::new(simulate) as Policy));
    simulated
        .into_iter()
        .chain([
            ("prefix", store(MMC_EVICTION_PREFIX)),
            ("adaptive", store(MMC_EVICTION_ADAPTIVE)),
            ("opt", Box::new(compared::opt) as Policy),
        ])
        .collect()
}

struct Arguments {
    traces: PathBuf,
    /// Every policy when there are none.
    only: Vec<String>,
}

impl Arguments {
    fn read() -> Arguments {
        let mut arguments = Arguments {
            traces: Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data"),
            only: Vec::new(),
        };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let mut value = || words.next().unwrap_or_else(|| usage(&format!("{word} needs a value")));
            match word.as_str() {
                "--traces" => arguments.traces = value().into(),
                "--policy" => arguments.only.push(value()),
                // What cargo itself passes on.
                "--bench" => {}
                _ => usage(&format!("{word} is not an option")),
            }
        }
        for name in &arguments.only {
            if !policies().iter().any(|(policy, _)| policy == name) {
                usage(&format!("{name} is not a policy"));
            }
        }
        arguments
    }
}

fn usage(reason: &str) -> ! {
    let names: Vec<&str> = policies().iter().map(|(name, _)| *name).collect();
    eprintln!(
        "{reason}\nusage: replay [--traces DIRECTORY] [--policy NAME]...\npolicies: {}",
        names.join(", ")
    );
    std::process::exit(2)
}

/// The traces of a directory, by name.
fn traces(directory: &Path) -> Vec<(String, PathBuf)> {
    let entries =
        std::fs::read_dir(directory).unwrap_or_else(|error| usage(&format!("{}: {error}", directory.display())));
    let mut traces: Vec<_> = entries
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let name = path.file_name()?.to_str()?.strip_suffix(".kvt.gz")?.to_string();
            Some((name, path))
        })
        .collect();
    traces.sort();
    if traces.is_empty() {
        usage(&format!("{}: no *.kvt.gz there", directory.display()));
    }
    traces
}

fn main() {
    let arguments = Arguments::read();
    eprintln!(
        "| trace | policy | {} % |",
        PERCENTS.map(|percent| percent.to_string()).join(" | ")
    );
    eprintln!("| --- | --- |{}", " --- |".repeat(PERCENTS.len()));
    for (name, path) in traces(&arguments.traces) {
        let trace = Trace::read(&path, usize::MAX);
        for (policy, hits) in policies() {
            if !arguments.only.is_empty() && !arguments.only.iter().any(|only| only == policy) {
                continue;
            }
            let ratios = PERCENTS.map(|percent| {
                let ratio = hits(&trace, trace.share(percent)) as f64 / trace.references as f64;
                println!(
                    "{{\"trace\":\"{name}\",\"policy\":\"{policy}\",\"percent\":{percent},\"hit_ratio\":{ratio:.4}}}"
                );
                format!("{ratio:.4}")
            });
            eprintln!("| {name} | {policy} | {} |", ratios.join(" | "));
        }
    }
}
