//! Who reads, holds, writes and retires one copy of an object, by its key and by its address.

use loom::sync::Arc;
use loom::sync::atomic::AtomicUsize;

use crate::count::{Attempt, Count};
use crate::sync::Ordering;
use crate::{Memory, model, spawn};

/// One copy of an object: its count, and its memory.
struct Copy {
    count: Count,
    memory: Memory,
    given_back: AtomicUsize,
}

const GENERATION: u32 = 7;
const BYTES: u32 = 0x600d;

impl Copy {
    /// A copy that is reserved.
    fn reserved() -> Arc<Copy> {
        let copy = Copy::unused();
        copy.count.reserve(GENERATION);
        Arc::new(copy)
    }

    /// A copy whose bytes are just being written.
    fn arriving() -> Arc<Copy> {
        let copy = Copy::unused();
        copy.count.expect(GENERATION);
        Arc::new(copy)
    }

    fn unused() -> Copy {
        Copy {
            count: Count::new(),
            memory: Memory::new(0),
            given_back: AtomicUsize::new(0),
        }
    }

    /// A copy that can be read.
    fn published() -> Arc<Copy> {
        let copy = Copy::reserved();
        copy.write();
        copy.count.publish();
        copy
    }

    fn write(&self) {
        self.memory.write(BYTES);
    }

    /// Reads the memory, as whoever is counted may.
    fn check(&self) {
        assert_eq!(self.memory.read(), BYTES);
    }

    /// What the last one does: the memory is another's now.
    fn give_back_if(&self, is_last: bool) {
        if is_last {
            assert_eq!(self.given_back.fetch_add(1, Ordering::Relaxed), 0, "given back twice");
            self.memory.write(0xbad);
        }
    }

    /// A reader, if it gets in.
    fn read(&self) -> bool {
        let is_counted = self.count.read(GENERATION) == Attempt::Counted;
        if is_counted {
            self.check();
            self.give_back_if(self.count.end_reading());
        }
        is_counted
    }

    /// A holder, if it gets in.
    fn hold(&self) -> bool {
        let is_counted = self.count.hold(GENERATION) == Attempt::Counted;
        if is_counted {
            self.check();
            self.give_back_if(self.count.end_hold());
        }
        is_counted
    }

    /// Somebody who copies by the copy's address, if it gets in: `act` is the copying.
    fn copy_by_address(&self, act: impl FnOnce(&Memory)) -> bool {
        let is_counted = self.count.read_held(GENERATION) == Attempt::Counted;
        if is_counted {
            act(&self.memory);
            self.give_back_if(self.count.end_reading());
        }
        is_counted
    }

    /// Nobody gets in any more, and the memory has gone back.
    fn assert_over(&self) {
        assert_eq!(self.count.read(GENERATION), Attempt::Gone);
        assert_eq!(self.count.read_held(GENERATION), Attempt::Gone);
        assert_eq!(self.count.hold(GENERATION), Attempt::Gone);
        assert_eq!(self.given_back.load(Ordering::Relaxed), 1, "memory was lost");
    }
}

#[test]
fn memory_of_a_removed_copy_goes_back_once_and_never_under_a_reader_or_a_holder() {
    model(3, || {
        let copy = Copy::published();
        let reader = spawn(&copy, Copy::read);
        let holder = spawn(&copy, Copy::hold);
        copy.give_back_if(copy.count.retire());
        assert!(!copy.read(), "a reader got in after the removal");
        reader.join().unwrap();
        holder.join().unwrap();
        copy.assert_over();
    });
}

#[test]
fn eviction_takes_no_copy_that_is_held_and_no_copy_twice() {
    model(3, || {
        let copy = Copy::published();
        let evict = |copy: &Copy| {
            let retired = copy.count.retire_unheld(GENERATION);
            copy.give_back_if(retired == Some(true));
            retired.is_some()
        };
        let holder = spawn(&copy, |copy| {
            if copy.count.hold(GENERATION) == Attempt::Counted {
                copy.check();
                // Held, so no eviction comes between: it is there still.
                assert!(copy.count.is_live(GENERATION));
                copy.give_back_if(copy.count.end_hold());
            }
        });
        let other = spawn(&copy, evict);
        evict(&copy);
        holder.join().unwrap();
        other.join().unwrap();
        if copy.count.is_live(GENERATION) {
            assert!(evict(&copy), "nobody holds it");
        }
        copy.assert_over();
    });
}

