//! mmc's allocator beside `offset-allocator`, in the same units and with the same draws.
//!
//! It is the library's very source file that is compiled here. Both allocate in a pool of units, from equal sizes as KV blocks have and
//! from sizes of four kilobytes to a megabyte; two figures each: the time of an allocation and a free with two thirds of the pool in use,
//! and how much of a pool is used when an allocation first fails, while full pools churn.

use std::cell::RefCell;
use std::collections::HashMap;

use crate::Setting;
use crate::report::{Operation, Part, Report, Series, Who, alternate, median, seconds};

#[rustfmt::skip] // it is formatted where it belongs
#[allow(dead_code)]
#[path = "../../../src/segment/allocator.rs"]
mod allocator;

use allocator::{Allocator, Owner};

const ALLOCATE: &str = "allocate";
const FREE: &str = "free";
const BOTH: &str = "allocate and free";
const USED: &str = "space used under churn";
/// Allocations and frees in a round.
const STEPS: usize = 200_000;

/// Hands out runs of units.
trait Space {
    type Run: Copy;
    fn allocate(&mut self, units: u32) -> Option<Self::Run>;
    fn free(&mut self, run: Self::Run);
}

struct Ours(Allocator);

impl Space for Ours {
    type Run = u32;

    fn allocate(&mut self, units: u32) -> Option<u32> {
        self.0.allocate(units, Owner::Object(1)).map(|run| run.start)
    }

    fn free(&mut self, run: u32) {
        self.0.free(run);
    }
}

struct Offsets(offset_allocator::Allocator<u32>);

impl Space for Offsets {
    type Run = offset_allocator::Allocation<u32>;

    fn allocate(&mut self, units: u32) -> Option<Self::Run> {
        self.0.allocate(units)
    }

    fn free(&mut self, run: Self::Run) {
        self.0.free(run);
    }
}

/// Numbers that are the same for both.
struct Draws(u64);

impl Draws {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }

    fn units(&mut self, is_equal: bool) -> u32 {
        if is_equal {
            return 16;
        }
        // As many of each octave.
        let octave = self.below(8) as u32;
        (1 << octave) + self.below(1 << octave) as u32
    }
}

/// A pool with runs in it.
struct Pool<S: Space> {
    space: S,
    units: u32,
    used: u32,
    runs: Vec<(S::Run, u32)>,
    draws: Draws,
    is_equal: bool,
}

/// What one round found: seconds to allocate and to free, and the part of the pool in use when an allocation failed.
trait Churning {
    fn time(&mut self) -> [f64; 3];
    fn used(&mut self) -> f64;
}

impl<S: Space> Pool<S> {
    fn new(space: S, units: u32, is_equal: bool) -> Pool<S> {
        Pool {
            space,
            units,
            used: 0,
            runs: Vec::with_capacity(units as usize),
            draws: Draws(0x2545_f491_4f6c_dd1d),
            is_equal,
        }
    }

    fn allocate(&mut self, units: u32) -> bool {
        let run = self.space.allocate(units);
        if let Some(run) = run {
            self.used += units;
            self.runs.push((run, units));
        }
        run.is_some()
    }

    fn free_any(&mut self) {
        let number = self.draws.below(self.runs.len() as u64) as usize;
        let (run, units) = self.runs.swap_remove(number);
        self.used -= units;
        self.space.free(run);
    }
}

impl<S: Space> Churning for Pool<S> {
    fn time(&mut self) -> [f64; 3] {
        let level = self.units / 3 * 2;
        while self.used > level {
            self.free_any();
        }
        while self.used < level {
            let units = self.draws.units(self.is_equal);
            self.allocate(units);
        }
        // A twentieth at a time, so that the pool stays about as full.
        let (mut allocating, mut freeing, mut done) = (0.0, 0.0, 0);
        while done < STEPS {
            let step = self.runs.len() / 20;
            let sizes: Vec<u32> = (0..step).map(|_| self.draws.units(self.is_equal)).collect();
            let victims: Vec<(S::Run, u32)> = (0..step)
                .map(|_| {
                    let number = self.draws.below(self.runs.len() as u64) as usize;
                    self.runs.swap_remove(number)
                })
                .collect();
            freeing += seconds(|| victims.iter().for_each(|(run, _)| self.space.free(*run)));
            let mut made = Vec::with_capacity(step);
            allocating += seconds(|| made.extend(sizes.iter().map(|units| self.space.allocate(*units))));
            self.used -= victims.iter().map(|(_, units)| units).sum::<u32>();
            self.used += sizes.iter().sum::<u32>();
            let made = made
                .into_iter()
                .map(|run| run.expect("room in a pool that is not full"));
            self.runs.extend(made.zip(sizes));
            done += step;
        }
        let each = 1.0 / done as f64;
        [allocating * each, freeing * each, (allocating + freeing) * each]
    }

    fn used(&mut self) -> f64 {
        let (mut sum, mut fails) = (0.0, 0);
        for _ in 0..STEPS {
            let units = self.draws.units(self.is_equal);
            if self.allocate(units) {
                continue;
            }
            sum += f64::from(self.used) / f64::from(self.units);
            fails += 1;
            while !self.allocate(units) {
                self.free_any();
            }
        }
        sum / f64::from(fails.max(1))
    }
}

/// One of the two.
struct Side {
    name: &'static str,
    part: Part,
    pool: RefCell<Box<dyn Churning>>,
}

impl Side {
    fn new(name: &'static str, part: Part, pool: impl Churning + 'static) -> Side {
        Side {
            name,
            part,
            pool: RefCell::new(Box::new(pool)),
        }
    }
}

pub fn measure(report: &Report, setting: &Setting) {
    if !setting.wants(&[ALLOCATE, FREE, BOTH, USED]) {
        return;
    }
    report.begin("allocators");
    let units = (setting.pool as u64 / allocator::UNIT) as u32;
    for is_equal in [true, false] {
        let sizes = if is_equal { "equal sizes" } else { "mixed sizes" };
        let ours = Ours(Allocator::new(units).expect("memory for an allocator"));
        let theirs = Offsets(offset_allocator::Allocator::with_max_allocs(units, units));
        let both = [
            Side::new("mmc", Part::Mmc, Pool::new(ours, units, is_equal)),
            Side::new("offset-allocator", Part::Peer, Pool::new(theirs, units, is_equal)),
        ];
        let columns = alternate(setting.rounds, &both, |_, side| side.pool.borrow_mut().time());
        for (number, name) in [ALLOCATE, FREE, BOTH].into_iter().enumerate() {
            let series: Vec<Series> = both
                .iter()
                .zip(&columns)
                .map(|(side, columns)| Series {
                    who: Who {
                        name: side.name,
                        part: side.part,
                        batch: 1,
                        threads: 1,
                    },
                    seconds: columns[number].clone(),
                })
                .collect();
            let name = format!("{name}, {sizes}");
            let operation = Operation {
                name: &name,
                bytes: 0,
                count: 1,
            };
            report.compare(&operation, &series);
        }
        let columns = alternate(1, &both, |_, side| [side.pool.borrow_mut().used()]);
        let used: HashMap<&str, f64> = both
            .iter()
            .zip(&columns)
            .map(|(side, [used])| (side.name, median(used.iter().copied())))
            .collect();
        let name = format!("{USED}, {sizes}");
        let operation = Operation {
            name: &name,
            bytes: 0,
            count: 1,
        };
        for (name, part) in &used {
            let other = if *name == "mmc" { "offset-allocator" } else { "mmc" };
            report.value(name, &operation, *part, "of the pool", other, part / used[other]);
        }
    }
}
