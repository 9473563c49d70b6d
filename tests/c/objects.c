// Objects: put, get, exist, query, remove; in one buffer and in several; one at a time and in batches.

#include "check.h"

BEHAVIOUR(an_object_comes_back_as_it_was_put) {
    static const size_t sizes[] = {1, 2, 63, 64, 65, 4095, 4096, 4097, 65535, 65536, 65537, MIB - 1, MIB, MIB + 3};
    mmc_store *store = open_store(4 * MIB);
    unsigned char *from = malloc(MIB + 64), *into = malloc(MIB + 64);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        // Buffers begin anywhere.
        for (size_t shift = 0; shift < 40; shift += 13) {
            uint64_t true_size = 0;
            size_t size = sizes[i];
            fill(from + shift, size, i);
            memset(into, 0xee, MIB + 64);
            CHECK_OK(mmc_put(store, key("k"), from + shift, size, NULL));
            CHECK_OK(mmc_get(store, key("k"), into + 40 - shift, size, 0, NULL, &true_size));
            CHECK(memcmp(from + shift, into + 40 - shift, size) == 0);
            CHECK(into[39 - shift] == 0xee && into[40 - shift + size] == 0xee);
            CHECK_EQUAL(size, true_size);
            CHECK_EQUAL((size + PAGE - 1) / PAGE * PAGE, statistics_of(store).allocated);
            CHECK_EQUAL(size, query(store, key("k")).size);
            CHECK_OK(mmc_remove(store, key("k")));
        }
    }
    CHECK_EQUAL(0, statistics_of(store).allocated);
    free(from);
    free(into);
    close_store(store);
}

BEHAVIOUR(a_key_is_put_once) {
    mmc_store *store = open_store(MIB);
    CHECK_OK(put_filled(store, key("k"), 100, 1, NULL));
    CHECK_FAILS(MMC_ERR_EXISTS, "mmc_put: the key is taken", put_filled(store, key("k"), 200, 2, NULL));
    CHECK(has_filled(store, key("k"), 100, 1));
    CHECK_EQUAL(PAGE, statistics_of(store).allocated);
    close_store(store);
}

BEHAVIOUR(a_get_asks_for_the_exact_size) {
    mmc_store *store = open_store(MIB);
    char data[300];
    uint64_t true_size = 12345;
    memset(data, 0xee, sizeof data);
    CHECK_OK(put_filled(store, key("k"), 200, 1, NULL));
    CHECK_FAILS(MMC_ERR_SIZE_MISMATCH, "a buffer of 199 bytes for an object of 200 bytes",
                mmc_get(store, key("k"), data, 199, 0, NULL, &true_size));
    CHECK_CODE(MMC_ERR_SIZE_MISMATCH, mmc_get(store, key("k"), data, 201, 0, NULL, &true_size));
    CHECK_EQUAL(12345, true_size);
    for (size_t i = 0; i < sizeof data; i++) CHECK_EQUAL(0xee, (unsigned char)data[i]);
    close_store(store);
}

BEHAVIOUR(a_get_up_to_takes_what_fits_and_tells_the_true_size) {
    mmc_store *store = open_store(MIB);
    unsigned char data[300], whole[200];
    CHECK_OK(put_filled(store, key("k"), 200, 1, NULL));
    fill(whole, 200, 1);
    for (size_t size = 1; size <= 300; size += 23) {
        uint64_t true_size = 0;
        size_t copied = size < 200 ? size : 200;
        memset(data, 0xee, sizeof data);
        CHECK_OK(mmc_get(store, key("k"), data, size, MMC_GET_UP_TO, NULL, &true_size));
        CHECK_EQUAL(200, true_size);
        CHECK(memcmp(data, whole, copied) == 0);
        for (size_t i = copied; i < sizeof data; i++) CHECK_EQUAL(0xee, data[i]);
    }
    close_store(store);
}

BEHAVIOUR(a_key_that_is_not_there_is_not_found) {
    mmc_store *store = open_store(MIB);
    mmc_object_info info = {.struct_size = sizeof info};
    char data[8] = "";
    uint64_t size = 7;
    CHECK_FAILS(MMC_ERR_NOT_FOUND, "mmc_get: no readable object has this key", mmc_get(store, key("k"), data, 8, 0, NULL, &size));
    CHECK_EQUAL(7, size);
    CHECK_FAILS(MMC_ERR_NOT_FOUND, "mmc_exist: ", mmc_exist(store, key("k"), 0));
    CHECK_CODE(MMC_ERR_NOT_FOUND, mmc_query(store, key("k"), 0, &info));
    CHECK_CODE(MMC_ERR_NOT_FOUND, mmc_remove(store, key("k")));
    CHECK_OK(put_filled(store, key("k"), 8, 1, NULL));
    CHECK_OK(mmc_remove(store, key("k")));
    CHECK_CODE(MMC_ERR_NOT_FOUND, mmc_remove(store, key("k")));
    CHECK_CODE(MMC_ERR_NOT_FOUND, mmc_exist(store, key("k"), 0));
    CHECK_CODE(MMC_ERR_NOT_FOUND, mmc_get(store, key("k"), data, 8, 0, NULL, NULL));
    close_store(store);
}

