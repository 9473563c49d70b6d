//! Constants and structs of the C ABI.
//!
//! Every struct that a caller fills starts with `struct_size` and only ever grows at its end: a smaller one gets defaults for what it lacks,
//! a larger one must end in zeros. Zero, or null, means "not set" in every field. Sizes and offsets are pinned below.

#![allow(non_camel_case_types)] // the names are C's

use std::ffi::{c_char, c_void};

pub use crate::error::{
    MMC_ERR_BUSY, MMC_ERR_CLIENT_NOT_INITIALIZED, MMC_ERR_DISCONNECTED, MMC_ERR_EXISTS, MMC_ERR_FAILED, MMC_ERR_FORKED,
    MMC_ERR_INTERNAL, MMC_ERR_INVALID_PARAM, MMC_ERR_IO, MMC_ERR_LEASE_NOT_EXPIRED, MMC_ERR_META_BACKUP,
    MMC_ERR_NO_LEASE, MMC_ERR_NO_LOCAL_SERVICE, MMC_ERR_NO_META_SERVICE, MMC_ERR_NO_SPACE, MMC_ERR_NOT_FOUND,
    MMC_ERR_NOT_INITIALIZED, MMC_ERR_NOT_STARTED, MMC_ERR_OBJECT, MMC_ERR_OUT_OF_MEMORY, MMC_ERR_OVER_CAPACITY,
    MMC_ERR_REPEATED, MMC_ERR_SIZE_MISMATCH, MMC_ERR_STATE, MMC_ERR_TIMEOUT, MMC_ERR_UNMATCHED_KEY,
    MMC_ERR_UNMATCHED_RETURN, MMC_ERR_UNSUPPORTED, MMC_OK,
};

/// The version of this interface. It grows when something is added; a library serves every header of its own or a lower one.
pub const MMC_ABI_VERSION: u32 = 1;

/// The medium of device memory.
pub const MMC_MEDIUM_HBM: u32 = 1;
/// The medium of host memory.
pub const MMC_MEDIUM_DRAM: u32 = 2;
/// The medium of disk files.
pub const MMC_MEDIUM_SSD: u32 = 3;

/// A look-up that does not count as a use of the object.
pub const MMC_PEEK: u32 = 1;
/// A get copies what its buffers hold when the object is larger, and the whole object when it is smaller.
pub const MMC_GET_UP_TO: u32 = 2;
/// A query shows objects that are being written, too.
pub const MMC_QUERY_RESERVED: u32 = 4;

/// In `mmc_config.dram_size`: no DRAM segment at first.
pub const MMC_NO_DRAM: u64 = u64::MAX;
/// The rank of a process that brings no memory.
pub const MMC_NO_RANK: u32 = u32::MAX;
/// In a config: off.
pub const MMC_OFF: u32 = 1;
/// In a config: on.
pub const MMC_ON: u32 = 2;
/// In a config or a segment: private anonymous memory.
pub const MMC_MEMORY_PRIVATE: u32 = 1;
/// In a config or a segment: a sealed memfd, which another process can be given.
pub const MMC_MEMORY_MEMFD: u32 = 2;

/// In a config: what was not used for longest goes first, and of one batch the tail before the head.
pub const MMC_EVICTION_PREFIX: u32 = 1;
/// In a config: what is the least likely to be used again soon goes first, by what has become of others like it.
pub const MMC_EVICTION_ADAPTIVE: u32 = 2;

/// Say nothing.
pub const MMC_LOG_OFF: u32 = 1;
/// Say what failed.
pub const MMC_LOG_ERROR: u32 = 2;
/// And what was passed over or will fail later.
pub const MMC_LOG_WARN: u32 = 3;
/// And what is worth a line once: opened, listening, closed.
pub const MMC_LOG_INFO: u32 = 4;
/// And what happens now and then.
pub const MMC_LOG_DEBUG: u32 = 5;
/// And everything else.
pub const MMC_LOG_TRACE: u32 = 6;

/// A copy goes from the caller's buffers into the segment.
pub const MMC_COPY_TO_SEGMENT: u32 = 1;
/// A copy goes from the segment into the caller's buffers.
pub const MMC_COPY_FROM_SEGMENT: u32 = 2;

