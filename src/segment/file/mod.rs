//! A file as memory: an SSD segment.
//!
//! The file has its final size from the start ([`File::open`] allocates it), so that a disk that is full is found when the segment is
//! registered and not by a block that is being moved. It is read and written by position only, past the page cache where the file
//! system takes `O_DIRECT`: a block that came from the disk is not read from there again soon, and the host's memory is for the pool.
//!
//! Direct I/O wants addresses, offsets and lengths that are multiples of 4096. Extents are, at both ends, so what is read and written is
//! always whole units, the bytes behind an object's end with it. The other side is either the caller's memory, when that happens to
//! be aligned, or a [`Bounce`].
//!
//! **Threads, not `io_uring`.** A call gives all of its parts at once; a handful of threads of the file ([`workers`]) and the caller
//! take them one by one. That keeps a disk's queue full from 64 KiB a part on, works in every kernel and container (many forbid
//! `io_uring`), and leaves a call with a single part on its own thread, which no ring would make faster.
//!
//! Nothing is locked during I/O. A thread that stops in the middle of a part stops the call that the part is of, and nobody else.

mod bounce;
mod workers;

use std::ffi::CString;
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, OnceLock};

pub(crate) use bounce::Bounce;

use super::allocator::UNIT;
use super::device::Direction;
use crate::error::{Error, Result, invalid, words};
use bounce::Bounces;
use workers::Workers;

/// Bytes of one part at most: large enough that a disk is at its full speed, small enough that a large object is several parts.
pub(crate) const PART: u64 = 1 << 20;

/// Reads and writes by position. A part of what was asked for may be done, as `pread` and `pwrite` do.
pub(crate) trait Positional: Send + Sync {
    /// Reads up to `length` bytes to `memory`; how many.
    ///
    /// # Safety
    /// `memory` is writable for `length` bytes.
    unsafe fn read(&self, memory: *mut u8, length: usize, offset: u64) -> io::Result<usize>;

    /// Writes up to `length` bytes from `memory`; how many.
    ///
    /// # Safety
    /// `memory` is readable for `length` bytes.
    unsafe fn write(&self, memory: *const u8, length: usize, offset: u64) -> io::Result<usize>;
}

/// One contiguous read or write.
pub(crate) struct Part {
    pub(crate) direction: Direction,
    /// Where in the file, in bytes.
    pub(crate) offset: u64,
    /// The other side, an exposed address.
    pub(crate) memory: usize,
    pub(crate) length: usize,
    /// The object of the call that it belongs to.
    pub(crate) element: usize,
    /// Why it was not done, afterwards.
    pub(crate) failure: OnceLock<io::Error>,
}

/// A file with the threads that read and write it.
pub(crate) struct File {
    workers: Workers,
    bounces: Arc<Bounces>,
    report: Report,
}

/// What a file got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Report {
    /// Past the page cache.
    pub(crate) is_direct: bool,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_direct {
            "a file past the page cache"
        } else {
            "a file through the page cache"
        })
    }
}

impl File {
    /// Opens, or makes, the file of a segment of `capacity` bytes. It is this segment's alone until it is dropped. With `is_kept` it has a unit
    /// more, for the label by which a journal knows it; without, a label that is there goes, as what it promises no longer holds.
    pub(crate) fn open(path: &Path, capacity: u64, is_kept: bool) -> Result<File> {
        let (disk, is_direct) = Disk::open(path, capacity, is_kept)?;
        File::over(Box::new(disk), Report { is_direct })
    }

    /// A file over any reader and writer.
    pub(crate) fn over(positional: Box<dyn Positional>, report: Report) -> Result<File> {
        Ok(File {
            workers: Workers::start(positional)?,
            bounces: Arc::default(),
            report,
        })
    }

    /// Memory for `bytes` bytes on their way to or from the file, rounded up to whole units. What stands in it is anybody's guess.
    pub(crate) fn bounce(&self, bytes: u64) -> Result<Bounce> {
        Bounces::take(&self.bounces, bytes)
    }

    pub(crate) fn report(&self) -> Report {
        self.report
    }

    /// Does all of `parts`, several at once, and returns when every one of them is over, with its failure in it if there was one.
    ///
    /// # Safety
    /// The memory of each part is the caller's for its length, readable for a write and writable for a read, until this returns.
    pub(crate) unsafe fn run(&self, parts: &[Part]) {
        // SAFETY: promised by the caller.
        unsafe { self.workers.run(parts) }
    }
}

/// The file itself.
struct Disk(OwnedFd);