BEHAVIOUR(keys_that_name_nothing_are_refused_with_the_reason) {
    static char long_key[257];
    memset(long_key, 'x', sizeof long_key);
    const struct {
        mmc_key key;
        const char *words;
    } cases[] = {
        {{NULL, 1}, "key data is null"},
        {{NULL, 0}, "key data is null"},
        {{"", 0}, "key of 0 bytes: must be 1 to 256 bytes"},
        {{long_key, 257}, "key of 257 bytes"},
        {{long_key, SIZE_MAX}, "bytes: must be 1 to 256 bytes"},
        {{"a\nb", 3}, "control character U+000A at offset 1"},
        {{"a\0b", 3}, "control character U+0000 at offset 1"},
        {{"\x7f", 1}, "control character U+007F"},
        {{"ab\xc2\x85", 4}, "control character U+0085 at offset 2"},
        {{"ab\xff", 3}, "not UTF-8: bad byte at offset 2"},
        {{"\xed\xa0\x80", 3}, "not UTF-8"},
    };
    mmc_store *store = open_store(MIB);
    mmc_object_info info = {.struct_size = sizeof info};
    mmc_view view = {.struct_size = sizeof view};
    char data[8] = "";
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        mmc_key bad = cases[i].key;
        CHECK_FAILS(MMC_ERR_INVALID_PARAM, cases[i].words, mmc_put(store, bad, data, 8, NULL));
        CHECK_FAILS(MMC_ERR_INVALID_PARAM, cases[i].words, mmc_get(store, bad, data, 8, 0, NULL, NULL));
        CHECK_FAILS(MMC_ERR_INVALID_PARAM, cases[i].words, mmc_exist(store, bad, 0));
        CHECK_FAILS(MMC_ERR_INVALID_PARAM, cases[i].words, mmc_query(store, bad, 0, &info));
        CHECK_FAILS(MMC_ERR_INVALID_PARAM, cases[i].words, mmc_remove(store, bad));
        CHECK_FAILS(MMC_ERR_INVALID_PARAM, cases[i].words, mmc_reserve(store, bad, 8, NULL, &view));
        CHECK_FAILS(MMC_ERR_INVALID_PARAM, cases[i].words, mmc_pin(store, bad, 0, &view));
        CHECK_FAILS(MMC_ERR_INVALID_PARAM, cases[i].words, mmc_add_lease(store, bad, 1));
        CHECK_FAILS(MMC_ERR_INVALID_PARAM, cases[i].words, mmc_remove_lease(store, bad));
    }
    CHECK_EQUAL(0, statistics_of(store).allocated);
    close_store(store);
}

BEHAVIOUR(keys_are_bytes_of_text_of_any_script) {
    static char long_key[256];
    memset(long_key, 'x', sizeof long_key);
    // A NUL is no part of a key, and none is looked for: these five are different.
    const mmc_key names[] = {{"a", 1}, {"ab", 2}, {long_key, 255}, {long_key, 256}, {"\xe5\xb1\x82-7 \xf0\x9f\x98\x80/~", 12}};
    mmc_store *store = open_store(MIB);
    for (unsigned i = 0; i < 5; i++) CHECK_OK(put_filled(store, names[i], 50 + i, i, NULL));
    for (unsigned i = 0; i < 5; i++) CHECK(has_filled(store, names[i], 50 + i, i));
    close_store(store);
}

