//! `adaptive`: lets go of what is the least likely to be used again soon, by what has become of others like it.
//!
//! A copy is of a [`Kind`]. Kind and age give its rank ([`rank`]), which the medium's [`learner::Learner`] makes of all that was used again
//! and all that was not, what was let go included. Of each kind there is one order by last use, whose oldest is the candidate, and of these
//! the one with the lowest rank goes.
//!
//! **A newcomer** is young till newer puts have filled a hundredth of the segment: it can be read for so long at least, whatever its rank.
//! Then it is measured against the candidates. If it ranks below them it goes; else it is settled into the order of its kind, and stays
//! until it is the oldest there. This is how a pool that is too small for what comes in a round keeps a part of it to the next
//! round, where the least recently used would go just before it is wanted. A batch that is larger than that hundredth is put in parts
//! ([`young_units`]), so that its own earlier parts are measured too: of a chain that is too long its middle goes, not the better.
//!
//! **A hit** takes no lock: it marks the object and counts itself ([`heard`]), once a tick. The orders learn of it when they meet its copy.
//!
//! A copy takes 40 bytes here, four to five ghosts of eleven, and its part of some buckets; what was learned is some dozen KiB a medium, and
//! what was heard two KiB a stripe. Insert, remove and evict cost what [`Order`] costs, a newcomer twice; once a tick of a second the
//! ranks are made anew.

mod ages;
mod ghosts;
mod heard;
mod learner;
mod lives;
mod queue;
mod rank;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::entries::{Entries, Entry, NIL};
use super::order::{FULL, Order};
use super::{Arrival, Handle, Id, KINDS, Kind, Policy, Standing, Victim, renewed, stamp_of, tick_of_place};
use crate::error::Result;
use ghosts::Ghost;
use heard::Heard;
use learner::Learner;
use queue::Queue;

/// The part of a segment that newer puts fill before a newcomer may go.
const YOUNG_SHARE: u64 = 100;
/// Newcomers that one search settles at most: the others wait for the next.
const MOST_SETTLED: usize = 64;

/// What the policy knows of an entry.
#[derive(Clone, Copy)]
struct Mark {
    /// Hash of the key.
    key: u64,
    /// Units that had been put when it came; they may come round.
    arrived: u32,
    kind: Kind,
    stage: Stage,
}

/// How far a newcomer has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It may be read for a while.
    Young,
    /// It is to be measured.
    Grown,
    Settled,
}

const _: () = assert!(size_of::<Entry<Mark>>() == 40);

/// What the policies of one medium share.
pub(crate) struct Shared {
    learner: Arc<Mutex<Learner>>,
    heard: Arc<Heard>,
}

impl Shared {
    pub(super) fn new() -> Result<Shared> {
        let heard = Arc::new(Heard::new()?);
        Ok(Shared {
            learner: Arc::new(Mutex::new(Learner::new(Arc::clone(&heard)))),
            heard,
        })
    }

    /// See [`super::Policies::hear`].
    pub(super) fn hear(&self, kind: Kind, before: u64, now: u64) {
        let age = tick_of_place(now).saturating_sub(tick_of_place(before));
        self.heard.note(kind, ages::bin_of(age), stamp_of(now));
    }
}

/// Units of newer puts for which a newcomer to a segment of `units` stays.
pub(super) fn young_units(units: u64) -> u32 {
    (units / YOUNG_SHARE).clamp(1, u64::from(u32::MAX / 2)) as u32
}

/// The policy as it is used.
pub(super) type Adaptive = Learned<FULL>;

/// The policy, with buckets of `FULL` entries.
pub(super) struct Learned<const FULL: usize> {
    lists: Lists<FULL>,
    learner: Arc<Mutex<Learner>>,
}

/// The copies of a segment in their orders.
struct Lists<const FULL: usize> {
    entries: Entries<Mark>,
    young: Queue,
    grown: Order<FULL>,
    settled: [Order<FULL>; KINDS],
    /// Units put so far; they come round.
    put: u32,
    /// Units of newer puts for which a newcomer stays.
    young_units: u32,
    /// The kind of the last victim, if it was settled.
    last: Option<Kind>,
}

/// An entry that may have to go. The lesser goes first.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
struct Candidate {
    rank: f32,
    place: u64,
    slot: u32,
}

fn locked(learner: &Mutex<Learner>) -> MutexGuard<'_, Learner> {
    learner.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<const FULL: usize> Learned<FULL> {
    /// A policy for a segment of `units`.
    pub(super) fn new(units: u64, shared: &Shared) -> Result<Self> {
        Ok(Learned {
            lists: Lists {
                entries: Entries::new(Order::<FULL>::SPLIT)?,
                young: Queue::new(),
                grown: Order::new(),
                settled: std::array::from_fn(|_| Order::new()),
                put: 0,
                young_units: young_units(units),
                last: None,
            },
            learner: Arc::clone(&shared.learner),
        })
    }
}

