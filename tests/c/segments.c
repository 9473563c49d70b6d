// Memory: of the host, of the library, of a device that only the host can reach; how it comes, is shown, and goes.

#include "check.h"

static size_t segment_count(mmc_store *store) {
    size_t count = 0;
    CHECK_OK(mmc_list_segments(store, NULL, 0, &count));
    return count;
}

static uint64_t allocated(mmc_store *store) { return statistics_of(store).allocated; }

static mmc_view pin(mmc_store *store, mmc_key name) {
    mmc_view view = {.struct_size = sizeof view};
    CHECK_OK(mmc_pin(store, name, MMC_PEEK, &view));
    return view;
}

static const mmc_put_options to_device = {.struct_size = sizeof(mmc_put_options), .medium = MMC_MEDIUM_HBM};

BEHAVIOUR(objects_lie_in_the_memory_that_the_host_gave) {
    unsigned char *memory = aligned_alloc(PAGE, MIB);
    mmc_store *store = open_store(MMC_NO_DRAM);
    uint64_t address = register_dram(store, 3, MIB, memory);
    CHECK_OK(put_filled(store, key("k"), 5000, 1, NULL));
    mmc_object_info info = query(store, key("k"));
    CHECK_EQUAL(1, info.blob_count);
    CHECK_EQUAL(MMC_MEDIUM_DRAM, info.blobs[0].medium);
    CHECK_EQUAL(3, info.blobs[0].rank);
    const unsigned char *data = info.blobs[0].data;
    CHECK(data >= memory && data + 5000 <= memory + MIB);
    CHECK_EQUAL((uint64_t)(data - memory), info.blobs[0].address - address);
    CHECK(is_filled(data, 5000, 1));
    CHECK_OK(mmc_unregister_segment(store, address));
    memset(memory, 0, MIB);
    free(memory);
    close_store(store);
}

BEHAVIOUR(a_segment_can_be_full_to_its_last_page) {
    // What lies around the memory is none of the library's.
    unsigned char *memory = aligned_alloc(PAGE, 18 * PAGE);
    memset(memory, 0xaa, 18 * PAGE);
    mmc_store *store = open_store(MMC_NO_DRAM);
    register_dram(store, 0, 16 * PAGE, memory + PAGE);
    for (unsigned i = 0; i < 16; i++) CHECK_OK(put_filled(store, keyf("k%u", i), PAGE, i, NULL));
    for (unsigned i = 0; i < 16; i++) CHECK(has_filled(store, keyf("k%u", i), PAGE, i));
    CHECK_EQUAL(16 * PAGE, allocated(store));
    for (size_t i = 0; i < PAGE; i++) CHECK(memory[i] == 0xaa && memory[17 * PAGE + i] == 0xaa);
    close_store(store);
    free(memory);
}

BEHAVIOUR(the_library_maps_memory_of_either_kind) {
    static const struct {
        uint32_t memory, said;
    } kinds[] = {{0, MMC_MEMORY_PRIVATE}, {MMC_MEMORY_PRIVATE, MMC_MEMORY_PRIVATE}, {MMC_MEMORY_MEMFD, MMC_MEMORY_MEMFD}};
    mmc_store *store = open_store(MMC_NO_DRAM);
    for (size_t i = 0; i < 3; i++) {
        mmc_segment_options options = {.struct_size = sizeof options, .medium = MMC_MEDIUM_DRAM, .capacity = 4 * MIB, .memory = kinds[i].memory};
        mmc_segment_info info = {.struct_size = sizeof info};
        uint64_t address;
        size_t count;
        CHECK_OK(mmc_register_segment(store, &options, &address));
        CHECK_OK(mmc_list_segments(store, &info, 1, &count));
        CHECK_EQUAL(address, info.address);
        CHECK_EQUAL(kinds[i].said, info.memory);
        CHECK(info.pages >= MMC_PAGES_SMALL && info.pages <= MMC_PAGES_COLLAPSED);
        CHECK_OK(put_filled(store, key("k"), 100000, i, NULL));
        CHECK(has_filled(store, key("k"), 100000, i));
        CHECK(is_filled(query(store, key("k")).blobs[0].data, 100000, i));
        CHECK_OK(mmc_unregister_segment(store, address));
    }
    close_store(store);
}

