//! Out of memory: an error, and the store goes on.
//!
//! Two ways to run out: a limit on the process's address space, which is what a host meets, and an allocator that refuses on demand, which
//! finds every allocation of a call. A test that runs out does so in a process of its own.

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ffi::c_void;

use mmc::ffi::batches::{mmc_batch_get, mmc_batch_putv};
use mmc::ffi::inplace::{mmc_batch_copy, mmc_batch_pin};
use mmc::ffi::objects::mmc_list_keys;
use mmc::ffi::report::mmc_last_error;
use mmc::ffi::segments::mmc_list_segments;
use support::*;

/// The system's allocator, which a thread can ask to refuse.
struct Refusing;

thread_local! {
    /// Allocations of this thread until the first that is refused.
    static LEFT: Cell<u64> = const { Cell::new(u64::MAX) };
    static REFUSED: Cell<u64> = const { Cell::new(0) };
}

fn may_allocate() -> bool {
    let left = LEFT.get();
    if left == 0 {
        REFUSED.set(REFUSED.get() + 1);
        return false;
    }
    if left != u64::MAX {
        LEFT.set(left - 1);
    }
    true
}

// SAFETY: the system's allocator does the work; null is how an allocator refuses.
unsafe impl GlobalAlloc for Refusing {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if may_allocate() {
            // SAFETY: the caller's promise is the callee's.
            unsafe { System.alloc(layout) }
        } else {
            std::ptr::null_mut()
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if may_allocate() {
            // SAFETY: the caller's promise is the callee's.
            unsafe { System.alloc_zeroed(layout) }
        } else {
            std::ptr::null_mut()
        }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if may_allocate() {
            // SAFETY: the caller's promise is the callee's.
            unsafe { System.realloc(pointer, layout, size) }
        } else {
            std::ptr::null_mut()
        }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is the callee's.
        unsafe { System.dealloc(pointer, layout) };
    }
}

#[global_allocator]
static ALLOCATOR: Refusing = Refusing;

/// Runs `call` with every allocation from the `number`th on refused; also whether there were any.
fn refusing<T>(number: u64, call: impl FnOnce() -> T) -> (T, bool) {
    let before = REFUSED.get();
    LEFT.set(number);
    let result = call();
    LEFT.set(u64::MAX);
    (result, REFUSED.get() > before)
}

/// What is called with memory refused: it is given the number of the try, and puts under no key of another one's.
type Call<'a> = Box<dyn FnMut(usize) -> Outcome + 'a>;

/// Runs `call` again and again, each time with one allocation more allowed, until it needs no more.
fn at_every_allocation(what: &str, mut call: Call<'_>) {
    for number in 0.. {
        let (result, was_refused) = refusing(number, || call(number as usize));
        if !was_refused {
            return result.unwrap_or_else(|code| panic!("{what}: {code}: {}", last_error()));
        }
        // The parent shows this when the process ends at the next one.
        eprintln!("{what}: {result:?} without allocation {number}");
        assert!(
            [Ok(()), Err(MMC_ERR_OUT_OF_MEMORY)].contains(&result),
            "{what}: {result:?}"
        );
    }
}

fn outcome(code: i32) -> Outcome {
    if code == MMC_OK { Ok(()) } else { Err(code) }
}

/// What must fail, memory or not.
fn fails<T: std::fmt::Debug>(result: Outcome<T>, code: i32) -> Outcome {
    assert_eq!(result.map(drop), Err(code));
    Ok(())
}

