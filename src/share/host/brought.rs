//! Segments that attached processes have brought, and ranks.
//!
//! The owner maps them, so they outlive their process. When that dies, or its connection breaks, the segment waits, serving all, for a process that
//! brings as much and takes it over with what is in it, and its rank; when none comes in time it is withdrawn. A withdrawal can't be while somebody pins or
//! leases in it: then it is tried again, and nobody takes it over any more.

use std::time::{Duration, Instant};

use super::super::session::{Memory, Session};
use super::super::wire::Contribution;
use super::{AGAIN, Attached, Inner, State};
use crate::error::{Error, Result, invalid, words};
use crate::log::{Level, say};
use crate::segment::dram::{Kind, Wishes};
use crate::segment::{MAX_RANKS, Medium};
use crate::store::Source;
use crate::store::segments::Plan;

/// A segment whose process has gone.
pub(super) struct Orphan {
    address: u64,
    due: Instant,
    /// Whether another process may have it.
    is_adoptable: bool,
}

impl Inner {
    pub(super) fn orphan(&self, segments: Vec<u64>, wait: Duration, is_adoptable: bool) {
        if segments.is_empty() {
            return;
        }
        let due = Instant::now() + wait;
        self.state().orphans.extend(segments.into_iter().map(|address| Orphan {
            address,
            due,
            is_adoptable,
        }));
        self.wake();
    }

    pub(super) fn time_to_next_orphan(&self) -> Option<Duration> {
        let state = self.state();
        let due = state.orphans.iter().map(|orphan| orphan.due).min()?;
        Some(due.saturating_duration_since(Instant::now()))
    }

    pub(super) fn withdraw_due(&self) {
        let now = Instant::now();
        let due: Vec<u64> = {
            let mut state = self.state();
            let (due, waiting) = std::mem::take(&mut state.orphans)
                .into_iter()
                .partition(|orphan| orphan.due <= now);
            state.orphans = waiting;
            Vec::into_iter(due).map(|orphan: Orphan| orphan.address).collect()
        };
        for address in due {
            self.try_withdraw(address);
        }
    }

    /// Withdraws a segment, now or when nobody holds anything in it any more.
    pub(super) fn try_withdraw(&self, address: u64) {
        match self.store.unregister_segment(address) {
            Ok(()) | Err(Error::Unknown(_)) => {}
            Err(error) => {
                say!(Level::Debug, "segment {address:#x} can't be withdrawn yet: {error}");
                self.orphan(vec![address], AGAIN, false);
            }
        }
    }

    /// The smallest rank that no segment and no process has.
    fn free_rank(&self, state: &State) -> Result<u32> {
        let mut taken: Vec<u32> = self
            .store
            .segments
            .open()
            .map(|registered| registered.segment.rank)
            .collect();
        taken.extend(state.sessions.values().filter_map(|attached| attached.session.rank()));
        taken.extend(&state.promised);
        (0..MAX_RANKS)
            .find(|rank| !taken.contains(rank))
            .ok_or_else(|| Error::NoSpace(words!("all {MAX_RANKS} ranks are taken")))
    }

    /// Takes an orphan of this size and rank, if there is one.
    fn adopt(&self, state: &mut State, contribution: &Contribution) -> Option<(u64, u32)> {
        let candidates = state
            .orphans
            .iter()
            .enumerate()
            .filter(|(_, orphan)| orphan.is_adoptable);
        let fitting = candidates.filter_map(|(place, orphan)| {
            let segment = &self.store.segments.at(orphan.address).ok()?.segment;
            let is_fit =
                segment.capacity == contribution.capacity && contribution.rank.is_none_or(|rank| rank == segment.rank);
            is_fit.then_some((segment.rank, place, orphan.address))
        });
        let (rank, place, address) = fitting.min()?;
        state.orphans.swap_remove(place);
        Some((address, rank))
    }

    fn register(&self, contribution: &Contribution, rank: u32) -> Result<u64> {
        let plan = Plan {
            medium: Medium::Dram,
            rank,
            capacity: contribution.capacity,
        };
        let wishes = Wishes {
            kind: Kind::Memfd,
            huge_pages: contribution.huge_pages,
            prefault: contribution.prefault,
            numa_node: contribution.numa_node,
        };
        self.store.register_segment(&plan, Source::Map(wishes))
    }
}

impl Memory for Inner {
    fn contribute(&self, session: &Session, contribution: &Contribution) -> Result<(u64, u32)> {
        let mut state = self.state();
        let adopted = self.adopt(&mut state, contribution);
        let (address, rank) = match adopted {
            Some((address, rank)) => {
                drop(state);
                say!(
                    Level::Info,
                    "process {} takes segment {address:#x} of rank {rank} over",
                    session.pid
                );
                (address, rank)
            }
            None => {
                let rank = match contribution.rank {
                    Some(rank) => rank,
                    None => self.free_rank(&state)?,
                };
                let is_others = |attached: &Attached| {
                    attached.session.number != session.number && attached.session.rank() == Some(rank)
                };
                if contribution.is_home
                    && let Some(other) = state.sessions.values().find(|attached| is_others(attached))
                {
                    return Err(invalid!("rank {rank}: process {} has it", other.session.pid));
                }
                state.promised.push(rank);
                drop(state);
                let registered = self.register(contribution, rank);
                let mut state = self.state();
                if let Some(place) = state.promised.iter().position(|promised| *promised == rank) {
                    state.promised.swap_remove(place);
                }
                (registered?, rank)
            }
        };
        if contribution.is_home {
            session.set_rank(rank);
        }
        if !session.add_segment(address) {
            self.orphan(vec![address], self.terms.wait, true);
        }
        Ok((address, rank))
    }

    fn withdraw(&self, session: &Session, address: u64) -> Result<()> {
        if !session.take_segment(address) {
            self.store.segments.at(address)?;
            return Err(Error::Unsupported(words!(
                "segment {address:#x} was not brought by this process, so it can't take it away"
            )));
        }
        self.store.unregister_segment(address).inspect_err(|_| {
            session.add_segment(address);
        })
    }

    fn http_address(&self) -> String {
        self.http_address.clone()
    }
}