// Lines of /proc/self/maps with these words.
static size_t maps_with(const char *words) {
    char line[4096];
    size_t found = 0;
    FILE *file = fopen("/proc/self/maps", "r");
    CHECK(file != NULL);
    while (fgets(line, sizeof line, file) != NULL) found += strstr(line, words) != NULL;
    fclose(file);
    return found;
}

BEHAVIOUR(a_memfd_segment_is_one_and_is_unmapped_again) {
    mmc_store *store = open_store(MMC_NO_DRAM);
    mmc_segment_options options = {.struct_size = sizeof options, .medium = MMC_MEDIUM_DRAM, .capacity = 4 * MIB, .memory = MMC_MEMORY_MEMFD};
    uint64_t address;
    CHECK_EQUAL(0, maps_with("memfd:mmc"));
    CHECK_OK(mmc_register_segment(store, &options, &address));
    CHECK(maps_with("memfd:mmc") > 0);
    CHECK_OK(mmc_unregister_segment(store, address));
    CHECK_EQUAL(0, maps_with("memfd:mmc"));
    close_store(store);
}

BEHAVIOUR(a_device_gets_a_put_and_a_get_through_its_callback) {
    device memory = device_of(MIB);
    mmc_store *store = open_store(MMC_NO_DRAM);
    int stream;
    mmc_put_options put = {.struct_size = sizeof put, .stream = &stream};
    mmc_get_options get = {.struct_size = sizeof get, .stream = &stream};
    uint64_t address = register_device(store, &memory, 9);

    CHECK_OK(put_filled(store, key("k"), 5000, 1, &put));
    CHECK_EQUAL(1, memory.calls);
    CHECK_EQUAL(MMC_COPY_TO_SEGMENT, memory.direction);
    CHECK(memory.stream == &stream);
    mmc_object_info info = query(store, key("k"));
    CHECK_EQUAL(MMC_MEDIUM_HBM, info.blobs[0].medium);
    CHECK_EQUAL(9, info.blobs[0].rank);
    CHECK(info.blobs[0].data == NULL);
    CHECK(is_filled(memory.memory + (info.blobs[0].address - address), 5000, 1));

    char data[5000];
    CHECK_OK(mmc_get(store, key("k"), data, sizeof data, 0, &get, NULL));
    CHECK(is_filled(data, sizeof data, 1));
    CHECK_EQUAL(2, memory.calls);
    CHECK_EQUAL(MMC_COPY_FROM_SEGMENT, memory.direction);
    CHECK(memory.stream == &stream);
    CHECK_OK(mmc_get(store, key("k"), data, sizeof data, 0, NULL, NULL));
    CHECK(memory.stream == NULL);
    close_store(store);
    free(memory.memory);
}

BEHAVIOUR(a_device_gets_a_batch_as_one_submission) {
    enum { COUNT = 100, LAYERS = 3, LAYER = 1000 };
    device memory = device_of(MIB);
    mmc_store *store = open_store(MMC_NO_DRAM);
    register_device(store, &memory, 0);
    static unsigned char data[COUNT][LAYERS][LAYER], back[COUNT][LAYERS * LAYER];
    const void *from[COUNT * LAYERS];
    void *into[COUNT];
    size_t layers[COUNT], from_sizes[COUNT * LAYERS], into_sizes[COUNT];
    mmc_key *names = many_keys("k", COUNT);
    int32_t results[COUNT];
    for (size_t i = 0; i < COUNT; i++) {
        fill(data[i], sizeof data[i], i);
        for (size_t j = 0; j < LAYERS; j++) from[i * LAYERS + j] = data[i][j], from_sizes[i * LAYERS + j] = LAYER;
        layers[i] = LAYERS, into[i] = back[i], into_sizes[i] = sizeof back[i];
    }
    CHECK_OK(mmc_batch_putv(store, names, COUNT, layers, from, from_sizes, NULL, 0, results));
    CHECK_EQUAL(1, memory.calls);
    CHECK_EQUAL(COUNT * LAYERS, memory.operations);
    CHECK_OK(mmc_batch_get(store, names, COUNT, into, into_sizes, 0, NULL, results, NULL));
    CHECK_EQUAL(2, memory.calls);
    CHECK_EQUAL(COUNT, memory.operations);
    for (size_t i = 0; i < COUNT; i++) CHECK(results[i] == MMC_OK && memcmp(data[i], back[i], sizeof back[i]) == 0);
    free(names);
    close_store(store);
    free(memory.memory);
}

