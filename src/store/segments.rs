//! The segments of a store: registered, found, listed, and let go.
//!
//! A segment gets a number and a range of pool addresses when it comes, and neither is used again while the store lives. So the
//! table only grows, a segment that a blob names is always there, and looking one up takes no count and no lock. Which ones are
//! open for placement is a short list behind an `arc-swap`: a put reads it, registering replaces it.
//!
//! Every segment has its own policy instance: eviction makes room in one segment, so it needs the order of that segment's copies.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use arc_swap::ArcSwap;

use super::claims::Contenders;
use crate::error::{Error, Result, invalid, words};
use crate::evict::Policy;
use crate::segment::{Medium, Memory, Segment, allocator::UNIT};

/// Registrations that a store takes in its life.
const MAX_REGISTRATIONS: u32 = (ROWS * ROW) as u32;
const ROWS: usize = 4096;
const ROW: usize = 256;
/// The first pool address: not zero, and not like an offset.
const FIRST_ADDRESS: u64 = 1 << 40;
/// Pool addresses are below this, so that they fit a signed integer.
const END_OF_ADDRESSES: u64 = 1 << 63;
/// Between two segments lies at least this much that is nobody's, and every segment starts at a multiple of it.
const GUARD: u64 = 1 << 30;

/// A segment with the policy that orders its copies.
pub(crate) struct Registered {
    pub(crate) segment: Segment,
    policy: Mutex<Box<dyn Policy>>,
    /// The puts that make room in it.
    pub(super) contenders: Contenders,
}

impl Registered {
    /// The policy under its lock. Below a shard's lock and above the allocator's.
    pub(crate) fn policy(&self) -> MutexGuard<'_, Box<dyn Policy>> {
        self.policy.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a new segment is to be.
pub(crate) struct Plan {
    pub(crate) medium: Medium,
    pub(crate) rank: u32,
    pub(crate) capacity: u64,
}

type Row = Box<[OnceLock<Box<Registered>>]>;

/// Every segment that a store has had.
pub(crate) struct Segments {
    rows: Box<[OnceLock<Row>]>,
    /// Numbers of the open ones, by medium, rank and address.
    open: ArcSwap<Vec<u32>>,
    next: Mutex<Next>,
}

struct Next {
    number: u32,
    address: u64,
}

impl Segments {
    pub(crate) fn new() -> Segments {
        Segments {
            rows: (0..ROWS).map(|_| OnceLock::new()).collect(),
            open: ArcSwap::from_pointee(Vec::new()),
            next: Mutex::new(Next {
                number: 0,
                address: FIRST_ADDRESS,
            }),
        }
    }

    /// The segment of this number, which must have been given.
    #[inline]
    pub(crate) fn get(&self, number: u32) -> &Registered {
        let row = self.rows[number as usize / ROW].get();
        row.and_then(|row| row[number as usize % ROW].get())
            .expect("a segment number comes from this table")
    }

    /// The open segments, by medium, rank and address.
    pub(crate) fn open(&self) -> Open<'_> {
        Open {
            segments: self,
            numbers: self.open.load(),
            next: 0,
        }
    }

    /// The numbers of the open segments, in the same order. Takes no lock.
    pub(crate) fn open_numbers(&self) -> arc_swap::Guard<Arc<Vec<u32>>> {
        self.open.load()
    }

    /// The open segment that begins at this pool address.
    pub(crate) fn at(&self, address: u64) -> Result<&Registered> {
        let found = self.open().find(|registered| registered.segment.address == address);
        found.ok_or_else(|| Error::Unknown(words!("segment {address:#x}: none is registered at this address")))
    }

    /// The open segment that has this pool address.
    pub(crate) fn containing(&self, address: u64) -> Result<&Registered> {
        let found = self
            .open()
            .find(|registered| registered.segment.offset_at(address).is_some());
        found.ok_or_else(|| Error::Unknown(words!("address {address:#x}: no segment has it")))
    }

