// What goes when there is no room, and what never does.

#include "check.h"

// Fills a store of `count` pages with as many objects "k<number>".
static void fill_store(mmc_store *store, unsigned count) {
    for (unsigned i = 0; i < count; i++) CHECK_OK(put_filled(store, keyf("k%u", i), PAGE, i, NULL));
    CHECK_EQUAL(0, statistics_of(store).evict_operations);
    CHECK_EQUAL(count * PAGE, statistics_of(store).allocated);
}

static unsigned count_there(mmc_store *store, unsigned count) {
    unsigned there = 0;
    for (unsigned i = 0; i < count; i++) there += is_there(store, keyf("k%u", i));
    return there;
}

BEHAVIOUR(the_oldest_goes_first) {
    mmc_store *store = open_store(64 * PAGE);
    fill_store(store, 64);
    for (unsigned i = 0; i < 64; i++) {
        CHECK(is_there(store, keyf("k%u", i)));
        CHECK_OK(put_filled(store, keyf("next%u", i), PAGE, i, NULL));
        CHECK(!is_there(store, keyf("k%u", i)));
    }
    for (unsigned i = 0; i < 64; i++) CHECK(has_filled(store, keyf("next%u", i), PAGE, i));
    CHECK_EQUAL(64, statistics_of(store).evict_operations);
    CHECK_EQUAL(64 * PAGE, statistics_of(store).evicted_bytes);
    close_store(store);
}

// Uses of an object, by their number.
static int32_t use(unsigned which, mmc_store *store, mmc_key name, uint32_t flags) {
    static char data[PAGE];
    void *into = data;
    const size_t size = PAGE;
    size_t length = 0;
    int32_t result = 1;
    mmc_object_info info = {.struct_size = sizeof info};
    mmc_view view = {.struct_size = sizeof view};
    switch (which) {
        case 0: return mmc_get(store, name, data, size, flags, NULL, NULL);
        case 1: return mmc_exist(store, name, flags);
        case 2: return mmc_query(store, name, flags, &info);
        case 3: CHECK_OK(mmc_pin(store, name, flags, &view)); return mmc_unpin(store, view.token);
        case 4: CHECK_OK(mmc_batch_get(store, &name, 1, &into, &size, flags, NULL, &result, NULL)); return result;
        case 5: CHECK_OK(mmc_batch_exist(store, &name, 1, flags, &result)); return result;
        case 6: CHECK_OK(mmc_batch_query(store, &name, 1, flags, &info, &result)); return result;
        case 7: CHECK_OK(mmc_batch_pin(store, &name, 1, flags, &view, &result)); CHECK_OK(mmc_unpin(store, view.token)); return result;
        case 8: CHECK_OK(mmc_prefix_len(store, &name, 1, flags, &length)); CHECK_EQUAL(1, length); return MMC_OK;
        default: return 1;
    }
}

BEHAVIOUR(what_was_used_stays_and_a_peek_is_no_use) {
    for (unsigned which = 0;; which++) {
        mmc_store *store = open_store(16 * PAGE);
        fill_store(store, 16);
        int32_t code = use(which, store, key("k0"), 0);
        if (code == 1) {
            CHECK_EQUAL(9, which);
            close_store(store);
            break;
        }
        CHECK_OK(code);
        CHECK_OK(use(which, store, key("k1"), MMC_PEEK));
        for (unsigned i = 0; i < 15; i++) CHECK_OK(put_filled(store, keyf("next%u", i), PAGE, i, NULL));
        CHECK(has_filled(store, key("k0"), PAGE, 0));
        CHECK_EQUAL(1, count_there(store, 16));
        close_store(store);
    }
}

BEHAVIOUR(of_a_batch_the_tail_goes_before_the_head) {
    enum { COUNT = 32 };
    mmc_store *store = open_store(COUNT * PAGE);
    static char data[PAGE];
    mmc_key *names = many_keys("k", COUNT);
    const void *from[COUNT];
    size_t sizes[COUNT];
    int32_t results[COUNT];
    for (size_t i = 0; i < COUNT; i++) from[i] = data, sizes[i] = PAGE;
    CHECK_OK(mmc_batch_put(store, names, COUNT, from, sizes, NULL, 0, results));
    for (unsigned i = 0; i < COUNT / 2; i++) {
        CHECK_OK(put_filled(store, keyf("next%u", i), PAGE, i, NULL));
        CHECK_CODE(MMC_ERR_NOT_FOUND, mmc_exist(store, names[COUNT - 1 - i], MMC_PEEK));
        CHECK_OK(mmc_exist(store, names[COUNT - 2 - i], MMC_PEEK));
    }
    free(names);
    close_store(store);
}

