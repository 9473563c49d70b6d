//! What processes do to a pool under load, and objects that check themselves.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use mmc::error::{
    MMC_ERR_BUSY, MMC_ERR_DISCONNECTED, MMC_ERR_EXISTS, MMC_ERR_INVALID_PARAM, MMC_ERR_NO_LEASE, MMC_ERR_NO_SPACE,
    MMC_ERR_NOT_FOUND, MMC_ERR_STATE,
};

use crate::support::*;

/// Bytes of the largest object.
pub const LARGEST: usize = 48 << 10;
/// The number of a key that is put once and never removed is the key's own.
const KEPT_EACH: u64 = 16;
const PREFIX: u64 = 8;

/// Numbers that look random.
pub struct Numbers(pub u64);

impl Numbers {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// The bytes that were put under a key with this number, and no others.
pub fn bytes_of_object(key: &str, number: u64) -> Vec<u8> {
    let seed = key.bytes().fold(number, |seed, byte| {
        (seed ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mut numbers = Numbers(seed);
    let size = 8 + numbers.below(LARGEST as u64 - 8) as usize;
    let mut bytes = number.to_le_bytes().to_vec();
    while bytes.len() < size {
        bytes.extend_from_slice(&numbers.next().to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

/// The number of an object; ends the test when these are not exactly its bytes.
pub fn number_of(key: &str, found: &[u8]) -> u64 {
    let number = u64::from_le_bytes(found[..8].try_into().unwrap());
    assert!(
        found == bytes_of_object(key, number),
        "{key}: {} bytes that nobody put",
        found.len()
    );
    number
}

/// What a process does.
#[derive(Clone, Copy)]
pub struct Plan {
    pub keys: u64,
    pub seed: u64,
    /// Only asks what is there.
    pub is_asking_only: bool,
    /// Brings memory to the pool and takes it away again.
    pub is_contributing: bool,
}

/// Threads that load a pool.
pub struct Load {
    threads: Vec<JoinHandle<bool>>,
    is_stopping: Arc<AtomicBool>,
    operations: Arc<AtomicU64>,
}

impl Load {
    /// Starts two threads. `keeps` is told of each object that is there to stay.
    pub fn start(store: &Arc<Store>, plan: Plan, keeps: impl Fn(&str) + Clone + Send + 'static) -> Load {
        let (is_stopping, operations) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let threads = (0..2).map(|thread| {
            let (store, keeps) = (Arc::clone(store), keeps.clone());
            let (is_stopping, operations) = (Arc::clone(&is_stopping), Arc::clone(&operations));
            std::thread::spawn(move || {
                let mut worker = Worker {
                    store: &store,
                    plan,
                    numbers: Numbers(2 * plan.seed + thread),
                    buffers: vec![vec![0; LARGEST]; PREFIX as usize],
                    kept: KEPT_EACH,
                    keeps: &keeps,
                };
                let work = AssertUnwindSafe(|| {
                    while !is_stopping.load(Ordering::Relaxed) {
                        match worker.act() {
                            Ok(()) => operations.fetch_add(1, Ordering::Relaxed),
                            Err(_) => return true,
                        };
                    }
                    false
                });
                // A thread that fails ends the process, or nobody would know before the others are done.
                catch_unwind(work).unwrap_or_else(|_| std::process::abort())
            })
        });
        let threads = threads.collect();
        Load {
            threads,
            is_stopping,
            operations,
        }
    }

    /// Calls that were made up to now.
    pub fn operations(&self) -> u64 {
        self.operations.load(Ordering::Relaxed)
    }

    pub fn stop(&self) {
        self.is_stopping.store(true, Ordering::Relaxed);
    }

    /// Waits for the threads; whether they were disconnected.
    pub fn join(self) -> bool {
        let ends: Vec<bool> = self.threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        ends.contains(&true)
    }
}

struct Worker<'w, K> {
    store: &'w Store,
    plan: Plan,
    numbers: Numbers,
    buffers: Vec<Vec<u8>>,
    kept: u64,
    keeps: &'w K,
}

/// The pool is no longer there.
struct Disconnected;

/// `None` for a code that is one of these.
fn unless<T>(codes: &[i32], outcome: Outcome<T>) -> Result<Option<T>, Disconnected> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(MMC_ERR_DISCONNECTED) => Err(Disconnected),
        Err(code) if codes.contains(&code) => Ok(None),
        Err(code) => panic!("{code}: {}", last_error()),
    }
}

const FULL: &[i32] = &[MMC_ERR_EXISTS, MMC_ERR_NO_SPACE];
const ABSENT: &[i32] = &[MMC_ERR_NOT_FOUND];

impl<K: Fn(&str)> Worker<'_, K> {
    fn key(&mut self) -> String {
        format!("model-7b/{}", self.numbers.below(self.plan.keys))
    }

    /// Keys of a prefix chain.
    fn chain(&mut self) -> Vec<String> {
        let first = self.numbers.below(self.plan.keys);
        let count = 1 + self.numbers.below(PREFIX);
        (first..first + count)
            .map(|key| format!("model-7b/{}", key % self.plan.keys))
            .collect()
    }

    fn act(&mut self) -> Result<(), Disconnected> {
        let what = self.numbers.below(if self.plan.is_asking_only { 3 } else { 20 });
        match what {
            0 => self.ask_for_one(),
            1 => self.ask_for_many(),
            2 => self.ask_for_a_prefix(),
            3..7 => self.put(),
            7..10 => self.get(),
            10 | 11 => self.put_many(),
            12 | 13 => self.get_many(),
            14 => self.remove(),
            15 => self.pin(),
            16 => self.lease(),
            17 => self.write_in_place(),
            18 => self.copy_by_address(),
            _ if self.plan.is_contributing && self.numbers.below(8) == 0 => self.contribute(),
            _ => self.keep(),
        }
    }

    fn ask_for_one(&mut self) -> Result<(), Disconnected> {
        let key = self.key();
        unless(ABSENT, self.store.exist(&key, 0))?;
        if let Some(info) = unless(ABSENT, self.store.query(&key, MMC_PEEK))? {
            assert!((8..=LARGEST as u64).contains(&info.size) && info.readable == 1 && info.blob_count >= 1);
        }
        Ok(())
    }

    fn ask_for_many(&mut self) -> Result<(), Disconnected> {
        let keys = self.chain();
        let codes = unless(&[], self.store.batch_exist(&texts(&keys), 0))?.unwrap();
        for code in codes {
            unless(ABSENT, if code == 0 { Ok(()) } else { Err(code) })?;
        }
        Ok(())
    }

    fn ask_for_a_prefix(&mut self) -> Result<(), Disconnected> {
        let keys = self.chain();
        let length = unless(&[], self.store.prefix_len(&texts(&keys), 0))?.unwrap();
        assert!(length <= keys.len());
        Ok(())
    }

    fn put(&mut self) -> Result<(), Disconnected> {
        let (key, number) = (self.key(), self.numbers.next());
        unless(FULL, self.store.put(&key, &bytes_of_object(&key, number), None)).map(drop)
    }

    fn get(&mut self) -> Result<(), Disconnected> {
        let key = self.key();
        let got = self.store.get(&key, &mut self.buffers[0], MMC_GET_UP_TO);
        if let Some(size) = unless(ABSENT, got)? {
            number_of(&key, &self.buffers[0][..size as usize]);
        }
        Ok(())
    }

    fn put_many(&mut self) -> Result<(), Disconnected> {
        let keys = self.chain();
        let data: Vec<Vec<u8>> = keys
            .iter()
            .map(|key| bytes_of_object(key, self.numbers.next()))
            .collect();
        let data: Vec<&[u8]> = data.iter().map(Vec::as_slice).collect();
        // The codes are looked at one by one: an owner that goes in the middle leaves some of each kind.
        for code in unless(&[], self.store.batch_put(&texts(&keys), &data, None))?.unwrap() {
            unless(FULL, if code == 0 { Ok(()) } else { Err(code) })?;
        }
        Ok(())
    }

    fn get_many(&mut self) -> Result<(), Disconnected> {
        let keys = self.chain();
        let mut buffers: Vec<&mut [u8]> = self.buffers[..keys.len()].iter_mut().map(Vec::as_mut_slice).collect();
        let got = unless(&[], self.store.batch_get(&texts(&keys), &mut buffers, MMC_GET_UP_TO))?.unwrap();
        for (number, (code, size)) in got.into_iter().enumerate() {
            if unless(ABSENT, if code == 0 { Ok(()) } else { Err(code) })?.is_some() {
                number_of(&keys[number], &self.buffers[number][..size as usize]);
            }
        }
        Ok(())
    }

    fn remove(&mut self) -> Result<(), Disconnected> {
        let keys = self.chain();
        if keys.len() == 1 {
            return unless(ABSENT, self.store.remove(&keys[0])).map(drop);
        }
        unless(&[], self.store.batch_remove(&texts(&keys))).map(drop)
    }

    fn pin(&mut self) -> Result<(), Disconnected> {
        let key = self.key();
        let Some(view) = unless(ABSENT, self.store.pin(&key, 0))? else {
            return Ok(());
        };
        // SAFETY: it is pinned.
        number_of(&key, unsafe { bytes_of(&view) });
        // Removed by anybody, it stays what it is.
        unless(ABSENT, self.store.remove(&key))?;
        self.put()?;
        // SAFETY: as above.
        number_of(&key, unsafe { bytes_of(&view) });
        unless(&[], self.store.unpin(view.token)).map(drop)
    }

    fn lease(&mut self) -> Result<(), Disconnected> {
        let key = self.key();
        let leased = self.store.lease(&key, 1 + self.numbers.below(40));
        unless(&[MMC_ERR_NOT_FOUND, MMC_ERR_STATE], leased)?;
        if self.numbers.below(2) == 0 {
            unless(&[MMC_ERR_NOT_FOUND, MMC_ERR_NO_LEASE], self.store.unlease(&key))?;
        }
        Ok(())
    }

    fn write_in_place(&mut self) -> Result<(), Disconnected> {
        let (key, number) = (self.key(), self.numbers.next());
        let bytes = bytes_of_object(&key, number);
        let Some(view) = unless(FULL, self.store.reserve(&key, bytes.len() as u64, None))? else {
            return Ok(());
        };
        if self.numbers.below(2) == 0 {
            // SAFETY: it is reserved for this thread, and as large.
            unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), view.data.cast(), bytes.len()) };
        } else {
            let half = bytes.len() / 2;
            let places = [view.address, view.address + half as u64];
            let written = self.store.write_at(&places, &[&bytes[..half], &bytes[half..]]);
            for code in unless(&[], written)?.unwrap() {
                unless(&[], if code == 0 { Ok(()) } else { Err(code) })?;
            }
        }
        match self.numbers.below(8) {
            0 => unless(&[], self.store.abort(view.token)).map(drop),
            _ => unless(&[], self.store.commit(view.token)).map(drop),
        }
    }

