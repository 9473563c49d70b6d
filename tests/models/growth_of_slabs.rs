//! A slab that grows under those who look into it.

use std::convert::Infallible;

use loom::sync::Arc;

use crate::growth::{FIRST, Growth};
use crate::{Memory, model, spawn};

/// A chunk: what is known of it is that it was made before anybody finds it.
type Chunk = Memory;

const MADE: u32 = 0x600d;

fn make(_: usize) -> Result<Chunk, Infallible> {
    let chunk = Memory::new(0);
    chunk.write(MADE);
    Ok(chunk)
}

fn take(slab: &Growth<Chunk>) -> u32 {
    let Ok(number) = slab.take(make);
    number.expect("there are numbers left")
}

/// Looks into every slot that has been given, as a listing does.
fn look_at_all(slab: &Growth<Chunk>) {
    for number in [0, 1, FIRST] {
        if number < slab.bound() {
            look_at(slab, number);
        }
    }
}

fn look_at(slab: &Growth<Chunk>, number: u32) {
    let (chunk, _) = slab.find(number).expect("a number that was given has a slot");
    assert_eq!(chunk.read(), MADE);
}

#[test]
fn two_that_need_the_same_chunk_get_different_numbers_in_it() {
    model(3, || {
        let slab = Arc::new(Growth::new(u32::MAX));
        let other = spawn(&slab, |slab| {
            let number = take(slab);
            look_at(slab, number);
            number
        });
        let mine = take(&slab);
        look_at(&slab, mine);
        let others = other.join().unwrap();
        assert_eq!(mine + others, 1, "{mine} and {others}");
        assert_eq!(slab.bound(), 2);
    });
}

#[test]
fn a_number_below_the_bound_has_its_slot() {
    model(3, || {
        let slab = Arc::new(Growth::new(u32::MAX));
        let others = [
            spawn(&slab, |slab| assert_eq!(take(slab), 0)),
            spawn(&slab, look_at_all),
        ];
        look_at_all(&slab);
        for other in others {
            other.join().unwrap();
        }
        assert_eq!(slab.bound(), 1);
    });
}

#[test]
fn numbers_that_are_dealt_elsewhere_have_their_slots_once_they_are_reached() {
    model(3, || {
        let slab = Arc::new(Growth::new(u32::MAX));
        let reach = |number: u32| {
            move |slab: &Growth<Chunk>| {
                let Ok(reached) = slab.reach(number, make);
                reached.expect("it is below the limit");
                look_at(slab, number);
            }
        };
        // As two shards of an index that grow at once: the one that needs less may be the later.
        let others = [spawn(&slab, reach(FIRST)), spawn(&slab, reach(1))];
        look_at_all(&slab);
        for other in others {
            other.join().unwrap();
        }
        assert_eq!(slab.bound(), FIRST + 1);
        look_at_all(&slab);
    });
}
