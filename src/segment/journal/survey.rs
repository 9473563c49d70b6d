//! Which records of a state file count.
//!
//! The last record of a unit does. [`scan`] reads records up to the first that is none, which is where a process or the power
//! ended; a [`Survey`] of them knows which of them count, and when copies were last used. A
//! second scan then finds keys and sizes: so what was removed costs no memory, and opening and compacting are the same two steps.

use std::collections::HashMap;
use std::io;
use std::ops::Range;

use super::disk::File;
use super::record::{Decoded, Record, Used, Written, decode};
use crate::error::{Error, Result, words};
use crate::key::Key;
use crate::segment::Segment;

/// Bytes that are read at once.
const CHUNK: usize = 1 << 20;

/// See the module's text. Records are numbered from 0 on.
#[derive(Default)]
pub(super) struct Survey {
    /// The record of the copy at a unit.
    live: HashMap<u32, u32>,
    /// A bit for each record: whether it is a put that counts. Asked record by record, it costs no look-up in a table of millions.
    counting: Vec<u64>,
    /// The last use of copies that were used after they were written, by record.
    uses: HashMap<u32, Used>,
    /// Records that were looked at.
    pub(super) records: u64,
    /// Of these, records that were asked about.
    asked: u64,
    /// The latest opening that anything happened in.
    pub(super) opening: u32,
}

impl Survey {
    /// Takes in the next record.
    pub(super) fn note(&mut self, record: &Record<'_>) -> Result<()> {
        let number = u32::try_from(self.records)
            .map_err(|_| Error::OutOfMemory("a state file has more records than can be numbered".into()))?;
        self.records += 1;
        if number.is_multiple_of(u64::BITS) {
            self.counting.try_reserve(1).map_err(no_memory)?;
            self.counting.push(0);
        }
        match *record {
            Record::Put(Written { unit, .. }, used) => {
                self.opening = self.opening.max(used.opening);
                self.live.try_reserve(1).map_err(no_memory)?;
                let before = self.live.insert(unit, number);
                self.counting[(number / u64::BITS) as usize] |= 1 << (number % u64::BITS);
                self.discount(before);
            }
            Record::Remove { unit } => {
                let before = self.live.remove(&unit);
                self.discount(before);
            }
            Record::Use { unit, used } => {
                self.opening = self.opening.max(used.opening);
                if let Some(put) = self.live.get(&unit) {
                    self.uses.try_reserve(1).map_err(no_memory)?;
                    let last = self.uses.entry(*put).or_insert(used);
                    *last = used.max(*last);
                }
            }
        }
        Ok(())
    }

    fn discount(&mut self, put: Option<u32>) {
        let Some(put) = put else { return };
        self.counting[(put / u64::BITS) as usize] &= !(1 << (put % u64::BITS));
        if !self.uses.is_empty() {
            self.uses.remove(&put);
        }
    }

    /// Copies that are there.
    pub(super) fn count(&self) -> u64 {
        self.live.len() as u64
    }

    /// The same records are now met again, in the same order: the next of them as a put with its last use, if it counts.
    pub(super) fn ask<'a>(&mut self, record: &Record<'a>) -> Option<(Written<'a>, Used)> {
        let number = self.asked;
        self.asked += 1;
        let bits = self.counting[(number / u64::from(u64::BITS)) as usize];
        let Record::Put(written, used) = *record else {
            return None;
        };
        if bits >> (number % u64::from(u64::BITS)) & 1 == 0 {
            return None;
        }
        let later = if self.uses.is_empty() {
            None
        } else {
            self.uses.get(&(number as u32))
        };
        Some((written, later.map_or(used, |later| used.max(*later))))
    }
}

/// What is done with a record, its offset and its bytes.
pub(super) type Act<'a> = dyn FnMut(u64, &Record<'_>, &[u8]) -> Result<()> + 'a;

