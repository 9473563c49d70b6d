//! Who holds an object's memory beyond a call: pins, reservations and leases.
//!
//! A hold is a record in a numbered slot ([`record`]). Pins and reservations are known to their holder by a **token**, which is the record's
//! number and how often it has been used; of two that end the same hold, one does.
//!
//! Leases and reservations have an end of their own. Those are in a binary heap by end, under a lock that is held for a few steps
//! and under which nothing is called. Leases are counted, not named: they hang on the object in a heap of their own ([`leases`]), and giving
//! one up gives up the one that would end first, so that nobody's longer lease is cut by somebody's shorter one.
//!
//! An overdue reservation is `Expired`: its key is free, but its memory stays until the holder says that it is done with it.

mod leases;
mod record;

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use leases::Leases;
pub(crate) use record::Held;
use record::{NUMBER_BITS, Record, State, number_of};

use crate::error::{Error, Result, words};
use crate::object::Object;
use crate::slab::{Linked, Slab, Slot};

// SAFETY: atomics only: zeroed is valid, nothing to drop, alignment 8.
unsafe impl Slot for Record {}

impl Linked for Record {
    fn link(&self) -> &AtomicU32 {
        &self.next
    }
}

/// A hold whose time is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Overdue {
    /// It has ended; the caller lets go of what it held.
    Lease(Held),
    /// It is expired, and its object gone; the caller takes that out of the index. The memory stays with the holder.
    Reservation(Held),
}

/// Every hold of a store.
pub(crate) struct Holds {
    records: Slab<Record>,
    ends: Mutex<Ends>,
    /// The earliest end, `u64::MAX` for none: tells without the lock that nothing is overdue.
    first_end: AtomicU64,
    pins: AtomicU64,
    reservations: AtomicU64,
    leases: AtomicU64,
}

impl Holds {
    pub(crate) fn new() -> Holds {
        Holds {
            records: Slab::new("pins, leases and reservations", 1 << NUMBER_BITS),
            ends: Mutex::new(Ends(Vec::new())),
            first_end: AtomicU64::new(u64::MAX),
            pins: AtomicU64::new(0),
            reservations: AtomicU64::new(0),
            leases: AtomicU64::new(0),
        }
    }

    /// Open pins.
    pub(crate) fn pins(&self) -> u64 {
        self.pins.load(Ordering::Acquire)
    }

    /// Open reservations, overdue ones too until their holders are done.
    pub(crate) fn reservations(&self) -> u64 {
        self.reservations.load(Ordering::Acquire)
    }

    /// Leases that have not ended.
    pub(crate) fn leases(&self) -> u64 {
        self.leases.load(Ordering::Acquire)
    }

    /// Bytes of the records.
    pub(crate) fn bytes(&self) -> u64 {
        self.records.bytes()
    }

    /// Notes a pin and gives its token.
    pub(crate) fn pin(&self, held: Held) -> Result<u64> {
        let token = self.begin(held, State::Pinned, u64::MAX)?;
        self.pins.fetch_add(1, Ordering::Relaxed);
        Ok(token)
    }

    /// Ends a pin; the caller lets go of what it held.
    pub(crate) fn unpin(&self, token: u64) -> Result<Held> {
        let held = self.end(token, State::Pinned).ok_or_else(|| unknown("pin", token))?;
        self.pins.fetch_sub(1, Ordering::Relaxed);
        Ok(held)
    }

    /// Notes a reservation that ends at `end` and gives its token.
    pub(crate) fn reserve(&self, held: Held, end: u64) -> Result<u64> {
        let mut ends = self.lock();
        ends.make_room()?;
        let token = self.begin(held, State::Reserved, end)?;
        ends.push(&self.records, number_of(token));
        self.note_first(&ends);
        self.reservations.fetch_add(1, Ordering::Relaxed);
        Ok(token)
    }

