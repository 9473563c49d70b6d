//! A small safe wrapper over the C ABI, and content that checks itself, for the test programs.
//!
//! Everything goes through the exported functions: `Err` is the code that C would see. Content is cut out of one pool of random
//! bytes, so that making and comparing it costs next to nothing and a byte in the wrong place shows.

#![allow(dead_code)] // each test program uses its part

use std::ffi::{CStr, CString, OsStr, c_void};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::ptr::{NonNull, null, null_mut};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use mmc::ffi::batches::*;
use mmc::ffi::inplace::*;
use mmc::ffi::lifetime::*;
use mmc::ffi::objects::*;
use mmc::ffi::report::*;
use mmc::ffi::segments::*;
use mmc::ffi::sharing::*;
pub use mmc::ffi::types::*;

/// The result of a call: the code is one of `MMC_ERR_*`.
pub type Outcome<T = ()> = Result<T, i32>;

pub const UNIT: u64 = 4096;

/// A store; closed when it is dropped.
pub struct Store(*mut mmc_store);

// SAFETY: a handle may be used by any thread.
unsafe impl Send for Store {}
// SAFETY: as above.
unsafe impl Sync for Store {}

/// A config in which nothing is set.
pub fn config() -> mmc_config {
    // SAFETY: integers and pointers, all of which may be zero.
    let mut config: mmc_config = unsafe { std::mem::zeroed() };
    // SAFETY: a config of this size that may be written.
    let code = unsafe { mmc_config_init_sized(&mut config, size_of::<mmc_config>()) };
    assert_eq!(code, MMC_OK);
    config
}

/// Options of attaching in which nothing is set.
pub fn attach_options() -> mmc_attach_options {
    sized()
}

/// A segment of DRAM that the library maps.
pub fn dram(rank: u32, capacity: u64) -> mmc_segment_options {
    mmc_segment_options {
        struct_size: size_of::<mmc_segment_options>() as u32,
        medium: MMC_MEDIUM_DRAM,
        rank,
        huge_pages: 0,
        capacity,
        base: null_mut(),
        copy: None,
        context: null_mut(),
        prefault: 0,
        memory: 0,
        numa_node: 0,
        reserved: 0,
        path: null(),
    }
}

/// A segment of SSD over this file.
pub fn ssd(rank: u32, capacity: u64, file: &TestFile) -> mmc_segment_options {
    mmc_segment_options {
        medium: MMC_MEDIUM_SSD,
        path: file.0.as_ptr(),
        ..dram(rank, capacity)
    }
}

/// The path of a file that goes with the test.
pub struct TestFile(CString);

impl TestFile {
    pub fn new() -> TestFile {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("mmc-test-{}-{number}", std::process::id()));
        TestFile(CString::new(path.into_os_string().into_vec()).unwrap())
    }

    pub fn path(&self) -> &OsStr {
        OsStr::from_bytes(self.0.as_bytes())
    }
}

impl Drop for TestFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(OsStr::from_bytes(self.0.as_bytes()));
    }
}

/// How an object is put when nothing special is wanted.
pub fn put_options() -> mmc_put_options {
    mmc_put_options {
        struct_size: size_of::<mmc_put_options>() as u32,
        replicas: 0,
        preferred_ranks: null(),
        preferred_count: 0,
        medium: 0,
        reserved: 0,
        stream: null_mut(),
        term_ms: 0,
    }
}

pub fn key_of(text: &str) -> mmc_key {
    mmc_key {
        data: text.as_ptr().cast(),
        size: text.len(),
    }
}

fn keys_of(texts: &[&str]) -> Vec<mmc_key> {
    texts.iter().map(|text| key_of(text)).collect()
}

fn sized<T>() -> T {
    let mut value = std::mem::MaybeUninit::<T>::zeroed();
    // SAFETY: every struct of the interface begins with its size and is valid when the rest is zero.
    unsafe {
        value.as_mut_ptr().cast::<u32>().write(size_of::<T>() as u32);
        value.assume_init()
    }
}

fn outcome(code: i32) -> Outcome {
    if code == MMC_OK { Ok(()) } else { Err(code) }
}

/// The thread's last error.
pub fn last_error() -> String {
    // SAFETY: never null, valid until this thread's next failure.
    unsafe { CStr::from_ptr(mmc_last_error()) }
        .to_string_lossy()
        .into_owned()
}

