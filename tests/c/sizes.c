// struct_size: programs of older and newer headers talk to this library.

#include "check.h"

// A struct of a later header: ours with 16 bytes more.
#define LATER(type) \
    struct { \
        type known; \
        unsigned char added[16]; \
    }

static mmc_store *store;

BEHAVIOUR(there_is_a_store) {
    store = open_store(MIB);
    CHECK_OK(put_filled(store, key("k"), 100, 1, NULL));
}

// Each function that takes a struct, called with one at `at`; what the struct is called.
typedef int32_t (*call)(void *at);

static int32_t call_init(void *at) {
    mmc_store *opened = NULL;
    int32_t code = mmc_init(at, &opened);
    if (code == MMC_OK) CHECK_OK(mmc_uninit(opened));
    return code;
}
static int32_t call_parse(void *at) {
    static const char text[] = "mmc.rank = 3\nmmc.prefault = no\n";
    return mmc_config_parse("x.conf", text, sizeof text - 1, at, NULL, 0, NULL);
}
static int32_t call_register(void *at) {
    uint64_t address = 0;
    int32_t code = mmc_register_segment(store, at, &address);
    if (code == MMC_OK) CHECK_OK(mmc_unregister_segment(store, address));
    return code;
}
static int32_t call_put(void *at) {
    int32_t code = mmc_put(store, key("put"), "x", 1, at);
    if (code == MMC_OK) CHECK_OK(mmc_remove(store, key("put")));
    return code;
}
static int32_t call_get(void *at) {
    char data[100];
    return mmc_get(store, key("k"), data, sizeof data, 0, at, NULL);
}
static int32_t call_list(void *at) {
    size_t count;
    return mmc_list_segments(store, at, 1, &count);
}
static int32_t call_query(void *at) { return mmc_query(store, key("k"), 0, at); }
static int32_t call_batch_query(void *at) {
    mmc_key name = key("k");
    int32_t result;
    return mmc_batch_query(store, &name, 1, 0, at, &result);
}
static int32_t call_stats(void *at) { return mmc_stats(store, at); }
static int32_t call_pin(void *at) {
    int32_t code = mmc_pin(store, key("k"), 0, at);
    uint64_t token;
    memcpy(&token, (char *)at + offsetof(mmc_view, token), sizeof token);
    if (code == MMC_OK) CHECK_OK(mmc_unpin(store, token));
    return code;
}
static int32_t call_reserve(void *at) {
    int32_t code = mmc_reserve(store, key("reserved"), 1, NULL, at);
    uint64_t token;
    memcpy(&token, (char *)at + offsetof(mmc_view, token), sizeof token);
    if (code == MMC_OK) CHECK_OK(mmc_abort(store, token));
    return code;
}

static const struct {
    const char *name;
    call call;
    uint32_t size;
    // As small as an older header might have had it.
    uint32_t least;
    int is_read;
} structs[] = {
    {"mmc_config", call_init, sizeof(mmc_config), 16, 1},
    {"mmc_config", call_parse, sizeof(mmc_config), 8, 1},
    {"mmc_segment_options", call_register, sizeof(mmc_segment_options), 24, 1},
    {"mmc_put_options", call_put, sizeof(mmc_put_options), 8, 1},
    {"mmc_get_options", call_get, sizeof(mmc_get_options), 8, 1},
    {"mmc_segment_info", call_list, sizeof(mmc_segment_info), 16, 0},
    {"mmc_object_info", call_query, sizeof(mmc_object_info), 16, 0},
    {"mmc_object_info", call_batch_query, sizeof(mmc_object_info), 16, 0},
    {"mmc_statistics", call_stats, sizeof(mmc_statistics), 16, 0},
    {"mmc_view", call_pin, sizeof(mmc_view), 16, 0},
    {"mmc_view", call_reserve, sizeof(mmc_view), 16, 0},
};
#define STRUCTS (sizeof structs / sizeof structs[0])

