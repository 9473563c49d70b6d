// By pool address: parts of objects written and read by those who know where they lie.

#include "check.h"

static mmc_view reserve(mmc_store *store, mmc_key name, uint64_t size, const mmc_put_options *options) {
    mmc_view view = {.struct_size = sizeof view};
    CHECK_OK(mmc_reserve(store, name, size, options, &view));
    return view;
}

static mmc_put_options lasting(uint64_t term_ms) { return (mmc_put_options){.struct_size = sizeof(mmc_put_options), .term_ms = term_ms}; }

static uint64_t allocated(mmc_store *store) { return statistics_of(store).allocated; }

// Copies one range; its code.
static int32_t copy(mmc_store *store, uint64_t address, void *data, size_t size, uint32_t direction) {
    int32_t result = 12345;
    CHECK_OK(mmc_batch_copy(store, &address, 1, &data, &size, direction, 0, NULL, &result));
    return result;
}

static int32_t write_at(mmc_store *store, uint64_t address, void *data, size_t size) {
    return copy(store, address, data, size, MMC_COPY_TO_SEGMENT);
}

static int32_t read_at(mmc_store *store, uint64_t address, void *data, size_t size) {
    return copy(store, address, data, size, MMC_COPY_FROM_SEGMENT);
}

// Whether the object that lies there can be read and has these bytes.
static int has_filled_at(mmc_store *store, uint64_t address, size_t size, uint64_t seed) {
    void *data = calloc(1, size);
    int is_good = read_at(store, address, data, size) == MMC_OK && is_filled(data, size, seed);
    free(data);
    return is_good;
}

BEHAVIOUR(layers_are_written_and_read_as_they_come) {
    enum { BLOCKS = 64, LAYERS = 9, LAYER = 777, SIZE = LAYERS * LAYER, HALF = SIZE / 2 };
    uint64_t term = is_slow() ? 3000 : 1000;
    mmc_store *store = open_store(MIB);
    mmc_key *names = many_keys("block", BLOCKS);
    static unsigned char blocks[BLOCKS][SIZE], back[BLOCKS][SIZE];
    static mmc_view views[BLOCKS];
    uint64_t addresses[BLOCKS];
    void *data[BLOCKS];
    size_t sizes[BLOCKS];
    int32_t results[BLOCKS];
    for (size_t i = 0; i < BLOCKS; i++) {
        views[i] = reserve(store, names[i], SIZE, NULL);
        fill(blocks[i], SIZE, i);
    }
    // A layer of every block with each call, the last layer first.
    for (size_t layer = LAYERS; layer-- > 0;) {
        for (size_t i = 0; i < BLOCKS; i++) {
            addresses[i] = views[i].address + layer * LAYER, data[i] = blocks[i] + layer * LAYER, sizes[i] = LAYER;
        }
        CHECK_OK(mmc_batch_copy(store, addresses, BLOCKS, data, sizes, MMC_COPY_TO_SEGMENT, 0, NULL, results));
        for (size_t i = 0; i < BLOCKS; i++) CHECK_OK(results[i]);
    }
    for (size_t i = 0; i < BLOCKS; i++) CHECK_OK(mmc_commit(store, views[i].token));
    CHECK_EQUAL(BLOCKS * SIZE, statistics_of(store).put_bytes);
    for (size_t i = 0; i < BLOCKS; i++) CHECK(has_filled(store, names[i], SIZE, i));

    // Whoever asks where they lie and leases them reads them in other pieces, when they are removed, too.
    uint64_t begin = milliseconds(), got = statistics_of(store).get_bytes;
    for (size_t i = 0; i < BLOCKS; i++) {
        addresses[i] = query(store, names[i]).blobs[0].address;
        CHECK_EQUAL(views[i].address, addresses[i]);
        CHECK_OK(mmc_add_lease(store, names[i], term));
    }
    for (size_t round = 0; round < 2; round++) {
        for (size_t i = 0; i < BLOCKS; i++) data[i] = back[i], sizes[i] = HALF;
        memset(back, 0, sizeof back);
        CHECK_OK(mmc_batch_copy(store, addresses, BLOCKS, data, sizes, MMC_COPY_FROM_SEGMENT, 0, NULL, results));
        for (size_t i = 0; i < BLOCKS; i++) {
            CHECK_OK(results[i]);
            addresses[i] += HALF, data[i] = back[i] + HALF, sizes[i] = SIZE - HALF;
        }
        CHECK_OK(mmc_batch_copy(store, addresses, BLOCKS, data, sizes, MMC_COPY_FROM_SEGMENT, 0, NULL, results));
        for (size_t i = 0; i < BLOCKS; i++) {
            CHECK_OK(results[i]);
            addresses[i] -= HALF;
        }
        CHECK(memcmp(blocks, back, sizeof blocks) == 0);
        CHECK_EQUAL(got + (round + 1) * BLOCKS * SIZE, statistics_of(store).get_bytes);
        if (round == 0) CHECK_OK(mmc_remove_all(store, NULL));
        CHECK(milliseconds() < begin + term); // or this machine is too slow for the test
    }
    CHECK_EQUAL(BLOCKS * 2 * PAGE, allocated(store));

    // With the leases their bytes are gone.
    CHECK_SOON(statistics_of(store).leases == 0);
    memset(back, 0xee, sizeof back);
    CHECK_OK(mmc_batch_copy(store, addresses, BLOCKS, data, sizes, MMC_COPY_FROM_SEGMENT, 0, NULL, results));
    for (size_t i = 0; i < BLOCKS; i++) CHECK_CODE(MMC_ERR_NOT_FOUND, results[i]);
    for (size_t i = 0; i < BLOCKS; i++) CHECK(back[i][0] == 0xee && back[i][HALF] == 0xee && back[i][SIZE - 1] == 0xee);
    CHECK_SOON(allocated(store) == 0);
    free(names);
    close_store(store);
}

