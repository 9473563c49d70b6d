//! Criterion's view of the store: put, get, exist and batches, on one and two threads, beside `memcpy` and the bare streaming copy of the
//! same buffers. For ratios that hold on a noisy machine see `ratios.rs`, which alternates what it compares.

mod support;

use std::ffi::c_void;
use std::time::{Duration, Instant};

use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime};

use support::{GIB, KIB, Key, MIB, Memory, Store, key, key_of, shuffled};

/// The caller's buffers, the pool, and memory for the bare copies: each larger than what a core caches.
const ROOM: usize = GIB / 2;
const BATCH: usize = 128;

/// One size of object, with everything prepared.
struct Bench {
    size: usize,
    count: usize,
    keys: Vec<Key>,
    order: Vec<usize>,
    buffers: Memory,
    other: Memory,
    store: Store,
}

impl Bench {
    fn new(size: usize) -> Bench {
        let count = ROOM / size;
        Bench {
            size,
            count,
            keys: (0..count as u64).map(key).collect(),
            order: shuffled(count),
            buffers: Memory::new(ROOM),
            other: Memory::new(ROOM),
            store: Store::of(ROOM + ROOM / 8),
        }
    }

    fn buffer(&self, number: usize) -> *mut u8 {
        self.buffers.piece(self.order[number % self.count], self.size)
    }

    /// Time of `act` for `iterations` numbers, dealt to threads in rounds of at most `count`; `between` rounds the clock stands still.
    fn time(&self, iterations: u64, threads: usize, between: impl Fn(), act: impl Fn(&[usize]) + Sync) -> Duration {
        let mut left = iterations as usize;
        let mut total = Duration::ZERO;
        while left > 0 {
            let round: Vec<usize> = (0..left.min(self.count)).collect();
            left -= round.len();
            between();
            let start = Instant::now();
            std::thread::scope(|scope| {
                for part in round.chunks(round.len().div_ceil(threads)) {
                    let act = &act;
                    scope.spawn(move || part.chunks(BATCH).for_each(act));
                }
            });
            total += start.elapsed();
        }
        total
    }

    fn put(&self, numbers: &[usize]) {
        numbers
            .iter()
            .for_each(|number| self.store.put(&self.keys[*number], self.buffer(*number), self.size));
    }

    fn get(&self, numbers: &[usize]) {
        numbers
            .iter()
            .for_each(|number| self.store.get(&self.keys[*number], self.buffer(*number), self.size));
    }

    fn batch_put(&self, numbers: &[usize]) {
        let keys: Vec<_> = numbers.iter().map(|number| key_of(&self.keys[*number])).collect();
        let data: Vec<*const c_void> = numbers
            .iter()
            .map(|number| self.buffer(*number).cast_const().cast())
            .collect();
        self.store
            .batch_put(&keys, &data, &vec![self.size; keys.len()], &mut vec![0; keys.len()]);
    }

    fn batch_get(&self, numbers: &[usize]) {
        let keys: Vec<_> = numbers.iter().map(|number| key_of(&self.keys[*number])).collect();
        let data: Vec<*mut c_void> = numbers.iter().map(|number| self.buffer(*number).cast()).collect();
        self.store
            .batch_get(&keys, &data, &vec![self.size; keys.len()], &mut vec![0; keys.len()]);
    }

    fn run(&self, group: &mut BenchmarkGroup<'_, WallTime>, threads: usize) {
        let name = |what: &str| format!("{what} x{threads}");
        let nothing = || ();
        group.bench_function(name("memcpy"), |bencher| {
            bencher.iter_custom(|iterations| {
                self.time(iterations, threads, nothing, |numbers| {
                    for number in numbers {
                        let (from, to) = (self.buffer(*number), self.other.piece(*number, self.size));
                        // SAFETY: pieces of two separate memories.
                        unsafe { std::ptr::copy_nonoverlapping(from, to, self.size) };
                    }
                })
            });
        });
        group.bench_function(name("streaming copy"), |bencher| {
            bencher.iter_custom(|iterations| {
                self.time(iterations, threads, nothing, |numbers| {
                    for number in numbers {
                        let (from, to) = (self.buffer(*number), self.other.piece(*number, self.size));
                        // SAFETY: pieces of two separate memories.
                        unsafe { mmc::copy::streaming_copy(to, from, self.size) };
                    }
                })
            });
        });
        let clear = || self.store.clear();
        group.bench_function(name("put"), |bencher| {
            bencher.iter_custom(|iterations| self.time(iterations, threads, clear, |numbers| self.put(numbers)));
        });
        group.bench_function(name("batch-128 put"), |bencher| {
            bencher.iter_custom(|iterations| self.time(iterations, threads, clear, |numbers| self.batch_put(numbers)));
        });
        self.store.clear();
        self.put(&(0..self.count).collect::<Vec<_>>());
        group.bench_function(name("get"), |bencher| {
            bencher.iter_custom(|iterations| self.time(iterations, threads, nothing, |numbers| self.get(numbers)));
        });
        group.bench_function(name("batch-128 get"), |bencher| {
            bencher
                .iter_custom(|iterations| self.time(iterations, threads, nothing, |numbers| self.batch_get(numbers)));
        });
    }
}

fn data(criterion: &mut Criterion) {
    for size in [4 * KIB, 64 * KIB, MIB, 4 * MIB] {
        let bench = Bench::new(size);
        let text = if size >= MIB {
            format!("{} MiB", size / MIB)
        } else {
            format!("{} KiB", size / KIB)
        };
        let mut group = criterion.benchmark_group(text);
        group.throughput(Throughput::Bytes(size as u64));
        group
            .sample_size(10)
            .warm_up_time(Duration::from_millis(300))
            .measurement_time(Duration::from_secs(1));
        for threads in [1, 2] {
            bench.run(&mut group, threads);
        }
        group.finish();
    }
}

fn look_ups(criterion: &mut Criterion) {
    const KEYS: usize = 1_000_000;
    let store = Store::of((KEYS * 4 * KIB + 64 * MIB).next_multiple_of(2 * MIB));
    let keys: Vec<Key> = (0..2 * KEYS as u64).map(key).collect();
    keys[..KEYS].iter().for_each(|key| store.put(key, [1u8].as_ptr(), 1));
    let order = shuffled(KEYS);
    let mut group = criterion.benchmark_group("exist of 1000000");
    group
        .throughput(Throughput::Elements(1))
        .sample_size(10)
        .measurement_time(Duration::from_secs(2));
    for (what, keys, code) in [
        ("hit", &keys[..KEYS], 0),
        ("miss", &keys[KEYS..], mmc::error::MMC_ERR_NOT_FOUND),
    ] {
        let mut numbers = order.iter().cycle();
        group.bench_function(what, |bencher| {
            bencher.iter(|| {
                let number = *numbers.next().expect("the order goes round");
                assert_eq!(store.exist(&keys[number]), code);
            });
        });
    }
    group.finish();
}

criterion_group!(benches, data, look_ups);
criterion_main!(benches);