impl<const FULL: usize> Lists<FULL> {
    fn len(&self) -> usize {
        self.young.len() + self.grown.len() + self.settled.iter().map(Order::len).sum::<usize>()
    }

    fn unlink(&mut self, slot: u32) {
        let Mark { kind, stage, .. } = self.entries[slot].mark;
        match stage {
            Stage::Young => self.young.unlink(&mut self.entries, slot),
            Stage::Grown => self.grown.unlink(&mut self.entries, slot),
            Stage::Settled => self.settled[kind as usize].unlink(&mut self.entries, slot),
        }
    }

    /// Puts an entry that is in no order among the settled of this kind.
    fn settle(&mut self, slot: u32, kind: Kind, place: u64) {
        let mark = &mut self.entries[slot].mark;
        (mark.kind, mark.stage) = (kind, Stage::Settled);
        self.settled[kind as usize].link(&mut self.entries, slot, place);
    }

    fn candidate(&self, slot: u32, learner: &Learner) -> Candidate {
        let Entry { place, mark, .. } = self.entries[slot];
        let rank = learner.rank(mark.kind, tick_of_place(place));
        Candidate { rank, place, slot }
    }

    /// Takes newcomers whose time is over to those that are to be measured.
    fn grow(&mut self) {
        for _ in 0..MOST_SETTLED {
            let Some(slot) = self.young.first() else { return };
            let Entry { place, mark, .. } = self.entries[slot];
            if self.put.wrapping_sub(mark.arrived) < self.young_units {
                return;
            }
            self.young.unlink(&mut self.entries, slot);
            self.entries[slot].mark.stage = Stage::Grown;
            self.grown.link(&mut self.entries, slot, place);
        }
    }
}

impl<const FULL: usize> Policy for Learned<FULL> {
    fn insert(&mut self, arrival: Arrival) -> Result<(Handle, Kind)> {
        let Arrival {
            id,
            key,
            units,
            place,
            is_end,
            kind,
        } = arrival;
        let lists = &mut self.lists;
        // Any entry may come to be in any order.
        let len = lists.len() + 1;
        lists.grown.reserve(len)?;
        lists.settled.iter_mut().try_for_each(|order| order.reserve(len))?;
        let arrived = lists.put.wrapping_add(units);
        let slot = lists.entries.take(Entry {
            place,
            id,
            units,
            prev: NIL,
            next: NIL,
            mark: Mark {
                key,
                arrived,
                kind: Kind::New,
                stage: Stage::Young,
            },
        })?;
        lists.put = arrived;
        let learner = &mut *locked(&self.learner);
        learner.pass(tick_of_place(place));
        let kind = learner.arrive(key, stamp_of(place), is_end, kind);
        lists.entries[slot].mark.kind = kind;
        lists.young.push(&mut lists.entries, slot);
        Ok((Handle(slot), kind))
    }

    fn remove(&mut self, handle: Handle, used: u64) {
        let (lists, slot) = (&mut self.lists, handle.0);
        debug_assert!(lists.entries.in_use(slot), "handle {slot} is void");
        let Entry { place, mark, .. } = lists.entries[slot];
        lists.unlink(slot);
        lists.entries.release(slot);
        let (kind, used) = (mark.kind.after(place, used), place.max(used));
        locked(&self.learner).leave(kind, tick_of_place(used));
    }

    fn evict(&mut self, newest: u64, standing: &mut dyn FnMut(Id) -> Standing) -> Option<Victim> {
        let learner = &mut *locked(&self.learner);
        let slot = Search::new(&mut self.lists, learner, newest).find(standing)?.slot;
        let lists = &mut self.lists;
        let Entry {
            place, id, units, mark, ..
        } = lists.entries[slot];
        lists.unlink(slot);
        lists.entries.release(slot);
        lists.last = (mark.stage == Stage::Settled).then_some(mark.kind);
        let ghost = Ghost {
            kind: mark.kind,
            used: tick_of_place(place),
        };
        learner.let_go(mark.key, ghost);
        Some(Victim { id, units })
    }

    fn upcoming(&self) -> [Option<Id>; 2] {
        let order = match self.lists.last {
            Some(kind) => &self.lists.settled[kind as usize],
            None => &self.lists.grown,
        };
        order.upcoming(&self.lists.entries)
    }

    fn worth(&self, place: u64) -> u64 {
        let lists = &self.lists;
        let orders = lists.settled.iter().chain([&lists.grown]);
        let lowest = orders.filter_map(|order| order.lowest(&lists.entries)).min();
        let young = || lists.young.first().map(|slot| lists.entries[slot].place);
        lowest.or_else(young).map_or(0, |lowest| place.saturating_sub(lowest))
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.lists.len()
    }

