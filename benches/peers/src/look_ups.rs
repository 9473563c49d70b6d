//! Look-ups and removals among a million objects: every contestant, single calls and mmc's batches, one thread and two.
//!
//! The keys are asked for by Zipf's law, as serving traffic does, and each once in no order, which no cache of the processor helps with.
//! A round takes its own part of the draws. mmc's objects lie in a [`Span`]: no row here is about their bytes.

use std::ops::Range;

use crate::Setting;
use crate::cache::{Batches, Cache, Copies, LookUps, Work, on_threads};
use crate::contestants::{PEERS, TUNED, With, make};
use crate::report::{Operation, Part, Report, Series, Who, alternate, seconds};
use crate::span::Span;
use crate::support::{KIB, Key, MIB, Memory, Store, key, shuffled, zipf};

/// Objects that are there.
pub const OBJECTS: usize = 1_000_000;
/// Removals in a round; what is removed is put again before the next.
const REMOVED: usize = 20_000;
/// Bytes of an object.
pub const SMALL: usize = 64;
const VALUE: [u8; SMALL] = [7; SMALL];

const ZIPF: &str = "exist hit, Zipf";
const UNIFORM: &str = "exist hit, uniform";
const MISS: &str = "exist miss";
const REMOVE: &str = "remove, uniform";
const GET_ZIPF: &str = "get, Zipf";
const GET_UNIFORM: &str = "get, uniform";

/// Look-ups of one kind in a round.
fn asked(setting: &Setting) -> usize {
    if setting.is_quick { 60_000 } else { 150_000 }
}

struct Contestant<'a> {
    name: &'static str,
    part: Part,
    batch: usize,
    it: Box<dyn LookUps + 'a>,
}

impl<'a> Contestant<'a> {
    fn new(name: &'static str, part: Part, batch: usize, it: Box<dyn LookUps + 'a>) -> Contestant<'a> {
        Contestant { name, part, batch, it }
    }

    fn series(&self, threads: usize, seconds: &[f64]) -> Series {
        let Contestant { name, part, batch, .. } = *self;
        Series {
            who: Who {
                name,
                part,
                batch,
                threads,
            },
            seconds: seconds.to_vec(),
        }
    }
}

/// Puts a cache behind the loops of [`LookUps`].
struct Boxed;

impl With for Boxed {
    type Result = Box<dyn LookUps>;
    fn with<C: Cache + 'static>(self, cache: C) -> Box<dyn LookUps> {
        Box::new(cache)
    }
}

struct Draws {
    popular: Vec<Key>,
    there: Vec<Key>,
    absent: Vec<Key>,
}

impl Draws {
    fn new() -> Draws {
        let order = shuffled(OBJECTS);
        let keys = |numbers: &mut dyn Iterator<Item = usize>| numbers.map(|number| key(number as u64)).collect();
        Draws {
            popular: keys(&mut zipf(OBJECTS).into_iter()),
            there: keys(&mut order.iter().copied()),
            absent: keys(&mut order.iter().map(|number| number + OBJECTS)),
        }
    }
}

/// The part of the draws that a round takes.
fn part(keys: &[Key], round: usize, count: usize) -> &[Key] {
    let parts = keys.len() / count;
    &keys[round % parts * count..][..count]
}

/// Fills a store or a peer with all the objects.
pub fn fill(it: &dyn LookUps) {
    let keys: Vec<Key> = (0..OBJECTS as u64).map(key).collect();
    it.fill(&keys, &VALUE);
}

pub fn measure(report: &Report, setting: &Setting) {
    if setting.wants(&[ZIPF, UNIFORM, MISS, REMOVE]) {
        report.begin("a million objects: drawing keys");
        let draws = Draws::new();
        let span = Span::new(OBJECTS);
        let store = span.store();
        fill(&store);
        beside_peers(report, setting, &draws, &store);
        on_two_stores(report, setting, &draws, &store);
    }
    if setting.wants(&[GET_ZIPF, GET_UNIFORM]) {
        report.begin("gets from one store and two");
        gets_on_two_stores(report, setting);
    }
}

/// Seconds to ask for the keys, of which all are there or none.
fn ask(it: &dyn LookUps, keys: &[Key], threads: usize, are_there: bool) -> f64 {
    seconds(|| {
        on_threads(threads, keys.len(), |numbers| {
            let asked = numbers.len();
            assert_eq!(it.count(&keys[numbers]), if are_there { asked } else { 0 });
        });
    })
}

