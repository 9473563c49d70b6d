use super::super::{Arrival, place};
use super::*;
use proptest::prelude::*;
use std::collections::HashMap;

fn arrival(id: u32, place: u64) -> Arrival {
    Arrival {
        id: Id(id),
        key: id.into(),
        units: 1,
        place,
        is_end: false,
        kind: None,
    }
}

fn insert_all<const FULL: usize>(order: &mut Recency<FULL>, places: impl IntoIterator<Item = u64>) {
    for (i, place) in places.into_iter().enumerate() {
        order.insert(arrival(i as u32, place)).unwrap();
    }
}

/// Ids in the order in which they go when nothing was used since it was put.
fn drain<const FULL: usize>(order: &mut Recency<FULL>) -> Vec<u32> {
    std::iter::from_fn(|| order.evict(0, &mut |_| Standing::Evictable { place: 0 }))
        .map(|victim| victim.id.0)
        .collect()
}

#[test]
fn the_tail_of_a_batch_goes_before_its_head_and_an_older_batch_before_a_newer_one() {
    let mut order = Prefix::new().unwrap();
    let batches = (0..3).flat_map(|stamp| (0..16384).map(move |position| place(stamp, position)));
    insert_all(&mut order, batches);
    order.validate();
    let expected = (0..3).flat_map(|stamp| (0..16384).rev().map(move |position| stamp * 16384 + position));
    assert!(drain(&mut order).into_iter().eq(expected));
}

#[test]
fn a_chain_that_was_held_is_still_eaten_from_its_tail() {
    let mut order = Prefix::new().unwrap();
    insert_all(&mut order, (0..100).map(|position| place(1, position)));
    assert_eq!(order.evict(place(9, 0), &mut |_| Standing::Held), None);
    order.insert(arrival(100, place(5, 0))).unwrap();
    assert!(
        drain(&mut order)
            .into_iter()
            .eq(std::iter::once(100).chain((0..100).rev()))
    );
}

#[test]
fn an_entry_that_was_used_moves_to_the_place_of_its_use() {
    let mut order = Prefix::new().unwrap();
    insert_all(&mut order, (0..10).map(|stamp| place(stamp, 0)));
    let mut standing = |Id(id)| match id {
        0 => Standing::Evictable { place: place(4, 5) }, // between 3 and 4
        id => Standing::Evictable {
            place: place(id.into(), 0),
        },
    };
    let order: Vec<_> = std::iter::from_fn(|| order.evict(0, &mut standing))
        .map(|victim| victim.id.0)
        .collect();
    assert_eq!(order, [1, 2, 3, 0, 4, 5, 6, 7, 8, 9]);
}

#[test]
fn places_that_fall_into_one_old_range_stay_in_exact_order() {
    let mut order = Prefix::new().unwrap();
    let places: Vec<u64> = (0..20_000)
        .map(|i| if i < 5000 { i << 32 } else { (i * 7919) % 20_011 })
        .collect();
    insert_all(&mut order, places.iter().copied());
    order.validate();
    let evicted = drain(&mut order).into_iter().map(|id| places[id as usize]);
    assert_eq!(evicted.len(), places.len());
    assert!(evicted.is_sorted());
}

#[test]
fn a_split_beside_crowded_places_leaves_no_small_buckets() {
    // What is there, what is removed to make a neighbour small, and the place that crowds the bucket till it splits.
    let lower_part = ([10, 10, 10, 10, 20, 20, 20, 20, 60, 70, 70, 70, 80], 5..8, 70);
    let upper_part = ([10, 10, 10, 10, 20, 20, 20, 60, 70, 70, 70, 70, 70], 8..12, 20);
    for (places, removed, crowded) in [lower_part, upper_part] {
        let mut order = Recency::<4>::new().unwrap();
        let handles = places.map(|place| order.insert(arrival(0, place)).unwrap().0);
        order.validate();
        for handle in &handles[removed] {
            order.remove(*handle, 0);
        }
        order.validate();
        for _ in 0..4 {
            order.insert(arrival(0, crowded)).unwrap();
            order.validate();
        }
    }
}

#[test]
fn a_search_that_panics_loses_no_entry() {
    let mut order = Prefix::new().unwrap();
    insert_all(&mut order, 0..10);
    let mut asked = 0;
    let search = std::panic::AssertUnwindSafe(|| {
        order.evict(0, &mut |_| {
            asked += 1;
            assert!(asked < 5, "injected");
            Standing::Held
        })
    });
    assert!(std::panic::catch_unwind(search).is_err());
    order.validate();
    assert_eq!(drain(&mut order).len(), 10);
}

#[test]
fn worth_counts_from_the_oldest_place() {
    let mut order = Prefix::new().unwrap();
    insert_all(&mut order, [50, 20, 40]);
    assert_eq!([10, 20, 50].map(|place| order.worth(place)), [0, 0, 30]);
    drain(&mut order);
    assert_eq!(order.worth(50), 0);
}

/// Entries touched by the costliest single call of those that `step` makes, for `0..steps`.
fn costliest(order: &mut Prefix, steps: u64, mut step: impl FnMut(&mut Prefix, u64)) -> usize {
    let calls = (0..steps).map(|i| {
        order.entries.touched.set(0);
        step(order, i);
        order.entries.touched.get()
    });
    calls.max().unwrap()
}