BEHAVIOUR(a_range_begins_and_ends_at_any_byte) {
    enum { SIZE = 3 * 4096 + 5 };
    static const size_t starts[] = {0, 1, 63, 64, 65, 2047, 4095, 4096, 4097, 8191, SIZE - 2049, SIZE - 65, SIZE - 1};
    static const size_t lengths[] = {1, 2, 63, 64, 65, 2047, 2048, 2049, 4096, 4099, 8192, SIZE - 1, SIZE};
    mmc_store *store = open_store(MIB);
    static unsigned char expected[SIZE], data[SIZE + 64], back[SIZE + 64];
    mmc_view view = reserve(store, key("k"), SIZE, NULL);
    memset(view.data, 0, 4 * PAGE);
    for (size_t i = 0; i < sizeof starts / sizeof starts[0]; i++) {
        for (size_t j = 0; j < sizeof lengths / sizeof lengths[0]; j++) {
            size_t start = starts[i], length = lengths[j];
            if (start + length > SIZE) continue;
            unsigned char *from = data + (i * 7 + j) % 64;
            fill(from, length, i * 100 + j);
            memcpy(expected + start, from, length);
            CHECK_OK(write_at(store, view.address + start, from, length));
            CHECK(memcmp(expected, view.data, SIZE) == 0);
        }
    }
    for (size_t i = SIZE; i < 4 * PAGE; i++) CHECK(((unsigned char *)view.data)[i] == 0);
    CHECK_OK(mmc_commit(store, view.token));
    for (size_t i = 0; i < sizeof starts / sizeof starts[0]; i++) {
        for (size_t j = 0; j < sizeof lengths / sizeof lengths[0]; j++) {
            size_t start = starts[i], length = lengths[j];
            unsigned char *into = back + (i * 5 + j) % 64;
            memset(back, 0xee, sizeof back);
            CHECK_CODE(start + length <= SIZE ? MMC_OK : MMC_ERR_NOT_FOUND, read_at(store, view.address + start, into, length));
            if (start + length > SIZE) length = 0;
            CHECK(memcmp(expected + start, into, length) == 0);
            for (unsigned char *at = back; at < back + sizeof back; at++) CHECK((at >= into && at < into + length) || *at == 0xee);
        }
    }
    close_store(store);
}

