//! Writing and reading in place: reservations, pins and leases.
//!
//! A reservation is a put whose copy the holder makes: the key is taken and the memory its own until it commits or aborts. A pin keeps one
//! copy where it is, a lease all of them. Each counts once in the object's copies (eviction passes them over, and their memory
//! outlives a remove) and once in their segments (which then can't be unregistered).

use crate::error::{Error, Result, invalid, words};
use crate::evict::Turn;
use crate::hold::{Held, Overdue};
use crate::key::Key;
use crate::metrics::Counter;
use crate::object::{Attempt, Life, MAX_COPIES, State};
use crate::segment::buffers::MAX_OBJECT_BYTES;
use crate::segment::{Segment, transfer};
use crate::trace::{Timing, Tracepoint};

use super::Store;
use super::place::PutOptions;
use super::put::Writing;

/// The term of a reservation that names none, in milliseconds.
pub(crate) const DEFAULT_TERM: u64 = 60_000;
/// The term of a lease that names none, in milliseconds.
pub(crate) const DEFAULT_LEASE: u64 = 10_000;

/// Memory that a token stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) token: u64,
    /// Pool address of the first byte.
    pub(crate) address: u64,
    /// Where this process has it; `None` for a device's memory.
    pub(crate) pointer: Option<*mut u8>,
    /// Bytes of the object.
    pub(crate) size: u64,
}

impl Store {
    /// Takes a key and memory for `size` bytes, to be written by the caller and then committed.
    pub(crate) fn reserve(&self, key: &Key, size: u64, options: &PutOptions<'_>, term: u64) -> Result<View> {
        let span = self.tracer.begin(Tracepoint::Put, Timing::Sampled);
        let view = self.counted(self.try_reserve(key, size, options, term))?;
        span.good();
        Ok(view)
    }

    /// Reserves as many objects as `results` has: each view goes to `show`, and a code for each to `results`.
    pub(crate) fn batch_reserve<'a>(
        &self,
        element: impl Fn(usize) -> Result<(Key<'a>, u64)>,
        options: &PutOptions<'_>,
        term: u64,
        results: &mut [i32],
        mut show: impl FnMut(usize, View),
    ) {
        let span = self.tracer.begin(Tracepoint::BatchPut, Timing::Always);
        self.each(results, |number| {
            let (key, size) = element(number)?;
            show(number, self.try_reserve(&key, size, options, term)?);
            Ok(())
        });
        span.good();
    }

    pub(super) fn try_reserve(&self, key: &Key, size: u64, options: &PutOptions<'_>, term: u64) -> Result<View> {
        if size == 0 || size > MAX_OBJECT_BYTES {
            return Err(invalid!("object of {size} bytes: must be 1 to {MAX_OBJECT_BYTES}"));
        }
        let writing = self.begin_writing(key, self.hash(key), size, options, false)?;
        if (0..options.replicas).any(|copy| self.segment_of(writing.slot, copy).0.segment.is_file()) {
            return Err(Error::Unsupported(
                "a reservation on SSD: a file has no memory to be written in place".into(),
            ));
        }
        let copies = (1 << options.replicas) - 1;
        let segments = SegmentHolds::begin(self, writing.slot, copies)?;
        self.objects.get(writing.slot).set_state(State::Lent);
        let term = if term == 0 { DEFAULT_TERM } else { term };
        let end = self.clock.milliseconds().saturating_add(term);
        let token = self.holds.reserve(
            Held {
                slot: writing.slot,
                copies,
            },
            end,
        )?;
        segments.keep();
        // Should the term be over by now, the copy that the view shows is still the holder's.
        Ok(self.view(token, writing.keep(), 0))
    }

    /// Publishes a reserved object. `Timeout` when its term was over: then its memory has gone back.
    pub(crate) fn commit(&self, token: u64) -> Result<()> {
        let span = self.tracer.begin(Tracepoint::Update, Timing::Sampled);
        self.clock.follow();
        self.counted(self.try_commit(token, Turn::alone(self.clock.stamp_of_put())))?;
        span.good();
        Ok(())
    }

