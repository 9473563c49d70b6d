//! Removing: out of the index at once, the memory when the last who needs it lets go.

use crate::error::{Error, Result};
use crate::event;
use crate::key::Key;
use crate::metrics::Counter;
use crate::object::{Life, MAX_COPIES, State};
use crate::segment::allocator::Owner;
use crate::trace::{Timing, Tracepoint};

use super::Store;
use super::segments::Registered;

/// Slots or extents that are looked at between two looks at anything else.
const STEP: u32 = 1024;

impl Store {
    /// Removes an object. Pins, leases and readings keep its bytes where they are; the key is gone at once.
    pub(crate) fn remove(&self, key: &Key) -> Result<()> {
        self.count(Counter::RemoveOperations, 1);
        let span = self.tracer.begin(Tracepoint::Remove, Timing::Sampled);
        self.counted(self.take_out(key, self.hash(key)))?;
        span.good();
        Ok(())
    }

    /// Removes as many objects as `results` has and writes a code for each.
    pub(crate) fn batch_remove<'a>(&self, key: impl Fn(usize) -> Result<Key<'a>>, results: &mut [i32]) {
        self.count(Counter::RemoveOperations, results.len() as u64);
        let span = self.tracer.begin(Tracepoint::BatchRemove, Timing::Always);
        self.each_key(results, key, |_, key, hash| self.take_out(key, hash));
        span.good();
    }

    /// Removes every readable object that is there from start to end; how many.
    pub(crate) fn remove_all(&self) -> u64 {
        let span = self.tracer.begin(Tracepoint::RemoveAll, Timing::Always);
        let removed = (0..self.objects.bound())
            .filter_map(|slot| self.objects.read_key(slot).map(|(life, _)| (slot, life)))
            .filter(|(slot, life)| self.retire_object(*slot, *life))
            .count() as u64;
        self.count(Counter::RemoveOperations, removed);
        span.good();
        removed
    }

    fn take_out(&self, key: &Key, hash: u64) -> Result<()> {
        loop {
            let (slot, life) = self.find_readable(key, hash).ok_or(Error::NotFound)?;
            if self.retire_object(slot, life) {
                return Ok(());
            }
        }
    }

    /// Ends the readable object of `life`; false when it is no longer there.
    fn retire_object(&self, slot: u32, life: Life) -> bool {
        let object = self.objects.get(slot);
        let hash = object.hash();
        let mut shard = self.index.lock(hash);
        if object.life() != life || life.state() != State::Readable {
            return false;
        }
        let mut live = [false; MAX_COPIES];
        for (copy, is_live) in live.iter_mut().enumerate().take(life.copies()) {
            *is_live = self.objects.blob(slot, copy).count.is_live(life.generation());
        }
        let copies = || (0..MAX_COPIES).filter(|copy| live[*copy]);
        let key = self.key_to_announce(slot);
        object.set_state(State::Gone);
        shard.erase(slot);
        self.announce(event::Kind::Removed, key, slot, copies());
        drop(shard);
        for copy in copies() {
            self.unlist(slot, copy);
            if self.objects.blob(slot, copy).count.retire() {
                self.end(slot, copy);
            }
        }
        self.count_stored(-1);
        self.objects.finish(slot);
        true
    }

    /// Takes one copy out of reach and out of its segment's order if nobody holds it, and with the last copy the object. `None`: it is
    /// held, or gone already.
    pub(super) fn retire_copy(&self, slot: u32, generation: u32, copy: usize) -> Option<RetiredCopy> {
        let object = self.objects.get(slot);
        let life = object.life();
        let mut shard = self.index.lock(object.hash());
        if object.life() != life || life.generation() != generation || life.state() != State::Readable {
            return None;
        }
        let has_others =
            (0..life.copies()).any(|other| other != copy && self.objects.blob(slot, other).count.is_live(generation));
        let is_free = self.objects.blob(slot, copy).count.retire_unheld(generation)?;
        // Under the shard's lock, as the slot may be another object's as soon as it is given up.
        self.unlist(slot, copy);
        let key = self.key_to_announce(slot);
        if !has_others {
            object.set_state(State::Gone);
            shard.erase(slot);
        }
        self.announce(event::Kind::Removed, key, slot, std::iter::once(copy));
        drop(shard);
        if !has_others {
            self.count_stored(-1);
        }
        Some(RetiredCopy {
            is_free,
            is_last: !has_others,
        })
    }

    /// Drops every copy in a segment that is leaving, with the objects whose last copy that was.
    pub(super) fn drop_copies_in(&self, registered: &Registered) {
        let segment = &registered.segment;
        let mut from = 0;
        while from < (segment.capacity / crate::segment::allocator::UNIT) as u32 {
            let mut slots = [None; STEP as usize];
            let next = segment.with_space(|space| {
                let mut next = space.units();
                let mut places = slots.iter_mut();
                for (extent, owner) in space.runs(from) {
                    let Some(Owner::Object(slot)) = owner else { continue };
                    match places.next() {
                        Some(place) => *place = Some((slot, extent.start)),
                        None => {
                            next = extent.start;
                            break;
                        }
                    }
                }
                next
            });
            for (slot, unit) in slots.into_iter().flatten() {
                self.drop_copy_at(slot, segment.number, unit);
            }
            from = next.unwrap_or(u32::MAX);
        }
    }

    fn drop_copy_at(&self, slot: u32, segment: u32, unit: u32) {
        let life = self.objects.get(slot).life();
        if life.state() != State::Readable {
            return;
        }
        let Some(copy) = self.copy_at(slot, segment, unit) else {
            return;
        };
        let Some(retired) = self.retire_copy(slot, life.generation(), copy) else {
            return;
        };
        if retired.is_free {
            self.end(slot, copy);
        }
        if retired.is_last {
            self.objects.finish(slot);
        }
    }
}

/// A copy that was taken out of reach.
pub(super) struct RetiredCopy {
    /// Nobody reads it: its memory is the caller's to give back.
    pub(super) is_free: bool,
    /// It was the object's last: the name is the caller's to finish.
    pub(super) is_last: bool,
}
