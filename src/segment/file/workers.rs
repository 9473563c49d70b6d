//! The threads of a file, and how a call shares its parts with them.
//!
//! A call puts its list of parts on the queue and works on it like everybody else: each takes the next part by one step on a counter
//! until there is none. Then it takes the list off the queue and waits for those that are still at it. So a call of one part wakes nobody,
//! one of many is done by as many threads as are free, and with all of them busy elsewhere it still gets on by itself.
//!
//! A list lies on its call's stack: it costs no memory that could be missing. Who has taken it off the queue is counted in it under the
//! queue's lock, and the call leaves when nobody is. That lock is a leaf, and not held during I/O.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::{Part, Positional};
use crate::error::{Error, Result, words};
use crate::segment::device::Direction;

/// Threads of a file. With the caller that is a depth of 9: where disks have nearly all of their bandwidth at 64 KiB a part and more.
const THREADS: usize = 8;

/// The threads, and what they read and write.
pub(super) struct Workers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    positional: Box<dyn Positional>,
    queue: Mutex<Queue>,
    /// There is a list, or no list will come any more.
    wanted: Condvar,
    /// Somebody is done with a list.
    left: Condvar,
}

#[derive(Default)]
struct Queue {
    lists: VecDeque<Shown>,
    is_closing: bool,
}

/// A list of a call that has not returned.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Shown(*const List<'static>);

// SAFETY: a list is shared by its atomics and by parts that synchronise themselves.
unsafe impl Send for Shown {}

/// The parts of one call.
struct List<'p> {
    parts: &'p [Part],
    /// The next part that nobody has taken.
    next: AtomicUsize,
    /// Threads that are at it. Changed under the queue's lock.
    helpers: AtomicUsize,
}

impl Workers {
    pub(super) fn start(positional: Box<dyn Positional>) -> Result<Workers> {
        let shared = Arc::new(Shared {
            positional,
            queue: Mutex::default(),
            wanted: Condvar::new(),
            left: Condvar::new(),
        });
        let mut workers = Workers {
            shared,
            threads: Vec::new(),
        };
        for number in 0..THREADS {
            let shared = Arc::clone(&workers.shared);
            let thread = std::thread::Builder::new()
                .name(format!("mmc-file-{number}"))
                .spawn(move || shared.serve())
                .map_err(|error| Error::OutOfMemory(words!("no thread for a file: {error}")))?;
            workers.threads.push(thread);
        }
        Ok(workers)
    }

    /// See [`super::File::run`].
    ///
    /// # Safety
    /// As there.
    pub(super) unsafe fn run(&self, parts: &[Part]) {
        let list = List {
            parts,
            next: AtomicUsize::new(0),
            helpers: AtomicUsize::new(0),
        };
        let _offered = Offered::new(&self.shared, &list);
        self.shared.work(&list);
    }
}

/// A list on the queue. Dropped, after a panic too, it is nobody's any more.
struct Offered<'l> {
    shared: &'l Shared,
    list: &'l List<'l>,
}

impl<'l> Offered<'l> {
    /// Has as many threads look at it as it has parts for, beside the caller.
    fn new(shared: &'l Shared, list: &'l List<'l>) -> Offered<'l> {
        let offered = Offered { shared, list };
        let helpers = list.parts.len().saturating_sub(1).min(THREADS);
        if helpers > 0 {
            let mut queue = lock(&shared.queue);
            for _ in 0..helpers {
                // Without memory for the queue the caller does it all.
                if queue.lists.try_reserve(1).is_ok() {
                    queue.lists.push_back(offered.shown());
                    shared.wanted.notify_one();
                }
            }
        }
        offered
    }

    fn shown(&self) -> Shown {
        Shown(std::ptr::from_ref(self.list).cast())
    }
}

impl Drop for Offered<'_> {
    fn drop(&mut self) {
        if self.list.parts.len() < 2 {
            return;
        }
        // Parts that nobody has begun stay so.
        self.list.next.fetch_max(self.list.parts.len(), Ordering::Relaxed);
        let mut queue = lock(&self.shared.queue);
        queue.lists.retain(|shown| *shown != self.shown());
        while self.list.helpers.load(Ordering::Relaxed) > 0 {
            queue = self.shared.left.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Shared {
    fn serve(&self) {
        let mut queue = lock(&self.queue);
        loop {
            if queue.is_closing {
                return;
            }
            let Some(Shown(list)) = queue.lists.pop_front() else {
                queue = self.wanted.wait(queue).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            // SAFETY: it was on the queue, so its call has not returned; and it will not while a helper is counted, which is done, and
            // undone, under the lock under which the call takes it off the queue and looks for helpers.
            let list = unsafe { &*list };
            list.helpers.fetch_add(1, Ordering::Relaxed);
            drop(queue);
            self.work(list);
            queue = lock(&self.queue);
            list.helpers.fetch_sub(1, Ordering::Relaxed);
            self.left.notify_all();
        }
    }

    /// Takes parts until there are none.
    fn work(&self, list: &List<'_>) {
        while let Some(part) = list.parts.get(list.next.fetch_add(1, Ordering::Relaxed)) {
            let result = catch_unwind(AssertUnwindSafe(|| self.do_part(part)));
            let failure = result.unwrap_or_else(|_| Err(io::ErrorKind::Other.into())).err();
            if let Some(error) = failure {
                let _ = part.failure.set(error);
            }
        }
    }

    /// Reads or writes all of a part.
    fn do_part(&self, part: &Part) -> io::Result<()> {
        let mut done = 0;
        while done < part.length {
            let memory = std::ptr::with_exposed_provenance_mut::<u8>(part.memory + done);
            let (left, offset) = (part.length - done, part.offset + done as u64);
            // SAFETY: whoever runs the list has promised the part's memory until the list is over, and this part of it is not.
            let step = unsafe {
                match part.direction {
                    Direction::ToSegment => self.positional.write(memory, left, offset),
                    Direction::FromSegment => self.positional.read(memory, left, offset),
                }
            };
            match step {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(bytes) => done += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        lock(&self.shared.queue).is_closing = true;
        self.shared.wanted.notify_all();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// What this lock guards is whole between any two steps.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