    fn copy_by_address(&mut self) -> Result<(), Disconnected> {
        let key = self.key();
        let Some(info) = unless(ABSENT, self.store.query(&key, 0))? else {
            return Ok(());
        };
        let size = info.size as usize;
        let into = &mut self.buffers[0][..size];
        let codes = unless(&[], self.store.read_at(&[info.blobs[0].address], &mut [into]))?.unwrap();
        // Another object may lie there by now.
        let gone = [MMC_ERR_NOT_FOUND, MMC_ERR_STATE, MMC_ERR_NO_SPACE];
        unless(&gone, if codes[0] == 0 { Ok(()) } else { Err(codes[0]) }).map(drop)
    }

    fn contribute(&mut self) -> Result<(), Disconnected> {
        let rank = 1 + self.numbers.below(3) as u32;
        let Some(address) = unless(&[], self.store.register(&dram(rank, 1 << 20)))? else {
            return Ok(());
        };
        for _ in 0..4 {
            self.put()?;
            let (key, number) = (self.key(), self.numbers.next());
            let options = mmc_put_options {
                replicas: 2,
                preferred_ranks: &rank,
                preferred_count: 1,
                ..put_options()
            };
            let put = self.store.put(&key, &bytes_of_object(&key, number), Some(&options));
            // Another process's segment of the rank may have gone, and with it the second rank.
            unless(&[MMC_ERR_EXISTS, MMC_ERR_NO_SPACE, MMC_ERR_INVALID_PARAM], put)?;
            self.get()?;
        }
        loop {
            match self.store.unregister(address) {
                Err(MMC_ERR_BUSY) => self.get()?,
                outcome => return unless(&[], outcome).map(drop),
            }
        }
    }

    /// Puts an object that is there to stay, in the owner's own memory, and tells of it.
    fn keep(&mut self) -> Result<(), Disconnected> {
        if self.kept == 0 || self.plan.seed == 0 {
            return self.get();
        }
        self.kept -= 1;
        let (number, rank) = (self.numbers.next(), 0);
        let key = format!("kept/{number:x}");
        let options = mmc_put_options {
            preferred_ranks: &rank,
            preferred_count: 1,
            ..put_options()
        };
        if unless(
            &[],
            self.store.put(&key, &bytes_of_object(&key, number), Some(&options)),
        )?
        .is_some()
        {
            (self.keeps)(&key);
        }
        Ok(())
    }
}

fn texts(keys: &[String]) -> Vec<&str> {
    keys.iter().map(String::as_str).collect()
}
