// Several copies of an object: on which ranks they lie, which one is read, and what happens when one goes.

#include "check.h"

static mmc_put_options copies(uint32_t replicas, const uint32_t *preferred, size_t count) {
    return (mmc_put_options){.struct_size = sizeof(mmc_put_options), .replicas = replicas, .preferred_ranks = preferred, .preferred_count = count};
}

// The ranks of an object's copies, one a decimal digit, in placement order.
static uint64_t ranks_of(mmc_store *store, mmc_key name) {
    mmc_object_info info = query(store, name);
    uint64_t ranks = 0;
    for (uint32_t i = 0; i < info.blob_count; i++) ranks = ranks * 10 + info.blobs[i].rank;
    return ranks;
}

static uint64_t allocated_of(mmc_store *store, uint32_t rank) {
    mmc_segment_info infos[16] = {{.struct_size = sizeof infos[0]}};
    size_t count;
    uint64_t sum = 0;
    CHECK_OK(mmc_list_segments(store, infos, 16, &count));
    for (size_t i = 0; i < count; i++) sum += infos[i].rank == rank ? infos[i].allocated : 0;
    return sum;
}

// Ranks 0 (the store's own) to `count` - 1 with a segment each.
static mmc_store *open_ranks(uint32_t count, uint64_t capacity) {
    mmc_store *store = open_store(capacity);
    for (uint32_t rank = 1; rank < count; rank++) register_dram(store, rank, capacity, NULL);
    return store;
}

BEHAVIOUR(copies_lie_on_distinct_ranks_with_the_same_bytes) {
    mmc_store *store = open_ranks(8, MIB);
    for (uint32_t replicas = 1; replicas <= 8; replicas++) {
        mmc_put_options options = copies(replicas, NULL, 0);
        CHECK_OK(put_filled(store, keyf("k%u", replicas), 5000, replicas, &options));
        mmc_object_info info = query(store, keyf("k%u", replicas));
        CHECK_EQUAL(replicas, info.blob_count);
        uint32_t seen = 0;
        for (uint32_t i = 0; i < replicas; i++) {
            CHECK((seen & 1u << info.blobs[i].rank) == 0);
            seen |= 1u << info.blobs[i].rank;
            CHECK(is_filled(info.blobs[i].data, 5000, replicas));
        }
    }
    CHECK_EQUAL(8, statistics_of(store).stored_keys);
    CHECK_EQUAL(36 * 2 * PAGE, statistics_of(store).allocated);
    CHECK_OK(mmc_remove_all(store, NULL));
    CHECK_EQUAL(0, statistics_of(store).allocated);
    close_store(store);
}

BEHAVIOUR(segments_of_one_rank_are_one_place) {
    mmc_store *store = open_store(MIB);
    register_dram(store, 0, MIB, NULL);
    mmc_put_options options = copies(2, NULL, 0);
    CHECK_FAILS(MMC_ERR_INVALID_PARAM, "2 replicas: must be on distinct ranks, and 1 have DRAM", put_filled(store, key("k"), 10, 1, &options));
    register_dram(store, 1, MIB, NULL);
    CHECK_OK(put_filled(store, key("k"), 10, 1, &options));
    options.replicas = 3;
    CHECK_FAILS(MMC_ERR_INVALID_PARAM, "and 2 have DRAM", put_filled(store, key("j"), 10, 1, &options));
    close_store(store);
}

BEHAVIOUR(preferred_ranks_come_first_and_others_fill_up) {
    mmc_store *store = open_ranks(4, MIB);
    const uint32_t preferred[] = {3, 1};
    const struct {
        uint32_t replicas, count;
        uint64_t ranks;
    } cases[] = {{1, 1, 3}, {2, 2, 31}, {2, 1, 30}, {3, 2, 310}, {4, 2, 3102}};
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        mmc_put_options options = copies(cases[i].replicas, preferred, cases[i].count);
        CHECK_OK(put_filled(store, keyf("k%u", i), 10, i, &options));
        CHECK_EQUAL(cases[i].ranks, ranks_of(store, keyf("k%u", i)));
    }
    // Without a preference it is the store's own rank.
    CHECK_OK(put_filled(store, key("own"), 10, 1, NULL));
    CHECK_EQUAL(0, ranks_of(store, key("own")));
    close_store(store);
}

