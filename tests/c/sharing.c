// One pool and two processes, one of them its owner: what is different from a store of the process, by its nature, and how it ends.

#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/time.h>

#include "sharing.h"

BEHAVIOUR(what_an_attached_process_can_not_do_is_unsupported) {
    mmc_config config = shared_config(2 * MIB);
    owner theirs = start_owner(&config, NULL);
    mmc_store *store = attach(MMC_NO_RANK);
    uint32_t rank = 0;
    CHECK_OK(mmc_rank(store, &rank));
    CHECK_EQUAL(MMC_NO_RANK, rank);
    CHECK_FAILS(MMC_ERR_UNSUPPORTED, "another process owns", mmc_share(store, address_of("other")));
    CHECK_FAILS(MMC_ERR_UNSUPPORTED, "its owner hears them", mmc_set_event_callback(store, NULL, NULL));
    device memory = device_of(MIB);
    mmc_segment_options wanted = device_options(&memory, 1);
    CHECK_FAILS(MMC_ERR_UNSUPPORTED, "HBM", mmc_register_segment(store, &wanted, NULL));
    wanted.medium = MMC_MEDIUM_DRAM;
    wanted.copy = NULL;
    wanted.base = memory.memory;
    CHECK_CODE(MMC_ERR_UNSUPPORTED, mmc_register_segment(store, &wanted, NULL));
    wanted = (mmc_segment_options){.struct_size = sizeof wanted, .medium = MMC_MEDIUM_SSD, .capacity = MIB, .path = path_of("ssd")};
    CHECK_FAILS(MMC_ERR_UNSUPPORTED, "SSD", mmc_register_segment(store, &wanted, NULL));
    mmc_put_options options = {.struct_size = sizeof options, .medium = MMC_MEDIUM_SSD};
    mmc_view view = {.struct_size = sizeof view};
    CHECK_FAILS(MMC_ERR_UNSUPPORTED, "SSD", mmc_reserve(store, key("a"), 5, &options, &view));
    options.medium = MMC_MEDIUM_HBM;
    CHECK_FAILS(MMC_ERR_UNSUPPORTED, "HBM", mmc_reserve(store, key("a"), 5, &options, &view));
    // The owner's own memory is the owner's to take away.
    mmc_segment_info info = {.struct_size = sizeof info};
    size_t count = 0;
    CHECK_OK(mmc_list_segments(store, &info, 1, &count));
    CHECK_FAILS(MMC_ERR_UNSUPPORTED, "not brought by this process", mmc_unregister_segment(store, info.address));
    CHECK_OK(mmc_uninit(store));
    free(memory.memory);
    end_owner(&theirs);
}

// Where a pool's objects can lie that no other process can map.
static device hbm;
static void *host_memory;

static void put_everywhere(mmc_store *store, char order) {
    static const char *names[4] = {"hbm", "ssd", "private", "host"};
    uint32_t ranks[4] = {0, 0, 2, 3};
    uint32_t media[4] = {MMC_MEDIUM_HBM, MMC_MEDIUM_SSD, MMC_MEDIUM_DRAM, MMC_MEDIUM_DRAM};
    if (order == 0) {
        hbm = device_of(MIB);
        host_memory = aligned_alloc(PAGE, MIB);
        register_device(store, &hbm, 0);
        register_ssd(store, MIB, "everywhere");
        register_dram(store, 2, MIB, NULL);
        register_dram(store, 3, MIB, host_memory);
        for (unsigned i = 0; i < 4; i++) {
            mmc_put_options options = {
                .struct_size = sizeof options, .medium = media[i], .preferred_ranks = &ranks[i], .preferred_count = 1};
            CHECK_OK(put_filled(store, key(names[i]), 3 * PAGE + 5, i, &options));
            CHECK_EQUAL(ranks[i], query(store, key(names[i])).blobs[0].rank);
        }
    }
    // What the other process has put elsewhere.
    if (order == 'v') {
        CHECK(has_filled(store, key("to-hbm"), 2 * PAGE + 1, 11) && has_filled(store, key("to-ssd"), 2 * PAGE + 1, 12));
        CHECK_EQUAL(MMC_MEDIUM_HBM, query(store, key("to-hbm")).blobs[0].medium);
        CHECK_EQUAL(MMC_MEDIUM_SSD, query(store, key("to-ssd")).blobs[0].medium);
        CHECK(hbm.calls > 0);
    }
    if (order == 'f') {
        free(hbm.memory);
        free(host_memory);
    }
}

