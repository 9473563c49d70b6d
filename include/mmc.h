// mmc: an in-process cache for the KV blocks of large language models.
//
// Copyright the mmc authors. Apache-2.0.
//
// One library, one store (or several) inside the engine's process. A store has segments: ranges of device memory (HBM) that the host
// registers with a copy callback, and of host memory (DRAM). An object is a key with some bytes in one segment or, with
// replicas, in several. Your first program:
//
//     mmc_store *store;
//     mmc_key key = {"block-1", 7};
//     char block[4096] = "...", back[4096];
//     if (mmc_init(NULL, &store) != MMC_OK) { fprintf(stderr, "%s\n", mmc_last_error()); return 1; }
//     mmc_put(store, key, block, sizeof block, NULL);
//     mmc_get(store, key, back, sizeof back, 0, NULL, NULL);
//     mmc_uninit(store);
//
// What holds for every function:
//
// - One that can fail returns MMC_OK or a negative MMC_ERR_*; mmc_last_error() then has this thread's sentence about it. Results go
//   through pointers and are written on success only, unless it says otherwise.
// - MMC_ERR_INVALID_PARAM: an argument is wrong, by name. MMC_ERR_NOT_STARTED: the handle is null, was never given, or was closed.
//   MMC_ERR_FORKED: the store is the parent's; a child may open one of its own. MMC_ERR_INTERNAL: a defect of the library that it has
//   caught; the call did not complete. These four can come from any function and are not repeated below.
// - Any thread may call it, unless it says otherwise. No lock of the library is held while a callback of the host runs.
// - Keys, buffers, options and strings are borrowed for the call.
// - A pool address is the store's own number for a byte: one space a store, never reused while it lives, below 2^63. It is not where
//   any process has the memory; where the caller has it mapped, a pointer stands beside it.
// - Without memory for the library's own tables a call returns MMC_ERR_OUT_OF_MEMORY, and the store goes on. A few small allocations
//   can't be refused, and without memory for them the process ends: in opening and closing a store (under 1 MiB together), in registering
//   and unregistering a segment and setting a callback, in a thread's first call, in a line of the log, in what the admin port does, and in what
//   goes between a pool's owner and attached processes (a few MiB for the largest batch).
// - Structs begin with struct_size = sizeof of what you compiled against. Unset is zero.
//
// This file is generated; its source is src/ffi.


#ifndef MMC_H
#define MMC_H



#include <stddef.h>
#include <stdint.h>

// Success.
#define MMC_OK 0

// A failure that no other code describes.
#define MMC_ERR_FAILED -1

// An argument is wrong.
#define MMC_ERR_INVALID_PARAM -3000

// No room for the object: no run of its rounded size is free of pinned, leased and reserved memory.
#define MMC_ERR_NO_SPACE -3001

// The store was never opened, or has been closed.
#define MMC_ERR_NOT_STARTED -3003

// The term of the reservation has passed.
#define MMC_ERR_TIMEOUT -3004

// The key is taken.
#define MMC_ERR_EXISTS -3006

// No readable object has this key, or no such token, segment or address.
#define MMC_ERR_NOT_FOUND -3007

// The caller's size is not the object's.
#define MMC_ERR_SIZE_MISMATCH -3012

// No memory for the library's own tables.
#define MMC_ERR_OUT_OF_MEMORY -3016

// The object is not in the state that the call needs.
#define MMC_ERR_STATE -3101

// No lease is held on the object.
#define MMC_ERR_NO_LEASE -3106

// Of the `memcache_hybrid` numbers, object creation failed; the library itself does not return it.
#define MMC_ERR_OBJECT -3002

// Of the `memcache_hybrid` numbers, repeated call; the library itself does not return it.
#define MMC_ERR_REPEATED -3005

// Of the `memcache_hybrid` numbers, not initialised; the library itself does not return it.
#define MMC_ERR_NOT_INITIALIZED -3008

// Of the `memcache_hybrid` numbers, over capacity; the library itself does not return it.
#define MMC_ERR_OVER_CAPACITY -3013

// Of the `memcache_hybrid` numbers, no metadata service; the library itself does not return it.
#define MMC_ERR_NO_META_SERVICE -3017

// Of the `memcache_hybrid` numbers, no local service; the library itself does not return it.
#define MMC_ERR_NO_LOCAL_SERVICE -3018

// Of the `memcache_hybrid` numbers, client not initialised; the library itself does not return it.
#define MMC_ERR_CLIENT_NOT_INITIALIZED -3019

// Of the `memcache_hybrid` numbers, unmatched key; the library itself does not return it.
#define MMC_ERR_UNMATCHED_KEY -3102

// Of the `memcache_hybrid` numbers, unmatched return; the library itself does not return it.
#define MMC_ERR_UNMATCHED_RETURN -3103

// Of the `memcache_hybrid` numbers, lease not expired; the library itself does not return it.
#define MMC_ERR_LEASE_NOT_EXPIRED -3104

// Of the `memcache_hybrid` numbers, metadata backup; the library itself does not return it.
#define MMC_ERR_META_BACKUP -3105

// The store belongs to the parent of this process.
#define MMC_ERR_FORKED -4001

// Something is still in use; nothing has changed.
#define MMC_ERR_BUSY -4002

// Not available here, or not yet.
#define MMC_ERR_UNSUPPORTED -4003

// The process that owns the pool has gone, or its connection broke. Only stores of another process return it.
#define MMC_ERR_DISCONNECTED -4004

// An operating system call failed.
#define MMC_ERR_IO -4005

// A defect of the library, caught before it reached the host.
#define MMC_ERR_INTERNAL -4006

// The version of this interface. It grows when something is added; a library serves every header of its own or a lower one.
#define MMC_ABI_VERSION 1

// The medium of device memory.
#define MMC_MEDIUM_HBM 1

// The medium of host memory.
#define MMC_MEDIUM_DRAM 2

// The medium of disk files.
#define MMC_MEDIUM_SSD 3

// A look-up that does not count as a use of the object.
#define MMC_PEEK 1

// A get copies what its buffers hold when the object is larger, and the whole object when it is smaller.
#define MMC_GET_UP_TO 2

// A query shows objects that are being written, too.
#define MMC_QUERY_RESERVED 4

// In `mmc_config.dram_size`: no DRAM segment at first.
#define MMC_NO_DRAM UINT64_MAX

// The rank of a process that brings no memory.
#define MMC_NO_RANK UINT32_MAX

// In a config: off.
#define MMC_OFF 1

// In a config: on.
#define MMC_ON 2

// In a config or a segment: private anonymous memory.
#define MMC_MEMORY_PRIVATE 1

// In a config or a segment: a sealed memfd, which another process can be given.
#define MMC_MEMORY_MEMFD 2

// In a config: what was not used for longest goes first, and of one batch the tail before the head.
#define MMC_EVICTION_PREFIX 1

// In a config: what is the least likely to be used again soon goes first, by what has become of others like it.
#define MMC_EVICTION_ADAPTIVE 2

// Say nothing.
#define MMC_LOG_OFF 1

// Say what failed.
#define MMC_LOG_ERROR 2

// And what was passed over or will fail later.
#define MMC_LOG_WARN 3

