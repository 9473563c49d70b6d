//! Operations that meet: what must hold when one of them is in the middle of its steps.
//!
//! Where the middle can be reached from here, a test stops there and lets the other operation run; where it can't, threads run both
//! for a moment, and the store is looked over afterwards: every byte right, and nothing lost.

use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use super::get::Reading;
use super::place::PutOptions;
use super::remove::NamedCopy;
use super::segments::Plan;
use super::{Source, Store};
use crate::config::Options;
use crate::error::{Error, MMC_ERR_NOT_FOUND, MMC_ERR_STATE, Result};
use crate::event::{Event, Listener};
use crate::key::Key;
use crate::segment::Medium;
use crate::segment::allocator::{Owner, UNIT};
use crate::segment::buffers::Buffers;
use crate::segment::device::{CopyOperation, Device, Direction};
use crate::segment::dram::{Kind, Wishes};

/// How long threads run against each other in one test.
const MOMENT: Duration = Duration::from_millis(1500);

const OPTIONS: PutOptions<'static> = PutOptions {
    replicas: 1,
    preferred: &[],
    medium: None,
    stream: 0,
    guest: None,
};

/// A store of DRAM segments of so many units, on ranks from 0 up, that evicts on demand only.
fn open(segments: &[u64]) -> Arc<Store> {
    let options = Options {
        dram_size: Some(0),
        watermark_high: Some(100),
        watermark_low: Some(100),
        ..Options::default()
    };
    let store = Store::open(&options.resolve(&|_| None).unwrap().0, None).unwrap();
    for (rank, units) in segments.iter().enumerate() {
        store.register_segment(&plan(rank, *units), mapped()).unwrap();
    }
    store
}

fn plan(rank: usize, units: u64) -> Plan {
    Plan {
        medium: Medium::Dram,
        rank: rank as u32,
        capacity: units * UNIT,
    }
}

fn mapped() -> Source {
    Source::Map(Wishes {
        kind: Kind::Private,
        huge_pages: false,
        prefault: false,
        numa_node: None,
    })
}

fn key(text: &str) -> Key<'_> {
    Key::new(text.as_bytes()).unwrap()
}

