// Opening and closing stores: where settings come from, what is refused and in which words, and what a handle is worth.

#include "check.h"

#define NO_STORE ((mmc_store *)(uintptr_t)0xdead)

static char path[64];

// A file of settings, for as long as the behaviour runs.
static const char *write_file(const char *text) {
    snprintf(path, sizeof path, "/tmp/mmc-lifetime-%d.conf", (int)getpid());
    FILE *file = fopen(path, "w");
    CHECK(file != NULL && fputs(text, file) >= 0 && fclose(file) == 0);
    return path;
}

static mmc_segment_info only_segment(mmc_store *store) {
    mmc_segment_info info = {.struct_size = sizeof info};
    size_t count = 0;
    CHECK_OK(mmc_list_segments(store, &info, 1, &count));
    CHECK_EQUAL(1, count);
    return info;
}

BEHAVIOUR(a_null_config_means_the_defaults) {
    mmc_store *store = NULL;
    CHECK_OK(mmc_init(NULL, &store));
    mmc_segment_info segment = only_segment(store);
    CHECK_EQUAL(1u << 30, segment.capacity);
    CHECK_EQUAL(MMC_MEDIUM_DRAM, segment.medium);
    CHECK_EQUAL(0, segment.rank);
    CHECK_EQUAL(MMC_MEMORY_PRIVATE, segment.memory);
    char address[8] = "x";
    CHECK_OK(mmc_http_address(store, address, sizeof address, NULL));
    CHECK(strcmp(address, "") == 0);
    close_store(store);
}

