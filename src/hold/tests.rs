use super::record::LAST_USE;
use super::*;
use crate::key::Key;
use crate::object::Objects;
use std::collections::HashSet;

fn on(slot: u32) -> Held {
    Held { slot, copies: 1 }
}

fn create(objects: &Objects) -> u32 {
    objects.create(&Key::new(b"key").unwrap(), 0, 1, 1).unwrap()
}

impl Holds {
    /// Checks the heap: earliest first, every record at the position that it knows, and of the kind that has an end.
    fn validate(&self) {
        let ends = self.lock();
        for (position, number) in ends.0.iter().enumerate() {
            let record = self.records.get(*number);
            assert_eq!(record.position.load(Ordering::Relaxed) as usize, position);
            let state = record.state();
            assert!([State::Leased, State::Reserved].contains(&state), "{state:?}");
            if position > 0 {
                let parent = self.records.get(ends.0[(position - 1) / 2]);
                assert!(parent.end.load(Ordering::Relaxed) <= record.end.load(Ordering::Relaxed));
            }
        }
        let records = ends.0.iter().map(|number| self.records.get(*number));
        let reservations = records.filter(|record| record.state() == State::Reserved).count();
        assert_eq!(self.leases(), (ends.0.len() - reservations) as u64);
        assert!(
            self.reservations() >= reservations as u64,
            "overdue ones are counted until they are ended"
        );
    }
}

#[test]
fn a_token_ends_its_own_hold_once() {
    let holds = Holds::new();
    let (pin, other) = (holds.pin(on(3)).unwrap(), holds.pin(on(3)).unwrap());
    let reservation = holds.reserve(on(4), 10).unwrap();
    assert_eq!((holds.pins(), holds.reservations()), (2, 1));
    assert!(holds.end_reservation(pin).is_err(), "a pin is no reservation");
    assert!(holds.unpin(reservation).is_err(), "nor the other way round");
    assert_eq!(holds.unpin(pin).unwrap(), on(3));
    assert!(holds.unpin(pin).is_err(), "ended already");
    assert_eq!(holds.end_reservation(reservation).unwrap(), (on(4), false));
    assert!(holds.end_reservation(reservation).is_err());
    for made_up in [0, 1, u64::MAX, other + 1, other | (1 << 40)] {
        assert!(holds.unpin(made_up).is_err(), "{made_up:#x}");
    }
    assert_eq!(holds.unpin(other).unwrap(), on(3));
    assert_eq!((holds.pins(), holds.reservations()), (0, 0));
}

#[test]
fn tokens_never_repeat() {
    let holds = Holds::new();
    let mut seen = HashSet::new();
    for round in 0..2000 {
        let pins: Vec<u64> = (0..3).map(|slot| holds.pin(on(slot)).unwrap()).collect();
        let reservation = holds.reserve(on(9), round).unwrap();
        assert!(pins.iter().chain([&reservation]).all(|token| seen.insert(*token)));
        for token in pins {
            holds.unpin(token).unwrap();
        }
        holds.end_reservation(reservation).unwrap();
    }
    assert_eq!(holds.records.bound(), 4, "the records were used again");
}

#[test]
fn a_record_whose_uses_are_used_up_is_never_used_again() {
    let holds = Holds::new();
    let first = holds.pin(on(0)).unwrap();
    assert_eq!(number_of(first), 0);
    holds.unpin(first).unwrap();
    let word = &holds.records.get(0).word;
    word.store((LAST_USE - 1) << NUMBER_BITS, Ordering::Relaxed);
    let last = holds.pin(on(0)).unwrap();
    assert_eq!(last, LAST_USE << NUMBER_BITS, "its last use");
    holds.unpin(last).unwrap();
    assert_eq!(number_of(holds.pin(on(0)).unwrap()), 1, "record 0 is retired");
    assert!(holds.unpin(last).is_err() && holds.unpin(first).is_err());

    // A lease takes the same way out.
    let (objects, holds) = (Objects::new(), Holds::new());
    let slot = create(&objects);
    holds.lease(objects.get(slot), on(slot), 5).unwrap();
    holds.end_lease(objects.get(slot)).unwrap();
    holds
        .records
        .get(0)
        .word
        .store((LAST_USE - 1) << NUMBER_BITS, Ordering::Relaxed);
    holds.lease(objects.get(slot), on(slot), 5).unwrap();
    holds.end_lease(objects.get(slot)).unwrap();
    assert_eq!(number_of(holds.pin(on(0)).unwrap()), 1);
}

