//! Writing and reading objects where they lie: reservations, pins, leases.
//!
//! The general flow of a write: mmc_reserve gives memory, the caller fills it, mmc_commit publishes it. Of a read: mmc_pin gives the
//! memory, the caller reads it, mmc_unpin lets it go. A lease keeps an object for a time without a token, for readers that know its pool
//! address; mmc_batch_copy reads and writes by pool addresses, with or without a pointer to them. Every token that a store has given must come
//! back: what it stands for is kept until then.

use std::ffi::c_void;
use std::slice::from_ref;

use super::batches::keys_and_results;
use super::boundary::guard;
use super::convert::{Out, buffers, check_batch, direction_from, key_from, put_options, slice, slice_mut, stream_of};
use super::handle;
use super::types::{MMC_PEEK, mmc_get_options, mmc_key, mmc_put_options, mmc_store, mmc_view};
use crate::error::{Error, Result, invalid};
use crate::pool::Pool;
use crate::store::check_flags;
use crate::store::inplace::View;

/// Takes `key` and memory for `size` bytes, which the caller fills. Nobody sees the object before mmc_commit.
///
/// `size`: bytes, at least 1. `options`: borrowed; may be null; `term_ms` in it is how long the key is kept. Past its term the key is free
/// again; the memory stays the caller's until mmc_commit (which then fails) or mmc_abort. `view`: where the token and the memory
/// go, with its `struct_size` set. Of several replicas it shows the first; mmc_commit copies it to the others.
///
/// Returns as mmc_put does. Blocks for eviction where it must make room. Any thread. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmc_reserve(
    store: *mut mmc_store,
    key: mmc_key,
    size: u64,
    options: *const mmc_put_options,
    view: *mut mmc_view,
) -> i32 {
    guard("mmc_reserve", || {
        let entered = handle::enter(store.cast())?;
        // SAFETY: the caller gives a key, null or its options, and a struct of the size that it says.
        unsafe {
            let (key, (options, term), out) = (key_from(key)?, put_options(options)?, Out::new(view, 1)?);
            out.write(0, &view_of(&entered.pool().reserve(&key, size, &options, term)?));
        }
        Ok(())
    })
}

/// Publishes the object that `token` stands for. The token is void then, whatever is returned, and its memory no longer the caller's.
///
/// Returns MMC_OK; MMC_ERR_TIMEOUT: its term had passed, so it was given up; MMC_ERR_NOT_FOUND: no such token, or it was used before;
/// MMC_ERR_NOT_STARTED: the store was closed, so it was given up; a copy callback's own code, for replicas: it was given up. Blocks for
/// the copies to further replicas. Any thread. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmc_commit(store: *mut mmc_store, token: u64) -> i32 {
    guard("mmc_commit", || {
        handle::with_remains(store.cast(), |pool| commit(pool, token))
    })
}

/// Gives up the object that `token` stands for, and its memory. The token is void then.
///
/// Returns MMC_OK, or MMC_ERR_NOT_FOUND: no such token, or it was used before. Works after mmc_uninit, too. Never blocks; any thread.
/// Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmc_abort(store: *mut mmc_store, token: u64) -> i32 {
    guard("mmc_abort", || {
        handle::with_remains(store.cast(), |pool| pool.abort(token))
    })
}

/// Keeps the bytes of `key` where they are, to be read there: eviction and mmc_remove leave the memory alone until mmc_unpin.
///
/// `flags`: MMC_PEEK or 0. `view`: where the token and the memory go, with its `struct_size` set; the memory is to be read only.
///
/// Returns MMC_OK; MMC_ERR_NOT_FOUND; MMC_ERR_INVALID_PARAM; MMC_ERR_BUSY: pinned and leased more than a million times;
/// MMC_ERR_OUT_OF_MEMORY. Never blocks; any thread. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmc_pin(store: *mut mmc_store, key: mmc_key, flags: u32, view: *mut mmc_view) -> i32 {
    guard("mmc_pin", || {
        let entered = handle::enter(store.cast())?;
        check_flags(flags, MMC_PEEK)?;
        // SAFETY: the caller gives a key and a struct of the size that it says.
        let (key, out) = unsafe { (key_from(key)?, Out::new(view, 1)?) };
        out.write(0, &view_of(&entered.pool().pin(&key, flags)?));
        Ok(())
    })
}