BEHAVIOUR(a_prefix_that_was_asked_for_goes_from_its_tail_too) {
    enum { COUNT = 16 };
    mmc_store *store = open_store(COUNT * PAGE);
    fill_store(store, COUNT);
    mmc_key *names = many_keys("k", COUNT + 1);
    size_t length = 0;
    // What lies behind the hole at its end was not used.
    CHECK_OK(mmc_remove(store, names[COUNT / 2]));
    CHECK_OK(mmc_prefix_len(store, names, COUNT + 1, 0, &length));
    CHECK_EQUAL(COUNT / 2, length);
    for (unsigned i = 0; i < COUNT / 2; i++) CHECK_OK(put_filled(store, keyf("next%u", i), PAGE, i, NULL));
    for (unsigned i = 0; i < COUNT; i++) CHECK_EQUAL(i < COUNT / 2, is_there(store, names[i]));
    for (unsigned i = 0; i < COUNT / 2; i++) {
        CHECK_OK(put_filled(store, keyf("last%u", i), PAGE, i, NULL));
        CHECK_OK(mmc_prefix_len(store, names, COUNT + 1, MMC_PEEK, &length));
        CHECK_EQUAL(COUNT / 2 - 1 - i, length);
    }
    free(names);
    close_store(store);
}

BEHAVIOUR(a_batch_never_evicts_its_own) {
    enum { COUNT = 40, ROOM = 32 };
    mmc_store *store = open_store(ROOM * PAGE);
    fill_store(store, ROOM);
    static char data[PAGE];
    mmc_key *names = many_keys("batch", COUNT);
    const void *from[COUNT];
    size_t sizes[COUNT];
    int32_t results[COUNT];
    for (size_t i = 0; i < COUNT; i++) from[i] = data, sizes[i] = PAGE;
    CHECK_OK(mmc_batch_put(store, names, COUNT, from, sizes, NULL, 0, results));
    for (size_t i = 0; i < COUNT; i++) {
        CHECK_CODE(i < ROOM ? MMC_OK : MMC_ERR_NO_SPACE, results[i]);
        CHECK_CODE(i < ROOM ? MMC_OK : MMC_ERR_NOT_FOUND, mmc_exist(store, names[i], MMC_PEEK));
    }
    CHECK_EQUAL(0, count_there(store, ROOM));
    free(names);
    close_store(store);
}

BEHAVIOUR(what_is_held_never_goes) {
    mmc_store *store = open_store(16 * PAGE);
    mmc_view pinned = {.struct_size = sizeof pinned}, reserved = pinned;
    fill_store(store, 16);
    CHECK_OK(mmc_pin(store, key("k3"), 0, &pinned));
    CHECK_OK(mmc_add_lease(store, key("k4"), 600000));
    CHECK_OK(mmc_reserve(store, key("r"), PAGE, NULL, &reserved));
    fill(reserved.data, PAGE, 99);
    for (unsigned i = 0; i < 100; i++) CHECK_OK(put_filled(store, keyf("next%u", i), PAGE, i, NULL));
    CHECK(has_filled(store, key("k3"), PAGE, 3) && has_filled(store, key("k4"), PAGE, 4));
    CHECK_EQUAL(2, count_there(store, 16));
    CHECK(is_filled(pinned.data, PAGE, 3));
    CHECK_OK(mmc_commit(store, reserved.token));
    CHECK(has_filled(store, key("r"), PAGE, 99));
    // Let go, they go like any other.
    CHECK_OK(mmc_unpin(store, pinned.token));
    CHECK_OK(mmc_remove_lease(store, key("k4")));
    for (unsigned i = 100; i < 120; i++) CHECK_OK(put_filled(store, keyf("next%u", i), PAGE, i, NULL));
    CHECK_EQUAL(0, count_there(store, 16));
    CHECK(!is_there(store, key("r")));
    close_store(store);
}