// And what is worth a line once: opened, listening, closed.
#define MMC_LOG_INFO 4

// And what happens now and then.
#define MMC_LOG_DEBUG 5

// And everything else.
#define MMC_LOG_TRACE 6

// A copy goes from the caller's buffers into the segment.
#define MMC_COPY_TO_SEGMENT 1

// A copy goes from the segment into the caller's buffers.
#define MMC_COPY_FROM_SEGMENT 2

// An event: a copy became readable.
#define MMC_EVENT_STORED 1

// An event: a copy is gone; it was removed, evicted, or its segment was unregistered.
#define MMC_EVENT_REMOVED 2

// An event: a copy went from one medium to another. Kept for a later version; this one sends none: a move is a stored copy on the one
// medium and then a removed one on the other.
#define MMC_EVENT_MOVED 3

// What a mapped segment's pages are: 4096 bytes each.
#define MMC_PAGES_SMALL 1

// What a mapped segment's pages are: huge where the kernel can, as they are touched.
#define MMC_PAGES_ADVISED 2

// What a mapped segment's pages are: huge ones of the hugetlb pool, all of them.
#define MMC_PAGES_HUGETLB 3

// What a mapped segment's pages are: huge ones joined by the kernel, all of them.
#define MMC_PAGES_COLLAPSED 4

// The longest key in bytes.
#define MMC_MAX_KEY_SIZE 256

// The most keys in one batch.
#define MMC_MAX_BATCH 16384

// The most copies of one object.
#define MMC_MAX_REPLICAS 8

// The term of a lease that names none, in milliseconds.
#define MMC_DEFAULT_LEASE_MS 10000

// The term of a reservation that names none, in milliseconds.
#define MMC_DEFAULT_TERM_MS 60000

// A store. A handle is looked up, not followed: a call with one that was closed returns MMC_ERR_NOT_STARTED.
typedef struct mmc_store mmc_store;

// Tells the time in nanoseconds, from any beginning.
//
// The ends of leases and of the terms of reservations, and the ages that eviction goes by, are told by it. A time before the latest that it
// has told counts as that one. `user_data` is the config's. It is called by mmc_init, and inside of calls of the store by the thread whose
// call it is: once in each put, get, commit and query, single or batch, and where the end of a lease or a reservation is set, counted or
// waited for; not in mmc_exist and mmc_prefix_len. Of a shared store the calls of other processes are made by threads of the library. So for uses and for what the store does in the background time moves on with these
// calls. Never after mmc_uninit has returned MMC_OK. It may be called by several threads at once, must return at once, and must not call
// the library.
typedef uint64_t (*mmc_clock_callback)(void *user_data);

// How a store is opened. Fill it with mmc_config_init, then set what you want. What is left unset comes from the environment
// (MMC_CONFIG_PATH, MMC_HTTP_ADDRESS, MMC_LOG_LEVEL), then from the file, then from the default.
typedef struct mmc_config {
    // sizeof(mmc_config).
    uint32_t struct_size;
    // The caller's rank, 0 to 65535: its segment's, and the one that gets read from first. Default 0.
    uint32_t rank;
    // Bytes of the first DRAM segment, a multiple of 4096, or MMC_NO_DRAM. Default 1 GiB, mapped as it is touched.
    uint64_t dram_size;
    // Percent of a segment in use at which eviction in the background starts. 1 to 100. Default 90; 100 turns it off, and with it all
    // moves between media that nobody has asked for.
    uint32_t watermark_high;
    // Percent at which it stops. Default 80.
    uint32_t watermark_low;
    // Where the admin port listens, "host:port"; port 0 asks for any free one, "" is off. Default off.
    const char *http_address;
    // If set, every path but /health asks for "Authorization: Bearer" and this. Default none.
    const char *http_token;
    // A file of `key = value` lines. Default none.
    const char *config_path;
    // MMC_LOG_*: the process's level from then on. Default: as it is.
    uint32_t log_level;
    // MMC_ON or MMC_OFF: ask for huge pages. Default on.
    uint32_t huge_pages;
    // MMC_ON or MMC_OFF: touch every page when the store is opened. Default off.
    uint32_t prefault;
    // MMC_MEMORY_PRIVATE or MMC_MEMORY_MEMFD. Default private; with `share` it is memfd, the one that other processes can be given.
    uint32_t memory;
    // 1 + the NUMA node to take memory from first. Default: no preference.
    uint32_t numa_node;
    // Zero.
    uint32_t reserved;
    // Whose time it is. Default: the system's monotonic clock.
    mmc_clock_callback clock;
    // Given to `clock`.
    void *clock_user_data;
    // The file of a first SSD segment, to which objects move when memory is short: it is made, or has the segment's size already.
    // Default none.
    const char *ssd_path;
    // Bytes of that segment, a multiple of 4096. Set exactly when ssd_path is.
    uint64_t ssd_size;
    // Bytes a second that are moved between media in the background, at most. Default: as fast as it goes.
    uint64_t move_rate;
    // MMC_EVICTION_*: what goes first when there is no room. Default adaptive.
    uint32_t eviction;
    // MMC_ON or MMC_OFF: what is got from memory is compared with what was put, as what comes from SSD always is. Costs a pass over
    // the bytes of every put and every get. Default off.
    uint32_t verify_dram;
    // A directory, made if need be, in which it is kept what is on SSD segments: one file for each, named after its file. A segment that is
    // opened again, after mmc_uninit or however the process ended, then has what was on it. Default none: SSD segments begin empty.
    const char *state_path;
    // MMC_ON or MMC_OFF: a state that is of another version, size or store, or whose beginning is damaged, is replaced by an empty one.
    // Default off: it is an error.
    uint32_t state_wipe;
    // Zero.
    uint32_t reserved_2;
    // Where other processes attach, "unix:/path/of/socket": an absolute path of at most 107 bytes; "" is nowhere. Default nowhere.
    const char *share;
    // Numbers of users whose processes may attach, "1000,1001" say, at most 64. Default: the owner's own user only, who always may.
    const char *share_users;
    // Numbers of groups whose processes may attach, at most 64. Default none.
    const char *share_groups;
    // Milliseconds that a segment which an attached process has brought waits, when that process has died, for one that comes in its
    // place: 1 to 86400000. Default 60000.
    uint64_t share_wait_ms;
    // Permission bits of the socket's file, 1 to 0777 octal. Default 0600.
    uint32_t share_mode;
    // Zero.
    uint32_t reserved_3;
} mmc_config;

// One contiguous copy of a batch that a copy callback gets. Addresses are the host's: of its buffers, and in its segment counted
// from the base that it registered.
typedef struct mmc_copy_operation {
    // First byte to read.
    uint64_t source;
    // First byte to write.
    uint64_t destination;
    // Bytes.
    uint64_t length;
} mmc_copy_operation;

// Copies `count` ranges between the caller's buffers and a segment, and returns when the bytes are there.
//
// It gets everything that one call of the library moves in that direction for this segment, at once. `context` is the segment's,
// `stream` the call's own from its options (null without). It may be called by several threads at once, and may call the library, but
// not close the store; a put from there waits for nobody's copies, and where it would have to it returns MMC_ERR_NO_SPACE. Returns 0,
// or a negative code, which the put or get that met it returns; a positive one becomes MMC_ERR_FAILED.
typedef int32_t (*mmc_copy_callback)(void *context,
                                     const struct mmc_copy_operation *operations,
                                     size_t count,
                                     uint32_t direction,
                                     void *stream);

