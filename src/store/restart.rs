//! Warm restart: what an SSD segment has on it is noted in its journal, found again when it is opened, and added to when the store is closed.
//!
//! Each copy is noted where it begins and ends: [`Store::note_written`] before anybody can find it, [`Store::note_gone`] when nobody can
//! any more, which is before its extent is another's. [`crate::segment::journal`] says what that promises.
//!
//! **Opening** makes an object of every copy that the state says is there ([`Store::restore`]), before the segment is open for placement, so
//! that nothing else takes their extents. Its bytes are not looked at: who reads them compares their checksum, as always.
//!
//! **Closing** ([`Store::save`]) writes down what is only in memory, what was used last first, as far as there is room as it is.

use std::cmp::Reverse;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::error::{Error, Result, invalid, words};
use crate::event;
use crate::evict;
use crate::log::{Level, say};
use crate::metrics::Counter;
use crate::object::State;
use crate::segment::Segment;
use crate::segment::allocator::Owner;
use crate::segment::disk::IN_FLIGHT;
use crate::segment::journal::{Found, Identity, Journal, Place, Recovered, Written};

use super::Store;
use super::moves::{Begun, Named};
use super::segments::{Plan, Registered};

/// Uses that are noted before they are waited for: their records are a part of what may wait in a journal.
const USES: usize = 1 << 15;

/// Where the states of SSD segments are kept.
pub(super) struct States {
    /// A directory.
    pub(super) path: PathBuf,
    /// Whether a state that is another's is replaced, and not an error.
    pub(super) wipe: bool,
}

impl States {
    /// Opens the state of the segment whose data file this is.
    pub(super) fn open(&self, data: &Path, plan: &Plan) -> Result<(Journal, Recovered)> {
        let name = data
            .file_name()
            .ok_or_else(|| invalid!("file {}: has no name", data.display()))?;
        let mut name = OsString::from(name);
        name.push(".state");
        std::fs::create_dir_all(&self.path)
            .map_err(|error| Error::Io(words!("state_path {}: {error}", self.path.display())))?;
        Journal::open(&Place {
            state: &self.path.join(name),
            data,
            identity: Identity {
                rank: plan.rank,
                capacity: plan.capacity,
            },
            wipe: self.wipe,
        })
    }
}

impl Store {
    /// Notes a copy that is written, if its segment has a journal. Before anybody can find it.
    pub(super) fn note_written(&self, slot: u32, segment: &Segment, unit: u32) {
        let Some(journal) = segment.journal() else { return };
        let object = self.objects.get(slot);
        let named = self.objects.read_key(slot).zip(self.objects.checksum(slot));
        if let Some(((_, key), checksum)) = named {
            let written = Written {
                key: key.bytes(),
                unit,
                size: object.size(),
                checksum,
            };
            if !journal.put(&written, object.used()) {
                self.count(Counter::StateLosses, 1);
            }
        }
    }

    /// Notes that the copy at this place can't be found any more. Before its extent is given back.
    pub(super) fn note_gone(&self, (segment, unit): (u32, u32)) {
        if let Some(journal) = self.segments.get(segment).segment.journal() {
            journal.remove(unit);
        }
    }

    /// Makes objects of what was found on a segment that nobody can place anything in yet.
    pub(super) fn restore(&self, registered: &Registered, recovered: &Recovered) {
        let begun = Instant::now();
        let mut restored = 0;
        for found in recovered.iter() {
            match self.restore_copy(registered, &found) {
                Ok(()) => restored += 1,
                Err(_) => self.note_gone((registered.segment.number, found.unit)),
            }
        }
        say!(
            Level::Info,
            "segment {:#x}: {restored} of {} objects found on it are there again, after {} ms",
            registered.segment.address,
            recovered.len(),
            begun.elapsed().as_millis()
        );
    }

    /// Makes an object with a copy that is on disk. `Exists` when there is one of its key, which is then the newer.
    fn restore_copy(&self, registered: &Registered, found: &Found<'_>) -> Result<()> {
        let segment = &registered.segment;
        let Found {
            key, unit, checksum, ..
        } = *found;
        let hash = self.hash(&key);
        let units = Segment::units_for(found.size) as u32;
        let mut shard = self.index.lock(hash);
        if shard.find(|other| self.objects.life_of(other, &key, hash)).is_some() {
            return Err(Error::Exists);
        }
        let slot = self.objects.create(&key, hash, found.size, 1)?;
        let place = evict::place(self.clock.stamp_of_put(), 0);
        let made = self.objects.annotate(slot).and_then(|()| {
            let has_extent = segment.with_space(|space| space.allocate_at(unit, units, Owner::Object(slot)));
            if has_extent != Some(true) {
                return Err(Error::NoSpace("the extent is another's".into()));
            }
            self.objects.set_checksum(slot, checksum);
            self.objects.install(slot, 0, segment.number, unit, true);
            let kind = self.enlist(slot, 0, place, false, None)?;
            self.objects.get(slot).set_used(place, kind as u8);
            shard.insert(slot, |other| self.objects.get(other).hash())
        });
        if let Err(error) = made {
            self.objects.get(slot).set_state(State::Gone);
            drop(shard);
            self.drop_reserved_copy(slot, 0);
            self.objects.finish(slot);
            return Err(error);
        }
        self.objects.blob(slot, 0).count.publish();
        self.objects.get(slot).set_state(State::Readable);
        self.announce(
            event::Kind::Stored,
            self.key_to_announce(slot),
            slot,
            std::iter::once(0),
        );
        drop(shard);
        self.count_stored(1);
        Ok(())
    }

