//! The allocator of one segment: constant time, no byte of metadata in the memory that it hands out.
//!
//! It knows units of 4096 bytes by number and never sees a pointer, so it serves device memory and files as well as
//! DRAM. It isn't thread-safe: it lives inside its segment's mutex.
//!
//! **The invariant.** The units are cut, without a gap or an overlap, into runs. A run is free, or used by one
//! [`Owner`], and no two free runs touch. The length of a run stands in the [`Tag`] of its first and of its last unit
//! (boundary tags), so both neighbours of a run are one look away, and freeing merges them at once. The tags of units
//! inside a run are stale and never read. Which runs are used stands in [`Starts`], a bitmap with summaries above it:
//! the bit of a unit is set when a used run starts there. That bit is also what makes a double free or a made-up start
//! harmless: it isn't set.
//!
//! **The bins.** Free runs hang in doubly linked lists by size, eight sizes an octave and exact ones up to 16 units,
//! and a two-level bitmap of the lists that aren't empty finds the next larger one in two bit scans (the scheme of
//! TLSF). Each run in a bin *above* the one of the wanted size fits. In that bin itself a run may be up to an eighth
//! too small: a few of its runs are looked at first, because a close fit leaves fewer splinters, and some more when
//! nothing larger is left. The look is bounded, so [`Allocator::allocate`] may miss a run that just fits;
//! [`Allocator::cheapest_window`] doesn't, it finds it at cost 0.
//!
//! **Holding.** A put that evicts must not lose what it freed to another put before it has a run of its size. What it
//! evicts becomes [`Owner::Held`] under the put's ticket; memory that readers of an evicted object still use is
//! [`Owner::Claimed`] and becomes held when they let it go. [`Allocator::take_run`] turns free and held neighbours into
//! the run that was wanted.
//!
//! **Memory.** 12 bytes a unit and a little over a bit: 0.3 % of the segment, and none of it taken before a run has
//! begun or ended near it.

use std::alloc::{self, Layout};
#[cfg(test)]
use std::collections::BTreeSet;
use std::collections::VecDeque;
use std::iter;
use std::ptr;

use crate::error::{Error, Result, invalid, words};

/// Bytes of one unit: the grain of every extent.
pub(crate) const UNIT: u64 = 4096;
/// The most units of one allocator: a sum of two lengths or a start past the end still fits in 32 bits.
pub(crate) const MAX_UNITS: u32 = u32::MAX - 16;

/// No run: the end of a list of free runs. Above [`MAX_UNITS`], so no run starts there.
const NONE: u32 = u32::MAX;
/// Bins in an octave are `1 << SUB_BITS`.
const SUB_BITS: u32 = 3;
/// Rows of eight bins: one for the sizes below 8, one for each octave from 8 to `u32::MAX`.
const ROWS: usize = 30;
const BINS: usize = ROWS << SUB_BITS;
/// Runs of the one bin that may fit that are looked at before a larger run is cut: a close fit is worth a few cache
/// misses.
const FIRST_LOOKS: usize = 4;
/// Runs of that bin that are looked at when no larger run is left. Bounded, so that allocating stays in constant time.
const LAST_LOOKS: usize = 32;

/// Some neighbouring units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Number of the first unit.
    pub start: u32,
    /// How many units.
    pub units: u32,
}

impl Extent {
    pub(crate) fn new(start: u32, units: u32) -> Extent {
        Extent { start, units }
    }

    /// The unit after the last one.
    pub(crate) fn end(&self) -> u32 {
        self.start.saturating_add(self.units)
    }
}

/// To whom a used extent belongs. Ids and tickets have 30 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// The object of this slot.
    Object(u32),
    /// The evicting put of this ticket, which holds what it freed as its own before others'.
    Held(u32),
    /// Readers, of an object that the put of this ticket evicted: freed by the last of them, it becomes
    /// [`Owner::Held`].
    Claimed(u32),
}

impl Owner {
    /// Ids and tickets are below this.
    pub(crate) const ID_LIMIT: u32 = 1 << 30;

