//! Objects on several media: what moves, what must not be seen of it, and what a disk may do wrong.

mod faults;
mod races;

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use super::migrate::Way;
use super::place::PutOptions;
use super::segments::Plan;
use super::{FileSource, PEEK, Source, Store};
use crate::config::Options;
use crate::error::{Error, MMC_ERR_BUSY, MMC_ERR_IO, MMC_ERR_NO_SPACE, MMC_ERR_NOT_FOUND, Result};
use crate::key::Key;
use crate::metrics::Counter;
use crate::segment::Medium;
use crate::segment::allocator::UNIT;
use crate::segment::buffers::Buffers;
use crate::segment::device::{CopyOperation, Device, Direction};
use crate::segment::dram::{Kind, Wishes};
use crate::segment::file::File;
use crate::segment::file::tests::{Scripted, TestPath};

/// How long something may take that is waited for.
const LONG: Duration = Duration::from_secs(20);

/// A store of `dram` units of DRAM, with these watermarks, and the SSD segment of a file.
fn open_with(dram: u64, file: Option<(u64, File)>, change: impl FnOnce(&mut Options)) -> Arc<Store> {
    let mut options = Options {
        dram_size: Some(0),
        watermark_high: Some(100),
        watermark_low: Some(100),
        ..Options::default()
    };
    change(&mut options);
    let store = Store::open(&options.resolve(&|_| None).unwrap().0, None).unwrap();
    let wishes = Wishes {
        kind: Kind::Private,
        huge_pages: false,
        prefault: false,
        numa_node: None,
    };
    if dram > 0 {
        store
            .register_segment(&plan(Medium::Dram, dram), Source::Map(wishes))
            .unwrap();
    }
    if let Some((units, file)) = file {
        let source = Source::File(FileSource::Open(file));
        store.register_segment(&plan(Medium::Ssd, units), source).unwrap();
    }
    store
}

/// One that moves only when it is told to.
fn open(dram: u64, ssd: u64) -> Arc<Store> {
    open_with(dram, Some((ssd, sound(ssd))), |_| {})
}

fn sound(units: u64) -> File {
    Scripted::file(units * UNIT, |_, _| Ok(()))
}

fn plan(medium: Medium, units: u64) -> Plan {
    Plan {
        medium,
        rank: 0,
        capacity: units * UNIT,
    }
}

fn key(text: &str) -> Key<'_> {
    Key::new(text.as_bytes()).unwrap()
}

fn options(medium: Medium) -> PutOptions<'static> {
    PutOptions {
        replicas: 1,
        preferred: &[],
        medium: Some(medium),
        stream: 0,
        guest: None,
    }
}

fn content(name: &str, size: usize) -> Vec<u8> {
    let seed = name
        .bytes()
        .fold(7u32, |seed, byte| seed.wrapping_mul(31) ^ u32::from(byte));
    (0..size as u32)
        .map(|at| (at.wrapping_mul(seed | 1) >> 7) as u8)
        .collect()
}

