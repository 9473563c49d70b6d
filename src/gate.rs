//! Who is inside, counted so that closing can wait for them: a reader-writer lock whose readers never wait.
//!
//! Entering adds one to this thread's own line and then looks whether it is still open; closing shuts first and then waits for all
//! lines to be zero. Between the two steps of either lies a fence, so of an entry and a closing that meet, either the entry sees the
//! gate shut or the closing sees the entry. The fence is uneven (`crate::sync`): entering costs an addition to a line that no other
//! core writes, and closing a call of the kernel.

use crate::sync::{AtomicU64, Ordering, add_to_own, back_off, heavy_fence, light_fence};

/// Lines of a gate, and its state: the caller's number, some values of which mean open.
pub(crate) struct Gate<L> {
    lines: L,
    state: AtomicU64,
}

impl<L: AsRef<[Line]>> Gate<L> {
    /// A gate with a line for each stripe of threads.
    pub(crate) fn new(lines: L, state: u64) -> Gate<L> {
        Gate {
            lines,
            state: AtomicU64::new(state),
        }
    }

    /// Goes in if `is_open` accepts the state; the state that was met, either way. `line` is the thread's own stripe. Must be followed by
    /// [`Gate::leave`] on that line.
    #[inline]
    pub(crate) fn enter(&self, line: usize, is_open: impl Fn(u64) -> bool) -> Result<u64, u64> {
        add_to_own(line, &self.lines.as_ref()[line].0, 1, Ordering::Relaxed);
        light_fence();
        let state = self.state.load(Ordering::Acquire);
        if is_open(state) {
            return Ok(state);
        }
        self.leave(line);
        Err(state)
    }

    #[inline]
    pub(crate) fn leave(&self, line: usize) {
        // Released, so that whoever finds the gate empty finds everything done that was done inside.
        add_to_own(line, &self.lines.as_ref()[line].0, u64::MAX, Ordering::Release);
    }

    /// The state now.
    pub(crate) fn state(&self) -> u64 {
        self.state.load(Ordering::Acquire)
    }

    /// Changes the state if it is still `from`. Who came in before, or was about to, is seen by [`Gate::is_empty`] from then on.
    pub(crate) fn change(&self, from: u64, to: u64) -> bool {
        let is_changed = self
            .state
            .compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire)
            .is_ok();
        if is_changed {
            heavy_fence();
        }
        is_changed
    }

    /// Takes it that nobody is inside: for a forked child, which has its parent's counts without its threads.
    pub(crate) fn forget_entries(&self) {
        self.lines
            .as_ref()
            .iter()
            .for_each(|line| line.0.store(0, Ordering::Release));
    }

    /// Waits until nobody is inside. Calls are short, but one may be in a callback of the host for long.
    pub(crate) fn wait_until_empty(&self) {
        let mut rounds = 0u32;
        while !self.is_empty() {
            back_off(rounds);
            rounds = rounds.saturating_add(1);
        }
    }

    /// Whether nobody is inside. Once it was true with the gate shut, it stays so, but for those who find it shut and turn back.
    pub(crate) fn is_empty(&self) -> bool {
        self.lines
            .as_ref()
            .iter()
            .all(|line| line.0.load(Ordering::Acquire) == 0)
    }
}

/// A count of those who came in on one line.
#[repr(align(128))]
pub(crate) struct Line(AtomicU64);

impl Line {
    pub(crate) fn new() -> Line {
        Line(AtomicU64::new(0))
    }
}
