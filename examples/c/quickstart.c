// The first program: open a store, put and get a block, ask, put a prefix chain, read in place, keep, fail, close.
//
//     gcc -std=c11 -Iinclude examples/c/quickstart.c -o quickstart -Ltarget/release -lmmc
//
// Every call returns MMC_OK or a negative MMC_ERR_*; mmc_last_error() then has this thread's sentence about it. "Not found" and "exists" are
// answers, not accidents: a cache's caller looks at them and goes on.

#include <mmc.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK_SIZE = 64 * 1024, CHAIN = 4 };

static unsigned char block[BLOCK_SIZE];
static unsigned char chain[CHAIN][BLOCK_SIZE];

static void check(int32_t code) {
    if (code != MMC_OK) {
        fprintf(stderr, "quickstart: %s\n", mmc_last_error());
        exit(1);
    }
}

static mmc_key key_of(const char *name) {
    return (mmc_key){name, strlen(name)}; // borrowed: the library copies what it keeps
}

// A block by itself. One call copies it into the pool, one copies it out.
static void one_block(mmc_store *store) {
    mmc_key key = key_of("model/prompt-1");
    memset(block, 'a', sizeof block);
    check(mmc_put(store, key, block, sizeof block, NULL));

    memset(block, 0, sizeof block);
    check(mmc_get(store, key, block, sizeof block, 0, NULL, NULL));
    printf("got %d bytes of '%c'\n", BLOCK_SIZE, block[0]);

    // What a key stands for never changes: a second put of it stores nothing, and says so.
    int32_t code = mmc_put(store, key, block, sizeof block, NULL);
    printf("put again: %s\n", mmc_error_name(code));

    // MMC_PEEK: ask without its counting as a use, so that the question does not keep the block from eviction.
    code = mmc_exist(store, key_of("model/prompt-2"), MMC_PEEK);
    printf("the other: %s\n", mmc_error_name(code));
}

// A prompt is a chain of blocks: block i + 1 is of no use without block i. Put and get it in that order, in one call, and eviction
// takes its tail before its head. Each element has a code of its own; one that fails never spoils another.
static void prefix_chain(mmc_store *store) {
    char names[CHAIN][32];
    mmc_key keys[CHAIN];
    const void *sources[CHAIN];
    void *targets[CHAIN];
    size_t sizes[CHAIN];
    int32_t results[CHAIN];
    for (int i = 0; i < CHAIN; i++) {
        snprintf(names[i], sizeof names[i], "model/chain/%d", i);
        keys[i] = key_of(names[i]);
        memset(chain[i], '0' + i, BLOCK_SIZE);
        sources[i] = targets[i] = chain[i];
        sizes[i] = BLOCK_SIZE;
    }
    check(mmc_batch_put(store, keys, CHAIN, sources, sizes, NULL, 0, results));
    for (int i = 0; i < CHAIN; i++) {
        check(results[i]);
    }

    check(mmc_remove(store, keys[2]));
    check(mmc_batch_exist(store, keys, CHAIN, MMC_PEEK, results));
    size_t hits = 0;
    while (hits < CHAIN && results[hits] == MMC_OK) {
        hits++;
    }
    printf("prefix of %zu blocks is there\n", hits);
    check(mmc_batch_get(store, keys, hits, targets, sizes, 0, NULL, results, NULL));
}

// Read a block where it lies, without a copy. Eviction and removal leave its memory alone until the pin ends.
static void in_place(mmc_store *store) {
    mmc_view view = {.struct_size = sizeof view};
    check(mmc_pin(store, key_of("model/prompt-1"), 0, &view));
    const unsigned char *bytes = view.data;
    printf("pinned %llu bytes of '%c'\n", (unsigned long long)view.size, bytes[0]);
    check(mmc_unpin(store, view.token));

    // A lease keeps a block from eviction for a while, with nothing to hand back.
    check(mmc_add_lease(store, key_of("model/prompt-1"), 2000 /* ms */));

    // Space that the caller fills itself: what a device or the network writes to. Nobody sees it before the commit.
    check(mmc_reserve(store, key_of("model/prompt-3"), BLOCK_SIZE, NULL, &view));
    memset(view.data, 'c', BLOCK_SIZE);
    check(mmc_commit(store, view.token));
}

int main(void) {
    mmc_config config;
    check(mmc_config_init(&config));
    config.dram_size = 64 << 20;         // bytes; unset would be 1 GiB
    config.http_address = "127.0.0.1:0"; // the admin port: any free one
    mmc_store *store;
    check(mmc_init(&config, &store));

    char address[64];
    check(mmc_http_address(store, address, sizeof address, NULL));
    printf("mmc %s, admin port http://%s\n", mmc_version(), address);

    one_block(store);
    prefix_chain(store);
    in_place(store);

    // An error says what was wrong, the value and the limit.
    if (mmc_get(store, key_of("model/prompt-1"), block, 100, 0, NULL, NULL) != MMC_OK) {
        printf("an error reads: %s\n", mmc_last_error());
    }

    mmc_statistics statistics = {.struct_size = sizeof statistics};
    check(mmc_stats(store, &statistics));
    printf("%llu blocks in %llu bytes\n", (unsigned long long)statistics.stored_keys,
           (unsigned long long)statistics.allocated);

    check(mmc_uninit(store)); // the handle is void from here on
    return 0;
}
