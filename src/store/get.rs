//! Getting: find, count a reading, copy, let go.
//!
//! A [`Reading`] keeps one copy's memory while it is read. A remove or an eviction meanwhile takes the object out of the index at once;
//! its memory goes back when the reading is dropped. Of several copies the one on the fastest medium is read, and there that of the store's
//! own rank, else the first.
//!
//! What lies on a file is read by its own thread, straight into the caller's memory where that is aligned; bytes that are not what was
//! written are a miss, and the object is dropped.

use std::ops::ControlFlow;

use crate::error::{Error, Result};
use crate::evict::{self, Kind};
use crate::key::Key;
use crate::metrics::Counter;
use crate::object::{Attempt, Life, MAX_COPIES};
use crate::segment::buffers::{Buffers, list_of};
use crate::segment::device::Direction;
use crate::segment::disk::Fetch;
use crate::segment::transfer::Transfer;
use crate::segment::{Medium, Segment};
use crate::trace::{Timing, Tracepoint};

use super::group::Hashed;
use super::moves::Named;
use super::put::timing_of;
use super::remove::NamedCopy;
use super::{GET_UP_TO, PEEK, Store};

/// A copy that is being read, or written by its address: its memory stays until this is dropped.
pub(crate) struct Reading<'s> {
    store: &'s Store,
    pub(super) slot: u32,
    copy: usize,
}

impl Store {
    /// Copies an object into `buffers` and gives its size. Without `GET_UP_TO` the buffers must have exactly that.
    #[inline(always)] // as `exist`
    pub(crate) fn get(&self, key: &Key, buffers: &Buffers<'_>, flags: u32, stream: usize) -> Result<u64> {
        self.counted(self.get_object(key, buffers, flags, stream))
    }

    fn get_object(&self, key: &Key, buffers: &Buffers<'_>, flags: u32, stream: usize) -> Result<u64> {
        self.count(Counter::GetOperations, 1);
        self.clock.follow();
        let span = self.tracer.begin(Tracepoint::Get, Timing::Sampled);
        let reading = self.begin_reading(key, self.hash(key), flags, 0)?;
        span.good();

        let span = self.tracer.begin(Tracepoint::LocalGet, timing_of(buffers.total()));
        let mut transfer = Transfer::new(Direction::FromSegment, stream);
        let mut result = reading.copy_to(0, buffers, flags, &mut transfer);
        transfer.finish(|_, error| result = Err(error));
        if let Err(error) = &result {
            self.note_bad_reading(&reading, error);
        }
        let (size, copied) = result?;
        span.good();
        self.count(Counter::GetBytes, copied);
        Ok(size)
    }

