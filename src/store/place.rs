//! Which segments an object goes to.
//!
//! Ranks that the caller prefers come first, in its order, then the store's own rank, then the emptiest. Copies lie on distinct ranks, all of
//! them or none. Every segment is asked for room as it is before any is asked to make room.

use crate::error::{Error, Result, invalid, words};
use crate::object::MAX_COPIES;
use crate::segment::allocator::{Extent, Owner};
use crate::segment::{MAX_RANKS, Medium, Segment};

use super::Store;
use super::evict::Patience;
use super::segments::Registered;

/// Where and how an object is put.
#[derive(Clone, Copy)]
pub(crate) struct PutOptions<'a> {
    /// Copies, on distinct ranks.
    pub(crate) replicas: usize,
    /// Ranks to try first, in this order.
    pub(crate) preferred: &'a [u32],
    /// `None`: the first of DRAM, HBM and SSD that there is.
    pub(crate) medium: Option<Medium>,
    /// The host's own context for its devices.
    pub(crate) stream: usize,
    /// For another process.
    pub(crate) guest: Option<Guest>,
}

/// Another process that is served: it reads and writes by itself what it can map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Guest {
    /// Its rank, if it has one: to it this is what the store's own is to others.
    pub(crate) rank: Option<u32>,
}

impl PutOptions<'_> {
    /// Checks what does not depend on the store.
    pub(crate) fn check(&self) -> Result<()> {
        if !(1..=MAX_COPIES).contains(&self.replicas) {
            return Err(invalid!("{} replicas: must be 1 to {MAX_COPIES}", self.replicas));
        }
        if self.preferred.len() > self.replicas {
            return Err(invalid!(
                "{} preferred ranks for {} replicas",
                self.preferred.len(),
                self.replicas
            ));
        }
        for (number, rank) in self.preferred.iter().enumerate() {
            if *rank >= MAX_RANKS {
                return Err(invalid!("preferred rank {rank}: must be below {MAX_RANKS}"));
            }
            if self.preferred[..number].contains(rank) {
                return Err(invalid!("preferred rank {rank} is given twice"));
            }
        }
        Ok(())
    }
}

impl Store {
    /// Finds room for every copy of a reserved object and installs them, reserved or arriving. On an error some may be installed.
    pub(super) fn place(&self, slot: u32, size: u64, options: &PutOptions<'_>, is_arriving: bool) -> Result<()> {
        let open = self.segments.open_numbers();
        // Most stores have one segment: no list to make, nothing to choose.
        if let [number] = open[..]
            && options.preferred.is_empty()
            && options.replicas == 1
        {
            let registered = self.segments.get(number);
            let medium = options.medium.unwrap_or(registered.segment.medium);
            if registered.segment.medium == medium && options.guest.is_none() {
                return self.place_in(&[registered], slot, size, medium, 1, is_arriving);
            }
        }
        let medium = match options.guest {
            Some(_) => Medium::Dram,
            None => options.medium.unwrap_or_else(|| self.default_medium()),
        };
        let candidates = self.candidates(medium, options)?;
        self.place_in(&candidates, slot, size, medium, options.replicas, is_arriving)
    }

    /// Places the copies of an object in these segments, to be tried in this order.
    fn place_in(
        &self,
        candidates: &[&Registered],
        slot: u32,
        size: u64,
        medium: Medium,
        replicas: usize,
        is_arriving: bool,
    ) -> Result<()> {
        let largest = candidates
            .iter()
            .map(|registered| registered.segment.capacity)
            .max()
            .unwrap_or(0);
        let units = match u32::try_from(Segment::units_for(size)) {
            Ok(units) if size <= largest => units,
            _ => return Err(no_space(size, medium, largest)),
        };
        let mut ranks = [u32::MAX; MAX_COPIES];
        for copy in 0..replicas {
            let rest = || {
                candidates
                    .iter()
                    .filter(|registered| !ranks[..copy].contains(&registered.segment.rank))
            };
            let owner = Owner::Object(slot);
            let as_it_is =
                rest().find_map(|registered| Some((*registered, registered.segment.allocate(units, owner)?)));
            // Waiting for others comes last: another segment may have something to evict.
            let make_room = |patience: Patience| {
                rest().find_map(|registered| Some((*registered, self.make_room(registered, units, owner, patience)?)))
            };
            let found = as_it_is
                .or_else(|| {
                    make_room(match candidates.len() {
                        1 => Patience::ForCopies,
                        _ => Patience::ForRoom,
                    })
                })
                .or_else(|| make_room(Patience::ForCopies));
            let Some((registered, Extent { start, .. })) = found else {
                return Err(no_space(size, medium, largest));
            };
            ranks[copy] = registered.segment.rank;
            self.objects
                .install(slot, copy, registered.segment.number, start, is_arriving);
            if self.is_above(registered, self.watermark_high) {
                self.keeper.wake();
            }
        }
        Ok(())
    }

