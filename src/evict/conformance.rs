//! What holds for every policy, whatever its order: one suite that drives any `dyn Policy`.
//!
//! A policy chooses which copy goes, so nothing here says which one. It says what no choice may break: a copy goes once and
//! only while it is in the order; what is held or belongs to the batch that asks never goes; a search ends, and finds
//! a victim when there is one; slots are used again; the structure is sound after every step. What is special to one
//! policy, its order above all, is tested beside it.
//!
//! A new policy adds a line to [`policies`].

use super::adaptive::{Adaptive, Learned, Shared};
use super::prefix::{Prefix, Recency};
use super::{Arrival, Handle, Id, Policy, Standing, Victim, place};
use proptest::prelude::*;
use std::collections::{HashMap, HashSet};

type Make = fn() -> Box<dyn Policy>;

fn policies() -> [(&'static str, Make); 4] {
    [
        ("prefix", || Box::new(Prefix::new().unwrap())),
        ("prefix with buckets of four", || Box::new(Recency::<4>::new().unwrap())),
        ("adaptive", || {
            Box::new(Adaptive::new(1 << 20, &Shared::new().unwrap()).unwrap())
        }),
        ("adaptive with buckets of four and few newcomers", || {
            Box::new(Learned::<4>::new(200, &Shared::new().unwrap()).unwrap())
        }),
    ]
}

/// Runs `check` on a policy of each kind that holds ids `0..count` of `id + 1` units, put in batches of 100.
fn with_each(count: u32, check: impl Fn(&mut dyn Policy, Vec<Handle>)) {
    for (name, make) in policies() {
        println!("policy: {name}");
        let mut policy = make();
        let handles = (0..count)
            .map(|id| policy.insert(arrival(Id(id), id + 1, place_of(Id(id)))).unwrap().0)
            .collect();
        policy.validate();
        assert_eq!(policy.len(), count as usize);
        check(&mut *policy, handles);
        policy.validate();
    }
}

fn place_of(Id(id): Id) -> u64 {
    place(u64::from(id) / 100, id as usize % 100)
}

/// The hash of the key of an id's object: the same each time that it comes.
fn key_of(Id(id): Id) -> u64 {
    (u64::from(id) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn arrival(id: Id, units: u32, place: u64) -> Arrival {
    Arrival {
        id,
        key: key_of(id),
        units,
        place,
        is_end: false,
        kind: None,
    }
}

fn evictable(id: Id) -> Standing {
    Standing::Evictable { place: place_of(id) }
}

const NEWEST: u64 = 1 << 60;

#[test]
fn everything_goes_exactly_once_with_its_size() {
    with_each(5000, |policy, _| {
        let mut gone = HashSet::new();
        for left in (0..5000).rev() {
            let Victim { id, units } = policy.evict(NEWEST, &mut evictable).unwrap();
            assert!(gone.insert(id), "{id:?} went twice");
            assert_eq!(units, id.0 + 1);
            assert_eq!(policy.len(), left);
        }
        assert_eq!(policy.evict(NEWEST, &mut evictable), None);
    });
}

#[test]
fn an_empty_policy_asks_nothing_and_gives_nothing() {
    with_each(0, |policy, _| {
        assert_eq!(policy.evict(NEWEST, &mut |id| panic!("asked about {id:?}")), None)
    });
}

#[test]
fn what_was_removed_is_neither_asked_about_nor_evicted() {
    with_each(3000, |policy, handles| {
        let removed = |id: Id| !id.0.is_multiple_of(3);
        for (id, handle) in (0..).map(Id).zip(handles) {
            if removed(id) {
                policy.remove(handle, 0);
            }
        }
        policy.validate();
        assert_eq!(policy.len(), 1000);
        let mut standing = |id| {
            assert!(!removed(id), "{id:?} was removed");
            evictable(id)
        };
        for _ in 0..1000 {
            policy.evict(NEWEST, &mut standing).unwrap();
        }
        assert_eq!(policy.len(), 0);
    });
}

#[test]
fn what_is_held_never_goes_and_all_else_does() {
    with_each(3000, |policy, _| {
        let mut standing = |id: Id| match id.0 % 3 {
            0 | 1 => Standing::Held,
            _ => evictable(id),
        };
        for _ in 0..1000 {
            let victim = policy.evict(NEWEST, &mut standing).unwrap();
            assert_eq!(victim.id.0 % 3, 2);
        }
        assert_eq!(policy.evict(NEWEST, &mut standing), None);
        assert_eq!(policy.len(), 2000);
    });
}

#[test]
fn a_search_asks_at_most_once_about_what_is_held_and_then_gives_up() {
    {
        // Whether the time it is told lies before, among or after the places in the order.
        for newest in [0, place(15, 0), NEWEST] {
            with_each(3000, |policy, _| {
                let mut asked = HashSet::new();
                let victim = policy.evict(newest, &mut |id| {
                    assert!(asked.insert(id), "asked twice about {id:?}");
                    Standing::Held
                });
                assert_eq!(victim, None);
                assert_eq!(policy.len(), 3000);
                // Nothing was lost on the way.
                policy.validate();
                assert_eq!(
                    std::iter::from_fn(|| policy.evict(NEWEST, &mut evictable)).count(),
                    3000
                );
            });
        }
    }
}

#[test]
fn the_only_one_that_may_go_is_found_wherever_it_is() {
    for only in [0, 99, 1700, 2999] {
        with_each(3000, |policy, _| {
            let mut standing = |id: Id| if id.0 == only { evictable(id) } else { Standing::Held };
            assert_eq!(policy.evict(0, &mut standing).map(|victim| victim.id), Some(Id(only)));
            assert_eq!(policy.evict(0, &mut standing), None);
        });
    }
}

#[test]
fn a_victim_is_found_when_everything_was_used() {
    with_each(3000, |policy, _| {
        let mut used = |id| Standing::Evictable {
            place: place_of(id) + place(1000, 0),
        };
        assert_eq!(std::iter::from_fn(|| policy.evict(NEWEST, &mut used)).count(), 3000);
    });
}

#[test]
fn a_search_ends_while_hits_keep_coming_in() {
    with_each(500, |policy, _| {
        let mut now = NEWEST;
        let mut used_again = |_| {
            now += 1 << 14;
            Standing::Evictable { place: now }
        };
        assert!(policy.evict(NEWEST, &mut used_again).is_some());
        let asked = (now - NEWEST) >> 14;
        assert!(asked <= 2 * 500 + 1, "asked {asked} times about 500 entries");
    });
}

#[test]
fn slots_of_what_left_are_used_again() {
    with_each(2000, |policy, handles| {
        let slots: HashSet<u32> = handles.iter().map(|handle| handle.0).collect();
        assert_eq!(slots.len(), 2000, "two entries have one handle");
        assert!(!slots.contains(&u32::MAX));
        for round in 1..4 {
            while policy.evict(NEWEST, &mut evictable).is_some() {}
            for id in 0..2000 {
                let handle = policy
                    .insert(arrival(Id(id), 1, place(100 * round, id as usize)))
                    .unwrap()
                    .0;
                assert!(slots.contains(&handle.0), "{handle:?} is new with 2000 slots free");
            }
        }
    });
}

#[test]
fn what_was_evicted_may_return_put_again_or_put_back() {
    with_each(1000, |policy, _| {
        for round in 1..5 {
            for _ in 0..300 {
                let Victim { id, units } = policy.evict(NEWEST, &mut evictable).unwrap();
                let place = match id.0 % 2 {
                    0 => place_of(id),
                    _ => place(100 * round, id.0 as usize),
                };
                policy.insert(arrival(id, units, place)).unwrap();
            }
            policy.validate();
            assert_eq!(policy.len(), 1000);
        }
        let mut gone: Vec<Id> = std::iter::from_fn(|| policy.evict(NEWEST, &mut evictable))
            .map(|victim| victim.id)
            .collect();
        gone.sort_unstable_by_key(|id| id.0);
        assert!(gone.into_iter().eq((0..1000).map(Id)));
    });
}

#[test]
fn worth_is_nothing_for_the_first_to_go_and_never_less_for_a_newer_place() {
    with_each(5000, |policy, _| {
        for _ in 0..1500 {
            policy.evict(NEWEST, &mut evictable).unwrap();
        }
        let places: Vec<u64> = (0..60).map(|stamp| place(stamp, 50)).collect();
        assert!(places.iter().map(|place| policy.worth(*place)).is_sorted());
        assert!(policy.worth(place(59, 0)) > 0);
        let first = policy.evict(NEWEST, &mut evictable).unwrap();
        assert_eq!(policy.worth(place_of(first.id)), 0);
    });
}

#[derive(Clone, Debug)]
enum Step {
    Insert { key: u64, place: u64, units: u32 },
    Remove { nth: usize },
    Hit { nth: usize, place: u64 },
    Stand { nth: usize, how: usize },
    Evict { newest: u64 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let a_place = || (0..30u64, 0..4usize).prop_map(|(stamp, position)| place(stamp, position));
    let step = prop_oneof![
        // Of few keys, so that some return, and some come before the old copy has left: a put may overtake a removal.
        6 => (0..40u64, a_place(), 1..100u32).prop_map(|(key, place, units)| Step::Insert { key, place, units }),
        2 => any::<usize>().prop_map(|nth| Step::Remove { nth }),
        2 => (any::<usize>(), a_place()).prop_map(|(nth, place)| Step::Hit { nth, place }),
        2 => (any::<usize>(), 0..2usize).prop_map(|(nth, how)| Step::Stand { nth, how }),
        3 => a_place().prop_map(|newest| Step::Evict { newest }),
    ];
    prop::collection::vec(step, 1..300)
}

/// An entry as the owner of the objects knows it.
struct Known {
    id: Id,
    handle: Handle,
    units: u32,
    standing: Standing,
}

proptest! {
    #[test]
    fn random_steps_agree_with_a_plain_list(steps in steps()) {
        for (_, make) in policies() {
            let mut policy = make();
            let mut copies: Vec<Known> = Vec::new();
            for (id, step) in steps.iter().enumerate() {
                let id = Id(id as u32);
                let count = copies.len().max(1);
                match *step {
                    Step::Insert { key, place, units } => {
                        let is_end = units % 4 == 0;
                        let handle = policy.insert(Arrival { id, key, units, place, is_end, kind: None }).unwrap().0;
                        prop_assert!(copies.iter().all(|copy| copy.handle != handle));
                        copies.push(Known { id, handle, units, standing: Standing::Evictable { place } });
                    }
                    Step::Remove { nth } if !copies.is_empty() => policy.remove(copies.swap_remove(nth % count).handle, 0),
                    Step::Hit { nth, place } if !copies.is_empty() => {
                        if let Standing::Evictable { place: old } = &mut copies[nth % count].standing {
                            *old = place.max(*old);
                        }
                    }
                    Step::Stand { nth, how } if !copies.is_empty() => {
                        copies[nth % count].standing = [Standing::Held, Standing::Evictable { place: 0 }][how];
                    }
                    Step::Evict { newest } => {
                        let known: HashMap<Id, Standing> = copies.iter().map(|copy| (copy.id, copy.standing)).collect();
                        let victim = policy.evict(newest, &mut |id| known[&id]);
                        let may_go = |copy: &Known| matches!(copy.standing, Standing::Evictable { .. });
                        prop_assert_eq!(victim.is_some(), copies.iter().any(may_go));
                        if let Some(Victim { id, units }) = victim {
                            let index = copies.iter().position(|copy| copy.id == id).unwrap();
                            let copy = copies.swap_remove(index);
                            prop_assert!(may_go(&copy));
                            prop_assert_eq!(copy.units, units);
                        }
                    }
                    _ => {}
                }
                policy.validate();
                prop_assert_eq!(policy.len(), copies.len());
            }
        }
    }
}