BEHAVIOUR(arguments_that_say_nothing_are_refused) {
    mmc_store *store = open_store(MIB);
    char data[8] = "";
    const void *from[2] = {data, data}, *from_null[2] = {data, NULL};
    void *into[2] = {data, data}, *into_null[2] = {data, NULL};
    size_t sizes[2] = {4, 4}, with_zero[2] = {4, 0}, too_large[2] = {SIZE_MAX, 2};
    mmc_put_options options = {.struct_size = sizeof options};
    const uint32_t twice[2] = {0, 0}, high = 65536, absent = 3;
#define REFUSED(words, call) CHECK_FAILS(MMC_ERR_INVALID_PARAM, words, call)
    REFUSED("null", mmc_put(store, key("k"), NULL, 8, NULL));
    REFUSED("0 bytes", mmc_put(store, key("k"), data, 0, NULL));
    REFUSED("null", mmc_putv(store, key("k"), from_null, sizes, 2, NULL));
    REFUSED("0 bytes", mmc_putv(store, key("k"), from, with_zero, 2, NULL));
    REFUSED("", mmc_putv(store, key("k"), from, too_large, 2, NULL));
    REFUSED("", mmc_putv(store, key("k"), from, sizes, 0, NULL));
    REFUSED("data is null", mmc_putv(store, key("k"), NULL, sizes, 2, NULL));
    REFUSED("sizes is null", mmc_putv(store, key("k"), from, NULL, 2, NULL));
    CHECK_CODE(MMC_ERR_NOT_FOUND, mmc_exist(store, key("k"), 0));
    CHECK_EQUAL(0, statistics_of(store).allocated);

    CHECK_OK(mmc_put(store, key("there"), data, 8, NULL));
    REFUSED("null", mmc_get(store, key("there"), NULL, 8, 0, NULL, NULL));
    REFUSED("null", mmc_getv(store, key("there"), into_null, sizes, 2, 0, NULL, NULL));
    REFUSED("0 bytes", mmc_getv(store, key("there"), into, with_zero, 2, 0, NULL, NULL));
    REFUSED("", mmc_getv(store, key("there"), into, sizes, 0, 0, NULL, NULL));
    REFUSED("flags 0x4: this function knows 0x3", mmc_get(store, key("there"), data, 8, MMC_QUERY_RESERVED, NULL, NULL));
    REFUSED("flags 0x2: this function knows 0x1", mmc_exist(store, key("there"), MMC_GET_UP_TO));
    REFUSED("flags 0x80000000", mmc_exist(store, key("there"), 0x80000000u));

    options.replicas = 9;
    REFUSED("9 replicas: must be 1 to 8", mmc_put(store, key("k"), data, 8, &options));
    options.replicas = 2;
    REFUSED("2 replicas: must be on distinct ranks, and 1 have DRAM", mmc_put(store, key("k"), data, 8, &options));
    options.preferred_ranks = twice, options.preferred_count = 2;
    REFUSED("preferred rank 0 is given twice", mmc_put(store, key("k"), data, 8, &options));
    options.replicas = 1;
    REFUSED("2 preferred ranks for 1 replicas", mmc_put(store, key("k"), data, 8, &options));
    options.preferred_ranks = &high, options.preferred_count = 1;
    REFUSED("preferred rank 65536", mmc_put(store, key("k"), data, 8, &options));
    options.preferred_ranks = &absent;
    REFUSED("preferred rank 3: it has no DRAM segment", mmc_put(store, key("k"), data, 8, &options));
    options.preferred_ranks = NULL;
    REFUSED("preferred_ranks is null", mmc_put(store, key("k"), data, 8, &options));
    options.preferred_count = 0, options.medium = 9;
    REFUSED("medium 9", mmc_put(store, key("k"), data, 8, &options));
    options.medium = MMC_MEDIUM_SSD;
    CHECK_FAILS(MMC_ERR_NO_SPACE, "no SSD segment is registered", mmc_put(store, key("k"), data, 8, &options));
#undef REFUSED
    CHECK_EQUAL(PAGE, statistics_of(store).allocated);
    close_store(store);
}

BEHAVIOUR(a_query_shows_an_object_and_where_it_lies) {
    mmc_store *store = open_store(MIB);
    CHECK_OK(put_filled(store, key("k"), 5000, 1, NULL));
    CHECK_OK(mmc_add_lease(store, key("k"), 60000));
    mmc_object_info info = query(store, key("k"));
    CHECK_EQUAL(sizeof info, info.struct_size);
    CHECK_EQUAL(1, info.readable);
    CHECK_EQUAL(5000, info.size);
    CHECK_EQUAL(1, info.blob_count);
    CHECK_EQUAL(1, info.lease_count);
    CHECK_EQUAL(MMC_MEDIUM_DRAM, info.blobs[0].medium);
    CHECK(info.blobs[0].address % PAGE == 0 && is_filled(info.blobs[0].data, 5000, 1));
    CHECK_EQUAL(0, info.blobs[1].medium);
    close_store(store);
}

