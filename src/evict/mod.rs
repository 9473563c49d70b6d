//! Eviction: which copy of a segment goes first when there is no room.
//!
//! A [`Policy`] orders the copies (blobs) of one segment. It knows their ids and sizes, never their memory, and it lives
//! inside the segment's mutex: no atomics, no locks of its own, and nothing in it waits.
//!
//! What orders copies is a *place* ([`place`]): the stamp of the batch that used the object last, and the position of its
//! key in that batch. A smaller place goes first. Keys of one batch are a prefix chain, in which a block is useless
//! without the ones before it, so the position is turned round: of two keys with one stamp the tail is the older.
//!
//! **A hit never comes here.** It writes the new place into the object, one relaxed store, and the order learns of it when
//! it matters: [`Policy::evict`] asks for the [`Standing`] of each candidate, and one that was used since is moved to the
//! place of that use instead of going. So a read takes no lock and moves no list, and each hit is paid for at most once.
//!
//! **What a policy can learn from.** A place tells when and where: the second of the use ([`crate::clock::tick_of`] its stamp), and the
//! position in its chain. A copy comes with the hash of its key, so that a policy which remembers the hashes of what it let go knows one
//! that returns.
//!
//! Asking also keeps the rules about what may go (pins, leases, reservations) with the object, where they can change at
//! any time, and leaves to the policy what a policy is for. A policy can tell the ways in which a copy leaves it: `remove`
//! says that its owner took it away, `evict` that it was the policy's choice. One that learns from what it let go needs
//! that, and may keep whatever it learned behind the same calls.
//!
//! Every policy passes the same suite, `conformance`, and a later one adds a line to its table.

mod adaptive;
#[cfg(test)]
mod conformance;
mod entries;
mod order;
mod prefix;

use crate::clock::tick_of;
use crate::config::Eviction;
use crate::error::Result;
use crate::segment::Medium;

/// The copy that an entry stands for. What the number means is the caller's business.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Id(pub u32);

/// Where an entry lies in its policy, from [`Policy::insert`] until it is removed or evicted. Never `u32::MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Handle(pub u32);

/// A copy that comes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    pub id: Id,
    /// Hash of its object's key: the same each time that it comes.
    pub key: u64,
    pub units: u32,
    pub place: u64,
    /// It is the last of its batch, or was put alone.
    pub is_end: bool,
    /// What it was taken for before, if it is another copy of an object that is there.
    pub kind: Option<Kind>,
}

/// What objects have in common that are as likely to be used again. Two bits of an object's word say which it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Not used since it came.
    New = 0,
    /// As `New`, and the end of its batch: a chain that goes on has another block there, so it is hardly ever used again.
    End = 1,
    /// Used in a later tick than the one in which it came, or known from before.
    Used = 2,
}

const KINDS: usize = 3;

impl Kind {
    const ALL: [Kind; KINDS] = [Kind::New, Kind::End, Kind::Used];

    /// The kind that an object is marked as.
    pub(crate) fn of_mark(mark: u8) -> Kind {
        Kind::ALL[usize::from(mark).min(KINDS - 1)]
    }

    fn of_new(is_end: bool) -> Kind {
        if is_end { Kind::End } else { Kind::New }
    }

    /// The kind after a use at `now` of what was used last at `before`: once a tick counts.
    pub(crate) fn after(self, before: u64, now: u64) -> Kind {
        if is_later_tick(before, now) { Kind::Used } else { self }
    }
}

/// Whether a place is of a later tick than another.
pub(crate) fn is_later_tick(before: u64, now: u64) -> bool {
    tick_of_place(now) > tick_of_place(before)
}

fn tick_of_place(place: u64) -> u64 {
    tick_of(stamp_of(place))
}

/// What may be done with a candidate, as it is at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It may go. `place` is the object's place now, newer than the one in the order when it was used since.
    Evictable { place: u64 },
    /// Pinned, leased or reserved.
    Held,
}

/// A copy that has left the order to make room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Victim {
    pub id: Id,
    pub units: u32,
}

/// Low bits of a place that hold the position: a batch has at most 16384 keys.
const POSITION_BITS: u32 = 14;
/// The most keys in one batch.
pub(crate) const MAX_BATCH: usize = 1 << POSITION_BITS;
const POSITION_MASK: u64 = (1 << POSITION_BITS) - 1;

/// The place of the key at `position` of the batch with this stamp; stamps have 48 bits.
pub(crate) fn place(stamp: u64, position: usize) -> u64 {
    debug_assert!(stamp >> 48 == 0 && position as u64 <= POSITION_MASK);
    (stamp << POSITION_BITS) | (POSITION_MASK - position as u64)
}

