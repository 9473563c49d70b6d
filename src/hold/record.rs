//! The record of one hold, and the token that names it.
//!
//! A token is 24 bits of the record's number under 40 bits of how often that record has been used. A record whose count is used up is
//! never used again, so no token comes twice. The record's word is its token with the state in place of the number, and every end of a
//! hold by its token is one compare-and-swap on it. What the record says is read before that, and is the token's if the swap succeeds: the
//! record is another's only after its uses have been counted on.

use crate::sync::{AtomicU32, AtomicU64, Ordering};

pub(super) const NUMBER_BITS: u32 = 24;
const NUMBER_MASK: u64 = (1 << NUMBER_BITS) - 1;
/// The last use that a record has: the one after it would repeat a token.
pub(super) const LAST_USE: u64 = (1 << (64 - NUMBER_BITS)) - 1;

/// What a record is, in its word's lower 24 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Free = 0,
    Pinned = 1,
    Reserved = 2,
    Expired = 3,
    Leased = 4,
}

/// One hold.
#[cfg_attr(test, derive(Default))]
pub(super) struct Record {
    /// Use count above, [`State`] below.
    pub(super) word: AtomicU64,
    /// When it ends, in milliseconds of the store's clock.
    pub(super) end: AtomicU64,
    /// The object.
    pub(super) slot: AtomicU32,
    /// Which of its copies, a bit each.
    copies: AtomicU32,
    /// Its place in the heap of ends.
    pub(super) position: AtomicU32,
    /// Free: the next free record. Leased: a link to the next child of the same parent ([`super::leases`]).
    pub(super) next: AtomicU32,
    /// A link to the first child.
    pub(super) child: AtomicU32,
    /// Leases of the object, if this is the one that ends first; else a link back in their heap.
    pub(super) count: AtomicU32,
}

/// What a hold is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) slot: u32,
    /// A bit for each copy.
    pub(crate) copies: u32,
}

impl Record {
    /// Begins a hold on a record that is the caller's alone; which use of it this is.
    pub(super) fn begin(&self, held: Held, state: State, end: u64) -> u64 {
        self.slot.store(held.slot, Ordering::Relaxed);
        self.copies.store(held.copies, Ordering::Relaxed);
        self.end.store(end, Ordering::Relaxed);
        let uses = (self.word.load(Ordering::Relaxed) >> NUMBER_BITS) + 1;
        self.word.store((uses << NUMBER_BITS) | state as u64, Ordering::Release);
        uses
    }

    /// Ends the hold of this token if it is in this state: then the record is the caller's alone.
    pub(super) fn end(&self, token: u64, state: State) -> Option<Held> {
        let uses = token & !NUMBER_MASK;
        let held = self.held();
        let (from, to) = (uses | state as u64, uses | State::Free as u64);
        let ended = self
            .word
            .compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed);
        ended.is_ok().then_some(held)
    }

    pub(super) fn held(&self) -> Held {
        Held {
            slot: self.slot.load(Ordering::Relaxed),
            copies: self.copies.load(Ordering::Relaxed),
        }
    }

    pub(super) fn state(&self) -> State {
        match self.word.load(Ordering::Relaxed) & NUMBER_MASK {
            0 => State::Free,
            1 => State::Pinned,
            2 => State::Reserved,
            3 => State::Expired,
            _ => State::Leased,
        }
    }

    /// Whether it is the hold of this token, in this state.
    pub(super) fn is(&self, token: u64, state: State) -> bool {
        self.word.load(Ordering::Relaxed) == (token & !NUMBER_MASK) | state as u64
    }

    /// Changes the state, of a hold that nobody ends meanwhile.
    pub(super) fn set_state(&self, state: State) {
        let uses = self.word.load(Ordering::Relaxed) & !NUMBER_MASK;
        self.word.store(uses | state as u64, Ordering::Release);
    }

    /// Whether it may hold once more.
    pub(super) fn has_uses_left(&self) -> bool {
        self.word.load(Ordering::Relaxed) >> NUMBER_BITS < LAST_USE
    }
}

pub(super) fn token_of(uses: u64, number: u32) -> u64 {
    (uses << NUMBER_BITS) | u64::from(number)
}

pub(super) fn number_of(token: u64) -> u32 {
    (token & NUMBER_MASK) as u32
}