impl Disk {
    /// The open file, and whether it takes direct I/O.
    fn open(path: &Path, capacity: u64, is_kept: bool) -> Result<(Disk, bool)> {
        let name = path.display();
        let wrong = |what: &str| invalid!("file {name}: {what}");
        let direct = Disk::open_with(path, libc::O_DIRECT);
        let disk = match direct {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Disk::open_with(path, 0),
            other => other,
        };
        let disk = disk.map_err(|error| Error::Io(words!("file {name}: can't be opened: {error}")))?;
        let status = disk.status().map_err(|error| failed(path, &error))?;
        if status.st_mode & libc::S_IFMT != libc::S_IFREG {
            return Err(wrong("must be a regular file"));
        }
        // SAFETY: the descriptor is open.
        if unsafe { libc::flock(disk.0.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } != 0 {
            return Err(wrong("is another segment's"));
        }
        let size = status.st_size as u64;
        // Whatever it is, it was not made for this segment: nothing is overwritten that somebody may miss.
        if ![0, capacity, capacity + UNIT].contains(&size) {
            return Err(invalid!(
                "file {name} of {size} bytes: must have the segment's {capacity} bytes, or none yet"
            ));
        }
        if size > capacity && !is_kept {
            // SAFETY: the descriptor is open.
            if unsafe { libc::ftruncate(disk.0.as_raw_fd(), capacity as libc::off_t) } != 0 {
                return Err(failed(path, &io::Error::last_os_error()));
            }
        }
        disk.allocate(capacity + if is_kept { UNIT } else { 0 })
            .map_err(|error| match error.raw_os_error() {
                Some(libc::ENOSPC | libc::EDQUOT | libc::EFBIG) => {
                    if size == 0 {
                        // A file that is new is left as it was found: what was allocated of it would be of the wrong size next time.
                        // SAFETY: the descriptor is open.
                        unsafe { libc::ftruncate(disk.0.as_raw_fd(), 0) };
                    }
                    Error::NoSpace(words!("file {name}: no room for {capacity} bytes: {error}"))
                }
                _ => failed(path, &error),
            })?;
        if disk.takes_direct() {
            return Ok((disk, true));
        }
        // Opened a second time it would be another's by the lock, so the flag is taken off the one that there is.
        // SAFETY: the descriptor is open.
        let flags = unsafe { libc::fcntl(disk.0.as_raw_fd(), libc::F_GETFL) };
        // SAFETY: as above.
        unsafe { libc::fcntl(disk.0.as_raw_fd(), libc::F_SETFL, flags & !libc::O_DIRECT) };
        Ok((disk, false))
    }

    fn open_with(path: &Path, flags: libc::c_int) -> io::Result<Disk> {
        let path = CString::new(path.as_os_str().as_bytes())?;
        let flags = flags | libc::O_RDWR | libc::O_CREAT | libc::O_CLOEXEC;
        // SAFETY: the path is a C string; a new descriptor is nobody else's.
        unsafe {
            match libc::open(path.as_ptr(), flags, 0o600) {
                -1 => Err(io::Error::last_os_error()),
                descriptor => Ok(Disk(OwnedFd::from_raw_fd(descriptor))),
            }
        }
    }

    fn status(&self) -> io::Result<libc::stat> {
        let mut status = std::mem::MaybeUninit::uninit();
        // SAFETY: the descriptor is open, the struct the kernel's to fill; it is read when the kernel says that it did.
        unsafe {
            match libc::fstat(self.0.as_raw_fd(), status.as_mut_ptr()) {
                0 => Ok(status.assume_init()),
                _ => Err(io::Error::last_os_error()),
            }
        }
    }

    /// Gives the file its blocks; where the file system can't do that beforehand, its size.
    fn allocate(&self, capacity: u64) -> io::Result<()> {
        let bytes = libc::off_t::try_from(capacity).map_err(|_| io::Error::from_raw_os_error(libc::EFBIG))?;
        // SAFETY: the descriptor is open.
        if unsafe { libc::fallocate(self.0.as_raw_fd(), 0, 0, bytes) } == 0 {
            return Ok(());
        }
        match io::Error::last_os_error() {
            error if error.raw_os_error() != Some(libc::EOPNOTSUPP) => Err(error),
            // SAFETY: as above.
            _ if unsafe { libc::ftruncate(self.0.as_raw_fd(), bytes) } == 0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Whether a read that is aligned for it is taken. The flag alone says nothing: some file systems refuse the I/O only.
    fn takes_direct(&self) -> bool {
        // SAFETY: the descriptor is open.
        let flags = unsafe { libc::fcntl(self.0.as_raw_fd(), libc::F_GETFL) };
        if flags & libc::O_DIRECT == 0 {
            return false;
        }
        // SAFETY: the bounce is writable for its length.
        Bounce::new(UNIT).is_ok_and(|bounce| unsafe { self.read(bounce.memory(), bounce.length(), 0) }.is_ok())
    }
}

impl Positional for Disk {
    unsafe fn read(&self, memory: *mut u8, length: usize, offset: u64) -> io::Result<usize> {
        // SAFETY: promised by the caller.
        let done = unsafe { libc::pread(self.0.as_raw_fd(), memory.cast(), length, offset as libc::off_t) };
        usize::try_from(done).map_err(|_| io::Error::last_os_error())
    }

    unsafe fn write(&self, memory: *const u8, length: usize, offset: u64) -> io::Result<usize> {
        // SAFETY: promised by the caller.
        let done = unsafe { libc::pwrite(self.0.as_raw_fd(), memory.cast(), length, offset as libc::off_t) };
        usize::try_from(done).map_err(|_| io::Error::last_os_error())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // A forked child has the descriptor, too, and would keep the lock.
        // SAFETY: the descriptor is open.
        unsafe { libc::flock(self.0.as_raw_fd(), libc::LOCK_UN) };
    }
}

fn failed(path: &Path, error: &io::Error) -> Error {
    Error::Io(words!("file {}: {error}", path.display()))
}

/// Cuts a contiguous read or write into parts.
pub(crate) fn parts_of(
    direction: Direction,
    element: usize,
    offset: u64,
    memory: *mut u8,
    length: u64,
) -> impl Iterator<Item = Part> {
    let memory = memory.expose_provenance();
    (0..length).step_by(PART as usize).map(move |at| Part {
        direction,
        offset: offset + at,
        memory: memory + at as usize,
        length: PART.min(length - at) as usize,
        element,
        failure: OnceLock::new(),
    })
}

#[cfg(test)]
pub(crate) mod tests;
