//! `fork` in a host with live threads: the parent pays nothing for a child, and a child meets errors and never a deadlock.
//!
//! Each test is a process of its own, so that it knows which threads there are when it forks.

mod support;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};

use mmc::ffi::lifetime::mmc_uninit;
use mmc::ffi::report::{mmc_http_address, mmc_set_event_callback, mmc_stats};
use support::*;

/// A child of this process; waited for, or killed when it is dropped.
struct Child(libc::pid_t);

impl Child {
    /// Forks. The child runs `body` and ends; after half a minute it is killed, as it must be waiting for something that never comes.
    fn run(body: impl FnOnce()) -> Child {
        // SAFETY: what the child does here is what this file is about; it ends without running anything of its parent's.
        match unsafe { libc::fork() } {
            -1 => panic!("fork: {}", std::io::Error::last_os_error()),
            0 => {
                // SAFETY: the default action of the alarm ends the child.
                unsafe { libc::alarm(30) };
                let code = if catch_unwind(AssertUnwindSafe(body)).is_ok() {
                    0
                } else {
                    1
                };
                // SAFETY: ends the child at once.
                unsafe { libc::_exit(code) };
            }
            child => Child(child),
        }
    }

    /// A child that does nothing until it is killed.
    fn idle() -> Child {
        Child::run(|| {
            loop {
                // SAFETY: waits for a signal.
                unsafe { libc::pause() };
            }
        })
    }

    /// Waits for the child to end well.
    fn join(self) {
        let mut status = 0;
        // SAFETY: a child of this process, which is waited for once.
        let waited = unsafe { libc::waitpid(self.0, &mut status, 0) };
        assert_eq!(waited, self.0);
        std::mem::forget(self);
        assert_eq!(status, 0, "the child ended with status {status:#x}");
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // SAFETY: a child of this process that nobody has waited for.
        unsafe {
            libc::kill(self.0, libc::SIGKILL);
            libc::waitpid(self.0, std::ptr::null_mut(), 0);
        }
    }
}

/// Page faults of this thread that needed no I/O.
fn faults() -> u64 {
    // SAFETY: a struct of integers, to be filled.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        assert_eq!(libc::getrusage(libc::RUSAGE_THREAD, &mut usage), 0);
        usage
    };
    usage.ru_minflt as u64
}

/// Faults of writing all of a segment's memory once more by puts, with a child alive that was forked before.
fn faults_of_puts_beside_a_child(segment: &mmc_segment_options) -> u64 {
    const OBJECT: usize = 64 << 10;
    // So that each round writes to all of the memory.
    let store = Store::open(&mmc_config {
        dram_size: MMC_NO_DRAM,
        watermark_high: 100,
        eviction: MMC_EVICTION_PREFIX,
        ..config()
    })
    .unwrap();
    store.register(segment).unwrap();
    let objects = segment.capacity / OBJECT as u64;
    let mut round = 0;
    let mut write_all = || {
        round += 1;
        for number in 0..objects {
            store
                .put(&format!("{round}-{number}"), content(number, OBJECT), None)
                .unwrap();
        }
    };
    write_all();
    write_all();
    let child = Child::idle();
    let before = faults();
    write_all();
    let faults = faults() - before;
    drop(child);
    faults
}

#[test]
fn puts_beside_a_child_copy_no_page_of_the_librarys_memory() {
    in_child("puts_beside_a_child_copy_no_page_of_the_librarys_memory", || {
        const BYTES: u64 = 32 << 20;
        const PAGES: u64 = BYTES / 4096;
        for memory in [MMC_MEMORY_PRIVATE, MMC_MEMORY_MEMFD] {
            let segment = mmc_segment_options {
                memory,
                huge_pages: MMC_OFF,
                ..dram(0, BYTES)
            };
            let faults = faults_of_puts_beside_a_child(&segment);
            // The library's tables are copied, a page once: they are 0.3 % of the memory.
            assert!(
                faults < PAGES / 20,
                "memory {memory}: {faults} faults for {PAGES} pages"
            );
        }
        // The host's own memory is copied: what is measured is there to be measured.
        let memory = HostMemory::new(BYTES);
        let segment = mmc_segment_options {
            base: memory.base(),
            ..dram(0, BYTES)
        };
        let is_small = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled")
            .is_ok_and(|text| !text.contains("[always]"));
        let faults = faults_of_puts_beside_a_child(&segment);
        let least = if is_small { PAGES / 2 } else { BYTES / (2 << 20) / 2 };
        assert!(faults >= least, "host's memory: {faults} faults for {PAGES} pages");
    });
}

