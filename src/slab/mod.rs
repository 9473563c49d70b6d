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

use std::marker::PhantomData;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use memmap2::MmapRaw;

pub(crate) use free::FreeNumbers;

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

/// Slots in the first chunk; each further chunk doubles the number.
const FIRST: u32 = 1 << FIRST_LOG2;
const FIRST_LOG2: u32 = 6;
/// Chunks: together they hold every number below `LIMIT`.
const CHUNKS: usize = 25;
/// Places for chunks: any number, whether a slab gives it or not, falls to one of them.
const BASES: usize = 32;
/// No slab gives this number or a higher one: 64 x (2^25 - 1), about two thousand million.
const LIMIT: u32 = ((1u64 << (FIRST_LOG2 as usize + CHUNKS)) - FIRST as u64) as u32;
/// A huge page. Chunks of at least this size lie on whole ones: a look-up then misses the cache, but not the TLB too.
const HUGE_PAGE: usize = 2 << 20;

/// Numbered slots of `T`.
pub(crate) struct Slab<T> {
    chunks: [OnceLock<MmapRaw>; CHUNKS],
    /// Where each chunk begins; null for one that is not mapped. Apart, so that a look-up reads one word.
    bases: [AtomicPtr<T>; BASES],
    /// The first number that was never given.
    fresh: AtomicU32,
    free: FreeNumbers,
    /// Numbers are below this.
    limit: u32,
    what: &'static str,
    slots: PhantomData<T>,
}

impl<T: Slot> Slab<T> {
    /// An empty slab of at most `limit` slots; `what` names them in errors.
    pub(crate) fn new(what: &'static str, limit: u32) -> Slab<T> {
        Slab {
            chunks: [const { OnceLock::new() }; CHUNKS],
            bases: [const { AtomicPtr::new(std::ptr::null_mut()) }; BASES],
            fresh: AtomicU32::new(0),
            free: FreeNumbers::new(),
            limit: limit.min(LIMIT),
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
        let (chunk, offset) = position(number);
        let base = self.bases[chunk % BASES].load(Ordering::Acquire);
        // SAFETY: a chunk that is mapped holds `FIRST << chunk` slots and `offset` is below that; the mapping is zeroed, aligned to a
        // page, lives as long as `self`, and a `Slot` is valid when zeroed and shared.
        (!base.is_null()).then(|| unsafe { &*base.add(offset) })
    }

    /// Numbers below this have been given at least once.
    pub(crate) fn bound(&self) -> u32 {
        self.fresh.load(Ordering::Acquire)
    }

    /// Bytes of the chunks' used part, rounded to whole slots.
    pub(crate) fn bytes(&self) -> u64 {
        u64::from(self.bound()) * size_of::<T>() as u64
    }

    /// Makes the slots up to this number be there, for a caller who deals the numbers by itself. Of no use beside [`Slab::take`].
    pub(crate) fn reach(&self, number: u32) -> Result<()> {
        if number >= self.limit {
            return Err(self.is_full());
        }
        let (last, _) = position(number);
        (0..=last).try_for_each(|chunk| self.map(chunk))?;
        self.fresh.fetch_max(number + 1, Ordering::AcqRel);
        Ok(())
    }

    fn is_full(&self) -> Error {
        Error::OutOfMemory(words!("no more {}: the table holds {}", self.what, self.limit))
    }

    fn map(&self, chunk: usize) -> Result<()> {
        if !self.bases[chunk].load(Ordering::Acquire).is_null() {
            return Ok(());
        }
        let bytes = (FIRST as usize * size_of::<T>()) << chunk;
        let (mapped, align) = if bytes >= HUGE_PAGE {
            (bytes.next_multiple_of(HUGE_PAGE) + HUGE_PAGE, HUGE_PAGE)
        } else {
            (bytes, 1)
        };
        let map = memmap2::MmapMut::map_anon(mapped).map_err(|error| {
            Error::OutOfMemory(words!("{bytes} bytes for more {} can't be mapped: {error}", self.what))
        })?;
        if align > 1 {
            // Only advice: without it the slab is slower, not wrong.
            let _ = map.advise(memmap2::Advice::HugePage);
        }
        // Another thread may have been faster; then this mapping goes.
        let map = self.chunks[chunk].get_or_init(|| map.into());
        let start = map.as_mut_ptr();
        // At most `align` further, which the mapping has room for.
        let base = start.wrapping_add(start.addr().next_multiple_of(align) - start.addr());
        self.bases[chunk].store(base.cast(), Ordering::Release);
        Ok(())
    }
}

impl<T: Linked> Slab<T> {
    /// Takes a number: the one given back last, or a new one.
    pub(crate) fn take(&self) -> Result<u32> {
        match self.take_from(&self.free) {
            Some(number) => Ok(number),
            None => self.take_fresh(),
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

    fn take_fresh(&self) -> Result<u32> {
        let mut number = self.fresh.load(Ordering::Relaxed);
        loop {
            if number >= self.limit {
                return Err(self.is_full());
            }
            self.map(position(number).0)?;
            match self
                .fresh
                .compare_exchange_weak(number, number + 1, Ordering::AcqRel, Ordering::Relaxed)
            {
                Ok(_) => return Ok(number),
                Err(now) => number = now,
            }
        }
    }
}

/// The chunk of a number and its place in it.
#[inline]
fn position(number: u32) -> (usize, usize) {
    let shifted = u64::from(number) + u64::from(FIRST);
    // It is never 0; said so, the compiler needs no branch for that.
    let chunk = (shifted | 1).ilog2() - FIRST_LOG2;
    (chunk as usize, (shifted - (u64::from(FIRST) << chunk)) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::sync::atomic::AtomicU64;

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
        assert!(position(u32::MAX).0 < BASES);
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
