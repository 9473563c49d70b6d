//! The way to an SSD segment and back, against `fio` on the same file with the same block size and depth, and what spilling takes of puts.
//!
//! `fio` must be installed. Each row alternates with what it is compared to, and is the median of the rounds' ratios. One JSON line a row
//! on standard output, a table on standard error.
//!
//!     cargo bench --bench media -- [--file PATH] [--rounds N] [--only TEXT]

mod support;

use std::ffi::{CString, c_void};
use std::process::Command;
use std::ptr;
use std::time::Instant;

use mmc::ffi::types::*;
use mmc::ffi::{batches, report, segments};
use support::{GIB, KIB, Key, MIB, Memory, Setting, Store, check, key, key_of};

/// Bytes that one row moves.
const ROW: usize = GIB / 2;
/// Bytes of the file, which `fio` uses as a whole.
const FILE: usize = GIB;
/// What a call of the library has under way on a file: its threads, and the caller.
const DEPTH: usize = 9;
/// Bytes at which a larger object is read and written in parts.
const PART: usize = MIB;

struct Arguments {
    file: String,
    rounds: usize,
    only: String,
}

impl Arguments {
    fn read() -> Arguments {
        let file = std::env::temp_dir().join(format!("mmc-bench-{}", std::process::id()));
        let mut arguments = Arguments {
            file: file.display().to_string(),
            rounds: 5,
            only: String::new(),
        };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let mut value = || words.next().unwrap_or_else(|| usage(&format!("{word} needs a value")));
            match word.as_str() {
                "--file" => arguments.file = value(),
                "--rounds" => arguments.rounds = value().parse().unwrap_or_else(|_| usage("--rounds takes a number")),
                "--only" => arguments.only = value(),
                // What cargo itself passes on.
                "--bench" => {}
                _ => usage(&format!("{word} is not an option")),
            }
        }
        arguments
    }

    /// Measures a row if it is wanted: bytes a second of ours and theirs, a round each.
    fn row(&self, row: &str, against: &str, mut ours: impl FnMut() -> f64, mut theirs: impl FnMut() -> f64) {
        if !row.contains(&self.only) {
            return;
        }
        let rounds: Vec<(f64, f64)> = (0..self.rounds).map(|_| (ours(), theirs())).collect();
        let ratio = median(rounds.iter().map(|(ours, theirs)| ours / theirs));
        let speed = median(rounds.iter().map(|(ours, _)| *ours)) / MIB as f64;
        println!(
            "{{\"row\":\"{row}\",\"against\":\"{against}\",\"speed_ratio\":{ratio:.3},\"mib_per_second\":{speed:.0}}}"
        );
        eprintln!("{row:<36} {ratio:6.2} x {against:<24} {speed:8.0} MiB/s");
    }
}

