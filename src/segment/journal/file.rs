//! A state file: opened or made, and appended to.
//!
//! It begins with a header that never changes and goes on with records, each of which is whole or none. So a process that ends at any
//! byte leaves what it had written before; a file is made, or made anew, under another name, and takes its own in one step.

use std::ffi::OsString;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};

use zerocopy::IntoBytes;

use super::disk::{Disk, File};
use super::label::{HEADER_BYTES, Header, Identity, read_label, write_label};
use super::survey::{Recovered, Survey, io_error, scan};
use crate::error::{Error, Result, invalid, words};
use crate::log::{Level, say};
use crate::segment::allocator::UNIT;

/// Where the first record begins.
pub(super) const FIRST_RECORD: u64 = HEADER_BYTES as u64;

/// A segment's files and what is known of them before they are opened.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    /// The state file. It is made when it is not there.
    pub(crate) state: &'a Path,
    /// The data file, which is there, and whose bytes from `identity.capacity` on are nobody's.
    pub(crate) data: &'a Path,
    pub(crate) identity: Identity,
    /// Whether a state file that is another's, or damaged, is replaced by an empty one; else it is an error.
    pub(crate) wipe: bool,
}

/// What is known of the records in a file without reading them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) records: u64,
    /// Copies that are there.
    pub(super) live: u64,
}

/// An open state file. Its disk is the one that makes its successor.
pub(super) struct StateFile {
    pub(super) disk: Box<dyn Disk>,
    pub(super) path: PathBuf,
    pub(super) identity: Identity,
    /// The number of the data file, which seeds checksums.
    pub(super) number: u64,
    /// How many times the state has been opened, as far as its records tell.
    pub(super) opening: u32,
    pub(super) file: Box<dyn File>,
    /// Bytes.
    pub(super) length: u64,
    pub(super) tally: Tally,
}

