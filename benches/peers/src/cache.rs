//! What is asked of a contestant, and mmc as one of them.
//!
//! A [`Cache`] is what a user calls: one object a call. The loops over many objects are made of it once for each contestant, by the
//! compiler, in [`Copies`] and [`LookUps`]: no call through a table stands in what is measured. Who has a better way than a loop, as mmc
//! has with its batches, or no keys at all, as the bare copies, brings loops of its own.

use std::ffi::c_void;
use std::ops::Range;
use std::slice;

use mmc::ffi::batches::mmc_batch_remove;
use mmc::ffi::objects::{mmc_get, mmc_remove};
use mmc::ffi::types::mmc_key;

use crate::support::{Key, Memory, Store, check, key_of};

/// A cache of bytes.
pub trait Cache: Send + Sync {
    /// Keeps a copy of the caller's bytes under a key that is not taken.
    fn put(&self, key: &Key, bytes: &[u8]);
    /// Copies the value out; false when there is none.
    fn get(&self, key: &Key, into: &mut [u8]) -> bool;
    fn has(&self, key: &Key) -> bool;
    /// False when there is none.
    fn remove(&self, key: &Key) -> bool;
    fn clear(&self);
}

/// Values of one size, in pieces of the caller's memory that are used in no order.
pub struct Work<'a> {
    pub keys: &'a [Key],
    pub memory: &'a Memory,
    pub size: usize,
    pub order: &'a [usize],
    /// Another one each round: no address is where the processor's caches expect it.
    pub shift: usize,
}

impl Work<'_> {
    pub fn piece(&self, number: usize) -> *mut u8 {
        self.memory
            .piece(self.order[(number + self.shift) % self.order.len()], self.size)
    }

    pub fn bytes(&self, number: usize) -> &[u8] {
        // SAFETY: a piece of written memory, which nothing writes while values are put.
        unsafe { slice::from_raw_parts(self.piece(number), self.size) }
    }

    #[expect(
        clippy::mut_from_ref,
        reason = "each number has a piece of its own, and is got once in a pass"
    )]
    pub fn room(&self, number: usize) -> &mut [u8] {
        // SAFETY: as above, and nothing reads it while values are got.
        unsafe { slice::from_raw_parts_mut(self.piece(number), self.size) }
    }
}

/// Passes that move bytes.
pub trait Copies: Send + Sync {
    fn put_all(&self, work: &Work, numbers: Range<usize>);
    fn get_all(&self, work: &Work, numbers: Range<usize>);
    fn empty(&self);
}

/// Passes that move none.
pub trait LookUps: Send + Sync {
    /// How many of the keys are there.
    fn count(&self, keys: &[Key]) -> usize;
    /// How many of the keys were there.
    fn remove_all(&self, keys: &[Key]) -> usize;
    fn fill(&self, keys: &[Key], value: &[u8]);
}

impl<C: Cache> Copies for C {
    fn put_all(&self, work: &Work, numbers: Range<usize>) {
        numbers.for_each(|number| self.put(&work.keys[number], work.bytes(number)));
    }

    fn get_all(&self, work: &Work, numbers: Range<usize>) {
        numbers.for_each(|number| assert!(self.get(&work.keys[number], work.room(number)), "a value is gone"));
    }

    fn empty(&self) {
        self.clear();
    }
}

impl<C: Cache> LookUps for C {
    fn count(&self, keys: &[Key]) -> usize {
        keys.iter().filter(|key| self.has(key)).count()
    }

    fn remove_all(&self, keys: &[Key]) -> usize {
        keys.iter().filter(|key| self.remove(key)).count()
    }

    fn fill(&self, keys: &[Key], value: &[u8]) {
        keys.iter().for_each(|key| self.put(key, value));
    }
}

impl<C: Cache> Cache for &C {
    fn put(&self, key: &Key, bytes: &[u8]) {
        (**self).put(key, bytes);
    }

    fn get(&self, key: &Key, into: &mut [u8]) -> bool {
        (**self).get(key, into)
    }

    fn has(&self, key: &Key) -> bool {
        (**self).has(key)
    }

    fn remove(&self, key: &Key) -> bool {
        (**self).remove(key)
    }

    fn clear(&self) {
        (**self).clear();
    }
}

impl Cache for Store {
    fn put(&self, key: &Key, bytes: &[u8]) {
        Store::put(self, key, bytes.as_ptr(), bytes.len());
    }

    fn get(&self, key: &Key, into: &mut [u8]) -> bool {
        let (key, data, size) = (key_of(key), into.as_mut_ptr().cast(), into.len());
        // SAFETY: the caller's own memory, of that size.
        unsafe { mmc_get(self.0, key, data, size, 0, std::ptr::null(), std::ptr::null_mut()) == 0 }
    }

