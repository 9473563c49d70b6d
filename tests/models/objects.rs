//! An object that goes while somebody has just found it, and the next one in its slot.
//!
//! The steps are those of `Objects` and `Store`, on the very words. The next object's generation has the same low bits, all that a count
//! has of it: the slot has been used as often meanwhile as a slow thread of a busy store may see.

use loom::sync::Arc;

use crate::count::{Attempt, Count};
use crate::life::{Life, LifeWord, State};
use crate::sync::{AtomicU32, Ordering};
use crate::{Memory, model, spawn};

const FIRST: u32 = 7;
const NEXT: u32 = FIRST + (1 << 20);

/// A slot with one copy, and the memory where every copy of it lies.
struct Slot {
    life: LifeWord,
    count: Count,
    outstanding: AtomicU32,
    memory: Memory,
}

impl Slot {
    /// A slot with the readable object of [`FIRST`], or one that was lent to be written.
    fn with_first(state: State) -> Arc<Slot> {
        let slot = Slot {
            life: LifeWord::new(),
            count: Count::new(),
            outstanding: AtomicU32::new(0),
            memory: Memory::new(0),
        };
        slot.create(FIRST, state);
        Arc::new(slot)
    }

    /// As `Objects::create` and what a put, or a reservation, does then. The bytes are the generation.
    fn create(&self, generation: u32, state: State) {
        self.life.begin();
        self.outstanding.store(1, Ordering::Relaxed);
        self.life.set(Life::new(generation, 1, State::Reserved, 1));
        self.outstanding.fetch_add(1, Ordering::Relaxed);
        self.count.reserve(generation);
        self.memory.write(generation);
        if state == State::Readable {
            self.count.publish();
        }
        self.life.set(self.life.load().with_state(state));
    }

    /// As `Objects::finish`; true when it gave the slot up.
    fn finish(&self) -> bool {
        if self.outstanding.fetch_sub(1, Ordering::AcqRel) != 1 {
            return false;
        }
        self.life.set(Life::new(NEXT, 0, State::Free, 0));
        true
    }

    /// As `Store::retire_object`; true when the slot was given up.
    fn retire(&self) -> bool {
        self.life.set(self.life.load().with_state(State::Gone));
        if self.count.retire() {
            assert!(!self.finish(), "its name is not finished");
        }
        self.finish()
    }

    /// As `Writing`'s end when it is dropped; true when the slot was given up.
    fn give_up_writing(&self) -> bool {
        self.life.set(self.life.load().with_state(State::Gone));
        if self.count.end_writing() {
            assert!(!self.finish(), "its name is not finished");
        }
        self.finish()
    }

    /// As `Reading`'s end.
    fn end_reading(&self) {
        if self.count.end_reading() {
            self.finish();
        }
    }

    /// As `Store::read_object`, once.
    fn read(&self) -> Option<u32> {
        let life = self.life.load();
        if life.state() != State::Readable || self.count.read(life.generation()) != Attempt::Counted {
            return None;
        }
        let is_its = self.life.load().generation() == life.generation();
        let bytes = is_its.then(|| self.memory.read());
        self.end_reading();
        assert!(
            bytes.is_none_or(|bytes| bytes == life.generation()),
            "another object's bytes"
        );
        bytes
    }

    /// As `Store::begin_reading_at` for who writes by the address of what was lent to him, once.
    fn write_at(&self) {
        let life = self.life.load();
        if life.state() != State::Lent || self.count.read_held(life.generation()) != Attempt::Counted {
            return;
        }
        if self.life.load() == life {
            assert_eq!(self.memory.read(), life.generation(), "another object's memory");
            self.memory.write(life.generation());
        }
        self.end_reading();
    }
}

#[test]
fn what_is_read_is_the_object_that_was_found_whatever_came_into_its_slot() {
    model(3, || {
        let slot = Slot::with_first(State::Readable);
        let reader = spawn(&slot, Slot::read);
        if slot.retire() {
            slot.create(NEXT, State::Readable);
            assert_eq!(slot.read(), Some(NEXT));
        }
        reader.join().unwrap();
        assert!(slot.life.load().generation() == NEXT, "the slot was lost");
    });
}

#[test]
fn what_is_written_by_address_is_what_was_lent_whatever_came_into_its_slot() {
    model(3, || {
        let slot = Slot::with_first(State::Lent);
        let writer = spawn(&slot, Slot::write_at);
        if slot.give_up_writing() {
            slot.create(NEXT, State::Readable);
            assert_eq!(slot.read(), Some(NEXT), "it was written after it was published");
        }
        writer.join().unwrap();
        assert!(slot.life.load().generation() == NEXT, "the slot was lost");
    });
}

#[test]
fn a_slot_is_given_up_once_whoever_lets_go_last() {
    model(3, || {
        let slot = Slot::with_first(State::Readable);
        let readers = [spawn(&slot, Slot::read), spawn(&slot, Slot::read)];
        slot.retire();
        for reader in readers {
            reader.join().unwrap();
        }
        assert_eq!(slot.outstanding.load(Ordering::Relaxed), 0);
        assert_eq!(slot.life.load(), Life::new(NEXT, 0, State::Free, 0));
        assert_eq!(slot.read(), None);
    });
}