    fn pack(self) -> u32 {
        let (kind, id) = match self {
            Owner::Object(id) => (0, id),
            Owner::Held(ticket) => (1, ticket),
            Owner::Claimed(ticket) => (2, ticket),
        };
        debug_assert!(id < Self::ID_LIMIT, "{self:?}: an id must be below {}", Self::ID_LIMIT);
        kind << 30 | id & (Self::ID_LIMIT - 1)
    }

    fn unpack(word: u32) -> Owner {
        let id = word & (Self::ID_LIMIT - 1);
        match word >> 30 {
            0 => Owner::Object(id),
            1 => Owner::Held(id),
            _ => Owner::Claimed(id),
        }
    }
}

/// What became of an extent that was freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Freed {
    /// It was this many units, and they are free.
    Free(u32),
    /// It was claimed, and is now held under this ticket.
    Held(u32),
    /// No used extent starts there: nothing has changed.
    Nothing,
}

/// The cheapest neighbouring runs that together give a run of the wanted size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    /// From the start of the first run to the end of the last, all of them whole; without its first or its last run it
    /// is too small.
    pub extent: Extent,
    /// The sum of what its objects cost.
    pub cost: u128,
}

/// What is known of a unit that is the first or the last of a run.
#[derive(Clone, Copy)]
struct Tag {
    /// Length of the run. The only field that means something at the last unit.
    units: u32,
    /// Of a free run, the one before it in its bin, or [`NONE`]. Of a used run, its packed owner.
    previous_or_owner: u32,
    /// Of a free run, the one after it in its bin, or [`NONE`].
    next: u32,
}

/// See the head of this file.
pub(crate) struct Allocator {
    units: u32,
    free_units: u32,
    tags: Box<[Tag]>,
    used: Starts,
    bins: Bins,
}

impl Allocator {
    /// An allocator of `units` units, all of them free. Takes constant time: its tables aren't filled.
    pub(crate) fn new(units: u32) -> Result<Allocator> {
        if units == 0 || units > MAX_UNITS {
            return Err(invalid!(
                "segment of {units} units of {UNIT} bytes: must be 1 to {MAX_UNITS}"
            ));
        }
        let mut allocator = Allocator {
            units,
            free_units: units,
            tags: zeroed(units as usize)?,
            used: Starts::new(units)?,
            bins: Bins::new(),
        };
        allocator.place_free(Extent::new(0, units));
        Ok(allocator)
    }

    /// All units, free or not.
    pub(crate) fn units(&self) -> u32 {
        self.units
    }

    /// Units that belong to nobody.
    pub(crate) fn free_units(&self) -> u32 {
        self.free_units
    }

    /// Units that belong to objects, are held or claimed.
    pub(crate) fn allocated_units(&self) -> u32 {
        self.units - self.free_units
    }

    /// Takes `units` free neighbouring units for `owner`. Constant time. `None` when no run has surely room and a
    /// bounded look at those that perhaps have finds none.
    pub(crate) fn allocate(&mut self, units: u32, owner: Owner) -> Option<Extent> {
        if units == 0 || units > self.free_units {
            return None;
        }
        let start = self.find(units)?;
        Some(self.carve(self.run_at(start), Extent::new(start, units), owner))
    }

    /// Takes exactly these units for `owner`; false, and nothing has changed, when one of them isn't free.
    pub(crate) fn allocate_at(&mut self, start: u32, units: u32, owner: Owner) -> bool {
        let wanted = Extent::new(start, units);
        match self.run_containing(start) {
            Some((run, None)) if units > 0 && wanted.end() <= run.end() => {
                self.carve(run, wanted, owner);
                true
            }
            _ => false,
        }
    }

