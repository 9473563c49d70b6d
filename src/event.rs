//! What happened to which key, for a router that keeps a picture of the store.
//!
//! The data path appends to a bounded queue and never waits: when the listener is too slow, events are dropped and counted, and the
//! listener is told how many it has missed, so that it can ask for the whole list again. It is told when it has heard all that came
//! before them, and until then everything is dropped: a list that is asked for then is newer than every event before it, so that no
//! old event can undo what the list said. One thread hands events on, in order, in pieces, with no lock held. Without a listener
//! the cost is one load.
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
    /// Takes events in order; or, with no event, how many were dropped after the last one.
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
    /// Events that were dropped after those that wait.
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
        if queue.dropped > 0 || queue.events.len() >= QUEUE {
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
            while queue.events.is_empty() && queue.dropped == 0 && !queue.is_closing {
                queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
            if queue.is_closing {
                return;
            }
            let some = queue.events.len().min(PIECE);
            piece.clear();
            piece.extend(queue.events.drain(..some));
            let dropped = if some == 0 {
                std::mem::take(&mut queue.dropped)
            } else {
                0
            };
            drop(queue);
            listener.hear(&piece, dropped);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, Sender, channel};

    /// What a listener was called with.
    type Heard = (Vec<u64>, u64);

    /// Tells what it hears, and returns from each call when it is let go.
    struct Slow {
        heard: Sender<Heard>,
        go: Mutex<Receiver<()>>,
    }

    impl Listener for Slow {
        fn hear(&self, events: &[Event], dropped: u64) {
            let numbers = events.iter().map(number_of).collect();
            self.heard.send((numbers, dropped)).unwrap();
            let _ = self.go.lock().unwrap().recv();
        }
    }

    fn event(number: u64) -> Event {
        let kind = if number.is_multiple_of(2) {
            Kind::Stored
        } else {
            Kind::Removed
        };
        Event::new(
            kind,
            Medium::Dram,
            (number % 7) as u32,
            format!("key {number}").as_bytes(),
        )
    }

    /// The number of an event that `event` made, whose every field must be its own.
    fn number_of(event: &Event) -> u64 {
        let number = std::str::from_utf8(event.key()).unwrap().strip_prefix("key ").unwrap();
        let number = number.parse().unwrap();
        let own = self::event(number);
        assert_eq!((event.kind, event.medium, event.rank), (own.kind, own.medium, own.rank));
        number
    }

    /// A listener that must be let go after each call, and one that runs freely once its `go` is dropped.
    fn listen(events: &Events) -> (Receiver<Heard>, Sender<()>) {
        let ((heard, hears), (go, goes)) = (channel(), channel());
        let listener = Slow {
            heard,
            go: Mutex::new(goes),
        };
        events.listen(Some(Box::new(listener))).unwrap();
        (hears, go)
    }

    #[test]
    fn events_are_heard_in_order_and_once() {
        let events = Events::new();
        assert!(!events.are_wanted());
        let (hears, go) = listen(&events);
        drop(go);
        assert!(events.are_wanted());
        for number in 0..10_000 {
            assert!(events.push(event(number)));
        }
        let mut next = 0;
        while next < 10_000 {
            let (numbers, dropped) = hears.recv().unwrap();
            assert!((1..=PIECE).contains(&numbers.len()) && dropped == 0);
            let end = next + numbers.len() as u64;
            assert!(numbers.into_iter().eq(next..end), "out of order");
            next = end;
        }
        events.listen(None).unwrap();
        assert!(!events.are_wanted());
        assert!(hears.recv().is_err(), "and nothing else");
    }

    #[test]
    fn a_listener_that_is_too_slow_is_told_after_what_it_did_not_miss_how_much_it_missed() {
        let events = Events::new();
        let (hears, go) = listen(&events);
        assert!(events.push(event(0)));
        assert_eq!(hears.recv().unwrap(), (vec![0], 0));
        // While it is busy with the first, the queue fills up.
        let full = QUEUE as u64;
        assert!((1..=full).all(|number| events.push(event(number))));
        assert!((0..5).all(|_| !events.push(event(99))));
        go.send(()).unwrap();
        let (mut numbers, dropped) = hears.recv().unwrap();
        assert_eq!(dropped, 0, "nothing is missing before these");
        // There is room again, but what comes now would be heard before the loss was told.
        assert!(!events.push(event(99)));
        while numbers.len() < QUEUE {
            go.send(()).unwrap();
            let (more, dropped) = hears.recv().unwrap();
            assert!(!more.is_empty() && dropped == 0);
            numbers.extend(more);
        }
        assert!(numbers.into_iter().eq(1..=full));
        go.send(()).unwrap();
        assert_eq!(hears.recv().unwrap(), (vec![], 6));
        assert!(events.push(event(full + 1)));
        go.send(()).unwrap();
        assert_eq!(hears.recv().unwrap(), (vec![full + 1], 0));
        drop(go);
        events.listen(None).unwrap();
    }

    #[test]
    fn a_listener_that_was_replaced_hears_nothing_more_and_the_new_one_nothing_old() {
        let events = Events::new();
        let (old, go) = listen(&events);
        assert!((0..10).all(|number| events.push(event(number))));
        let heard = old.recv().unwrap().0.len() as u64;
        std::thread::scope(|scope| {
            // It must wait for the old one, which is in the middle of a call.
            let replaced = scope.spawn(|| listen(&events));
            while events.are_wanted() {
                std::thread::yield_now();
            }
            assert!(!replaced.is_finished());
            drop(go);
            let (new, go) = replaced.join().unwrap();
            drop(go);
            assert!(events.push(event(100)));
            assert_eq!(new.recv().unwrap(), (vec![100], 0));
            events.listen(None).unwrap();
        });
        let rest: Vec<u64> = old.iter().flat_map(|(numbers, _)| numbers).collect();
        assert!(rest.iter().all(|number| (heard..10).contains(number)), "{rest:?}");
    }

    #[test]
    fn events_of_many_threads_are_each_heard_once_and_in_each_threads_order() {
        let events = Events::new();
        let (hears, go) = listen(&events);
        drop(go);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let events = &events;
                scope.spawn(move || {
                    assert!((0..3000).all(|number| events.push(event(thread * 3000 + number))));
                });
            }
        });
        let mut next = [0, 3000, 6000, 9000];
        let mut heard = 0;
        while heard < 12_000 {
            for number in hears.recv().unwrap().0 {
                let own = &mut next[number as usize / 3000];
                assert_eq!(number, *own);
                *own += 1;
                heard += 1;
            }
        }
        events.listen(None).unwrap();
    }

    #[test]
    fn a_listener_can_not_replace_itself() {
        struct Replacer(Arc<Events>, Sender<bool>);
        impl Listener for Replacer {
            fn hear(&self, _: &[Event], _: u64) {
                assert!(self.0.is_own_thread());
                let is_refused = matches!(self.0.listen(None), Err(Error::Busy(_)));
                let others = Events::new().listen(None);
                self.1.send(is_refused && others.is_ok()).unwrap();
            }
        }
        let events = Arc::new(Events::new());
        let (sender, refused) = channel();
        events
            .listen(Some(Box::new(Replacer(Arc::clone(&events), sender))))
            .unwrap();
        assert!(!events.is_own_thread());
        events.push(event(1));
        assert!(refused.recv().unwrap());
        events.listen(None).unwrap();
    }
}
