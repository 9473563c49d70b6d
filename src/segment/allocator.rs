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
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const OBJECT: Owner = Owner::Object(7);

    /// The same by the simplest means: used extents by their start.
    struct Model {
        units: u32,
        used: BTreeMap<u32, (u32, Owner)>,
    }

    impl Model {
        fn runs(&self) -> Vec<(Extent, Option<Owner>)> {
            let (mut runs, mut at) = (Vec::new(), 0);
            for (&start, &(units, owner)) in &self.used {
                if at < start {
                    runs.push((Extent::new(at, start - at), None));
                }
                runs.push((Extent::new(start, units), Some(owner)));
                at = start + units;
            }
            if at < self.units {
                runs.push((Extent::new(at, self.units - at), None));
            }
            runs
        }

        fn is_free(&self, wanted: Extent) -> bool {
            self.runs()
                .iter()
                .any(|(run, owner)| owner.is_none() && is_within(wanted, *run))
        }

        /// The stretch of free and held runs around the run of this index.
        fn around(&self, index: usize, ticket: u32) -> Option<Extent> {
            let runs = self.runs();
            let mut stretches = runs.split(|(_, owner)| owner.is_some_and(|owner| owner != Owner::Held(ticket)));
            let stretch = stretches.find(|stretch| stretch.contains(&runs[index]))?;
            let (first, last) = (stretch[0].0, stretch[stretch.len() - 1].0);
            Some(Extent::new(first.start, last.end() - first.start))
        }

        /// Whether all in `run` is free or held, and no held extent reaches out of it.
        fn may_take(&self, run: Extent, ticket: u32) -> bool {
            self.runs()
                .iter()
                .filter(|(part, _)| part.start < run.end() && run.start < part.end())
                .all(|&(part, owner)| owner.is_none() || owner == Some(Owner::Held(ticket)) && is_within(part, run))
        }
    }

    fn is_within(inner: Extent, outer: Extent) -> bool {
        outer.start <= inner.start && inner.end() <= outer.end()
    }

    /// A small generator, for tests that need numbers rather than shrinking.
    struct Random(u64);

    impl Random {
        fn below(&mut self, limit: u32) -> u32 {
            self.0 = self
                .0
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            ((self.0 >> 33) % u64::from(limit)) as u32
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Allocate { units: u32, owner: Owner },
        AllocateAt { wanted: Extent, owner: Owner },
        Free { pick: usize },
        SetOwner { pick: usize, owner: Owner },
        HoldFree { window: Extent, ticket: u32 },
        TakeAround { pick: usize, percent: u32, ticket: u32 },
        Take { run: Extent, units: u32, ticket: u32 },
    }

    const MODEL_UNITS: u32 = 500;

    fn owners() -> impl Strategy<Value = Owner> {
        prop_oneof![
            3 => (0..Owner::ID_LIMIT).prop_map(Owner::Object),
            2 => (0..3u32).prop_map(Owner::Held),
            1 => (0..3u32).prop_map(Owner::Claimed),
        ]
    }

    fn extents() -> impl Strategy<Value = Extent> {
        (0..MODEL_UNITS + 2, 0..60u32).prop_map(|(start, units)| Extent::new(start, units))
    }

    fn steps() -> impl Strategy<Value = Step> {
        let pick = any::<usize>;
        prop_oneof![
            6 => (0..60u32, owners()).prop_map(|(units, owner)| Step::Allocate { units, owner }),
            2 => (extents(), owners()).prop_map(|(wanted, owner)| Step::AllocateAt { wanted, owner }),
            6 => pick().prop_map(|pick| Step::Free { pick }),
            1 => (pick(), owners()).prop_map(|(pick, owner)| Step::SetOwner { pick, owner }),
            1 => (extents(), 0..3u32).prop_map(|(window, ticket)| Step::HoldFree { window, ticket }),
            1 => (pick(), 0..110u32, 0..3u32)
                .prop_map(|(pick, percent, ticket)| Step::TakeAround { pick, percent, ticket }),
            1 => (extents(), 0..60u32, 0..3u32).prop_map(|(run, units, ticket)| Step::Take { run, units, ticket }),
        ]
    }

    /// Takes `step` with both and compares what they say.
    fn take_step(allocator: &mut Allocator, model: &mut Model, step: Step) {
        let picked = |pick: usize| model.used.keys().nth(pick % model.used.len().max(1)).copied();
        match step {
            Step::Allocate { units, owner } => match allocator.allocate(units, owner) {
                Some(extent) => {
                    assert!(
                        extent.units == units && units > 0 && model.is_free(extent),
                        "{extent:?}"
                    );
                    model.used.insert(extent.start, (units, owner));
                }
                // Too few units for more runs in a bin than are looked at, so nothing that fits is missed.
                None => assert!(
                    units == 0
                        || model
                            .runs()
                            .iter()
                            .all(|(run, owner)| owner.is_some() || run.units < units)
                ),
            },
            Step::AllocateAt { wanted, owner } => {
                let may = wanted.units > 0 && model.is_free(wanted);
                assert_eq!(allocator.allocate_at(wanted.start, wanted.units, owner), may);
                if may {
                    model.used.insert(wanted.start, (wanted.units, owner));
                }
            }
            Step::Free { pick } => {
                let Some(start) = picked(pick) else { return };
                let (units, owner) = model.used[&start];
                if let Owner::Claimed(ticket) = owner {
                    assert_eq!(allocator.free(start), Freed::Held(ticket));
                    model.used.insert(start, (units, Owner::Held(ticket)));
                } else {
                    assert_eq!(allocator.free(start), Freed::Free(units));
                    model.used.remove(&start);
                }
            }
            Step::SetOwner { pick, owner } => {
                let Some(start) = picked(pick) else { return };
                assert!(allocator.set_owner(start, owner));
                assert_eq!(allocator.owner(start), Some(owner));
                model.used.insert(start, (model.used[&start].0, owner));
            }
            Step::HoldFree { window, ticket } => {
                let mut held = vec![3];
                allocator.hold_free(window, ticket, &mut held).unwrap();
                let mut expected = vec![3];
                for (run, _) in model.runs().into_iter().filter(|(_, owner)| owner.is_none()) {
                    let (start, end) = (run.start.max(window.start), run.end().min(window.end()));
                    if start < end {
                        expected.push(start);
                        model.used.insert(start, (end - start, Owner::Held(ticket)));
                    }
                }
                assert_eq!(held, expected);
            }
            Step::TakeAround { pick, percent, ticket } => {
                let runs = model.runs();
                let start = runs[pick % runs.len()].0.start;
                let run = allocator.run_around(start, ticket);
                assert_eq!(
                    run,
                    model.around(pick % runs.len(), ticket).unwrap_or(Extent::new(start, 0))
                );
                take(allocator, model, run, run.units * percent / 100, ticket);
            }
            Step::Take { run, units, ticket } => take(allocator, model, run, units, ticket),
        }
    }

    fn take(allocator: &mut Allocator, model: &mut Model, run: Extent, units: u32, ticket: u32) {
        let may = units > 0 && units <= run.units && run.end() <= model.units && model.may_take(run, ticket);
        let taken = allocator.take_run(run, units, ticket, OBJECT);
        assert_eq!(
            taken,
            may.then_some(Extent::new(run.start, units)),
            "{units} units of {run:?}"
        );
        if may {
            model.used.retain(|&start, _| start < run.start || start >= run.end());
            model.used.insert(run.start, (units, OBJECT));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

        #[test]
        fn it_does_what_a_map_of_extents_does(steps in prop::collection::vec(steps(), 1..120)) {
            let mut allocator = Allocator::new(MODEL_UNITS).unwrap();
            let mut model = Model { units: MODEL_UNITS, used: BTreeMap::new() };
            for step in steps {
                take_step(&mut allocator, &mut model, step);
                allocator.validate();
                let runs = model.runs();
                assert!(allocator.runs(0).eq(runs.iter().copied()));
                assert_eq!(allocator.allocated_units(), model.used.values().map(|(units, _)| units).sum::<u32>());
                assert_eq!(allocator.free_units() + allocator.allocated_units(), allocator.units());
            }
            for start in model.used.into_keys() {
                if let Freed::Held(_) = allocator.free(start) {
                    allocator.free(start);
                }
            }
            allocator.validate();
            assert!(allocator.runs(0).eq([(Extent::new(0, MODEL_UNITS), None)]), "not one run again");
        }

        #[test]
        fn containing_and_runs_agree_with_every_unit_of_a_layout(layout in layouts()) {
            let (allocator, runs, _) = lay_out(&layout);
            for (index, &(run, owner)) in runs.iter().enumerate() {
                for unit in run.start..run.end() {
                    assert_eq!(allocator.containing(unit), owner.map(|owner| (run, owner)));
                    assert!(allocator.runs(unit).eq(runs[index..].iter().copied()));
                }
            }
            assert_eq!(allocator.containing(allocator.units()), None);
            assert_eq!(allocator.runs(allocator.units()).count(), 0);
        }

        #[test]
        fn the_cheapest_window_is_that_of_brute_force(layout in layouts(), units in 0..40u32) {
            let (allocator, runs, prices) = lay_out(&layout);
            let mut asked = BTreeSet::new();
            let window = allocator.cheapest_window(units, 1, |id, extent| {
                assert!(asked.insert(id), "object {id} asked for twice");
                assert_eq!(allocator.containing(extent.start), Some((extent, Owner::Object(id))));
                prices[id as usize]
            });
            let price = |owner: Option<Owner>| match owner {
                Some(Owner::Object(id)) => prices[id as usize],
                None | Some(Owner::Held(1)) => Some(0),
                _ => None,
            };
            let mut best: Option<Window> = None;
            for first in 0..runs.len() {
                for last in first..runs.len() {
                    let length = |runs: &[(Extent, Option<Owner>)]| runs.iter().map(|(run, _)| run.units).sum::<u32>();
                    let inside = &runs[first..=last];
                    let is_least = length(&inside[1..]) < units && length(&inside[..inside.len() - 1]) < units;
                    let cost = inside.iter().map(|(_, owner)| price(*owner).map(u128::from)).sum::<Option<u128>>();
                    if let Some(cost) = cost.filter(|_| is_least && length(inside) >= units)
                        && best.is_none_or(|best| cost < best.cost)
                    {
                        best = Some(Window { extent: Extent::new(inside[0].0.start, length(inside)), cost });
                    }
                }
            }
            assert_eq!(window.unwrap(), best);
        }

        #[test]
        fn the_bitmap_finds_the_last_member(
            limit in 1..600_000u32,
            steps in prop::collection::vec((any::<u32>(), 0..3u32), 1..200),
        ) {
            let (mut starts, mut members) = (Starts::new(limit).unwrap(), BTreeSet::new());
            for (number, what) in steps {
                let number = number % limit;
                match what {
                    0 => {
                        starts.insert(number);
                        members.insert(number);
                    }
                    1 => {
                        let near = members.range(..=number).last().copied().unwrap_or(number);
                        starts.remove(near);
                        members.remove(&near);
                    }
                    _ => {}
                }
                for at in [number, 0, limit - 1, number.saturating_sub(1), number / 64 * 64, number / 4096 * 4096] {
                    assert_eq!(starts.last_until(at), members.range(..=at).last().copied(), "until {at}");
                    assert_eq!(starts.contains(at), members.contains(&at));
                }
            }
            starts.validate(members.into_iter().map(|member| member as usize).collect());
        }
    }

    /// Runs: the length, a price in case an object has it, the owner. The id of an object becomes the number of its
    /// run.
    fn layouts() -> impl Strategy<Value = Vec<(u32, Option<u64>, Option<Owner>)>> {
        let prices = prop_oneof![1 => Just(None), 2 => (0..4u64).prop_map(Some), 1 => Just(Some(u64::MAX))];
        prop::collection::vec((1..12u32, prices, prop::option::weighted(0.8, owners())), 1..30)
    }

    /// An allocator of exactly these runs, the runs (neighbours that are free as one), and the prices of its objects by
    /// their id.
    #[expect(clippy::type_complexity)]
    fn lay_out(
        layout: &[(u32, Option<u64>, Option<Owner>)],
    ) -> (Allocator, Vec<(Extent, Option<Owner>)>, Vec<Option<u64>>) {
        let mut allocator = Allocator::new(layout.iter().map(|(units, ..)| units).sum()).unwrap();
        let (mut model, mut prices, mut at) = (
            Model {
                units: allocator.units(),
                used: BTreeMap::new(),
            },
            Vec::new(),
            0,
        );
        for &(units, price, owner) in layout {
            let owner = match owner {
                Some(Owner::Object(_)) => Some(Owner::Object(prices.len() as u32)),
                other => other,
            };
            prices.push(price);
            if let Some(owner) = owner {
                assert!(allocator.allocate_at(at, units, owner));
                model.used.insert(at, (units, owner));
            }
            at += units;
        }
        allocator.validate();
        (allocator, model.runs(), prices)
    }

    #[test]
    fn bins_are_in_the_order_of_sizes_and_exact_up_to_sixteen() {
        for units in 1..=16 {
            assert_eq!(bin_of(units), units as usize);
        }
        let mut last = 0;
        for units in 1..1 << 16 {
            let bin = bin_of(units);
            assert!(
                bin == last || bin == last + 1,
                "{units} units in bin {bin} after bin {last}"
            );
            last = bin;
        }
        assert_eq!(bin_of(u32::MAX), BINS - 1);
    }

    #[test]
    fn a_full_segment_gives_nothing_until_something_is_freed() {
        let mut allocator = Allocator::new(64).unwrap();
        let extents: Vec<_> = (0..64)
            .map(|id| allocator.allocate(1, Owner::Object(id)).unwrap())
            .collect();
        assert_eq!(allocator.free_units(), 0);
        assert_eq!(allocator.allocate(1, OBJECT), None);
        allocator.validate();
        assert_eq!(allocator.free(extents[40].start), Freed::Free(1));
        assert_eq!(allocator.allocate(2, OBJECT), None);
        assert_eq!(allocator.allocate(1, OBJECT), Some(extents[40]));
        allocator.validate();
    }

    #[test]
    fn an_object_may_be_as_large_as_the_segment() {
        for units in [1, 2, 16, 17, 63, 64, 65, 1000, 4097] {
            let mut allocator = Allocator::new(units).unwrap();
            assert_eq!(allocator.allocate(units + 1, OBJECT), None);
            assert_eq!(allocator.allocate(units, OBJECT), Some(Extent::new(0, units)));
            assert_eq!(allocator.containing(units - 1), Some((Extent::new(0, units), OBJECT)));
            allocator.validate();
            assert_eq!(allocator.free(0), Freed::Free(units));
            allocator.validate();
        }
    }

    #[test]
    fn a_close_fit_is_taken_before_a_larger_run_is_cut() {
        let mut allocator = Allocator::new(1000).unwrap();
        assert!(allocator.allocate_at(0, 17, OBJECT) && allocator.allocate_at(17, 3, OBJECT));
        allocator.free(0);
        assert_eq!(allocator.allocate(17, OBJECT), Some(Extent::new(0, 17)));
    }

    #[test]
    fn what_readers_keep_comes_to_the_put_that_evicted_it() {
        let mut allocator = Allocator::new(30).unwrap();
        for id in 0..3 {
            allocator.allocate_at(10 * id, 10, Owner::Object(id));
        }
        allocator.set_owner(0, Owner::Claimed(5)); // evicted by put 5, while somebody reads it
        allocator.set_owner(10, Owner::Held(5));
        assert_eq!(allocator.run_around(10, 5), Extent::new(10, 10));
        assert_eq!(allocator.run_around(0, 5), Extent::new(0, 0));
        assert_eq!(allocator.free(0), Freed::Held(5));
        assert_eq!(allocator.allocate(1, OBJECT), None, "another put got what is held");
        assert_eq!(allocator.run_around(10, 5), Extent::new(0, 20));
        assert_eq!(
            allocator.take_run(Extent::new(0, 20), 15, 6, OBJECT),
            None,
            "the wrong ticket"
        );
        assert_eq!(
            allocator.take_run(Extent::new(0, 20), 15, 5, OBJECT),
            Some(Extent::new(0, 15))
        );
        allocator.validate();
        assert_eq!(allocator.free_units(), 5);
    }

    #[test]
    fn a_held_window_is_closed_to_others() {
        let mut allocator = Allocator::new(20).unwrap();
        allocator.allocate_at(5, 5, Owner::Object(0));
        let window = allocator.cheapest_window(18, 1, |_, _| Some(3)).unwrap().unwrap();
        assert_eq!(
            window,
            Window {
                extent: Extent::new(0, 20),
                cost: 3
            }
        );
        let mut held = Vec::new();
        allocator.hold_free(window.extent, 1, &mut held).unwrap();
        assert_eq!((held, allocator.free_units()), (vec![0, 10], 0));
        allocator.set_owner(5, Owner::Held(1));
        assert_eq!(
            allocator.take_run(window.extent, 18, 1, OBJECT),
            Some(Extent::new(0, 18))
        );
        assert_eq!(allocator.runs(0).last(), Some((Extent::new(18, 2), None)));
        allocator.validate();
    }

    #[test]
    fn a_segment_of_a_tebibyte_is_made_at_once() {
        let mut allocator = Allocator::new(1 << 28).unwrap();
        assert_eq!(
            allocator.allocate(1 << 27, Owner::Object(1)),
            Some(Extent::new(0, 1 << 27))
        );
        assert_eq!(allocator.allocate(1, Owner::Object(2)), Some(Extent::new(1 << 27, 1)));
        assert_eq!(
            allocator.containing((1 << 27) - 1),
            Some((Extent::new(0, 1 << 27), Owner::Object(1)))
        );
        assert_eq!(allocator.containing((1 << 28) - 1), None);
        assert_eq!(allocator.free(0), Freed::Free(1 << 27));
        assert_eq!(allocator.runs(0).count(), 3);
    }

    #[test]
    fn sizes_that_no_segment_has_are_refused() {
        for units in [0, MAX_UNITS + 1, u32::MAX] {
            assert!(matches!(Allocator::new(units), Err(Error::InvalidParam(_))), "{units}");
        }
    }

    #[test]
    fn tables_that_there_is_no_memory_for_are_an_error() {
        for length in [isize::MAX as usize / size_of::<Tag>(), usize::MAX] {
            assert!(matches!(zeroed::<Tag>(length), Err(Error::OutOfMemory(_))), "{length}");
        }
    }

    /// Starts that aren't those of a used extent: freed before, inside one, past the end.
    fn with_bad_starts(mut misuse: impl FnMut(&mut Allocator, u32)) {
        let mut allocator = Allocator::new(100).unwrap();
        for start in [0, 10, 20] {
            allocator.allocate_at(start, 10, OBJECT);
        }
        allocator.free(10);
        for start in [10, 5, 15, 30, 99, 100, u32::MAX] {
            assert_eq!(allocator.owner(start), None);
            misuse(&mut allocator, start);
            allocator.validate();
            assert_eq!(allocator.allocated_units(), 20);
        }
    }

    #[test]
    #[cfg_attr(debug_assertions, should_panic(expected = "free of unit 10 of 100"))]
    fn a_double_free_changes_nothing() {
        with_bad_starts(|allocator, start| assert_eq!(allocator.free(start), Freed::Nothing));
    }

    #[test]
    #[cfg_attr(debug_assertions, should_panic(expected = "for unit 10 of 100"))]
    fn an_owner_for_no_extent_changes_nothing() {
        with_bad_starts(|allocator, start| assert!(!allocator.set_owner(start, OBJECT)));
    }

    #[test]
    fn space_of_random_sizes_is_well_used_after_churn() {
        let units = 1 << 16;
        for (largest, seed) in [(64, 1), (256, 2), (1024, 3)] {
            let mut random = Random(seed);
            let mut allocator = Allocator::new(units).unwrap();
            let mut live = Vec::new();
            for _ in 0..100_000 {
                if allocator.allocated_units() < units / 10 * 8
                    && let Some(extent) = allocator.allocate(1 + random.below(largest), OBJECT)
                {
                    live.push(extent.start);
                } else {
                    allocator.free(live.swap_remove(random.below(live.len() as u32) as usize));
                }
            }
            allocator.validate();
            while allocator.allocate(1 + random.below(largest), OBJECT).is_some() {}
            let used = f64::from(allocator.allocated_units()) / f64::from(units);
            println!("sizes up to {largest}: {used:.3} of the space used when the first one found no room");
            assert!(used > 0.9, "sizes up to {largest}: {used}");
        }
    }
}
