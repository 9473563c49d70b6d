//! Handles: how a host names a store without being trusted with its address.
//!
//! A handle is a number dressed as a pointer: a slot of a fixed table under the number of times that slot has been used. It is looked
//! up, never followed, so a handle of a closed store is an error and not a crash. The slots and their gates are never freed.
//!
//! A store is **open**, or **closing** while its closer waits for those inside, or **lingering** when it was closed with pins or
//! reservations: its memory stays, and the calls that end those still work, as they do while it is closing; the last one
//! takes it to **ending**, when nobody gets in any more. A slot also remembers in which process it was filled: a forked child is
//! told so before it touches anything that a thread of its parent may have left half-done.

use std::ffi::c_void;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use once_cell::race::OnceBox;

use super::boundary;
use crate::error::{Error, Result, words};
use crate::gate::{Gate, Line};
use crate::http::Server;
use crate::store::Store;
use crate::stripe::{self, STRIPES};

/// Stores that can be open in one process at once.
const SLOTS: usize = 1024;

/// What a handle stands for.
pub(super) struct Instance {
    pub(super) store: Arc<Store>,
    /// Taken out when the store is closed.
    http: Mutex<Option<Server>>,
}

impl Instance {
    pub(super) fn new(store: Arc<Store>, http: Option<Server>) -> Instance {
        Instance {
            store,
            http: Mutex::new(http),
        }
    }
}

struct Slot {
    /// Made at first use, by a cell that never blocks: a child may be forked while a thread of its parent makes it.
    gate: OnceBox<Gate<Box<[Line]>>>,
    instance: AtomicPtr<Instance>,
    /// [`boundary::forks`] when it was filled.
    forks: AtomicU32,
}

static TABLE: [Slot; SLOTS] = [const {
    Slot {
        gate: OnceBox::new(),
        instance: AtomicPtr::new(std::ptr::null_mut()),
        forks: AtomicU32::new(0),
    }
}; SLOTS];

/// A slot's state: how often it has been used, above, and one of these below.
const FREE: u64 = 0;
const OPENING: u64 = 1;
const OPEN: u64 = 2;
const CLOSING: u64 = 3;
const LINGERING: u64 = 4;
const ENDING: u64 = 5;
const PHASE: u64 = 0xff;
const USE: u64 = PHASE + 1;

/// Handles have this set, so that they are neither null nor an address that anybody has.
const MARK: usize = 1;
const SLOT_SHIFT: u32 = 1;
const USES_SHIFT: u32 = 16;

impl Slot {
    fn gate(&self) -> &Gate<Box<[Line]>> {
        self.gate
            .get_or_init(|| Box::new(Gate::new((0..STRIPES).map(|_| Line::new()).collect(), FREE)))
    }
}

/// A store that this call is inside of: it stays open until this is dropped.
pub(super) struct Entered {
    slot: &'static Slot,
    /// The slot's state without its phase.
    uses: u64,
    line: usize,
    instance: &'static Instance,
}

impl Entered {
    pub(super) fn store(&self) -> &Store {
        &self.instance.store
    }

    /// Where the admin port listens.
    pub(super) fn http_address(&self) -> Option<SocketAddr> {
        let http = self.instance.http.lock().unwrap_or_else(PoisonError::into_inner);
        http.as_ref().map(Server::address)
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.slot.gate().leave(self.line);
    }
}

/// Opens a handle for an instance.
pub(super) fn open(instance: Instance) -> Result<*mut c_void> {
    for (number, slot) in TABLE.iter().enumerate() {
        let state = slot.gate().state();
        if state & PHASE == FREE && slot.gate().change(state, state + OPENING) {
            if slot.forks.swap(boundary::forks(), Ordering::Relaxed) != boundary::forks() {
                // Whoever was on the way in or out at the fork is a thread of the parent.
                slot.gate().forget_entries();
            }
            slot.instance
                .store(Box::into_raw(Box::new(instance)), Ordering::Release);
            slot.gate().change(state + OPENING, state + OPEN);
            let uses = (state / USE) as usize;
            return Ok(std::ptr::without_provenance_mut(
                (uses << USES_SHIFT) | (number << SLOT_SHIFT) | MARK,
            ));
        }
    }
    Err(Error::NoSpace(words!(
        "{SLOTS} stores are open in this process, which is the limit"
    )))
}

/// The slot of a handle and the state it has when the handle's store is in `phase`.
#[inline(always)]
fn slot_of(handle: *const c_void) -> Result<(&'static Slot, u64)> {
    let number = handle.addr();
    let slot = TABLE.get((number & ((1 << USES_SHIFT) - 1)) >> SLOT_SHIFT);
    let uses = (number >> USES_SHIFT) as u64 * USE;
    match slot.filter(|_| number & MARK != 0) {
        Some(slot) if slot.forks.load(Ordering::Relaxed) == boundary::forks() => Ok((slot, uses)),
        slot => Err(why_not(slot)),
    }
}

