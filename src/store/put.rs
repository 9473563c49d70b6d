//! Putting: take the key, find room, copy, publish.
//!
//! Whatever fails on the way, a panic too, drops the [`Writing`]: the key is free again, the space comes back, and nobody has seen
//! anything. A batch does each step for all of its elements before the next, and publishes at the end, the head first. Its elements are
//! reserved until then, so no element can be evicted for another; but a policy that may let newcomers go soon has a batch that is larger
//! than it lets them stay, and than there is room, put in parts ([`evict::Policies::batch_units`]).

use std::ops::ControlFlow;

use crate::error::{Error, Result};
use crate::event;
use crate::evict::{self, Turn};
use crate::key::Key;
use crate::metrics::Counter;
use crate::object::State;
use crate::segment::Segment;
use crate::segment::allocator::UNIT;
use crate::segment::buffers::{Buffers, list_of};
use crate::segment::device::Direction;
use crate::segment::transfer::Transfer;
use crate::trace::{Timing, Tracepoint};

use super::Store;
use super::group::Hashed;
use super::place::PutOptions;

/// Copies of at least this many bytes are always timed: next to them two looks at the clock, 100 ns on some virtual machines, are nothing.
const TIMED_BYTES: u64 = 1 << 20;

/// How much smaller the parts of a large batch are than its first.
const PARTS_AFTER_THE_FIRST: u64 = 8;

/// A part of a batch.
struct Part {
    /// The batch's.
    stamp: u64,
    /// The element that it begins with.
    begin: usize,
    /// Units that it may have, and may pass with its last element.
    most: u64,
}

/// An object that is being written: its key is taken, its memory is this call's. Dropped, it never was.
pub(crate) struct Writing<'s> {
    store: &'s Store,
    pub(super) slot: u32,
}

impl Store {
    /// Puts an object. `Exists` when the key is taken; `NoSpace` when no room can be made.
    #[inline(always)] // a part of the export; other processes' calls have a copy of their own
    pub(crate) fn put(&self, key: &Key, buffers: &Buffers<'_>, options: &PutOptions<'_>) -> Result<()> {
        self.counted(self.put_object(key, buffers, options))
    }

    pub(super) fn put_object(&self, key: &Key, buffers: &Buffers<'_>, options: &PutOptions<'_>) -> Result<()> {
        let size = buffers.total();
        self.clock.follow();
        // Locked instructions wait for every write before them: what this call is going to write, and to copy, is better here by then.
        let hash = self.hash(key);
        self.index.prefetch(hash);
        self.objects.prefetch_next();
        buffers.prefetch();
        let span = self.tracer.begin(Tracepoint::Put, Timing::Sampled);
        let writing = self.begin_writing(key, hash, size, options, true)?;
        span.good();

        let span = self.tracer.begin(Tracepoint::LocalPut, timing_of(size));
        let mut transfer = Transfer::new(Direction::ToSegment, options.stream);
        let mut result = self.write_copies(0, &writing, buffers, &mut transfer);
        transfer.finish(|_, error| result = Err(error));
        result?;
        span.good();

        let span = self.tracer.begin(Tracepoint::Update, Timing::Sampled);
        writing.publish(Turn::alone(self.clock.stamp_of_put()))?;
        span.good();
        self.count(Counter::PutBytes, size);
        Ok(())
    }

