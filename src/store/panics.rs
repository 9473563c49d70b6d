//! A panic in the middle of an operation: nothing half-written is seen, the key is free, the space comes back, and the store goes on.
//!
//! What panics here is a device, which is called when keys are taken and memory is reserved or being read: the point of an operation
//! from which it has the most to give back.

use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::place::PutOptions;
use super::segments::Plan;
use super::{QUERY_RESERVED, Source, Store};
use crate::config::Options;
use crate::error::{Error, Result};
use crate::key::Key;
use crate::segment::Medium;
use crate::segment::allocator::UNIT;
use crate::segment::buffers::Buffers;
use crate::segment::device::{CopyOperation, Device, Direction, is_in_callback};

const UNITS: u64 = 16;

/// A device that copies nothing, and panics when it is told to.
struct Fragile {
    panics: Arc<AtomicBool>,
}

impl Device for Fragile {
    fn copy(&self, _: &[CopyOperation], _: Direction, _: usize) -> Result<()> {
        assert!(!self.panics.load(Ordering::Relaxed), "the device panics");
        Ok(())
    }
}

/// A store of two devices, on ranks 0 and 1, of which the second can panic.
struct Scene {
    store: Arc<Store>,
    panics: Arc<AtomicBool>,
}

impl Scene {
    fn new() -> Scene {
        let options = Options {
            dram_size: Some(0),
            watermark_high: Some(100),
            watermark_low: Some(100),
            ..Options::default()
        };
        let store = Store::open(&options.resolve(&|_| None).unwrap().0, None).unwrap();
        let panics = Arc::new(AtomicBool::new(false));
        for rank in 0..2 {
            let plan = Plan {
                medium: Medium::Hbm,
                rank,
                capacity: UNITS * UNIT,
            };
            let panics = if rank == 1 { Arc::clone(&panics) } else { Arc::default() };
            let source = Source::Device(1 << 30, Box::new(Fragile { panics }));
            store.register_segment(&plan, source).unwrap();
        }
        Scene { store, panics }
    }

    /// Runs `act` with the second device panicking; it must not survive that.
    fn panicking<T>(&self, act: impl FnOnce(&Store) -> T) {
        self.panics.store(true, Ordering::Relaxed);
        let result = catch_unwind(AssertUnwindSafe(|| act(&self.store)));
        self.panics.store(false, Ordering::Relaxed);
        let words = result.err().expect("the device's panic comes through");
        assert_eq!(words.downcast_ref::<&str>(), Some(&"the device panics"));
        assert!(!is_in_callback(), "this thread is in no callback any more");
    }

    /// The key is free and nothing of it can be seen.
    fn assert_absent(&self, name: &str) {
        let key = key(name);
        assert_eq!(
            self.store.query(&key, QUERY_RESERVED, 0).err(),
            Some(Error::NotFound),
            "{name}"
        );
        assert_eq!(self.store.exist(&key, 0), Err(Error::NotFound), "{name}");
        assert_eq!(get(&self.store, name), Err(Error::NotFound), "{name}");
    }

    fn allocated(&self) -> u64 {
        self.store.list_segments().map(|segment| segment.allocated).sum()
    }
}

impl Drop for Scene {
    /// The store does all it did before, and nothing is left behind.
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        self.store.remove_all();
        assert_eq!((self.allocated(), self.store.stored_keys()), (0, 0));
        for number in 0..4 {
            put(&self.store, &format!("whole {number}"), UNITS, 2).unwrap();
            get(&self.store, &format!("whole {number}")).unwrap();
        }
        let statistics = self.store.statistics();
        assert_eq!((statistics.pins, statistics.reservations, statistics.leases), (0, 0, 0));
        for segment in self.store.list_segments() {
            self.store.unregister_segment(segment.address).unwrap();
        }
        self.store.stop();
    }
}

fn key(text: &str) -> Key<'_> {
    Key::new(text.as_bytes()).unwrap()
}

fn options(replicas: usize) -> PutOptions<'static> {
    PutOptions {
        replicas,
        preferred: &[],
        medium: None,
        stream: 0,
        guest: None,
    }
}

