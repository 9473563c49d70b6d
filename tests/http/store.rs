//! The C ABI with an owner: a store that is opened with its admin port, used by its C functions, and closed when it is dropped.

use std::ffi::{CStr, CString, c_void};
use std::sync::{Condvar, Mutex};

use mmc::error::{MMC_ERR_NOT_STARTED, MMC_OK};
use mmc::ffi::batches::{mmc_batch_get, mmc_batch_put};
use mmc::ffi::lifetime::{mmc_config_init, mmc_init, mmc_uninit};
use mmc::ffi::objects::{mmc_get, mmc_put, mmc_remove, mmc_remove_all};
use mmc::ffi::report::{mmc_http_address, mmc_last_error};
use mmc::ffi::segments::{mmc_register_segment, mmc_unregister_segment};
use mmc::ffi::types::{
    MMC_MEDIUM_DRAM, MMC_MEDIUM_HBM, MMC_NO_DRAM, mmc_config, mmc_copy_callback, mmc_copy_operation, mmc_key,
    mmc_put_options, mmc_segment_options, mmc_store,
};

pub const UNIT: u64 = 4096;

/// What a test says about the store that it opens.
pub struct Settings<'a> {
    /// Bytes of the first DRAM segment; 0 for none.
    pub dram: u64,
    /// 100 is off: then a put evicts what it needs and no more.
    pub watermark_high: u32,
    pub address: Option<&'a str>,
    pub token: Option<&'a str>,
    pub file: Option<&'a str>,
}

impl Default for Settings<'_> {
    fn default() -> Self {
        Settings {
            dram: 0,
            watermark_high: 100,
            address: Some("127.0.0.1:0"),
            token: None,
            file: None,
        }
    }
}

/// The settings with so many units of DRAM.
pub fn with_units(units: u64) -> Settings<'static> {
    Settings {
        dram: units * UNIT,
        ..Settings::default()
    }
}

/// An open store.
pub struct Store(pub *mut mmc_store);

// SAFETY: a handle is a number, and any thread may call the library with it.
unsafe impl Send for Store {}
// SAFETY: as above.
unsafe impl Sync for Store {}

/// A code with the sentence that came with it.
pub type Failure = (i32, String);

/// This thread's last error.
pub fn last_error() -> String {
    // SAFETY: never null, and a C string until the next failing call.
    unsafe { CStr::from_ptr(mmc_last_error()) }.to_str().unwrap().to_owned()
}

fn checked(code: i32) -> Result<(), Failure> {
    match code {
        MMC_OK => Ok(()),
        code => Err((code, last_error())),
    }
}

pub fn key(text: &str) -> mmc_key {
    mmc_key {
        data: text.as_ptr().cast(),
        size: text.len(),
    }
}

/// Options for copies on these ranks, in this order.
pub fn on_ranks(medium: u32, ranks: &[u32]) -> mmc_put_options {
    // SAFETY: all zero is "unset".
    let unset: mmc_put_options = unsafe { std::mem::zeroed() };
    mmc_put_options {
        struct_size: size_of::<mmc_put_options>() as u32,
        replicas: ranks.len() as u32,
        preferred_ranks: ranks.as_ptr(),
        preferred_count: ranks.len(),
        medium,
        ..unset
    }
}

impl Store {
    pub fn open(settings: &Settings<'_>) -> Store {
        Store::try_open(settings).unwrap()
    }

    pub fn try_open(settings: &Settings<'_>) -> Result<Store, Failure> {
        let text = |given: Option<&str>| given.map(|text| CString::new(text).unwrap());
        let (address, token, file) = (text(settings.address), text(settings.token), text(settings.file));
        let pointer = |text: &Option<CString>| text.as_ref().map_or(std::ptr::null(), |text| text.as_ptr());
        let mut config = std::mem::MaybeUninit::<mmc_config>::uninit();
        // SAFETY: it writes the struct that it gets.
        let mut config = unsafe {
            assert_eq!(mmc_config_init(config.as_mut_ptr()), MMC_OK);
            config.assume_init()
        };
        config.dram_size = if settings.dram == 0 { MMC_NO_DRAM } else { settings.dram };
        config.watermark_high = settings.watermark_high;
        config.http_address = pointer(&address);
        config.http_token = pointer(&token);
        config.config_path = pointer(&file);
        let mut raw = std::ptr::null_mut();
        // SAFETY: the strings outlive the call.
        checked(unsafe { mmc_init(&config, &mut raw) })?;
        Ok(Store(raw))
    }