/// Every call with a handle of the parent's gets its code, and none waits.
fn refuses_everything(store: &Store, token: u64, address: u64) {
    let mut byte = [0];
    let mut statistics: mmc_statistics = {
        // SAFETY: integers.
        let zeroed: mmc_statistics = unsafe { std::mem::zeroed() };
        mmc_statistics {
            struct_size: size_of::<mmc_statistics>() as u32,
            ..zeroed
        }
    };
    let handle = store.handle();
    // SAFETY: out-pointers are valid, or null where that is allowed.
    let raw = unsafe {
        [
            mmc_stats(handle, &mut statistics),
            mmc_http_address(handle, std::ptr::null_mut(), 0, std::ptr::null_mut()),
            mmc_set_event_callback(handle, None, std::ptr::null_mut()),
            mmc_uninit(handle),
        ]
    };
    assert_eq!(raw, [MMC_ERR_FORKED; 4]);
    let results = [
        store.put("new", b"x", None),
        store.putv("new", &[b"x", b"y"], None),
        store.get("there", &mut byte, 0).map(drop),
        store.exist("there", 0),
        store.query("there", 0).map(drop),
        store.remove("there"),
        store.reserve("new", 1, None).map(drop),
        store.commit(token),
        store.abort(token),
        store.pin("there", 0).map(drop),
        store.unpin(token),
        store.lease("there", 1000),
        store.unlease("there"),
        store.batch_put(&["a", "b"], &[b"x", b"y"], None).map(drop),
        store.batch_exist(&["there"], 0).map(drop),
        store.batch_unpin(&[token]).map(drop),
        store.register(&dram(1, 4096)).map(drop),
        store.unregister(address),
    ];
    assert_eq!(results, [Err(MMC_ERR_FORKED); 18]);
    assert!(last_error().contains("fork"), "{}", last_error());
}

/// A store of one's own does what a store does.
fn works(rank: u32) {
    let store = Store::open(&mmc_config {
        dram_size: 1 << 20,
        rank,
        ..config()
    })
    .unwrap();
    let data = content(u64::from(rank), 100_000);
    for number in 0..30 {
        // The pool holds ten of them.
        store.put(&format!("own-{number}"), data, None).unwrap();
    }
    let mut copy = vec![0; data.len()];
    store.get("own-29", &mut copy, 0).unwrap();
    assert!(copy == data);
    store.close().unwrap();
}

#[test]
fn a_child_is_refused_the_parents_store_and_has_one_of_its_own() {
    in_child("a_child_is_refused_the_parents_store_and_has_one_of_its_own", || {
        let store = Store::with_dram(1 << 20);
        let data = content(1, 10_000);
        store.put("there", data, None).unwrap();
        let pin = store.pin("there", 0).unwrap();
        let address = store.segments()[0].address;
        Child::run(|| {
            refuses_everything(&store, pin.token, address);
            works(1);
            // A child of the child is refused both.
            let own = Store::with_dram(1 << 20);
            Child::run(|| {
                refuses_everything(&store, pin.token, address);
                refuses_everything(&own, pin.token, address);
                works(2);
            })
            .join();
            own.put("own", b"x", None).unwrap();
            own.close().unwrap();
        })
        .join();
        // Nothing that the child did has reached the parent.
        let mut copy = vec![0; data.len()];
        store.get("there", &mut copy, 0).unwrap();
        assert!(copy == data);
        store.unpin(pin.token).unwrap();
        assert_eq!(store.list_keys(), ["there"]);
        works(0);
    });
}

/// Locks of the store are in every state when it forks.
#[test]
fn a_child_forked_while_threads_are_at_work_never_waits_for_them() {
    in_child("a_child_forked_while_threads_are_at_work_never_waits_for_them", || {
        let store = Store::with_dram(1 << 20);
        // This also makes the pool of content, which a child could wait for ever for if a thread were just making it.
        store.put("there", content(0, 1), None).unwrap();
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for thread in 0..3u64 {
                let (store, is_over) = (&store, &is_over);
                scope.spawn(move || {
                    let mut number = 0u64;
                    let mut copy = vec![0; 50_000];
                    while !is_over.load(Ordering::Relaxed) {
                        number += 1;
                        let key = format!("{thread}-{}", number % 50);
                        let size = 1 + (number * 7919 % 50_000) as usize;
                        let _ = store.put(&key, content(number, size), None);
                        let _ = store.get(&key, &mut copy, MMC_GET_UP_TO);
                        if let Ok(pin) = store.pin(&key, 0) {
                            store.unpin(pin.token).unwrap();
                        }
                        // Stores come and go, too.
                        if number.is_multiple_of(64) {
                            Store::with_dram(1 << 20).close().unwrap();
                        }
                        if number.is_multiple_of(3) {
                            let _ = store.remove(&key);
                        }
                    }
                });
            }
            let children = catch_unwind(AssertUnwindSafe(|| {
                for _ in 0..100 {
                    Child::run(|| {
                        refuses_everything(&store, 1 << 24 | 1, 1 << 40);
                        works(3);
                    })
                    .join();
                }
            }));
            is_over.store(true, Ordering::Relaxed);
            children.unwrap();
        });
        assert!(store.stats().evict_operations > 0);
    });
}