fn optional(options: Option<&mmc_put_options>) -> *const mmc_put_options {
    options.map_or(null(), std::ptr::from_ref)
}

impl Store {
    pub fn open(config: &mmc_config) -> Outcome<Store> {
        let mut handle = null_mut();
        // SAFETY: a config and a place for the handle.
        outcome(unsafe { mmc_init(config, &mut handle) })?;
        Ok(Store(handle))
    }

    /// A store without a segment, whose background thread does not evict.
    pub fn empty() -> Store {
        Store::open(&mmc_config {
            dram_size: MMC_NO_DRAM,
            watermark_high: 100,
            ..config()
        })
        .unwrap()
    }

    /// A store with one DRAM segment of rank 0.
    pub fn with_dram(bytes: u64) -> Store {
        Store::open(&mmc_config {
            dram_size: bytes,
            ..config()
        })
        .unwrap()
    }

    /// A store of another process.
    pub fn attach(address: &CStr, options: &mmc_attach_options) -> Outcome<Store> {
        let mut handle = null_mut();
        // SAFETY: a C string, options that are complete, and a place for the handle.
        outcome(unsafe { mmc_attach(address.as_ptr(), options, &mut handle) })?;
        Ok(Store(handle))
    }

    pub fn share(&self, address: &CStr) -> Outcome {
        // SAFETY: a C string, borrowed for the call.
        outcome(unsafe { mmc_share(self.0, address.as_ptr()) })
    }

    /// This process's rank in the pool.
    pub fn rank(&self) -> u32 {
        let mut rank = 0;
        // SAFETY: a number to be written.
        outcome(unsafe { mmc_rank(self.0, &mut rank) }).unwrap();
        rank
    }

    pub fn handle(&self) -> *mut mmc_store {
        self.0
    }

    pub fn close(self) -> Outcome {
        let handle = self.0;
        std::mem::forget(self);
        // SAFETY: a handle that was given.
        outcome(unsafe { mmc_uninit(handle) })
    }

    pub fn register(&self, options: &mmc_segment_options) -> Outcome<u64> {
        let mut address = 0;
        // SAFETY: options that are complete; their memory is the caller's care.
        outcome(unsafe { mmc_register_segment(self.0, options, &mut address) })?;
        Ok(address)
    }

    pub fn unregister(&self, address: u64) -> Outcome {
        // SAFETY: two numbers.
        outcome(unsafe { mmc_unregister_segment(self.0, address) })
    }

    pub fn segments(&self) -> Vec<mmc_segment_info> {
        let mut infos = vec![sized::<mmc_segment_info>(); 64];
        let mut count = 0;
        // SAFETY: room for 64 elements.
        outcome(unsafe { mmc_list_segments(self.0, infos.as_mut_ptr(), infos.len(), &mut count) }).unwrap();
        assert!(count <= infos.len());
        infos.truncate(count);
        infos
    }

    pub fn stats(&self) -> mmc_statistics {
        let mut statistics = sized();
        // SAFETY: a struct to be filled.
        outcome(unsafe { mmc_stats(self.0, &mut statistics) }).unwrap();
        statistics
    }

    pub fn put(&self, key: &str, data: &[u8], options: Option<&mmc_put_options>) -> Outcome {
        // SAFETY: the key and the data are borrowed for the call.
        outcome(unsafe { mmc_put(self.0, key_of(key), data.as_ptr().cast(), data.len(), optional(options)) })
    }

    pub fn putv(&self, key: &str, pieces: &[&[u8]], options: Option<&mmc_put_options>) -> Outcome {
        let (data, sizes) = addresses(pieces);
        // SAFETY: arrays of as many elements, borrowed for the call.
        outcome(unsafe {
            mmc_putv(
                self.0,
                key_of(key),
                data.as_ptr(),
                sizes.as_ptr(),
                data.len(),
                optional(options),
            )
        })
    }

    /// Gets the object into `data` and gives its true size.
    pub fn get(&self, key: &str, data: &mut [u8], flags: u32) -> Outcome<u64> {
        let mut size = u64::MAX;
        // SAFETY: the key and the data are borrowed for the call.
        outcome(unsafe {
            mmc_get(
                self.0,
                key_of(key),
                data.as_mut_ptr().cast(),
                data.len(),
                flags,
                null(),
                &mut size,
            )
        })?;
        Ok(size)
    }