// What a segment is to be.
typedef struct mmc_segment_options {
    // sizeof(mmc_segment_options).
    uint32_t struct_size;
    // MMC_MEDIUM_HBM, MMC_MEDIUM_DRAM or MMC_MEDIUM_SSD.
    uint32_t medium;
    // 0 to 65535.
    uint32_t rank;
    // MMC_ON or MMC_OFF, for memory that the library maps: ask for huge pages. Default on.
    uint32_t huge_pages;
    // Bytes: a positive multiple of 4096.
    uint64_t capacity;
    // The host's memory, or the device's own address of it; a multiple of 4096. Null: the library maps it (DRAM only). It must stay
    // valid until mmc_unregister_segment or mmc_uninit has returned MMC_OK.
    void *base;
    // Who copies. Needed for HBM; for DRAM null means that the library copies by itself.
    mmc_copy_callback copy;
    // Given to `copy`.
    void *context;
    // MMC_ON or MMC_OFF, for memory that the library maps: touch every page now. Default off.
    uint32_t prefault;
    // MMC_MEMORY_PRIVATE or MMC_MEMORY_MEMFD, for memory that the library maps. Default private.
    uint32_t memory;
    // 1 + the NUMA node to take memory from first, for memory that the library maps. Default: no preference.
    uint32_t numa_node;
    // Zero.
    uint32_t reserved;
    // The file of an SSD segment: a regular file, which is made, or has `capacity` bytes already. It is the segment's alone.
    const char *path;
} mmc_segment_options;

// A segment as it is now.
typedef struct mmc_segment_info {
    // sizeof(mmc_segment_info), set by the caller in the first element of its array.
    uint32_t struct_size;
    // MMC_MEDIUM_*.
    uint32_t medium;
    // Rank.
    uint32_t rank;
    // MMC_PAGES_* for memory that the library mapped, 0 for the host's.
    uint32_t pages;
    // Pool address of its first byte, which names it.
    uint64_t address;
    // Bytes.
    uint64_t capacity;
    // Bytes in use, every object rounded up to 4096.
    uint64_t allocated;
    // MMC_MEMORY_* for memory that the library mapped, 0 for the host's.
    uint32_t memory;
    // Zero.
    uint32_t reserved;
} mmc_segment_info;

// How a process attaches to a store that another one has shared. All zero: as a client that brings no memory.
typedef struct mmc_attach_options {
    // sizeof(mmc_attach_options).
    uint32_t struct_size;
    // 1 + the rank of the memory that it brings. Default: the smallest that nobody has.
    uint32_t rank;
    // Bytes of DRAM that it brings to the pool, a multiple of 4096. The owner maps it, as a memfd; it serves all processes. Default: none.
    uint64_t dram_size;
    // Milliseconds to wait for an owner when there is none at the address. Default: it looks once only.
    uint64_t wait_ms;
    // Milliseconds after which a call to an owner that does not answer gives the connection up: MMC_ERR_DISCONNECTED. Default 60000.
    uint64_t call_timeout_ms;
    // MMC_ON or MMC_OFF, for what it brings: ask for huge pages. Default on.
    uint32_t huge_pages;
    // MMC_ON or MMC_OFF, for what it brings: touch every page now. Default off.
    uint32_t prefault;
    // 1 + the NUMA node to take what it brings from first. Default: no preference.
    uint32_t numa_node;
    // MMC_LOG_*: the process's level from then on. Default: as it is.
    uint32_t log_level;
} mmc_attach_options;

// The name of an object: 1 to 256 bytes of UTF-8 without control characters. Borrowed for the call.
typedef struct mmc_key {
    // First byte; no terminating zero is needed.
    const void *data;
    // Bytes.
    size_t size;
} mmc_key;

// Where and how an object is put.
typedef struct mmc_put_options {
    // sizeof(mmc_put_options).
    uint32_t struct_size;
    // Copies, 1 to 8, each on another rank: all of them or none. Default 1.
    uint32_t replicas;
    // Ranks to try first, in this order; at most `replicas`, none twice. Others fill up.
    const uint32_t *preferred_ranks;
    // How many.
    size_t preferred_count;
    // MMC_MEDIUM_*. Default: the first of DRAM, HBM and SSD of which a segment is registered.
    uint32_t medium;
    // Zero.
    uint32_t reserved;
    // Given to copy callbacks.
    void *stream;
    // For mmc_reserve: milliseconds after which the key is free again. Default MMC_DEFAULT_TERM_MS.
    uint64_t term_ms;
} mmc_put_options;

// How an object is got.
typedef struct mmc_get_options {
    // sizeof(mmc_get_options).
    uint32_t struct_size;
    // Zero.
    uint32_t reserved;
    // Given to copy callbacks.
    void *stream;
} mmc_get_options;

// One copy of an object.
typedef struct mmc_blob_info {
    // MMC_MEDIUM_*.
    uint32_t medium;
    // Rank.
    uint32_t rank;
    // Pool address of its first byte.
    uint64_t address;
    // Where this process has it, null for a device's memory and for SSD. The bytes may be others' the next moment: read them under a pin or a lease.
    const void *data;
} mmc_blob_info;

// An object as it is now.
typedef struct mmc_object_info {
    // sizeof(mmc_object_info), set by the caller in the first element of its array.
    uint32_t struct_size;
    // 1 when it can be read, 0 while it is being written.
    uint32_t readable;
    // Bytes, as it was put.
    uint64_t size;
    // Copies in `blobs`.
    uint32_t blob_count;
    // Leases on it that are not over.
    uint32_t lease_count;
    // Its copies in placement order.
    struct mmc_blob_info blobs[MMC_MAX_REPLICAS];
} mmc_object_info;

// Takes a page of keys, borrowed for the callback. Returns 0 to go on, anything else to stop.
typedef int32_t (*mmc_keys_callback)(void *context, const struct mmc_key *keys, size_t count);

// Memory that a token stands for.
typedef struct mmc_view {
    // sizeof(mmc_view), set by the caller in the first element of its array.
    uint32_t struct_size;
    // Zero.
    uint32_t reserved;
    // What mmc_commit, mmc_abort or mmc_unpin take. Never 0, never given twice.
    uint64_t token;
    // Pool address of the first byte.
    uint64_t address;
    // Where this process has it; null for a device's memory and for SSD.
    void *data;
    // Bytes of the object.
    uint64_t size;
} mmc_view;

// Takes one line of the log, without its line break, borrowed for the call. Any thread may call it, several at once; what it does in the
// library itself is not logged. It must not block for long.
typedef void (*mmc_log_callback)(void *context, uint32_t level, const char *line);

