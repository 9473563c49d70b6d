//! Threads on the same few keys, in a pool so small that something is always being evicted.
//!
//! Every object says in its first bytes which key and version it is, and those give all its other bytes and its size: so bytes of two
//! versions in one read show, whoever mixed them. `MMC_SOAK_SECONDS` makes the first test run longer.

mod support;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use support::*;

const KEYS: u64 = 40;
const LARGEST: usize = 3 << 20;
const HEAD: usize = 16;

/// Random numbers, the same for the same seed.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Random {
        Random(mix(seed))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

fn mix(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// One version of the object of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Version {
    key: u64,
    number: u64,
}

impl Version {
    fn seed(self) -> u64 {
        mix(self.key << 48 ^ self.number)
    }

    /// Mostly small, some of up to a quarter of a segment, a few so large that room for them must be made of many others.
    fn size(self) -> usize {
        let mut random = Random::new(self.seed());
        let limit = match random.below(32) {
            0 => LARGEST,
            1..6 => 400_000,
            6..12 => 4096 * 3,
            _ => 4096 * 9,
        };
        HEAD + random.below((limit - HEAD) as u64) as usize
    }

    fn head(self) -> [u8; HEAD] {
        let mut head = [0; HEAD];
        head[..8].copy_from_slice(&self.key.to_le_bytes());
        head[8..].copy_from_slice(&self.number.to_le_bytes());
        head
    }

    fn body(self) -> &'static [u8] {
        content(self.seed(), self.size() - HEAD)
    }

    /// Checks that `bytes` are all of one version of the object of `key`.
    fn verify(key: u64, bytes: &[u8]) {
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        let version = Version {
            key: word(0),
            number: word(8),
        };
        assert_eq!(version.key, key, "the object of another key");
        assert_eq!(bytes.len(), version.size(), "size of {version:?}");
        let is_same = bytes[HEAD..] == *version.body();
        assert!(
            is_same,
            "{version:?} of {} bytes differs from byte {:?} on",
            bytes.len(),
            {
                let pairs = bytes[HEAD..].iter().zip(version.body());
                pairs
                    .enumerate()
                    .find(|(_, (is, should))| is != should)
                    .map(|(at, _)| at + HEAD)
            }
        );
    }
}

/// Some keys have long names, which lie elsewhere than short ones.
fn name(key: u64) -> String {
    if key.is_multiple_of(4) {
        format!("key-{key}-{}", "x".repeat(100))
    } else {
        format!("key-{key}")
    }
}

fn expect<T>(result: Outcome<T>, allowed: &[i32], what: &str) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(code) => {
            assert!(allowed.contains(&code), "{what}: {code}: {}", last_error());
            None
        }
    }
}

/// A thread's work on the shared keys.
struct Worker<'s> {
    store: &'s Store,
    versions: &'s AtomicU64,
    random: Random,
    /// Open pins, with the key and the address of its bytes in this process.
    pins: Vec<(u64, mmc_view)>,
    scratch: Vec<u8>,
}