    #[cfg(test)]
    fn validate(&self) {
        let lists = &self.lists;
        lists.young.validate(&lists.entries, |mark| mark.stage == Stage::Young);
        lists.grown.validate(&lists.entries, |mark| mark.stage == Stage::Grown);
        for kind in Kind::ALL {
            lists.settled[kind as usize]
                .validate(&lists.entries, |mark| mark.stage == Stage::Settled && mark.kind == kind);
        }
        assert_eq!(lists.entries.count_in_use(), lists.len(), "slots were lost");
        locked(&self.learner).validate(lists.len());
    }
}

/// One search for a victim. Entries that may not go leave their orders for as long as it runs, so that none is met twice, and come back
/// when it ends, also when `standing` panics.
struct Search<'a, const FULL: usize> {
    lists: &'a mut Lists<FULL>,
    learner: &'a mut Learner,
    newest: u64,
    /// Head of a list that is linked by `next`.
    passed_over: u32,
}

impl<'a, const FULL: usize> Search<'a, FULL> {
    fn new(lists: &'a mut Lists<FULL>, learner: &'a mut Learner, newest: u64) -> Self {
        learner.pass(tick_of_place(newest));
        Search {
            lists,
            learner,
            newest,
            passed_over: NIL,
        }
    }

    /// The candidate that may go and has not been used since it was put where it is.
    fn find(mut self, standing: &mut dyn FnMut(Id) -> Standing) -> Option<Candidate> {
        // Each entry moves once, unless hits come in while this searches. They must not outrun it for ever: when there
        // were as many moves as entries, the next one that may go goes.
        let mut moves = self.lists.len();
        let mut least = self.least(&mut moves, standing);
        self.lists.grow();
        for _ in 0..MOST_SETTLED {
            let Some(slot) = self.lists.grown.oldest(&mut self.lists.entries) else {
                break;
            };
            let newcomer = self.lists.candidate(slot, self.learner);
            if !self.may_go(newcomer, &mut moves, standing) {
                continue;
            }
            if least.is_some_and(|least| newcomer < least) {
                return Some(newcomer);
            }
            self.lists.unlink(slot);
            self.lists
                .settle(slot, self.lists.entries[slot].mark.kind, newcomer.place);
            least = least.or(Some(newcomer));
        }
        while least.is_none() {
            // All are newcomers, and even a young one may go then; or they have been settled just now.
            let slot = self.lists.grown.oldest(&mut self.lists.entries);
            let next = slot.or(self.lists.young.first());
            let next = next.map(|slot| self.lists.candidate(slot, self.learner));
            let candidate = next.or_else(|| self.least(&mut moves, standing))?;
            least = self.may_go(candidate, &mut moves, standing).then_some(candidate);
        }
        least
    }

    /// Of the oldest of each kind the one of least rank. Each is looked at: what was used since has another rank than it seems to have, and
    /// what really is the oldest of its kind may rank below all.
    fn least(&mut self, moves: &mut usize, standing: &mut dyn FnMut(Id) -> Standing) -> Option<Candidate> {
        let mut least: Option<Candidate> = None;
        for kind in Kind::ALL {
            while let Some(slot) = self.lists.settled[kind as usize].oldest(&mut self.lists.entries) {
                let oldest = self.lists.candidate(slot, self.learner);
                if self.may_go(oldest, moves, standing) {
                    least = Some(least.filter(|least| *least < oldest).unwrap_or(oldest));
                    break;
                }
            }
        }
        least
    }

    /// Whether a candidate may go as it is. If not, it is where it belongs afterwards: at the place of its use, or passed over.
    fn may_go(&mut self, candidate: Candidate, moves: &mut usize, standing: &mut dyn FnMut(Id) -> Standing) -> bool {
        let (slot, place) = (candidate.slot, candidate.place);
        match standing(self.lists.entries[slot].id) {
            Standing::Evictable { place: now } if now > place && *moves > 0 => {
                *moves -= 1;
                self.lists.unlink(slot);
                self.use_again(slot, now);
                false
            }
            Standing::Evictable { .. } => true,
            Standing::Held => {
                self.pass_over(slot);
                false
            }
        }
    }

    /// Settles an entry that is in no order at the place of its use. What that says was learned when it was used.
    fn use_again(&mut self, slot: u32, now: u64) {
        let Entry { place, mark, .. } = self.lists.entries[slot];
        self.lists.settle(slot, mark.kind.after(place, now), now);
    }

    fn pass_over(&mut self, slot: u32) {
        self.lists.unlink(slot);
        self.lists.entries[slot].next = std::mem::replace(&mut self.passed_over, slot);
    }
}

impl<const FULL: usize> Drop for Search<'_, FULL> {
    fn drop(&mut self) {
        while self.passed_over != NIL {
            let slot = self.passed_over;
            let Entry { place, next, mark, .. } = self.lists.entries[slot];
            self.passed_over = next;
            let held = renewed(place, self.newest);
            self.learner.renew(mark.kind, tick_of_place(place), tick_of_place(held));
            self.lists.settle(slot, mark.kind, held);
        }
    }
}

#[cfg(test)]
mod tests;