// The store's counters since it was opened, and its levels now.
typedef struct mmc_statistics {
    // sizeof(mmc_statistics), set by the caller.
    uint32_t struct_size;
    // Segments that are registered.
    uint32_t segment_count;
    // Objects that can be read.
    uint64_t stored_keys;
    // Bytes of all segments.
    uint64_t capacity;
    // Bytes in use, every object rounded up to 4096.
    uint64_t allocated;
    // Bytes of the library's own tables: index, objects, holds.
    uint64_t metadata;
    // Objects for which space was asked, failures included.
    uint64_t alloc_operations;
    // Objects asked for by get, misses included.
    uint64_t get_operations;
    // Gets that found their object.
    uint64_t get_hits;
    // Gets that did not.
    uint64_t get_misses;
    // Keys found by exist.
    uint64_t exist_hits;
    // Keys not found by exist.
    uint64_t exist_misses;
    // Objects asked to be removed.
    uint64_t remove_operations;
    // Objects dropped by eviction.
    uint64_t evict_operations;
    // Bytes of the objects dropped by eviction.
    uint64_t evicted_bytes;
    // Bytes put.
    uint64_t put_bytes;
    // Bytes got.
    uint64_t get_bytes;
    // Pins that are open.
    uint64_t pins;
    // Reservations that are open.
    uint64_t reservations;
    // Leases that have not ended.
    uint64_t leases;
    // Events that the event callback's queue had no room for.
    uint64_t events_dropped;
    // Gets that found their object in HBM.
    uint64_t get_hits_hbm;
    // Gets that found their object on SSD.
    uint64_t get_hits_ssd;
    // Copies that left a medium for a slower one.
    uint64_t demotions;
    // Copies made on a faster medium.
    uint64_t promotions;
    // Bytes of the objects that were copied from one medium to another.
    uint64_t moved_bytes;
    // Moves that failed, and left the object where it was.
    uint64_t move_failures;
    // Copies dropped because their bytes were no longer those that were put.
    uint64_t rotten_objects;
    // Objects dropped because the slower medium below them was too slow, full or failing.
    uint64_t spill_drops;
    // Processes that are attached.
    uint64_t attached;
} mmc_statistics;

// Something that happened to a key. Borrowed for the callback.
typedef struct mmc_event {
    // sizeof(mmc_event) of the library: the distance to the next one.
    uint32_t struct_size;
    // MMC_EVENT_*.
    uint32_t kind;
    // MMC_MEDIUM_* of the copy.
    uint32_t medium;
    // Rank of the copy.
    uint32_t rank;
    // The key.
    struct mmc_key key;
} mmc_event;

// Takes events in the order in which they happened, on a thread of the library, with no lock held. When the queue was full, a call with
// `count` 0 follows all that came before: `dropped` is how many were lost since then, so list the keys again. Else `dropped` is 0. It
// may call the library, but not close the store nor set the event callback.
typedef void (*mmc_event_callback)(void *context, const struct mmc_event *events, size_t count, uint64_t dropped);

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// The version of the library, "major.minor.patch". A static string. Since 0.1.
const char *mmc_version(void);

// The version of the interface that the library has: at least the MMC_ABI_VERSION of every header that it serves. Since 0.1.
uint32_t mmc_abi_version(void);

// Makes a config of the caller's one in which nothing is set: what mmc_config_init does.
//
// `config`: where to write; its old content does not matter. `size`: sizeof(mmc_config). Returns MMC_OK, or MMC_ERR_INVALID_PARAM for null
// or a size that is none. Never blocks; any thread. Since 0.1.
int32_t mmc_config_init_sized(struct mmc_config *config,
                              size_t size);

// Reads settings from a text in the form of a config file, `key = value` lines, into a config.
//
// `name`: what messages call the text, "mmc-local.conf" say; zero-terminated UTF-8. `text`: `size` bytes, at most 1 MiB. `config`: with its
// `struct_size` set. What is set in it stays, and what is unset is filled where the text sets it. `strings`: where the text's
// strings go (http_address, share and so on), each with its terminating zero; the config then points there, so they must stay as long as
// it is used. May be null when `capacity` is 0. `capacity`: bytes there. `needed`: where the bytes needed go; may be null.
//
// With this config mmc_init does what it would have done with the text as its file. So what the environment sets is left unset for it,
// and `config_path`, when unset, becomes "": no other file is read. What there is to say about the text (unknown keys, keys without
// meaning in one process, sizes that were rounded) is logged here, once, and if the caller, the environment or the text sets a level of
// the log, that is the process's from here on.
//
// Returns MMC_OK; MMC_ERR_INVALID_PARAM: a wrong line, as "name:line: key = value: reason", a wrong setting of the caller or the environment by
// its name, or `strings` is too small: then `needed` was written. On failure nothing else was, and nothing logged. Never blocks; any thread.
// Since 0.1.
int32_t mmc_config_parse(const char *name,
                         const char *text,
                         size_t size,
                         struct mmc_config *config,
                         char *strings,
                         size_t capacity,
                         size_t *needed);

// Opens a store.
//
// `config`: the settings, or null for the defaults: one DRAM segment of 1 GiB and rank 0, mapped as it is touched, watermarks 90 and 80, no
// admin port. Borrowed for the call. `store`: where the handle goes on success, to be closed with mmc_uninit.
//
// Returns MMC_OK; MMC_ERR_INVALID_PARAM for a setting that is wrong, wherever it comes from, by name, and for a state that is of another
// version, size or store; MMC_ERR_BUSY when another store has the state open, or a process shares its pool at the `share` of the config;
// MMC_ERR_IO when the file can't be read, the admin port's address is taken or the socket of `share` can't be made; MMC_ERR_OUT_OF_MEMORY
// when the segment can't be mapped or a thread not started; MMC_ERR_NO_SPACE when 1024 stores are open. On failure nothing is left open. Blocks while files are read and, with `prefault`,
// while memory is touched. Any thread; several stores may be open at once. Since 0.1.
//
// Example: `mmc_store *store; if (mmc_init(NULL, &store) != MMC_OK) puts(mmc_last_error());`
int32_t mmc_init(const struct mmc_config *config,
                 struct mmc_store **store);

// Closes a store. Null does nothing.
//
// `store`: the handle; it is void on success, and any later call with it returns MMC_ERR_NOT_STARTED.
//
// Waits for calls of other threads that are in the store, copies too, stops the admin port and the store's threads, and lets its memory go.
// With a state_path, what is only in memory is written to SSD first, what was used last first, as far as there is room as it is.
// When pins or reservations are open in memory that the library mapped, that memory stays, and mmc_unpin, mmc_commit (which then only
// gives up) and mmc_abort still take their tokens; the last one lets it go. No event callback runs after it has returned.
//
// Returns MMC_OK; MMC_ERR_BUSY, with the store still open, when a pin, lease or reservation is in memory of the host, or when called
// from a callback of the library; MMC_ERR_NOT_STARTED when it is closed already; MMC_ERR_FORKED in a child of the process that opened
// it. Any thread. Since 0.1.
int32_t mmc_uninit(struct mmc_store *store);

