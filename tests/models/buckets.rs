//! Looking for an entry while its bucket is split.

use loom::sync::{Arc, Mutex};

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
