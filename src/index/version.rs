//! Whether entries were being moved while a reader looked: a seqlock over a shard's buckets.
//!
//! A reader that finds nothing has to know whether the entry was on its way from a bucket that it looked into too late to one that it
//! looked into too early. So moving makes the version odd before its first step and even after its last. A reader takes the version
//! first, and believes a miss only when it was even and is the same afterwards. Everything else that changes in a bucket (an entry
//! comes or goes) needs no version.

use crate::sync::{AtomicU64, Ordering, fence};

/// Odd while entries are being moved.
pub(crate) struct Version(AtomicU64);

impl Version {
    pub(crate) fn new() -> Version {
        Version(AtomicU64::new(0))
    }

    /// Before the first look into a bucket.
    pub(crate) fn begin_look(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// Whether what was not found since [`Version::begin_look`] was not there.
    pub(crate) fn is_miss_true(&self, begun: u64) -> bool {
        fence(Ordering::Acquire);
        begun.is_multiple_of(2) && self.0.load(Ordering::Relaxed) == begun
    }

    /// Before the first entry is moved. Writers take turns by other means.
    pub(crate) fn begin_move(&self) {
        self.0.store(self.0.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        fence(Ordering::Release);
    }

    /// After the last entry was moved.
    pub(crate) fn end_move(&self) {
        self.0.store(self.0.load(Ordering::Relaxed) + 1, Ordering::Release);
    }
}
