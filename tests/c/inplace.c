// In place: reservations, pins and leases.

#include "check.h"

static mmc_view reserve(mmc_store *store, mmc_key name, uint64_t size, uint64_t term_ms) {
    mmc_put_options options = {.struct_size = sizeof options, .term_ms = term_ms};
    mmc_view view = {.struct_size = sizeof view};
    CHECK_OK(mmc_reserve(store, name, size, &options, &view));
    CHECK(view.token != 0 && view.address != 0 && view.size == size);
    return view;
}

static mmc_view pin(mmc_store *store, mmc_key name) {
    mmc_view view = {.struct_size = sizeof view};
    CHECK_OK(mmc_pin(store, name, 0, &view));
    CHECK(view.token != 0 && view.address != 0);
    return view;
}

static uint64_t allocated(mmc_store *store) { return statistics_of(store).allocated; }

BEHAVIOUR(what_is_written_in_place_can_be_got_after_the_commit) {
    mmc_store *store = open_store(MIB);
    mmc_view view = reserve(store, key("k"), 5000, 0);
    fill(view.data, 5000, 1);
    CHECK_OK(mmc_commit(store, view.token));
    CHECK(has_filled(store, key("k"), 5000, 1));
    CHECK_EQUAL(view.address, query(store, key("k")).blobs[0].address);
    CHECK(query(store, key("k")).blobs[0].data == view.data);
    CHECK_EQUAL(5000, statistics_of(store).put_bytes);
    close_store(store);
}

BEHAVIOUR(a_reserved_key_is_taken_and_seen_by_nobody) {
    mmc_store *store = open_store(MIB);
    mmc_view view = reserve(store, key("k"), 5000, 0), other = {.struct_size = sizeof other};
    mmc_object_info info = {.struct_size = sizeof info};
    char data[5000];
    CHECK_CODE(MMC_ERR_NOT_FOUND, mmc_exist(store, key("k"), 0));
    CHECK_CODE(MMC_ERR_NOT_FOUND, mmc_get(store, key("k"), data, sizeof data, 0, NULL, NULL));
    CHECK_CODE(MMC_ERR_NOT_FOUND, mmc_query(store, key("k"), 0, &info));
    CHECK_CODE(MMC_ERR_NOT_FOUND, mmc_remove(store, key("k")));
    CHECK_CODE(MMC_ERR_NOT_FOUND, mmc_pin(store, key("k"), 0, &other));
    CHECK_FAILS(MMC_ERR_STATE, "the object is reserved", mmc_add_lease(store, key("k"), 100));
    CHECK_CODE(MMC_ERR_EXISTS, put_filled(store, key("k"), 10, 1, NULL));
    CHECK_CODE(MMC_ERR_EXISTS, mmc_reserve(store, key("k"), 10, NULL, &other));
    CHECK_EQUAL(0, statistics_of(store).stored_keys);
    CHECK_EQUAL(1, statistics_of(store).reservations);
    // Who asks for reserved ones is shown it.
    CHECK_OK(mmc_query(store, key("k"), MMC_QUERY_RESERVED, &info));
    CHECK_EQUAL(0, info.readable);
    CHECK_EQUAL(5000, info.size);
    CHECK_EQUAL(view.address, info.blobs[0].address);
    CHECK_OK(mmc_abort(store, view.token));
    CHECK_CODE(MMC_ERR_NOT_FOUND, mmc_query(store, key("k"), MMC_QUERY_RESERVED, &info));
    close_store(store);
}

BEHAVIOUR(an_abort_leaves_nothing) {
    mmc_store *store = open_store(MIB);
    mmc_view view = reserve(store, key("k"), 5000, 0);
    CHECK_EQUAL(2 * PAGE, allocated(store));
    CHECK_OK(mmc_abort(store, view.token));
    CHECK_EQUAL(0, allocated(store));
    CHECK_EQUAL(0, statistics_of(store).reservations);
    CHECK_OK(put_filled(store, key("k"), 10, 1, NULL));
    close_store(store);
}

