//! From what a C caller gives to what the store takes, checked once, here.

use std::ffi::{CStr, c_char, c_void};
use std::mem::{MaybeUninit, size_of};

use super::types::{
    MMC_COPY_FROM_SEGMENT, MMC_COPY_TO_SEGMENT, MMC_MAX_BATCH, MMC_MEDIUM_DRAM, MMC_MEDIUM_HBM, MMC_MEDIUM_SSD,
    MMC_OFF, MMC_ON, mmc_attach_options, mmc_config, mmc_get_options, mmc_key, mmc_object_info, mmc_put_options,
    mmc_segment_info, mmc_segment_options, mmc_statistics, mmc_view,
};
use crate::error::{Result, invalid};
use crate::key::Key;
use crate::segment::Medium;
use crate::segment::buffers::Buffers;
use crate::segment::device::Direction;
use crate::store::place::PutOptions;

/// The largest struct that a caller may claim: more is a size that was never set.
const MAX_STRUCT: usize = 4096;

/// A struct that begins with its own size.
///
/// # Safety
/// `repr(C)`, `struct_size: u32` first, and valid when all its bytes are zero.
pub(super) unsafe trait Sized32: Copy {
    const NAME: &'static str;
}

macro_rules! sized {
    ($($name:ident),*) => {
        $(
            // SAFETY: `repr(C)` with `struct_size` first; integers, pointers and optional functions may all be zero.
            unsafe impl Sized32 for $name {
                const NAME: &'static str = stringify!($name);
            }
        )*
    };
}

sized!(
    mmc_config,
    mmc_attach_options,
    mmc_segment_options,
    mmc_segment_info,
    mmc_put_options,
    mmc_get_options,
    mmc_object_info,
    mmc_view,
    mmc_statistics
);

/// The size that a caller set in a struct of its.
///
/// # Safety
/// `pointer` must point to at least four readable bytes.
unsafe fn size_in<T: Sized32>(pointer: *const T) -> Result<usize> {
    if !pointer.is_aligned() {
        return Err(invalid!("{} at {pointer:p}: is not aligned", T::NAME));
    }
    // SAFETY: promised by the caller.
    let size = unsafe { pointer.cast::<u32>().read() } as usize;
    if !(size_of::<u32>()..=MAX_STRUCT).contains(&size) {
        return Err(invalid!(
            "struct_size {size} of {}: set it to sizeof({})",
            T::NAME,
            T::NAME
        ));
    }
    Ok(size)
}

/// Reads a struct of the caller, of this version or another; zero for what it lacks. `None` for null.
///
/// # Safety
/// `pointer` is null or points to as many readable bytes as its `struct_size` says.
pub(super) unsafe fn read<T: Sized32>(pointer: *const T) -> Result<Option<T>> {
    if pointer.is_null() {
        return Ok(None);
    }
    // SAFETY: promised by the caller.
    let size = unsafe { size_in(pointer)? };
    let mut value = MaybeUninit::<T>::zeroed();
    let known = size.min(size_of::<T>());
    // SAFETY: the caller's struct has `size` bytes, ours has room for `known` of them.
    unsafe { std::ptr::copy_nonoverlapping(pointer.cast::<u8>(), value.as_mut_ptr().cast::<u8>(), known) };
    // SAFETY: these are the rest of the bytes that the caller promised.
    let rest = unsafe { std::slice::from_raw_parts(pointer.cast::<u8>().add(known), size - known) };
    if rest.iter().any(|byte| *byte != 0) {
        return Err(invalid!(
            "{} of {size} bytes: this version knows {} of them, and the rest is not zero",
            T::NAME,
            size_of::<T>()
        ));
    }
    // SAFETY: a `Sized32` is valid when zero, and the bytes copied over were the caller's own valid struct.
    Ok(Some(unsafe { value.assume_init() }))
}

/// An array of structs that the caller wants filled. Its first element says how large the caller takes them to be.
pub(super) struct Out<T> {
    first: *mut u8,
    count: usize,
    stride: usize,
    kind: std::marker::PhantomData<T>,
}

