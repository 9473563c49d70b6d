//! The store's notions of time.
//!
//! **Milliseconds** since the store was opened, for leases and terms. They come from the system's monotonic clock, or from the host
//! where its config brings a clock of its own; a host's clock that goes back is taken to stand still.
//!
//! **Stamps**: the order in which things were wanted, for eviction. A put (or batch of puts) takes the next odd stamp; a use takes the even
//! stamp after the last put without changing anything. So uses between the same two puts are one moment, a store that is only
//! read writes no shared line, and a use after a put is newer than that put. [`crate::evict::place`] adds the position in the batch.
//!
//! **Ticks** of a second: the upper bits of a stamp are the tick in which it was taken, so that an object that has the stamp of its last use
//! has its age, too. A stamp is never behind the tick; without puts one use a tick is written into an object, not more. In a second with
//! more than two million stamps it runs ahead, and the tick with it, until time has caught up.
//!
//! **Who looks.** A use must not pay for a look at the clock, so a tick begins when somebody else looks: whoever asks for milliseconds. The
//! keeper does a few times a second. A host's clock may have moved on by hours between two calls, so each put and get looks at it as well
//! ([`Clock::follow`]). Only threads of callers ever ask the host: the library's own take what it said last ([`Clock::heard`]).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Bits of a stamp below its tick.
const TICK_SHIFT: u32 = 22;
/// Ticks end after four years, in the middle of what 50 bits of stamp hold: the other half lasts for as many puts as there can be.
const LAST_TICK: u64 = (1 << 26) - (1 << 20);
const NANOSECONDS_A_TICK: u64 = 1_000_000_000;

/// The tick of a stamp, in seconds since the store was opened.
pub(crate) fn tick_of(stamp: u64) -> u64 {
    stamp >> TICK_SHIFT
}

/// The host's own clock: nanoseconds from any beginning.
pub(crate) type HostClock = Box<dyn Fn() -> u64 + Send + Sync>;

enum Source {
    Monotonic {
        start: Instant,
    },
    Host {
        now: HostClock,
        start: u64,
        /// The latest that it has said, in nanoseconds since `start`.
        heard: AtomicU64,
    },
}

/// Time of one store.
pub(crate) struct Clock {
    source: Source,
    stamp: AtomicU64,
}

impl Clock {
    /// The time of the host where it has a clock, of the system where not.
    pub(crate) fn new(host: Option<HostClock>) -> Clock {
        let source = match host {
            None => Source::Monotonic { start: Instant::now() },
            Some(now) => Source::Host {
                start: now(),
                heard: AtomicU64::new(0),
                now,
            },
        };
        Clock {
            source,
            stamp: AtomicU64::new(2),
        }
    }

    /// Milliseconds since the store was opened. For threads that are in a call of the host's, outside of every lock.
    pub(crate) fn milliseconds(&self) -> u64 {
        let nanoseconds = match &self.source {
            Source::Monotonic { start } => start.elapsed().as_nanos() as u64,
            Source::Host { now, start, heard } => {
                let since = now().saturating_sub(*start);
                heard.fetch_max(since, Ordering::Relaxed).max(since)
            }
        };
        self.pass(nanoseconds)
    }

    /// As [`Clock::milliseconds`], for threads of the library: when the clock is the host's, what was heard of it last.
    pub(crate) fn heard(&self) -> u64 {
        match &self.source {
            Source::Monotonic { .. } => self.milliseconds(),
            Source::Host { heard, .. } => self.pass(heard.load(Ordering::Relaxed)),
        }
    }

    /// Looks at the clock if it is the host's.
    pub(crate) fn follow(&self) {
        if let Source::Host { .. } = self.source {
            self.milliseconds();
        }
    }

    /// The stamp of a put: later than everything before it.
    pub(crate) fn stamp_of_put(&self) -> u64 {
        self.stamp.fetch_add(2, Ordering::Relaxed) + 1
    }

    /// The stamp of a use: later than every put before it, earlier than the next.
    pub(crate) fn stamp_of_use(&self) -> u64 {
        self.stamp.load(Ordering::Relaxed)
    }

