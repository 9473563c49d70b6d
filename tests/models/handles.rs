//! Closing a store under calls, and with something of it still held.

use loom::sync::Arc;
use loom::sync::atomic::AtomicUsize;

use crate::gate::Line;
use crate::slot::Slot;
use crate::sync::{AtomicU64, Ordering};
use crate::{Memory, model_on_stripes, spawn};

/// A store of which something may be held by tokens.
struct Store {
    tokens: AtomicU64,
    memory: Memory,
    dropped: Arc<AtomicUsize>,
}

impl Store {
    fn is_unused(&self) -> bool {
        self.tokens.load(Ordering::Acquire) == 0
    }

    fn end_hold(&self) {
        assert_eq!(self.memory.read(), 0);
        self.tokens.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.memory.write(1);
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }
}

/// A place of the table with a store in it, its first.
struct Place {
    slot: Slot<Store, [Line; 3]>,
    dropped: Arc<AtomicUsize>,
}

impl Place {
    fn with_tokens(tokens: u64) -> Arc<Place> {
        let dropped = Arc::new(AtomicUsize::new(0));
        let slot = Slot::new([Line::new(), Line::new(), Line::new()]);
        assert_eq!(slot.claim(), Some(0));
        slot.fill(
            0,
            Store {
                tokens: AtomicU64::new(tokens),
                memory: Memory::new(0),
                dropped: Arc::clone(&dropped),
            },
        );
        Arc::new(Place { slot, dropped })
    }

    /// A call that ends a hold, by a thread with this line.
    fn end_hold(&self, line: usize) {
        let ended = self.slot.with_remains(0, line, Store::end_hold, Store::is_unused);
        assert!(ended.is_some(), "what is held can be ended");
    }

    fn close(&self, line: usize) -> bool {
        let Some(closing) = self.slot.begin_closing(0) else {
            return false;
        };
        closing.wait_for_calls();
        closing.finish(line, Store::is_unused);
        true
    }

    /// The store went, once, and its place is free for the next.
    fn assert_over(&self) {
        assert_eq!(
            self.dropped.load(Ordering::Relaxed),
            1,
            "the store was dropped so often"
        );
        assert!(self.slot.enter(0, 0).is_none(), "somebody got in after it was closed");
        assert_eq!(self.slot.claim(), Some(1), "its place is not free");
    }
}

#[test]
fn a_store_that_is_closed_under_a_call_goes_after_it() {
    model_on_stripes(3, || {
        let place = Place::with_tokens(0);
        let caller = spawn(&place, |place| {
            if let Some(store) = place.slot.enter(0, 0) {
                assert_eq!(store.memory.read(), 0);
            }
        });
        assert!(place.close(1));
        caller.join().unwrap();
        place.assert_over();
    });
}

#[test]
fn of_two_that_close_a_store_one_does() {
    model_on_stripes(3, || {
        let place = Place::with_tokens(0);
        let other = spawn(&place, |place| place.close(0));
        let is_mine = place.close(1);
        assert!(other.join().unwrap() != is_mine);
        place.assert_over();
    });
}

#[test]
fn the_last_hold_on_a_store_that_is_closed_ends_it_once() {
    model_on_stripes(3, || {
        let place = Place::with_tokens(1);
        let holder = spawn(&place, |place| place.end_hold(0));
        assert!(place.close(1));
        holder.join().unwrap();
        place.assert_over();
    });
}

#[test]
fn of_two_last_holds_on_a_store_that_is_closed_one_ends_it() {
    model_on_stripes(2, || {
        let place = Place::with_tokens(2);
        let holders = [0, 1].map(|line| spawn(&place, move |place| place.end_hold(line)));
        assert!(place.close(2));
        for holder in holders {
            holder.join().unwrap();
        }
        place.assert_over();
    });
}

#[test]
fn a_store_that_turns_out_to_be_in_use_is_open_again() {
    model_on_stripes(3, || {
        let place = Place::with_tokens(1);
        let holder = spawn(&place, |place| place.end_hold(0));
        let closing = place.slot.begin_closing(0).expect("nobody else closes it");
        closing.wait_for_calls();
        closing.give_up();
        holder.join().unwrap();
        assert_eq!(place.dropped.load(Ordering::Relaxed), 0);
        assert!(place.slot.enter(0, 0).is_some());
        assert!(place.close(1));
        place.assert_over();
    });
}
