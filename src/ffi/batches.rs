//! Many objects in one call, each with its own code.
//!
//! A batch is a chain: key i + 1 is taken to be of no use without key i, and eviction takes the tail before the head. The call returns
//! MMC_OK when it could begin, whatever became of its elements: `results` has a code for each, and an element that fails never
//! spoils another. On any other return nothing was done and `results` is unchanged. A batch of 0 keys is MMC_OK. mmc_prefix_len alone
//! gives one answer for all of them.

use std::ffi::c_void;

use super::boundary::guard;
use super::convert::{
    Out, buffers, check_batch, key_from, medium_from, put_options, put_out, require_out, slice, slice_mut, stream_of,
};
use super::handle;
use super::objects::object_info;
use super::types::{
    MMC_GET_UP_TO, MMC_PEEK, MMC_QUERY_RESERVED, mmc_get_options, mmc_key, mmc_object_info, mmc_put_options, mmc_store,
};
use crate::error::{Result, invalid};
use crate::key::Key;
use crate::segment::Medium;
use crate::segment::buffers::{Buffers, list_of};
use crate::store::check_flags;
use crate::store::migrate::Way;

/// Keys of a batch with their buffers, one after the other in flat arrays.
struct Elements<'a> {
    keys: &'a [mmc_key],
    data: &'a [*const c_void],
    sizes: &'a [usize],
    /// Where the buffers of each key begin, and the end; `None` when each key has one.
    starts: Option<Vec<usize>>,
}

impl<'a> Elements<'a> {
    /// One buffer a key.
    ///
    /// # Safety
    /// The arrays have `count` elements; the keys and buffers in them are as [`key_from`] and [`Buffers::new`] need them.
    unsafe fn single(
        keys: *const mmc_key,
        count: usize,
        data: *const *const c_void,
        sizes: *const usize,
    ) -> Result<Elements<'a>> {
        check_batch(count)?;
        // SAFETY: promised by the caller.
        unsafe {
            Ok(Elements {
                keys: slice("keys", keys, count)?,
                data: slice("data", data, count)?,
                sizes: slice("sizes", sizes, count)?,
                starts: None,
            })
        }
    }

    /// `buffer_counts[i]` buffers for key i.
    ///
    /// # Safety
    /// As for [`Elements::single`], with as many buffers as the counts add up to.
    unsafe fn many(
        keys: *const mmc_key,
        count: usize,
        buffer_counts: *const usize,
        data: *const *const c_void,
        sizes: *const usize,
    ) -> Result<Elements<'a>> {
        check_batch(count)?;
        // SAFETY: promised by the caller.
        let counts: &[usize] = unsafe { slice("buffer_counts", buffer_counts, count)? };
        let mut starts = list_of(count + 1, || 0usize)?;
        for (number, buffers) in counts.iter().enumerate() {
            starts[number + 1] = starts[number]
                .checked_add(*buffers)
                .ok_or_else(|| invalid!("buffer_counts add up to more than there is memory"))?;
        }
        // SAFETY: promised by the caller.
        unsafe {
            Ok(Elements {
                keys: slice("keys", keys, count)?,
                data: slice("data", data, starts[count])?,
                sizes: slice("sizes", sizes, starts[count])?,
                starts: Some(starts),
            })
        }
    }

    fn element(&self, number: usize) -> Result<(Key<'a>, Buffers<'a>)> {
        let range = match &self.starts {
            None => number..number + 1,
            Some(starts) => starts[number]..starts[number + 1],
        };
        // SAFETY: whoever made `self` promised it of every key and buffer.
        unsafe {
            Ok((
                key_from(self.keys[number])?,
                buffers(&self.data[range.clone()], &self.sizes[range])?,
            ))
        }
    }
}

/// The keys of a batch and its results.
///
/// # Safety
/// The arrays have `count` elements, and the keys are as [`key_from`] needs them.
pub(super) unsafe fn keys_and_results<'a>(
    keys: *const mmc_key,
    count: usize,
    results: *mut i32,
) -> Result<(impl Fn(usize) -> Result<Key<'a>>, &'a mut [i32])> {
    // SAFETY: promised by the caller.
    unsafe { Ok((keys_at(keys, count)?, slice_mut("results", results, count)?)) }
}

