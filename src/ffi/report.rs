//! Saying what happened: errors, the log, statistics, events, the admin port.

use std::ffi::{CString, c_char, c_void};

use super::boundary::{self, guard};
use super::convert::{Out, medium_number, put_out, require_out};
use super::handle;
use super::types::{
    MMC_EVENT_REMOVED, MMC_EVENT_STORED, mmc_event, mmc_event_callback, mmc_key, mmc_log_callback, mmc_statistics,
    mmc_store,
};
use crate::error::{NAMES, invalid};
use crate::event::{Event, Kind, Listener};
use crate::log::{self, Level, Sink};
use crate::metrics::Counter;

/// This thread's last failure: the function, what was wrong, the value, the limit. "" when there was none. A string of the
/// library, valid until this thread's next failing call; successful calls leave it. Never null. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn mmc_last_error() -> *const c_char {
    boundary::last_words()
}

/// The name of a code, "MMC_ERR_EXISTS" say; "unknown" for one that is not the library's. A static string. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn mmc_error_name(code: i32) -> *const c_char {
    NAMES
        .iter()
        .find(|(known, _)| *known == code)
        .map_or(c"unknown", |(_, name)| *name)
        .as_ptr()
}

/// Sets where the process's log goes: `callback` with `context`, or with null back to standard error. For all stores of the process.
///
/// Nothing is logged before a level is set. Blocks until no other thread is in the old callback, so that what it used may be freed
/// then; called from inside a log callback it does not wait. Returns MMC_OK. Any thread. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn mmc_set_logger(callback: mmc_log_callback, context: *mut c_void) -> i32 {
    guard("mmc_set_logger", || {
        log::set_sink(callback.map(|callback| Box::new(HostLogger { callback, context }) as Box<dyn Sink>));
        Ok(())
    })
}

/// Sets how much the process's log says: MMC_LOG_OFF to MMC_LOG_TRACE. It starts off. For all stores of the process.
///
/// Returns MMC_OK, or MMC_ERR_INVALID_PARAM for another number. Never blocks; any thread. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn mmc_set_log_level(level: u32) -> i32 {
    guard("mmc_set_log_level", || {
        log::set_level(Level::from_number(level).ok_or_else(|| invalid!("log level {level}: must be 1 to 6"))?);
        Ok(())
    })
}

/// Reads the store's counters and levels.
///
/// `statistics`: where they go, with its `struct_size` set. Each number is right for a moment of the call, not all for the same one.
/// Returns MMC_OK or MMC_ERR_INVALID_PARAM. Never blocks; any thread. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmc_stats(store: *mut mmc_store, statistics: *mut mmc_statistics) -> i32 {
    guard("mmc_stats", || {
        let entered = handle::enter(store.cast())?;
        // SAFETY: the caller gives a struct of the size that it says.
        let out = unsafe { Out::new(statistics, 1)? };
        let (levels, totals) = entered.pool().statistics()?;
        let total = |counter: Counter| totals[counter as usize];
        out.write(
            0,
            &mmc_statistics {
                struct_size: 0,
                segment_count: levels.segments as u32,
                stored_keys: levels.stored_keys,
                capacity: levels.capacity,
                allocated: levels.allocated,
                metadata: levels.metadata,
                alloc_operations: total(Counter::AllocOperations),
                get_operations: total(Counter::GetOperations),
                get_hits: total(Counter::GetHits),
                get_misses: total(Counter::GetMisses),
                exist_hits: total(Counter::ExistHits),
                exist_misses: total(Counter::ExistMisses),
                remove_operations: total(Counter::RemoveOperations),
                evict_operations: total(Counter::EvictOperations),
                evicted_bytes: total(Counter::EvictedBytes),
                put_bytes: total(Counter::PutBytes),
                get_bytes: total(Counter::GetBytes),
                pins: levels.pins,
                reservations: levels.reservations,
                leases: levels.leases,
                events_dropped: total(Counter::EventsDropped),
                get_hits_hbm: total(Counter::HbmHits),
                get_hits_ssd: total(Counter::SsdHits),
                demotions: total(Counter::Demotions),
                promotions: total(Counter::Promotions),
                moved_bytes: total(Counter::MovedBytes),
                move_failures: total(Counter::MoveFailures),
                rotten_objects: total(Counter::RottenObjects),
                spill_drops: total(Counter::SpillDrops),
                attached: levels.guests,
            },
        );
        Ok(())
    })
}

