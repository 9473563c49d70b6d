//! Who still needs one copy of an object: the word that decides when its memory goes back.
//!
//! One 64-bit word holds the object's generation, whether the copy can be found, how often it is held and how many read
//! it. Everything that matters happens in one atomic step on that word:
//!
//! - a copy starts *reserved*: not to be found, held once, by its writer; or *arriving*: not to be found, read once, by a writer of whom
//!   nothing is left to be done but the copy of its bytes (`arrive` turns the one into the other);
//! - `publish` makes it live: the writer's hold or reading becomes the index's own reading;
//! - `read` and `hold` succeed only while it is live and of the generation that the caller looked up; `read_held` and `hold_held` also while it is
//!   held, by its writer or by holders that outlived its removal;
//! - `retire` takes it out of reach and ends the index's reading, `retire_unheld` only when nobody holds it: eviction's question and
//!   its act in one;
//! - whoever takes the last reading or hold of a copy that is not live is told so, once, and gives the memory back.
//!
//! Nothing can be added to a word that is neither live nor held: whoever adds to it finds, in the word that its own step replaces, somebody
//! who needs the copy and has not let go. So "last" happens exactly once. A writer is not alone with a word that is held: readings may come
//! and go between two steps of its own, so each of those is right whatever their number is then.
//!
//! Readings are short (a copy of the bytes, out or in): who needs the memory may wait for them. Holds are pins, leases and reservations, and
//! end when the host wants. The generation is the low 20 bits of the slot's; a look-up checks the whole of it afterwards.

use crate::sync::{AtomicU64, Ordering};

const READING: u64 = 1;
const READINGS: u64 = (1 << 23) - 1;
/// With all of these set no reader is let in any more: one reading less than fits, as a writer's hold becomes one.
const NO_MORE_READINGS: u64 = READINGS - READING;
const HOLD: u64 = 1 << 23;
const HOLDS: u64 = ((1 << 20) - 1) << 23;
const LIVE: u64 = 1 << 43;
const NEEDED: u64 = READINGS | HOLDS | LIVE;
const GENERATION_SHIFT: u32 = 44;

/// The count of one copy.
pub(crate) struct Count(AtomicU64);

/// What became of an attempt to read or hold a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attempt {
    /// Counted: the memory stays until it is given up again.
    Counted,
    /// Not live (nor held, where that is enough), or of another generation.
    Gone,
    /// As many as can be counted already.
    Full,
}

impl Count {
    #[cfg(test)]
    pub(crate) fn new() -> Count {
        Count(AtomicU64::new(0))
    }

    /// Starts a copy: not live, held once.
    pub(crate) fn reserve(&self, generation: u32) {
        self.0
            .store((u64::from(generation) << GENERATION_SHIFT) | HOLD, Ordering::Release);
    }

    /// Starts a copy whose bytes are just being written: not live, read once.
    pub(crate) fn expect(&self, generation: u32) {
        self.0
            .store((u64::from(generation) << GENERATION_SHIFT) | READING, Ordering::Release);
    }

    /// Makes the writer's hold on a reserved copy a reading: from now on it is only being written.
    pub(crate) fn arrive(&self) {
        if self.is_held() {
            self.0.fetch_sub(HOLD - READING, Ordering::AcqRel);
        }
    }

    /// Makes a reserved or arriving copy live; its writer's hold or reading becomes the index's reading.
    pub(crate) fn publish(&self) {
        // Between the two steps it is neither live nor held: nobody comes, and those who go leave the writer's reading.
        self.arrive();
        self.0.fetch_add(LIVE, Ordering::AcqRel);
    }

    /// Ends a writer's hold or reading of a copy that is not live; true when the caller must give the memory back. False, too, when the
    /// writer has none.
    #[must_use]
    pub(crate) fn end_writing(&self) -> bool {
        let word = self.0.load(Ordering::Acquire);
        word & LIVE == 0
            && (word & HOLDS != 0 && self.end_hold() || word & HOLDS == 0 && word & READINGS != 0 && self.end_reading())
    }

