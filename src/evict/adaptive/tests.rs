use super::super::{is_later_tick, place};
use super::*;

/// Stamps of a tick.
fn stamp(tick: u64) -> u64 {
    (tick << 22) + 1
}

/// A segment of some units, and the objects in it: those of which one knows when they were used last.
struct Segment {
    policy: Adaptive,
    shared: Shared,
    units: usize,
    there: Vec<Known>,
}

#[derive(Clone, Copy)]
struct Known {
    key: u64,
    place: u64,
    kind: Kind,
}

impl Segment {
    fn of(units: u64) -> Segment {
        let shared = Shared::new().unwrap();
        Segment {
            policy: Adaptive::new(units, &shared).unwrap(),
            shared,
            units: units as usize,
            there: Vec::new(),
        }
    }

    fn find(&mut self, key: u64) -> Option<&mut Known> {
        self.there.iter_mut().find(|known| known.key == key)
    }

    fn has(&mut self, key: u64) -> bool {
        self.find(key).is_some()
    }

    /// Uses an object as a store does; false when it is not there.
    fn get(&mut self, key: u64, tick: u64) -> bool {
        let now = place(stamp(tick) + 1, 0);
        let Some(known) = self.find(key) else { return false };
        let before = std::mem::replace(
            known,
            Known {
                place: now,
                kind: known.kind.after(known.place, now),
                ..*known
            },
        );
        if is_later_tick(before.place, now) {
            self.shared.hear(before.kind, before.place, now);
        }
        true
    }

    fn put(&mut self, key: u64, tick: u64) {
        let newest = place(stamp(tick), 0);
        if self.there.len() == self.units {
            let places: Vec<u64> = self.there.iter().map(|known| known.place).collect();
            let names: Vec<u64> = self.there.iter().map(|known| known.key).collect();
            let position = |id: Id| names.iter().position(|key| *key == u64::from(id.0)).unwrap();
            let victim = self
                .policy
                .evict(newest, &mut |id| Standing::Evictable {
                    place: places[position(id)],
                })
                .unwrap();
            self.there.retain(|known| known.key != u64::from(victim.id.0));
        }
        let arrival = Arrival {
            id: Id(key as u32),
            key: (key + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15),
            units: 1,
            place: newest,
            is_end: false,
            kind: None,
        };
        let (_, kind) = self.policy.insert(arrival).unwrap();
        self.there.push(Known {
            key,
            place: newest,
            kind,
        });
    }
}

#[test]
fn what_is_used_every_round_stays_while_things_go_through_that_are_used_once() {
    const HOT: u64 = 50;
    let mut segment = Segment::of(100);
    let (mut next, mut misses) = (HOT, 0);
    for round in 0..60 {
        for key in 0..HOT {
            if !segment.get(key, 10 * round) {
                segment.put(key, 10 * round);
                misses += u64::from(round > 10);
            }
        }
        // Twice what there is room for: the least recently used would all be gone by the next round.
        for _ in 0..200 {
            segment.put(next, 10 * round + 5);
            next += 1;
        }
        segment.policy.validate();
    }
    assert!(misses * 10 < 49 * HOT, "{misses} of {} were missed", 49 * HOT);
}

#[test]
fn a_newcomer_can_be_read_while_newer_puts_fill_a_hundredth_of_the_segment() {
    const UNITS: u64 = 1000;
    let mut segment = Segment::of(UNITS);
    // What is there is used again and again, so that newcomers rank below it.
    for tick in 0..50 {
        for key in 0..UNITS {
            if !segment.get(key, tick) {
                segment.put(key, tick);
            }
        }
    }
    for key in UNITS..2 * UNITS {
        segment.put(key, 50);
        let youngest = (key.saturating_sub(UNITS / YOUNG_SHARE - 1)).max(UNITS)..=key;
        assert!(youngest.into_iter().all(|key| segment.has(key)), "at {key}");
    }
}

#[test]
fn what_comes_back_after_it_was_let_go_is_known() {
    let mut segment = Segment::of(100);
    (0..400).for_each(|key| segment.put(key, key / 100));
    let gone = (0..400).rev().find(|key| !segment.has(*key)).unwrap();
    segment.put(gone, 10);
    assert_eq!(segment.find(gone).unwrap().kind, Kind::Used);
    segment.put(1000, 10);
    assert_eq!(segment.find(1000).unwrap().kind, Kind::New);
}

#[test]
fn what_it_keeps_is_bounded_however_many_go_through() {
    let mut segment = Segment::of(100);
    (0..20_000).for_each(|key| segment.put(key, key / 10));
    let (lives, ghosts) = locked(&segment.shared.learner).sizes();
    assert!((350..=600).contains(&ghosts), "{ghosts} ghosts");
    assert!(lives <= ghosts as u64 + 100, "{lives} lives");
}
