//! A mapping of a whole memfd, this process's own or another's.
//!
//! It begins at the boundary of a huge page. Only there can the kernel map the huge pages that a memfd may have with one entry each, and join
//! small ones (`MADV_COLLAPSE`); left alone it puts a memfd at any page. So a larger range of addresses is taken first, and the mapping laid
//! into it.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Bytes of a huge page.
pub(super) const HUGE_PAGE: u64 = 2 << 20;

/// See the module's text. It is unmapped when it is dropped.
pub(crate) struct View {
    base: usize,
    length: usize,
}

impl View {
    /// Maps the first `length` bytes of a memfd, a multiple of its pages, to be read and written.
    pub(super) fn new(file: impl AsFd, length: usize) -> io::Result<View> {
        let room = length
            .checked_add(HUGE_PAGE as usize)
            .ok_or_else(|| io::Error::from_raw_os_error(libc::ENOMEM))?;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping where the kernel wants it, in nobody's way.
        let begin = checked(unsafe { libc::mmap(std::ptr::null_mut(), room, libc::PROT_NONE, flags, -1, 0) })?;
        let base = begin.next_multiple_of(HUGE_PAGE as usize);
        let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_FIXED);
        let at = std::ptr::with_exposed_provenance_mut(base);
        // SAFETY: `base..base + length` lies in the range that was just taken, which nobody uses.
        let mapped = checked(unsafe { libc::mmap(at, length, access, flags, file.as_fd().as_raw_fd(), 0) });
        if let Err(error) = mapped {
            unmap(begin, room);
            return Err(error);
        }
        unmap(begin, base - begin);
        unmap(base + length, begin + room - base - length);
        Ok(View { base, length })
    }

    /// Address of the first byte.
    pub(super) fn base(&self) -> usize {
        self.base
    }

    /// Bytes.
    pub(super) fn length(&self) -> usize {
        self.length
    }

    /// Advises the kernel about a part of it. Only of advice that changes no byte.
    pub(super) fn advise(&self, advice: libc::c_int, start: usize, length: usize) -> io::Result<()> {
        assert!(start + length <= self.length, "a part of the mapping");
        let at = std::ptr::with_exposed_provenance_mut(self.base + start);
        // SAFETY: the range is this mapping's own.
        if unsafe { libc::madvise(at, length, advice) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}

impl Drop for View {
    fn drop(&mut self) {
        unmap(self.base, self.length);
    }
}

fn checked(address: *mut libc::c_void) -> io::Result<usize> {
    if address == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    Ok(address.expose_provenance())
}

fn unmap(at: usize, length: usize) {
    if length > 0 {
        // SAFETY: a range of a mapping that was made here, and nobody uses any more.
        unsafe { libc::munmap(std::ptr::with_exposed_provenance_mut(at), length) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Seek, Write};

    #[test]
    fn a_view_begins_at_a_huge_page_shows_the_file_and_leaves_nothing_mapped() {
        let fd = rustix::fs::memfd_create("view", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        let mut file = std::fs::File::from(fd);
        for pages in [1, 511, 512, 1025] {
            let length = pages * 4096;
            file.set_len(length as u64).unwrap();
            file.rewind().unwrap();
            file.write_all(&[pages as u8; 4096]).unwrap();
            let view = View::new(&file, length).unwrap();
            assert!(view.base().is_multiple_of(HUGE_PAGE as usize));
            let begin = std::ptr::with_exposed_provenance::<u8>(view.base());
            // SAFETY: the view is mapped, and nobody writes to it.
            let bytes = unsafe { std::slice::from_raw_parts(begin, length) };
            assert_eq!(
                (bytes[4095], bytes[length - 1]),
                (pages as u8, if pages == 1 { 1 } else { 0 })
            );
            let base = view.base();
            drop(view);
            let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
            assert!(!maps.contains("memfd:view"), "{base:#x}\n{maps}");
        }
        assert!(View::new(&file, usize::MAX).is_err());
    }
}
