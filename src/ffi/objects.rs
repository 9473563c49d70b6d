//! One object: put, get, exist, query, remove, and the lists of keys.

use std::ffi::c_void;

use super::boundary::guard;
use super::convert::{Out, buffers, key_from, medium_number, put_options, put_out, slice, stream_of};
use super::handle;
use super::types::{
    MMC_GET_UP_TO, MMC_PEEK, MMC_QUERY_RESERVED, mmc_blob_info, mmc_get_options, mmc_key, mmc_keys_callback,
    mmc_object_info, mmc_put_options, mmc_store,
};
use crate::error::{Result, invalid};
use crate::store::check_flags;
use crate::store::list::PAGE;
use crate::store::report::{BlobView, ObjectView};

/// Puts `size` bytes at `data` under `key`.
///
/// `key`, `data`: borrowed for the call. `size`: bytes, at least 1. `options`: borrowed; null for one copy in the default medium.
///
/// Returns MMC_OK: the object can be read. MMC_ERR_EXISTS: the key is taken, and what is there stays. MMC_ERR_NO_SPACE: no run of the
/// size, rounded up to 4096, is free of pinned, leased and reserved objects. MMC_ERR_INVALID_PARAM: a null pointer, a size of 0, a key
/// that is not 1 to 256 bytes of UTF-8 without control characters, a preferred rank without a segment, more replicas than ranks.
/// MMC_ERR_OUT_OF_MEMORY: the library's own tables can't grow. A copy callback's own code. On failure nothing was stored. Blocks for the
/// copy, for eviction where it must make room, and for copies under way, out of the very memory that it needs or into it. Any thread.
/// Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmc_put(
    store: *mut mmc_store,
    key: mmc_key,
    data: *const c_void,
    size: usize,
    options: *const mmc_put_options,
) -> i32 {
    guard("mmc_put", || {
        let entered = handle::enter(store.cast())?;
        // SAFETY: the caller gives a key, `size` readable bytes, and null or its options.
        unsafe {
            let (key, (options, _)) = (key_from(key)?, put_options(options)?);
            entered.pool().put(&key, &buffers(&[data], &[size])?, &options)
        }
    })
}

/// Puts an object whose bytes lie in `count` buffers, in their order: the layers of a block, say.
///
/// `data`, `sizes`: arrays of `count` elements, at least 1; no buffer null or of 0 bytes. Else as mmc_put. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmc_putv(
    store: *mut mmc_store,
    key: mmc_key,
    data: *const *const c_void,
    sizes: *const usize,
    count: usize,
    options: *const mmc_put_options,
) -> i32 {
    guard("mmc_putv", || {
        let entered = handle::enter(store.cast())?;
        // SAFETY: the caller gives a key, `count` buffers of these sizes, and null or its options.
        unsafe {
            let (key, (options, _)) = (key_from(key)?, put_options(options)?);
            let buffers = buffers(slice("data", data, count)?, slice("sizes", sizes, count)?)?;
            entered.pool().put(&key, &buffers, &options)
        }
    })
}

/// Copies the object of `key` into `data`.
///
/// `size`: bytes at `data`; exactly the object's, or with MMC_GET_UP_TO any number: the smaller of the two is copied. `flags`: MMC_PEEK,
/// MMC_GET_UP_TO or 0. `options`: borrowed; may be null. `true_size`: where the object's size goes; may be null.
///
/// Returns MMC_OK; MMC_ERR_NOT_FOUND: no readable object has this key; MMC_ERR_SIZE_MISMATCH: the object has another size;
/// MMC_ERR_INVALID_PARAM; a copy callback's own code. On failure `true_size` is unchanged, and so is `data`, unless a callback failed.
/// Blocks for the copy only. Any thread. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmc_get(
    store: *mut mmc_store,
    key: mmc_key,
    data: *mut c_void,
    size: usize,
    flags: u32,
    options: *const mmc_get_options,
    true_size: *mut u64,
) -> i32 {
    guard("mmc_get", || {
        let entered = handle::enter(store.cast())?;
        check_flags(flags, MMC_PEEK | MMC_GET_UP_TO)?;
        // SAFETY: the caller gives a key, `size` writable bytes, null or its options, and null or room for the size.
        unsafe {
            let (key, stream) = (key_from(key)?, stream_of(options)?);
            let size = entered
                .pool()
                .get(&key, &buffers(&[data.cast_const()], &[size])?, flags, stream)?;
            put_out(true_size, size);
        }
        Ok(())
    })
}

/// Copies the object of `key` into `count` buffers, in their order. They may split it otherwise than the put did.
///
/// `data`, `sizes`: arrays of `count` elements, at least 1; together the object's size, or with MMC_GET_UP_TO any. Else as mmc_get. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmc_getv(
    store: *mut mmc_store,
    key: mmc_key,
    data: *const *mut c_void,
    sizes: *const usize,
    count: usize,
    flags: u32,
    options: *const mmc_get_options,
    true_size: *mut u64,
) -> i32 {
    guard("mmc_getv", || {
        let entered = handle::enter(store.cast())?;
        check_flags(flags, MMC_PEEK | MMC_GET_UP_TO)?;
        // SAFETY: the caller gives a key, `count` writable buffers of these sizes, null or its options, and null or room for the size.
        unsafe {
            let (key, stream) = (key_from(key)?, stream_of(options)?);
            let buffers = buffers(slice("data", data.cast(), count)?, slice("sizes", sizes, count)?)?;
            let size = entered.pool().get(&key, &buffers, flags, stream)?;
            put_out(true_size, size);
        }
        Ok(())
    })
}

