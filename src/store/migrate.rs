//! Moves that the host asks for: `evict`, down and away from where the object was, and `prefetch`, up.
//!
//! They are done when the call returns, a group of keys under way at once, and they go where they were told to: room is made there by
//! dropping what goes first, but nobody is waited for except one who moves the same object.

use std::collections::VecDeque;

use crate::error::{Error, Result, invalid};
use crate::key::Key;
use crate::metrics::Counter;
use crate::segment::buffers::list_of;
use crate::segment::disk::IN_FLIGHT;
use crate::segment::{Medium, Segment};
use crate::trace::{Timing, Tracepoint};

use super::Store;
use super::mover::is_home;
use super::moves::{Begun, Named};

/// Where the copies of a batch come from and go to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Way {
    pub(crate) from: Medium,
    pub(crate) to: Medium,
}

impl Way {
    /// A way to a slower medium.
    pub(crate) fn down(from: Medium, to: Medium) -> Result<Way> {
        if from < to {
            return Ok(Way { from, to });
        }
        Err(invalid!(
            "from {} to {}: must be a slower medium",
            from.name(),
            to.name()
        ))
    }

    /// A way to a faster medium.
    pub(crate) fn up(from: Medium, to: Medium) -> Result<Way> {
        if from > to {
            return Ok(Way { from, to });
        }
        Err(invalid!(
            "from {} to {}: must be a faster medium",
            from.name(),
            to.name()
        ))
    }
}

impl Store {
    /// Moves as many objects as `results` has from a medium to a slower one, and writes a code for each.
    pub(crate) fn batch_evict<'a>(
        &self,
        key: impl Fn(usize) -> Result<Key<'a>>,
        way: Way,
        results: &mut [i32],
    ) -> Result<()> {
        let span = self.tracer.begin(Tracepoint::Evict, Timing::Always);
        let objects = self.copy_batch(key, way, results)?;
        for (number, named) in objects.into_iter().enumerate() {
            if results[number] == 0
                && let Some(named) = named
            {
                self.note(self.leave_medium(named, way), &mut results[number]);
            }
        }
        span.good();
        Ok(())
    }

    /// Copies as many objects as `results` has from a medium to a faster one, and writes a code for each.
    pub(crate) fn batch_prefetch<'a>(
        &self,
        key: impl Fn(usize) -> Result<Key<'a>>,
        way: Way,
        results: &mut [i32],
    ) -> Result<()> {
        let span = self.tracer.begin(Tracepoint::BatchGet, Timing::Always);
        self.copy_batch(key, way, results)?;
        span.good();
        Ok(())
    }

    /// Gives each object a copy where the way ends; the objects, and a code for each.
    fn copy_batch<'a>(
        &self,
        key: impl Fn(usize) -> Result<Key<'a>>,
        way: Way,
        results: &mut [i32],
    ) -> Result<Vec<Option<Named>>> {
        let mut objects = list_of(results.len(), || None)?;
        let mut left = VecDeque::new();
        left.try_reserve_exact(results.len())
            .map_err(|_| Error::OutOfMemory("no memory for a list of moves".into()))?;
        self.each_key(results, key, |number, key, hash| {
            let named = self.named_on(key, hash, way)?;
            objects[number] = Some(named);
            left.push_back((number, named));
            Ok(())
        });
        while !left.is_empty() {
            self.copy_group(way, &mut left, results)?;
        }
        Ok(objects)
    }

    /// The object of a key, if it has a copy at either end of the way.
    fn named_on(&self, key: &Key, hash: u64, way: Way) -> Result<Named> {
        loop {
            let (slot, life) = self.find_readable(key, hash).ok_or(Error::NotFound)?;
            let named = Named {
                slot,
                generation: life.generation(),
            };
            let has_copy = self
                .live_copies(named, life)
                .any(|copy| [way.from, way.to].contains(&self.medium_of(&copy)));
            if has_copy {
                return Ok(named);
            }
            if self.objects.get(slot).life() == life {
                return Err(Error::NotFound);
            }
        }
    }

    /// Takes a group off the front of what is left, and copies it.
    fn copy_group(&self, way: Way, left: &mut VecDeque<(usize, Named)>, results: &mut [i32]) -> Result<()> {
        let (mut group, mut numbers, mut bytes) = (Vec::new(), Vec::new(), 0);
        while bytes < IN_FLIGHT
            && let Some((number, named)) = left.pop_front()
        {
            let there = move |segment: &Segment| segment.medium == way.to;
            let begun = self.begin_copy(named, there, |_| true);
            match begun {
                Ok(Begun::IsThere) => {}
                Ok(Begun::Copying(copying)) => {
                    let room = group.try_reserve(1).and_then(|()| numbers.try_reserve(1));
                    room.map_err(|_| Error::OutOfMemory("no memory for a list of moves".into()))?;
                    bytes += copying.size;
                    group.push(copying);
                    numbers.push(number);
                }
                Ok(Begun::IsMoving) => {
                    left.push_front((number, named));
                    if group.is_empty() {
                        // Nobody waits for this call then, so it may wait.
                        self.wait_for_move();
                    }
                    break;
                }
                Err(error) => drop(self.note::<()>(Err(error), &mut results[number])),
            }
        }
        let mut numbers = numbers.into_iter();
        self.make_copies(group, |_, result| {
            let number = numbers.next().expect("one for each copy");
            if self.note(result, &mut results[number]).is_some() && way.to < way.from {
                self.count(Counter::Promotions, 1);
            }
        });
        Ok(())
    }

    /// Gives an object a copy in a device's memory, or waits for a move of it to end.
    pub(super) fn bring_to_device(&self, named: Named) -> Result<()> {
        let begun = self.begin_copy(named, |segment| is_home(segment, true), |_| true);
        let mut outcome = Ok(());
        match begun {
            Ok(Begun::Copying(copying)) => self.make_copies(vec![copying], |_, result| {
                outcome = result;
                if outcome.is_ok() {
                    self.count(Counter::Promotions, 1);
                }
            }),
            Ok(Begun::IsThere) => {}
            Ok(Begun::IsMoving) => self.wait_for_move(),
            Err(error) => outcome = Err(error),
        }
        outcome
    }

    /// Ends an object's copies on the medium where the way begins. `Busy` when one of them is held.
    fn leave_medium(&self, named: Named, way: Way) -> Result<()> {
        let Some(life) = self.life_of(named) else {
            return Err(Error::NotFound);
        };
        for copy in self
            .live_copies(named, life)
            .filter(|copy| self.medium_of(copy) == way.from)
        {
            if self.drop_copy(&copy) {
                self.count(Counter::Demotions, 1);
            } else if self.live_copies(named, life).any(|other| other.place == copy.place) {
                return Err(Error::Busy(
                    "the object is pinned or leased where it was; it has a copy where it was to go".into(),
                ));
            }
        }
        Ok(())
    }
}
