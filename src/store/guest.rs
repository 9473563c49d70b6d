//! Serving other processes: memory that they read and write by themselves is lent, and comes back.
//!
//! A guest can't be trusted to go on: it may stop between two instructions, or end. So what it reads is pinned, which eviction passes over,
//! and not counted as read, which eviction waits for; and what it writes is a reservation like the host's own. A [`Loan`] says what it
//! has; it is a plain value, as it outlives every call, and whoever keeps it gives it back when the guest says so or has gone.
//!
//! A guest maps segments of memfds and nothing else. An object that has no copy in one is copied there for it: into a reservation under a
//! key that nobody can ask for, which is never published. What it puts elsewhere goes the same way back.

use crate::error::{Error, Result};
use crate::evict::Turn;
use crate::hold::Held;
use crate::key::{Key, unseen_name};
use crate::metrics::Counter;
use crate::object::Attempt;
use crate::segment::device::Direction;
use crate::segment::transfer::{self, Transfer};
use crate::segment::{Medium, Segment};

use super::get::Reading;
use super::inplace::View;
use super::place::{Guest, PutOptions};
use super::{GET_UP_TO, Store};

/// What a guest has.
#[derive(Debug)]
pub(crate) enum Loan {
    /// Memory that it writes, of an object that then is published. `turn`: its place in its batch, if that was said before.
    Room { token: u64, turn: Option<Turn> },
    /// Memory that it writes, of an object that then goes to where it can't write.
    Passage { token: u64, put: Box<Put> },
    /// An object where it lies, to be read; or one that is reserved, while it is written by its address.
    Pin { token: u64 },
    /// A copy of an object, or of a part of one.
    Copy { token: u64 },
}

/// A put that waits for its bytes.
#[derive(Debug)]
pub(crate) struct Put {
    key: Box<[u8]>,
    replicas: usize,
    preferred: Box<[u32]>,
    medium: Option<Medium>,
}

/// An object that a guest wants to read.
#[derive(Clone, Copy)]
pub(crate) struct Wanted<'a> {
    pub(crate) key: Key<'a>,
    pub(crate) flags: u32,
    /// In its batch.
    pub(crate) position: usize,
    /// Bytes that the guest has room for. `None`: it does not say.
    pub(crate) room: Option<u64>,
}

/// Bytes that are copied to room for a guest.
struct Part<'p, 's> {
    view: &'p View,
    reading: &'p Reading<'s>,
    /// The object's byte that they begin with.
    from: u64,
}

/// Objects that are copied for a guest at once: as many as keep a disk busy, and not so many that they take much room.
const COPIED_AT_ONCE: usize = 64;

/// The elements of a batch of puts that a guest names in one request.
pub(crate) struct Batch {
    /// The batch's stamp; later requests for it bring that of the first.
    pub(crate) stamp: u64,
    /// The number of the first of them in their batch.
    pub(crate) begin: usize,
    /// Elements of the whole batch.
    pub(crate) count: usize,
}

impl Store {
    /// The stamp of a batch that begins, or goes on with the stamp that it says.
    pub(crate) fn stamp_of_batch(&self, said: Option<u64>) -> u64 {
        self.clock.follow();
        let now = self.clock.stamp_of_put();
        said.map_or(now, |said| said.min(now))
    }

    /// Lends room for elements of a batch of puts: as many as may be on their way at once, which is how many codes are written.
    pub(crate) fn lend_room<'a>(
        &self,
        batch: &Batch,
        element: impl Fn(usize) -> Result<(Key<'a>, u64)>,
        options: &PutOptions<'_>,
        results: &mut [i32],
        mut show: impl FnMut(usize, View, Loan),
        mut failed: impl FnMut(usize, &Error),
    ) -> usize {
        let most = self.part_units(options, batch.begin == 0);
        let mut units = 0;
        for (number, code) in results.iter_mut().enumerate() {
            *code = 0;
            let lent = element(number).and_then(|(key, size)| {
                let turn = Turn::in_batch(batch.stamp, batch.begin + number, batch.count);
                let lent = self.lend_room_for(&key, size, options, turn)?;
                units += Segment::units_for(size);
                Ok(lent)
            });
            if let Some((view, loan)) = self.note(lent.inspect_err(|error| failed(number, error)), code) {
                show(number, view, loan);
            }
            if units >= most {
                return number + 1;
            }
        }
        results.len()
    }

