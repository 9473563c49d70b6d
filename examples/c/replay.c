// Replays a real LLM serving trace through the library, with real bytes.
//
// For each request, in time order: look up its chain of blocks without that counting as a use; the leading run that is there is the
// prefix hit. Get the hits, then put what is missing, in prefix order, each in one batch. The bytes of a block are made of its id, so that
// every get can be verified: one wrong byte ends the program with code 1.
//
// Times are those of the calls of the library alone, not of making or checking the bytes. What is put was just made, so it comes from the
// processor's cache; what is got goes to memory that was not used for a while, as an engine's is. While it runs the admin port answers;
// its address is the first line.

#define _POSIX_C_SOURCE 200809L

#include "options.h"
#include "trace.h"

#include <inttypes.h>
#include <mmc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

// Bytes beside the pool for the caller's own blocks, used in turn: several times a processor's cache.
#define RING_BYTES ((size_t)128 << 20)
// Bytes that one batch may take of them, or more: a longer request goes in several batches.
#define BATCH_BYTES ((size_t)512 << 20)
#define KEY_SIZE 24

static _Noreturn void die(const char *what) {
    fprintf(stderr, "replay: %s\n", what);
    exit(1);
}

static void check(int32_t code) {
    if (code != MMC_OK) {
        die(mmc_last_error());
    }
}

