//! The word that says which object a slot has, and how to look at a slot without a lock.
//!
//! A seqlock whose sequence is the slot's generation. A writer that makes an object calls [`LifeWord::begin`], writes the object's words
//! (relaxed), and sets the word last; when the object goes, it sets the word to the next generation first. A reader loads the
//! word, reads what it needs (relaxed), and asks [`LifeWord::again`]: an answer means that all it read belongs to the object of
//! that generation. The state may change meanwhile, the object's words don't: so a change of state alone is no reason to miss an
//! object, and the reader gets the state as it is then. (Fences as in Boehm, "Can seqlocks get along with programming language
//! memory models?", 2012.)

use crate::sync::{AtomicU64, Ordering, fence};

/// Where an object stands in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// The slot has no object.
    Free = 0,
    /// The key is taken, the bytes are being written.
    Reserved = 1,
    /// As `Reserved`; the bytes are written by whoever the memory was lent to, not by a call that is under way.
    Lent = 2,
    /// Everybody can read it.
    Readable = 3,
    /// Out of the index; somebody may still read or hold a copy.
    Gone = 4,
}

/// Which object a slot has: generation, turn, copies, state, length of the key, and whether it belongs on a device.
///
/// The turn is how often a copy was added to the object while everybody could read it, in seven bits. It is what tells a reader who found
/// every copy gone that the object has only moved meanwhile: then the life is another, and he looks again. He would take a move
/// for a miss only if the object moved a multiple of 128 times while he was looking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Life(u64);

const STATE_SHIFT: u32 = 16;
const STATE: u64 = 0xf << STATE_SHIFT;
const COPIES_SHIFT: u32 = 20;
const COPIES: u64 = 0xf << COPIES_SHIFT;
const IS_OF_DEVICE: u64 = 1 << 24;
const TURN: u64 = 1 << 25;
const TURNS: u64 = 0x7f << 25;

impl Life {
    pub(crate) fn new(generation: u32, copies: usize, state: State, key_bytes: usize) -> Life {
        Life(
            (u64::from(generation) << 32)
                | ((copies as u64) << COPIES_SHIFT)
                | ((state as u64) << STATE_SHIFT)
                | key_bytes as u64,
        )
    }

    /// How often the slot had been given up before this object came.
    pub(crate) fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }

    pub(crate) fn state(self) -> State {
        match (self.0 & STATE) >> STATE_SHIFT {
            0 => State::Free,
            1 => State::Reserved,
            2 => State::Lent,
            3 => State::Readable,
            _ => State::Gone,
        }
    }

    /// Whether the object can be found: its name is in the index, or about to be.
    pub(crate) fn is_named(self) -> bool {
        matches!(self.state(), State::Reserved | State::Lent | State::Readable)
    }

    /// Copies that it has had at once, at most; some may be gone.
    pub(crate) fn copies(self) -> usize {
        ((self.0 & COPIES) >> COPIES_SHIFT) as usize
    }

    /// Whether it was put into memory that only a device's callback reaches, so that its readers' buffers may be such memory, too.
    pub(crate) fn is_of_device(self) -> bool {
        self.0 & IS_OF_DEVICE != 0
    }

    pub(crate) fn key_bytes(self) -> usize {
        (self.0 & 0xffff) as usize
    }

    pub(crate) fn with_state(self, state: State) -> Life {
        Life((self.0 & !STATE) | ((state as u64) << STATE_SHIFT))
    }

    pub(crate) fn of_device(self) -> Life {
        Life(self.0 | IS_OF_DEVICE)
    }

    /// One turn later, with the copy of this number.
    pub(crate) fn with_copy(self, copy: usize) -> Life {
        let copies = (self.copies().max(copy + 1) as u64) << COPIES_SHIFT;
        let turns = (self.0 & TURNS).wrapping_add(TURN) & TURNS;
        Life((self.0 & !(COPIES | TURNS)) | copies | turns)
    }
}

/// A slot's [`Life`].
#[repr(transparent)]
pub(crate) struct LifeWord(AtomicU64);

impl LifeWord {
    #[cfg(test)]
    pub(crate) fn new() -> LifeWord {
        LifeWord(AtomicU64::new(0))
    }

    pub(crate) fn load(&self) -> Life {
        Life(self.0.load(Ordering::Acquire))
    }

    /// Before the first word of a new object is written: nobody may see it and still the life of the object before.
    pub(crate) fn begin(&self) {
        fence(Ordering::Release);
    }

    pub(crate) fn set(&self, life: Life) {
        self.0.store(life.0, Ordering::Release);
    }

    /// The life now, if everything that was read since `life` was loaded belongs to the object of `life`.
    pub(crate) fn again(&self, life: Life) -> Option<Life> {
        fence(Ordering::Acquire);
        let now = self.load();
        (now.generation() == life.generation()).then_some(now)
    }
}