    /// Ends a reservation: what it held, and whether it was overdue.
    pub(crate) fn end_reservation(&self, token: u64) -> Result<(Held, bool)> {
        let mut ends = self.lock();
        let position = self
            .records
            .try_get(number_of(token))
            .map(|record| record.position.load(Ordering::Relaxed));
        let (held, is_overdue) = match self.end(token, State::Reserved) {
            Some(held) => {
                ends.remove(&self.records, position.expect("the record is there"));
                self.note_first(&ends);
                (held, false)
            }
            None => (
                self.end(token, State::Expired)
                    .ok_or_else(|| unknown("reservation", token))?,
                true,
            ),
        };
        self.reservations.fetch_sub(1, Ordering::Relaxed);
        Ok((held, is_overdue))
    }

    /// Hangs a lease that ends at `end` on an object, and gives its token. The caller has counted the holds on its copies.
    pub(crate) fn lease(&self, object: &Object, held: Held, end: u64) -> Result<u64> {
        let mut ends = self.lock();
        ends.make_room()?;
        let token = self.begin(held, State::Leased, end)?;
        let number = number_of(token);
        ends.push(&self.records, number);
        self.note_first(&ends);
        self.leases_on(object).push(number);
        self.leases.fetch_add(1, Ordering::Relaxed);
        Ok(token)
    }

    /// What the hold of this token is on. For its holder, who alone ends it.
    pub(crate) fn held(&self, token: u64) -> Option<Held> {
        self.records.try_get(number_of(token)).map(Record::held)
    }

    /// Whether this lease has not ended.
    pub(crate) fn is_leased(&self, token: u64) -> bool {
        let record = self.records.try_get(number_of(token));
        record.is_some_and(|record| record.is(token, State::Leased))
    }

    /// Ends this very lease, if it has not ended; the caller lets go of what it held. `object_of` gives the object of a slot.
    pub(crate) fn end_this_lease<'o>(&self, token: u64, object_of: impl Fn(u32) -> &'o Object) -> Option<Held> {
        let mut ends = self.lock();
        if !self.is_leased(token) {
            return None;
        }
        let number = number_of(token);
        let held = self.records.get(number).held();
        self.leases_on(object_of(held.slot)).remove(number);
        self.finish_lease(&mut ends, number);
        self.note_first(&ends);
        Some(held)
    }

    /// Ends that lease of an object which would end first; the caller lets go of what it held. One that is overdue is a lease
    /// until [`Holds::overdue`] has taken it.
    pub(crate) fn end_lease(&self, object: &Object) -> Result<Held> {
        let mut ends = self.lock();
        let number = self.leases_on(object).pop().ok_or(Error::NoLease)?;
        let held = self.finish_lease(&mut ends, number);
        self.note_first(&ends);
        Ok(held)
    }

    /// Leases of the object in a slot, those included that are overdue and not taken yet. For those who only look: the object may go
    /// meanwhile, and its heap become a link between free slots. No lease is on it then.
    pub(crate) fn leases_of(&self, slot: u32, object: &Object) -> u32 {
        let _ends = self.lock();
        let link = object.list.load(Ordering::Relaxed);
        let first = link.checked_sub(1).and_then(|number| self.records.try_get(number));
        first
            .filter(|record| record.state() == State::Leased && record.slot.load(Ordering::Relaxed) == slot)
            .map_or(0, |record| record.count.load(Ordering::Relaxed))
    }

    /// When the first lease or reservation ends, `u64::MAX` for never. Takes no lock.
    pub(crate) fn first_end(&self) -> u64 {
        self.first_end.load(Ordering::Acquire)
    }

    /// Takes one hold that is over at `now`. `object_of` gives the object of a slot.
    pub(crate) fn overdue<'o>(&self, now: u64, object_of: impl Fn(u32) -> &'o Object) -> Option<Overdue> {
        let mut ends = self.lock();
        let number = *ends.0.first()?;
        let record = self.records.get(number);
        if record.end.load(Ordering::Relaxed) > now {
            return None;
        }
        if record.state() == State::Leased {
            // The first of all ends is the first of its object's.
            let object = object_of(record.slot.load(Ordering::Relaxed));
            let number = self.leases_on(object).pop().expect("it has this lease");
            let held = self.finish_lease(&mut ends, number);
            self.note_first(&ends);
            return Some(Overdue::Lease(held));
        }
        ends.remove(&self.records, 0);
        self.note_first(&ends);
        // Ends of reservations happen under the same lock, so it is still reserved.
        record.set_state(State::Expired);
        let held = record.held();
        // With that its key is free, also if this thread is stopped now: nobody finds the object any more.
        object_of(held.slot).set_state(crate::object::State::Gone);
        Some(Overdue::Reservation(held))
    }

    fn lock(&self) -> MutexGuard<'_, Ends> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_first(&self, ends: &Ends) {
        let first = ends
            .0
            .first()
            .map_or(u64::MAX, |number| self.records.get(*number).end.load(Ordering::Relaxed));
        self.first_end.store(first, Ordering::Release);
    }

    fn begin(&self, held: Held, state: State, end: u64) -> Result<u64> {
        let number = self.records.take()?;
        let uses = self.records.get(number).begin(held, state, end);
        Ok(record::token_of(uses, number))
    }

    /// Ends the hold of this token if it is in this state.
    fn end(&self, token: u64, state: State) -> Option<Held> {
        let number = number_of(token);
        let record = self.records.try_get(number)?;
        let held = record.end(token, state)?;
        self.give_back(number);
        Some(held)
    }

    /// Ends a lease that was taken off its object.
    fn finish_lease(&self, ends: &mut Ends, number: u32) -> Held {
        let record = self.records.get(number);
        ends.remove(&self.records, record.position.load(Ordering::Relaxed));
        let held = record.held();
        record.set_state(State::Free);
        self.give_back(number);
        self.leases.fetch_sub(1, Ordering::Relaxed);
        held
    }

    fn give_back(&self, number: u32) {
        if self.records.get(number).has_uses_left() {
            self.records.give_back(number);
        }
    }

    /// The leases on an object. Under the lock.
    fn leases_on<'a>(&'a self, object: &'a Object) -> Leases<'a> {
        Leases {
            records: &self.records,
            root: &object.list,
        }
    }
}