BEHAVIOUR(a_callback_that_fails_gives_the_call_its_code) {
    static const int32_t cases[][2] = {{-7, -7}, {-1, -1}, {INT32_MIN, INT32_MIN}, {1, MMC_ERR_FAILED}, {INT32_MAX, MMC_ERR_FAILED}};
    device memory = device_of(MIB);
    mmc_store *store = open_store(MMC_NO_DRAM);
    mmc_view view = {.struct_size = sizeof view};
    register_device(store, &memory, 0);
    CHECK_OK(put_filled(store, key("there"), 100, 1, NULL));
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char data[100];
        uint64_t size = 12345;
        memory.returns = cases[i][0];
        CHECK_FAILS(cases[i][1], "copy callback returned", put_filled(store, key("k"), 100, 1, NULL));
        CHECK_CODE(cases[i][1], mmc_get(store, key("there"), data, sizeof data, 0, NULL, &size));
        CHECK_EQUAL(12345, size);
        // Nothing was stored, and the key is free.
        memory.returns = 0;
        CHECK_CODE(MMC_ERR_NOT_FOUND, mmc_exist(store, key("k"), 0));
        CHECK_EQUAL(PAGE, allocated(store));
        CHECK_OK(mmc_reserve(store, key("k"), 100, NULL, &view));
        CHECK_OK(mmc_abort(store, view.token));
        CHECK(has_filled(store, key("there"), 100, 1));
    }
    close_store(store);
    free(memory.memory);
}

BEHAVIOUR(a_failing_device_fails_only_its_own_elements_of_a_batch) {
    device memory = device_of(2 * PAGE);
    mmc_store *store = open_store(MIB);
    register_device(store, &memory, 0);
    CHECK_OK(put_filled(store, key("a"), 100, 1, NULL));
    CHECK_OK(put_filled(store, key("b"), 100, 2, &to_device));
    mmc_key names[] = {key("a"), key("b"), key("a")};
    char back[3][100];
    void *into[] = {back[0], back[1], back[2]};
    size_t sizes[] = {100, 100, 100};
    int32_t results[3];
    uint64_t true_sizes[3];
    memory.returns = -77;
    CHECK_OK(mmc_batch_get(store, names, 3, into, sizes, 0, NULL, results, true_sizes));
    CHECK_CODE(MMC_OK, results[0]);
    CHECK_EQUAL((uint32_t)-77, (uint32_t)results[1]);
    CHECK_CODE(MMC_OK, results[2]);
    CHECK_EQUAL(100, true_sizes[0]);
    CHECK_EQUAL(0, true_sizes[1]);
    CHECK(is_filled(back[2], 100, 1));
    close_store(store);
    free(memory.memory);
}

static mmc_store *reentered;
static int32_t copy_and_call(void *context, const mmc_copy_operation *operations, size_t count, uint32_t direction, void *stream) {
    CHECK_CODE(MMC_ERR_NOT_FOUND, mmc_exist(reentered, key("in a callback"), 0));
    CHECK_CODE(MMC_ERR_BUSY, mmc_uninit(reentered));
    return device_copy(context, operations, count, direction, stream);
}

BEHAVIOUR(a_copy_callback_may_call_the_library) {
    device memory = device_of(MIB);
    reentered = open_store(MMC_NO_DRAM);
    mmc_segment_options options = device_options(&memory, 0);
    options.copy = copy_and_call;
    CHECK_OK(mmc_register_segment(reentered, &options, NULL));
    CHECK_OK(put_filled(reentered, key("k"), 100, 1, NULL));
    CHECK(has_filled(reentered, key("k"), 100, 1));
    close_store(reentered);
    free(memory.memory);
}

