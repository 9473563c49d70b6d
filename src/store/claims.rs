//! What an evicting put holds and waits for in one segment.
//!
//! Memory that a put frees for itself must not be taken by others piece by piece, or a large put would starve beside small ones. So an
//! extent that it freed stays used, `Held` with the put's ticket; one that readers still need is `Claimed` and becomes `Held` when the
//! last of them lets go. Dropped, the claims give everything back.
//!
//! Two puts that each hold a part of what both need must not fail each other: when nothing that may go is left, the one that came first
//! waits for the others, and the others give up what they hold and wait for it ([`Claims::yield_to_others`]).

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::segment::Segment;
use crate::segment::allocator::{Allocator, Extent, Owner};

/// Who makes room in a segment at the moment.
#[derive(Default)]
pub(super) struct Contenders {
    /// Their tickets, in the order in which they came.
    tickets: Mutex<Vec<u32>>,
    /// Units that they hold together.
    held: AtomicU64,
}

/// An extent that readers had when it was claimed, and the object that it was of.
struct Claimed {
    unit: u32,
    slot: u32,
}

/// See the module's text.
pub(super) struct Claims<'s> {
    segment: &'s Segment,
    contenders: &'s Contenders,
    pub(super) ticket: u32,
    /// First units of extents that are held.
    held: Vec<u32>,
    held_units: u64,
    /// From here on in `held` nobody has looked yet whether they make a run.
    fresh: usize,
    claimed: Vec<Claimed>,
}

impl<'s> Claims<'s> {
    pub(super) fn new(segment: &'s Segment, contenders: &'s Contenders, ticket: u32) -> Claims<'s> {
        let mut tickets = contenders.tickets.lock().unwrap_or_else(PoisonError::into_inner);
        // Without memory for the ticket this put has no place in the line: it fails when nothing is left, as a lone one does.
        if tickets.try_reserve(1).is_ok() {
            tickets.push(ticket);
        }
        drop(tickets);
        Claims {
            segment,
            contenders,
            ticket,
            held: Vec::new(),
            held_units: 0,
            fresh: 0,
            claimed: Vec::new(),
        }
    }

    /// Claims the extent of a copy that was just retired. Without memory to remember it, it just becomes free.
    pub(super) fn claim(&mut self, slot: u32, unit: u32) {
        if self.claimed.try_reserve(1).is_err() || self.held.try_reserve(self.claimed.len() + 1).is_err() {
            return;
        }
        let is_claimed = self.segment.with_space(|space| {
            // A reader may have given it back already, and another put may have it now.
            space.owner(unit) == Some(Owner::Object(slot)) && space.set_owner(unit, Owner::Claimed(self.ticket))
        });
        if is_claimed == Some(true) {
            self.claimed.push(Claimed { unit, slot });
        }
    }

    /// Takes a run of `units` if there is one: free, or made of what is free and what is held.
    pub(super) fn take(&mut self, units: u32, owner: Owner) -> Option<Extent> {
        let segment = self.segment;
        segment.with_space(|space| {
            self.collect(space);
            let run = self.held[self.fresh..]
                .iter()
                .map(|unit| space.run_around(*unit, self.ticket))
                .find(|run| run.units >= units);
            self.fresh = self.held.len();
            let Some(run) = run else {
                return space.allocate(units, owner);
            };
            let extent = space.take_run(run, units, self.ticket, owner)?;
            // What of the run is not needed is free again.
            self.held.retain(|unit| !(run.start..run.end()).contains(unit));
            self.fresh = self.held.len();
            Some(extent)
        })?
    }

    /// Holds the free parts of a window, and gives the objects in it: slot and extent. `None` without memory for that.
    pub(super) fn hold_window(&mut self, space: &mut Allocator, window: Extent) -> Option<Vec<(u32, Extent)>> {
        let before = space.allocated_units();
        space.hold_free(window, self.ticket, &mut self.held).ok()?;
        self.note_held(u64::from(space.allocated_units() - before));
        self.fresh = 0;
        let mut victims = Vec::new();
        for (extent, owner) in space
            .runs(window.start)
            .take_while(|(extent, _)| extent.start < window.end())
        {
            if let Some(Owner::Object(slot)) = owner {
                victims.try_reserve(1).ok()?;
                victims.push((slot, extent));
            }
        }
        Some(victims)
    }

    /// Units that are free to this put.
    pub(super) fn available(&self) -> u64 {
        self.held_units
            + self
                .segment
                .with_space(|space| u64::from(space.free_units()))
                .unwrap_or(0)
    }

    /// Whether readers still have what was claimed.
    pub(super) fn is_waiting(&self) -> bool {
        !self.claimed.is_empty()
    }

    /// Blocks until a claimed extent has come back, or a moment has passed.
    pub(super) fn wait(&self) {
        self.segment.wait_for_freed(|space| {
            self.claimed
                .iter()
                .any(|claimed| space.owner(claimed.unit) != Some(Owner::Claimed(self.ticket)))
        });
    }

    /// Blocks until some extent here has come back or become readable, or a moment has passed.
    pub(super) fn wait_for_copies(&self) {
        self.segment.wait_for_freed(|_| false);
    }

    /// With nothing left to evict: waits for other puts that hold memory here, the first of them for what the others hold, the
    /// others for the first. False when there are none: then there is no room.
    pub(super) fn yield_to_others(&mut self) -> bool {
        let first = self.first_ticket();
        if first == Some(self.ticket) || first.is_none() {
            if self.contenders.held.load(Ordering::Acquire) <= self.held_units {
                return false;
            }
            self.segment.wait_for_freed(|_| false);
            return true;
        }
        self.release();
        while self.first_ticket() == first {
            self.segment.wait_for_freed(|_| false);
        }
        true
    }

    fn first_ticket(&self) -> Option<u32> {
        self.contenders
            .tickets
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .first()
            .copied()
    }

    /// Moves what readers have let go from claimed to held.
    fn collect(&mut self, space: &Allocator) {
        let mut units = 0;
        self.claimed.retain(|claimed| match space.owner(claimed.unit) {
            Some(Owner::Claimed(ticket)) if ticket == self.ticket => true,
            Some(Owner::Held(ticket)) if ticket == self.ticket => {
                units += space
                    .containing(claimed.unit)
                    .map_or(0, |(extent, _)| u64::from(extent.units));
                self.held.push(claimed.unit);
                false
            }
            _ => false,
        });
        self.note_held(units);
    }

    fn note_held(&mut self, units: u64) {
        self.held_units += units;
        self.contenders.held.fetch_add(units, Ordering::AcqRel);
    }

    fn release(&mut self) {
        let (held, claimed) = (std::mem::take(&mut self.held), std::mem::take(&mut self.claimed));
        self.segment.with_space(|space| {
            for Claimed { unit, slot } in claimed {
                match space.owner(unit) {
                    Some(Owner::Held(ticket)) if ticket == self.ticket => {
                        space.free(unit);
                    }
                    Some(Owner::Claimed(ticket)) if ticket == self.ticket => {
                        space.set_owner(unit, Owner::Object(slot));
                    }

                    _ => {}
                }
            }
            for unit in held {
                space.free(unit);
            }
        });
        self.contenders.held.fetch_sub(self.held_units, Ordering::AcqRel);
        (self.held_units, self.fresh) = (0, 0);
        self.segment.wake_waiters();
    }
}

impl Drop for Claims<'_> {
    fn drop(&mut self) {
        self.contenders
            .tickets
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|ticket| *ticket != self.ticket);
        self.release();
    }
}