BEHAVIOUR(objects_that_lie_where_nobody_else_can_map_them_are_read_and_put) {
    enum { BYTES = 3 * PAGE + 5 };
    static char data[4][BYTES];
    mmc_config config = shared_config(2 * MIB);
    owner theirs = start_owner(&config, put_everywhere);
    mmc_store *store = attach(MMC_NO_RANK);
    mmc_key keys[4] = {key("hbm"), key("ssd"), key("private"), key("host")};
    void *rooms[4] = {data[0], data[1], data[2], data[3]};
    size_t sizes[4] = {BYTES, BYTES, BYTES, BYTES};
    int32_t results[4];
    mmc_view views[4] = {{.struct_size = sizeof views[0]}};
    for (unsigned i = 0; i < 4; i++) {
        CHECK(has_filled(store, keys[i], BYTES, i));
        mmc_object_info info = query(store, keys[i]);
        CHECK(info.blobs[0].data == NULL);
        // A part of it, by its address.
        char part[PAGE];
        void *room = part;
        size_t size = sizeof part;
        uint64_t place = info.blobs[0].address + 1000;
        CHECK_OK(mmc_batch_copy(store, &place, 1, &room, &size, MMC_COPY_FROM_SEGMENT, 0, NULL, results));
        CHECK_CODE(MMC_OK, results[0]);
        char whole[BYTES];
        fill(whole, BYTES, i);
        CHECK(memcmp(part, whole + 1000, sizeof part) == 0);
    }
    CHECK_OK(mmc_batch_get(store, keys, 4, rooms, sizes, 0, NULL, results, NULL));
    for (unsigned i = 0; i < 4; i++) CHECK(results[i] == MMC_OK && is_filled(data[i], BYTES, i));
    CHECK_OK(mmc_batch_pin(store, keys, 4, 0, views, results));
    for (unsigned i = 0; i < 4; i++) {
        CHECK(results[i] == MMC_OK && views[i].data != NULL && is_filled(views[i].data, BYTES, i));
        CHECK_OK(mmc_remove(store, keys[i]));
        CHECK(is_filled(views[i].data, BYTES, i));
        CHECK_OK(mmc_unpin(store, views[i].token));
    }
    mmc_put_options options = {.struct_size = sizeof options, .medium = MMC_MEDIUM_HBM};
    CHECK_OK(put_filled(store, key("to-hbm"), 2 * PAGE + 1, 11, &options));
    CHECK_CODE(MMC_ERR_EXISTS, put_filled(store, key("to-hbm"), 2 * PAGE + 1, 99, &options));
    options.medium = MMC_MEDIUM_SSD;
    CHECK_OK(put_filled(store, key("to-ssd"), 2 * PAGE + 1, 12, &options));
    order(&theirs, 'v');
    uint64_t removed;
    CHECK_OK(mmc_remove_all(store, &removed));
    CHECK_EQUAL(2, removed);
    CHECK_EQUAL(0, statistics_of(store).allocated);
    CHECK_EQUAL(0, statistics_of(store).pins + statistics_of(store).reservations);
    CHECK_OK(mmc_uninit(store));
    order(&theirs, 'c');
    order(&theirs, 'f');
    end_owner(&theirs);
}

// Takes all the shared memory, so that there is none to copy to.
BEHAVIOUR(an_object_elsewhere_needs_room_in_shared_memory) {
    mmc_config config = shared_config(MIB);
    owner theirs = start_owner(&config, put_everywhere);
    mmc_store *store = attach(MMC_NO_RANK);
    uint32_t rank = 0;
    mmc_put_options options = {.struct_size = sizeof options, .preferred_ranks = &rank, .preferred_count = 1};
    mmc_view view = {.struct_size = sizeof view};
    char back[3 * PAGE + 5];
    CHECK_OK(mmc_reserve(store, key("all"), MIB, &options, &view));
    CHECK_CODE(MMC_ERR_NO_SPACE, mmc_get(store, key("ssd"), back, sizeof back, 0, NULL, NULL));
    CHECK_CODE(MMC_ERR_NO_SPACE, mmc_pin(store, key("hbm"), 0, &view));
    CHECK_OK(mmc_abort(store, view.token));
    CHECK(has_filled(store, key("ssd"), sizeof back, 1));
    CHECK_OK(mmc_uninit(store));
    order(&theirs, 'c');
    order(&theirs, 'f');
    end_owner(&theirs);
}