/// Ends the pin of `token`, which is void then, and its memory no longer the caller's.
///
/// Returns MMC_OK, or MMC_ERR_NOT_FOUND: no such token, or it was used before. Works after mmc_uninit, too. Never blocks; any thread.
/// Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmc_unpin(store: *mut mmc_store, token: u64) -> i32 {
    guard("mmc_unpin", || {
        handle::with_remains(store.cast(), |pool| pool.unpin(token))
    })
}

/// Keeps every copy of `key` where it is for `term_ms` milliseconds; 0 means MMC_DEFAULT_LEASE_MS. Leases count, each with its own end.
///
/// Eviction passes a leased object over. mmc_remove takes its key at once; its bytes stay until the last lease ends.
///
/// Returns MMC_OK; MMC_ERR_NOT_FOUND; MMC_ERR_STATE: it is still being written; MMC_ERR_INVALID_PARAM; MMC_ERR_BUSY: pinned and leased
/// more than a million times; MMC_ERR_OUT_OF_MEMORY. Never blocks; any thread. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmc_add_lease(store: *mut mmc_store, key: mmc_key, term_ms: u64) -> i32 {
    guard("mmc_add_lease", || {
        let entered = handle::enter(store.cast())?;
        // SAFETY: the caller gives a key.
        entered.pool().add_lease(&unsafe { key_from(key)? }, term_ms)
    })
}

/// Ends one lease of `key`: of those that are not over the one that would end first, so that nobody's longer lease is cut.
///
/// Returns MMC_OK; MMC_ERR_NO_LEASE: it has none; MMC_ERR_NOT_FOUND; MMC_ERR_INVALID_PARAM. Never blocks; any thread. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmc_remove_lease(store: *mut mmc_store, key: mmc_key) -> i32 {
    guard("mmc_remove_lease", || {
        let entered = handle::enter(store.cast())?;
        // SAFETY: the caller gives a key.
        entered.pool().remove_lease(&unsafe { key_from(key)? })
    })
}

/// Reserves `count` objects.
///
/// `keys`, `sizes`: arrays of `count` elements, at most 16384. `options`: for all of them. `flags`: 0. `views`: an array of `count`
/// elements, the first with its `struct_size` set, which holds for all; an element that failed is not written. `results`: an array of
/// `count` codes, as mmc_reserve returns them. Else as mmc_reserve and mmc_batch_put. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmc_batch_reserve(
    store: *mut mmc_store,
    keys: *const mmc_key,
    count: usize,
    sizes: *const u64,
    options: *const mmc_put_options,
    flags: u32,
    views: *mut mmc_view,
    results: *mut i32,
) -> i32 {
    guard("mmc_batch_reserve", || {
        let entered = handle::enter(store.cast())?;
        check_flags(flags, 0)?;
        // SAFETY: the caller gives arrays of `count` elements, and null or its options.
        let ((key, results), sizes, (options, term), out) = unsafe {
            let keys = keys_and_results(keys, count, results)?;
            (
                keys,
                slice("sizes", sizes, count)?,
                put_options(options)?,
                Out::new(views, count)?,
            )
        };
        let element = |number: usize| Ok((key(number)?, sizes[number]));
        let show = |number, view| out.write(number, &view_of(&view));
        entered.pool().batch_reserve(element, &options, term, results, show)
    })
}

