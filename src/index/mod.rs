//! Key -> slot, by hash: read without a lock, grown a bucket at a time.
//!
//! The index knows hashes and slot numbers; whether a slot has the very key is the caller's question (the closure of [`Index::find`]).
//! It is split into shards by the upper bits of the hash. A shard is a linear hash table (Litwin, VLDB 1980): buckets of one cache line,
//! seven entries each, chained when more fall together. With every few insertions one bucket is split into two, so growing never stops
//! anybody for longer than that, and a bucket's memory never moves ([`crate::slab`]).
//!
//! **Writers** hold the shard's lock. It is a leaf: nothing else is locked, copied, allocated from a segment or called back under it
//! (a new chunk of buckets may be mapped). A thread that stops while it holds one stops the writers of that shard, and no reader for long.
//!
//! **Readers** look without it. An entry that is found needs no check here, as the caller verifies the slot. A miss is believed
//! only when no bucket of the shard was being split or had been split meanwhile ([`Version`]); else it is looked up again under
//! the lock. Entries never move except by a split, so a key that stays is never missed.

mod version;

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use version::Version;

use crate::error::Result;
use crate::slab::{Slab, Slot};

/// Shards; each has its own lock on its own cache lines.
const SHARDS: usize = 1 << SHARD_BITS;
const SHARD_BITS: u32 = 6;
/// Entries in a bucket; with the link they fill a cache line.
const ENTRIES: usize = 7;
/// A shard grows when its buckets have more entries than this on average: few overflow, and 64 / 5 bytes an entry is cheap.
const LOAD: u32 = 5;
/// Buckets of an empty shard.
const FIRST_BUCKETS: u32 = 16;
/// Buckets that a shard can have: entries keep 32 bits of the hash, and some must be left to tell keys apart.
const MAX_BUCKETS: u32 = 1 << 26;

/// Seven entries and the number + 1 of the next bucket of the chain. An entry is 0, or the lower half of the hash and slot + 1.
#[repr(C, align(64))]
struct Bucket {
    entries: [AtomicU64; ENTRIES],
    next: AtomicU32,
    free: AtomicU32,
}

const _: () = assert!(size_of::<Bucket>() == 64);

// SAFETY: atomics only: zeroed is valid, nothing to drop, alignment 64.
unsafe impl Slot for Bucket {
    fn link(&self) -> &AtomicU32 {
        &self.free
    }
}

#[repr(align(128))]
struct Shard {
    version: Version,
    /// Its number among the shards.
    number: u32,
    /// Its buckets in the table; the chain's further ones are in `Index::overflow`.
    buckets: AtomicU32,
    /// Entries, reserved ones too.
    lock: Mutex<u32>,
}

/// Hash -> slot.
pub(crate) struct Index {
    shards: Box<[Shard]>,
    /// Bucket b of shard s has the number b x `SHARDS` + s: shards grow alike, so the table is dense, and large enough for huge pages.
    table: Slab<Bucket>,
    /// Buckets that a shard may have.
    most_buckets: u32,
    overflow: Slab<Bucket>,
}

impl Index {
    pub(crate) fn new() -> Result<Index> {
        Index::limited(MAX_BUCKETS, u32::MAX)
    }

    /// An index with so many buckets a shard, and so many further ones for chains.
    fn limited(buckets: u32, overflow: u32) -> Result<Index> {
        let table = Slab::new("index buckets", u32::MAX);
        table.reach(FIRST_BUCKETS * SHARDS as u32 - 1)?;
        Ok(Index {
            shards: (0..SHARDS as u32).map(Shard::new).collect(),
            table,
            most_buckets: buckets,
            overflow: Slab::new("index buckets", overflow),
        })
    }

    /// Looks for the slot that `probe` accepts. Takes a lock only when a bucket was being split at that moment.
    pub(crate) fn find<T>(&self, hash: u64, mut probe: impl FnMut(u32) -> Option<T>) -> Option<T> {
        let shard = self.shard(hash);
        let version = shard.version.begin_look();
        if let Some(found) = self.search(hash, &mut probe) {
            return Some(found);
        }
        if shard.version.is_miss_true(version) {
            return None;
        }
        self.lock(hash).find(probe)
    }

    /// Begins to load the bucket of this hash, for a caller who will look there soon.
    pub(crate) fn prefetch(&self, hash: u64) {
        self.table.prefetch(self.first_bucket(hash));
    }

    /// The slot that most likely has this hash, for a caller who will look for it soon. A hint: neither is one that is given the right one for
    /// sure, nor is there none when none is given.
    pub(crate) fn likely(&self, hash: u64) -> Option<u32> {
        let entries = self.first_bucket(hash).entries.iter();
        let mut values = entries.map(|entry| entry.load(Ordering::Relaxed));
        let value = values.find(|value| *value != 0 && (value >> 32) as u32 == hash as u32)?;
        Some(value as u32 - 1)
    }