#[test]
fn no_refused_allocation_of_a_call_ends_the_process() {
    in_child("no_refused_allocation_of_a_call_ends_the_process", || {
        let device = Device::new(0x10_0000_0000, 1 << 20);
        let store = Store::empty();
        store.register(&dram(0, 1 << 20)).unwrap();
        store.register(&dram(1, 1 << 20)).unwrap();
        store.register(&device.options(MMC_MEDIUM_HBM, 0)).unwrap();
        let with = |medium: u32, replicas: u32| mmc_put_options {
            medium,
            replicas,
            ..put_options()
        };
        let (plain, device, two) = (with(0, 1), with(MMC_MEDIUM_HBM, 1), with(0, 2));
        // Nothing is to be allocated by this program while memory is refused, so all there is is made before.
        const BATCH: usize = 10;
        let names: Vec<String> = (0..1000).map(|number| format!("{number:0>200}")).collect();
        let keys: Vec<mmc_key> = names.iter().map(|name| key_of(name)).collect();
        let data = content(1, 5000);
        let (pointers, sizes, ones) = (
            vec![data.as_ptr().cast(); BATCH],
            vec![data.len(); BATCH],
            vec![1usize; BATCH],
        );
        let (mut results, mut true_sizes) = (vec![0i32; BATCH], vec![0u64; BATCH]);
        let mut memory = vec![0u8; data.len() * BATCH];
        let targets: Vec<*mut c_void> = memory
            .chunks_mut(data.len())
            .map(|chunk| chunk.as_mut_ptr().cast())
            .collect();
        let mut out = vec![0u8; data.len()];
        // SAFETY: a view is valid when it is zero.
        let mut views: Vec<mmc_view> = vec![unsafe { std::mem::zeroed() }; BATCH];
        views[0].struct_size = size_of::<mmc_view>() as u32;
        let all: &dyn Fn(&[i32]) -> Outcome = &|results| {
            results
                .iter()
                .find(|code| **code != MMC_OK)
                .map_or(Ok(()), |code| Err(*code))
        };

        let name = |number: usize| names[number].as_str();
        for options in [&plain, &device, &two] {
            let put = |number| store.put(name(number), data, Some(options));
            at_every_allocation("put", Box::new(put));
            store.put("there", data, Some(options)).unwrap();
            at_every_allocation("get", Box::new(|_| store.get("there", &mut out, 0).map(drop)));
            at_every_allocation("pin", Box::new(|_| store.unpin(store.pin("there", 0)?.token)));
            let lease = |_| {
                store.lease("there", 1000)?;
                store.unlease("there")
            };
            at_every_allocation("lease", Box::new(lease));
            at_every_allocation("query", Box::new(|_| store.query("there", 0).map(drop)));
            at_every_allocation("exist", Box::new(|_| store.exist("there", 0)));
            store.remove_all();
            let reserve = |number| store.commit(store.reserve(name(number), 4, Some(options))?.token);
            at_every_allocation("reserve", Box::new(reserve));
            at_every_allocation("remove", Box::new(|number| store.remove(name(number)).or(Ok(()))));
            store.remove_all();
            let put_many = |_: usize| {
                store.remove_all();
                let (keys, data) = (keys.as_ptr(), pointers.as_ptr());
                let (ones, sizes, results_at) = (ones.as_ptr(), sizes.as_ptr(), results.as_mut_ptr());
                // SAFETY: arrays of `BATCH` elements.
                outcome(unsafe {
                    mmc_batch_putv(store.handle(), keys, BATCH, ones, data, sizes, options, 0, results_at)
                })?;
                all(&results)
            };
            at_every_allocation("batch_putv", Box::new(put_many));
            let get_many = |_: usize| {
                let (keys, data, sizes) = (keys.as_ptr(), targets.as_ptr(), sizes.as_ptr());
                let (options, results_at, sizes_at) = (std::ptr::null(), results.as_mut_ptr(), true_sizes.as_mut_ptr());
                // SAFETY: arrays of `BATCH` elements.
                outcome(unsafe {
                    mmc_batch_get(
                        store.handle(),
                        keys,
                        BATCH,
                        data,
                        sizes,
                        0,
                        options,
                        results_at,
                        sizes_at,
                    )
                })?;
                all(&results)
            };
            at_every_allocation("batch_get", Box::new(get_many));
            let address_of = |name: &String| store.query(name, 0).unwrap().blobs[0].address;
            let there: Vec<u64> = names[..BATCH].iter().map(address_of).collect();
            let view = store.reserve("lent", data.len() as u64, Some(options)).unwrap();
            let lent = vec![view.address; BATCH];
            for (places, direction) in [(there, MMC_COPY_FROM_SEGMENT), (lent, MMC_COPY_TO_SEGMENT)] {
                let copy_many = |_: usize| {
                    let (places, data, sizes) = (places.as_ptr(), targets.as_ptr(), sizes.as_ptr());
                    let (options, results_at) = (std::ptr::null(), results.as_mut_ptr());
                    // SAFETY: arrays of `BATCH` elements.
                    outcome(unsafe {
                        mmc_batch_copy(
                            store.handle(),
                            places,
                            BATCH,
                            data,
                            sizes,
                            direction,
                            0,
                            options,
                            results_at,
                        )
                    })?;
                    all(&results)
                };
                at_every_allocation("batch_copy", Box::new(copy_many));
            }
            store.abort(view.token).unwrap();
            let pin_many = |_: usize| {
                let (keys, views_at, results_at) = (keys.as_ptr(), views.as_mut_ptr(), results.as_mut_ptr());
                // SAFETY: arrays of `BATCH` elements.
                outcome(unsafe { mmc_batch_pin(store.handle(), keys, BATCH, 0, views_at, results_at) })?;
                let result = all(&results);
                for view in views.iter().filter(|view| view.token != 0) {
                    store.unpin(view.token).unwrap();
                }
                result
            };
            at_every_allocation("batch_pin", Box::new(pin_many));
            store.remove_all();
        }

        let evict = |number: usize| {
            let all_of_it = content(2, (1 << 20) - 4096);
            store.put(name(number), all_of_it, None)
        };
        (500..900).for_each(|number| store.put(name(number), data, None).unwrap());
        at_every_allocation("a put that evicts", Box::new(evict));
        store.remove_all();
        at_every_allocation(
            "stats",
            Box::new(|_| {
                store.stats();
                Ok(())
            }),
        );
        at_every_allocation(
            "remove_all",
            Box::new(|_| {
                store.remove_all();
                Ok(())
            }),
        );
        unsafe extern "C" fn go_on(_: *mut c_void, _: *const mmc_key, _: usize) -> i32 {
            0
        }
        // SAFETY: the callback takes anything.
        let list = |_| outcome(unsafe { mmc_list_keys(store.handle(), Some(go_on), std::ptr::null_mut()) });
        at_every_allocation("list_keys", Box::new(list));
        let mut count = 0;
        let (infos, count) = (std::ptr::null_mut(), &raw mut count);
        // SAFETY: only the count is asked for.
        let list = |_| outcome(unsafe { mmc_list_segments(store.handle(), infos, 0, count) });
        at_every_allocation("list_segments", Box::new(list));

        // An error has words, or it has none; it is never the end.
        at_every_allocation(
            "a miss",
            Box::new(|_| fails(store.get("none", &mut out, 0), MMC_ERR_NOT_FOUND)),
        );
        at_every_allocation(
            "a bad key",
            Box::new(|_| fails(store.exist("", 0), MMC_ERR_INVALID_PARAM)),
        );
        at_every_allocation("a bad token", Box::new(|_| fails(store.unpin(7), MMC_ERR_NOT_FOUND)));
        at_every_allocation(
            "no segment",
            Box::new(|_| fails(store.unregister(7), MMC_ERR_NOT_FOUND)),
        );
        let too_large = |_| match store.put("large", content(0, 2 << 20), None) {
            Err(MMC_ERR_NO_SPACE | MMC_ERR_OUT_OF_MEMORY) => Ok(()),
            other => panic!("{other:?}"),
        };
        at_every_allocation("too large", Box::new(too_large));
        let words = |_| {
            store.exist("", 0).unwrap_err();
            // SAFETY: never null, valid until the next failure.
            let words = unsafe { std::ffi::CStr::from_ptr(mmc_last_error()) };
            assert!(!words.is_empty());
            Ok(())
        };
        at_every_allocation("last_error", Box::new(words));

        assert_eq!(store.stats().allocated, 0, "what failed gave everything back");
        store.put("after", data, None).unwrap();
        store.get("after", &mut out, 0).unwrap();
        assert!(out == data);
    });
}