/// An event: a copy became readable.
pub const MMC_EVENT_STORED: u32 = 1;
/// An event: a copy is gone; it was removed, evicted, or its segment was unregistered.
pub const MMC_EVENT_REMOVED: u32 = 2;
/// An event: a copy went from one medium to another. Kept for a later version; this one sends none: a move is a stored copy on the one
/// medium and then a removed one on the other.
pub const MMC_EVENT_MOVED: u32 = 3;

/// What a mapped segment's pages are: 4096 bytes each.
pub const MMC_PAGES_SMALL: u32 = 1;
/// What a mapped segment's pages are: huge where the kernel can, as they are touched.
pub const MMC_PAGES_ADVISED: u32 = 2;
/// What a mapped segment's pages are: huge ones of the hugetlb pool, all of them.
pub const MMC_PAGES_HUGETLB: u32 = 3;
/// What a mapped segment's pages are: huge ones joined by the kernel, all of them.
pub const MMC_PAGES_COLLAPSED: u32 = 4;

/// The longest key in bytes.
pub const MMC_MAX_KEY_SIZE: u32 = 256;
/// The most keys in one batch.
pub const MMC_MAX_BATCH: u32 = 16384;
/// The most copies of one object.
pub const MMC_MAX_REPLICAS: u32 = 8;
/// The term of a lease that names none, in milliseconds.
pub const MMC_DEFAULT_LEASE_MS: u64 = 10_000;
/// The term of a reservation that names none, in milliseconds.
pub const MMC_DEFAULT_TERM_MS: u64 = 60_000;

/// A store. A handle is looked up, not followed: a call with one that was closed returns MMC_ERR_NOT_STARTED.
pub struct mmc_store {
    _private: (),
}

/// The name of an object: 1 to 256 bytes of UTF-8 without control characters. Borrowed for the call.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct mmc_key {
    /// First byte; no terminating zero is needed.
    pub data: *const c_void,
    /// Bytes.
    pub size: usize,
}

/// Tells the time in nanoseconds, from any beginning.
///
/// The ends of leases and of the terms of reservations, and the ages that eviction goes by, are told by it. A time before the latest that it
/// has told counts as that one. `user_data` is the config's. It is called by mmc_init, and inside of calls of the store by the thread whose
/// call it is: once in each put, get, commit and query, single or batch, and where the end of a lease or a reservation is set, counted or
/// waited for; not in mmc_exist and mmc_prefix_len. Of a shared store the calls of other processes are made by threads of the library. So for uses and for what the store does in the background time moves on with these
/// calls. Never after mmc_uninit has returned MMC_OK. It may be called by several threads at once, must return at once, and must not call
/// the library.
pub type mmc_clock_callback = Option<unsafe extern "C" fn(user_data: *mut c_void) -> u64>;