    pub fn getv(&self, key: &str, pieces: &mut [&mut [u8]], flags: u32) -> Outcome<u64> {
        let mut size = u64::MAX;
        let (data, sizes) = addresses_mut(pieces);
        // SAFETY: arrays of as many elements, borrowed for the call.
        outcome(unsafe {
            mmc_getv(
                self.0,
                key_of(key),
                data.as_ptr(),
                sizes.as_ptr(),
                data.len(),
                flags,
                null(),
                &mut size,
            )
        })?;
        Ok(size)
    }

    pub fn exist(&self, key: &str, flags: u32) -> Outcome {
        // SAFETY: the key is borrowed for the call.
        outcome(unsafe { mmc_exist(self.0, key_of(key), flags) })
    }

    pub fn query(&self, key: &str, flags: u32) -> Outcome<mmc_object_info> {
        let mut info = sized();
        // SAFETY: the key is borrowed for the call, the struct is to be filled.
        outcome(unsafe { mmc_query(self.0, key_of(key), flags, &mut info) })?;
        Ok(info)
    }

    pub fn remove(&self, key: &str) -> Outcome {
        // SAFETY: the key is borrowed for the call.
        outcome(unsafe { mmc_remove(self.0, key_of(key)) })
    }

    pub fn remove_all(&self) -> u64 {
        let mut removed = 0;
        // SAFETY: a number to be written.
        outcome(unsafe { mmc_remove_all(self.0, &mut removed) }).unwrap();
        removed
    }

    pub fn list_keys(&self) -> Vec<String> {
        unsafe extern "C" fn note(context: *mut c_void, keys: *const mmc_key, count: usize) -> i32 {
            // SAFETY: the context is the list below, the page is valid for the call.
            let (list, keys) = unsafe {
                (
                    &mut *context.cast::<Vec<String>>(),
                    std::slice::from_raw_parts(keys, count),
                )
            };
            list.extend(keys.iter().map(|key| {
                // SAFETY: the keys of the page are valid for the call.
                let bytes = unsafe { std::slice::from_raw_parts(key.data.cast::<u8>(), key.size) };
                String::from_utf8(bytes.to_vec()).unwrap()
            }));
            0
        }
        let mut list = Vec::<String>::new();
        // SAFETY: the callback is given the list that it expects.
        outcome(unsafe { mmc_list_keys(self.0, Some(note), (&raw mut list).cast()) }).unwrap();
        list
    }

    pub fn reserve(&self, key: &str, size: u64, options: Option<&mmc_put_options>) -> Outcome<mmc_view> {
        let mut view = sized();
        // SAFETY: the key is borrowed for the call, the struct is to be filled.
        outcome(unsafe { mmc_reserve(self.0, key_of(key), size, optional(options), &mut view) })?;
        Ok(view)
    }

    pub fn commit(&self, token: u64) -> Outcome {
        // SAFETY: two numbers.
        outcome(unsafe { mmc_commit(self.0, token) })
    }

    pub fn abort(&self, token: u64) -> Outcome {
        // SAFETY: two numbers.
        outcome(unsafe { mmc_abort(self.0, token) })
    }

    pub fn pin(&self, key: &str, flags: u32) -> Outcome<mmc_view> {
        let mut view = sized();
        // SAFETY: the key is borrowed for the call, the struct is to be filled.
        outcome(unsafe { mmc_pin(self.0, key_of(key), flags, &mut view) })?;
        Ok(view)
    }

    pub fn unpin(&self, token: u64) -> Outcome {
        // SAFETY: two numbers.
        outcome(unsafe { mmc_unpin(self.0, token) })
    }

    pub fn lease(&self, key: &str, term_ms: u64) -> Outcome {
        // SAFETY: the key is borrowed for the call.
        outcome(unsafe { mmc_add_lease(self.0, key_of(key), term_ms) })
    }

    pub fn unlease(&self, key: &str) -> Outcome {
        // SAFETY: the key is borrowed for the call.
        outcome(unsafe { mmc_remove_lease(self.0, key_of(key)) })
    }

