//! Memory that a process has brought to the pool, when that process goes.

use crate::process::{Process, Scene};

const MIB: u64 = 1 << 20;

/// Puts an object into the memory of a rank.
fn put_at(process: &mut Process, key: &str, number: u64, rank: i64) {
    assert_eq!(process.ask(&format!("put-at {key} {number} {rank}")), "ok");
}

#[test]
fn a_dead_processs_memory_serves_on_and_the_next_of_its_size_takes_it_over() {
    let Some(scene) = Scene::of(concat!(
        module_path!(),
        "::a_dead_processs_memory_serves_on_and_the_next_of_its_size_takes_it_over"
    )) else {
        return;
    };
    let mut owner = scene.owner(4 * MIB, 60_000);
    let (mut reader, none) = scene.attached(0);
    assert_eq!(none, -1);
    let (mut worker, rank) = scene.attached(2 * MIB);
    assert_eq!(rank, 1);
    put_at(&mut worker, "a", 7, rank);
    put_at(&mut worker, "b", 8, rank);
    worker.kill();
    owner.ask_until("attached", "1");
    assert_eq!(reader.ask("get a"), "7");
    assert_eq!(owner.ask("get b"), "8");
    // One of another size brings its own.
    let (mut other, rank_of_other) = scene.attached(MIB);
    assert_eq!(rank_of_other, 2);
    let (mut next, rank_of_next) = scene.attached(2 * MIB);
    assert_eq!(rank_of_next, rank);
    assert_eq!(owner.ask("ranks"), "0 1 2");
    assert_eq!(next.ask("get a"), "7");
    put_at(&mut next, "c", 9, rank);
    assert_eq!(reader.ask("get c"), "9");
    // It is the next one's own by now, and goes with it.
    assert_eq!(next.ask("close"), "ok");
    // Once the owner has heard that the reader is done, which it says without waiting for an answer.
    owner.ask_until("ranks", "0 2");
    assert_eq!(reader.ask("get a"), "MMC_ERR_NOT_FOUND");
    assert_eq!(other.ask("close"), "ok");
    assert_eq!(owner.ask("ranks"), "0");
    assert_eq!(owner.ask("close"), "ok");
}

#[test]
fn memory_that_nobody_takes_over_in_time_is_withdrawn() {
    let Some(scene) = Scene::of(concat!(
        module_path!(),
        "::memory_that_nobody_takes_over_in_time_is_withdrawn"
    )) else {
        return;
    };
    let mut owner = scene.owner(4 * MIB, 100);
    let before = owner.ask("has");
    let (mut reader, _) = scene.attached(0);
    let (mut worker, rank) = scene.attached(2 * MIB);
    put_at(&mut worker, "a", 7, rank);
    put_at(&mut owner, "b", 8, 0);
    worker.kill();
    owner.ask_until("ranks", "0");
    assert_eq!(reader.ask("get a"), "MMC_ERR_NOT_FOUND");
    assert_eq!(reader.ask("get b"), "8");
    assert_eq!(reader.ask("close"), "ok");
    owner.ask_until("has", &before);
}

#[test]
fn memory_in_which_somebody_pins_is_withdrawn_when_the_pin_ends() {
    let Some(scene) = Scene::of(concat!(
        module_path!(),
        "::memory_in_which_somebody_pins_is_withdrawn_when_the_pin_ends"
    )) else {
        return;
    };
    let mut owner = scene.owner(4 * MIB, 50);
    let (mut reader, _) = scene.attached(0);
    for is_clean in [false, true] {
        let (mut worker, rank) = scene.attached(2 * MIB);
        put_at(&mut worker, "a", 7, rank);
        assert_eq!(reader.ask("pin a"), "ok");
        if is_clean {
            assert_eq!(worker.ask("close"), "ok");
        } else {
            worker.kill();
            owner.ask_until("attached", "1");
        }
        // Long after it would have gone.
        std::thread::sleep(std::time::Duration::from_millis(300));
        assert_eq!(owner.ask("ranks"), "0 1");
        assert_eq!(reader.ask("pinned a"), "7");
        assert_eq!(reader.ask("unpin a"), "ok");
        owner.ask_until("ranks", "0");
        assert_eq!(reader.ask("get a"), "MMC_ERR_NOT_FOUND");
    }
    assert_eq!(reader.ask("close"), "ok");
    assert_eq!(owner.ask("stats"), "0 0 0");
}
