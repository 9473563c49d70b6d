//! The owner goes, or a connection breaks: who is attached hears of it at once, keeps what it has mapped, and finds the next owner.

use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::process::{Process, Scene};
use crate::work::Numbers;

const MIB: u64 = 1 << 20;
/// What "at once" is on a machine that is busy.
const AT_ONCE: Duration = Duration::from_secs(5);

fn at_once<T>(what: &str, act: impl FnOnce() -> T) -> T {
    let begin = Instant::now();
    let result = act();
    assert!(begin.elapsed() < AT_ONCE, "{what} took {:?}", begin.elapsed());
    result
}

/// Loads a pool with some workers, each of which pins an object of its own first.
fn workers_at_work(scene: &Scene) -> Vec<Process> {
    let mut workers: Vec<Process> = (0..3).map(|_| scene.attached(0).0).collect();
    for (number, worker) in workers.iter_mut().enumerate() {
        assert_eq!(worker.ask(&format!("put own/{number} {number}")), "ok");
        assert_eq!(worker.ask(&format!("pin own/{number}")), "ok");
    }
    for worker in &mut workers {
        worker.ask("load 400 0 contributing");
        worker.goes_on(20);
    }
    workers
}

/// All workers hear that the owner has gone, read what they have pinned, and go on with the next one.
fn check_end_of_owner(scene: &Scene, workers: &mut [Process]) {
    at_once("to hear of the owner's end", || {
        for worker in workers.iter_mut() {
            assert_eq!(worker.ask("end-of-load"), "disconnected");
        }
    });
    for (number, worker) in workers.iter_mut().enumerate() {
        assert_eq!(worker.ask(&format!("get own/{number}")), "MMC_ERR_DISCONNECTED");
        assert_eq!(worker.ask(&format!("pinned own/{number}")), number.to_string());
    }
    let mut next = scene.owner(8 * MIB, 1000);
    assert_eq!(next.ask("put shared 5"), "ok");
    for (number, worker) in workers.iter_mut().enumerate() {
        at_once("to close", || assert_eq!(worker.ask("close"), "ok"));
        worker.attach(0);
        assert_eq!(worker.ask("get shared"), "5");
        assert_eq!(worker.ask(&format!("get own/{number}")), "MMC_ERR_NOT_FOUND");
        assert_eq!(worker.ask("close"), "ok");
    }
    assert_eq!(next.ask("remove shared"), "ok");
    assert_eq!(next.ask("stats"), "0 0 0");
    assert_eq!(next.ask("close"), "ok");
}

#[test]
fn a_killed_owner_is_missed_at_once() {
    let Some(scene) = Scene::of(concat!(module_path!(), "::a_killed_owner_is_missed_at_once")) else {
        return;
    };
    for _ in 0..3 {
        let mut owner = scene.owner(8 * MIB, 1000);
        let mut workers = workers_at_work(&scene);
        owner.kill();
        check_end_of_owner(&scene, &mut workers);
    }
}

#[test]
fn an_owner_that_is_killed_while_processes_attach_is_missed_at_once() {
    let Some(scene) = Scene::of(concat!(
        module_path!(),
        "::an_owner_that_is_killed_while_processes_attach_is_missed_at_once"
    )) else {
        return;
    };
    let mut numbers = Numbers(u64::from(std::process::id()));
    let mut workers = [scene.start(), scene.start()];
    let mut attached = 0;
    for _ in 0..30 {
        let mut owner = scene.owner(8 * MIB, 1000);
        for worker in &mut workers {
            worker.tell(&format!("attach {} 0", MIB * numbers.below(2)));
        }
        // The instant is what this test is about.
        std::thread::sleep(Duration::from_micros(numbers.below(4_000)));
        owner.kill();
        for worker in &mut workers {
            let answer = at_once("to attach", || worker.hear().expect("it has ended"));
            if answer.starts_with("rank ") {
                attached += 1;
                assert_eq!(worker.ask("get a"), "MMC_ERR_DISCONNECTED");
                assert_eq!(worker.ask("close"), "ok");
            } else {
                assert_eq!(answer, "MMC_ERR_DISCONNECTED");
            }
        }
    }
    assert!(attached < 60, "every process was attached before its owner was killed");
}

#[test]
fn a_killed_owner_is_missed_although_its_child_keeps_the_sockets() {
    let Some(scene) = Scene::of(concat!(
        module_path!(),
        "::a_killed_owner_is_missed_although_its_child_keeps_the_sockets"
    )) else {
        return;
    };
    let mut owner = scene.owner(8 * MIB, 1000);
    let mut workers = workers_at_work(&scene);
    owner.ask("fork");
    owner.kill();
    check_end_of_owner(&scene, &mut workers);
}