    /// The codes of the elements; `Err` when the batch could not begin.
    pub fn batch_put(&self, keys: &[&str], data: &[&[u8]], options: Option<&mmc_put_options>) -> Outcome<Vec<i32>> {
        let (keys, mut results) = (keys_of(keys), vec![1; keys.len()]);
        let (data, sizes) = addresses(data);
        assert_eq!(data.len(), keys.len());
        // SAFETY: arrays of as many elements, borrowed for the call.
        outcome(unsafe {
            mmc_batch_put(
                self.0,
                keys.as_ptr(),
                keys.len(),
                data.as_ptr(),
                sizes.as_ptr(),
                optional(options),
                0,
                results.as_mut_ptr(),
            )
        })?;
        Ok(results)
    }

    /// As [`Store::batch_put`], with several pieces each.
    pub fn batch_putv(
        &self,
        keys: &[&str],
        pieces: &[Vec<&[u8]>],
        options: Option<&mmc_put_options>,
    ) -> Outcome<Vec<i32>> {
        let (keys, mut results) = (keys_of(keys), vec![1; keys.len()]);
        assert_eq!(pieces.len(), keys.len());
        let counts: Vec<usize> = pieces.iter().map(Vec::len).collect();
        let (data, sizes) = addresses(&pieces.concat());
        // SAFETY: arrays as they are described, borrowed for the call.
        outcome(unsafe {
            mmc_batch_putv(
                self.0,
                keys.as_ptr(),
                keys.len(),
                counts.as_ptr(),
                data.as_ptr(),
                sizes.as_ptr(),
                optional(options),
                0,
                results.as_mut_ptr(),
            )
        })?;
        Ok(results)
    }

    /// The code and the true size of each element.
    pub fn batch_get(&self, keys: &[&str], data: &mut [&mut [u8]], flags: u32) -> Outcome<Vec<(i32, u64)>> {
        let (keys, mut results, mut true_sizes) = (keys_of(keys), vec![1; keys.len()], vec![u64::MAX; keys.len()]);
        let (data, sizes) = addresses_mut(data);
        assert_eq!(data.len(), keys.len());
        // SAFETY: arrays of as many elements, borrowed for the call.
        outcome(unsafe {
            mmc_batch_get(
                self.0,
                keys.as_ptr(),
                keys.len(),
                data.as_ptr(),
                sizes.as_ptr(),
                flags,
                null(),
                results.as_mut_ptr(),
                true_sizes.as_mut_ptr(),
            )
        })?;
        Ok(results.into_iter().zip(true_sizes).collect())
    }

    pub fn batch_exist(&self, keys: &[&str], flags: u32) -> Outcome<Vec<i32>> {
        self.batch(keys, |keys, count, results| {
            // SAFETY: arrays of `count` elements, borrowed for the call.
            unsafe { mmc_batch_exist(self.0, keys, count, flags, results) }
        })
    }

    pub fn prefix_len(&self, keys: &[&str], flags: u32) -> Outcome<usize> {
        let (keys, mut length) = (keys_of(keys), usize::MAX);
        // SAFETY: an array of as many elements, borrowed for the call, and room for the length.
        outcome(unsafe { mmc_prefix_len(self.0, keys.as_ptr(), keys.len(), flags, &mut length) })?;
        Ok(length)
    }

    pub fn batch_query(&self, keys: &[&str], flags: u32) -> Outcome<Vec<Outcome<mmc_object_info>>> {
        let mut infos = vec![sized::<mmc_object_info>(); keys.len()];
        let results = self.batch(keys, |keys, count, results| {
            // SAFETY: arrays of `count` elements, borrowed for the call.
            unsafe { mmc_batch_query(self.0, keys, count, flags, infos.as_mut_ptr(), results) }
        })?;
        Ok(results
            .into_iter()
            .zip(infos)
            .map(|(code, info)| outcome(code).map(|()| info))
            .collect())
    }

    pub fn batch_remove(&self, keys: &[&str]) -> Outcome<Vec<i32>> {
        self.batch(keys, |keys, count, results| {
            // SAFETY: arrays of `count` elements, borrowed for the call.
            unsafe { mmc_batch_remove(self.0, keys, count, 0, results) }
        })
    }