/// Publishes `count` reserved objects, a batch as mmc_batch_put's.
///
/// `tokens`: an array of `count` elements, at most 16384. `flags`: 0. `results`: an array of `count` codes, as mmc_commit returns them. Else
/// as mmc_commit. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmc_batch_commit(
    store: *mut mmc_store,
    tokens: *const u64,
    count: usize,
    flags: u32,
    results: *mut i32,
) -> i32 {
    guard("mmc_batch_commit", || {
        // SAFETY: the caller gives arrays of `count` elements.
        let (tokens, results) = unsafe { tokens_and_results(tokens, count, flags, results)? };
        handle::with_remains(store.cast(), |pool| {
            if pool.is_serving() {
                return pool.batch_commit(tokens, results);
            }
            tokens.iter().zip(results).for_each(|(token, code)| {
                *code = commit(pool, *token).map_or_else(|error| error.code(), |()| 0);
            });
            Ok(())
        })
    })
}

/// Gives up `count` reserved objects. Arrays as in mmc_batch_commit, codes as mmc_abort returns them. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmc_batch_abort(
    store: *mut mmc_store,
    tokens: *const u64,
    count: usize,
    flags: u32,
    results: *mut i32,
) -> i32 {
    guard("mmc_batch_abort", || {
        // SAFETY: the caller gives arrays of `count` elements.
        let (tokens, results) = unsafe { tokens_and_results(tokens, count, flags, results)? };
        handle::with_remains(store.cast(), |pool| pool.batch_abort(tokens, results))
    })
}

/// Pins `count` objects.
///
/// `keys`: an array of `count` elements, at most 16384. `flags`: MMC_PEEK or 0. `views`: an array of `count` elements, the first with its
/// `struct_size` set, which holds for all; an element that failed is not written. `results`: an array of `count` codes, as mmc_pin returns
/// them. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmc_batch_pin(
    store: *mut mmc_store,
    keys: *const mmc_key,
    count: usize,
    flags: u32,
    views: *mut mmc_view,
    results: *mut i32,
) -> i32 {
    guard("mmc_batch_pin", || {
        let entered = handle::enter(store.cast())?;
        check_flags(flags, MMC_PEEK)?;
        // SAFETY: the caller gives arrays of `count` elements.
        let ((key, results), out) = unsafe { (keys_and_results(keys, count, results)?, Out::new(views, count)?) };
        entered
            .pool()
            .batch_pin(key, flags, results, |number, view| out.write(number, &view_of(&view)))
    })
}

/// Ends `count` pins. Arrays as in mmc_batch_commit, codes as mmc_unpin returns them. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmc_batch_unpin(
    store: *mut mmc_store,
    tokens: *const u64,
    count: usize,
    flags: u32,
    results: *mut i32,
) -> i32 {
    guard("mmc_batch_unpin", || {
        // SAFETY: the caller gives arrays of `count` elements.
        let (tokens, results) = unsafe { tokens_and_results(tokens, count, flags, results)? };
        handle::with_remains(store.cast(), |pool| pool.batch_unpin(tokens, results))
    })
}

/// Leases `count` objects for the same term.
///
/// `keys`: an array of `count` elements, at most 16384. `flags`: 0. `results`: an array of `count` codes, as mmc_add_lease returns them.
/// Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmc_batch_add_lease(
    store: *mut mmc_store,
    keys: *const mmc_key,
    count: usize,
    term_ms: u64,
    flags: u32,
    results: *mut i32,
) -> i32 {
    guard("mmc_batch_add_lease", || {
        let entered = handle::enter(store.cast())?;
        check_flags(flags, 0)?;
        // SAFETY: the caller gives arrays of `count` elements.
        let (key, results) = unsafe { keys_and_results(keys, count, results)? };
        entered.pool().batch_add_lease(key, term_ms, results)
    })
}

/// Ends a lease of each of `count` objects. Arrays as in mmc_batch_add_lease, codes as mmc_remove_lease returns them. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmc_batch_remove_lease(
    store: *mut mmc_store,
    keys: *const mmc_key,
    count: usize,
    flags: u32,
    results: *mut i32,
) -> i32 {
    guard("mmc_batch_remove_lease", || {
        let entered = handle::enter(store.cast())?;
        check_flags(flags, 0)?;
        // SAFETY: the caller gives arrays of `count` elements.
        let (key, results) = unsafe { keys_and_results(keys, count, results)? };
        entered.pool().batch_remove_lease(key, results)
    })
}