BEHAVIOUR(each_range_has_its_code) {
    mmc_store *store = open_store(MIB);
    uint64_t second = register_dram(store, 1, MIB, NULL);
    CHECK_OK(put_filled(store, key("a"), 5000, 1, NULL));
    CHECK_OK(put_filled(store, key("b"), 100, 2, NULL));
    uint64_t a = query(store, key("a")).blobs[0].address, b = query(store, key("b")).blobs[0].address;
    mmc_segment_info segment = {.struct_size = sizeof segment};
    size_t count;
    CHECK_OK(mmc_list_segments(store, &segment, 1, &count));
    uint64_t first = segment.address, reserved = reserve(store, key("r"), 100, NULL).address;
    mmc_view aborted = reserve(store, key("aborted"), 100, NULL);
    CHECK_OK(mmc_abort(store, aborted.token));
    unsigned char data[5001];
    const struct {
        uint64_t address;
        void *data;
        size_t size;
        int32_t from, to;
    } cases[] = {
        {a, data, 5000, MMC_OK, MMC_ERR_STATE},
        {0, data, 100, MMC_ERR_INVALID_PARAM, MMC_ERR_INVALID_PARAM},
        {a, NULL, 100, MMC_ERR_INVALID_PARAM, MMC_ERR_INVALID_PARAM},
        {a, data, 0, MMC_ERR_INVALID_PARAM, MMC_ERR_INVALID_PARAM},
        {a, data, SIZE_MAX, MMC_ERR_INVALID_PARAM, MMC_ERR_INVALID_PARAM},
        // Where nothing is.
        {1, data, 100, MMC_ERR_NOT_FOUND, MMC_ERR_NOT_FOUND},
        {first - 1, data, 2, MMC_ERR_NOT_FOUND, MMC_ERR_NOT_FOUND},
        {first + MIB, data, 100, MMC_ERR_NOT_FOUND, MMC_ERR_NOT_FOUND},
        {first + MIB - 1, data, 100, MMC_ERR_NOT_FOUND, MMC_ERR_NOT_FOUND},
        {second, data, 100, MMC_ERR_NOT_FOUND, MMC_ERR_NOT_FOUND},
        {second + MIB - 1, data, 1, MMC_ERR_NOT_FOUND, MMC_ERR_NOT_FOUND},
        {UINT64_MAX, data, 100, MMC_ERR_NOT_FOUND, MMC_ERR_NOT_FOUND},
        {aborted.address, data, 100, MMC_ERR_NOT_FOUND, MMC_ERR_NOT_FOUND},
        // Behind an object's end, though it has the rest of the page.
        {a + 4999, data, 1, MMC_OK, MMC_ERR_STATE},
        {a + 4999, data, 2, MMC_ERR_NOT_FOUND, MMC_ERR_STATE},
        {a + 5000, data, 1, MMC_ERR_NOT_FOUND, MMC_ERR_STATE},
        {a + 8191, data, 1, MMC_ERR_NOT_FOUND, MMC_ERR_STATE},
        {a, data, 5001, MMC_ERR_NOT_FOUND, MMC_ERR_STATE},
        {reserved, data, 100, MMC_ERR_STATE, MMC_OK},
        {reserved + 99, data, 2, MMC_ERR_STATE, MMC_ERR_NOT_FOUND},
        {b + 50, data, 50, MMC_OK, MMC_ERR_STATE},
    };
    enum { COUNT = sizeof cases / sizeof cases[0] };
    uint64_t addresses[COUNT];
    void *buffers[COUNT];
    size_t sizes[COUNT];
    int32_t results[COUNT];
    for (size_t i = 0; i < COUNT; i++) addresses[i] = cases[i].address, buffers[i] = cases[i].data, sizes[i] = cases[i].size;
    memset(data, 0xee, sizeof data);
    CHECK_OK(mmc_batch_copy(store, addresses, COUNT, buffers, sizes, MMC_COPY_TO_SEGMENT, 0, NULL, results));
    for (size_t i = 0; i < COUNT; i++) {
        if (results[i] != cases[i].to) fail(__FILE__, __LINE__, "writing case %zu: got %s", i, mmc_error_name(results[i]));
    }
    CHECK(has_filled(store, key("a"), 5000, 1) && has_filled(store, key("b"), 100, 2));
    CHECK_OK(mmc_batch_copy(store, addresses, COUNT, buffers, sizes, MMC_COPY_FROM_SEGMENT, 0, NULL, results));
    for (size_t i = 0; i < COUNT; i++) {
        if (results[i] != cases[i].from) fail(__FILE__, __LINE__, "reading case %zu: got %s", i, mmc_error_name(results[i]));
    }
    // All of them went to the same place; what was got last is the end of "b".
    unsigned char whole[100];
    fill(whole, 100, 2);
    CHECK(memcmp(data, whole + 50, 50) == 0 && data[5000] == 0xee);

    CHECK_OK(mmc_remove(store, key("a")));
    CHECK_CODE(MMC_ERR_NOT_FOUND, read_at(store, a, data, 1));
    CHECK_OK(mmc_unregister_segment(store, second));
    CHECK_CODE(MMC_ERR_NOT_FOUND, read_at(store, second, data, 1));
    close_store(store);
}

BEHAVIOUR(a_call_that_can_not_begin_writes_no_results) {
    mmc_store *store = open_store(MIB);
    CHECK_OK(put_filled(store, key("k"), 100, 1, NULL));
    static uint64_t addresses[MMC_MAX_BATCH + 1];
    static void *data[MMC_MAX_BATCH + 1];
    static size_t sizes[MMC_MAX_BATCH + 1];
    static int32_t results[MMC_MAX_BATCH + 1];
    static unsigned char bytes[100];
    mmc_get_options options = {.struct_size = sizeof options, .reserved = 1};
    const uint32_t from = MMC_COPY_FROM_SEGMENT;
    for (size_t i = 0; i <= MMC_MAX_BATCH; i++) {
        addresses[i] = query(store, key("k")).blobs[0].address + i % 100, data[i] = bytes + i % 100, sizes[i] = 1, results[i] = 12345;
    }
#define REFUSED(words, call) \
    CHECK_FAILS(MMC_ERR_INVALID_PARAM, words, call); \
    CHECK_EQUAL(12345, results[0])
    REFUSED("direction 0: must be MMC_COPY_TO_SEGMENT (1)", mmc_batch_copy(store, addresses, 1, data, sizes, 0, 0, NULL, results));
    REFUSED("direction 3", mmc_batch_copy(store, addresses, 1, data, sizes, 3, 0, NULL, results));
    REFUSED("flags 0x1: this function knows 0x0", mmc_batch_copy(store, addresses, 1, data, sizes, from, MMC_PEEK, NULL, results));
    REFUSED("addresses is null", mmc_batch_copy(store, NULL, 1, data, sizes, from, 0, NULL, results));
    REFUSED("data is null", mmc_batch_copy(store, addresses, 1, NULL, sizes, from, 0, NULL, results));
    REFUSED("sizes is null", mmc_batch_copy(store, addresses, 1, data, NULL, from, 0, NULL, results));
    REFUSED("results is null", mmc_batch_copy(store, addresses, 1, data, sizes, from, 0, NULL, NULL));
    REFUSED("reserved field of mmc_get_options", mmc_batch_copy(store, addresses, 1, data, sizes, from, 0, &options, results));
    REFUSED("batch of 16385", mmc_batch_copy(store, addresses, MMC_MAX_BATCH + 1, data, sizes, from, 0, NULL, results));
#undef REFUSED
    CHECK_OK(mmc_batch_copy(store, NULL, 0, NULL, NULL, from, 0, NULL, NULL));
    CHECK_OK(mmc_batch_copy(store, addresses, MMC_MAX_BATCH, data, sizes, from, 0, NULL, results));
    for (size_t i = 0; i < MMC_MAX_BATCH; i++) CHECK_OK(results[i]);
    CHECK(is_filled(bytes, 100, 1));
    CHECK_EQUAL(MMC_MAX_BATCH, statistics_of(store).get_bytes);
    close_store(store);
}