static uint64_t resident_bytes(void) {
    unsigned long total = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    CHECK(file != NULL && fscanf(file, "%lu %lu", &total, &resident) == 2 && fclose(file) == 0);
    return (uint64_t)resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

BEHAVIOUR(memory_is_taken_when_it_is_touched) {
    uint64_t before = resident_bytes();
    mmc_store *store = open_store((uint64_t)1 << 30);
    CHECK_OK(put_filled(store, key("k"), 10000, 1, NULL));
    CHECK(has_filled(store, key("k"), 10000, 1));
    CHECK(resident_bytes() < before + 64 * MIB);
    close_store(store);
}

BEHAVIOUR(a_config_that_is_init_has_nothing_set) {
    mmc_config config, zero;
    memset(&config, 0x55, sizeof config);
    memset(&zero, 0, sizeof zero);
    zero.struct_size = sizeof zero;
    CHECK_OK(mmc_config_init(&config));
    CHECK(memcmp(&config, &zero, sizeof config) == 0);
    CHECK_FAILS(MMC_ERR_INVALID_PARAM, "config is null", mmc_config_init(NULL));
}

BEHAVIOUR(what_the_caller_sets_holds) {
    mmc_config config = config_of(8 * MIB);
    config.rank = 7;
    config.memory = MMC_MEMORY_MEMFD;
    config.prefault = MMC_ON;
    config.huge_pages = MMC_OFF;
    mmc_store *store = NULL;
    CHECK_OK(mmc_init(&config, &store));
    mmc_segment_info segment = only_segment(store);
    CHECK_EQUAL(8 * MIB, segment.capacity);
    CHECK_EQUAL(7, segment.rank);
    CHECK_EQUAL(MMC_MEMORY_MEMFD, segment.memory);
    CHECK_EQUAL(MMC_PAGES_SMALL, segment.pages);
    close_store(store);
}

BEHAVIOUR(a_store_may_begin_without_a_segment) {
    mmc_store *store = open_store(MMC_NO_DRAM);
    CHECK_EQUAL(0, statistics_of(store).segment_count);
    CHECK_FAILS(MMC_ERR_NO_SPACE, "no HBM segment is registered", put_filled(store, key("k"), 1, 1, NULL));
    close_store(store);
}

BEHAVIOUR(the_file_fills_what_the_caller_left_unset) {
    mmc_config config = config_of(0);
    config.config_path = write_file("mmc.dram_size = 12MB\nmmc.rank = 5 # a comment\n");
    mmc_store *store = NULL;
    CHECK_OK(mmc_init(&config, &store));
    CHECK_EQUAL(12 * MIB, only_segment(store).capacity);
    CHECK_EQUAL(5, only_segment(store).rank);
    close_store(store);

    config.dram_size = 4 * MIB;
    CHECK_OK(mmc_init(&config, &store));
    CHECK_EQUAL(4 * MIB, only_segment(store).capacity);
    CHECK_EQUAL(5, only_segment(store).rank);
    close_store(store);
    unlink(path);
}

BEHAVIOUR(the_file_of_the_environment_counts_even_with_a_null_config) {
    setenv("MMC_CONFIG_PATH", write_file("ock.mmc.local_service.dram.size = 3MB\n"), 1);
    mmc_store *store = NULL;
    CHECK_OK(mmc_init(NULL, &store));
    CHECK_EQUAL(3 * MIB, only_segment(store).capacity);
    close_store(store);
    // An empty path of the caller's means no file.
    mmc_config config = config_of(0);
    config.config_path = "";
    CHECK_OK(mmc_init(&config, &store));
    CHECK_EQUAL(1u << 30, only_segment(store).capacity);
    close_store(store);
    unsetenv("MMC_CONFIG_PATH");
    unlink(path);
}

static void check_port(const mmc_config *config, int is_on, const char *host) {
    mmc_store *store = NULL;
    char address[64] = "";
    CHECK_OK(mmc_init(config, &store));
    CHECK_OK(mmc_http_address(store, address, sizeof address, NULL));
    CHECK_EQUAL(is_on, address[0] != 0);
    CHECK(strncmp(address, host, strlen(host)) == 0);
    close_store(store);
}

BEHAVIOUR(the_order_is_caller_environment_file) {
    mmc_config config = config_of(MIB);
    config.config_path = write_file("mmc.http_address = 127.0.0.3:0\n");
    check_port(&config, 1, "127.0.0.3:");
    setenv("MMC_HTTP_ADDRESS", "127.0.0.2:0", 1);
    check_port(&config, 1, "127.0.0.2:");
    config.http_address = "127.0.0.1:0";
    check_port(&config, 1, "127.0.0.1:");
    config.http_address = "";
    check_port(&config, 0, "");
    setenv("MMC_HTTP_ADDRESS", "", 1);
    config.http_address = NULL;
    check_port(&config, 0, "");
    unsetenv("MMC_HTTP_ADDRESS");
    unlink(path);
}

static void count_line(void *context, uint32_t level, const char *line) {
    (void)level, (void)line;
    ++*(_Atomic(int) *)context;
}

BEHAVIOUR(the_environment_sets_the_log_level) {
    _Atomic(int) lines = 0;
    mmc_store *store = NULL;
    mmc_config config = config_of(MIB);
    CHECK_OK(mmc_set_logger(count_line, &lines));
    CHECK_OK(mmc_init(&config, &store));
    close_store(store);
    CHECK_EQUAL(0, lines);
    setenv("MMC_LOG_LEVEL", "info", 1);
    CHECK_OK(mmc_init(&config, &store));
    close_store(store);
    CHECK(lines > 0);
    lines = 0;
    config.log_level = MMC_LOG_OFF;
    CHECK_OK(mmc_init(&config, &store));
    close_store(store);
    CHECK_EQUAL(0, lines);
    unsetenv("MMC_LOG_LEVEL");
    CHECK_OK(mmc_set_logger(NULL, NULL));
}

BEHAVIOUR(a_wrong_setting_is_refused_by_name) {
    mmc_config good = config_of(MIB);
#define CASE(field, value, code, words) \
    { \
        mmc_config config = good; \
        mmc_store *store = NO_STORE; \
        config.field = value; \
        CHECK_FAILS(code, words, mmc_init(&config, &store)); \
        CHECK(store == NO_STORE); \
    }
    CASE(dram_size, 4097, MMC_ERR_INVALID_PARAM, "dram_size of 4097 bytes: must be a multiple of 4096")
    CASE(dram_size, (uint64_t)1 << 62, MMC_ERR_OUT_OF_MEMORY, "4611686018427387904 bytes")
    CASE(rank, 65536, MMC_ERR_INVALID_PARAM, "rank 65536")
    CASE(watermark_high, 101, MMC_ERR_INVALID_PARAM, "watermark_high 101")
    CASE(watermark_low, 101, MMC_ERR_INVALID_PARAM, "watermark_low 101")
    CASE(http_address, "nonsense", MMC_ERR_INVALID_PARAM, "http_address = nonsense")
    CASE(http_address, "127.0.0.1:65536", MMC_ERR_INVALID_PARAM, "http_address = 127.0.0.1:65536")
    CASE(http_address, "\xff:1", MMC_ERR_INVALID_PARAM, "http_address is not UTF-8")
    CASE(http_token, "", MMC_ERR_INVALID_PARAM, "http_token")
    CASE(http_token, "a b", MMC_ERR_INVALID_PARAM, "http_token of 3 bytes")
    CASE(config_path, "/no/such/file", MMC_ERR_IO, "/no/such/file")
    CASE(log_level, 7, MMC_ERR_INVALID_PARAM, "log_level 7")
    CASE(huge_pages, 3, MMC_ERR_INVALID_PARAM, "huge_pages 3")
    CASE(prefault, 3, MMC_ERR_INVALID_PARAM, "prefault 3")
    CASE(memory, 3, MMC_ERR_INVALID_PARAM, "memory 3")
    CASE(numa_node, 1025, MMC_ERR_INVALID_PARAM, "numa_node 1024")
    CASE(reserved, 1, MMC_ERR_INVALID_PARAM, "reserved")
    CASE(reserved_2, 1, MMC_ERR_INVALID_PARAM, "reserved")
    CASE(eviction, 77, MMC_ERR_INVALID_PARAM, "eviction 77: must be MMC_EVICTION_PREFIX")
    CASE(verify_dram, 3, MMC_ERR_INVALID_PARAM, "verify_dram 3")
    CASE(share, "/run/mmc.sock", MMC_ERR_INVALID_PARAM, "share = /run/mmc.sock: must be unix:/path")
    CASE(share_mode, 01000, MMC_ERR_INVALID_PARAM, "share_mode 1000 octal: must be 1 to 0777 octal")
    CASE(share_users, "0,root", MMC_ERR_INVALID_PARAM, "share_users = 0,root: must be at most 64 numbers")
    CASE(share_groups, "\xff", MMC_ERR_INVALID_PARAM, "share_groups is not UTF-8")
    CASE(share_wait_ms, 86400001, MMC_ERR_INVALID_PARAM, "share_wait_ms 86400001: must be 1 to 86400000")
    CASE(reserved_3, 1, MMC_ERR_INVALID_PARAM, "reserved")
#undef CASE
    mmc_config config = good;
    config.watermark_low = 90, config.watermark_high = 80;
    mmc_store *store = NULL;
    CHECK_FAILS(MMC_ERR_INVALID_PARAM, "watermark_low 90: must not be above watermark_high 80", mmc_init(&config, &store));
    CHECK_FAILS(MMC_ERR_INVALID_PARAM, "store is null", mmc_init(&good, NULL));
}

BEHAVIOUR(a_wrong_line_of_the_file_is_refused_with_its_number) {
    static const char *const cases[][2] = {
        {"\nmmc.dram_sice = 1MB\n", ":2: mmc.dram_sice"}, {"mmc.rank = -1\n", ":1: mmc.rank = -1"},
        {"# x\n\nnonsense\n", ":3: nonsense"},            {"mmc.dram_size = 1XB\n", ":1: mmc.dram_size = 1XB"},
        {"mmc.watermark_high = 0\n", "mmc.watermark_high = 0"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        mmc_config config = config_of(MIB);
        mmc_store *store = NULL;
        config.config_path = write_file(cases[i][0]);
        CHECK_FAILS(MMC_ERR_INVALID_PARAM, cases[i][1], mmc_init(&config, &store));
        CHECK_FAILS(MMC_ERR_INVALID_PARAM, path, mmc_init(&config, &store));
    }
    unlink(path);
}

// Reads a text into a config, with room for its strings.
static int32_t parse(const char *text, mmc_config *config) {
    static char strings[2048];
    return mmc_config_parse("x.conf", text, strlen(text), config, strings, sizeof strings, NULL);
}

BEHAVIOUR(a_text_fills_what_the_caller_left_unset) {
    static const char text[] =
        "# settings\nmmc.dram_size = 12MB\nmmc.rank = 5\nmmc.watermark_high = 70\nmmc.watermark_low = 60\nmmc.http_address = 8000\n"
        "mmc.http_token = secret#1 # not this\nmmc.log_level = off\nmmc.huge_pages = no\nmmc.prefault = yes\nmmc.memory = memfd\nmmc.numa_node = 0\n"
        "mmc.eviction = prefix\n";
    mmc_config config, all = config_of(0);
    char strings[64];
    size_t needed = 0;
    CHECK_OK(mmc_config_parse("x.conf", text, sizeof text - 1, &all, strings, sizeof strings, &needed));
    CHECK_EQUAL(12 * MIB, all.dram_size);
    CHECK_EQUAL(5, all.rank);
    CHECK_EQUAL(70, all.watermark_high);
    CHECK_EQUAL(60, all.watermark_low);
    CHECK_EQUAL(MMC_LOG_OFF, all.log_level);
    CHECK_EQUAL(MMC_OFF, all.huge_pages);
    CHECK_EQUAL(MMC_ON, all.prefault);
    CHECK_EQUAL(MMC_MEMORY_MEMFD, all.memory);
    CHECK_EQUAL(1, all.numa_node); // 1 + the node
    CHECK_EQUAL(MMC_EVICTION_PREFIX, all.eviction);
    CHECK_EQUAL(sizeof all, all.struct_size);
    CHECK(all.http_address == strings && strcmp(all.http_address, "127.0.0.1:8000") == 0);
    CHECK(all.http_token == strings + 15 && strcmp(all.http_token, "secret#1") == 0);
    CHECK_EQUAL(15 + 9, needed);
    CHECK(strcmp(all.config_path, "") == 0);

    static const char sharing[] =
        "mmc.share = unix:/run/mmc.sock\nmmc.share_mode = 0660\nmmc.share_users = 007, 1001\nmmc.share_groups =\nmmc.share_wait_ms = 250\n";
    config = config_of(0);
    CHECK_OK(mmc_config_parse("x.conf", sharing, sizeof sharing - 1, &config, strings, sizeof strings, &needed));
    CHECK(config.share == strings && strcmp(config.share, "unix:/run/mmc.sock") == 0);
    CHECK(strcmp(config.share_users, "7,1001") == 0 && strcmp(config.share_groups, "") == 0);
    CHECK_EQUAL(19 + 7 + 1, needed);
    CHECK_EQUAL(0660, config.share_mode);
    CHECK_EQUAL(250, config.share_wait_ms);

    // What is set stays, and a string that is set takes no room.
    const mmc_config mine = {.struct_size = sizeof mine, .rank = 1, .dram_size = MMC_NO_DRAM, .watermark_high = 90, .watermark_low = 80,
                             .http_address = "", .http_token = "mine", .config_path = "/some/file", .log_level = MMC_LOG_OFF,
                             .huge_pages = MMC_ON, .prefault = MMC_OFF, .memory = MMC_MEMORY_PRIVATE, .numa_node = 2, .eviction = MMC_EVICTION_PREFIX};
    config = mine;
    CHECK_OK(mmc_config_parse("x.conf", text, sizeof text - 1, &config, NULL, 0, &needed));
    CHECK(memcmp(&mine, &config, sizeof mine) == 0);
    CHECK_EQUAL(0, needed);

    // What the text does not set is left.
    config = config_of(0);
    CHECK_OK(mmc_config_parse("x.conf", NULL, 0, &config, NULL, 0, NULL));
    CHECK_OK(parse("mmc.dram_size = 0\nmmc.rank = 0\nmmc.http_address =\n", &config));
    CHECK_EQUAL(MMC_NO_DRAM, config.dram_size);
    CHECK(strcmp(config.http_address, "") == 0 && config.http_token == NULL);
    CHECK_EQUAL(0, config.rank + config.watermark_high + config.watermark_low + config.log_level + config.huge_pages + config.numa_node);
    mmc_store *store = NULL;
    CHECK_OK(mmc_init(&config, &store));
    CHECK_EQUAL(0, statistics_of(store).segment_count);
    close_store(store);
}

BEHAVIOUR(a_store_of_a_text_is_a_store_of_a_file) {
    static const char text[] = "ock.mmc.local_service.dram.size = 3MB\nmmc.rank = 5\nmmc.http_address = 127.0.0.3:0\n";
    mmc_config config = config_of(0);
    mmc_store *store = NULL;
    setenv("MMC_CONFIG_PATH", write_file("mmc.dram_size = 9MB\nmmc.huge_pages = nonsense\n"), 1);
    setenv("MMC_HTTP_ADDRESS", "127.0.0.2:0", 1);
    CHECK_OK(parse(text, &config));
    check_port(&config, 1, "127.0.0.2:");
    unsetenv("MMC_HTTP_ADDRESS");
    CHECK_OK(parse(text, &config));
    check_port(&config, 1, "127.0.0.3:");
    CHECK_OK(mmc_init(&config, &store));
    CHECK_EQUAL(3 * MIB, only_segment(store).capacity);
    CHECK_EQUAL(5, only_segment(store).rank);
    close_store(store);
    unsetenv("MMC_CONFIG_PATH");
    unlink(path);
}

BEHAVIOUR(a_text_that_is_wrong_changes_nothing) {
    static const char *const cases[][2] = {
        {"\nmmc.dram_sice = 1MB\n", "mmc_config_parse: x.conf:2: mmc.dram_sice: unknown key"},
        {"mmc.rank = -1\n", "x.conf:1: mmc.rank = -1: must be 0 to 65535"},
        {"# x\n\nnonsense\n", "x.conf:3: nonsense: must be key = value"},
        {"mmc.rank = 7\nmmc.watermark_low = 95\n", "watermark_low 95 (from x.conf): must not be above watermark_high 90 (from the caller)"},
        {"mmc.log_level = loud", "x.conf:1: mmc.log_level = loud"},
    };
    const mmc_config good = {.struct_size = sizeof good, .watermark_high = 90};
    mmc_config config = good;
    char strings[8] = "abcdefg";
    size_t needed = 12345;
#define REFUSED(words, call) \
    CHECK_FAILS(MMC_ERR_INVALID_PARAM, words, call); \
    CHECK(memcmp(&good, &config, sizeof good) == 0); \
    CHECK_EQUAL(12345, needed)
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        REFUSED(cases[i][1], mmc_config_parse("x.conf", cases[i][0], strlen(cases[i][0]), &config, strings, sizeof strings, &needed));
    }
    REFUSED("name is null", mmc_config_parse(NULL, "", 0, &config, strings, sizeof strings, &needed));
    REFUSED("name is not UTF-8", mmc_config_parse("\xff", "", 0, &config, strings, sizeof strings, &needed));
    REFUSED("text is null", mmc_config_parse("x.conf", NULL, 1, &config, strings, sizeof strings, &needed));
    REFUSED("mmc_config is null", mmc_config_parse("x.conf", "", 0, NULL, strings, sizeof strings, &needed));
    char *large = malloc(MIB + 1);
    memset(large, '\n', MIB + 1);
    REFUSED("x.conf: a file of settings must be at most 1048576 bytes", mmc_config_parse("x.conf", large, MIB + 1, &config, strings, 8, &needed));
    CHECK_OK(mmc_config_parse("x.conf", large, MIB, &config, strings, 8, &needed));
    CHECK_EQUAL(0, needed);
    free(large);

    // Strings that do not fit: only how many bytes they need is told.
    static const char text[] = "mmc.rank = 5\nmmc.http_token = secret\nmmc.log_level = trace\n";
    config = good;
    for (size_t capacity = 0; capacity < 7; capacity++) {
        needed = 0;
        CHECK_FAILS(MMC_ERR_INVALID_PARAM, "those of x.conf need 7", mmc_config_parse("x.conf", text, sizeof text - 1, &config, strings, capacity, &needed));
        CHECK_EQUAL(7, needed);
        CHECK(memcmp(&good, &config, sizeof good) == 0 && strcmp(strings, "abcdefg") == 0);
    }
    needed = 12345;
    CHECK_FAILS(MMC_ERR_INVALID_PARAM, "strings is null", mmc_config_parse("x.conf", text, sizeof text - 1, &config, NULL, 7, NULL));
    config.rank = 65536;
    CHECK_FAILS(MMC_ERR_INVALID_PARAM, "rank 65536", mmc_config_parse("x.conf", "", 0, &config, NULL, 0, NULL));
    config.rank = 0, config.reserved = 1;
    CHECK_FAILS(MMC_ERR_INVALID_PARAM, "reserved field of mmc_config", mmc_config_parse("x.conf", "", 0, &config, NULL, 0, NULL));
    config.reserved = 0;
    setenv("MMC_LOG_LEVEL", "loud", 1);
    CHECK_FAILS(MMC_ERR_INVALID_PARAM, "MMC_LOG_LEVEL = loud", mmc_config_parse("x.conf", "", 0, &config, NULL, 0, NULL));
    unsetenv("MMC_LOG_LEVEL");
#undef REFUSED
}

typedef struct lines {
    unsigned count;
    char text[1024];
} lines;

static void keep_line(void *context, uint32_t level, const char *line) {
    lines *self = context;
    (void)level;
    self->count++;
    strncat(self->text, line, sizeof self->text - strlen(self->text) - 1);
    strncat(self->text, "\n", sizeof self->text - strlen(self->text) - 1);
}

BEHAVIOUR(what_there_is_to_say_about_a_text_is_said_once) {
    static const char text[] = "ock.mmc.novel = 1\nock.mmc.log_level = info\nock.mmc.tls.enable = false\nmmc.dram_size = 4097\n";
    lines lines = {0};
    mmc_config config = config_of(0);
    mmc_store *store = NULL;
    CHECK_OK(mmc_set_logger(keep_line, &lines));
    CHECK_OK(parse(text, &config));
    CHECK_EQUAL(3, lines.count);
    CHECK(strstr(lines.text, "x.conf:1: ock.mmc.novel: unknown key, ignored\n") != NULL);
    CHECK(strstr(lines.text, "x.conf:4: mmc.dram_size = 4097: rounded up to 8192 bytes") != NULL);
    CHECK(strstr(lines.text, "x.conf: without meaning in one process, ignored: ock.mmc.tls.enable\n") != NULL);
    CHECK_EQUAL(8192, config.dram_size);
    CHECK_EQUAL(MMC_LOG_INFO, config.log_level);
    // The level is the process's, and the store has nothing more to say about the text.
    CHECK_OK(mmc_init(&config, &store));
    CHECK(lines.count > 3 && strstr(strstr(lines.text, "segment 0x"), "x.conf") == NULL);
    close_store(store);

    // A level of the caller's goes before, as it would in mmc_init; so does one of the environment, which is left unset for it.
    lines.count = 0;
    config = config_of(0);
    config.log_level = MMC_LOG_WARN;
    CHECK_OK(parse(text, &config));
    CHECK_EQUAL(1, lines.count);
    CHECK_EQUAL(MMC_LOG_WARN, config.log_level);
    setenv("MMC_LOG_LEVEL", "off", 1);
    config = config_of(0);
    CHECK_OK(parse(text, &config));
    CHECK_EQUAL(1, lines.count);
    CHECK_EQUAL(0, config.log_level);
    unsetenv("MMC_LOG_LEVEL");
    CHECK_OK(mmc_set_logger(NULL, NULL));
}

BEHAVIOUR(a_taken_port_is_refused_by_its_address) {
    mmc_config config = config_of(MIB);
    config.http_address = "127.0.0.1:0";
    mmc_store *first = NULL, *second = NO_STORE;
    char address[64] = "";
    CHECK_OK(mmc_init(&config, &first));
    CHECK_OK(mmc_http_address(first, address, sizeof address, NULL));
    config.http_address = address;
    CHECK_FAILS(MMC_ERR_IO, address, mmc_init(&config, &second));
    CHECK(second == NO_STORE);
    close_store(first);
    CHECK_OK(mmc_init(&config, &second));
    close_store(second);
}

BEHAVIOUR(stores_of_one_process_know_nothing_of_each_other) {
    mmc_store *one = open_store(MIB), *other = open_store(2 * MIB);
    CHECK(one != other);
    CHECK_OK(put_filled(one, key("k"), 100, 1, NULL));
    CHECK_CODE(MMC_ERR_NOT_FOUND, mmc_exist(other, key("k"), 0));
    CHECK_OK(put_filled(other, key("k"), 200, 2, NULL));
    close_store(one);
    CHECK(has_filled(other, key("k"), 200, 2));
    close_store(other);
}

BEHAVIOUR(a_process_opens_1024_stores_and_no_more) {
    static mmc_store *stores[1025];
    size_t count = is_slow() ? 40 : 1024;
    mmc_config config = config_of(MMC_NO_DRAM);
    for (size_t i = 0; i < count; i++) CHECK_OK(mmc_init(&config, &stores[i]));
    if (count == 1024) CHECK_FAILS(MMC_ERR_NO_SPACE, "1024 stores", mmc_init(&config, &stores[1024]));
    for (size_t i = 0; i < count; i++) close_store(stores[i]);
    CHECK_OK(mmc_init(&config, &stores[0]));
    for (size_t i = 1; i < count; i++) CHECK(stores[0] != stores[i]);
    close_store(stores[0]);
}

BEHAVIOUR(closing_null_does_nothing) {
    CHECK_OK(mmc_uninit(NULL));
}

BEHAVIOUR(closing_twice_says_so) {
    mmc_store *store = open_store(MIB);
    CHECK_OK(mmc_uninit(store));
    CHECK_CODE(MMC_ERR_NOT_STARTED, mmc_uninit(store));
    // Nor does a later store answer to the old handle.
    mmc_store *next = open_store(MIB);
    CHECK(next != store);
    CHECK_CODE(MMC_ERR_NOT_STARTED, mmc_uninit(store));
    close_store(next);
}

// Every call with this handle answers `expected`.
static void check_every_call(mmc_store *store, int32_t expected) {
    char data[8] = "1234567";
    const void *read = data;
    void *written = data;
    size_t size = sizeof data, one = 1, count = 0;
    uint64_t number = 0, token = 1;
    int32_t result = 0;
    mmc_key name = key("k");
    mmc_segment_options segment = {.struct_size = sizeof segment, .medium = MMC_MEDIUM_DRAM, .capacity = PAGE};
    mmc_object_info info = {.struct_size = sizeof info};
    mmc_view view = {.struct_size = sizeof view};
    mmc_statistics statistics = {.struct_size = sizeof statistics};
    CHECK_CODE(expected, mmc_register_segment(store, &segment, &number));
    CHECK_CODE(expected, mmc_unregister_segment(store, (uint64_t)1 << 40));
    CHECK_CODE(expected, mmc_list_segments(store, NULL, 0, &count));
    CHECK_CODE(expected, mmc_put(store, name, data, size, NULL));
    CHECK_CODE(expected, mmc_putv(store, name, &read, &size, 1, NULL));
    CHECK_CODE(expected, mmc_get(store, name, data, size, 0, NULL, NULL));
    CHECK_CODE(expected, mmc_getv(store, name, &written, &size, 1, 0, NULL, NULL));
    CHECK_CODE(expected, mmc_exist(store, name, 0));
    CHECK_CODE(expected, mmc_query(store, name, 0, &info));
    CHECK_CODE(expected, mmc_remove(store, name));
    CHECK_CODE(expected, mmc_remove_all(store, &number));
    CHECK_CODE(expected, mmc_list_keys(store, NULL, NULL));
    CHECK_CODE(expected, mmc_batch_put(store, &name, 1, &read, &size, NULL, 0, &result));
    CHECK_CODE(expected, mmc_batch_putv(store, &name, 1, &one, &read, &size, NULL, 0, &result));
    CHECK_CODE(expected, mmc_batch_get(store, &name, 1, &written, &size, 0, NULL, &result, NULL));
    CHECK_CODE(expected, mmc_batch_getv(store, &name, 1, &one, &written, &size, 0, NULL, &result, NULL));
    CHECK_CODE(expected, mmc_batch_exist(store, &name, 1, 0, &result));
    CHECK_CODE(expected, mmc_prefix_len(store, &name, 1, 0, &count));
    CHECK_CODE(expected, mmc_batch_query(store, &name, 1, 0, &info, &result));
    CHECK_CODE(expected, mmc_batch_remove(store, &name, 1, 0, &result));
    CHECK_CODE(expected, mmc_reserve(store, name, 1, NULL, &view));
    CHECK_CODE(expected, mmc_commit(store, token));
    CHECK_CODE(expected, mmc_abort(store, token));
    CHECK_CODE(expected, mmc_pin(store, name, 0, &view));
    CHECK_CODE(expected, mmc_unpin(store, token));
    CHECK_CODE(expected, mmc_add_lease(store, name, 1));
    CHECK_CODE(expected, mmc_remove_lease(store, name));
    CHECK_CODE(expected, mmc_batch_reserve(store, &name, 1, &token, NULL, 0, &view, &result));
    CHECK_CODE(expected, mmc_batch_commit(store, &token, 1, 0, &result));
    CHECK_CODE(expected, mmc_batch_abort(store, &token, 1, 0, &result));
    CHECK_CODE(expected, mmc_batch_pin(store, &name, 1, 0, &view, &result));
    CHECK_CODE(expected, mmc_batch_unpin(store, &token, 1, 0, &result));
    CHECK_CODE(expected, mmc_batch_add_lease(store, &name, 1, 1, 0, &result));
    CHECK_CODE(expected, mmc_batch_remove_lease(store, &name, 1, 0, &result));
    CHECK_CODE(expected, mmc_batch_copy(store, &token, 1, &written, &size, MMC_COPY_FROM_SEGMENT, 0, NULL, &result));
    CHECK_CODE(expected, mmc_stats(store, &statistics));
    CHECK_CODE(expected, mmc_http_address(store, data, size, NULL));
    CHECK_CODE(expected, mmc_set_event_callback(store, NULL, NULL));
    if (store != NULL) CHECK_CODE(expected, mmc_uninit(store));
}

BEHAVIOUR(every_call_after_uninit_is_refused) {
    mmc_store *store = open_store(MIB);
    CHECK_OK(put_filled(store, key("k"), 8, 1, NULL));
    close_store(store);
    check_every_call(store, MMC_ERR_NOT_STARTED);
}

BEHAVIOUR(a_handle_is_checked_not_trusted) {
    mmc_store *store = open_store(MIB);
    check_every_call(NULL, MMC_ERR_NOT_STARTED);
    uintptr_t handle = (uintptr_t)store, garbage[] = {1,         2,          0x1000,     (uintptr_t)&store, ~(uintptr_t)0,
                                                      handle ^ 2, handle ^ 1, handle + 1, handle ^ 0x10000,  handle ^ ((uintptr_t)1 << 63)};
    for (size_t i = 0; i < sizeof garbage / sizeof garbage[0]; i++) {
        if (garbage[i] != 0) check_every_call((mmc_store *)garbage[i], MMC_ERR_NOT_STARTED);
    }
    CHECK_OK(put_filled(store, key("k"), 8, 1, NULL));
    close_store(store);
}

static void *use_until_closed(void *argument) {
    mmc_store *store = argument;
    char data[100];
    int32_t code = MMC_OK;
    for (unsigned i = 0; code != MMC_ERR_NOT_STARTED; i++) {
        mmc_key name = keyf("k%u", i % 50);
        code = put_filled(store, name, sizeof data, i % 50, NULL);
        CHECK(code == MMC_OK || code == MMC_ERR_EXISTS || code == MMC_ERR_NOT_STARTED);
        if (code == MMC_ERR_NOT_STARTED) break;
        code = mmc_get(store, name, data, sizeof data, 0, NULL, NULL);
        CHECK(code == MMC_OK || code == MMC_ERR_NOT_FOUND || code == MMC_ERR_NOT_STARTED);
        if (code == MMC_OK) CHECK(is_filled(data, sizeof data, i % 50));
        if (i % 7 == 0) mmc_remove(store, name);
    }
    return NULL;
}

BEHAVIOUR(a_store_is_closed_under_the_hands_of_other_threads) {
    for (size_t round = 0; round < load(50, 4); round++) {
        mmc_store *store = open_store(MIB);
        pthread_t threads[4];
        for (size_t i = 0; i < 4; i++) threads[i] = start(use_until_closed, store);
        CHECK_SOON(statistics_of(store).get_operations > 20);
        close_store(store);
        for (size_t i = 0; i < 4; i++) join(threads[i]);
    }
}

BEHAVIOUR(memory_of_a_closed_store_stays_until_the_last_unpin) {
    mmc_store *store = open_store(4 * MIB);
    mmc_view pins[2] = {{.struct_size = sizeof pins[0]}, {.struct_size = sizeof pins[0]}};
    mmc_view reserved = {.struct_size = sizeof reserved};
    CHECK_OK(put_filled(store, key("one"), 10000, 1, NULL));
    CHECK_OK(mmc_pin(store, key("one"), 0, &pins[0]));
    CHECK_OK(mmc_pin(store, key("one"), 0, &pins[1]));
    CHECK_OK(mmc_reserve(store, key("two"), 5000, NULL, &reserved));
    close_store(store);
    CHECK(is_filled(pins[0].data, 10000, 1));
    fill(reserved.data, 5000, 2);
    CHECK_OK(mmc_unpin(store, pins[0].token));
    CHECK_FAILS(MMC_ERR_NOT_FOUND, "never given, or ended already", mmc_unpin(store, pins[0].token));
    CHECK(is_filled(pins[1].data, 10000, 1));
    CHECK_CODE(MMC_ERR_NOT_STARTED, mmc_commit(store, reserved.token));
    CHECK_CODE(MMC_ERR_NOT_STARTED, mmc_exist(store, key("one"), 0));
    CHECK_CODE(MMC_ERR_NOT_STARTED, mmc_uninit(store));
    CHECK_OK(mmc_unpin(store, pins[1].token));
    // That was the last: nothing is left of the store.
    CHECK_CODE(MMC_ERR_NOT_STARTED, mmc_unpin(store, pins[1].token));
}

BEHAVIOUR(a_lease_alone_does_not_keep_a_closed_store) {
    mmc_store *store = open_store(MIB);
    CHECK_OK(put_filled(store, key("k"), 100, 1, NULL));
    CHECK_OK(mmc_add_lease(store, key("k"), 60000));
    close_store(store);
    CHECK_CODE(MMC_ERR_NOT_STARTED, mmc_unpin(store, 1));
}

BEHAVIOUR(a_store_is_not_closed_while_memory_of_the_host_is_held) {
    void *memory = aligned_alloc(PAGE, MIB);
    mmc_store *store = open_store(MMC_NO_DRAM);
    mmc_view view = {.struct_size = sizeof view};
    register_dram(store, 0, MIB, memory);
    CHECK_OK(put_filled(store, key("k"), 100, 1, NULL));

    CHECK_OK(mmc_pin(store, key("k"), 0, &view));
    CHECK_FAILS(MMC_ERR_BUSY, "1 pins, leases and reservations", mmc_uninit(store));
    CHECK(has_filled(store, key("k"), 100, 1));
    CHECK_OK(mmc_unpin(store, view.token));

    CHECK_OK(mmc_add_lease(store, key("k"), 60000));
    CHECK_CODE(MMC_ERR_BUSY, mmc_uninit(store));
    CHECK_OK(mmc_remove_lease(store, key("k")));

    CHECK_OK(mmc_reserve(store, key("r"), 100, NULL, &view));
    CHECK_CODE(MMC_ERR_BUSY, mmc_uninit(store));
    CHECK_OK(mmc_commit(store, view.token));
    CHECK_OK(put_filled(store, key("still open"), 100, 1, NULL));

    close_store(store);
    memset(memory, 0xff, MIB);
    free(memory);
}

static void *uninit(void *argument) {
    CHECK_OK(mmc_uninit(argument));
    return NULL;
}

static mmc_store *called_back;
static int32_t close_from_a_page(void *context, const mmc_key *keys, size_t count) {
    (void)context, (void)keys, (void)count;
    CHECK_FAILS(MMC_ERR_BUSY, "from inside a callback", mmc_uninit(called_back));
    return 0;
}

BEHAVIOUR(a_callback_can_not_close_the_store) {
    called_back = open_store(MIB);
    CHECK_OK(put_filled(called_back, key("k"), 100, 1, NULL));
    CHECK_OK(mmc_list_keys(called_back, close_from_a_page, NULL));
    CHECK(has_filled(called_back, key("k"), 100, 1));
    close_store(called_back);
}

static void *put_to_device(void *argument) {
    mmc_put_options options = {.struct_size = sizeof options, .medium = MMC_MEDIUM_HBM};
    CHECK_OK(put_filled(argument, key("slow"), 100, 1, &options));
    return NULL;
}

// A store that is being closed, and waits for a copy of a device's.
typedef struct closing {
    mmc_store *store;
    device memory;
    sem_t begun, go_on;
    pthread_t putting, uninit;
} closing;

static void begin_closing(closing *self) {
    self->store = open_store(4 * MIB);
    self->memory = device_of(MIB);
    sem_init(&self->begun, 0, 0);
    sem_init(&self->go_on, 0, 0);
    self->memory.begun = &self->begun, self->memory.go_on = &self->go_on;
    register_device(self->store, &self->memory, 0);
}

static void await_closing(closing *self) {
    self->putting = start(put_to_device, self->store);
    sem_wait(&self->begun);
    self->uninit = start(uninit, self->store);
    CHECK_SOON(mmc_exist(self->store, key("k"), 0) == MMC_ERR_NOT_STARTED);
}

static void end_closing(closing *self) {
    sem_post(&self->go_on);
    join(self->putting);
    join(self->uninit);
    free(self->memory.memory);
}

BEHAVIOUR(closing_waits_for_the_copies_of_other_threads) {
    closing closing;
    begin_closing(&closing);
    await_closing(&closing);
    end_closing(&closing);
    CHECK_CODE(MMC_ERR_NOT_STARTED, mmc_uninit(closing.store));
}

BEHAVIOUR(an_unpin_while_the_store_is_being_closed_ends_the_pin) {
    closing closing;
    begin_closing(&closing);
    mmc_view pin = {.struct_size = sizeof pin}, reserved = pin, other = pin;
    CHECK_OK(put_filled(closing.store, key("k"), 100, 1, NULL));
    CHECK_OK(mmc_pin(closing.store, key("k"), 0, &pin));
    CHECK_OK(mmc_reserve(closing.store, key("r"), 100, NULL, &reserved));
    CHECK_OK(mmc_pin(closing.store, key("k"), 0, &other));
    await_closing(&closing);
    CHECK_OK(mmc_unpin(closing.store, pin.token));
    CHECK_OK(mmc_abort(closing.store, reserved.token));
    end_closing(&closing);
    CHECK(is_filled(other.data, 100, 1));
    CHECK_OK(mmc_unpin(closing.store, other.token));
    CHECK_CODE(MMC_ERR_NOT_STARTED, mmc_unpin(closing.store, other.token));
}

BEHAVIOUR(versions_are_told) {
    CHECK(strcmp(mmc_version(), "0.1.0") == 0);
    CHECK(mmc_abi_version() >= MMC_ABI_VERSION);
}