impl<'s> Worker<'s> {
    fn new(store: &'s Store, versions: &'s AtomicU64, seed: u64) -> Worker<'s> {
        Worker {
            store,
            versions,
            random: Random::new(seed),
            pins: Vec::new(),
            scratch: vec![0; LARGEST],
        }
    }

    fn key(&mut self) -> u64 {
        self.random.below(KEYS)
    }

    fn version(&mut self, key: u64) -> Version {
        Version {
            key,
            number: self.versions.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// Different keys, as many as a small batch has.
    fn batch(&mut self) -> Vec<u64> {
        let (first, count) = (self.key(), 1 + self.random.below(8));
        (0..count).map(|step| (first + step * 5) % KEYS).collect()
    }

    fn options(&mut self) -> mmc_put_options {
        mmc_put_options {
            replicas: 1 + (self.random.below(4) == 0) as u32,
            medium: if self.random.below(8) == 0 {
                MMC_MEDIUM_HBM
            } else {
                MMC_MEDIUM_DRAM
            },
            ..put_options()
        }
    }

    /// Options that any set of segments allows while some are being registered and unregistered.
    const REFUSALS: [i32; 3] = [MMC_ERR_EXISTS, MMC_ERR_NO_SPACE, MMC_ERR_INVALID_PARAM];

    fn step(&mut self) {
        match self.random.below(100) {
            0..28 => self.put(),
            28..36 => self.batch_put(),
            36..60 => self.get(),
            60..68 => self.batch_get(),
            68..74 => {
                let key = self.key();
                expect(self.store.remove(&name(key)), &[MMC_ERR_NOT_FOUND], "remove");
            }
            74..76 => {
                let names = self.names();
                let codes = self.store.batch_remove(&strings(&names)).unwrap();
                assert!(
                    codes.iter().all(|code| [MMC_OK, MMC_ERR_NOT_FOUND].contains(code)),
                    "{codes:?}"
                );
            }
            76..86 => self.pin(),
            86..90 => {
                let (key, term) = (self.key(), 1 + self.random.below(10));
                expect(
                    self.store.lease(&name(key), term),
                    &[MMC_ERR_NOT_FOUND, MMC_ERR_STATE],
                    "lease",
                );
                if term < 6 {
                    expect(
                        self.store.unlease(&name(key)),
                        &[MMC_ERR_NOT_FOUND, MMC_ERR_NO_LEASE],
                        "unlease",
                    );
                }
            }
            90..95 => self.reserve(),
            95..99 => self.look(),
            _ => {
                self.store.list_keys();
                if self.random.below(20) == 0 {
                    self.store.remove_all();
                }
            }
        }
    }

    fn names(&mut self) -> Vec<String> {
        self.batch().into_iter().map(name).collect()
    }

    fn put(&mut self) {
        let (key, options) = (self.key(), self.options());
        let version = self.version(key);
        let result = self
            .store
            .putv(&name(key), &[&version.head(), version.body()], Some(&options));
        expect(result, &Self::REFUSALS, "put");
    }

    fn batch_put(&mut self) {
        let (keys, options) = (self.batch(), self.options());
        let versions: Vec<Version> = keys.iter().map(|key| self.version(*key)).collect();
        let names: Vec<String> = keys.iter().map(|key| name(*key)).collect();
        let heads: Vec<_> = versions.iter().map(|version| version.head()).collect();
        let pieces: Vec<Vec<&[u8]>> = heads
            .iter()
            .zip(&versions)
            .map(|(head, version)| vec![&head[..], version.body()])
            .collect();
        let codes = self
            .store
            .batch_putv(&strings(&names), &pieces, Some(&options))
            .unwrap();
        let is_allowed = |code: &i32| *code == MMC_OK || Self::REFUSALS.contains(code);
        assert!(codes.iter().all(is_allowed), "{codes:?}");
    }

    fn get(&mut self) {
        let key = self.key();
        let size = if self.random.below(2) == 0 {
            let size = self.store.get(&name(key), &mut self.scratch, MMC_GET_UP_TO);
            expect(size, &[MMC_ERR_NOT_FOUND], "get")
        } else {
            let (front, back) = self.scratch.split_at_mut(1000);
            let size = self
                .store
                .getv(&name(key), &mut [front, back], MMC_GET_UP_TO | MMC_PEEK);
            expect(size, &[MMC_ERR_NOT_FOUND], "getv")
        };
        if let Some(size) = size {
            Version::verify(key, &self.scratch[..size as usize]);
        }
    }

    fn batch_get(&mut self) {
        let keys = self.batch();
        let names: Vec<String> = keys.iter().map(|key| name(*key)).collect();
        let room = LARGEST / keys.len();
        let mut pieces: Vec<&mut [u8]> = self.scratch.chunks_mut(room).take(keys.len()).collect();
        let results = self
            .store
            .batch_get(&strings(&names), &mut pieces, MMC_GET_UP_TO)
            .unwrap();
        for ((key, (code, size)), piece) in keys.iter().zip(results).zip(pieces) {
            if code == MMC_OK && size as usize <= room {
                Version::verify(*key, &piece[..size as usize]);
            } else {
                assert!(
                    code == MMC_OK || (code, size) == (MMC_ERR_NOT_FOUND, 0),
                    "{code} {size}"
                );
            }
        }
    }

    fn pin(&mut self) {
        if self.pins.len() < 2 {
            let keys = self.batch();
            let views = match keys[..] {
                [key] => vec![self.store.pin(&name(key), 0)],
                _ => {
                    let names: Vec<String> = keys.iter().take(2).map(|key| name(*key)).collect();
                    self.store.batch_pin(&strings(&names), 0).unwrap()
                }
            };
            for (key, view) in keys.into_iter().zip(views) {
                if let Some(view) = expect(view, &[MMC_ERR_NOT_FOUND], "pin") {
                    verify_view(key, &view);
                    self.pins.push((key, view));
                }
            }
        } else {
            self.unpin_all();
        }
    }

    /// What was pinned must still be what it was, however long ago it was removed.
    fn unpin_all(&mut self) {
        for (key, view) in &self.pins {
            verify_view(*key, view);
        }
        let tokens: Vec<u64> = self.pins.drain(..).map(|(_, view)| view.token).collect();
        assert!(
            self.store
                .batch_unpin(&tokens)
                .unwrap()
                .iter()
                .all(|code| *code == MMC_OK)
        );
    }

    fn reserve(&mut self) {
        let (key, options) = (self.key(), self.options());
        let version = self.version(key);
        let options = mmc_put_options {
            medium: MMC_MEDIUM_DRAM,
            ..options
        };
        let view = self.store.reserve(&name(key), version.size() as u64, Some(&options));
        let Some(view) = expect(view, &Self::REFUSALS, "reserve") else {
            return;
        };
        // SAFETY: reserved memory is the holder's alone.
        let memory = unsafe { std::slice::from_raw_parts_mut(view.data.cast::<u8>(), view.size as usize) };
        memory[HEAD..].copy_from_slice(version.body());
        let written = self.store.write_at(&[view.address], &[&version.head()]);
        assert_eq!(written, Ok(vec![MMC_OK]));
        if self.random.below(3) == 0 {
            self.store.abort(view.token).unwrap();
        } else {
            self.store.commit(view.token).unwrap();
        }
        assert_eq!(
            self.store.commit(view.token),
            Err(MMC_ERR_NOT_FOUND),
            "a token is used once"
        );
    }

    fn look(&mut self) {
        let names = self.names();
        let codes = self.store.batch_exist(&strings(&names), 0).unwrap();
        assert!(
            codes.iter().all(|code| [MMC_OK, MMC_ERR_NOT_FOUND].contains(code)),
            "{codes:?}"
        );
        for info in self
            .store
            .batch_query(&strings(&names), MMC_QUERY_RESERVED)
            .map_err(|_| last_error())
            .unwrap()
        {
            if let Some(info) = expect(info, &[MMC_ERR_NOT_FOUND], "query") {
                assert!(info.size >= HEAD as u64 && info.size <= LARGEST as u64, "{info:?}");
                assert!(
                    info.blob_count <= 2 && (info.readable == 0 || info.blob_count > 0),
                    "{info:?}"
                );
                // By now another object may lie there, or the middle of one.
                let mut head = [0; HEAD];
                let codes = self.store.read_at(&[info.blobs[0].address], &mut [&mut head]);
                let is_allowed =
                    |code: i32| [MMC_OK, MMC_ERR_NOT_FOUND, MMC_ERR_STATE, MMC_ERR_INVALID_PARAM].contains(&code);
                assert!(is_allowed(codes.unwrap()[0]), "{}", last_error());
            }
        }
    }
}

fn strings(names: &[String]) -> Vec<&str> {
    names.iter().map(String::as_str).collect()
}

fn verify_view(key: u64, view: &mmc_view) {
    if !view.data.is_null() {
        // SAFETY: the pin is open, and nobody writes to a readable object.
        Version::verify(key, unsafe { bytes_of(view) });
    }
}

/// Registers a segment of the host's memory, lets the others use it, and takes the memory back: once that has worked, it is written over.
fn come_and_go(store: &Store, random: &mut Random, is_over: &AtomicBool) {
    let memory = HostMemory::new(2 << 20);
    let address = store
        .register(&mmc_segment_options {
            base: memory.base(),
            ..dram(1 + random.below(2) as u32, memory.bytes())
        })
        .unwrap();
    std::thread::sleep(Duration::from_millis(random.below(20)));
    let mut tries = 0u64;
    while expect(store.unregister(address), &[MMC_ERR_BUSY], "unregister").is_none() {
        tries += 1;
        assert!(
            tries < 10_000_000,
            "segment {address:#x} never comes free: {}",
            last_error()
        );
        std::thread::yield_now();
    }
    assert_eq!(store.unregister(address), Err(MMC_ERR_NOT_FOUND));
    // SAFETY: the memory is the host's own again.
    unsafe { std::ptr::write_bytes(memory.base().cast::<u8>(), 0xee, memory.bytes() as usize) };
    if is_over.load(Ordering::Relaxed) {
        return;
    }
    std::thread::sleep(Duration::from_millis(random.below(5)));
}

fn soak_time() -> Duration {
    let seconds = std::env::var("MMC_SOAK_SECONDS").map_or(5.0, |text| text.parse().expect("a number of seconds"));
    Duration::from_secs_f64(seconds)
}

#[test]
fn every_read_is_of_one_version_while_threads_put_remove_pin_lease_and_evict() {
    let device = Device::new(0x10_0000_0000, 3 << 20);
    let store = Store::open(&mmc_config {
        dram_size: 4 << 20,
        ..config()
    })
    .unwrap();
    store.register(&dram(1, (3 << 20) + 4096)).unwrap();
    store.register(&device.options(MMC_MEDIUM_HBM, 0)).unwrap();
    let (versions, is_over) = (AtomicU64::new(1), AtomicBool::new(false));
    let deadline = Instant::now() + soak_time();
    let steps: u64 = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..6)
            .map(|number| {
                let (store, versions) = (&store, &versions);
                scope.spawn(move || {
                    let mut worker = Worker::new(store, versions, number);
                    let mut steps = 0u64;
                    while Instant::now() < deadline {
                        worker.step();
                        steps += 1;
                    }
                    worker.unpin_all();
                    steps
                })
            })
            .collect();
        scope.spawn(|| {
            let mut random = Random::new(99);
            while !is_over.load(Ordering::Relaxed) {
                come_and_go(&store, &mut random, &is_over);
            }
        });
        let steps = workers.into_iter().map(|worker| worker.join());
        let steps: Vec<_> = steps.collect();
        is_over.store(true, Ordering::Relaxed);
        steps.into_iter().map(|steps| steps.unwrap()).sum()
    });
    let statistics = store.stats();
    assert!(
        steps > 200 && statistics.evict_operations > 10,
        "{steps} steps: {statistics:?}"
    );
    everything_comes_back(&store);
}