BEHAVIOUR(what_was_never_published_is_never_read) {
    // Past its term a reservation is neither readable nor its holder's to write by its address; its memory is not given to others.
    mmc_store *store = open_store(MIB);
    unsigned char data[5000];
    for (unsigned i = 0; i < 10; i++) {
        mmc_put_options options = lasting(1);
        mmc_view view = reserve(store, key("k"), sizeof data, &options);
        CHECK_SOON(put_filled(store, key("k"), 100, 7, NULL) == MMC_OK);
        memset(view.data, 0x55, sizeof data);
        memset(data, 0xee, sizeof data);
        CHECK_CODE(MMC_ERR_NOT_FOUND, read_at(store, view.address, data, sizeof data));
        CHECK_CODE(MMC_ERR_NOT_FOUND, write_at(store, view.address, data, sizeof data));
        CHECK(data[0] == 0xee && ((unsigned char *)view.data)[4999] == 0x55);
        // Nor with a lease on the object that has its key now.
        CHECK_OK(mmc_add_lease(store, key("k"), 60000));
        CHECK_CODE(MMC_ERR_NOT_FOUND, read_at(store, view.address, data, sizeof data));
        CHECK_OK(mmc_remove_lease(store, key("k")));
        CHECK_FAILS(MMC_ERR_TIMEOUT, "its term had passed", mmc_commit(store, view.token));
        CHECK_OK(mmc_remove(store, key("k")));
    }
    CHECK_EQUAL(0, allocated(store));
    close_store(store);
}

BEHAVIOUR(a_removed_object_is_read_under_its_leases_only) {
    mmc_store *store = open_store(MIB);
    CHECK_OK(put_filled(store, key("k"), 5000, 1, NULL));
    uint64_t address = query(store, key("k")).blobs[0].address, term = is_slow() ? 3000 : 500;
    unsigned char data[5000];
    mmc_view pinned = {.struct_size = sizeof pinned};
    CHECK_OK(mmc_pin(store, key("k"), 0, &pinned));
    uint64_t begin = milliseconds();
    CHECK_OK(mmc_add_lease(store, key("k"), term));
    CHECK_OK(mmc_remove(store, key("k")));
    CHECK(has_filled_at(store, address, 5000, 1));
    CHECK_CODE(MMC_ERR_NOT_FOUND, write_at(store, address, data, 1));
    CHECK_OK(put_filled(store, key("k"), 5000, 2, NULL));
    CHECK(has_filled_at(store, address, 5000, 1));
    CHECK(milliseconds() < begin + term); // or this machine is too slow for the test
    // A pin is somebody's who has a pointer.
    CHECK_SOON(read_at(store, address, data, 1) == MMC_ERR_NOT_FOUND);
    CHECK(milliseconds() >= begin + term - 1);
    CHECK(is_filled(pinned.data, 5000, 1));
    CHECK_OK(mmc_unpin(store, pinned.token));
    CHECK_SOON(allocated(store) == 2 * PAGE);
    close_store(store);
}

BEHAVIOUR(of_several_copies_the_first_is_written_and_each_is_read) {
    mmc_store *store = open_store(MIB);
    for (uint32_t rank = 1; rank < 3; rank++) register_dram(store, rank, MIB, NULL);
    mmc_put_options options = {.struct_size = sizeof options, .replicas = 3};
    mmc_object_info info = {.struct_size = sizeof info};
    unsigned char data[5000];
    fill(data, sizeof data, 1);
    mmc_view view = reserve(store, key("k"), sizeof data, &options);
    CHECK_OK(mmc_query(store, key("k"), MMC_QUERY_RESERVED, &info));
    CHECK_EQUAL(3, info.blob_count);
    CHECK_EQUAL(view.address, info.blobs[0].address);
    CHECK_OK(write_at(store, view.address, data, 3000));
    CHECK_OK(write_at(store, view.address + 3000, data + 3000, 2000));
    for (uint32_t i = 1; i < 3; i++) CHECK_CODE(MMC_ERR_NOT_FOUND, write_at(store, info.blobs[i].address, data, 1));
    for (uint32_t i = 0; i < 3; i++) CHECK_CODE(MMC_ERR_STATE, read_at(store, info.blobs[i].address, data, 1));
    CHECK_OK(mmc_commit(store, view.token));
    for (uint32_t i = 0; i < 3; i++) {
        CHECK(has_filled_at(store, info.blobs[i].address, sizeof data, 1));
        CHECK_CODE(MMC_ERR_STATE, write_at(store, info.blobs[i].address, data, 1));
    }
    close_store(store);
}

// ---- Devices, whose callback is a moment in the middle of a copy

typedef struct slow {
    mmc_store *store;
    device memory;
    uint64_t segment, address;
    sem_t begun, go_on;
    void *data;
    size_t size;
    uint32_t direction;
    int32_t result;
    _Atomic(int) is_done;
} slow;

static void open_slow(slow *self) {
    self->store = open_store(MMC_NO_DRAM);
    self->memory = device_of(MIB);
    self->segment = register_device(self->store, &self->memory, 0);
    sem_init(&self->begun, 0, 0);
    sem_init(&self->go_on, 0, 0);
}

