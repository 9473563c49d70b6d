//! Key -> slot, by hash: read without a lock, grown a bucket at a time.
//!
//! The index knows hashes and slot numbers; whether a slot has the very key is the caller's question (the closure of [`Index::find`]).
//! It is split into shards by the upper bits of the hash. A shard is a linear hash table (Litwin, VLDB 1980): [`bucket`]s of fifteen
//! entries each, chained when more fall together. With every few insertions one bucket is split into two, so growing never stops
//! anybody for longer than that, and a bucket's memory never moves ([`crate::slab`]).
//!
//! **Writers** hold the shard's lock. It is a leaf: nothing else is locked, copied, allocated from a segment or called back under it
//! (a new chunk of buckets may be mapped, and the hashes of the entries that a split moves are asked for). A thread that stops while it
//! holds one stops the writers of that shard, and no reader for long.
//!
//! **Readers** look without it. An entry that is found needs no check here, as the caller verifies the slot. A miss is believed
//! only when no bucket of the shard was being split or had been split meanwhile ([`Version`]); else it is looked up again under
//! the lock. Entries never move except by a split, so a key that stays is never missed.

mod bucket;
mod version;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bucket::{Bucket, ENTRIES, Entry, Further, Slots, TAGGED, TagLine, tag_of};
use version::Version;

use crate::copy::prefetch;
use crate::error::Result;
use crate::slab::Slab;

/// Shards; each has its own lock on its own cache lines.
const SHARDS: usize = 1 << SHARD_BITS;
const SHARD_BITS: u32 = 6;
/// A shard grows when its buckets have more entries than this on average. Between two doublings those that are yet to be split have
/// up to twice as many as the others: few chains, and 80 / 10 bytes an entry are cheap.
const LOAD: u32 = 10;
/// Buckets of an empty shard.
const FIRST_BUCKETS: u32 = 8;
/// Buckets that a shard can have: their numbers are the lower half of the hash.
const MAX_BUCKETS: u32 = 1 << 25;

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
    shards: Box<[Shard; SHARDS]>,
    /// Line n of shard s, with the tags of its buckets from n x `TAGGED` on, has the number n x `SHARDS` + s: shards grow alike, so the table
    /// is dense, and large enough for huge pages. The slots of those buckets follow each other in the same way.
    tags: Slab<TagLine>,
    slots: Slab<Slots>,
    /// Buckets that a shard may have.
    most_buckets: u32,
    overflow: Slab<Further>,
}

impl Index {
    pub(crate) fn new() -> Result<Index> {
        Index::limited(MAX_BUCKETS, u32::MAX)
    }

    /// An index with so many buckets a shard, and so many further ones for chains.
    fn limited(buckets: u32, overflow: u32) -> Result<Index> {
        let index = Index {
            shards: Box::new(std::array::from_fn(|number| Shard::new(number as u32))),
            tags: Slab::new("index buckets", u32::MAX),
            slots: Slab::new("index buckets", u32::MAX),
            most_buckets: buckets,
            overflow: Slab::new("index buckets", overflow),
        };
        index.reach(FIRST_BUCKETS / TAGGED * SHARDS as u32 - 1)?;
        Ok(index)
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
        self.first_bucket(hash).lines().into_iter().for_each(prefetch);
    }

    /// The slot that most likely has this hash, for a caller who will look for it soon. A hint: neither is one that is given the right one for
    /// sure, nor is there none when none is given.
    pub(crate) fn likely(&self, hash: u64) -> Option<u32> {
        self.first_bucket(hash).candidates(tag_of(hash)).next()
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
        self.tags.bytes() + self.slots.bytes() + self.overflow.bytes()
    }

    fn shard(&self, hash: u64) -> &Shard {
        &self.shards[(hash >> (64 - SHARD_BITS)) as usize]
    }