/// Where the admin port listens: "host:port" with the true port, "" when it is off.
///
/// `buffer`: where the text goes with its terminating zero; may be null when `capacity` is 0. `capacity`: bytes there. `needed`: where
/// the bytes needed go, the zero included; may be null. Returns MMC_OK; MMC_ERR_INVALID_PARAM when the text does not fit: then only
/// `needed` was written. Never blocks; any thread. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmc_http_address(
    store: *mut mmc_store,
    buffer: *mut c_char,
    capacity: usize,
    needed: *mut usize,
) -> i32 {
    guard("mmc_http_address", || {
        let entered = handle::enter(store.cast())?;
        let text = entered.http_address()?;
        let text = CString::new(text).expect("an address has no NUL");
        let bytes = text.as_bytes_with_nul();
        // SAFETY: null or the caller's to write.
        unsafe { put_out(needed, bytes.len()) };
        if bytes.len() > capacity {
            return Err(invalid!(
                "buffer of {capacity} bytes: the address needs {}",
                bytes.len()
            ));
        }
        require_out("buffer", buffer)?;
        // SAFETY: not null, and the caller has `capacity` bytes there, which are enough.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr().cast(), buffer, bytes.len()) };
        Ok(())
    })
}

/// Sets who hears what is stored and removed: `callback` with `context`, or null for nobody.
///
/// The data path never waits for it: up to 16384 events wait, further ones are dropped and counted. Returns when the old callback will
/// not be called again. Returns MMC_OK; MMC_ERR_BUSY when called from the event callback; MMC_ERR_OUT_OF_MEMORY without memory for the
/// queue or a thread: then nobody hears. Any other thread. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmc_set_event_callback(
    store: *mut mmc_store,
    callback: mmc_event_callback,
    context: *mut c_void,
) -> i32 {
    guard("mmc_set_event_callback", || {
        let entered = handle::enter(store.cast())?;
        let listener = callback.map(|callback| Box::new(HostListener { callback, context }) as Box<dyn Listener>);
        entered.pool().listen(listener)
    })
}

/// The host's logger.
struct HostLogger {
    callback: unsafe extern "C" fn(*mut c_void, u32, *const c_char),
    context: *mut c_void,
}

// SAFETY: the header says that any thread may call it, several at once; the context is the host's to share.
unsafe impl Send for HostLogger {}
// SAFETY: as above.
unsafe impl Sync for HostLogger {}

impl Sink for HostLogger {
    fn write(&self, level: Level, line: &str) {
        let line = CString::new(line.replace('\0', "?")).expect("no NUL is left");
        // SAFETY: the host gave a function that may be called so; the line is valid for the call.
        unsafe { (self.callback)(self.context, level as u32, line.as_ptr()) };
    }
}

/// The host's event callback.
struct HostListener {
    callback: unsafe extern "C" fn(*mut c_void, *const mmc_event, usize, u64),
    context: *mut c_void,
}

// SAFETY: one thread of the library calls it; the host gave the context for that.
unsafe impl Send for HostListener {}
// SAFETY: as above.
unsafe impl Sync for HostListener {}

impl Listener for HostListener {
    fn hear(&self, events: &[Event], dropped: u64) {
        let events: Vec<mmc_event> = events.iter().map(event_of).collect();
        // SAFETY: the host gave a function that may be called so; the events and their keys are valid for the call.
        unsafe { (self.callback)(self.context, events.as_ptr(), events.len(), dropped) };
    }
}

fn event_of(event: &Event) -> mmc_event {
    let key = event.key();
    mmc_event {
        struct_size: size_of::<mmc_event>() as u32,
        kind: match event.kind {
            Kind::Stored => MMC_EVENT_STORED,
            Kind::Removed => MMC_EVENT_REMOVED,
        },
        medium: medium_number(event.medium),
        rank: event.rank,
        key: mmc_key {
            data: key.as_ptr().cast(),
            size: key.len(),
        },
    }
}