    /// Locks the shard of this hash for looking and changing.
    pub(crate) fn lock(&self, hash: u64) -> Locked<'_> {
        let shard = self.shard(hash);
        // A panic under the lock leaves every entry valid: nothing here is changed in more than one step that matters.
        let len = shard.lock.lock().unwrap_or_else(PoisonError::into_inner);
        Locked {
            index: self,
            shard,
            hash,
            len,
        }
    }

    /// Bytes of the buckets.
    pub(crate) fn bytes(&self) -> u64 {
        self.table.bytes() + self.overflow.bytes()
    }

    fn shard(&self, hash: u64) -> &Shard {
        &self.shards[(hash >> (64 - SHARD_BITS)) as usize]
    }

    /// A shard's bucket of this number.
    fn bucket(&self, shard: &Shard, number: u32) -> &Bucket {
        self.table.get(number * SHARDS as u32 + shard.number)
    }

    /// Where the chain of this hash begins.
    fn first_bucket(&self, hash: u64) -> &Bucket {
        let shard = self.shard(hash);
        let buckets = shard.buckets.load(Ordering::Acquire);
        self.bucket(shard, bucket_of(hash as u32, buckets))
    }

    fn search<T>(&self, hash: u64, mut probe: impl FnMut(u32) -> Option<T>) -> Option<T> {
        for bucket in self.chain(self.first_bucket(hash)) {
            for entry in &bucket.entries {
                let value = entry.load(Ordering::Acquire);
                if value != 0
                    && (value >> 32) as u32 == hash as u32
                    && let Some(found) = probe(value as u32 - 1)
                {
                    return Some(found);
                }
            }
        }
        None
    }

    fn chain<'s>(&'s self, first: &'s Bucket) -> impl Iterator<Item = &'s Bucket> {
        std::iter::successors(Some(first), |bucket| {
            bucket
                .next
                .load(Ordering::Acquire)
                .checked_sub(1)
                .map(|number| self.overflow.get(number))
        })
    }
}

impl Shard {
    fn new(number: u32) -> Shard {
        Shard {
            number,
            version: Version::new(),
            buckets: AtomicU32::new(FIRST_BUCKETS),
            lock: Mutex::new(0),
        }
    }
}

/// A shard under its lock, at one hash.
pub(crate) struct Locked<'s> {
    index: &'s Index,
    shard: &'s Shard,
    hash: u64,
    len: MutexGuard<'s, u32>,
}

impl Locked<'_> {
    /// Looks for the slot that `probe` accepts.
    pub(crate) fn find<T>(&self, probe: impl FnMut(u32) -> Option<T>) -> Option<T> {
        self.index.search(self.hash, probe)
    }

    /// Adds a slot. The caller has looked that the key is not there. On an error nothing has changed.
    pub(crate) fn insert(&mut self, slot: u32) -> Result<()> {
        self.add(self.bucket(), entry_of(self.hash, slot))?;
        *self.len += 1;
        if *self.len > self.shard.buckets.load(Ordering::Relaxed).saturating_mul(LOAD) {
            self.split();
        }
        Ok(())
    }

    /// Takes a slot out; false when it was not in.
    pub(crate) fn erase(&mut self, slot: u32) -> bool {
        let wanted = entry_of(self.hash, slot);
        let entry = self
            .index
            .chain(self.bucket())
            .flat_map(|bucket| &bucket.entries)
            .find(|entry| entry.load(Ordering::Relaxed) == wanted);
        let Some(entry) = entry else { return false };
        entry.store(0, Ordering::Release);
        *self.len -= 1;
        true
    }

    fn bucket(&self) -> &Bucket {
        self.index.first_bucket(self.hash)
    }

    fn add(&self, first: &Bucket, value: u64) -> Result<()> {
        let mut last = first;
        for bucket in self.index.chain(first) {
            if let Some(entry) = bucket.entries.iter().find(|entry| entry.load(Ordering::Relaxed) == 0) {
                entry.store(value, Ordering::Release);
                return Ok(());
            }
            last = bucket;
        }
        let number = self.index.overflow.take()?;
        let bucket = self.index.overflow.get(number);
        bucket.entries[0].store(value, Ordering::Relaxed);
        bucket.next.store(0, Ordering::Relaxed);
        last.next.store(number + 1, Ordering::Release);
        Ok(())
    }

    /// Splits the next bucket. Without memory for it the shard just stays as it is, and its chains grow longer.
    fn split(&self) {
        let new = self.shard.buckets.load(Ordering::Relaxed);
        if new >= self.index.most_buckets || self.index.table.reach(new * SHARDS as u32 + self.shard.number).is_err() {
            return;
        }
        let old = new - (1 << new.ilog2());
        let (old_bucket, new_bucket) = (self.index.bucket(self.shard, old), self.index.bucket(self.shard, new));
        self.shard.version.begin_move();
        self.shard.buckets.store(new + 1, Ordering::Release);
        for entry in self.index.chain(old_bucket).flat_map(|bucket| &bucket.entries) {
            let value = entry.load(Ordering::Relaxed);
            if value != 0 && bucket_of((value >> 32) as u32, new + 1) == new {
                // No memory for a chain's next bucket: the entry stays in the old chain, out of reach, unless all are put back.
                if self.add(new_bucket, value).is_err() {
                    self.unsplit(old_bucket, new_bucket, new);
                    break;
                }
                entry.store(0, Ordering::Release);
            }
        }
        self.trim(old_bucket);
        self.shard.version.end_move();
    }

    /// Puts the entries of a split that could not be finished back where they were: the old chain has the holes for them.
    fn unsplit(&self, old_bucket: &Bucket, new_bucket: &Bucket, new: u32) {
        for entry in self.index.chain(new_bucket).flat_map(|bucket| &bucket.entries) {
            let value = entry.swap(0, Ordering::AcqRel);
            if value != 0 {
                self.add(old_bucket, value)
                    .expect("the old chain has room for what came from it");
            }
        }
        self.trim(new_bucket);
        self.shard.buckets.store(new, Ordering::Release);
    }

    /// Moves the entries of a chain to its front and gives the empty buckets at its end back. Only while the version is odd.
    fn trim(&self, first: &Bucket) {
        let chain = || self.index.chain(first).flat_map(|bucket| &bucket.entries);
        let mut used = 0;
        for entry in chain() {
            let value = entry.swap(0, Ordering::AcqRel);
            if value != 0 {
                let target = chain().nth(used).expect("the target is at or before the entry");
                target.store(value, Ordering::Release);
                used += 1;
            }
        }
        let mut bucket = first;
        for _ in 1..used.div_ceil(ENTRIES) {
            bucket = self.index.chain(bucket).nth(1).expect("the chain holds its entries");
        }
        let mut next = bucket.next.swap(0, Ordering::AcqRel);
        while let Some(number) = next.checked_sub(1) {
            next = self.index.overflow.get(number).next.swap(0, Ordering::AcqRel);
            self.index.overflow.give_back(number);
        }
    }
}