BEHAVIOUR(when_all_is_held_there_is_no_space) {
    for (int kind = 0; kind < 3; kind++) {
        mmc_store *store = open_store(8 * PAGE);
        mmc_view views[8];
        for (unsigned i = 0; i < 8; i++) {
            views[i] = (mmc_view){.struct_size = sizeof views[i]};
            if (kind == 2) {
                CHECK_OK(mmc_reserve(store, keyf("k%u", i), PAGE, NULL, &views[i]));
                continue;
            }
            CHECK_OK(put_filled(store, keyf("k%u", i), PAGE, i, NULL));
            if (kind == 0) CHECK_OK(mmc_pin(store, keyf("k%u", i), 0, &views[i]));
            if (kind == 1) CHECK_OK(mmc_add_lease(store, keyf("k%u", i), 600000));
        }
        CHECK_FAILS(MMC_ERR_NO_SPACE, "no run of that size in DRAM is free of pinned, leased and reserved",
                    put_filled(store, key("next"), 1, 1, NULL));
        CHECK_CODE(MMC_ERR_NOT_FOUND, mmc_exist(store, key("next"), 0));
        CHECK_EQUAL(8 * PAGE, statistics_of(store).allocated);
        CHECK_EQUAL(0, statistics_of(store).evict_operations);
        // Of two that may go, not side by side, one is enough for a page and both are not for two.
        for (unsigned i = 2; i < 6; i += 2) {
            if (kind == 0) CHECK_OK(mmc_unpin(store, views[i].token));
            if (kind == 1) CHECK_OK(mmc_remove_lease(store, keyf("k%u", i)));
            if (kind == 2) CHECK_OK(mmc_commit(store, views[i].token));
        }
        CHECK_CODE(MMC_ERR_NO_SPACE, put_filled(store, key("two pages"), PAGE + 1, 1, NULL));
        CHECK_OK(put_filled(store, key("next"), PAGE, 1, NULL));
        CHECK(has_filled(store, key("next"), PAGE, 1));
        close_store(store);
    }
}

BEHAVIOUR(what_can_never_fit_evicts_nothing) {
    mmc_store *store = open_store(16 * PAGE);
    fill_store(store, 16);
    CHECK_FAILS(MMC_ERR_NO_SPACE, "object of 65537 bytes: the largest DRAM segment has 65536",
                put_filled(store, key("large"), 16 * PAGE + 1, 1, NULL));
    CHECK_EQUAL(16, count_there(store, 16));
    close_store(store);
}

BEHAVIOUR(a_large_put_makes_room_among_many_small_ones) {
    mmc_store *store = open_store(256 * PAGE);
    fill_store(store, 256);
    CHECK_OK(put_filled(store, key("large"), 64 * PAGE, 1, NULL));
    CHECK(has_filled(store, key("large"), 64 * PAGE, 1));
    CHECK_EQUAL(192, count_there(store, 256));
    CHECK_OK(put_filled(store, key("all of it"), 256 * PAGE, 2, NULL));
    CHECK(has_filled(store, key("all of it"), 256 * PAGE, 2));
    CHECK_EQUAL(1, statistics_of(store).stored_keys);
    close_store(store);
}

// Half of the store is free, no two pages side by side; in one place only every fourth page is in use.
static void fragment(mmc_store *store) {
    fill_store(store, 256);
    for (unsigned i = 0; i < 256; i++) {
        if (i >= 64 && i < 128 ? i % 4 != 0 : i % 2 != 0) CHECK_OK(mmc_remove(store, keyf("k%u", i)));
    }
}

BEHAVIOUR(in_fragmented_memory_a_window_of_the_oldest_goes) {
    mmc_store *store = open_store(256 * PAGE);
    fragment(store);
    unsigned before = count_there(store, 256);
    CHECK_OK(put_filled(store, key("large"), 60 * PAGE, 1, NULL));
    CHECK(has_filled(store, key("large"), 60 * PAGE, 1));
    CHECK(before - count_there(store, 256) <= 31);
    CHECK_EQUAL(before - count_there(store, 256), statistics_of(store).evict_operations);
    for (unsigned i = 128; i < 256; i += 2) CHECK(is_there(store, keyf("k%u", i)));
    close_store(store);
}

BEHAVIOUR(in_fragmented_memory_a_window_of_few_goes) {
    mmc_store *store = open_store(256 * PAGE);
    fragment(store);
    unsigned before = count_there(store, 256);
    // Used at the same time they are worth the same.
    for (unsigned i = 0; i < 256; i++) mmc_exist(store, keyf("k%u", i), 0);
    CHECK_OK(put_filled(store, key("large"), 60 * PAGE, 1, NULL));
    CHECK(has_filled(store, key("large"), 60 * PAGE, 1));
    // Fifteen lay there; one more goes before the shape of the memory is looked at.
    CHECK(before - count_there(store, 256) <= 16);
    close_store(store);
}