    /// Moves objects to a slower medium.
    pub fn evict(&self, keys: &[&str], from: u32, to: u32) -> Outcome<Vec<i32>> {
        self.batch(keys, |keys, count, results| {
            // SAFETY: arrays of `count` elements, borrowed for the call.
            unsafe { mmc_evict(self.0, keys, count, from, to, 0, results) }
        })
    }

    /// Copies objects to a faster medium.
    pub fn prefetch(&self, keys: &[&str], from: u32, to: u32) -> Outcome<Vec<i32>> {
        self.batch(keys, |keys, count, results| {
            // SAFETY: arrays of `count` elements, borrowed for the call.
            unsafe { mmc_prefetch(self.0, keys, count, from, to, 0, results) }
        })
    }

    pub fn batch_reserve(
        &self,
        keys: &[&str],
        sizes: &[u64],
        options: Option<&mmc_put_options>,
    ) -> Outcome<Vec<Outcome<mmc_view>>> {
        assert_eq!(sizes.len(), keys.len());
        let mut views = vec![sized::<mmc_view>(); keys.len()];
        let results = self.batch(keys, |keys, count, results| {
            // SAFETY: arrays of `count` elements, borrowed for the call.
            unsafe {
                mmc_batch_reserve(
                    self.0,
                    keys,
                    count,
                    sizes.as_ptr(),
                    optional(options),
                    0,
                    views.as_mut_ptr(),
                    results,
                )
            }
        })?;
        Ok(of_each(results, views))
    }

    pub fn batch_pin(&self, keys: &[&str], flags: u32) -> Outcome<Vec<Outcome<mmc_view>>> {
        let mut views = vec![sized::<mmc_view>(); keys.len()];
        let results = self.batch(keys, |keys, count, results| {
            // SAFETY: arrays of `count` elements, borrowed for the call.
            unsafe { mmc_batch_pin(self.0, keys, count, flags, views.as_mut_ptr(), results) }
        })?;
        Ok(of_each(results, views))
    }

    pub fn batch_commit(&self, tokens: &[u64]) -> Outcome<Vec<i32>> {
        let mut results = vec![1; tokens.len()];
        // SAFETY: arrays of as many elements.
        outcome(unsafe { mmc_batch_commit(self.0, tokens.as_ptr(), tokens.len(), 0, results.as_mut_ptr()) })?;
        Ok(results)
    }

    pub fn batch_abort(&self, tokens: &[u64]) -> Outcome<Vec<i32>> {
        let mut results = vec![1; tokens.len()];
        // SAFETY: arrays of as many elements.
        outcome(unsafe { mmc_batch_abort(self.0, tokens.as_ptr(), tokens.len(), 0, results.as_mut_ptr()) })?;
        Ok(results)
    }

    pub fn batch_unpin(&self, tokens: &[u64]) -> Outcome<Vec<i32>> {
        let mut results = vec![1; tokens.len()];
        // SAFETY: arrays of as many elements.
        outcome(unsafe { mmc_batch_unpin(self.0, tokens.as_ptr(), tokens.len(), 0, results.as_mut_ptr()) })?;
        Ok(results)
    }

    pub fn batch_lease(&self, keys: &[&str], term_ms: u64) -> Outcome<Vec<i32>> {
        self.batch(keys, |keys, count, results| {
            // SAFETY: arrays of `count` elements, borrowed for the call.
            unsafe { mmc_batch_add_lease(self.0, keys, count, term_ms, 0, results) }
        })
    }

    pub fn batch_unlease(&self, keys: &[&str]) -> Outcome<Vec<i32>> {
        self.batch(keys, |keys, count, results| {
            // SAFETY: arrays of `count` elements, borrowed for the call.
            unsafe { mmc_batch_remove_lease(self.0, keys, count, 0, results) }
        })
    }

    /// Writes ranges of pool addresses: a code for each.
    pub fn write_at(&self, places: &[u64], data: &[&[u8]]) -> Outcome<Vec<i32>> {
        let (data, sizes) = addresses(data);
        let data: Vec<*mut c_void> = data.into_iter().map(<*const c_void>::cast_mut).collect();
        self.copy_at(places, &data, &sizes, MMC_COPY_TO_SEGMENT)
    }