static void close_slow(slow *self) {
    close_store(self->store);
    free(self->memory.memory);
}

static void *copy_slowly(void *argument) {
    slow *self = argument;
    self->result = copy(self->store, self->address, self->data, self->size, self->direction);
    return NULL;
}

// Starts a copy on a thread and returns when it is in the middle.
static pthread_t begin_slowly(slow *self, uint64_t address, void *data, size_t size, uint32_t direction) {
    self->address = address, self->data = data, self->size = size, self->direction = direction;
    self->memory.begun = &self->begun, self->memory.go_on = &self->go_on;
    pthread_t thread = start(copy_slowly, self);
    sem_wait(&self->begun);
    self->memory.begun = NULL;
    return thread;
}

static void end_slowly(slow *self, pthread_t thread) {
    sem_post(&self->go_on);
    join(thread);
    CHECK_OK(self->result);
}

BEHAVIOUR(a_device_gets_all_ranges_of_a_call_as_one_submission) {
    enum { COUNT = 100, SIZE = 1000 };
    device memory = device_of(MIB);
    mmc_store *store = open_store(MMC_NO_DRAM);
    uint64_t segment = register_device(store, &memory, 0);
    static unsigned char data[COUNT][SIZE], back[COUNT][SIZE];
    uint64_t addresses[COUNT];
    void *from[COUNT], *into[COUNT];
    size_t sizes[COUNT];
    int32_t results[COUNT];
    mmc_view view = reserve(store, key("k"), COUNT * SIZE, NULL);
    CHECK(view.data == NULL);
    for (size_t i = 0; i < COUNT; i++) {
        fill(data[i], SIZE, i);
        addresses[i] = view.address + i * SIZE, from[i] = data[i], into[i] = back[i], sizes[i] = SIZE;
    }
    int stream;
    mmc_get_options options = {.struct_size = sizeof options, .stream = &stream};
    CHECK_OK(mmc_batch_copy(store, addresses, COUNT, from, sizes, MMC_COPY_TO_SEGMENT, 0, &options, results));
    for (size_t i = 0; i < COUNT; i++) CHECK_OK(results[i]);
    CHECK_EQUAL(1, memory.calls);
    CHECK_EQUAL(COUNT, memory.operations);
    CHECK_EQUAL(MMC_COPY_TO_SEGMENT, memory.direction);
    CHECK(memory.stream == &stream && memcmp(memory.memory + (view.address - segment), data, sizeof data) == 0);
    CHECK_OK(mmc_commit(store, view.token));
    addresses[COUNT - 1] += 1; // one that ends too far
    CHECK_OK(mmc_batch_copy(store, addresses, COUNT, into, sizes, MMC_COPY_FROM_SEGMENT, 0, NULL, results));
    for (size_t i = 0; i < COUNT; i++) CHECK_CODE(i < COUNT - 1 ? MMC_OK : MMC_ERR_NOT_FOUND, results[i]);
    CHECK_EQUAL(2, memory.calls);
    CHECK_EQUAL(COUNT - 1, memory.operations);
    CHECK(memory.stream == NULL && memcmp(data, back, sizeof data - SIZE) == 0);
    close_store(store);
    free(memory.memory);
}

BEHAVIOUR(a_device_that_fails_gives_its_ranges_its_code_and_no_others) {
    enum { SIZE = 1000 };
    device memory = device_of(MIB);
    mmc_store *store = open_store(MIB);
    register_device(store, &memory, 0);
    mmc_put_options hbm = {.struct_size = sizeof hbm, .medium = MMC_MEDIUM_HBM};
    unsigned char data[3][SIZE];
    mmc_view near = reserve(store, key("near"), SIZE, NULL), far = reserve(store, key("far"), 2 * SIZE, &hbm);
    uint64_t addresses[] = {far.address, near.address, far.address + SIZE};
    void *buffers[] = {data[0], data[1], data[2]};
    size_t sizes[] = {SIZE, SIZE, SIZE};
    int32_t results[3];
    fill(data[1], SIZE, 1);
    memory.returns = -77;
    CHECK_OK(mmc_batch_copy(store, addresses, 3, buffers, sizes, MMC_COPY_TO_SEGMENT, 0, NULL, results));
    CHECK_EQUAL((uint32_t)-77, (uint32_t)results[0]);
    CHECK_OK(results[1]);
    CHECK_EQUAL((uint32_t)-77, (uint32_t)results[2]);
    CHECK(is_filled(near.data, SIZE, 1));
    // Both are still reserved, and nothing else has become of them.
    memory.returns = 0;
    CHECK_OK(mmc_batch_copy(store, addresses, 3, buffers, sizes, MMC_COPY_TO_SEGMENT, 0, NULL, results));
    CHECK(results[0] == MMC_OK && results[1] == MMC_OK && results[2] == MMC_OK);
    CHECK_OK(mmc_commit(store, near.token));
    CHECK_OK(mmc_commit(store, far.token));
    memory.returns = 1;
    CHECK_OK(mmc_batch_copy(store, addresses, 3, buffers, sizes, MMC_COPY_FROM_SEGMENT, 0, NULL, results));
    CHECK(results[0] == MMC_ERR_FAILED && results[1] == MMC_OK && results[2] == MMC_ERR_FAILED);
    CHECK_EQUAL(SIZE, statistics_of(store).get_bytes);
    CHECK_OK(mmc_remove_all(store, NULL));
    CHECK_EQUAL(0, allocated(store));
    close_store(store);
    free(memory.memory);
}