    /// Frees the used extent that starts at `start`, or makes it held if it was claimed. Constant time. A start where
    /// no used extent starts (freed before, made up) is a defect of the caller: it changes nothing and is
    /// [`Freed::Nothing`].
    pub(crate) fn free(&mut self, start: u32) -> Freed {
        match self.owner(start) {
            None => {
                debug_assert!(
                    false,
                    "free of unit {start} of {}: not the start of a used extent",
                    self.units
                );
                Freed::Nothing
            }
            Some(Owner::Claimed(ticket)) => {
                self.set_owner(start, Owner::Held(ticket));
                Freed::Held(ticket)
            }
            Some(_) => Freed::Free(self.release(start)),
        }
    }

    /// The owner of the used extent that starts at `start`; `None` when none starts there.
    pub(crate) fn owner(&self, start: u32) -> Option<Owner> {
        self.used
            .contains(start)
            .then(|| Owner::unpack(self.tags[start as usize].previous_or_owner))
    }

    /// Gives the used extent that starts at `start` to `owner`. False, and nothing has changed, when none starts there,
    /// which is a defect of the caller.
    pub(crate) fn set_owner(&mut self, start: u32, owner: Owner) -> bool {
        let is_used = self.used.contains(start);
        debug_assert!(
            is_used,
            "{owner:?} for unit {start} of {}: not the start of a used extent",
            self.units
        );
        if is_used {
            self.tags[start as usize].previous_or_owner = owner.pack();
        }
        is_used
    }

    /// The used extent that this unit is part of; `None` when the unit is free or past the end.
    pub(crate) fn containing(&self, unit: u32) -> Option<(Extent, Owner)> {
        let (extent, owner) = self.run_containing(unit)?;
        Some((extent, owner?))
    }

    /// The runs in the order of their addresses, used ones with their owner, from the one that starts at (or contains)
    /// `from`.
    pub(crate) fn runs(&self, from: u32) -> impl Iterator<Item = (Extent, Option<Owner>)> {
        let first = self.run_containing(from);
        iter::successors(first, |(run, _)| {
            (run.end() < self.units).then(|| (self.run_at(run.end()), self.owner(run.end())))
        })
    }

    /// The longest stretch of whole runs around the one that starts at (or contains) `start` that are free or held
    /// under `ticket`; empty when that one itself is neither. Takes a step a run.
    pub(crate) fn run_around(&self, start: u32, ticket: u32) -> Extent {
        let run = match self.run_containing(start) {
            Some((run, owner)) if is_ours(owner, ticket) => run,
            _ => return Extent::new(start, 0),
        };
        let (mut first, mut end) = (run.start, run.end());
        while first > 0 && is_ours(self.owner(self.start_before(first)), ticket) {
            first = self.start_before(first);
        }
        while end < self.units && is_ours(self.owner(end), ticket) {
            end = self.run_at(end).end();
        }
        Extent::new(first, end - first)
    }

    /// Frees what is held under `ticket` in `run` and takes `units` units at its start for `owner`; the rest of it is
    /// left free. `None`, and nothing has changed, when `run` is shorter than that or anything else is in it.
    pub(crate) fn take_run(&mut self, run: Extent, units: u32, ticket: u32, owner: Owner) -> Option<Extent> {
        if units == 0 || units > run.units || run.end() > self.units {
            return None;
        }
        let is_ours = self
            .runs(run.start)
            .take_while(|(part, _)| part.start < run.end())
            .all(|(part, owner)| {
                // A free run may reach out of `run`, a held extent may not: there is no freeing half of it.
                is_ours(owner, ticket) && (owner.is_none() || run.start <= part.start && part.end() <= run.end())
            });
        if !is_ours {
            return None;
        }
        let mut at = run.start;
        while at < run.end()
            && let Some((part, owner)) = self.run_containing(at)
        {
            if owner.is_some() {
                self.release(part.start);
            }
            at = part.end();
        }
        self.allocate_at(run.start, units, owner)
            .then_some(Extent::new(run.start, units))
    }

