//! Who gets a free number.

use loom::sync::Arc;

use crate::free::FreeNumbers;
use crate::sync::{AtomicU32, Ordering};
use crate::{Memory, model, spawn};

/// A slab of three slots, each with what its owner writes.
struct Numbers {
    free: FreeNumbers,
    links: [AtomicU32; 3],
    memory: [Memory; 3],
}

impl Numbers {
    /// All of them free: 0 comes first.
    fn new() -> Arc<Numbers> {
        let numbers = Numbers {
            free: FreeNumbers::new(),
            links: [(); 3].map(|()| AtomicU32::new(0)),
            memory: [(); 3].map(|()| Memory::new(0)),
        };
        for number in (0..3).rev() {
            numbers.give_back(number);
        }
        Arc::new(numbers)
    }

    /// Takes a number, writes to its slot as its only owner, and to its link too, as an object does.
    fn take(&self, owner: u32) -> Option<u32> {
        let number = self.free.pop(|number| &self.links[number as usize])?;
        assert_eq!(self.memory[number as usize].read(), 0, "{number} has an owner");
        self.memory[number as usize].write(owner);
        self.links[number as usize].store(77, Ordering::Relaxed);
        Some(number)
    }

    fn give_back(&self, number: u32) {
        self.memory[number as usize].write(0);
        self.free.push(number, &self.links[number as usize]);
    }

    fn assert_all_there(&self) {
        let mut numbers: Vec<u32> = std::iter::from_fn(|| self.take(9)).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, [0, 1, 2], "a number was lost or is there twice");
    }
}

#[test]
fn a_free_number_has_one_taker_and_none_is_lost() {
    model(3, || {
        let numbers = Numbers::new();
        let other = spawn(&numbers, |numbers| {
            // Takes two and gives the first back first: the stack's head is the same again, what is below it is not.
            let (first, second) = (numbers.take(1).unwrap(), numbers.take(1).unwrap());
            numbers.give_back(first);
            numbers.give_back(second);
        });
        if let Some(number) = numbers.take(2) {
            numbers.give_back(number);
        }
        other.join().unwrap();
        numbers.assert_all_there();
    });
}

#[test]
fn three_that_take_and_give_back_keep_the_numbers_apart() {
    model(2, || {
        let numbers = Numbers::new();
        let use_one = |owner| {
            move |numbers: &Numbers| {
                let number = numbers.take(owner).unwrap();
                numbers.give_back(number);
            }
        };
        let others = [spawn(&numbers, use_one(1)), spawn(&numbers, use_one(2))];
        use_one(3)(&numbers);
        for other in others {
            other.join().unwrap();
        }
        numbers.assert_all_there();
    });
}
