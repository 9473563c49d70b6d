//! Who goes in while somebody shuts the gate.

use loom::sync::Arc;
use loom::sync::atomic::AtomicUsize;
use loom::thread;

use crate::gate::{Gate, Line};
use crate::sync::{Ordering, share_stripes};
use crate::{Memory, model, model_on_stripes, spawn};

/// What stands behind a gate: it may be freed once the gate is shut and nobody is inside.
struct House {
    gate: Gate<[Line; 3]>,
    inside: Memory,
}

const OPEN: u64 = 1;
const SHUT: u64 = 2;

impl House {
    fn new() -> Arc<House> {
        Arc::new(House {
            gate: Gate::new([Line::new(), Line::new(), Line::new()], OPEN),
            inside: Memory::new(0),
        })
    }

    fn visit(&self, line: usize) -> bool {
        if self.gate.enter(line, |state| state == OPEN).is_err() {
            return false;
        }
        assert_eq!(self.inside.read(), 0);
        self.gate.leave(line);
        true
    }

    fn tear_down(&self) {
        self.inside.write(1);
    }
}

#[test]
fn nobody_is_inside_once_the_gate_is_shut_and_empty() {
    model_on_stripes(3, || {
        let house = House::new();
        let visitors = [0, 1].map(|line| spawn(&house, move |house| house.visit(line)));
        assert!(house.gate.change(OPEN, SHUT));
        house.gate.wait_until_empty();
        house.tear_down();
        assert!(!house.visit(2), "somebody got in after it was shut");
        for visitor in visitors {
            visitor.join().unwrap();
        }
        assert!(house.gate.is_empty(), "an entry or a leave was lost");
    });
}

#[test]
fn two_on_one_line_are_both_counted() {
    share_stripes(true);
    model(3, || {
        let house = House::new();
        let visitor = spawn(&house, |house| house.visit(0));
        let closer = spawn(&house, |house| {
            assert!(house.gate.change(OPEN, SHUT));
            house.gate.wait_until_empty();
            house.tear_down();
        });
        house.visit(0);
        visitor.join().unwrap();
        closer.join().unwrap();
    });
}

#[test]
fn of_two_that_shut_a_gate_one_does() {
    model_on_stripes(3, || {
        let house = House::new();
        let shut = Arc::new(AtomicUsize::new(0));
        let closers = [(); 2].map(|()| {
            let (house, shut) = (Arc::clone(&house), Arc::clone(&shut));
            thread::spawn(move || {
                if house.gate.change(OPEN, SHUT) {
                    shut.fetch_add(1, Ordering::Relaxed);
                }
            })
        });
        for closer in closers {
            closer.join().unwrap();
        }
        assert_eq!(shut.load(Ordering::Relaxed), 1);
    });
}
