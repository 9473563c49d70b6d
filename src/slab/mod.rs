//! Numbered slots that never move: the memory under objects, buckets and holds.
//!
//! A slab hands out numbers from 0 up and takes them back. Its memory comes in chunks of doubling size, mapped when the first slot
//! of one is asked for, so growing copies nothing, stops nobody and fails with an error when the process may not map more. A chunk is
//! given back when the slab goes, not before: a slot's memory is always a `T`, whoever has the number, which is what lets
//! readers look into a slot without a lock and check afterwards that it still was what they took it for.
//!
//! Free numbers are a stack through the slots themselves ([`free`]), so neither taking nor giving back allocates. Who wants to keep
//! some free slots apart from the others has a [`FreeNumbers`] of its own for them.

mod free;
mod growth;

use std::marker::PhantomData;
use std::sync::atomic::AtomicU32;

use memmap2::MmapRaw;

pub(crate) use free::FreeNumbers;
use growth::{Growth, slots_of};

use crate::error::{Error, Result, words};

/// A type for which zeroed memory is a valid value and which is only changed through shared references.
///
/// # Safety
/// All-zero bytes must be a valid `Self`, it must have no drop glue, and its alignment must be at most 4096.
pub(crate) unsafe trait Slot: Sync {}

/// A slot that can be given back.
pub(crate) trait Linked: Slot {
    /// Where a free slot keeps the number of the next free one.
    fn link(&self) -> &AtomicU32;
}

/// A huge page. Chunks of at least this size lie on whole ones: a look-up then misses the cache, but not the TLB too.
const HUGE_PAGE: usize = 2 << 20;

/// The memory of a chunk, whose first slot is so many bytes from the start of the mapping.
struct Chunk {
    map: MmapRaw,
    start: usize,
}

/// Numbered slots of `T`.
pub(crate) struct Slab<T> {
    grown: Growth<Chunk>,
    free: FreeNumbers,
    what: &'static str,
    slots: PhantomData<T>,
}

impl<T: Slot> Slab<T> {
    /// An empty slab of at most `limit` slots; `what` names them in errors.
    pub(crate) fn new(what: &'static str, limit: u32) -> Slab<T> {
        Slab {
            grown: Growth::new(limit),
            free: FreeNumbers::new(),
            what,
            slots: PhantomData,
        }
    }

    /// The slot of this number, which must have been given once.
    #[inline]
    pub(crate) fn get(&self, number: u32) -> &T {
        self.try_get(number).expect("a slot number comes from this slab")
    }

    /// The slot of this number, if its chunk was ever mapped.
    #[inline]
    pub(crate) fn try_get(&self, number: u32) -> Option<&T> {
        let (chunk, offset) = self.grown.find(number)?;
        // SAFETY: the chunk holds `slots_of` slots from its start on and `offset` is below that; the mapping is zeroed, aligned to a page,
        // lives as long as `self`, and a `Slot` is valid when zeroed and shared.
        Some(unsafe { &*chunk.map.as_ptr().add(chunk.start).cast::<T>().add(offset) })
    }

    /// Numbers below this have been given at least once.
    pub(crate) fn bound(&self) -> u32 {
        self.grown.bound()
    }

    /// Bytes of the chunks' used part, rounded to whole slots.
    pub(crate) fn bytes(&self) -> u64 {
        u64::from(self.bound()) * size_of::<T>() as u64
    }

    /// Makes the slots up to this number be there, for a caller who deals the numbers by itself. Of no use beside [`Slab::take`].
    pub(crate) fn reach(&self, number: u32) -> Result<()> {
        let reached = self.grown.reach(number, |chunk| self.map(chunk))?;
        reached.ok_or_else(|| self.is_full())
    }

    fn is_full(&self) -> Error {
        Error::OutOfMemory(words!("no more {}: the table holds {}", self.what, self.grown.limit()))
    }

    /// Maps the chunk of this number.
    fn map(&self, chunk: usize) -> Result<Chunk> {
        let bytes = slots_of(chunk) * size_of::<T>();
        let is_huge = bytes >= HUGE_PAGE;
        let mapped = if is_huge {
            bytes.next_multiple_of(HUGE_PAGE) + HUGE_PAGE
        } else {
            bytes
        };
        let map = memmap2::MmapMut::map_anon(mapped).map_err(|error| {
            Error::OutOfMemory(words!("{bytes} bytes for more {} can't be mapped: {error}", self.what))
        })?;
        let mut start = 0;
        if is_huge {
            // Only advice: without it the slab is slower, not wrong.
            let _ = map.advise(memmap2::Advice::HugePage);
            start = map.as_ptr().addr().next_multiple_of(HUGE_PAGE) - map.as_ptr().addr();
        }
        Ok(Chunk { map: map.into(), start })
    }
}