/// How a store is opened. Fill it with mmc_config_init, then set what you want. What is left unset comes from the environment
/// (MMC_CONFIG_PATH, MMC_HTTP_ADDRESS, MMC_LOG_LEVEL), then from the file, then from the default.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct mmc_config {
    /// sizeof(mmc_config).
    pub struct_size: u32,
    /// The caller's rank, 0 to 65535: its segment's, and the one that gets read from first. Default 0.
    pub rank: u32,
    /// Bytes of the first DRAM segment, a multiple of 4096, or MMC_NO_DRAM. Default 1 GiB, mapped as it is touched.
    pub dram_size: u64,
    /// Percent of a segment in use at which eviction in the background starts. 1 to 100. Default 90; 100 turns it off, and with it all
    /// moves between media that nobody has asked for.
    pub watermark_high: u32,
    /// Percent at which it stops. Default 80.
    pub watermark_low: u32,
    /// Where the admin port listens, "host:port"; port 0 asks for any free one, "" is off. Default off.
    pub http_address: *const c_char,
    /// If set, every path but /health asks for "Authorization: Bearer" and this. Default none.
    pub http_token: *const c_char,
    /// A file of `key = value` lines. Default none.
    pub config_path: *const c_char,
    /// MMC_LOG_*: the process's level from then on. Default: as it is.
    pub log_level: u32,
    /// MMC_ON or MMC_OFF: ask for huge pages. Default on.
    pub huge_pages: u32,
    /// MMC_ON or MMC_OFF: touch every page when the store is opened. Default off.
    pub prefault: u32,
    /// MMC_MEMORY_PRIVATE or MMC_MEMORY_MEMFD. Default private; with `share` it is memfd, the one that other processes can be given.
    pub memory: u32,
    /// 1 + the NUMA node to take memory from first. Default: no preference.
    pub numa_node: u32,
    /// Zero.
    pub reserved: u32,
    /// Whose time it is. Default: the system's monotonic clock.
    pub clock: mmc_clock_callback,
    /// Given to `clock`.
    pub clock_user_data: *mut c_void,
    /// The file of a first SSD segment, to which objects move when memory is short: it is made, or has the segment's size already.
    /// Default none.
    pub ssd_path: *const c_char,
    /// Bytes of that segment, a multiple of 4096. Set exactly when ssd_path is.
    pub ssd_size: u64,
    /// Bytes a second that are moved between media in the background, at most. Default: as fast as it goes.
    pub move_rate: u64,
    /// MMC_EVICTION_*: what goes first when there is no room. Default adaptive.
    pub eviction: u32,
    /// MMC_ON or MMC_OFF: what is got from memory is compared with what was put, as what comes from SSD always is. Costs a pass over
    /// the bytes of every put and every get. Default off.
    pub verify_dram: u32,
    /// A directory, made if need be, in which it is kept what is on SSD segments: one file for each, named after its file. A segment that is
    /// opened again, after mmc_uninit or however the process ended, then has what was on it. Default none: SSD segments begin empty.
    pub state_path: *const c_char,
    /// MMC_ON or MMC_OFF: a state that is of another version, size or store, or whose beginning is damaged, is replaced by an empty one.
    /// Default off: it is an error.
    pub state_wipe: u32,
    /// Zero.
    pub reserved_2: u32,
    /// Where other processes attach, "unix:/path/of/socket": an absolute path of at most 107 bytes; "" is nowhere. Default nowhere.
    pub share: *const c_char,
    /// Numbers of users whose processes may attach, "1000,1001" say, at most 64. Default: the owner's own user only, who always may.
    pub share_users: *const c_char,
    /// Numbers of groups whose processes may attach, at most 64. Default none.
    pub share_groups: *const c_char,
    /// Milliseconds that a segment which an attached process has brought waits, when that process has died, for one that comes in its
    /// place: 1 to 86400000. Default 60000.
    pub share_wait_ms: u64,
    /// Permission bits of the socket's file, 1 to 0777 octal. Default 0600.
    pub share_mode: u32,
    /// Zero.
    pub reserved_3: u32,
}

/// How a process attaches to a store that another one has shared. All zero: as a client that brings no memory.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct mmc_attach_options {
    /// sizeof(mmc_attach_options).
    pub struct_size: u32,
    /// 1 + the rank of the memory that it brings. Default: the smallest that nobody has.
    pub rank: u32,
    /// Bytes of DRAM that it brings to the pool, a multiple of 4096. The owner maps it, as a memfd; it serves all processes. Default: none.
    pub dram_size: u64,
    /// Milliseconds to wait for an owner when there is none at the address. Default: it looks once only.
    pub wait_ms: u64,
    /// Milliseconds after which a call to an owner that does not answer gives the connection up: MMC_ERR_DISCONNECTED. Default 60000.
    pub call_timeout_ms: u64,
    /// MMC_ON or MMC_OFF, for what it brings: ask for huge pages. Default on.
    pub huge_pages: u32,
    /// MMC_ON or MMC_OFF, for what it brings: touch every page now. Default off.
    pub prefault: u32,
    /// 1 + the NUMA node to take what it brings from first. Default: no preference.
    pub numa_node: u32,
    /// MMC_LOG_*: the process's level from then on. Default: as it is.
    pub log_level: u32,
}

/// One contiguous copy of a batch that a copy callback gets. Addresses are the host's: of its buffers, and in its segment counted
/// from the base that it registered.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct mmc_copy_operation {
    /// First byte to read.
    pub source: u64,
    /// First byte to write.
    pub destination: u64,
    /// Bytes.
    pub length: u64,
}

