//! Many processes use one pool at once, which is smaller than what they put.

use std::time::{Duration, Instant};

use crate::process::{Process, Scene, setting};

const MIB: u64 = 1 << 20;
const KEYS: u64 = 1200;

#[test]
fn workers_and_a_scheduler_read_exact_bytes_and_leave_nothing_behind() {
    let Some(scene) = Scene::of(concat!(
        module_path!(),
        "::workers_and_a_scheduler_read_exact_bytes_and_leave_nothing_behind"
    )) else {
        return;
    };
    let seconds = setting("MMC_SHARE_SECONDS", 5);
    let mut owner = scene.owner(12 * MIB, 1000);
    let mut workers: Vec<Process> = (0..4)
        .map(|number| scene.attached(if number < 2 { MIB } else { 0 }).0)
        .collect();
    let mut scheduler = scene.attached(0).0;
    let begin = Instant::now();
    owner.ask(&format!("load {KEYS} 0 contributing"));
    for worker in &mut workers {
        worker.ask(&format!("load {KEYS} 0 contributing"));
    }
    scheduler.ask(&format!("load {KEYS} 0 asking"));
    while begin.elapsed() < Duration::from_secs(seconds) {
        workers
            .iter_mut()
            .chain([&mut scheduler, &mut owner])
            .for_each(|process| process.goes_on(100));
    }
    let mut operations = Vec::new();
    for process in workers.iter_mut().chain([&mut scheduler, &mut owner]) {
        operations.push(process.number("operations"));
        assert_eq!(process.ask("halt"), "stopped");
    }
    let evicted = owner.number("evicted");
    assert!(evicted > 0, "the pool was never full");
    println!("calls of 4 workers, the scheduler and the owner in {seconds} s: {operations:?}; {evicted} evicted");
    scheduler.ask("remove-all");
    for process in workers.iter_mut().chain([&mut scheduler]) {
        assert_eq!(process.ask("close"), "ok");
    }
    // Leases of the load end by themselves.
    owner.ask_until("stats", "0 0 0");
    owner.ask_until("ranks", "0");
    assert_eq!(owner.ask("close"), "ok");
}