/// One buffer at an address that nobody reads.
fn with_buffer<T>(bytes: usize, act: impl FnOnce(&Buffers<'_>) -> T) -> T {
    let (data, sizes) = ([std::ptr::without_provenance::<c_void>(4096)], [bytes]);
    // SAFETY: only devices are given the address, and these don't use it.
    act(&unsafe { Buffers::new(&data, &sizes) }.unwrap())
}

fn put(store: &Store, name: &str, units: u64, replicas: usize) -> Result<()> {
    with_buffer((units * UNIT) as usize, |buffers| {
        store.put(&key(name), buffers, &options(replicas))
    })
}

fn copy_at(store: &Store, address: u64, direction: Direction) -> i32 {
    let mut results = [7];
    with_buffer(UNIT as usize, |buffers| {
        let element = |_| Ok((address, *buffers));
        store.batch_copy(element, direction, 0, &mut results).unwrap();
    });
    results[0]
}

fn get(store: &Store, name: &str) -> Result<u64> {
    with_buffer(1, |buffers| store.get(&key(name), buffers, super::GET_UP_TO, 0))
}

#[test]
fn a_put_that_panics_never_was() {
    let scene = Scene::new();
    put(&scene.store, "kept", 3, 2).unwrap();
    scene.panicking(|store| put(store, "lost", 5, 2));
    scene.assert_absent("lost");
    assert_eq!(scene.allocated(), 6 * UNIT);
    put(&scene.store, "lost", 5, 2).unwrap();
    get(&scene.store, "kept").unwrap();
}

#[test]
fn a_batch_that_panics_never_was() {
    let scene = Scene::new();
    let names: Vec<String> = (0..6).map(|number| format!("element {number}")).collect();
    let batch = |store: &Store| {
        let mut results = [7; 6];
        with_buffer(UNIT as usize, |buffers| {
            let element = |number: usize| Ok((key(&names[number]), *buffers));
            store.batch_put(element, &options(2), &mut results).unwrap();
        });
        results
    };
    scene.panicking(batch);
    names.iter().for_each(|name| scene.assert_absent(name));
    assert_eq!((scene.allocated(), scene.store.stored_keys()), (0, 0));
    assert_eq!(batch(&scene.store), [0; 6]);
}

#[test]
fn a_commit_that_panics_gives_its_reservation_up() {
    let scene = Scene::new();
    let view = scene.store.reserve(&key("reserved"), 5 * UNIT, &options(2), 0).unwrap();
    scene.panicking(|store| store.commit(view.token));
    scene.assert_absent("reserved");
    assert_eq!(scene.allocated(), 0);
    assert!(
        matches!(scene.store.abort(view.token), Err(Error::Unknown(_))),
        "the token is void"
    );
}

#[test]
fn a_get_that_panics_lets_go_of_what_it_read() {
    let scene = Scene::new();
    let only_second = PutOptions {
        preferred: &[1],
        ..options(1)
    };
    let elsewhere = |name: &str| {
        with_buffer(UNIT as usize, |buffers| {
            scene.store.put(&key(name), buffers, &only_second)
        })
    };
    ["one", "other"].iter().for_each(|name| elsewhere(name).unwrap());
    scene.panicking(|store| get(store, "one"));
    scene.panicking(|store| {
        with_buffer(UNIT as usize, |buffers| {
            let element = |number: usize| Ok((key(["one", "other"][number]), *buffers));
            store.batch_get(element, 0, 0, &mut [7; 2], None).unwrap();
        });
    });
    get(&scene.store, "one").unwrap();
    scene.store.remove(&key("one")).unwrap();
    assert_eq!(
        scene.allocated(),
        UNIT,
        "no reader keeps the memory of what was removed"
    );
}

#[test]
fn a_copy_by_address_that_panics_lets_go_of_what_it_copied() {
    let scene = Scene::new();
    let only_second = PutOptions {
        preferred: &[1],
        ..options(1)
    };
    let view = scene.store.reserve(&key("lent"), 2 * UNIT, &only_second, 0).unwrap();
    scene.panicking(|store| copy_at(store, view.address + 5, Direction::ToSegment));
    assert_eq!(copy_at(&scene.store, view.address + 5, Direction::ToSegment), 0);
    scene.store.commit(view.token).unwrap();
    scene.panicking(|store| copy_at(store, view.address, Direction::FromSegment));
    assert_eq!(copy_at(&scene.store, view.address, Direction::FromSegment), 0);
    scene.store.remove(&key("lent")).unwrap();
    assert_eq!(scene.allocated(), 0, "nobody keeps the memory of what was removed");
}