fn usage(reason: &str) -> ! {
    eprintln!("{reason}\nusage: media [--file PATH] [--rounds N] [--only TEXT]");
    std::process::exit(2)
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// What `fio` does with the file: bytes a second.
fn fio(file: &str, mode: &str, block: usize, depth: usize) -> f64 {
    let output = Command::new("fio")
        .args(["--name=row", "--direct=1", "--ioengine=libaio"])
        .args(["--output-format=terse", "--terse-version=3"])
        .arg(format!("--filename={file}"))
        .arg(format!("--rw={mode}"))
        .arg(format!("--bs={block}"))
        .arg(format!("--iodepth={depth}"))
        .arg(format!("--size={FILE}"))
        .arg(format!("--io_size={ROW}"))
        .output()
        .unwrap_or_else(|error| usage(&format!("fio can't be run: {error}")));
    let text = String::from_utf8_lossy(&output.stdout);
    // KiB a second of reads, and of writes.
    let field = if mode.contains("read") { 6 } else { 47 };
    let speed = text.split(';').nth(field).and_then(|field| field.parse::<f64>().ok());
    speed.unwrap_or_else(|| usage(&format!("fio said {text}"))) * KIB as f64
}

/// Registers an SSD segment over the file.
fn add_ssd(store: &Store, file: &str) {
    let path = CString::new(file).expect("a path has no zero byte");
    // SAFETY: a struct of integers and pointers, borrowed for the call.
    unsafe {
        let mut options: mmc_segment_options = std::mem::zeroed();
        options.struct_size = size_of::<mmc_segment_options>() as u32;
        options.medium = MMC_MEDIUM_SSD;
        options.capacity = FILE as u64;
        options.path = path.as_ptr();
        check(segments::mmc_register_segment(store.0, &options, ptr::null_mut()));
    }
}

fn evict(store: &Store, names: &[mmc_key]) {
    for part in names.chunks(1024) {
        let mut results = vec![0; part.len()];
        let (from, to) = (MMC_MEDIUM_DRAM, MMC_MEDIUM_SSD);
        // SAFETY: arrays of as many elements.
        check(unsafe { batches::mmc_evict(store.0, part.as_ptr(), part.len(), from, to, 0, results.as_mut_ptr()) });
        assert!(results.iter().all(|code| *code == 0));
    }
}

/// Runs `act`, which moves the bytes of a row, and gives them a second.
fn speed(act: impl FnOnce()) -> f64 {
    let start = Instant::now();
    act();
    ROW as f64 / start.elapsed().as_secs_f64()
}

/// Moves and reads of objects of one size.
fn moves(arguments: &Arguments, size: usize) {
    let name = match size {
        MIB.. => format!("{} MiB", size / MIB),
        _ => format!("{} KiB", size / KIB),
    };
    let keys: Vec<Key> = (0..(ROW / size) as u64).map(key).collect();
    let names: Vec<mmc_key> = keys.iter().map(|key| key_of(key)).collect();
    let buffers = Memory::new(128 * MIB);
    let open = || {
        let store = Store::of(ROW + ROW / 8);
        add_ssd(&store, &arguments.file);
        for (number, key) in keys.iter().enumerate() {
            store.put(key, buffers.piece(number, size), size);
        }
        store
    };
    arguments.row(
        &format!("move down, {name}"),
        &format!("fio write, depth {DEPTH}"),
        || {
            let store = open();
            speed(|| evict(&store, &names))
        },
        || fio(&arguments.file, "write", size.min(PART), DEPTH),
    );
    let order = support::shuffled(names.len());
    for batch in [128 * MIB / size, 1] {
        let batch = batch.min(64);
        let depth = (batch * size.div_ceil(PART)).min(DEPTH);
        arguments.row(
            &format!("get from SSD, {name}, {batch} a call"),
            &format!("fio randread, depth {depth}"),
            || {
                let store = open();
                evict(&store, &names);
                speed(|| {
                    order
                        .chunks(batch)
                        .for_each(|part| get(&store, part, &names, &buffers, size))
                })
            },
            || fio(&arguments.file, "randread", size.min(PART), depth),
        );
    }
}

fn get(store: &Store, numbers: &[usize], names: &[mmc_key], buffers: &Memory, size: usize) {
    let names: Vec<mmc_key> = numbers.iter().map(|number| names[*number]).collect();
    let data: Vec<*mut c_void> = (0..numbers.len())
        .map(|place| buffers.piece(place, size).cast())
        .collect();
    store.batch_get(&names, &data, &vec![size; numbers.len()], &mut vec![0; numbers.len()]);
}

/// Puts into a full pool that spills, against puts into one that drops.
fn spill(arguments: &Arguments, size: usize) {
    let pool = GIB / 2;
    let buffers = Memory::new(128 * MIB);
    let run = |has_ssd: bool| {
        let store = Store::open(&Setting {
            dram: pool,
            memory: 0,
            watermark_high: 90,
            watermark_low: 80,
        });
        if has_ssd {
            add_ssd(&store, &arguments.file);
        }
        let put = |number: usize| store.put(&key(number as u64), buffers.piece(number, size), size);
        (0..pool / size).for_each(put);
        let before = statistics(&store);
        let speed = speed(|| (pool / size..(pool + ROW) / size).for_each(put));
        let after = statistics(&store);
        if has_ssd {
            let moved = (after.moved_bytes - before.moved_bytes) as usize / MIB;
            let dropped = (after.spill_drops - before.spill_drops) as usize * size / MIB;
            eprintln!("    meanwhile {moved} MiB have moved, and {dropped} MiB were dropped as the disk was the limit");
        }
        speed
    };
    let name = format!("puts of {} KiB that spill", size / KIB);
    arguments.row(&name, "puts that drop", || run(true), || run(false));
}

fn statistics(store: &Store) -> mmc_statistics {
    // SAFETY: integers, all of which may be zero.
    let mut statistics: mmc_statistics = unsafe { std::mem::zeroed() };
    statistics.struct_size = size_of::<mmc_statistics>() as u32;
    // SAFETY: a struct of this size.
    check(unsafe { report::mmc_stats(store.0, &mut statistics) });
    statistics
}

fn main() {
    let arguments = Arguments::read();
    for size in [64 * KIB, MIB, 4 * MIB] {
        moves(&arguments, size);
    }
    for size in [64 * KIB, MIB] {
        spill(&arguments, size);
    }
    let _ = std::fs::remove_file(&arguments.file);
}
