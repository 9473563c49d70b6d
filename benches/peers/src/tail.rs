//! The slowest gets: 64 KiB, while another thread puts and evicts.
//!
//! One thread gets what was put lately, each get with its own clock; another puts without a pause into a cache that is full. The tail of
//! such a run has the machine in it. So the bare streaming copy runs the same way, against a thread that streams: what it shows, no cache
//! can be better than.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::Setting;
use crate::cache::Cache;
use crate::contestants::{EVICTING, With, make};
use crate::report::{Operation, Report, median, quantile};
use crate::support::{GIB, KIB, Memory, Store, key};

const SIZE: usize = 64 * KIB;
const MEDIAN: &str = "get beside evicting puts, median";
const TAIL: &str = "get beside evicting puts, p99.9";

/// One get by number, and one put; a get that finds nothing is not counted.
trait Pair: Sync {
    fn put(&self, number: u64);
    fn get(&self, number: u64) -> bool;
}

struct Cached<'a, C> {
    cache: C,
    memory: &'a Memory,
}

impl<C: Cache> Pair for Cached<'_, C> {
    fn put(&self, number: u64) {
        // SAFETY: a piece of the first half, which is only read.
        let bytes = unsafe { std::slice::from_raw_parts(half(self.memory, 0, number), SIZE) };
        self.cache.put(&key(number), bytes);
    }

    fn get(&self, number: u64) -> bool {
        // SAFETY: a piece of the second half, which only this thread writes.
        let room = unsafe { std::slice::from_raw_parts_mut(half(self.memory, 1, number), SIZE) };
        self.cache.get(&key(number), room)
    }
}

/// The copies alone.
struct Streams<'a> {
    memory: &'a Memory,
    pool: &'a Memory,
}

impl Pair for Streams<'_> {
    fn put(&self, number: u64) {
        // SAFETY: of the first halves only this side's is written, and only by this thread.
        unsafe { mmc::copy::streaming_copy(half(self.pool, 0, number), half(self.memory, 0, number), SIZE) };
    }

    fn get(&self, number: u64) -> bool {
        // SAFETY: of the second halves only the caller's is written, and only by this thread.
        unsafe { mmc::copy::streaming_copy(half(self.memory, 1, number), half(self.pool, 1, number), SIZE) };
        true
    }
}

/// A piece of the first or second half, at a place that no prefetcher guesses.
fn half(memory: &Memory, which: usize, number: u64) -> *mut u8 {
    let pieces = memory.len / SIZE / 2;
    let scattered = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    memory.piece(which * pieces + scattered as usize % pieces, SIZE)
}

/// Runs both threads for a while and returns the median and the 99.9th percentile of a get in seconds.
fn window(pair: &dyn Pair, length: Duration, next: &AtomicU64, kept: u64) -> [f64; 2] {
    let is_over = AtomicBool::new(false);
    let mut times = Vec::with_capacity(1 << 20);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Relaxed) {
                pair.put(next.load(Relaxed));
                next.fetch_add(1, Relaxed);
            }
        });
        let (begin, mut state) = (Instant::now(), 0x2545_f491_4f6c_dd1du64);
        while begin.elapsed() < length {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let number = next.load(Relaxed).saturating_sub(1 + state % kept);
            let start = Instant::now();
            let is_hit = pair.get(number);
            let time = start.elapsed();
            if is_hit {
                times.push(time.as_secs_f64());
            }
        }
        is_over.store(true, Relaxed);
    });
    if times.is_empty() {
        return [f64::NAN; 2];
    }
    [median(times.iter().copied()), quantile(times, 0.999)]
}

struct Boxed<'a>(&'a Memory);

impl<'a> With for Boxed<'a> {
    type Result = Box<dyn Pair + 'a>;
    fn with<C: Cache + 'static>(self, cache: C) -> Self::Result {
        Box::new(Cached { cache, memory: self.0 })
    }
}

pub fn measure(report: &Report, setting: &Setting) {
    if !setting.wants(&[MEDIAN, TAIL]) {
        return;
    }
    report.begin("gets beside evicting puts");
    let room = setting.pool / 4;
    let (memory, pool) = (Memory::new(GIB / 4), Memory::new(GIB / 4));
    let mut all: Vec<(&str, Box<dyn Pair + '_>)> = vec![
        (
            "streaming copy",
            Box::new(Streams {
                memory: &memory,
                pool: &pool,
            }),
        ),
        (
            "mmc",
            Box::new(Cached {
                cache: Store::of(room),
                memory: &memory,
            }),
        ),
    ];
    for name in EVICTING {
        all.push((name, make(name, room, room / SIZE, Boxed(&memory))));
    }
    let objects = (room / SIZE) as u64;
    let length = Duration::from_millis(if setting.is_quick { 400 } else { 700 });
    let numbers: Vec<AtomicU64> = all.iter().map(|_| AtomicU64::new(0)).collect();
    for ((_, pair), next) in all.iter().zip(&numbers) {
        (0..objects).for_each(|number| pair.put(number));
        next.store(objects, Relaxed);
    }
    let places: Vec<usize> = (0..all.len()).collect();
    let columns = crate::report::alternate(setting.rounds, &places, |_, place| {
        window(&*all[*place].1, length, &numbers[*place], objects / 4)
    });
    for ((name, _), [medians, tails]) in all.iter().zip(&columns) {
        let ratio = median(tails.iter().zip(medians).map(|(tail, median)| tail / median));
        for (what, values, ratio) in [(MEDIAN, medians, 1.0), (TAIL, tails, ratio)] {
            let operation = Operation {
                name: what,
                bytes: SIZE,
                count: 1,
            };
            report.value(
                name,
                &operation,
                median(values.iter().copied()) * 1e9,
                "ns",
                "its median",
                ratio,
            );
        }
    }
}
