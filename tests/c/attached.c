// Everything that can be asked of a store, of one that another process owns: it is what it is of a store of the process.
//
// One routine calls everything there is, over a store of this process and over one that it is attached to, and writes down each code,
// result and message; both must have written the same.

#include "sharing.h"

static char *transcript;
static size_t written;

__attribute__((format(printf, 1, 2))) static void note(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    written += (size_t)vsnprintf(transcript + written, 65536 - written, format, arguments);
    va_end(arguments);
    CHECK(written < 65536);
}

static int32_t noted(int line, int32_t code) {
    note("%d: %s", line, mmc_error_name(code));
    if (code != MMC_OK) note(" %s", mmc_last_error());
    note("\n");
    return code;
}

static void note_codes(int line, int32_t code, const int32_t *results, size_t count) {
    noted(line, code);
    for (size_t i = 0; i < count; i++) note("  %s\n", mmc_error_name(results[i]));
}

#define NOTED(call) noted(__LINE__, call)
#define NOTED_CODES(call, results, count) note_codes(__LINE__, call, results, count)
#define NOTE_FILLED(data, size, seed) note("%d: filled %d\n", __LINE__, is_filled(data, size, seed))

static void note_object(mmc_store *store, mmc_key name, uint32_t flags, uint64_t first) {
    mmc_object_info info = {.struct_size = sizeof info};
    if (NOTED(mmc_query(store, name, flags, &info)) != MMC_OK) return;
    note("  %" PRIu64 " bytes, readable %u, leases %u\n", info.size, info.readable, info.lease_count);
    for (uint32_t i = 0; i < info.blob_count; i++) {
        mmc_blob_info *blob = &info.blobs[i];
        note("  medium %u, rank %u, at %" PRIu64 ", mapped %d\n", blob->medium, blob->rank, blob->address - first, blob->data != NULL);
    }
}