BEHAVIOUR(a_token_is_good_once_and_for_its_own_kind) {
    mmc_store *store = open_store(MIB);
    mmc_view committed = reserve(store, key("a"), 10, 0), aborted = reserve(store, key("b"), 10, 0), pinned, open = reserve(store, key("c"), 10, 0);
    CHECK_OK(mmc_commit(store, committed.token));
    CHECK_OK(mmc_abort(store, aborted.token));
    pinned = pin(store, key("a"));
    const uint64_t used[] = {committed.token, aborted.token, 0, 1, UINT64_MAX, pinned.token};
    for (size_t i = 0; i < sizeof used / sizeof used[0]; i++) {
        CHECK_FAILS(MMC_ERR_NOT_FOUND, "never given, or ended already", mmc_commit(store, used[i]));
        CHECK_CODE(MMC_ERR_NOT_FOUND, mmc_abort(store, used[i]));
        if (used[i] != pinned.token) CHECK_CODE(MMC_ERR_NOT_FOUND, mmc_unpin(store, used[i]));
    }
    CHECK_CODE(MMC_ERR_NOT_FOUND, mmc_unpin(store, open.token));
    CHECK_OK(mmc_unpin(store, pinned.token));
    CHECK_OK(mmc_commit(store, open.token));
    close_store(store);
}

static int by_value(const void *one, const void *other) {
    uint64_t a = *(const uint64_t *)one, b = *(const uint64_t *)other;
    return (a > b) - (a < b);
}

BEHAVIOUR(a_token_is_never_given_twice) {
    size_t count = load(20000, 1000);
    uint64_t *tokens = malloc(2 * count * sizeof *tokens);
    mmc_store *store = open_store(MIB);
    CHECK_OK(put_filled(store, key("k"), 10, 1, NULL));
    for (size_t i = 0; i < count; i++) {
        mmc_view pinned = pin(store, key("k")), reserved = reserve(store, key("r"), 10, 0);
        tokens[2 * i] = pinned.token, tokens[2 * i + 1] = reserved.token;
        CHECK_OK(mmc_unpin(store, pinned.token));
        CHECK_OK(mmc_abort(store, reserved.token));
    }
    qsort(tokens, 2 * count, sizeof *tokens, by_value);
    for (size_t i = 1; i < 2 * count; i++) CHECK(tokens[i - 1] < tokens[i]);
    free(tokens);
    close_store(store);
}

BEHAVIOUR(past_its_term_a_reservation_is_given_up) {
    mmc_store *store = open_store(MIB);
    mmc_view view = reserve(store, key("k"), 5000, 50);
    mmc_object_info info = {.struct_size = sizeof info};
    uint64_t begin = milliseconds();
    CHECK_SOON(mmc_query(store, key("k"), MMC_QUERY_RESERVED, &info) == MMC_ERR_NOT_FOUND);
    CHECK(milliseconds() - begin < 1100);
    // The key is another's now; the memory stays the holder's until it is done.
    CHECK_OK(put_filled(store, key("k"), 100, 7, NULL));
    CHECK_EQUAL(3 * PAGE, allocated(store));
    memset(view.data, 0xee, 5000);
    CHECK_FAILS(MMC_ERR_TIMEOUT, "its term had passed", mmc_commit(store, view.token));
    CHECK_CODE(MMC_ERR_NOT_FOUND, mmc_commit(store, view.token));
    CHECK_EQUAL(PAGE, allocated(store));
    CHECK_EQUAL(0, statistics_of(store).reservations);
    CHECK(has_filled(store, key("k"), 100, 7));
    close_store(store);
}

static uint64_t tell(void *time) {
    return atomic_load((atomic_ullong *)time);
}

BEHAVIOUR(leases_and_terms_end_by_the_clock_of_the_config) {
    static atomic_ullong time = 12345678;
    mmc_config config = config_of(MIB);
    config.clock = tell, config.clock_user_data = &time;
    mmc_store *store = NULL;
    CHECK_OK(mmc_init(&config, &store));
    CHECK_OK(put_filled(store, key("leased"), 100, 1, NULL));
    CHECK_OK(mmc_add_lease(store, key("leased"), 3600000));
    mmc_view view = reserve(store, key("k"), 5000, 3600000);
    mmc_object_info info = {.struct_size = sizeof info};

    time += 3599999999999;
    CHECK_EQUAL(1, statistics_of(store).leases);
    CHECK_OK(mmc_query(store, key("leased"), MMC_PEEK, &info));
    CHECK_EQUAL(1, info.lease_count);
    CHECK_CODE(MMC_ERR_EXISTS, put_filled(store, key("k"), 100, 7, NULL));

    // A time that goes back is no time.
    atomic_ullong later = time + 1;
    time = 1;
    CHECK_CODE(MMC_ERR_EXISTS, put_filled(store, key("k"), 100, 7, NULL));
    time = later;
    CHECK_OK(mmc_query(store, key("leased"), MMC_PEEK, &info));
    CHECK_EQUAL(0, info.lease_count);
    CHECK_EQUAL(0, statistics_of(store).leases);
    CHECK_OK(put_filled(store, key("k"), 100, 7, NULL));
    CHECK_FAILS(MMC_ERR_TIMEOUT, "its term had passed", mmc_commit(store, view.token));
    close_store(store);
}

