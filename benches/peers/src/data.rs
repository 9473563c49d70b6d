//! Puts and gets of cold bytes, and puts that must evict.
//!
//! The caller's memory is larger than what the processor caches and is used in no order; a pool, or the heap that a peer takes its values
//! from, has been touched before. Between the passes of two contestants everything is dropped: they take turns with the memory of the
//! machine, too.

use std::cell::Cell;

use crate::Setting;
use crate::cache::{Bare, Batches, Cache, Copies, Work, on_threads, plain_copy};
use crate::contestants::{EVICTING, PEERS, With, make};
use crate::report::{Operation, Part, Report, Series, Who, alternate, seconds};
use crate::support::{GIB, KIB, Key, MIB, Memory, Store, key, shuffled};

pub const SIZES: [usize; 5] = [4 * KIB, 64 * KIB, 256 * KIB, MIB, 4 * MIB];

const PUT: &str = "put";
const GET: &str = "get";
const EVICT: &str = "put that evicts";

pub fn measure(report: &Report, setting: &Setting) {
    if setting.wants(&[PUT, GET]) {
        let room = if setting.is_quick { GIB / 8 } else { GIB / 4 };
        let bench = Bench {
            memory: Memory::new(room),
            pool: Memory::new(room),
            store: Store::of(setting.pool),
        };
        for size in SIZES {
            for threads in [1, 2] {
                // A quick run looks at two threads for one size that is about keys and one that is about bytes.
                if threads == 2 && setting.is_quick && ![4 * KIB, MIB].contains(&size) {
                    continue;
                }
                report.begin(&format!("puts and gets of {} KiB, {threads} threads", size / KIB));
                bench.copies(report, setting, size, threads);
            }
        }
    }
    if setting.wants(&[EVICT]) {
        let memory = Memory::new(GIB / 4);
        report.begin("puts that evict");
        SIZES.iter().for_each(|size| evicting(report, setting, &memory, *size));
    }
}

struct Contestant<'a> {
    who: Who,
    it: Box<dyn Copies + 'a>,
}

impl<'a> Contestant<'a> {
    fn new(name: &'static str, part: Part, batch: usize, threads: usize, it: Box<dyn Copies + 'a>) -> Contestant<'a> {
        let who = Who {
            name,
            part,
            batch,
            threads,
        };
        Contestant { who, it }
    }

    fn series(&self, seconds: &[f64]) -> Series {
        Series {
            who: self.who.clone(),
            seconds: seconds.to_vec(),
        }
    }
}

/// Puts a cache behind the loops of [`Copies`].
struct Boxed;

impl With for Boxed {
    type Result = Box<dyn Copies>;
    fn with<C: Cache + 'static>(self, cache: C) -> Box<dyn Copies> {
        Box::new(cache)
    }
}

struct Bench {
    /// The caller's.
    memory: Memory,
    /// The pool of the bare copies.
    pool: Memory,
    store: Store,
}

impl Bench {
    fn copies(&self, report: &Report, setting: &Setting, size: usize, threads: usize) {
        // No more than 64 Ki objects, so that small ones don't take the time of all.
        let count = (self.memory.len / size).min(64 * KIB);
        let keys: Vec<Key> = (0..count as u64).map(key).collect();
        let order = shuffled(self.memory.len / size);

        let (store, pool) = (&self.store, &self.pool);
        let add = |name, part, batch, it| Contestant::new(name, part, batch, threads, it);
        let mut all = vec![
            add("memcpy", Part::Limit, 1, Box::new(Bare { pool, copy: plain_copy })),
            add(
                "streaming copy",
                Part::Limit,
                1,
                Box::new(Bare {
                    pool,
                    copy: mmc::copy::streaming_copy,
                }),
            ),
            add("mmc", Part::Mmc, 1, Box::new(store)),
        ];
        for batch in [32, 128] {
            all.push(add("mmc", Part::Mmc, batch, Box::new(Batches { store, batch })));
        }
        for name in PEERS {
            all.push(add(
                name,
                Part::Peer,
                1,
                make(name, setting.pool, setting.pool / size, Boxed),
            ));
        }

        let columns = alternate(setting.rounds, &all, |round, one| {
            let work = |shift| Work {
                keys: &keys,
                memory: &self.memory,
                size,
                order: &order,
                shift,
            };
            let (puts, gets) = (work(round * 977), work(round * 977 + 13));
            let times = [
                seconds(|| on_threads(threads, count, |numbers| one.it.put_all(&puts, numbers))),
                seconds(|| on_threads(threads, count, |numbers| one.it.get_all(&gets, numbers))),
            ];
            one.it.empty();
            times
        });
        for (number, name) in [PUT, GET].into_iter().enumerate() {
            let series = all.iter().zip(&columns);
            let series: Vec<Series> = series.map(|(one, columns)| one.series(&columns[number])).collect();
            let operation = Operation {
                name,
                bytes: size,
                count,
            };
            report.compare(&operation, &series);
        }
        if size == 64 * KIB && threads == 1 {
            let ours = all.iter().zip(&columns).find(|(one, _)| one.who.part == Part::Mmc);
            let (_, [_, gets]) = ours.expect("mmc is among them");
            report.counting(GET, size, count, gets);
        }
    }
}

/// Puts into full caches; and for mmc beside puts that need not evict, into a pool that is emptied each round.
fn evicting(report: &Report, setting: &Setting, memory: &Memory, size: usize) {
    // A quarter of the pool for each: all of them are full at once.
    let room = setting.pool / 4;
    let count = (room / 2 / size).min(16 * KIB);
    let order = shuffled(memory.len / size);
    let (roomy, full) = (Store::of(room), Store::of(room));
    let mut all = vec![
        Contestant::new("a put that need not", Part::Tuned, 1, 1, Box::new(&roomy)),
        Contestant::new("mmc", Part::Mmc, 1, 1, Box::new(&full)),
    ];
    for name in EVICTING {
        all.push(Contestant::new(
            name,
            Part::Peer,
            1,
            1,
            make(name, room, room / size, Boxed),
        ));
    }
    // Keys are never used twice: a put under a key that is there would not evict.
    let next = Cell::new(0);
    let put = |it: &dyn Copies, count: usize, threads: usize| {
        let keys: Vec<Key> = (next.get()..).take(count).map(key).collect();
        next.set(next.get() + count as u64);
        let work = Work {
            keys: &keys,
            memory,
            size,
            order: &order,
            shift: next.get() as usize,
        };
        seconds(|| on_threads(threads, count, |numbers| it.put_all(&work, numbers)))
    };
    all.iter().skip(1).for_each(|one| {
        put(&*one.it, room / size, 1);
    });
    let columns = alternate(setting.rounds, &all, |_, one| {
        [1, 2].map(|threads| {
            if one.who.part == Part::Tuned {
                one.it.empty();
            }
            put(&*one.it, count, threads)
        })
    });
    for (number, threads) in [1, 2].into_iter().enumerate() {
        let mut series = all.iter().zip(&columns).map(|(one, columns)| Series {
            who: Who {
                threads,
                ..one.who.clone()
            },
            seconds: columns[number].clone(),
        });
        let need_not = series.next().expect("the first one");
        let series: Vec<Series> = series.collect();
        let operation = Operation {
            name: EVICT,
            bytes: size,
            count,
        };
        report.row(&operation, &series[0], "a put that need not", &need_not);
        report.compare(&operation, &series);
    }
}