/// The keys of a batch.
///
/// # Safety
/// The array has `count` elements, and the keys are as [`key_from`] needs them.
unsafe fn keys_at<'a>(keys: *const mmc_key, count: usize) -> Result<impl Fn(usize) -> Result<Key<'a>>> {
    check_batch(count)?;
    // SAFETY: promised by the caller.
    let keys: &[mmc_key] = unsafe { slice("keys", keys, count)? };
    Ok(move |number: usize| {
        // SAFETY: as above.
        unsafe { key_from(keys[number]) }
    })
}

/// Puts `count` objects of one buffer each.
///
/// `keys`, `data`, `sizes`: arrays of `count` elements, borrowed for the call; at most 16384. `options`: for all of them. `flags`: 0.
/// `results`: an array of `count` codes, as mmc_put returns them. No element is evicted to make room for another of the same batch, and
/// all become readable at the end, the first first. With MMC_EVICTION_ADAPTIVE a batch of more than a hundredth of its segment, for
/// which there is no room, is put in parts, each so: what earlier parts have put may go for later ones. Else as mmc_put. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmc_batch_put(
    store: *mut mmc_store,
    keys: *const mmc_key,
    count: usize,
    data: *const *const c_void,
    sizes: *const usize,
    options: *const mmc_put_options,
    flags: u32,
    results: *mut i32,
) -> i32 {
    guard("mmc_batch_put", || {
        // SAFETY: the caller gives arrays of `count` elements, whose keys and buffers may be read.
        unsafe {
            put(
                store,
                Elements::single(keys, count, data, sizes)?,
                options,
                flags,
                results,
            )
        }
    })
}

/// Puts `count` objects of several buffers each.
///
/// `buffer_counts`: how many buffers each key has, at least 1; `data`, `sizes`: the buffers of all keys, one key's after the other's. Else
/// as mmc_batch_put. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmc_batch_putv(
    store: *mut mmc_store,
    keys: *const mmc_key,
    count: usize,
    buffer_counts: *const usize,
    data: *const *const c_void,
    sizes: *const usize,
    options: *const mmc_put_options,
    flags: u32,
    results: *mut i32,
) -> i32 {
    guard("mmc_batch_putv", || {
        // SAFETY: the caller gives arrays as they are described, whose keys and buffers may be read.
        unsafe {
            put(
                store,
                Elements::many(keys, count, buffer_counts, data, sizes)?,
                options,
                flags,
                results,
            )
        }
    })
}

/// # Safety
/// `options` and `results` are the caller's, as they are described above.
unsafe fn put(
    store: *mut mmc_store,
    elements: Elements<'_>,
    options: *const mmc_put_options,
    flags: u32,
    results: *mut i32,
) -> Result<()> {
    let entered = handle::enter(store.cast())?;
    check_flags(flags, 0)?;
    // SAFETY: promised by the caller.
    let ((options, _), results) = unsafe {
        (
            put_options(options)?,
            slice_mut("results", results, elements.keys.len())?,
        )
    };
    entered
        .pool()
        .batch_put(|number| elements.element(number), &options, results)
}

/// Gets `count` objects into one buffer each.
///
/// `keys`, `data`, `sizes`: arrays of `count` elements, at most 16384. `flags`: MMC_PEEK, MMC_GET_UP_TO or 0. `options`: for all of them;
/// may be null. `results`: an array of `count` codes, as mmc_get returns them. `true_sizes`: an array of `count` sizes, 0 where the get
/// failed; may be null. Else as mmc_get. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmc_batch_get(
    store: *mut mmc_store,
    keys: *const mmc_key,
    count: usize,
    data: *const *mut c_void,
    sizes: *const usize,
    flags: u32,
    options: *const mmc_get_options,
    results: *mut i32,
    true_sizes: *mut u64,
) -> i32 {
    guard("mmc_batch_get", || {
        // SAFETY: the caller gives arrays of `count` elements, whose keys may be read and whose buffers written.
        unsafe {
            get(
                store,
                Elements::single(keys, count, data.cast(), sizes)?,
                flags,
                options,
                results,
                true_sizes,
            )
        }
    })
}