    /// Writes down what is only in memory, and ends the journals. Nobody else is in the store, but for those who hold memory.
    pub(super) fn save(&self) {
        let is_kept = |segment: &Segment| segment.journal().is_some();
        if !self.segments.open().any(|registered| is_kept(&registered.segment)) {
            return;
        }
        let begun = Instant::now();
        let written = self.write_down(self.only_in_memory());
        for registered in self.segments.open() {
            let Some(journal) = registered.segment.journal() else {
                continue;
            };
            let report = journal.close();
            if report.lost_puts > 0 {
                say!(
                    Level::Warn,
                    "segment {:#x}: {} objects will not be found again, because its state's disk was too slow for them",
                    registered.segment.address,
                    report.lost_puts
                );
            }
        }
        say!(
            Level::Info,
            "{written} objects were written down in {} ms",
            begun.elapsed().as_millis()
        );
    }

    /// The objects that have no copy that is kept, the one that was used last first; of those that have one, the last use is noted.
    fn only_in_memory(&self) -> Vec<(Reverse<u64>, Named)> {
        let mut found = Vec::new();
        let mut uses = 0;
        for slot in 0..self.objects.bound() {
            let object = self.objects.get(slot);
            let named = Named {
                slot,
                generation: object.life().generation(),
            };
            let Some(life) = self.life_of(named) else { continue };
            let mut is_kept = false;
            for copy in self.live_copies(named, life) {
                let segment = &self.segments.get(copy.place.0).segment;
                let Some(journal) = segment.journal() else { continue };
                is_kept = true;
                journal.note_use(copy.place.1, object.used());
                uses += 1;
                if uses % USES == 0 {
                    journal.flush();
                }
            }
            if !is_kept && found.try_reserve(1).is_ok() {
                found.push((Reverse(object.used()), named));
            }
        }
        found.sort_unstable_by_key(|(used, _)| *used);
        found
    }

    /// Copies objects to where they are kept; how many.
    fn write_down(&self, objects: Vec<(Reverse<u64>, Named)>) -> u64 {
        let is_kept = |segment: &Segment| segment.journal().is_some();
        let mut written = 0;
        let mut objects = objects.into_iter().map(|(_, named)| named).peekable();
        while objects.peek().is_some() {
            let (mut group, mut bytes) = (Vec::new(), 0);
            while bytes < IN_FLIGHT
                && group.try_reserve(1).is_ok()
                && let Some(named) = objects.next()
            {
                let begun = self.begin_copy(named, is_kept, |_| false);
                // What has no room here leaves it to smaller ones.
                if let Ok(Begun::Copying(copying)) = begun {
                    bytes += copying.size;
                    group.push(copying);
                }
            }
            self.make_copies(group, |_, result| written += u64::from(result.is_ok()));
        }
        written
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::Options;
    use crate::segment::allocator::UNIT;

    /// What this thread has had of a processor.
    fn processor_time() -> Duration {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
        Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
    }

    /// How long it takes to open a store, by the number of objects that it finds: `MMC_RESTART_OBJECTS=1000000`, in a release build, is what
    /// the figure is made with.
    #[test]
    fn every_object_of_a_large_state_is_there_when_the_store_is_open() {
        let objects = std::env::var("MMC_RESTART_OBJECTS").map_or(20_000, |number| number.parse().unwrap());
        let directory = std::env::temp_dir().join(format!("mmc-large-{}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        let (data, capacity) = (directory.join("data"), objects * UNIT);
        std::fs::File::create(&data).unwrap().set_len(capacity + UNIT).unwrap();
        let (plan, states) = (
            Plan {
                medium: crate::segment::Medium::Ssd,
                rank: 0,
                capacity,
            },
            States {
                path: directory.clone(),
                wipe: false,
            },
        );
        let (journal, _) = states.open(&data, &plan).unwrap();
        for number in 0..objects {
            let key = format!("model-7b/{number:032x}");
            let written = Written {
                key: key.as_bytes(),
                // Not in the order of the units.
                unit: (number * 7_919 % objects) as u32,
                size: UNIT,
                checksum: number + 1,
            };
            journal.put(&written, number);
            if number % 10_000 == 0 {
                journal.flush();
            }
        }
        assert_eq!(journal.close().lost_puts, 0);
        drop(journal);

        let options = Options {
            dram_size: Some(0),
            ssd_path: Some(data),
            ssd_size: Some(capacity),
            state_path: Some(directory.clone()),
            ..Options::default()
        };
        let config = options.resolve(&|_| None).unwrap().0;
        let (begun, processor) = (Instant::now(), processor_time());
        let store = Store::open(&config, None).unwrap();
        let (elapsed, processor) = (begun.elapsed(), processor_time() - processor);
        println!("{objects} objects in {elapsed:?}, {processor:?} of it on a processor");
        assert_eq!(store.stored_keys(), objects);
        store.stop();
        drop(store);
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