#[cold]
fn why_not(slot: Option<&Slot>) -> Error {
    if slot.is_some_and(|slot| slot.gate.get().is_some()) {
        Error::Forked
    } else {
        Error::NotStarted
    }
}

#[inline(always)]
fn enter_in(handle: *const c_void, is_open: impl Fn(u64) -> bool) -> Result<(Entered, u64)> {
    let (slot, uses) = slot_of(handle)?;
    let line = stripe::index();
    let state = slot
        .gate()
        .enter(line, |state| state & !PHASE == uses && is_open(state & PHASE));
    let state = state.map_err(|_| Error::NotStarted)?;
    // SAFETY: the instance was stored before the slot's state became open, and is not freed before the gate, shut for good, is empty.
    let instance = unsafe { &*slot.instance.load(Ordering::Acquire) };
    let entered = Entered {
        slot,
        uses,
        line,
        instance,
    };
    Ok((entered, state & PHASE))
}

/// Goes into the open store of a handle.
#[inline(always)]
pub(super) fn enter(handle: *const c_void) -> Result<Entered> {
    enter_in(handle, |phase| phase == OPEN).map(|(entered, _)| entered)
}

/// Runs a call that ends a pin or a reservation: it works while the store is being closed and after that, too. The last one ends it.
pub(super) fn with_remains<T>(handle: *const c_void, act: impl FnOnce(&Store) -> Result<T>) -> Result<T> {
    let (entered, phase) = enter_in(handle, |phase| matches!(phase, OPEN | CLOSING | LINGERING))?;
    let result = act(entered.store());
    drop(entered);
    // One that came in while the store was open has left before its closer looks.
    if phase != OPEN {
        end_if_unused(handle);
    }
    result
}

/// Closes the store of a handle. On `Busy` nothing has changed.
pub(super) fn close(handle: *const c_void) -> Result<()> {
    let (slot, uses) = slot_of(handle)?;
    if boundary::is_inside() {
        return Err(Error::Busy(
            "a store can't be closed from inside a callback of the library".into(),
        ));
    }
    {
        let entered = enter(handle)?;
        if entered.store().events.is_own_thread() {
            return Err(Error::Busy("a store can't be closed from its event callback".into()));
        }
    }
    if !slot.gate().change(uses + OPEN, uses + CLOSING) {
        return Err(Error::NotStarted);
    }
    // SAFETY: only this thread takes the slot out of its phase, and in this phase the instance stays.
    let instance = unsafe { &*slot.instance.load(Ordering::Acquire) };
    instance.store.set_leaving(true);
    wait_until_empty(slot);
    if let Err(error) = instance.store.release_host_memory() {
        instance.store.set_leaving(false);
        slot.gate().change(uses + CLOSING, uses + OPEN);
        return Err(error);
    }
    instance.store.begin_closing();
    let http = instance.http.lock().unwrap_or_else(PoisonError::into_inner).take();
    drop(http);
    instance.store.stop();
    slot.gate().change(uses + CLOSING, uses + LINGERING);
    end_if_unused(handle);
    Ok(())
}

/// Frees the instance of a handle, and the slot, if it lingers for nothing.
fn end_if_unused(handle: *const c_void) {
    // Not lingering yet: then its closer comes here. Or not any more: then somebody else did.
    let Ok((entered, _)) = enter_in(handle, |phase| phase == LINGERING) else {
        return;
    };
    let (slot, uses) = (entered.slot, entered.uses);
    let is_unused = entered.store().tokens() == 0;
    drop(entered);
    if !is_unused || !slot.gate().change(uses + LINGERING, uses + ENDING) {
        return;
    }
    wait_until_empty(slot);
    let instance = slot.instance.swap(std::ptr::null_mut(), Ordering::AcqRel);
    // SAFETY: it came from a box, the gate is shut and empty, and only the thread that shut it comes here.
    drop(unsafe { Box::from_raw(instance) });
    slot.gate().change(uses + ENDING, uses + USE + FREE);
}

/// Calls are short, but one may be in a callback of the host for long.
fn wait_until_empty(slot: &Slot) {
    let mut rounds = 0u32;
    while !slot.gate().is_empty() {
        match rounds {
            0..100 => std::hint::spin_loop(),
            100..200 => std::thread::yield_now(),
            _ => std::thread::sleep(Duration::from_micros(100)),
        }
        rounds = rounds.saturating_add(1);
    }
}
