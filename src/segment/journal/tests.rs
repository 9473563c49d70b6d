//! State files against a model: ended at every byte, damaged at every byte, on disks that stop, and when they are another's.

mod ends;
mod stops;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use super::disk::Real;
use super::file::{Change, Place, StateFile};
use super::label::Identity;
use super::record::{Record, Used, Written};
use super::{Journal, Recovered};
use crate::error::Error;
use crate::segment::allocator::UNIT;

const UNITS: u64 = 64;
const IDENTITY: Identity = Identity {
    rank: 3,
    capacity: UNITS * UNIT,
};

/// A directory with a data file, which goes with this value.
struct Scene {
    directory: PathBuf,
    state: PathBuf,
    data: PathBuf,
}

impl Scene {
    fn new() -> Scene {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        // Thousands of files are made, and each waits for the disk: in memory where there is such a place.
        let memory = PathBuf::from("/dev/shm");
        let parent = if memory.is_dir() { memory } else { std::env::temp_dir() };
        let directory = parent.join(format!("mmc-journal-{}-{number}", std::process::id()));
        fs::create_dir(&directory).unwrap();
        let data = directory.join("data");
        fs::File::create(&data).unwrap().set_len(IDENTITY.capacity).unwrap();
        Scene {
            state: directory.join("data.state"),
            data,
            directory,
        }
    }