    /// Reads ranges of pool addresses: a code for each.
    pub fn read_at(&self, places: &[u64], data: &mut [&mut [u8]]) -> Outcome<Vec<i32>> {
        let (data, sizes) = addresses_mut(data);
        self.copy_at(places, &data, &sizes, MMC_COPY_FROM_SEGMENT)
    }

    fn copy_at(&self, places: &[u64], data: &[*mut c_void], sizes: &[usize], direction: u32) -> Outcome<Vec<i32>> {
        let mut results = vec![1; places.len()];
        assert_eq!(data.len(), places.len());
        // SAFETY: arrays of as many elements, borrowed for the call; the buffers are only read where they are not to be written.
        outcome(unsafe {
            mmc_batch_copy(
                self.0,
                places.as_ptr(),
                places.len(),
                data.as_ptr(),
                sizes.as_ptr(),
                direction,
                0,
                null(),
                results.as_mut_ptr(),
            )
        })?;
        Ok(results)
    }

    fn batch(&self, keys: &[&str], call: impl FnOnce(*const mmc_key, usize, *mut i32) -> i32) -> Outcome<Vec<i32>> {
        let (keys, mut results) = (keys_of(keys), vec![1; keys.len()]);
        outcome(call(keys.as_ptr(), keys.len(), results.as_mut_ptr()))?;
        Ok(results)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // SAFETY: a handle that was given.
        let code = unsafe { mmc_uninit(self.0) };
        // A test that fails leaves pins behind: its own words matter then.
        assert!(
            code == MMC_OK || std::thread::panicking(),
            "uninit: {code}: {}",
            last_error()
        );
    }
}

fn of_each(results: Vec<i32>, views: Vec<mmc_view>) -> Vec<Outcome<mmc_view>> {
    let views = results.into_iter().zip(views);
    views
        .map(|(code, view)| {
            assert!(
                (code == MMC_OK) == (view.token != 0),
                "code {code} with token {}",
                view.token
            );
            outcome(code).map(|()| view)
        })
        .collect()
}

fn addresses(pieces: &[&[u8]]) -> (Vec<*const c_void>, Vec<usize>) {
    pieces.iter().map(|piece| (piece.as_ptr().cast(), piece.len())).unzip()
}

fn addresses_mut(pieces: &mut [&mut [u8]]) -> (Vec<*mut c_void>, Vec<usize>) {
    pieces
        .iter_mut()
        .map(|piece| (piece.as_mut_ptr().cast(), piece.len()))
        .unzip()
}

/// The bytes behind a pin or a reservation in memory of this process.
///
/// # Safety
/// The token must be open, and nobody may write there.
pub unsafe fn bytes_of<'a>(view: &mmc_view) -> &'a [u8] {
    // SAFETY: promised by the caller.
    unsafe { std::slice::from_raw_parts(view.data.cast(), view.size as usize) }
}

/// Random bytes that all content is cut out of.
fn pool() -> &'static [u8] {
    const BYTES: usize = 16 << 20;
    static POOL: OnceLock<Vec<u8>> = OnceLock::new();
    POOL.get_or_init(|| {
        let mut words = Vec::with_capacity(BYTES);
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        while words.len() < BYTES {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            words.extend_from_slice(&state.to_le_bytes());
        }
        words
    })
}

/// The content that `seed` stands for: `size` bytes, at most 8 MiB, that begin at any byte of the pool.
pub fn content(seed: u64, size: usize) -> &'static [u8] {
    let pool = pool();
    let start = (seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20) as usize % (pool.len() - size);
    &pool[start..][..size]
}

/// Memory of the host's: aligned and zeroed.
pub struct HostMemory {
    base: NonNull<u8>,
    layout: std::alloc::Layout,
}

// SAFETY: it is only memory; who writes where is the store's care.
unsafe impl Send for HostMemory {}
// SAFETY: as above.
unsafe impl Sync for HostMemory {}

impl HostMemory {
    pub fn new(bytes: u64) -> HostMemory {
        let layout = std::alloc::Layout::from_size_align(bytes as usize, UNIT as usize).unwrap();
        // SAFETY: the size is not zero.
        let base = NonNull::new(unsafe { std::alloc::alloc_zeroed(layout) }).unwrap();
        HostMemory { base, layout }
    }