/// Removes what is left: every byte comes back, and every segment can go.
fn everything_comes_back(store: &Store) {
    store.remove_all();
    // Leases end by themselves, within a second of their end.
    wait_until("everything is free", || store.stats().allocated == 0);
    let statistics = store.stats();
    assert_eq!((statistics.stored_keys, statistics.pins), (0, 0), "{statistics:?}");
    assert_eq!((statistics.leases, statistics.reservations), (0, 0), "{statistics:?}");
    assert_eq!(store.list_keys(), Vec::<String>::new());
    for segment in store.segments() {
        assert_eq!(segment.allocated, 0, "{segment:?}");
        store.unregister(segment.address).unwrap();
    }
    assert_eq!(store.stats().capacity, 0);
}

/// Puts objects of up to `largest` bytes, each under a new key, until `is_over`; every one must find room.
fn keep_putting(store: &Store, thread: u64, largest: u64, mut is_over: impl FnMut(u64) -> bool) {
    let mut random = Random::new(thread);
    let mut done = 0;
    while !is_over(done) {
        let size = 1 + random.below(largest) as usize;
        let key = format!("{thread}-{done}");
        let result = store.put(&key, content(done, size), None);
        assert_eq!(result, Ok(()), "put of {size} bytes: {}", last_error());
        done += 1;
    }
}

