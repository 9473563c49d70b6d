//! Making room: which copies go, and who gets their memory.
//!
//! **In the background** the keeper drops copies of a segment in the policy's order from the high watermark down to the low one; where there
//! is a slower medium, the mover moves them there instead ([`mover`](super::mover)).
//!
//! **On demand** a put that finds no run of its size makes one, in the same order. What it frees it holds as its own (`Owner::Held`), so
//! that others can't take it piece by piece; what readers still need it claims (`Owner::Claimed`), and it becomes its own when
//! the last of them lets go. When twice its size is free and still no run is long enough, memory is fragmented: it looks for
//! the window that costs least and drops what lies there. When nothing that may go is left it waits for those who are copying, into
//! the segment or out of it, and for other puts that make room: they end by themselves. It gives up only when what is held (pinned,
//! leased, reserved) leaves no run of its size, and then gives back what it holds. Nothing is locked between two steps.
//!
//! Whoever is waited for never waits: a put that still wants room, for another copy or another element of its batch, holds what
//! it has; and one that is called from the callback of a copy gives up where others would wait.

use crate::evict::{self, Id, Kind, Standing};
use crate::metrics::Counter;
use crate::object::State;
use crate::segment::allocator::{Extent, Owner, UNIT};
use crate::segment::device;
use crate::trace::{Timing, Tracepoint};

use super::Store;
use super::claims::Claims;
use super::remove::{NamedCopy, RetiredCopy};
use super::segments::Registered;

/// For whom somebody who makes room waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    /// For nobody: others may wait for what the caller holds.
    Never,
    /// For readers of what was dropped, and for others who make room.
    ForRoom,
    /// For those who are copying, too.
    ForCopies,
}

/// A policy's name for a copy: the slot with the copy's number below it.
pub(super) fn id_of(slot: u32, copy: usize) -> Id {
    Id((slot << 3) | copy as u32)
}

/// A copy that the policy let go, as it was then.
pub(super) struct Candidate {
    pub(super) named: NamedCopy,
    pub(super) units: u32,
}

impl Store {
    /// Drops copies until a segment is at its low watermark, or nothing more may go.
    pub(super) fn evict_to_low(&self, registered: &Registered) {
        let segment = &registered.segment;
        let low = u128::from(segment.capacity) * u128::from(self.watermark_low) / 100;
        // What readers still need comes back later: it counts as gone, or a slow reader would empty the segment.
        let mut goal = segment.allocated().saturating_sub(low as u64);
        let span = self.tracer.begin(Tracepoint::Evict, Timing::Always);
        while goal > 0 && self.is_serving() {
            let Some(candidate) = self.next_candidate(registered) else {
                break;
            };
            goal = goal.saturating_sub(self.drop_candidate(&candidate, None));
        }
        span.good();
    }

    /// Makes a run of `units` in a segment by dropping what may go; `None` when there is none to be made, or when that
    /// would take more patience.
    pub(super) fn make_room(
        &self,
        registered: &Registered,
        units: u32,
        owner: Owner,
        patience: Patience,
    ) -> Option<Extent> {
        if u64::from(units) * UNIT > registered.segment.capacity {
            return None;
        }
        self.sweep();
        let span = self.tracer.begin(Tracepoint::Evict, Timing::Sampled);
        // What is fragmented needs a window, not the next in order.
        let is_fragmented = || {
            let free = registered.segment.with_space(|space| u64::from(space.free_units()));
            free.unwrap_or(0) >= 2 * u64::from(units)
        };
        let first = if is_fragmented() {
            None
        } else {
            self.next_candidate(registered)
        };
        let made = match &first {
            Some(candidate) if candidate.units == units => self.take_over(registered, candidate, owner),
            _ => None,
        };
        let made = made.or_else(|| {
            let mut claims = Claims::new(&registered.segment, &registered.contenders, self.ticket());
            if let Some(candidate) = first {
                self.drop_candidate(&candidate, Some(&mut claims));
            }
            self.evict_for(registered, units, owner, patience, &mut claims)
        });
        span.end(made.is_some());
        made
    }