    pub fn base(&self) -> *mut c_void {
        self.base.as_ptr().cast()
    }

    pub fn bytes(&self) -> u64 {
        self.layout.size() as u64
    }
}

impl Drop for HostMemory {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout.
        unsafe { std::alloc::dealloc(self.base.as_ptr(), self.layout) };
    }
}

/// A device: memory that the library is given made-up addresses of, so that touching it by itself would crash.
pub struct Device {
    memory: HostMemory,
    first: u64,
    hook: Option<Hook>,
}

/// What a device does before it copies; it is given the direction.
pub type Hook = Box<dyn Fn(u32) + Send + Sync>;

impl Device {
    /// A device whose memory is said to begin at `first`.
    pub fn new(first: u64, bytes: u64) -> Box<Device> {
        Box::new(Device {
            memory: HostMemory::new(bytes),
            first,
            hook: None,
        })
    }

    /// As [`Device::new`], with something to do before each submission.
    pub fn with_hook(first: u64, bytes: u64, hook: Hook) -> Box<Device> {
        let mut device = Device::new(first, bytes);
        device.hook = Some(hook);
        device
    }

    /// Writes to the device's memory, as the host does there.
    pub fn write(&self, offset: u64, data: &[u8]) {
        assert!(offset + data.len() as u64 <= self.memory.bytes());
        // SAFETY: inside the memory, where the store has reserved it for the caller.
        unsafe {
            let to = self.memory.base().cast::<u8>().add(offset as usize);
            std::ptr::copy_nonoverlapping(data.as_ptr(), to, data.len());
        }
    }

    /// Options to register it with.
    pub fn options(&self, medium: u32, rank: u32) -> mmc_segment_options {
        mmc_segment_options {
            medium,
            base: std::ptr::without_provenance_mut(self.first as usize),
            copy: Some(Device::copy),
            context: std::ptr::from_ref(self).cast_mut().cast(),
            ..dram(rank, self.memory.bytes())
        }
    }

    unsafe extern "C" fn copy(
        context: *mut c_void,
        operations: *const mmc_copy_operation,
        count: usize,
        direction: u32,
        _stream: *mut c_void,
    ) -> i32 {
        // SAFETY: registered with the device, which outlives the store; the operations are valid for the call.
        let (device, operations) = unsafe {
            (
                &*context.cast::<Device>(),
                std::slice::from_raw_parts(operations, count),
            )
        };
        if let Some(hook) = &device.hook {
            hook(direction);
        }
        for operation in operations {
            let at = if direction == MMC_COPY_TO_SEGMENT {
                operation.destination
            } else {
                operation.source
            };
            let (offset, length) = (at.wrapping_sub(device.first), operation.length);
            if offset.checked_add(length).is_none_or(|end| end > device.memory.bytes()) {
                return MMC_ERR_FAILED;
            }
            // SAFETY: the range lies in the device's memory, and the other end is the caller's buffer.
            unsafe {
                let memory = device.memory.base().cast::<u8>().add(offset as usize);
                if direction == MMC_COPY_TO_SEGMENT {
                    let source = std::ptr::with_exposed_provenance::<u8>(operation.source as usize);
                    std::ptr::copy_nonoverlapping(source, memory, length as usize);
                } else {
                    let destination = std::ptr::with_exposed_provenance_mut::<u8>(operation.destination as usize);
                    std::ptr::copy_nonoverlapping(memory, destination, length as usize);
                }
            }
        }
        0
    }
}

/// Runs `body` of the test `name` in a process of its own, which may end in any way, and gives its output when that is success.
pub fn in_child(name: &str, body: impl FnOnce()) {
    const CHILD: &str = "MMC_TEST_CHILD";
    if std::env::var_os(CHILD).is_some() {
        return body();
    }
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture", "--test-threads", "1"])
        .env(CHILD, name)
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(
        output.status.success(),
        "{name} in a child: {}\n{}",
        output.status,
        text.concat()
    );
    assert!(text[0].contains("1 passed"), "there is no test {name}: {}", text[0]);
}

/// Waits until `is_so`, which something else brings about, for at most ten seconds.
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !is_so() {
        assert!(start.elapsed().as_secs() < 10, "after ten seconds: {what} is not so");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}