BEHAVIOUR(remove_all_removes_what_can_be_read) {
    mmc_store *store = open_store(4 * MIB);
    mmc_view view = {.struct_size = sizeof view};
    uint64_t removed = 7;
    CHECK_OK(mmc_remove_all(store, &removed));
    CHECK_EQUAL(0, removed);
    for (unsigned i = 0; i < 300; i++) CHECK_OK(put_filled(store, keyf("k%u", i), 100, i, NULL));
    CHECK_OK(mmc_reserve(store, key("reserved"), 100, NULL, &view));
    CHECK_OK(mmc_remove_all(store, &removed));
    CHECK_EQUAL(300, removed);
    CHECK_EQUAL(0, statistics_of(store).stored_keys);
    CHECK_EQUAL(PAGE, statistics_of(store).allocated);
    CHECK_OK(mmc_commit(store, view.token));
    CHECK_OK(mmc_remove_all(store, NULL));
    CHECK_EQUAL(0, statistics_of(store).allocated);
    close_store(store);
}

// Cuts `size` bytes at `data` into pieces whose sizes follow from `seed`; how many there are.
static size_t cut(unsigned char *data, size_t size, unsigned seed, void **pieces, size_t *sizes) {
    size_t count = 0, at = 0;
    for (uint32_t state = seed * 2654435761u + 1; at < size; count++) {
        state = state * 1664525 + 1013904223;
        size_t piece = 1 + (state >> 16) % (count % 3 ? 700 : 5000);
        if (piece > size - at) piece = size - at;
        pieces[count] = data + at, sizes[count] = piece;
        at += piece;
    }
    return count;
}

BEHAVIOUR(a_get_may_split_an_object_otherwise_than_the_put_did) {
    enum { SIZE = 100001 };
    mmc_store *store = open_store(4 * MIB);
    unsigned char *from = malloc(SIZE), *into = malloc(SIZE);
    void **pieces = malloc(SIZE * sizeof *pieces);
    size_t *sizes = malloc(SIZE * sizeof *sizes);
    for (unsigned round = 0; round < load(100, 5); round++) {
        uint64_t true_size = 0;
        fill(from, SIZE, round);
        memset(into, 0, SIZE);
        size_t count = cut(from, SIZE, round, pieces, sizes);
        CHECK_OK(mmc_putv(store, key("k"), (const void *const *)pieces, sizes, count, NULL));
        count = cut(into, SIZE, round + 1000, pieces, sizes);
        CHECK_OK(mmc_getv(store, key("k"), pieces, sizes, count, 0, NULL, &true_size));
        CHECK_EQUAL(SIZE, true_size);
        CHECK(memcmp(from, into, SIZE) == 0);

        // And take a part of it, or offer more than it needs.
        memset(into, 0, SIZE);
        CHECK_CODE(MMC_ERR_SIZE_MISMATCH, mmc_getv(store, key("k"), pieces, sizes, count - 1, 0, NULL, NULL));
        CHECK_OK(mmc_getv(store, key("k"), pieces, sizes, count / 2, MMC_GET_UP_TO, NULL, &true_size));
        size_t half = (size_t)((unsigned char *)pieces[count / 2] - into);
        CHECK_EQUAL(SIZE, true_size);
        CHECK(memcmp(from, into, half) == 0);
        for (size_t i = half; i < SIZE; i++) CHECK(into[i] == 0);
        CHECK_OK(mmc_remove(store, key("k")));
    }
    free(from);
    free(into);
    free(pieces);
    free(sizes);
    close_store(store);
}

// A batch of `count` objects of `size` bytes, in and out.
typedef struct batch {
    size_t count, size;
    mmc_key *keys;
    unsigned char *data, *back;
    const void **from;
    void **into;
    size_t *sizes, *ones;
    int32_t *results;
    uint64_t *numbers;
} batch;

static batch batch_of(size_t count, size_t size) {
    batch batch = {count, size, many_keys("k", count), malloc(count * size), calloc(count, size), malloc(count * sizeof(void *)),
                   malloc(count * sizeof(void *)), malloc(count * sizeof(size_t)), malloc(count * sizeof(size_t)),
                   malloc(count * sizeof(int32_t)), malloc(count * sizeof(uint64_t))};
    for (size_t i = 0; i < count; i++) {
        fill(batch.data + i * size, size, i);
        batch.from[i] = batch.data + i * size, batch.into[i] = batch.back + i * size;
        batch.sizes[i] = size, batch.ones[i] = 1, batch.results[i] = 12345;
    }
    return batch;
}

static void free_batch(batch *batch) {
    void *all[] = {batch->keys, batch->data, batch->back, batch->from, batch->into, batch->sizes, batch->ones, batch->results, batch->numbers};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) free(all[i]);
}

static void check_results(const batch *batch, int32_t expected) {
    for (size_t i = 0; i < batch->count; i++) CHECK_CODE(expected, batch->results[i]);
}

