use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const OBJECT: Owner = Owner::Object(7);

/// The same by the simplest means: used extents by their start.
struct Model {
    units: u32,
    used: BTreeMap<u32, (u32, Owner)>,
}

impl Model {
    fn runs(&self) -> Vec<(Extent, Option<Owner>)> {
        let (mut runs, mut at) = (Vec::new(), 0);
        for (&start, &(units, owner)) in &self.used {
            if at < start {
                runs.push((Extent::new(at, start - at), None));
            }
            runs.push((Extent::new(start, units), Some(owner)));
            at = start + units;
        }
        if at < self.units {
            runs.push((Extent::new(at, self.units - at), None));
        }
        runs
    }

    fn is_free(&self, wanted: Extent) -> bool {
        self.runs()
            .iter()
            .any(|(run, owner)| owner.is_none() && is_within(wanted, *run))
    }

    /// The stretch of free and held runs around the run of this index.
    fn around(&self, index: usize, ticket: u32) -> Option<Extent> {
        let runs = self.runs();
        let mut stretches = runs.split(|(_, owner)| owner.is_some_and(|owner| owner != Owner::Held(ticket)));
        let stretch = stretches.find(|stretch| stretch.contains(&runs[index]))?;
        let (first, last) = (stretch[0].0, stretch[stretch.len() - 1].0);
        Some(Extent::new(first.start, last.end() - first.start))
    }

    /// Whether all in `run` is free or held, and no held extent reaches out of it.
    fn may_take(&self, run: Extent, ticket: u32) -> bool {
        self.runs()
            .iter()
            .filter(|(part, _)| part.start < run.end() && run.start < part.end())
            .all(|&(part, owner)| owner.is_none() || owner == Some(Owner::Held(ticket)) && is_within(part, run))
    }
}

fn is_within(inner: Extent, outer: Extent) -> bool {
    outer.start <= inner.start && inner.end() <= outer.end()
}

/// A small generator, for tests that need numbers rather than shrinking.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u32) -> u32 {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        ((self.0 >> 33) % u64::from(limit)) as u32
    }
}

#[derive(Clone, Debug)]
enum Step {
    Allocate { units: u32, owner: Owner },
    AllocateAt { wanted: Extent, owner: Owner },
    Free { pick: usize },
    SetOwner { pick: usize, owner: Owner },
    HoldFree { window: Extent, ticket: u32 },
    TakeAround { pick: usize, percent: u32, ticket: u32 },
    Take { run: Extent, units: u32, ticket: u32 },
}

const MODEL_UNITS: u32 = 500;

fn owners() -> impl Strategy<Value = Owner> {
    prop_oneof![
        3 => (0..Owner::ID_LIMIT).prop_map(Owner::Object),
        2 => (0..3u32).prop_map(Owner::Held),
        1 => (0..3u32).prop_map(Owner::Claimed),
    ]
}

fn extents() -> impl Strategy<Value = Extent> {
    (0..MODEL_UNITS + 2, 0..60u32).prop_map(|(start, units)| Extent::new(start, units))
}

fn steps() -> impl Strategy<Value = Step> {
    let pick = any::<usize>;
    prop_oneof![
        6 => (0..60u32, owners()).prop_map(|(units, owner)| Step::Allocate { units, owner }),
        2 => (extents(), owners()).prop_map(|(wanted, owner)| Step::AllocateAt { wanted, owner }),
        6 => pick().prop_map(|pick| Step::Free { pick }),
        1 => (pick(), owners()).prop_map(|(pick, owner)| Step::SetOwner { pick, owner }),
        1 => (extents(), 0..3u32).prop_map(|(window, ticket)| Step::HoldFree { window, ticket }),
        1 => (pick(), 0..110u32, 0..3u32)
            .prop_map(|(pick, percent, ticket)| Step::TakeAround { pick, percent, ticket }),
        1 => (extents(), 0..60u32, 0..3u32).prop_map(|(run, units, ticket)| Step::Take { run, units, ticket }),
    ]
}

