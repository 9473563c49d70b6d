//! What the benchmarks share: a store over the C ABI, memory that is cold when its turn comes, and keys.
#![allow(dead_code)] // each benchmark takes its part

use std::ffi::{CStr, c_void};
use std::ptr;

use mmc::ffi::types::{MMC_NO_DRAM, MMC_OFF, MMC_ON, MMC_PEEK, mmc_config, mmc_key, mmc_segment_options, mmc_store};
use mmc::ffi::{batches, lifetime, objects, report, segments};

pub const KIB: usize = 1 << 10;
pub const MIB: usize = 1 << 20;
pub const GIB: usize = 1 << 30;

/// Fails loudly with the library's own words.
pub fn check(code: i32) {
    if code != 0 {
        // SAFETY: the words are valid until this thread's next failure.
        let words = unsafe { CStr::from_ptr(report::mmc_last_error()) };
        panic!("{code}: {}", words.to_string_lossy());
    }
}

/// A key of 64 bytes, as engines use: a hash in text, with a few words around it.
pub type Key = [u8; 64];

pub fn key(number: u64) -> Key {
    let mut key = *b"model-7b@layers-0-61/tokens-128/chain-0000000000000000/rank-0000";
    let hash = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (number << 7);
    key[38..54].copy_from_slice(format!("{hash:016x}").as_bytes());
    key
}

pub fn key_of(bytes: &[u8]) -> mmc_key {
    mmc_key {
        data: bytes.as_ptr().cast(),
        size: bytes.len(),
    }
}

/// An open store, closed when dropped.
pub struct Store(pub *mut mmc_store);

// SAFETY: any thread may use a store.
unsafe impl Send for Store {}
// SAFETY: as above.
unsafe impl Sync for Store {}

/// How a store for a benchmark is opened: prefaulted, without eviction in the background unless it is asked for.
pub struct Setting {
    pub dram: usize,
    pub memory: u32,
    pub watermark_high: u32,
    pub watermark_low: u32,
}

impl Store {
    pub fn open(setting: &Setting) -> Store {
        Store::open_with(setting, MMC_ON)
    }

    /// As [`Store::open`], with pages that come as they are touched.
    pub fn open_lazily(setting: &Setting) -> Store {
        Store::open_with(setting, MMC_OFF)
    }

    fn open_with(setting: &Setting, prefault: u32) -> Store {
        // SAFETY: plain arguments, and a struct of this header's size.
        unsafe {
            let mut config: mmc_config = std::mem::zeroed();
            check(lifetime::mmc_config_init(&mut config));
            config.dram_size = if setting.dram == 0 {
                MMC_NO_DRAM
            } else {
                setting.dram as u64
            };
            config.prefault = prefault;
            config.huge_pages = MMC_ON;
            config.memory = setting.memory;
            config.watermark_high = setting.watermark_high;
            config.watermark_low = setting.watermark_low;
            let mut store = ptr::null_mut();
            check(lifetime::mmc_init(&config, &mut store));
            Store(store)
        }
    }

    /// A pool of this size that evicts on demand only.
    pub fn of(dram: usize) -> Store {
        Store::open(&Setting {
            dram,
            memory: 0,
            watermark_high: 100,
            watermark_low: 100,
        })
    }

    /// A store whose objects lie in memory of the benchmark, which may be less than they would fill: for look-ups only.
    pub fn of_host_memory(memory: &Memory) -> Store {
        let store = Store::of(0);
        // SAFETY: the memory outlives the store in every benchmark.
        unsafe {
            let mut options: mmc_segment_options = std::mem::zeroed();
            options.struct_size = size_of::<mmc_segment_options>() as u32;
            options.medium = mmc::ffi::types::MMC_MEDIUM_DRAM;
            options.capacity = memory.len as u64;
            options.base = memory.base.cast();
            options.prefault = MMC_OFF;
            check(segments::mmc_register_segment(store.0, &options, ptr::null_mut()));
        }
        store
    }

    pub fn put(&self, key: &[u8], data: *const u8, size: usize) {
        // SAFETY: the benchmark's own memory.
        check(unsafe { objects::mmc_put(self.0, key_of(key), data.cast(), size, ptr::null()) });
    }

    pub fn get(&self, key: &[u8], data: *mut u8, size: usize) {
        // SAFETY: the benchmark's own memory.
        check(unsafe { objects::mmc_get(self.0, key_of(key), data.cast(), size, 0, ptr::null(), ptr::null_mut()) });
    }

    pub fn exist(&self, key: &[u8]) -> i32 {
        // SAFETY: a key of the benchmark's.
        unsafe { objects::mmc_exist(self.0, key_of(key), 0) }
    }

