//! What happened to which key, for a router that keeps a picture of the store.
//!
//! The data path appends to a bounded queue and never waits: when the listener is too slow, events are dropped and counted, and the
//! listener is told how many it has missed, so that it can ask for the whole list again. One thread hands them on, in order, in
//! pieces, with no lock held. Without a listener the cost is one load.
//!
//! Events of one key are in the order in which they took effect, as they are appended under the lock of the key's shard.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::error::{Error, Result, words};
use crate::key::MAX_KEY_BYTES;
use crate::segment::Medium;

/// Events that wait at most: about 4 MiB.
const QUEUE: usize = 16384;
/// Events handed on at once.
const PIECE: usize = 256;

thread_local! {
    /// On the events' own thread: which store's they are, by the address of its queue.
    static HEARING: Cell<usize> = const { Cell::new(0) };
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A copy became readable.
    Stored,
    /// A copy is gone: removed, evicted, or its segment unregistered.
    Removed,
}

/// One event.
#[derive(Clone, Copy)]
pub(crate) struct Event {
    pub(crate) kind: Kind,
    pub(crate) medium: Medium,
    pub(crate) rank: u32,
    key: [u8; MAX_KEY_BYTES],
    key_bytes: usize,
}

impl Event {
    pub(crate) fn new(kind: Kind, medium: Medium, rank: u32, key: &[u8]) -> Event {
        let mut event = Event {
            kind,
            medium,
            rank,
            key: [0; MAX_KEY_BYTES],
            key_bytes: key.len(),
        };
        event.key[..key.len()].copy_from_slice(key);
        event
    }

    pub(crate) fn key(&self) -> &[u8] {
        &self.key[..self.key_bytes]
    }
}

/// Who is told. Runs on the events' own thread.
pub(crate) trait Listener: Send + Sync {
    /// Takes events in order, and how many were dropped before them since the last call.
    fn hear(&self, events: &[Event], dropped: u64);
}

/// The queue and its thread.
pub(crate) struct Events {
    is_wanted: AtomicBool,
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

struct Queue {
    events: VecDeque<Event>,
    dropped: u64,
    is_closing: bool,
}

impl Events {
    pub(crate) fn new() -> Events {
        let queue = Queue {
            events: VecDeque::new(),
            dropped: 0,
            is_closing: false,
        };
        Events {
            is_wanted: AtomicBool::new(false),
            shared: Arc::new(Shared {
                queue: Mutex::new(queue),
                changed: Condvar::new(),
            }),
            thread: Mutex::new(None),
        }
    }

    pub(crate) fn are_wanted(&self) -> bool {
        self.is_wanted.load(Ordering::Relaxed)
    }

    /// Appends an event; false when it had to be dropped. Takes the queue's lock for that only.
    pub(crate) fn push(&self, event: Event) -> bool {
        let mut queue = self.shared.lock();
        if queue.is_closing {
            return true;
        }
        if queue.events.len() >= QUEUE {
            queue.dropped += 1;
            return false;
        }
        let was_empty = queue.events.is_empty();
        queue.events.push_back(event);
        drop(queue);
        if was_empty {
            self.shared.changed.notify_one();
        }
        true
    }

    /// Replaces the listener. Returns when the old one will not be called again; events that it had not got yet are dropped.
    /// `Busy` when called by the listener itself.
    pub(crate) fn listen(&self, listener: Option<Box<dyn Listener>>) -> Result<()> {
        if self.is_own_thread() {
            return Err(Error::Busy(
                "the event callback can't replace itself: call from another thread".into(),
            ));
        }
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if thread.is_some() {
            self.is_wanted.store(false, Ordering::Relaxed);
            self.shared.lock().is_closing = true;
            self.shared.changed.notify_one();
        }
        if let Some(running) = thread.take() {
            // The listener is C: it can't have panicked.
            let _ = running.join();
        }
        *self.shared.lock() = Queue {
            events: VecDeque::new(),
            dropped: 0,
            is_closing: false,
        };
        let Some(listener) = listener else { return Ok(()) };
        let no_memory = |_| Error::OutOfMemory(words!("no memory for a queue of {QUEUE} events"));
        self.shared.lock().events.try_reserve_exact(QUEUE).map_err(no_memory)?;
        let mut piece = Vec::new();
        piece.try_reserve_exact(PIECE).map_err(no_memory)?;
        let shared = Arc::clone(&self.shared);
        let running = std::thread::Builder::new()
            .name("mmc-events".into())
            .spawn(move || {
                HEARING.set(Arc::as_ptr(&shared).addr());
                shared.hand_on(listener.as_ref(), piece);
            })
            .map_err(|error| Error::OutOfMemory(words!("no thread for events: {error}")))?;
        *thread = Some(running);
        self.is_wanted.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Whether the calling thread is the one that calls the listener.
    pub(crate) fn is_own_thread(&self) -> bool {
        HEARING.get() == Arc::as_ptr(&self.shared).addr()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hand_on(&self, listener: &dyn Listener, mut piece: Vec<Event>) {
        loop {
            let mut queue = self.lock();
            while queue.events.is_empty() && !queue.is_closing {
                queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
            if queue.is_closing {
                return;
            }
            let some = queue.events.len().min(PIECE);
            piece.clear();
            piece.extend(queue.events.drain(..some));
            let dropped = std::mem::take(&mut queue.dropped);
            drop(queue);
            listener.hear(&piece, dropped);
        }
    }
}
