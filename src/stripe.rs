//! Stripes: a counter that many threads bump, without one cache line that travels between them.
//!
//! A line of memory that two cores write costs each of them a trip to the other: tens of nanoseconds on a path that has
//! a few hundred. So what threads count together is kept [`STRIPES`] times, each copy on lines of its own, and a thread
//! writes only the copy of its [`index`]. A reader, who comes once a scrape, adds the copies up.
//!
//! Stripes are dealt round-robin when a thread first asks, so threads share one only when there are more than
//! [`STRIPES`] of them. A shared stripe is slower, never wrong: the cells stay atomic. An index is a thread's for good,
//! the same in every store of the process; what ends with its thread is nothing, so threads may come and go.
//!
//! [`Striped`] is the whole of it for values that can be default-made. A table that shards by thread for other reasons
//! (handles, say) uses [`index`] and [`Line`] directly.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::error::{Error, Result};

/// Copies of everything striped: more than the cores that usually work on one store, few enough to add up in no time.
pub(crate) const STRIPES: usize = 32;

/// The stripe that the next new thread gets, before the remainder is taken.
static NEXT: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// This thread's stripe, or [`UNDEALT`]. Initialised at compile time and without a destructor, so that reading it is
    /// a plain load, also while the thread ends.
    static MINE: Cell<usize> = const { Cell::new(UNDEALT) };
}

const UNDEALT: usize = usize::MAX;

/// This thread's stripe, below [`STRIPES`].
#[inline]
pub(crate) fn index() -> usize {
    MINE.with(|mine| match mine.get() {
        UNDEALT => deal(mine),
        dealt => dealt,
    })
}

#[cold]
fn deal(mine: &Cell<usize>) -> usize {
    let dealt = NEXT.fetch_add(1, Ordering::Relaxed) % STRIPES;
    mine.set(dealt);
    dealt
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
            Error::OutOfMemory(format!("{what}: no memory for {STRIPES} stripes, {bytes} bytes").into())
        })?;
        lines.resize_with(STRIPES, Line::default);
        Ok(Striped { lines })
    }
}

impl<T> Striped<T> {
    /// This thread's copy.
    #[inline]
    pub(crate) fn mine(&self) -> &T {
        &self.lines[index()].0
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
    fn new_threads_are_dealt_more_than_one_stripe() {
        // Tests of other modules may start threads meanwhile and take some of the deal, but not all of it.
        let dealt: std::collections::HashSet<usize> =
            (0..STRIPES).map(|_| thread::spawn(index).join().unwrap()).collect();
        assert!(dealt.len() > 1, "{STRIPES} threads all got stripe {dealt:?}");
        assert!(dealt.iter().all(|&stripe| stripe < STRIPES));
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