// Registers a segment.
//
// `options`: what it is to be; borrowed for the call. Memory of the host in it must stay valid, and be used by nobody else, until the
// segment is unregistered or the store closed. `address`: where the segment's pool address goes, which names it from then on; it is given
// once and never again while the store lives. May be null.
//
// Returns MMC_OK; MMC_ERR_INVALID_PARAM, with a message that says which, for an unknown medium, a rank over 65535, a capacity that is
// zero or no multiple of 4096, a base that is null, unaligned or overlaps another segment, HBM without a callback, SSD without a file
// or with one that is another segment's, no regular file, or of another size than 0 and the segment's; MMC_ERR_IO when the file can't be
// opened; MMC_ERR_OUT_OF_MEMORY when the memory can't be mapped; MMC_ERR_NO_SPACE when the file system has no room for the file, the store
// has had 1048576 segments or no pool addresses are left. Blocks while memory is touched, with `prefault`, and while a file gets its blocks. Any
// thread. Since 0.1.
int32_t mmc_register_segment(struct mmc_store *store,
                             const struct mmc_segment_options *options,
                             uint64_t *address);

// Unregisters the segment at the pool address `address`.
//
// Its copies are dropped, and objects with no other copy are gone; copies in flight are waited for; then the host may take its memory
// back, and the library's is unmapped.
//
// Returns MMC_OK; MMC_ERR_BUSY, with nothing changed, while a pin, lease or reservation is in it; MMC_ERR_NOT_FOUND when no segment is
// registered there. Blocks until calls that read or write in it are done; so it must not be called from a copy callback. Any other thread.
// Since 0.1.
int32_t mmc_unregister_segment(struct mmc_store *store,
                               uint64_t address);

// Lists the segments by medium, rank and address.
//
// `infos`: an array of `capacity` elements, the first with its `struct_size` set; may be null when `capacity` is 0. `count`: where the
// number of segments goes, which may be more than `capacity`: then that many were written and the rest left out.
//
// Returns MMC_OK or MMC_ERR_INVALID_PARAM. Never blocks; any thread. Since 0.1.
int32_t mmc_list_segments(struct mmc_store *store,
                          struct mmc_segment_info *infos,
                          size_t capacity,
                          size_t *count);

// Shares a store with other processes of the host, which attach with mmc_attach.
//
// `address`: "unix:" and the absolute path of a socket, of at most 107 bytes; zero-terminated. A file `path.lock` lies beside the socket while it
// is served. Who may attach, and the socket's mode, are the config's (share_mode, share_users, share_groups; by default the owner's own
// user). A socket whose owner has gone is taken over.
//
// What other processes put lies in DRAM segments that are memfds (config.memory, or `memory` of mmc_segment_options: MMC_MEMORY_MEMFD, which is the
// default for a store whose config has `share`); objects elsewhere are copied there for them. It can be undone by mmc_uninit only, which
// disconnects them.
//
// Returns MMC_OK; MMC_ERR_INVALID_PARAM for an address that is none; MMC_ERR_BUSY when the store is shared already, or another one there;
// MMC_ERR_IO when the socket can't be made; MMC_ERR_OUT_OF_MEMORY without a thread; MMC_ERR_UNSUPPORTED for an attached store. Never
// blocks; any thread. Since 0.1.
int32_t mmc_share(struct mmc_store *store,
                  const char *address);

// Attaches to the pool that another process of the host shares, as a store of this process.
//
// `address`: as of mmc_share. `options`: borrowed; null for a process that brings no memory. `store`: where the handle goes on success, to
// be closed with mmc_uninit.
//
// Every function of this header works on it with the same meaning and codes: keys, objects, pins, leases and pool addresses are the pool's.
// Bytes are copied by this process itself, in memory that it maps. What differs:
//
// - MMC_ERR_DISCONNECTED, from any function: the owner has closed the pool, has gone, or did not answer in time. What is mapped stays so until
//   mmc_uninit; tokens are void. Attach anew for a new owner.
// - mmc_register_segment brings DRAM that the owner maps, always as a memfd, and MMC_ERR_UNSUPPORTED for anything else; mmc_unregister_segment
//   takes away what this process has brought. mmc_reserve in HBM or SSD, mmc_batch_copy into memory that this process can't map, mmc_share and
//   mmc_set_event_callback: MMC_ERR_UNSUPPORTED. `stream` is given to nobody.
// - What this process reads is pinned for it, until just after its call: a put that needs that memory does not wait for its copy, but returns
//   MMC_ERR_NO_SPACE, and mmc_unregister_segment MMC_ERR_BUSY. A put that does not end within MMC_DEFAULT_TERM_MS returns MMC_ERR_TIMEOUT. An object that lies only where this process can't map it is copied for it
//   into shared DRAM, and MMC_ERR_NO_SPACE if there is no room.
// - A call waits for the owner: no call "never blocks", but for as long as it looks something up there. Replies of batches take longer than 100 microseconds
//   when the owner's processors are busy.
//
// What this process holds (pins, reservations, leases) goes back with mmc_uninit, or when the process ends, however it ends. The memory that
// it has brought is withdrawn by mmc_uninit; if the process just ends, it waits for one that brings as much and takes it over, with what
// is in it, for the owner's share_wait_ms.
//
// Returns MMC_OK; MMC_ERR_DISCONNECTED when no process shares a pool there, after `wait_ms` of waiting for one; MMC_ERR_UNSUPPORTED when the owner
// refuses this process, with its reason (the process's user, another version); MMC_ERR_INVALID_PARAM; MMC_ERR_IO; MMC_ERR_OUT_OF_MEMORY when memory can't be
// mapped; MMC_ERR_NO_SPACE when 1024 stores are open. Blocks for the owner's answer and while memory is mapped. Any thread. Since 0.1.
int32_t mmc_attach(const char *address,
                   const struct mmc_attach_options *options,
                   struct mmc_store **store);

// Tells this process's rank in a pool: that of its memory, to which what it puts goes first, and from which it gets first.
//
// `rank`: where it goes; MMC_NO_RANK for an attached process that brought no memory and named no rank. Returns MMC_OK or MMC_ERR_INVALID_PARAM. Never
// blocks; any thread. Since 0.1.
int32_t mmc_rank(struct mmc_store *store,
                 uint32_t *rank);

// Puts `size` bytes at `data` under `key`.
//
// `key`, `data`: borrowed for the call. `size`: bytes, at least 1. `options`: borrowed; null for one copy in the default medium.
//
// Returns MMC_OK: the object can be read. MMC_ERR_EXISTS: the key is taken, and what is there stays. MMC_ERR_NO_SPACE: no run of the
// size, rounded up to 4096, is free of pinned, leased and reserved objects. MMC_ERR_INVALID_PARAM: a null pointer, a size of 0, a key
// that is not 1 to 256 bytes of UTF-8 without control characters, a preferred rank without a segment, more replicas than ranks.
// MMC_ERR_OUT_OF_MEMORY: the library's own tables can't grow. A copy callback's own code. On failure nothing was stored. Blocks for the
// copy, for eviction where it must make room, and for copies under way, out of the very memory that it needs or into it. Any thread.
// Since 0.1.
int32_t mmc_put(struct mmc_store *store,
                struct mmc_key key,
                const void *data,
                size_t size,
                const struct mmc_put_options *options);