    /// Holds all that is free in `window` under `ticket`, and adds the starts of what it now holds to `held`. Of a free
    /// run that reaches out of the window only the part inside is held. Changes nothing when `held` can't grow.
    pub(crate) fn hold_free(&mut self, window: Extent, ticket: u32, held: &mut Vec<u32>) -> Result<()> {
        let end = window.end().min(self.units);
        let runs = self.runs(window.start).take_while(|(run, _)| run.start < end);
        let free = runs.filter(|(_, owner)| owner.is_none()).count();
        held.try_reserve(free)
            .map_err(|_| Error::OutOfMemory(words!("list of {free} held extents: no memory")))?;
        let mut at = window.start;
        while at < end
            && let Some((run, owner)) = self.run_containing(at)
        {
            let run_end = run.end().min(end);
            if owner.is_none() {
                self.carve(run, Extent::new(at, run_end - at), Owner::Held(ticket));
                held.push(at);
            }
            at = run_end;
        }
        Ok(())
    }

    /// The neighbouring whole runs of together at least `units` units that cost least; of equals the ones at the lowest
    /// address. What is free or held under `ticket` costs nothing; an object costs what `cost` says for its id and
    /// extent, and may not go when that is `None`; what others hold or claim may not go. Looks at each run once, so it
    /// takes time in proportion to their number, and asks for each object at most once.
    pub(crate) fn cheapest_window(
        &self,
        units: u32,
        ticket: u32,
        mut cost: impl FnMut(u32, Extent) -> Option<u64>,
    ) -> Result<Option<Window>> {
        if units == 0 {
            return Ok(None);
        }
        let mut cheapest: Option<Window> = None;
        // The window that ends with the run at hand, and the length and price of each run in it. A price is asked for
        // once and kept: the answer may be another by the time that the run leaves the window.
        let (mut extent, mut total) = (Extent::new(0, 0), 0);
        let mut inside: VecDeque<(u32, u64)> = VecDeque::new();
        for (run, owner) in self.runs(0) {
            let price = match owner {
                Some(Owner::Object(id)) => cost(id, run),
                _ => is_ours(owner, ticket).then_some(0),
            };
            let Some(price) = price else {
                inside.clear();
                (extent, total) = (Extent::new(run.end(), 0), 0);
                continue;
            };
            inside
                .try_reserve(1)
                .map_err(|_| Error::OutOfMemory(words!("window of {} runs: no memory", inside.len())))?;
            inside.push_back((run.units, price));
            extent.units += run.units;
            total += u128::from(price);
            while let Some(&(first, price)) = inside.front()
                && extent.units - first >= units
            {
                inside.pop_front();
                extent = Extent::new(extent.start + first, extent.units - first);
                total -= u128::from(price);
            }
            if extent.units >= units && cheapest.is_none_or(|best| total < best.cost) {
                cheapest = Some(Window { extent, cost: total });
            }
        }
        Ok(cheapest)
    }

    /// The start of a free run of at least `units` units.
    fn find(&self, units: u32) -> Option<u32> {
        let bin = bin_of(units);
        let runs = || iter::successors(self.bins.head(bin), |&run| some(self.tags[run as usize].next));
        let fits = |&run: &u32| self.tags[run as usize].units >= units;
        runs()
            .take(FIRST_LOOKS)
            .find(fits)
            .or_else(|| self.bins.first_from(bin + 1))
            .or_else(|| runs().skip(FIRST_LOOKS).take(LAST_LOOKS - FIRST_LOOKS).find(fits))
    }

    /// Cuts `wanted` out of the free run `run`; what is left on either side stays free.
    fn carve(&mut self, run: Extent, wanted: Extent, owner: Owner) -> Extent {
        self.unlink(run);
        if wanted.start > run.start {
            self.place_free(Extent::new(run.start, wanted.start - run.start));
        }
        if wanted.end() < run.end() {
            self.place_free(Extent::new(wanted.end(), run.end() - wanted.end()));
        }
        self.set_length(wanted);
        self.tags[wanted.start as usize].previous_or_owner = owner.pack();
        self.used.insert(wanted.start);
        self.free_units -= wanted.units;
        wanted
    }

