//! Waiting for memory to come back, at no cost to those who give it back while nobody waits.
//!
//! Who waits is counted before he takes the lock and looks; who gives back does that under the lock, and looks at the count after it. So of
//! the two that meet, either the one finds the memory back or the other finds him counted, and wakes him.

use std::time::Duration;

use crate::sync::{AtomicU32, Condvar, Mutex, Ordering, PoisonError};

/// How long a waiter sleeps before he looks again: for what changes outside of the lock, a copy that becomes readable say.
const RECHECK: Duration = Duration::from_millis(20);

/// Those who wait.
pub(super) struct Freed {
    changed: Condvar,
    /// How many: without one nobody needs to be woken.
    waiters: AtomicU32,
}

impl Freed {
    pub(super) fn new() -> Freed {
        Freed {
            changed: Condvar::new(),
            waiters: AtomicU32::new(0),
        }
    }

    /// Sleeps unless what the lock guards is ready; woken or not, the caller looks again.
    pub(super) fn wait<T>(&self, guarded: &Mutex<T>, is_ready: impl FnOnce(&T) -> bool) {
        self.waiters.fetch_add(1, Ordering::SeqCst);
        let guard = guarded.lock().unwrap_or_else(PoisonError::into_inner);
        if !is_ready(&guard) {
            drop(
                self.changed
                    .wait_timeout(guard, RECHECK)
                    .unwrap_or_else(PoisonError::into_inner),
            );
        }
        self.waiters.fetch_sub(1, Ordering::SeqCst);
    }

    /// Wakes everybody, after a change under the lock.
    pub(super) fn wake(&self) {
        if self.waiters.load(Ordering::SeqCst) > 0 {
            self.changed.notify_all();
        }
    }

    /// Whether somebody waits.
    #[cfg(test)]
    pub(super) fn is_waited_for(&self) -> bool {
        self.waiters.load(Ordering::SeqCst) > 0
    }
}