BEHAVIOUR(one_that_fails_never_spoils_another_of_its_batch) {
    mmc_store *store = open_store(MIB);
    batch all = batch_of(6, 100);
    CHECK_OK(put_filled(store, key("k1"), 100, 77, NULL));
    all.keys[2].size = 0;
    all.from[3] = NULL;
    all.sizes[4] = 0;
    CHECK_OK(mmc_batch_put(store, all.keys, 6, all.from, all.sizes, NULL, 0, all.results));
    const int32_t put[] = {MMC_OK, MMC_ERR_EXISTS, MMC_ERR_INVALID_PARAM, MMC_ERR_INVALID_PARAM, MMC_ERR_INVALID_PARAM, MMC_OK};
    for (size_t i = 0; i < 6; i++) CHECK_CODE(put[i], all.results[i]);
    CHECK(has_filled(store, key("k1"), 100, 77) && has_filled(store, key("k0"), 100, 0) && has_filled(store, key("k5"), 100, 5));
    CHECK_EQUAL(3, statistics_of(store).stored_keys);

    all.sizes[4] = 100, all.sizes[5] = 99, all.into[0] = NULL;
    memset(all.back, 0xee, 600);
    CHECK_OK(mmc_batch_get(store, all.keys, 6, all.into, all.sizes, 0, NULL, all.results, all.numbers));
    const int32_t get[] = {MMC_ERR_INVALID_PARAM, MMC_OK,           MMC_ERR_INVALID_PARAM,
                           MMC_ERR_NOT_FOUND,     MMC_ERR_NOT_FOUND, MMC_ERR_SIZE_MISMATCH};
    for (size_t i = 0; i < 6; i++) {
        CHECK_CODE(get[i], all.results[i]);
        CHECK_EQUAL(i == 1 ? 100 : 0, all.numbers[i]);
        if (i != 1) CHECK_EQUAL(0xee, all.back[i * 100]);
    }
    CHECK(is_filled(all.back + 100, 100, 77));

    CHECK_OK(mmc_batch_exist(store, all.keys, 6, 0, all.results));
    const int32_t exist[] = {MMC_OK, MMC_OK, MMC_ERR_INVALID_PARAM, MMC_ERR_NOT_FOUND, MMC_ERR_NOT_FOUND, MMC_OK};
    for (size_t i = 0; i < 6; i++) CHECK_CODE(exist[i], all.results[i]);
    mmc_object_info infos[6];
    memset(infos, 0xee, sizeof infos);
    infos[0].struct_size = sizeof infos[0];
    CHECK_OK(mmc_batch_query(store, all.keys, 6, 0, infos, all.results));
    for (size_t i = 0; i < 6; i++) {
        CHECK_CODE(exist[i], all.results[i]);
        if (exist[i] == MMC_OK) CHECK_EQUAL(100, infos[i].size);
    }
    CHECK_OK(mmc_batch_remove(store, all.keys, 6, 0, all.results));
    for (size_t i = 0; i < 6; i++) CHECK_CODE(exist[i], all.results[i]);
    CHECK_EQUAL(0, statistics_of(store).allocated);
    free_batch(&all);
    close_store(store);
}

// The length of the prefix of `count` keys that is there.
static size_t prefix(mmc_store *store, const mmc_key *keys, size_t count) {
    size_t length = 12345;
    CHECK_OK(mmc_prefix_len(store, keys, count, 0, &length));
    return length;
}

BEHAVIOUR(a_prefix_ends_at_the_first_key_that_is_not_there) {
    enum { COUNT = 100 };
    mmc_store *store = open_store(MIB);
    batch all = batch_of(COUNT, 100);
    mmc_view view = {.struct_size = sizeof view};
    CHECK_EQUAL(0, prefix(store, all.keys, COUNT));
    CHECK_OK(mmc_batch_put(store, all.keys, COUNT, all.from, all.sizes, NULL, 0, all.results));
    CHECK_EQUAL(COUNT, prefix(store, all.keys, COUNT));
    CHECK_EQUAL(7, prefix(store, all.keys, 7));
    CHECK_EQUAL(0, prefix(store, all.keys, 0));
    CHECK_EQUAL(0, prefix(store, NULL, 0));
    static const size_t holes[] = {COUNT - 1, 50, 77, 1, 0};
    for (size_t i = 0, end = COUNT; i < sizeof holes / sizeof holes[0]; i++) {
        CHECK_OK(mmc_remove(store, all.keys[holes[i]]));
        end = holes[i] < end ? holes[i] : end;
        CHECK_EQUAL(end, prefix(store, all.keys, COUNT));
    }
    // One that is being written is not there.
    CHECK_OK(mmc_reserve(store, all.keys[0], 100, NULL, &view));
    CHECK_EQUAL(0, prefix(store, all.keys, COUNT));
    CHECK_OK(mmc_commit(store, view.token));
    CHECK_EQUAL(1, prefix(store, all.keys, COUNT));
    free_batch(&all);
    close_store(store);
}

