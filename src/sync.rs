//! The atomics of the parts that are model-checked, and a fence that costs only one side.
//!
//! `tests/models` compiles those very files with its own `sync`, which has loom's types and plain fences under the same names.
//!
//! **The uneven fence.** Two threads that each write and then read what the other writes need a full fence on both sides, or both may
//! miss each other. Where one side runs in every call and the other once in a store's life, the first makes do with [`light_fence`],
//! which is none but for the compiler, and the second pays for both with [`heavy_fence`]: `membarrier(2)` makes every thread of the
//! process pass a full fence. Where the kernel has no such call, both are full fences.

use std::sync::atomic::compiler_fence;
use std::time::Duration;

pub(crate) use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering, fence};
pub(crate) use std::sync::{Condvar, Mutex, OnceLock, PoisonError};

pub(crate) use crate::stripe::add as add_to_own;

/// Whether this process has asked the kernel for private expedited barriers, and may leave the light fence out.
static IS_UNEVEN: AtomicBool = AtomicBool::new(false);

/// From `linux/membarrier.h`.
const MEMBARRIER_CMD_PRIVATE_EXPEDITED: libc::c_int = 1 << 3;
const MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED: libc::c_int = 1 << 4;

/// Asks the kernel for expedited barriers. Once, before any fence here: when the library is loaded.
pub(crate) fn register_fences() {
    IS_UNEVEN.store(membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED), Ordering::Release);
}

/// The side that runs often: between its write and its read.
#[inline]
pub(crate) fn light_fence() {
    if IS_UNEVEN.load(Ordering::Relaxed) {
        compiler_fence(Ordering::SeqCst);
    } else {
        fence(Ordering::SeqCst);
    }
}

/// The side that runs seldom: between its write and its read.
pub(crate) fn heavy_fence() {
    fence(Ordering::SeqCst);
    if !IS_UNEVEN.load(Ordering::Relaxed) || membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED) {
        return;
    }
    // A forked child has to ask again. Where a sandbox that came later forbids even that, time does it: a processor's pending writes
    // are out in far less than this.
    if !(membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED) && membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED)) {
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// What a thread does between two looks at something that others are about to change, the more patient the more often it has looked.
pub(crate) fn back_off(rounds: u32) {
    match rounds {
        0..100 => std::hint::spin_loop(),
        100..200 => std::thread::yield_now(),
        _ => std::thread::sleep(Duration::from_micros(100)),
    }
}

fn membarrier(command: libc::c_int) -> bool {
    // SAFETY: the call takes numbers and touches no memory.
    unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The classic test of a store buffer: each side writes its own word and reads the other's. Both reading nothing is what the
    /// fences rule out; without them it shows within a few thousand rounds on two processors.
    #[test]
    fn of_two_sides_at_least_one_sees_the_other() {
        const ROUNDS: u64 = 20_000;
        register_fences();
        let word = || AtomicU64::new(0);
        let (mine, theirs, seen, done) = (word(), word(), word(), word());
        let wait_for = |word: &AtomicU64, round: u64| {
            for turn in 0u32.. {
                if word.load(Ordering::Acquire) >= round {
                    return;
                }
                // Starting within the same few cycles is what makes the two meet; with one processor somebody must give way.
                if turn % 1000 == 999 {
                    std::thread::yield_now();
                }
                std::hint::spin_loop();
            }
        };
        let ready = word();
        let mut missed = 0;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for round in 1..=ROUNDS {
                    wait_for(&ready, round);
                    mine.store(round, Ordering::Relaxed);
                    light_fence();
                    seen.store(theirs.load(Ordering::Relaxed), Ordering::Relaxed);
                    done.store(round, Ordering::Release);
                }
            });
            for round in 1..=ROUNDS {
                ready.store(round, Ordering::Release);
                // The other side hears of it later, by a time that differs: some round hits it.
                (0..round % 64).for_each(|_| std::hint::spin_loop());
                theirs.store(round, Ordering::Relaxed);
                heavy_fence();
                let met = mine.load(Ordering::Relaxed);
                wait_for(&done, round);
                missed += u64::from(met != round && seen.load(Ordering::Relaxed) != round);
            }
        });
        assert_eq!(missed, 0, "rounds in which neither side saw the other");
    }
}
