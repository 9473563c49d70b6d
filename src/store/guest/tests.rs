//! What is lent to a guest, of objects that lie where it can map them and where it can't.

use std::os::unix::fs::FileExt;

use super::*;
use crate::config::Options;
use crate::segment::allocator::UNIT;
use crate::segment::dram::{Kind, Wishes};
use crate::store::Source;
use crate::store::segments::Plan;

const SIZE: u64 = 2 * UNIT + 7;
const GUEST: Guest = Guest { rank: None };

/// Memory of the host's, at the boundary of a unit.
struct HostMemory(Vec<u8>);

impl HostMemory {
    fn new(units: u64) -> HostMemory {
        HostMemory(vec![0; ((units + 1) * UNIT) as usize])
    }

    fn base(&self) -> usize {
        self.0.as_ptr().expose_provenance().next_multiple_of(UNIT as usize)
    }
}

/// A store with 8 units that a guest can map, of rank 0, 8 that it can't, of rank 1, and 8 of the host's, of rank 2.
fn open(host: &HostMemory) -> (std::sync::Arc<Store>, u64) {
    let options = Options {
        dram_size: Some(0),
        watermark_high: Some(100),
        watermark_low: Some(100),
        ..Options::default()
    };
    let store = Store::open(&options.resolve(&|_| None).unwrap().0, None).unwrap();
    let plan = |rank| Plan {
        medium: Medium::Dram,
        rank,
        capacity: 8 * UNIT,
    };
    let mapped = |kind| {
        Source::Map(Wishes {
            kind,
            huge_pages: false,
            prefault: false,
            numa_node: None,
        })
    };
    let shared = store.register_segment(&plan(0), mapped(Kind::Memfd)).unwrap();
    store.register_segment(&plan(1), mapped(Kind::Private)).unwrap();
    store.register_segment(&plan(2), Source::Host(host.base())).unwrap();
    (store, shared)
}

fn key(name: &str) -> Key<'_> {
    Key::new(name.as_bytes()).unwrap()
}

fn content() -> Vec<u8> {
    (0..SIZE).map(|place| (place * 31 % 251) as u8).collect()
}

/// Puts an object into the memory of a rank.
fn put(store: &Store, name: &str, rank: u32) {
    let options = PutOptions {
        replicas: 1,
        preferred: &[rank],
        medium: None,
        stream: 0,
        guest: None,
    };
    let bytes = content();
    let (data, sizes) = ([bytes.as_ptr().cast()], [bytes.len()]);
    // SAFETY: one buffer, which is read as long as it lives.
    let buffers = unsafe { crate::segment::buffers::Buffers::new(&data, &sizes) }.unwrap();
    store.put(&key(name), &buffers, &options).unwrap();
}

fn lend(store: &Store, name: &str, room: Option<u64>) -> Result<(View, Loan)> {
    let wanted = Wanted {
        key: key(name),
        flags: 0,
        position: 0,
        room,
    };
    store.lend_objects(&[Ok(wanted)], GUEST).pop().unwrap()
}

/// What another process reads in the segment at `shared`.
fn bytes_at(store: &Store, shared: u64, address: u64, size: u64) -> Vec<u8> {
    let file = store.segments.at(shared).unwrap().segment.memfd().unwrap();
    let mut bytes = vec![0; size as usize];
    file.read_exact_at(&mut bytes, address - shared).unwrap();
    bytes
}

fn address_of(store: &Store, name: &str) -> u64 {
    store.query_one(&key(name), crate::store::PEEK).unwrap().blobs[0]
        .unwrap()
        .address
}

#[test]
fn an_object_that_a_guest_can_map_is_lent_where_it_lies() {
    let host = HostMemory::new(8);
    let (store, shared) = open(&host);
    put(&store, "a", 0);
    let (view, loan) = lend(&store, "a", Some(SIZE)).unwrap();
    assert!(matches!(loan, Loan::Pin { .. }));
    assert_eq!(view.address, address_of(&store, "a"));
    assert_eq!(bytes_at(&store, shared, view.address, view.size), content());
    assert_eq!(store.statistics().pins, 1);
    store.end_loan(loan);
    assert_eq!((store.statistics().pins, store.remove_all()), (0, 1));
    assert_eq!(store.statistics().allocated, 0);
}

