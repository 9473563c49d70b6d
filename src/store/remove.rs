//! Removing: out of the index at once, the memory when the last who needs it lets go.

use crate::error::{Error, Result};
use crate::event;
use crate::evict::Handle;
use crate::key::Key;
use crate::metrics::Counter;
use crate::object::{Count, Life, MAX_COPIES, State};
use crate::segment::allocator::Owner;
use crate::trace::{Timing, Tracepoint};

use super::Store;
use super::segments::Registered;

/// Slots or extents that are looked at between two looks at anything else.
const STEP: u32 = 1024;

impl Store {
    /// Removes an object. Pins, leases and readings keep its bytes where they are; the key is gone at once.
    #[inline(always)] // a part of the export; other processes' calls have a copy of their own
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
            let Some((slot, life)) = self.find_readable(key, hash) else {
                return Err(Error::NotFound);
            };
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
        // It may have got a further copy since then.
        let (generation, life) = (life.generation(), object.life());
        if life.generation() != generation || life.state() != State::Readable {
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
        copies().for_each(|copy| self.note_gone(self.objects.blob(slot, copy).place()));
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

    /// Takes the copy out of reach, and out of its segment's order, that lies there if nobody holds it, and with the last copy the object.
    /// `None`: it is held, or gone already.
    pub(super) fn retire_copy(&self, named: &NamedCopy) -> Option<RetiredCopy> {
        self.retire_copy_if(named, |count| count.retire_unheld(named.generation))
    }

    /// As [`Store::retire_copy`], held or not: its holders keep the memory.
    pub(super) fn retire_held_copy(&self, named: &NamedCopy) -> Option<RetiredCopy> {
        self.retire_copy_if(named, |count| Some(count.retire()))
    }

    fn retire_copy_if(&self, named: &NamedCopy, retire: impl FnOnce(&Count) -> Option<bool>) -> Option<RetiredCopy> {
        let NamedCopy {
            slot,
            copy,
            generation,
            place,
        } = *named;
        let object = self.objects.get(slot);
        let mut shard = self.index.lock(object.hash());
        let (life, blob) = (object.life(), self.objects.blob(slot, copy));
        // The slot may be another object's by now, whose shard this is or is not; and the copy's number another copy's. Of a readable
        // object nobody else retires a copy under the shard's lock, so one that is live stays it.
        let is_it = life.generation() == generation
            && life.state() == State::Readable
            && blob.place() == place
            && blob.count.is_live(generation);
        if !is_it {
            return None;
        }
        let has_others =
            (0..life.copies()).any(|other| other != copy && self.objects.blob(slot, other).count.is_live(generation));
        // Once it is retired its last reader may give the extent back.
        self.note_gone(place);
        let Some(is_free) = self.retire_listed(slot, copy, retire) else {
            self.note_written(slot, &self.segments.get(place.0).segment, place.1);
            return None;
        };
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

    /// Retires a copy and takes it out of its segment's order. Under the shard's lock, as the slot may be another object's as soon as it
    /// is given up.
    fn retire_listed(&self, slot: u32, copy: usize, retire: impl FnOnce(&Count) -> Option<bool>) -> Option<bool> {
        let blob = self.objects.blob(slot, copy);
        let (registered, _) = self.segment_of(slot, copy);
        let mut policy = registered.policy();
        // Known before: the last reader may give the memory back, and the copy's number with it, as soon as it is retired.
        let handle = blob.handle();
        let is_free = retire(blob.count)?;
        if let Some(handle) = handle {
            policy.remove(Handle(handle), self.objects.get(slot).used());
            blob.forget_handle(handle);
        }
        Some(is_free)
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
        self.drop_copy(&NamedCopy {
            slot,
            copy,
            generation: life.generation(),
            place: (segment, unit),
        });
    }

    /// Retires a copy that nobody holds, and finishes with it what there is to finish; whether it went.
    pub(super) fn drop_copy(&self, named: &NamedCopy) -> bool {
        let retired = self.retire_copy(named);
        if let Some(retired) = &retired {
            self.finish_retired(named, retired);
        }
        retired.is_some()
    }

    /// Gives back what a copy that was just retired leaves to its retirer.
    pub(super) fn finish_retired(&self, named: &NamedCopy, retired: &RetiredCopy) {
        if retired.is_free {
            self.end(named.slot, named.copy);
        }
        if retired.is_last {
            self.objects.finish(named.slot);
        }
    }
}

/// A copy as somebody found it: its number may be another copy's by now, and its slot another object's.
#[derive(Debug, Clone, Copy)]
pub(super) struct NamedCopy {
    pub(super) slot: u32,
    pub(super) copy: usize,
    pub(super) generation: u32,
    /// Segment and unit.
    pub(super) place: (u32, u32),
}

/// A copy that was taken out of reach.
pub(super) struct RetiredCopy {
    /// Nobody reads it: its memory is the caller's to give back.
    pub(super) is_free: bool,
    /// It was the object's last: the name is the caller's to finish.
    pub(super) is_last: bool,
}
