//! Stripes that belong to one thread at a time, and how such a thread adds.
//!
//! Its additions are a load and a store, which lose none as long as nobody else writes the cell. So whoever takes a stripe must see the
//! last store of the thread that had it before: giving back releases, and taking acquires.

use crate::sync::{AtomicU64, Ordering};

/// Stripes that belong to one thread at a time: a bit each of a word.
pub(super) const OWNED: usize = 56;

/// Which of them are taken.
pub(super) struct Taken(pub(super) AtomicU64);

impl Taken {
    /// Takes the first that is free.
    pub(super) fn take(&self) -> Option<usize> {
        let mut taken = self.0.load(Ordering::Relaxed);
        loop {
            let free = (!taken).trailing_zeros() as usize;
            if free >= OWNED {
                return None;
            }
            match self
                .0
                .compare_exchange_weak(taken, taken | 1 << free, Ordering::Acquire, Ordering::Relaxed)
            {
                Ok(_) => return Some(free),
                Err(now) => taken = now,
            }
        }
    }

    /// Gives one back, by the thread that has it.
    pub(super) fn give_back(&self, stripe: usize) {
        self.0.fetch_and(!(1 << stripe), Ordering::Release);
    }
}

/// Adds to a cell of the thread's own stripe; what it was. `order` is that of the store.
#[inline]
pub(super) fn add(cell: &AtomicU64, number: u64, order: Ordering) -> u64 {
    let old = cell.load(Ordering::Relaxed);
    cell.store(old.wrapping_add(number), order);
    old
}
