//! How a slab grows: which chunk has a number, and who maps it.
//!
//! Threads that need the same chunk at once each map it, and all but one of the mappings go again: nobody waits for another, who may have been
//! stopped. A number is given, and the bound raised above it, only when its chunk is there. So whoever sees the bound, or gets a number
//! from somebody who was given it, finds the chunk of every number below.

use crate::sync::{AtomicU32, OnceLock, Ordering};

/// Slots in the first chunk; each further chunk doubles the number.
pub(super) const FIRST: u32 = 1 << FIRST_LOG2;
const FIRST_LOG2: u32 = 6;
/// Chunks: together they hold every number below `LIMIT`.
pub(super) const CHUNKS: usize = 25;
/// No slab gives this number or a higher one: 64 x (2^25 - 1), about two thousand million.
pub(super) const LIMIT: u32 = ((1u64 << (FIRST_LOG2 as usize + CHUNKS)) - FIRST as u64) as u32;

/// The chunks that are there, and the numbers that were given.
pub(super) struct Growth<C> {
    chunks: [OnceLock<C>; CHUNKS],
    /// The first number that was never given.
    fresh: AtomicU32,
    limit: u32,
}

impl<C> Growth<C> {
    /// Nothing yet, and never a number from `limit` on.
    pub(super) fn new(limit: u32) -> Growth<C> {
        Growth {
            chunks: std::array::from_fn(|_| OnceLock::new()),
            fresh: AtomicU32::new(0),
            limit: limit.min(LIMIT),
        }
    }

    pub(super) fn limit(&self) -> u32 {
        self.limit
    }

    /// Numbers below this have been given at least once.
    pub(super) fn bound(&self) -> u32 {
        self.fresh.load(Ordering::Acquire)
    }

    /// The chunk of this number and its place there, if it was ever mapped.
    #[inline]
    pub(super) fn find(&self, number: u32) -> Option<(&C, usize)> {
        let (chunk, offset) = position(number);
        Some((self.chunks.get(chunk)?.get()?, offset))
    }

    /// Gives the next number; `None` when there are no more. `map` makes a chunk.
    pub(super) fn take<E>(&self, map: impl Fn(usize) -> Result<C, E>) -> Result<Option<u32>, E> {
        let mut number = self.fresh.load(Ordering::Relaxed);
        loop {
            if number >= self.limit {
                return Ok(None);
            }
            self.ensure(position(number).0, &map)?;
            match self
                .fresh
                .compare_exchange_weak(number, number + 1, Ordering::AcqRel, Ordering::Relaxed)
            {
                Ok(_) => return Ok(Some(number)),
                Err(now) => number = now,
            }
        }
    }

    /// Makes every number up to this one be there; `None` when it is none that can be given.
    pub(super) fn reach<E>(&self, number: u32, map: impl Fn(usize) -> Result<C, E>) -> Result<Option<()>, E> {
        if number >= self.limit {
            return Ok(None);
        }
        (0..=position(number).0).try_for_each(|chunk| self.ensure(chunk, &map))?;
        self.fresh.fetch_max(number + 1, Ordering::AcqRel);
        Ok(Some(()))
    }

    fn ensure<E>(&self, chunk: usize, map: impl Fn(usize) -> Result<C, E>) -> Result<(), E> {
        if self.chunks[chunk].get().is_none() {
            // Another thread may have been faster; then this mapping goes.
            let _ = self.chunks[chunk].set(map(chunk)?);
        }
        Ok(())
    }
}

/// Slots of a chunk.
pub(super) fn slots_of(chunk: usize) -> usize {
    (FIRST as usize) << chunk
}

/// The chunk of a number and its place in it. A number that is none has a chunk that is none.
#[inline]
pub(super) fn position(number: u32) -> (usize, usize) {
    let shifted = u64::from(number) + u64::from(FIRST);
    // It is never 0; said so, the compiler needs no branch for that.
    let chunk = (shifted | 1).ilog2() - FIRST_LOG2;
    (chunk as usize, (shifted - (u64::from(FIRST) << chunk)) as usize)
}