BEHAVIOUR(dram_with_a_callback_is_reached_through_it_too) {
    device memory = device_of(MIB);
    mmc_store *store = open_store(MMC_NO_DRAM);
    mmc_segment_options options = device_options(&memory, 0);
    options.medium = MMC_MEDIUM_DRAM;
    CHECK_OK(mmc_register_segment(store, &options, NULL));
    CHECK_OK(put_filled(store, key("k"), 100, 1, NULL));
    CHECK_EQUAL(1, memory.calls);
    CHECK_EQUAL(MMC_MEDIUM_DRAM, query(store, key("k")).blobs[0].medium);
    CHECK(has_filled(store, key("k"), 100, 1));
    close_store(store);
    free(memory.memory);
}

BEHAVIOUR(what_can_not_be_a_segment_is_refused_with_the_reason) {
    device memory = device_of(4 * MIB), other = device_of(4 * MIB);
    mmc_store *store = open_store(MMC_NO_DRAM);
    register_device(store, &memory, 5);
    register_dram(store, 5, 4 * MIB, other.memory);
    const mmc_segment_options hbm = device_options(&memory, 5);
    const mmc_segment_options dram = {.struct_size = sizeof dram, .medium = MMC_MEDIUM_DRAM, .capacity = MIB};
    unsigned char *const base = hbm.base;
#define CASE(of, code, words, ...) \
    { \
        mmc_segment_options options = of; \
        uint64_t address = 12345; \
        __VA_ARGS__; \
        CHECK_FAILS(code, words, mmc_register_segment(store, &options, &address)); \
        CHECK_EQUAL(12345, address); \
    }
    CASE(dram, MMC_ERR_INVALID_PARAM, "medium is not set", options.medium = 0)
    CASE(dram, MMC_ERR_INVALID_PARAM, "medium 4: must be MMC_MEDIUM_HBM (1)", options.medium = 4)
    CASE(dram, MMC_ERR_INVALID_PARAM, "needs a file", options.medium = MMC_MEDIUM_SSD)
    CASE(dram, MMC_ERR_INVALID_PARAM, "regular file", options.medium = MMC_MEDIUM_SSD; options.path = "/dev/null")
    CASE(dram, MMC_ERR_IO, "can't be opened", options.medium = MMC_MEDIUM_SSD; options.path = "/dev/null/x")
    CASE(dram, MMC_ERR_INVALID_PARAM, "only SSD has a file", options.path = "/tmp/x")
    CASE(dram, MMC_ERR_INVALID_PARAM, "rank 65536: must be below 65536", options.rank = 65536)
    CASE(dram, MMC_ERR_INVALID_PARAM, "segment of 0 bytes", options.capacity = 0)
    CASE(dram, MMC_ERR_INVALID_PARAM, "segment of 4095 bytes: capacity must be a positive multiple of 4096", options.capacity = 4095)
    CASE(dram, MMC_ERR_OUT_OF_MEMORY, "can't be mapped", options.capacity = (uint64_t)1 << 46)
    CASE(dram, MMC_ERR_INVALID_PARAM, "must be a multiple of 4096", options.base = other.memory + 512)
    CASE(dram, MMC_ERR_INVALID_PARAM, "overlaps the segment", options.base = other.memory)
    CASE(dram, MMC_ERR_INVALID_PARAM, "overlaps the segment", options.base = other.memory + 3 * MIB)
    CASE(dram, MMC_ERR_INVALID_PARAM, "overlaps the segment", options.base = other.memory - MIB; options.capacity = 8 * MIB)
    CASE(dram, MMC_ERR_INVALID_PARAM, "past the end of memory", options.base = (void *)(-PAGE))
    CASE(dram, MMC_ERR_INVALID_PARAM, "memory 3", options.memory = 3)
    CASE(dram, MMC_ERR_INVALID_PARAM, "huge_pages 3", options.huge_pages = 3)
    CASE(dram, MMC_ERR_INVALID_PARAM, "prefault 3", options.prefault = 3)
    CASE(hbm, MMC_ERR_INVALID_PARAM, "HBM segment without a copy callback", options.copy = NULL)
    CASE(hbm, MMC_ERR_INVALID_PARAM, "null", options.base = NULL)
    CASE(hbm, MMC_ERR_INVALID_PARAM, "must be a multiple of 4096", options.base = base + 1)
    CASE(hbm, MMC_ERR_INVALID_PARAM, "overlaps the segment", options.base = base + 3 * MIB)
#undef CASE
    CHECK_EQUAL(2, segment_count(store));
    // Another rank's device has addresses of its own.
    mmc_segment_options elsewhere = device_options(&memory, 6);
    CHECK_OK(mmc_register_segment(store, &elsewhere, NULL));
    close_store(store);
    free(memory.memory);
    free(other.memory);
}

