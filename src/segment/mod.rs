//! Memory that holds blobs: a rank's HBM, DRAM or SSD.
//!
//! A segment is a range of pool addresses, the memory behind it, and an allocator over both. The allocator deals in units of
//! 4096 bytes and never touches the memory, which may be a device's. Four kinds of memory stand behind one [`Segment`]: what the
//! library maps itself ([`dram`]), what the host hands over, what only the host's copy callback can reach ([`device`]), and a [`file`](mod@file)
//! ([`disk`] has the way of objects to it and back).
//!
//! A pool address is the store's own number for a byte: it is given once, never reused while the store lives, and is not where any
//! process has the memory mapped. [`Segment::pointer`] is the one place where the two meet.
//!
//! **Leaving.** Pins, leases and reservations in the segment are counted ([`tenants`]), and it closes only when there are none. Then the
//! caller takes the objects out of the index, waits until every extent is back, and the memory goes ([`Segment::withdraw`]).
//!
//! The allocator's lock is a leaf: nothing is called under it. A thread that stops while it holds it stops allocations in this segment.

pub(crate) mod allocator;
pub(crate) mod buffers;
pub(crate) mod device;
pub(crate) mod disk;
pub(crate) mod dram;
pub(crate) mod file;
mod freed;
pub(crate) mod journal;
pub(crate) mod shared;
mod tenants;
pub(crate) mod transfer;
mod view;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use allocator::{Allocator, Extent, Owner, UNIT};
use device::Device;
use dram::Mapping;
use file::File;
use freed::Freed;
use journal::Journal;
use tenants::Tenants;

use crate::error::{Error, Result, invalid, words};

/// What kind of memory, fastest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) enum Medium {
    Hbm,
    Dram,
    Ssd,
}

impl Medium {
    /// All of them.
    pub(crate) const ALL: [Medium; 3] = [Medium::Hbm, Medium::Dram, Medium::Ssd];

    /// Its name in the REST contract.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Medium::Hbm => "HBM",
            Medium::Dram => "DRAM",
            Medium::Ssd => "SSD",
        }
    }
}

/// Ranks are below this.
pub(crate) const MAX_RANKS: u32 = 1 << 16;

/// The memory behind a segment.
pub(crate) enum Memory {
    /// Mapped by the library.
    Mapped(Mapping),
    /// The host's own, mapped at this address.
    Host(usize),
    /// Reached by the host's copy callback only; the address is the host's name for its first byte.
    Device(usize, Box<dyn Device>),
    /// A file, with the journal of what is on it if that is to be found again.
    File(File, Option<Journal>),
}

/// A range of memory with its allocator.
pub(crate) struct Segment {
    pub(crate) number: u32,
    pub(crate) medium: Medium,
    pub(crate) rank: u32,
    /// Pool address of the first byte.
    pub(crate) address: u64,
    /// Bytes.
    pub(crate) capacity: u64,
    /// The first byte where this process, or the device, has it.
    base: usize,
    device: Option<Box<dyn Device>>,
    pub(crate) is_host: bool,
    /// Its memory is a memfd, which other processes can map.
    pub(crate) is_shareable: bool,
    mapping: Mutex<Option<Mapping>>,
    is_file: bool,
    file: Mutex<Option<Arc<File>>>,
    journal: Option<Journal>,
    space: Mutex<Option<Allocator>>,
    freed: Freed,
    /// Bytes handed out, for those who only want to look.
    allocated: AtomicU64,
    tenants: Tenants,
}

impl Segment {
    /// Makes a segment of `capacity` bytes at the pool address `address`.
    pub(crate) fn new(
        number: u32,
        medium: Medium,
        rank: u32,
        address: u64,
        capacity: u64,
        memory: Memory,
    ) -> Result<Segment> {
        let units = u32::try_from(capacity / UNIT)
            .ok()
            .filter(|units| *units <= allocator::MAX_UNITS);
        let Some(units) = units else {
            let limit = u64::from(allocator::MAX_UNITS) * UNIT;
            return Err(invalid!("segment of {capacity} bytes: the limit is {limit}"));
        };
        let is_host = matches!(memory, Memory::Host(_) | Memory::Device(..));
        let (base, mapping, device, file, journal) = match memory {
            Memory::Mapped(mapping) => (mapping.base(), Some(mapping), None, None, None),
            Memory::Host(base) => (base, None, None, None, None),
            Memory::Device(base, device) => (base, None, Some(device), None, None),
            Memory::File(file, journal) => (0, None, None, Some(Arc::new(file)), journal),
        };
        Ok(Segment {
            number,
            medium,
            rank,
            address,
            capacity,
            base,
            device,
            is_host,
            is_shareable: mapping.as_ref().is_some_and(|mapping| mapping.file().is_some()),
            mapping: Mutex::new(mapping),
            is_file: file.is_some(),
            file: Mutex::new(file),
            journal,
            space: Mutex::new(Some(Allocator::new(units)?)),
            freed: Freed::new(),
            allocated: AtomicU64::new(0),
            tenants: Tenants::new(),
        })
    }

    /// Units for an object of `size` bytes.
    pub(crate) fn units_for(size: u64) -> u64 {
        size.div_ceil(UNIT)
    }

    /// How far from the segment's first byte a unit begins.
    pub(crate) fn offset_of(unit: u32) -> u64 {
        u64::from(unit) * UNIT
    }

    /// Bytes handed out: a multiple of 4096.
    pub(crate) fn allocated(&self) -> u64 {
        self.allocated.load(Ordering::Relaxed)
    }