// Tells the time, and tries what is forbidden.
static uint64_t close_from_inside(void *store) {
    mmc_store *open = *(mmc_store **)store;
    if (open != NULL) CHECK_CODE(MMC_ERR_BUSY, mmc_uninit(open));
    return 0;
}

BEHAVIOUR(a_clock_can_not_close_its_store) {
    static mmc_store *store = NULL;
    mmc_config config = config_of(MIB);
    config.clock = close_from_inside, config.clock_user_data = &store;
    CHECK_OK(mmc_init(&config, &store));
    CHECK_OK(put_filled(store, key("k"), 100, 7, NULL));
    CHECK(has_filled(store, key("k"), 100, 7));
    close_store(store);
}

BEHAVIOUR(an_abort_past_the_term_is_fine) {
    mmc_store *store = open_store(MIB);
    mmc_view view = reserve(store, key("k"), 5000, 1);
    CHECK_SOON(put_filled(store, key("k"), 100, 7, NULL) == MMC_OK);
    CHECK_OK(mmc_abort(store, view.token));
    CHECK_EQUAL(PAGE, allocated(store));
    CHECK(has_filled(store, key("k"), 100, 7));
    close_store(store);
}

BEHAVIOUR(an_overdue_reservation_keeps_nobody_off_its_key) {
    // Without a wait for the sweep: the put itself finds that the term is over.
    mmc_store *store = open_store(MIB);
    for (unsigned i = 0; i < 20; i++) {
        mmc_view view = reserve(store, key("k"), 100, 1);
        for (uint64_t begin = milliseconds(); milliseconds() < begin + 3;) continue;
        CHECK_OK(put_filled(store, key("k"), 100, i, NULL));
        CHECK(has_filled(store, key("k"), 100, i));
        CHECK_OK(mmc_abort(store, view.token));
        CHECK_OK(mmc_remove(store, key("k")));
    }
    CHECK_EQUAL(0, allocated(store));
    close_store(store);
}

BEHAVIOUR(a_reservation_asks_for_what_there_is) {
    mmc_store *store = open_store(16 * PAGE);
    mmc_view view = {.struct_size = sizeof view, .token = 77};
    CHECK_FAILS(MMC_ERR_INVALID_PARAM, "object of 0 bytes", mmc_reserve(store, key("k"), 0, NULL, &view));
    CHECK_FAILS(MMC_ERR_NO_SPACE, "the largest DRAM segment has 65536", mmc_reserve(store, key("k"), 16 * PAGE + 1, NULL, &view));
    int32_t code = mmc_reserve(store, key("k"), UINT64_MAX, NULL, &view);
    CHECK(code == MMC_ERR_NO_SPACE || code == MMC_ERR_INVALID_PARAM);
    CHECK_EQUAL(77, view.token);
    CHECK_EQUAL(0, allocated(store));
    close_store(store);
}

BEHAVIOUR(device_memory_is_reserved_by_its_address) {
    device memory = device_of(MIB);
    mmc_store *store = open_store(MMC_NO_DRAM);
    uint64_t address = register_device(store, &memory, 0);
    mmc_view view = reserve(store, key("k"), 5000, 0);
    CHECK(view.data == NULL);
    fill(memory.memory + (view.address - address), 5000, 1);
    CHECK_OK(mmc_commit(store, view.token));
    CHECK(has_filled(store, key("k"), 5000, 1));
    mmc_view pinned = pin(store, key("k"));
    CHECK(pinned.data == NULL && pinned.address == view.address);
    CHECK_OK(mmc_unpin(store, pinned.token));
    close_store(store);
    free(memory.memory);
}

BEHAVIOUR(a_pin_shows_the_bytes_where_they_are) {
    mmc_store *store = open_store(MIB);
    CHECK_OK(put_filled(store, key("k"), 5000, 1, NULL));
    mmc_view view = pin(store, key("k"));
    CHECK_EQUAL(5000, view.size);
    CHECK(view.data == query(store, key("k")).blobs[0].data);
    CHECK(is_filled(view.data, 5000, 1));
    CHECK_EQUAL(1, statistics_of(store).pins);
    CHECK_OK(mmc_unpin(store, view.token));
    CHECK_EQUAL(0, statistics_of(store).pins);
    mmc_view missing = {.struct_size = sizeof missing, .token = 77};
    CHECK_CODE(MMC_ERR_NOT_FOUND, mmc_pin(store, key("missing"), 0, &missing));
    CHECK_EQUAL(77, missing.token);
    close_store(store);
}