#[test]
fn eviction_passes_a_copy_over_while_it_is_pinned() {
    model(3, || {
        let copy = Copy::published();
        assert_eq!(copy.count.hold(GENERATION), Attempt::Counted);
        let evictor = spawn(&copy, |copy| {
            if let Some(is_last) = copy.count.retire_unheld(GENERATION) {
                copy.give_back_if(is_last);
            }
        });
        copy.check();
        copy.give_back_if(copy.count.end_hold());
        evictor.join().unwrap();
        match copy.count.retire_unheld(GENERATION) {
            Some(is_last) => copy.give_back_if(is_last),
            None => assert!(!copy.count.is_live(GENERATION)),
        }
        copy.assert_over();
    });
}

#[test]
fn a_reader_sees_the_bytes_of_a_copy_that_it_finds_published() {
    model(3, || {
        let copy = Copy::reserved();
        let reader = spawn(&copy, Copy::read);
        let evictor = spawn(&copy, |copy| {
            copy.give_back_if(copy.count.retire_unheld(GENERATION) == Some(true));
        });
        copy.write();
        copy.count.publish();
        reader.join().unwrap();
        evictor.join().unwrap();
        if copy.count.is_live(GENERATION) {
            copy.give_back_if(copy.count.retire());
        }
        copy.assert_over();
    });
}

#[test]
fn a_copy_that_was_only_being_written_is_published_with_its_bytes_and_nobody_writes_it_by_address() {
    model(3, || {
        let copy = Copy::arriving();
        let reader = spawn(&copy, Copy::read);
        let other = spawn(&copy, |copy| {
            assert!(!copy.copy_by_address(|_| ()) || copy.count.is_live(GENERATION));
            if !copy.count.is_read(GENERATION) {
                copy.give_back_if(copy.count.retire_unheld(GENERATION) == Some(true));
            }
        });
        copy.write();
        copy.count.publish();
        reader.join().unwrap();
        other.join().unwrap();
        if copy.count.is_live(GENERATION) {
            copy.give_back_if(copy.count.retire());
        }
        copy.assert_over();
    });
}

#[test]
fn a_put_that_fails_while_its_bytes_are_written_gives_the_memory_back() {
    model(3, || {
        let copy = Copy::arriving();
        let reader = spawn(&copy, Copy::read);
        copy.write();
        copy.give_back_if(copy.count.end_writing());
        assert!(!reader.join().unwrap(), "a copy that was never published was read");
        copy.assert_over();
    });
}

#[test]
fn a_copy_that_is_made_in_the_place_of_another_is_not_read_for_it() {
    model(3, || {
        let copy = Copy::published();
        let reader = spawn(&copy, Copy::read);
        if copy.count.retire() {
            copy.give_back_if(true);
            // The slot has another object now, whose memory is being written.
            copy.count.reserve(GENERATION + 1);
            copy.memory.write(1);
            copy.count.publish();
        }
        reader.join().unwrap();
        assert_eq!(copy.given_back.load(Ordering::Relaxed), 1, "memory was lost");
    });
}

#[test]
fn memory_of_a_reservation_goes_back_once_and_never_under_those_who_copy_by_its_address() {
    model(3, || {
        let copy = Copy::reserved();
        let copiers = [(); 2].map(|()| {
            spawn(&copy, |copy| {
                copy.copy_by_address(|memory| assert_eq!(memory.read(), 0));
            })
        });
        copy.give_back_if(copy.count.end_writing());
        assert!(!copy.copy_by_address(|_| ()), "it was held by nobody any more");
        for copier in copiers {
            copier.join().unwrap();
        }
        copy.assert_over();
    });
}