/// Copies between `count` ranges of pool addresses and the caller's buffers: single layers of objects, say, as they are made or wanted.
///
/// `addresses`: where each range begins, at any byte of an object: of what mmc_reserve's view shows, or mmc_query's blobs. `data`, `sizes`: one
/// buffer a range. All are arrays of `count` elements, at most 16384. `direction`: MMC_COPY_TO_SEGMENT to read the buffers and write the
/// ranges, MMC_COPY_FROM_SEGMENT for the other way. `flags`: 0. `options`: for all of them; may be null. `results`: an array of `count` codes.
///
/// Can be read: a readable object, and one that was removed until the last lease on it is over. Can be written: a reserved object, in
/// the copy that its view shows, for its holder, and not during mmc_commit or after it. A copy under way keeps the memory where it is,
/// whatever becomes of the object meanwhile. None is a use for eviction.
///
/// A result is MMC_OK; MMC_ERR_NOT_FOUND: no object that can be read, or written, lies there, its term is over, or it ends before
/// the range does; MMC_ERR_STATE: to be read, but still being written, or to be written, but published or being put;
/// MMC_ERR_INVALID_PARAM: an address of 0, a null pointer, a size of 0; MMC_ERR_BUSY: read and copied more than eight million times at once;
/// a copy callback's own code. Where it is not MMC_OK nothing was copied, unless a callback failed. Returns as a batch does, and
/// MMC_ERR_INVALID_PARAM for another direction. Blocks for the copies only. Any thread. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmc_batch_copy(
    store: *mut mmc_store,
    addresses: *const u64,
    count: usize,
    data: *const *mut c_void,
    sizes: *const usize,
    direction: u32,
    flags: u32,
    options: *const mmc_get_options,
    results: *mut i32,
) -> i32 {
    guard("mmc_batch_copy", || {
        let entered = handle::enter(store.cast())?;
        check_flags(flags, 0)?;
        check_batch(count)?;
        let direction = direction_from(direction)?;
        // SAFETY: the caller gives arrays of `count` elements, and null or its options.
        let (addresses, data, sizes, stream, results) = unsafe {
            (
                slice("addresses", addresses, count)?,
                slice("data", data.cast(), count)?,
                slice("sizes", sizes, count)?,
                stream_of(options)?,
                slice_mut("results", results, count)?,
            )
        };
        let element = |number: usize| match addresses[number] {
            0 => Err(invalid!("address of element {number} is 0")),
            address => {
                let (data, sizes) = (from_ref(&data[number]), from_ref(&sizes[number]));
                // SAFETY: the caller gives a buffer of this size, to be read or written as the direction says.
                Ok((address, unsafe { buffers(data, sizes)? }))
            }
        };
        entered.pool().batch_copy(element, direction, stream, results)
    })
}

/// A commit into a store that was closed is too late: it only gives the memory up.
fn commit(pool: &Pool, token: u64) -> Result<()> {
    if pool.is_serving() {
        return pool.commit(token);
    }
    pool.abort(token)?;
    Err(Error::NotStarted)
}

/// # Safety
/// The arrays have `count` elements.
unsafe fn tokens_and_results<'a>(
    tokens: *const u64,
    count: usize,
    flags: u32,
    results: *mut i32,
) -> Result<(&'a [u64], &'a mut [i32])> {
    check_flags(flags, 0)?;
    check_batch(count)?;
    // SAFETY: promised by the caller.
    unsafe { Ok((slice("tokens", tokens, count)?, slice_mut("results", results, count)?)) }
}

fn view_of(view: &View) -> mmc_view {
    mmc_view {
        struct_size: 0,
        reserved: 0,
        token: view.token,
        address: view.address,
        data: view.pointer.map_or(std::ptr::null_mut(), |pointer| pointer.cast()),
        size: view.size,
    }
}
