//! Looking for an entry while its bucket is split.

use loom::sync::{Arc, Mutex};

use crate::free::FreeNumbers;
use crate::sync::{AtomicU32, Ordering};
use crate::version::Version;
use crate::{model, spawn};

/// A shard of one entry: in its first bucket, or after a split in its second. Its words have no order but what the version gives them.
struct Shard {
    version: Version,
    buckets: AtomicU32,
    entries: [AtomicU32; 2],
    lock: Mutex<()>,
}

const ENTRY: u32 = 5;

impl Shard {
    fn new() -> Arc<Shard> {
        Arc::new(Shard {
            version: Version::new(),
            buckets: AtomicU32::new(1),
            entries: [AtomicU32::new(ENTRY), AtomicU32::new(0)],
            lock: Mutex::new(()),
        })
    }

    fn search(&self) -> bool {
        let bucket = self.buckets.load(Ordering::Relaxed) - 1;
        self.entries[bucket as usize].load(Ordering::Relaxed) == ENTRY
    }

    /// As `Index::find`; without its look under the lock, if there was no need for one.
    fn find(&self) -> bool {
        let version = self.version.begin_look();
        if self.search() {
            return true;
        }
        if self.version.is_miss_true(version) {
            return false;
        }
        let _locked = self.lock.lock().unwrap();
        self.search()
    }

    /// As `Locked::split`, and when there is no memory for it, `Locked::unsplit`.
    fn split(&self, is_undone: bool) {
        let _locked = self.lock.lock().unwrap();
        self.version.begin_move();
        self.buckets.store(2, Ordering::Relaxed);
        self.entries[1].store(ENTRY, Ordering::Relaxed);
        self.entries[0].store(0, Ordering::Relaxed);
        if is_undone {
            self.entries[1].store(0, Ordering::Relaxed);
            self.entries[0].store(ENTRY, Ordering::Relaxed);
            self.buckets.store(1, Ordering::Relaxed);
        }
        self.version.end_move();
    }
}

#[test]
fn an_entry_that_stays_is_not_missed_while_its_bucket_is_split() {
    model(3, || {
        let shard = Shard::new();
        let reader = spawn(&shard, Shard::find);
        shard.split(false);
        assert!(shard.find());
        assert!(reader.join().unwrap(), "an entry that stays was missed");
    });
}

#[test]
fn an_entry_that_stays_is_not_missed_while_splits_are_undone_and_done_again() {
    model(2, || {
        let shard = Shard::new();
        let reader = spawn(&shard, Shard::find);
        shard.split(true);
        shard.split(false);
        assert!(reader.join().unwrap(), "an entry that stays was missed");
    });
}

/// A chain of two buckets, of which the second leaves, and another shard that takes it for a chain of its own. Orders are the index's own.
struct Chain {
    version: Version,
    entries: [AtomicU32; 2],
    /// Number + 1 of the bucket behind the first.
    next: AtomicU32,
    /// Of the bucket that changes hands: what follows it in its chain, and among the free ones.
    behind: AtomicU32,
    link: AtomicU32,
    free: FreeNumbers,
    lock: Mutex<()>,
}

impl Chain {
    fn new() -> Arc<Chain> {
        Arc::new(Chain {
            version: Version::new(),
            entries: [AtomicU32::new(0), AtomicU32::new(ENTRY)],
            next: AtomicU32::new(1),
            behind: AtomicU32::new(0),
            link: AtomicU32::new(0),
            free: FreeNumbers::new(),
            lock: Mutex::new(()),
        })
    }

    fn search(&self) -> bool {
        if self.entries[0].load(Ordering::Acquire) == ENTRY {
            return true;
        }
        if self.next.load(Ordering::Acquire) == 0 {
            return false;
        }
        let is_found = self.entries[1].load(Ordering::Acquire) == ENTRY;
        self.behind.load(Ordering::Acquire);
        is_found
    }

    fn find(&self) -> bool {
        let version = self.version.begin_look();
        if self.search() {
            return true;
        }
        if self.version.is_miss_true(version) {
            return false;
        }
        let _locked = self.lock.lock().unwrap();
        self.search()
    }

    /// As `Locked::split` with its `Locked::trim`.
    fn trim(&self) {
        let _locked = self.lock.lock().unwrap();
        self.version.begin_move();
        let value = self.entries[1].swap(0, Ordering::AcqRel);
        self.entries[0].store(value, Ordering::Release);
        self.next.swap(0, Ordering::AcqRel);
        self.behind.swap(0, Ordering::AcqRel);
        self.free.push(0, &self.link);
        self.version.end_move();
    }

    /// As `Locked::add` in the other shard, if the bucket is free: true then.
    fn take_bucket(&self) -> bool {
        let is_taken = self.free.pop(|_| &self.link).is_some();
        if is_taken {
            self.entries[1].store(ENTRY + 1, Ordering::Release);
            self.behind.store(0, Ordering::Relaxed);
        }
        is_taken
    }
}

#[test]
fn an_entry_that_stays_is_not_missed_by_way_of_a_bucket_that_went_to_another_chain() {
    model(2, || {
        let chain = Chain::new();
        let reader = spawn(&chain, Chain::find);
        let other = spawn(&chain, Chain::take_bucket);
        chain.trim();
        assert!(reader.join().unwrap(), "an entry that stays was missed");
        other.join().unwrap();
    });
}

/// A bucket's tags and slots, as `Bucket` reads and `Entry` writes them: one place, and the slots that came to it.
struct Tagged {
    tags: AtomicU32,
    slot: AtomicU32,
}

#[test]
fn who_sees_a_tag_sees_the_slot_that_came_with_it_or_a_later_one() {
    model(2, || {
        let bucket = Arc::new(Tagged {
            tags: AtomicU32::new(0),
            slot: AtomicU32::new(0),
        });
        let reader = spawn(&bucket, |bucket: &Tagged| {
            let tag = bucket.tags.load(Ordering::Acquire);
            (tag, bucket.slot.load(Ordering::Relaxed))
        });
        for (tag, slot) in [(7, 1), (8, 2)] {
            bucket.slot.store(slot, Ordering::Relaxed);
            bucket.tags.store(tag, Ordering::Release);
            if slot == 1 {
                bucket.tags.store(0, Ordering::Release);
            }
        }
        match reader.join().unwrap() {
            (0, _) | (7, 1 | 2) | (8, 2) => {}
            other => panic!("tag and slot {other:?} were never there together"),
        }
    });
}