    /// Whether the copy's memory is in use: by readers, holders or the index.
    pub(crate) fn is_needed(&self) -> bool {
        self.0.load(Ordering::Acquire) & NEEDED != 0
    }

    /// Whether the copy can be found.
    pub(crate) fn is_live(&self, generation: u32) -> bool {
        let word = self.0.load(Ordering::Acquire);
        word & LIVE != 0 && is_of(word, generation)
    }

    pub(crate) fn is_held(&self) -> bool {
        self.0.load(Ordering::Acquire) & HOLDS != 0
    }

    /// Whether somebody reads it, beside the index.
    pub(crate) fn is_read(&self, generation: u32) -> bool {
        let word = self.0.load(Ordering::Acquire);
        !is_of(word, generation) || word & READINGS > READING
    }

    /// Counts a reader.
    pub(crate) fn read(&self, generation: u32) -> Attempt {
        self.add(generation, LIVE, READING, NO_MORE_READINGS)
    }

    /// Counts a reader of a copy that may be out of reach, as long as somebody holds it: for those who know it by its place.
    pub(crate) fn read_held(&self, generation: u32) -> Attempt {
        self.add(generation, LIVE | HOLDS, READING, NO_MORE_READINGS)
    }

    /// Counts a hold.
    pub(crate) fn hold(&self, generation: u32) -> Attempt {
        self.add(generation, LIVE, HOLD, HOLDS)
    }

    /// Counts a hold beside that of somebody who has one: of a copy that may be out of reach, for those who know it by its place.
    pub(crate) fn hold_held(&self, generation: u32) -> Attempt {
        self.add(generation, LIVE | HOLDS, HOLD, HOLDS)
    }

    /// Ends a reading; true when the caller must give the memory back.
    #[must_use]
    pub(crate) fn end_reading(&self) -> bool {
        is_last(self.0.fetch_sub(READING, Ordering::AcqRel) - READING)
    }

    /// Ends a hold; true when the caller must give the memory back.
    #[must_use]
    pub(crate) fn end_hold(&self) -> bool {
        is_last(self.0.fetch_sub(HOLD, Ordering::AcqRel) - HOLD)
    }

    /// Takes a live copy out of reach; true when the caller must give the memory back.
    #[must_use]
    pub(crate) fn retire(&self) -> bool {
        is_last(self.0.fetch_sub(LIVE + READING, Ordering::AcqRel) - (LIVE + READING))
    }

    /// As [`Count::retire`] when the copy is live and nobody holds it, else `None` and nothing has changed.
    pub(crate) fn retire_unheld(&self, generation: u32) -> Option<bool> {
        let mut word = self.0.load(Ordering::Acquire);
        loop {
            if word & LIVE == 0 || word & HOLDS != 0 || !is_of(word, generation) {
                return None;
            }
            let next = word - (LIVE + READING);
            match self
                .0
                .compare_exchange_weak(word, next, Ordering::AcqRel, Ordering::Acquire)
            {
                Ok(_) => return Some(is_last(next)),
                Err(now) => word = now,
            }
        }
    }

    /// Adds `one` while a bit of `needed` is set and not every bit of `all`.
    fn add(&self, generation: u32, needed: u64, one: u64, all: u64) -> Attempt {
        let mut word = self.0.load(Ordering::Acquire);
        loop {
            if word & needed == 0 || !is_of(word, generation) {
                return Attempt::Gone;
            }
            if word & all == all {
                return Attempt::Full;
            }
            match self
                .0
                .compare_exchange_weak(word, word + one, Ordering::AcqRel, Ordering::Acquire)
            {
                Ok(_) => return Attempt::Counted,
                Err(now) => word = now,
            }
        }
    }
}

fn is_of(word: u64, generation: u32) -> bool {
    word >> GENERATION_SHIFT == (u64::from(generation) << GENERATION_SHIFT) >> GENERATION_SHIFT
}

fn is_last(word: u64) -> bool {
    word & NEEDED == 0
}