BEHAVIOUR(an_abort_in_the_middle_leaves_the_memory_to_the_copy) {
    slow slow = {0};
    unsigned char data[5000] = "";
    open_slow(&slow);
    mmc_view view = reserve(slow.store, key("k"), sizeof data, NULL);
    pthread_t copying = begin_slowly(&slow, view.address, data, sizeof data, MMC_COPY_TO_SEGMENT);
    CHECK_OK(mmc_abort(slow.store, view.token));
    CHECK_EQUAL(2 * PAGE, allocated(slow.store));
    CHECK_CODE(MMC_ERR_NOT_FOUND, write_at(slow.store, view.address, data, 1));
    // The key is free at once, and its next object lies elsewhere.
    CHECK_OK(put_filled(slow.store, key("k"), sizeof data, 2, NULL));
    CHECK(query(slow.store, key("k")).blobs[0].address != view.address);
    end_slowly(&slow, copying);
    CHECK_EQUAL(2 * PAGE, allocated(slow.store));
    CHECK(has_filled(slow.store, key("k"), sizeof data, 2));
    close_slow(&slow);
}

static void *put_all_of_it(void *argument) {
    slow *self = argument;
    CHECK_OK(put_filled(self->store, key("all"), MIB, 3, NULL));
    self->is_done = 1;
    return NULL;
}

BEHAVIOUR(a_put_waits_for_the_copy_into_memory_that_was_given_up) {
    slow slow = {0};
    static unsigned char data[MIB];
    open_slow(&slow);
    mmc_view view = reserve(slow.store, key("k"), MIB, NULL);
    pthread_t copying = begin_slowly(&slow, view.address, data, MIB, MMC_COPY_TO_SEGMENT);
    CHECK_CODE(MMC_ERR_NO_SPACE, put_filled(slow.store, key("all"), MIB, 3, NULL));
    CHECK_OK(mmc_abort(slow.store, view.token));
    pthread_t putting = start(put_all_of_it, &slow);
    CHECK_SOON(statistics_of(slow.store).alloc_operations == 3);
    usleep(20000);
    CHECK_EQUAL(0, slow.is_done);
    end_slowly(&slow, copying);
    join(putting);
    CHECK(has_filled(slow.store, key("all"), MIB, 3));
    close_slow(&slow);
}

BEHAVIOUR(a_commit_in_the_middle_publishes_what_the_copy_then_ends) {
    slow slow = {0};
    unsigned char data[5000];
    open_slow(&slow);
    fill(data, sizeof data, 1);
    mmc_view view = reserve(slow.store, key("k"), sizeof data, NULL);
    pthread_t copying = begin_slowly(&slow, view.address, data, sizeof data, MMC_COPY_TO_SEGMENT);
    CHECK_OK(mmc_commit(slow.store, view.token));
    CHECK_CODE(MMC_ERR_STATE, write_at(slow.store, view.address, data, 1));
    CHECK_OK(mmc_exist(slow.store, key("k"), 0));
    CHECK_OK(mmc_remove(slow.store, key("k")));
    CHECK_EQUAL(2 * PAGE, allocated(slow.store));
    end_slowly(&slow, copying);
    CHECK_EQUAL(0, allocated(slow.store));
    close_slow(&slow);
}

BEHAVIOUR(a_term_that_ends_in_the_middle_harms_nobody) {
    slow slow = {0};
    unsigned char data[5000] = "";
    open_slow(&slow);
    for (unsigned is_commit_first = 0; is_commit_first < 2; is_commit_first++) {
        mmc_put_options options = lasting(is_slow() ? 1000 : 100);
        mmc_view view = reserve(slow.store, key("k"), sizeof data, &options);
        pthread_t copying = begin_slowly(&slow, view.address, data, sizeof data, MMC_COPY_TO_SEGMENT);
        CHECK_SOON(put_filled(slow.store, key("k"), 100, 7, NULL) == MMC_OK);
        CHECK_CODE(MMC_ERR_NOT_FOUND, write_at(slow.store, view.address, data, 1));
        if (!is_commit_first) end_slowly(&slow, copying);
        CHECK_EQUAL(3 * PAGE, allocated(slow.store));
        CHECK_CODE(MMC_ERR_TIMEOUT, mmc_commit(slow.store, view.token));
        CHECK_EQUAL((is_commit_first ? 3 : 1) * PAGE, allocated(slow.store));
        if (is_commit_first) end_slowly(&slow, copying);
        CHECK_EQUAL(PAGE, allocated(slow.store));
        CHECK(has_filled(slow.store, key("k"), 100, 7));
        CHECK_OK(mmc_remove(slow.store, key("k")));
    }
    close_slow(&slow);
}