BEHAVIOUR(a_process_puts_near_its_rank_first) {
    mmc_config config = shared_config(MIB);
    owner theirs = start_owner(&config, NULL);
    mmc_attach_options options = {.struct_size = sizeof options, .rank = 1 + 7, .dram_size = MIB};
    mmc_store *with_memory = NULL;
    CHECK_OK(mmc_attach(address_of("pool"), &options, &with_memory));
    uint32_t rank = 0;
    CHECK_OK(mmc_rank(with_memory, &rank));
    CHECK_EQUAL(7, rank);
    mmc_store *near = attach(7), *far = attach(MMC_NO_RANK);
    CHECK_OK(mmc_rank(near, &rank));
    CHECK_EQUAL(7, rank);
    CHECK_EQUAL(3, statistics_of(far).attached);
    CHECK_OK(put_filled(with_memory, key("a"), PAGE, 1, NULL));
    CHECK_OK(put_filled(near, key("b"), PAGE, 2, NULL));
    CHECK_OK(put_filled(far, key("c"), PAGE, 3, NULL));
    CHECK_EQUAL(7, query(far, key("a")).blobs[0].rank);
    CHECK_EQUAL(7, query(far, key("b")).blobs[0].rank);
    CHECK(has_filled(far, key("a"), PAGE, 1) && has_filled(with_memory, key("c"), PAGE, 3));
    mmc_put_options both = {.struct_size = sizeof both, .replicas = 2};
    CHECK_OK(put_filled(far, key("d"), PAGE, 4, &both));
    CHECK_EQUAL(2, query(near, key("d")).blob_count);
    // Both copies are mapped here, and each has the bytes.
    mmc_object_info info = query(near, key("d"));
    for (unsigned i = 0; i < 2; i++) CHECK(is_filled(info.blobs[i].data, PAGE, 4));
    // A rank is one process's.
    mmc_store *other = NULL;
    CHECK_FAILS(MMC_ERR_INVALID_PARAM, "rank 7", mmc_attach(address_of("pool"), &options, &other));
    CHECK_OK(mmc_uninit(with_memory));
    CHECK_CODE(MMC_ERR_NOT_FOUND, mmc_exist(far, key("a"), 0));
    CHECK_EQUAL(1, query(far, key("d")).blob_count);
    CHECK_OK(mmc_uninit(near));
    CHECK_OK(mmc_uninit(far));
    end_owner(&theirs);
}

static void note_addresses(mmc_store *store, char order) {
    uint64_t *shown = host_memory;
    if (order == 0) register_memfd(store, 1, MIB);
    if (order != 'q') return;
    mmc_object_info info = query(store, key("a"));
    shown[0] = info.blobs[0].address;
    shown[1] = info.blobs[1].address;
    CHECK(is_filled(info.blobs[0].data, 2 * PAGE, 5) && is_filled(info.blobs[1].data, 2 * PAGE, 5));
}

BEHAVIOUR(pool_addresses_are_the_same_for_everyone) {
    int file = memfd_create("addresses", MFD_CLOEXEC);
    CHECK(ftruncate(file, PAGE) == 0);
    host_memory = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    CHECK(host_memory != MAP_FAILED);
    mmc_config config = shared_config(MIB);
    owner theirs = start_owner(&config, note_addresses);
    mmc_store *one = attach(MMC_NO_RANK), *other = attach(MMC_NO_RANK);
    mmc_put_options both = {.struct_size = sizeof both, .replicas = 2};
    CHECK_OK(put_filled(one, key("a"), 2 * PAGE, 5, &both));
    order(&theirs, 'q');
    const uint64_t *shown = host_memory;
    mmc_object_info here = query(one, key("a")), there = query(other, key("a"));
    for (unsigned i = 0; i < 2; i++) {
        CHECK_EQUAL(shown[i], here.blobs[i].address);
        CHECK_EQUAL(shown[i], there.blobs[i].address);
        CHECK(is_filled(here.blobs[i].data, 2 * PAGE, 5) && is_filled(there.blobs[i].data, 2 * PAGE, 5));
    }
    CHECK_OK(mmc_uninit(one));
    CHECK_OK(mmc_uninit(other));
    end_owner(&theirs);
    munmap(host_memory, PAGE);
    close(file);
}