// Puts an object whose bytes lie in `count` buffers, in their order: the layers of a block, say.
//
// `data`, `sizes`: arrays of `count` elements, at least 1; no buffer null or of 0 bytes. Else as mmc_put. Since 0.1.
int32_t mmc_putv(struct mmc_store *store,
                 struct mmc_key key,
                 const void *const *data,
                 const size_t *sizes,
                 size_t count,
                 const struct mmc_put_options *options);

// Copies the object of `key` into `data`.
//
// `size`: bytes at `data`; exactly the object's, or with MMC_GET_UP_TO any number: the smaller of the two is copied. `flags`: MMC_PEEK,
// MMC_GET_UP_TO or 0. `options`: borrowed; may be null. `true_size`: where the object's size goes; may be null.
//
// Returns MMC_OK; MMC_ERR_NOT_FOUND: no readable object has this key; MMC_ERR_SIZE_MISMATCH: the object has another size;
// MMC_ERR_INVALID_PARAM; a copy callback's own code. On failure `true_size` is unchanged, and so is `data`, unless a callback failed.
// Blocks for the copy only. Any thread. Since 0.1.
int32_t mmc_get(struct mmc_store *store,
                struct mmc_key key,
                void *data,
                size_t size,
                uint32_t flags,
                const struct mmc_get_options *options,
                uint64_t *true_size);

// Copies the object of `key` into `count` buffers, in their order. They may split it otherwise than the put did.
//
// `data`, `sizes`: arrays of `count` elements, at least 1; together the object's size, or with MMC_GET_UP_TO any. Else as mmc_get. Since 0.1.
int32_t mmc_getv(struct mmc_store *store,
                 struct mmc_key key,
                 void *const *data,
                 const size_t *sizes,
                 size_t count,
                 uint32_t flags,
                 const struct mmc_get_options *options,
                 uint64_t *true_size);

// Asks whether an object can be read.
//
// `flags`: MMC_PEEK or 0. Returns MMC_OK when it can, MMC_ERR_NOT_FOUND when it can't, MMC_ERR_INVALID_PARAM. Never blocks; any
// thread. Since 0.1.
int32_t mmc_exist(struct mmc_store *store,
                  struct mmc_key key,
                  uint32_t flags);

// Shows an object: its size and its copies.
//
// `flags`: MMC_PEEK, MMC_QUERY_RESERVED or 0. `info`: where it goes, with its `struct_size` set.
//
// Returns MMC_OK, MMC_ERR_NOT_FOUND or MMC_ERR_INVALID_PARAM. Never blocks; any thread. Since 0.1.
int32_t mmc_query(struct mmc_store *store, struct mmc_key key, uint32_t flags, struct mmc_object_info *info);

// Removes an object. Pins, leases and reads under way keep its bytes where they are; the key is free at once.
//
// Returns MMC_OK, MMC_ERR_NOT_FOUND or MMC_ERR_INVALID_PARAM. Never blocks; any thread. Since 0.1.
int32_t mmc_remove(struct mmc_store *store, struct mmc_key key);

// Removes every object that is there from the call's start to its end, as mmc_remove does. Reserved ones stay.
//
// `removed`: where their number goes; may be null. Returns MMC_OK. Takes time by the number of objects and stops nobody. Any
// thread. Since 0.1.
int32_t mmc_remove_all(struct mmc_store *store,
                       uint64_t *removed);

// Lists the keys of the readable objects, page by page.
//
// `callback` gets pages of up to 1024 keys, on this thread, with no lock held; it may call the library, but not close the store. A key
// that is there from start to end comes exactly once; others may come or not. When it returns anything but 0 the listing ends, with MMC_OK.
// `context` is given to it.
//
// Returns MMC_OK or MMC_ERR_INVALID_PARAM. Takes time by the number of objects and stops nobody. Any thread. Since 0.1.
int32_t mmc_list_keys(struct mmc_store *store,
                      mmc_keys_callback callback,
                      void *context);

// Puts `count` objects of one buffer each.
//
// `keys`, `data`, `sizes`: arrays of `count` elements, borrowed for the call; at most 16384. `options`: for all of them. `flags`: 0.
// `results`: an array of `count` codes, as mmc_put returns them. No element is evicted to make room for another of the same batch, and
// all become readable at the end, the first first. With MMC_EVICTION_ADAPTIVE a batch of more than a hundredth of its segment, for
// which there is no room, is put in parts, each so: what earlier parts have put may go for later ones. Else as mmc_put. Since 0.1.
int32_t mmc_batch_put(struct mmc_store *store,
                      const struct mmc_key *keys,
                      size_t count,
                      const void *const *data,
                      const size_t *sizes,
                      const struct mmc_put_options *options,
                      uint32_t flags,
                      int32_t *results);

// Puts `count` objects of several buffers each.
//
// `buffer_counts`: how many buffers each key has, at least 1; `data`, `sizes`: the buffers of all keys, one key's after the other's. Else
// as mmc_batch_put. Since 0.1.
int32_t mmc_batch_putv(struct mmc_store *store,
                       const struct mmc_key *keys,
                       size_t count,
                       const size_t *buffer_counts,
                       const void *const *data,
                       const size_t *sizes,
                       const struct mmc_put_options *options,
                       uint32_t flags,
                       int32_t *results);

// Gets `count` objects into one buffer each.
//
// `keys`, `data`, `sizes`: arrays of `count` elements, at most 16384. `flags`: MMC_PEEK, MMC_GET_UP_TO or 0. `options`: for all of them;
// may be null. `results`: an array of `count` codes, as mmc_get returns them. `true_sizes`: an array of `count` sizes, 0 where the get
// failed; may be null. Else as mmc_get. Since 0.1.
int32_t mmc_batch_get(struct mmc_store *store,
                      const struct mmc_key *keys,
                      size_t count,
                      void *const *data,
                      const size_t *sizes,
                      uint32_t flags,
                      const struct mmc_get_options *options,
                      int32_t *results,
                      uint64_t *true_sizes);

// Gets `count` objects into several buffers each, which may split them otherwise than the put did.
//
// `buffer_counts`: how many buffers each key has, at least 1; `data`, `sizes`: the buffers of all keys, one key's after the other's. Else
// as mmc_batch_get. Since 0.1.
int32_t mmc_batch_getv(struct mmc_store *store,
                       const struct mmc_key *keys,
                       size_t count,
                       const size_t *buffer_counts,
                       void *const *data,
                       const size_t *sizes,
                       uint32_t flags,
                       const struct mmc_get_options *options,
                       int32_t *results,
                       uint64_t *true_sizes);

// Asks for `count` keys whether their objects can be read.
//
// `keys`: an array of `count` elements, at most 16384. `flags`: MMC_PEEK or 0. `results`: an array of `count` codes, as mmc_exist returns
// them. Never blocks; any thread. Since 0.1.
int32_t mmc_batch_exist(struct mmc_store *store,
                        const struct mmc_key *keys,
                        size_t count,
                        uint32_t flags,
                        int32_t *results);