/// Copies `count` ranges between the caller's buffers and a segment, and returns when the bytes are there.
///
/// It gets everything that one call of the library moves in that direction for this segment, at once. `context` is the segment's,
/// `stream` the call's own from its options (null without). It may be called by several threads at once, and may call the library, but
/// not close the store; a put from there waits for nobody's copies, and where it would have to it returns MMC_ERR_NO_SPACE. Returns 0,
/// or a negative code, which the put or get that met it returns; a positive one becomes MMC_ERR_FAILED.
pub type mmc_copy_callback = Option<
    unsafe extern "C" fn(
        context: *mut c_void,
        operations: *const mmc_copy_operation,
        count: usize,
        direction: u32,
        stream: *mut c_void,
    ) -> i32,
>;

/// What a segment is to be.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct mmc_segment_options {
    /// sizeof(mmc_segment_options).
    pub struct_size: u32,
    /// MMC_MEDIUM_HBM, MMC_MEDIUM_DRAM or MMC_MEDIUM_SSD.
    pub medium: u32,
    /// 0 to 65535.
    pub rank: u32,
    /// MMC_ON or MMC_OFF, for memory that the library maps: ask for huge pages. Default on.
    pub huge_pages: u32,
    /// Bytes: a positive multiple of 4096.
    pub capacity: u64,
    /// The host's memory, or the device's own address of it; a multiple of 4096. Null: the library maps it (DRAM only). It must stay
    /// valid until mmc_unregister_segment or mmc_uninit has returned MMC_OK.
    pub base: *mut c_void,
    /// Who copies. Needed for HBM; for DRAM null means that the library copies by itself.
    pub copy: mmc_copy_callback,
    /// Given to `copy`.
    pub context: *mut c_void,
    /// MMC_ON or MMC_OFF, for memory that the library maps: touch every page now. Default off.
    pub prefault: u32,
    /// MMC_MEMORY_PRIVATE or MMC_MEMORY_MEMFD, for memory that the library maps. Default private.
    pub memory: u32,
    /// 1 + the NUMA node to take memory from first, for memory that the library maps. Default: no preference.
    pub numa_node: u32,
    /// Zero.
    pub reserved: u32,
    /// The file of an SSD segment: a regular file, which is made, or has `capacity` bytes already. It is the segment's alone.
    pub path: *const c_char,
}

/// A segment as it is now.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct mmc_segment_info {
    /// sizeof(mmc_segment_info), set by the caller in the first element of its array.
    pub struct_size: u32,
    /// MMC_MEDIUM_*.
    pub medium: u32,
    /// Rank.
    pub rank: u32,
    /// MMC_PAGES_* for memory that the library mapped, 0 for the host's.
    pub pages: u32,
    /// Pool address of its first byte, which names it.
    pub address: u64,
    /// Bytes.
    pub capacity: u64,
    /// Bytes in use, every object rounded up to 4096.
    pub allocated: u64,
    /// MMC_MEMORY_* for memory that the library mapped, 0 for the host's.
    pub memory: u32,
    /// Zero.
    pub reserved: u32,
}

/// Where and how an object is put.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct mmc_put_options {
    /// sizeof(mmc_put_options).
    pub struct_size: u32,
    /// Copies, 1 to 8, each on another rank: all of them or none. Default 1.
    pub replicas: u32,
    /// Ranks to try first, in this order; at most `replicas`, none twice. Others fill up.
    pub preferred_ranks: *const u32,
    /// How many.
    pub preferred_count: usize,
    /// MMC_MEDIUM_*. Default: the first of DRAM, HBM and SSD of which a segment is registered.
    pub medium: u32,
    /// Zero.
    pub reserved: u32,
    /// Given to copy callbacks.
    pub stream: *mut c_void,
    /// For mmc_reserve: milliseconds after which the key is free again. Default MMC_DEFAULT_TERM_MS.
    pub term_ms: u64,
}

/// How an object is got.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct mmc_get_options {
    /// sizeof(mmc_get_options).
    pub struct_size: u32,
    /// Zero.
    pub reserved: u32,
    /// Given to copy callbacks.
    pub stream: *mut c_void,
}

