//! Who is inside, counted so that closing can wait for them: a reader-writer lock whose readers never wait.
//!
//! Entering adds one to this thread's own line and then looks whether it is still open; closing shuts first and then
//! waits for all lines to be zero. Both steps are sequentially consistent, so of an entry and a closing that meet, either the entry sees the
//! gate shut or the closing sees the entry. Entering costs two additions to a line that no other core writes.

use crate::sync::{AtomicU64, Ordering};

/// One line of a gate, and whatever the caller uses to tell open from shut.
pub(crate) struct Gate<L> {
    lines: L,
    /// What an entry compares: the caller's number for "open as I know it".
    state: AtomicU64,
}

impl<L: AsRef<[Line]>> Gate<L> {
    pub(crate) fn new(lines: L, state: u64) -> Gate<L> {
        Gate {
            lines,
            state: AtomicU64::new(state),
        }
    }

    /// Goes in if `is_open` accepts the state; the state that was met otherwise. Must be followed by [`Gate::leave`] on that line.
    pub(crate) fn enter(&self, line: usize, is_open: impl Fn(u64) -> bool) -> Result<u64, u64> {
        let count = &self.lines.as_ref()[line].0;
        count.fetch_add(1, Ordering::SeqCst);
        let state = self.state.load(Ordering::SeqCst);
        if is_open(state) {
            return Ok(state);
        }
        count.fetch_sub(1, Ordering::SeqCst);
        Err(state)
    }

    pub(crate) fn leave(&self, line: usize) {
        self.lines.as_ref()[line].0.fetch_sub(1, Ordering::SeqCst);
    }

    /// The state now.
    pub(crate) fn state(&self) -> u64 {
        self.state.load(Ordering::SeqCst)
    }

    /// Changes the state if it is still `from`.
    pub(crate) fn change(&self, from: u64, to: u64) -> bool {
        self.state
            .compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok()
    }

    /// Takes it that nobody is inside: for a forked child, which has its parent's counts without its threads.
    pub(crate) fn forget_entries(&self) {
        self.lines
            .as_ref()
            .iter()
            .for_each(|line| line.0.store(0, Ordering::SeqCst));
    }

    /// Whether nobody is inside. Once it was true with the gate shut, it stays so.
    pub(crate) fn is_empty(&self) -> bool {
        self.lines
            .as_ref()
            .iter()
            .all(|line| line.0.load(Ordering::SeqCst) == 0)
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