BEHAVIOUR(ranks_go_up_to_65535) {
    mmc_store *store = open_store(MMC_NO_DRAM);
    register_dram(store, 65535, MIB, NULL);
    CHECK_OK(put_filled(store, key("k"), 100, 1, NULL));
    CHECK_EQUAL(65535, query(store, key("k")).blobs[0].rank);
    close_store(store);
}

BEHAVIOUR(pool_addresses_are_one_space_and_never_used_again) {
    enum { COUNT = 50 };
    uint64_t seen[COUNT];
    mmc_store *store = open_store(MMC_NO_DRAM);
    for (size_t i = 0; i < COUNT; i++) {
        seen[i] = register_dram(store, 0, MIB, NULL);
        CHECK(seen[i] > 0 && seen[i] < (uint64_t)1 << 63 && seen[i] % PAGE == 0);
        for (size_t j = 0; j < i; j++) CHECK(seen[i] >= seen[j] + MIB || seen[j] >= seen[i] + MIB);
        CHECK_OK(put_filled(store, key("k"), 100, 1, NULL));
        uint64_t address = query(store, key("k")).blobs[0].address;
        CHECK(address >= seen[i] && address < seen[i] + MIB);
        CHECK_OK(mmc_unregister_segment(store, seen[i]));
    }
    for (size_t i = 0; i < COUNT; i++) CHECK_FAILS(MMC_ERR_NOT_FOUND, "none is registered", mmc_unregister_segment(store, seen[i]));
    close_store(store);
}

BEHAVIOUR(segments_are_listed_by_medium_rank_and_address) {
    device memory = device_of(MIB);
    mmc_store *store = open_store(MMC_NO_DRAM);
    uint64_t fourth = register_dram(store, 7, 3 * MIB, NULL), second = register_dram(store, 2, MIB, NULL);
    uint64_t third = register_dram(store, 2, 2 * MIB, NULL), first = register_device(store, &memory, 9);
    mmc_segment_info infos[5] = {{.struct_size = sizeof infos[0]}};
    size_t count = 0;
    CHECK_OK(mmc_list_segments(store, infos, 5, &count));
    CHECK_EQUAL(4, count);
    CHECK(infos[0].address == first && infos[1].address == second && infos[2].address == third && infos[3].address == fourth);
    CHECK(infos[0].medium == MMC_MEDIUM_HBM && infos[0].rank == 9 && infos[0].capacity == MIB);
    CHECK(infos[0].pages == 0 && infos[0].memory == 0);
    CHECK(infos[3].medium == MMC_MEDIUM_DRAM && infos[3].rank == 7 && infos[3].capacity == 3 * MIB && infos[3].allocated == 0);

    // Where there is no room for all, those are left out that come last.
    memset(infos, 0, sizeof infos);
    infos[0].struct_size = sizeof infos[0];
    CHECK_OK(mmc_list_segments(store, infos, 2, &count));
    CHECK_EQUAL(4, count);
    CHECK(infos[1].address == second && infos[2].address == 0);
    CHECK_FAILS(MMC_ERR_INVALID_PARAM, "mmc_segment_info is null", mmc_list_segments(store, NULL, 1, &count));
    CHECK_FAILS(MMC_ERR_INVALID_PARAM, "count is null", mmc_list_segments(store, infos, 2, NULL));
    close_store(store);
    free(memory.memory);
}