    /// Begins the tick of this time, if it has not begun; the time in milliseconds.
    fn pass(&self, nanoseconds: u64) -> u64 {
        let tick = (nanoseconds / NANOSECONDS_A_TICK).min(LAST_TICK);
        if tick_of(self.stamp.load(Ordering::Relaxed)) < tick {
            self.stamp.fetch_max(tick << TICK_SHIFT, Ordering::Relaxed);
        }
        nanoseconds / 1_000_000
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    /// A clock whose time the test sets, in nanoseconds.
    fn set_by_hand() -> (Clock, Arc<AtomicU64>) {
        let time = Arc::new(AtomicU64::new(1 << 60));
        let read = Arc::clone(&time);
        (Clock::new(Some(Box::new(move || read.load(Ordering::Relaxed)))), time)
    }

    fn advance(time: &AtomicU64, milliseconds: u64) {
        time.fetch_add(milliseconds * 1_000_000, Ordering::Relaxed);
    }

    #[test]
    fn a_use_is_newer_than_the_put_before_it_and_older_than_the_one_after() {
        let (clock, time) = set_by_hand();
        let first = clock.stamp_of_put();
        let used = clock.stamp_of_use();
        assert_eq!(used, clock.stamp_of_use());
        let second = clock.stamp_of_put();
        assert!(first < used && used < second && second < clock.stamp_of_use());
        let last = clock.stamp_of_use();
        advance(&time, 999);
        clock.follow();
        assert_eq!(clock.stamp_of_use(), last, "the first second is not over");
        advance(&time, 1);
        assert_eq!(clock.stamp_of_use(), last, "nobody has looked");
        clock.follow();
        let next = clock.stamp_of_use();
        advance(&time, 999);
        clock.follow();
        assert!(last < next && clock.stamp_of_use() == next);
        assert!(clock.stamp_of_put() > next);
    }

    #[test]
    fn a_stamp_has_the_tick_in_which_it_was_taken() {
        let (clock, time) = set_by_hand();
        for seconds in [0, 1, 7, 86_400] {
            time.store((1 << 60) + seconds * NANOSECONDS_A_TICK, Ordering::Relaxed);
            clock.follow();
            assert_eq!(tick_of(clock.stamp_of_use()), seconds);
            assert_eq!(tick_of(clock.stamp_of_put()), seconds);
            assert_eq!(tick_of(clock.stamp_of_use()), seconds);
        }
    }

    #[test]
    fn every_put_has_a_stamp_of_its_own_and_no_use_has_one_of_a_put() {
        let (clock, time) = set_by_hand();
        let stamps = std::thread::scope(|scope| {
            let putter = || {
                let stamps: Vec<u64> = (0..10_000).map(|_| clock.stamp_of_put()).collect();
                assert!(stamps.is_sorted() && stamps.iter().all(|stamp| stamp % 2 == 1));
                stamps
            };
            let putters = [scope.spawn(putter), scope.spawn(putter)];
            for _ in 0..10_000 {
                assert_eq!(clock.stamp_of_use() % 2, 0);
                advance(&time, 1000);
                clock.follow();
            }
            putters.map(|putter| putter.join().unwrap())
        });
        let all: std::collections::HashSet<u64> = stamps.into_iter().flatten().collect();
        assert_eq!(all.len(), 20_000);
    }

    #[test]
    fn milliseconds_begin_at_the_opening_and_never_go_back() {
        let before = Instant::now();
        let clock = Clock::new(None);
        let mut last = 0;
        while last < 3 {
            let now = clock.milliseconds();
            assert!(now >= last && u128::from(now) <= before.elapsed().as_millis());
            last = now;
        }
        let (clock, time) = set_by_hand();
        assert_eq!(clock.milliseconds(), 0);
        advance(&time, 1500);
        assert_eq!(clock.heard(), 0, "the library's own threads do not ask");
        assert_eq!(clock.milliseconds(), 1500);
        for earlier in [(1 << 60) + 1, 0] {
            time.store(earlier, Ordering::Relaxed);
            assert_eq!((clock.milliseconds(), clock.heard()), (1500, 1500));
        }
    }

    #[test]
    fn a_clock_at_its_end_leaves_room_for_stamps() {
        let (clock, time) = set_by_hand();
        time.store(u64::MAX, Ordering::Relaxed);
        clock.follow();
        let last = clock.stamp_of_put();
        assert_eq!(clock.stamp_of_put(), last + 2);
        assert!(last <= (1 << 49) + 1, "less than half of the stamps are left");
    }
}