impl<T: Linked> Slab<T> {
    /// Takes a number: the one given back last, or a new one.
    pub(crate) fn take(&self) -> Result<u32> {
        match self.take_from(&self.free) {
            Some(number) => Ok(number),
            None => self.grown.take(|chunk| self.map(chunk))?.ok_or_else(|| self.is_full()),
        }
    }

    /// The slot that is likely to be taken next, if it was in use before.
    pub(crate) fn likely_next(&self) -> Option<&T> {
        self.try_get(self.free.peek()?)
    }

    /// Gives a number back. The caller must be its only holder.
    pub(crate) fn give_back(&self, number: u32) {
        self.give_back_to(&self.free, number);
    }

    /// Gives a number back to the caller's own free numbers. The caller must be its only holder.
    pub(crate) fn give_back_to(&self, free: &FreeNumbers, number: u32) {
        free.push(number, self.get(number).link());
    }

    /// Takes the number that was given back last to the caller's own free numbers.
    pub(crate) fn take_from(&self, free: &FreeNumbers) -> Option<u32> {
        free.pop(|number| self.get(number).link())
    }
}

#[cfg(test)]
mod tests {
    use super::growth::{CHUNKS, FIRST, LIMIT, position};
    use super::*;
    use std::collections::HashSet;
    use std::sync::atomic::{AtomicU64, Ordering};

    struct Cell {
        link: AtomicU32,
        value: AtomicU64,
    }

    // SAFETY: two atomics: zeroed is valid, nothing to drop, alignment 8.
    unsafe impl Slot for Cell {}

    impl Linked for Cell {
        fn link(&self) -> &AtomicU32 {
            &self.link
        }
    }

    #[test]
    fn numbers_start_at_zero_and_come_back_last_first() {
        let slab = Slab::<Cell>::new("cells", u32::MAX);
        let numbers: Vec<u32> = (0..1000).map(|_| slab.take().unwrap()).collect();
        assert_eq!(numbers, (0..1000).collect::<Vec<_>>());
        slab.give_back(7);
        slab.give_back(900);
        assert_eq!(
            (slab.take().unwrap(), slab.take().unwrap(), slab.take().unwrap()),
            (900, 7, 1000)
        );
        assert_eq!(slab.bound(), 1001);
    }

    #[test]
    fn positions_cover_every_number_once() {
        let mut expected = (0usize, 0usize);
        for number in 0..100_000 {
            assert_eq!(position(number), expected);
            expected.1 += 1;
            if expected.1 == (FIRST as usize) << expected.0 {
                expected = (expected.0 + 1, 0);
            }
        }
        assert_eq!(
            position(LIMIT - 1),
            (CHUNKS - 1, ((FIRST as usize) << (CHUNKS - 1)) - 1)
        );
        assert_eq!(position(LIMIT), (CHUNKS, 0), "no chunk has it");
    }

    #[test]
    fn slots_start_zeroed_and_stay_where_they_are() {
        let slab = Slab::<Cell>::new("cells", u32::MAX);
        let first = slab.take().unwrap();
        slab.get(first).value.store(42, Ordering::Relaxed);
        let address = std::ptr::from_ref(slab.get(first));
        for _ in 0..10_000 {
            assert_eq!(slab.get(slab.take().unwrap()).value.load(Ordering::Relaxed), 0);
        }
        assert_eq!(std::ptr::from_ref(slab.get(first)), address);
        assert_eq!(slab.get(first).value.load(Ordering::Relaxed), 42);
    }

    #[test]
    fn threads_never_hold_the_same_number() {
        let slab = Slab::<Cell>::new("cells", u32::MAX);
        std::thread::scope(|scope| {
            for thread in 1..=4u64 {
                let slab = &slab;
                scope.spawn(move || {
                    for _ in 0..20_000 {
                        let mine: Vec<u32> = (0..4).map(|_| slab.take().unwrap()).collect();
                        for number in &mine {
                            assert_eq!(slab.get(*number).value.swap(thread, Ordering::Relaxed), 0);
                        }
                        for number in mine {
                            assert_eq!(slab.get(number).value.swap(0, Ordering::Relaxed), thread);
                            slab.give_back(number);
                        }
                    }
                });
            }
        });
        let all: HashSet<u32> = (0..slab.bound()).map(|_| slab.take().unwrap()).collect();
        assert_eq!(all.len() as u32, slab.bound(), "every number came back exactly once");
    }
}