BEHAVIOUR(unregistering_ends_what_lies_there_and_nothing_else) {
    mmc_store *store = open_store(MMC_NO_DRAM);
    uint64_t one = register_dram(store, 1, MIB, NULL), two = register_dram(store, 2, MIB, NULL);
    uint32_t ranks[] = {1, 2};
    for (unsigned i = 0; i < 20; i++) {
        mmc_put_options options = {.struct_size = sizeof options, .preferred_ranks = &ranks[i % 2], .preferred_count = 1};
        CHECK_OK(put_filled(store, keyf("k%u", i), 5000, i, &options));
    }
    CHECK_OK(mmc_unregister_segment(store, one));
    for (unsigned i = 0; i < 20; i++) {
        CHECK_CODE(i % 2 ? MMC_OK : MMC_ERR_NOT_FOUND, mmc_exist(store, keyf("k%u", i), 0));
        if (i % 2) CHECK(has_filled(store, keyf("k%u", i), 5000, i));
    }
    CHECK_EQUAL(10, statistics_of(store).stored_keys);
    CHECK_EQUAL(MIB, statistics_of(store).capacity);
    // The keys are free for what is put now.
    CHECK_OK(put_filled(store, key("k0"), 100, 77, NULL));
    CHECK(has_filled(store, key("k0"), 100, 77));
    CHECK_OK(mmc_unregister_segment(store, two));
    CHECK_EQUAL(0, statistics_of(store).stored_keys);
    CHECK_EQUAL(0, segment_count(store));
    close_store(store);
}

BEHAVIOUR(a_segment_that_is_held_stays_as_it_is) {
    unsigned char *memory = aligned_alloc(PAGE, MIB);
    mmc_store *store = open_store(MMC_NO_DRAM);
    uint64_t address = register_dram(store, 0, MIB, memory);
    for (unsigned i = 0; i < 10; i++) CHECK_OK(put_filled(store, keyf("k%u", i), 5000, i, NULL));
    for (int kind = 0; kind < 4; kind++) {
        uint64_t before = allocated(store);
        mmc_view view = {.struct_size = sizeof view};
        switch (kind) {
            case 0: view = pin(store, key("k3")); break;
            case 1: CHECK_OK(mmc_add_lease(store, key("k3"), 60000)); break;
            case 2: CHECK_OK(mmc_reserve(store, key("new"), 5000, NULL, &view)); break;
            case 3: view = pin(store, key("k4")); CHECK_OK(mmc_remove(store, key("k4"))); break;
        }
        uint64_t held = allocated(store);
        CHECK_FAILS(MMC_ERR_BUSY, "1 pins, leases and reservations are open", mmc_unregister_segment(store, address));
        for (unsigned i = 0; i < 10; i++) {
            if (kind == 3 && i == 4) continue;
            CHECK(has_filled(store, keyf("k%u", i), 5000, i));
        }
        CHECK_EQUAL(1, segment_count(store));
        CHECK_EQUAL(held, allocated(store));
        CHECK_OK(put_filled(store, key("another"), 100, 1, NULL));
        CHECK_OK(mmc_remove(store, key("another")));
        switch (kind) {
            case 0: CHECK_OK(mmc_unpin(store, view.token)); break;
            case 1: CHECK_OK(mmc_remove_lease(store, key("k3"))); break;
            case 2: CHECK_OK(mmc_abort(store, view.token)); break;
            case 3: CHECK(is_filled(view.data, 5000, 4)); CHECK_OK(mmc_unpin(store, view.token)); before -= 2 * PAGE; break;
        }
        CHECK_EQUAL(before, allocated(store));
    }
    CHECK_OK(mmc_unregister_segment(store, address));
    memset(memory, 0, MIB);
    free(memory);
    close_store(store);
}

// A get that is in its copy while the segment is unregistered.
typedef struct leaving {
    mmc_store *store;
    uint64_t address;
    _Atomic(int) copied, unregistered;
} leaving;