    /// A shard's bucket of this number.
    fn bucket(&self, shard: &Shard, number: u32) -> Bucket<'_> {
        let line = line_of(shard, number);
        let slots = self.slots.get(line * TAGGED + number % TAGGED);
        Bucket::new(self.tags.get(line), number, slots)
    }

    /// Makes the buckets of the lines up to this one be there.
    fn reach(&self, line: u32) -> Result<()> {
        self.tags.reach(line)?;
        self.slots.reach(line * TAGGED + TAGGED - 1)
    }

    /// Where the chain of this hash begins.
    fn first_bucket(&self, hash: u64) -> Bucket<'_> {
        let shard = self.shard(hash);
        let buckets = shard.buckets.load(Ordering::Acquire);
        self.bucket(shard, bucket_of(hash as u32, buckets))
    }

    #[inline]
    fn search<T>(&self, hash: u64, mut probe: impl FnMut(u32) -> Option<T>) -> Option<T> {
        let mut bucket = self.first_bucket(hash);
        // Its slots are on their way while its tags are compared.
        bucket.lines().into_iter().for_each(prefetch);
        loop {
            // No adapters of iterators here: the compiler makes twice as many instructions of them.
            for slot in bucket.candidates(tag_of(hash)) {
                if let Some(found) = probe(slot) {
                    return Some(found);
                }
            }
            bucket = self.overflow.get(bucket.next()?).bucket();
        }
    }

    fn chain<'s>(&'s self, first: Bucket<'s>) -> impl Iterator<Item = Bucket<'s>> {
        std::iter::successors(Some(first), |bucket| {
            bucket.next().map(|number| self.overflow.get(number).bucket())
        })
    }

    fn entries<'s>(&'s self, first: Bucket<'s>) -> impl Iterator<Item = Entry<'s>> {
        self.chain(first).flat_map(Bucket::entries)
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

impl<'s> Locked<'s> {
    /// Looks for the slot that `probe` accepts.
    pub(crate) fn find<T>(&self, probe: impl FnMut(u32) -> Option<T>) -> Option<T> {
        self.index.search(self.hash, probe)
    }

    /// Adds a slot. The caller has looked that the key is not there. `hash_of` gives the hash of any slot that is in, for a split. On an
    /// error nothing has changed.
    pub(crate) fn insert(&mut self, slot: u32, hash_of: impl Fn(u32) -> u64) -> Result<()> {
        self.add(self.bucket(), (tag_of(self.hash), slot))?;
        *self.len += 1;
        if *self.len > self.shard.buckets.load(Ordering::Relaxed).saturating_mul(LOAD) {
            self.split(hash_of);
        }
        Ok(())
    }

    /// Takes a slot out; false when it was not in.
    pub(crate) fn erase(&mut self, slot: u32) -> bool {
        let wanted = (tag_of(self.hash), slot);
        let index = self.index;
        let Some(entry) = index.entries(self.bucket()).find(|entry| entry.get() == Some(wanted)) else {
            return false;
        };
        entry.clear();
        *self.len -= 1;
        true
    }

    fn bucket(&self) -> Bucket<'s> {
        self.index.first_bucket(self.hash)
    }

    fn add(&self, first: Bucket<'_>, value: (u8, u32)) -> Result<()> {
        let mut last = first;
        for bucket in self.index.chain(first) {
            if let Some(entry) = bucket.vacancy() {
                entry.put(value);
                return Ok(());
            }
            last = bucket;
        }
        let number = self.index.overflow.take()?;
        let bucket = self.index.overflow.get(number).bucket();
        bucket.vacancy().expect("a further bucket comes empty").put(value);
        last.set_next(Some(number));
        Ok(())
    }

    /// Splits the next bucket. Without memory for it the shard just stays as it is, and its chains grow longer.
    fn split(&self, hash_of: impl Fn(u32) -> u64) {
        let new = self.shard.buckets.load(Ordering::Relaxed);
        if new >= self.index.most_buckets || self.index.reach(line_of(self.shard, new)).is_err() {
            return;
        }
        let old = new - (1 << new.ilog2());
        let (old_bucket, new_bucket) = (self.index.bucket(self.shard, old), self.index.bucket(self.shard, new));
        self.shard.version.begin_move();
        self.shard.buckets.store(new + 1, Ordering::Release);
        for entry in self.index.entries(old_bucket) {
            if let Some((tag, slot)) = entry.get()
                && bucket_of(hash_of(slot) as u32, new + 1) == new
            {
                // No memory for a chain's next bucket: the entry stays in the old chain, out of reach, unless all are put back.
                if self.add(new_bucket, (tag, slot)).is_err() {
                    self.unsplit(old_bucket, new_bucket, new);
                    break;
                }
                entry.clear();
            }
        }
        self.trim(old_bucket);
        self.shard.version.end_move();
    }

    /// Puts the entries of a split that could not be finished back where they were: the old chain has the holes for them.
    fn unsplit(&self, old_bucket: Bucket<'_>, new_bucket: Bucket<'_>, new: u32) {
        for entry in self.index.entries(new_bucket) {
            if let Some(value) = entry.get() {
                entry.clear();
                self.add(old_bucket, value)
                    .expect("the old chain has room for what came from it");
            }
        }
        self.trim(new_bucket);
        self.shard.buckets.store(new, Ordering::Release);
    }

    /// Moves the entries of a chain to its front and gives the empty buckets at its end back. Only while the version is odd.
    fn trim(&self, first: Bucket<'_>) {
        let mut targets = self.index.entries(first);
        let mut used = 0usize;
        for entry in self.index.entries(first) {
            if let Some(value) = entry.get() {
                entry.clear();
                targets.next().expect("the target is at or before the entry").put(value);
                used += 1;
            }
        }
        let mut bucket = first;
        for _ in 1..used.div_ceil(ENTRIES) {
            bucket = self.index.chain(bucket).nth(1).expect("the chain holds its entries");
        }
        let mut next = bucket.next();
        bucket.set_next(None);
        while let Some(number) = next {
            let further = self.index.overflow.get(number).bucket();
            next = further.next();
            further.set_next(None);
            self.index.overflow.give_back(number);
        }
    }
}

