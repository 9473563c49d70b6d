//! The figures that the project claims, as ratios within one run.
//!
//! Every row is measured in alternating rounds with what it is compared to, on the same cold buffers, and reported as the median of the
//! rounds' ratios: the machine's mood hits both. One JSON line a row on standard output, a table on standard error.
//!
//!     cargo bench --bench ratios -- [--rounds N] [--only TEXT] [--keys N]

mod support;

use std::collections::HashSet;
use std::ffi::c_void;
use std::time::{Duration, Instant};

use mmc::ffi::types::{MMC_MEMORY_MEMFD, MMC_MEMORY_PRIVATE};
use support::{GIB, KIB, Key, MIB, Memory, Setting, Store, key, key_of, shuffled, zipf};

struct Arguments {
    rounds: usize,
    only: String,
    keys: usize,
}

impl Arguments {
    fn read() -> Arguments {
        let mut arguments = Arguments {
            rounds: 9,
            only: String::new(),
            keys: 1_000_000,
        };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let mut value = || words.next().unwrap_or_else(|| usage(&format!("{word} needs a value")));
            match word.as_str() {
                "--rounds" => arguments.rounds = value().parse().unwrap_or_else(|_| usage("--rounds takes a number")),
                "--keys" => arguments.keys = value().parse().unwrap_or_else(|_| usage("--keys takes a number")),
                "--only" => arguments.only = value(),
                // What cargo itself passes on.
                "--bench" => {}
                _ => usage(&format!("{word} is not an option")),
            }
        }
        arguments
    }
}

fn usage(reason: &str) -> ! {
    eprintln!("{reason}\nusage: ratios [--rounds N] [--only TEXT] [--keys N]");
    std::process::exit(2)
}

/// Prints the rows of a run.
struct Report {
    arguments: Arguments,
}

impl Report {
    fn wants(&self, row: &str) -> bool {
        row.contains(&self.arguments.only)
    }