    pub fn peek(&self, key: &[u8]) -> i32 {
        // SAFETY: a key of the benchmark's.
        unsafe { objects::mmc_exist(self.0, key_of(key), MMC_PEEK) }
    }

    pub fn remove(&self, key: &[u8]) {
        // SAFETY: a key of the benchmark's.
        check(unsafe { objects::mmc_remove(self.0, key_of(key)) });
    }

    pub fn batch_put(&self, keys: &[mmc_key], data: &[*const c_void], sizes: &[usize], results: &mut [i32]) {
        let (store, count) = (self.0, keys.len());
        // SAFETY: arrays of as many elements, of the benchmark's own memory.
        let code = unsafe {
            batches::mmc_batch_put(
                store,
                keys.as_ptr(),
                count,
                data.as_ptr(),
                sizes.as_ptr(),
                ptr::null(),
                0,
                results.as_mut_ptr(),
            )
        };
        check(code);
        assert!(results.iter().all(|code| *code == 0));
    }

    pub fn batch_get(&self, keys: &[mmc_key], data: &[*mut c_void], sizes: &[usize], results: &mut [i32]) {
        let (store, count) = (self.0, keys.len());
        // SAFETY: arrays of as many elements, of the benchmark's own memory.
        let code = unsafe {
            batches::mmc_batch_get(
                store,
                keys.as_ptr(),
                count,
                data.as_ptr(),
                sizes.as_ptr(),
                0,
                ptr::null(),
                results.as_mut_ptr(),
                ptr::null_mut(),
            )
        };
        check(code);
        assert!(results.iter().all(|code| *code == 0));
    }

    pub fn batch_exist(&self, keys: &[mmc_key], results: &mut [i32]) {
        // SAFETY: arrays of as many elements.
        check(unsafe { batches::mmc_batch_exist(self.0, keys.as_ptr(), keys.len(), 0, results.as_mut_ptr()) });
    }

    pub fn clear(&self) {
        // SAFETY: no pointer is given.
        check(unsafe { objects::mmc_remove_all(self.0, ptr::null_mut()) });
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // SAFETY: opened by this benchmark.
        check(unsafe { lifetime::mmc_uninit(self.0) });
    }
}

/// Touched memory of huge pages where the kernel gives them, as a host's pinned buffers are.
pub struct Memory {
    pub base: *mut u8,
    pub len: usize,
    raw: *mut c_void,
    raw_len: usize,
}

// SAFETY: threads use parts of it that no other uses.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    pub fn new(len: usize) -> Memory {
        let raw_len = len + 2 * MIB;
        // SAFETY: a new anonymous mapping, of which `base..base + len` is written.
        unsafe {
            let (protection, flags) = (
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            );
            let raw = libc::mmap(ptr::null_mut(), raw_len, protection, flags, -1, 0);
            assert_ne!(raw, libc::MAP_FAILED, "no memory for the benchmark's buffers");
            libc::madvise(raw, raw_len, libc::MADV_HUGEPAGE);
            let base = raw.cast::<u8>().add(raw.cast::<u8>().align_offset(2 * MIB));
            for offset in (0..len).step_by(4 * KIB) {
                base.add(offset).write_volatile(offset as u8);
            }
            Memory {
                base,
                len,
                raw,
                raw_len,
            }
        }
    }

    /// The piece of this number, of `size` bytes; numbers go round.
    pub fn piece(&self, number: usize, size: usize) -> *mut u8 {
        // SAFETY: the offset is inside.
        unsafe { self.base.add(number % (self.len / size) * size) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`.
        unsafe { libc::munmap(self.raw, self.raw_len) };
    }
}

/// A deterministic order that no prefetcher guesses: a permutation of `0..count`.
pub fn shuffled(count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    let mut state = 0x2545_f491_4f6c_dd1du64;
    for i in (1..count).rev() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        order.swap(i, (state % (i as u64 + 1)) as usize);
    }
    order
}

/// As many draws from `0..count` by Zipf's law with exponent 0.99, the popular ones scattered: what serving traffic looks like.
pub fn zipf(count: usize) -> Vec<usize> {
    let mut sum = 0.0;
    let sums: Vec<f64> = (1..=count)
        .map(|rank| {
            sum += (rank as f64).powf(-0.99);
            sum
        })
        .collect();
    let scattered = shuffled(count);
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let draws = (0..count).map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let point = (state >> 11) as f64 / (1u64 << 53) as f64 * sum;
        scattered[sums.partition_point(|sum| *sum < point).min(count - 1)]
    });
    draws.collect()
}