/// Limits this process's address space to what it has and `more` bytes, until this is dropped.
struct Limited {
    before: libc::rlimit,
}

impl Limited {
    fn to(more: u64) -> Limited {
        let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
        let pages: u64 = pages.split(' ').next().unwrap().parse().unwrap();
        let mut before = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        let limit = libc::rlimit {
            rlim_cur: pages * 4096 + more,
            rlim_max: libc::RLIM_INFINITY,
        };
        // SAFETY: two structs of its own; only the soft limit changes.
        unsafe {
            assert_eq!(libc::getrlimit(libc::RLIMIT_AS, &mut before), 0);
            let limit = libc::rlimit {
                rlim_max: before.rlim_max,
                ..limit
            };
            assert_eq!(libc::setrlimit(libc::RLIMIT_AS, &limit), 0);
        }
        Limited { before }
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        // SAFETY: what it was.
        unsafe { libc::setrlimit(libc::RLIMIT_AS, &self.before) };
    }
}

#[test]
fn a_segment_that_cannot_be_mapped_is_refused_and_the_store_goes_on() {
    in_child(
        "a_segment_that_cannot_be_mapped_is_refused_and_the_store_goes_on",
        || {
            let store = Store::with_dram(1 << 20);
            let data = content(1, 10_000);
            store.put("before", data, None).unwrap();
            let limited = Limited::to(256 << 20);
            for memory in [MMC_MEMORY_PRIVATE, MMC_MEMORY_MEMFD] {
                let large = mmc_segment_options {
                    memory,
                    ..dram(1, 1 << 30)
                };
                assert_eq!(store.register(&large), Err(MMC_ERR_OUT_OF_MEMORY));
                assert!(
                    last_error().contains("segment of 1073741824 bytes can't be mapped"),
                    "{}",
                    last_error()
                );
                let config = mmc_config {
                    dram_size: 1 << 30,
                    memory,
                    ..config()
                };
                assert_eq!(Store::open(&config).err(), Some(MMC_ERR_OUT_OF_MEMORY));
            }
            assert_eq!(store.segments().len(), 1);
            store.register(&dram(1, 1 << 20)).unwrap();
            store.put("after", data, None).unwrap();
            drop(limited);
            store.register(&dram(2, 1 << 30)).unwrap();
            let mut copy = vec![0; data.len()];
            for key in ["before", "after"] {
                store.get(key, &mut copy, 0).unwrap();
                assert!(copy == data);
            }
        },
    );
}