#[test]
fn of_the_leases_of_an_object_the_one_that_ends_first_goes_first() {
    let (objects, holds) = (Objects::new(), Holds::new());
    let slots = [create(&objects), create(&objects)];
    let object = |number: usize| objects.get(slots[number]);
    for (copies, end) in [(1, 30), (2, 10), (4, 20), (8, 5)] {
        let held = Held { slot: slots[0], copies };
        holds.lease(object(0), held, end).unwrap();
    }
    holds.lease(object(1), on(slots[1]), 1).unwrap();
    holds.validate();
    // The one that ends at 5 is over at 5, and a lease until that is noticed.
    assert_eq!(holds.leases_of(slots[0], object(0)), 4);
    let over = [(); 3].map(|()| holds.overdue(5, |slot| objects.get(slot)));
    let held = Held {
        slot: slots[0],
        copies: 8,
    };
    assert_eq!(
        over,
        [Some(Overdue::Lease(on(slots[1]))), Some(Overdue::Lease(held)), None]
    );
    assert_eq!(holds.leases_of(slots[0], object(0)), 3);
    let ended: Vec<u32> = (0..3).map(|_| holds.end_lease(object(0)).unwrap().copies).collect();
    assert_eq!(ended, [2, 4, 1]);
    assert!(matches!(holds.end_lease(object(0)), Err(Error::NoLease)));
    holds.validate();
    assert_eq!(holds.leases(), 0);
}

#[test]
fn ten_thousand_leases_on_one_object_end_in_order_in_few_steps_each() {
    const LEASES: u64 = 10_000;
    let (objects, holds) = (Objects::new(), Holds::new());
    let slot = create(&objects);
    let object = objects.get(slot);
    for number in 0..LEASES {
        // Short ones among long ones, in no order.
        holds.lease(object, on(slot), number * 7_919 % LEASES).unwrap();
    }
    assert_eq!(u64::from(holds.leases_of(slot, object)), LEASES);
    for now in 0..LEASES {
        let over = holds.overdue(now, |slot| objects.get(slot));
        assert_eq!(over, Some(Overdue::Lease(on(slot))), "{now}");
        assert_eq!(holds.overdue(now, |slot| objects.get(slot)), None, "{now}");
    }
    assert_eq!((holds.leases_of(slot, object), holds.leases()), (0, 0));
}

#[test]
fn a_reservation_that_was_overdue_is_still_its_holders_to_end() {
    let (objects, holds) = (Objects::new(), Holds::new());
    let slot = create(&objects);
    let token = holds.reserve(on(slot), 100).unwrap();
    assert_eq!(holds.overdue(99, |slot| objects.get(slot)), None);
    assert_eq!(
        holds.overdue(100, |slot| objects.get(slot)),
        Some(Overdue::Reservation(on(slot)))
    );
    assert_eq!(holds.overdue(u64::MAX, |slot| objects.get(slot)), None, "once");
    assert_eq!(holds.reservations(), 1);
    assert_eq!(holds.end_reservation(token).unwrap(), (on(slot), true));
    assert!(holds.end_reservation(token).is_err());
    assert_eq!(holds.reservations(), 0);
}

#[test]
fn the_object_of_a_reservation_goes_in_the_step_that_finds_it_overdue_and_not_when_it_was_ended() {
    let (objects, holds) = (Objects::new(), Holds::new());
    let slots = [create(&objects), create(&objects)];
    let tokens = slots.map(|slot| holds.reserve(on(slot), 100).unwrap());
    holds.end_reservation(tokens[0]).unwrap();
    assert!(holds.overdue(100, |slot| objects.get(slot)).is_some());
    // Whoever found it may be stopped here: that keeps nobody off the key.
    assert!(objects.read_key(slots[1]).is_none());
    assert!(objects.read_key(slots[0]).is_some());
    assert!(holds.overdue(u64::MAX, |slot| objects.get(slot)).is_none());
    assert!(objects.read_key(slots[0]).is_some());
}