    /// Whether the memory is within reach of this process's own instructions.
    pub(crate) fn device(&self) -> Option<&dyn Device> {
        self.device.as_deref()
    }

    /// Pool address of a unit.
    pub(crate) fn address_of(&self, unit: u32) -> u64 {
        self.address + Segment::offset_of(unit)
    }

    /// How far from the segment's first byte a pool address is; `None` when it is not in the segment.
    pub(crate) fn offset_at(&self, address: u64) -> Option<u64> {
        address
            .checked_sub(self.address)
            .filter(|offset| *offset < self.capacity)
    }

    /// Where this process, or the device, has the byte that is so far from the segment's first.
    pub(crate) fn location_at(&self, offset: u64) -> usize {
        self.base + offset as usize
    }

    /// Whether `bytes` bytes from that byte on lie in the segment.
    pub(crate) fn has_room_at(&self, offset: u64, bytes: u64) -> bool {
        offset.checked_add(bytes).is_some_and(|end| end <= self.capacity)
    }

    /// Whether its memory is a file.
    pub(crate) fn is_file(&self) -> bool {
        self.is_file
    }

    /// The file; `None` for memory, and when it has gone.
    pub(crate) fn file(&self) -> Option<Arc<File>> {
        lock(&self.file).clone()
    }

    /// The journal of what is on it, if that is to be found again.
    pub(crate) fn journal(&self) -> Option<&Journal> {
        self.journal.as_ref()
    }

    /// Where this process has a unit mapped; `None` for a device's memory and for a file.
    pub(crate) fn pointer(&self, unit: u32) -> Option<*mut u8> {
        (self.device.is_none() && !self.is_file)
            .then(|| std::ptr::with_exposed_provenance_mut(self.location_at(Segment::offset_of(unit))))
    }

    /// What the mapping got: huge pages and so on. `None` for what the library did not map.
    pub(crate) fn mapping_report(&self) -> Option<dram::Report> {
        lock(&self.mapping).as_ref().map(Mapping::report)
    }

    /// The memfd that other processes can map: `None` for other memory, and when it has gone.
    pub(crate) fn memfd(&self) -> Option<Arc<std::fs::File>> {
        lock(&self.mapping).as_ref().and_then(Mapping::file).cloned()
    }

    /// Takes a run of units; `None` when there is none, or the segment is leaving.
    pub(crate) fn allocate(&self, units: u32, owner: Owner) -> Option<Extent> {
        if self.is_closed() {
            return None;
        }
        self.with_space(|space| space.allocate(units, owner)).flatten()
    }

    /// Gives an extent back, or to the put that waits for it.
    pub(crate) fn free(&self, start: u32) {
        self.with_space(|space| space.free(start));
        self.wake_waiters();
    }

    /// Runs `act` on the allocator under its lock; `None` when the memory has gone. `act` must be short and call nobody.
    pub(crate) fn with_space<T>(&self, act: impl FnOnce(&mut Allocator) -> T) -> Option<T> {
        let mut space = lock(&self.space);
        let allocator = space.as_mut()?;
        let result = act(allocator);
        self.allocated
            .store(u64::from(allocator.allocated_units()) * UNIT, Ordering::Relaxed);
        Some(result)
    }

    /// Waits until an extent that somebody waits for has come back, or a moment has passed.
    pub(crate) fn wait_for_freed(&self, is_ready: impl Fn(&Allocator) -> bool) {
        self.freed
            .wait(&self.space, |space| space.as_ref().is_none_or(&is_ready));
    }

    /// Whether somebody waits for memory here.
    #[cfg(test)]
    pub(crate) fn is_waited_for(&self) -> bool {
        self.freed.is_waited_for()
    }

    /// Lets everybody look again who waits for memory here.
    pub(crate) fn wake_waiters(&self) {
        self.freed.wake();
    }

    /// Counts a pin, lease or reservation in; false when the segment is leaving.
    pub(crate) fn hold(&self) -> bool {
        self.tenants.hold()
    }

    pub(crate) fn end_hold(&self) {
        self.tenants.end_hold();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.tenants.are_shut_out()
    }

    /// Lets nobody in any more; `Busy` and unchanged while somebody holds memory in it.
    pub(crate) fn close(&self) -> Result<()> {
        self.tenants.shut_out().map_err(|holds| match holds {
            None => Error::Busy("the segment is being unregistered already".into()),
            Some(holds) => Error::Busy(words!(
                "{holds} pins, leases and reservations are open in segment {:#x}",
                self.address
            )),
        })
    }

    /// Takes [`Segment::close`] back.
    pub(crate) fn reopen(&self) {
        self.tenants.let_in();
    }

    /// Blocks until every extent is back, for a moment at most.
    pub(crate) fn wait_until_empty(&self) {
        self.wait_for_freed(|allocator| allocator.allocated_units() == 0);
    }

    /// Lets the memory go if every extent is back, and false else: somebody who looked before the segment was closed may take one after.
    pub(crate) fn withdraw(&self) -> bool {
        let mut space = lock(&self.space);
        if space.as_ref().is_some_and(|allocator| allocator.allocated_units() > 0) {
            return false;
        }
        *space = None;
        drop(space);
        let mapping = lock(&self.mapping).take();
        mapping.as_ref().inspect(|mapping| mapping.empty());
        drop(mapping);
        *lock(&self.file) = None;
        if let Some(journal) = &self.journal {
            journal.close();
        }
        true
    }
}

/// A panic under these locks leaves an allocator that checks what it is given; going on beats losing the segment.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