    fn lend_room_for(&self, key: &Key, size: u64, options: &PutOptions<'_>, turn: Turn) -> Result<(View, Loan)> {
        if matches!(options.medium, None | Some(Medium::Dram)) {
            let view = self.try_reserve(key, size, options, 0)?;
            let (token, turn) = (view.token, Some(turn));
            return Ok((view, Loan::Room { token, turn }));
        }
        // Only to spare the guest a copy: what counts is what the put finds.
        if self.find(key, self.hash(key)).is_some() {
            return Err(Error::Exists);
        }
        let view = self.reserve_unseen(size, options.guest)?;
        let put = Box::new(Put {
            key: key.bytes().into(),
            replicas: options.replicas,
            preferred: options.preferred.into(),
            medium: options.medium,
        });
        let token = view.token;
        Ok((view, Loan::Passage { token, put }))
    }

    /// Publishes what a guest has written. `turn`: its place in the batch of this call, where the loan has none.
    pub(crate) fn publish_loan(&self, loan: Loan, turn: Turn) -> Result<()> {
        let result = match loan {
            Loan::Room { token, turn: own } => self.try_commit(token, own.unwrap_or(turn)),
            Loan::Passage { token, put } => self.put_from(token, &put),
            loan => {
                let error = Error::Unknown("the token stands for memory that is read".into());
                self.end_loan(loan);
                Err(error)
            }
        };
        self.counted(result)
    }

    fn put_from(&self, token: u64, put: &Put) -> Result<()> {
        let options = PutOptions {
            replicas: put.replicas,
            preferred: &put.preferred,
            medium: put.medium,
            stream: 0,
            guest: None,
        };
        let Held { slot, .. } = self.holds.held(token).ok_or(Error::NotFound)?;
        let (registered, unit) = self.segment_of(slot, 0);
        let size = self.objects.get(slot).size();
        let result = Key::new(&put.key).and_then(|key| {
            transfer::with_extents(&[(&registered.segment, unit, size)], |buffers| {
                self.put_object(&key, &buffers[0], &options)
            })
        });
        self.try_abort(token)?;
        result
    }