    fn has(&self, key: &Key) -> bool {
        self.exist(key) == 0
    }

    fn remove(&self, key: &Key) -> bool {
        // SAFETY: a key of this benchmark.
        unsafe { mmc_remove(self.0, key_of(key)) == 0 }
    }

    fn clear(&self) {
        Store::clear(self);
    }
}

/// mmc with many objects a call. The arrays are made inside what is measured, as a caller must make them.
pub struct Batches<'a> {
    pub store: &'a Store,
    pub batch: usize,
}

impl Batches<'_> {
    fn chunks(&self, numbers: Range<usize>) -> impl Iterator<Item = Range<usize>> {
        let (step, end) = (self.batch, numbers.end);
        numbers.step_by(step).map(move |start| start..end.min(start + step))
    }
}

fn keys_of<'a>(keys: impl IntoIterator<Item = &'a Key>) -> Vec<mmc_key> {
    keys.into_iter().map(|key| key_of(key)).collect()
}

impl Copies for Batches<'_> {
    fn put_all(&self, work: &Work, numbers: Range<usize>) {
        for part in self.chunks(numbers) {
            let keys = keys_of(&work.keys[part.clone()]);
            let data: Vec<*const c_void> = part.map(|number| work.piece(number).cast_const().cast()).collect();
            let (sizes, mut results) = (vec![work.size; keys.len()], vec![0; keys.len()]);
            self.store.batch_put(&keys, &data, &sizes, &mut results);
        }
    }

    fn get_all(&self, work: &Work, numbers: Range<usize>) {
        for part in self.chunks(numbers) {
            let keys = keys_of(&work.keys[part.clone()]);
            let data: Vec<*mut c_void> = part.map(|number| work.piece(number).cast()).collect();
            let (sizes, mut results) = (vec![work.size; keys.len()], vec![0; keys.len()]);
            self.store.batch_get(&keys, &data, &sizes, &mut results);
        }
    }

    fn empty(&self) {
        self.store.clear();
    }
}

impl LookUps for Batches<'_> {
    fn count(&self, keys: &[Key]) -> usize {
        let mut results = vec![0; self.batch];
        let parts = keys.chunks(self.batch).map(|part| {
            self.store.batch_exist(&keys_of(part), &mut results[..part.len()]);
            results[..part.len()].iter().filter(|code| **code == 0).count()
        });
        parts.sum()
    }

    fn remove_all(&self, keys: &[Key]) -> usize {
        let mut results = vec![0; self.batch];
        let parts = keys.chunks(self.batch).map(|part| {
            let (keys, store) = (keys_of(part), self.store.0);
            // SAFETY: arrays of as many elements.
            check(unsafe { mmc_batch_remove(store, keys.as_ptr(), keys.len(), 0, results.as_mut_ptr()) });
            results[..part.len()].iter().filter(|code| **code == 0).count()
        });
        parts.sum()
    }

    fn fill(&self, keys: &[Key], value: &[u8]) {
        LookUps::fill(self.store, keys, value);
    }
}

/// A copy and nothing else, between the caller's memory and one that stands for a pool: what a put and a get can't be faster than.
pub struct Bare<'a> {
    pub pool: &'a Memory,
    /// To, from, bytes.
    pub copy: unsafe fn(*mut u8, *const u8, usize),
}

impl Copies for Bare<'_> {
    fn put_all(&self, work: &Work, numbers: Range<usize>) {
        for number in numbers {
            // SAFETY: pieces of two separate memories.
            unsafe { (self.copy)(self.pool.piece(number, work.size), work.piece(number), work.size) };
        }
    }

    fn get_all(&self, work: &Work, numbers: Range<usize>) {
        for number in numbers {
            // SAFETY: as above.
            unsafe { (self.copy)(work.piece(number), self.pool.piece(number, work.size), work.size) };
        }
    }

    fn empty(&self) {}
}

/// What `memcpy` is, in the order of the streaming copy's arguments.
pub unsafe fn plain_copy(to: *mut u8, from: *const u8, bytes: usize) {
    // SAFETY: promised by the caller.
    unsafe { std::ptr::copy_nonoverlapping(from, to, bytes) };
}

/// Runs `act` for equal parts of `0..count`, one a thread; a single part on the caller's own.
pub fn on_threads(threads: usize, count: usize, act: impl Fn(Range<usize>) + Sync) {
    if threads == 1 {
        return act(0..count);
    }
    let part = count.div_ceil(threads);
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let act = &act;
            scope.spawn(move || act(thread * part..count.min((thread + 1) * part)));
        }
    });
}
