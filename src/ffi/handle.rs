//! Handles: how a host names a store without being trusted with its address.
//!
//! A handle is a number dressed as a pointer: a slot of a fixed table under the number of times that slot has been used. It is looked
//! up, never followed, so a handle of a closed store is an error and not a crash. The slots are never freed.
//!
//! A store that was closed with pins or reservations lingers: its memory stays, and the calls that end those still work; the last one ends
//! it ([`super::slot`]). A place of the table also remembers in which process it was filled: a forked child is told so before it
//! touches anything that a thread of its parent may have left half-done.

use std::ffi::c_void;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use once_cell::race::OnceBox;

use super::boundary;
use super::slot::{self, Slot};
use crate::error::{Error, Result, words};
use crate::gate::Line;
use crate::http::Server;
use crate::pool::Pool;
use crate::share::address;
use crate::share::host::{Host, Terms};
use crate::stripe::{self, STRIPES};

/// Stores that can be open in one process at once.
const SLOTS: usize = 1024;

/// What a handle stands for.
pub(super) struct Instance {
    pub(super) pool: Pool,
    /// Taken out when the store is closed.
    http: Mutex<Option<Server>>,
    /// Who serves other processes. Taken out, too.
    host: Mutex<Option<Host>>,
    /// How it is shared if it is; `None` for one that can't be.
    terms: Option<Terms>,
}

impl Instance {
    pub(super) fn new(pool: Pool, http: Option<Server>, terms: Option<Terms>) -> Instance {
        Instance {
            pool,
            http: Mutex::new(http),
            host: Mutex::new(None),
            terms,
        }
    }
}

impl Instance {
    fn http_address(&self) -> Result<String> {
        if let Pool::Attached(attached) = &self.pool {
            return attached.http_address();
        }
        let http = self.http.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(http
            .as_ref()
            .map_or(String::new(), |server| server.address().to_string()))
    }

    /// Shares the store at an address.
    pub(super) fn share(&self, address: &str) -> Result<()> {
        let (Pool::Own(store), Some(terms)) = (&self.pool, &self.terms) else {
            return Err(Error::Unsupported("to share a pool that another process owns".into()));
        };
        let path = address::path_of(address)?;
        let http_address = self.http_address()?;
        let mut host = self.host.lock().unwrap_or_else(PoisonError::into_inner);
        if host.is_some() {
            return Err(Error::Busy("the store is shared already".into()));
        }
        *host = Some(Host::start(Arc::clone(store), path, terms.clone(), http_address)?);
        Ok(())
    }

    /// Disconnects who is attached to it, stops its threads, and lets its memory go.
    pub(super) fn stop(&self) {
        let Pool::Own(store) = &self.pool else { return };
        // What other processes hold goes back before it is asked who holds something.
        let host = self.host.lock().unwrap_or_else(PoisonError::into_inner).take();
        host.into_iter().for_each(Host::stop);
        let http = self.http.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(http);
        store.stop();
    }
}

type InstanceSlot = Slot<Instance, Box<[Line]>>;

/// A place of the table.
struct Place {
    /// Made at first use, by a cell that never blocks: a child may be forked while a thread of its parent makes it.
    slot: OnceBox<InstanceSlot>,
    /// [`boundary::forks`] when it was filled.
    forks: AtomicU32,
}

static TABLE: [Place; SLOTS] = [const {
    Place {
        slot: OnceBox::new(),
        forks: AtomicU32::new(0),
    }
}; SLOTS];

/// Handles have this set, so that they are neither null nor an address that anybody has.
const MARK: usize = 1;
const SLOT_SHIFT: u32 = 1;
const USES_SHIFT: u32 = 16;

impl Place {
    fn slot(&self) -> &InstanceSlot {
        self.slot
            .get_or_init(|| Box::new(Slot::new((0..STRIPES).map(|_| Line::new()).collect())))
    }
}