fn buffers_of<T>(pieces: &mut [&mut [u8]], act: impl FnOnce(&Buffers<'_>) -> T) -> T {
    let data: Vec<_> = pieces
        .iter_mut()
        .map(|piece| piece.as_mut_ptr().cast_const().cast())
        .collect();
    let sizes: Vec<usize> = pieces.iter().map(|piece| piece.len()).collect();
    // SAFETY: the pieces are this call's alone while the buffers live.
    act(&unsafe { Buffers::new(&data, &sizes) }.unwrap())
}

fn put_in(store: &Store, name: &str, size: usize, medium: Medium) -> Result<()> {
    buffers_of(&mut [&mut content(name, size)], |buffers| {
        store.put(&key(name), buffers, &options(medium))
    })
}

fn put(store: &Store, name: &str, size: usize) {
    put_in(store, name, size, Medium::Dram).unwrap();
}

fn get(store: &Store, name: &str, size: usize, flags: u32) -> Result<()> {
    let mut bytes = vec![0; size];
    buffers_of(&mut [&mut bytes], |buffers| store.get(&key(name), buffers, flags, 0))?;
    assert!(bytes == content(name, size), "bytes of {name}");
    Ok(())
}

fn media(store: &Store, name: &str) -> Vec<Medium> {
    let view = store.query(&key(name), PEEK, 0).unwrap();
    let mut media: Vec<Medium> = view.blobs.iter().flatten().map(|blob| blob.medium).collect();
    media.sort_unstable();
    media
}

fn evict(store: &Store, names: &[&str]) -> Vec<i32> {
    let mut results = vec![7; names.len()];
    let way = Way::down(Medium::Dram, Medium::Ssd).unwrap();
    store
        .batch_evict(|number| Key::new(names[number].as_bytes()), way, &mut results)
        .unwrap();
    results
}

fn prefetch(store: &Store, names: &[&str]) -> Vec<i32> {
    let mut results = vec![7; names.len()];
    let way = Way::up(Medium::Ssd, Medium::Dram).unwrap();
    store
        .batch_prefetch(|number| Key::new(names[number].as_bytes()), way, &mut results)
        .unwrap();
    results
}

fn used(store: &Store, medium: Medium) -> u64 {
    let of_medium = store.list_segments().filter(|segment| segment.medium == medium);
    of_medium.map(|segment| segment.allocated / UNIT).sum()
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let end = Instant::now() + LONG;
    while !is_so() {
        assert!(Instant::now() < end, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Nothing is left in it: no key, no byte, no entry of a policy, and every segment can go.
fn assert_nothing_lost(store: &Store) {
    store.remove_all();
    wait_until("everything is free", || {
        store.list_segments().all(|segment| segment.allocated == 0)
    });
    assert_eq!(store.stored_keys(), 0);
    for registered in store.segments.open() {
        assert_eq!(registered.policy().len(), 0, "entries that outlived their copies");
        registered.policy().validate();
    }
    let addresses: Vec<u64> = store.list_segments().map(|segment| segment.address).collect();
    addresses
        .into_iter()
        .for_each(|address| store.unregister_segment(address).unwrap());
    store.stop();
}

/// A disk that stops in writing until it is let on.
#[derive(Default)]
struct Brake {
    /// Whether it stops, and how many writes it holds.
    state: Mutex<(bool, usize)>,
    changed: Condvar,
}

impl Brake {
    fn file(self: &Arc<Self>, units: u64) -> File {
        let brake = Arc::clone(self);
        Scripted::file(units * UNIT, move |direction, _| {
            if direction == Direction::ToSegment {
                let mut state = brake.state.lock().unwrap();
                state.1 += 1;
                brake.changed.notify_all();
                while state.0 {
                    state = brake.changed.wait(state).unwrap();
                }
                state.1 -= 1;
            }
            Ok(())
        })
    }

    fn set(&self, stops: bool) {
        self.state.lock().unwrap().0 = stops;
        self.changed.notify_all();
    }

    fn wait_for_a_write(&self) {
        let mut state = self.state.lock().unwrap();
        while state.1 == 0 {
            state = self.changed.wait(state).unwrap();
        }
    }
}

const SIZES: [usize; 8] = [1, 4095, 4096, 4097, 70_000, 1 << 20, (1 << 20) + 1, 3_333_333];

#[test]
fn what_is_put_on_ssd_is_read_from_there_into_any_buffers() {
    let path = TestPath::new();
    let store = open_with(0, None, |options| {
        options.ssd_path = Some(path.0.clone());
        options.ssd_size = Some(4096 * UNIT);
    });
    for size in SIZES {
        let name = format!("object of {size}");
        put_in(&store, &name, size, Medium::Ssd).unwrap();
        assert_eq!(media(&store, &name), [Medium::Ssd]);
        let bytes = content(&name, size);
        // At an odd address, at an aligned one, in pieces that are and are not, and only the front.
        for shift in [1, 0] {
            let mut memory = vec![0u8; size + 2 * UNIT as usize];
            let begin = memory.as_ptr().align_offset(UNIT as usize) + shift;
            let piece = &mut memory[begin..][..size];
            buffers_of(&mut [piece], |buffers| store.get(&key(&name), buffers, PEEK, 0)).unwrap();
            assert!(memory[begin..][..size] == bytes, "{name}, {shift} from alignment");
        }
        for cut in [1, size / 2, size - 1]
            .into_iter()
            .filter(|cut| (1..size).contains(cut))
        {
            let mut memory = vec![0u8; size];
            let (front, back) = memory.split_at_mut(cut);
            buffers_of(&mut [front, back], |buffers| store.get(&key(&name), buffers, PEEK, 0)).unwrap();
            assert!(memory == bytes, "{name}, cut at {cut}");
            let mut front = vec![0u8; cut];
            let flags = PEEK | super::GET_UP_TO;
            buffers_of(&mut [&mut front], |buffers| store.get(&key(&name), buffers, flags, 0)).unwrap();
            assert!(front == bytes[..cut], "{name}, up to {cut}");
            let view = store.query(&key(&name), PEEK, 0).unwrap().blobs[0].unwrap();
            let mut results = [7];
            let mut back = vec![0u8; size - cut];
            buffers_of(&mut [&mut back], |buffers| {
                let element = |_| Ok((view.address + cut as u64, *buffers));
                store
                    .batch_copy(element, Direction::FromSegment, 0, &mut results)
                    .unwrap();
            });
            assert_eq!(results, [0]);
            assert!(back == bytes[cut..], "{name}, from {cut} on by its address");
        }
    }
    let reserved = store.reserve(&key("in place"), 1, &options(Medium::Ssd), 0).map(drop);
    assert!(matches!(reserved, Err(Error::Unsupported(_))), "{reserved:?}");
    assert_nothing_lost(&store);
}

#[test]
fn an_object_goes_down_and_up_again_when_told_to_and_the_copy_below_stays() {
    let store = open(4096, 4096);
    let names: Vec<String> = SIZES
        .iter()
        .map(|size| format!("a key that is longer than what a slot has room for, of {size}"))
        .collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    names.iter().zip(SIZES).for_each(|(name, size)| put(&store, name, size));
    assert_eq!(evict(&store, &names), [0; 8]);
    assert_eq!(used(&store, Medium::Dram), 0);
    let on_ssd = used(&store, Medium::Ssd);
    for round in 0..12 {
        names
            .iter()
            .zip(SIZES)
            .for_each(|(name, size)| get(&store, name, size, PEEK).unwrap());
        assert_eq!(prefetch(&store, &names), [0; 8], "round {round}");
        assert_eq!(prefetch(&store, &names[..1]), [0], "it is there");
        assert!(
            names
                .iter()
                .all(|name| media(&store, name) == [Medium::Dram, Medium::Ssd])
        );
        names
            .iter()
            .zip(SIZES)
            .for_each(|(name, size)| get(&store, name, size, PEEK).unwrap());
        assert_eq!(used(&store, Medium::Ssd), on_ssd);
        assert_eq!(evict(&store, &names), [0; 8]);
        assert!(names.iter().all(|name| media(&store, name) == [Medium::Ssd]));
    }
    assert_eq!(evict(&store, &["nobody"]), [MMC_ERR_NOT_FOUND]);
    assert_eq!(prefetch(&store, &["nobody", names[0]]), [MMC_ERR_NOT_FOUND, 0]);
    assert_eq!(store.total(Counter::Demotions), 12 * 8 + 8);
    assert_eq!(store.total(Counter::MoveFailures), 0);
    assert_nothing_lost(&store);
}

#[test]
fn a_move_drops_nothing_while_another_segment_has_room_as_it_is() {
    let store = open(16, 2);
    let far = Plan {
        rank: 1,
        ..plan(Medium::Ssd, 16)
    };
    let source = Source::File(FileSource::Open(sound(16)));
    store.register_segment(&far, source).unwrap();
    for name in ["a", "b", "c"] {
        put(&store, name, 8000);
        assert_eq!(evict(&store, &[name]), [0]);
    }
    assert!(["a", "b", "c"].iter().all(|name| media(&store, name) == [Medium::Ssd]));
    assert_eq!(store.total(Counter::EvictOperations), 0);
    assert_nothing_lost(&store);
}

#[test]
fn what_is_held_stays_where_it_is_held() {
    let store = open(16, 16);
    put(&store, "pinned", 5000);
    let pin = store.pin(&key("pinned"), 0).unwrap();
    assert_eq!(evict(&store, &["pinned"]), [MMC_ERR_BUSY]);
    assert_eq!(media(&store, "pinned"), [Medium::Dram, Medium::Ssd]);
    store.unpin(pin.token).unwrap();
    assert_eq!(evict(&store, &["pinned"]), [0]);
    assert_eq!(media(&store, "pinned"), [Medium::Ssd]);
    // On SSD there is nothing to point to, and it is held all the same.
    let pin = store.pin(&key("pinned"), 0).unwrap();
    assert_eq!((pin.pointer, pin.size), (None, 5000));
    store.remove(&key("pinned")).unwrap();
    assert_eq!(used(&store, Medium::Ssd), 2);
    store.unpin(pin.token).unwrap();
    assert_nothing_lost(&store);
}

#[test]
fn a_remove_in_the_middle_of_a_move_wins_and_so_does_what_comes_after_it() {
    let brake = Arc::new(Brake::default());
    let store = open_with(64, Some((64, brake.file(64))), |_| {});
    put(&store, "a", 9000);
    brake.set(true);
    std::thread::scope(|scope| {
        let mover = scope.spawn(|| evict(&store, &["a"]));
        brake.wait_for_a_write();
        get(&store, "a", 9000, 0).expect("it can be read in the middle of its move");
        store.remove(&key("a")).unwrap();
        assert_eq!(used(&store, Medium::Dram), 0, "its memory is back at once");
        // The slot has another object by now, perhaps, and the key for sure.
        buffers_of(&mut [&mut [1u8; 100]], |buffers| {
            store.put(&key("a"), buffers, &options(Medium::Dram))
        })
        .unwrap();
        brake.set(false);
        assert_eq!(mover.join().unwrap(), [MMC_ERR_NOT_FOUND]);
    });
    assert_eq!(media(&store, "a"), [Medium::Dram]);
    assert_eq!(used(&store, Medium::Ssd), 0);
    assert_eq!(evict(&store, &["a"]), [0]);
    assert_nothing_lost(&store);
}

#[test]
fn objects_go_down_before_memory_is_full_and_come_up_when_they_are_used_again() {
    let store = open_with(256, Some((4096, sound(4096))), |options| {
        (options.watermark_high, options.watermark_low) = (Some(80), Some(60));
    });
    let name = |number: u32| format!("{number}");
    for number in 0..1000 {
        put(&store, &name(number), 4096);
        // No faster than the disk: that another test is for.
        wait_until("there is room", || used(&store, Medium::Dram) <= 210);
    }
    assert_eq!(store.total(Counter::SpillDrops), 0);
    assert_eq!(store.stored_keys(), 1000);
    (0..1000).for_each(|number| get(&store, &name(number), 4096, PEEK).unwrap());
    wait_until("memory is at the low watermark", || used(&store, Medium::Dram) <= 205);
    assert_eq!(store.total(Counter::Promotions), 0);
    assert_eq!(media(&store, &name(5)), [Medium::Ssd]);
    get(&store, &name(5), 4096, 0).unwrap();
    assert_eq!(store.total(Counter::Promotions), 0);
    get(&store, &name(5), 4096, 0).unwrap();
    wait_until("it is in memory", || {
        media(&store, &name(5)) == [Medium::Dram, Medium::Ssd]
    });
    wait_until("it is counted", || store.total(Counter::Promotions) == 1);
    let hits = store.total(Counter::SsdHits);
    get(&store, &name(5), 4096, 0).unwrap();
    assert_eq!(store.total(Counter::SsdHits), hits);
    assert_nothing_lost(&store);
}

#[test]
fn a_put_does_not_wait_for_a_disk_that_has_stopped() {
    let brake = Arc::new(Brake::default());
    let store = open_with(64, Some((1024, brake.file(1024))), |options| {
        (options.watermark_high, options.watermark_low) = (Some(50), Some(25));
    });
    brake.set(true);
    for number in 0..1000 {
        put(&store, &format!("{number}"), 4096);
        get(&store, &format!("{number}"), 4096, 0).unwrap();
    }
    assert!(
        store.total(Counter::SpillDrops) > 0,
        "the disk is the limit, and that is said"
    );
    brake.set(false);
    assert_nothing_lost(&store);
}

#[test]
fn moves_keep_to_their_rate() {
    let store = open_with(64, Some((1024, sound(1024))), |options| {
        (options.watermark_high, options.watermark_low) = (Some(50), Some(25));
        options.move_rate = Some(128 * UNIT);
    });
    let begun = Instant::now();
    for number in 0..32u32 {
        put(&store, &format!("{number}"), 4096);
    }
    put(&store, "one more", 4096);
    wait_until("the mover has been here", || used(&store, Medium::Ssd) > 0);
    put(&store, "another", 4096);
    for number in 0..40u32 {
        put(&store, &format!("more {number}"), 4096);
    }
    wait_until("it has moved more", || store.total(Counter::MovedBytes) >= 34 * UNIT);
    let first = 17;
    assert!(
        begun.elapsed() >= Duration::from_secs_f64(f64::from(first) / 128.0),
        "{:?} for 34 units, of which the first 17 take 0.13 s",
        begun.elapsed()
    );
    assert_nothing_lost(&store);
}

#[test]
fn a_segment_that_leaves_waits_for_the_move_into_it() {
    let brake = Arc::new(Brake::default());
    let store = open_with(64, Some((64, brake.file(64))), |_| {});
    let ssd = store
        .list_segments()
        .find(|segment| segment.medium == Medium::Ssd)
        .unwrap()
        .address;
    put(&store, "a", 9000);
    put(&store, "b", 9000);
    assert_eq!(evict(&store, &["b"]), [0]);
    brake.set(true);
    std::thread::scope(|scope| {
        let mover = scope.spawn(|| evict(&store, &["a"]));
        brake.wait_for_a_write();
        let leaving = scope.spawn(|| store.unregister_segment(ssd));
        wait_until("it is hidden", || store.list_segments().count() == 1);
        assert!(!leaving.is_finished());
        brake.set(false);
        leaving.join().unwrap().unwrap();
        assert_eq!(mover.join().unwrap(), [MMC_ERR_NOT_FOUND]);
    });
    assert_eq!(media(&store, "a"), [Medium::Dram]);
    assert_eq!(store.exist(&key("b"), 0), Err(Error::NotFound));
    assert_nothing_lost(&store);
}

/// Memory that only a callback reaches: at addresses that are none of this process.
struct Far {
    base: u64,
    bytes: Mutex<Vec<u8>>,
}

impl Device for Far {
    fn copy(&self, operations: &[CopyOperation], direction: Direction, _: usize) -> Result<()> {
        let mut bytes = self.bytes.lock().unwrap();
        for operation in operations {
            let length = operation.length as usize;
            let (near, far) = match direction {
                Direction::ToSegment => (operation.source, operation.destination),
                Direction::FromSegment => (operation.destination, operation.source),
            };
            let far = &mut bytes[(far - self.base) as usize..][..length];
            let near = std::ptr::with_exposed_provenance_mut::<u8>(near as usize);
            // SAFETY: the tests' buffers are this process's memory.
            unsafe {
                match direction {
                    Direction::ToSegment => near.copy_to_nonoverlapping(far.as_mut_ptr(), length),
                    Direction::FromSegment => near.copy_from_nonoverlapping(far.as_ptr(), length),
                }
            }
        }
        Ok(())
    }
}

#[test]
fn what_was_put_on_a_device_goes_down_two_media_and_is_got_by_way_of_the_device() {
    let store = open_with(32, Some((1024, sound(1024))), |options| {
        (options.watermark_high, options.watermark_low) = (Some(75), Some(50));
    });
    let base = 0x70_0000_0000;
    let far = Far {
        base,
        bytes: Mutex::new(vec![0; 16 * UNIT as usize]),
    };
    let source = Source::Device(base as usize, Box::new(far));
    store.register_segment(&plan(Medium::Hbm, 16), source).unwrap();
    for number in 0..200 {
        put_in(&store, &format!("{number}"), 4000, Medium::Hbm).unwrap();
        wait_until("there is room", || {
            used(&store, Medium::Hbm) <= 12 && used(&store, Medium::Dram) <= 24
        });
    }
    assert_eq!(store.stored_keys() + store.total(Counter::SpillDrops), 200);
    let is_on = |medium| {
        let view = |number: &u32| store.query(&key(&format!("{number}")), PEEK, 0);
        let has =
            |number: &u32| view(number).is_ok_and(|view| view.blobs.iter().flatten().any(|blob| blob.medium == medium));
        (0..200).any(|number| has(&number))
    };
    assert!(Medium::ALL.into_iter().all(is_on));
    let mut found = 0;
    for number in 0..200 {
        match get(&store, &format!("{number}"), 4000, PEEK) {
            Ok(()) => found += 1,
            Err(error) => assert_eq!(error, Error::NotFound),
        }
    }
    assert_eq!(store.total(Counter::HbmHits), found, "each was read from the device");
    assert_nothing_lost(&store);
}