    fn place(&self) -> Place<'_> {
        Place {
            state: &self.state,
            data: &self.data,
            identity: IDENTITY,
            wipe: false,
        }
    }

    fn open(&self) -> (Journal, Recovered) {
        Journal::open(&self.place()).unwrap()
    }

    /// What is there when it is opened now.
    fn found(&self) -> Found {
        found_in(&StateFile::open(&self.place(), Box::new(Real)).unwrap().1)
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Copies by first unit.
type Found = BTreeMap<u32, Copy>;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Copy {
    key: Vec<u8>,
    size: u64,
    checksum: u64,
}

fn found_in(recovered: &Recovered) -> Found {
    let found = recovered.iter().map(|found| {
        let copy = Copy {
            key: found.key.bytes().to_vec(),
            size: found.size,
            checksum: found.checksum,
        };
        (found.unit, copy)
    });
    found.collect()
}

/// Something that happens to a segment.
#[derive(Debug, Clone)]
enum Step {
    Put(u32, Copy),
    Remove(u32),
    Use(u32),
}

impl Step {
    fn record(&self, place: u64) -> (Record<'_>, Change) {
        let used = Used { opening: 1, place };
        let (record, puts, removes) = match self {
            Step::Put(unit, copy) => {
                let written = Written {
                    key: &copy.key,
                    unit: *unit,
                    size: copy.size,
                    checksum: copy.checksum,
                };
                (Record::Put(written, used), 1, 0)
            }
            Step::Remove(unit) => (Record::Remove { unit: *unit }, 0, 1),
            Step::Use(unit) => (Record::Use { unit: *unit, used }, 0, 0),
        };
        let change = Change {
            records: 1,
            puts,
            removes,
        };
        (record, change)
    }

    fn note(&self, journal: &Journal, place: u64) {
        match self.record(place).0 {
            Record::Put(written, _) => drop(journal.put(&written, place)),
            Record::Remove { unit } => journal.remove(unit),
            Record::Use { unit, .. } => journal.note_use(unit, place),
        }
    }

    fn apply(&self, model: &mut Found) {
        match self {
            Step::Put(unit, copy) => drop(model.insert(*unit, copy.clone())),
            Step::Remove(unit) => drop(model.remove(unit)),
            Step::Use(_) => {}
        }
    }
}

/// A copy of `units` units; the number makes it one of its own.
fn copy_of(number: u64, units: u64) -> Copy {
    Copy {
        key: format!("layer-{number}/{}", "x".repeat(number as usize % 7)).into_bytes(),
        size: units * UNIT - number % 3,
        checksum: number.wrapping_mul(0x9e37_79b9_7f4a_7c15),
    }
}

/// The state before any of these steps, and after each.
fn history(steps: &[Step]) -> Vec<Found> {
    let mut states = vec![Found::new()];
    for step in steps {
        let mut next = states[states.len() - 1].clone();
        step.apply(&mut next);
        states.push(next);
    }
    states
}

#[test]
fn what_was_noted_is_found_and_the_last_used_comes_last() {
    let scene = Scene::new();
    let keys = |recovered: &Recovered| -> Vec<u32> { recovered.iter().map(|found| found.unit).collect() };
    let (journal, recovered) = scene.open();
    assert_eq!(recovered.len(), 0);
    for unit in 0..6 {
        Step::Put(unit, copy_of(unit.into(), 1)).note(&journal, 100 + u64::from(unit));
    }
    journal.remove(3);
    journal.note_use(1, 200);
    assert_eq!(journal.close(), super::Report::default());

    let (journal, recovered) = scene.open();
    assert_eq!(recovered.torn_bytes, 0);
    assert_eq!(keys(&recovered), [0, 2, 4, 5, 1]);
    assert_eq!(found_in(&recovered)[&4], copy_of(4, 1));
    // Places begin anew, and are later all the same.
    journal.note_use(2, 5);
    Step::Put(3, copy_of(30, 1)).note(&journal, 4);
    drop(journal);
    assert_eq!(keys(&scene.open().1), [0, 4, 5, 1, 3, 2]);
}

#[test]
fn of_two_copies_that_overlap_the_later_counts_and_none_reaches_out_of_the_segment() {
    let scene = Scene::new();
    let (journal, _) = scene.open();
    let steps = [
        Step::Put(10, copy_of(0, 4)),
        Step::Put(12, copy_of(1, 1)),
        Step::Put(21, copy_of(2, 1)),
        Step::Put(20, copy_of(3, 4)),
        Step::Put(UNITS as u32 - 1, copy_of(4, 2)),
        Step::Put(UNITS as u32 - 3, copy_of(5, 2)),
    ];
    for (place, step) in steps.iter().enumerate() {
        step.note(&journal, place as u64);
    }
    drop(journal);
    let expected =
        [(12, 1), (20, 3), (61, 5)].map(|(unit, number)| (unit, copy_of(number, [1, 1, 1, 4, 2, 2][number as usize])));
    assert_eq!(scene.found(), Found::from(expected));
}

#[test]
fn a_state_that_is_open_can_not_be_opened_again() {
    let scene = Scene::new();
    let (journal, _) = scene.open();
    let second = Journal::open(&Place {
        wipe: true,
        ..scene.place()
    });
    assert!(matches!(second, Err(Error::Busy(_))));
    drop(journal);
    scene.open();
}

/// A state of two copies, spoiled in some way, and the sentence that it is refused with.
fn refused(spoil: impl FnOnce(&Scene, &mut Place<'_>), sentence: &str) {
    let scene = Scene::new();
    let (journal, _) = scene.open();
    Step::Put(0, copy_of(0, 1)).note(&journal, 0);
    drop(journal);
    let mut place = scene.place();
    spoil(&scene, &mut place);
    let before = fs::read(&scene.state).unwrap();
    match Journal::open(&place) {
        Err(Error::InvalidParam(message)) => assert!(
            message.contains(sentence) && message.contains(scene.state.to_str().unwrap()),
            "{message}"
        ),
        other => panic!("{sentence}: {:?}", other.map(|_| ())),
    }
    assert_eq!(fs::read(&scene.state).unwrap(), before, "refusing changes nothing");

    // And wiped: empty, and usable.
    let wiping = Place { wipe: true, ..place };
    let (journal, recovered) = Journal::open(&wiping).unwrap();
    assert_eq!(recovered.len(), 0);
    Step::Put(1, copy_of(1, 1)).note(&journal, 0);
    drop(journal);
    let (_, recovered) = Journal::open(&place).unwrap();
    assert_eq!(found_in(&recovered), Found::from([(1, copy_of(1, 1))]));
}

fn change_state(scene: &Scene, act: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(&scene.state).unwrap();
    act(&mut bytes);
    fs::write(&scene.state, bytes).unwrap();
}

#[test]
fn a_file_that_is_not_this_segments_state_is_refused_with_the_reason_or_wiped() {
    refused(
        |scene, _| change_state(scene, |bytes| bytes[8] = 7),
        "of version 7, and this library has version 1",
    );
    refused(
        |_, place| place.identity.capacity -= UNIT,
        "of a segment of 262144 bytes, and this one has 258048",
    );
    refused(
        |_, place| place.identity.rank = 4,
        "of rank 3, and this store is rank 4",
    );
    refused(
        |scene, _| change_state(scene, |bytes| bytes[12] ^= 1),
        "its header is damaged",
    );
    refused(
        |scene, _| change_state(scene, |bytes| bytes[..8].fill(b'x')),
        "not a state file",
    );
    refused(
        |scene, _| change_state(scene, |bytes| bytes.truncate(20)),
        "20 bytes are too few for a state file",
    );
    refused(
        |scene, _| {
            fs::File::create(&scene.data)
                .unwrap()
                .set_len(IDENTITY.capacity)
                .unwrap()
        },
        "of a data file that is labelled, and",
    );
    refused(
        |scene, _| {
            let other = Scene::new();
            drop(other.open());
            fs::copy(&other.data, &scene.data).unwrap();
        },
        "of another data file than",
    );
}

/// How long it takes to open a state, by the number of copies in it. `MMC_RESTART_OBJECTS=1000000` is what the figure is made with.
#[test]
fn a_large_state_is_found_whole() {
    let objects = std::env::var("MMC_RESTART_OBJECTS").map_or(50_000, |number| number.parse().unwrap());
    let scene = Scene::new();
    let identity = Identity {
        rank: 0,
        capacity: objects * UNIT,
    };
    fs::File::options()
        .write(true)
        .open(&scene.data)
        .unwrap()
        .set_len(identity.capacity)
        .unwrap();
    let place = Place {
        identity,
        ..scene.place()
    };
    let (mut state, _) = StateFile::open(&place, Box::new(Real)).unwrap();
    let mut bytes = Vec::new();
    // In an order that is not that of the units, each but the last put there before: as much garbage as there may be.
    for number in (0..objects).chain(0..objects) {
        let unit = number * 7_919 % objects;
        let copy = Copy {
            key: format!("model-7b/{number:032x}").into_bytes(),
            size: UNIT,
            checksum: number,
        };
        let step = Step::Put(unit as u32, copy);
        let (record, change) = step.record(number);
        bytes.clear();
        record.encode(state.number, &mut bytes).unwrap();
        state.append(&bytes, &change).unwrap();
    }
    let file_bytes = state.length;
    drop(state);
    let begun = std::time::Instant::now();
    let (_, recovered) = Journal::open(&place).unwrap();
    let opened = begun.elapsed();
    let last = recovered.iter().last().unwrap();
    println!("{objects} objects from {file_bytes} bytes in {opened:?}");
    assert_eq!(recovered.len() as u64, objects);
    assert_eq!(last.checksum, objects - 1);
}