/// One copy of an object.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct mmc_blob_info {
    /// MMC_MEDIUM_*.
    pub medium: u32,
    /// Rank.
    pub rank: u32,
    /// Pool address of its first byte.
    pub address: u64,
    /// Where this process has it, null for a device's memory and for SSD. The bytes may be others' the next moment: read them under a pin or a lease.
    pub data: *const c_void,
}

/// An object as it is now.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct mmc_object_info {
    /// sizeof(mmc_object_info), set by the caller in the first element of its array.
    pub struct_size: u32,
    /// 1 when it can be read, 0 while it is being written.
    pub readable: u32,
    /// Bytes, as it was put.
    pub size: u64,
    /// Copies in `blobs`.
    pub blob_count: u32,
    /// Leases on it that are not over.
    pub lease_count: u32,
    /// Its copies in placement order.
    pub blobs: [mmc_blob_info; MMC_MAX_REPLICAS as usize],
}

/// Memory that a token stands for.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct mmc_view {
    /// sizeof(mmc_view), set by the caller in the first element of its array.
    pub struct_size: u32,
    /// Zero.
    pub reserved: u32,
    /// What mmc_commit, mmc_abort or mmc_unpin take. Never 0, never given twice.
    pub token: u64,
    /// Pool address of the first byte.
    pub address: u64,
    /// Where this process has it; null for a device's memory and for SSD.
    pub data: *mut c_void,
    /// Bytes of the object.
    pub size: u64,
}

/// Something that happened to a key. Borrowed for the callback.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct mmc_event {
    /// sizeof(mmc_event) of the library: the distance to the next one.
    pub struct_size: u32,
    /// MMC_EVENT_*.
    pub kind: u32,
    /// MMC_MEDIUM_* of the copy.
    pub medium: u32,
    /// Rank of the copy.
    pub rank: u32,
    /// The key.
    pub key: mmc_key,
}

/// Takes events in the order in which they happened, on a thread of the library, with no lock held. When the queue was full, a call with
/// `count` 0 follows all that came before: `dropped` is how many were lost since then, so list the keys again. Else `dropped` is 0. It
/// may call the library, but not close the store nor set the event callback.
pub type mmc_event_callback =
    Option<unsafe extern "C" fn(context: *mut c_void, events: *const mmc_event, count: usize, dropped: u64)>;

/// Takes a page of keys, borrowed for the callback. Returns 0 to go on, anything else to stop.
pub type mmc_keys_callback =
    Option<unsafe extern "C" fn(context: *mut c_void, keys: *const mmc_key, count: usize) -> i32>;

/// Takes one line of the log, without its line break, borrowed for the call. Any thread may call it, several at once; what it does in the
/// library itself is not logged. It must not block for long.
pub type mmc_log_callback = Option<unsafe extern "C" fn(context: *mut c_void, level: u32, line: *const c_char)>;

/// The store's counters since it was opened, and its levels now.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct mmc_statistics {
    /// sizeof(mmc_statistics), set by the caller.
    pub struct_size: u32,
    /// Segments that are registered.
    pub segment_count: u32,
    /// Objects that can be read.
    pub stored_keys: u64,
    /// Bytes of all segments.
    pub capacity: u64,
    /// Bytes in use, every object rounded up to 4096.
    pub allocated: u64,
    /// Bytes of the library's own tables: index, objects, holds.
    pub metadata: u64,
    /// Objects for which space was asked, failures included.
    pub alloc_operations: u64,
    /// Objects asked for by get, misses included.
    pub get_operations: u64,
    /// Gets that found their object.
    pub get_hits: u64,
    /// Gets that did not.
    pub get_misses: u64,
    /// Keys found by exist.
    pub exist_hits: u64,
    /// Keys not found by exist.
    pub exist_misses: u64,
    /// Objects asked to be removed.
    pub remove_operations: u64,
    /// Objects dropped by eviction.
    pub evict_operations: u64,
    /// Bytes of the objects dropped by eviction.
    pub evicted_bytes: u64,
    /// Bytes put.
    pub put_bytes: u64,
    /// Bytes got.
    pub get_bytes: u64,
    /// Pins that are open.
    pub pins: u64,
    /// Reservations that are open.
    pub reservations: u64,
    /// Leases that have not ended.
    pub leases: u64,
    /// Events that the event callback's queue had no room for.
    pub events_dropped: u64,
    /// Gets that found their object in HBM.
    pub get_hits_hbm: u64,
    /// Gets that found their object on SSD.
    pub get_hits_ssd: u64,
    /// Copies that left a medium for a slower one.
    pub demotions: u64,
    /// Copies made on a faster medium.
    pub promotions: u64,
    /// Bytes of the objects that were copied from one medium to another.
    pub moved_bytes: u64,
    /// Moves that failed, and left the object where it was.
    pub move_failures: u64,
    /// Copies dropped because their bytes were no longer those that were put.
    pub rotten_objects: u64,
    /// Objects dropped because the slower medium below them was too slow, full or failing.
    pub spill_drops: u64,
    /// Processes that are attached.
    pub attached: u64,
}