    /// Lends the objects of a batch that a guest wants to read: each where it lies, or a copy where the guest can map it.
    pub(crate) fn lend_objects(&self, wanted: &[Result<Wanted<'_>>], guest: Guest) -> Vec<Result<(View, Loan)>> {
        self.count(Counter::GetOperations, wanted.len() as u64);
        let mut lent: Vec<Result<Option<(View, Loan)>>> = wanted
            .iter()
            .map(|wanted| self.pin_for(wanted.as_ref().map_err(Error::clone)?, guest))
            .collect();
        // What is copied is pinned nowhere, and may be another object by then: it is tried again.
        loop {
            let far = |lent: &Result<_>| matches!(lent, Ok(None));
            let far: Vec<usize> = (0..lent.len()).filter(|number| far(&lent[*number])).collect();
            if far.is_empty() {
                break;
            }
            for group in far.chunks(COPIED_AT_ONCE) {
                self.copy_for(group, wanted, guest, &mut lent);
            }
            for (lent, wanted) in lent.iter_mut().zip(wanted) {
                if let (Ok(None), Ok(wanted)) = (&lent, wanted) {
                    *lent = self.pin_for(wanted, guest);
                }
            }
        }
        let lent = lent.into_iter().zip(wanted).map(|(lent, wanted)| {
            let lent = self.counted(lent)?.ok_or(Error::NotFound)?;
            if let Ok(Wanted { room: Some(room), .. }) = wanted {
                self.count(Counter::GetBytes, lent.0.size.min(*room));
            }
            Ok(lent)
        });
        lent.collect()
    }

    /// Pins an object in memory that a guest can map. `None` when it is in none.
    fn pin_for(&self, wanted: &Wanted<'_>, guest: Guest) -> Result<Option<(View, Loan)>> {
        let pinned = self.try_pin_for(wanted, guest);
        match &pinned {
            Ok(None) => {}
            Ok(Some(_)) | Err(Error::SizeMismatch { .. }) => self.count(Counter::GetHits, 1),
            Err(_) => self.count(Counter::GetMisses, 1),
        }
        Ok(pinned?.map(|view| (view, Loan::Pin { token: view.token })))
    }

    fn try_pin_for(&self, wanted: &Wanted<'_>, guest: Guest) -> Result<Option<View>> {
        let (key, hash) = (&wanted.key, self.hash(&wanted.key));
        loop {
            let (slot, life) = self.find_readable(key, hash).ok_or(Error::NotFound)?;
            let mut is_elsewhere = false;
            for copy in self.preference_of(slot, life, guest.rank) {
                if !self.segment_of(slot, copy).0.segment.is_shareable {
                    is_elsewhere = true;
                    continue;
                }
                let Some(held) = self.hold_copies(slot, life, std::iter::once(copy))? else {
                    continue;
                };
                self.use_object(slot, wanted.flags, wanted.position);
                let checked = self.check_held(held, copy, wanted);
                let token = checked.and_then(|()| self.holds.pin(held));
                let token = token.inspect_err(|_| self.let_go(held))?;
                return Ok(Some(self.view(token, slot, copy)));
            }
            if is_elsewhere {
                return Ok(None);
            }
            if self.objects.get(slot).life() == life {
                return Err(Error::NotFound);
            }
        }
    }

    /// Whether an object that is held is as large as the guest wants it, and as it was put.
    fn check_held(&self, held: Held, copy: usize, wanted: &Wanted<'_>) -> Result<()> {
        wanted.check_size(self.objects.get(held.slot).size())?;
        // A hold keeps what a reading keeps.
        let named = self.named(held.slot, copy);
        self.verify(&named).inspect_err(|_| self.drop_rotten(&named))
    }

    /// Copies objects to memory that a guest can map, all at once: what comes from a disk has its way in common.
    fn copy_for(
        &self,
        group: &[usize],
        wanted: &[Result<Wanted<'_>>],
        guest: Guest,
        lent: &mut [Result<Option<(View, Loan)>>],
    ) {
        // The rooms first: who reads must not wait for room, as others may wait for it.
        let mut rooms = Vec::with_capacity(group.len());
        for number in group {
            let Ok(wanted) = &wanted[*number] else { continue };
            match self.room_for(wanted, guest) {
                Ok(view) => rooms.push((*number, wanted, view)),
                Err(error) => lent[*number] = Err(error),
            }
        }
        let mut copies = Vec::with_capacity(rooms.len());
        for (number, wanted, view) in rooms {
            match self.begin_copy_for(wanted, &view) {
                Ok(Some(reading)) => {
                    copies.push((number, view, reading));
                    continue;
                }
                Ok(None) => {}
                Err(error) => lent[number] = Err(error),
            }
            self.end_loan(Loan::Copy { token: view.token });
        }
        let parts: Vec<Part<'_, '_>> = copies
            .iter()
            .map(|(_, view, reading)| Part { view, reading, from: 0 })
            .collect();
        let copied = self.copy_parts(&parts);
        for ((number, view, _), copied) in copies.iter().zip(copied) {
            let token = view.token;
            lent[*number] = match copied {
                Ok(()) => Ok(Some((*view, Loan::Copy { token }))),
                Err(error) => {
                    self.end_loan(Loan::Copy { token });
                    Err(error)
                }
            };
        }
    }

    /// Room for a copy of an object.
    fn room_for(&self, wanted: &Wanted<'_>, guest: Guest) -> Result<View> {
        let Some((slot, _)) = self.find_readable(&wanted.key, self.hash(&wanted.key)) else {
            self.count(Counter::GetMisses, 1);
            return Err(Error::NotFound);
        };
        self.reserve_unseen(self.objects.get(slot).size().max(1), Some(guest))
    }

    /// The reading of an object that is to be copied to this room. `None` when it is of another size by now.
    fn begin_copy_for(&self, wanted: &Wanted<'_>, room: &View) -> Result<Option<Reading<'_>>> {
        let reading = self.begin_reading(&wanted.key, self.hash(&wanted.key), wanted.flags, wanted.position)?;
        let size = self.objects.get(reading.slot).size();
        wanted.check_size(size)?;
        Ok((size == room.size).then_some(reading))
    }

    /// Copies what is read to room that [`Store::reserve_unseen`] gave.
    fn copy_parts(&self, parts: &[Part<'_, '_>]) -> Vec<Result<()>> {
        let rooms = parts.iter().map(|part| {
            let held = self.holds.held(part.view.token).expect("it is the caller's");
            let (registered, unit) = self.segment_of(held.slot, 0);
            (&registered.segment, unit, part.view.size)
        });
        let rooms: Vec<_> = rooms.collect();
        let mut results: Vec<Result<()>> = parts.iter().map(|_| Ok(())).collect();
        let begun = transfer::with_extents(&rooms, |buffers| {
            let mut transfer = Transfer::new(Direction::FromSegment, 0);
            for (number, (part, buffers)) in parts.iter().zip(buffers).enumerate() {
                let size = part.view.size;
                let queued = part.reading.copy_part(number, part.from, buffers, size, &mut transfer);
                results[number] = queued;
            }
            transfer.finish(|number, error| results[number] = Err(error));
            Ok(())
        });
        if let Err(error) = begun {
            results.fill(Err(error));
        }
        for (part, result) in parts.iter().zip(&results) {
            if let Err(error) = result {
                self.note_bad_reading(part.reading, error);
            }
        }
        results
    }

    /// Reserves memory that a guest can map, under a key that nobody can ask for.
    fn reserve_unseen(&self, size: u64, guest: Option<Guest>) -> Result<View> {
        let options = PutOptions {
            replicas: 1,
            preferred: &[],
            medium: Some(Medium::Dram),
            stream: 0,
            guest,
        };
        loop {
            let number = self.next_unseen.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            match self.try_reserve(&Key::unseen(&unseen_name(number)), size, &options, u64::MAX) {
                Err(Error::Exists) => {}
                result => return result,
            }
        }
    }

    /// Lends bytes by their pool address: to be read where they lie or in a copy, or to be written in a reservation. Where they are.
    pub(crate) fn lend_range(
        &self,
        address: u64,
        bytes: u64,
        direction: Direction,
        guest: Guest,
    ) -> Result<(View, Loan)> {
        let lent = self.try_lend_range(address, bytes, direction, guest)?;
        if direction == Direction::FromSegment {
            self.count(Counter::GetBytes, bytes);
        }
        Ok(lent)
    }

    fn try_lend_range(&self, address: u64, bytes: u64, direction: Direction, guest: Guest) -> Result<(View, Loan)> {
        let registered = self.segments.containing(address)?;
        let segment = &registered.segment;
        let offset = segment.offset_at(address).expect("it was found by this address");
        let (reading, _) = self.begin_reading_at(segment, offset, bytes, direction)?;
        if let Some(held) = self.hold_what_is_read(segment, &reading, direction)? {
            let token = self.holds.pin(held).inspect_err(|_| self.let_go(held))?;
            let view = View {
                token,
                address,
                pointer: None,
                size: bytes,
            };
            return Ok((view, Loan::Pin { token }));
        }
        if direction == Direction::ToSegment {
            return Err(Error::Unsupported(
                "to write a reserved object in memory that this process can't map".into(),
            ));
        }
        drop(reading);
        // Out of reach, or out of the index and kept by its leases alone.
        let view = self.reserve_unseen(bytes, Some(guest))?;
        let copied = self
            .begin_reading_at(segment, offset, bytes, direction)
            .and_then(|(reading, from)| {
                let (view, reading) = (&view, &reading);
                self.copy_parts(&[Part { view, reading, from }]).swap_remove(0)
            });
        match copied {
            Ok(()) => Ok((view, Loan::Copy { token: view.token })),
            Err(error) => {
                self.try_abort(view.token)?;
                Err(error)
            }
        }
    }

    /// Makes a reading by address a hold, which nobody waits for, as the guest may stop at any time: of what is readable, or of what is
    /// reserved and to be written. `None` where a guest can't map it, and for what is out of the index.
    fn hold_what_is_read(
        &self,
        segment: &Segment,
        reading: &Reading<'_>,
        direction: Direction,
    ) -> Result<Option<Held>> {
        if !segment.is_shareable || !segment.hold() {
            return Ok(None);
        }
        // The reading keeps the slot its object's, and the copy where it is.
        let (slot, copy) = (reading.slot, reading.copy());
        let (life, count) = (self.objects.get(slot).life(), self.objects.blob(slot, copy).count);
        let attempt = match direction {
            Direction::ToSegment => count.hold_held(life.generation()),
            Direction::FromSegment => count.hold(life.generation()),
        };
        if attempt == Attempt::Counted {
            let copies = 1 << copy;
            return Ok(Some(Held { slot, copies }));
        }
        segment.end_hold();
        match (attempt, direction) {
            (Attempt::Full, _) => Err(Error::Busy("too many pins and leases of one object at once".into())),
            (_, Direction::FromSegment) => Ok(None),
            (_, Direction::ToSegment) => Err(Error::State(
                "the reserved object there is just being published or given up".into(),
            )),
        }
    }

    /// Takes back what a guest had. What it wrote and did not publish never was.
    pub(crate) fn end_loan(&self, loan: Loan) {
        // Each is the keeper's alone, so it is there.
        let _ = match loan {
            Loan::Room { token, .. } | Loan::Passage { token, .. } | Loan::Copy { token } => self.try_abort(token),
            Loan::Pin { token } => self.try_unpin(token),
        };
    }

    /// Leases an object for a guest, and gives the lease's token.
    pub(crate) fn lease_for(&self, key: &Key, term: u64) -> Result<u64> {
        self.lease_object(key, self.hash(key), term)
    }

    /// Whether this lease has not ended.
    pub(crate) fn is_leased(&self, token: u64) -> bool {
        self.holds.is_leased(token)
    }

    /// Ends a lease that a guest has taken, unless it has ended.
    pub(crate) fn end_lease_of(&self, token: u64) {
        if let Some(held) = self.holds.end_this_lease(token, |slot| self.objects.get(slot)) {
            self.let_go(held);
        }
    }
}

impl Wanted<'_> {
    fn check_size(&self, object: u64) -> Result<()> {
        match self.room {
            Some(given) if given != object && self.flags & GET_UP_TO == 0 => Err(Error::SizeMismatch { given, object }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