static void use_single_calls(mmc_store *store, uint64_t first) {
    static char data[3 * PAGE], back[3 * PAGE];
    uint64_t size = 0;
    fill(data, sizeof data, 1);
    NOTED(mmc_put(store, key("a"), data, sizeof data, NULL));
    NOTED(mmc_put(store, key("a"), data, 5, NULL));
    NOTED(mmc_put(store, key(""), data, 5, NULL));
    NOTED(mmc_put(store, key("x"), data, 0, NULL));
    NOTED(mmc_put(store, key("x"), NULL, 5, NULL));
    NOTED(mmc_put(store, key("large"), data, 64 * MIB, NULL));
    const void *pieces[3] = {data, data + 100, data + 5000};
    size_t sizes[3] = {100, 4900, sizeof data - 5000};
    NOTED(mmc_putv(store, key("v"), pieces, sizes, 3, NULL));
    NOTED(mmc_putv(store, key("w"), pieces, sizes, 0, NULL));
    NOTED(mmc_get(store, key("a"), back, sizeof back, 0, NULL, &size));
    NOTE_FILLED(back, sizeof back, 1);
    NOTED(mmc_get(store, key("a"), back, 100, 0, NULL, &size));
    NOTED(mmc_get(store, key("a"), back, 100, MMC_GET_UP_TO, NULL, &size));
    note("%" PRIu64 "\n", size);
    NOTED(mmc_get(store, key("none"), back, 100, MMC_GET_UP_TO, NULL, &size));
    NOTED(mmc_get(store, key("a"), back, 100, 64, NULL, &size));
    memset(back, 0, sizeof back);
    void *rooms[2] = {back, back + 4097};
    size_t room_sizes[2] = {4097, sizeof back - 4097};
    NOTED(mmc_getv(store, key("v"), rooms, room_sizes, 2, MMC_PEEK, NULL, &size));
    NOTE_FILLED(back, sizeof back, 1);
    NOTED(mmc_exist(store, key("a"), 0));
    NOTED(mmc_exist(store, key("none"), 0));
    NOTED(mmc_exist(store, key("a"), 64));
    note_object(store, key("a"), 0, first);
    note_object(store, key("none"), 0, first);
    NOTED(mmc_add_lease(store, key("a"), 60000));
    NOTED(mmc_add_lease(store, key("none"), 60000));
    note_object(store, key("a"), MMC_PEEK, first);
    NOTED(mmc_remove_lease(store, key("a")));
    NOTED(mmc_remove_lease(store, key("a")));
    NOTED(mmc_remove_lease(store, key("none")));
    NOTED(mmc_remove(store, key("v")));
    NOTED(mmc_remove(store, key("v")));
    mmc_put_options two = {.struct_size = sizeof two, .replicas = 2};
    NOTED(mmc_put(store, key("two"), data, sizeof data, &two));
    note_object(store, key("two"), 0, first);
    uint32_t ranks[2] = {1, 0};
    mmc_put_options preferring = {.struct_size = sizeof two, .replicas = 2, .preferred_ranks = ranks, .preferred_count = 2};
    NOTED(mmc_put(store, key("preferring"), data, sizeof data, &preferring));
    note_object(store, key("preferring"), 0, first);
    ranks[0] = 9;
    NOTED(mmc_put(store, key("x"), data, sizeof data, &preferring));
    two.replicas = 3;
    NOTED(mmc_put(store, key("x"), data, sizeof data, &two));
    two.replicas = 9;
    NOTED(mmc_put(store, key("x"), data, sizeof data, &two));
    two = (mmc_put_options){.struct_size = sizeof two, .medium = MMC_MEDIUM_HBM};
    NOTED(mmc_put(store, key("x"), data, sizeof data, &two));
    two.medium = MMC_MEDIUM_SSD;
    NOTED(mmc_put(store, key("ssd"), data, sizeof data, &two));
    note_object(store, key("ssd"), 0, first);
    NOTED(mmc_put(store, key("ssd"), data, sizeof data, &two));
    memset(back, 0, sizeof back);
    NOTED(mmc_get(store, key("ssd"), back, sizeof back, 0, NULL, &size));
    NOTE_FILLED(back, sizeof back, 1);
}

static void use_memory_in_place(mmc_store *store, uint64_t first) {
    static char back[2 * PAGE];
    mmc_view view = {.struct_size = sizeof view}, pinned = view;
    NOTED(mmc_reserve(store, key("r"), sizeof back, NULL, &view));
    note("token %d, at %" PRIu64 ", mapped %d, %" PRIu64 " bytes\n", view.token != 0, view.address - first, view.data != NULL, view.size);
    NOTED(mmc_reserve(store, key("r"), 5, NULL, &pinned));
    NOTED(mmc_reserve(store, key("q"), 0, NULL, &pinned));
    NOTED(mmc_exist(store, key("r"), 0));
    note_object(store, key("r"), 0, first);
    note_object(store, key("r"), MMC_QUERY_RESERVED, first);
    NOTED(mmc_add_lease(store, key("r"), 0));
    NOTED(mmc_put(store, key("r"), back, 5, NULL));
    fill(view.data, sizeof back, 2);
    NOTED(mmc_unpin(store, (uint64_t)1 << 60));
    NOTED(mmc_commit(store, view.token));
    note("%d\n", mmc_commit(store, view.token) == MMC_ERR_NOT_FOUND);
    NOTED(mmc_get(store, key("r"), back, sizeof back, 0, NULL, NULL));
    NOTE_FILLED(back, sizeof back, 2);
    NOTED(mmc_reserve(store, key("s"), 100, NULL, &view));
    NOTED(mmc_abort(store, view.token));
    note("%d\n", mmc_abort(store, view.token) == MMC_ERR_NOT_FOUND);
    NOTED(mmc_exist(store, key("s"), 0));
    mmc_put_options brief = {.struct_size = sizeof brief, .term_ms = 1};
    NOTED(mmc_reserve(store, key("s"), 100, &brief, &view));
    CHECK_SOON(mmc_reserve(store, key("s"), 100, NULL, &pinned) == MMC_OK);
    note("%d\n", mmc_commit(store, view.token) == MMC_ERR_TIMEOUT);
    NOTED(mmc_abort(store, pinned.token));
    NOTED(mmc_pin(store, key("r"), 0, &pinned));
    note("pinned at %" PRIu64 ", %" PRIu64 " bytes\n", pinned.address - first, pinned.size);
    NOTED(mmc_remove(store, key("r")));
    NOTE_FILLED(pinned.data, sizeof back, 2);
    note("pins %" PRIu64 "\n", statistics_of(store).pins);
    NOTED(mmc_unpin(store, pinned.token));
    NOTED(mmc_pin(store, key("r"), 0, &pinned));
    NOTED(mmc_commit(store, (uint64_t)1 << 60));
    NOTED(mmc_abort(store, (uint64_t)1 << 60));
}