BEHAVIOUR(the_largest_batch_goes_through) {
    size_t count = load(MMC_MAX_BATCH, 300);
    mmc_config config = shared_config(count * PAGE);
    owner theirs = start_owner(&config, NULL);
    mmc_store *store = attach(MMC_NO_RANK);
    mmc_key *keys = malloc(count * (sizeof *keys + MMC_MAX_KEY_SIZE));
    char *texts = (char *)(keys + count);
    uint64_t *numbers = calloc(count, sizeof *numbers), *back = calloc(count, sizeof *back);
    const void **data = malloc(count * sizeof *data);
    void **rooms = malloc(count * sizeof *rooms);
    size_t *sizes = malloc(count * sizeof *sizes), length = 0;
    int32_t *results = malloc(count * sizeof *results);
    mmc_object_info *infos = calloc(count, sizeof *infos);
    mmc_view *views = calloc(count, sizeof *views);
    uint64_t *tokens = calloc(count, sizeof *tokens);
    infos[0].struct_size = sizeof *infos;
    views[0].struct_size = sizeof *views;
    for (size_t i = 0; i < count; i++) {
        keys[i] = (mmc_key){texts + i * MMC_MAX_KEY_SIZE, MMC_MAX_KEY_SIZE};
        memset(texts + i * MMC_MAX_KEY_SIZE, 'k', MMC_MAX_KEY_SIZE);
        char number[32];
        snprintf(number, sizeof number, "%08zu", i);
        memcpy(texts + i * MMC_MAX_KEY_SIZE, number, 8);
        numbers[i] = i;
        data[i] = &numbers[i];
        rooms[i] = &back[i];
        sizes[i] = sizeof numbers[i];
    }
#define EACH(what) \
    for (size_t i = 0; i < count; i++) CHECK(results[i] == MMC_OK && (what))
    CHECK_OK(mmc_batch_put(store, keys, count, data, sizes, NULL, 0, results));
    EACH(1);
    CHECK_OK(mmc_batch_get(store, keys, count, rooms, sizes, 0, NULL, results, NULL));
    EACH(back[i] == i);
    CHECK_OK(mmc_batch_query(store, keys, count, 0, infos, results));
    EACH(infos[i].size == sizeof numbers[i]);
    CHECK_OK(mmc_batch_pin(store, keys, count, 0, views, results));
    EACH(*(const uint64_t *)views[i].data == i);
    for (size_t i = 0; i < count; i++) tokens[i] = views[i].token;
    CHECK_EQUAL(count, statistics_of(store).pins);
    CHECK_OK(mmc_batch_unpin(store, tokens, count, 0, results));
    EACH(1);
    CHECK_OK(mmc_batch_add_lease(store, keys, count, 60000, 0, results));
    EACH(1);
    CHECK_OK(mmc_batch_remove_lease(store, keys, count, 0, results));
    EACH(1);
    CHECK_OK(mmc_prefix_len(store, keys, count, 0, &length));
    CHECK_EQUAL(count, length);
    CHECK_OK(mmc_batch_remove(store, keys, count, 0, results));
    EACH(1);
#undef EACH
    CHECK_EQUAL(0, statistics_of(store).allocated);
    CHECK_OK(mmc_uninit(store));
    end_owner(&theirs);
    free(keys);
    free(numbers);
    free(back);
    free(data);
    free(rooms);
    free(sizes);
    free(results);
    free(infos);
    free(views);
    free(tokens);
}

// More threads than a process has connections.
static void *use_own_keys(void *argument) {
    static _Atomic(unsigned) next;
    unsigned number = next++;
    for (size_t i = 0; i < load(300, 10); i++) {
        mmc_key name = keyf("thread-%u-%zu", number, i % 5);
        CHECK_OK(put_filled(argument, name, 3000, number + i, NULL));
        CHECK(has_filled(argument, name, 3000, number + i));
        CHECK_OK(mmc_remove(argument, name));
    }
    return NULL;
}