    /// Puts as many objects as `results` has and writes a code for each. Only a call that can't begin is an error.
    pub(crate) fn batch_put<'a>(
        &self,
        element: impl Fn(usize) -> Result<(Key<'a>, Buffers<'a>)>,
        options: &PutOptions<'_>,
        results: &mut [i32],
    ) -> Result<()> {
        let mut writings = list_of(results.len(), || None)?;
        results.fill(0);
        self.clock.follow();
        let stamp = self.clock.stamp_of_put();
        let mut begin = 0;
        while begin < results.len() {
            let most = self.part_units(options, begin == 0);
            begin = self.put_part(&Part { stamp, begin, most }, &element, options, &mut writings, results);
        }
        Ok(())
    }

    /// Units of a batch that are on their way at once: all for which there is room, or as many as the policy lets newcomers stay for.
    pub(super) fn part_units(&self, options: &PutOptions<'_>, is_first: bool) -> u64 {
        let medium = options.medium.unwrap_or_else(|| self.default_medium());
        let segments = self.segments.open().map(|registered| &registered.segment);
        let (mut least, mut room) = (u64::MAX, 0);
        let is_for_all = options.guest.is_none();
        for segment in segments.filter(|segment| segment.medium == medium && (is_for_all || segment.is_shareable)) {
            least = least.min(self.policies.batch_units(segment.capacity / UNIT));
            room += segment.capacity.saturating_sub(segment.allocated()) / UNIT;
        }
        if !is_first && least < u64::MAX {
            least = (least / PARTS_AFTER_THE_FIRST).max(1);
        }
        least.max(room / options.replicas.max(1) as u64)
    }

    /// Puts a part of a batch; where the next begins.
    fn put_part<'s, 'a>(
        &'s self,
        part: &Part,
        element: impl Fn(usize) -> Result<(Key<'a>, Buffers<'a>)>,
        options: &PutOptions<'_>,
        writings: &mut [Option<(Writing<'s>, Buffers<'a>)>],
        results: &mut [i32],
    ) -> usize {
        let Part { stamp, begin, most } = *part;
        let count = results.len();

        let span = self.tracer.begin(Tracepoint::BatchPut, Timing::Always);
        let (mut end, mut units) = (begin, 0);
        let _ = self.each_hashed(
            count - begin,
            |number| element(begin + number),
            |_, hashed| {
                let begun = hashed.and_then(|Hashed { key, hash, rest }| {
                    Ok((self.begin_writing(&key, hash, rest.total(), options, false)?, rest))
                });
                if let Ok((_, buffers)) = &begun {
                    units += Segment::units_for(buffers.total());
                }
                writings[end] = self.note(begun, &mut results[end]);
                end += 1;
                match units < most {
                    true => ControlFlow::Continue(()),
                    false => ControlFlow::Break(()),
                }
            },
        );
        let part = begin..end;
        let (writings, results) = (&mut writings[part.clone()], &mut results[part]);
        writings.iter().flatten().for_each(|(writing, _)| writing.settle());
        span.good();

        let span = self.tracer.begin(Tracepoint::LocalBatchPut, Timing::Always);
        let mut transfer = Transfer::new(Direction::ToSegment, options.stream);
        for (number, writing) in writings.iter().enumerate() {
            let Some((begun, buffers)) = writing else { continue };
            let queued = self.write_copies(number, begun, buffers, &mut transfer);
            self.note(queued, &mut results[number]);
        }
        let mut is_good = true;
        transfer.finish(|number, error| {
            is_good = false;
            self.note::<()>(Err(error), &mut results[number]);
        });
        span.end(is_good);
        // Only now: what failed in one segment was still on its way into another, so its memory had to stay its own.
        for (writing, _) in writings.iter_mut().zip(&*results).filter(|(_, code)| **code != 0) {
            *writing = None;
        }

        let span = self.tracer.begin(Tracepoint::BatchUpdate, Timing::Always);
        let mut bytes = 0;
        for (number, (writing, result)) in writings.iter_mut().zip(results).enumerate() {
            let Some((writing, buffers)) = writing.take() else {
                continue;
            };
            let published = writing.publish(Turn::in_batch(stamp, begin + number, count));
            if self.note(published, result).is_some() {
                bytes += buffers.total();
            }
        }
        span.good();
        self.count(Counter::PutBytes, bytes);
        end
    }

    /// Takes the key and finds room for every copy. `is_last`: the caller wants no more room after this, so others may wait for it to be
    /// done; else it calls [`Writing::settle`] when that is so.
    pub(super) fn begin_writing(
        &self,
        key: &Key,
        hash: u64,
        size: u64,
        options: &PutOptions<'_>,
        is_last: bool,
    ) -> Result<Writing<'_>> {
        self.count(Counter::AllocOperations, 1);
        let writing = self.take_key(key, hash, size, options.replicas)?;
        let span = self.tracer.begin(Tracepoint::Alloc, Timing::Sampled);
        self.place(writing.slot, size, options, is_last && options.replicas == 1)?;
        if is_last {
            writing.settle();
        }
        span.good();
        Ok(writing)
    }

    /// Makes an object of no copies yet and puts it into the index, reserved.
    fn take_key(&self, key: &Key, hash: u64, size: u64, copies: usize) -> Result<Writing<'_>> {
        let mut shard = self.index.lock(hash);
        let mut has_swept = false;
        while let Some(life) = shard.find(|other| self.objects.life_of(other, key, hash)) {
            drop(shard);
            // An overdue reservation keeps nobody off its key.
            if life.state() == State::Readable || has_swept || !self.sweep() {
                return Err(Error::Exists);
            }
            has_swept = true;
            shard = self.index.lock(hash);
        }
        let slot = self.objects.create(key, hash, size, copies)?;
        match shard.insert(slot, |other| self.objects.get(other).hash()) {
            Ok(()) => Ok(Writing { store: self, slot }),
            Err(error) => {
                self.objects.finish(slot);
                Err(error)
            }
        }
    }

    fn write_copies<'s, 'a>(
        &'s self,
        number: usize,
        writing: &Writing<'_>,
        buffers: &Buffers<'a>,
        transfer: &mut Transfer<'s, 'a>,
    ) -> Result<()> {
        self.note_checksum(writing.slot, buffers)?;
        (0..self.objects.get(writing.slot).life().copies()).try_for_each(|copy| {
            let (registered, unit) = self.segment_of(writing.slot, copy);
            transfer.add(
                number,
                &registered.segment,
                Segment::offset_of(unit),
                buffers,
                buffers.total(),
            )
        })
    }

    /// Gives a copy up that was reserved or arriving, if it was: the writer is done with it.
    pub(super) fn drop_reserved_copy(&self, slot: u32, copy: usize) {
        if self.objects.blob(slot, copy).count.is_needed() {
            self.unlist(slot, copy);
            if self.objects.blob(slot, copy).count.end_writing() {
                self.end(slot, copy);
            }
        }
    }
}

