//! Looking at a slot whose object comes and goes.

use loom::sync::Arc;
use loom::sync::atomic::AtomicBool;

use crate::life::{Life, LifeWord, State};
use crate::sync::{AtomicU64, Ordering};
use crate::{model, spawn};

/// A slot: its life, and the two words of its key.
struct Slot {
    life: LifeWord,
    key: [AtomicU64; 2],
}

impl Slot {
    fn new() -> Arc<Slot> {
        Arc::new(Slot {
            life: LifeWord::new(),
            key: [AtomicU64::new(0), AtomicU64::new(0)],
        })
    }

    /// As `Objects::create` makes an object; both words of its key are its generation.
    fn create(&self) {
        let generation = self.life.load().generation();
        self.life.begin();
        self.key
            .iter()
            .for_each(|word| word.store(u64::from(generation), Ordering::Relaxed));
        self.life.set(Life::new(generation, 1, State::Reserved, 16));
    }

    fn set_state(&self, state: State) {
        self.life.set(self.life.load().with_state(state));
    }

    /// As `Objects::finish` gives the slot up.
    fn finish(&self) {
        let next = self.life.load().generation() + 1;
        self.life.set(Life::new(next, 0, State::Free, 0));
    }

    /// As `Objects::read_key` reads it.
    fn read_key(&self) -> Option<(Life, [u64; 2])> {
        let life = self.life.load();
        if !life.is_named() {
            return None;
        }
        let key = [0, 1].map(|word: usize| self.key[word].load(Ordering::Relaxed));
        let life = self.life.again(life).filter(|life| life.is_named())?;
        Some((life, key))
    }
}

#[test]
fn a_key_that_is_read_is_whole_and_its_slots() {
    model(3, || {
        let slot = Slot::new();
        slot.create();
        let reader = spawn(&slot, |slot| {
            for _ in 0..2 {
                if let Some((life, key)) = slot.read_key() {
                    assert_eq!(key, [u64::from(life.generation()); 2], "a torn key");
                }
            }
        });
        for _ in 0..2 {
            slot.finish();
            slot.create();
        }
        reader.join().unwrap();
    });
}

#[test]
fn a_key_is_not_missed_because_its_object_is_published_meanwhile() {
    model(3, || {
        let slot = Slot::new();
        slot.create();
        let reader = spawn(&slot, |slot| {
            let (life, key) = slot.read_key().expect("it is there all the time");
            assert_eq!((life.generation(), key), (0, [0, 0]));
        });
        slot.set_state(State::Readable);
        reader.join().unwrap();
    });
}

#[test]
fn a_publisher_and_a_finder_agree_on_what_was_written() {
    model(3, || {
        let slot = Slot::new();
        let is_there = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&is_there);
        let reader = spawn(&slot, move |slot| {
            let was_there = seen.load(Ordering::Acquire);
            match slot.read_key() {
                Some((_, key)) => assert_eq!(key, [0, 0]),
                None => assert!(!was_there, "a key that is there was missed"),
            }
        });
        slot.create();
        is_there.store(true, Ordering::Release);
        slot.set_state(State::Readable);
        reader.join().unwrap();
    });
}