static void *allocate(size_t count, size_t size) {
    void *memory = calloc(count ? count : 1, size);
    if (!memory) {
        die("out of memory");
    }
    return memory;
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

// ---- The bytes of a block: a counter from a seed that is the id's hash. No two blocks share a word at the same place, in practice.

static uint64_t seed_of(uint64_t id) {
    id += 0x9e3779b97f4a7c15;
    id = (id ^ id >> 30) * 0xbf58476d1ce4e5b9;
    id = (id ^ id >> 27) * 0x94d049bb133111eb;
    return id ^ id >> 31;
}

static uint64_t word_of(uint64_t seed, size_t index) {
    uint64_t word = seed + index * 0x9e3779b97f4a7c15;
    return word ^ word >> 29;
}

// `words` has room for `size` rounded up to eight.
static void fill_block(uint64_t *words, size_t size, uint64_t id) {
    uint64_t seed = seed_of(id);
    for (size_t i = 0; i < (size + 7) / 8; i++) {
        words[i] = word_of(seed, i);
    }
}

static int is_block(const uint64_t *words, size_t size, uint64_t id) {
    uint64_t seed = seed_of(id), difference = 0;
    for (size_t i = 0; i < size / 8; i++) {
        difference |= words[i] ^ word_of(seed, i);
    }
    uint64_t last = word_of(seed, size / 8);
    return difference == 0 && memcmp(words + size / 8, &last, size % 8) == 0;
}

// ---- What was measured

typedef struct {
    double seconds;
    size_t blocks;
} call;

typedef struct {
    call *calls;
    size_t count, capacity;
    double seconds;
    uint64_t blocks;
} series;

static void record(series *into, double seconds, size_t blocks) {
    if (into->count == into->capacity) {
        into->capacity = into->capacity ? 2 * into->capacity : 4096;
        into->calls = realloc(into->calls, into->capacity * sizeof *into->calls);
        if (!into->calls) {
            die("out of memory");
        }
    }
    into->calls[into->count++] = (call){seconds, blocks};
    into->seconds += seconds;
    into->blocks += blocks;
}

static int by_call(const void *a, const void *b) {
    double left = ((const call *)a)->seconds, right = ((const call *)b)->seconds;
    return (left > right) - (left < right);
}

static int by_block(const void *a, const void *b) {
    const call *left = a, *right = b;
    double left_time = left->seconds / (double)left->blocks, right_time = right->seconds / (double)right->blocks;
    return (left_time > right_time) - (left_time < right_time);
}

static double p99_call(series *of) {
    qsort(of->calls, of->count, sizeof *of->calls, by_call);
    return of->calls[(of->count * 99 + 99) / 100 - 1].seconds;
}

// Each block took its share of its call: 99 of 100 blocks took no more than this.
static double p99_block(series *of) {
    qsort(of->calls, of->count, sizeof *of->calls, by_block);
    uint64_t passed = 0;
    size_t i = 0;
    while ((passed += of->calls[i].blocks) * 100 < of->blocks * 99) {
        i++;
    }
    return of->calls[i].seconds / (double)of->calls[i].blocks;
}

// ---- The replay

typedef struct {
    mmc_store *store;
    size_t block_size;
    size_t stride; // from one block of the ring to the next
    size_t batch;  // most blocks of one batch
    uint64_t *ring; // all zero but for the batch under way
    size_t ring_blocks, next;
    char (*names)[KEY_SIZE]; // of one request's blocks; so are the arrays below
    mmc_key *keys;
    int32_t *found; // MMC_OK for a block that need not be put
    uint64_t *missing;
    void **buffers; // of one batch; so are the arrays below
    size_t *sizes;
    int32_t *results;
    series puts, gets;
    size_t requests;
    uint64_t asked, hits, lost, refused;
} replay;

static replay replay_new(mmc_store *store, const replay_options *options, const trace *read) {
    size_t longest = read->longest, stride = (options->block_size + 63) / 64 * 64;
    size_t batch = BATCH_BYTES / stride, ring_blocks = RING_BYTES / stride;
    batch = batch > longest ? longest : batch;
    batch = batch > MMC_MAX_BATCH ? MMC_MAX_BATCH : batch;
    batch = batch < 1 ? 1 : batch;
    ring_blocks = ring_blocks < batch ? batch : ring_blocks;
    replay new = {.store = store, .block_size = options->block_size, .stride = stride, .batch = batch};
    new.ring = allocate(ring_blocks, stride);
    new.ring_blocks = ring_blocks;
    memset(new.ring, 0, ring_blocks * stride); // touches every page now
    new.names = allocate(longest, KEY_SIZE);
    new.keys = allocate(longest, sizeof *new.keys);
    new.found = allocate(longest, sizeof *new.found);
    new.missing = allocate(longest, sizeof *new.missing);
    new.buffers = allocate(batch, sizeof *new.buffers);
    new.sizes = allocate(batch, sizeof *new.sizes);
    new.results = allocate(batch, sizeof *new.results);
    for (size_t i = 0; i < batch; i++) {
        new.sizes[i] = new.block_size;
    }
    return new;
}

static void replay_free(replay *of) {
    void *memory[] = {of->ring,    of->names, of->keys,    of->found,      of->missing,
                      of->buffers, of->sizes, of->results, of->puts.calls, of->gets.calls};
    for (size_t i = 0; i < sizeof memory / sizeof *memory; i++) {
        free(memory[i]);
    }
}

static void name_block(replay *of, size_t i, uint64_t id) {
    int size = snprintf(of->names[i], KEY_SIZE, "block-%016" PRIx64, id);
    of->keys[i] = (mmc_key){of->names[i], (size_t)size};
}

// How many blocks of the chain, from its first, can be read. Notes in `found` which of all can.
static size_t look_up(replay *of, size_t count) {
    for (size_t done = 0; done < count;) {
        size_t part = count - done < MMC_MAX_BATCH ? count - done : MMC_MAX_BATCH;
        check(mmc_batch_exist(of->store, of->keys + done, part, MMC_PEEK, of->found + done));
        done += part;
    }
    size_t prefix = 0;
    while (prefix < count && of->found[prefix] == MMC_OK) {
        prefix++;
    }
    return prefix;
}

// Points `buffers` at the next `count` blocks of the ring.
static void take_buffers(replay *of, size_t count) {
    for (size_t i = 0; i < count; i++) {
        of->buffers[i] = of->ring + of->next * (of->stride / sizeof *of->ring);
        of->next = (of->next + 1) % of->ring_blocks;
    }
}

// Clears them after use, so that their bytes can't pass for what a later get should bring.
static void clear_buffers(replay *of, size_t count) {
    for (size_t i = 0; i < count; i++) {
        memset(of->buffers[i], 0, of->block_size);
    }
}

// Gets and verifies the blocks [first, first + count) of the request. Eviction may have taken one since the look-up: then it is missing.
static void get_batch(replay *of, const trace_request *request, size_t first, size_t count) {
    take_buffers(of, count);
    double start = now();
    check(mmc_batch_get(of->store, of->keys + first, count, of->buffers, of->sizes, 0, NULL, of->results, NULL));
    record(&of->gets, now() - start, count);
    for (size_t i = 0; i < count; i++) {
        uint64_t id = request->blocks[first + i];
        if (of->results[i] == MMC_ERR_NOT_FOUND) {
            of->found[first + i] = MMC_ERR_NOT_FOUND;
            of->lost++;
            continue;
        }
        check(of->results[i]);
        if (!is_block(of->buffers[i], of->block_size, id)) {
            fprintf(stderr, "replay: the bytes of block %" PRIu64 " are not those that were put\n", id);
            exit(1);
        }
    }
    clear_buffers(of, count);
}

// Puts `count` missing blocks. A pool that is too small for the batch refuses its tail, block by block.
static void put_batch(replay *of, const uint64_t *ids, size_t count) {
    take_buffers(of, count);
    for (size_t i = 0; i < count; i++) {
        name_block(of, i, ids[i]);
        fill_block(of->buffers[i], of->block_size, ids[i]);
    }
    double start = now();
    check(mmc_batch_put(of->store, of->keys, count, (const void *const *)of->buffers, of->sizes, NULL, 0, of->results));
    record(&of->puts, now() - start, count);
    clear_buffers(of, count);
    for (size_t i = 0; i < count; i++) {
        if (of->results[i] == MMC_ERR_NO_SPACE) {
            of->refused++;
        } else {
            check(of->results[i]);
        }
    }
}

static void replay_request(replay *of, const trace_request *request) {
    for (size_t i = 0; i < request->count; i++) {
        name_block(of, i, request->blocks[i]);
    }
    size_t prefix = look_up(of, request->count);
    for (size_t done = 0; done < prefix;) {
        size_t part = prefix - done < of->batch ? prefix - done : of->batch;
        get_batch(of, request, done, part);
        done += part;
    }
    size_t missing = 0;
    for (size_t i = 0; i < request->count; i++) {
        if (of->found[i] != MMC_OK) {
            of->missing[missing++] = request->blocks[i];
        }
    }
    for (size_t done = 0; done < missing;) {
        size_t part = missing - done < of->batch ? missing - done : of->batch;
        put_batch(of, of->missing + done, part);
        done += part;
    }
    of->requests++;
    of->asked += request->count;
    of->hits += prefix;
}

// ---- What a person sees

static double hit_ratio(const replay *of) {
    return of->asked ? (double)of->hits / (double)of->asked : 0;
}

static void show_progress(const replay *of, size_t total) {
    char bar[41] = "........................................";
    memset(bar, '#', 40 * of->requests / total);
    fprintf(stderr, "\r[%s] %3zu%%  hit ratio %.4f", bar, 100 * of->requests / total, hit_ratio(of));
}

static void print_series(const char *name, series *of, size_t block_size) {
    if (of->count == 0) {
        printf("%-6s %8d\n", name, 0);
        return;
    }
    double gib = (double)of->blocks * (double)block_size / (1 << 30);
    printf("%-6s %8zu %9" PRIu64 " %8.2f %12.1f %12.1f %12.2f %12.2f\n", name, of->count, of->blocks, gib / of->seconds,
           of->seconds / (double)of->count * 1e6, p99_call(of) * 1e6, of->seconds / (double)of->blocks * 1e6,
           p99_block(of) * 1e6);
}

static void print_table(replay *of, size_t total, double seconds) {
    mmc_statistics statistics = {.struct_size = sizeof statistics};
    check(mmc_stats(of->store, &statistics));
    printf("\n");
    printf("requests    %zu of %zu in %.1f s\n", of->requests, total, seconds);
    printf("blocks      %" PRIu64 " asked for, of %zu bytes each; every one that was got was verified\n", of->asked,
           of->block_size);
    printf("hit ratio   %.4f (%" PRIu64 " prefix hits, %" PRIu64 " of them evicted before the get)\n", hit_ratio(of),
           of->hits, of->lost);
    uint64_t slow = statistics.get_hits_ssd, hbm = statistics.get_hits_hbm;
    printf("from        DRAM %" PRIu64 ", SSD %" PRIu64 "\n", statistics.get_hits - slow - hbm, slow);
    printf("no room     %" PRIu64 " puts\n", of->refused);
    printf("evictions   %" PRIu64 "\n", statistics.evict_operations);
    printf("moves       %" PRIu64 " down, %" PRIu64 " up; %" PRIu64 " dropped as the disk was the limit, %" PRIu64 " failed\n",
           statistics.demotions, statistics.promotions, statistics.spill_drops, statistics.move_failures);
    printf("pool        %" PRIu64 " of %" PRIu64 " bytes in use, %" PRIu64 " keys\n", statistics.allocated,
           statistics.capacity, statistics.stored_keys);
    printf("\n");
    printf("                                  us per batch call           us per block\n");
    printf("%-6s %8s %9s %8s %12s %12s %12s %12s\n", "", "calls", "blocks", "GiB/s", "mean", "p99", "mean", "p99");
    print_series("put", &of->puts, of->block_size);
    print_series("get", &of->gets, of->block_size);
}

// ---- Signals: blocked in all threads, and asked for where that suits. Nothing is ever interrupted.

static sigset_t block_signals(void) {
    sigset_t stop;
    sigemptyset(&stop);
    sigaddset(&stop, SIGINT);
    sigaddset(&stop, SIGTERM);
    sigprocmask(SIG_BLOCK, &stop, NULL);
    return stop;
}

static int stop_is_asked(const sigset_t *stop) {
    return sigtimedwait(stop, NULL, &(struct timespec){0, 0}) > 0;
}

static mmc_store *open_store(const replay_options *options) {
    mmc_config config;
    check(mmc_config_init(&config));
    config.dram_size = options->pool_size;
    config.watermark_high = options->watermark_high;
    config.watermark_low = options->watermark_low;
    config.http_address = options->http_address;
    config.eviction = options->eviction;
    config.ssd_path = options->ssd_path;
    config.ssd_size = options->ssd_size;
    config.prefault = MMC_ON; // else the first puts would measure the kernel's handing out of pages
    mmc_store *store;
    check(mmc_init(&config, &store));
    return store;
}

static void print_address(mmc_store *store) {
    char address[256];
    check(mmc_http_address(store, address, sizeof address, NULL));
    printf("admin port  %s%s\n", address[0] ? "http://" : "off", address);
    fflush(stdout);
}

int main(int argument_count, char **arguments) {
    replay_options options;
    int parsed = options_read(argument_count, arguments, &options);
    if (parsed) {
        return parsed > 0 ? 0 : 2;
    }
    trace read;
    if (trace_read(options.trace, options.requests, &read)) {
        return 1;
    }
    sigset_t stop = block_signals(); // before the store starts threads, which inherit it
    mmc_store *store = open_store(&options);
    print_address(store);

    replay state = replay_new(store, &options, &read);
    int shows_progress = !options.quiet && isatty(STDERR_FILENO), stopped = 0;
    double start = now(), shown = 0;
    for (size_t i = 0; i < read.request_count && !stopped; i++) {
        replay_request(&state, &read.requests[i]);
        if (shows_progress && now() - shown > 0.1) {
            show_progress(&state, read.request_count);
            shown = now();
        }
        stopped = stop_is_asked(&stop);
    }
    if (shows_progress) {
        fprintf(stderr, "\r\033[K");
    }
    print_table(&state, read.request_count, now() - start);
    if (options.serve && !stopped) {
        printf("\nserving until SIGINT or SIGTERM\n");
        fflush(stdout);
        int signal;
        sigwait(&stop, &signal);
    }

    replay_free(&state);
    trace_free(&read);
    check(mmc_uninit(store));
    return 0;
}
