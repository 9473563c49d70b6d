//! A file that ends, or is damaged, at any byte: the state that is found is one that was.

use std::fs;

use proptest::prelude::*;

use super::*;
use crate::segment::journal::file::FIRST_RECORD;

fn steps() -> Vec<Step> {
    vec![
        Step::Put(0, copy_of(1, 2)),
        Step::Put(7, copy_of(2, 1)),
        Step::Use(0),
        Step::Remove(0),
        Step::Put(0, copy_of(3, 1)),
        Step::Put(1, copy_of(4, 1)),
        Step::Remove(7),
        Step::Put(7, copy_of(2, 1)),
    ]
}

/// Writes steps to a new state; where the records begin and the last one ends.
fn write(scene: &Scene, steps: &[Step]) -> Vec<usize> {
    let (mut state, _) = StateFile::open(&scene.place(), Box::new(Real)).unwrap();
    let mut ends = vec![FIRST_RECORD as usize];
    for (place, step) in steps.iter().enumerate() {
        let (record, change) = step.record(place as u64);
        let mut bytes = Vec::new();
        record.encode(state.number, &mut bytes).unwrap();
        state.append(&bytes, &change).unwrap();
        ends.push(state.length as usize);
    }
    ends
}

/// How many records lie whole before this byte.
fn whole_before(ends: &[usize], byte: usize) -> usize {
    ends.iter().filter(|end| **end <= byte).count() - 1
}

/// Opens the state, expects this one, goes on with it, and finds both.
fn expect_and_go_on(scene: &Scene, expected: &Found, torn_bytes: usize, context: &str) {
    let (journal, recovered) = scene.open();
    assert_eq!(found_in(&recovered), *expected, "{context}");
    assert_eq!(recovered.torn_bytes, torn_bytes as u64, "{context}");
    let more = Step::Put(40, copy_of(40, 1));
    more.note(&journal, 0);
    drop(journal);
    let mut expected = expected.clone();
    more.apply(&mut expected);
    assert_eq!(scene.found(), expected, "{context}, gone on with");
}

#[test]
fn a_file_that_ends_at_any_byte_is_the_state_before_it() {
    let scene = Scene::new();
    let steps = steps();
    let ends = write(&scene, &steps);
    let states = history(&steps);
    let whole = fs::read(&scene.state).unwrap();
    for length in ends[0]..=whole.len() {
        fs::write(&scene.state, &whole[..length]).unwrap();
        let records = whole_before(&ends, length);
        let context = format!("{length} of {} bytes", whole.len());
        expect_and_go_on(&scene, &states[records], length - ends[records], &context);
    }
}

#[test]
fn a_file_that_is_damaged_at_any_byte_is_the_state_before_it() {
    let scene = Scene::new();
    let steps = steps();
    let ends = write(&scene, &steps);
    let states = history(&steps);
    let whole = fs::read(&scene.state).unwrap();
    for byte in ends[0]..whole.len() {
        for damage in [1, 0x80, 0xff] {
            let mut bytes = whole.clone();
            bytes[byte] ^= damage;
            fs::write(&scene.state, &bytes).unwrap();
            let records = whole_before(&ends, byte);
            let context = format!("byte {byte} of {} turned by {damage:#x}", whole.len());
            expect_and_go_on(&scene, &states[records], whole.len() - ends[records], &context);
        }
    }
}

#[test]
fn a_header_that_is_damaged_at_any_byte_is_refused() {
    let scene = Scene::new();
    let ends = write(&scene, &steps());
    let whole = fs::read(&scene.state).unwrap();
    for byte in 0..ends[0] {
        let mut bytes = whole.clone();
        bytes[byte] ^= 0x10;
        fs::write(&scene.state, &bytes).unwrap();
        let opened = Journal::open(&scene.place());
        assert!(matches!(opened, Err(Error::InvalidParam(_))), "byte {byte}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Blocks that a disk lost, or wrote over with anything: what is found is a state that was, and at least that before them.
    #[test]
    fn a_file_with_any_part_replaced_is_a_state_that_was(
        at in 0.0..1.0f64,
        rubbish in prop::collection::vec(any::<u8>(), 1..200),
        is_cut in any::<bool>(),
    ) {
        let scene = Scene::new();
        let steps = steps();
        let ends = write(&scene, &steps);
        let states = history(&steps);
        let mut bytes = fs::read(&scene.state).unwrap();
        let from = ends[0] + ((bytes.len() - ends[0]) as f64 * at) as usize;
        if is_cut {
            bytes.truncate(from);
        }
        let until = bytes.len().max(from + rubbish.len());
        bytes.resize(until, 0);
        bytes[from..from + rubbish.len()].copy_from_slice(&rubbish);
        fs::write(&scene.state, &bytes).unwrap();
        let found = scene.found();
        let least = whole_before(&ends, from);
        prop_assert!(states[least..].contains(&found), "{found:?} of {states:?}");
    }
}