/// A store that this call is inside of: it stays open until this is dropped.
pub(super) struct Entered(slot::Entered<'static, Instance, Box<[Line]>>);

impl Entered {
    pub(super) fn pool(&self) -> &Pool {
        &self.0.pool
    }

    /// Where the admin port listens, "" when it is off.
    pub(super) fn http_address(&self) -> Result<String> {
        self.0.http_address()
    }

    /// Shares the store at an address.
    pub(super) fn share(&self, address: &str) -> Result<()> {
        self.0.share(address)
    }
}

/// Opens a handle for an instance.
pub(super) fn open(instance: Instance) -> Result<*mut c_void> {
    for (number, place) in TABLE.iter().enumerate() {
        let slot = place.slot();
        let Some(uses) = slot.claim() else { continue };
        if place.forks.swap(boundary::forks(), Ordering::Relaxed) != boundary::forks() {
            // Whoever was on the way in or out at the fork is a thread of the parent.
            slot.forget_entries();
        }
        slot.fill(uses, instance);
        return Ok(std::ptr::without_provenance_mut(
            ((uses as usize) << USES_SHIFT) | (number << SLOT_SHIFT) | MARK,
        ));
    }
    instance.stop();
    Err(Error::NoSpace(words!(
        "{SLOTS} stores are open in this process, which is the limit"
    )))
}

/// The slot of a handle, and which use of it the handle's store is.
#[inline(always)]
fn slot_of(handle: *const c_void) -> Result<(&'static InstanceSlot, u64)> {
    let number = handle.addr();
    let place = TABLE.get((number & ((1 << USES_SHIFT) - 1)) >> SLOT_SHIFT);
    // No error is made before there is one: to drop it again costs each call as much as all of this.
    let Some(place) = place.filter(|_| number & MARK != 0) else {
        return Err(Error::NotStarted);
    };
    let Some(slot) = place.slot.get() else {
        return Err(Error::NotStarted);
    };
    if place.forks.load(Ordering::Relaxed) != boundary::forks() {
        return Err(Error::Forked);
    }
    Ok((slot, (number >> USES_SHIFT) as u64))
}

/// Goes into the open store of a handle.
#[inline(always)]
pub(super) fn enter(handle: *const c_void) -> Result<Entered> {
    let (slot, uses) = slot_of(handle)?;
    match slot.enter(uses, stripe::index()) {
        Some(entered) => Ok(Entered(entered)),
        None => Err(Error::NotStarted),
    }
}

/// Runs a call that ends a pin or a reservation: it works while the store is being closed and after that, too. The last one ends it.
pub(super) fn with_remains<T>(handle: *const c_void, act: impl FnOnce(&Pool) -> Result<T>) -> Result<T> {
    let (slot, uses) = slot_of(handle)?;
    slot.with_remains(uses, stripe::index(), |instance| act(&instance.pool), is_unused)
        .ok_or(Error::NotStarted)?
}

/// Closes the store of a handle. On `Busy` nothing has changed.
pub(super) fn close(handle: *const c_void) -> Result<()> {
    let (slot, uses) = slot_of(handle)?;
    if boundary::is_inside() {
        return Err(Error::Busy(
            "a store can't be closed from inside a callback of the library".into(),
        ));
    }
    if enter(handle)?.pool().is_hearing() {
        return Err(Error::Busy("a store can't be closed from its event callback".into()));
    }
    let closing = slot.begin_closing(uses).ok_or(Error::NotStarted)?;
    match &closing.instance().pool {
        Pool::Own(store) => {
            store.set_leaving(true);
            closing.wait_for_calls();
            if let Err(error) = store.release_host_memory() {
                store.set_leaving(false);
                closing.give_up();
                return Err(error);
            }
            store.begin_closing();
        }
        Pool::Attached(attached) => {
            closing.wait_for_calls();
            attached.begin_closing();
        }
    }
    closing.instance().stop();
    closing.finish(stripe::index(), is_unused);
    Ok(())
}

/// Whether no pin and no reservation keeps the memory of a closed store.
fn is_unused(instance: &Instance) -> bool {
    instance.pool.tokens() == 0
}
