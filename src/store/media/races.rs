//! Readers, writers and moves of the same objects at once.

use super::*;

#[test]
fn a_copy_that_is_let_go_by_its_last_reader_while_it_is_being_dropped_leaves_the_order() {
    let store = open(16, 16);
    put(&store, "a", 4096);
    let reading = store.read_object(&key("a"), store.hash(&key("a"))).unwrap();
    let named = reading.named();
    let policy = store.segments.get(named.place.0).policy();
    std::thread::scope(|scope| {
        let dropping = scope.spawn(|| store.drop_copy(&named));
        // It comes as far as the order's lock lets it: the copy may be out of reach by then, or not.
        let count = store.objects.blob(named.slot, named.copy).count;
        let end = Instant::now() + Duration::from_millis(200);
        while count.is_live(named.generation) && Instant::now() < end {
            std::thread::yield_now();
        }
        drop(reading);
        drop(policy);
        assert!(dropping.join().unwrap());
    });
    assert_nothing_lost(&store);
}

#[test]
fn objects_are_readable_at_every_instant_of_their_moves() {
    let store = open(4096, 4096);
    let names = ["a", "b", "c"];
    names.iter().for_each(|name| put(&store, name, 20_000));
    let (is_over, reads) = (AtomicBool::new(false), AtomicU64::new(0));
    let until_it_is_over = |act: &dyn Fn()| {
        while !is_over.load(Ordering::Relaxed) {
            act();
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                until_it_is_over(&|| {
                    for name in names {
                        get(&store, name, 20_000, 0).expect("it is always there");
                        assert!(!media(&store, name).is_empty());
                        reads.fetch_add(1, Ordering::Relaxed);
                    }
                })
            });
        }
        scope.spawn(|| until_it_is_over(&|| drop(evict(&store, &names))));
        scope.spawn(|| until_it_is_over(&|| drop(prefetch(&store, &names))));
        scope.spawn(|| {
            until_it_is_over(&|| {
                let pin = store.pin(&key("a"), 0).unwrap();
                store.add_lease(&key("b"), 60_000).unwrap();
                store.unpin(pin.token).unwrap();
                store.remove_lease(&key("b")).unwrap();
            })
        });
        std::thread::sleep(Duration::from_secs(2));
        is_over.store(true, Ordering::Relaxed);
    });
    assert!(reads.into_inner() > 100);
    assert_nothing_lost(&store);
}

#[test]
fn puts_gets_removes_and_moves_of_the_same_keys_leave_nothing_behind() {
    let store = open_with(48, Some((64, sound(64))), |options| {
        (options.watermark_high, options.watermark_low) = (Some(80), Some(60));
    });
    let is_over = AtomicBool::new(false);
    let until_it_is_over = |act: &dyn Fn(u32)| {
        for round in 0.. {
            if is_over.load(Ordering::Relaxed) {
                return;
            }
            act(round);
        }
    };
    let names: Vec<String> = (0..24).map(|number| format!("key {number}")).collect();
    let name = |round: u32| names[(round.wrapping_mul(2_654_435_761) >> 8) as usize % names.len()].as_str();
    std::thread::scope(|scope| {
        for thread in 0..2 {
            scope.spawn({
                let (store, name) = (&store, &name);
                move || {
                    until_it_is_over(&|round| {
                        let name = name(round + thread);
                        let medium = if round % 7 == 0 { Medium::Ssd } else { Medium::Dram };
                        match put_in(store, name, 9000, medium) {
                            Ok(()) | Err(Error::Exists | Error::NoSpace(_)) => {}
                            Err(error) => panic!("{error}"),
                        }
                    })
                }
            });
        }
        scope.spawn(|| {
            until_it_is_over(&|round| match get(&store, name(round * 3), 9000, 0) {
                Ok(()) | Err(Error::NotFound) => {}
                Err(error) => panic!("{error}"),
            })
        });
        scope.spawn(|| until_it_is_over(&|round| drop(store.remove(&key(name(round * 5))))));
        scope.spawn(|| {
            until_it_is_over(&|round| {
                let some = [name(round), name(round + 1), name(round + 2)];
                let allowed = [0, MMC_ERR_NOT_FOUND, MMC_ERR_NO_SPACE, MMC_ERR_BUSY];
                let results = if round % 2 == 0 {
                    evict(&store, &some)
                } else {
                    prefetch(&store, &some)
                };
                assert!(results.iter().all(|code| allowed.contains(code)), "{results:?}");
            })
        });
        std::thread::sleep(Duration::from_secs(3));
        is_over.store(true, Ordering::Relaxed);
    });
    assert_eq!(store.total(Counter::RottenObjects), 0);
    assert_nothing_lost(&store);
}