BEHAVIOUR(a_prefix_is_asked_of_keys_and_counted_as_far_as_it_goes) {
    mmc_store *store = open_store(MIB);
    mmc_key names[] = {key("a"), key("b"), key(""), key("a")}, missing[] = {key("a"), key("missing"), key("")};
    size_t length = 12345;
    CHECK_OK(put_filled(store, key("a"), 10, 1, NULL));
    CHECK_OK(put_filled(store, key("b"), 10, 1, NULL));
#define REFUSED(words, call) \
    CHECK_FAILS(MMC_ERR_INVALID_PARAM, words, call); \
    CHECK_EQUAL(12345, length)
    REFUSED("mmc_prefix_len: key of 0 bytes", mmc_prefix_len(store, names, 4, 0, &length));
    REFUSED("keys is null", mmc_prefix_len(store, NULL, 1, 0, &length));
    REFUSED("length is null", mmc_prefix_len(store, names, 2, 0, NULL));
    REFUSED("flags 0x2: this function knows 0x1", mmc_prefix_len(store, names, 2, MMC_GET_UP_TO, &length));
    REFUSED("batch of 16385 keys: must be at most 16384", mmc_prefix_len(store, names, MMC_MAX_BATCH + 1, 0, &length));
#undef REFUSED
    mmc_statistics before = statistics_of(store);
    CHECK_EQUAL(2, before.exist_hits);
    CHECK_EQUAL(0, before.exist_misses);
    // What lies behind the end is not even looked at.
    CHECK_EQUAL(1, prefix(store, missing, 3));
    CHECK_EQUAL(2, prefix(store, names, 2));
    mmc_statistics after = statistics_of(store);
    CHECK_EQUAL(before.exist_hits + 3, after.exist_hits);
    CHECK_EQUAL(before.exist_misses + 1, after.exist_misses);
    close_store(store);
}

BEHAVIOUR(a_key_twice_in_a_batch_is_put_once) {
    mmc_store *store = open_store(MIB);
    batch all = batch_of(3, 100);
    all.keys[2] = all.keys[0];
    CHECK_OK(mmc_batch_put(store, all.keys, 3, all.from, all.sizes, NULL, 0, all.results));
    CHECK_CODE(MMC_OK, all.results[0]);
    CHECK_CODE(MMC_OK, all.results[1]);
    CHECK_CODE(MMC_ERR_EXISTS, all.results[2]);
    CHECK(has_filled(store, key("k0"), 100, 0));
    CHECK_EQUAL(2 * PAGE, statistics_of(store).allocated);
    free_batch(&all);
    close_store(store);
}

BEHAVIOUR(a_batch_of_several_buffers_a_key_knows_whose_is_whose) {
    enum { COUNT = 50, SIZE = 3000 };
    mmc_store *store = open_store(MIB);
    batch all = batch_of(COUNT, SIZE);
    static void *pieces[COUNT * SIZE];
    static size_t sizes[COUNT * SIZE];
    size_t counts[COUNT], total = 0;
    for (unsigned i = 0; i < COUNT; i++) total += counts[i] = cut(all.data + i * SIZE, SIZE, i, pieces + total, sizes + total);
    CHECK_OK(mmc_batch_putv(store, all.keys, COUNT, counts, (const void *const *)pieces, sizes, NULL, 0, all.results));
    check_results(&all, MMC_OK);
    total = 0;
    for (unsigned i = 0; i < COUNT; i++) total += counts[i] = cut(all.back + i * SIZE, SIZE, i + 99, pieces + total, sizes + total);
    CHECK_OK(mmc_batch_getv(store, all.keys, COUNT, counts, pieces, sizes, 0, NULL, all.results, all.numbers));
    check_results(&all, MMC_OK);
    CHECK(memcmp(all.data, all.back, COUNT * SIZE) == 0);

    // A key without a buffer is a mistake of its own; the next key's buffers are still its own.
    CHECK_OK(mmc_remove_all(store, NULL));
    size_t some[3] = {2, 0, 1};
    const void *from[3] = {all.data, all.data + 10, all.data + 20};
    size_t from_sizes[3] = {10, 10, 5};
    CHECK_OK(mmc_batch_putv(store, all.keys, 3, some, from, from_sizes, NULL, 0, all.results));
    CHECK_CODE(MMC_OK, all.results[0]);
    CHECK_CODE(MMC_ERR_INVALID_PARAM, all.results[1]);
    CHECK_CODE(MMC_OK, all.results[2]);
    char back[20];
    CHECK_OK(mmc_get(store, key("k0"), back, 20, 0, NULL, NULL));
    CHECK(memcmp(back, all.data, 20) == 0);
    CHECK_OK(mmc_get(store, key("k2"), back, 5, 0, NULL, NULL));
    CHECK(memcmp(back, all.data + 20, 5) == 0);
    free_batch(&all);
    close_store(store);
}