    /// Makes the used run that starts at `start` free, one with its free neighbours, and says how long it was.
    fn release(&mut self, start: u32) -> u32 {
        let units = self.tags[start as usize].units;
        self.used.remove(start);
        self.free_units += units;
        let mut run = Extent::new(start, units);
        if run.end() < self.units && !self.used.contains(run.end()) {
            let after = self.run_at(run.end());
            self.unlink(after);
            run.units += after.units;
        }
        if start > 0 && !self.used.contains(self.start_before(start)) {
            let before = self.run_at(self.start_before(start));
            self.unlink(before);
            run = Extent::new(before.start, before.units + run.units);
        }
        self.place_free(run);
        units
    }

    /// The run that starts at `start`, which must be the start of one.
    fn run_at(&self, start: u32) -> Extent {
        Extent::new(start, self.tags[start as usize].units)
    }

    /// The start of the run that ends before `start`, which must be the start of one and not 0.
    fn start_before(&self, start: u32) -> u32 {
        start - self.tags[start as usize - 1].units
    }

    /// The run that this unit is part of, with its owner if it is used; `None` past the end.
    fn run_containing(&self, unit: u32) -> Option<(Extent, Option<Owner>)> {
        if unit >= self.units {
            return None;
        }
        let used = self.used.last_until(unit).map(|start| self.run_at(start));
        match used {
            Some(run) if unit < run.end() => Some((run, self.owner(run.start))),
            // No two free runs touch: all between a used run and the next one is one free run.
            _ => Some((self.run_at(used.map_or(0, |run| run.end())), None)),
        }
    }

    fn set_length(&mut self, run: Extent) {
        self.tags[run.start as usize].units = run.units;
        self.tags[run.end() as usize - 1].units = run.units;
    }

    /// Tags a free run and hangs it into its bin. Its neighbours must be used.
    fn place_free(&mut self, run: Extent) {
        self.set_length(run);
        let bin = bin_of(run.units);
        let next = self.bins.heads[bin];
        let tag = &mut self.tags[run.start as usize];
        (tag.previous_or_owner, tag.next) = (NONE, next);
        if next != NONE {
            self.tags[next as usize].previous_or_owner = run.start;
        }
        self.bins.set_head(bin, run.start);
    }

    /// Takes a free run out of its bin.
    fn unlink(&mut self, run: Extent) {
        let tag = self.tags[run.start as usize];
        let (previous, next) = (tag.previous_or_owner, tag.next);
        if next != NONE {
            self.tags[next as usize].previous_or_owner = previous;
        }
        if previous != NONE {
            self.tags[previous as usize].next = next;
        } else {
            self.bins.set_head(bin_of(run.units), next);
        }
    }
}

/// Whether a run with this owner is free or held under `ticket`.
fn is_ours(owner: Option<Owner>, ticket: u32) -> bool {
    owner.is_none_or(|owner| owner == Owner::Held(ticket))
}

fn some(run: u32) -> Option<u32> {
    (run != NONE).then_some(run)
}

/// The bin of a free run of this length: below 8 the length itself, above it the number of its octave and its next
/// three bits.
fn bin_of(units: u32) -> usize {
    match units.checked_ilog2() {
        Some(octave) if octave >= SUB_BITS => {
            let row = octave - SUB_BITS + 1;
            (row << SUB_BITS) as usize | (units >> (octave - SUB_BITS)) as usize & ((1 << SUB_BITS) - 1)
        }
        _ => units as usize,
    }
}

/// The heads of the lists of free runs, and which of them aren't empty.
struct Bins {
    /// Bit `r` is set when `row[r]` isn't 0.
    rows: u32,
    /// Bit `s` of `row[r]` is set when bin `8 * r + s` isn't empty.
    row: [u8; ROWS],
    /// The first run of each bin, or [`NONE`].
    heads: [u32; BINS],
}

impl Bins {
    fn new() -> Bins {
        Bins {
            rows: 0,
            row: [0; ROWS],
            heads: [NONE; BINS],
        }
    }

    fn head(&self, bin: usize) -> Option<u32> {
        some(self.heads[bin])
    }

