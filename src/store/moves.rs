//! Moves: a further copy of an object on another medium, and then, when it is to leave the first, the end of the copy there.
//!
//! **Invisible.** An object is never without a copy that can be read: the new one is published under the lock of the key's shard and the
//! old one retired afterwards, so a reader finds one or the other, and one who found neither finds that the object's life has changed and
//! looks again ([`crate::object`]). Until it is published the new copy is nothing but an extent that belongs to the [`Copying`]: a remove,
//! an eviction or a new object in the slot meanwhile lets the move come to nothing, and whatever fails leaves the object where it was.
//!
//! **One owner.** [`Moving`] is the right to move a slot's object. Who finds it taken passes on, or waits when holding none.
//!
//! **In order.** The extent comes first; then the reading of the source, for as long as its bytes are being loaded into memory of this
//! call; then, with nothing held of the source, the disk. So a put that needs the source's memory never waits for a disk. Making room for
//! an extent never waits for others ([`Patience::Never`]), as others may wait for the extents that are held meanwhile. No lock is held
//! across any of it: a mover that stops anywhere costs the extents and the memory of its group, which others do without.
//!
//! **A disk copy's life** has one place where it begins, [`Store::publish_copy`] (a put to SSD: `Writing::publish`), and one
//! where its extent is given back, `Store::end` (or goes on to the next object, `Store::take_over`).

use std::cell::OnceCell;

use crate::error::{Error, Result, words};
use crate::event;
use crate::evict::{Arrival, Kind};
use crate::log::{Level, say};
use crate::metrics::Counter;
use crate::object::{Attempt, Life, State};
use crate::segment::allocator::Owner;
use crate::segment::buffers::Buffers;
use crate::segment::disk::{self, Bounced, Stored};
use crate::segment::file::Bounce;
use crate::segment::transfer::{self, Return};
use crate::segment::{Medium, Segment};

use super::Store;
use super::evict::Patience;
use super::get::Reading;
use super::remove::NamedCopy;
use super::segments::Registered;

/// An object as somebody found it: its slot may be another's by now.
#[derive(Debug, Clone, Copy)]
pub(super) struct Named {
    pub(super) slot: u32,
    pub(super) generation: u32,
}

/// The right to move the object of a slot, until it is dropped.
struct Moving<'s> {
    store: &'s Store,
    slot: u32,
}

/// A copy that is being made. Dropped before it is published, it never was.
pub(super) struct Copying<'s> {
    /// Nobody else moves the object meanwhile.
    _moving: Moving<'s>,
    pub(super) named: Named,
    pub(super) size: u64,
    to: &'s Registered,
    unit: u32,
    /// The extent is the object's, no longer this value's.
    is_published: bool,
    checksum: Option<u64>,
    failure: OnceCell<Error>,
}

/// What beginning a copy comes to when nothing is wrong.
pub(super) enum Begun<'s> {
    Copying(Copying<'s>),
    /// There is a copy in such a segment.
    IsThere,
    /// Somebody else moves the object.
    IsMoving,
}

/// Where the bytes of a copy are on their way.
enum Loaded<'s> {
    /// They have arrived.
    There,
    /// In memory of the call's own, to be written.
    Here(Bounce),
    /// On a file, to be read.
    OnFile(Reading<'s>),
}

