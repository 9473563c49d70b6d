//! The store: what a host opens, puts into, gets from and closes.
//!
//! Start with [`put`](mod@put): take the key, find room, copy, publish. Then [`get`](mod@get): find, count a reading, copy. The other files
//! are one operation each.
//!
//! **Locks**, in the order in which they may be taken: a shard of the index; a segment's policy; a segment's allocator. The lock of
//! leases and terms, and the queue of events, are leaves. Under none of them is anything copied, called back, waited for or written.
//! A thread that stops at any place outside them stops nobody, except a put that needs the very memory that it is reading.
//!
//! **Ownership.** What a call takes is a value that gives it back: [`put::Writing`] drops its reservation, [`get::Reading`] its
//! reading. Extents belong to the object's copies; the last who needs a copy gives its extent back (`Store::end`).

mod address;
mod claims;
pub(crate) mod evict;
pub(crate) mod get;
mod group;
pub(crate) mod guest;
pub(crate) mod inplace;
mod keeper;
pub(crate) mod list;
#[cfg(test)]
mod media;
pub(crate) mod migrate;
mod mover;
mod moves;
#[cfg(test)]
mod panics;
pub(crate) mod place;
pub(crate) mod put;
#[cfg(test)]
mod races;
pub(crate) mod remove;
pub(crate) mod report;
mod restart;
pub(crate) mod segments;

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use segments::{Plan, Registered, Segments};

use crate::clock::{Clock, HostClock};
use crate::config::{Config, Memory as MemoryKind};
use crate::error::{Result, invalid};
use crate::event::{Event, Events};
use crate::evict::{Arrival, Kind, Policies};
use crate::hold::Holds;
use crate::index::Index;
use crate::key::Key;
use crate::log::{Level, say};
use crate::metrics::{Counter, Metrics};
use crate::object::{KeyCopy, Life, Objects, State};
use crate::segment::allocator::{Owner, UNIT};
use crate::segment::device::Device;
use crate::segment::dram::{self, Mapping, Wishes};
use crate::segment::file::File;
use crate::segment::{MAX_RANKS, Medium, Memory};
use crate::stripe::{self, Striped};
use crate::trace::{Timing, Tracepoint, Tracer};

/// A lookup is not a use for eviction.
pub(crate) const PEEK: u32 = 1;
/// A get takes as much as its buffers hold.
pub(crate) const GET_UP_TO: u32 = 2;
/// A query shows reserved objects too.
pub(crate) const QUERY_RESERVED: u32 = 4;

/// Checks a caller's flags against those that its function knows.
pub(crate) fn check_flags(flags: u32, known: u32) -> Result<()> {
    if flags & !known != 0 {
        return Err(invalid!("flags {flags:#x}: this function knows {known:#x}"));
    }
    Ok(())
}

/// Where the memory of a new segment comes from.
pub(crate) enum Source {
    /// The library maps it.
    Map(Wishes),
    /// The host's, at this address.
    Host(usize),
    /// A device's, at this address of its own.
    Device(usize, Box<dyn Device>),
    /// A file, with this path or over what a test gives.
    File(FileSource),
}

/// Where the file of a new segment comes from.
pub(crate) enum FileSource {
    /// It is opened, or made.
    Path(PathBuf),
    /// It is open.
    #[cfg_attr(not(test), expect(dead_code, reason = "faults are injected by tests"))]
    Open(File),
}

/// An open store.
pub(crate) struct Store {
    objects: Objects,
    index: Index,
    pub(crate) segments: Segments,
    holds: Holds,
    clock: Clock,
    pub(crate) events: Events,
    pub(crate) metrics: Metrics,
    pub(crate) tracer: Tracer,
    /// Readable objects; added to and taken from on every thread's own line.
    stored: Striped<AtomicU64>,
    hash_seed: u64,
    /// The caller's rank.
    rank: u32,
    watermark_high: u32,
    watermark_low: u32,
    policies: Policies,
    next_ticket: AtomicU32,
    /// What the key of the next object that is only for a guest is made of.
    next_unseen: AtomicU64,
    /// Processes that are attached.
    pub(crate) guests: AtomicU64,
    keeper: keeper::Keeper,
    mover: mover::Mover,
    /// Gets compare what lies in memory, too, with what was put.
    verify_dram: bool,
    /// Where it is kept what is on SSD segments, if it is.
    states: Option<restart::States>,
    is_closing: AtomicBool,
    /// The host is closing the store: nobody comes in any more, those inside go on. It may turn out to be in use, and stay open.
    is_leaving: AtomicBool,
}