impl<'s> Writing<'s> {
    /// Takes up the writing of a slot that was reserved.
    pub(super) fn resume(store: &'s Store, slot: u32) -> Writing<'s> {
        Writing { store, slot }
    }

    /// Leaves the slot reserved, for whoever resumes it.
    pub(super) fn keep(self) -> u32 {
        let slot = self.slot;
        std::mem::forget(self);
        slot
    }

    /// Says that the copy of its bytes is all that is left to do: a put that needs this memory may wait for that, as for a reader.
    pub(super) fn settle(&self) {
        let objects = &self.store.objects;
        (0..objects.get(self.slot).life().copies()).for_each(|copy| objects.blob(self.slot, copy).count.arrive());
    }

    /// Makes the object readable. The copies enter their segments' order first: from then on eviction meets them.
    pub(super) fn publish(self, turn: Turn) -> Result<()> {
        let (store, slot) = (self.store, self.slot);
        let object = store.objects.get(slot);
        let copies = object.life().copies();
        let place = evict::place(turn.stamp, turn.position);
        if store.segment_of(slot, 0).0.segment.device().is_some() {
            object.set_of_device();
        }
        let mut kind = None;
        for copy in 0..copies {
            kind = Some(store.enlist(slot, copy, place, turn.is_end, kind)?);
        }
        object.set_used(place, kind.map_or(0, |kind| kind as u8));
        self.keep();
        for copy in 0..copies {
            let (registered, unit) = store.segment_of(slot, copy);
            store.note_written(slot, &registered.segment, unit);
        }
        // A listener must hear of the object before it hears that it is gone again, so both happen under the shard's lock.
        let shard = store.events.are_wanted().then(|| store.index.lock(object.hash()));
        let key = shard.as_ref().and_then(|_| store.key_to_announce(slot));
        (0..copies).for_each(|copy| store.objects.blob(slot, copy).count.publish());
        object.set_state(State::Readable);
        store.announce(event::Kind::Stored, key, slot, 0..copies);
        drop(shard);
        (0..copies).for_each(|copy| store.segment_of(slot, copy).0.segment.wake_waiters());
        store.count_stored(1);
        Ok(())
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        let (store, slot) = (self.store, self.slot);
        let object = store.objects.get(slot);
        let mut shard = store.index.lock(object.hash());
        shard.erase(slot);
        object.set_state(State::Gone);
        drop(shard);
        for copy in 0..object.life().copies() {
            store.drop_reserved_copy(slot, copy);
        }
        store.objects.finish(slot);
    }
}

pub(super) fn timing_of(bytes: u64) -> Timing {
    if bytes >= TIMED_BYTES {
        Timing::Always
    } else {
        Timing::Sampled
    }
}
