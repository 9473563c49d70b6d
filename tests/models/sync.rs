//! What `crate::sync` is here.
//!
//! Loom takes a sequentially consistent access for one that acquires and releases, and knows the whole strength only of fences. So here
//! such an access stands between two fences: for words that are only accessed so, as a gate's are, the two mean the same.

#![allow(dead_code)] // the sources use all of it together

use loom::sync::atomic;
pub(crate) use loom::sync::atomic::{AtomicU32, Ordering, fence};

/// Loom has no `membarrier`: both sides pass the full fence that the call of the kernel stands for.
pub(crate) fn light_fence() {
    fence(Ordering::SeqCst);
}

/// See [`light_fence`].
pub(crate) fn heavy_fence() {
    fence(Ordering::SeqCst);
}

/// As the library adds on a line that threads share.
pub(crate) fn add_to_own(cell: &AtomicU64, number: u64, order: Ordering) -> u64 {
    cell.fetch_add(number, order)
}

pub(crate) struct AtomicU64(atomic::AtomicU64);

fn fenced<T>(order: Ordering, access: impl FnOnce() -> T) -> T {
    let is_total = matches!(order, Ordering::SeqCst);
    if is_total {
        fence(Ordering::SeqCst);
    }
    let result = access();
    if is_total {
        fence(Ordering::SeqCst);
    }
    result
}

impl AtomicU64 {
    pub(crate) fn new(value: u64) -> AtomicU64 {
        AtomicU64(atomic::AtomicU64::new(value))
    }

    pub(crate) fn load(&self, order: Ordering) -> u64 {
        fenced(order, || self.0.load(order))
    }

    pub(crate) fn store(&self, value: u64, order: Ordering) {
        fenced(order, || self.0.store(value, order));
    }

    pub(crate) fn fetch_add(&self, value: u64, order: Ordering) -> u64 {
        fenced(order, || self.0.fetch_add(value, order))
    }

    pub(crate) fn fetch_sub(&self, value: u64, order: Ordering) -> u64 {
        fenced(order, || self.0.fetch_sub(value, order))
    }

    pub(crate) fn compare_exchange(&self, from: u64, to: u64, good: Ordering, bad: Ordering) -> Result<u64, u64> {
        fenced(good, || self.0.compare_exchange(from, to, good, bad))
    }

    pub(crate) fn compare_exchange_weak(&self, from: u64, to: u64, good: Ordering, bad: Ordering) -> Result<u64, u64> {
        fenced(good, || self.0.compare_exchange_weak(from, to, good, bad))
    }
}
