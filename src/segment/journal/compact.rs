//! Compaction: a state file's successor, with only what counts.
//!
//! It goes in steps of a bounded number of bytes, and between two steps the old file goes on growing: first the records up to where it
//! ended at the start are surveyed, then those that count are copied, then whatever has been appended since. Each step has its bytes on
//! the disk before it returns, so the last one, after which the successor takes the name, is as short as the others. Up to then
//! the old file is the state, and from then on the new one.

use std::io;
use std::mem;

use super::disk::File;
use super::file::{FIRST_RECORD, StateFile, Tally, successor};
use super::record::Record;
use super::survey::{Act, Survey, io_error, scan};
use crate::error::{Error, Result};
use crate::log::{Level, say};

/// Bytes of the old file that a step reads.
const STEP: u64 = 4 << 20;

/// One that has begun.
pub(super) struct Compaction {
    survey: Survey,
    /// Where the old file ended when it began.
    end: u64,
    /// Up to here the old file has been done with, in this phase.
    done: u64,
    successor: Option<Successor>,
}

struct Successor {
    file: Box<dyn File>,
    length: u64,
    records: u64,
}

impl Compaction {
    pub(super) fn begin(old: &StateFile) -> Compaction {
        Compaction {
            survey: Survey::default(),
            end: old.length,
            done: FIRST_RECORD,
            successor: None,
        }
    }

    /// Takes a step; true when the successor has taken the old file's place. After an error the old file is as it was, and
    /// the compaction is to be dropped.
    pub(super) fn step(&mut self, old: &mut StateFile) -> Result<bool> {
        let Some(successor) = &mut self.successor else {
            self.done = scan_step(old, self.done, self.end, &mut |_, record, _| self.survey.note(record))?;
            if self.done == self.end {
                let file = StateFile::begin(&*old.disk, &old.path, old.identity, old.number);
                self.successor = Some(Successor {
                    file: file.map_err(cannot_compact)?,
                    length: FIRST_RECORD,
                    records: 0,
                });
                self.done = FIRST_RECORD;
            }
            return Ok(false);
        };
        let mut bytes = Vec::new();
        let is_tail = self.done >= self.end;
        let end = if is_tail { old.length } else { self.end };
        let survey = &mut self.survey;
        self.done = scan_step(old, self.done, end, &mut |_, record, as_read| {
            let counts = if is_tail {
                // For what is there in the end.
                survey.note(record)?;
                None
            } else {
                survey.ask(record)
            };
            if !is_tail && counts.is_none() {
                return Ok(());
            }
            successor.records += 1;
            match counts {
                Some((written, used)) => Record::Put(written, used).encode(old.number, &mut bytes),
                None => bytes
                    .try_reserve(as_read.len())
                    .map(|()| bytes.extend_from_slice(as_read)),
            }
            .map_err(|_| Error::OutOfMemory("no memory for a step of a compaction".into()))
        })?;
        successor.file.append(&bytes).map_err(cannot_compact)?;
        successor.file.sync().map_err(cannot_compact)?;
        successor.length += bytes.len() as u64;
        if self.done < end || !is_tail {
            return Ok(false);
        }
        self.finish(old)?;
        Ok(true)
    }

    fn finish(&mut self, old: &mut StateFile) -> Result<()> {
        let Some(new) = self.successor.take() else {
            return Ok(());
        };
        let renamed = old.disk.rename(&successor(&old.path), &old.path);
        renamed.map_err(cannot_compact)?;
        old.tally = Tally {
            records: new.records,
            live: self.survey.count(),
        };
        old.length = new.length;
        drop(mem::replace(&mut old.file, new.file));
        // Without that a power failure may bring the old file back, which then is the state of an earlier instant.
        if let Err(error) = old.disk.sync_names(&old.path) {
            say!(
                Level::Warn,
                "state file {}: its name is not on the disk: {error}",
                old.path.display()
            );
        }
        Ok(())
    }
}

/// Scans the records that begin in the next step of `done..end`, and returns where it ended.
fn scan_step(old: &StateFile, done: u64, end: u64, act: &mut Act<'_>) -> Result<u64> {
    let until = end.min(done + STEP);
    let reached = scan(&*old.file, done..until, old.number, act)?;
    // A record may reach past the step, so one that is cut off is met again; but each step has many.
    if reached == done && done < end {
        return Err(Error::Io("compaction: a record that was written is damaged".into()));
    }
    Ok(reached)
}

fn cannot_compact(error: io::Error) -> Error {
    io_error("compaction", &error)
}