fn beside_peers(report: &Report, setting: &Setting, draws: &Draws, store: &Store) {
    report.begin("a million objects: filling");
    let asked = asked(setting);
    let mut all = vec![Contestant::new("mmc", Part::Mmc, 1, Box::new(store))];
    for batch in [32, 128] {
        all.push(Contestant::new(
            "mmc",
            Part::Mmc,
            batch,
            Box::new(Batches { store, batch }),
        ));
    }
    for (names, part) in [(&PEERS[..], Part::Peer), (&TUNED[..], Part::Tuned)] {
        for name in names {
            // Twice the room that is needed: none may be evicted, however unevenly a cache's shards fill.
            all.push(Contestant::new(
                name,
                part,
                1,
                make(name, 2 * OBJECTS * SMALL, 2 * OBJECTS, Boxed),
            ));
        }
    }
    let keys: Vec<Key> = (0..OBJECTS as u64).map(key).collect();
    let peers = all.iter().filter(|one| one.part != Part::Mmc);
    peers.for_each(|one| one.it.fill(&keys, &VALUE));
    drop(keys);

    report.begin("a million objects: look-ups and removals");
    let columns = alternate(setting.rounds, &all, |round, one| {
        let (it, mut times) = (&*one.it, [0.0; 8]);
        for (threads, times) in [1, 2].into_iter().zip(times.chunks_mut(4)) {
            // Another part of the keys each time: what one pass has touched must not be in a cache for the next.
            let turn = 2 * round + threads;
            times[0] = ask(it, part(&draws.popular, turn, asked), threads, true);
            times[1] = ask(it, part(&draws.there, turn, asked), threads, true);
            times[2] = ask(it, part(&draws.absent, turn, asked), threads, false);
            let removed = &part(&draws.there, turn + 2, asked)[..REMOVED];
            times[3] = seconds(|| {
                on_threads(threads, REMOVED, |numbers| {
                    let count = numbers.len();
                    assert_eq!(it.remove_all(&removed[numbers]), count);
                });
            });
            it.fill(removed, &VALUE);
        }
        times
    });
    for (number, (name, count)) in [(ZIPF, asked), (UNIFORM, asked), (MISS, asked), (REMOVE, REMOVED)]
        .into_iter()
        .cycle()
        .take(8)
        .enumerate()
    {
        let threads = 1 + number / 4;
        let series: Vec<Series> = all
            .iter()
            .zip(&columns)
            .map(|(one, columns)| one.series(threads, &columns[number]))
            .collect();
        report.compare(&Operation { name, bytes: 0, count }, &series);
    }
    report.counting("exist", 0, asked, &columns[0][0]);
}

/// Two threads on one store against two threads on a store each, all of them full: what sharing costs.
fn on_two_stores(report: &Report, setting: &Setting, draws: &Draws, store: &Store) {
    report.begin("a million objects: one store and two");
    let asked = asked(setting);
    let span = Span::new(OBJECTS);
    let other = span.store();
    fill(&other);
    let stores = [store, &other];
    let columns = alternate(setting.rounds, &[1, 2], |round, count| {
        [&draws.popular, &draws.there].map(|keys| {
            let keys = part(keys, round, asked);
            pair(keys.len(), |thread, numbers| {
                let asked = numbers.len();
                assert_eq!(stores[thread % count].count(&keys[numbers]), asked);
            })
        })
    });
    report_pair(report, [ZIPF, UNIFORM], 0, asked, &columns);
}

/// The same for gets of 4 KiB, which write what they share with other threads.
fn gets_on_two_stores(report: &Report, setting: &Setting) {
    let (size, count) = (4 * KIB, 32 * KIB);
    let memory = Memory::new(count * size);
    let stores = [Store::of(count * size + 64 * MIB), Store::of(count * size + 64 * MIB)];
    let keys: Vec<Key> = (0..count as u64).map(key).collect();
    for store in &stores {
        keys.iter()
            .enumerate()
            .for_each(|(number, key)| Store::put(store, key, memory.piece(number, size), size));
    }
    let order = shuffled(count);
    let [popular, there] = [zipf(count), order.clone()].map(|numbers| {
        let keys: Vec<Key> = numbers.into_iter().map(|number| keys[number]).collect();
        keys
    });
    let columns = alternate(setting.rounds, &[1, 2], |round, stores_used| {
        [&popular, &there].map(|keys| {
            let work = Work {
                keys,
                memory: &memory,
                size,
                order: &order,
                shift: round * 977,
            };
            pair(count, |thread, numbers| {
                stores[thread % stores_used].get_all(&work, numbers)
            })
        })
    });
    report_pair(report, [GET_ZIPF, GET_UNIFORM], size, count, &columns);
}

/// Two threads with half of the work each.
fn pair(count: usize, act: impl Fn(usize, Range<usize>) + Sync) -> f64 {
    seconds(|| on_threads(2, count, |numbers| act(usize::from(numbers.start > 0), numbers)))
}

/// The rows of one store against one each: `columns` has a contestant for both, and for both of them the names' columns.
fn report_pair(report: &Report, names: [&str; 2], bytes: usize, count: usize, columns: &[[Vec<f64>; 2]]) {
    for (number, name) in names.into_iter().enumerate() {
        let series = |contestant: usize, name| Series {
            who: Who {
                name,
                part: Part::Mmc,
                batch: 1,
                threads: 2,
            },
            seconds: columns[contestant][number].clone(),
        };
        let (shared, apart) = (series(0, "mmc"), series(1, "mmc, a store for each thread"));
        report.row(&Operation { name, bytes, count }, &shared, "a store each", &apart);
    }
}
