//! Memory that the processor can't reach: the host copies, in whole batches.
//!
//! A device wants one submission, not thousands, so everything that one call moves between a segment and the caller's buffers goes to
//! the host as one array of [`CopyOperation`]. No lock is held meanwhile, and the call returns when the host says that the
//! bytes are there.

use serde::{Deserialize, Serialize};

use std::cell::Cell;

use crate::error::Result;

thread_local! {
    /// How many submissions this thread is in: a callback may call the library, which may submit again.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

/// Whether this thread is in a callback of a copy. It is one of those then for whom others may wait, so it must not wait for any.
pub(crate) fn is_in_callback() -> bool {
    DEPTH.get() > 0
}

/// Has a device do a submission.
pub(crate) fn submit(
    device: &dyn Device,
    operations: &[CopyOperation],
    direction: Direction,
    stream: usize,
) -> Result<()> {
    struct Inside;
    impl Drop for Inside {
        fn drop(&mut self) {
            DEPTH.set(DEPTH.get() - 1);
        }
    }
    DEPTH.set(DEPTH.get() + 1);
    let _inside = Inside;
    device.copy(operations, direction, stream)
}

/// Which way a submission goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Direction {
    /// From the caller's buffers into the segment.
    ToSegment,
    /// From the segment into the caller's buffers.
    FromSegment,
}

/// One contiguous copy of a submission. Addresses are the host's own: of its buffers, and in its segment from the base that it
/// registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct CopyOperation {
    /// First byte to read.
    pub source: u64,
    /// First byte to write.
    pub destination: u64,
    /// Bytes.
    pub length: u64,
}

/// Who copies for a segment.
pub(crate) trait Device: Send + Sync {
    /// Does all of `operations` and returns when the bytes are there. `stream` is the caller's own context of the call.
    fn copy(&self, operations: &[CopyOperation], direction: Direction, stream: usize) -> Result<()>;
}