    fn set_head(&mut self, bin: usize, run: u32) {
        self.heads[bin] = run;
        let (row, bit) = (bin >> SUB_BITS, 1 << (bin & 7));
        if run != NONE {
            self.row[row] |= bit;
            self.rows |= 1 << row;
        } else {
            self.row[row] &= !bit;
            if self.row[row] == 0 {
                self.rows &= !(1 << row);
            }
        }
    }

    /// A run of the first bin from this one on that isn't empty.
    fn first_from(&self, bin: usize) -> Option<u32> {
        let mut row = bin >> SUB_BITS;
        let mut subs = self.row.get(row)? & (0xff << (bin & 7));
        if subs == 0 {
            row = (self.rows & (u32::MAX << (row + 1))).trailing_zeros() as usize;
            subs = *self.row.get(row)?;
        }
        self.head(row << SUB_BITS | subs.trailing_zeros() as usize)
    }
}

/// A set of unit numbers that finds the last member up to a unit in a step a level, however far away it is.
///
/// The lowest level has a bit a unit. A bit of a higher level is set when the word that it stands for isn't 0; the
/// highest level is one word.
struct Starts {
    /// Members are below this.
    limit: u32,
    words: Box<[u64]>,
    /// Where each level begins in `words`.
    levels: [usize; Starts::MOST_LEVELS],
    /// How many levels there are.
    height: usize,
}

impl Starts {
    /// 64^6 is more than there are units.
    const MOST_LEVELS: usize = 6;

    fn new(units: u32) -> Result<Starts> {
        let (mut levels, mut height, mut words, mut bits) = ([0; Self::MOST_LEVELS], 0, 0, units as usize);
        while height == 0 || bits > 1 {
            bits = bits.div_ceil(64);
            levels[height] = words;
            words += bits;
            height += 1;
        }
        let words = zeroed(words)?;
        Ok(Starts {
            limit: units,
            words,
            levels,
            height,
        })
    }

    /// False for a number past the end.
    fn contains(&self, unit: u32) -> bool {
        unit < self.limit && self.words[unit as usize / 64] >> (unit % 64) & 1 != 0
    }

    fn insert(&mut self, unit: u32) {
        let mut index = unit as usize;
        for &level in &self.levels[..self.height] {
            let word = &mut self.words[level + index / 64];
            let was_empty = *word == 0;
            *word |= 1 << (index % 64);
            if !was_empty {
                return;
            }
            index /= 64;
        }
    }

    fn remove(&mut self, unit: u32) {
        let mut index = unit as usize;
        for &level in &self.levels[..self.height] {
            let word = &mut self.words[level + index / 64];
            *word &= !(1 << (index % 64));
            if *word != 0 {
                return;
            }
            index /= 64;
        }
    }

    /// The last member that is `unit` or before it.
    fn last_until(&self, unit: u32) -> Option<u32> {
        // Up, until a word has a member among the bits that count ...
        let mut index = unit as usize;
        let mut counts = u64::MAX >> (63 - unit % 64);
        let mut height = 0;
        loop {
            let level = *self.levels[..self.height].get(height)?;
            if let Some(bit) = (self.words[level + index / 64] & counts).checked_ilog2() {
                index = index / 64 * 64 + bit as usize;
                break;
            }
            index /= 64;
            counts = (1 << (index % 64)) - 1;
            height += 1;
        }
        // ... and down to the last one in it. A set bit stands for a word that isn't 0.
        for &level in self.levels[..height].iter().rev() {
            index = index * 64 + self.words[level + index].checked_ilog2()? as usize;
        }
        Some(index as u32)
    }
}

/// A type whose bytes may all be zero.
///
/// # Safety
/// All bytes zero must be a value of it.
unsafe trait Plain: Copy {}

// SAFETY: three `u32`s.
unsafe impl Plain for Tag {}
// SAFETY: an integer.
unsafe impl Plain for u64 {}

