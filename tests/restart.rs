//! Warm restart: what a store finds on its SSD segment that another has left there, closed or killed.
//!
//! An object's bytes follow from its key and a number that they begin with, so whoever finds one knows whether they are exactly what
//! was put. `MMC_KILL_ROUNDS` is the number of kills, 10 if it is not set.

mod support;

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::FromRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use mmc::error::{MMC_ERR_EXISTS, MMC_ERR_INVALID_PARAM, MMC_ERR_NO_SPACE, MMC_ERR_NOT_FOUND};
use mmc::ffi::types::*;
use support::*;

const MIB: u64 = 1 << 20;
const LARGEST: usize = 64 << 10;

/// Where a store has its files; they go with this value.
struct Scene {
    directory: PathBuf,
    data: CString,
    state: CString,
}

impl Scene {
    fn new(name: &str) -> Scene {
        let directory = std::env::temp_dir().join(format!("mmc-restart-{}-{name}", std::process::id()));
        fs::create_dir(&directory).unwrap();
        let text = |path: PathBuf| CString::new(path.as_os_str().as_bytes()).unwrap();
        Scene {
            data: text(directory.join("data")),
            state: text(directory.join("state")),
            directory,
        }
    }

    fn config(&self, dram: u64, ssd: u64) -> mmc_config {
        mmc_config {
            dram_size: dram,
            ssd_path: self.data.as_ptr(),
            ssd_size: ssd,
            state_path: self.state.as_ptr(),
            ..config()
        }
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Numbers that look random.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// The bytes that were put under a key with this number, and no others.
fn bytes_of(key: u64, number: u64) -> Vec<u8> {
    let mut numbers = Numbers(key.wrapping_mul(31) ^ number);
    let size = 8 + numbers.below(LARGEST as u64 - 8) as usize;
    let mut bytes = number.to_le_bytes().to_vec();
    while bytes.len() < size {
        bytes.extend_from_slice(&numbers.next().to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

fn name_of(key: u64) -> String {
    format!("model-7b/{key}")
}

/// Whether a key is there; if so with exactly the bytes of its number.
fn finds(store: &Store, key: u64, buffer: &mut [u8]) -> bool {
    match store.get(&name_of(key), buffer, MMC_GET_UP_TO) {
        Ok(size) => {
            let found = &buffer[..size as usize];
            let number = u64::from_le_bytes(found[..8].try_into().unwrap());
            assert!(
                found == bytes_of(key, number),
                "key {key}: {size} bytes that nobody put"
            );
            true
        }
        Err(code) => {
            assert_eq!(code, MMC_ERR_NOT_FOUND, "{}", last_error());
            false
        }
    }
}

fn put(store: &Store, key: u64, number: u64) {
    match store.put(&name_of(key), &bytes_of(key, number), None) {
        Ok(()) | Err(MMC_ERR_EXISTS | MMC_ERR_NO_SPACE) => {}
        Err(code) => panic!("{code}: {}", last_error()),
    }
}

#[test]
fn what_a_closed_store_had_is_there_again_from_memory_and_from_ssd() {
    const KEYS: u64 = 200;
    let scene = Scene::new("closed");
    let mut buffer = vec![0; LARGEST];
    let config = scene.config(4 * MIB, 32 * MIB);
    for round in 0..3 {
        let store = Store::open(&config).unwrap();
        let found = (0..KEYS).filter(|key| finds(&store, *key, &mut buffer)).count() as u64;
        assert_eq!(found, if round == 0 { 0 } else { KEYS });
        assert_eq!(store.stats().stored_keys, found);
        (0..KEYS).for_each(|key| put(&store, key, key));
        wait_until("every object is somewhere", || {
            (0..KEYS).for_each(|key| put(&store, key, key));
            store.stats().stored_keys == KEYS
        });
        store.close().unwrap();
    }
    // And nothing comes back that was removed.
    let store = Store::open(&config).unwrap();
    assert_eq!(store.remove_all(), KEYS);
    store.close().unwrap();
    assert_eq!(Store::open(&config).unwrap().stats().stored_keys, 0);
}

#[test]
fn closing_writes_down_what_was_used_last_where_there_is_not_room_for_all() {
    const KEYS: u64 = 64;
    let scene = Scene::new("hottest");
    let data = vec![7; 64 << 10];
    // Room for half of them.
    let config = scene.config(8 * MIB, 2 * MIB);
    let store = Store::open(&config).unwrap();
    for key in 0..KEYS {
        store.put(&name_of(key), &data, None).unwrap();
    }
    for key in (0..KEYS).step_by(2) {
        store.exist(&name_of(key), 0).unwrap();
    }
    store.close().unwrap();
    let store = Store::open(&config).unwrap();
    for key in 0..KEYS {
        assert_eq!(store.exist(&name_of(key), 0).is_ok(), key % 2 == 0, "key {key}");
    }
}

#[test]
fn a_state_of_another_store_is_refused_or_wiped() {
    let scene = Scene::new("refused");
    let config = scene.config(4 * MIB, 4 * MIB);
    let store = Store::open(&config).unwrap();
    put(&store, 1, 1);
    store.close().unwrap();
    let other = mmc_config { rank: 5, ..config };
    assert_eq!(Store::open(&other).err(), Some(MMC_ERR_INVALID_PARAM));
    let message = last_error();
    assert!(message.contains("of rank 0, and this store is rank 5"), "{message}");
    let mut buffer = vec![0; LARGEST];
    assert!(finds(&Store::open(&config).unwrap(), 1, &mut buffer));

    let wiping = mmc_config {
        state_wipe: MMC_ON,
        ..other
    };
    assert!(!finds(&Store::open(&wiping).unwrap(), 1, &mut buffer));
    // Used once without its state, a file is no longer what its state says.
    let store = Store::open(&wiping).unwrap();
    put(&store, 2, 2);
    store.close().unwrap();
    let stateless = mmc_config {
        state_path: std::ptr::null(),
        ..other
    };
    assert!(!finds(&Store::open(&stateless).unwrap(), 2, &mut buffer));
    assert_eq!(Store::open(&other).err(), Some(MMC_ERR_INVALID_PARAM));
    let message = last_error();
    assert!(message.contains("labelled"), "{message}");
}

#[test]
fn what_was_written_over_since_the_state_is_a_miss() {
    const KEYS: u64 = 100;
    let scene = Scene::new("over");
    let config = scene.config(4 * MIB, 8 * MIB);
    let store = Store::open(&config).unwrap();
    (0..KEYS).for_each(|key| put(&store, key, key));
    store.close().unwrap();
    // As by puts whose records were lost: whole extents, parts of others.
    let data = File::options().write(true).open(scene.directory.join("data")).unwrap();
    data.write_all_at(&vec![0x5a; MIB as usize + 777], 0).unwrap();
    let store = Store::open(&config).unwrap();
    let before = store.stats().stored_keys;
    let mut buffer = vec![0; LARGEST];
    let found = (0..KEYS).filter(|key| finds(&store, *key, &mut buffer)).count() as u64;
    assert!(0 < found && found < before, "{found} of {before}");
    assert_eq!(store.stats().stored_keys, found);
}

/// A process that uses a store until it is killed.
struct Victim {
    process: libc::pid_t,
    news: File,
}

impl Victim {
    /// Starts one. It first looks at everything that is there, and tells how much it found.
    fn start(config: &mmc_config, seed: u64) -> Victim {
        let mut ends = [0; 2];
        // SAFETY: two descriptors for the kernel to fill in.
        assert_eq!(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) }, 0);
        // SAFETY: both are new and nobody else's.
        let (news, tell) = unsafe { (File::from_raw_fd(ends[0]), File::from_raw_fd(ends[1])) };
        // SAFETY: no store is open, and the child uses only one of its own; it ends without running anything of its parent's.
        match unsafe { libc::fork() } {
            -1 => panic!("fork: {}", std::io::Error::last_os_error()),
            0 => {
                let load = AssertUnwindSafe(|| load(config, seed, tell));
                let code = i32::from(catch_unwind(load).is_err());
                // SAFETY: ends the child at once.
                unsafe { libc::_exit(code) };
            }
            process => Victim { process, news },
        }
    }

    /// Waits until it has looked; how many keys it found. `None` when it has ended.
    fn found(&mut self) -> Option<u32> {
        let mut number = [0; 4];
        self.news.read_exact(&mut number).ok()?;
        Some(u32::from_le_bytes(number))
    }

    fn kill(self) {
        let mut status = 0;
        // SAFETY: a child of this process, which is waited for once.
        unsafe {
            libc::kill(self.process, libc::SIGKILL);
            assert_eq!(libc::waitpid(self.process, &mut status, 0), self.process);
        }
        assert!(libc::WIFSIGNALED(status), "it ended by itself, with status {status:#x}");
    }
}

const KEYS: u64 = 600;

/// Looks at every key, tells how many it found, and then does anything with them for ever.
fn load(config: &mmc_config, seed: u64, mut tell: File) {
    let store = Store::open(config).unwrap_or_else(|code| panic!("{code}: {}", last_error()));
    let mut buffer = vec![0; LARGEST];
    let found = (0..KEYS).filter(|key| finds(&store, *key, &mut buffer)).count() as u32;
    tell.write_all(&found.to_le_bytes()).unwrap();
    let work = |seed: u64| {
        let (mut numbers, mut buffer) = (Numbers(seed), vec![0; LARGEST]);
        loop {
            let key = numbers.below(KEYS);
            let name = name_of(key);
            match numbers.below(10) {
                0..4 => put(&store, key, numbers.next()),
                4..6 => drop(store.remove(&name)),
                6..8 => drop(finds(&store, key, &mut buffer)),
                8 => drop(store.evict(&[&name], MMC_MEDIUM_DRAM, MMC_MEDIUM_SSD)),
                _ => drop(store.prefetch(&[&name], MMC_MEDIUM_SSD, MMC_MEDIUM_DRAM)),
            }
        }
    };
    std::thread::scope(|scope| {
        for thread in 0..2 {
            // A thread that fails must end the process, or the other would go on until it is killed and nobody would know.
            scope.spawn(move || {
                if catch_unwind(AssertUnwindSafe(|| work(seed * 2 + thread))).is_err() {
                    // SAFETY: ends the process at once.
                    unsafe { libc::_exit(2) };
                }
            });
        }
    });
}

#[test]
fn a_store_that_is_killed_at_any_instant_leaves_exact_bytes_or_misses() {
    let rounds = std::env::var("MMC_KILL_ROUNDS").map_or(10, |rounds| rounds.parse().unwrap());
    let scene = Scene::new("killed");
    // Smaller together than what is put, so that extents are always being given to other objects.
    let config = scene.config(2 * MIB, 10 * MIB);
    let mut numbers = Numbers(u64::from(std::process::id()));
    let (mut found, mut least) = (0, u32::MAX);
    let begun = Instant::now();
    for round in 0..rounds {
        let mut victim = Victim::start(&config, numbers.next() >> 2);
        let there = victim.found();
        if let Some(there) = there {
            found += u64::from(there);
            if round > 0 {
                least = least.min(there);
            }
            // The instant is what this test is about.
            std::thread::sleep(Duration::from_micros(numbers.below(400_000)));
        }
        victim.kill();
    }
    println!(
        "{rounds} rounds in {:?}: {found} keys found, {least} at least",
        begun.elapsed()
    );
    assert!(found > 0, "nothing was ever found again");
}