static void use_batches(mmc_store *store) {
    static char data[4][PAGE], back[4][PAGE];
    mmc_key keys[4] = {key("b0"), key("b1"), key(""), key("b1")};
    const void *read[4] = {data[0], data[1], data[2], data[3]};
    void *rooms[4] = {back[0], back[1], back[2], back[3]};
    size_t sizes[4] = {PAGE, 100, PAGE, PAGE}, counts[2] = {2, 2};
    int32_t results[4] = {1, 1, 1, 1};
    uint64_t true_sizes[4] = {9, 9, 9, 9}, wanted[4] = {PAGE, 100, 5, 5};
    for (unsigned i = 0; i < 4; i++) fill(data[i], PAGE, i);
    NOTED_CODES(mmc_batch_put(store, keys, 4, read, sizes, NULL, 0, results), results, 4);
    NOTED(mmc_batch_put(store, keys, 4, read, sizes, NULL, 1, results));
    NOTED(mmc_batch_put(store, keys, MMC_MAX_BATCH + 1, read, sizes, NULL, 0, results));
    NOTED(mmc_batch_put(store, keys, 0, NULL, NULL, NULL, 0, NULL));
    mmc_key more[2] = {key("c0"), key("c1")};
    NOTED_CODES(mmc_batch_putv(store, more, 2, counts, read, sizes, NULL, 0, results), results, 2);
    keys[3] = key("none");
    NOTED_CODES(mmc_batch_get(store, keys, 4, rooms, sizes, 0, NULL, results, true_sizes), results, 4);
    for (unsigned i = 0; i < 4; i++) note("%" PRIu64 "\n", true_sizes[i]);
    NOTE_FILLED(back[0], PAGE, 0);
    NOTE_FILLED(back[1], 100, 1);
    sizes[1] = 50;
    NOTED_CODES(mmc_batch_get(store, keys, 2, rooms, sizes, 0, NULL, results, true_sizes), results, 2);
    NOTED_CODES(mmc_batch_get(store, keys, 2, rooms, sizes, MMC_GET_UP_TO, NULL, results, true_sizes), results, 2);
    sizes[1] = 100;
    NOTED_CODES(mmc_batch_getv(store, more, 2, counts, rooms, sizes, 0, NULL, results, true_sizes), results, 2);
    NOTED_CODES(mmc_batch_exist(store, keys, 4, 0, results), results, 4);
    NOTED(mmc_batch_exist(store, keys, 4, 64, results));
    size_t length = 99;
    NOTED(mmc_prefix_len(store, keys, 2, 0, &length));
    note("%zu\n", length);
    NOTED(mmc_prefix_len(store, keys, 4, MMC_PEEK, &length));
    keys[2] = key("none");
    NOTED(mmc_prefix_len(store, keys, 4, MMC_PEEK, &length));
    note("%zu\n", length);
    NOTED(mmc_prefix_len(store, keys, 0, 0, &length));
    keys[2] = key("");
    mmc_object_info infos[4] = {{.struct_size = sizeof infos[0]}};
    NOTED_CODES(mmc_batch_query(store, keys, 4, 0, infos, results), results, 4);
    note("%" PRIu64 " %" PRIu64 "\n", infos[0].size, infos[1].size);
    NOTED_CODES(mmc_batch_add_lease(store, keys, 4, 60000, 0, results), results, 4);
    note("leases %" PRIu64 "\n", statistics_of(store).leases);
    NOTED_CODES(mmc_batch_remove_lease(store, keys, 4, 0, results), results, 4);
    NOTED_CODES(mmc_batch_remove_lease(store, keys, 4, 0, results), results, 4);
    mmc_view views[4] = {{.struct_size = sizeof views[0]}};
    uint64_t tokens[4] = {0};
    NOTED_CODES(mmc_batch_pin(store, keys, 4, 0, views, results), results, 4);
    NOTE_FILLED(views[1].data, 100, 1);
    for (unsigned i = 0; i < 4; i++) tokens[i] = results[i] == MMC_OK ? views[i].token : 0;
    note("pins %" PRIu64 "\n", statistics_of(store).pins);
    NOTED_CODES(mmc_batch_unpin(store, tokens, 4, 0, results), results, 4);
    NOTED_CODES(mmc_batch_unpin(store, tokens, 4, 0, results), results, 4);
    mmc_key fresh[4] = {key("d0"), key("b1"), key(""), key("d1")};
    memset(views, 0, sizeof views);
    views[0].struct_size = sizeof views[0];
    NOTED_CODES(mmc_batch_reserve(store, fresh, 4, wanted, NULL, 0, views, results), results, 4);
    for (unsigned i = 0; i < 4; i++) tokens[i] = results[i] == MMC_OK ? views[i].token : 0;
    fill(views[0].data, PAGE, 7);
    NOTED_CODES(mmc_batch_commit(store, tokens, 2, 0, results), results, 2);
    NOTED_CODES(mmc_batch_abort(store, tokens, 4, 0, results), results, 4);
    NOTED(mmc_batch_abort(store, tokens, 4, 1, results));
    note("%d %d\n", has_filled(store, key("d0"), PAGE, 7), is_there(store, key("d1")));
    NOTED_CODES(mmc_batch_remove(store, fresh, 4, 0, results), results, 4);
}

