//! Memory in which bytes wait on their way to or from a file.
//!
//! Direct I/O takes only memory that is aligned to a unit, in whole units. Fresh memory costs more than the copy into it, as the kernel
//! zeroes each page when it is first touched; so a file keeps what was given back, up to [`KEPT`] bytes, and gives it out again for
//! the same length: blocks are mostly of one size. What stands in it is overwritten up to the object's end. Behind that may be bytes of
//! another object, which go to the same file and which nobody reads.
//!
//! The lock is a leaf, held for a few steps.

use std::alloc::{self, Layout};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{Error, Result, words};
use crate::segment::allocator::UNIT;

/// Bytes that a file keeps: as much as two calls have under way.
const KEPT: usize = 32 << 20;

/// Memory that was given back.
#[derive(Default)]
pub(super) struct Bounces(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    memory: Vec<Memory>,
    bytes: usize,
}

/// Whole units of memory, aligned to one.
struct Memory {
    first: NonNull<u8>,
    layout: Layout,
}

// SAFETY: plain memory, whose owner it is.
unsafe impl Send for Memory {}

/// Memory that direct I/O takes. It goes back to where it came from.
pub(crate) struct Bounce {
    memory: Option<Memory>,
    home: Option<Arc<Bounces>>,
}

impl Bounce {
    /// Memory for `bytes` bytes, rounded up to whole units, zeroed.
    pub(crate) fn new(bytes: u64) -> Result<Bounce> {
        Ok(Bounce {
            memory: Some(Memory::new(layout_of(bytes)?)?),
            home: None,
        })
    }

    pub(crate) fn memory(&self) -> *mut u8 {
        self.held().first.as_ptr()
    }

    /// Bytes.
    pub(crate) fn length(&self) -> usize {
        self.held().layout.size()
    }

    /// Its first `length` bytes. Nobody writes to it meanwhile: who has parts of it under way waits for them first.
    pub(crate) fn bytes(&self, length: u64) -> &[u8] {
        assert!(length <= self.length() as u64, "no more than there is");
        // SAFETY: initialised memory of this bounce, of at least this length.
        unsafe { std::slice::from_raw_parts(self.memory(), length as usize) }
    }

    fn held(&self) -> &Memory {
        self.memory.as_ref().expect("it is there until the bounce goes")
    }
}

impl Bounces {
    /// Memory for `bytes` bytes, from what was given back where that has some of the length.
    pub(super) fn take(home: &Arc<Bounces>, bytes: u64) -> Result<Bounce> {
        let layout = layout_of(bytes)?;
        let memory = home.take_kept(layout).map_or_else(|| Memory::new(layout), Ok)?;
        Ok(Bounce {
            memory: Some(memory),
            home: Some(Arc::clone(home)),
        })
    }

    fn take_kept(&self, layout: Layout) -> Option<Memory> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let place = kept.memory.iter().rposition(|memory| memory.layout == layout)?;
        kept.bytes -= layout.size();
        Some(kept.memory.swap_remove(place))
    }

    /// Keeps memory, and lets others go for it when that is too much: those of a length that nobody asks for any more go in the end.
    fn keep(&self, memory: Memory) {
        if memory.layout.size() > KEPT {
            return;
        }
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.memory.try_reserve(1).is_err() {
            return;
        }
        kept.bytes += memory.layout.size();
        kept.memory.push(memory);
        while kept.bytes > KEPT {
            let other = kept.memory.swap_remove(0);
            kept.bytes -= other.layout.size();
        }
    }
}

impl Memory {
    fn new(layout: Layout) -> Result<Memory> {
        // SAFETY: the layout has bytes.
        let first = NonNull::new(unsafe { alloc::alloc_zeroed(layout) });
        first
            .map(|first| Memory { first, layout })
            .ok_or_else(|| none(layout.size() as u64))
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: it was allocated with this layout.
        unsafe { alloc::dealloc(self.first.as_ptr(), self.layout) };
    }
}

impl Drop for Bounce {
    fn drop(&mut self) {
        if let (Some(home), Some(memory)) = (&self.home, self.memory.take()) {
            home.keep(memory);
        }
    }
}

fn layout_of(bytes: u64) -> Result<Layout> {
    let length = usize::try_from(bytes.max(1).next_multiple_of(UNIT)).map_err(|_| none(bytes))?;
    Layout::from_size_align(length, UNIT as usize).map_err(|_| none(bytes))
}

fn none(bytes: u64) -> Error {
    Error::OutOfMemory(words!("no memory for {bytes} bytes on their way to or from a file"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_is_given_out_again_for_the_same_length_and_kept_within_the_limit() {
        let home = Arc::new(Bounces::default());
        let first = Bounces::take(&home, 5000).unwrap();
        assert_eq!((first.length(), first.memory().addr() % UNIT as usize), (8192, 0));
        let address = first.memory();
        drop(first);
        assert_ne!(Bounces::take(&home, 4096).unwrap().memory(), address);
        assert_eq!(Bounces::take(&home, 8192).unwrap().memory(), address);
        let many: Vec<Bounce> = (0..40).map(|_| Bounces::take(&home, 1 << 20).unwrap()).collect();
        drop(many);
        drop(Bounces::take(&home, KEPT as u64 + 1).unwrap());
        let kept = home.0.lock().unwrap();
        let bytes: usize = kept.memory.iter().map(|memory| memory.layout.size()).sum();
        assert_eq!(bytes, kept.bytes);
        assert!((KEPT - (1 << 20)..=KEPT).contains(&bytes), "{bytes} bytes are kept");
    }
}