    /// Gets as many objects as `results` has; writes a code for each, and its size where `sizes` has room for it.
    pub(crate) fn batch_get<'a>(
        &self,
        element: impl Fn(usize) -> Result<(Key<'a>, Buffers<'a>)>,
        flags: u32,
        stream: usize,
        results: &mut [i32],
        mut sizes: Option<&mut [u64]>,
    ) -> Result<()> {
        let mut readings = list_of(results.len(), || None)?;
        results.fill(0);
        if let Some(sizes) = sizes.as_deref_mut() {
            sizes.fill(0);
        }
        self.count(Counter::GetOperations, results.len() as u64);
        self.clock.follow();

        let span = self.tracer.begin(Tracepoint::BatchGet, Timing::Always);
        let _: ControlFlow<()> = self.each_hashed(results.len(), element, |number, hashed| {
            let begun = hashed
                .and_then(|Hashed { key, hash, rest }| Ok((self.begin_reading(&key, hash, flags, number)?, rest)));
            readings[number] = self.note(begun, &mut results[number]);
            ControlFlow::Continue(())
        });
        span.good();

        let span = self.tracer.begin(Tracepoint::LocalBatchGet, Timing::Always);
        let mut transfer = Transfer::new(Direction::FromSegment, stream);
        let mut bytes = 0;
        for (number, reading) in readings.iter().enumerate() {
            let Some((reading, buffers)) = reading else { continue };
            let result = reading.copy_to(number, buffers, flags, &mut transfer);
            if let Err(error) = &result {
                self.note_bad_reading(reading, error);
            }
            if let Some((size, copied)) = self.note(result, &mut results[number]) {
                bytes += copied;
                if let Some(sizes) = sizes.as_deref_mut() {
                    sizes[number] = size;
                }
            }
        }
        let mut is_good = true;
        transfer.finish(|number, error| {
            is_good = false;
            if let Some(sizes) = sizes.as_deref_mut() {
                sizes[number] = 0;
            }
            if let Some((reading, _)) = &readings[number] {
                self.note_bad_reading(reading, &error);
            }
            self.note::<()>(Err(error), &mut results[number]);
        });
        span.end(is_good);
        self.count(Counter::GetBytes, bytes);
        Ok(())
    }

    /// Whether an object can be read.
    #[inline(always)] // a part of the export; other processes' calls have a copy of their own
    pub(crate) fn exist(&self, key: &Key, flags: u32) -> Result<()> {
        let span = self.tracer.begin(Tracepoint::Exist, Timing::Sampled);
        let result = self.look(key, self.hash(key), flags, 0);
        // A key that is not there is a good answer.
        span.good();
        self.count(
            if result.is_ok() {
                Counter::ExistHits
            } else {
                Counter::ExistMisses
            },
            1,
        );
        result
    }

    /// Asks for as many keys as `results` has: 0, or the code, for each.
    pub(crate) fn batch_exist<'a>(&self, key: impl Fn(usize) -> Result<Key<'a>>, flags: u32, results: &mut [i32]) {
        let span = self.tracer.begin(Tracepoint::BatchExist, Timing::Always);
        let (mut hits, count) = (0, results.len());
        let element = |number| Ok((key(number)?, ()));
        let _: ControlFlow<()> = self.each_hashed(count, element, |number, hashed| {
            results[number] = match hashed.and_then(|hashed| self.look(&hashed.key, hashed.hash, flags, number)) {
                Ok(()) => {
                    hits += 1;
                    0
                }
                Err(error) => error.code(),
            };
            ControlFlow::Continue(())
        });
        span.good();
        self.count(Counter::ExistHits, hits);
        self.count(Counter::ExistMisses, count as u64 - hits);
    }

    /// How many of `count` keys have readable objects, from the first on and up to the first that has none. The keys behind that one are
    /// not looked at.
    pub(crate) fn prefix_len<'a>(
        &self,
        count: usize,
        key: impl Fn(usize) -> Result<Key<'a>>,
        flags: u32,
    ) -> Result<usize> {
        let span = self.tracer.begin(Tracepoint::BatchExist, Timing::Always);
        let mut length = 0;
        let element = |number| Ok((key(number)?, ()));
        let stopped = self.each_hashed(count, element, |number, hashed| {
            match hashed.and_then(|hashed| self.look(&hashed.key, hashed.hash, flags, number)) {
                Ok(()) => {
                    length += 1;
                    ControlFlow::Continue(())
                }
                Err(error) => ControlFlow::Break(error),
            }
        });
        self.count(Counter::ExistHits, length as u64);
        match stopped {
            ControlFlow::Continue(()) => {}
            // A key that is not there is a good answer.
            ControlFlow::Break(Error::NotFound) => self.count(Counter::ExistMisses, 1),
            ControlFlow::Break(error) => return Err(error),
        }
        span.good();
        Ok(length)
    }

    #[inline(always)] // for all of its callers
    fn look(&self, key: &Key, hash: u64, flags: u32, position: usize) -> Result<()> {
        let Some((slot, _)) = self.find_readable(key, hash) else {
            return Err(Error::NotFound);
        };
        self.use_object(slot, flags, position);
        Ok(())
    }

    /// Notes a use, unless the caller only peeks.
    #[inline]
    pub(super) fn use_object(&self, slot: u32, flags: u32, position: usize) {
        if flags & PEEK != 0 {
            return;
        }
        let place = evict::place(self.clock.stamp_of_use(), position);
        let kind_after = |before, mark| Kind::of_mark(mark).after(before, place) as u8;
        if let Some((before, mark)) = self.objects.get(slot).touch(place, kind_after)
            && evict::is_later_tick(before, place)
        {
            self.hear_of_use(slot, Kind::of_mark(mark), before, place);
        }
    }

    /// Tells the policies of the first use of an object in a tick.
    #[cold]
    fn hear_of_use(&self, slot: u32, kind: Kind, before: u64, place: u64) {
        // That of the copy that a get would read; of those that it may have read a moment ago none may be left.
        let medium = || {
            let life = self.objects.get(slot).life();
            let named = Named {
                slot,
                generation: life.generation(),
            };
            self.live_copies(named, life).map(|copy| self.medium_of(&copy)).min()
        };
        self.policies.hear(medium, kind, before, place);
    }

    /// Finds an object, counts a reading of one of its copies, and notes the use.
    pub(super) fn begin_reading(&self, key: &Key, hash: u64, flags: u32, position: usize) -> Result<Reading<'_>> {
        let found = self
            .read_object(key, hash)
            .and_then(|reading| self.read_on_device(reading, key, hash));
        self.count(
            if found.is_ok() {
                Counter::GetHits
            } else {
                Counter::GetMisses
            },
            1,
        );
        let reading = found?;
        self.use_object(reading.slot, flags, position);
        self.note_medium(&reading, flags);
        Ok(reading)
    }

    /// The same, or, of an object that was put into a device's memory and has left it, a reading of a copy that is brought back there first:
    /// the buffers of a get may be memory that only the device's callback reaches.
    fn read_on_device<'s>(&'s self, reading: Reading<'s>, key: &Key, hash: u64) -> Result<Reading<'s>> {
        let mut reading = reading;
        while self.objects.get(reading.slot).life().is_of_device()
            && self.segment_of(reading.slot, reading.copy).0.segment.device().is_none()
        {
            let named = reading.named();
            drop(reading);
            self.bring_to_device(Named {
                slot: named.slot,
                generation: named.generation,
            })?;
            reading = self.read_object(key, hash)?;
        }
        Ok(reading)
    }

    /// Counts the medium that a get reads from, and has an object come up that was used on a slow one before.
    fn note_medium(&self, reading: &Reading<'_>, flags: u32) {
        match self.segment_of(reading.slot, reading.copy).0.segment.medium {
            Medium::Dram => {}
            Medium::Hbm => self.count(Counter::HbmHits, 1),
            Medium::Ssd => {
                self.count(Counter::SsdHits, 1);
                if flags & PEEK == 0 && self.objects.use_slow_copy(reading.slot) {
                    self.want_promotion(reading.slot);
                }
            }
        }
    }

    /// Drops a copy whose bytes are no longer what was written.
    pub(super) fn note_bad_reading(&self, reading: &Reading<'_>, error: &Error) {
        if *error == Error::Rotten {
            self.drop_rotten(&reading.named());
        }
    }

    /// Finds an object and counts a reading of the copy to prefer.
    pub(super) fn read_object(&self, key: &Key, hash: u64) -> Result<Reading<'_>> {
        loop {
            let Some((slot, life)) = self.find_readable(key, hash) else {
                return Err(Error::NotFound);
            };
            for copy in self.preference(slot, life) {
                match self.objects.blob(slot, copy).count.read(life.generation()) {
                    Attempt::Counted => {
                        let reading = Reading::counted(self, slot, copy);
                        // The count has a part of the generation only; the slot's own word has all of it.
                        if self.objects.get(slot).life().generation() == life.generation() {
                            return Ok(reading);
                        }
                    }
                    Attempt::Full => return Err(Error::Busy("too many readers of one object at once".into())),
                    Attempt::Gone => {}
                }
            }
            if self.objects.get(slot).life() == life {
                // Its last copy is just being taken: it is as good as gone.
                return Err(Error::NotFound);
            }
        }
    }

    /// The copies of an object in the order in which they are tried: the fastest medium first, and there the store's own rank.
    pub(super) fn preference(&self, slot: u32, life: Life) -> impl Iterator<Item = usize> + use<> {
        self.preference_of(slot, life, Some(self.rank))
    }

    /// The same for somebody of another rank.
    #[inline]
    pub(super) fn preference_of(
        &self,
        slot: u32,
        life: Life,
        rank: Option<u32>,
    ) -> impl Iterator<Item = usize> + use<> {
        let copies = life.copies();
        let mut order = [(0u8, 0u8); MAX_COPIES];
        if copies > 1 {
            for (copy, place) in order[..copies].iter_mut().enumerate() {
                let segment = &self.segment_of(slot, copy).0.segment;
                let is_far = u8::from(Some(segment.rank) != rank);
                *place = (2 * slowness(segment, life) + is_far, copy as u8);
            }
            order[..copies].sort_unstable();
        }
        order.into_iter().take(copies).map(|(_, copy)| copy as usize)
    }
}