static void *get_slowly(void *argument) {
    leaving *self = argument;
    char data[5000];
    CHECK_OK(mmc_get(self->store, key("k"), data, sizeof data, 0, NULL, NULL));
    CHECK(is_filled(data, sizeof data, 1));
    return NULL;
}

static int32_t copy_then_say_so(void *context, const mmc_copy_operation *operations, size_t count, uint32_t direction, void *stream) {
    device *self = context;
    int32_t code = device_copy(self, operations, count, direction, stream);
    if (direction == MMC_COPY_FROM_SEGMENT) ++*(_Atomic(int) *)(void *)(self->memory + self->capacity);
    return code;
}

static void *unregister(void *argument) {
    leaving *self = argument;
    CHECK_OK(mmc_unregister_segment(self->store, self->address));
    self->unregistered = 1;
    return NULL;
}

BEHAVIOUR(unregistering_waits_for_copies_in_flight) {
    // Behind the device's memory its copies are counted.
    device memory = device_of(2 * MIB);
    memory.capacity = MIB;
    _Atomic(int) *copied = (void *)(memory.memory + MIB);
    *copied = 0;
    leaving leaving = {.store = open_store(MMC_NO_DRAM)};
    mmc_segment_options options = device_options(&memory, 0);
    options.copy = copy_then_say_so;
    CHECK_OK(mmc_register_segment(leaving.store, &options, &leaving.address));
    CHECK_OK(put_filled(leaving.store, key("k"), 5000, 1, NULL));

    sem_t begun, go_on;
    sem_init(&begun, 0, 0);
    sem_init(&go_on, 0, 0);
    memory.begun = &begun, memory.go_on = &go_on;
    pthread_t getting = start(get_slowly, &leaving);
    sem_wait(&begun);
    pthread_t unregistering = start(unregister, &leaving);
    CHECK_SOON(mmc_exist(leaving.store, key("k"), 0) == MMC_ERR_NOT_FOUND);
    CHECK_EQUAL(0, leaving.unregistered);
    CHECK_EQUAL(0, *copied);
    sem_post(&go_on);
    join(unregistering);
    CHECK_EQUAL(1, *copied);
    join(getting);
    CHECK_CODE(MMC_ERR_NOT_FOUND, mmc_unregister_segment(leaving.store, leaving.address));
    close_store(leaving.store);
    free(memory.memory);
}

static _Atomic(int) is_stopping;
static void *put_and_get(void *argument) {
    char data[5000];
    for (unsigned i = 0; !is_stopping; i = (i + 1) % 100) {
        int32_t code = put_filled(argument, keyf("k%u", i), sizeof data, i, NULL);
        CHECK(code == MMC_OK || code == MMC_ERR_EXISTS || code == MMC_ERR_NO_SPACE);
        code = mmc_get(argument, keyf("k%u", i), data, sizeof data, 0, NULL, NULL);
        CHECK(code == MMC_OK || code == MMC_ERR_NOT_FOUND);
        if (code == MMC_OK) CHECK(is_filled(data, sizeof data, i));
    }
    return NULL;
}

BEHAVIOUR(segments_come_and_go_under_load) {
    // What was unregistered is the host's: it is overwritten at once, and no get may see that.
    unsigned char *memory = aligned_alloc(PAGE, MIB);
    mmc_store *store = open_store(MIB / 4);
    pthread_t threads[2];
    for (size_t i = 0; i < 2; i++) threads[i] = start(put_and_get, store);
    for (size_t i = 0; i < load(200, 10); i++) {
        uint64_t puts = statistics_of(store).alloc_operations;
        uint64_t address = register_dram(store, 1, MIB, memory);
        CHECK_SOON(statistics_of(store).alloc_operations > puts + 20);
        CHECK_OK(mmc_unregister_segment(store, address));
        memset(memory, 0xee, MIB);
    }
    is_stopping = 1;
    for (size_t i = 0; i < 2; i++) join(threads[i]);
    CHECK_OK(mmc_remove_all(store, NULL));
    CHECK_EQUAL(0, allocated(store));
    close_store(store);
    free(memory);
}