/// The bucket of this half of a hash in a table of so many.
fn bucket_of(hash: u32, buckets: u32) -> u32 {
    let mask = buckets.next_power_of_two() - 1;
    let bucket = hash & mask;
    if bucket < buckets { bucket } else { hash & (mask >> 1) }
}

fn entry_of(hash: u64, slot: u32) -> u64 {
    (hash << 32) | u64::from(slot + 1)
}

#[cfg(test)]
impl Index {
    /// Checks every invariant, and panics at the first that does not hold: an entry is in the chain that its hash leads to, no slot is
    /// in twice, the counts are right, no bucket is in two chains, and none that is in no chain has an entry.
    fn validate(&self) {
        use std::collections::HashSet;
        let (mut slots, mut chained) = (HashSet::new(), HashSet::new());
        for shard in &self.shards {
            let len = shard.lock.lock().unwrap();
            let buckets = shard.buckets.load(Ordering::Relaxed);
            let mut entries = 0;
            let reached = self.table.bound().div_ceil(SHARDS as u32);
            for number in 0..reached.max(buckets) {
                if self.table.try_get(number * SHARDS as u32 + shard.number).is_none() {
                    continue;
                }
                let mut next = 0;
                for (place, bucket) in self.chain(self.bucket(shard, number)).enumerate() {
                    if place > 0 {
                        assert!(chained.insert(next), "bucket {next} is chained twice");
                    }
                    next = bucket.next.load(Ordering::Relaxed);
                    for entry in &bucket.entries {
                        let value = entry.load(Ordering::Relaxed);
                        if value != 0 {
                            assert_eq!(
                                bucket_of((value >> 32) as u32, buckets),
                                number,
                                "{value:#x} is out of reach"
                            );
                            assert!(slots.insert(value as u32), "{value:#x} is in twice");
                            entries += 1;
                        }
                    }
                }
                assert!(
                    number < buckets || next == 0,
                    "bucket {number} is not in use, and has a chain"
                );
            }
            assert_eq!(entries, *len, "entries of a shard");
            assert!(
                shard.version.is_miss_true(shard.version.begin_look()),
                "a split never ended"
            );
        }
        for number in (0..self.overflow.bound()).filter(|number| !chained.contains(&(number + 1))) {
            let bucket = self.overflow.get(number);
            assert!(bucket.entries.iter().all(|entry| entry.load(Ordering::Relaxed) == 0));
        }
    }

    /// Buckets of the shard of this hash.
    fn buckets_at(&self, hash: u64) -> u32 {
        self.shard(hash).buckets.load(Ordering::Relaxed)
    }

    /// The bucket that each slot of this hash's shard is in.
    fn places_at(&self, hash: u64) -> std::collections::HashMap<u32, u32> {
        let shard = self.shard(hash);
        let places = (0..shard.buckets.load(Ordering::Relaxed)).flat_map(|number| {
            let entries = self
                .chain(self.bucket(shard, number))
                .flat_map(|bucket| &bucket.entries);
            entries.map(move |entry| (entry.load(Ordering::Relaxed) as u32, number))
        });
        places.filter(|(slot, _)| *slot != 0).collect()
    }
}

#[cfg(test)]
mod tests;
