//! A trace through the C ABI: the real store with blocks of 4 KiB, driven by the trace's time.
//!
//! For each request: look up its blocks without that counting as a use; the leading run that is there is the prefix hit. Then get the hits,
//! and put what is missing, in prefix order, each in one batch.

use std::ffi::{CStr, c_void};
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicU64, Ordering};

use mmc::ffi::types::{
    MMC_ERR_NO_SPACE, MMC_MAX_BATCH, MMC_OK, MMC_PEEK, mmc_config, mmc_key, mmc_statistics, mmc_store,
};
use mmc::ffi::{batches, lifetime, report};

use super::trace::{Request, Trace};

const BLOCK_BYTES: usize = 4096;

/// Prefix hits of a trace in a pool of `capacity` blocks whose eviction is `policy`, one of `MMC_EVICTION_*`.
pub fn replay(trace: &Trace, capacity: usize, policy: u32) -> usize {
    let mut pool = Pool::open(capacity, policy);
    let hits = trace.requests.iter().map(|request| pool.serve(request)).sum();
    assert!(pool.blocks() <= capacity);
    hits
}

/// An open store and the time that it is told.
struct Pool {
    store: *mut mmc_store,
    nanoseconds: Box<AtomicU64>,
    /// The bytes of every block that is put, and where those that are got go: what they are does not matter here.
    block: Box<[u8; BLOCK_BYTES]>,
}

unsafe extern "C" fn tell(time: *mut c_void) -> u64 {
    // SAFETY: the pool's own number, which outlives its store.
    unsafe { &*time.cast::<AtomicU64>() }.load(Ordering::Relaxed)
}

impl Pool {
    fn open(capacity: usize, policy: u32) -> Pool {
        let nanoseconds = Box::new(AtomicU64::new(0));
        let mut store = null_mut();
        // SAFETY: a config of this header's size, and places to write to; the clock's number outlives the store.
        unsafe {
            let mut config: mmc_config = std::mem::zeroed();
            check(lifetime::mmc_config_init_sized(&mut config, size_of::<mmc_config>()));
            config.dram_size = (capacity * BLOCK_BYTES) as u64;
            (config.watermark_high, config.watermark_low) = (100, 100);
            config.eviction = policy;
            config.clock = Some(tell);
            config.clock_user_data = (&raw const *nanoseconds).cast_mut().cast();
            check(lifetime::mmc_init(&config, &mut store));
        }
        Pool {
            store,
            nanoseconds,
            block: Box::new([0; BLOCK_BYTES]),
        }
    }

    /// Serves a request; its prefix hits.
    fn serve(&mut self, request: &Request) -> usize {
        self.nanoseconds
            .store(request.milliseconds * 1_000_000, Ordering::Relaxed);
        let names: Vec<String> = request.blocks.iter().map(|block| format!("block-{block}")).collect();
        let keys: Vec<mmc_key> = names.iter().map(|name| key_of(name)).collect();
        assert!(keys.len() <= MMC_MAX_BATCH as usize, "a request is one batch");
        let mut hits = 0;
        // SAFETY: an array of keys, and a place for the number.
        check(unsafe { batches::mmc_prefix_len(self.store, keys.as_ptr(), keys.len(), MMC_PEEK, &mut hits) });
        // What lies behind a gap may be there as well.
        let rest = &keys[hits..];
        let mut found = vec![0; rest.len()];
        // SAFETY: arrays of as many elements.
        check(unsafe { batches::mmc_batch_exist(self.store, rest.as_ptr(), rest.len(), MMC_PEEK, found.as_mut_ptr()) });
        let missing = rest.iter().zip(found).filter(|(_, code)| *code != MMC_OK);
        let missing: Vec<mmc_key> = missing.map(|(key, _)| *key).collect();
        self.get(&keys[..hits]);
        self.put(&missing);
        hits
    }

    fn get(&mut self, keys: &[mmc_key]) {
        let data = vec![self.block.as_mut_ptr().cast::<c_void>(); keys.len()];
        let sizes = vec![BLOCK_BYTES; keys.len()];
        let mut codes = vec![0; keys.len()];
        // SAFETY: arrays of as many elements; every buffer is the one block, whose bytes nobody looks at.
        check(unsafe {
            batches::mmc_batch_get(
                self.store,
                keys.as_ptr(),
                keys.len(),
                data.as_ptr(),
                sizes.as_ptr(),
                0,
                null(),
                codes.as_mut_ptr(),
                null_mut(),
            )
        });
        codes.into_iter().for_each(check);
    }

    /// Puts blocks. A pool that is smaller than the batch refuses its tail.
    fn put(&self, keys: &[mmc_key]) {
        let data = vec![self.block.as_ptr().cast::<c_void>(); keys.len()];
        let sizes = vec![BLOCK_BYTES; keys.len()];
        let mut codes = vec![0; keys.len()];
        // SAFETY: arrays of as many elements.
        check(unsafe {
            batches::mmc_batch_put(
                self.store,
                keys.as_ptr(),
                keys.len(),
                data.as_ptr(),
                sizes.as_ptr(),
                null(),
                0,
                codes.as_mut_ptr(),
            )
        });
        let stored = codes.iter().take_while(|code| **code == MMC_OK).count();
        assert!(
            codes[stored..].iter().all(|code| *code == MMC_ERR_NO_SPACE),
            "{codes:?}"
        );
    }

    fn blocks(&self) -> usize {
        // SAFETY: integers, all of which may be zero; a struct of this header's size.
        let statistics = unsafe {
            let mut statistics: mmc_statistics = std::mem::zeroed();
            statistics.struct_size = size_of::<mmc_statistics>() as u32;
            check(report::mmc_stats(self.store, &mut statistics));
            statistics
        };
        statistics.stored_keys as usize
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // SAFETY: a handle that was given; nobody is in the store.
        check(unsafe { lifetime::mmc_uninit(self.store) });
    }
}

fn key_of(name: &str) -> mmc_key {
    mmc_key {
        data: name.as_ptr().cast(),
        size: name.len(),
    }
}

/// Fails loudly with the library's own words.
fn check(code: i32) {
    if code != MMC_OK {
        // SAFETY: the words are valid until this thread's next failure.
        let words = unsafe { CStr::from_ptr(report::mmc_last_error()) };
        panic!("{code}: {}", words.to_string_lossy());
    }
}