/// Where in which batch an object was put.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turn {
    pub stamp: u64,
    pub position: usize,
    /// Nothing comes after it in its batch.
    pub is_end: bool,
}

impl Turn {
    /// The turn of an object that is put by itself.
    pub(crate) fn alone(stamp: u64) -> Turn {
        Turn::in_batch(stamp, 0, 1)
    }

    /// The turn of the element at `position` of a batch of `count`.
    pub(crate) fn in_batch(stamp: u64, position: usize, count: usize) -> Turn {
        Turn {
            stamp,
            position,
            is_end: position + 1 == count,
        }
    }
}

/// The stamp of the batch that a place is of.
fn stamp_of(place: u64) -> u64 {
    place >> POSITION_BITS
}

/// The position in its batch that a place is of.
fn position_of(place: u64) -> usize {
    (POSITION_MASK - (place & POSITION_MASK)) as usize
}

/// `place` as if its batch had been used at the time of `newest`: that stamp, its own position; never an older place.
fn renewed(old: u64, newest: u64) -> u64 {
    old.max(place(stamp_of(newest), position_of(old)))
}

const MEDIA: usize = Medium::Ssd as usize + 1;

/// The policies of a store's segments: one each, which share what they learn with the others of their medium.
pub(crate) enum Policies {
    Prefix,
    Adaptive([adaptive::Shared; MEDIA]),
}

impl Policies {
    pub(crate) fn new(kind: Eviction) -> Result<Policies> {
        Ok(match kind {
            Eviction::Prefix => Policies::Prefix,
            Eviction::Adaptive => {
                let shared = adaptive::Shared::new;
                Policies::Adaptive([shared()?, shared()?, shared()?])
            }
        })
    }

    /// Hears of a use at place `now` of an object of this kind, which was used last at `before`, in an earlier tick; `medium` says where, if
    /// there is somebody who learns from it. Takes no lock.
    pub(crate) fn hear(&self, medium: impl FnOnce() -> Option<Medium>, kind: Kind, before: u64, now: u64) {
        if let Policies::Adaptive(shared) = self
            && let Some(medium) = medium()
        {
            shared[medium as usize].hear(kind, before, now);
        }
    }

    /// Units that a batch may have put into a segment of `units` before they should be readable, and may go, like all others.
    pub(crate) fn batch_units(&self, units: u64) -> u64 {
        match self {
            Policies::Prefix => u64::MAX,
            Policies::Adaptive(_) => adaptive::young_units(units).into(),
        }
    }

    /// The policy of a new segment of `units`.
    pub(crate) fn of_segment(&self, medium: Medium, units: u64) -> Result<Box<dyn Policy>> {
        Ok(match self {
            Policies::Prefix => Box::new(prefix::Prefix::new()?),
            Policies::Adaptive(shared) => Box::new(adaptive::Adaptive::new(units, &shared[medium as usize])?),
        })
    }
}

/// An order of the copies of one segment by what should go first.
pub(crate) trait Policy: Send {
    /// Takes in a copy, and tells what it takes it for. Nothing has changed when this fails, with `OutOfMemory`.
    ///
    /// What was evicted may return. When it was put again, its place is newer than that eviction; when it turned out to be held and was put
    /// back, it is the old one.
    fn insert(&mut self, arrival: Arrival) -> Result<(Handle, Kind)>;

    /// Takes out a copy that its owner removed, of an object that was used last at this place. The handle is void from here on.
    fn remove(&mut self, handle: Handle, used: u64);

    /// Takes the next victim out of the order, which voids its handle, and gives it; `None` when nothing may go.
    ///
    /// Candidates are met from the oldest on and `standing` is asked about each. One that was used since moves to its
    /// new place and may be met there again. One that is held is asked about once a call and passed over; being
    /// held is a use, so it moves to the stamp of `newest` and keeps its position in the chain. `newest` should be the
    /// place of a use at this moment: then those passed over are out of the way of later calls.
    ///
    /// Costs what it meets. `None` has met everything, so whoever gets it should not ask again at once.
    fn evict(&mut self, newest: u64, standing: &mut dyn FnMut(Id) -> Standing) -> Option<Victim>;

    /// The two copies that are likely to go after the last victim, in that order: a hint, to have them at hand by then.
    fn upcoming(&self) -> [Option<Id>; 2] {
        [None; 2]
    }

    /// What a copy at `place` is worth keeping, to compare runs of memory by what lies in them: 0 for what would go
    /// first, and never less for a newer place.
    fn worth(&self, place: u64) -> u64;

    /// Copies in the order.
    #[cfg(test)]
    fn len(&self) -> usize;

    /// Checks every invariant of the structure, and panics at the first that does not hold.
    #[cfg(test)]
    fn validate(&self);
}