BEHAVIOUR(a_lease_that_ends_in_the_middle_leaves_the_bytes_to_their_reader) {
    slow slow = {0};
    unsigned char data[5000];
    uint64_t term = is_slow() ? 2000 : 300;
    open_slow(&slow);
    CHECK_OK(put_filled(slow.store, key("k"), sizeof data, 1, NULL));
    uint64_t address = query(slow.store, key("k")).blobs[0].address;
    CHECK_OK(mmc_add_lease(slow.store, key("k"), term));
    CHECK_OK(mmc_remove(slow.store, key("k")));
    pthread_t copying = begin_slowly(&slow, address, data, sizeof data, MMC_COPY_FROM_SEGMENT);
    CHECK_SOON(statistics_of(slow.store).leases == 0);
    CHECK_CODE(MMC_ERR_NOT_FOUND, read_at(slow.store, address, &(char){0}, 1));
    CHECK_EQUAL(2 * PAGE, allocated(slow.store));
    CHECK_OK(put_filled(slow.store, key("k"), sizeof data, 2, NULL));
    CHECK(query(slow.store, key("k")).blobs[0].address != address);
    end_slowly(&slow, copying);
    CHECK(is_filled(data, sizeof data, 1));
    CHECK_EQUAL(2 * PAGE, allocated(slow.store));
    close_slow(&slow);
}

static void *unregister(void *argument) {
    slow *self = argument;
    CHECK_OK(mmc_unregister_segment(self->store, self->segment));
    self->is_done = 1;
    return NULL;
}

BEHAVIOUR(unregistering_waits_for_copies_by_address) {
    // One reads what can be read, one what was removed and whose lease ends meanwhile, one writes what is aborted meanwhile.
    for (unsigned which = 0; which < 3; which++) {
        slow slow = {0};
        unsigned char data[5000] = "";
        mmc_view view = {0};
        open_slow(&slow);
        uint64_t address = slow.segment;
        if (which == 2) {
            view = reserve(slow.store, key("k"), sizeof data, NULL);
            address = view.address;
        } else {
            CHECK_OK(put_filled(slow.store, key("k"), sizeof data, 1, NULL));
            address = query(slow.store, key("k")).blobs[0].address;
        }
        if (which == 1) {
            CHECK_OK(mmc_add_lease(slow.store, key("k"), is_slow() ? 2000 : 300));
            CHECK_OK(mmc_remove(slow.store, key("k")));
        }
        pthread_t copying = begin_slowly(&slow, address, data, sizeof data, which == 2 ? MMC_COPY_TO_SEGMENT : MMC_COPY_FROM_SEGMENT);
        if (which > 0) CHECK_CODE(MMC_ERR_BUSY, mmc_unregister_segment(slow.store, slow.segment));
        if (which == 2) CHECK_OK(mmc_abort(slow.store, view.token));
        if (which == 1) CHECK_SOON(statistics_of(slow.store).leases == 0);
        pthread_t unregistering = start(unregister, &slow);
        CHECK_SOON(statistics_of(slow.store).segment_count == 0);
        usleep(20000);
        CHECK_EQUAL(0, slow.is_done);
        CHECK_CODE(MMC_ERR_NOT_FOUND, read_at(slow.store, address, data, 1));
        end_slowly(&slow, copying);
        join(unregistering);
        if (which < 2) CHECK(is_filled(data, sizeof data, 1));
        memset(slow.memory.memory, 0xff, MIB);
        close_slow(&slow);
    }
}

static void *uninit(void *argument) {
    slow *self = argument;
    CHECK_OK(mmc_uninit(self->store));
    self->is_done = 1;
    return NULL;
}

BEHAVIOUR(closing_waits_for_copies_by_address) {
    slow slow = {0};
    unsigned char data[5000] = "";
    open_slow(&slow);
    mmc_view view = reserve(slow.store, key("k"), sizeof data, NULL);
    pthread_t copying = begin_slowly(&slow, view.address, data, sizeof data, MMC_COPY_TO_SEGMENT);
    pthread_t closing = start(uninit, &slow);
    CHECK_SOON(mmc_exist(slow.store, key("k"), 0) == MMC_ERR_NOT_STARTED);
    CHECK_OK(mmc_abort(slow.store, view.token));
    usleep(20000);
    CHECK_EQUAL(0, slow.is_done);
    end_slowly(&slow, copying);
    join(closing);
    free(slow.memory.memory);
}

static void *put_slowly(void *argument) {
    slow *self = argument;
    CHECK_OK(put_filled(self->store, key("put"), 5000, 1, NULL));
    return NULL;
}

BEHAVIOUR(what_is_being_put_is_nobody_elses) {
    slow slow = {0};
    unsigned char data[5000] = "";
    mmc_object_info info = {.struct_size = sizeof info};
    open_slow(&slow);
    slow.memory.begun = &slow.begun, slow.memory.go_on = &slow.go_on;
    pthread_t putting = start(put_slowly, &slow);
    sem_wait(&slow.begun);
    slow.memory.begun = NULL;
    CHECK_OK(mmc_query(slow.store, key("put"), MMC_QUERY_RESERVED, &info));
    CHECK_CODE(MMC_ERR_STATE, write_at(slow.store, info.blobs[0].address, data, sizeof data));
    CHECK_CODE(MMC_ERR_STATE, read_at(slow.store, info.blobs[0].address, data, sizeof data));
    sem_post(&slow.go_on);
    join(putting);
    CHECK(has_filled_at(slow.store, info.blobs[0].address, 5000, 1));
    close_slow(&slow);
}

// ---- Threads

typedef struct shared {
    mmc_store *store;
    _Atomic(uint64_t) address;
    _Atomic(size_t) copies;
    _Atomic(int) is_stopping;
} shared;

enum { SHARED = 20000, PART = 2500 };