#[test]
fn a_put_fails_only_when_nothing_may_go() {
    const POOL: u64 = 4 << 20;
    const LARGE: usize = 3 << 20;
    let store = Store::with_dram(POOL);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (store, is_over) = (&store, &is_over);
        let large: Vec<_> = (0..2)
            .map(|thread| {
                scope.spawn(move || {
                    for number in 0..40 {
                        let key = format!("large-{thread}-{number}");
                        let result = store.put(&key, content(number, LARGE), None);
                        assert_eq!(result, Ok(()), "large object {number}: {}", last_error());
                    }
                })
            })
            .collect();
        for thread in 0..3 {
            scope.spawn(move || keep_putting(store, thread, 64 << 10, |_| is_over.load(Ordering::Relaxed)));
        }
        // Readers only make puts wait.
        scope.spawn(move || {
            let (mut random, mut data) = (Random::new(7), vec![0; LARGE]);
            while !is_over.load(Ordering::Relaxed) {
                let (thread, number) = (random.below(2), random.below(40));
                if store.get(&format!("large-{thread}-{number}"), &mut data, 0).is_ok() {
                    assert!(
                        data == content(number, LARGE),
                        "large object {number} of thread {thread}"
                    );
                }
            }
        });
        let finished: Vec<_> = large.into_iter().map(|thread| thread.join()).collect();
        is_over.store(true, Ordering::Relaxed);
        finished.into_iter().for_each(|result| result.unwrap());
    });
    everything_comes_back(&store);
}

