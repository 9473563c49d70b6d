//! What an SSD segment has on it, on disk: so that a store that is opened again finds it.
//!
//! A state file beside the segment's data file has a record for each copy that was written or removed, and for uses of copies. It only
//! grows ([`file`](mod@file)), by what one thread writes, until more than half of it no longer counts; then that thread makes a
//! successor ([`compact`]). Reading it gives the copies that were there, coldest first ([`survey`]).
//!
//! **What is promised.** The state that is found is the one at some instant of the segment's history, and never a mixture:
//! - after [`Journal::close`], the last instant;
//! - after the process was killed, one before which everything had been handed to the kernel: the thread is woken by the first record that it
//!   has not written, so that is a moment, or a few while a compaction has a step on its way to the disk. What was put later is
//!   a miss, and what was removed later may be back;
//! - after the power failed, an earlier one: the kernel writes in its own time, usually half a minute; only a compaction and `close` wait.
//!
//! **Never wrong bytes.** The state may say of an extent what no longer holds: its copy was removed, the extent given to another
//! object, whose bytes are on the disk in whole or in part, and then the process ended before the removal was. So every record has the
//! checksum of its object's bytes, and nothing that is read from the segment is given to anybody before its checksum was compared. If
//! it is equal, these are the bytes that were put under this key, whoever wrote them there; else the copy is a miss. That alone is
//! enough. Two rules make it rare:
//! - a put is noted after its bytes were written, before anybody can find it;
//! - a remove is noted before its extent is free for others. So in the order of records an extent has one owner at a time; should
//!   two overlap all the same, the later counts.
//!
//! **Beside the way.** Noting is an append to memory under a lock that nothing is done under but that. When the disk is slower than what
//! happens, up to 4 MiB of records wait, and further puts are not noted: they are there, only not after a restart. Removals have
//! 4 MiB more; when those are full, or a write fails, the state file is removed, an error is logged, and the segment goes on without.
//! A failed compaction leaves the file as it is, and another is tried when it has doubled.

mod compact;
mod disk;
mod file;
mod label;
mod record;
mod survey;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::error::{Error, Result, words};
use crate::log::{Level, say};

use compact::Compaction;
use disk::{Disk, Real};
pub(crate) use file::Place;
use file::{Change, StateFile, successor};
pub(crate) use label::Identity;
pub(crate) use record::Written;
use record::{Record, Used};
pub(crate) use survey::{Found, Recovered};

/// Bytes of records that may wait before puts, and uses, are no longer noted.
const WAITING_PUTS: usize = 4 << 20;
/// Bytes of records that may wait before the state is given up.
const WAITING: usize = 8 << 20;
/// A file with fewer records is not compacted.
const FEW_RECORDS: u64 = 1 << 16;

/// The state of an open segment.
pub(crate) struct Journal {
    shared: Arc<Shared>,
    /// Seeds the checksums of records.
    number: u64,
    opening: u32,
    writer: Mutex<Option<JoinHandle<()>>>,
}

/// What became of what was noted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Report {
    /// Puts that will not be found, because too many records were waiting.
    pub(crate) lost_puts: u64,
    /// Compactions that came to their end.
    pub(crate) compactions: u64,
    /// Whether the state was given up.
    pub(crate) is_given_up: bool,
}

struct Shared {
    path: PathBuf,
    queue: Mutex<Queue>,
    /// The queue has records for the writer, or it is to stop.
    wanted: Condvar,
    /// The writer has written what it had.
    written: Condvar,
    lost_puts: AtomicU64,
    compactions: AtomicU64,
    is_given_up: AtomicBool,
}

#[derive(Default)]
struct Queue {
    records: Vec<u8>,
    change: Change,
    /// Records that were ever noted, and of these written.
    noted: u64,
    done: u64,
    is_stopping: bool,
}