    /// One row: `ours` against `theirs`, seconds of each round, for `operations` of `bytes` each.
    fn row(&self, row: &str, against: &str, ours: &[f64], theirs: &[f64], operations: usize, bytes: usize) {
        let ratio = median(ours.iter().zip(theirs).map(|(ours, theirs)| theirs / ours));
        let nanoseconds = median(ours.iter().copied()) * 1e9 / operations as f64;
        println!(
            "{{\"row\":\"{row}\",\"against\":\"{against}\",\"speed_ratio\":{ratio:.3},\"ns\":{nanoseconds:.1},\"bytes\":{bytes}}}"
        );
        let rate = match bytes {
            0 => format!("{:8.2} M/s", 1e3 / nanoseconds),
            _ => format!("{:8.2} GiB/s", bytes as f64 / nanoseconds * 1e9 / GIB as f64),
        };
        eprintln!("{row:<44} {ratio:6.2} x {against:<22} {nanoseconds:12.1} ns {rate}");
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn seconds(act: impl FnOnce()) -> f64 {
    let start = Instant::now();
    act();
    start.elapsed().max(Duration::from_nanos(1)).as_secs_f64()
}

/// Copies of the bytes of one size: put and get, single and batched, against the bare copies, on one and two threads.
fn data(report: &Report, size: usize, threads: usize) {
    let name = |what: &str| format!("{what} {} x{threads}", size_text(size));
    if !["put", "get", "batch"].iter().any(|what| report.wants(&name(what))) {
        return;
    }
    // The caller's buffers, the pool, and memory for the bare copies: half a gigabyte each, so that all are cold when their turn comes.
    let room = GIB / 2;
    let (buffers, other) = (Memory::new(room), Memory::new(room));
    let store = Store::of(room + room / 8);
    let count = (room / size).min(64 * KIB) / threads * threads;
    let keys: Vec<Key> = (0..count as u64).map(key).collect();
    let order = shuffled(room / size);
    let place = |number: usize| order[number % order.len()];

    let on_threads = |act: &(dyn Fn(usize) + Sync)| {
        seconds(|| {
            std::thread::scope(|scope| {
                for thread in 0..threads {
                    scope.spawn(move || (thread..count).step_by(threads).for_each(act));
                }
            });
        })
    };
    let batched = |act: &(dyn Fn(&[usize]) + Sync)| {
        let numbers: Vec<usize> = (0..count).collect();
        seconds(|| {
            std::thread::scope(|scope| {
                for part in numbers.chunks(count / threads) {
                    scope.spawn(move || part.chunks(128).for_each(act));
                }
            });
        })
    };
    let arrays = |numbers: &[usize]| {
        let keys: Vec<_> = numbers.iter().map(|number| key_of(&keys[*number])).collect();
        let data: Vec<*mut c_void> = numbers
            .iter()
            .map(|number| buffers.piece(place(*number), size).cast())
            .collect();
        (keys, data, vec![size; numbers.len()], vec![0; numbers.len()])
    };

    let mut times: Vec<[f64; 8]> = Vec::new();
    for round in 0..report.arguments.rounds + 1 {
        // Another start each round: no address is where the caches expect it.
        let at = |number: usize| place(number + round * 977);
        // The bare copies go the way that a put and a get go: between pieces of the caller's memory in no order, and a pool that was
        // filled and is read from its start.
        let bare = |copy: Copy, is_put: bool| {
            on_threads(&|number| {
                let (mine, pool) = (buffers.piece(at(number), size), other.piece(number, size));
                let (to, from) = if is_put { (pool, mine) } else { (mine, pool) };
                // SAFETY: pieces of two separate memories.
                unsafe { copy(to, from, size) };
            })
        };
        let [memcpy_in, memcpy_out] = [true, false].map(|is_put| bare(plain_copy, is_put));
        let [stream_in, stream_out] = [true, false].map(|is_put| bare(mmc::copy::streaming_copy, is_put));
        store.clear();
        let put = on_threads(&|number| store.put(&keys[number], buffers.piece(at(number), size), size));
        let get = on_threads(&|number| store.get(&keys[number], buffers.piece(at(number + 13), size), size));
        store.clear();
        let batch_put = batched(&|numbers| {
            let (keys, data, sizes, mut results) = arrays(numbers);
            let data: Vec<*const c_void> = data.into_iter().map(|data| data.cast_const()).collect();
            store.batch_put(&keys, &data, &sizes, &mut results);
        });
        let batch_get = batched(&|numbers| {
            let (keys, data, sizes, mut results) = arrays(numbers);
            store.batch_get(&keys, &data, &sizes, &mut results);
        });
        if round > 0 {
            times.push([
                memcpy_in, memcpy_out, stream_in, stream_out, put, get, batch_put, batch_get,
            ]);
        }
    }
    let column = |number: usize| times.iter().map(|row| row[number]).collect::<Vec<_>>();
    for (number, way, what) in [
        (4, 0, "put"),
        (5, 1, "get"),
        (6, 0, "batch-128 put"),
        (7, 1, "batch-128 get"),
    ] {
        report.row(&name(what), "memcpy", &column(number), &column(way), count, size);
        report.row(
            &name(what),
            "streaming copy",
            &column(number),
            &column(2 + way),
            count,
            size,
        );
    }
    report.row(&name("streaming copy"), "memcpy", &column(2), &column(0), count, size);
}

type Copy = unsafe fn(*mut u8, *const u8, usize);

/// What `memcpy` is, in the order of the streaming copy's arguments.
unsafe fn plain_copy(to: *mut u8, from: *const u8, bytes: usize) {
    // SAFETY: promised by the caller.
    unsafe { std::ptr::copy_nonoverlapping(from, to, bytes) };
}

/// A put that must evict against one that need not.
fn evicting(report: &Report, size: usize) {
    let row = format!("put that evicts {}", size_text(size));
    if !report.wants(&row) {
        return;
    }
    let room = GIB / 2;
    let buffers = Memory::new(room);
    let (roomy, full) = (Store::of(room), Store::of(room));
    let count = (room / size).min(32 * KIB);
    for number in 0..(room / size) as u64 {
        full.put(&key(number | 1 << 60), buffers.piece(number as usize, size), size);
    }
    let order = shuffled(room / size);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..report.arguments.rounds as u64 + 1 {
        roomy.clear();
        let keys: Vec<Key> = (0..count as u64).map(|number| key(number | round << 40)).collect();
        let put = |store: &Store| {
            seconds(|| {
                for (number, key) in keys.iter().enumerate() {
                    store.put(key, buffers.piece(order[number], size), size);
                }
            })
        };
        let (free, evicts) = (put(&roomy), put(&full));
        if round > 0 {
            theirs.push(free);
            ours.push(evicts);
        }
    }
    report.row(&row, "put that need not", &ours, &theirs, count, size);
}

/// Look-ups among many keys: hits and misses, single and batched, on one and two threads.
fn look_ups(report: &Report) {
    let count = report.arguments.keys;
    if !report.wants(&format!("exist hit of {count}")) && !report.wants("exist") {
        return;
    }
    // Every object is a byte, in a unit of 4096 that is never touched but for that.
    let store = Store::open(&Setting {
        dram: (count * 4 * KIB + 64 * MIB).next_multiple_of(2 * MIB),
        memory: 0,
        watermark_high: 100,
        watermark_low: 100,
    });
    (0..count as u64).for_each(|number| store.put(&key(number), [1u8].as_ptr(), 1));
    // Asked for in another order than they were put. The keys themselves lie in the order of asking: a caller has just made them.
    let order = shuffled(count);
    let there: Vec<Key> = order.iter().map(|number| key(*number as u64)).collect();
    let popular: Vec<Key> = zipf(count).into_iter().map(|number| key(number as u64)).collect();
    let absent: Vec<Key> = order.iter().map(|number| key((number + count) as u64)).collect();
    let ask = |keys: &[Key], code: i32, threads: usize| {
        seconds(|| {
            std::thread::scope(|scope| {
                for part in keys.chunks(count.div_ceil(threads)) {
                    let store = &store;
                    scope.spawn(move || assert!(part.iter().all(|key| store.exist(key) == code)));
                }
            });
        })
    };
    let ask_in_batches = |keys: &[Key]| {
        let mut results = [0; 128];
        seconds(|| {
            for part in keys.chunks(128) {
                let keys: Vec<_> = part.iter().map(|key| key_of(key)).collect();
                store.batch_exist(&keys, &mut results[..part.len()]);
            }
        })
    };
    let set: HashSet<Key> = (0..count as u64).map(key).collect();
    let ask_map = || seconds(|| assert!(there.iter().all(|key| set.contains(key))));
    let counting = || mmc::cost_of_counting(count, false).expect("memory for the counters");
    let mut times: Vec<[f64; 8]> = Vec::new();
    for round in 0..report.arguments.rounds + 1 {
        let row = [
            ask_map(),
            ask(&there, 0, 1),
            ask(&absent, mmc::error::MMC_ERR_NOT_FOUND, 1),
            ask(&there, 0, 2),
            ask_in_batches(&there),
            ask_in_batches(&absent),
            counting(),
            ask(&popular, 0, 1),
        ];
        if round > 0 {
            times.push(row);
        }
    }
    let column = |number: usize| times.iter().map(|row| row[number]).collect::<Vec<_>>();
    for (number, what) in [
        (7, "exist hit Zipf x1"),
        (1, "exist hit x1"),
        (2, "exist miss x1"),
        (3, "exist hit x2"),
        (4, "batch-128 exist hit"),
        (5, "batch-128 exist miss"),
    ] {
        report.row(
            &format!("{what} of {count}"),
            "std HashSet",
            &column(number),
            &column(0),
            count,
            0,
        );
    }
    // How many times an exist takes what its tracepoint and counters take.
    report.row(
        "tracepoint and counters of an exist",
        "Zipf exist hit",
        &column(6),
        &column(7),
        count,
        0,
    );
}

/// What a sealed memfd costs against private memory, both prefaulted.
fn memory(report: &Report, size: usize) {
    let name = |what: &str| format!("memfd {what} {}", size_text(size));
    if !["put", "get"].iter().any(|what| report.wants(&name(what))) {
        return;
    }
    let room = GIB / 2;
    let buffers = Memory::new(room);
    let open = |memory| {
        Store::open(&Setting {
            dram: room,
            memory,
            watermark_high: 100,
            watermark_low: 100,
        })
    };
    let (private, memfd) = (open(MMC_MEMORY_PRIVATE), open(MMC_MEMORY_MEMFD));
    let count = room / size;
    let keys: Vec<Key> = (0..count as u64).map(key).collect();
    let order = shuffled(count);
    let put = |store: &Store| {
        store.clear();
        seconds(|| (0..count).for_each(|number| store.put(&keys[number], buffers.piece(order[number], size), size)))
    };
    let get = |store: &Store| {
        seconds(|| (0..count).for_each(|number| store.get(&keys[order[number]], buffers.piece(number, size), size)))
    };
    // The first fill of a pool that was not prefaulted, as the default is.
    let fresh = |memory| {
        let setting = Setting {
            dram: room,
            memory,
            watermark_high: 100,
            watermark_low: 100,
        };
        put(&Store::open_lazily(&setting))
    };
    fresh(MMC_MEMORY_PRIVATE);
    let times: Vec<[f64; 6]> = (0..report.arguments.rounds)
        .map(|round| {
            // Memory that the kernel has not used lately costs more: neither goes first always, and the first of all is not counted.
            let (mut one, mut other) = (0.0, 0.0);
            for kind in if round % 2 == 0 { [0, 1] } else { [1, 0] } {
                match kind {
                    0 => one = fresh(MMC_MEMORY_PRIVATE),
                    _ => other = fresh(MMC_MEMORY_MEMFD),
                }
            }
            [put(&private), put(&memfd), get(&private), get(&memfd), one, other]
        })
        .collect();
    let column = |number: usize| times.iter().map(|row| row[number]).collect::<Vec<_>>();
    report.row(
        &name("put into fresh pages"),
        "private memory",
        &column(5),
        &column(4),
        count,
        size,
    );
    report.row(&name("put"), "private memory", &column(1), &column(0), count, size);
    report.row(&name("get"), "private memory", &column(3), &column(2), count, size);
}

fn size_text(bytes: usize) -> String {
    if bytes >= MIB {
        format!("{} MiB", bytes / MIB)
    } else {
        format!("{} KiB", bytes / KIB)
    }
}

fn main() {
    let report = Report {
        arguments: Arguments::read(),
    };
    eprintln!("kernel {}", mmc::copy::kernel_name());
    look_ups(&report);
    for size in [4 * KIB, 64 * KIB, MIB] {
        memory(&report, size);
    }
    for size in [4 * KIB, 64 * KIB, 256 * KIB, MIB, 4 * MIB] {
        for threads in [1, 2] {
            data(&report, size, threads);
        }
        evicting(&report, size);
    }
}