/// Takes `step` with both and compares what they say.
fn take_step(allocator: &mut Allocator, model: &mut Model, step: Step) {
    let picked = |pick: usize| model.used.keys().nth(pick % model.used.len().max(1)).copied();
    match step {
        Step::Allocate { units, owner } => match allocator.allocate(units, owner) {
            Some(extent) => {
                assert!(
                    extent.units == units && units > 0 && model.is_free(extent),
                    "{extent:?}"
                );
                model.used.insert(extent.start, (units, owner));
            }
            // Too few units for more runs in a bin than are looked at, so nothing that fits is missed.
            None => assert!(
                units == 0
                    || model
                        .runs()
                        .iter()
                        .all(|(run, owner)| owner.is_some() || run.units < units)
            ),
        },
        Step::AllocateAt { wanted, owner } => {
            let may = wanted.units > 0 && model.is_free(wanted);
            assert_eq!(allocator.allocate_at(wanted.start, wanted.units, owner), may);
            if may {
                model.used.insert(wanted.start, (wanted.units, owner));
            }
        }
        Step::Free { pick } => {
            let Some(start) = picked(pick) else { return };
            let (units, owner) = model.used[&start];
            if let Owner::Claimed(ticket) = owner {
                assert_eq!(allocator.free(start), Freed::Held(ticket));
                model.used.insert(start, (units, Owner::Held(ticket)));
            } else {
                assert_eq!(allocator.free(start), Freed::Free(units));
                model.used.remove(&start);
            }
        }
        Step::SetOwner { pick, owner } => {
            let Some(start) = picked(pick) else { return };
            assert!(allocator.set_owner(start, owner));
            assert_eq!(allocator.owner(start), Some(owner));
            model.used.insert(start, (model.used[&start].0, owner));
        }
        Step::HoldFree { window, ticket } => {
            let mut held = vec![3];
            allocator.hold_free(window, ticket, &mut held).unwrap();
            let mut expected = vec![3];
            for (run, _) in model.runs().into_iter().filter(|(_, owner)| owner.is_none()) {
                let (start, end) = (run.start.max(window.start), run.end().min(window.end()));
                if start < end {
                    expected.push(start);
                    model.used.insert(start, (end - start, Owner::Held(ticket)));
                }
            }
            assert_eq!(held, expected);
        }
        Step::TakeAround { pick, percent, ticket } => {
            let runs = model.runs();
            let start = runs[pick % runs.len()].0.start;
            let run = allocator.run_around(start, ticket);
            assert_eq!(
                run,
                model.around(pick % runs.len(), ticket).unwrap_or(Extent::new(start, 0))
            );
            take(allocator, model, run, run.units * percent / 100, ticket);
        }
        Step::Take { run, units, ticket } => take(allocator, model, run, units, ticket),
    }
}

