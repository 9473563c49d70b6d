//! What `crate::sync` is here.
//!
//! Loom takes a sequentially consistent access for one that acquires and releases, and knows the whole strength only of fences. So here
//! such an access stands between two fences: for words that are only accessed so, the two mean the same.

#![allow(dead_code)] // the sources use all of it together

use std::cell::Cell;

use loom::cell::UnsafeCell;
use loom::sync::atomic;

pub(crate) use loom::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering, fence};
pub(crate) use loom::sync::{Condvar, Mutex};
pub(crate) use std::sync::PoisonError;

/// Loom has no `membarrier`: both sides pass the full fence that the call of the kernel stands for.
pub(crate) fn light_fence() {
    fence(Ordering::SeqCst);
}

/// See [`light_fence`].
pub(crate) fn heavy_fence() {
    fence(Ordering::SeqCst);
}

pub(crate) fn back_off(_: u32) {
    loom::thread::yield_now();
}

thread_local! {
    /// Whether several threads of the model have the same stripe. Loom runs all of them on one of the test's.
    static ARE_STRIPES_SHARED: Cell<bool> = const { Cell::new(false) };
}

/// Says whether threads of this test's models have the same stripe; else each has its own.
pub(crate) fn share_stripes(are_shared: bool) {
    ARE_STRIPES_SHARED.set(are_shared);
}

/// As the library adds: to a cell that is this thread's alone, or to one that threads share.
pub(crate) fn add_to_own(_stripe: usize, cell: &AtomicU64, number: u64, order: Ordering) -> u64 {
    if ARE_STRIPES_SHARED.get() {
        cell.fetch_add(number, order)
    } else {
        crate::owned::add(cell, number, order)
    }
}

/// What the standard one promises: whoever finds the value finds it whole.
pub(crate) struct OnceLock<T> {
    is_set: AtomicBool,
    setters: Mutex<()>,
    value: UnsafeCell<Option<T>>,
}

// SAFETY: the value is written under the lock, once, and read only after that; loom checks it.
unsafe impl<T: Send + Sync> Sync for OnceLock<T> {}

impl<T> OnceLock<T> {
    pub(crate) fn new() -> OnceLock<T> {
        OnceLock {
            is_set: AtomicBool::new(false),
            setters: Mutex::new(()),
            value: UnsafeCell::new(None),
        }
    }

    pub(crate) fn get(&self) -> Option<&T> {
        let is_set = self.is_set.load(Ordering::Acquire);
        // SAFETY: it is not written any more.
        is_set.then(|| self.value.with(|value| unsafe { (*value).as_ref() }))?
    }

    pub(crate) fn set(&self, value: T) -> Result<(), T> {
        let _locked = self.setters.lock().unwrap();
        if self.is_set.load(Ordering::Relaxed) {
            return Err(value);
        }
        // SAFETY: nobody reads it yet, and the lock keeps others from writing.
        self.value.with_mut(|place| unsafe { *place = Some(value) });
        self.is_set.store(true, Ordering::Release);
        Ok(())
    }
}

#[derive(Default)]
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

    pub(crate) fn fetch_and(&self, value: u64, order: Ordering) -> u64 {
        fenced(order, || self.0.fetch_and(value, order))
    }

    pub(crate) fn fetch_min(&self, value: u64, order: Ordering) -> u64 {
        fenced(order, || self.0.fetch_min(value, order))
    }

    pub(crate) fn fetch_max(&self, value: u64, order: Ordering) -> u64 {
        fenced(order, || self.0.fetch_max(value, order))
    }

    pub(crate) fn compare_exchange(&self, from: u64, to: u64, good: Ordering, bad: Ordering) -> Result<u64, u64> {
        fenced(good, || self.0.compare_exchange(from, to, good, bad))
    }

    pub(crate) fn compare_exchange_weak(&self, from: u64, to: u64, good: Ordering, bad: Ordering) -> Result<u64, u64> {
        fenced(good, || self.0.compare_exchange_weak(from, to, good, bad))
    }
}