// Each batch call, on all that a batch has.
static int32_t call_batch(unsigned which, mmc_store *store, batch *all, mmc_view *views, mmc_object_info *infos) {
    size_t count = all->count;
    switch (which) {
        case 0: return mmc_batch_put(store, all->keys, count, all->from, all->sizes, NULL, 0, all->results);
        case 1: return mmc_batch_exist(store, all->keys, count, 0, all->results);
        case 2: return mmc_batch_query(store, all->keys, count, 0, infos, all->results);
        case 3: return mmc_batch_get(store, all->keys, count, all->into, all->sizes, 0, NULL, all->results, all->numbers);
        case 4: return mmc_batch_getv(store, all->keys, count, all->ones, all->into, all->sizes, 0, NULL, all->results, NULL);
        case 5: return mmc_batch_add_lease(store, all->keys, count, 60000, 0, all->results);
        case 6: return mmc_batch_remove_lease(store, all->keys, count, 0, all->results);
        case 7: return mmc_batch_pin(store, all->keys, count, 0, views, all->results);
        case 8: return mmc_batch_unpin(store, all->numbers, count, 0, all->results);
        case 9: return mmc_batch_remove(store, all->keys, count, 0, all->results);
        case 10: return mmc_batch_putv(store, all->keys, count, all->ones, all->from, all->sizes, NULL, 0, all->results);
        case 11: return mmc_batch_remove(store, all->keys, count, 0, all->results);
        case 12: return mmc_batch_reserve(store, all->keys, count, all->numbers, NULL, 0, views, all->results);
        case 13: return mmc_batch_abort(store, all->numbers, count, 0, all->results);
        case 14: return mmc_batch_reserve(store, all->keys, count, all->numbers, NULL, 0, views, all->results);
        case 15: return mmc_batch_commit(store, all->numbers, count, 0, all->results);
        default: return 1;
    }
}

BEHAVIOUR(every_batch_takes_none_to_16384_keys) {
    enum { LIMIT = MMC_MAX_BATCH };
    mmc_store *store = open_store((uint64_t)LIMIT * PAGE);
    batch all = batch_of(LIMIT + 1, 16);
    mmc_view *views = calloc(LIMIT + 1, sizeof *views);
    mmc_object_info *infos = calloc(LIMIT + 1, sizeof *infos);
    batch none = {.count = 0};
    unsigned which = 0;
    for (;; which++) {
        views[0].struct_size = sizeof *views, infos[0].struct_size = sizeof *infos;
        // What reserve takes are sizes; what ends something takes tokens.
        for (size_t i = 0; i < LIMIT; i++) all.numbers[i] = which == 12 || which == 14 ? 16 : views[i].token;
        int32_t code = call_batch(which, store, &none, NULL, NULL);
        if (code == 1) break;
        CHECK_CODE(MMC_OK, code);
        all.count = LIMIT + 1;
        for (size_t i = 0; i < all.count; i++) all.results[i] = 12345;
        CHECK_FAILS(MMC_ERR_INVALID_PARAM, "batch of 16385 keys: must be at most 16384", call_batch(which, store, &all, views, infos));
        for (size_t i = 0; i < all.count; i++) CHECK_EQUAL(12345, all.results[i]);
        all.count = LIMIT;
        CHECK_OK(call_batch(which, store, &all, views, infos));
        check_results(&all, MMC_OK);
    }
    CHECK_EQUAL(16, which);
    CHECK(memcmp(all.data, all.back, (size_t)LIMIT * 16) == 0);
    CHECK_EQUAL(LIMIT, statistics_of(store).stored_keys);
    CHECK_EQUAL((uint64_t)LIMIT * PAGE, statistics_of(store).allocated);
    free_batch(&all);
    free(views);
    free(infos);
    close_store(store);
}