fn unknown(what: &str, token: u64) -> Error {
    Error::Unknown(words!("{what} {token:#x}: never given, or ended already"))
}

/// Record numbers as a binary heap, the earliest end first; each record knows its position.
struct Ends(Vec<u32>);

impl Ends {
    fn make_room(&mut self) -> Result<()> {
        self.0
            .try_reserve(1)
            .map_err(|_| Error::OutOfMemory("no memory for one more lease or reservation".into()))
    }

    fn push(&mut self, records: &Slab<Record>, number: u32) {
        self.0.push(number);
        self.rise(records, self.0.len() - 1);
    }

    fn remove(&mut self, records: &Slab<Record>, position: u32) {
        let position = position as usize;
        self.0.swap_remove(position);
        if position < self.0.len() {
            self.sink(records, position);
            self.rise(records, position);
        }
    }

    fn rise(&mut self, records: &Slab<Record>, mut position: usize) {
        while position > 0 && self.end(records, position) < self.end(records, (position - 1) / 2) {
            self.swap(records, position, (position - 1) / 2);
            position = (position - 1) / 2;
        }
        self.note(records, position);
    }

    fn sink(&mut self, records: &Slab<Record>, mut position: usize) {
        loop {
            let children = (2 * position + 1..2 * position + 3).filter(|child| *child < self.0.len());
            match children.min_by_key(|child| self.end(records, *child)) {
                Some(child) if self.end(records, child) < self.end(records, position) => {
                    self.swap(records, position, child);
                    position = child;
                }
                _ => break,
            }
        }
        self.note(records, position);
    }

    fn swap(&mut self, records: &Slab<Record>, one: usize, other: usize) {
        self.0.swap(one, other);
        self.note(records, one);
        self.note(records, other);
    }

    fn note(&self, records: &Slab<Record>, position: usize) {
        records
            .get(self.0[position])
            .position
            .store(position as u32, Ordering::Relaxed);
    }

    fn end(&self, records: &Slab<Record>, position: usize) -> u64 {
        records.get(self.0[position]).end.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests;
