use super::*;
use std::sync::atomic::AtomicBool;

const HASH: u64 = 0x1234_5678_9abc_def0;

fn text(bytes: usize, letter: u8) -> Vec<u8> {
    vec![letter; bytes]
}

/// Makes an object without copies' memory, as `take_key` does.
fn create(objects: &Objects, key: &[u8], copies: usize) -> u32 {
    objects.create(&Key::new(key).unwrap(), HASH, 4096, copies).unwrap()
}

#[test]
fn a_count_says_who_is_the_last() {
    let count = Count::new();
    count.reserve(3);
    assert!(count.is_held() && !count.is_live(3));
    assert_eq!((count.read(3), count.hold(3)), (Attempt::Gone, Attempt::Gone));
    count.publish();
    assert!(count.is_live(3) && !count.is_held());
    assert_eq!((count.read(4), count.hold(2)), (Attempt::Gone, Attempt::Gone));
    assert_eq!((count.read(3), count.hold(3)), (Attempt::Counted, Attempt::Counted));
    assert_eq!(count.retire_unheld(3), None, "it is held");
    assert!(!count.end_reading());
    assert!(!count.retire());
    assert!(count.end_hold(), "the last need of it");
    assert_eq!(count.read(3), Attempt::Gone);
}

#[test]
fn a_count_that_is_full_refuses_and_stays_right() {
    let count = Count::new();
    count.reserve(u32::MAX);
    count.publish();
    let holds = std::iter::repeat_with(|| count.hold(u32::MAX)).take_while(|attempt| *attempt == Attempt::Counted);
    let holds = holds.count();
    assert_eq!(holds, (1 << 20) - 1);
    assert_eq!(count.hold(u32::MAX), Attempt::Full);
    assert_eq!(
        count.read(u32::MAX),
        Attempt::Counted,
        "holds have not run into readings"
    );
    assert!(!count.retire() && !count.end_reading());
    assert_eq!((0..holds).filter(|_| count.end_hold()).count(), 1);
}

#[test]
fn a_copy_that_is_held_is_read_by_its_place_only_and_is_kept_for_that() {
    let count = Count::new();
    count.reserve(3);
    assert_eq!((count.read(3), count.read_held(4)), (Attempt::Gone, Attempt::Gone));
    assert_eq!(count.read_held(3), Attempt::Counted);
    assert!(!count.end_writing(), "it is still being read");
    assert_eq!(count.read_held(3), Attempt::Gone, "nobody holds it any more");
    assert!(count.end_reading(), "the last need of it");

    count.reserve(4);
    assert_eq!(count.read_held(4), Attempt::Counted);
    count.publish();
    assert!(count.is_live(4) && !count.is_held() && count.is_read(4));
    assert!(!count.end_reading() && !count.is_read(4));
    assert_eq!(
        (count.hold(4), count.read_held(4)),
        (Attempt::Counted, Attempt::Counted)
    );
    assert!(!count.retire() && !count.end_reading());
    assert_eq!((count.read(4), count.read_held(4)), (Attempt::Gone, Attempt::Counted));
    assert!(!count.end_hold() && count.end_reading());

    count.expect(5);
    assert_eq!(count.read_held(5), Attempt::Gone, "it is only being written");
    assert!(count.end_writing());
}

#[test]
fn readings_of_a_copy_that_is_held_leave_room_for_its_writers() {
    let count = Count::new();
    count.reserve(0);
    let readings = std::iter::repeat_with(|| count.read_held(0)).take_while(|attempt| *attempt == Attempt::Counted);
    let readings = readings.count();
    assert_eq!((readings, count.read_held(0)), ((1 << 23) - 2, Attempt::Full));
    count.publish();
    assert!(count.is_live(0) && !count.is_held());
    assert_eq!((count.read(0), count.hold(0)), (Attempt::Full, Attempt::Counted));
    assert!(!count.end_hold() && !count.retire());
    assert_eq!((0..readings).filter(|_| count.end_reading()).count(), 1);
}