BEHAVIOUR(pinned_bytes_outlive_a_remove) {
    mmc_store *store = open_store(16 * PAGE);
    CHECK_OK(put_filled(store, key("k"), 5000, 1, NULL));
    mmc_view one = pin(store, key("k")), other = pin(store, key("k"));
    CHECK_OK(mmc_remove(store, key("k")));
    CHECK_CODE(MMC_ERR_NOT_FOUND, mmc_exist(store, key("k"), 0));
    // The key is free at once, and its next object lies elsewhere, however much is put.
    CHECK_OK(put_filled(store, key("k"), 5000, 2, NULL));
    CHECK(query(store, key("k")).blobs[0].address != one.address);
    for (unsigned i = 0; i < 100; i++) CHECK_OK(put_filled(store, keyf("k%u", i), 3 * PAGE, i, NULL));
    CHECK(is_filled(one.data, 5000, 1));
    CHECK_OK(mmc_remove_all(store, NULL));
    CHECK_EQUAL(2 * PAGE, allocated(store));
    CHECK_OK(mmc_unpin(store, one.token));
    CHECK_EQUAL(2 * PAGE, allocated(store));
    CHECK(is_filled(other.data, 5000, 1));
    CHECK_OK(mmc_unpin(store, other.token));
    CHECK_EQUAL(0, allocated(store));
    close_store(store);
}

BEHAVIOUR(leases_count_each_with_its_own_end) {
    mmc_store *store = open_store(MIB);
    CHECK_FAILS(MMC_ERR_NOT_FOUND, "no readable object", mmc_add_lease(store, key("k"), 100));
    CHECK_CODE(MMC_ERR_NOT_FOUND, mmc_remove_lease(store, key("k")));
    CHECK_OK(put_filled(store, key("k"), 10, 1, NULL));
    CHECK_FAILS(MMC_ERR_NO_LEASE, "no lease is held", mmc_remove_lease(store, key("k")));
    for (uint32_t i = 1; i <= 5; i++) {
        CHECK_OK(mmc_add_lease(store, key("k"), 60000));
        CHECK_EQUAL(i, query(store, key("k")).lease_count);
        CHECK_EQUAL(i, statistics_of(store).leases);
    }
    for (uint32_t i = 5; i-- > 0;) {
        CHECK_OK(mmc_remove_lease(store, key("k")));
        CHECK_EQUAL(i, query(store, key("k")).lease_count);
    }
    CHECK_CODE(MMC_ERR_NO_LEASE, mmc_remove_lease(store, key("k")));
    // A lease that names no term has the default one, which is not over yet.
    CHECK_OK(mmc_add_lease(store, key("k"), 0));
    CHECK_EQUAL(1, query(store, key("k")).lease_count);
    CHECK_OK(mmc_add_lease(store, key("k"), UINT64_MAX));
    CHECK_EQUAL(2, query(store, key("k")).lease_count);
    close_store(store);
}

BEHAVIOUR(removing_a_lease_ends_the_one_that_would_end_first) {
    // Whatever the order in which they were added, it is never the long one that is cut.
    static const uint64_t orders[][3] = {{300, 60000, 70000}, {60000, 300, 70000}, {70000, 60000, 300}};
    mmc_store *store = open_store(MIB);
    for (size_t i = 0; i < 3; i++) {
        CHECK_OK(put_filled(store, key("k"), 10, 1, NULL));
        uint64_t begin = milliseconds();
        for (size_t j = 0; j < 3; j++) CHECK_OK(mmc_add_lease(store, key("k"), orders[i][j]));
        CHECK_OK(mmc_remove_lease(store, key("k")));
        CHECK_SOON(milliseconds() > begin + 350);
        CHECK_EQUAL(2, query(store, key("k")).lease_count);
        CHECK_OK(mmc_remove(store, key("k")));
        CHECK_EQUAL(i + 1, allocated(store) / PAGE); // the leases stay with the bytes
    }
    close_store(store);
}