#[test]
fn an_owner_that_closes_disconnects_all() {
    let Some(scene) = Scene::of(concat!(module_path!(), "::an_owner_that_closes_disconnects_all")) else {
        return;
    };
    let mut owner = scene.owner(8 * MIB, 1000);
    let mut workers = workers_at_work(&scene);
    at_once("to close", || assert_eq!(owner.ask("close"), "ok"));
    check_end_of_owner(&scene, &mut workers);
}

#[test]
fn an_owner_closes_although_workers_are_stopped() {
    let Some(scene) = Scene::of(concat!(
        module_path!(),
        "::an_owner_closes_although_workers_are_stopped"
    )) else {
        return;
    };
    let mut owner = scene.owner(8 * MIB, 1000);
    let mut workers = workers_at_work(&scene);
    workers.iter().for_each(Process::stop);
    // One that has not even said who it is.
    let silent = UnixStream::connect(scene.socket()).unwrap();
    at_once("to close", || assert_eq!(owner.ask("close"), "ok"));
    workers.iter().for_each(Process::go_on);
    check_end_of_owner(&scene, &mut workers);
    drop(silent);
}

#[test]
fn a_killed_workers_holds_come_back_although_its_child_keeps_the_sockets() {
    let Some(scene) = Scene::of(concat!(
        module_path!(),
        "::a_killed_workers_holds_come_back_although_its_child_keeps_the_sockets"
    )) else {
        return;
    };
    let mut owner = scene.owner(8 * MIB, 1000);
    let (mut worker, _) = scene.attached(0);
    assert_eq!(owner.ask("put a 1"), "ok");
    assert_eq!(worker.ask("pin a"), "ok");
    assert_eq!(worker.ask("lease a 600000"), "ok");
    assert_eq!(worker.ask("reserve b 100000"), "ok");
    worker.ask("fork");
    worker.kill();
    assert_eq!(owner.ask("remove a"), "ok");
    owner.ask_until("stats", "0 0 0");
    assert_eq!(owner.ask("close"), "ok");
}

#[test]
fn a_broken_connection_voids_tokens_and_keeps_the_memory_until_its_process_ends() {
    let Some(scene) = Scene::of(concat!(
        module_path!(),
        "::a_broken_connection_voids_tokens_and_keeps_the_memory_until_its_process_ends"
    )) else {
        return;
    };
    let mut owner = scene.owner(8 * MIB, 1000);
    let (mut worker, _) = scene.attached(0);
    let (mut other, _) = scene.attached(0);
    assert_eq!(worker.ask("put a 1"), "ok");
    assert_eq!(worker.ask("pin a"), "ok");
    assert_eq!(worker.ask("reserve b 40000"), "ok");
    assert!(worker.number("shut") > 0);
    assert_eq!(worker.ask("commit b"), "MMC_ERR_DISCONNECTED");
    assert_eq!(worker.ask("unpin a"), "MMC_ERR_DISCONNECTED");
    // More is put than there is room for, and removed: none of it comes to lie where the worker may still read or write.
    assert_eq!(other.ask("remove a"), "ok");
    for number in 0..400 {
        let put = other.ask(&format!("put fill/{number} {number}"));
        assert!(put == "ok" || put == "MMC_ERR_NO_SPACE", "{put}");
        assert_eq!(worker.ask("pinned a"), "1");
    }
    assert!(owner.number("evicted") > 0);
    // As its process lives, it can attach again; what it had before is not its any more.
    assert_eq!(worker.ask("close"), "ok");
    worker.attach(0);
    assert_eq!(worker.ask("unpin a"), "MMC_ERR_NOT_FOUND");
    assert_eq!(worker.ask("commit b"), "MMC_ERR_NOT_FOUND");
    assert_eq!(worker.ask("close"), "ok");
    other.ask("remove-all");
    let held = owner.ask("stats");
    assert!(held.ends_with(" 2 2"), "{held}");
    worker.end();
    owner.ask_until("stats", "0 0 1");
    assert_eq!(other.ask("close"), "ok");
    assert_eq!(owner.ask("close"), "ok");
}

#[test]
fn a_broken_connection_of_a_process_that_holds_nothing_is_forgotten() {
    let Some(scene) = Scene::of(concat!(
        module_path!(),
        "::a_broken_connection_of_a_process_that_holds_nothing_is_forgotten"
    )) else {
        return;
    };
    let mut owner = scene.owner(8 * MIB, 1000);
    let before = owner.ask("has");
    let (mut worker, _) = scene.attached(0);
    for _ in 0..3 {
        assert_eq!(worker.ask("put a 1"), "ok");
        assert_eq!(worker.ask("get a"), "1");
        assert_eq!(worker.ask("remove a"), "ok");
        assert!(worker.number("shut") > 0);
        owner.ask_until("stats", "0 0 0");
        owner.ask_until("has", &before);
        assert_eq!(worker.ask("get a"), "MMC_ERR_DISCONNECTED");
        assert_eq!(worker.ask("close"), "ok");
        worker.attach(0);
    }
    assert_eq!(worker.ask("close"), "ok");
    assert_eq!(owner.ask("close"), "ok");
}