// Tells how much of a prefix chain is there: how many of `count` keys have readable objects, from the first on and up to the first that
// has none.
//
// `keys`: an array of `count` elements, at most 16384; those behind the first that is not there are not looked at. `flags`: MMC_PEEK or 0.
// Without MMC_PEEK each key that was found is used as by mmc_batch_exist. `length`: where the number goes; 0 for 0 keys.
//
// Returns MMC_OK, or MMC_ERR_INVALID_PARAM, for a key on the way that is none, too: then `length` is unchanged. Never blocks; any
// thread. Since 0.1.
int32_t mmc_prefix_len(struct mmc_store *store,
                       const struct mmc_key *keys,
                       size_t count,
                       uint32_t flags,
                       size_t *length);

// Shows `count` objects.
//
// `flags`: MMC_PEEK, MMC_QUERY_RESERVED or 0. `infos`: an array of `count` elements, the first with its `struct_size` set, which holds
// for all; an element that failed is not written. `results`: an array of `count` codes, as mmc_query returns them. Never blocks; any
// thread. Since 0.1.
int32_t mmc_batch_query(struct mmc_store *store,
                        const struct mmc_key *keys,
                        size_t count,
                        uint32_t flags,
                        struct mmc_object_info *infos,
                        int32_t *results);

// Removes `count` objects.
//
// `keys`: an array of `count` elements, at most 16384. `flags`: 0. `results`: an array of `count` codes, as mmc_remove returns them. Never
// blocks; any thread. Since 0.1.
int32_t mmc_batch_remove(struct mmc_store *store,
                         const struct mmc_key *keys,
                         size_t count,
                         uint32_t flags,
                         int32_t *results);

// Moves `count` objects from one medium to a slower one.
//
// `keys`: an array of `count` elements, at most 16384. `from`, `to`: MMC_MEDIUM_*, `to` slower than `from` (HBM, DRAM, SSD in this order).
// `flags`: 0. `results`: an array of `count` codes: MMC_OK when the object has a copy on `to` now and none on `from`; MMC_ERR_NOT_FOUND
// when no readable object has this key, or it is on neither; MMC_ERR_BUSY when it is pinned or leased on `from`: it has a copy on both
// then; MMC_ERR_NO_SPACE when no room can be made on `to`; MMC_ERR_IO when the disk failed: the object stays where it was.
//
// An object can be read at every instant of its move. Room on `to` is made as by a put there. Blocks for the copies and the disk. Any
// thread. Since 0.1.
int32_t mmc_evict(struct mmc_store *store,
                  const struct mmc_key *keys,
                  size_t count,
                  uint32_t from,
                  uint32_t to,
                  uint32_t flags,
                  int32_t *results);

// Copies `count` objects from one medium to a faster one, so that they are there when they are wanted. The copies on `from` stay: the
// objects can leave the faster medium again without being copied.
//
// `from`, `to`: MMC_MEDIUM_*, `to` faster than `from`. `results`: an array of `count` codes: MMC_OK when the object has a copy on `to` now;
// the others as of mmc_evict. Else as mmc_evict. Since 0.1.
int32_t mmc_prefetch(struct mmc_store *store,
                     const struct mmc_key *keys,
                     size_t count,
                     uint32_t from,
                     uint32_t to,
                     uint32_t flags,
                     int32_t *results);

// Takes `key` and memory for `size` bytes, which the caller fills. Nobody sees the object before mmc_commit.
//
// `size`: bytes, at least 1. `options`: borrowed; may be null; `term_ms` in it is how long the key is kept. Past its term the key is free
// again; the memory stays the caller's until mmc_commit (which then fails) or mmc_abort. `view`: where the token and the memory
// go, with its `struct_size` set. Of several replicas it shows the first; mmc_commit copies it to the others.
//
// Returns as mmc_put does. Blocks for eviction where it must make room. Any thread. Since 0.1.
int32_t mmc_reserve(struct mmc_store *store,
                    struct mmc_key key,
                    uint64_t size,
                    const struct mmc_put_options *options,
                    struct mmc_view *view);

// Publishes the object that `token` stands for. The token is void then, whatever is returned, and its memory no longer the caller's.
//
// Returns MMC_OK; MMC_ERR_TIMEOUT: its term had passed, so it was given up; MMC_ERR_NOT_FOUND: no such token, or it was used before;
// MMC_ERR_NOT_STARTED: the store was closed, so it was given up; a copy callback's own code, for replicas: it was given up. Blocks for
// the copies to further replicas. Any thread. Since 0.1.
int32_t mmc_commit(struct mmc_store *store,
                   uint64_t token);

// Gives up the object that `token` stands for, and its memory. The token is void then.
//
// Returns MMC_OK, or MMC_ERR_NOT_FOUND: no such token, or it was used before. Works after mmc_uninit, too. Never blocks; any thread.
// Since 0.1.
int32_t mmc_abort(struct mmc_store *store,
                  uint64_t token);

// Keeps the bytes of `key` where they are, to be read there: eviction and mmc_remove leave the memory alone until mmc_unpin.
//
// `flags`: MMC_PEEK or 0. `view`: where the token and the memory go, with its `struct_size` set; the memory is to be read only.
//
// Returns MMC_OK; MMC_ERR_NOT_FOUND; MMC_ERR_INVALID_PARAM; MMC_ERR_BUSY: pinned and leased more than a million times;
// MMC_ERR_OUT_OF_MEMORY. Never blocks; any thread. Since 0.1.
int32_t mmc_pin(struct mmc_store *store,
                struct mmc_key key,
                uint32_t flags,
                struct mmc_view *view);

// Ends the pin of `token`, which is void then, and its memory no longer the caller's.
//
// Returns MMC_OK, or MMC_ERR_NOT_FOUND: no such token, or it was used before. Works after mmc_uninit, too. Never blocks; any thread.
// Since 0.1.
int32_t mmc_unpin(struct mmc_store *store,
                  uint64_t token);

// Keeps every copy of `key` where it is for `term_ms` milliseconds; 0 means MMC_DEFAULT_LEASE_MS. Leases count, each with its own end.
//
// Eviction passes a leased object over. mmc_remove takes its key at once; its bytes stay until the last lease ends.
//
// Returns MMC_OK; MMC_ERR_NOT_FOUND; MMC_ERR_STATE: it is still being written; MMC_ERR_INVALID_PARAM; MMC_ERR_BUSY: pinned and leased
// more than a million times; MMC_ERR_OUT_OF_MEMORY. Never blocks; any thread. Since 0.1.
int32_t mmc_add_lease(struct mmc_store *store,
                      struct mmc_key key,
                      uint64_t term_ms);

// Ends one lease of `key`: of those that are not over the one that would end first, so that nobody's longer lease is cut.
//
// Returns MMC_OK; MMC_ERR_NO_LEASE: it has none; MMC_ERR_NOT_FOUND; MMC_ERR_INVALID_PARAM. Never blocks; any thread. Since 0.1.
int32_t mmc_remove_lease(struct mmc_store *store,
                         struct mmc_key key);

// Reserves `count` objects.
//
// `keys`, `sizes`: arrays of `count` elements, at most 16384. `options`: for all of them. `flags`: 0. `views`: an array of `count`
// elements, the first with its `struct_size` set, which holds for all; an element that failed is not written. `results`: an array of
// `count` codes, as mmc_reserve returns them. Else as mmc_reserve and mmc_batch_put. Since 0.1.
int32_t mmc_batch_reserve(struct mmc_store *store,
                          const struct mmc_key *keys,
                          size_t count,
                          const uint64_t *sizes,
                          const struct mmc_put_options *options,
                          uint32_t flags,
                          struct mmc_view *views,
                          int32_t *results);