BEHAVIOUR(a_preferred_rank_that_is_full_is_passed_over_before_it_evicts) {
    mmc_store *store = open_ranks(2, 4 * PAGE);
    const uint32_t one = 1;
    mmc_put_options options = copies(1, &one, 1);
    CHECK_OK(put_filled(store, key("large"), 4 * PAGE, 1, &options));
    CHECK_OK(put_filled(store, key("next"), PAGE, 2, &options));
    CHECK_EQUAL(0, ranks_of(store, key("next")));
    CHECK_EQUAL(1, ranks_of(store, key("large")));
    close_store(store);
}

BEHAVIOUR(all_copies_or_none) {
    mmc_store *store = open_ranks(3, 16 * PAGE);
    mmc_view view = {.struct_size = sizeof view};
    const uint32_t two = 2;
    mmc_put_options there = copies(1, &two, 1), everywhere = copies(3, NULL, 0);
    CHECK_OK(put_filled(store, key("held"), 15 * PAGE, 1, &there));
    CHECK_OK(mmc_pin(store, key("held"), 0, &view));
    CHECK_FAILS(MMC_ERR_NO_SPACE, "object of 8192 bytes", put_filled(store, key("k"), 2 * PAGE, 2, &everywhere));
    CHECK_CODE(MMC_ERR_NOT_FOUND, mmc_exist(store, key("k"), 0));
    CHECK_EQUAL(0, allocated_of(store, 0) + allocated_of(store, 1));
    CHECK_OK(put_filled(store, key("k"), PAGE, 2, &everywhere));
    CHECK_EQUAL(PAGE, allocated_of(store, 0));
    CHECK_OK(mmc_unpin(store, view.token));
    close_store(store);
}

BEHAVIOUR(a_copy_that_fails_takes_the_others_with_it) {
    device good = device_of(MIB), bad = device_of(MIB);
    mmc_store *store = open_store(MMC_NO_DRAM);
    register_device(store, &good, 0);
    register_device(store, &bad, 1);
    bad.returns = -9;
    mmc_put_options options = copies(2, NULL, 0);
    CHECK_EQUAL((uint32_t)-9, (uint32_t)put_filled(store, key("k"), 100, 1, &options));
    CHECK_CODE(MMC_ERR_NOT_FOUND, mmc_exist(store, key("k"), 0));
    CHECK_EQUAL(0, statistics_of(store).allocated);
    close_store(store);
    free(good.memory);
    free(bad.memory);
}

BEHAVIOUR(a_get_reads_the_callers_rank_first) {
    device memory[2] = {device_of(MIB), device_of(MIB)};
    for (uint32_t own = 0; own < 3; own++) {
        mmc_config config = config_of(MMC_NO_DRAM);
        config.rank = own;
        mmc_store *store = NULL;
        CHECK_OK(mmc_init(&config, &store));
        for (uint32_t rank = 0; rank < 2; rank++) register_device(store, &memory[rank], rank);
        const uint32_t preferred[] = {1, 0};
        mmc_put_options options = copies(2, preferred, 2);
        CHECK_OK(put_filled(store, key("k"), 100, 1, &options));
        memory[0].calls = memory[1].calls = 0;
        CHECK(has_filled(store, key("k"), 100, 1));
        // A rank without a copy reads the first.
        CHECK_EQUAL(own == 0, memory[0].calls);
        CHECK_EQUAL(own != 0, memory[1].calls);
        mmc_view view = {.struct_size = sizeof view};
        CHECK_OK(mmc_pin(store, key("k"), 0, &view));
        mmc_object_info info = query(store, key("k"));
        CHECK_EQUAL(info.blobs[own == 0 ? 1 : 0].address, view.address);
        CHECK_OK(mmc_unpin(store, view.token));
        close_store(store);
    }
    free(memory[0].memory);
    free(memory[1].memory);
}

BEHAVIOUR(eviction_drops_a_copy_and_the_last_copy_ends_the_object) {
    mmc_store *store = open_ranks(2, 16 * PAGE);
    const uint32_t ranks[] = {0, 1};
    mmc_put_options both = copies(2, NULL, 0), zero = copies(1, &ranks[0], 1), one = copies(1, &ranks[1], 1);
    CHECK_OK(put_filled(store, key("k"), 5000, 1, &both));
    CHECK_OK(put_filled(store, key("fills 0"), 14 * PAGE, 2, &zero));
    CHECK_OK(put_filled(store, key("fills 1"), 14 * PAGE, 3, &one));
    // Only one of the two ranks is made room in.
    CHECK_OK(put_filled(store, key("one more"), PAGE, 4, &one));
    CHECK_EQUAL(0, ranks_of(store, key("k")));
    CHECK(has_filled(store, key("k"), 5000, 1));
    CHECK_EQUAL(0, statistics_of(store).evict_operations);
    CHECK_OK(put_filled(store, key("two more"), 2 * PAGE, 5, &zero));
    CHECK_CODE(MMC_ERR_NOT_FOUND, mmc_exist(store, key("k"), 0));
    CHECK_EQUAL(1, statistics_of(store).evict_operations);
    CHECK_EQUAL(5000, statistics_of(store).evicted_bytes);
    close_store(store);
}