impl Store {
    /// Opens a store with the DRAM segment that `config` asks for, and starts its background thread. Its time is the host's where that has a
    /// clock.
    pub(crate) fn open(config: &Config, clock: Option<HostClock>) -> Result<Arc<Store>> {
        let store = Arc::new(Store {
            objects: Objects::new(),
            index: Index::new()?,
            segments: Segments::new(),
            holds: Holds::new(),
            clock: Clock::new(clock),
            events: Events::new(),
            metrics: Metrics::new()?,
            tracer: Tracer::new()?,
            stored: Striped::new("counters of stored keys")?,
            hash_seed: RandomState::new().hash_one(0),
            rank: config.rank,
            watermark_high: config.watermark_high,
            watermark_low: config.watermark_low,
            policies: Policies::new(config.eviction)?,
            next_ticket: AtomicU32::new(0),
            next_unseen: AtomicU64::new(0),
            guests: AtomicU64::new(0),
            keeper: keeper::Keeper::new(),
            mover: mover::Mover::new(config.move_rate),
            verify_dram: config.verify_dram,
            states: config.state_path.clone().map(|path| restart::States {
                path,
                wipe: config.state_wipe,
            }),
            is_closing: AtomicBool::new(false),
            is_leaving: AtomicBool::new(false),
        });
        if config.dram_size > 0 {
            let kind = match config.memory {
                MemoryKind::Private => dram::Kind::Private,
                MemoryKind::Memfd => dram::Kind::Memfd,
            };
            let wishes = Wishes {
                kind,
                huge_pages: config.huge_pages,
                prefault: config.prefault,
                numa_node: config.numa_node,
            };
            let plan = Plan {
                medium: Medium::Dram,
                rank: config.rank,
                capacity: config.dram_size,
            };
            store.register_segment(&plan, Source::Map(wishes))?;
        }
        if let Some(path) = &config.ssd_path {
            let plan = Plan {
                medium: Medium::Ssd,
                rank: config.rank,
                capacity: config.ssd_size,
            };
            store.register_segment(&plan, Source::File(FileSource::Path(path.clone())))?;
        }
        keeper::start(&store)?;
        if let Err(error) = mover::start(&store) {
            store.stop();
            return Err(error);
        }
        Ok(store)
    }

    /// Says, or takes back, that nobody is let into the store any more.
    pub(crate) fn set_leaving(&self, is_leaving: bool) {
        self.is_leaving.store(is_leaving, Ordering::Release);
    }

    /// Whether calls are let in, which is health as it is seen from outside.
    pub(crate) fn is_healthy(&self) -> bool {
        self.is_serving() && !self.is_leaving.load(Ordering::Acquire)
    }

    /// From here on the store says that it is not serving.
    pub(crate) fn begin_closing(&self) {
        self.is_closing.store(true, Ordering::Release);
    }

    /// Ends the store's threads. Its memory goes with its last reference.
    pub(crate) fn stop(&self) {
        self.begin_closing();
        self.keeper.stop();
        self.mover.stop();
        self.save();
        // Only the listener itself is refused, and a host can't close a store from there.
        let _ = self.events.listen(None);
    }

    /// False once the store is being closed.
    pub(crate) fn is_serving(&self) -> bool {
        !self.is_closing.load(Ordering::Acquire)
    }

    /// Registers a segment and gives its pool address.
    pub(crate) fn register_segment(&self, plan: &Plan, source: Source) -> Result<u64> {
        let span = self.tracer.begin(Tracepoint::BmRegister, Timing::Always);
        let result = self.try_register(plan, source);
        span.end(result.is_ok());
        result
    }