BEHAVIOUR(a_batch_that_can_not_begin_writes_no_results) {
    mmc_store *store = open_store(MIB);
    batch all = batch_of(2, 100);
    mmc_object_info info = {.struct_size = sizeof info};
#define REFUSED(words, call) \
    CHECK_FAILS(MMC_ERR_INVALID_PARAM, words, call); \
    CHECK_EQUAL(12345, all.results[0]); \
    CHECK_EQUAL(12345, all.results[1])
    REFUSED("keys is null", mmc_batch_put(store, NULL, 2, all.from, all.sizes, NULL, 0, all.results));
    REFUSED("data is null", mmc_batch_put(store, all.keys, 2, NULL, all.sizes, NULL, 0, all.results));
    REFUSED("sizes is null", mmc_batch_put(store, all.keys, 2, all.from, NULL, NULL, 0, all.results));
    REFUSED("results is null", mmc_batch_put(store, all.keys, 2, all.from, all.sizes, NULL, 0, NULL));
    REFUSED("flags 0x1: this function knows 0x0", mmc_batch_put(store, all.keys, 2, all.from, all.sizes, NULL, MMC_PEEK, all.results));
    REFUSED("flags", mmc_batch_get(store, all.keys, 2, all.into, all.sizes, 8, NULL, all.results, NULL));
    REFUSED("buffer_counts is null", mmc_batch_putv(store, all.keys, 2, NULL, all.from, all.sizes, NULL, 0, all.results));
    REFUSED("mmc_object_info is null", mmc_batch_query(store, all.keys, 2, 0, NULL, all.results));
    REFUSED("flags", mmc_batch_remove(store, all.keys, 2, 1, all.results));
    REFUSED("tokens is null", mmc_batch_unpin(store, NULL, 2, 0, all.results));
    size_t much[2] = {SIZE_MAX, 2};
    REFUSED("", mmc_batch_putv(store, all.keys, 2, much, all.from, all.sizes, NULL, 0, all.results));
    mmc_put_options options = {.struct_size = sizeof options, .replicas = 9};
    REFUSED("9 replicas", mmc_batch_put(store, all.keys, 2, all.from, all.sizes, &options, 0, all.results));
#undef REFUSED
    CHECK_EQUAL(0, statistics_of(store).allocated);
    free_batch(&all);
    close_store(store);
}

// Threads that do everything to the same few keys.
static void *hammer(void *argument) {
    mmc_store *store = argument;
    static _Atomic(unsigned) next;
    unsigned state = 12345 + next++;
    unsigned char data[20000];
    for (size_t i = 0; i < load(30000, 300); i++) {
        state = state * 1664525 + 1013904223;
        unsigned number = (state >> 24) % 40;
        // An object's size and bytes follow from its key.
        size_t size = 1 + number * 499;
        uint64_t true_size = 0;
        mmc_view view = {.struct_size = sizeof view};
        mmc_key name = keyf("k%u", number);
        int32_t code;
        switch ((state >> 16) % 6) {
            case 0:
                code = put_filled(store, name, size, number, NULL);
                CHECK(code == MMC_OK || code == MMC_ERR_EXISTS || code == MMC_ERR_NO_SPACE);
                break;
            case 1:
                code = mmc_remove(store, name);
                CHECK(code == MMC_OK || code == MMC_ERR_NOT_FOUND);
                break;
            case 2:
                code = mmc_pin(store, name, 0, &view);
                CHECK(code == MMC_OK || code == MMC_ERR_NOT_FOUND);
                if (code != MMC_OK) break;
                CHECK(view.size == size && is_filled(view.data, size, number));
                CHECK_OK(mmc_unpin(store, view.token));
                break;
            case 3:
                code = mmc_reserve(store, name, size, NULL, &view);
                CHECK(code == MMC_OK || code == MMC_ERR_EXISTS || code == MMC_ERR_NO_SPACE);
                if (code != MMC_OK) break;
                fill(view.data, size, number);
                CHECK_OK(state & 1 << 15 ? mmc_commit(store, view.token) : mmc_abort(store, view.token));
                break;
            default:
                code = mmc_get(store, name, data, sizeof data, MMC_GET_UP_TO, NULL, &true_size);
                CHECK(code == MMC_OK || code == MMC_ERR_NOT_FOUND);
                if (code == MMC_OK) CHECK(true_size == size && is_filled(data, size, number));
        }
    }
    return NULL;
}

BEHAVIOUR(threads_never_see_torn_bytes_nor_lose_space) {
    // A quarter of what the keys need, so that eviction takes part.
    mmc_store *store = open_store(32 * PAGE);
    pthread_t threads[4];
    for (size_t i = 0; i < 4; i++) threads[i] = start(hammer, store);
    for (size_t i = 0; i < 4; i++) join(threads[i]);
    CHECK_OK(mmc_remove_all(store, NULL));
    mmc_statistics statistics = statistics_of(store);
    CHECK_EQUAL(0, statistics.allocated);
    CHECK_EQUAL(0, statistics.stored_keys + statistics.pins + statistics.reservations);
    CHECK(statistics.evict_operations > 0);
    CHECK_OK(put_filled(store, key("all of it"), 32 * PAGE, 1, NULL));
    close_store(store);
}