BEHAVIOUR(unregistering_drops_the_copy_there) {
    mmc_store *store = open_store(MMC_NO_DRAM);
    uint64_t addresses[3];
    for (uint32_t rank = 0; rank < 3; rank++) addresses[rank] = register_dram(store, rank, MIB, NULL);
    mmc_put_options options = copies(3, NULL, 0);
    CHECK_OK(put_filled(store, key("k"), 5000, 1, &options));
    CHECK_OK(mmc_unregister_segment(store, addresses[0]));
    CHECK_EQUAL(12, ranks_of(store, key("k")));
    CHECK(has_filled(store, key("k"), 5000, 1));
    CHECK_OK(mmc_unregister_segment(store, addresses[1]));
    CHECK_EQUAL(2, ranks_of(store, key("k")));
    CHECK(has_filled(store, key("k"), 5000, 1));
    CHECK_OK(mmc_unregister_segment(store, addresses[2]));
    CHECK_CODE(MMC_ERR_NOT_FOUND, mmc_exist(store, key("k"), 0));
    close_store(store);
}

BEHAVIOUR(a_pin_holds_its_own_copy_and_a_lease_holds_all) {
    mmc_store *store = open_store(MMC_NO_DRAM);
    uint64_t addresses[2];
    for (uint32_t rank = 0; rank < 2; rank++) addresses[rank] = register_dram(store, rank, MIB, NULL);
    mmc_put_options options = copies(2, NULL, 0);
    mmc_view view = {.struct_size = sizeof view};
    CHECK_OK(put_filled(store, key("k"), 5000, 1, &options));
    CHECK_OK(mmc_add_lease(store, key("k"), 60000));
    for (uint32_t rank = 0; rank < 2; rank++) CHECK_CODE(MMC_ERR_BUSY, mmc_unregister_segment(store, addresses[rank]));
    CHECK_OK(mmc_remove_lease(store, key("k")));
    CHECK_OK(mmc_pin(store, key("k"), 0, &view));
    CHECK_CODE(MMC_ERR_BUSY, mmc_unregister_segment(store, addresses[0]));
    CHECK_OK(mmc_unregister_segment(store, addresses[1]));
    CHECK(is_filled(view.data, 5000, 1));
    CHECK_OK(mmc_unpin(store, view.token));
    close_store(store);
}

BEHAVIOUR(a_commit_copies_to_every_rank_and_medium_kind) {
    device memory = device_of(MIB);
    mmc_store *store = open_store(MMC_NO_DRAM);
    mmc_segment_options reached = device_options(&memory, 1);
    reached.medium = MMC_MEDIUM_DRAM;
    register_dram(store, 0, MIB, NULL);
    CHECK_OK(mmc_register_segment(store, &reached, NULL));
    register_dram(store, 2, MIB, NULL);
    const uint32_t first[] = {0};
    mmc_put_options options = copies(3, first, 1);
    mmc_view view = {.struct_size = sizeof view};
    CHECK_OK(mmc_reserve(store, key("k"), 100001, &options, &view));
    fill(view.data, 100001, 1);
    CHECK_OK(mmc_commit(store, view.token));
    mmc_object_info info = query(store, key("k"));
    CHECK_EQUAL(3, info.blob_count);
    for (uint32_t i = 0; i < 3; i++) {
        if (info.blobs[i].rank == 1) CHECK(is_filled(memory.memory, 100001, 1));
        else CHECK(is_filled(info.blobs[i].data, 100001, 1));
    }
    // A copy that fails gives the whole up.
    memory.returns = -5;
    CHECK_OK(mmc_reserve(store, key("j"), 100, &options, &view));
    fill(view.data, 100, 2);
    CHECK_EQUAL((uint32_t)-5, (uint32_t)mmc_commit(store, view.token));
    CHECK_CODE(MMC_ERR_NOT_FOUND, mmc_exist(store, key("j"), 0));
    CHECK_CODE(MMC_ERR_NOT_FOUND, mmc_abort(store, view.token));
    memory.returns = 0;
    CHECK_OK(mmc_remove(store, key("k")));
    CHECK_EQUAL(0, statistics_of(store).allocated);
    close_store(store);
    free(memory.memory);
}