    pub(super) fn try_commit(&self, token: u64, turn: Turn) -> Result<()> {
        let (held, is_overdue) = self.holds.end_reservation(token)?;
        let _segments = SegmentHolds::resume(self, held);
        if is_overdue {
            self.drop_reserved_copies(held.slot);
            return Err(Error::Timeout(words!(
                "reservation {token:#x}: its term had passed, the key is free again"
            )));
        }
        let writing = Writing::resume(self, held.slot);
        self.note_checksum_in_place(held.slot)?;
        self.mirror(held.slot)?;
        let size = self.objects.get(held.slot).size();
        writing.publish(turn)?;
        self.count(Counter::PutBytes, size);
        Ok(())
    }

    /// Commits as many reservations as `results` has and writes a code for each.
    pub(crate) fn batch_commit(&self, tokens: &[u64], results: &mut [i32]) {
        let span = self.tracer.begin(Tracepoint::BatchUpdate, Timing::Always);
        self.clock.follow();
        let stamp = self.clock.stamp_of_put();
        let count = results.len();
        self.each(results, |number| {
            self.try_commit(tokens[number], Turn::in_batch(stamp, number, count))
        });
        span.good();
    }

    /// Gives a reservation up. One whose term was over is given up too.
    pub(crate) fn abort(&self, token: u64) -> Result<()> {
        self.counted(self.try_abort(token))
    }

    pub(super) fn try_abort(&self, token: u64) -> Result<()> {
        let (held, is_overdue) = self.holds.end_reservation(token)?;
        let _segments = SegmentHolds::resume(self, held);
        if is_overdue {
            self.drop_reserved_copies(held.slot);
        } else {
            drop(Writing::resume(self, held.slot));
        }
        Ok(())
    }

    /// Gives as many reservations up as `results` has and writes a code for each.
    pub(crate) fn batch_abort(&self, tokens: &[u64], results: &mut [i32]) {
        self.each(results, |number| self.try_abort(tokens[number]));
    }

    /// Keeps an object's bytes where they are until [`Store::unpin`].
    pub(crate) fn pin(&self, key: &Key, flags: u32) -> Result<View> {
        self.count(Counter::GetOperations, 1);
        let span = self.tracer.begin(Tracepoint::Get, Timing::Sampled);
        let view = self.counted(self.try_pin(key, self.hash(key), flags, 0))?;
        span.good();
        Ok(view)
    }

