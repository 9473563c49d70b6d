//! Disks that fail, and bytes that rot.

use super::*;

#[test]
fn a_disk_that_fails_leaves_the_object_where_it_was_and_is_counted() {
    for code in [libc::EIO, libc::ENOSPC] {
        let fails = Arc::new(AtomicBool::new(true));
        let asked = Arc::clone(&fails);
        let file = Scripted::file(64 * UNIT, move |direction, _| {
            if direction == Direction::ToSegment && asked.load(Ordering::Relaxed) {
                return Err(io::Error::from_raw_os_error(code));
            }
            Ok(())
        });
        let store = open_with(64, Some((64, file)), |_| {});
        put(&store, "a", 9000);
        put(&store, "b", 4000);
        assert_eq!(evict(&store, &["a", "b"]), [MMC_ERR_IO, MMC_ERR_IO]);
        assert_eq!((used(&store, Medium::Dram), used(&store, Medium::Ssd)), (4, 0));
        assert_eq!(store.total(Counter::MoveFailures), 2);
        get(&store, "a", 9000, 0).unwrap();
        let refused = put_in(&store, "c", 100, Medium::Ssd);
        assert!(matches!(refused, Err(Error::Io(_))), "{refused:?}");
        assert_eq!(used(&store, Medium::Ssd), 0);
        fails.store(false, Ordering::Relaxed);
        assert_eq!(evict(&store, &["a", "b"]), [0, 0]);
        get(&store, "a", 9000, 0).unwrap();
        get(&store, "b", 4000, 0).unwrap();
        assert_nothing_lost(&store);
    }
}

#[test]
fn a_medium_that_fails_in_the_background_is_left_alone_and_puts_go_on() {
    let file = Scripted::file(256 * UNIT, |direction, _| match direction {
        Direction::ToSegment => Err(io::Error::from_raw_os_error(libc::EIO)),
        Direction::FromSegment => Ok(()),
    });
    let store = open_with(64, Some((256, file)), |options| {
        (options.watermark_high, options.watermark_low) = (Some(75), Some(50));
    });
    let mut number = 0;
    let end = Instant::now() + LONG;
    while store.total(Counter::MoveFailures) == 0 || store.total(Counter::SpillDrops) == 0 {
        put(&store, &format!("{number}"), 4096);
        get(&store, &format!("{number}"), 4096, 0).unwrap();
        number += 1;
        assert!(Instant::now() < end, "no failure was counted");
    }
    wait_until("what was under way has failed too", || used(&store, Medium::Ssd) == 0);
    assert_nothing_lost(&store);
}

#[test]
fn a_read_that_fails_is_an_error_and_a_block_that_rotted_is_a_miss() {
    let trouble = Arc::new(AtomicU32::new(0));
    let asked = Arc::clone(&trouble);
    let store = open_with(
        64,
        Some((
            64,
            Scripted::file(64 * UNIT, move |direction, _| {
                if direction == Direction::FromSegment && asked.load(Ordering::Relaxed) == 1 {
                    return Err(io::Error::from_raw_os_error(libc::EIO));
                }
                Ok(())
            }),
        )),
        |_| {},
    );
    for name in ["a", "b", "c", "d"] {
        put(&store, name, 10_000);
    }
    assert_eq!(evict(&store, &["a", "b", "c", "d"]), [0; 4]);
    trouble.store(1, Ordering::Relaxed);
    let failed = get(&store, "a", 10_000, 0);
    assert!(matches!(failed, Err(Error::Io(_))), "{failed:?}");
    assert_eq!(prefetch(&store, &["a"]), [MMC_ERR_IO]);
    trouble.store(0, Ordering::Relaxed);
    get(&store, "a", 10_000, 0).unwrap();

    // One bit of each, wherever it lies.
    for (name, offset) in [("b", 0), ("c", 9_999), ("d", 5_000)] {
        rot(&store, name, offset);
    }
    let mut bytes = vec![7u8; 10_000];
    let rotten = buffers_of(&mut [&mut bytes[..]], |buffers| store.get(&key("b"), buffers, 0, 0));
    assert_eq!(rotten, Err(Error::Rotten));
    assert!(bytes.iter().all(|byte| *byte == 7), "not a byte of it");
    assert_eq!(store.exist(&key("b"), 0), Err(Error::NotFound));
    assert_eq!(prefetch(&store, &["c"]), [MMC_ERR_NOT_FOUND]);
    assert_eq!(store.exist(&key("c"), 0), Err(Error::NotFound));
    let pin = store.pin(&key("d"), 0).unwrap();
    let mut results = [7];
    buffers_of(&mut [&mut [0u8; 10]], |buffers| {
        let element = |_| Ok((pin.address, *buffers));
        store
            .batch_copy(element, Direction::FromSegment, 0, &mut results)
            .unwrap();
    });
    assert_eq!(results, [MMC_ERR_NOT_FOUND], "of a part of it, too");
    assert_eq!(used(&store, Medium::Ssd), 6, "what is pinned keeps its place");
    store.unpin(pin.token).unwrap();
    assert_eq!(store.total(Counter::RottenObjects), 3);
    assert_nothing_lost(&store);
}

/// Changes a byte of an object on SSD behind the store's back.
fn rot(store: &Store, name: &str, offset: u64) {
    let (slot, _) = store.find_readable(&key(name), store.hash(&key(name))).unwrap();
    let copy = (0..8)
        .find(|copy| store.segment_of(slot, *copy).0.segment.is_file())
        .unwrap();
    let (registered, unit) = store.segment_of(slot, copy);
    let bounce = crate::segment::file::Bounce::new(UNIT).unwrap();
    let (start, file) = (
        u64::from(unit) * UNIT + offset / UNIT * UNIT,
        registered.segment.file().unwrap(),
    );
    for direction in [Direction::FromSegment, Direction::ToSegment] {
        let parts: Vec<_> = crate::segment::file::parts_of(direction, 0, start, bounce.memory(), UNIT).collect();
        // SAFETY: the bounce is this call's.
        unsafe { file.run(&parts) };
        // SAFETY: the byte lies in it.
        unsafe { *bounce.memory().add((offset % UNIT) as usize) ^= 4 };
    }
}

#[test]
fn with_the_switch_what_rots_in_memory_is_a_miss_too() {
    let store = open_with(64, None, |options| options.verify_dram = Some(true));
    put(&store, "a", 10_000);
    let view = store.reserve(&key("b"), 10_000, &options(Medium::Dram), 0).unwrap();
    // SAFETY: the reservation's memory.
    unsafe { view.pointer.unwrap().copy_from(content("b", 10_000).as_ptr(), 10_000) };
    store.commit(view.token).unwrap();
    for name in ["a", "b"] {
        get(&store, name, 10_000, 0).unwrap();
        let pointer = store.query(&key(name), PEEK, 0).unwrap().blobs[0]
            .unwrap()
            .pointer
            .unwrap();
        // SAFETY: nobody else is in the store.
        unsafe { *pointer.add(9_000) ^= 1 };
        assert_eq!(get(&store, name, 10_000, 0), Err(Error::Rotten));
        assert_eq!(store.exist(&key(name), 0), Err(Error::NotFound));
    }
    assert_eq!(store.total(Counter::RottenObjects), 2);
    assert_nothing_lost(&store);
}