#[test]
fn an_object_in_private_or_host_memory_is_lent_as_a_copy() {
    let host = HostMemory::new(8);
    for rank in [1, 2] {
        let (store, shared) = open(&host);
        put(&store, "a", rank);
        let (view, loan) = lend(&store, "a", None).unwrap();
        assert!(matches!(loan, Loan::Copy { .. }), "rank {rank}");
        assert_eq!(bytes_at(&store, shared, view.address, view.size), content());
        // A part of it, by its address.
        let part = address_of(&store, "a") + 100;
        let (shown, part) = store.lend_range(part, UNIT, Direction::FromSegment, GUEST).unwrap();
        assert!(matches!(part, Loan::Copy { .. }));
        let bytes = bytes_at(&store, shared, shown.address, shown.size);
        assert_eq!(bytes, content()[100..][..UNIT as usize]);
        // The copies are nobody's objects.
        let mut keys = 0;
        assert_eq!(store.page_of_keys(0, |_| keys += 1), None);
        assert_eq!((keys, store.statistics().stored_keys), (1, 1));
        store.end_loan(loan);
        store.end_loan(part);
        assert_eq!(store.remove_all(), 1);
        assert_eq!((store.statistics().allocated, store.statistics().reservations), (0, 0));
    }
}

#[test]
fn a_loan_that_fails_leaves_nothing() {
    let host = HostMemory::new(8);
    let (store, _) = open(&host);
    put(&store, "a", 1);
    let before = store.statistics().allocated;
    let mismatch = lend(&store, "a", Some(5));
    assert!(matches!(mismatch, Err(Error::SizeMismatch { given: 5, object: SIZE })));
    assert!(matches!(lend(&store, "b", None), Err(Error::NotFound)));
    assert_eq!(store.statistics().allocated, before);
    // Without room for a copy.
    let all = store.reserve_unseen(8 * UNIT, Some(GUEST)).unwrap();
    assert!(matches!(lend(&store, "a", None), Err(Error::NoSpace(_))));
    store.try_abort(all.token).unwrap();
    // A reservation where a guest can't write.
    let options = PutOptions {
        replicas: 1,
        preferred: &[1],
        medium: None,
        stream: 0,
        guest: None,
    };
    let view = store.reserve(&key("r"), UNIT, &options, 0).unwrap();
    let written = store.lend_range(view.address, UNIT, Direction::ToSegment, GUEST);
    assert!(matches!(written, Err(Error::Unsupported(_))));
    store.abort(view.token).unwrap();
    assert_eq!(store.statistics().allocated, before);
}

#[test]
fn nobody_waits_for_a_guest_that_stops_while_it_writes_by_address() {
    let host = HostMemory::new(8);
    let (store, _) = open(&host);
    let options = PutOptions {
        replicas: 1,
        preferred: &[0],
        medium: None,
        stream: 0,
        guest: None,
    };
    for is_committed in [true, false] {
        let view = store.reserve(&key("a"), UNIT, &options, 0).unwrap();
        let (_, loan) = store
            .lend_range(view.address, UNIT, Direction::ToSegment, GUEST)
            .unwrap();
        match is_committed {
            true => store.commit(view.token).unwrap(),
            false => store.abort(view.token).unwrap(),
        }
        // A put that needs that memory fails, and does not wait; the segment stays.
        let all = store.reserve_unseen(8 * UNIT, Some(GUEST));
        assert!(matches!(all, Err(Error::NoSpace(_))), "{all:?}");
        let segment = store.segments.containing(view.address).unwrap().segment.address;
        assert!(matches!(store.unregister_segment(segment), Err(Error::Busy(_))));
        store.end_loan(loan);
        let all = store.reserve_unseen(8 * UNIT, Some(GUEST)).unwrap();
        store.try_abort(all.token).unwrap();
        assert_eq!((store.statistics().allocated, store.statistics().pins), (0, 0));
    }
}