    /// The short way, as blocks are mostly of one size: the extent of the copy that goes next becomes the new object's as it is. `None`
    /// when that copy is read or held; then it is still to be dropped.
    fn take_over(&self, registered: &Registered, candidate: &Candidate, owner: Owner) -> Option<Extent> {
        let Candidate { named, units } = *candidate;
        let (blob, (_, start)) = (self.objects.blob(named.slot, named.copy), named.place);
        if blob.count.is_read(named.generation) {
            return None;
        }
        let retired = self.retire_copy(&named)?;
        if retired.is_free {
            registered.segment.with_space(|space| space.set_owner(start, owner));
            blob.vacate();
            self.objects.finish(named.slot);
        }
        self.finish_candidate(candidate, &retired);
        retired.is_free.then_some(Extent { start, units })
    }

    fn evict_for(
        &self,
        registered: &Registered,
        units: u32,
        owner: Owner,
        patience: Patience,
        claims: &mut Claims<'_>,
    ) -> Option<Extent> {
        let may_wait = patience != Patience::Never && !device::is_in_callback();
        let mut is_order_empty = false;
        loop {
            if let Some(extent) = claims.take(units, owner) {
                return Some(extent);
            }
            if registered.segment.is_closed() {
                return None;
            }
            // With enough free for two such objects it is the shape of the free memory that is wrong, not its amount.
            let is_fragmented = claims.available() >= 2 * u64::from(units);
            if (is_fragmented || is_order_empty) && self.drop_window(registered, units, claims) {
                if claims.is_waiting() && may_wait {
                    claims.wait();
                }
                if may_wait || !claims.is_waiting() {
                    continue;
                }
            }
            match self.next_candidate(registered) {
                Some(candidate) => drop(self.drop_candidate(&candidate, Some(claims))),
                None if !is_order_empty => is_order_empty = true,
                None if !may_wait => return None,
                None if claims.is_waiting() => claims.wait(),
                None if claims.yield_to_others() => is_order_empty = false,
                None if patience == Patience::ForCopies && self.may_come(registered, units) => {
                    claims.wait_for_copies();
                    is_order_empty = false;
                }
                None => return None,
            }
        }
    }

    /// Drops what lies in the cheapest window for a run of `units`; false when there is no window.
    fn drop_window(&self, registered: &Registered, units: u32, claims: &mut Claims<'_>) -> bool {
        let policy = registered.policy();
        let victims = registered.segment.with_space(|space| {
            let cost =
                |slot: u32, extent: Extent| self.worth(policy.as_ref(), slot, registered.segment.number, extent.start);
            let window = space.cheapest_window(units, claims.ticket, cost).ok()??;
            claims.hold_window(space, window.extent)
        });
        drop(policy);
        let Some(victims) = victims.flatten() else { return false };
        for (slot, Extent { start, units }) in victims {
            let generation = self.objects.get(slot).life().generation();
            let place = (registered.segment.number, start);
            if let Some(copy) = self.copy_at(slot, place.0, place.1) {
                let named = NamedCopy {
                    slot,
                    copy,
                    generation,
                    place,
                };
                self.drop_candidate(&Candidate { named, units }, Some(claims));
            }
        }
        true
    }

    /// What an object in a window is worth; `None` when its copy there may not go, or is going already.
    fn worth(&self, policy: &dyn evict::Policy, slot: u32, segment: u32, unit: u32) -> Option<u64> {
        let object = self.objects.get(slot);
        let life = object.life();
        let count = self.objects.blob(slot, self.copy_at(slot, segment, unit)?).count;
        let may_go = life.state() == State::Readable && count.is_live(life.generation()) && !count.is_held();
        // One more for being there at all: of two windows of the oldest, the one with fewer objects goes.
        may_go.then(|| policy.worth(object.used()).saturating_add(1))
    }

    /// Whether what lies there is pinned, leased or reserved.
    fn is_held_at(&self, slot: u32, segment: u32, unit: u32) -> bool {
        // A copy that is not found is just coming or going.
        self.copy_at(slot, segment, unit)
            .is_some_and(|copy| self.objects.blob(slot, copy).count.is_held())
    }

    /// Whether a segment would have a run of `units` once everything has ended there that ends by itself: copies, and the making of room.
    fn may_come(&self, registered: &Registered, units: u32) -> bool {
        let segment = &registered.segment;
        let has_run = segment.with_space(|space| {
            let mut units_so_far = 0;
            space.runs(0).any(|(run, owner)| {
                units_so_far = match owner {
                    Some(Owner::Object(slot)) if self.is_held_at(slot, segment.number, run.start) => 0,
                    _ => units_so_far + run.units,
                };
                units_so_far >= units
            })
        });
        has_run == Some(true)
    }