BEHAVIOUR(an_expired_lease_gives_its_memory_back_within_a_second) {
    mmc_store *store = open_store(MIB);
    CHECK_OK(put_filled(store, key("k"), 5000, 1, NULL));
    const unsigned char *data = query(store, key("k")).blobs[0].data;
    CHECK_OK(mmc_add_lease(store, key("k"), 200));
    uint64_t begin = milliseconds();
    CHECK_OK(mmc_remove(store, key("k")));
    CHECK_CODE(MMC_ERR_NOT_FOUND, mmc_exist(store, key("k"), 0));
    CHECK_CODE(MMC_ERR_NOT_FOUND, mmc_add_lease(store, key("k"), 200));
    CHECK_EQUAL(2 * PAGE, allocated(store));
    CHECK(is_filled(data, 5000, 1));
    CHECK_SOON(allocated(store) == 0);
    uint64_t took = milliseconds() - begin;
    CHECK(took >= 199 && took < 1200 + (is_slow() ? 2000 : 0));
    CHECK_EQUAL(0, statistics_of(store).leases);
    close_store(store);
}

BEHAVIOUR(a_put_that_lacks_room_sweeps_what_is_over) {
    mmc_store *store = open_store(4 * PAGE);
    for (unsigned i = 0; i < 10; i++) {
        CHECK_OK(put_filled(store, keyf("k%u", i), 4 * PAGE, i, NULL));
        CHECK_OK(mmc_add_lease(store, keyf("k%u", i), 5));
        if (i % 2) CHECK_OK(mmc_remove(store, keyf("k%u", i)));
        for (uint64_t begin = milliseconds(); milliseconds() < begin + 7;) continue;
    }
    close_store(store);
}

BEHAVIOUR(batches_in_place_tell_of_each_element) {
    mmc_store *store = open_store(MIB);
    mmc_key names[4] = {key("a"), key("b"), key(""), key("d")};
    const uint64_t sizes[4] = {100, 5000, 100, 0};
    mmc_view views[4];
    int32_t results[4];
    memset(views, 0x55, sizeof views);
    views[0].struct_size = sizeof views[0];
    CHECK_OK(put_filled(store, key("a"), 10, 1, NULL));
    CHECK_OK(mmc_batch_reserve(store, names, 4, sizes, NULL, 0, views, results));
    const int32_t reserved[] = {MMC_ERR_EXISTS, MMC_OK, MMC_ERR_INVALID_PARAM, MMC_ERR_INVALID_PARAM};
    for (size_t i = 0; i < 4; i++) {
        CHECK_CODE(reserved[i], results[i]);
        CHECK_EQUAL(reserved[i] == MMC_OK, views[i].token != 0x5555555555555555); // one that failed is not written
    }
    fill(views[1].data, 5000, 2);
    uint64_t tokens[3] = {views[1].token, views[1].token, 12345};
    CHECK_OK(mmc_batch_commit(store, tokens, 3, 0, results));
    CHECK_CODE(MMC_OK, results[0]);
    CHECK_CODE(MMC_ERR_NOT_FOUND, results[1]);
    CHECK_CODE(MMC_ERR_NOT_FOUND, results[2]);
    CHECK(has_filled(store, key("b"), 5000, 2));

    names[2] = key("missing");
    CHECK_OK(mmc_batch_pin(store, names, 3, 0, views, results));
    CHECK(results[0] == MMC_OK && results[1] == MMC_OK && results[2] == MMC_ERR_NOT_FOUND);
    CHECK(views[0].size == 10 && views[1].size == 5000 && views[2].token == 0x5555555555555555);
    CHECK(is_filled(views[1].data, 5000, 2));
    tokens[0] = views[0].token, tokens[1] = views[0].token, tokens[2] = views[1].token;
    CHECK_OK(mmc_batch_unpin(store, tokens, 3, 0, results));
    CHECK(results[0] == MMC_OK && results[1] == MMC_ERR_NOT_FOUND && results[2] == MMC_OK);

    CHECK_OK(mmc_batch_add_lease(store, names, 3, 60000, 0, results));
    CHECK(results[0] == MMC_OK && results[1] == MMC_OK && results[2] == MMC_ERR_NOT_FOUND);
    CHECK_OK(mmc_remove_lease(store, key("b")));
    CHECK_OK(mmc_batch_remove_lease(store, names, 3, 0, results));
    CHECK(results[0] == MMC_OK && results[1] == MMC_ERR_NO_LEASE && results[2] == MMC_ERR_NOT_FOUND);
    mmc_statistics statistics = statistics_of(store);
    CHECK_EQUAL(0, statistics.pins + statistics.leases + statistics.reservations);
    close_store(store);
}