impl Store {
    /// Begins a copy of an object in the first of the segments that are wanted that has room for it as it is; else in the first in which
    /// room may be made by dropping what goes first there, and is.
    pub(super) fn begin_copy<'s>(
        &'s self,
        named: Named,
        is_wanted: impl Fn(&Segment) -> bool + Copy,
        may_make_room: impl Fn(&Segment) -> bool,
    ) -> Result<Begun<'s>> {
        let Named { slot, .. } = named;
        let object = self.objects.get(slot);
        let shard = self.index.lock(object.hash());
        let life = self.life_of(named).ok_or(Error::NotFound)?;
        let is_there = |copy: NamedCopy| is_wanted(&self.segments.get(copy.place.0).segment);
        if self.live_copies(named, life).any(is_there) {
            return Ok(Begun::IsThere);
        }
        self.objects.extend(slot)?;
        if !self.objects.begin_move(slot) {
            return Ok(Begun::IsMoving);
        }
        drop(shard);
        let moving = Moving { store: self, slot };
        let size = object.size();
        let units = u32::try_from(Segment::units_for(size)).unwrap_or(u32::MAX);
        let owner = Owner::Object(slot);
        let as_it_is = |to: &'s Registered| Some((to, to.segment.allocate(units, owner)?.start));
        let made = |to: &'s Registered| Some((to, self.make_room(to, units, owner, Patience::Never)?.start));
        let found = self.near_first(is_wanted).find_map(as_it_is).or_else(|| {
            let mut segments = self.near_first(is_wanted).filter(|to| may_make_room(&to.segment));
            segments.find_map(made)
        });
        let (to, unit) = found.ok_or_else(|| {
            Error::NoSpace(words!(
                "object of {size} bytes: no room for it on the medium that it is to go to"
            ))
        })?;
        Ok(Begun::Copying(Copying {
            _moving: moving,
            named,
            size,
            to,
            unit,
            is_published: false,
            checksum: None,
            failure: OnceCell::new(),
        }))
    }

    /// Makes copies, all of them under way at once, and publishes each that was made; `done` hears what became of every one.
    pub(super) fn make_copies(&self, mut group: Vec<Copying<'_>>, mut done: impl FnMut(Named, Result<()>)) {
        if let Err(error) = self.load_and_store(&mut group) {
            group.iter().for_each(|copying| copying.fail(error.clone()));
        }
        for copying in group {
            let (named, size) = (copying.named, copying.size);
            let result = self.publish_copy(copying);
            match &result {
                Ok(()) => self.count(Counter::MovedBytes, size),
                // Removed meanwhile.
                Err(Error::NotFound) => {}
                Err(error) => {
                    self.count(Counter::MoveFailures, 1);
                    say!(Level::Warn, "an object of {size} bytes stays where it is: {error}");
                }
            }
            done(named, result);
        }
    }

    fn load_and_store(&self, group: &mut [Copying<'_>]) -> Result<()> {
        let mut loaded = Vec::new();
        loaded.try_reserve_exact(group.len()).map_err(no_memory)?;
        for copying in &mut *group {
            let bytes = self.load(copying).map_err(|error| copying.fail(error));
            loaded.push(bytes.unwrap_or(Loaded::There));
        }
        let group = &*group;
        let (mut writes, mut returns) = (Vec::new(), Vec::new());
        writes.try_reserve_exact(group.len()).map_err(no_memory)?;
        returns.try_reserve_exact(group.len()).map_err(no_memory)?;
        for (element, (copying, loaded)) in group.iter().zip(&loaded).enumerate() {
            match loaded {
                Loaded::There => {}
                Loaded::Here(bounce) => writes.push(Bounced {
                    element,
                    segment: &copying.to.segment,
                    start: Segment::offset_of(copying.unit),
                    bounce,
                }),
                Loaded::OnFile(reading) => returns.push(Return {
                    element,
                    segment: &self.segments.get(reading.named().place.0).segment,
                    stored: self.stored(&reading.named()),
                    to: &copying.to.segment,
                    unit: copying.unit,
                }),
            }
        }
        disk::write_bounced(&writes, |element, error| group[element].fail(error));
        transfer::bring_back(&returns, |element, error| {
            if let (Error::Rotten, Loaded::OnFile(reading)) = (&error, &loaded[element]) {
                self.drop_rotten(&reading.named());
            }
            group[element].fail(error);
        })
    }

    /// Brings a copy's bytes to where they go, or to where they can go there from.
    fn load(&self, copying: &mut Copying<'_>) -> Result<Loaded<'_>> {
        let reading = self.read_named(copying.named)?;
        let source = reading.named();
        let (from, to) = (&self.segments.get(source.place.0).segment, &copying.to.segment);
        if from.is_file() {
            return Ok(Loaded::OnFile(reading));
        }
        if !to.is_file() {
            transfer::between((from, source.place.1), (to, copying.unit), copying.size)?;
            return Ok(Loaded::There);
        }
        let bounce = transfer::load(from, source.place.1, copying.size, to)?;
        let checksum = disk::checksum(bounce.bytes(copying.size));
        if self
            .objects
            .checksum(source.slot)
            .is_some_and(|known| known != checksum)
        {
            self.drop_rotten(&source);
            return Err(Error::Rotten);
        }
        copying.checksum = Some(checksum);
        Ok(Loaded::Here(bounce))
    }

    /// Gives an object a copy that was made. `NotFound` when the object is no longer there.
    fn publish_copy(&self, mut copying: Copying<'_>) -> Result<()> {
        if let Some(error) = copying.failure.take() {
            return Err(error);
        }
        let Copying { named, to, unit, .. } = copying;
        let slot = named.slot;
        let object = self.objects.get(slot);
        let _shard = self.index.lock(object.hash());
        if self.life_of(named).is_none() || to.segment.is_closed() {
            return Err(Error::NotFound);
        }
        let copy = self.objects.vacant_copy(slot).ok_or_else(|| {
            Error::Busy("the object has as many copies as one can have, with those that are still being read".into())
        })?;
        // One step for those who look at the order: an eviction that meets the entry takes the handle that the copy has by then.
        let mut policy = to.policy();
        let kind = Kind::of_mark(object.mark());
        let (handle, _) = policy.insert(Arrival {
            id: super::evict::id_of(slot, copy),
            key: object.hash(),
            units: Segment::units_for(copying.size) as u32,
            place: object.used(),
            is_end: kind == Kind::End,
            kind: Some(kind),
        })?;
        if let Some(checksum) = copying.checksum {
            self.objects.set_checksum(slot, checksum);
        }
        self.objects.install(slot, copy, to.segment.number, unit, true);
        copying.is_published = true;
        self.objects.blob(slot, copy).set_handle(handle.0);
        drop(policy);
        self.note_written(slot, &to.segment, unit);
        self.objects.publish_further(slot, copy);
        self.announce(
            event::Kind::Stored,
            self.key_to_announce(slot),
            slot,
            std::iter::once(copy),
        );
        to.segment.wake_waiters();
        Ok(())
    }

    /// Counts a reading of the best copy of an object.
    fn read_named(&self, named: Named) -> Result<Reading<'_>> {
        loop {
            let life = self.life_of(named).ok_or(Error::NotFound)?;
            for copy in self.preference(named.slot, life) {
                match self.objects.blob(named.slot, copy).count.read(named.generation) {
                    Attempt::Counted => {
                        let reading = Reading::counted(self, named.slot, copy);
                        if self.life_of(named).is_some() {
                            return Ok(reading);
                        }
                    }
                    Attempt::Full => return Err(Error::Busy("too many readers of one object at once".into())),
                    Attempt::Gone => {}
                }
            }
            if self.objects.get(named.slot).life() == life {
                return Err(Error::NotFound);
            }
        }
    }

    /// The object's life now, if it is the one that was found, and readable.
    pub(super) fn life_of(&self, named: Named) -> Option<Life> {
        let life = self.objects.get(named.slot).life();
        (life.generation() == named.generation && life.state() == State::Readable).then_some(life)
    }

    /// The copies of an object that can be found. Under the lock of the key's shard all of them, else those of a moment.
    pub(super) fn live_copies(&self, named: Named, life: Life) -> impl Iterator<Item = NamedCopy> + use<'_> {
        let Named { slot, generation } = named;
        (0..life.copies()).filter_map(move |copy| {
            let blob = self.objects.blob(slot, copy);
            let place = blob.place();
            blob.count.is_live(generation).then_some(NamedCopy {
                slot,
                copy,
                generation,
                place,
            })
        })
    }

    /// The open segments of those that are wanted, by medium, and of each the store's own rank first.
    fn near_first(&self, is_wanted: impl Fn(&Segment) -> bool + Copy) -> impl Iterator<Item = &Registered> {
        let places = Medium::ALL
            .into_iter()
            .flat_map(|medium| [(medium, true), (medium, false)]);
        places.flat_map(move |(medium, is_near)| {
            self.segments.open().filter(move |registered| {
                let segment = &registered.segment;
                segment.medium == medium && (segment.rank == self.rank) == is_near && is_wanted(segment)
            })
        })
    }

    /// The medium of a copy.
    pub(super) fn medium_of(&self, copy: &NamedCopy) -> Medium {
        self.segments.get(copy.place.0).segment.medium
    }

    /// What a copy on a file must be, for one who keeps it where it is.
    pub(super) fn stored(&self, copy: &NamedCopy) -> Stored {
        Stored {
            start: Segment::offset_of(copy.place.1),
            size: self.objects.get(copy.slot).size(),
            // None is no checksum of anything.
            checksum: self.objects.checksum(copy.slot).unwrap_or(0),
        }
    }

    /// Remembers the checksum of what is being put, where somebody will ask for it.
    pub(super) fn note_checksum(&self, slot: u32, buffers: &Buffers<'_>) -> Result<()> {
        let segment = &self.segment_of(slot, 0).0.segment;
        if segment.is_file() || (self.verify_dram && segment.device().is_none()) {
            self.objects.annotate(slot)?;
            self.objects.set_checksum(slot, disk::checksum_of(buffers));
        }
        Ok(())
    }

    /// As [`Store::note_checksum`], of what was written in place.
    pub(super) fn note_checksum_in_place(&self, slot: u32) -> Result<()> {
        let (registered, unit) = self.segment_of(slot, 0);
        if self.verify_dram && registered.segment.device().is_none() {
            self.objects.annotate(slot)?;
            let checksum = transfer::checksum_at(&registered.segment, unit, self.objects.get(slot).size());
            self.objects.set_checksum(slot, checksum);
        }
        Ok(())
    }

    /// Compares a copy in memory, which is kept where it is, with what was put, where that is to be done.
    pub(super) fn verify(&self, copy: &NamedCopy) -> Result<()> {
        let segment = &self.segments.get(copy.place.0).segment;
        if !self.verify_dram || segment.device().is_some() {
            return Ok(());
        }
        match self.objects.checksum(copy.slot) {
            Some(known)
                if known != transfer::checksum_at(segment, copy.place.1, self.objects.get(copy.slot).size()) =>
            {
                Err(Error::Rotten)
            }
            _ => Ok(()),
        }
    }

    /// Takes a copy out of reach whose bytes are no longer what was written.
    pub(super) fn drop_rotten(&self, copy: &NamedCopy) {
        let Some(retired) = self.retire_held_copy(copy) else {
            // Another reader was faster.
            return;
        };
        let segment = &self.segments.get(copy.place.0).segment;
        self.count(Counter::RottenObjects, 1);
        say!(
            Level::Error,
            "segment {:#x}: the object of {} bytes at {:#x} is no longer what was written there, and is dropped",
            segment.address,
            self.objects.get(copy.slot).size(),
            segment.address_of(copy.place.1)
        );
        self.finish_retired(copy, &retired);
    }
}

impl Copying<'_> {
    fn fail(&self, error: Error) {
        // The first failure is the reason.
        let _ = self.failure.set(error);
    }
}

impl Drop for Copying<'_> {
    fn drop(&mut self) {
        if !self.is_published {
            self.to.segment.free(self.unit);
        }
    }
}

impl Drop for Moving<'_> {
    fn drop(&mut self) {
        self.store.objects.end_move(self.slot);
        self.store.mover.tell_moved();
    }
}

fn no_memory(_: std::collections::TryReserveError) -> Error {
    Error::OutOfMemory("no memory for a list of moves".into())
}
