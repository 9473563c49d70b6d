//! The store's second thread: moves between media in the background.
//!
//! **Down.** Where the keeper finds a segment above its high watermark and there is a slower medium, it wakes the mover instead of
//! dropping. The mover takes copies in the policy's order, as many as are under way at once, and makes copies of them below: as it is,
//! where there is room; on the slowest medium also by dropping what goes first there. An object with another copy needs none: its copy just
//! goes. A put that finds no room does not wait for any of that: it drops what comes next in the order, as without a mover, and
//! that is counted (`memcache_spill_drops_total`): the disk is the limit then.
//!
//! **Up.** A get that uses an object on SSD for the second time asks for a copy in memory ([`Store::want_promotion`]), which is made when there
//! is room as it is, as the watermarks keep some. The copy on SSD stays: the object can leave memory again without a write.
//!
//! **A medium that fails** is left alone for a while ([`REST`]): what was to go there stays where it was, and when room is needed meanwhile
//! it is made by dropping.
//!
//! It holds no lock between two steps and no memory that a put waits for, so it may stop anywhere without stopping anybody.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::error::{Error, Result, words};
use crate::log::{Level, say};
use crate::metrics::Counter;
use crate::segment::allocator::UNIT;
use crate::segment::disk::IN_FLIGHT;
use crate::segment::{Medium, Segment};

use super::Store;
use super::evict::Candidate;
use super::moves::{Begun, Named};
use super::remove::NamedCopy;
use super::segments::Registered;

/// For so long nothing is moved to a medium that has failed.
const REST: Duration = Duration::from_secs(1);
/// Objects that wait to come up, at most. Further wishes are forgotten, and come again with the next use.
const WISHES: usize = 1024;
/// Objects that are under way at once, at most.
const GROUP: usize = 256;
/// How long somebody who waits for a move sleeps before he looks again, should a wake-up have been missed.
const RECHECK: Duration = Duration::from_millis(20);

/// The thread, and what it is asked for.
pub(super) struct Mover {
    running: Mutex<Option<JoinHandle<()>>>,
    shared: Mutex<Shared>,
    /// There is something to do.
    wanted: Condvar,
    /// A move has ended.
    moved: Condvar,
    /// Nothing is moved down before this many milliseconds of the store's own time.
    rests_until: AtomicU64,
    born: Instant,
    /// Bytes a second; 0 for as fast as it goes.
    rate: u64,
    is_stopping: AtomicBool,
}

#[derive(Default)]
struct Shared {
    is_wanted: bool,
    wishes: VecDeque<Named>,
    is_waited_for: bool,
}

/// Starts the thread of an opened store. It keeps the store until [`Mover::stop`].
pub(super) fn start(store: &Arc<Store>) -> Result<()> {
    let kept = Arc::clone(store);
    let running = std::thread::Builder::new()
        .name("mmc-mover".into())
        .spawn(move || kept.keep_moving())
        .map_err(|error| Error::OutOfMemory(words!("no thread for the store's moves: {error}")))?;
    *lock(&store.mover.running) = Some(running);
    Ok(())
}

impl Mover {
    pub(super) fn new(rate: u64) -> Mover {
        Mover {
            running: Mutex::new(None),
            shared: Mutex::default(),
            wanted: Condvar::new(),
            moved: Condvar::new(),
            rests_until: AtomicU64::new(0),
            born: Instant::now(),
            rate,
            is_stopping: AtomicBool::new(false),
        }
    }

    /// Asks for a look at the watermarks.
    pub(super) fn wake(&self) {
        lock(&self.shared).is_wanted = true;
        self.wanted.notify_one();
    }

    /// Ends the thread and waits for it.
    pub(super) fn stop(&self) {
        self.is_stopping.store(true, Ordering::Release);
        self.wake();
        let running = lock(&self.running).take();
        if let Some(running) = running {
            // A panic in it was a defect that its own thread has reported; the store is going anyway.
            let _ = running.join();
        }
    }

    /// Says that some object is no longer being moved.
    pub(super) fn tell_moved(&self) {
        if lock(&self.shared).is_waited_for {
            self.moved.notify_all();
        }
    }

    /// Blocks until some move has ended, or a moment has passed.
    fn wait_for_move(&self) {
        let mut shared = lock(&self.shared);
        shared.is_waited_for = true;
        drop(
            self.moved
                .wait_timeout(shared, RECHECK)
                .unwrap_or_else(PoisonError::into_inner),
        );
    }

