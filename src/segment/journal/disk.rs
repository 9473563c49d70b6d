//! The file system as a state file needs it: few calls, each of which may fail, and after which the process may be gone.
//!
//! [`Disk`] is the real one; the tests have one that stops after any number of bytes.
//!
//! A state file that is in use is locked, and so is the one that is going to take its name, before it does: whoever has opened the
//! name and got the lock has the file that the name means, once it has looked again ([`Real::open`]). The lock is that of
//! `flock(2)`, which goes with the process; a child that was forked from it has it, too, so it is let go by hand.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

/// A file that only grows.
pub(super) trait File: Send {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Reads at most as many bytes as `into` has; 0 at the end.
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Cuts everything off behind `length`, and has that on the disk.
    fn cut(&mut self, length: u64) -> io::Result<()>;
    /// Returns when what was appended is on the disk.
    fn sync(&mut self) -> io::Result<()>;
    fn length(&self) -> io::Result<u64>;
}

/// See the module's text.
pub(super) trait Disk: Send {
    /// Opens and locks a file; `WouldBlock` when another has it.
    fn open(&self, path: &Path) -> io::Result<Box<dyn File>>;
    /// Makes an empty file, or empties the one that is there, and locks it.
    fn create(&self, path: &Path) -> io::Result<Box<dyn File>>;
    /// Gives a file another name, in place of what has it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Returns when the names beside `path` are on the disk.
    fn sync_names(&self, path: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
}

/// The operating system's.
pub(super) struct Real;

impl Disk for Real {
    fn open(&self, path: &Path) -> io::Result<Box<dyn File>> {
        loop {
            let file = fs::OpenOptions::new().read(true).append(true).open(path)?;
            file.try_lock()?;
            let (opened, named) = (file.metadata()?, fs::metadata(path)?);
            if (opened.dev(), opened.ino()) == (named.dev(), named.ino()) {
                return Ok(Box::new(Appended(file)));
            }
        }
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn File>> {
        let file = fs::OpenOptions::new().read(true).append(true).create(true).open(path)?;
        // Emptied only now: until it is locked it may be another's.
        file.try_lock()?;
        file.set_len(0)?;
        Ok(Box::new(Appended(file)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn sync_names(&self, path: &Path) -> io::Result<()> {
        let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
        fs::File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }
}

struct Appended(fs::File);

impl Drop for Appended {
    fn drop(&mut self) {
        // A forked child has the descriptor, too, and would keep the lock.
        let _ = self.0.unlock();
    }
}

impl File for Appended {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        loop {
            match FileExt::read_at(&self.0, into, offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        self.0.set_len(length)?;
        self.0.sync_all()
    }

    fn sync(&mut self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
}
