//! Processes are killed, or stopped, at any instant, while others go on: whatever they were in the middle of, nobody reads a wrong byte, waits for
//! them, or loses anything, and what they held comes back.

use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::process::{Process, Scene, setting};
use crate::work::Numbers;

const MIB: u64 = 1 << 20;
/// Fewer than the owner's memory has room for: nothing is evicted there, so what was to stay there and is missing was lost.
const KEYS: u64 = 300;
const WORKERS: usize = 3;

/// A worker that is somewhere on its way: attaching, or at work since it did.
fn next_worker(scene: &Scene, numbers: &mut Numbers) -> Process {
    let mut worker = scene.start();
    worker.tell(&format!("attach {} 0", if numbers.below(3) == 0 { MIB } else { 0 }));
    worker.tell(&format!("load {KEYS} {} contributing", 1 + (numbers.next() >> 2)));
    worker
}

/// Waits until it is at work.
fn settle(worker: &mut Process) {
    let attached = worker.hear().expect("it has ended");
    assert!(attached.starts_with("rank "), "attach: {attached}");
    assert_eq!(worker.hear().as_deref(), Some("ok"));
}

#[test]
fn workers_that_are_killed_or_stopped_anywhere_hurt_nobody() {
    let Some(scene) = Scene::of(concat!(
        module_path!(),
        "::workers_that_are_killed_or_stopped_anywhere_hurt_nobody"
    )) else {
        return;
    };
    let rounds = setting("MMC_SHARE_KILLS", 20);
    let mut numbers = Numbers(u64::from(std::process::id()));
    let mut owner = scene.owner((96 + 2 * rounds) * MIB, 200);
    let mut reader = scene.start();
    let before = owner.ask("has");
    reader.attach(0);
    let mut workers: Vec<Process> = (0..WORKERS)
        .map(|_| {
            let mut worker = next_worker(&scene, &mut numbers);
            settle(&mut worker);
            worker
        })
        .collect();
    owner.ask(&format!("load {KEYS} 0 working"));
    let (mut kept, mut stops) = (Vec::new(), 0);
    let begun = Instant::now();
    for _ in 0..rounds {
        // One that is attaching, or one at work.
        let is_new = numbers.below(3) == 0;
        let mut victim = if is_new {
            next_worker(&scene, &mut numbers)
        } else {
            workers.swap_remove(numbers.below(WORKERS as u64) as usize)
        };
        // The instant is what this test is about.
        sleep(Duration::from_micros(numbers.below(if is_new {
            40_000
        } else {
            20_000
        })));
        if numbers.below(2) == 0 {
            stops += 1;
            victim.stop();
            workers
                .iter_mut()
                .chain([&mut owner])
                .for_each(|other| other.goes_on(20));
            let key = format!("model-7b/{}", numbers.below(KEYS));
            for other in [&mut owner, &mut reader] {
                let got = other.ask(&format!("get {key}"));
                assert!(got.parse::<u64>().is_ok() || got == "MMC_ERR_NOT_FOUND", "{key}: {got}");
            }
            if numbers.below(2) == 0 {
                victim.go_on();
                sleep(Duration::from_micros(numbers.below(2_000)));
            }
        }
        victim.kill();
        kept.append(&mut victim.kept);
        while workers.len() < WORKERS {
            let mut worker = next_worker(&scene, &mut numbers);
            settle(&mut worker);
            workers.push(worker);
        }
        workers
            .iter_mut()
            .chain([&mut owner])
            .for_each(|other| other.goes_on(5));
    }
    for worker in workers.iter_mut().chain([&mut owner]) {
        assert_eq!(worker.ask("halt"), "stopped");
        kept.append(&mut worker.kept);
    }
    println!(
        "{rounds} killed, {stops} of them stopped before, in {:?}; {} objects kept",
        begun.elapsed(),
        kept.len()
    );
    assert!(!kept.is_empty());
    for key in &kept {
        let number = u64::from_str_radix(key.strip_prefix("kept/").unwrap(), 16).unwrap();
        for process in [&mut reader, &mut owner] {
            assert_eq!(process.ask(&format!("get {key}")), number.to_string(), "{key}");
        }
    }
    for worker in &mut workers {
        assert_eq!(worker.ask("close"), "ok");
    }
    reader.ask("remove-all");
    assert_eq!(reader.ask("close"), "ok");
    owner.ask_until("stats", "0 0 0");
    owner.ask_until("ranks", "0");
    owner.ask_until("has", &before);
    assert_eq!(owner.ask("close"), "ok");
}