/// Gets `count` objects into several buffers each, which may split them otherwise than the put did.
///
/// `buffer_counts`: how many buffers each key has, at least 1; `data`, `sizes`: the buffers of all keys, one key's after the other's. Else
/// as mmc_batch_get. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmc_batch_getv(
    store: *mut mmc_store,
    keys: *const mmc_key,
    count: usize,
    buffer_counts: *const usize,
    data: *const *mut c_void,
    sizes: *const usize,
    flags: u32,
    options: *const mmc_get_options,
    results: *mut i32,
    true_sizes: *mut u64,
) -> i32 {
    guard("mmc_batch_getv", || {
        // SAFETY: the caller gives arrays as they are described, whose keys may be read and whose buffers written.
        unsafe {
            let elements = Elements::many(keys, count, buffer_counts, data.cast(), sizes)?;
            get(store, elements, flags, options, results, true_sizes)
        }
    })
}

/// # Safety
/// `options`, `results` and `true_sizes` are the caller's, as they are described above.
unsafe fn get(
    store: *mut mmc_store,
    elements: Elements<'_>,
    flags: u32,
    options: *const mmc_get_options,
    results: *mut i32,
    true_sizes: *mut u64,
) -> Result<()> {
    let entered = handle::enter(store.cast())?;
    check_flags(flags, MMC_PEEK | MMC_GET_UP_TO)?;
    let count = elements.keys.len();
    // SAFETY: promised by the caller.
    let (stream, results, sizes) = unsafe {
        let sizes = if true_sizes.is_null() {
            None
        } else {
            Some(slice_mut("true_sizes", true_sizes, count)?)
        };
        (stream_of(options)?, slice_mut("results", results, count)?, sizes)
    };
    entered
        .pool()
        .batch_get(|number| elements.element(number), flags, stream, results, sizes)
}

/// Asks for `count` keys whether their objects can be read.
///
/// `keys`: an array of `count` elements, at most 16384. `flags`: MMC_PEEK or 0. `results`: an array of `count` codes, as mmc_exist returns
/// them. Never blocks; any thread. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmc_batch_exist(
    store: *mut mmc_store,
    keys: *const mmc_key,
    count: usize,
    flags: u32,
    results: *mut i32,
) -> i32 {
    guard("mmc_batch_exist", || {
        let entered = handle::enter(store.cast())?;
        check_flags(flags, MMC_PEEK)?;
        // SAFETY: the caller gives arrays of `count` elements.
        let (key, results) = unsafe { keys_and_results(keys, count, results)? };
        entered.pool().batch_exist(key, flags, results)
    })
}

/// Tells how much of a prefix chain is there: how many of `count` keys have readable objects, from the first on and up to the first that
/// has none.
///
/// `keys`: an array of `count` elements, at most 16384; those behind the first that is not there are not looked at. `flags`: MMC_PEEK or 0.
/// Without MMC_PEEK each key that was found is used as by mmc_batch_exist. `length`: where the number goes; 0 for 0 keys.
///
/// Returns MMC_OK, or MMC_ERR_INVALID_PARAM, for a key on the way that is none, too: then `length` is unchanged. Never blocks; any
/// thread. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmc_prefix_len(
    store: *mut mmc_store,
    keys: *const mmc_key,
    count: usize,
    flags: u32,
    length: *mut usize,
) -> i32 {
    guard("mmc_prefix_len", || {
        let entered = handle::enter(store.cast())?;
        check_flags(flags, MMC_PEEK)?;
        require_out("length", length)?;
        // SAFETY: the caller gives an array of `count` elements and room for the length.
        unsafe {
            let key = keys_at(keys, count)?;
            put_out(length, entered.pool().prefix_len(count, key, flags)?);
        }
        Ok(())
    })
}