/// A key without an allocation.
fn numbered(buffer: &mut [u8; 16], number: u64) -> &str {
    use std::io::Write;
    let mut rest = &mut buffer[..];
    write!(rest, "key-{number:012}").unwrap();
    std::str::from_utf8(buffer).unwrap()
}

/// Every table must be the one that can't grow at some limit: so there are many.
#[test]
fn tables_that_cannot_grow_are_an_error_and_the_store_goes_on() {
    unsafe extern "C" fn copy_nothing(
        _: *mut c_void,
        _: *const mmc_copy_operation,
        _: usize,
        _: u32,
        _: *mut c_void,
    ) -> i32 {
        0
    }
    in_child("tables_that_cannot_grow_are_an_error_and_the_store_goes_on", || {
        let mut most = 0;
        for step in 1..13 {
            let store = Store::empty();
            // Memory that is not there: its allocator counts a million units, and nobody touches them.
            let options = mmc_segment_options {
                medium: MMC_MEDIUM_HBM,
                base: std::ptr::without_provenance_mut(0x10_0000_0000),
                copy: Some(copy_nothing),
                ..dram(0, 4 << 30)
            };
            store.register(&options).unwrap();
            let mut name = [0; 16];
            store.put("first", b"x", None).unwrap();
            let limited = Limited::to(step * (700 << 10));
            let mut put = 0;
            let code = loop {
                match store.put(numbered(&mut name, put), b"x", None) {
                    Ok(()) => put += 1,
                    Err(code) => break code,
                }
            };
            assert_eq!(code, MMC_ERR_OUT_OF_MEMORY, "after {put} objects");
            assert_eq!(store.exist(numbered(&mut name, put), 0), Err(MMC_ERR_NOT_FOUND));
            let mut byte = [0];
            for number in 0..put {
                assert_eq!(
                    store.get(numbered(&mut name, number), &mut byte, 0),
                    Ok(1),
                    "object {number} of {put}"
                );
            }
            // What is given back can be used again.
            for number in 0..put.min(1000) {
                store.remove(numbered(&mut name, number)).unwrap();
                store.put(numbered(&mut name, number), b"x", None).unwrap();
            }
            drop(limited);
            store.put(numbered(&mut name, put), b"x", None).unwrap();
            assert_eq!(store.stats().stored_keys, put + 2);
            assert_eq!(store.list_keys().len() as u64, put + 2);
            assert_eq!(store.remove_all(), put + 2);
            assert_eq!(store.stats().allocated, 0);
            most = most.max(put);
        }
        assert!(most > 30_000, "the tables grew to {most} objects");
    });
}