impl Journal {
    /// Opens the state of a segment, or makes one; see [`Place`] for what happens when it is another's.
    pub(crate) fn open(place: &Place<'_>) -> Result<(Journal, Recovered)> {
        Journal::open_on(place, Box::new(Real), FEW_RECORDS)
    }

    fn open_on(place: &Place<'_>, disk: Box<dyn Disk>, few_records: u64) -> Result<(Journal, Recovered)> {
        let (state, recovered) = StateFile::open(place, disk)?;
        let shared = Arc::new(Shared {
            path: place.state.to_path_buf(),
            queue: Mutex::default(),
            wanted: Condvar::new(),
            written: Condvar::new(),
            lost_puts: AtomicU64::new(0),
            compactions: AtomicU64::new(0),
            is_given_up: AtomicBool::new(false),
        });
        let (number, opening) = (state.number, state.opening);
        let writer = Writer {
            shared: Arc::clone(&shared),
            compaction: None,
            due: few_records,
            few_records,
            state,
        };
        let writer = std::thread::Builder::new()
            .name("mmc-journal".into())
            .spawn(move || writer.run())
            .map_err(|error| Error::OutOfMemory(words!("no thread for a segment's state: {error}")))?;
        let journal = Journal {
            shared,
            number,
            opening,
            writer: Mutex::new(Some(writer)),
        };
        Ok((journal, recovered))
    }

    /// Notes a copy whose bytes are written, and its last use. Before anybody can find it. False when it will not be found again: too many
    /// records are waiting, or the state was given up.
    pub(crate) fn put(&self, written: &Written<'_>, place: u64) -> bool {
        let put = Change {
            puts: 1,
            ..Change::default()
        };
        let used = self.used(place);
        let is_noted = self.note(&Record::Put(*written, used), put, WAITING_PUTS);
        if !is_noted {
            self.shared.lost_puts.fetch_add(1, Ordering::Relaxed);
        }
        is_noted && !self.shared.is_given_up()
    }

    /// Notes that the copy at `unit` is gone. Before its extent can be another's.
    pub(crate) fn remove(&self, unit: u32) {
        let remove = Change {
            removes: 1,
            ..Change::default()
        };
        if !self.note(&Record::Remove { unit }, remove, WAITING) {
            self.shared
                .give_up("there is no room for the removals that wait to be written");
        }
    }

    /// Notes a use of the copy at `unit`.
    pub(crate) fn note_use(&self, unit: u32, place: u64) {
        let used = self.used(place);
        self.note(&Record::Use { unit, used }, Change::default(), WAITING_PUTS);
    }