static void copy_by_address(mmc_store *store) {
    static char data[2 * PAGE], back[2 * PAGE];
    mmc_view view = {.struct_size = sizeof view};
    CHECK_OK(mmc_reserve(store, key("layers"), sizeof data, NULL, &view));
    fill(data, sizeof data, 3);
    uint64_t places[4] = {view.address + PAGE, view.address, view.address + PAGE + 1, 0};
    void *buffers[4] = {data + PAGE, data, data, data};
    size_t sizes[4] = {PAGE, PAGE, PAGE, PAGE};
    int32_t results[4] = {1, 1, 1, 1};
    NOTED_CODES(mmc_batch_copy(store, places, 4, buffers, sizes, MMC_COPY_TO_SEGMENT, 0, NULL, results), results, 4);
    void *rooms[4] = {back + PAGE, back, back, back};
    NOTED_CODES(mmc_batch_copy(store, places, 4, rooms, sizes, MMC_COPY_FROM_SEGMENT, 0, NULL, results), results, 4);
    NOTED(mmc_batch_copy(store, places, 4, rooms, sizes, 3, 0, NULL, results));
    NOTED(mmc_commit(store, view.token));
    NOTED_CODES(mmc_batch_copy(store, places, 4, buffers, sizes, MMC_COPY_TO_SEGMENT, 0, NULL, results), results, 4);
    NOTED_CODES(mmc_batch_copy(store, places, 4, rooms, sizes, MMC_COPY_FROM_SEGMENT, 0, NULL, results), results, 4);
    NOTE_FILLED(back, sizeof back, 3);
    // Removed, it can be read as long as it is leased.
    NOTED(mmc_add_lease(store, key("layers"), 60000));
    NOTED(mmc_remove(store, key("layers")));
    memset(back, 0, sizeof back);
    NOTED_CODES(mmc_batch_copy(store, places, 2, rooms, sizes, MMC_COPY_FROM_SEGMENT, 0, NULL, results), results, 2);
    NOTE_FILLED(back, sizeof back, 3);
    places[0] = (uint64_t)1 << 62;
    sizes[1] = 0;
    NOTED_CODES(mmc_batch_copy(store, places, 2, rooms, sizes, MMC_COPY_FROM_SEGMENT, 0, NULL, results), results, 2);
}