#[test]
fn puts_of_all_sizes_into_a_full_pool_always_find_room() {
    let store = Store::with_dram(4 << 20);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (store, largest) = (&store, [4 << 10, 40 << 10, 900 << 10, 1 << 20][thread as usize]);
            scope.spawn(move || keep_putting(store, thread, largest, |done| done == 400));
        }
    });
    everything_comes_back(&store);
}

/// A store whose only memory is a device that stops before its first copy in this direction: it then sends a message, and goes on when
/// it gets one.
fn stopping_store(direction: u32) -> (Box<Device>, Arc<Store>, mpsc::Receiver<()>, mpsc::Sender<()>) {
    let (stopped, has_stopped) = mpsc::channel();
    let (go_on, may_go_on) = mpsc::channel();
    let stop = Mutex::new(Some((stopped, may_go_on)));
    let device = Device::with_hook(
        0x10_0000_0000,
        1 << 20,
        Box::new(move |now| {
            if now == direction
                && let Some((stopped, may_go_on)) = stop.lock().unwrap().take()
            {
                stopped.send(()).unwrap();
                may_go_on.recv().unwrap();
            }
        }),
    );
    let store = Arc::new(Store::empty());
    store.register(&device.options(MMC_MEDIUM_HBM, 0)).unwrap();
    (device, store, has_stopped, go_on)
}

#[test]
fn a_put_waits_for_the_copy_into_memory_that_it_needs() {
    let (_device, store, has_stopped, go_on) = stopping_store(MMC_COPY_TO_SEGMENT);
    let data = content(1, 1 << 20);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| store.put("first", data, None));
        has_stopped.recv().unwrap();
        let second = scope.spawn(|| store.put("second", data, None));
        wait_until("the second put has begun", || store.stats().alloc_operations == 2);
        go_on.send(()).unwrap();
        assert_eq!((first.join().unwrap(), second.join().unwrap()), (Ok(()), Ok(())));
    });
    assert_eq!(store.list_keys(), ["second"]);
}

#[test]
fn a_put_waits_for_the_last_reader_of_a_removed_object() {
    let (_device, store, has_stopped, go_on) = stopping_store(MMC_COPY_FROM_SEGMENT);
    let data = content(1, 1 << 20);
    store.put("read", data, None).unwrap();
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut copy = vec![0; data.len()];
            store.get("read", &mut copy, 0).unwrap();
            assert!(copy == data);
        });
        has_stopped.recv().unwrap();
        store.remove("read").unwrap();
        let put = scope.spawn(|| store.put("next", content(2, 1 << 20), None));
        wait_until("the second put has begun", || store.stats().alloc_operations == 2);
        go_on.send(()).unwrap();
        reader.join().unwrap();
        assert_eq!(put.join().unwrap(), Ok(()));
    });
}

/// It would wait for its own caller.
#[test]
fn a_put_from_a_copy_callback_fails_where_others_would_wait() {
    for direction in [MMC_COPY_TO_SEGMENT, MMC_COPY_FROM_SEGMENT] {
        let (lend, lent) = mpsc::channel::<Arc<Store>>();
        let (tell, told) = mpsc::channel();
        let lent = Mutex::new(lent);
        let hook = Box::new(move |now| {
            if now == direction
                && let Ok(store) = lent.lock().unwrap().try_recv()
            {
                tell.send(store.put("inner", content(3, 1 << 20), None)).unwrap();
            }
        });
        let device = Device::with_hook(0x10_0000_0000, 1 << 20, hook);
        let store = Arc::new(Store::empty());
        store.register(&device.options(MMC_MEDIUM_HBM, 0)).unwrap();
        let (data, mut copy) = (content(1, 1 << 20), vec![0; 1 << 20]);
        if direction == MMC_COPY_TO_SEGMENT {
            lend.send(Arc::clone(&store)).unwrap();
        }
        store.put("outer", data, None).unwrap();
        if direction == MMC_COPY_FROM_SEGMENT {
            lend.send(Arc::clone(&store)).unwrap();
        }
        store.get("outer", &mut copy, 0).unwrap();
        assert!(copy == data);
        assert_eq!(told.recv().unwrap(), Err(MMC_ERR_NO_SPACE));
    }
}