    /// Where the admin port listens, "" when it does not.
    pub fn address(&self) -> String {
        let mut text = [0u8; 64];
        // SAFETY: the buffer has that many bytes.
        let code = unsafe { mmc_http_address(self.0, text.as_mut_ptr().cast(), text.len(), std::ptr::null_mut()) };
        checked(code).unwrap();
        CStr::from_bytes_until_nul(&text).unwrap().to_str().unwrap().to_owned()
    }

    /// Closes the store; dropping it does nothing then.
    pub fn close(&self) -> Result<(), Failure> {
        // SAFETY: any handle may be closed, once or again.
        checked(unsafe { mmc_uninit(self.0) })
    }

    pub fn put(&self, name: &str, bytes: &[u8]) -> Result<(), Failure> {
        self.put_on(name, bytes, None)
    }

    pub fn put_on(&self, name: &str, bytes: &[u8], options: Option<&mmc_put_options>) -> Result<(), Failure> {
        let options = options.map_or(std::ptr::null(), |options| options);
        // SAFETY: key, bytes and options outlive the call.
        checked(unsafe { mmc_put(self.0, key(name), bytes.as_ptr().cast(), bytes.len(), options) })
    }

    /// Puts many objects of one size in a batch; a code for each.
    pub fn batch_put(&self, names: &[String], bytes: &[u8], options: Option<&mmc_put_options>) -> Vec<i32> {
        let keys: Vec<mmc_key> = names.iter().map(|name| key(name)).collect();
        let data = vec![bytes.as_ptr().cast::<c_void>(); keys.len()];
        let sizes = vec![bytes.len(); keys.len()];
        let mut codes = vec![1; keys.len()];
        let options = options.map_or(std::ptr::null(), |options| options);
        // SAFETY: the arrays have that many elements and outlive the call.
        let code = unsafe {
            mmc_batch_put(
                self.0,
                keys.as_ptr(),
                keys.len(),
                data.as_ptr(),
                sizes.as_ptr(),
                options,
                0,
                codes.as_mut_ptr(),
            )
        };
        checked(code).unwrap();
        codes
    }

    pub fn get(&self, name: &str, size: usize) -> Result<Vec<u8>, Failure> {
        let mut bytes = vec![0; size];
        // SAFETY: key and buffer outlive the call.
        let code = unsafe {
            mmc_get(
                self.0,
                key(name),
                bytes.as_mut_ptr().cast(),
                size,
                0,
                std::ptr::null(),
                std::ptr::null_mut(),
            )
        };
        checked(code).map(|()| bytes)
    }

    /// Gets many objects of one size in a batch; a code for each.
    pub fn batch_get(&self, names: &[&str], size: usize) -> Vec<i32> {
        let keys: Vec<mmc_key> = names.iter().map(|name| key(name)).collect();
        let mut bytes = vec![vec![0u8; size]; keys.len()];
        let data: Vec<*mut c_void> = bytes.iter_mut().map(|bytes| bytes.as_mut_ptr().cast()).collect();
        let sizes = vec![size; keys.len()];
        let mut codes = vec![1; keys.len()];
        // SAFETY: the arrays have that many elements and outlive the call.
        let code = unsafe {
            mmc_batch_get(
                self.0,
                keys.as_ptr(),
                keys.len(),
                data.as_ptr(),
                sizes.as_ptr(),
                0,
                std::ptr::null(),
                codes.as_mut_ptr(),
                std::ptr::null_mut(),
            )
        };
        checked(code).unwrap();
        codes
    }

    pub fn remove(&self, name: &str) -> Result<(), Failure> {
        // SAFETY: the key outlives the call.
        checked(unsafe { mmc_remove(self.0, key(name)) })
    }