// What is counted of calls that are good; keys that are none don't come as far as the owner.
static void count_uses(mmc_store *store) {
    static char data[2 * PAGE];
    mmc_key keys[2] = {key("counted"), key("none")};
    void *rooms[2] = {data, data + PAGE};
    size_t sizes[2] = {PAGE, PAGE}, length;
    int32_t results[2];
    mmc_view view = {.struct_size = sizeof view};
    mmc_statistics before = statistics_of(store);
    CHECK_OK(put_filled(store, keys[0], PAGE, 1, NULL));
    mmc_get(store, keys[0], data, PAGE, 0, NULL, NULL);
    mmc_get(store, keys[0], data, 10, 0, NULL, NULL);
    mmc_get(store, keys[0], data, 10, MMC_GET_UP_TO, NULL, NULL);
    mmc_get(store, keys[1], data, 10, 0, NULL, NULL);
    mmc_batch_get(store, keys, 2, rooms, sizes, 0, NULL, results, NULL);
    mmc_exist(store, keys[0], 0);
    mmc_batch_exist(store, keys, 2, 0, results);
    mmc_prefix_len(store, keys, 2, 0, &length);
    uint64_t address = query(store, keys[0]).blobs[0].address;
    mmc_batch_copy(store, &address, 1, rooms, sizes, MMC_COPY_FROM_SEGMENT, 0, NULL, results);
    CHECK_OK(mmc_pin(store, keys[0], 0, &view));
    CHECK_OK(mmc_unpin(store, view.token));
    CHECK_OK(mmc_reserve(store, keys[1], 10, NULL, &view));
    address = view.address;
    mmc_batch_copy(store, &address, 1, rooms, &(size_t){10}, MMC_COPY_TO_SEGMENT, 0, NULL, results);
    CHECK_OK(mmc_commit(store, view.token));
    mmc_put_options on_ssd = {.struct_size = sizeof on_ssd, .medium = MMC_MEDIUM_SSD};
    CHECK_OK(put_filled(store, key("on-ssd"), PAGE, 1, &on_ssd));
    mmc_get(store, key("on-ssd"), data, PAGE, 0, NULL, NULL);
    mmc_batch_remove(store, keys, 2, 0, results);
    mmc_remove(store, keys[0]);
    mmc_remove(store, key("on-ssd"));
    mmc_statistics after = statistics_of(store);
#define NOTE_GROWTH(field) note(#field " %" PRIu64 "\n", after.field - before.field)
    NOTE_GROWTH(get_operations);
    NOTE_GROWTH(get_hits);
    NOTE_GROWTH(get_hits_ssd);
    NOTE_GROWTH(get_misses);
    NOTE_GROWTH(get_bytes);
    NOTE_GROWTH(put_bytes);
    NOTE_GROWTH(exist_hits);
    NOTE_GROWTH(exist_misses);
    NOTE_GROWTH(remove_operations);
    NOTE_GROWTH(evict_operations);
#undef NOTE_GROWTH
}

static int32_t note_page(void *context, const mmc_key *keys, size_t count) {
    (void)keys;
    *(size_t *)context += count;
    return 0;
}