// Bytes of a struct that says something useful, followed by `fence`, in memory that ends there: too long a read is an error of valgrind's.
static unsigned char *made(size_t number, uint32_t claimed, uint32_t given, unsigned char fence) {
    unsigned char *at = calloc(1, given < structs[number].size ? given : structs[number].size + 64u);
    if (structs[number].call == call_register) {
        mmc_segment_options options = {.medium = MMC_MEDIUM_DRAM, .capacity = PAGE};
        memcpy(at, &options, given < 24 ? given : 24);
    }
    if (structs[number].call == call_init && given >= 16) memcpy(at + 8, &(uint64_t){MIB}, 8);
    if (given > structs[number].size) memset(at + structs[number].size, fence, given - structs[number].size);
    memcpy(at, &claimed, sizeof claimed);
    return at;
}

static void check_struct(size_t number, uint32_t size, unsigned char fence, int32_t expected, const char *words) {
    unsigned char *at = made(number, size, size < 4 || size > 4096 ? structs[number].size : size, fence);
    int32_t code = structs[number].call(at);
    if (code != expected) fail(__FILE__, __LINE__, "%s of %u bytes: got %s", structs[number].name, size, mmc_error_name(code));
    if (words != NULL) check_words(__FILE__, __LINE__, structs[number].name, words);
    free(at);
}

BEHAVIOUR(a_struct_of_this_header_is_taken) {
    for (size_t i = 0; i < STRUCTS; i++) check_struct(i, structs[i].size, 0, MMC_OK, NULL);
}

BEHAVIOUR(a_smaller_struct_gets_defaults_for_what_it_lacks) {
    for (size_t i = 0; i < STRUCTS; i++) check_struct(i, structs[i].least, 0, MMC_OK, NULL);
    struct {
        uint32_t struct_size, rank;
    } small = {8, 3};
    mmc_store *other = NULL;
    CHECK_OK(mmc_init((mmc_config *)(void *)&small, &other));
    mmc_segment_info info = {.struct_size = sizeof info};
    size_t count;
    CHECK_OK(mmc_list_segments(other, &info, 1, &count));
    CHECK_EQUAL(3, info.rank);
    CHECK_EQUAL(1u << 30, info.capacity);
    close_store(other);
}

BEHAVIOUR(a_larger_struct_that_ends_in_zeros_is_taken) {
    for (size_t i = 0; i < STRUCTS; i++) check_struct(i, structs[i].size + 16, 0, MMC_OK, NULL);
}

BEHAVIOUR(a_larger_struct_that_asks_for_more_is_refused) {
    for (size_t i = 0; i < STRUCTS; i++) {
        // One to be filled may hold anything: its unknown part comes back as zeros.
        check_struct(i, structs[i].size + 16, 1, structs[i].is_read ? MMC_ERR_INVALID_PARAM : MMC_OK,
                     structs[i].is_read ? structs[i].name : NULL);
    }
}

BEHAVIOUR(a_size_that_was_never_set_is_refused_by_name) {
    static const uint32_t sizes[] = {0, 1, 3, 4097, UINT32_MAX};
    for (size_t i = 0; i < STRUCTS; i++) {
        for (size_t j = 0; j < sizeof sizes / sizeof sizes[0]; j++) {
            check_struct(i, sizes[j], 0, MMC_ERR_INVALID_PARAM, "struct_size");
            check_words(__FILE__, __LINE__, "message", structs[i].name);
        }
    }
    CHECK_EQUAL(0, statistics_of(store).pins + statistics_of(store).reservations);
}

BEHAVIOUR(a_null_struct_to_be_filled_is_refused) {
    CHECK_FAILS(MMC_ERR_INVALID_PARAM, "mmc_object_info is null", mmc_query(store, key("k"), 0, NULL));
    CHECK_FAILS(MMC_ERR_INVALID_PARAM, "mmc_view is null", mmc_pin(store, key("k"), 0, NULL));
    CHECK_FAILS(MMC_ERR_INVALID_PARAM, "mmc_config is null", call_parse(NULL));
    CHECK_FAILS(MMC_ERR_INVALID_PARAM, "mmc_view is null", mmc_reserve(store, key("r"), 1, NULL, NULL));
    CHECK_FAILS(MMC_ERR_INVALID_PARAM, "is null", mmc_stats(store, NULL));
    CHECK_FAILS(MMC_ERR_INVALID_PARAM, "options is null", mmc_register_segment(store, NULL, NULL));
    CHECK_EQUAL(0, statistics_of(store).pins + statistics_of(store).reservations);
}