/// The number of the line that has the tags of this bucket of a shard.
fn line_of(shard: &Shard, bucket: u32) -> u32 {
    bucket / TAGGED * SHARDS as u32 + shard.number
}

/// The bucket of this half of a hash in a table of so many.
fn bucket_of(hash: u32, buckets: u32) -> u32 {
    // All ones up to the highest bit of the last bucket's number.
    let mask = u32::MAX >> ((buckets - 1) | 1).leading_zeros();
    let bucket = hash & mask;
    if bucket < buckets { bucket } else { hash & (mask >> 1) }
}

#[cfg(test)]
impl Index {
    /// Checks every invariant, and panics at the first that does not hold: an entry is in the chain that its hash leads to, no slot is
    /// in twice, the counts are right, no bucket is in two chains, and none that is in no chain has an entry.
    fn validate(&self, hash_of: impl Fn(u32) -> u64) {
        use std::collections::HashSet;
        let (mut slots, mut chained) = (HashSet::new(), HashSet::new());
        for shard in self.shards.iter() {
            let len = shard.lock.lock().unwrap();
            let buckets = shard.buckets.load(Ordering::Relaxed);
            let mut entries = 0;
            let reached = self.slots.bound().div_ceil(SHARDS as u32);
            for number in 0..reached.max(buckets) {
                if line_of(shard, number) >= self.tags.bound() {
                    continue;
                }
                for bucket in self.chain(self.bucket(shard, number)) {
                    if let Some(next) = bucket.next() {
                        assert!(chained.insert(next), "bucket {next} is chained twice");
                    }
                    for (tag, slot) in bucket.entries().filter_map(Entry::get) {
                        let hash = hash_of(slot);
                        assert_eq!(tag, tag_of(hash), "the tag of {slot}");
                        assert!(
                            std::ptr::eq(self.shard(hash), shard),
                            "{slot} is in another shard's bucket"
                        );
                        assert_eq!(bucket_of(hash as u32, buckets), number, "{slot} is out of reach");
                        assert!(slots.insert(slot), "{slot} is in twice");
                        entries += 1;
                    }
                }
                assert!(
                    number < buckets || self.bucket(shard, number).next().is_none(),
                    "bucket {number} is not in use, and has a chain"
                );
            }
            assert_eq!(entries, *len, "entries of a shard");
            assert!(
                shard.version.is_miss_true(shard.version.begin_look()),
                "a split never ended"
            );
        }
        for number in (0..self.overflow.bound()).filter(|number| !chained.contains(number)) {
            let bucket = self.overflow.get(number).bucket();
            assert!(bucket.entries().all(|entry| entry.get().is_none()));
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
            let entries = self.entries(self.bucket(shard, number));
            entries.filter_map(move |entry| entry.get().map(|(_, slot)| (slot, number)))
        });
        places.collect()
    }
}

#[cfg(test)]
mod tests;