#[test]
fn what_was_read_is_an_objects_through_its_states_and_no_further() {
    let word = LifeWord::new();
    word.set(Life::new(5, 1, State::Reserved, 3));
    let seen = word.load();
    word.set(seen.with_state(State::Readable));
    assert_eq!(word.again(seen), Some(seen.with_state(State::Readable)));
    word.set(seen.with_state(State::Gone));
    assert!(!word.again(seen).unwrap().is_named());
    word.set(Life::new(6, 0, State::Free, 0));
    assert_eq!(word.again(seen), None);
}

#[test]
fn keys_of_every_length_are_found_and_read_back() {
    let objects = Objects::new();
    for bytes in [1, 7, 8, 9, 63, 64, 65, 72, 255, 256] {
        let (own, other) = (text(bytes, b'a'), text(bytes, b'b'));
        let mut last_differs = own.clone();
        *last_differs.last_mut().unwrap() = b'z';
        let slot = create(&objects, &own, 1);
        let life_of = |key: &[u8], hash| objects.life_of(slot, &Key::new(key).unwrap(), hash);
        let life = life_of(&own, HASH).expect("its own key");
        assert_eq!((life.state(), life.copies()), (State::Reserved, 1));
        assert_eq!(life_of(&own, HASH + 1), None, "another hash");
        for wrong in [&other, &last_differs, &text(bytes % 256 + 1, b'a')] {
            assert_eq!(life_of(wrong, HASH), None, "{bytes} bytes and {}", wrong.len());
        }
        let (read, key) = objects.read_key(slot).unwrap();
        assert_eq!((read, key.bytes()), (life, &own[..]));
        objects.finish(slot);
        assert!(objects.read_key(slot).is_none() && life_of(&own, HASH).is_none());
    }
    assert_eq!(objects.bound(), 1, "the slot was used again each time");
    assert_eq!(objects.extensions.bound(), 1, "and so was the extension");
}

#[test]
fn every_new_object_of_a_slot_has_the_next_generation() {
    let objects = Objects::new();
    for generation in 0..100 {
        let slot = create(&objects, b"key", 1);
        assert_eq!((slot, objects.get(slot).life().generation()), (0, generation));
        objects.finish(slot);
    }
    // Through the end of its 32 bits, too.
    objects.get(0).life.set(Life::new(u32::MAX, 0, State::Free, 0));
    for generation in [u32::MAX, 0] {
        let slot = create(&objects, b"key", 1);
        objects.install(slot, 0, 0, 5, false);
        let count = objects.blob(slot, 0).count;
        count.publish();
        assert_eq!(objects.get(slot).life().generation(), generation);
        assert!(count.is_live(generation));
        assert!(count.retire());
        objects.finish(slot);
        objects.finish(slot);
    }
}

#[test]
fn a_slot_stays_until_its_name_and_every_copy_are_finished() {
    let objects = Objects::new();
    let slot = create(&objects, b"key", 3);
    for copy in 0..3 {
        objects.install(slot, copy, copy as u32, 100 + copy as u32, false);
        assert_eq!(objects.blob(slot, copy).place(), (copy as u32, 100 + copy as u32));
        assert!(!objects.blob(slot, copy).is_listed());
    }
    for _ in 0..3 {
        objects.finish(slot);
        assert_eq!(objects.get(slot).life().state(), State::Reserved);
    }
    objects.finish(slot);
    assert_eq!(objects.get(slot).life().state(), State::Free);
}

#[test]
fn a_handle_is_taken_once() {
    let objects = Objects::new();
    let slot = create(&objects, b"key", 1);
    objects.install(slot, 0, 0, 0, false);
    let blob = objects.blob(slot, 0);
    assert_eq!(blob.take_handle(), None);
    blob.set_handle(7);
    assert!(blob.is_listed());
    assert_eq!((blob.take_handle(), blob.take_handle()), (Some(7), None));
}