const _: () = {
    use std::mem::{offset_of, size_of};
    assert!(size_of::<mmc_key>() == 16);
    assert!(size_of::<mmc_config>() == 176 && offset_of!(mmc_config, dram_size) == 8);
    assert!(offset_of!(mmc_config, clock) == 72 && offset_of!(mmc_config, clock_user_data) == 80);
    assert!(offset_of!(mmc_config, ssd_path) == 88 && offset_of!(mmc_config, eviction) == 112);
    assert!(offset_of!(mmc_config, state_path) == 120 && offset_of!(mmc_config, state_wipe) == 128);
    assert!(offset_of!(mmc_config, share) == 136 && offset_of!(mmc_config, share_groups) == 152);
    assert!(offset_of!(mmc_config, share_wait_ms) == 160 && offset_of!(mmc_config, share_mode) == 168);
    assert!(offset_of!(mmc_config, http_address) == 24 && offset_of!(mmc_config, log_level) == 48);
    assert!(size_of::<mmc_attach_options>() == 48 && offset_of!(mmc_attach_options, dram_size) == 8);
    assert!(offset_of!(mmc_attach_options, call_timeout_ms) == 24 && offset_of!(mmc_attach_options, log_level) == 44);
    assert!(size_of::<mmc_copy_operation>() == 24);
    assert!(size_of::<mmc_copy_operation>() == size_of::<crate::segment::device::CopyOperation>());
    assert!(size_of::<mmc_segment_options>() == 72 && offset_of!(mmc_segment_options, base) == 24);
    assert!(size_of::<mmc_segment_info>() == 48 && offset_of!(mmc_segment_info, address) == 16);
    assert!(size_of::<mmc_put_options>() == 48 && offset_of!(mmc_put_options, stream) == 32);
    assert!(size_of::<mmc_get_options>() == 16);
    assert!(size_of::<mmc_blob_info>() == 24);
    assert!(size_of::<mmc_object_info>() == 24 + 8 * 24 && offset_of!(mmc_object_info, blobs) == 24);
    assert!(size_of::<mmc_view>() == 40 && offset_of!(mmc_view, token) == 8);
    assert!(size_of::<mmc_event>() == 32);
    assert!(size_of::<mmc_statistics>() == 232 && offset_of!(mmc_statistics, stored_keys) == 8);
    assert!(offset_of!(mmc_statistics, attached) == 224);
    assert!(MMC_MAX_BATCH as usize == crate::evict::MAX_BATCH);
    assert!(MMC_MAX_KEY_SIZE as usize == crate::key::MAX_KEY_BYTES);
    assert!(MMC_MAX_REPLICAS as usize == crate::object::MAX_COPIES);
    assert!(MMC_DEFAULT_LEASE_MS == crate::store::inplace::DEFAULT_LEASE);
    assert!(MMC_DEFAULT_TERM_MS == crate::store::inplace::DEFAULT_TERM);
    assert!(MMC_PEEK == crate::store::PEEK && MMC_GET_UP_TO == crate::store::GET_UP_TO);
    assert!(MMC_QUERY_RESERVED == crate::store::QUERY_RESERVED);
};