impl<T: Sized32> Out<T> {
    /// Checks the array; an empty one may be null.
    ///
    /// # Safety
    /// `pointer` is null or points to `count` structs, of the size that the first one's `struct_size` says, that may be written.
    pub(super) unsafe fn new(pointer: *mut T, count: usize) -> Result<Out<T>> {
        let mut out = Out {
            first: pointer.cast(),
            count,
            stride: 0,
            kind: std::marker::PhantomData,
        };
        if count > 0 {
            if pointer.is_null() {
                return Err(invalid!("out-pointer for {} is null", T::NAME));
            }
            // SAFETY: promised by the caller.
            out.stride = unsafe { size_in(pointer)? };
        }
        Ok(out)
    }

    /// Writes one element: as much as the caller has room for, with the size that it set.
    pub(super) fn write(&self, number: usize, value: &T) {
        assert!(number < self.count, "an element of the caller's array");
        let known = self.stride.min(size_of::<T>());
        // SAFETY: `new` was promised `count` structs of `stride` bytes, and `number` is one of them; `known` is at most either size.
        unsafe {
            let element = self.first.add(number * self.stride);
            std::ptr::write_bytes(element, 0, self.stride);
            std::ptr::copy_nonoverlapping(std::ptr::from_ref(value).cast::<u8>(), element, known);
            element.cast::<u32>().write_unaligned(self.stride as u32);
        }
    }
}

/// A key of the caller's.
///
/// # Safety
/// `key.data` must be null or point to `key.size` readable bytes that stay as they are for `'a`.
pub(super) unsafe fn key_from<'a>(key: mmc_key) -> Result<Key<'a>> {
    if key.data.is_null() {
        return Err(invalid!("key data is null"));
    }
    if key.size > crate::key::MAX_KEY_BYTES {
        return Err(invalid!(
            "key of {} bytes: must be 1 to {} bytes",
            key.size,
            crate::key::MAX_KEY_BYTES
        ));
    }
    // SAFETY: not null, and promised by the caller.
    Key::new(unsafe { std::slice::from_raw_parts(key.data.cast::<u8>(), key.size) })
}

/// An array of the caller's, to be read. One of no elements may be null.
///
/// # Safety
/// `pointer` is null or points to `count` values that stay as they are for `'a`.
pub(super) unsafe fn slice<'a, T>(name: &str, pointer: *const T, count: usize) -> Result<&'a [T]> {
    check_array(name, pointer, count)?;
    if count == 0 {
        return Ok(&[]);
    }
    // SAFETY: not null, aligned, and promised by the caller.
    Ok(unsafe { std::slice::from_raw_parts(pointer, count) })
}

/// An array of the caller's, to be written. One of no elements may be null.
///
/// # Safety
/// `pointer` is null or points to `count` initialised values that are this call's alone for `'a`.
pub(super) unsafe fn slice_mut<'a, T>(name: &str, pointer: *mut T, count: usize) -> Result<&'a mut [T]> {
    check_array(name, pointer, count)?;
    if count == 0 {
        return Ok(&mut []);
    }
    // SAFETY: not null, aligned, and promised by the caller.
    Ok(unsafe { std::slice::from_raw_parts_mut(pointer, count) })
}

fn check_array<T>(name: &str, pointer: *const T, count: usize) -> Result<()> {
    if count == 0 {
        return Ok(());
    }
    if pointer.is_null() {
        return Err(invalid!("{name} is null"));
    }
    if !pointer.is_aligned() {
        return Err(invalid!("{name} at {pointer:p}: is not aligned"));
    }
    if count > isize::MAX as usize / size_of::<T>().max(1) {
        return Err(invalid!("{name} of {count} elements: more than there is memory"));
    }
    Ok(())
}

/// Writes a result of a call that succeeded; a null pointer means that the caller does not want it.
///
/// # Safety
/// `pointer` is null or may be written.
pub(super) unsafe fn put_out<T>(pointer: *mut T, value: T) {
    if !pointer.is_null() {
        // SAFETY: not null, and promised by the caller; alignment is not.
        unsafe { pointer.write_unaligned(value) };
    }
}

/// Checks that an out-pointer that must be given is.
pub(super) fn require_out<T>(name: &str, pointer: *const T) -> Result<()> {
    if pointer.is_null() {
        Err(invalid!("{name} is null"))
    } else {
        Ok(())
    }
}

/// The buffers of one object. One piece may be of a null pointer's only if it is refused.
///
/// # Safety
/// As for [`Buffers::new`].
pub(super) unsafe fn buffers<'a>(data: &'a [*const c_void], sizes: &'a [usize]) -> Result<Buffers<'a>> {
    // SAFETY: promised by the caller.
    unsafe { Buffers::new(data, sizes) }
}

