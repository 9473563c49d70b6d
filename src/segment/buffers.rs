//! The caller's side of a copy: one or many pieces of its memory.
//!
//! An object of many layers lies in many buffers; put gathers them, get scatters over them, and may split the object otherwise. The
//! addresses may be a device's, so they are numbers until somebody copies.

use std::ffi::c_void;

use crate::copy;
use crate::error::{Error, Result, invalid, words};

/// Pieces of the caller's memory, in the object's order.
#[derive(Clone, Copy)]
pub(crate) struct Buffers<'a> {
    data: &'a [*const c_void],
    sizes: &'a [usize],
    total: u64,
}

impl<'a> Buffers<'a> {
    /// Checks the pieces: at least one, none null, none empty.
    ///
    /// # Safety
    /// Each piece must be memory of the caller, of its size, that stays valid and unshared for the use that is made of it (reading for a
    /// put, writing for a get) while the result lives; or an address of a device that only its callback gets.
    pub(crate) unsafe fn new(data: &'a [*const c_void], sizes: &'a [usize]) -> Result<Buffers<'a>> {
        if data.is_empty() || data.len() != sizes.len() {
            return Err(invalid!(
                "{} buffers with {} sizes: must be as many, and at least one",
                data.len(),
                sizes.len()
            ));
        }
        let mut total = 0u64;
        for (number, (address, size)) in data.iter().zip(sizes).enumerate() {
            if address.is_null() {
                return Err(invalid!("buffer {number} of {} is null", data.len()));
            }
            if *size == 0 {
                return Err(invalid!(
                    "buffer {number} of {} has 0 bytes: must be at least 1",
                    data.len()
                ));
            }
            total = total
                .checked_add(*size as u64)
                .filter(|total| *total <= MAX_OBJECT_BYTES)
                .ok_or_else(|| invalid!("buffers of more than {MAX_OBJECT_BYTES} bytes together"))?;
        }
        Ok(Buffers { data, sizes, total })
    }

    /// Bytes of all pieces.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// As if they ended after the first `bytes` bytes, or where they do.
    pub(crate) fn first(&self, bytes: u64) -> Buffers<'a> {
        Buffers {
            total: self.total.min(bytes),
            ..*self
        }
    }

    /// Begins to load the first bytes, for a put that is going to gather them. A hint: an address that is a device's does no harm.
    pub(crate) fn prefetch(&self) {
        copy::prefetch_source(self.data[0].cast(), self.sizes[0]);
    }

    /// The pieces of the first `bytes` bytes: offset in the object, address, bytes.
    pub(crate) fn pieces(&self, bytes: u64) -> impl Iterator<Item = (u64, *mut c_void, usize)> + use<'a> {
        let mut offset = 0u64;
        self.data.iter().zip(self.sizes).map_while(move |(address, size)| {
            let size = (*size as u64).min(bytes - offset);
            let piece = (offset, address.cast_mut(), size as usize);
            offset += size;
            (size > 0).then_some(piece)
        })
    }
}

/// The largest object: what a segment's units can count.
pub(crate) const MAX_OBJECT_BYTES: u64 = 1 << 43;

/// A list of `count` values, or an error where memory for it is missing.
pub(crate) fn list_of<T>(count: usize, value: impl FnMut() -> T) -> Result<Vec<T>> {
    let mut list = Vec::new();
    list.try_reserve_exact(count)
        .map_err(|_| Error::OutOfMemory(words!("no memory for a batch of {count} elements")))?;
    list.resize_with(count, value);
    Ok(list)
}