    /// Asks the policy what goes next, and takes it out of the order.
    pub(super) fn next_candidate(&self, registered: &Registered) -> Option<Candidate> {
        let mut policy = registered.policy();
        let newest = evict::place(self.clock.stamp_of_use(), 0);
        let victim = policy.evict(newest, &mut |id| self.standing_of(id))?;
        let upcoming = policy.upcoming();
        let (slot, copy) = (victim.id.0 >> 3, (victim.id.0 & 7) as usize);
        // A copy leaves the order, under this lock, before its slot is given up: so this is still the object that was listed.
        let blob = self.objects.blob(slot, copy);
        blob.take_handle();
        let named = NamedCopy {
            slot,
            copy,
            generation: self.objects.get(slot).life().generation(),
            place: blob.place(),
        };
        drop(policy);
        self.look_ahead(upcoming);
        Some(Candidate {
            named,
            units: victim.units,
        })
    }

    /// What may be done with a copy that the policy asks about.
    fn standing_of(&self, id: Id) -> Standing {
        let (slot, copy) = (id.0 >> 3, (id.0 & 7) as usize);
        let object = self.objects.get(slot);
        if object.life().state() != State::Readable || self.objects.blob(slot, copy).count.is_held() {
            return Standing::Held;
        }
        Standing::Evictable { place: object.used() }
    }

    /// Begins to load what the next evictions will look at. An object that was asked for one eviction ago is here by now, and tells where
    /// the index has it.
    fn look_ahead(&self, [next, after]: [Option<Id>; 2]) {
        if let Some(next) = next {
            self.index.prefetch(self.objects.get(next.0 >> 3).hash());
        }
        if let Some(after) = after {
            self.objects.prefetch(after.0 >> 3);
        }
    }

    /// Drops a candidate; the bytes of its copy, 0 when it may not go. With `claims` its memory goes to that put, now or when its
    /// readers let go; else back to the segment.
    pub(super) fn drop_candidate(&self, candidate: &Candidate, claims: Option<&mut Claims<'_>>) -> u64 {
        let Candidate { named, units } = *candidate;
        let Some(retired) = self.retire_candidate(candidate) else {
            return 0;
        };
        if let Some(claims) = claims {
            claims.claim(named.slot, named.place.1);
        }
        if retired.is_free {
            self.end(named.slot, named.copy);
        }
        self.finish_candidate(candidate, &retired);
        u64::from(units) * UNIT
    }

    /// Takes a candidate out of reach; one that may not go after all goes back into the order.
    fn retire_candidate(&self, candidate: &Candidate) -> Option<RetiredCopy> {
        let retired = self.retire_copy(&candidate.named);
        if retired.is_none() {
            self.put_back(candidate);
        }
        retired
    }

    /// Finishes the object of a copy that was its last, and counts it.
    fn finish_candidate(&self, candidate: &Candidate, retired: &RetiredCopy) {
        if retired.is_last {
            let slot = candidate.named.slot;
            self.count(Counter::EvictedBytes, self.objects.get(slot).size());
            self.objects.finish(slot);
            self.count(Counter::EvictOperations, 1);
            if self.has_slower(self.medium_of(&candidate.named)) {
                self.count(Counter::SpillDrops, 1);
            }
        }
    }

    /// The copy of an object that lies there.
    pub(super) fn copy_at(&self, slot: u32, segment: u32, unit: u32) -> Option<usize> {
        let copies = self.objects.get(slot).life().copies();
        (0..copies).find(|copy| self.objects.blob(slot, *copy).place() == (segment, unit))
    }

    /// Puts a candidate that turned out to be held back into the order. One that is gone stays out.
    pub(super) fn put_back(&self, candidate: &Candidate) {
        let NamedCopy {
            slot,
            copy,
            generation,
            place,
        } = candidate.named;
        let (object, blob) = (self.objects.get(slot), self.objects.blob(slot, copy));
        let _shard = self.index.lock(object.hash());
        let life = object.life();
        let is_there = life.generation() == generation
            && life.state() == State::Readable
            && blob.place() == place
            && blob.count.is_live(generation);
        if is_there && !blob.is_listed() {
            // To the place of its last use, where it came from. The entry it had was just freed, so there is room for it.
            let kind = Some(Kind::of_mark(object.mark()));
            let _ = self.enlist(slot, copy, object.used(), false, kind);
        }
    }
}