// Publishes `count` reserved objects, a batch as mmc_batch_put's.
//
// `tokens`: an array of `count` elements, at most 16384. `flags`: 0. `results`: an array of `count` codes, as mmc_commit returns them. Else
// as mmc_commit. Since 0.1.
int32_t mmc_batch_commit(struct mmc_store *store,
                         const uint64_t *tokens,
                         size_t count,
                         uint32_t flags,
                         int32_t *results);

// Gives up `count` reserved objects. Arrays as in mmc_batch_commit, codes as mmc_abort returns them. Since 0.1.
int32_t mmc_batch_abort(struct mmc_store *store,
                        const uint64_t *tokens,
                        size_t count,
                        uint32_t flags,
                        int32_t *results);

// Pins `count` objects.
//
// `keys`: an array of `count` elements, at most 16384. `flags`: MMC_PEEK or 0. `views`: an array of `count` elements, the first with its
// `struct_size` set, which holds for all; an element that failed is not written. `results`: an array of `count` codes, as mmc_pin returns
// them. Since 0.1.
int32_t mmc_batch_pin(struct mmc_store *store,
                      const struct mmc_key *keys,
                      size_t count,
                      uint32_t flags,
                      struct mmc_view *views,
                      int32_t *results);

// Ends `count` pins. Arrays as in mmc_batch_commit, codes as mmc_unpin returns them. Since 0.1.
int32_t mmc_batch_unpin(struct mmc_store *store,
                        const uint64_t *tokens,
                        size_t count,
                        uint32_t flags,
                        int32_t *results);

// Leases `count` objects for the same term.
//
// `keys`: an array of `count` elements, at most 16384. `flags`: 0. `results`: an array of `count` codes, as mmc_add_lease returns them.
// Since 0.1.
int32_t mmc_batch_add_lease(struct mmc_store *store,
                            const struct mmc_key *keys,
                            size_t count,
                            uint64_t term_ms,
                            uint32_t flags,
                            int32_t *results);

// Ends a lease of each of `count` objects. Arrays as in mmc_batch_add_lease, codes as mmc_remove_lease returns them. Since 0.1.
int32_t mmc_batch_remove_lease(struct mmc_store *store,
                               const struct mmc_key *keys,
                               size_t count,
                               uint32_t flags,
                               int32_t *results);

// Copies between `count` ranges of pool addresses and the caller's buffers: single layers of objects, say, as they are made or wanted.
//
// `addresses`: where each range begins, at any byte of an object: of what mmc_reserve's view shows, or mmc_query's blobs. `data`, `sizes`: one
// buffer a range. All are arrays of `count` elements, at most 16384. `direction`: MMC_COPY_TO_SEGMENT to read the buffers and write the
// ranges, MMC_COPY_FROM_SEGMENT for the other way. `flags`: 0. `options`: for all of them; may be null. `results`: an array of `count` codes.
//
// Can be read: a readable object, and one that was removed until the last lease on it is over. Can be written: a reserved object, in
// the copy that its view shows, for its holder, and not during mmc_commit or after it. A copy under way keeps the memory where it is,
// whatever becomes of the object meanwhile. None is a use for eviction.
//
// A result is MMC_OK; MMC_ERR_NOT_FOUND: no object that can be read, or written, lies there, its term is over, or it ends before
// the range does; MMC_ERR_STATE: to be read, but still being written, or to be written, but published or being put;
// MMC_ERR_INVALID_PARAM: an address of 0, a null pointer, a size of 0; MMC_ERR_BUSY: read and copied more than eight million times at once;
// a copy callback's own code. Where it is not MMC_OK nothing was copied, unless a callback failed. Returns as a batch does, and
// MMC_ERR_INVALID_PARAM for another direction. Blocks for the copies only. Any thread. Since 0.1.
int32_t mmc_batch_copy(struct mmc_store *store,
                       const uint64_t *addresses,
                       size_t count,
                       void *const *data,
                       const size_t *sizes,
                       uint32_t direction,
                       uint32_t flags,
                       const struct mmc_get_options *options,
                       int32_t *results);

// This thread's last failure: the function, what was wrong, the value, the limit. "" when there was none. A string of the
// library, valid until this thread's next failing call; successful calls leave it. Never null. Since 0.1.
const char *mmc_last_error(void);

// The name of a code, "MMC_ERR_EXISTS" say; "unknown" for one that is not the library's. A static string. Since 0.1.
const char *mmc_error_name(int32_t code);

// Sets where the process's log goes: `callback` with `context`, or with null back to standard error. For all stores of the process.
//
// Nothing is logged before a level is set. Blocks until no other thread is in the old callback, so that what it used may be freed
// then; called from inside a log callback it does not wait. Returns MMC_OK. Any thread. Since 0.1.
int32_t mmc_set_logger(mmc_log_callback callback,
                       void *context);

// Sets how much the process's log says: MMC_LOG_OFF to MMC_LOG_TRACE. It starts off. For all stores of the process.
//
// Returns MMC_OK, or MMC_ERR_INVALID_PARAM for another number. Never blocks; any thread. Since 0.1.
int32_t mmc_set_log_level(uint32_t level);

// Reads the store's counters and levels.
//
// `statistics`: where they go, with its `struct_size` set. Each number is right for a moment of the call, not all for the same one.
// Returns MMC_OK or MMC_ERR_INVALID_PARAM. Never blocks; any thread. Since 0.1.
int32_t mmc_stats(struct mmc_store *store,
                  struct mmc_statistics *statistics);

// Where the admin port listens: "host:port" with the true port, "" when it is off.
//
// `buffer`: where the text goes with its terminating zero; may be null when `capacity` is 0. `capacity`: bytes there. `needed`: where
// the bytes needed go, the zero included; may be null. Returns MMC_OK; MMC_ERR_INVALID_PARAM when the text does not fit: then only
// `needed` was written. Never blocks; any thread. Since 0.1.
int32_t mmc_http_address(struct mmc_store *store,
                         char *buffer,
                         size_t capacity,
                         size_t *needed);

// Sets who hears what is stored and removed: `callback` with `context`, or null for nobody.
//
// The data path never waits for it: up to 16384 events wait, further ones are dropped and counted. Returns when the old callback will
// not be called again. Returns MMC_OK; MMC_ERR_BUSY when called from the event callback; MMC_ERR_OUT_OF_MEMORY without memory for the
// queue or a thread: then nobody hears. Any other thread. Since 0.1.
int32_t mmc_set_event_callback(struct mmc_store *store,
                               mmc_event_callback callback,
                               void *context);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* MMC_H */

#ifndef MMC_CONFIG_INIT
#define MMC_CONFIG_INIT
// Makes a config of the caller's one in which nothing is set. `config`: where to write; its old content does not matter. Returns MMC_OK, or
// MMC_ERR_INVALID_PARAM for null. Never blocks; any thread. Since 0.1.
static inline int32_t mmc_config_init(mmc_config *config) {
    return mmc_config_init_sized(config, sizeof *config);
}
#endif
