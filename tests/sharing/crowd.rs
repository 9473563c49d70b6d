//! More processes at once than a host has engines.

use std::ffi::CStr;
use std::io::{PipeReader, Read, Write};

use crate::process::Scene;
use crate::support::*;

const MIB: u64 = 1 << 20;
const PROCESSES: usize = 256;
const BYTES: usize = 16 << 10;

/// Attaches, puts an object and says so; reads its neighbour's when all have put theirs.
fn attend(address: &CStr, number: usize, tell: &mut impl Write, go: &mut PipeReader) {
    let store = Store::attach(address, &attach_options()).unwrap_or_else(|code| panic!("{code}: {}", last_error()));
    store
        .put(&format!("process/{number}"), &[number as u8; BYTES], None)
        .unwrap();
    tell.write_all(&[1]).unwrap();
    // The end of the pipe: nobody holds the other one any more.
    assert_eq!(go.read(&mut [0]).unwrap(), 0);
    let neighbour = (number + 1) % PROCESSES;
    let mut bytes = vec![0; BYTES];
    store.get(&format!("process/{neighbour}"), &mut bytes, 0).unwrap();
    assert!(bytes.iter().all(|byte| *byte == neighbour as u8));
    store.close().unwrap();
}

#[test]
fn hundreds_of_processes_are_attached_at_once() {
    let Some(scene) = Scene::of(concat!(module_path!(), "::hundreds_of_processes_are_attached_at_once")) else {
        return;
    };
    let mut owner = scene.owner(16 * MIB, 1000);
    let before = owner.ask("has");
    let address = scene.address();
    let (mut heard, mut tell) = std::io::pipe().unwrap();
    let (mut go, hold) = std::io::pipe().unwrap();
    let mut hold = Some(hold);
    let children: Vec<libc::pid_t> = (0..PROCESSES)
        .map(|number| {
            // SAFETY: the child uses nothing of its parent's but two pipes, and ends without running anything else of it.
            match unsafe { libc::fork() } {
                -1 => panic!("fork: {}", std::io::Error::last_os_error()),
                0 => {
                    drop(hold.take());
                    let attends = || attend(&address, number, &mut tell, &mut go);
                    let is_bad = std::panic::catch_unwind(std::panic::AssertUnwindSafe(attends)).is_err();
                    // SAFETY: ends the child at once.
                    unsafe { libc::_exit(is_bad.into()) };
                }
                child => child,
            }
        })
        .collect();
    drop(tell);
    heard.read_exact(&mut [0; PROCESSES]).expect("one of them has ended");
    let attached = owner.ask("stats");
    assert!(attached.ends_with(&format!(" 0 {PROCESSES}")), "{attached}");
    assert_eq!(owner.number("stored"), PROCESSES as u64);
    drop(hold);
    for child in children {
        let mut status = 0;
        // SAFETY: a child of this process, which is waited for once.
        assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
        assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0, "{status:#x}");
    }
    owner.ask("remove-all");
    owner.ask_until("stats", "0 0 0");
    owner.ask_until("has", &before);
    assert_eq!(owner.ask("close"), "ok");
}