    /// Pins as many objects as `results` has: each view goes to `show`, and a code for each to `results`.
    pub(crate) fn batch_pin<'a>(
        &self,
        key: impl Fn(usize) -> Result<Key<'a>>,
        flags: u32,
        results: &mut [i32],
        mut show: impl FnMut(usize, View),
    ) {
        self.count(Counter::GetOperations, results.len() as u64);
        let span = self.tracer.begin(Tracepoint::BatchGet, Timing::Always);
        self.each_key(results, key, |number, key, hash| {
            show(number, self.try_pin(key, hash, flags, number)?);
            Ok(())
        });
        span.good();
    }

    fn try_pin(&self, key: &Key, hash: u64, flags: u32, position: usize) -> Result<View> {
        let view = self.pin_object(key, hash, flags, position);
        self.count(
            if view.is_ok() {
                Counter::GetHits
            } else {
                Counter::GetMisses
            },
            1,
        );
        view
    }

    fn pin_object(&self, key: &Key, hash: u64, flags: u32, position: usize) -> Result<View> {
        loop {
            let (slot, life) = self.find_readable(key, hash).ok_or(Error::NotFound)?;
            for copy in self.preference(slot, life) {
                let Some(held) = self.hold_copies(slot, life, std::iter::once(copy))? else {
                    continue;
                };
                let token = self.holds.pin(held).inspect_err(|_| self.let_go(held))?;
                self.use_object(slot, flags, position);
                return Ok(self.view(token, slot, copy));
            }
            if self.objects.get(slot).life() == life {
                // It is there and can't be held: its segments are leaving.
                return Err(Error::NotFound);
            }
        }
    }

    /// Ends a pin.
    pub(crate) fn unpin(&self, token: u64) -> Result<()> {
        self.counted(self.try_unpin(token))
    }

    pub(super) fn try_unpin(&self, token: u64) -> Result<()> {
        let held = self.holds.unpin(token)?;
        self.let_go(held);
        Ok(())
    }

    /// Ends as many pins as `results` has and writes a code for each.
    pub(crate) fn batch_unpin(&self, tokens: &[u64], results: &mut [i32]) {
        self.each(results, |number| self.try_unpin(tokens[number]));
    }

    /// Leases as many objects as `results` has and writes a code for each.
    pub(crate) fn batch_add_lease<'a>(&self, key: impl Fn(usize) -> Result<Key<'a>>, term: u64, results: &mut [i32]) {
        let span = self.tracer.begin(Tracepoint::BatchUpdate, Timing::Always);
        self.each_key(results, key, |_, key, hash| {
            self.lease_object(key, hash, term).map(drop)
        });
        span.good();
    }

    /// Ends a lease of as many objects as `results` has and writes a code for each.
    pub(crate) fn batch_remove_lease<'a>(&self, key: impl Fn(usize) -> Result<Key<'a>>, results: &mut [i32]) {
        let span = self.tracer.begin(Tracepoint::BatchUpdate, Timing::Always);
        self.each_key(results, key, |_, key, hash| self.release_lease(key, hash));
        span.good();
    }

    /// Keeps an object's copies where they are for `term` milliseconds.
    pub(crate) fn add_lease(&self, key: &Key, term: u64) -> Result<()> {
        let span = self.tracer.begin(Tracepoint::Update, Timing::Sampled);
        self.counted(self.lease_object(key, self.hash(key), term))?;
        span.good();
        Ok(())
    }

    /// Ends the lease of an object that would end first.
    pub(crate) fn remove_lease(&self, key: &Key) -> Result<()> {
        let span = self.tracer.begin(Tracepoint::Update, Timing::Sampled);
        self.counted(self.release_lease(key, self.hash(key)))?;
        span.good();
        Ok(())
    }

    pub(super) fn lease_object(&self, key: &Key, hash: u64, term: u64) -> Result<u64> {
        let term = if term == 0 { DEFAULT_LEASE } else { term };
        loop {
            let (slot, life) = self.find(key, hash).ok_or(Error::NotFound)?;
            if life.state() != State::Readable {
                return Err(Error::State(
                    "the object is reserved: it has no bytes to lease yet".into(),
                ));
            }
            if let Some(held) = self.hold_copies(slot, life, 0..life.copies())? {
                let end = self.clock.milliseconds().saturating_add(term);
                return self
                    .holds
                    .lease(self.objects.get(slot), held, end)
                    .inspect_err(|_| self.let_go(held));
            }
            if self.objects.get(slot).life() == life {
                return Err(Error::NotFound);
            }
        }
    }

    fn release_lease(&self, key: &Key, hash: u64) -> Result<()> {
        // What is over by now is no lease any more.
        self.sweep();
        // The reading keeps the slot this object's.
        let reading = self.read_object(key, hash)?;
        let held = self.holds.end_lease(self.objects.get(reading.slot))?;
        self.let_go(held);
        Ok(())
    }

    /// Ends every lease and reservation that is overdue; whether there were any.
    pub(crate) fn sweep(&self) -> bool {
        // Every put that makes room comes here: with no hold that ends it needs no clock.
        self.holds.first_end() != u64::MAX && self.sweep_at(self.clock.milliseconds())
    }

    /// As [`Store::sweep`], of those that are overdue at `now`. Before the first end it needs no lock.
    pub(super) fn sweep_at(&self, now: u64) -> bool {
        if self.holds.first_end() > now {
            return false;
        }
        let mut has_swept = false;
        while let Some(overdue) = self.holds.overdue(now, |slot| self.objects.get(slot)) {
            has_swept = true;
            match overdue {
                Overdue::Lease(held) => {
                    self.let_go(held);
                    self.count(Counter::LeasesExpired, 1);
                }
                Overdue::Reservation(held) => {
                    let object = self.objects.get(held.slot);
                    self.index.lock(object.hash()).erase(held.slot);
                    self.count(Counter::ReservationsExpired, 1);
                    // The holder may be done by now: then this was the last thing that the slot stayed for.
                    self.objects.finish(held.slot);
                }
            }
        }
        has_swept
    }

    pub(super) fn view(&self, token: u64, slot: u32, copy: usize) -> View {
        let (registered, unit) = self.segment_of(slot, copy);
        View {
            token,
            address: registered.segment.address_of(unit),
            pointer: registered.segment.pointer(unit),
            size: self.objects.get(slot).size(),
        }
    }

    /// Copies the first copy of a reserved object to the others.
    fn mirror(&self, slot: u32) -> Result<()> {
        let size = self.objects.get(slot).size();
        let (from, from_unit) = self.segment_of(slot, 0);
        (1..self.objects.get(slot).life().copies()).try_for_each(|copy| {
            let (to, to_unit) = self.segment_of(slot, copy);
            transfer::between((&from.segment, from_unit), (&to.segment, to_unit), size)
        })
    }

    fn drop_reserved_copies(&self, slot: u32) {
        // The slot is given up with the last copy, so their number is read first.
        for copy in 0..self.objects.get(slot).life().copies() {
            self.drop_reserved_copy(slot, copy);
        }
    }

    /// Counts a hold on each live copy of these, and on its segment; `None` when none can be held.
    pub(super) fn hold_copies(
        &self,
        slot: u32,
        life: Life,
        copies: impl Iterator<Item = usize>,
    ) -> Result<Option<Held>> {
        let mut held = Held { slot, copies: 0 };
        for copy in copies {
            let blob = self.objects.blob(slot, copy);
            let segment = &self.segments.get(blob.place().0).segment;
            if !segment.hold() {
                continue;
            }
            let attempt = blob.count.hold(life.generation());
            if attempt == Attempt::Counted {
                if blob.place().0 == segment.number {
                    held.copies |= 1 << copy;
                    continue;
                }
                // The number is another copy's by now, in another segment.
                if blob.count.end_hold() {
                    self.end(slot, copy);
                }
                segment.end_hold();
                continue;
            }
            segment.end_hold();
            if attempt == Attempt::Full {
                self.let_go(held);
                return Err(Error::Busy("too many pins and leases of one object at once".into()));
            }
        }
        if held.copies == 0 {
            return Ok(None);
        }
        // The counts have a part of the generation only; the slot's own word has all of it.
        if self.objects.get(slot).life().generation() != life.generation() {
            self.let_go(held);
            return Ok(None);
        }
        Ok(Some(held))
    }

    /// Ends the holds on these copies and their segments.
    pub(super) fn let_go(&self, held: Held) {
        for copy in copies_of(held) {
            let segment = &self.segment_of(held.slot, copy).0.segment;
            if self.objects.blob(held.slot, copy).count.end_hold() {
                self.end(held.slot, copy);
            }
            segment.end_hold();
        }
    }
}