// Writes to whatever is at the address, which is being aborted and committed.
static void *keep_writing(void *argument) {
    shared *self = argument;
    unsigned char data[PART];
    memset(data, 0x77, sizeof data);
    for (unsigned i = 0; !self->is_stopping; i++) {
        int32_t code = write_at(self->store, self->address + i % (SHARED / PART) * PART, data, PART);
        CHECK(code == MMC_OK || code == MMC_ERR_NOT_FOUND || code == MMC_ERR_STATE);
        self->copies += code == MMC_OK;
        if (is_slow()) usleep(10); // threads that never pause starve others there
    }
    return NULL;
}

BEHAVIOUR(reservations_end_under_the_hands_of_those_who_write_by_address) {
    shared shared = {.store = open_store(8 * MIB), .address = 1};
    pthread_t threads[2];
    for (size_t i = 0; i < 2; i++) threads[i] = start(keep_writing, &shared);
    for (size_t i = 0; i < load(20000, 150) || (shared.copies < load(100, 5) && i < 1000000); i++) {
        mmc_view view = reserve(shared.store, keyf("k%zu", i % 7), SHARED, NULL);
        shared.address = view.address;
        memset(view.data, 0x77, SHARED);
        if (i % 16 == 0) usleep(50);
        if (i % 3 == 0) {
            CHECK_OK(mmc_commit(shared.store, view.token));
            CHECK_OK(mmc_remove(shared.store, keyf("k%zu", i % 7)));
        } else {
            CHECK_OK(mmc_abort(shared.store, view.token));
        }
    }
    shared.is_stopping = 1;
    for (size_t i = 0; i < 2; i++) join(threads[i]);
    CHECK(shared.copies > 0);
    CHECK_EQUAL(0, allocated(shared.store));
    CHECK_EQUAL(0, statistics_of(shared.store).reservations);
    close_store(shared.store);
}

// Reads whatever can be read at the address: the bytes of one object.
static void *keep_reading(void *argument) {
    shared *self = argument;
    unsigned char data[PART];
    for (unsigned i = 0; !self->is_stopping; i++) {
        int32_t code = read_at(self->store, self->address + i % (SHARED / PART) * PART, data, PART);
        CHECK(code == MMC_OK || code == MMC_ERR_NOT_FOUND || code == MMC_ERR_STATE);
        self->copies += code == MMC_OK;
        if (is_slow()) usleep(10);
        if (code == MMC_OK) CHECK(data[0] != 0 && memcmp(data, data + 1, PART - 1) == 0);
    }
    return NULL;
}

BEHAVIOUR(objects_come_and_go_under_the_hands_of_those_who_read_by_address) {
    // A pool of five, so that most puts evict, and the memory is soon another's.
    shared shared = {.store = open_store(25 * PAGE), .address = 1};
    static unsigned char data[SHARED];
    pthread_t threads[2];
    for (size_t i = 0; i < 2; i++) threads[i] = start(keep_reading, &shared);
    for (size_t i = 0; i < load(20000, 150) || (shared.copies < load(100, 5) && i < 1000000); i++) {
        memset(data, 1 + (int)(i % 255), SHARED);
        CHECK_OK(mmc_put(shared.store, keyf("k%zu", i), data, SHARED, NULL));
        if (i % 4 == 0) shared.address = query(shared.store, keyf("k%zu", i)).blobs[0].address;
        if (i % 16 == 0) usleep(50);
        if (i % 2000 == 0) CHECK_OK(mmc_add_lease(shared.store, keyf("k%zu", i), 1));
        if (i % 5 == 0) CHECK_OK(mmc_remove(shared.store, keyf("k%zu", i)));
    }
    shared.is_stopping = 1;
    for (size_t i = 0; i < 2; i++) join(threads[i]);
    CHECK(shared.copies > 0);
    CHECK_OK(mmc_remove_all(shared.store, NULL));
    CHECK_SOON(allocated(shared.store) == 0);
    close_store(shared.store);
}

static void *come_and_go(void *argument) {
    shared *self = argument;
    unsigned char *memory = aligned_alloc(PAGE, MIB), data[SHARED];
    const uint32_t one = 1;
    mmc_put_options there = {.struct_size = sizeof there, .preferred_ranks = &one, .preferred_count = 1};
    memset(data, 0x77, sizeof data);
    for (size_t i = 0; i < load(2000, 30) || (self->copies < load(50, 3) && i < 100000); i++) {
        uint64_t segment = register_dram(self->store, 1, MIB, memory);
        for (unsigned j = 0; j < 4; j++) CHECK_OK(mmc_put(self->store, keyf("k%u", j), data, SHARED, &there));
        self->address = query(self->store, key("k2")).blobs[0].address;
        usleep(50);
        CHECK_OK(mmc_unregister_segment(self->store, segment));
        // It is the host's again: who read it now would see that.
        memset(memory, 0xee, MIB);
        for (size_t at = 0; at < MIB; at += 512) memory[at] = 0xdd;
    }
    self->is_stopping = 1;
    free(memory);
    return NULL;
}

BEHAVIOUR(segments_leave_under_the_hands_of_those_who_read_by_address) {
    shared shared = {.store = open_store(MIB), .address = 1};
    pthread_t coming = start(come_and_go, &shared), reading = start(keep_reading, &shared);
    join(coming);
    join(reading);
    CHECK(shared.copies > 0);
    CHECK_EQUAL(0, allocated(shared.store));
    close_store(shared.store);
}