#[test]
fn no_call_touches_more_than_ten_thousand_entries_at_a_million() {
    const ENTRIES: u64 = 1_000_000;
    let scatter = |i: u64| i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
    let patterns: [(&str, &dyn Fn(u64) -> u64); 5] = [
        ("ascending", &|i| i),
        ("descending", &|i| ENTRIES - i),
        ("batches", &|i| place(i / 16384, i as usize % 16384)),
        ("scattered", &scatter),
        ("equal", &|i| 7 + i % 2),
    ];
    for (name, place_of) in patterns {
        let mut order = Prefix::new().unwrap();
        let inserting = costliest(&mut order, ENTRIES, |order, i| {
            order.insert(arrival(i as u32, place_of(i))).unwrap();
        });
        order.validate();
        let slots: Vec<u64> = (0..ENTRIES).filter(|i| scatter(*i) % 10 == 0).collect();
        let removing = costliest(&mut order, slots.len() as u64, |order, i| {
            order.remove(Handle(slots[i as usize] as u32), 0);
        });
        order.validate();
        // One in four was used since it was put, so that most calls move some entries before they find a victim.
        let mut oldest = 0;
        let evicting = costliest(&mut order, ENTRIES - slots.len() as u64, |order, i| {
            let mut standing = |Id(id)| {
                let used = if id % 4 == 0 { ENTRIES << 30 } else { 0 };
                Standing::Evictable {
                    place: place_of(id.into()) + used,
                }
            };
            let Victim { id, .. } = order.evict(0, &mut standing).unwrap();
            let Standing::Evictable { place } = standing(id) else {
                unreachable!()
            };
            assert!(oldest <= place, "{name}: eviction {i} is out of order");
            oldest = place;
        });
        assert_eq!(order.len(), 0);
        println!("{name}: insert {inserting}, remove {removing}, evict {evicting}");
        assert!(
            inserting.max(removing).max(evicting) < 10_000,
            "{name}: {inserting}, {removing}, {evicting}"
        );
    }
}

#[derive(Clone, Debug)]
enum Step {
    Insert(u64),
    Remove(usize),
    Hit(usize, u64),
    Hold(usize, bool),
    Evict(u64),
}

/// Of few stamps or many, so that equal places, crowded ranges and gaps all come up.
fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop_oneof![Just(2u64), Just(8), Just(40)].prop_flat_map(steps_among)
}

fn steps_among(stamps: u64) -> impl Strategy<Value = Vec<Step>> {
    let a_place = (0..stamps, 0..3usize).prop_map(|(stamp, position)| place(stamp, position));
    let step = prop_oneof![
        6 => a_place.clone().prop_map(Step::Insert),
        2 => any::<usize>().prop_map(Step::Remove),
        2 => (any::<usize>(), a_place.clone()).prop_map(|(which, place)| Step::Hit(which, place)),
        1 => (any::<usize>(), any::<bool>()).prop_map(|(which, held)| Step::Hold(which, held)),
        3 => a_place.prop_map(Step::Evict),
    ];
    prop::collection::vec(step, 1..400)
}

/// What the model knows of an entry: where the order has put it, and what its object says.
struct Known {
    handle: Handle,
    ordered: u64,
    place: u64,
    held: bool,
}

proptest! {
    /// With buckets of four, so that short runs open, split and join many.
    #[test]
    fn the_victim_is_always_the_entry_with_the_oldest_use(steps in steps()) {
        let mut order = Recency::<4>::new().unwrap();
        let mut model: HashMap<u32, Known> = HashMap::new();
        let mut next_id = 0;
        for step in steps {
            let nth = |model: &HashMap<u32, Known>, n: usize| {
                let mut ids: Vec<u32> = model.keys().copied().collect();
                ids.sort_unstable();
                (!ids.is_empty()).then(|| ids[n % ids.len()])
            };
            match step {
                Step::Insert(place) => {
                    let (handle, _) = order.insert(arrival(next_id, place)).unwrap();
                    model.insert(next_id, Known { handle, ordered: place, place, held: false });
                    next_id += 1;
                }
                Step::Remove(n) => if let Some(id) = nth(&model, n) {
                    order.remove(model.remove(&id).unwrap().handle, 0);
                },
                Step::Hit(n, place) => if let Some(id) = nth(&model, n) {
                    let known = model.get_mut(&id).unwrap();
                    known.place = known.place.max(place);
                },
                Step::Hold(n, held) => if let Some(id) = nth(&model, n) {
                    model.get_mut(&id).unwrap().held = held;
                },
                Step::Evict(newest) => {
                    let stands_at = |known: &Known| known.ordered.max(known.place);
                    let oldest = model.values().filter(|known| !known.held).map(stands_at).min();
                    let mut asked = Vec::new();
                    let victim = order.evict(newest, &mut |Id(id)| {
                        asked.push(id);
                        let Known { held, place, .. } = model[&id];
                        if held { Standing::Held } else { Standing::Evictable { place } }
                    });
                    let gone = victim.map(|victim| model.remove(&victim.id.0).unwrap());
                    prop_assert!(gone.as_ref().is_none_or(|gone| !gone.held));
                    prop_assert_eq!(gone.as_ref().map(stands_at), oldest);
                    for id in asked {
                        let Some(known) = model.get_mut(&id) else { continue };
                        prop_assert!(oldest.is_none_or(|oldest| known.ordered <= oldest), "met before its turn");
                        known.ordered = if known.held { renewed(known.ordered, newest) } else { stands_at(known) };
                    }
                }
            }
            order.validate();
            prop_assert_eq!(order.len(), model.len());
        }
    }
}