    fn try_register(&self, plan: &Plan, source: Source) -> Result<u64> {
        if plan.rank >= MAX_RANKS {
            return Err(invalid!("rank {}: must be below {MAX_RANKS}", plan.rank));
        }
        if (plan.medium == Medium::Ssd) != matches!(source, Source::File(_)) {
            return Err(invalid!(
                "{} segment: SSD, and nothing else, needs a file",
                plan.medium.name()
            ));
        }
        if plan.medium == Medium::Hbm && !matches!(source, Source::Device(..)) {
            return Err(invalid!(
                "HBM segment without a copy callback: the host's device memory needs one"
            ));
        }
        if let Source::Host(base) | Source::Device(base, _) = &source {
            if *base == 0 {
                return Err(invalid!("base of the host's memory is null"));
            }
            if !(*base as u64).is_multiple_of(UNIT) {
                return Err(invalid!("base {base:#x}: must be a multiple of {UNIT}"));
            }
            if (*base as u64).checked_add(plan.capacity).is_none() {
                return Err(invalid!(
                    "base {base:#x} with {} bytes: goes past the end of memory",
                    plan.capacity
                ));
            }
        }
        let recovered = Cell::new(None);
        let memory = || {
            Ok(match source {
                Source::Map(wishes) => Memory::Mapped(Mapping::new(plan.capacity, wishes)?),
                Source::Host(base) => Memory::Host(base),
                Source::Device(base, device) => Memory::Device(base, device),
                Source::File(FileSource::Path(path)) => {
                    let file = File::open(&path, plan.capacity, self.states.is_some())?;
                    let state = self
                        .states
                        .as_ref()
                        .map(|states| states.open(&path, plan))
                        .transpose()?;
                    let (journal, found) = state.unzip();
                    recovered.set(found);
                    Memory::File(file, journal)
                }
                Source::File(FileSource::Open(file)) => Memory::File(file, None),
            })
        };
        let policy = self.policies.of_segment(plan.medium, plan.capacity / UNIT)?;
        let registered = self.segments.register(plan, policy, memory, |registered| {
            if let Some(recovered) = recovered.take() {
                self.restore(registered, &recovered);
            }
        })?;
        let segment = &registered.segment;
        let file = segment.file().map(|file| format!(", {}", file.report()));
        let pages = segment.mapping_report().map(|report| format!(", {report}"));
        let memory = file.or(pages).unwrap_or_default();
        say!(
            Level::Info,
            "segment {:#x} registered: {} of rank {}, {} bytes{memory}",
            segment.address,
            segment.medium.name(),
            segment.rank,
            segment.capacity
        );
        Ok(segment.address)
    }

    /// Lets a segment go: `Busy` and unchanged while a pin, lease or reservation is in it; else its copies are dropped, readings
    /// and writings in it are waited for, and the memory is not used again.
    pub(crate) fn unregister_segment(&self, address: u64) -> Result<()> {
        let span = self.tracer.begin(Tracepoint::BmUnregister, Timing::Always);
        let registered = self.segments.at(address)?;
        let segment = &registered.segment;
        self.sweep();
        segment.close()?;
        self.segments.hide(segment.number);
        loop {
            self.drop_copies_in(registered);
            segment.wait_until_empty();
            if segment.withdraw() {
                break;
            }
        }
        say!(Level::Info, "segment {address:#x} unregistered");
        span.good();
        Ok(())
    }

    /// Whether the host's memory may be taken away: no pin, lease or reservation is in it. Closes those segments, or none.
    pub(crate) fn release_host_memory(&self) -> Result<()> {
        self.sweep();
        let hosts = || self.segments.open().filter(|registered| registered.segment.is_host);
        for (number, registered) in hosts().enumerate() {
            if let Err(error) = registered.segment.close() {
                hosts().take(number).for_each(|other| other.segment.reopen());
                return Err(error);
            }
        }
        Ok(())
    }

    /// Pins and reservations that are open in memory that the library mapped.
    pub(crate) fn tokens(&self) -> u64 {
        self.holds.pins() + self.holds.reservations()
    }

    /// The caller's rank.
    pub(crate) fn rank(&self) -> u32 {
        self.rank
    }

    fn hash(&self, key: &Key) -> u64 {
        key.hash(self.hash_seed)
    }

    /// The slot that has this key, reserved or readable.
    fn find(&self, key: &Key, hash: u64) -> Option<(u32, Life)> {
        self.index.find(hash, |slot| {
            self.objects.life_of(slot, key, hash).map(|life| (slot, life))
        })
    }