BEHAVIOUR(forty_threads_use_one_handle) {
    mmc_config config = shared_config(4 * MIB);
    owner theirs = start_owner(&config, NULL);
    mmc_store *store = attach(MMC_NO_RANK);
    pthread_t threads[40];
    for (unsigned i = 0; i < 40; i++) threads[i] = start(use_own_keys, store);
    for (unsigned i = 0; i < 40; i++) join(threads[i]);
    mmc_statistics left = statistics_of(store);
    CHECK_EQUAL(0, left.reservations + left.stored_keys);
    CHECK_EQUAL(1, left.attached);
    // What was read is given back without waiting.
    CHECK_SOON(statistics_of(store).allocated == 0);
    CHECK_OK(mmc_uninit(store));
    end_owner(&theirs);
}

static void ignore(int signal) { (void)signal; }

// Interrupts whatever this process waits for, until the next order.
static void interrupt_often(mmc_store *store, char order) {
    (void)store;
    struct sigaction action = {.sa_handler = ignore};
    long microseconds = order != 0 ? 0 : is_slow() ? 30000 : 300;
    struct itimerval often = {{0, microseconds}, {0, microseconds}};
    CHECK(sigaction(SIGALRM, &action, NULL) == 0 && setitimer(ITIMER_REAL, &often, NULL) == 0);
}

BEHAVIOUR(signals_interrupt_nothing) {
    static char data[300 * PAGE];
    mmc_config config = shared_config(4 * MIB);
    owner theirs = start_owner(&config, interrupt_often);
    interrupt_often(NULL, 0);
    for (size_t round = 0; round < load(40, 2); round++) {
        mmc_attach_options options = {.struct_size = sizeof options, .dram_size = MIB};
        mmc_store *store = NULL;
        CHECK_OK(mmc_attach(address_of("pool"), &options, &store));
        for (size_t i = 0; i < 20; i++) {
            CHECK_OK(put_filled(store, keyf("k%zu", i % 3), sizeof data / (1 + i), i, NULL));
            CHECK(has_filled(store, keyf("k%zu", i % 3), sizeof data / (1 + i), i));
            CHECK_OK(mmc_remove(store, keyf("k%zu", i % 3)));
        }
        CHECK_OK(mmc_uninit(store));
    }
    interrupt_often(NULL, 'e');
    order(&theirs, 'e');
    end_owner(&theirs);
}

static void limit_descriptors(mmc_store *store, char order) {
    (void)store;
    static struct rlimit before;
    if (order == 0) CHECK(getrlimit(RLIMIT_NOFILE, &before) == 0);
    struct rlimit limit = before;
    // Each smaller limit meets another call that lacks a descriptor.
    if (order == 'A' || order == 'B') {
        int next = dup(0);
        close(next);
        limit.rlim_cur = (rlim_t)next + (rlim_t)(order - 'A');
    }
    CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
}

BEHAVIOUR(an_owner_without_descriptors_lets_nobody_in_and_serves_on) {
    if (is_slow()) return; // valgrind has limits of its own
    mmc_config config = shared_config(MIB);
    owner theirs = start_owner(&config, limit_descriptors);
    mmc_store *store = attach(MMC_NO_RANK), *other = NULL;
    mmc_attach_options brief = {.struct_size = sizeof brief, .call_timeout_ms = 200};
    for (char limit = 'A'; limit <= 'B'; limit++) {
        order(&theirs, limit);
        int32_t code = mmc_attach(address_of("pool"), &brief, &other);
        CHECK(code == MMC_ERR_DISCONNECTED || code == MMC_ERR_UNSUPPORTED);
        CHECK_OK(put_filled(store, key("a"), PAGE, 1, NULL));
        CHECK_OK(mmc_remove(store, key("a")));
        order(&theirs, 'r');
        brief.call_timeout_ms = 20000;
        CHECK_OK(mmc_attach(address_of("pool"), &brief, &other));
        CHECK_OK(mmc_uninit(other));
        brief.call_timeout_ms = 200;
    }
    CHECK_SOON(statistics_of(store).attached == 1);
    CHECK_OK(mmc_uninit(store));
    end_owner(&theirs);
}

// ---- Ends