static void move_and_report(mmc_store *store, uint64_t first) {
    mmc_key keys[3] = {key("a"), key("none"), key("")};
    int32_t results[3] = {1, 1, 1};
    NOTED_CODES(mmc_evict(store, keys, 3, MMC_MEDIUM_DRAM, MMC_MEDIUM_SSD, 0, results), results, 3);
    note_object(store, key("a"), MMC_PEEK, first);
    note("%d\n", has_filled(store, key("a"), 3 * PAGE, 1));
    NOTED_CODES(mmc_prefetch(store, keys, 3, MMC_MEDIUM_SSD, MMC_MEDIUM_DRAM, 0, results), results, 3);
    note_object(store, key("a"), MMC_PEEK, first);
    NOTED(mmc_evict(store, keys, 3, MMC_MEDIUM_SSD, MMC_MEDIUM_DRAM, 0, results));
    NOTED(mmc_prefetch(store, keys, 3, MMC_MEDIUM_DRAM, 17, 0, results));
    NOTED(mmc_evict(store, keys, 3, MMC_MEDIUM_DRAM, MMC_MEDIUM_SSD, 1, results));
    size_t listed = 0;
    NOTED(mmc_list_keys(store, note_page, &listed));
    note("%zu keys\n", listed);
    NOTED(mmc_list_keys(store, NULL, &listed));
    mmc_segment_info infos[8] = {{.struct_size = sizeof infos[0]}};
    size_t count = 0;
    NOTED(mmc_list_segments(store, infos, 8, &count));
    for (size_t i = 0; i < count; i++) {
        note("medium %u, rank %u, at %" PRIu64 ", %" PRIu64 " of %" PRIu64 ", memory %u\n", infos[i].medium, infos[i].rank,
             infos[i].address - first, infos[i].allocated, infos[i].capacity, infos[i].memory);
    }
    NOTED(mmc_unregister_segment(store, 4096));
    char text[64] = "";
    size_t needed = 0;
    NOTED(mmc_http_address(store, text, sizeof text, &needed));
    note("\"%s\" %zu\n", text, needed);
    mmc_statistics now = statistics_of(store);
    note("%u segments, %" PRIu64 " keys, %" PRIu64 " of %" PRIu64 "\n", now.segment_count, now.stored_keys, now.allocated, now.capacity);
    note("moves %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", now.demotions, now.promotions, now.moved_bytes);
    note("held %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", now.pins, now.reservations, now.leases);
    uint64_t removed = 0;
    NOTED(mmc_remove_all(store, &removed));
    note("%" PRIu64 "\n", removed);
}

// Writes down what everything returns.
static char *use_all(mmc_store *store) {
    transcript = calloc(1, 65536);
    written = 0;
    mmc_segment_info infos[8] = {{.struct_size = sizeof infos[0]}};
    size_t count = 0;
    CHECK_OK(mmc_list_segments(store, infos, 8, &count));
    uint64_t first = infos[0].address;
    use_single_calls(store, first);
    use_memory_in_place(store, first);
    use_batches(store);
    copy_by_address(store);
    count_uses(store);
    move_and_report(store, first);
    return transcript;
}

static void add_segments(mmc_store *store, char order) {
    if (order != 0) return;
    register_memfd(store, 1, MIB);
    register_ssd(store, MIB, "compared");
}

BEHAVIOUR(every_function_does_what_it_does_on_a_store_of_the_process) {
    mmc_config config = shared_config(2 * MIB);
    owner theirs = start_owner(&config, add_segments);
    mmc_store *store = attach(0);
    char *attached = use_all(store);
    CHECK_OK(mmc_uninit(store));
    end_owner(&theirs);
    CHECK_OK(mmc_init(&config, &store));
    add_segments(store, 0);
    char *own = use_all(store);
    CHECK_OK(mmc_uninit(store));
    size_t same = 0;
    while (own[same] != 0 && own[same] == attached[same]) same++;
    if (own[same] != attached[same]) {
        while (same > 0 && own[same - 1] != '\n') same--;
        fail(__FILE__, __LINE__, "own:\n%.400s\nattached:\n%.400s", own + same, attached + same);
    }
    free(own);
    free(attached);
}
