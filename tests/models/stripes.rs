//! Counting on stripes that go from one thread to another.
//!
//! Loom knows only the last access to a word, so it takes a store behind a load of the same thread to meet nobody's earlier load. A thread
//! that adds by a load and a store is therefore the first of its model, which runs ahead: those who look are found to meet its stores.

use loom::sync::Arc;

use crate::cells::{Counts, Times};
use crate::owned::{self, Taken};
use crate::sync::{AtomicU64, Ordering};
use crate::{model, spawn};

/// Two stripes of a counter, dealt like those of the library.
struct Striped {
    taken: Taken,
    cells: [AtomicU64; 2],
}

impl Striped {
    fn new() -> Arc<Striped> {
        Arc::new(Striped {
            taken: Taken(AtomicU64::new(0)),
            cells: [AtomicU64::new(0), AtomicU64::new(0)],
        })
    }

    /// A thread that counts twice and ends.
    fn count(&self) {
        let mine = self.taken.take().expect("there are enough for all");
        for _ in 0..2 {
            owned::add(&self.cells[mine], 1, Ordering::Relaxed);
        }
        self.taken.give_back(mine);
    }
}

#[test]
fn a_stripe_that_goes_to_another_thread_loses_no_addition() {
    model(3, || {
        let striped = Striped::new();
        let other = spawn(&striped, Striped::count);
        striped.count();
        other.join().unwrap();
        let sum: u64 = striped.cells.iter().map(|cell| cell.load(Ordering::Relaxed)).sum();
        assert_eq!(sum, 4, "an addition was lost");
        assert_eq!(striped.taken.take(), Some(0), "a stripe was not given back");
    });
}

#[test]
fn no_more_calls_have_ended_than_begun() {
    model(3, || {
        let counts = Arc::new(Counts::default());
        let looker = spawn(&counts, |counts| {
            let seen = counts.look();
            assert!(seen.begin >= seen.good + seen.bad, "{seen:?}");
        });
        for (number, is_good) in [true, false].into_iter().enumerate() {
            assert_eq!(counts.begin(0), number as u64);
            counts.end(0, is_good);
        }
        looker.join().unwrap();
        let seen = counts.look();
        assert_eq!((seen.begin, seen.good, seen.bad), (2, 1, 1));
    });
}

#[test]
fn a_timed_call_that_is_seen_in_its_bucket_is_seen_in_the_sum_and_the_extremes() {
    model(3, || {
        let times = Arc::new(Times::<2>::default());
        let other = spawn(&times, |times| times.record(300, 1));
        times.record(100, 0);
        let mut buckets = [0; 2];
        let seen = times.look(&mut buckets);
        assert!(buckets[0] == 1 && seen.min == 100, "{seen:?}");
        if buckets[1] == 1 {
            assert_eq!((seen.sum, seen.min, seen.max), (400, 100, 300));
        }
        other.join().unwrap();
        assert_eq!(times.look(&mut [0; 2]).sum, 400);
    });
}
