//! Much address space over little memory: a segment for millions of small objects.
//!
//! An object of a byte takes a unit of 4096 in mmc's pool, so ten million of them want 40 GiB. Rows that are about keys and not about
//! bytes put their objects here: one file in memory, mapped again and again, side by side. What the library writes and reads is real
//! memory; two objects may share theirs, which no look-up notices.

use std::ffi::c_void;
use std::ptr;

use mmc::ffi::segments::mmc_register_segment;
use mmc::ffi::types::{MMC_MEDIUM_DRAM, mmc_segment_options};

use crate::support::{KIB, MIB, Setting, Store, check};

/// Bytes of the memory behind every span: more than a processor caches.
const FILE: usize = 256 * MIB;

/// The mapping. It must outlive the stores on it.
pub struct Span {
    base: *mut c_void,
    len: usize,
}

// SAFETY: its bytes are the stores' on it.
unsafe impl Send for Span {}
// SAFETY: as above.
unsafe impl Sync for Span {}

impl Span {
    /// For so many objects of up to 4096 bytes.
    pub fn new(objects: usize) -> Span {
        let len = (objects * 4 * KIB).next_multiple_of(FILE);
        // SAFETY: fresh mappings inside a range that was reserved for them; the file's descriptor is this function's.
        unsafe {
            let file = libc::memfd_create(c"span".as_ptr(), libc::MFD_CLOEXEC);
            assert!(file >= 0 && libc::ftruncate(file, FILE as i64) == 0, "no memory file");
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
            let base = libc::mmap(ptr::null_mut(), len, libc::PROT_NONE, flags, -1, 0);
            assert_ne!(base, libc::MAP_FAILED, "no address space");
            for offset in (0..len).step_by(FILE) {
                let (at, protection) = (base.byte_add(offset), libc::PROT_READ | libc::PROT_WRITE);
                let flags = libc::MAP_SHARED | libc::MAP_FIXED | libc::MAP_POPULATE;
                assert_eq!(
                    libc::mmap(at, FILE, protection, flags, file, 0),
                    at,
                    "no memory for a span"
                );
            }
            libc::close(file);
            Span { base, len }
        }
    }

    /// A store whose only segment this is, or a part of it.
    pub fn store(&self) -> Store {
        let store = Store::open(&Setting {
            dram: 0,
            memory: 0,
            watermark_high: 100,
            watermark_low: 100,
        });
        self.register(&store);
        store
    }

    /// Gives the span to a store that has no segment.
    pub fn register(&self, store: &Store) {
        // SAFETY: a struct of this header's size, and memory that outlives the store.
        unsafe {
            let mut options: mmc_segment_options = std::mem::zeroed();
            options.struct_size = size_of::<mmc_segment_options>() as u32;
            options.medium = MMC_MEDIUM_DRAM;
            options.capacity = self.len as u64;
            options.base = self.base;
            check(mmc_register_segment(store.0, &options, ptr::null_mut()));
        }
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`.
        unsafe { libc::munmap(self.base, self.len) };
    }
}
