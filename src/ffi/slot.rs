//! One slot of the table of handles: an instance, and who may go in to it when.
//!
//! An instance is **open**, or **closing** while its closer waits for those inside, or **lingering** when it was closed with something of it
//! still held: then the calls that end such holds get in, as they do while it is closing, and the last of them takes it to **ending**,
//! when nobody gets in any more, and it is dropped. Who ends a hold, leaves, and then looks whether it lingers unused; who closes lets
//! it linger, and then looks the same. The gate's fences lie between: at least one of the two finds that it is to end, and one ends it.

use crate::gate::{Gate, Line};
use crate::sync::{AtomicPtr, Ordering};

/// A slot's state: how often it has been used, above, and one of these below.
const FREE: u64 = 0;
const OPENING: u64 = 1;
const OPEN: u64 = 2;
const CLOSING: u64 = 3;
const LINGERING: u64 = 4;
const ENDING: u64 = 5;
const PHASE: u64 = 0xff;
const USE: u64 = PHASE + 1;

/// See the module's text. It is never freed itself.
pub(super) struct Slot<T, L: AsRef<[Line]>> {
    gate: Gate<L>,
    instance: AtomicPtr<T>,
}

impl<T, L: AsRef<[Line]>> Slot<T, L> {
    pub(super) fn new(lines: L) -> Slot<T, L> {
        Slot {
            gate: Gate::new(lines, FREE),
            instance: AtomicPtr::new(std::ptr::null_mut()),
        }
    }

    /// Takes the slot if it is free, for [`Slot::fill`]: how often it had been used.
    pub(super) fn claim(&self) -> Option<u64> {
        let state = self.gate.state();
        (state & PHASE == FREE && self.gate.change(state, state + OPENING)).then_some(state / USE)
    }

    /// See [`Gate::forget_entries`].
    pub(super) fn forget_entries(&self) {
        self.gate.forget_entries();
    }

    /// Opens a slot that the caller has claimed.
    pub(super) fn fill(&self, uses: u64, instance: T) {
        self.instance
            .store(Box::into_raw(Box::new(instance)), Ordering::Release);
        self.change(uses, OPENING, OPEN);
    }

    /// Goes in to the instance of this use while it is open.
    #[inline(always)]
    pub(super) fn enter(&self, uses: u64, line: usize) -> Option<Entered<'_, T, L>> {
        self.enter_in(uses, line, |phase| phase == OPEN)
    }

    /// Runs what may end the last hold on the instance: also while it is being closed, and after that. `is_unused` says that nothing holds
    /// it; then it ends.
    pub(super) fn with_remains<R>(
        &self,
        uses: u64,
        line: usize,
        act: impl FnOnce(&T) -> R,
        is_unused: impl Fn(&T) -> bool,
    ) -> Option<R> {
        let entered = self.enter_in(uses, line, |phase| matches!(phase, OPEN | CLOSING | LINGERING))?;
        let result = act(&entered);
        let phase = entered.phase;
        drop(entered);
        // One that came in while it was open has left before its closer looks.
        if phase != OPEN {
            self.end_if_unused(uses, line, is_unused);
        }
        Some(result)
    }

    /// Shuts the instance to new calls, for a closer that is the only one.
    pub(super) fn begin_closing(&self, uses: u64) -> Option<Closing<'_, T, L>> {
        if !self.change(uses, OPEN, CLOSING) {
            return None;
        }
        // SAFETY: only this thread takes the slot out of its phase, and in this phase the instance stays.
        let instance = unsafe { &*self.instance.load(Ordering::Acquire) };
        Some(Closing {
            slot: self,
            uses,
            instance,
        })
    }

    /// Drops the instance, and frees the slot, if it lingers for nothing.
    fn end_if_unused(&self, uses: u64, line: usize, is_unused: impl Fn(&T) -> bool) {
        // Not lingering yet: then its closer comes here. Or not any more: then somebody else did.
        let Some(entered) = self.enter_in(uses, line, |phase| phase == LINGERING) else {
            return;
        };
        let is_unused = is_unused(&entered);
        drop(entered);
        if !is_unused || !self.change(uses, LINGERING, ENDING) {
            return;
        }
        self.gate.wait_until_empty();
        let instance = self.instance.swap(std::ptr::null_mut(), Ordering::AcqRel);
        // SAFETY: it came from a box, the gate is shut and empty, and only the thread that shut it comes here.
        drop(unsafe { Box::from_raw(instance) });
        self.gate.change(uses * USE + ENDING, (uses + 1) * USE + FREE);
    }

    #[inline(always)]
    fn enter_in(&self, uses: u64, line: usize, is_open: impl Fn(u64) -> bool) -> Option<Entered<'_, T, L>> {
        let state = self
            .gate
            .enter(line, |state| state / USE == uses && is_open(state & PHASE))
            .ok()?;
        // SAFETY: the instance was stored before the slot's state became open, and is not freed before the gate, shut for good, is empty.
        let instance = unsafe { &*self.instance.load(Ordering::Acquire) };
        Some(Entered {
            slot: self,
            line,
            phase: state & PHASE,
            instance,
        })
    }

    fn change(&self, uses: u64, from: u64, to: u64) -> bool {
        self.gate.change(uses * USE + from, uses * USE + to)
    }
}

/// An instance that this call is inside of: it stays until this is dropped.
pub(super) struct Entered<'s, T, L: AsRef<[Line]>> {
    slot: &'s Slot<T, L>,
    line: usize,
    phase: u64,
    instance: &'s T,
}

impl<T, L: AsRef<[Line]>> std::ops::Deref for Entered<'_, T, L> {
    type Target = T;

    fn deref(&self) -> &T {
        self.instance
    }
}

impl<T, L: AsRef<[Line]>> Drop for Entered<'_, T, L> {
    fn drop(&mut self) {
        self.slot.gate.leave(self.line);
    }
}

/// An instance that is being closed, by its closer.
pub(super) struct Closing<'s, T, L: AsRef<[Line]>> {
    slot: &'s Slot<T, L>,
    uses: u64,
    instance: &'s T,
}

impl<T, L: AsRef<[Line]>> Closing<'_, T, L> {
    pub(super) fn instance(&self) -> &T {
        self.instance
    }

    /// Waits for those who came in while it was open.
    pub(super) fn wait_for_calls(&self) {
        self.slot.gate.wait_until_empty();
    }

    /// Opens it again.
    pub(super) fn give_up(self) {
        self.slot.change(self.uses, CLOSING, OPEN);
    }

    /// Leaves it to those who hold something of it, or ends it if nobody does.
    pub(super) fn finish(self, line: usize, is_unused: impl Fn(&T) -> bool) {
        self.slot.change(self.uses, CLOSING, LINGERING);
        self.slot.end_if_unused(self.uses, line, is_unused);
    }
}