/// Shows `count` objects.
///
/// `flags`: MMC_PEEK, MMC_QUERY_RESERVED or 0. `infos`: an array of `count` elements, the first with its `struct_size` set, which holds
/// for all; an element that failed is not written. `results`: an array of `count` codes, as mmc_query returns them. Never blocks; any
/// thread. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmc_batch_query(
    store: *mut mmc_store,
    keys: *const mmc_key,
    count: usize,
    flags: u32,
    infos: *mut mmc_object_info,
    results: *mut i32,
) -> i32 {
    guard("mmc_batch_query", || {
        let entered = handle::enter(store.cast())?;
        check_flags(flags, MMC_PEEK | MMC_QUERY_RESERVED)?;
        // SAFETY: the caller gives arrays of `count` elements.
        let ((key, results), out) = unsafe { (keys_and_results(keys, count, results)?, Out::new(infos, count)?) };
        entered.pool().batch_query(key, flags, results, |number, view| {
            out.write(number, &object_info(view))
        })
    })
}

/// Removes `count` objects.
///
/// `keys`: an array of `count` elements, at most 16384. `flags`: 0. `results`: an array of `count` codes, as mmc_remove returns them. Never
/// blocks; any thread. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmc_batch_remove(
    store: *mut mmc_store,
    keys: *const mmc_key,
    count: usize,
    flags: u32,
    results: *mut i32,
) -> i32 {
    guard("mmc_batch_remove", || {
        let entered = handle::enter(store.cast())?;
        check_flags(flags, 0)?;
        // SAFETY: the caller gives arrays of `count` elements.
        let (key, results) = unsafe { keys_and_results(keys, count, results)? };
        entered.pool().batch_remove(key, results)
    })
}

/// Moves `count` objects from one medium to a slower one.
///
/// `keys`: an array of `count` elements, at most 16384. `from`, `to`: MMC_MEDIUM_*, `to` slower than `from` (HBM, DRAM, SSD in this order).
/// `flags`: 0. `results`: an array of `count` codes: MMC_OK when the object has a copy on `to` now and none on `from`; MMC_ERR_NOT_FOUND
/// when no readable object has this key, or it is on neither; MMC_ERR_BUSY when it is pinned or leased on `from`: it has a copy on both
/// then; MMC_ERR_NO_SPACE when no room can be made on `to`; MMC_ERR_IO when the disk failed: the object stays where it was.
///
/// An object can be read at every instant of its move. Room on `to` is made as by a put there. Blocks for the copies and the disk. Any
/// thread. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmc_evict(
    store: *mut mmc_store,
    keys: *const mmc_key,
    count: usize,
    from: u32,
    to: u32,
    flags: u32,
    results: *mut i32,
) -> i32 {
    guard("mmc_evict", || {
        let entered = handle::enter(store.cast())?;
        check_flags(flags, 0)?;
        let way = Way::down(required_medium("from", from)?, required_medium("to", to)?)?;
        // SAFETY: the caller gives arrays of `count` elements.
        let (key, results) = unsafe { keys_and_results(keys, count, results)? };
        entered.pool().batch_evict(key, way, results)
    })
}

/// Copies `count` objects from one medium to a faster one, so that they are there when they are wanted. The copies on `from` stay: the
/// objects can leave the faster medium again without being copied.
///
/// `from`, `to`: MMC_MEDIUM_*, `to` faster than `from`. `results`: an array of `count` codes: MMC_OK when the object has a copy on `to` now;
/// the others as of mmc_evict. Else as mmc_evict. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmc_prefetch(
    store: *mut mmc_store,
    keys: *const mmc_key,
    count: usize,
    from: u32,
    to: u32,
    flags: u32,
    results: *mut i32,
) -> i32 {
    guard("mmc_prefetch", || {
        let entered = handle::enter(store.cast())?;
        check_flags(flags, 0)?;
        let way = Way::up(required_medium("from", from)?, required_medium("to", to)?)?;
        // SAFETY: the caller gives arrays of `count` elements.
        let (key, results) = unsafe { keys_and_results(keys, count, results)? };
        entered.pool().batch_prefetch(key, way, results)
    })
}

fn required_medium(name: &str, number: u32) -> Result<Medium> {
    medium_from(number)?.ok_or_else(|| invalid!("{name} is not set: must be MMC_MEDIUM_*"))
}
