//! The in-process peers, each a cache of bytes made the way its documentation shows.
//!
//! quick_cache, foyer and moka evict; their capacity is in bytes of values. papaya and dashmap are maps: what a team would build a cache
//! on, measured where nothing must be evicted. Every one has the hash that its crate brings; the two whose crates bring the slow and safe
//! one of the standard library are shown with quick_cache's as well.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use crate::cache::Cache;
use crate::support::Key;

type Fast = foldhash::fast::RandomState;

/// A peer by its name.
pub const PEERS: [&str; 5] = ["quick_cache", "papaya", "dashmap", "foyer", "moka"];
/// Those of them that evict.
pub const EVICTING: [&str; 3] = ["quick_cache", "foyer", "moka"];
/// Peers with a hash that is not their crate's default.
pub const TUNED: [&str; 2] = ["papaya, foldhash", "dashmap, foldhash"];

/// What a function does with a contestant, whatever its type.
pub trait With {
    type Result;
    fn with<C: Cache + 'static>(self, cache: C) -> Self::Result;
}

/// Makes the peer of this name, for `bytes` of values of which about `objects` are expected.
pub fn make<W: With>(name: &str, bytes: usize, objects: usize, with: W) -> W::Result {
    match name {
        "quick_cache" => with.with(QuickCache::new(bytes, objects)),
        "papaya" => with.with(Papaya::<RandomState>::new(objects)),
        "papaya, foldhash" => with.with(Papaya::<Fast>::new(objects)),
        "dashmap" => with.with(DashMap::<RandomState>::new(objects)),
        "dashmap, foldhash" => with.with(DashMap::<Fast>::new(objects)),
        "foyer" => with.with(Foyer::new(bytes)),
        "moka" => with.with(Moka::new(bytes, objects)),
        _ => panic!("{name} is no contestant"),
    }
}

/// Counts a value's bytes.
#[derive(Clone)]
struct Bytes;

impl quick_cache::Weighter<Key, Arc<[u8]>> for Bytes {
    fn weight(&self, _: &Key, value: &Arc<[u8]>) -> u64 {
        value.len() as u64
    }
}

struct QuickCache(quick_cache::sync::Cache<Key, Arc<[u8]>, Bytes>);

impl QuickCache {
    fn new(bytes: usize, objects: usize) -> QuickCache {
        QuickCache(quick_cache::sync::Cache::with_weighter(objects, bytes as u64, Bytes))
    }
}

impl Cache for QuickCache {
    fn put(&self, key: &Key, bytes: &[u8]) {
        self.0.insert(*key, bytes.into());
    }

    fn get(&self, key: &Key, into: &mut [u8]) -> bool {
        self.0.get(key).map(|value| into.copy_from_slice(&value)).is_some()
    }

    fn has(&self, key: &Key) -> bool {
        self.0.contains_key(key)
    }

    fn remove(&self, key: &Key) -> bool {
        self.0.remove(key).is_some()
    }

    fn clear(&self) {
        self.0.clear();
    }
}

struct Papaya<S>(papaya::HashMap<Key, Box<[u8]>, S>);

impl<S: BuildHasher + Default> Papaya<S> {
    fn new(objects: usize) -> Papaya<S> {
        Papaya(papaya::HashMap::with_capacity_and_hasher(objects, S::default()))
    }
}

impl<S: BuildHasher + Send + Sync> Cache for Papaya<S> {
    fn put(&self, key: &Key, bytes: &[u8]) {
        self.0.pin().insert(*key, bytes.into());
    }

    fn get(&self, key: &Key, into: &mut [u8]) -> bool {
        let map = self.0.pin();
        map.get(key).map(|value| into.copy_from_slice(value)).is_some()
    }

    fn has(&self, key: &Key) -> bool {
        self.0.pin().contains_key(key)
    }

    fn remove(&self, key: &Key) -> bool {
        self.0.pin().remove(key).is_some()
    }

    fn clear(&self) {
        self.0.pin().clear();
    }
}

struct DashMap<S>(dashmap::DashMap<Key, Box<[u8]>, S>);

impl<S: BuildHasher + Clone + Default> DashMap<S> {
    fn new(objects: usize) -> DashMap<S> {
        DashMap(dashmap::DashMap::with_capacity_and_hasher(objects, S::default()))
    }
}

impl<S: BuildHasher + Clone + Send + Sync> Cache for DashMap<S> {
    fn put(&self, key: &Key, bytes: &[u8]) {
        self.0.insert(*key, bytes.into());
    }

    fn get(&self, key: &Key, into: &mut [u8]) -> bool {
        self.0.get(key).map(|value| into.copy_from_slice(&value)).is_some()
    }

    fn has(&self, key: &Key) -> bool {
        self.0.contains_key(key)
    }

    fn remove(&self, key: &Key) -> bool {
        self.0.remove(key).is_some()
    }

    fn clear(&self) {
        self.0.clear();
    }
}

struct Foyer(foyer_memory::Cache<Key, Box<[u8]>>);

impl Foyer {
    fn new(bytes: usize) -> Foyer {
        #[expect(clippy::borrowed_box, reason = "the value's type")]
        let weigh = |_: &Key, value: &Box<[u8]>| value.len();
        Foyer(foyer_memory::CacheBuilder::new(bytes).with_weighter(weigh).build())
    }
}

impl Cache for Foyer {
    fn put(&self, key: &Key, bytes: &[u8]) {
        self.0.insert(*key, bytes.into());
    }

    fn get(&self, key: &Key, into: &mut [u8]) -> bool {
        self.0
            .get(key)
            .map(|entry| into.copy_from_slice(entry.value()))
            .is_some()
    }

    fn has(&self, key: &Key) -> bool {
        self.0.contains(key)
    }

    fn remove(&self, key: &Key) -> bool {
        self.0.remove(key).is_some()
    }

    fn clear(&self) {
        // Its `clear` leaves the bytes of what it dropped counted, and it would evict long before it is full.
        self.0.evict_all();
    }
}

struct Moka(moka::sync::Cache<Key, Arc<[u8]>>);

impl Moka {
    fn new(bytes: usize, objects: usize) -> Moka {
        let builder = moka::sync::Cache::builder()
            .max_capacity(bytes as u64)
            .initial_capacity(objects);
        Moka(builder.weigher(|_: &Key, value: &Arc<[u8]>| value.len() as u32).build())
    }
}

impl Cache for Moka {
    fn put(&self, key: &Key, bytes: &[u8]) {
        self.0.insert(*key, bytes.into());
    }

    fn get(&self, key: &Key, into: &mut [u8]) -> bool {
        self.0.get(key).map(|value| into.copy_from_slice(&value)).is_some()
    }

    fn has(&self, key: &Key) -> bool {
        self.0.contains_key(key)
    }

    fn remove(&self, key: &Key) -> bool {
        self.0.remove(key).is_some()
    }

    fn clear(&self) {
        self.0.invalidate_all();
        // What was made invalid goes some at a time: all of it now, and nothing inside what is measured next.
        while self.0.entry_count() > 0 {
            self.0.run_pending_tasks();
        }
    }
}