/// Gives every record that begins in `range` to `act`, with its offset and its bytes, and returns where the first begins that is
/// none, or the end.
pub(super) fn scan(file: &dyn File, range: Range<u64>, number: u64, act: &mut Act<'_>) -> Result<u64> {
    let length = (range.end - range.start).min(CHUNK as u64) as usize;
    let mut buffer = Vec::new();
    buffer.try_reserve_exact(length).map_err(no_memory)?;
    buffer.resize(length, 0);
    // `buffer[..filled]` is what the file has from `start` on.
    let (mut start, mut filled) = (range.start, 0);
    loop {
        let wanted = (range.end - start - filled as u64).min((length - filled) as u64) as usize;
        let read = file.read_at(&mut buffer[filled..filled + wanted], start + filled as u64);
        let read = read.map_err(|error| io_error("read", &error))?;
        filled += read;
        let mut taken = 0;
        let is_bad = loop {
            match decode(&buffer[taken..filled], number) {
                Decoded::Whole(record, length) => {
                    act(start + taken as u64, &record, &buffer[taken..taken + length])?;
                    taken += length;
                }
                Decoded::Short => break false,
                Decoded::Bad => break true,
            }
        };
        start += taken as u64;
        buffer.copy_within(taken..filled, 0);
        filled -= taken;
        if is_bad || read == 0 {
            return Ok(start);
        }
    }
}

/// A copy that was there when the state was last written, and may be there still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found<'a> {
    pub(crate) key: Key<'a>,
    /// First unit.
    pub(crate) unit: u32,
    /// Bytes of the object.
    pub(crate) size: u64,
    /// Checksum of those bytes.
    pub(crate) checksum: u64,
}

struct Entry {
    unit: u32,
    key_bytes: u16,
    /// Where in `keys` the key begins.
    key: u64,
    size: u64,
    checksum: u64,
    used: Used,
    offset: u64,
}

/// What a state file says is in its segment. No two of them overlap, and all lie in the segment.
#[derive(Default)]
pub(crate) struct Recovered {
    entries: Vec<Entry>,
    keys: Vec<u8>,
    /// Bytes at the end of the file that were no whole record.
    pub(crate) torn_bytes: u64,
}

impl Recovered {
    pub(super) fn with_room_for(count: u64) -> Result<Recovered> {
        let mut recovered = Recovered::default();
        recovered.entries.try_reserve_exact(count as usize).map_err(no_memory)?;
        Ok(recovered)
    }

    /// How many.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// All of them, the one that was used last at the end.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Found<'_>> {
        self.entries.iter().filter_map(|entry| {
            let start = entry.key as usize;
            // What this library wrote is valid; a later one may allow more.
            let key = Key::new(&self.keys[start..start + usize::from(entry.key_bytes)]).ok()?;
            Some(Found {
                key,
                unit: entry.unit,
                size: entry.size,
                checksum: entry.checksum,
            })
        })
    }

    pub(super) fn push(&mut self, offset: u64, written: &Written<'_>, used: Used) -> Result<()> {
        self.keys.try_reserve(written.key.len()).map_err(no_memory)?;
        self.entries.try_reserve(1).map_err(no_memory)?;
        self.entries.push(Entry {
            unit: written.unit,
            key_bytes: written.key.len() as u16,
            key: self.keys.len() as u64,
            size: written.size,
            checksum: written.checksum,
            used,
            offset,
        });
        self.keys.extend_from_slice(written.key);
        Ok(())
    }

    /// Drops what does not lie in a segment of `units` units, and of two that overlap the earlier: the later was written over it. Records
    /// of a segment whose extents are freed only after their removal has been noted have no such pair.
    pub(super) fn settle(&mut self, units: u64) {
        let end = |entry: &Entry| u64::from(entry.unit) + Segment::units_for(entry.size);
        self.entries.retain(|entry| entry.size > 0 && end(entry) <= units);
        self.entries.sort_unstable_by_key(|entry| entry.unit);
        // Entries below `kept` have been looked at and are disjoint.
        let mut kept = 0;
        for next in 0..self.entries.len() {
            let mut is_kept = true;
            while kept > 0 && end(&self.entries[kept - 1]) > u64::from(self.entries[next].unit) {
                if self.entries[kept - 1].offset > self.entries[next].offset {
                    is_kept = false;
                    break;
                }
                kept -= 1;
            }
            if is_kept {
                self.entries.swap(kept, next);
                kept += 1;
            }
        }
        self.entries.truncate(kept);
        self.entries.sort_unstable_by_key(|entry| (entry.used, entry.offset));
    }
}

pub(super) fn io_error(what: &str, error: &io::Error) -> Error {
    Error::Io(words!("{what}: {error}"))
}

fn no_memory(_: std::collections::TryReserveError) -> Error {
    Error::OutOfMemory("no memory for what a state file has".into())
}