    /// Registers a segment. `memory` is asked for once the plan has been found good, and `prepare` gets the segment while nothing can be
    /// placed in it yet.
    pub(crate) fn register(
        &self,
        plan: &Plan,
        policy: Box<dyn Policy>,
        memory: impl FnOnce() -> Result<Memory>,
        prepare: impl FnOnce(&Registered),
    ) -> Result<&Registered> {
        check_capacity(plan.capacity)?;
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        if next.number == MAX_REGISTRATIONS {
            return Err(Error::NoSpace(words!(
                "a store takes {MAX_REGISTRATIONS} registrations in its life"
            )));
        }
        let end = next
            .address
            .checked_add(plan.capacity)
            .and_then(|end| end.checked_next_multiple_of(GUARD));
        let after = end
            .and_then(|end| end.checked_add(GUARD))
            .filter(|after| *after <= END_OF_ADDRESSES);
        let Some(after) = after else {
            return Err(Error::NoSpace(words!(
                "no pool addresses left for a segment of {} bytes",
                plan.capacity
            )));
        };
        let memory = memory()?;
        self.check_overlap(plan, &memory)?;
        let (number, address) = (next.number, next.address);
        let segment = Segment::new(number, plan.medium, plan.rank, address, plan.capacity, memory)?;
        let row = self.rows[number as usize / ROW].get_or_init(|| (0..ROW).map(|_| OnceLock::new()).collect());
        let registered = row[number as usize % ROW].get_or_init(|| {
            Box::new(Registered {
                segment,
                policy: Mutex::new(policy),
                contenders: Contenders::default(),
            })
        });
        *next = Next {
            number: number + 1,
            address: after,
        };
        prepare(registered);
        self.change(|open| open.push(number));
        Ok(registered)
    }

    /// Takes a segment off the list: nothing is placed in it any more.
    pub(crate) fn hide(&self, number: u32) {
        self.change(|open| open.retain(|other| *other != number));
    }

    fn change(&self, act: impl Fn(&mut Vec<u32>)) {
        self.open.rcu(|open| {
            let mut open = Vec::clone(open);
            act(&mut open);
            open.sort_by_key(|number| {
                let segment = &self.get(*number).segment;
                (segment.medium, segment.rank, segment.address)
            });
            Arc::new(open)
        });
    }

    /// Memory must belong to one segment only. A device's addresses are its own, so they are compared within its medium and rank.
    fn check_overlap(&self, plan: &Plan, memory: &Memory) -> Result<()> {
        let (base, is_device) = match memory {
            Memory::Mapped(_) | Memory::File(..) => return Ok(()),
            Memory::Host(base) => (*base, false),
            Memory::Device(base, _) => (*base, true),
        };
        for registered in self.open() {
            let other = &registered.segment;
            let is_same_space = match (is_device, other.device().is_some()) {
                (false, false) => !other.is_file(),
                (true, true) => (other.medium, other.rank) == (plan.medium, plan.rank),
                _ => false,
            };
            let other_base = other.location_at(0) as u64;
            let base = base as u64;
            if is_same_space && base < other_base + other.capacity && other_base < base + plan.capacity {
                return Err(invalid!(
                    "memory {base:#x} of {} bytes overlaps the segment at {:#x}, which has {other_base:#x} of {} bytes",
                    plan.capacity,
                    other.address,
                    other.capacity
                ));
            }
        }
        Ok(())
    }
}

/// The segments that were open when it was asked. Takes no memory.
pub(crate) struct Open<'s> {
    segments: &'s Segments,
    numbers: arc_swap::Guard<Arc<Vec<u32>>>,
    next: usize,
}

impl<'s> Iterator for Open<'s> {
    type Item = &'s Registered;

    fn next(&mut self) -> Option<&'s Registered> {
        let number = *self.numbers.get(self.next)?;
        self.next += 1;
        Some(self.segments.get(number))
    }
}

/// A capacity is a positive multiple of the allocator's unit.
pub(crate) fn check_capacity(capacity: u64) -> Result<()> {
    if capacity == 0 || !capacity.is_multiple_of(UNIT) {
        return Err(invalid!(
            "segment of {capacity} bytes: capacity must be a positive multiple of {UNIT}"
        ));
    }
    Ok(())
}