    pub fn remove_all(&self) -> u64 {
        let mut removed = 0;
        // SAFETY: room for the number is given.
        checked(unsafe { mmc_remove_all(self.0, &mut removed) }).unwrap();
        removed
    }

    /// Registers DRAM that the library maps; its pool address.
    pub fn add_dram(&self, rank: u32, capacity: u64) -> u64 {
        self.add_segment(MMC_MEDIUM_DRAM, rank, capacity, None, std::ptr::null_mut())
    }

    /// Registers device memory that is none: whatever is copied there is gone, so it may be as large as a test likes.
    pub fn add_hbm(&self, rank: u32, capacity: u64) -> u64 {
        self.add_segment(MMC_MEDIUM_HBM, rank, capacity, Some(copy_nothing), std::ptr::null_mut())
    }

    /// Registers a segment; with a callback its memory is a device's, at an address that nobody follows.
    pub fn add_segment(
        &self,
        medium: u32,
        rank: u32,
        capacity: u64,
        copy: mmc_copy_callback,
        context: *mut c_void,
    ) -> u64 {
        // SAFETY: all zero is "unset".
        let unset: mmc_segment_options = unsafe { std::mem::zeroed() };
        let base = match copy {
            Some(_) => std::ptr::without_provenance_mut(1 << 32),
            None => std::ptr::null_mut(),
        };
        let options = mmc_segment_options {
            struct_size: size_of::<mmc_segment_options>() as u32,
            medium,
            rank,
            capacity,
            base,
            copy,
            context,
            ..unset
        };
        let mut address = 0;
        // SAFETY: options and address outlive the call; the context outlives the store.
        checked(unsafe { mmc_register_segment(self.0, &options, &mut address) }).unwrap();
        address
    }

    pub fn remove_segment(&self, address: u64) {
        // SAFETY: any handle and address may be given.
        checked(unsafe { mmc_unregister_segment(self.0, address) }).unwrap();
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let closed = self.close();
        let is_closed = closed.is_ok() || closed.as_ref().is_err_and(|(code, _)| *code == MMC_ERR_NOT_STARTED);
        assert!(is_closed || std::thread::panicking(), "{closed:?}");
    }
}

/// A device whose memory is nowhere.
unsafe extern "C" fn copy_nothing(
    _: *mut c_void,
    _: *const mmc_copy_operation,
    _: usize,
    _: u32,
    _: *mut c_void,
) -> i32 {
    MMC_OK
}

/// A device that copies when it is let, and tells when a copy has come.
#[derive(Default)]
pub struct Barrier {
    state: Mutex<(u32, bool)>,
    changed: Condvar,
}

impl Barrier {
    /// Registers an HBM segment of rank 0 whose copies wait here. The barrier must outlive the store.
    pub fn add_to(&self, store: &Store, capacity: u64) -> u64 {
        let context = std::ptr::from_ref(self).cast_mut().cast();
        store.add_segment(MMC_MEDIUM_HBM, 0, capacity, Some(Barrier::copy), context)
    }

    /// Waits until so many copies have come.
    pub fn wait_for(&self, copies: u32) {
        let state = self.state.lock().unwrap();
        drop(self.changed.wait_while(state, |(come, _)| *come < copies).unwrap());
    }

    /// Lets all copies go on.
    pub fn open(&self) {
        self.state.lock().unwrap().1 = true;
        self.changed.notify_all();
    }

    /// Lets all copies go on when this is dropped, so that a test that fails does not hang.
    pub fn opens_at_end(&self) -> impl Drop {
        struct End<'a>(&'a Barrier);
        impl Drop for End<'_> {
            fn drop(&mut self) {
                self.0.open();
            }
        }
        End(self)
    }

    unsafe extern "C" fn copy(
        context: *mut c_void,
        _: *const mmc_copy_operation,
        _: usize,
        _: u32,
        _: *mut c_void,
    ) -> i32 {
        // SAFETY: the context is the barrier that outlives the store.
        let barrier = unsafe { &*context.cast::<Barrier>() };
        let mut state = barrier.state.lock().unwrap();
        state.0 += 1;
        barrier.changed.notify_all();
        drop(barrier.changed.wait_while(state, |(_, is_open)| !*is_open).unwrap());
        MMC_OK
    }
}