    /// The segments of a medium in the order in which they are tried.
    fn candidates(&self, medium: Medium, options: &PutOptions<'_>) -> Result<Vec<&Registered>> {
        let open = self.segments.open_numbers();
        let mut candidates = Vec::new();
        candidates.try_reserve_exact(open.len()).map_err(no_memory)?;
        let registered = open.iter().map(|number| self.segments.get(*number));
        let is_for_all = options.guest.is_none();
        candidates.extend(registered.filter(|registered| {
            registered.segment.medium == medium && (is_for_all || registered.segment.is_shareable)
        }));
        if candidates.is_empty() {
            let kind = if is_for_all {
                ""
            } else {
                " that is a memfd, which other processes can map,"
            };
            return Err(Error::NoSpace(words!(
                "no {} segment{kind} is registered",
                medium.name()
            )));
        }
        for rank in options.preferred {
            if !candidates.iter().any(|registered| registered.segment.rank == *rank) {
                return Err(invalid!("preferred rank {rank}: it has no {} segment", medium.name()));
            }
        }
        // The list is in order of rank, so each rank begins where it differs from the one before.
        let ranks = 1 + candidates
            .windows(2)
            .filter(|pair| pair[0].segment.rank != pair[1].segment.rank)
            .count();
        if options.replicas > ranks {
            return Err(invalid!(
                "{} replicas: must be on distinct ranks, and {ranks} have {} segments",
                options.replicas,
                medium.name()
            ));
        }
        // Each one's place is found once: what is allocated changes meanwhile.
        let own_rank = options.guest.map_or(Some(self.rank), |guest| guest.rank);
        let mut ranked = Vec::new();
        ranked.try_reserve_exact(candidates.len()).map_err(no_memory)?;
        ranked.extend(candidates.drain(..).enumerate().map(|(number, registered)| {
            let segment = &registered.segment;
            let preferred = options.preferred.iter().position(|rank| *rank == segment.rank);
            let share = u128::from(segment.allocated()) * 1000 / u128::from(segment.capacity);
            let place = (
                preferred.unwrap_or(MAX_COPIES),
                Some(segment.rank) != own_rank,
                share,
                number,
            );
            (place, registered)
        }));
        ranked.sort_unstable_by_key(|(place, _)| *place);
        candidates.extend(ranked.into_iter().map(|(_, registered)| registered));
        Ok(candidates)
    }

    pub(super) fn default_medium(&self) -> Medium {
        let has = |medium| {
            self.segments
                .open()
                .any(|registered| registered.segment.medium == medium)
        };
        [Medium::Dram, Medium::Hbm, Medium::Ssd]
            .into_iter()
            .find(|medium| has(*medium))
            .unwrap_or(Medium::Hbm)
    }

    /// Whether more of a segment is in use than this percentage.
    pub(super) fn is_above(&self, registered: &Registered, percent: u32) -> bool {
        let segment = &registered.segment;
        u128::from(segment.allocated()) * 100 > u128::from(segment.capacity) * u128::from(percent)
    }
}

fn no_memory(_: std::collections::TryReserveError) -> Error {
    Error::OutOfMemory("no memory for a list of segments".into())
}

fn no_space(size: u64, medium: Medium, largest: u64) -> Error {
    let name = medium.name();
    Error::NoSpace(if size > largest {
        words!("object of {size} bytes: the largest {name} segment has {largest}")
    } else {
        words!("object of {size} bytes: no run of that size in {name} is free of pinned, leased and reserved objects")
    })
}