BEHAVIOUR(a_larger_struct_is_filled_as_far_as_it_is_known) {
    LATER(mmc_statistics) statistics;
    memset(&statistics, 0x55, sizeof statistics);
    statistics.known.struct_size = sizeof statistics;
    CHECK_OK(mmc_stats(store, &statistics.known));
    CHECK_EQUAL(sizeof statistics, statistics.known.struct_size);
    CHECK_EQUAL(1, statistics.known.stored_keys);
    for (size_t i = 0; i < sizeof statistics.added; i++) CHECK_EQUAL(0, statistics.added[i]);
}

BEHAVIOUR(a_smaller_struct_is_filled_as_far_as_it_goes) {
    unsigned char at[sizeof(mmc_statistics)];
    memset(at, 0x55, sizeof at);
    memcpy(at, &(uint32_t){16}, 4);
    CHECK_OK(mmc_stats(store, (mmc_statistics *)(void *)at));
    CHECK_EQUAL(1, at[8]); // stored_keys
    for (size_t i = 16; i < sizeof at; i++) CHECK_EQUAL(0x55, at[i]);
}

BEHAVIOUR(a_config_is_filled_from_a_text_as_far_as_it_goes) {
    unsigned char at[sizeof(mmc_config)];
    memset(at, 0x55, sizeof at);
    memset(at, 0, 16);
    memcpy(at, &(uint32_t){16}, 4);
    CHECK_OK(call_parse(at));
    CHECK_EQUAL(3, at[4]); // rank
    for (size_t i = 16; i < sizeof at; i++) CHECK_EQUAL(0x55, at[i]);
    LATER(mmc_config) later;
    memset(&later, 0, sizeof later);
    later.known.struct_size = sizeof later;
    CHECK_OK(call_parse(&later));
    CHECK_EQUAL(3, later.known.rank);
    CHECK_EQUAL(MMC_OFF, later.known.prefault);
    CHECK_EQUAL(sizeof later, later.known.struct_size);
}

BEHAVIOUR(an_array_has_the_distance_that_its_first_element_says) {
    LATER(mmc_object_info) infos[3];
    mmc_key names[3] = {key("k"), key("missing"), key("k")};
    int32_t results[3];
    memset(infos, 0x55, sizeof infos);
    infos[0].known.struct_size = sizeof infos[0];
    CHECK_OK(mmc_batch_query(store, names, 3, 0, &infos[0].known, results));
    CHECK_EQUAL(100, infos[0].known.size);
    CHECK_EQUAL(100, infos[2].known.size);
    CHECK_EQUAL(sizeof infos[0], infos[2].known.struct_size);
    CHECK_CODE(MMC_ERR_NOT_FOUND, results[1]);
    CHECK_EQUAL(0x55, ((unsigned char *)&infos[1])[8]); // not written

    // An older program has smaller elements.
    unsigned char small[3][16];
    memset(small, 0x55, sizeof small);
    memcpy(small[0], &(uint32_t){16}, 4);
    CHECK_OK(mmc_batch_query(store, names, 3, 0, (mmc_object_info *)(void *)small, results));
    CHECK_EQUAL(100, small[0][8]);
    CHECK_EQUAL(0x55, small[1][8]);
    CHECK_EQUAL(100, small[2][8]);
}

BEHAVIOUR(a_reserved_field_must_be_zero) {
    mmc_put_options put = {.struct_size = sizeof put, .reserved = 1};
    mmc_get_options get = {.struct_size = sizeof get, .reserved = 1};
    mmc_segment_options segment = {.struct_size = sizeof segment, .medium = MMC_MEDIUM_DRAM, .capacity = PAGE, .reserved = 1};
    CHECK_FAILS(MMC_ERR_INVALID_PARAM, "reserved field of mmc_put_options", call_put(&put));
    CHECK_FAILS(MMC_ERR_INVALID_PARAM, "reserved field of mmc_get_options", call_get(&get));
    CHECK_FAILS(MMC_ERR_INVALID_PARAM, "reserved field of mmc_segment_options", call_register(&segment));
}

BEHAVIOUR(the_store_has_survived_it) {
    CHECK(has_filled(store, key("k"), 100, 1));
    CHECK_EQUAL(1, statistics_of(store).stored_keys);
    CHECK_EQUAL(PAGE, statistics_of(store).allocated);
    close_store(store);
}