#[test]
fn memory_that_another_process_writes_by_address_goes_back_once_and_is_not_evicted_from_under_it() {
    for is_committed in [true, false] {
        model(3, move || {
            let copy = Copy::reserved();
            copy.write();
            let guest = spawn(&copy, |copy| {
                let is_counted = copy.count.hold_held(GENERATION) == Attempt::Counted;
                if is_counted {
                    copy.check();
                    copy.give_back_if(copy.count.end_hold());
                }
            });
            let evictor = spawn(&copy, |copy| {
                copy.give_back_if(copy.count.retire_unheld(GENERATION) == Some(true));
            });
            match is_committed {
                true => copy.count.publish(),
                false => copy.give_back_if(copy.count.end_writing()),
            }
            guest.join().unwrap();
            evictor.join().unwrap();
            if copy.count.is_live(GENERATION) {
                copy.give_back_if(copy.count.retire());
            }
            copy.assert_over();
        });
    }
}

#[test]
fn a_commit_in_the_middle_of_a_copy_by_address_loses_no_count() {
    model(3, || {
        let copy = Copy::reserved();
        copy.write();
        let copiers = [(); 2].map(|()| {
            spawn(&copy, |copy| {
                copy.copy_by_address(|memory| assert_eq!(memory.read(), BYTES));
            })
        });
        copy.count.publish();
        assert!(copy.read(), "it is there until it is retired");
        copy.give_back_if(copy.count.retire());
        for copier in copiers {
            copier.join().unwrap();
        }
        copy.assert_over();
    });
}

#[test]
fn a_put_that_settles_in_the_middle_of_a_copy_by_address_ends_as_it_would() {
    model(3, || {
        let copy = Copy::reserved();
        let copier = spawn(&copy, |copy| {
            copy.copy_by_address(|memory| assert_eq!(memory.read(), 0));
        });
        copy.count.arrive();
        assert!(!copy.copy_by_address(|_| ()), "its writer holds it no longer");
        copy.give_back_if(copy.count.end_writing());
        copier.join().unwrap();
        copy.assert_over();
    });
}

#[test]
fn memory_under_the_last_lease_goes_back_once_and_never_under_those_who_copy_by_its_address() {
    model(3, || {
        let copy = Copy::published();
        assert_eq!(copy.count.hold(GENERATION), Attempt::Counted);
        let copiers = [(); 2].map(|()| {
            spawn(&copy, |copy| {
                copy.copy_by_address(|memory| assert_eq!(memory.read(), BYTES));
            })
        });
        copy.give_back_if(copy.count.retire());
        copy.give_back_if(copy.count.end_hold());
        assert!(!copy.copy_by_address(|_| ()), "the lease was over");
        for copier in copiers {
            copier.join().unwrap();
        }
        copy.assert_over();
    });
}

#[test]
fn bytes_that_were_written_by_address_are_seen_by_who_finds_the_copy_published() {
    model(3, || {
        let copy = Copy::reserved();
        let reader = spawn(&copy, Copy::read);
        let writer = spawn(&copy, |copy| copy.copy_by_address(|memory| memory.write(BYTES)));
        assert!(writer.join().unwrap(), "it is held until it is published");
        copy.count.publish();
        reader.join().unwrap();
        copy.give_back_if(copy.count.retire());
        copy.assert_over();
    });
}

#[test]
fn a_copy_that_is_made_in_the_place_of_another_is_not_written_for_it() {
    model(3, || {
        let copy = Copy::reserved();
        let copier = spawn(&copy, |copy| {
            copy.copy_by_address(|memory| assert_eq!(memory.read(), 0));
        });
        if copy.count.end_writing() {
            copy.give_back_if(true);
            // The slot has another object now, whose memory is being written.
            copy.count.reserve(GENERATION + 1);
            copy.memory.write(1);
            copy.count.publish();
        }
        copier.join().unwrap();
        assert_eq!(copy.given_back.load(Ordering::Relaxed), 1, "memory was lost");
    });
}
