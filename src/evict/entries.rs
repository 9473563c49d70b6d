//! Slots for the entries of an order, linked into lists by slot number.
//!
//! An entry is 24 bytes and what a policy marks it with, and stays where it is until it is released: its slot number is the handle that the caller keeps.
//! Slots lie in chunks, each twice as large as the one before, so growing copies nothing and no call pays for the
//! entries that are there already; an untouched part of a chunk is address space only. Released slots are used again,
//! last first, and the chunks stay as long as the order does: a segment that once held so many copies will again.
//!
//! What the links mean is for the order to say. This file only hands out slots, and marks those that are free, so that a
//! stale handle is found in tests.

use std::ops::{Index, IndexMut};

use super::Id;
use crate::error::{Error, Result, words};

/// End of a list.
pub(super) const NIL: u32 = u32::MAX;
/// In `prev` of an entry that is not in use; a slot number is always smaller.
const FREE: u32 = u32::MAX - 1;

/// What an order keeps of a copy. `prev` and `next` are slots, or `NIL` at the ends of a list.
#[derive(Clone, Copy)]
pub(super) struct Entry<T> {
    pub place: u64,
    pub id: Id,
    pub units: u32,
    pub prev: u32,
    pub next: u32,
    /// What else the policy knows of it.
    pub mark: T,
}

const _: () = assert!(size_of::<Entry<()>>() == 24);

/// The slots. Indexed by slot number; a number that was never handed out panics.
pub(super) struct Entries<T> {
    chunks: [Vec<Entry<T>>; CHUNKS],
    /// Head of the slots to use again, linked by `next`.
    free: u32,
    /// Slots ever used; those from here on have never been written.
    used: u32,
    /// Place and slot of the entries that an order is sorting.
    pub sorting: Vec<(u64, u32)>,
    /// Entries looked at, for tests that bound the work of a call.
    #[cfg(test)]
    pub touched: std::cell::Cell<usize>,
}

const FIRST_CHUNK_ENTRIES: u32 = 1024;
/// So many that slot numbers end at 2^32 - 1024, below `FREE` and `NIL`.
const CHUNKS: usize = 22;

/// Chunk of a slot, and where it is in there. Chunk `c` holds `1024 << c` slots, so `1024 * (2^c - 1)` come before.
fn locate(slot: u32) -> (usize, usize) {
    let chunk = (slot / FIRST_CHUNK_ENTRIES + 1).ilog2();
    (
        chunk as usize,
        (slot - FIRST_CHUNK_ENTRIES * ((1 << chunk) - 1)) as usize,
    )
}

impl<T: Copy> Entries<T> {
    /// No entries yet, and room to sort `most` of them.
    pub fn new(most: usize) -> Result<Self> {
        let mut sorting = Vec::new();
        sorting
            .try_reserve_exact(most)
            .map_err(|_| out_of_memory(most, "sorting slots"))?;
        Ok(Entries {
            chunks: [const { Vec::new() }; CHUNKS],
            free: NIL,
            used: 0,
            sorting,
            #[cfg(test)]
            touched: Default::default(),
        })
    }

    /// A slot with `entry` in it. Nothing has changed when this fails.
    pub fn take(&mut self, entry: Entry<T>) -> Result<u32> {
        if self.free != NIL {
            let slot = self.free;
            self.free = self[slot].next;
            self[slot] = entry;
            return Ok(slot);
        }
        let (chunk, offset) = locate(self.used);
        let Some(entries) = self.chunks.get_mut(chunk) else {
            return Err(Error::OutOfMemory(words!(
                "eviction order: {} entries is the limit",
                self.used
            )));
        };
        if entries.capacity() == 0 {
            let size = (FIRST_CHUNK_ENTRIES as usize) << chunk;
            entries
                .try_reserve_exact(size)
                .map_err(|_| out_of_memory(size, "more entries"))?;
        }
        debug_assert_eq!(entries.len(), offset);
        entries.push(entry);
        self.used += 1;
        Ok(self.used - 1)
    }

    /// Gives back a slot whose entry is in no list any more.
    pub fn release(&mut self, slot: u32) {
        let free = self.free;
        let entry = &mut self[slot];
        (entry.prev, entry.next) = (FREE, free);
        self.free = slot;
    }

    /// Whether the slot was taken and not released since.
    pub fn in_use(&self, slot: u32) -> bool {
        slot < self.used && self[slot].prev != FREE
    }

    /// Slots in use, counted from both sides.
    #[cfg(test)]
    pub fn count_in_use(&self) -> usize {
        let (mut free, mut slot) = (0, self.free);
        while slot != NIL {
            assert!(!self.in_use(slot), "slot {slot} is free and in use");
            free += 1;
            slot = self[slot].next;
        }
        let in_use = (0..self.used).filter(|slot| self.in_use(*slot)).count();
        assert_eq!(in_use + free, self.used as usize, "slots were lost");
        in_use
    }
}

impl<T: Copy> Index<u32> for Entries<T> {
    type Output = Entry<T>;

    fn index(&self, slot: u32) -> &Entry<T> {
        #[cfg(test)]
        self.touched.set(self.touched.get() + 1);
        let (chunk, offset) = locate(slot);
        &self.chunks[chunk][offset]
    }
}

impl<T: Copy> IndexMut<u32> for Entries<T> {
    fn index_mut(&mut self, slot: u32) -> &mut Entry<T> {
        #[cfg(test)]
        self.touched.set(self.touched.get() + 1);
        let (chunk, offset) = locate(slot);
        &mut self.chunks[chunk][offset]
    }
}

/// The error of a table of the order that can't grow.
pub(super) fn out_of_memory(count: usize, what: &str) -> Error {
    Error::OutOfMemory(words!("eviction order: no memory for {count} {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_follow_each_other_through_the_chunks_and_end_below_the_marks() {
        let cases = [
            (0, (0, 0)),
            (1023, (0, 1023)),
            (1024, (1, 0)),
            (3071, (1, 2047)),
            (3072, (2, 0)),
        ];
        for (slot, expected) in cases {
            assert_eq!(locate(slot), expected, "slot {slot}");
        }
        let end = FREE - 1022;
        assert_eq!(locate(end - 1), (CHUNKS - 1, (1024 << (CHUNKS - 1)) - 1));
        assert_eq!(locate(end), (CHUNKS, 0), "no chunk has this slot");
    }

    #[test]
    fn growing_moves_no_entry() {
        let mut entries = Entries::new(0).unwrap();
        let entry = Entry {
            place: 0,
            id: Id(0),
            units: 1,
            prev: NIL,
            next: NIL,
            mark: (),
        };
        let first = entries.take(entry).unwrap();
        let address = &raw const entries[first];
        for _ in 0..10_000 {
            entries.take(entry).unwrap();
        }
        assert_eq!(&raw const entries[first], address);
        assert_eq!(entries.count_in_use(), 10_001);
    }
}
