//! One pool for all the processes of a host: sharing a store, and attaching to one that another process has shared.

use std::ffi::c_char;
use std::time::Duration;

use super::boundary::guard;
use super::convert::{put_out, read, require_out, switch_from, text_from};
use super::handle::{self, Instance};
use super::types::{MMC_MAX_BATCH, MMC_NO_RANK, mmc_attach_options, mmc_store};
use crate::attach::{Attached, Attaching};
use crate::error::{Result, invalid};
use crate::log::{self, Level};
use crate::pool::Pool;
use crate::segment::MAX_RANKS;
use crate::segment::dram::{Kind, Wishes};
use crate::share::wire::MAX_ELEMENTS;

const _: () = assert!(
    MMC_MAX_BATCH as usize == MAX_ELEMENTS,
    "a batch goes over the wire in one frame"
);

/// Shares a store with other processes of the host, which attach with mmc_attach.
///
/// `address`: "unix:" and the absolute path of a socket, of at most 107 bytes; zero-terminated. A file `path.lock` lies beside the socket while it
/// is served. Who may attach, and the socket's mode, are the config's (share_mode, share_users, share_groups; by default the owner's own
/// user). A socket whose owner has gone is taken over.
///
/// What other processes put lies in DRAM segments that are memfds (config.memory, or `memory` of mmc_segment_options: MMC_MEMORY_MEMFD, which is the
/// default for a store whose config has `share`); objects elsewhere are copied there for them. It can be undone by mmc_uninit only, which
/// disconnects them.
///
/// Returns MMC_OK; MMC_ERR_INVALID_PARAM for an address that is none; MMC_ERR_BUSY when the store is shared already, or another one there;
/// MMC_ERR_IO when the socket can't be made; MMC_ERR_OUT_OF_MEMORY without a thread; MMC_ERR_UNSUPPORTED for an attached store. Never
/// blocks; any thread. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmc_share(store: *mut mmc_store, address: *const c_char) -> i32 {
    guard("mmc_share", || {
        let entered = handle::enter(store.cast())?;
        // SAFETY: the caller gives null or a C string.
        entered.share(&unsafe { address_from(address)? })
    })
}

/// Attaches to the pool that another process of the host shares, as a store of this process.
///
/// `address`: as of mmc_share. `options`: borrowed; null for a process that brings no memory. `store`: where the handle goes on success, to
/// be closed with mmc_uninit.
///
/// Every function of this header works on it with the same meaning and codes: keys, objects, pins, leases and pool addresses are the pool's.
/// Bytes are copied by this process itself, in memory that it maps. What differs:
///
/// - MMC_ERR_DISCONNECTED, from any function: the owner has closed the pool, has gone, or did not answer in time. What is mapped stays so until
///   mmc_uninit; tokens are void. Attach anew for a new owner.
/// - mmc_register_segment brings DRAM that the owner maps, always as a memfd, and MMC_ERR_UNSUPPORTED for anything else; mmc_unregister_segment
///   takes away what this process has brought. mmc_reserve in HBM or SSD, mmc_batch_copy into memory that this process can't map, mmc_share and
///   mmc_set_event_callback: MMC_ERR_UNSUPPORTED. `stream` is given to nobody.
/// - What this process reads is pinned for it, until just after its call: a put that needs that memory does not wait for its copy, but returns
///   MMC_ERR_NO_SPACE, and mmc_unregister_segment MMC_ERR_BUSY. A put that does not end within MMC_DEFAULT_TERM_MS returns MMC_ERR_TIMEOUT. An object that lies only where this process can't map it is copied for it
///   into shared DRAM, and MMC_ERR_NO_SPACE if there is no room.
/// - A call waits for the owner: no call "never blocks", but for as long as it looks something up there. Replies of batches take longer than 100 microseconds
///   when the owner's processors are busy.
///
/// What this process holds (pins, reservations, leases) goes back with mmc_uninit, or when the process ends, however it ends. The memory that
/// it has brought is withdrawn by mmc_uninit; if the process just ends, it waits for one that brings as much and takes it over, with what
/// is in it, for the owner's share_wait_ms.
///
/// Returns MMC_OK; MMC_ERR_DISCONNECTED when no process shares a pool there, after `wait_ms` of waiting for one; MMC_ERR_UNSUPPORTED when the owner
/// refuses this process, with its reason (the process's user, another version); MMC_ERR_INVALID_PARAM; MMC_ERR_IO; MMC_ERR_OUT_OF_MEMORY when memory can't be
/// mapped; MMC_ERR_NO_SPACE when 1024 stores are open. Blocks for the owner's answer and while memory is mapped. Any thread. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmc_attach(
    address: *const c_char,
    options: *const mmc_attach_options,
    store: *mut *mut mmc_store,
) -> i32 {
    guard("mmc_attach", || {
        require_out("store", store)?;
        // SAFETY: the caller gives null or a C string, and null or its struct.
        let (address, attaching) = unsafe { (address_from(address)?, attaching_of(read(options)?)?) };
        let attached = Attached::open(&address, &attaching)?;
        let handle = handle::open(Instance::new(Pool::Attached(Box::new(attached)), None, None))?;
        // SAFETY: not null, and the caller's to write.
        unsafe { put_out(store, handle.cast()) };
        Ok(())
    })
}

/// Tells this process's rank in a pool: that of its memory, to which what it puts goes first, and from which it gets first.
///
/// `rank`: where it goes; MMC_NO_RANK for an attached process that brought no memory and named no rank. Returns MMC_OK or MMC_ERR_INVALID_PARAM. Never
/// blocks; any thread. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmc_rank(store: *mut mmc_store, rank: *mut u32) -> i32 {
    guard("mmc_rank", || {
        let entered = handle::enter(store.cast())?;
        require_out("rank", rank)?;
        // SAFETY: not null, and the caller's to write.
        unsafe { put_out(rank, entered.pool().rank().unwrap_or(MMC_NO_RANK)) };
        Ok(())
    })
}

/// # Safety
/// `address` is null or a C string.
unsafe fn address_from(address: *const c_char) -> Result<String> {
    // SAFETY: promised by the caller.
    let text = unsafe { text_from("address", address)? };
    text.ok_or_else(|| invalid!("address is null"))
}

fn attaching_of(options: Option<mmc_attach_options>) -> Result<Attaching> {
    let rank = |options: &mmc_attach_options| match options.rank.checked_sub(1) {
        Some(rank) if rank >= MAX_RANKS => Err(invalid!("rank {rank}: must be below {MAX_RANKS}")),
        rank => Ok(rank),
    };
    let (mut attaching, log_level) = match &options {
        None => (Attaching::default(), 0),
        Some(options) => (
            Attaching {
                rank: rank(options)?,
                dram_size: options.dram_size,
                wishes: Wishes {
                    kind: Kind::Memfd,
                    huge_pages: switch_from("huge_pages", options.huge_pages)?.unwrap_or(true),
                    prefault: switch_from("prefault", options.prefault)?.unwrap_or(false),
                    numa_node: options.numa_node.checked_sub(1),
                },
                wait: Duration::from_millis(options.wait_ms),
                time_out: Duration::from_millis(options.call_timeout_ms),
            },
            options.log_level,
        ),
    };
    if attaching.time_out.is_zero() {
        attaching.time_out = Attaching::default().time_out;
    }
    if log_level != 0 {
        log::set_level(Level::from_number(log_level).ok_or_else(|| invalid!("log_level {log_level}: must be 1 to 6"))?);
    }
    Ok(attaching)
}
