//! Stripes: a counter that many threads bump, without one cache line that travels between them.
//!
//! A line of memory that two cores write costs each of them a trip to the other: tens of nanoseconds on a path that has
//! a few hundred. So what threads count together is kept [`STRIPES`] times, each copy on lines of its own, and a thread
//! writes only the copy of its [`index`]. A reader, who comes once a scrape, adds the copies up.
//!
//! Most stripes belong to one thread at a time: it takes one when it first asks and gives it back when it ends. What only
//! one thread writes needs no locked instruction, which would also keep the processor from beginning the next call before the
//! memory of this one has answered: [`add`] is then a load and a store. When there are more threads than such stripes, the rest
//! share the last few, with atomic additions: slower, never wrong.
//!
//! A forked child has the stripe of the thread that forked; those of its parent's other threads stay taken in it, as nobody is
//! there to give them back.

mod owned;

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use owned::{OWNED, Taken};

use crate::error::{Error, Result, words};

/// Copies of everything striped: more than the threads that usually work on one store, few enough to add up in no time.
pub(crate) const STRIPES: usize = OWNED + SHARED;
/// Stripes for all other threads.
const SHARED: usize = 8;

/// Which of the owned stripes are taken.
static TAKEN: Taken = Taken(AtomicU64::new(0));
/// The shared stripe that the next thread without one of its own gets, before the remainder is taken.
static NEXT: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// This thread's stripe, or [`UNDEALT`]. Initialised at compile time and without a destructor, so that reading it is
    /// a plain load, also while the thread ends.
    static MINE: Cell<usize> = const { Cell::new(UNDEALT) };
    /// Gives the thread's own stripe back when the thread ends.
    static OWNER: Owner = const { Owner };
}

const UNDEALT: usize = usize::MAX;

/// This thread's stripe, below [`STRIPES`].
#[inline]
pub(crate) fn index() -> usize {
    match MINE.get() {
        UNDEALT => deal(),
        dealt => dealt,
    }
}

/// Adds to a cell of the thread's own stripe, whose number is `mine`, and of no other; what it was. `order` is that of the store.
#[inline]
pub(crate) fn add(mine: usize, cell: &AtomicU64, number: u64, order: Ordering) -> u64 {
    if mine < OWNED {
        return owned::add(cell, number, order);
    }
    cell.fetch_add(number, order)
}

#[cold]
fn deal() -> usize {
    let dealt = take().unwrap_or_else(|| OWNED + NEXT.fetch_add(1, Ordering::Relaxed) % SHARED);
    MINE.set(dealt);
    dealt
}

/// Takes an owned stripe, if one is free and this thread will be able to give it back.
fn take() -> Option<usize> {
    OWNER.try_with(|_| ()).ok()?;
    TAKEN.take()
}

/// See [`OWNER`].
struct Owner;

impl Drop for Owner {
    fn drop(&mut self) {
        let mine = MINE.replace(UNDEALT);
        if mine < OWNED {
            TAKEN.give_back(mine);
        }
    }
}

/// A value on cache lines of its own: 128 bytes, because x86-64 fetches lines in pairs and some aarch64 lines are 128.
#[derive(Default)]
#[repr(align(128))]
pub(crate) struct Line<T>(pub(crate) T);

/// A value kept once a stripe.
pub(crate) struct Striped<T> {
    lines: Vec<Line<T>>,
}

impl<T: Default> Striped<T> {
    /// One default value a stripe; `what` names them in the error when there is no memory.
    pub(crate) fn new(what: &str) -> Result<Self> {
        let mut lines = Vec::new();
        lines.try_reserve_exact(STRIPES).map_err(|_| {
            let bytes = STRIPES * size_of::<Line<T>>();
            Error::OutOfMemory(words!("{what}: no memory for {STRIPES} stripes, {bytes} bytes"))
        })?;
        lines.resize_with(STRIPES, Line::default);
        Ok(Striped { lines })
    }
}

impl<T> Striped<T> {
    /// The copy of a stripe.
    #[inline]
    pub(crate) fn at(&self, stripe: usize) -> &T {
        &self.lines[stripe].0
    }

    /// All copies, for a reader that adds them up.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.lines.iter().map(|line| &line.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn a_thread_keeps_its_stripe() {
        assert!(index() < STRIPES);
        assert_eq!(index(), index());
    }

    #[test]
    fn threads_that_live_together_have_stripes_of_their_own_and_give_them_back() {
        let barrier = std::sync::Barrier::new(OWNED / 4);
        let round = || {
            thread::scope(|scope| {
                let threads: Vec<_> = (0..OWNED / 4)
                    .map(|_| {
                        scope.spawn(|| {
                            let mine = index();
                            barrier.wait();
                            mine
                        })
                    })
                    .collect();
                threads
                    .into_iter()
                    .map(|thread| thread.join().unwrap())
                    .collect::<std::collections::HashSet<_>>()
            })
        };
        // Many more threads than there are stripes, one group after the other.
        for _ in 0..10 * STRIPES / (OWNED / 4) {
            let dealt = round();
            assert!(dealt.iter().all(|stripe| *stripe < STRIPES));
            // Other tests' threads may have some of the stripes, but not so many that these must share.
            assert_eq!(dealt.len(), OWNED / 4, "{dealt:?}");
        }
    }

    #[test]
    fn more_threads_than_stripes_lose_no_count() {
        let cells = Striped::<AtomicU64>::new("test").unwrap();
        let (threads, rounds) = (STRIPES + 30, 2000);
        let barrier = std::sync::Barrier::new(threads);
        thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    barrier.wait();
                    for _ in 0..rounds {
                        add(index(), cells.at(index()), 1, Ordering::Relaxed);
                    }
                });
            }
        });
        let sum: u64 = cells.iter().map(|cell| cell.load(Ordering::Relaxed)).sum();
        assert_eq!(sum, threads as u64 * rounds);
    }

    #[test]
    fn two_stripes_share_no_line() {
        let striped = Striped::<u8>::new("test").unwrap();
        let addresses: Vec<usize> = striped.iter().map(|value| std::ptr::from_ref(value).addr()).collect();
        assert_eq!(addresses.len(), STRIPES);
        assert!(addresses.windows(2).all(|pair| pair[1] - pair[0] == 128));
        assert!(addresses[0].is_multiple_of(128));
    }
}
