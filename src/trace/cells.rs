//! The cells of one tracepoint in one stripe, and the order in which they are written and read.
//!
//! A call counts its begin before its end, and a reader reads ends before begins: with a release and an acquire on the ends, whoever
//! sees an end sees its begin too, so what has begun and not ended is never less than nothing. In the same way a timed call
//! enters its bucket last, and whoever sees it there sees it in the sum and the extremes.

use crate::sync::{AtomicU64, Ordering, add_to_own};

/// What every call of one tracepoint touches, never across two cache lines.
#[derive(Default)]
#[repr(align(32))]
pub(super) struct Counts {
    begin: AtomicU64,
    good: AtomicU64,
    bad: AtomicU64,
}

/// What was counted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Counted {
    pub(super) begin: u64,
    pub(super) good: u64,
    pub(super) bad: u64,
}

impl Counts {
    /// Counts a call that begins in the thread's own stripe, which is this number; how many did before.
    #[inline]
    pub(super) fn begin(&self, stripe: usize) -> u64 {
        add_to_own(stripe, &self.begin, 1, Ordering::Relaxed)
    }

    /// Counts a call that ends.
    #[inline]
    pub(super) fn end(&self, stripe: usize, is_good: bool) {
        let end = if is_good { &self.good } else { &self.bad };
        add_to_own(stripe, end, 1, Ordering::Release);
    }

    pub(super) fn look(&self) -> Counted {
        let (good, bad) = (self.good.load(Ordering::Acquire), self.bad.load(Ordering::Acquire));
        let begin = self.begin.load(Ordering::Relaxed);
        Counted { begin, good, bad }
    }
}

/// What timed calls of one tracepoint touch besides; all in nanoseconds. How many they were is the sum of the buckets.
pub(super) struct Times<const BUCKETS: usize> {
    sum: AtomicU64,
    min: AtomicU64,
    max: AtomicU64,
    buckets: [AtomicU64; BUCKETS],
}

/// What was timed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timed {
    pub(super) sum: u64,
    pub(super) min: u64,
    pub(super) max: u64,
}

impl<const BUCKETS: usize> Default for Times<BUCKETS> {
    fn default() -> Self {
        Times {
            sum: AtomicU64::new(0),
            min: AtomicU64::new(u64::MAX),
            max: AtomicU64::new(0),
            buckets: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }
}

impl<const BUCKETS: usize> Times<BUCKETS> {
    /// Notes a call that took so long, which is a duration of this bucket.
    pub(super) fn record(&self, nanoseconds: u64, bucket: usize) {
        self.sum.fetch_add(nanoseconds, Ordering::Relaxed);
        // Extremes seldom move: a load is cheaper than the compare-and-swap that finds out the same.
        if nanoseconds < self.min.load(Ordering::Relaxed) {
            self.min.fetch_min(nanoseconds, Ordering::Relaxed);
        }
        if nanoseconds > self.max.load(Ordering::Relaxed) {
            self.max.fetch_max(nanoseconds, Ordering::Relaxed);
        }
        self.buckets[bucket].fetch_add(1, Ordering::Release);
    }

    /// Adds each bucket to its total.
    pub(super) fn look(&self, totals: &mut [u64; BUCKETS]) -> Timed {
        for (total, bucket) in totals.iter_mut().zip(&self.buckets) {
            *total += bucket.load(Ordering::Acquire);
        }
        Timed {
            sum: self.sum.load(Ordering::Relaxed),
            min: self.min.load(Ordering::Relaxed),
            max: self.max.load(Ordering::Relaxed),
        }
    }
}
