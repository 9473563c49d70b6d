//! Ten million objects beside a million: what a call takes when the tables are ten times as large.
//!
//! Both stores are full at the same time and asked in turn, each for its own keys in no order: the case in which every look-up of the
//! large one leaves the processor's caches. It takes some 5 GiB, so only a full run does it.

use crate::Setting;
use crate::cache::{Batches, Cache, Copies, LookUps, Work};
use crate::report::{Operation, Part, Report, Series, Who, alternate, seconds};
use crate::span::Span;
use crate::support::{Key, MIB, Memory, Store, key, shuffled};

const MILLION: usize = 1_000_000;
const COUNTS: [usize; 2] = [MILLION, 10 * MILLION];
/// Calls of one kind in a round.
const CALLS: usize = 100_000;
const SMALL: usize = 64;
const OPERATIONS: [(&str, usize); 6] = [
    ("exist hit among ten million", 1),
    ("exist hit among ten million", 128),
    ("exist miss among ten million", 1),
    ("get among ten million", 1),
    ("remove among ten million", 1),
    ("put among ten million", 1),
];

struct Full {
    store: Store,
    objects: usize,
    /// Numbers of the keys that are asked for, all over the store.
    asked: Vec<usize>,
    /// After the store, which lies in it.
    _span: Span,
}

impl Full {
    fn new(objects: usize) -> Full {
        let span = Span::new(objects);
        let store = span.store();
        (0..objects as u64).for_each(|number| Cache::put(&store, &key(number), &[7; SMALL]));
        let mut asked = shuffled(objects);
        asked.truncate(MILLION);
        Full {
            store,
            objects,
            asked,
            _span: span,
        }
    }

    /// Keys that were not asked for lately: what one operation has touched must not be in a cache for the next.
    fn keys(&self, turn: usize, offset: usize) -> Vec<Key> {
        let part = &self.asked[turn % (MILLION / CALLS) * CALLS..][..CALLS];
        part.iter().map(|number| key((number + offset) as u64)).collect()
    }
}

pub fn measure(report: &Report, setting: &Setting) {
    if !setting.is_full || !setting.wants(&OPERATIONS.map(|(name, _)| name)) {
        return;
    }
    report.begin("ten million objects");
    let all = COUNTS.map(Full::new);
    let memory = Memory::new(64 * MIB);
    let order = shuffled(memory.len / SMALL);
    let columns = alternate(setting.rounds, &all, |round, full| {
        let there: [Vec<Key>; 4] = std::array::from_fn(|operation| full.keys(4 * round + operation, 0));
        let absent = full.keys(round, full.objects);
        let batches = Batches {
            store: &full.store,
            batch: 128,
        };
        let work = |keys| Work {
            keys,
            memory: &memory,
            size: SMALL,
            order: &order,
            shift: round * CALLS,
        };
        [
            seconds(|| assert_eq!(LookUps::count(&full.store, &there[0]), CALLS)),
            seconds(|| assert_eq!(batches.count(&there[1]), CALLS)),
            seconds(|| assert_eq!(LookUps::count(&full.store, &absent), 0)),
            seconds(|| full.store.get_all(&work(&there[2]), 0..CALLS)),
            seconds(|| assert_eq!(full.store.remove_all(&there[3]), CALLS)),
            seconds(|| full.store.put_all(&work(&there[3]), 0..CALLS)),
        ]
    });
    for (number, (name, batch)) in OPERATIONS.into_iter().enumerate() {
        let series = |which: usize, name| Series {
            who: Who {
                name,
                part: Part::Mmc,
                batch,
                threads: 1,
            },
            seconds: columns[which][number].clone(),
        };
        let operation = Operation {
            name,
            bytes: 0,
            count: CALLS,
        };
        report.row(
            &operation,
            &series(1, "mmc"),
            "a million",
            &series(0, "mmc, a million objects"),
        );
    }
}
