//! Disks that stop: after any number of bytes and calls, in the middle of anything, nothing works any more. To the file it is the
//! same whether the process, its room or the disk came to an end there.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use proptest::prelude::*;

use super::*;
use crate::segment::journal::compact::Compaction;
use crate::segment::journal::disk::{Disk, File};
use crate::segment::journal::file::successor;

/// The real disk for so many bytes and calls.
#[derive(Clone)]
struct Stopping {
    left: Arc<AtomicU64>,
}

impl Stopping {
    fn after(left: u64) -> Stopping {
        Stopping {
            left: Arc::new(AtomicU64::new(left)),
        }
    }

    /// Spends as much of `wanted` as there is.
    fn spend(&self, wanted: u64) -> u64 {
        let spend = |left: u64| Some(left.saturating_sub(wanted));
        let left = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend);
        left.unwrap_or_else(|left| left).min(wanted)
    }

    fn call(&self) -> io::Result<()> {
        match self.spend(1) {
            1 => Ok(()),
            _ => Err(io::Error::from_raw_os_error(libc::EIO)),
        }
    }

    fn stopping(&self, file: Box<dyn File>) -> Box<dyn File> {
        Box::new(StoppingFile {
            file,
            disk: self.clone(),
        })
    }
}

impl Disk for Stopping {
    fn open(&self, path: &Path) -> io::Result<Box<dyn File>> {
        self.call()?;
        Ok(self.stopping(Real.open(path)?))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn File>> {
        self.call()?;
        Ok(self.stopping(Real.create(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.call()?;
        Real.rename(from, to)
    }

    fn sync_names(&self, _: &Path) -> io::Result<()> {
        self.call()
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.call()?;
        Real.remove(path)
    }
}

struct StoppingFile {
    file: Box<dyn File>,
    disk: Stopping,
}

impl File for StoppingFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let taken = self.disk.spend(bytes.len() as u64) as usize;
        self.file.append(&bytes[..taken])?;
        match taken == bytes.len() {
            true => Ok(()),
            false => Err(io::Error::from_raw_os_error(libc::ENOSPC)),
        }
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(into, offset)
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        self.disk.call()?;
        self.file.cut(length)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.disk.call()
    }

    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }
}

/// Something that the writer does.
#[derive(Debug, Clone)]
enum Act {
    /// Appends what happened, all at once.
    Append(Vec<Step>),
    /// Begins a compaction, or goes a step on with it.
    Compact,
    /// Closes the file, opens it again.
    Reopen,
}

/// What became of a writer.
struct Outcome {
    /// The states that may be found.
    possible: Vec<Found>,
    has_stopped: bool,
}

/// Does all of it on a disk that stops.
fn write(scene: &Scene, acts: &[Act], disk: &Stopping) -> Outcome {
    let mut possible = vec![Found::new()];
    let Ok((mut state, _)) = StateFile::open(&scene.place(), Box::new(disk.clone())) else {
        return Outcome {
            possible,
            has_stopped: true,
        };
    };
    let mut compaction = None;
    let mut place = 0;
    for act in acts {
        let now = possible[possible.len() - 1].clone();
        let result = match act {
            Act::Append(steps) => {
                let (mut bytes, mut change) = (Vec::new(), Change::default());
                for step in steps {
                    place += 1;
                    let (record, one) = step.record(place);
                    record.encode(state.number, &mut bytes).unwrap();
                    change.records += one.records;
                    change.puts += one.puts;
                    change.removes += one.removes;
                    let mut next = possible[possible.len() - 1].clone();
                    step.apply(&mut next);
                    possible.push(next);
                }
                state.append(&bytes, &change).is_ok()
            }
            Act::Compact => {
                let running = compaction.get_or_insert_with(|| Compaction::begin(&state));
                match running.step(&mut state) {
                    Ok(is_over) => {
                        if is_over {
                            compaction = None;
                        }
                        true
                    }
                    Err(_) => false,
                }
            }
            Act::Reopen => {
                compaction = None;
                drop(state);
                match StateFile::open(&scene.place(), Box::new(disk.clone())) {
                    Ok((opened, recovered)) => {
                        assert_eq!(found_in(&recovered), now);
                        state = opened;
                        true
                    }
                    Err(_) => {
                        return Outcome {
                            possible: vec![now],
                            has_stopped: true,
                        };
                    }
                }
            }
        };
        if !result {
            return Outcome {
                possible,
                has_stopped: true,
            };
        }
        possible = possible.split_off(possible.len() - 1);
    }
    Outcome {
        possible,
        has_stopped: false,
    }
}

/// Steps that a segment may take: an extent is removed before it is another's.
fn acts() -> impl Strategy<Value = Vec<Act>> {
    let choices = prop::collection::vec((0u32..8, any::<u64>(), 0u32..4), 1..8);
    let one = prop::option::weighted(0.6, choices);
    prop::collection::vec((one, any::<bool>()), 1..24).prop_map(|choices| {
        let mut model = Found::new();
        let mut acts = Vec::new();
        for (choice, is_reopened) in choices {
            let Some(choices) = choice else {
                acts.push(if is_reopened { Act::Reopen } else { Act::Compact });
                continue;
            };
            let steps = choices.into_iter().map(|(place, number, kind)| {
                let unit = place * 4;
                let step = match kind {
                    _ if !model.contains_key(&unit) => Step::Put(unit, copy_of(number % 1000, 1 + number % 4)),
                    0 => Step::Use(unit),
                    _ => Step::Remove(unit),
                };
                step.apply(&mut model);
                step
            });
            acts.push(Act::Append(steps.collect()));
        }
        acts
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn a_disk_that_stops_anywhere_leaves_a_state_between_what_was_written_and_what_was_to_be(
        acts in acts(),
        stop in 0.0..1.0f64,
    ) {
        // How much all of it takes, to stop somewhere in it.
        let all = Stopping::after(u64::MAX);
        let whole = write(&Scene::new(), &acts, &all);
        prop_assert!(!whole.has_stopped);
        let spent = u64::MAX - all.left.load(Ordering::Relaxed);

        let scene = Scene::new();
        let budget = (spent as f64 * stop) as u64;
        let outcome = write(&scene, &acts, &Stopping::after(budget));
        prop_assert!(outcome.has_stopped);
        let found = scene.found();
        prop_assert!(outcome.possible.contains(&found), "{found:?} of {:?}", outcome.possible);
    }
}

/// Every stop there is, in a history that has it all.
#[test]
fn a_compaction_that_stops_at_any_byte_leaves_the_state_that_was() {
    let acts = [
        Act::Append(vec![
            Step::Put(0, copy_of(1, 2)),
            Step::Put(4, copy_of(2, 1)),
            Step::Remove(0),
        ]),
        Act::Compact,
        Act::Append(vec![Step::Put(0, copy_of(3, 1)), Step::Use(4)]),
        Act::Compact,
        Act::Append(vec![Step::Remove(4), Step::Put(4, copy_of(5, 1))]),
        Act::Compact,
        Act::Compact,
        Act::Append(vec![Step::Put(8, copy_of(6, 1))]),
        Act::Reopen,
        Act::Append(vec![Step::Remove(8)]),
    ];
    for budget in 0.. {
        let scene = Scene::new();
        let outcome = write(&scene, &acts, &Stopping::after(budget));
        let found = scene.found();
        assert!(
            outcome.possible.contains(&found),
            "after {budget}: {found:?} of {:?}",
            outcome.possible
        );
        if !outcome.has_stopped {
            break;
        }
    }
}

fn journal_on(scene: &Scene, disk: &Stopping, few_records: u64) -> Journal {
    Journal::open_on(&scene.place(), Box::new(disk.clone()), few_records)
        .unwrap()
        .0
}

#[test]
fn a_journal_whose_disk_stops_is_given_up_and_nothing_waits_for_it() {
    let scene = Scene::new();
    let disk = Stopping::after(1 << 20);
    let journal = journal_on(&scene, &disk, u64::MAX);
    Step::Put(0, copy_of(0, 1)).note(&journal, 0);
    journal.flush();
    assert!(!journal.report().is_given_up);
    disk.left.store(10, Ordering::Relaxed);
    Step::Put(1, copy_of(1, 1)).note(&journal, 0);
    journal.flush();
    assert!(journal.report().is_given_up);
    Step::Put(2, copy_of(2, 1)).note(&journal, 0);
    journal.remove(0);
    assert!(journal.close().is_given_up);
}

#[test]
fn a_state_that_was_given_up_is_not_found() {
    let scene = Scene::new();
    // Room for the header, and not for a record; enough to remove it all again.
    let journal = journal_on(&scene, &Stopping::after(u64::MAX), u64::MAX);
    Step::Put(0, copy_of(0, 1)).note(&journal, 0);
    journal.flush();
    journal.shared.give_up("a test");
    drop(journal);
    assert!(!scene.state.exists());
    assert_eq!(scene.found(), Found::new());
}

#[test]
fn a_journal_is_compacted_when_more_than_half_of_it_does_not_count() {
    const COPIES: u32 = 16;
    let scene = Scene::new();
    let journal = journal_on(&scene, &Stopping::after(u64::MAX), 64);
    let mut model = Found::new();
    for round in 0..200u64 {
        for unit in 0..COPIES {
            let steps = [Step::Remove(unit), Step::Put(unit, copy_of(round, 1))];
            for step in steps {
                step.note(&journal, round);
                step.apply(&mut model);
            }
        }
        journal.flush();
    }
    // The thread goes on by itself from the record that made it due.
    let compactions = journal.close().compactions;
    assert!(compactions > 0);
    assert!(!successor(&scene.state).exists());
    assert_eq!(scene.found(), model);
    let longest = 48 + 32 + 48 + 20;
    let all = 200 * u64::from(COPIES) * longest;
    let left = fs::metadata(&scene.state).unwrap().len();
    assert!(left < all / 4, "{left} bytes of {all}, {compactions} compactions");
}

#[test]
fn a_compaction_that_fails_leaves_a_journal_that_goes_on() {
    let scene = Scene::new();
    let journal = journal_on(&scene, &Stopping::after(u64::MAX), 4);
    // A directory of that name is in the way of every successor.
    fs::create_dir(successor(&scene.state)).unwrap();
    let mut model = Found::new();
    for round in 0..64u64 {
        for step in [
            Step::Put(0, copy_of(round, 1)),
            Step::Remove(0),
            Step::Put(4, copy_of(round, 1)),
        ] {
            step.note(&journal, round);
            step.apply(&mut model);
        }
        journal.flush();
    }
    let report = journal.close();
    assert_eq!((report.compactions, report.is_given_up), (0, false));
    assert_eq!(scene.found(), model);
}
