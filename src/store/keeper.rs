//! The store's background thread: eviction to the low watermark, by dropping or by waking the mover, and ends of leases and terms.
//!
//! It wakes a few times a second, and at once when a put has passed the high watermark. It takes the same steps as a put that
//! evicts, one object at a time, and holds no lock between them, so it may stop anywhere without stopping anybody: puts then make
//! room for themselves.

mod bell;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{JoinHandle, Thread};
use std::time::Duration;

use bell::Bell;

use crate::error::{Error, Result, words};
use crate::log::{Level, say};

use super::Store;

/// Time between two rounds: what is overdue goes within a second.
const ROUND: Duration = Duration::from_millis(250);

/// The thread, and how to wake it.
pub(super) struct Keeper {
    running: Mutex<Option<JoinHandle<()>>>,
    thread: OnceLock<Thread>,
    bell: Bell,
    is_stopping: AtomicBool,
}

/// Starts the thread of an opened store. It keeps the store until [`Keeper::stop`].
pub(super) fn start(store: &Arc<Store>) -> Result<()> {
    let kept = Arc::clone(store);
    let running = std::thread::Builder::new()
        .name("mmc-keeper".into())
        .spawn(move || kept.keep())
        .map_err(|error| Error::OutOfMemory(words!("no thread for the store's upkeep: {error}")))?;
    let _ = store.keeper.thread.set(running.thread().clone());
    *store.keeper.running.lock().unwrap_or_else(PoisonError::into_inner) = Some(running);
    Ok(())
}

impl Keeper {
    pub(super) fn new() -> Keeper {
        Keeper {
            running: Mutex::new(None),
            thread: OnceLock::new(),
            bell: Bell::new(),
            is_stopping: AtomicBool::new(false),
        }
    }

    /// Asks for a round now. Cheap when one is on its way.
    pub(super) fn wake(&self) {
        if self.bell.ring()
            && let Some(thread) = self.thread.get()
        {
            thread.unpark();
        }
    }

    /// Ends the thread and waits for it.
    pub(super) fn stop(&self) {
        self.is_stopping.store(true, Ordering::Release);
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(running) = running {
            running.thread().unpark();
            // A panic in it was a defect that its own thread has reported; the store is going anyway.
            let _ = running.join();
        }
    }
}

impl Store {
    fn keep(&self) {
        while !self.keeper.is_stopping.load(Ordering::Acquire) {
            std::thread::park_timeout(ROUND);
            self.keeper.bell.answer();
            // A defect in one round must not end leases and terms for good.
            if catch_unwind(AssertUnwindSafe(|| self.round())).is_err() {
                say!(
                    Level::Error,
                    "defect of the library: a round of the store's upkeep panicked"
                );
            }
        }
    }

    fn round(&self) {
        self.sweep_at(self.clock.heard());
        for registered in self.segments.open() {
            if self.is_above(registered, self.watermark_high) {
                if self.has_way_down(registered.segment.medium) {
                    self.mover.wake();
                } else {
                    self.evict_to_low(registered);
                }
            }
        }
    }
}
