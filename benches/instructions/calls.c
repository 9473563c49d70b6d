// The calls whose instructions are counted: `run.py` runs this under callgrind, says what that is for, and reads what it counted.
//
// A row is many calls of one kind, on a store of its own. What prepares them is not counted, nor is this program itself: callgrind collects
// only inside functions of the library, and only for the thread that calls them, so the store's own thread does not count either.
// Before a row is counted everything has happened once: statics are filled, slots and buckets made, functions bound. No two calls of a row
// have the same key, and every look-up is the first of its object after a put, so that it makes no difference when a second is over, for
// which a store notes uses anew. Nothing evicts in the background.
//
// What is left to chance is the seed of a store's hashes: it decides which keys share a bucket, and thousands of keys even that out.

#include <mmc.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <valgrind/callgrind.h>

#define KEYS 8192
#define BATCH 128
#define BLOCK 4096
// As engines use them: a hash in text, with a few words around it.
#define KEY_FORMAT "model-7b@layers-0-61/tokens-128/chain-%016llx/rank-0000"

// Two sets of keys: what is in a store, and what is not.
static _Alignas(64) char texts[2 * KEYS][128];
static mmc_key keys[KEYS], other_keys[KEYS];
// The caller's blocks. They begin at a line of the cache, as the kernels of the copy want it and an engine's do.
static _Alignas(BLOCK) unsigned char blocks[BATCH][BLOCK];
static const void *sources[BATCH];
static void *targets[BATCH];
static size_t sizes[BATCH];
static int32_t results[BATCH];

static void expect(int32_t expected, int32_t code) {
    if (code != expected) {
        fprintf(stderr, "%s instead of %s: %s\n", mmc_error_name(code), mmc_error_name(expected), mmc_last_error());
        exit(1);
    }
}

static void expect_all(int32_t code) {
    expect(MMC_OK, code);
    for (size_t i = 0; i < BATCH; i++) expect(MMC_OK, results[i]);
}

// ---- One key after the other, or one batch after the other, all keys of a set.

static void put(mmc_store *store, const mmc_key *set) {
    for (size_t i = 0; i < KEYS; i++) expect(MMC_OK, mmc_put(store, set[i], blocks[i % BATCH], BLOCK, NULL));
}

static void get(mmc_store *store, const mmc_key *set) {
    for (size_t i = 0; i < KEYS; i++) expect(MMC_OK, mmc_get(store, set[i], blocks[i % BATCH], BLOCK, 0, NULL, NULL));
}

static void find(mmc_store *store, const mmc_key *set) {
    for (size_t i = 0; i < KEYS; i++) expect(MMC_OK, mmc_exist(store, set[i], 0));
}

static void miss(mmc_store *store, const mmc_key *set) {
    for (size_t i = 0; i < KEYS; i++) expect(MMC_ERR_NOT_FOUND, mmc_exist(store, set[i], 0));
}

static void take_out(mmc_store *store, const mmc_key *set) {
    for (size_t i = 0; i < KEYS; i++) expect(MMC_OK, mmc_remove(store, set[i]));
}

static void batch_put(mmc_store *store, const mmc_key *set) {
    for (size_t i = 0; i < KEYS; i += BATCH) expect_all(mmc_batch_put(store, set + i, BATCH, sources, sizes, NULL, 0, results));
}

static void batch_get(mmc_store *store, const mmc_key *set) {
    for (size_t i = 0; i < KEYS; i += BATCH) expect_all(mmc_batch_get(store, set + i, BATCH, targets, sizes, 0, NULL, results, NULL));
}

static void batch_find(mmc_store *store, const mmc_key *set) {
    for (size_t i = 0; i < KEYS; i += BATCH) expect_all(mmc_batch_exist(store, set + i, BATCH, 0, results));
}

static void batch_take_out(mmc_store *store, const mmc_key *set) {
    for (size_t i = 0; i < KEYS; i += BATCH) expect_all(mmc_batch_remove(store, set + i, BATCH, 0, results));
}

// ---- Rows

typedef void calls(mmc_store *store, const mmc_key *set);

// What a store holds when a row begins.
typedef enum { EMPTY, STORED, FULL_OF_OTHERS } state;

static const struct row {
    const char *name;
    calls *calls;
    const mmc_key *set;
    state state;
} rows[] = {
    {"exist, hit", find, keys, STORED},
    {"exist, miss", miss, other_keys, STORED},
    {"get 4 KiB", get, keys, STORED},
    {"put 4 KiB", put, keys, EMPTY},
    {"put 4 KiB that evicts", put, keys, FULL_OF_OTHERS},
    {"remove", take_out, keys, STORED},
    {"batch of 128, exist", batch_find, keys, STORED},
    {"batch of 128, get 4 KiB", batch_get, keys, STORED},
    {"batch of 128, put 4 KiB", batch_put, keys, EMPTY},
    {"batch of 128, put 4 KiB that evicts", batch_put, keys, FULL_OF_OTHERS},
    {"batch of 128, remove", batch_take_out, keys, STORED},
};

// A store with room for all keys of one set, in the state that a row wants, and everything has happened once.
static mmc_store *prepare(const struct row *row) {
    mmc_config config;
    expect(MMC_OK, mmc_config_init(&config));
    config.dram_size = (uint64_t)KEYS * BLOCK;
    config.watermark_high = 100;
    mmc_store *store;
    expect(MMC_OK, mmc_init(&config, &store));
    put(store, keys);
    put(store, other_keys);
    find(store, other_keys);
    miss(store, keys);
    get(store, other_keys);
    batch_find(store, other_keys);
    batch_get(store, other_keys);
    batch_take_out(store, other_keys);
    batch_put(store, other_keys);
    take_out(store, other_keys);
    if (row->state == STORED) put(store, keys);
    if (row->state == FULL_OF_OTHERS) put(store, other_keys);
    return store;
}

// The processor as callgrind shows it: the library chooses how it copies by that, and so does the C library.
static const char *processor(void) {
#ifdef __x86_64__
    if (__builtin_cpu_supports("avx512f")) return "x86_64-avx512";
    return __builtin_cpu_supports("avx2") ? "x86_64-avx2" : "x86_64-sse2";
#elif defined(__aarch64__)
    return "aarch64";
#else
#error "callgrind counts other instructions here: give this processor a name"
#endif
}

int main(void) {
    if (!RUNNING_ON_VALGRIND) {
        fprintf(stderr, "run.py runs this under callgrind\n");
        return 2;
    }
    printf("%s\n", processor());
    for (size_t i = 0; i < KEYS; i++) {
        for (size_t set = 0; set < 2; set++) {
            char *text = texts[2 * i + set];
            unsigned long long hash = (2 * i + set) * 0x9e3779b97f4a7c15u;
            size_t size = (size_t)snprintf(text, sizeof *texts, KEY_FORMAT, hash);
            (set ? other_keys : keys)[i] = (mmc_key){text, size};
        }
    }
    for (size_t i = 0; i < BATCH; i++) {
        sources[i] = targets[i] = blocks[i];
        sizes[i] = BLOCK;
        memset(blocks[i], (int)i, BLOCK);
    }
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        mmc_store *store = prepare(&rows[i]);
        CALLGRIND_START_INSTRUMENTATION;
        rows[i].calls(store, rows[i].set);
        CALLGRIND_STOP_INSTRUMENTATION;
        // The dump's title: run.py reads it.
        char title[64];
        snprintf(title, sizeof title, "%d keys, %s", KEYS, rows[i].name);
        CALLGRIND_DUMP_STATS_AT(title);
        expect(MMC_OK, mmc_uninit(store));
    }
    return 0;
}