    /// The slot of the readable object of this key.
    fn find_readable(&self, key: &Key, hash: u64) -> Option<(u32, Life)> {
        self.find(key, hash).filter(|(_, life)| life.state() == State::Readable)
    }

    /// The segment of a copy.
    #[inline]
    fn segment_of(&self, slot: u32, copy: usize) -> (&Registered, u32) {
        let (segment, unit) = self.objects.blob(slot, copy).place();
        (self.segments.get(segment), unit)
    }

    /// Gives a copy's memory back, once nobody needs it; with the last copy goes the slot.
    fn end(&self, slot: u32, copy: usize) {
        let (registered, unit) = self.segment_of(slot, copy);
        registered.segment.free(unit);
        self.objects.blob(slot, copy).vacate();
        self.objects.finish(slot);
    }

    /// Takes a copy out of its segment's order.
    fn unlist(&self, slot: u32, copy: usize) {
        let (registered, _) = self.segment_of(slot, copy);
        let mut policy = registered.policy();
        if let Some(handle) = self.objects.blob(slot, copy).take_handle() {
            policy.remove(crate::evict::Handle(handle), self.objects.get(slot).used());
        }
    }

    /// Puts a copy into its segment's order: the next of an object of a kind, or the first of a new one; the kind.
    fn enlist(&self, slot: u32, copy: usize, place: u64, is_end: bool, kind: Option<Kind>) -> Result<Kind> {
        let (registered, _) = self.segment_of(slot, copy);
        let object = self.objects.get(slot);
        let units = crate::segment::Segment::units_for(object.size()) as u32;
        let mut policy = registered.policy();
        let (handle, kind) = policy.insert(Arrival {
            id: evict::id_of(slot, copy),
            key: object.hash(),
            units,
            place,
            is_end,
            kind,
        })?;
        self.objects.blob(slot, copy).set_handle(handle.0);
        Ok(kind)
    }

    /// The key of an object that is there, if somebody listens: for [`Store::announce`], which may come when it no longer is.
    fn key_to_announce(&self, slot: u32) -> Option<KeyCopy> {
        self.events.are_wanted().then_some(())?;
        self.objects.read_key(slot).map(|(_, key)| key)
    }

    /// Tells the listener about copies of an object. Under the lock of the key's shard, and after the change: who hears of it finds
    /// it so.
    fn announce(&self, kind: crate::event::Kind, key: Option<KeyCopy>, slot: u32, copies: impl Iterator<Item = usize>) {
        let Some(key) = key else { return };
        for copy in copies {
            let segment = &self.segment_of(slot, copy).0.segment;
            if !self
                .events
                .push(Event::new(kind, segment.medium, segment.rank, key.bytes()))
            {
                self.count(Counter::EventsDropped, 1);
            }
        }
    }

    fn count_stored(&self, change: i64) {
        let mine = stripe::index();
        stripe::add(mine, self.stored.at(mine), change as u64, Ordering::Relaxed);
    }

    /// Readable objects now.
    pub(crate) fn stored_keys(&self) -> u64 {
        let sum = self
            .stored
            .iter()
            .fold(0u64, |sum, line| sum.wrapping_add(line.load(Ordering::Relaxed)));
        // Lines are read one after the other: a removal may be seen before its put.
        (sum as i64).max(0) as u64
    }

    /// Does `act` for each element of a batch and writes its code; a failure is counted and touches no other element.
    fn each(&self, results: &mut [i32], mut act: impl FnMut(usize) -> Result<()>) {
        for (number, code) in results.iter_mut().enumerate() {
            *code = 0;
            self.note(act(number), code);
        }
    }

    /// Writes the code of an element that failed, and counts it.
    fn note<T>(&self, result: Result<T>, code: &mut i32) -> Option<T> {
        self.counted(result).map_err(|error| *code = error.code()).ok()
    }

    /// Counts the failure of a call, or of a batch's element.
    fn counted<T>(&self, result: Result<T>) -> Result<T> {
        result.inspect_err(|error| self.metrics.fail(error.code()))
    }

    /// A ticket for an evicting put.
    fn ticket(&self) -> u32 {
        self.next_ticket.fetch_add(1, Ordering::Relaxed) % Owner::ID_LIMIT
    }

    fn count(&self, counter: Counter, number: u64) {
        self.metrics.add(counter, number);
    }
}