/// Asks whether an object can be read.
///
/// `flags`: MMC_PEEK or 0. Returns MMC_OK when it can, MMC_ERR_NOT_FOUND when it can't, MMC_ERR_INVALID_PARAM. Never blocks; any
/// thread. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmc_exist(store: *mut mmc_store, key: mmc_key, flags: u32) -> i32 {
    guard("mmc_exist", || {
        let entered = handle::enter(store.cast())?;
        check_flags(flags, MMC_PEEK)?;
        // SAFETY: the caller gives a key.
        entered.pool().exist(&unsafe { key_from(key)? }, flags)
    })
}

/// Shows an object: its size and its copies.
///
/// `flags`: MMC_PEEK, MMC_QUERY_RESERVED or 0. `info`: where it goes, with its `struct_size` set.
///
/// Returns MMC_OK, MMC_ERR_NOT_FOUND or MMC_ERR_INVALID_PARAM. Never blocks; any thread. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmc_query(store: *mut mmc_store, key: mmc_key, flags: u32, info: *mut mmc_object_info) -> i32 {
    guard("mmc_query", || {
        let entered = handle::enter(store.cast())?;
        check_flags(flags, MMC_PEEK | MMC_QUERY_RESERVED)?;
        // SAFETY: the caller gives a key and a struct of the size that it says.
        let (key, out) = unsafe { (key_from(key)?, Out::new(info, 1)?) };
        out.write(0, &object_info(&entered.pool().query(&key, flags)?));
        Ok(())
    })
}

/// Removes an object. Pins, leases and reads under way keep its bytes where they are; the key is free at once.
///
/// Returns MMC_OK, MMC_ERR_NOT_FOUND or MMC_ERR_INVALID_PARAM. Never blocks; any thread. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmc_remove(store: *mut mmc_store, key: mmc_key) -> i32 {
    guard("mmc_remove", || {
        let entered = handle::enter(store.cast())?;
        // SAFETY: the caller gives a key.
        entered.pool().remove(&unsafe { key_from(key)? })
    })
}

/// Removes every object that is there from the call's start to its end, as mmc_remove does. Reserved ones stay.
///
/// `removed`: where their number goes; may be null. Returns MMC_OK. Takes time by the number of objects and stops nobody. Any
/// thread. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmc_remove_all(store: *mut mmc_store, removed: *mut u64) -> i32 {
    guard("mmc_remove_all", || {
        let number = handle::enter(store.cast())?.pool().remove_all()?;
        // SAFETY: null or the caller's to write.
        unsafe { put_out(removed, number) };
        Ok(())
    })
}

/// Lists the keys of the readable objects, page by page.
///
/// `callback` gets pages of up to 1024 keys, on this thread, with no lock held; it may call the library, but not close the store. A key
/// that is there from start to end comes exactly once; others may come or not. When it returns anything but 0 the listing ends, with MMC_OK.
/// `context` is given to it.
///
/// Returns MMC_OK or MMC_ERR_INVALID_PARAM. Takes time by the number of objects and stops nobody. Any thread. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmc_list_keys(
    store: *mut mmc_store,
    callback: mmc_keys_callback,
    context: *mut c_void,
) -> i32 {
    guard("mmc_list_keys", || {
        let entered = handle::enter(store.cast())?;
        let callback = callback.ok_or_else(|| invalid!("callback is null"))?;
        let mut page = Page::new()?;
        let mut next = Some(0);
        while let Some(from) = next {
            page.clear();
            next = entered.pool().page_of_keys(from, |key| page.add(key))?;
            let keys = page.keys();
            // SAFETY: the host gave a function that may be called so; the keys are valid for the call.
            if !keys.is_empty() && unsafe { callback(context, keys.as_ptr(), keys.len()) } != 0 {
                break;
            }
        }
        Ok(())
    })
}

/// Keys of one page: their bytes one after the other, and where each ends.
struct Page {
    bytes: Vec<u8>,
    keys: Vec<mmc_key>,
}

impl Page {
    fn new() -> Result<Page> {
        let no_memory = |_| crate::error::Error::OutOfMemory("no memory for a page of keys".into());
        let mut page = Page {
            bytes: Vec::new(),
            keys: Vec::new(),
        };
        page.bytes
            .try_reserve_exact(PAGE as usize * crate::key::MAX_KEY_BYTES)
            .map_err(no_memory)?;
        page.keys.try_reserve_exact(PAGE as usize).map_err(no_memory)?;
        Ok(page)
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.keys.clear();
    }

    fn add(&mut self, key: &[u8]) {
        // Room for a whole page was taken at first, so the bytes do not move.
        let data = self.bytes.as_ptr().wrapping_add(self.bytes.len());
        self.bytes.extend_from_slice(key);
        self.keys.push(mmc_key {
            data: data.cast(),
            size: key.len(),
        });
    }

    fn keys(&self) -> &[mmc_key] {
        &self.keys
    }
}

/// An object as the C ABI shows it.
pub(super) fn object_info(view: &ObjectView) -> mmc_object_info {
    let none = mmc_blob_info {
        medium: 0,
        rank: 0,
        address: 0,
        data: std::ptr::null(),
    };
    let info_of = |blob: BlobView| mmc_blob_info {
        medium: medium_number(blob.medium),
        rank: blob.rank,
        address: blob.address,
        data: blob
            .pointer
            .map_or(std::ptr::null(), |pointer| pointer.cast_const().cast()),
    };
    mmc_object_info {
        struct_size: 0,
        readable: u32::from(view.is_readable),
        size: view.size,
        blob_count: view.blobs.iter().flatten().count() as u32,
        lease_count: view.leases,
        blobs: view.blobs.map(|blob| blob.map_or(none, info_of)),
    }
}
