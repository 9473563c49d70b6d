//! Uses as they happen, counted by kind and age for the [`Learner`](super::learner::Learner) to collect.
//!
//! A hit must take no lock, and of a copy that is used often the order learns only its last use, when it meets it. So whoever uses an
//! object for the first time in a tick adds one to a number of his own stripe; the learner adds the stripes up once a tick, and takes
//! what has come since. Numbers only grow, so nothing is lost between two looks. Of two uses of one object at once both may be counted, or
//! the object marked by one only: what is learned is no less true for one in thousands.

use std::sync::atomic::{AtomicU64, Ordering};

use super::ages::BINS;
use super::{KINDS, Kind};
use crate::error::Result;
use crate::stripe::{self, Striped};

/// What one stripe has heard.
struct Counts {
    uses: [[AtomicU64; BINS]; KINDS],
    /// Moments in which there were uses: a chain is used as a whole.
    chains: AtomicU64,
    /// The stamp of the last use.
    last: AtomicU64,
}

impl Default for Counts {
    fn default() -> Counts {
        Counts {
            uses: std::array::from_fn(|_| std::array::from_fn(|_| AtomicU64::new(0))),
            chains: AtomicU64::new(0),
            last: AtomicU64::new(0),
        }
    }
}

/// What the users of a medium's objects have counted.
pub(super) struct Heard(Striped<Counts>);

/// Uses by kind and age, and in how many moments there were any.
pub(super) struct Sums {
    pub(super) uses: [[u64; BINS]; KINDS],
    pub(super) chains: u64,
}

impl Sums {
    pub(super) fn none() -> Sums {
        Sums {
            uses: [[0; BINS]; KINDS],
            chains: 0,
        }
    }
}

impl Heard {
    pub(super) fn new() -> Result<Heard> {
        Striped::new("uses that a policy learns from").map(Heard)
    }

    /// Counts a use with this stamp of an object of this kind whose age is in this bin.
    pub(super) fn note(&self, kind: Kind, bin: usize, stamp: u64) {
        let mine = stripe::index();
        let counts = self.0.at(mine);
        stripe::add(mine, &counts.uses[kind as usize][bin], 1, Ordering::Relaxed);
        if counts.last.load(Ordering::Relaxed) != stamp {
            counts.last.store(stamp, Ordering::Relaxed);
            stripe::add(mine, &counts.chains, 1, Ordering::Relaxed);
        }
    }

    /// Everything that was ever counted.
    pub(super) fn sums(&self) -> Sums {
        let mut sums = Sums::none();
        for counts in self.0.iter() {
            let chains = counts.chains.load(Ordering::Relaxed);
            if chains == 0 {
                continue;
            }
            sums.chains += chains;
            for (sums, counts) in sums.uses.iter_mut().flatten().zip(counts.uses.iter().flatten()) {
                *sums += counts.load(Ordering::Relaxed);
            }
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_threads_count_together_is_found_whole_and_of_one_stamp_once_a_thread() {
        const THREADS: u64 = 100;
        let heard = Heard::new().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| (0..100).for_each(|number| heard.note(Kind::End, number as usize % 2, number / 50)));
            }
        });
        let sums = heard.sums();
        assert_eq!(sums.uses[Kind::End as usize][..3], [50 * THREADS, 50 * THREADS, 0]);
        assert_eq!(sums.uses[Kind::New as usize], [0; BINS]);
        // Threads that come after each other, or share a stripe, may have the same stamp behind each other.
        assert!((2..=2 * THREADS).contains(&sums.chains), "{}", sums.chains);
    }
}
