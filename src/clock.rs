//! The store's two notions of time.
//!
//! **Milliseconds** since the store was opened, monotonic, for leases and terms.
//!
//! **Stamps**: the order in which things were wanted, for eviction. A put (or batch of puts) takes the next odd stamp; a use takes the even
//! stamp after the last put without changing anything. So uses between the same two puts are one moment, a store that is only
//! read writes no shared line, and a use after a put is newer than that put. [`crate::evict::place`] adds the position in the batch.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Time of one store.
pub(crate) struct Clock {
    start: Instant,
    stamp: AtomicU64,
    /// The second in which time has last passed.
    passed: AtomicU64,
}

impl Clock {
    pub(crate) fn new() -> Clock {
        Clock {
            start: Instant::now(),
            stamp: AtomicU64::new(2),
            passed: AtomicU64::new(0),
        }
    }

    /// Milliseconds since the store was opened.
    pub(crate) fn milliseconds(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }

    /// The stamp of a put: later than everything before it.
    pub(crate) fn stamp_of_put(&self) -> u64 {
        self.stamp.fetch_add(2, Ordering::Relaxed) + 1
    }

    /// The stamp of a use: later than every put before it, earlier than the next.
    pub(crate) fn stamp_of_use(&self) -> u64 {
        self.stamp.load(Ordering::Relaxed)
    }

    /// Lets time pass for uses while there are no puts, once a second: each object that is read then has its use written once a
    /// second, not more often.
    pub(crate) fn pass(&self, milliseconds: u64) {
        let second = milliseconds / 1000;
        if self.passed.swap(second, Ordering::Relaxed) != second {
            self.stamp.fetch_add(2, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_use_is_newer_than_the_put_before_it_and_older_than_the_one_after() {
        let clock = Clock::new();
        let first = clock.stamp_of_put();
        let used = clock.stamp_of_use();
        assert_eq!(used, clock.stamp_of_use());
        let second = clock.stamp_of_put();
        assert!(first < used && used < second && second < clock.stamp_of_use());
        let last = clock.stamp_of_use();
        clock.pass(999);
        assert_eq!(clock.stamp_of_use(), last, "the first second is not over");
        clock.pass(1000);
        let next = clock.stamp_of_use();
        clock.pass(1999);
        assert!(last < next && clock.stamp_of_use() == next);
    }

    #[test]
    fn every_put_has_a_stamp_of_its_own_and_no_use_has_one_of_a_put() {
        let clock = Clock::new();
        let stamps = std::thread::scope(|scope| {
            let putter = || {
                let stamps: Vec<u64> = (0..10_000).map(|_| clock.stamp_of_put()).collect();
                assert!(stamps.is_sorted() && stamps.iter().all(|stamp| stamp % 2 == 1));
                stamps
            };
            let putters = [scope.spawn(putter), scope.spawn(putter)];
            for second in 0..10_000 {
                assert_eq!(clock.stamp_of_use() % 2, 0);
                clock.pass(second * 1000);
            }
            putters.map(|putter| putter.join().unwrap())
        });
        let all: std::collections::HashSet<u64> = stamps.into_iter().flatten().collect();
        assert_eq!(all.len(), 20_000);
    }

    #[test]
    fn milliseconds_begin_at_the_opening_and_never_go_back() {
        let before = Instant::now();
        let clock = Clock::new();
        let mut last = 0;
        while last < 3 {
            let now = clock.milliseconds();
            assert!(now >= last && u128::from(now) <= before.elapsed().as_millis());
            last = now;
        }
    }
}