#[test]
fn leases_of_an_object_that_went_meanwhile_are_none() {
    let (objects, holds) = (Objects::new(), Holds::new());
    let slots: Vec<u32> = (0..200).map(|_| create(&objects)).collect();
    holds.lease(objects.get(slots[0]), on(slots[0]), 10).unwrap();
    holds.pin(on(slots[150])).unwrap();
    // What hangs on a free slot is the next free slot, which may have the number of a lease, of a pin, or of nothing.
    for slot in &slots[1..] {
        objects.finish(*slot);
    }
    for slot in &slots[1..] {
        assert_eq!(holds.leases_of(*slot, objects.get(*slot)), 0);
    }
    assert_eq!(holds.leases_of(slots[0], objects.get(slots[0])), 1);
}

#[test]
fn ends_come_in_order_whatever_was_added_and_ended_before() {
    let (objects, holds) = (Objects::new(), Holds::new());
    let slots: Vec<u32> = (0..8).map(|_| create(&objects)).collect();
    let (mut reservations, mut leases, mut random) = (Vec::new(), Vec::new(), 1u64);
    let mut now = 0;
    for _ in 0..5000 {
        // Knuth's MMIX generator.
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let (dice, slot, term) = (random >> 60, slots[(random >> 50) as usize % 8], (random >> 33) % 500);
        match dice {
            0..5 => leases.push(holds.lease(objects.get(slot), on(slot), now + term).unwrap()),
            5..9 => reservations.push((holds.reserve(on(slot), now + term).unwrap(), now + term)),
            9 => drop(holds.end_lease(objects.get(slot))),
            10 if !leases.is_empty() => {
                let token = leases.swap_remove(term as usize % leases.len());
                let (was_there, before) = (holds.is_leased(token), holds.leases());
                let held = holds.end_this_lease(token, |slot| objects.get(slot));
                assert_eq!(
                    (held.is_some(), holds.leases()),
                    (was_there, before - u64::from(was_there))
                );
                assert!(!holds.is_leased(token));
            }
            11..13 if !reservations.is_empty() => {
                let (token, end) = reservations.swap_remove(term as usize % reservations.len());
                let (_, is_overdue) = holds.end_reservation(token).unwrap();
                assert!(!is_overdue || end <= now);
            }
            _ => {
                now += 20;
                while let Some(overdue) = holds.overdue(now, |slot| objects.get(slot)) {
                    let (Overdue::Lease(held) | Overdue::Reservation(held)) = overdue;
                    assert!(slots.contains(&held.slot));
                }
                let next = holds
                    .lock()
                    .0
                    .first()
                    .map(|number| holds.records.get(*number).end.load(Ordering::Relaxed));
                assert!(next.is_none_or(|end| end > now));
            }
        }
        holds.validate();
        let on_objects = slots.iter().map(|slot| holds.leases_of(*slot, objects.get(*slot)));
        assert_eq!(on_objects.map(u64::from).sum::<u64>(), holds.leases());
    }
    for (token, end) in reservations {
        assert_eq!(holds.end_reservation(token).unwrap().1, end <= now);
    }
    while holds.overdue(u64::MAX, |slot| objects.get(slot)).is_some() {}
    assert_eq!((holds.leases(), holds.reservations()), (0, 0));
    assert!(
        slots
            .iter()
            .all(|slot| objects.get(*slot).list.load(Ordering::Relaxed) == 0)
    );
}

#[test]
fn of_threads_that_end_the_same_hold_one_does() {
    let holds = Holds::new();
    for _ in 0..200 {
        let (pin, reservation) = (holds.pin(on(0)).unwrap(), holds.reserve(on(1), 5).unwrap());
        let ended = std::thread::scope(|scope| {
            let end = || u32::from(holds.unpin(pin).is_ok()) + u32::from(holds.end_reservation(reservation).is_ok());
            let others = [scope.spawn(end), scope.spawn(end)];
            others.into_iter().map(|other| other.join().unwrap()).sum::<u32>()
        });
        assert_eq!((ended, holds.pins(), holds.reservations()), (2, 0, 0));
    }
}