BEHAVIOUR(a_pin_outlives_its_handle) {
    mmc_config config = shared_config(MIB);
    owner theirs = start_owner(&config, NULL);
    mmc_store *store = attach(MMC_NO_RANK), *watcher = attach(MMC_NO_RANK);
    mmc_view pinned = {.struct_size = sizeof pinned}, reserved = pinned;
    CHECK_OK(put_filled(store, key("a"), PAGE, 1, NULL));
    CHECK_OK(mmc_pin(store, key("a"), 0, &pinned));
    CHECK_OK(mmc_reserve(store, key("b"), PAGE, NULL, &reserved));
    CHECK_OK(mmc_uninit(store));
    CHECK_CODE(MMC_ERR_NOT_STARTED, mmc_exist(store, key("a"), 0));
    CHECK_OK(mmc_remove(watcher, key("a")));
    CHECK(is_filled(pinned.data, PAGE, 1));
    CHECK_EQUAL(1, statistics_of(watcher).pins);
    CHECK_OK(mmc_unpin(store, pinned.token));
    CHECK_CODE(MMC_ERR_NOT_STARTED, mmc_commit(store, reserved.token));
    CHECK_CODE(MMC_ERR_NOT_STARTED, mmc_unpin(store, pinned.token));
    CHECK_SOON(statistics_of(watcher).attached == 1);
    CHECK_EQUAL(0, statistics_of(watcher).allocated);
    CHECK_OK(mmc_uninit(watcher));
    end_owner(&theirs);
}

BEHAVIOUR(a_forked_child_is_not_attached) {
    mmc_config config = shared_config(MIB);
    owner theirs = start_owner(&config, NULL);
    mmc_store *store = attach(MMC_NO_RANK);
    CHECK_OK(put_filled(store, key("a"), PAGE, 1, NULL));
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        mmc_view view = {.struct_size = sizeof view};
        CHECK_CODE(MMC_ERR_FORKED, mmc_exist(store, key("a"), 0));
        CHECK_CODE(MMC_ERR_FORKED, mmc_pin(store, key("a"), 0, &view));
        CHECK_CODE(MMC_ERR_FORKED, mmc_uninit(store));
        // It may attach by itself.
        mmc_store *own = attach(MMC_NO_RANK);
        CHECK(has_filled(own, key("a"), PAGE, 1));
        CHECK_EQUAL(2, statistics_of(own).attached);
        CHECK_OK(mmc_uninit(own));
        end_child(1);
    }
    int status = 0;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    CHECK(has_filled(store, key("a"), PAGE, 1));
    CHECK_SOON(statistics_of(store).attached == 1);
    CHECK_OK(mmc_uninit(store));
    end_owner(&theirs);
}

BEHAVIOUR(an_owner_that_closes_is_missed_and_what_is_mapped_stays) {
    mmc_config config = shared_config(MIB);
    owner theirs = start_owner(&config, NULL);
    mmc_store *store = attach(MMC_NO_RANK);
    mmc_view pinned = {.struct_size = sizeof pinned}, reserved = pinned;
    CHECK_OK(put_filled(store, key("a"), PAGE, 1, NULL));
    CHECK_OK(mmc_pin(store, key("a"), 0, &pinned));
    CHECK_OK(mmc_reserve(store, key("b"), PAGE, NULL, &reserved));
    order(&theirs, 'c');
    uint64_t begin = milliseconds();
    CHECK_FAILS(MMC_ERR_DISCONNECTED, "has closed it, or has gone", mmc_exist(store, key("a"), 0));
    CHECK_CODE(MMC_ERR_DISCONNECTED, put_filled(store, key("c"), PAGE, 1, NULL));
    CHECK_CODE(MMC_ERR_DISCONNECTED, mmc_commit(store, reserved.token));
    CHECK_CODE(MMC_ERR_DISCONNECTED, mmc_stats(store, &(mmc_statistics){.struct_size = sizeof(mmc_statistics)}));
    CHECK(milliseconds() - begin < 2000);
    CHECK(is_filled(pinned.data, PAGE, 1));
    mmc_store *next = NULL;
    CHECK_FAILS(MMC_ERR_DISCONNECTED, "no process shares a pool", mmc_attach(address_of("pool"), NULL, &next));
    end_owner(&theirs);
    theirs = start_owner(&config, NULL);
    next = attach(MMC_NO_RANK);
    CHECK_CODE(MMC_ERR_NOT_FOUND, mmc_exist(next, key("a"), 0));
    CHECK(is_filled(pinned.data, PAGE, 1));
    CHECK_CODE(MMC_ERR_DISCONNECTED, mmc_unpin(store, pinned.token));
    CHECK_OK(mmc_uninit(store));
    CHECK_OK(mmc_uninit(next));
    end_owner(&theirs);
}