    /// Blocks until everything that was noted before has been given to the kernel, or the state was given up.
    pub(crate) fn flush(&self) {
        let mut queue = self.shared.queue();
        let noted = queue.noted;
        while queue.done < noted && !self.shared.is_given_up() {
            queue = self.shared.written.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Writes what was noted, has it on the disk, and ends: what happens from here on is not noted.
    pub(crate) fn close(&self) -> Report {
        self.shared.queue().is_stopping = true;
        self.shared.wanted.notify_one();
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer {
            // A panic in it was a defect that has been reported, and the state was given up.
            let _ = writer.join();
        }
        self.report()
    }

    pub(crate) fn report(&self) -> Report {
        Report {
            lost_puts: self.shared.lost_puts.load(Ordering::Relaxed),
            compactions: self.shared.compactions.load(Ordering::Relaxed),
            is_given_up: self.shared.is_given_up(),
        }
    }

    fn used(&self, place: u64) -> Used {
        Used {
            opening: self.opening,
            place,
        }
    }

    /// Appends a record to those that wait; false when they are more than `limit` bytes, or there is no memory.
    fn note(&self, record: &Record<'_>, change: Change, limit: usize) -> bool {
        let shared = &*self.shared;
        if shared.is_given_up() {
            return true;
        }
        let mut queue = shared.queue();
        if queue.is_stopping {
            return true;
        }
        if queue.records.len() >= limit || record.encode(self.number, &mut queue.records).is_err() {
            return false;
        }
        queue.change.records += 1;
        queue.change.puts += change.puts;
        queue.change.removes += change.removes;
        queue.noted += 1;
        let is_first = queue.change.records == 1;
        drop(queue);
        if is_first {
            shared.wanted.notify_one();
        }
        true
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    /// What this lock guards is whole between any two steps.
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_given_up(&self) -> bool {
        self.is_given_up.load(Ordering::Acquire)
    }

    /// Notes nothing from here on. The writer removes the file.
    fn give_up(&self, reason: &str) {
        if !self.is_given_up.swap(true, Ordering::AcqRel) {
            say!(
                Level::Error,
                "state file {}: {reason}; the segment goes on without it, and nothing of it will be found when it is opened again",
                self.path.display()
            );
        }
        // Under the lock, so that nobody is between looking and waiting.
        let _queue = self.queue();
        self.wanted.notify_one();
        self.written.notify_all();
    }
}

/// The thread that writes.
struct Writer {
    shared: Arc<Shared>,
    state: StateFile,
    compaction: Option<Compaction>,
    /// With how many records the file may be compacted.
    due: u64,
    few_records: u64,
}

/// What the writer takes out of the queue.
struct Batch {
    records: Vec<u8>,
    change: Change,
    is_last: bool,
}

impl Writer {
    fn run(mut self) {
        match catch_unwind(AssertUnwindSafe(|| self.write_all())) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.shared.give_up(&error.to_string()),
            Err(_) => self.shared.give_up("defect of the library: its writer panicked"),
        }
        if self.compaction.take().is_some() {
            let _ = self.state.disk.remove(&successor(&self.state.path));
        }
        if self.shared.is_given_up()
            && let Err(error) = self.state.abandon()
        {
            say!(
                Level::Error,
                "state file {}: can't be removed: {error}",
                self.state.path.display()
            );
        }
    }

    fn write_all(&mut self) -> io::Result<()> {
        let mut records = Vec::new();
        loop {
            let batch = self.take(records);
            if self.shared.is_given_up() {
                return Ok(());
            }
            if !batch.records.is_empty() {
                self.state.append(&batch.records, &batch.change)?;
            }
            records = batch.records;
            self.shared.queue().done += batch.change.records;
            self.shared.written.notify_all();
            if batch.is_last {
                return self.state.file.sync();
            }
            self.compact();
        }
    }

    /// Waits for records, unless there is something else to do, and takes them; what waits next goes to the memory of `empty`.
    fn take(&self, mut empty: Vec<u8>) -> Batch {
        empty.clear();
        let mut queue = self.shared.queue();
        while queue.records.is_empty() && self.compaction.is_none() && !queue.is_stopping && !self.shared.is_given_up()
        {
            queue = self.shared.wanted.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        Batch {
            records: std::mem::replace(&mut queue.records, empty),
            change: std::mem::take(&mut queue.change),
            is_last: queue.is_stopping,
        }
    }

    /// Begins a compaction when it is time, or goes a step on with it.
    fn compact(&mut self) {
        let tally = self.state.tally;
        let Some(compaction) = &mut self.compaction else {
            if tally.records > self.due.max(2 * tally.live) {
                self.compaction = Some(Compaction::begin(&self.state));
            }
            return;
        };
        match compaction.step(&mut self.state) {
            Ok(false) => return,
            Ok(true) => {
                self.shared.compactions.fetch_add(1, Ordering::Relaxed);
                self.due = self.few_records;
            }
            Err(error) => {
                say!(
                    Level::Warn,
                    "state file {}: {error}; it stays as it is",
                    self.state.path.display()
                );
                let _ = self.state.disk.remove(&successor(&self.state.path));
                self.due = 2 * tally.records;
            }
        }
        self.compaction = None;
    }
}

#[cfg(test)]
mod tests;
