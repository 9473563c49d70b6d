//! `prefix`: least recently used over batches, each chain eaten from its tail.
//!
//! One [`Order`] by place. Whoever was used since it was put there is moved to the place of that use when its turn comes. Memory is 24
//! bytes an entry, and a thirtieth of that for the buckets.

use super::entries::{Entries, Entry, NIL};
use super::order::{FULL, Order};
use super::{Arrival, Handle, Id, Kind, Policy, Standing, Victim, renewed};
use crate::error::Result;

/// The policy as it is used.
pub(super) type Prefix = Recency<FULL>;

/// The policy, with buckets of `FULL` entries.
pub(super) struct Recency<const FULL: usize> {
    entries: Entries<()>,
    order: Order<FULL>,
}

impl<const FULL: usize> Recency<FULL> {
    pub(super) fn new() -> Result<Self> {
        Ok(Recency {
            entries: Entries::new(Order::<FULL>::SPLIT)?,
            order: Order::new(),
        })
    }
}

impl<const FULL: usize> Policy for Recency<FULL> {
    fn insert(&mut self, arrival: Arrival) -> Result<(Handle, Kind)> {
        let Arrival { id, units, place, .. } = arrival;
        self.order.reserve(self.order.len() + 1)?;
        let slot = self.entries.take(Entry {
            place,
            id,
            units,
            prev: NIL,
            next: NIL,
            mark: (),
        })?;
        self.order.link(&mut self.entries, slot, place);
        Ok((Handle(slot), Kind::New))
    }

    fn remove(&mut self, handle: Handle, _used: u64) {
        debug_assert!(self.entries.in_use(handle.0), "handle {} is void", handle.0);
        self.order.unlink(&mut self.entries, handle.0);
        self.entries.release(handle.0);
    }

    fn evict(&mut self, newest: u64, standing: &mut dyn FnMut(Id) -> Standing) -> Option<Victim> {
        // Each entry moves once, unless hits come in while this searches. They must not outrun it for ever: when there
        // were as many moves as entries, the next one that may go goes.
        let mut moves = self.order.len();
        let mut search = Search {
            policy: self,
            newest,
            passed_over: NIL,
        };
        loop {
            let Recency { entries, order } = &mut *search.policy;
            let slot = order.oldest(entries)?;
            let Entry { place, id, units, .. } = entries[slot];
            match standing(id) {
                Standing::Evictable { place: now } if now > place && moves > 0 => {
                    moves -= 1;
                    order.unlink(entries, slot);
                    order.link(entries, slot, now);
                }
                Standing::Evictable { .. } => {
                    search.policy.remove(Handle(slot), place);
                    return Some(Victim { id, units });
                }
                Standing::Held => search.pass_over(slot),
            }
        }
    }

    fn upcoming(&self) -> [Option<Id>; 2] {
        self.order.upcoming(&self.entries)
    }

    fn worth(&self, place: u64) -> u64 {
        self.order
            .lowest(&self.entries)
            .map_or(0, |lowest| place.saturating_sub(lowest))
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.order.len()
    }

    #[cfg(test)]
    fn validate(&self) {
        self.order.validate(&self.entries, |()| true);
        assert_eq!(self.entries.count_in_use(), self.order.len(), "slots were lost");
    }
}

/// One search for a victim. Entries that may not go leave the order for as long as it runs, so that none is met twice,
/// and come back when it ends, also when `standing` panics.
struct Search<'a, const FULL: usize> {
    policy: &'a mut Recency<FULL>,
    newest: u64,
    /// Head of a list that is linked by `next`.
    passed_over: u32,
}

impl<const FULL: usize> Search<'_, FULL> {
    fn pass_over(&mut self, slot: u32) {
        let Recency { entries, order } = &mut *self.policy;
        order.unlink(entries, slot);
        entries[slot].next = std::mem::replace(&mut self.passed_over, slot);
    }
}

impl<const FULL: usize> Drop for Search<'_, FULL> {
    fn drop(&mut self) {
        let Recency { entries, order } = &mut *self.policy;
        while self.passed_over != NIL {
            let slot = self.passed_over;
            let Entry { place, next, .. } = entries[slot];
            self.passed_over = next;
            order.link(entries, slot, renewed(place, self.newest));
        }
    }
}

#[cfg(test)]
mod tests;