fn take(allocator: &mut Allocator, model: &mut Model, run: Extent, units: u32, ticket: u32) {
    let may = units > 0 && units <= run.units && run.end() <= model.units && model.may_take(run, ticket);
    let taken = allocator.take_run(run, units, ticket, OBJECT);
    assert_eq!(
        taken,
        may.then_some(Extent::new(run.start, units)),
        "{units} units of {run:?}"
    );
    if may {
        model.used.retain(|&start, _| start < run.start || start >= run.end());
        model.used.insert(run.start, (units, OBJECT));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    #[test]
    fn it_does_what_a_map_of_extents_does(steps in prop::collection::vec(steps(), 1..120)) {
        let mut allocator = Allocator::new(MODEL_UNITS).unwrap();
        let mut model = Model { units: MODEL_UNITS, used: BTreeMap::new() };
        for step in steps {
            take_step(&mut allocator, &mut model, step);
            allocator.validate();
            let runs = model.runs();
            assert!(allocator.runs(0).eq(runs.iter().copied()));
            assert_eq!(allocator.allocated_units(), model.used.values().map(|(units, _)| units).sum::<u32>());
            assert_eq!(allocator.free_units() + allocator.allocated_units(), allocator.units());
        }
        for start in model.used.into_keys() {
            if let Freed::Held(_) = allocator.free(start) {
                allocator.free(start);
            }
        }
        allocator.validate();
        assert!(allocator.runs(0).eq([(Extent::new(0, MODEL_UNITS), None)]), "not one run again");
    }

    #[test]
    fn containing_and_runs_agree_with_every_unit_of_a_layout(layout in layouts()) {
        let (allocator, runs, _) = lay_out(&layout);
        for (index, &(run, owner)) in runs.iter().enumerate() {
            for unit in run.start..run.end() {
                assert_eq!(allocator.containing(unit), owner.map(|owner| (run, owner)));
                assert!(allocator.runs(unit).eq(runs[index..].iter().copied()));
            }
        }
        assert_eq!(allocator.containing(allocator.units()), None);
        assert_eq!(allocator.runs(allocator.units()).count(), 0);
    }

    #[test]
    fn the_cheapest_window_is_that_of_brute_force(layout in layouts(), units in 0..40u32) {
        let (allocator, runs, prices) = lay_out(&layout);
        let mut asked = BTreeSet::new();
        let window = allocator.cheapest_window(units, 1, |id, extent| {
            assert!(asked.insert(id), "object {id} asked for twice");
            assert_eq!(allocator.containing(extent.start), Some((extent, Owner::Object(id))));
            prices[id as usize]
        });
        let price = |owner: Option<Owner>| match owner {
            Some(Owner::Object(id)) => prices[id as usize],
            None | Some(Owner::Held(1)) => Some(0),
            _ => None,
        };
        let mut best: Option<Window> = None;
        for first in 0..runs.len() {
            for last in first..runs.len() {
                let length = |runs: &[(Extent, Option<Owner>)]| runs.iter().map(|(run, _)| run.units).sum::<u32>();
                let inside = &runs[first..=last];
                let is_least = length(&inside[1..]) < units && length(&inside[..inside.len() - 1]) < units;
                let cost = inside.iter().map(|(_, owner)| price(*owner).map(u128::from)).sum::<Option<u128>>();
                if let Some(cost) = cost.filter(|_| is_least && length(inside) >= units)
                    && best.is_none_or(|best| cost < best.cost)
                {
                    best = Some(Window { extent: Extent::new(inside[0].0.start, length(inside)), cost });
                }
            }
        }
        assert_eq!(window.unwrap(), best);
    }

    #[test]
    fn the_bitmap_finds_the_last_member(
        limit in 1..600_000u32,
        steps in prop::collection::vec((any::<u32>(), 0..3u32), 1..200),
    ) {
        let (mut starts, mut members) = (Starts::new(limit).unwrap(), BTreeSet::new());
        for (number, what) in steps {
            let number = number % limit;
            match what {
                0 => {
                    starts.insert(number);
                    members.insert(number);
                }
                1 => {
                    let near = members.range(..=number).last().copied().unwrap_or(number);
                    starts.remove(near);
                    members.remove(&near);
                }
                _ => {}
            }
            for at in [number, 0, limit - 1, number.saturating_sub(1), number / 64 * 64, number / 4096 * 4096] {
                assert_eq!(starts.last_until(at), members.range(..=at).last().copied(), "until {at}");
                assert_eq!(starts.contains(at), members.contains(&at));
            }
        }
        starts.validate(members.into_iter().map(|member| member as usize).collect());
    }
}

/// Runs: the length, a price in case an object has it, the owner. The id of an object becomes the number of its
/// run.
fn layouts() -> impl Strategy<Value = Vec<(u32, Option<u64>, Option<Owner>)>> {
    let prices = prop_oneof![1 => Just(None), 2 => (0..4u64).prop_map(Some), 1 => Just(Some(u64::MAX))];
    prop::collection::vec((1..12u32, prices, prop::option::weighted(0.8, owners())), 1..30)
}

/// An allocator of exactly these runs, the runs (neighbours that are free as one), and the prices of its objects by
/// their id.
#[expect(clippy::type_complexity)]
fn lay_out(
    layout: &[(u32, Option<u64>, Option<Owner>)],
) -> (Allocator, Vec<(Extent, Option<Owner>)>, Vec<Option<u64>>) {
    let mut allocator = Allocator::new(layout.iter().map(|(units, ..)| units).sum()).unwrap();
    let (mut model, mut prices, mut at) = (
        Model {
            units: allocator.units(),
            used: BTreeMap::new(),
        },
        Vec::new(),
        0,
    );
    for &(units, price, owner) in layout {
        let owner = match owner {
            Some(Owner::Object(_)) => Some(Owner::Object(prices.len() as u32)),
            other => other,
        };
        prices.push(price);
        if let Some(owner) = owner {
            assert!(allocator.allocate_at(at, units, owner));
            model.used.insert(at, (units, owner));
        }
        at += units;
    }
    allocator.validate();
    (allocator, model.runs(), prices)
}

#[test]
fn bins_are_in_the_order_of_sizes_and_exact_up_to_sixteen() {
    for units in 1..=16 {
        assert_eq!(bin_of(units), units as usize);
    }
    let mut last = 0;
    for units in 1..1 << 16 {
        let bin = bin_of(units);
        assert!(
            bin == last || bin == last + 1,
            "{units} units in bin {bin} after bin {last}"
        );
        last = bin;
    }
    assert_eq!(bin_of(u32::MAX), BINS - 1);
}

#[test]
fn a_full_segment_gives_nothing_until_something_is_freed() {
    let mut allocator = Allocator::new(64).unwrap();
    let extents: Vec<_> = (0..64)
        .map(|id| allocator.allocate(1, Owner::Object(id)).unwrap())
        .collect();
    assert_eq!(allocator.free_units(), 0);
    assert_eq!(allocator.allocate(1, OBJECT), None);
    allocator.validate();
    assert_eq!(allocator.free(extents[40].start), Freed::Free(1));
    assert_eq!(allocator.allocate(2, OBJECT), None);
    assert_eq!(allocator.allocate(1, OBJECT), Some(extents[40]));
    allocator.validate();
}

#[test]
fn an_object_may_be_as_large_as_the_segment() {
    for units in [1, 2, 16, 17, 63, 64, 65, 1000, 4097] {
        let mut allocator = Allocator::new(units).unwrap();
        assert_eq!(allocator.allocate(units + 1, OBJECT), None);
        assert_eq!(allocator.allocate(units, OBJECT), Some(Extent::new(0, units)));
        assert_eq!(allocator.containing(units - 1), Some((Extent::new(0, units), OBJECT)));
        allocator.validate();
        assert_eq!(allocator.free(0), Freed::Free(units));
        allocator.validate();
    }
}

#[test]
fn a_close_fit_is_taken_before_a_larger_run_is_cut() {
    let mut allocator = Allocator::new(1000).unwrap();
    assert!(allocator.allocate_at(0, 17, OBJECT) && allocator.allocate_at(17, 3, OBJECT));
    allocator.free(0);
    assert_eq!(allocator.allocate(17, OBJECT), Some(Extent::new(0, 17)));
}

#[test]
fn what_readers_keep_comes_to_the_put_that_evicted_it() {
    let mut allocator = Allocator::new(30).unwrap();
    for id in 0..3 {
        allocator.allocate_at(10 * id, 10, Owner::Object(id));
    }
    allocator.set_owner(0, Owner::Claimed(5)); // evicted by put 5, while somebody reads it
    allocator.set_owner(10, Owner::Held(5));
    assert_eq!(allocator.run_around(10, 5), Extent::new(10, 10));
    assert_eq!(allocator.run_around(0, 5), Extent::new(0, 0));
    assert_eq!(allocator.free(0), Freed::Held(5));
    assert_eq!(allocator.allocate(1, OBJECT), None, "another put got what is held");
    assert_eq!(allocator.run_around(10, 5), Extent::new(0, 20));
    assert_eq!(
        allocator.take_run(Extent::new(0, 20), 15, 6, OBJECT),
        None,
        "the wrong ticket"
    );
    assert_eq!(
        allocator.take_run(Extent::new(0, 20), 15, 5, OBJECT),
        Some(Extent::new(0, 15))
    );
    allocator.validate();
    assert_eq!(allocator.free_units(), 5);
}

#[test]
fn a_held_window_is_closed_to_others() {
    let mut allocator = Allocator::new(20).unwrap();
    allocator.allocate_at(5, 5, Owner::Object(0));
    let window = allocator.cheapest_window(18, 1, |_, _| Some(3)).unwrap().unwrap();
    assert_eq!(
        window,
        Window {
            extent: Extent::new(0, 20),
            cost: 3
        }
    );
    let mut held = Vec::new();
    allocator.hold_free(window.extent, 1, &mut held).unwrap();
    assert_eq!((held, allocator.free_units()), (vec![0, 10], 0));
    allocator.set_owner(5, Owner::Held(1));
    assert_eq!(
        allocator.take_run(window.extent, 18, 1, OBJECT),
        Some(Extent::new(0, 18))
    );
    assert_eq!(allocator.runs(0).last(), Some((Extent::new(18, 2), None)));
    allocator.validate();
}

#[test]
fn a_segment_of_a_tebibyte_is_made_at_once() {
    let mut allocator = Allocator::new(1 << 28).unwrap();
    assert_eq!(
        allocator.allocate(1 << 27, Owner::Object(1)),
        Some(Extent::new(0, 1 << 27))
    );
    assert_eq!(allocator.allocate(1, Owner::Object(2)), Some(Extent::new(1 << 27, 1)));
    assert_eq!(
        allocator.containing((1 << 27) - 1),
        Some((Extent::new(0, 1 << 27), Owner::Object(1)))
    );
    assert_eq!(allocator.containing((1 << 28) - 1), None);
    assert_eq!(allocator.free(0), Freed::Free(1 << 27));
    assert_eq!(allocator.runs(0).count(), 3);
}

#[test]
fn sizes_that_no_segment_has_are_refused() {
    for units in [0, MAX_UNITS + 1, u32::MAX] {
        assert!(matches!(Allocator::new(units), Err(Error::InvalidParam(_))), "{units}");
    }
}

#[test]
fn tables_that_there_is_no_memory_for_are_an_error() {
    for length in [isize::MAX as usize / size_of::<Tag>(), usize::MAX] {
        assert!(matches!(zeroed::<Tag>(length), Err(Error::OutOfMemory(_))), "{length}");
    }
}

/// Starts that aren't those of a used extent: freed before, inside one, past the end.
fn with_bad_starts(mut misuse: impl FnMut(&mut Allocator, u32)) {
    let mut allocator = Allocator::new(100).unwrap();
    for start in [0, 10, 20] {
        allocator.allocate_at(start, 10, OBJECT);
    }
    allocator.free(10);
    for start in [10, 5, 15, 30, 99, 100, u32::MAX] {
        assert_eq!(allocator.owner(start), None);
        misuse(&mut allocator, start);
        allocator.validate();
        assert_eq!(allocator.allocated_units(), 20);
    }
}

#[test]
#[cfg_attr(debug_assertions, should_panic(expected = "free of unit 10 of 100"))]
fn a_double_free_changes_nothing() {
    with_bad_starts(|allocator, start| assert_eq!(allocator.free(start), Freed::Nothing));
}

#[test]
#[cfg_attr(debug_assertions, should_panic(expected = "for unit 10 of 100"))]
fn an_owner_for_no_extent_changes_nothing() {
    with_bad_starts(|allocator, start| assert!(!allocator.set_owner(start, OBJECT)));
}

#[test]
fn space_of_random_sizes_is_well_used_after_churn() {
    let units = 1 << 16;
    for (largest, seed) in [(64, 1), (256, 2), (1024, 3)] {
        let mut random = Random(seed);
        let mut allocator = Allocator::new(units).unwrap();
        let mut live = Vec::new();
        for _ in 0..100_000 {
            if allocator.allocated_units() < units / 10 * 8
                && let Some(extent) = allocator.allocate(1 + random.below(largest), OBJECT)
            {
                live.push(extent.start);
            } else {
                allocator.free(live.swap_remove(random.below(live.len() as u32) as usize));
            }
        }
        allocator.validate();
        while allocator.allocate(1 + random.below(largest), OBJECT).is_some() {}
        let used = f64::from(allocator.allocated_units()) / f64::from(units);
        println!("sizes up to {largest}: {used:.3} of the space used when the first one found no room");
        assert!(used > 0.9, "sizes up to {largest}: {used}");
    }
}