BEHAVIOUR(what_was_freed_side_by_side_is_one_run) {
    mmc_store *store = open_store(64 * PAGE);
    for (unsigned round = 0; round < 20; round++) {
        // In every order in which neighbours may go.
        for (unsigned i = 0; i < 64; i++) CHECK_OK(put_filled(store, keyf("k%u", i), PAGE, i, NULL));
        for (unsigned i = 0; i < 64; i++) CHECK_OK(mmc_remove(store, keyf("k%u", i * (2 * round + 1) % 64)));
        CHECK_OK(put_filled(store, key("all"), 64 * PAGE, round, NULL));
        CHECK_OK(mmc_remove(store, key("all")));
    }
    CHECK_EQUAL(0, statistics_of(store).evict_operations);
    close_store(store);
}

static mmc_store *open_with_watermarks(uint64_t capacity, uint32_t high, uint32_t low) {
    mmc_config config = config_of(capacity);
    config.watermark_high = high, config.watermark_low = low;
    mmc_store *store = NULL;
    CHECK_OK(mmc_init(&config, &store));
    return store;
}

BEHAVIOUR(above_the_high_watermark_eviction_goes_down_to_the_low_one) {
    mmc_store *store = open_with_watermarks(100 * PAGE, 60, 30);
    fill_store(store, 60);
    CHECK_OK(put_filled(store, key("k60"), PAGE, 60, NULL));
    CHECK_SOON(statistics_of(store).allocated <= 30 * PAGE);
    CHECK_EQUAL(30 * PAGE, statistics_of(store).allocated);
    CHECK_EQUAL(31, statistics_of(store).evict_operations);
    for (unsigned i = 0; i < 61; i++) CHECK_EQUAL(i >= 31, is_there(store, keyf("k%u", i)));
    close_store(store);
}

BEHAVIOUR(the_default_watermarks_are_90_and_80) {
    mmc_config config = config_of(100 * PAGE);
    mmc_store *store = NULL;
    CHECK_OK(mmc_init(&config, &store));
    fill_store(store, 90);
    CHECK_OK(put_filled(store, key("k90"), PAGE, 90, NULL));
    CHECK_SOON(statistics_of(store).allocated <= 80 * PAGE);
    CHECK_EQUAL(80, count_there(store, 91));
    close_store(store);
}

BEHAVIOUR(what_is_held_does_not_hold_the_background_up) {
    mmc_store *store = open_with_watermarks(100 * PAGE, 60, 30);
    mmc_view views[50];
    for (unsigned i = 0; i < 50; i++) {
        CHECK_OK(put_filled(store, keyf("k%u", i), PAGE, i, NULL));
        views[i] = (mmc_view){.struct_size = sizeof views[i]};
        CHECK_OK(mmc_pin(store, keyf("k%u", i), 0, &views[i]));
    }
    for (unsigned i = 50; i < 61; i++) CHECK_OK(put_filled(store, keyf("k%u", i), PAGE, i, NULL));
    // All that may go goes, but for the last if it was still being written then.
    CHECK_SOON(statistics_of(store).allocated <= 51 * PAGE);
    CHECK_EQUAL(50, count_there(store, 50));
    for (unsigned i = 0; i < 50; i++) CHECK_OK(mmc_unpin(store, views[i].token));
    close_store(store);
}

// Puts of very different sizes by several threads into a full store: a large one must not starve beside small ones.
static _Atomic(int) is_stopping;
static void *put_small(void *argument) {
    static _Atomic(unsigned) threads;
    unsigned thread = threads++;
    for (unsigned i = 0; !is_stopping; i++) CHECK_OK(put_filled(argument, keyf("small%u-%u", thread, i), 1 + i % 3 * PAGE, i, NULL));
    return NULL;
}

BEHAVIOUR(a_large_put_does_not_starve_beside_small_ones) {
    mmc_store *store = open_store(256 * PAGE);
    fill_store(store, 256);
    pthread_t threads[2];
    for (size_t i = 0; i < 2; i++) threads[i] = start(put_small, store);
    for (unsigned i = 0; i < load(100, 5); i++) {
        mmc_view view = {.struct_size = sizeof view};
        // Wherever the two small ones lie that are being written, they leave a run of 64 pages.
        CHECK_OK(put_filled(store, keyf("large%u", i), 64 * PAGE, i, NULL));
        // It may be gone again by now; while it is pinned its bytes are whole.
        if (mmc_pin(store, keyf("large%u", i), 0, &view) == MMC_OK) {
            CHECK(is_filled(view.data, 64 * PAGE, i));
            CHECK_OK(mmc_unpin(store, view.token));
        }
    }
    is_stopping = 1;
    for (size_t i = 0; i < 2; i++) join(threads[i]);
    CHECK_OK(mmc_remove_all(store, NULL));
    CHECK_EQUAL(0, statistics_of(store).allocated);
    close_store(store);
}