/// The holds of a reservation on its segments, which end when this is dropped. It knows the segments themselves, as the
/// object's slot may be another's by then.
struct SegmentHolds<'s>([Option<&'s Segment>; MAX_COPIES]);

impl<'s> SegmentHolds<'s> {
    /// Counts them; `NoSpace` when a segment is leaving.
    fn begin(store: &'s Store, slot: u32, copies: u32) -> Result<SegmentHolds<'s>> {
        let mut holds = SegmentHolds([None; MAX_COPIES]);
        for copy in copies_of(Held { slot, copies }) {
            let segment = &store.segment_of(slot, copy).0.segment;
            if !segment.hold() {
                return Err(Error::NoSpace("the segment is being unregistered".into()));
            }
            holds.0[copy] = Some(segment);
        }
        Ok(holds)
    }

    /// Takes up those that were kept.
    fn resume(store: &'s Store, held: Held) -> SegmentHolds<'s> {
        let mut holds = SegmentHolds([None; MAX_COPIES]);
        for copy in copies_of(held) {
            holds.0[copy] = Some(&store.segment_of(held.slot, copy).0.segment);
        }
        holds
    }

    /// Leaves them counted.
    fn keep(mut self) {
        self.0 = [None; MAX_COPIES];
    }
}

impl Drop for SegmentHolds<'_> {
    fn drop(&mut self) {
        self.0.iter().flatten().for_each(|segment| segment.end_hold());
    }
}

fn copies_of(held: Held) -> impl Iterator<Item = usize> {
    (0..MAX_COPIES).filter(move |copy| held.copies & (1 << copy) != 0)
}