/// Checks the number of keys of a batch.
pub(super) fn check_batch(count: usize) -> Result<()> {
    if count > MMC_MAX_BATCH as usize {
        return Err(invalid!("batch of {count} keys: must be at most {MMC_MAX_BATCH}"));
    }
    Ok(())
}

/// A medium by its number; `None` for 0.
pub(super) fn medium_from(number: u32) -> Result<Option<Medium>> {
    match number {
        0 => Ok(None),
        MMC_MEDIUM_HBM => Ok(Some(Medium::Hbm)),
        MMC_MEDIUM_DRAM => Ok(Some(Medium::Dram)),
        MMC_MEDIUM_SSD => Ok(Some(Medium::Ssd)),
        _ => Err(invalid!(
            "medium {number}: must be MMC_MEDIUM_HBM (1), MMC_MEDIUM_DRAM (2) or MMC_MEDIUM_SSD (3)"
        )),
    }
}

/// The number of a medium.
pub(super) fn medium_number(medium: Medium) -> u32 {
    match medium {
        Medium::Hbm => MMC_MEDIUM_HBM,
        Medium::Dram => MMC_MEDIUM_DRAM,
        Medium::Ssd => MMC_MEDIUM_SSD,
    }
}

/// A direction of a copy by its number.
pub(super) fn direction_from(number: u32) -> Result<Direction> {
    match number {
        MMC_COPY_TO_SEGMENT => Ok(Direction::ToSegment),
        MMC_COPY_FROM_SEGMENT => Ok(Direction::FromSegment),
        _ => Err(invalid!(
            "direction {number}: must be MMC_COPY_TO_SEGMENT (1) or MMC_COPY_FROM_SEGMENT (2)"
        )),
    }
}

/// A switch; `None` for 0.
pub(super) fn switch_from(name: &str, value: u32) -> Result<Option<bool>> {
    match value {
        0 => Ok(None),
        MMC_OFF => Ok(Some(false)),
        MMC_ON => Ok(Some(true)),
        _ => Err(invalid!(
            "{name} {value}: must be MMC_OFF (1), MMC_ON (2), or 0 for the default"
        )),
    }
}

/// A text; `None` for null.
///
/// # Safety
/// `pointer` is null or a C string.
pub(super) unsafe fn text_from(name: &str, pointer: *const c_char) -> Result<Option<String>> {
    if pointer.is_null() {
        return Ok(None);
    }
    // SAFETY: promised by the caller.
    let text = unsafe { CStr::from_ptr(pointer) };
    text.to_str()
        .map(|text| Some(text.to_owned()))
        .map_err(|_| invalid!("{name} is not UTF-8"))
}

/// Put options and, for reservations, the term. Null means the defaults.
///
/// # Safety
/// `options` is null or a struct of the caller's with a valid array of ranks, for `'a`.
pub(super) unsafe fn put_options<'a>(options: *const mmc_put_options) -> Result<(PutOptions<'a>, u64)> {
    // SAFETY: promised by the caller.
    let Some(given) = (unsafe { read(options)? }) else {
        return Ok((
            PutOptions {
                replicas: 1,
                preferred: &[],
                medium: None,
                stream: 0,
                guest: None,
            },
            0,
        ));
    };
    check_reserved("mmc_put_options", given.reserved)?;
    let options = PutOptions {
        replicas: given.replicas.max(1) as usize,
        // SAFETY: promised by the caller.
        preferred: unsafe { slice("preferred_ranks", given.preferred_ranks, given.preferred_count)? },
        medium: medium_from(given.medium)?,
        stream: given.stream.expose_provenance(),
        guest: None,
    };
    options.check()?;
    Ok((options, given.term_ms))
}

/// The stream of get options. Null means none.
///
/// # Safety
/// `options` is null or a struct of the caller's.
pub(super) unsafe fn stream_of(options: *const mmc_get_options) -> Result<usize> {
    // SAFETY: promised by the caller.
    let Some(given) = (unsafe { read(options)? }) else {
        return Ok(0);
    };
    check_reserved("mmc_get_options", given.reserved)?;
    Ok(given.stream.expose_provenance())
}

/// Fields that are kept for later must be zero, so that they can mean something then.
pub(super) fn check_reserved(name: &str, value: u32) -> Result<()> {
    if value == 0 {
        Ok(())
    } else {
        Err(invalid!("reserved field of {name} is {value}: must be 0"))
    }
}