/// Runs `act` with these bytes as the caller's one buffer.
fn with_buffer<T>(bytes: &mut [u8], act: impl FnOnce(&Buffers<'_>) -> T) -> T {
    let (data, sizes) = ([bytes.as_mut_ptr().cast_const().cast::<c_void>()], [bytes.len()]);
    // SAFETY: the slice is this call's alone while the buffers live.
    act(&unsafe { Buffers::new(&data, &sizes) }.unwrap())
}

fn put(store: &Store, name: &str, units: u64, replicas: usize) -> Result<()> {
    let options = PutOptions { replicas, ..OPTIONS };
    let mut bytes = vec![name.as_bytes()[0]; (units * UNIT) as usize];
    with_buffer(&mut bytes, |buffers| store.put(&key(name), buffers, &options))
}

/// Copies one range of pool addresses; its code.
fn copy_at(store: &Store, address: u64, bytes: &mut [u8], direction: Direction) -> i32 {
    let mut results = [7];
    with_buffer(bytes, |buffers| {
        let element = |_| Ok((address, *buffers));
        store.batch_copy(element, direction, 0, &mut results).unwrap();
    });
    results[0]
}

fn allocated(store: &Store) -> u64 {
    store.list_segments().map(|segment| segment.allocated).sum()
}

/// Nothing is left in it: no key, no byte, no hold, so every segment can go.
fn assert_nothing_lost(store: &Store) {
    store.remove_all();
    assert_eq!((store.stored_keys(), allocated(store)), (0, 0), "keys and bytes left");
    for registered in store.segments.open() {
        assert_eq!(registered.policy().len(), 0, "entries that outlived their copies");
        registered.policy().validate();
    }
    for segment in store.list_segments() {
        store
            .unregister_segment(segment.address)
            .expect("nobody holds anything in it");
    }
    store.stop();
}

/// Runs each of `acts` again and again on a thread of its own, with the number of the round.
fn run_together(acts: &[&(dyn Fn(usize) + Sync)]) {
    run_together_for(MOMENT, acts);
}

fn run_together_for(moment: Duration, acts: &[&(dyn Fn(usize) + Sync)]) {
    let (end, is_over) = (Instant::now() + moment, AtomicBool::new(false));
    std::thread::scope(|scope| {
        for act in acts {
            scope.spawn(|| {
                for round in 0.. {
                    if is_over.load(Ordering::Relaxed) || Instant::now() > end {
                        break;
                    }
                    act(round);
                }
                is_over.store(true, Ordering::Relaxed);
            });
        }
    });
}

#[test]
fn an_object_that_comes_and_goes_is_shown_or_not_found() {
    let store = open(&[16, 16]);
    let writer = |round: usize| {
        let _ = put(&store, "a", 1, 1 + round % 2);
        let _ = store.remove(&key("a"));
    };
    let looker = |_: usize| {
        for _ in 0..100 {
            if let Ok(view) = store.query(&key("a"), 0, 0) {
                assert_eq!((view.size, view.leases), (UNIT, 0));
            }
            drop(store.read_object(&key("a"), store.hash(&key("a"))));
        }
    };
    run_together(&[&writer, &looker, &looker, &looker]);
    assert_nothing_lost(&store);
}

#[test]
fn a_segment_that_leaves_takes_no_memory_along_that_somebody_has() {
    let store = open(&[16]);
    let address = store.list_segments().next().unwrap().address;
    let registered = store.segments.at(address).unwrap();
    // A put has seen the segment open, and comes to its memory when it is closed, emptied, and about to be unmapped.
    registered.segment.close().unwrap();
    let owner = Owner::Object(0);
    let extent = registered
        .segment
        .with_space(|space| space.allocate(1, owner))
        .flatten();
    assert!(!registered.segment.withdraw(), "its memory is that put's");
    registered.segment.free(extent.unwrap().start);
    assert!(registered.segment.withdraw());
    let late = registered.segment.with_space(|space| space.allocate(1, owner));
    assert_eq!(late, None, "there is nothing to take any more");
    store.stop();
}

#[test]
fn segments_come_and_go_under_puts_and_gets() {
    let store = open(&[8]);
    let host = |round: usize| {
        let address = store.register_segment(&plan(1, 8), mapped()).unwrap();
        let _ = put(&store, "h", 1 + round as u64 % 3, 1);
        store.unregister_segment(address).unwrap();
    };
    let user = |round: usize| {
        let name = ["h", "i", "j", "k", "l", "m"][round % 6];
        let options = PutOptions {
            preferred: &[1],
            ..OPTIONS
        };
        let mut bytes = vec![name.as_bytes()[0]; 2 * UNIT as usize];
        let _ = with_buffer(&mut bytes, |buffers| store.put(&key(name), buffers, &options));
        bytes.fill(0);
        let flags = super::GET_UP_TO;
        if let Ok(size) = with_buffer(&mut bytes, |buffers| store.get(&key(name), buffers, flags, 0)) {
            let got = &bytes[..bytes.len().min(size as usize)];
            assert!(
                got.iter().all(|byte| *byte == name.as_bytes()[0]),
                "wrong bytes in {name}"
            );
        }
        if round.is_multiple_of(5) {
            let _ = store.remove(&key(name));
        }
    };
    run_together(&[&host, &user, &user]);
    assert_nothing_lost(&store);
}

/// A device whose memory nobody has: it notes how much of the store is in use when it is asked to copy, and fails or not.
struct Recorder {
    store: Weak<Store>,
    in_use: Arc<Mutex<Vec<u64>>>,
    is_failing: bool,
}

impl Device for Recorder {
    fn copy(&self, _: &[CopyOperation], _: Direction, _: usize) -> Result<()> {
        let store = self.store.upgrade().unwrap();
        self.in_use.lock().unwrap().push(allocated(&store));
        match self.is_failing {
            true => Err(Error::Internal("the device has failed".into())),
            false => Ok(()),
        }
    }
}

#[test]
fn memory_of_an_element_that_failed_stays_its_own_while_its_other_copies_are_written() {
    let store = open(&[]);
    let in_use = Arc::default();
    for rank in 0..3 {
        let device = Recorder {
            store: Arc::downgrade(&store),
            in_use: Arc::clone(&in_use),
            is_failing: rank == 0,
        };
        let source = Source::Device(UNIT as usize, Box::new(device));
        store.register_segment(&plan(rank, 16), source).unwrap();
    }
    let options = PutOptions { replicas: 3, ..OPTIONS };
    let (first, second) = ([1u8; UNIT as usize], [2u8; UNIT as usize]);
    let data = [first.as_ptr().cast::<c_void>(), second.as_ptr().cast()];
    let mut results = [0; 2];
    let element = |number: usize| {
        // SAFETY: read only, and alive through the call.
        let buffers = unsafe { Buffers::new(std::slice::from_ref(&data[number]), &[UNIT as usize]) };
        Ok((key(["a", "b"][number]), buffers?))
    };
    store.batch_put(element, &options, &mut results).unwrap();
    assert!(results.iter().all(|code| *code < 0), "{results:?}");
    assert_eq!(
        *in_use.lock().unwrap(),
        [6 * UNIT; 3],
        "what is being written is in use"
    );
    assert_nothing_lost(&store);
}

/// Asks for each key that it hears of, and counts what it did not get.
struct Asker {
    store: Weak<Store>,
    heard: Arc<AtomicU64>,
    missed: Arc<AtomicU64>,
}

impl Listener for Asker {
    fn hear(&self, events: &[Event], dropped: u64) {
        assert_eq!(dropped, 0);
        let store = self.store.upgrade().unwrap();
        for event in events {
            if store.exist(&Key::new(event.key()).unwrap(), 0).is_err() {
                self.missed.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.heard.fetch_add(events.len() as u64, Ordering::Release);
    }
}

#[test]
fn a_key_that_a_listener_hears_of_can_be_read() {
    let store = open(&[8192]);
    let (heard, missed) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
    let asker = Asker {
        store: Arc::downgrade(&store),
        heard: Arc::clone(&heard),
        missed: Arc::clone(&missed),
    };
    store.events.listen(Some(Box::new(asker))).unwrap();
    let names: Vec<String> = (0..4096).map(|number| format!("k{number}")).collect();
    for name in &names {
        put(&store, name, 1, 1).unwrap();
    }
    while heard.load(Ordering::Acquire) < 4096 {
        std::thread::yield_now();
    }
    assert_eq!(
        missed.load(Ordering::Relaxed),
        0,
        "keys that were stored, and not there"
    );
    store.events.listen(None).unwrap();
    assert_nothing_lost(&store);
}

/// Puts `name` on a thread while `reading` is open, lets the reading end when the put waits, and gives the put's result.
fn put_behind_a_reading(store: &Store, name: &str, units: u64, reading: Reading<'_>) -> Result<()> {
    let (registered, _) = store.segment_of(reading.slot, 0);
    std::thread::scope(|scope| {
        let putting = scope.spawn(|| put(store, name, units, 1));
        while !registered.segment.is_waited_for() && !putting.is_finished() {
            std::thread::yield_now();
        }
        drop(reading);
        putting.join().unwrap()
    })
}

#[test]
fn a_put_waits_for_the_readers_of_what_was_removed() {
    let store = open(&[4]);
    put(&store, "a", 4, 1).unwrap();
    let reading = store.read_object(&key("a"), store.hash(&key("a"))).unwrap();
    store.remove(&key("a")).unwrap();
    put_behind_a_reading(&store, "b", 4, reading).expect("nothing is pinned, leased or reserved");
    assert_nothing_lost(&store);
}

#[test]
fn a_put_waits_for_the_readers_of_what_others_evicted() {
    let store = open(&[4, 4]);
    put(&store, "a", 4, 2).unwrap();
    let reading = store.read_object(&key("a"), store.hash(&key("a"))).unwrap();
    let named = NamedCopy {
        slot: reading.slot,
        copy: 0,
        generation: store.objects.get(reading.slot).life().generation(),
        place: store.objects.blob(reading.slot, 0).place(),
    };
    // The background thread, say, has dropped the copy of rank 0; the other one can be read still.
    assert!(store.retire_copy(&named).is_some());
    store.exist(&key("a"), 0).unwrap();
    let pin = store.pin(&key("a"), 0).unwrap();
    put_behind_a_reading(&store, "b", 4, reading).expect("rank 0 is free of pins, leases and reservations");
    store.exist(&key("a"), 0).unwrap();
    store.unpin(pin.token).unwrap();
    assert_nothing_lost(&store);
}

#[test]
fn a_put_that_finds_all_of_it_pinned_says_so() {
    let store = open(&[4]);
    put(&store, "a", 2, 1).unwrap();
    put(&store, "b", 2, 1).unwrap();
    let pins = ["a", "b"].map(|name| store.pin(&key(name), 0).unwrap().token);
    store.remove(&key("b")).unwrap();
    assert!(matches!(put(&store, "c", 1, 1), Err(Error::NoSpace(_))));
    store.unpin(pins[1]).unwrap();
    put(&store, "c", 2, 1).unwrap();
    assert!(matches!(put(&store, "d", 3, 1), Err(Error::NoSpace(_))));
    store.exist(&key("a"), 0).unwrap();
    store.unpin(pins[0]).unwrap();
    put(&store, "d", 4, 1).unwrap();
    assert_nothing_lost(&store);
}

#[test]
fn a_put_always_finds_room_beside_readers_and_removals() {
    let store = open(&[8]);
    let names = ["a", "b", "c", "d", "e", "f"];
    let putter = |round: usize| match put(&store, names[round % 6], [1, 3, 8, 2, 5, 8][round % 6], 1) {
        Ok(()) | Err(Error::Exists) => {}
        Err(error) => panic!("nothing is pinned, leased or reserved: {error}"),
    };
    let remover = |round: usize| drop(store.remove(&key(names[round * 5 % 6])));
    let reader = |round: usize| {
        let name = names[round % 6];
        let mut bytes = vec![0; 8 * UNIT as usize];
        let flags = super::GET_UP_TO;
        if let Ok(size) = with_buffer(&mut bytes, |buffers| store.get(&key(name), buffers, flags, 0)) {
            let got = &bytes[..size as usize];
            assert!(
                got.iter().all(|byte| *byte == name.as_bytes()[0]),
                "wrong bytes in {name}"
            );
        }
    };
    run_together(&[&putter, &remover, &reader, &reader]);
    assert_nothing_lost(&store);
}

#[test]
fn a_late_write_by_address_reaches_nothing_that_others_put() {
    let store = open(&[12, 12]);
    let writer = |_: usize| {
        let Ok(view) = store.reserve(&key("lent"), UNIT, &OPTIONS, 1000) else {
            return;
        };
        assert_eq!(copy_at(&store, view.address, &mut [0xff; 100], Direction::ToSegment), 0);
        store.abort(view.token).unwrap();
        for _ in 0..20 {
            // Its memory is a put's by now, which may just be going to copy its own bytes to it.
            let code = copy_at(&store, view.address, &mut [0xff; UNIT as usize], Direction::ToSegment);
            assert!(code == MMC_ERR_NOT_FOUND || code == MMC_ERR_STATE, "{code}");
        }
    };
    let put_and_get = |name: &str, replicas: usize| {
        let _ = put(&store, name, 1, replicas);
        let mut bytes = vec![0; UNIT as usize];
        if with_buffer(&mut bytes, |buffers| store.get(&key(name), buffers, 0, 0)).is_ok() {
            assert!(
                bytes.iter().all(|byte| *byte == name.as_bytes()[0]),
                "wrong bytes in {name}"
            );
        }
        let _ = store.remove(&key(name));
    };
    let putter = |round: usize| put_and_get(["a", "b", "c"][round % 3], 1 + round % 2);
    let other = |round: usize| put_and_get(["d", "e", "f"][round % 3], 2);
    run_together(&[&writer, &putter, &other]);
    assert_nothing_lost(&store);
}

#[test]
fn everything_at_once_loses_nothing_and_tears_nothing() {
    everything_at_once(MOMENT);
}

fn everything_at_once(moment: Duration) {
    let store = open(&[24, 24, 16]);
    // Keys of a length that needs an extension among them.
    let names: Vec<String> = ["a", "b", "c", "d", "e", "f", "g", "h"]
        .into_iter()
        .enumerate()
        .map(|(number, letter)| letter.repeat(1 + number * 20))
        .collect();
    let name_of = |round: usize, step: usize| names[round.wrapping_mul(step) % names.len()].as_str();
    let check = |bytes: &[u8], name: &str| {
        let right = name.as_bytes()[0];
        assert!(bytes.iter().all(|byte| *byte == right), "wrong bytes in {name}");
    };
    let is_usual = |error: &Error| {
        assert!(
            matches!(
                error,
                Error::Exists | Error::NotFound | Error::NoSpace(_) | Error::NoLease | Error::State(_)
            ),
            "{error}"
        );
    };
    let putter = |round: usize| {
        let (units, replicas) = (1 + round as u64 % 5, 1 + round / 7 % 3);
        let _ = put(&store, name_of(round, 3), units, replicas).inspect_err(is_usual);
        if round.is_multiple_of(97) {
            store.remove_all();
        }
        let _ = store.remove(&key(name_of(round, 5))).inspect_err(is_usual);
    };
    let in_place = |round: usize| {
        let name = name_of(round, 7);
        let options = PutOptions {
            replicas: 1 + round % 2,
            ..OPTIONS
        };
        // Some terms are over before the commit.
        let term = if round.is_multiple_of(3) { 1 } else { 1000 };
        match store.reserve(&key(name), UNIT, &options, term) {
            Ok(view) => {
                // Some of it by its address, where the term is not over meanwhile.
                let cut = round % (UNIT as usize - 1) + 1;
                let mut part = vec![name.as_bytes()[0]; cut];
                let by_address = copy_at(&store, view.address, &mut part, Direction::ToSegment);
                assert!(
                    by_address == 0 || term == 1 && by_address == MMC_ERR_NOT_FOUND,
                    "{by_address}"
                );
                // SAFETY: reserved, so the memory is this thread's alone.
                let memory = unsafe { std::slice::from_raw_parts_mut(view.pointer.unwrap(), UNIT as usize) };
                memory[if by_address == 0 { cut } else { 0 }..].fill(name.as_bytes()[0]);
                if term == 1 {
                    store.sweep();
                }
                check(memory, name);
                match round % 4 {
                    0 => store.abort(view.token).unwrap(),
                    _ => match store.commit(view.token) {
                        Ok(()) => {}
                        Err(error) => assert!(matches!(error, Error::Timeout(_)), "{error}"),
                    },
                }
                assert!(store.abort(view.token).is_err(), "a token ends once");
            }
            Err(error) => is_usual(&error),
        }
    };
    let keeper = |round: usize| {
        let name = name_of(round, 11);
        let _ = store.add_lease(&key(name), 1 + round as u64 % 4).inspect_err(is_usual);
        match store.pin(&key(name), 0) {
            Ok(view) => {
                // SAFETY: pinned, so the bytes stay and nobody writes them.
                let bytes = unsafe { std::slice::from_raw_parts(view.pointer.unwrap(), view.size as usize) };
                check(bytes, name);
                let _ = store.remove(&key(name_of(round, 13)));
                check(bytes, name);
                store.unpin(view.token).unwrap();
            }
            Err(error) => is_usual(&error),
        }
        let _ = store.remove_lease(&key(name)).inspect_err(is_usual);
        for registered in store.segments.open() {
            if round.is_multiple_of(50) {
                store.evict_to_low(registered);
            }
        }
    };
    let reader = |round: usize| {
        let name = name_of(round, 1);
        let mut bytes = vec![0; 5 * UNIT as usize];
        let flags = super::GET_UP_TO;
        match with_buffer(&mut bytes, |buffers| store.get(&key(name), buffers, flags, 0)) {
            Ok(size) => check(&bytes[..size as usize], name),
            Err(error) => is_usual(&error),
        }
        if let Ok(view) = store.query(&key(name), super::QUERY_RESERVED, 0) {
            assert!(view.size % UNIT == 0 && view.size <= 5 * UNIT);
        }
        let mut from = Some(0);
        while let Some(slot) = from {
            from = store.page_of_keys(slot, |key| {
                assert!(names.iter().any(|name| name.as_bytes() == key.bytes()));
            });
        }
    };
    // Whatever lies at an address is all of one object, published and its bytes its own; and none of it is anybody's to write.
    let by_address = |round: usize| {
        let name = name_of(round, 9);
        let Ok(view) = store.query(&key(name), super::QUERY_RESERVED, 0) else {
            return;
        };
        for (number, blob) in view.blobs.iter().flatten().enumerate() {
            let start = (round * 1009 + number) as u64 % view.size;
            let mut bytes = vec![0; 1 + (view.size - start - 1) as usize % (round % 9000 + 1)];
            match copy_at(&store, blob.address + start, &mut bytes, Direction::FromSegment) {
                0 => {
                    let is_whole = bytes.iter().all(|byte| *byte == bytes[0]);
                    assert!(is_whole && (b'a'..=b'h').contains(&bytes[0]), "torn bytes near {name}");
                }
                code => assert!(code == MMC_ERR_NOT_FOUND || code == MMC_ERR_STATE, "{code}"),
            }
        }
    };
    run_together_for(moment, &[&putter, &putter, &in_place, &keeper, &reader, &by_address]);
    while store.statistics().leases > 0 {
        store.sweep();
        std::thread::yield_now();
    }
    assert_eq!(store.tokens(), 0);
    assert_nothing_lost(&store);
}

#[test]
fn objects_whose_number_of_copies_changes_are_read_pinned_and_shown_meanwhile() {
    let store = open(&[64, 64, 64]);
    let names = ["a", "b", "c", "d"];
    let check = |bytes: &[u8], name: &str| {
        assert!(
            bytes.iter().all(|byte| *byte == name.as_bytes()[0]),
            "wrong bytes in {name}"
        );
    };
    let writer = |round: usize| {
        let name = names[round % 4];
        let _ = put(&store, name, 1, 1 + round % 3);
        let _ = store.remove(&key(names[(round + 2) % 4]));
    };
    let reader = |round: usize| {
        let name = names[round % 4];
        let mut bytes = vec![0; UNIT as usize];
        if with_buffer(&mut bytes, |buffers| store.get(&key(name), buffers, 0, 0)).is_ok() {
            check(&bytes, name);
        }
        if let Ok(view) = store.pin(&key(name), 0) {
            // SAFETY: pinned, so the bytes stay and nobody writes them.
            let pinned = unsafe { std::slice::from_raw_parts(view.pointer.unwrap(), UNIT as usize) };
            check(pinned, name);
            store.unpin(view.token).unwrap();
        }
        match store.query(&key(name), 0, 0) {
            Ok(view) => assert_eq!((view.size, view.leases <= 2), (UNIT, true)),
            Err(error) => assert!(matches!(error, Error::NotFound)),
        }
        if store.add_lease(&key(name), 50).is_ok() {
            let _ = store.remove_lease(&key(name));
        }
    };
    run_together(&[&writer, &writer, &reader, &reader]);
    for name in names {
        while store.remove_lease(&key(name)).is_ok() {}
    }
    store.remove_all();
    // A lease of an object that was removed before its lease ends by itself.
    while store.statistics().leases > 0 {
        store.sweep();
        std::thread::yield_now();
    }
    assert_nothing_lost(&store);
}