impl Store {
    /// The name of a copy that the caller keeps where it is.
    pub(super) fn named(&self, slot: u32, copy: usize) -> NamedCopy {
        NamedCopy {
            slot,
            copy,
            generation: self.objects.get(slot).life().generation(),
            place: self.objects.blob(slot, copy).place(),
        }
    }
}

/// How late a copy in this segment is tried. The buffers of a get of an object that was put into a device's memory may be such memory,
/// too, and others are this process's own for sure.
fn slowness(segment: &Segment, life: Life) -> u8 {
    match (segment.medium, life.is_of_device()) {
        (Medium::Ssd, _) => 2,
        _ => u8::from(segment.device().is_some() != life.is_of_device()),
    }
}

impl<'s> Reading<'s> {
    /// Takes up a reading that was counted.
    pub(super) fn counted(store: &'s Store, slot: u32, copy: usize) -> Reading<'s> {
        Reading { store, slot, copy }
    }

    /// Which of the object's copies it is of.
    pub(super) fn copy(&self) -> usize {
        self.copy
    }

    /// Copies, or queues, what the buffers ask for; the object's size and how much of it was copied.
    fn copy_to<'a>(
        &self,
        number: usize,
        buffers: &Buffers<'a>,
        flags: u32,
        transfer: &mut Transfer<'s, 'a>,
    ) -> Result<(u64, u64)> {
        let size = self.store.objects.get(self.slot).size();
        let wanted = buffers.total();
        if wanted != size && flags & GET_UP_TO == 0 {
            return Err(Error::SizeMismatch {
                given: wanted,
                object: size,
            });
        }
        let bytes = wanted.min(size);
        self.copy_part(number, 0, buffers, bytes, transfer)?;
        Ok((size, bytes))
    }

    /// Copies, or queues, so many bytes of the object from its byte `from` on.
    pub(super) fn copy_part<'a>(
        &self,
        number: usize,
        from: u64,
        buffers: &Buffers<'a>,
        bytes: u64,
        transfer: &mut Transfer<'s, 'a>,
    ) -> Result<()> {
        let (registered, unit) = self.store.segment_of(self.slot, self.copy);
        let segment = &registered.segment;
        if segment.is_file() {
            return transfer.fetch(Fetch {
                element: number,
                segment,
                stored: self.store.stored(&self.named()),
                from,
                bytes,
                buffers: *buffers,
            });
        }
        self.store.verify(&self.named())?;
        transfer.add(number, segment, Segment::offset_of(unit) + from, buffers, bytes)
    }

    /// The copy that is read.
    pub(super) fn named(&self) -> NamedCopy {
        // A reading keeps the slot its object's, and the copy where it is.
        self.store.named(self.slot, self.copy)
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        if self.store.objects.blob(self.slot, self.copy).count.end_reading() {
            self.store.end(self.slot, self.copy);
        }
    }
}