/// A zeroed array that takes memory only where it has been written to: the C library maps one of this size afresh.
///
/// `Vec` can't do this: `vec![0; n]` is as lazy but aborts when there is no memory, and a fill after `try_reserve`
/// touches all of it.
fn zeroed<T: Plain>(length: usize) -> Result<Box<[T]>> {
    let no_memory = || Error::OutOfMemory(words!("allocator table of {length} entries: no memory"));
    let layout = Layout::array::<T>(length).map_err(|_| no_memory())?;
    if layout.size() == 0 {
        return Ok(Box::new([]));
    }
    // SAFETY: the size isn't 0.
    let entries = unsafe { alloc::alloc_zeroed(layout) }.cast::<T>();
    if entries.is_null() {
        return Err(no_memory());
    }
    // SAFETY: allocated just now by the allocator of `Box`, with the layout of `[T; length]`, and zeroed, which `Plain`
    // says is a value.
    Ok(unsafe { Box::from_raw(ptr::slice_from_raw_parts_mut(entries, length)) })
}

#[cfg(test)]
impl Allocator {
    /// Panics when an invariant of this file doesn't hold. Looks at every run, bin and word of the bitmaps.
    pub(crate) fn validate(&self) {
        let (mut used, mut free, mut free_units) = (BTreeSet::new(), BTreeSet::new(), 0);
        let (mut at, mut after_free) = (0, false);
        while at < self.units {
            let run = self.run_at(at);
            assert!(
                run.units > 0 && run.units <= self.units - at,
                "{run:?} of {} units",
                self.units
            );
            assert_eq!(
                self.tags[run.end() as usize - 1].units,
                run.units,
                "the tag at the end of {run:?}"
            );
            let is_free = !self.used.contains(at);
            assert!(!(is_free && after_free), "{run:?} is free, and so is the run before it");
            if is_free {
                free.insert(at);
                free_units += run.units;
            } else {
                used.insert(at as usize);
            }
            (at, after_free) = (run.end(), is_free);
        }
        assert_eq!(free_units, self.free_units, "free units");
        self.used.validate(used);
        self.bins.validate();
        for bin in 0..BINS {
            let (mut previous, mut run) = (NONE, self.bins.heads[bin]);
            while run != NONE {
                assert!(
                    free.remove(&run),
                    "the run at {run} of bin {bin} isn't free, or is in two bins"
                );
                let tag = self.tags[run as usize];
                assert_eq!(
                    bin_of(tag.units),
                    bin,
                    "the bin of the free run of {} units at {run}",
                    tag.units
                );
                assert_eq!(tag.previous_or_owner, previous, "the run before {run} in bin {bin}");
                (previous, run) = (run, tag.next);
            }
        }
        assert!(free.is_empty(), "free runs in no bin: {free:?}");
    }
}

#[cfg(test)]
impl Bins {
    fn validate(&self) {
        for row in 0..ROWS {
            assert_eq!(self.rows >> row & 1 != 0, self.row[row] != 0, "the bit of row {row}");
            for sub in 0..8 {
                let is_empty = self.heads[8 * row + sub] == NONE;
                assert_eq!(
                    self.row[row] >> sub & 1 == 0,
                    is_empty,
                    "the bit of bin {}",
                    8 * row + sub
                );
            }
        }
    }
}

#[cfg(test)]
impl Starts {
    fn validate(&self, members: BTreeSet<usize>) {
        let mut members = members;
        for height in 0..self.height {
            let end = if height + 1 < self.height {
                self.levels[height + 1]
            } else {
                self.words.len()
            };
            let words = &self.words[self.levels[height]..end];
            let bits = words.iter().enumerate().flat_map(|(at, word)| {
                (0..64)
                    .filter(move |bit| word >> bit & 1 != 0)
                    .map(move |bit| 64 * at + bit)
            });
            assert!(
                bits.eq(members.iter().copied()),
                "level {height} of the bitmap of used starts"
            );
            members = members.iter().map(|member| member / 64).collect();
        }
        let top = self.levels[self.height - 1];
        assert_eq!(self.words.len(), top + 1, "the words of the top level");
    }
}

#[cfg(test)]
mod tests;