impl StateFile {
    /// Opens the state file of a segment and reads what is in it, or makes an empty one.
    pub(super) fn open(place: &Place<'_>, disk: Box<dyn Disk>) -> Result<(StateFile, Recovered)> {
        let shown = place.state.display();
        match disk.open(place.state) {
            Ok(file) => match StateFile::number_in(&*file, place)? {
                Ok(number) => StateFile::read(place, disk, file, number),
                Err(reason) if place.wipe => {
                    say!(Level::Warn, "state file {shown}: {reason}; it is wiped");
                    // First of all: a file that is there means that its data file is as it says.
                    let removed = disk.remove(place.state).and_then(|()| disk.sync_names(place.state));
                    removed.map_err(|error| named(place.state, "remove", &error))?;
                    drop(file);
                    StateFile::make(place, disk)
                }
                Err(reason) => Err(invalid!("state file {shown}: {reason}")),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => StateFile::make(place, disk),
            Err(error) => Err(named(place.state, "open", &error)),
        }
    }

    /// The number in the header, or why this is not the state of the segment.
    fn number_in(file: &dyn File, place: &Place<'_>) -> Result<std::result::Result<u64, String>> {
        let mut header = [0; HEADER_BYTES];
        let mut filled = 0;
        while filled < HEADER_BYTES {
            let read = file.read_at(&mut header[filled..], filled as u64);
            match read.map_err(|error| named(place.state, "read", &error))? {
                0 => break,
                read => filled += read,
            }
        }
        let number = match Header::check(&header[..filled], place.identity) {
            Ok(number) => number,
            Err(reason) => return Ok(Err(reason.into_owned())),
        };
        let label = read_label(place.data, place.identity).map_err(|error| named(place.data, "read", &error))?;
        if label != Some(number) {
            let data = place.data.display();
            return Ok(Err(match label {
                Some(_) => format!("of another data file than {data}"),
                None => format!("of a data file that is labelled, and {data} is not"),
            }));
        }
        Ok(Ok(number))
    }

    fn read(
        place: &Place<'_>,
        disk: Box<dyn Disk>,
        mut file: Box<dyn File>,
        number: u64,
    ) -> Result<(StateFile, Recovered)> {
        let on_disk = file.length().map_err(|error| named(place.state, "read", &error))?;
        let mut survey = Survey::default();
        let length = scan(&*file, FIRST_RECORD..on_disk, number, &mut |_, record, _| {
            survey.note(record)
        })?;
        let mut recovered = Recovered::with_room_for(survey.count())?;
        recovered.torn_bytes = on_disk - length;
        scan(&*file, FIRST_RECORD..length, number, &mut |offset, record, _| {
            survey
                .ask(record)
                .map_or(Ok(()), |(written, used)| recovered.push(offset, &written, used))
        })?;
        recovered.settle(place.identity.capacity / UNIT);
        if recovered.torn_bytes > 0 {
            say!(
                Level::Warn,
                "state file {}: cut {} bytes behind the last whole record",
                place.state.display(),
                recovered.torn_bytes
            );
            // And on the disk before anything follows: else what was cut could come back behind it.
            file.cut(length).map_err(|error| named(place.state, "cut", &error))?;
        }
        let state = StateFile {
            disk,
            path: place.state.to_path_buf(),
            identity: place.identity,
            number,
            opening: survey.opening + 1,
            file,
            length,
            tally: Tally {
                records: survey.records,
                live: survey.count(),
            },
        };
        Ok((state, recovered))
    }

    /// Labels the data file and makes an empty state file for it.
    fn make(place: &Place<'_>, disk: Box<dyn Disk>) -> Result<(StateFile, Recovered)> {
        let number = RandomState::new().hash_one(std::process::id());
        write_label(place.data, place.identity, number).map_err(|error| named(place.data, "write", &error))?;
        let making = || {
            let file = StateFile::begin(&*disk, place.state, place.identity, number)?;
            disk.rename(&successor(place.state), place.state)?;
            disk.sync_names(place.state)?;
            Ok(file)
        };
        let file = making().map_err(|error: io::Error| named(place.state, "make", &error))?;
        let state = StateFile {
            disk,
            path: place.state.to_path_buf(),
            identity: place.identity,
            number,
            opening: 1,
            file,
            length: FIRST_RECORD,
            tally: Tally::default(),
        };
        Ok((state, Recovered::default()))
    }

    /// A file of no records, under the successor's name, with its header on the disk.
    pub(super) fn begin(disk: &dyn Disk, path: &Path, identity: Identity, number: u64) -> io::Result<Box<dyn File>> {
        let mut file = disk.create(&successor(path))?;
        file.append(Header::new(identity, number).as_bytes())?;
        file.sync()?;
        Ok(file)
    }

    /// Appends whole records. After an error nothing more may be appended: there may be a part of one at the end.
    pub(super) fn append(&mut self, records: &[u8], change: &Change) -> io::Result<()> {
        self.file.append(records)?;
        self.length += records.len() as u64;
        self.tally.records += change.records;
        self.tally.live = (self.tally.live + change.puts).saturating_sub(change.removes);
        Ok(())
    }

    /// Takes the file's name away: nothing of it will be found.
    pub(super) fn abandon(&self) -> io::Result<()> {
        self.disk.remove(&self.path)?;
        self.disk.sync_names(&self.path)
    }
}

/// What some records change.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) records: u64,
    pub(super) puts: u64,
    pub(super) removes: u64,
}

/// Under which name a file is made that is to take the place of `path`.
pub(super) fn successor(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".new");
    PathBuf::from(name)
}

fn named(path: &Path, what: &str, error: &io::Error) -> Error {
    let shown = path.display();
    if error.kind() == io::ErrorKind::WouldBlock {
        return Error::Busy(words!("state file {shown}: another store has it open"));
    }
    io_error(&format!("file {shown}: {what}"), error)
}
