//! A segment of another process's pool, mapped here.
//!
//! It is a memfd that came over a socket, so nothing about it is taken on trust: it must be sealed against shrinking, as a read of a page that was
//! cut off ends in a signal, and be as large as it is said to be. It stays mapped until the last who uses it lets go, whatever becomes of its
//! owner.
//!
//! Which bytes may be read or written is the owner's to say, call by call: others use the memory at the same time.

use std::io;
use std::os::fd::OwnedFd;
use std::ptr::with_exposed_provenance_mut;

use rustix::fs::SealFlags;

use super::buffers::Buffers;
use super::device::Direction;
use super::view::View;
use crate::copy;
use crate::error::{Error, Result, words};

/// A mapping that goes when it is dropped.
pub(crate) struct Shared {
    /// Pool address of the first byte.
    address: u64,
    /// Bytes.
    capacity: u64,
    map: View,
}

impl Shared {
    /// Maps a memfd of `capacity` bytes, the segment at a pool address.
    pub(crate) fn new(file: OwnedFd, address: u64, capacity: u64) -> Result<Shared> {
        let seals = rustix::fs::fcntl_get_seals(&file).unwrap_or(SealFlags::empty());
        if !seals.contains(SealFlags::SHRINK) {
            return Err(Error::Io(words!(
                "segment {address:#x}: its memory is not sealed against shrinking, so it is not mapped"
            )));
        }
        let refused = |error: io::Error| Error::OutOfMemory(words!("segment {address:#x} can't be mapped: {error}"));
        let size = rustix::fs::fstat(&file).map_err(|error| refused(error.into()))?.st_size;
        if (size as u64) < capacity {
            return Err(Error::Io(words!(
                "segment {address:#x} of {capacity} bytes: its memory has {size}, so it is not mapped"
            )));
        }
        let length = usize::try_from(capacity).map_err(|_| refused(io::Error::from_raw_os_error(libc::ENOMEM)))?;
        let map = View::new(&file, length).map_err(refused)?;
        map.advise(libc::MADV_DONTDUMP, 0, length).map_err(refused)?;
        Ok(Shared { address, capacity, map })
    }

    /// Where this process has `bytes` bytes from a pool address on; `None` when they are not all in the segment.
    pub(crate) fn pointer(&self, address: u64, bytes: u64) -> Option<*mut u8> {
        let offset = address.checked_sub(self.address)?;
        let end = offset.checked_add(bytes)?;
        (end <= self.capacity).then(|| with_exposed_provenance_mut(self.map.base() + offset as usize))
    }

    /// Copies between the first `bytes` bytes of `buffers` and what begins at a pool address. The owner has lent these to the caller, to be
    /// read or written as the direction says. Needs a [`copy::fence`] before anybody is told.
    pub(crate) fn copy(&self, direction: Direction, address: u64, buffers: &Buffers<'_>, bytes: u64) -> Result<()> {
        let memory = self.pointer(address, bytes).ok_or_else(|| {
            Error::Internal(words!(
                "{bytes} bytes at {address:#x}: they are not in the segment at {:#x}",
                self.address
            ))
        })?;
        for (at, piece, length) in buffers.pieces(bytes) {
            let memory = memory.wrapping_add(at as usize);
            let (destination, source) = match direction {
                Direction::ToSegment => (memory, piece.cast::<u8>()),
                Direction::FromSegment => (piece.cast::<u8>(), memory),
            };
            // SAFETY: `Buffers::new` was promised that the piece may be used so. The range lies in the mapping, which can't shrink; the owner has
            // lent it, so that nobody writes to what is read here, nor uses what is written.
            unsafe { copy::stream(destination, source, length) };
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use rustix::fs::MemfdFlags;

    use super::*;

    /// A memfd of these bytes, with these seals.
    fn memfd(bytes: u64, seals: SealFlags) -> OwnedFd {
        let file = rustix::fs::memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        rustix::fs::ftruncate(&file, bytes).unwrap();
        rustix::fs::fcntl_add_seals(&file, seals).unwrap();
        file
    }

    #[test]
    fn memory_that_could_be_cut_off_is_not_mapped() {
        let unsealed = Shared::new(memfd(8192, SealFlags::empty()), 1 << 40, 8192)
            .err()
            .unwrap();
        assert!(
            unsealed.to_string().contains("not sealed against shrinking"),
            "{unsealed}"
        );
        let growing = Shared::new(memfd(8192, SealFlags::GROW), 1 << 40, 8192).err().unwrap();
        assert!(
            growing.to_string().contains("not sealed against shrinking"),
            "{growing}"
        );
        let short = Shared::new(memfd(4096, SealFlags::SHRINK), 1 << 40, 8192)
            .err()
            .unwrap();
        assert!(
            short.to_string().contains("of 8192 bytes: its memory has 4096"),
            "{short}"
        );
        let file = File::open("/proc/self/exe").unwrap();
        let other = Shared::new(file.into(), 1 << 40, 4096).err().unwrap();
        assert!(other.to_string().contains("not sealed against shrinking"), "{other}");
    }

    #[test]
    fn a_range_is_inside_or_it_is_none() {
        let first = 1 << 40;
        let shared = Shared::new(memfd(8192, SealFlags::SHRINK), first, 8192).unwrap();
        let base = shared.pointer(first, 8192).unwrap();
        assert_eq!(shared.pointer(first + 8191, 1), Some(base.wrapping_add(8191)));
        assert_eq!(shared.pointer(first + 8192, 0), Some(base.wrapping_add(8192)));
        for (address, bytes) in [
            (first - 1, 1),
            (first, 8193),
            (first + 8192, 1),
            (first + 1, u64::MAX),
            (0, 1),
        ] {
            assert_eq!(shared.pointer(address, bytes), None, "{bytes} bytes at {address:#x}");
        }
    }
}
