//! Asking the store's keeper for a round.

use loom::sync::Arc;
use loom::thread;

use crate::bell::Bell;
use crate::sync::{AtomicBool, Ordering};
use crate::{model, spawn};

/// As the store's keeper: it looks at everything whenever it was asked, and sleeps when there is nothing to do.
#[test]
fn who_rings_the_bell_has_what_he_changed_looked_at() {
    struct Keeper {
        bell: Bell,
        changes: [AtomicBool; 2],
    }
    model(2, || {
        let keeper = Arc::new(Keeper {
            bell: Bell::new(),
            changes: [AtomicBool::new(false), AtomicBool::new(false)],
        });
        let worker = spawn(&keeper, |keeper| {
            while !keeper.changes.iter().all(|change| change.load(Ordering::Relaxed)) {
                thread::park();
                keeper.bell.answer();
            }
        });
        let ringers = [0, 1].map(|number| {
            let thread = worker.thread().clone();
            spawn(&keeper, move |keeper| {
                keeper.changes[number].store(true, Ordering::Relaxed);
                if keeper.bell.ring() {
                    thread.unpark();
                }
            })
        });
        for ringer in ringers {
            ringer.join().unwrap();
        }
        worker.join().unwrap();
    });
}