#[test]
fn readers_of_a_slot_that_is_recycled_never_get_a_torn_key() {
    let objects = Objects::new();
    let lengths = [65, 71, 130, 200, 256];
    let is_over = AtomicBool::new(false);
    let slot = create(&objects, &text(lengths[0], b'a'), 1);
    objects.finish(slot);
    let reads = AtomicU32::new(0);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                let Some((life, key)) = objects.read_key(slot) else {
                    continue;
                };
                let number = life.generation() as usize;
                let expected = text(lengths[number % 5], b'a' + (number % 26) as u8);
                assert_eq!(key.bytes(), expected, "generation {number}");
                let right = Key::new(&expected).unwrap();
                let life_now = objects.life_of(slot, &right, HASH);
                let is_right = life_now.is_none_or(|now| {
                    let other = now.generation() as usize;
                    (other % 5, other % 26) == (number % 5, number % 26)
                });
                assert!(is_right, "{life_now:?} was taken for generation {number}");
                reads.fetch_add(1, Ordering::Relaxed);
            }
        });
        // Many generations, and as many more as it takes until the reader has had a turn.
        let is_enough = |number| number >= 100_000 && reads.load(Ordering::Relaxed) > 0 || reader.is_finished();
        for number in (1usize..).take_while(|number| !is_enough(*number)) {
            let slot = create(&objects, &text(lengths[number % 5], b'a' + (number % 26) as u8), 1);
            objects.get(slot).set_state(State::Readable);
            objects.finish(slot);
        }
        is_over.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_copy_that_is_looked_up_late_is_a_copy_of_that_slot_and_of_no_other() {
    let objects = Objects::new();
    let slot = create(&objects, b"two copies", 2);
    let life = objects.get(slot).life();
    objects.install(slot, 1, 0, 0, false);
    let late = objects.blob(slot, 1).count as *const Count;
    objects.finish(slot);
    objects.finish(slot);
    let others = [create(&objects, b"plain", 1), create(&objects, b"two copies again", 2)];
    objects.install(others[1], 1, 0, 0, false);
    objects.blob(others[1], 1).count.publish();
    assert_eq!(objects.blob(slot, 1).count as *const Count, late);
    assert_eq!(objects.blob(slot, 1).count.read(life.generation()), Attempt::Gone);
}

#[test]
fn a_free_slot_has_no_leases() {
    let objects = Objects::new();
    let slots = [create(&objects, b"one", 1), create(&objects, b"other", 1)];
    slots.iter().for_each(|slot| objects.finish(*slot));
    for slot in slots {
        assert_eq!(objects.get(slot).list.load(Ordering::Relaxed), 0);
    }
}

#[test]
fn extensions_are_used_again_by_those_who_need_one() {
    let objects = Objects::new();
    let long = "x".repeat(INLINE_KEY_BYTES + 1);
    for key in ["short", &long].repeat(10) {
        let slot = create(&objects, key.as_bytes(), 1);
        objects.finish(slot);
    }
    assert_eq!((objects.slots.bound(), objects.extensions.bound()), (2, 1));
}

#[test]
fn a_checksum_goes_along_when_its_object_gets_an_extension_and_not_to_the_next_object() {
    let objects = Objects::new();
    let create = || objects.create(&Key::new(b"a").unwrap(), 1, 1, 1).unwrap();
    let slot = create();
    assert_eq!(objects.checksum(slot), None);
    objects.set_checksum(slot, 7);
    assert_eq!(objects.checksum(slot), None, "there is no room for it");
    objects.annotate(slot).unwrap();
    objects.set_checksum(slot, 7);
    assert_eq!((objects.checksum(slot), objects.extensions.bound()), (Some(7), 0));
    assert!(!objects.begin_move(slot), "for that it needs an extension");
    assert!(!objects.use_slow_copy(slot));
    objects.extend(slot).unwrap();
    assert_eq!((objects.checksum(slot), objects.extensions.bound()), (Some(7), 1));
    assert!(objects.use_slow_copy(slot), "the first use was counted before");
    assert!(objects.begin_move(slot) && !objects.begin_move(slot));
    objects.annotate(slot).unwrap();
    assert_eq!(objects.checksum(slot), Some(7));
    objects.end_move(slot);
    objects.finish(slot);
    let next = objects.create(&Key::new(&[b'k'; 100]).unwrap(), 1, 1, 1).unwrap();
    assert_eq!((next, objects.checksum(next)), (slot, None));
}