    fn rest(&self) {
        let until = self.born.elapsed() + REST;
        self.rests_until.store(until.as_millis() as u64, Ordering::Release);
    }

    fn is_resting(&self) -> bool {
        let until = self.rests_until.load(Ordering::Acquire);
        until > 0 && (self.born.elapsed().as_millis() as u64) < until
    }

    fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Acquire)
    }

    /// Waits for as long as `bytes` bytes take at the rate, or until the end.
    fn pace(&self, begun: Instant, bytes: u64) {
        if self.rate == 0 {
            return;
        }
        let end = begun + Duration::from_secs_f64(bytes as f64 / self.rate as f64);
        let mut shared = lock(&self.shared);
        while let Some(left) = end.checked_duration_since(Instant::now())
            && !self.is_stopping()
        {
            (shared, _) = self
                .wanted
                .wait_timeout(shared, left)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Blocks until there is something to do, and takes up to a group of wishes.
    fn wait_for_work(&self) -> Vec<Named> {
        let mut shared = lock(&self.shared);
        while !shared.is_wanted && shared.wishes.is_empty() {
            shared = self.wanted.wait(shared).unwrap_or_else(PoisonError::into_inner);
        }
        shared.is_wanted = false;
        let count = shared.wishes.len().min(GROUP);
        shared.wishes.drain(..count).collect()
    }
}

impl Store {
    fn keep_moving(&self) {
        while !self.mover.is_stopping() {
            let wishes = self.mover.wait_for_work();
            // A defect in one round must not end moves for good.
            let round = AssertUnwindSafe(|| {
                self.promote(wishes);
                self.demote_all();
            });
            if catch_unwind(round).is_err() {
                say!(
                    Level::Error,
                    "defect of the library: a round of the store's moves panicked"
                );
            }
        }
    }

    /// Asks for a copy in memory of an object that is on SSD. Never waits: what can't be remembered is asked for again.
    pub(super) fn want_promotion(&self, slot: u32) {
        if self.watermark_high == 100 {
            // Nothing makes room in memory by itself, so nothing takes it by itself either.
            return;
        }
        let named = Named {
            slot,
            generation: self.objects.get(slot).life().generation(),
        };
        let mut shared = lock(&self.mover.shared);
        if shared.wishes.len() < WISHES && shared.wishes.try_reserve(1).is_ok() {
            shared.wishes.push_back(named);
            drop(shared);
            self.mover.wanted.notify_one();
        } else {
            drop(shared);
            self.objects.forget_slow_use(slot);
        }
    }

    /// Brings objects up for which there is room as it is.
    fn promote(&self, wishes: Vec<Named>) {
        let mut wishes = wishes.into_iter().peekable();
        while wishes.peek().is_some() && !self.mover.is_stopping() {
            let begun = Instant::now();
            let (mut group, mut bytes) = (Vec::new(), 0);
            while let Some(named) = wishes.next_if(|_| group.len() < GROUP && bytes < IN_FLIGHT) {
                let is_of_device = self.objects.get(named.slot).life().is_of_device();
                let up = move |segment: &Segment| is_home(segment, is_of_device);
                match self.begin_copy(named, up, |_| false) {
                    Ok(Begun::Copying(copying)) => {
                        bytes += copying.size;
                        group.push(copying);
                    }
                    _ => self.objects.forget_slow_use(named.slot),
                }
            }
            self.make_copies(group, |named, result| {
                self.objects.forget_slow_use(named.slot);
                if result.is_ok() {
                    self.count(Counter::Promotions, 1);
                }
            });
            self.mover.pace(begun, bytes);
        }
    }

    /// Moves down what is above the high watermarks, the slower media first, so that there is room in them.
    fn demote_all(&self) {
        for medium in [Medium::Dram, Medium::Hbm] {
            for registered in self
                .segments
                .open()
                .filter(|registered| registered.segment.medium == medium)
            {
                if self.is_above(registered, self.watermark_high) {
                    self.demote_to_low(registered);
                }
            }
        }
    }

    /// Whether objects move down from this medium, and not just away.
    pub(super) fn has_way_down(&self, medium: Medium) -> bool {
        !self.mover.is_resting() && self.has_slower(medium)
    }

    /// Whether there is a slower medium.
    pub(super) fn has_slower(&self, medium: Medium) -> bool {
        self.segments
            .open()
            .any(|registered| registered.segment.medium > medium)
    }

    fn demote_to_low(&self, registered: &Registered) {
        let medium = registered.segment.medium;
        while self.is_above(registered, self.watermark_low) && !self.mover.is_stopping() && self.has_way_down(medium) {
            if !self.demote_group(registered) {
                return;
            }
        }
    }

    /// Moves a group of copies down, those that go first; false when nothing more may go, or can.
    fn demote_group(&self, registered: &Registered) -> bool {
        let begun = Instant::now();
        let goal = self.bytes_above_low(registered);
        let (mut candidates, mut group, mut bytes) = (Vec::new(), Vec::new(), 0);
        let mut dropped = 0;
        let mut has_all = true;
        while bytes < IN_FLIGHT && bytes + dropped < goal && group.len() < GROUP {
            if candidates.try_reserve(1).is_err() || group.try_reserve(1).is_err() {
                break;
            }
            let Some(candidate) = self.next_candidate(registered) else {
                has_all = false;
                break;
            };
            match self.begin_demotion(&candidate) {
                Ok(Begun::Copying(copying)) => {
                    bytes += copying.size.next_multiple_of(UNIT);
                    group.push(copying);
                    candidates.push(candidate);
                }
                // There is another copy: this one is not needed to keep the object.
                Ok(Begun::IsThere) => dropped += self.leave(&candidate),
                // No room below either: it goes, as from the slowest medium.
                Err(Error::NoSpace(_)) => dropped += self.drop_candidate(&candidate, None),
                Ok(Begun::IsMoving) | Err(_) => {
                    self.put_back(&candidate);
                    has_all = false;
                    break;
                }
            }
        }
        let is_something = dropped > 0 || !group.is_empty();
        let mut number = 0;
        self.make_copies(group, |_, result| {
            let candidate = &candidates[number];
            number += 1;
            match result {
                Ok(()) => drop(self.leave(candidate)),
                // Removed meanwhile; or it is where it went to that is gone, and it stays.
                Err(Error::NotFound) => self.put_back(candidate),
                Err(error) => {
                    if matches!(error, Error::Io(_) | Error::Callback(..)) {
                        self.mover.rest();
                    }
                    self.put_back(candidate);
                    has_all = false;
                }
            }
        });
        self.mover.pace(begun, bytes);
        is_something && has_all
    }

    /// Ends a copy of an object that has another; its bytes, 0 when it is held.
    fn leave(&self, candidate: &Candidate) -> u64 {
        // The slot may be another object's afterwards.
        let size = self.objects.get(candidate.named.slot).size();
        let bytes = self.drop_candidate(candidate, None);
        if bytes > 0 {
            self.count(Counter::Demotions, 1);
            self.count(Counter::EvictOperations, 1);
            self.count(Counter::EvictedBytes, size);
        }
        bytes
    }

    fn begin_demotion(&self, candidate: &Candidate) -> Result<Begun<'_>> {
        let named = Named {
            slot: candidate.named.slot,
            generation: candidate.named.generation,
        };
        let medium = self.medium_of(&candidate.named);
        let life = self.life_of(named).ok_or(Error::NotFound)?;
        let is_other = |copy: &NamedCopy| copy.place != candidate.named.place;
        if self.live_copies(named, life).any(|copy| is_other(&copy)) {
            return Ok(Begun::IsThere);
        }
        let slowest = self.segments.open().map(|registered| registered.segment.medium).max();
        let below = move |segment: &Segment| segment.medium > medium;
        self.begin_copy(named, below, move |segment| Some(segment.medium) == slowest)
    }

    /// Blocks until the object of a slot may have ended its move.
    pub(super) fn wait_for_move(&self) {
        self.mover.wait_for_move();
    }

    fn bytes_above_low(&self, registered: &Registered) -> u64 {
        let segment = &registered.segment;
        let low = u128::from(segment.capacity) * u128::from(self.watermark_low) / 100;
        segment.allocated().saturating_sub(low as u64)
    }
}

/// Whether an object may come up to a segment: memory of the kind that it was put into. HBM is only for what was.
pub(super) fn is_home(segment: &Segment, is_of_device: bool) -> bool {
    match segment.medium {
        Medium::Hbm => is_of_device,
        Medium::Dram => segment.device().is_some() == is_of_device,
        Medium::Ssd => false,
    }
}

/// What this lock guards is whole between any two steps.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
