// What the library says: keys, events, log lines, last errors, names, numbers, and nothing where nobody asked.

#include <arpa/inet.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "check.h"

// ---- listing keys

typedef struct listing {
    mmc_store *store;
    size_t pages, keys, largest_page, stop_after;
    unsigned char seen[20000];
} listing;

// Counts "k<number>" in `seen`; others are not counted.
static int32_t list_page(void *context, const mmc_key *keys, size_t count) {
    listing *self = context;
    self->pages++;
    if (count > self->largest_page) self->largest_page = count;
    for (size_t i = 0; i < count; i++) {
        char text[300] = "";
        unsigned number;
        memcpy(text, keys[i].data, keys[i].size);
        self->keys++;
        if (sscanf(text, "k%u", &number) == 1 && number < sizeof self->seen) self->seen[number]++;
        // It may call the library.
        if (self->store != NULL && i == 0) mmc_exist(self->store, keys[i], MMC_PEEK);
    }
    return self->stop_after != 0 && self->pages >= self->stop_after ? -1 : 0;
}

BEHAVIOUR(every_key_is_listed_once_in_pages_of_1024_at_most) {
    static listing listing;
    size_t count = load(10000, 3000);
    mmc_store *store = open_store(count * PAGE);
    CHECK_OK(mmc_list_keys(store, list_page, &listing));
    CHECK_EQUAL(0, listing.keys);
    mmc_view view = {.struct_size = sizeof view};
    for (unsigned i = 0; i < count; i++) CHECK_OK(put_filled(store, keyf("k%u", i), 1, i, NULL));
    CHECK_OK(mmc_remove(store, key("k0")));
    CHECK_OK(mmc_reserve(store, key("reserved"), 1, NULL, &view));
    memset(&listing, 0, sizeof listing);
    listing.store = store;
    CHECK_OK(mmc_list_keys(store, list_page, &listing));
    CHECK_EQUAL(count - 1, listing.keys);
    CHECK_EQUAL(0, listing.seen[0]);
    for (size_t i = 1; i < count; i++) CHECK_EQUAL(1, listing.seen[i]);
    CHECK(listing.largest_page <= 1024 && listing.pages >= count / 1024);

    memset(&listing, 0, sizeof listing);
    listing.stop_after = 2;
    CHECK_OK(mmc_list_keys(store, list_page, &listing));
    CHECK_EQUAL(2, listing.pages);
    CHECK_FAILS(MMC_ERR_INVALID_PARAM, "callback is null", mmc_list_keys(store, NULL, NULL));
    close_store(store);
}

static _Atomic(int) is_stopping;
static void *put_and_remove(void *argument) {
    for (unsigned i = 0; !is_stopping; i = (i + 1) % 500) {
        int32_t code = put_filled(argument, keyf("other%u", i), 1, i, NULL);
        CHECK(code == MMC_OK || code == MMC_ERR_EXISTS);
        mmc_remove(argument, keyf("other%u", (i + 250) % 500));
    }
    return NULL;
}

BEHAVIOUR(a_key_that_stays_is_listed_once_whatever_others_do) {
    static listing listing;
    const unsigned count = 3000;
    mmc_store *store = open_store(4000 * PAGE);
    pthread_t threads[2];
    for (size_t i = 0; i < 2; i++) threads[i] = start(put_and_remove, store);
    // Put among the others, so that they lie between them.
    for (unsigned i = 0; i < count; i++) CHECK_OK(put_filled(store, keyf("k%u", i), 1, i, NULL));
    for (size_t round = 0; round < load(100, 3); round++) {
        memset(&listing, 0, sizeof listing);
        CHECK_OK(mmc_list_keys(store, list_page, &listing));
        for (size_t i = 0; i < count; i++) CHECK_EQUAL(1, listing.seen[i]);
    }
    is_stopping = 1;
    for (size_t i = 0; i < 2; i++) join(threads[i]);
    close_store(store);
}

// ---- events

typedef struct hearing {
    _Atomic(size_t) heard, dropped, calls;
    char first[64][64]; // the first events as text
    mmc_store *store;
    sem_t begun, go_on;
    int is_blocking;
} hearing;

static void hear(void *context, const mmc_event *events, size_t count, uint64_t dropped) {
    hearing *self = context;
    self->calls++;
    self->dropped += dropped;
    for (size_t i = 0; i < count; i++) {
        const mmc_event *event = (const void *)((const char *)events + i * events->struct_size);
        CHECK(event->struct_size >= sizeof *event);
        size_t number = self->heard;
        if (number < 64) {
            snprintf(self->first[number], 64, "%s %.*s medium %u rank %u", event->kind == MMC_EVENT_STORED ? "stored" : "removed",
                     (int)event->key.size, (const char *)event->key.data, event->medium, event->rank);
        }
        self->heard++;
    }
    if (self->is_blocking) {
        self->is_blocking = 0;
        sem_post(&self->begun);
        sem_wait(&self->go_on);
    }
}

BEHAVIOUR(events_come_in_the_order_in_which_things_happened) {
    static hearing hearing;
    device memory = device_of(MIB);
    mmc_store *store = open_store(8 * PAGE);
    register_device(store, &memory, 5);
    uint64_t second = register_dram(store, 1, MIB, NULL);
    CHECK_OK(put_filled(store, key("before"), 1, 1, NULL));
    CHECK_OK(mmc_set_event_callback(store, hear, &hearing));
    mmc_put_options hbm = {.struct_size = sizeof hbm, .medium = MMC_MEDIUM_HBM};
    mmc_put_options twice = {.struct_size = sizeof twice, .replicas = 2};
    mmc_view view = {.struct_size = sizeof view};
    char data[5];

    CHECK_OK(put_filled(store, key("a"), 1, 1, NULL));
    CHECK_OK(put_filled(store, key("b"), 1, 1, &hbm));
    CHECK_OK(put_filled(store, key("c"), 1, 1, &twice));
    CHECK_OK(mmc_reserve(store, key("d"), 1, NULL, &view));
    CHECK_OK(mmc_commit(store, view.token));
    CHECK_OK(mmc_reserve(store, key("not seen"), 1, NULL, &view));
    CHECK_OK(mmc_abort(store, view.token));
    CHECK_CODE(MMC_ERR_EXISTS, put_filled(store, key("a"), 1, 1, NULL));
    CHECK_CODE(MMC_ERR_SIZE_MISMATCH, mmc_get(store, key("a"), data, 5, 0, NULL, NULL));
    CHECK_OK(mmc_remove(store, key("a")));
    CHECK_OK(mmc_unregister_segment(store, second)); // c's copy there
    CHECK_OK(mmc_remove(store, key("c")));
    CHECK_OK(put_filled(store, key("large"), 8 * PAGE, 1, NULL)); // before and d are evicted
    static const char *const expected[] = {
        "stored a medium 2 rank 0", "stored b medium 1 rank 5",  "stored c medium 2 rank 0",       "stored c medium 2 rank 1",
        "stored d medium 2 rank 0", "removed a medium 2 rank 0", "removed c medium 2 rank 1",      "removed c medium 2 rank 0",
        "removed before medium 2 rank 0", "removed d medium 2 rank 0", "stored large medium 2 rank 0",
    };
    size_t count = sizeof expected / sizeof expected[0];
    CHECK_SOON(hearing.heard >= count);
    for (size_t i = 0; i < count; i++) {
        if (strcmp(expected[i], hearing.first[i]) != 0) fail(__FILE__, __LINE__, "event %zu: %s", i, hearing.first[i]);
    }
    CHECK_EQUAL(count, hearing.heard);
    CHECK_EQUAL(0, hearing.dropped);
    close_store(store);
    free(memory.memory);
}

BEHAVIOUR(a_queue_that_is_full_drops_and_counts_and_holds_nobody_up) {
    static hearing hearing;
    mmc_store *store = open_store(MIB);
    sem_init(&hearing.begun, 0, 0);
    sem_init(&hearing.go_on, 0, 0);
    hearing.is_blocking = 1;
    CHECK_OK(mmc_set_event_callback(store, hear, &hearing));
    CHECK_OK(put_filled(store, key("first"), 1, 1, NULL));
    sem_wait(&hearing.begun);
    // The callback hangs; puts go on.
    size_t rounds = 10000;
    for (size_t i = 0; i < rounds; i++) {
        CHECK_OK(mmc_put(store, key("k"), "x", 1, NULL));
        CHECK_OK(mmc_remove(store, key("k")));
    }
    CHECK_EQUAL(1, hearing.heard);
    CHECK_EQUAL(2 * rounds - 16384, statistics_of(store).events_dropped);
    sem_post(&hearing.go_on);
    CHECK_SOON(hearing.heard == 1 + 16384);
    // What was lost is told with what comes next, or came with the last of those.
    CHECK_OK(put_filled(store, key("last"), 1, 1, NULL));
    CHECK_SOON(hearing.heard == 2 + 16384);
    CHECK_EQUAL(2 * rounds - 16384, hearing.dropped);
    close_store(store);
}

BEHAVIOUR(a_listener_that_was_replaced_is_not_called_again) {
    static hearing one, other;
    mmc_store *store = open_store(MIB);
    for (size_t i = 0; i < load(200, 10); i++) {
        CHECK_OK(mmc_set_event_callback(store, hear, i % 2 ? &one : &other));
        size_t before = i % 2 ? other.heard : one.heard;
        CHECK_OK(put_filled(store, key("k"), 1, 1, NULL));
        CHECK_OK(mmc_remove(store, key("k")));
        CHECK_EQUAL(before, i % 2 ? other.heard : one.heard);
    }
    CHECK_OK(mmc_set_event_callback(store, NULL, NULL));
    size_t heard = one.heard + other.heard;
    for (unsigned i = 0; i < 50; i++) CHECK_OK(put_filled(store, keyf("k%u", i), 1, 1, NULL));
    CHECK_EQUAL(heard, one.heard + other.heard);
    // And it can be set again.
    CHECK_OK(mmc_set_event_callback(store, hear, &one));
    heard = one.heard;
    CHECK_OK(mmc_remove(store, key("k0")));
    CHECK_SOON(one.heard == heard + 1);
    close_store(store);
}

static void hear_and_call(void *context, const mmc_event *events, size_t count, uint64_t dropped) {
    hearing *self = context;
    (void)events, (void)dropped;
    CHECK_CODE(MMC_ERR_BUSY, mmc_uninit(self->store));
    CHECK_CODE(MMC_ERR_BUSY, mmc_set_event_callback(self->store, NULL, NULL));
    CHECK_OK(mmc_exist(self->store, key("k"), 0));
    self->heard += count;
}

BEHAVIOUR(an_event_callback_may_call_the_library_but_not_end_itself) {
    static hearing hearing;
    hearing.store = open_store(MIB);
    CHECK_OK(mmc_set_event_callback(hearing.store, hear_and_call, &hearing));
    CHECK_OK(put_filled(hearing.store, key("k"), 1, 1, NULL));
    CHECK_SOON(hearing.heard == 1);
    close_store(hearing.store);
}

static void hear_and_look(void *context, const mmc_event *events, size_t count, uint64_t dropped) {
    hearing *self = context;
    CHECK_EQUAL(1, count);
    CHECK_EQUAL(0, dropped);
    CHECK_CODE(events->kind == MMC_EVENT_STORED ? MMC_OK : MMC_ERR_NOT_FOUND, mmc_exist(self->store, events->key, MMC_PEEK));
    self->heard++;
}

BEHAVIOUR(what_an_event_tells_is_so_when_it_is_heard) {
    static hearing hearing;
    hearing.store = open_store(4 * PAGE);
    CHECK_OK(mmc_set_event_callback(hearing.store, hear_and_look, &hearing));
    for (unsigned i = 0; i < load(3000, 100); i++) {
        mmc_view view = {.struct_size = sizeof view};
        if (i % 3 == 0) {
            CHECK_OK(mmc_reserve(hearing.store, key("k"), 100, NULL, &view));
            CHECK_OK(mmc_commit(hearing.store, view.token));
        } else {
            CHECK_OK(put_filled(hearing.store, key("k"), 100, 1, NULL));
        }
        while (hearing.heard != 4 * i + 1) sched_yield();
        if (i % 2) {
            CHECK_OK(mmc_remove(hearing.store, key("k")));
            while (hearing.heard != 4 * i + 2) sched_yield();
            CHECK_OK(put_filled(hearing.store, key("evicts"), 4 * PAGE, 1, NULL));
        } else {
            // Reserving it all evicts it; there is nobody to hear of the rest yet.
            CHECK_OK(mmc_reserve(hearing.store, key("evicts"), 4 * PAGE, NULL, &view));
            while (hearing.heard != 4 * i + 2) sched_yield();
            CHECK_OK(mmc_commit(hearing.store, view.token));
        }
        while (hearing.heard != 4 * i + 3) sched_yield();
        CHECK_OK(mmc_remove(hearing.store, key("evicts")));
        while (hearing.heard != 4 * i + 4) sched_yield();
    }
    close_store(hearing.store);
}

BEHAVIOUR(no_event_comes_after_uninit) {
    static hearing hearing;
    for (size_t i = 0; i < load(50, 5); i++) {
        mmc_store *store = open_store(MIB);
        CHECK_OK(mmc_set_event_callback(store, hear, &hearing));
        for (unsigned j = 0; j < 100; j++) CHECK_OK(put_filled(store, keyf("k%u", j), 1, 1, NULL));
        close_store(store);
        size_t calls = hearing.calls;
        sched_yield();
        CHECK_EQUAL(calls, hearing.calls);
    }
}

// ---- the log

typedef struct logged {
    _Atomic(size_t) lines;
    uint32_t level;
    char last[512];
    mmc_store *store;
} logged;

static void log_line(void *context, uint32_t level, const char *line) {
    logged *self = context;
    self->level = level;
    snprintf(self->last, sizeof self->last, "%s", line);
    self->lines++;
    // What it does in the library is not logged, or this would never end.
    if (self->store != NULL) register_dram(self->store, 0, MIB, NULL);
}

BEHAVIOUR(the_logger_gets_what_the_level_asks_for) {
    static logged logged;
    mmc_store *store = open_store(MIB);
    CHECK_OK(mmc_set_logger(log_line, &logged));
    register_dram(store, 1, MIB, NULL);
    CHECK_EQUAL(0, logged.lines);
    CHECK_OK(mmc_set_log_level(MMC_LOG_WARN));
    register_dram(store, 2, MIB, NULL);
    CHECK_EQUAL(0, logged.lines);
    CHECK_OK(mmc_set_log_level(MMC_LOG_INFO));
    register_dram(store, 3, MIB, NULL);
    CHECK_EQUAL(1, logged.lines);
    CHECK_EQUAL(MMC_LOG_INFO, logged.level);
    CHECK(strstr(logged.last, "registered: DRAM of rank 3, 1048576 bytes") != NULL && strchr(logged.last, '\n') == NULL);
    logged.store = store;
    register_dram(store, 4, MIB, NULL);
    CHECK_EQUAL(2, logged.lines);
    CHECK_EQUAL(6, statistics_of(store).segment_count);
    logged.store = NULL;
    CHECK_OK(mmc_set_log_level(MMC_LOG_OFF));
    register_dram(store, 5, MIB, NULL);
    CHECK_EQUAL(2, logged.lines);
    CHECK_FAILS(MMC_ERR_INVALID_PARAM, "7", mmc_set_log_level(7));
    CHECK_FAILS(MMC_ERR_INVALID_PARAM, "0", mmc_set_log_level(0));
    CHECK_OK(mmc_set_logger(NULL, NULL));
    close_store(store);
}

static void *log_much(void *argument) {
    while (!is_stopping) CHECK_OK(mmc_unregister_segment(argument, register_dram(argument, 7, PAGE, NULL)));
    return NULL;
}

BEHAVIOUR(a_logger_that_was_replaced_can_be_freed) {
    mmc_store *store = open_store(MIB);
    logged *current = calloc(1, sizeof *current);
    is_stopping = 0;
    CHECK_OK(mmc_set_logger(log_line, current));
    CHECK_OK(mmc_set_log_level(MMC_LOG_INFO));
    pthread_t thread = start(log_much, store);
    for (size_t i = 0; i < load(500, 20); i++) {
        logged *next = calloc(1, sizeof *next);
        CHECK_SOON(current->lines > 0);
        CHECK_OK(mmc_set_logger(log_line, next));
        memset(current, 0xff, sizeof *current); // a store of -1 would be called, and fail
        free(current);
        current = next;
    }
    is_stopping = 1;
    join(thread);
    CHECK_OK(mmc_set_log_level(MMC_LOG_OFF));
    CHECK_OK(mmc_set_logger(NULL, NULL));
    free(current);
    close_store(store);
}

// ---- errors

static void *fail_otherwise(void *argument) {
    CHECK(strcmp(mmc_last_error(), "") == 0);
    CHECK_FAILS(MMC_ERR_INVALID_PARAM, "mmc_put: buffer 0 of 1 has 0 bytes", mmc_put(argument, key("k"), "", 0, NULL));
    return NULL;
}

BEHAVIOUR(the_last_error_is_this_threads_until_its_next_failure) {
    mmc_store *store = open_store(MIB);
    CHECK_CODE(MMC_ERR_NOT_FOUND, mmc_exist(store, key("k"), 0));
    const char *words = mmc_last_error();
    CHECK(strcmp(words, "mmc_exist: no readable object has this key") == 0);
    join(start(fail_otherwise, store));
    CHECK_OK(put_filled(store, key("k"), 1, 1, NULL));
    CHECK(mmc_last_error() == words && strcmp(words, "mmc_exist: no readable object has this key") == 0);
    CHECK_CODE(MMC_ERR_EXISTS, put_filled(store, key("k"), 1, 1, NULL));
    CHECK(strncmp(mmc_last_error(), "mmc_put: ", 9) == 0);
    close_store(store);
}

BEHAVIOUR(every_code_has_its_name_and_number) {
    static const struct {
        int32_t code, number;
        const char *name;
    } codes[] = {
#define CODE(name, number) {name, number, #name}
        CODE(MMC_OK, 0), CODE(MMC_ERR_FAILED, -1), CODE(MMC_ERR_INVALID_PARAM, -3000), CODE(MMC_ERR_NO_SPACE, -3001),
        CODE(MMC_ERR_NOT_STARTED, -3003), CODE(MMC_ERR_TIMEOUT, -3004), CODE(MMC_ERR_EXISTS, -3006), CODE(MMC_ERR_NOT_FOUND, -3007),
        CODE(MMC_ERR_SIZE_MISMATCH, -3012), CODE(MMC_ERR_OUT_OF_MEMORY, -3016), CODE(MMC_ERR_STATE, -3101), CODE(MMC_ERR_NO_LEASE, -3106),
        CODE(MMC_ERR_FORKED, -4001), CODE(MMC_ERR_BUSY, -4002), CODE(MMC_ERR_UNSUPPORTED, -4003), CODE(MMC_ERR_DISCONNECTED, -4004),
        CODE(MMC_ERR_IO, -4005), CODE(MMC_ERR_INTERNAL, -4006),
        // Of the numbers that users of memcache_hybrid know, those that the library itself does not return.
        CODE(MMC_ERR_OBJECT, -3002), CODE(MMC_ERR_REPEATED, -3005), CODE(MMC_ERR_NOT_INITIALIZED, -3008), CODE(MMC_ERR_OVER_CAPACITY, -3013),
        CODE(MMC_ERR_NO_META_SERVICE, -3017), CODE(MMC_ERR_NO_LOCAL_SERVICE, -3018), CODE(MMC_ERR_CLIENT_NOT_INITIALIZED, -3019),
        CODE(MMC_ERR_UNMATCHED_KEY, -3102), CODE(MMC_ERR_UNMATCHED_RETURN, -3103), CODE(MMC_ERR_LEASE_NOT_EXPIRED, -3104),
        CODE(MMC_ERR_META_BACKUP, -3105),
#undef CODE
    };
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++) {
        CHECK(codes[i].code == codes[i].number && strcmp(mmc_error_name(codes[i].code), codes[i].name) == 0);
    }
    static const int32_t others[] = {1, -2, -3199, INT32_MIN, INT32_MAX};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) CHECK(strcmp(mmc_error_name(others[i]), "unknown") == 0);
}

// ---- numbers

BEHAVIOUR(statistics_count_what_was_done) {
    mmc_store *store = open_store(16 * PAGE);
    mmc_view view = {.struct_size = sizeof view};
    mmc_statistics before = statistics_of(store);
    CHECK_EQUAL(1, before.segment_count);
    CHECK_EQUAL(16 * PAGE, before.capacity);
    CHECK_EQUAL(0, before.alloc_operations + before.get_operations + before.exist_hits + before.exist_misses + before.remove_operations);
    char data[5000];
    CHECK_OK(put_filled(store, key("a"), 5000, 1, NULL));
    CHECK_OK(put_filled(store, key("b"), 100, 1, NULL));
    CHECK_CODE(MMC_ERR_EXISTS, put_filled(store, key("b"), 100, 1, NULL));
    CHECK_OK(mmc_get(store, key("a"), data, 5000, 0, NULL, NULL));
    CHECK_OK(mmc_get(store, key("a"), data, 1000, MMC_GET_UP_TO, NULL, NULL));
    CHECK_CODE(MMC_ERR_NOT_FOUND, mmc_get(store, key("x"), data, 5000, 0, NULL, NULL));
    CHECK_OK(mmc_exist(store, key("a"), 0));
    CHECK_CODE(MMC_ERR_NOT_FOUND, mmc_exist(store, key("x"), 0));
    CHECK_CODE(MMC_ERR_NOT_FOUND, mmc_exist(store, key("x"), 0));
    CHECK_OK(mmc_remove(store, key("b")));
    CHECK_OK(mmc_pin(store, key("a"), 0, &view));
    mmc_statistics now = statistics_of(store);
    CHECK_EQUAL(1, now.stored_keys);
    CHECK_EQUAL(2 * PAGE, now.allocated);
    CHECK_EQUAL(3, now.alloc_operations);
    CHECK_EQUAL(4, now.get_operations);
    CHECK_EQUAL(3, now.get_hits);
    CHECK_EQUAL(1, now.get_misses);
    CHECK_EQUAL(1, now.exist_hits);
    CHECK_EQUAL(2, now.exist_misses);
    CHECK_EQUAL(1, now.remove_operations);
    CHECK_EQUAL(5100, now.put_bytes);
    CHECK_EQUAL(6000, now.get_bytes);
    CHECK_EQUAL(1, now.pins);
    CHECK_EQUAL(0, now.attached);
    CHECK(now.metadata > 0);
    CHECK_OK(mmc_unpin(store, view.token));
    close_store(store);
}

BEHAVIOUR(the_admin_port_is_told_and_answers) {
    mmc_config config = config_of(MIB);
    config.http_address = "127.0.0.1:0";
    mmc_store *store = NULL;
    CHECK_OK(mmc_init(&config, &store));
    char address[64] = "unchanged";
    size_t needed = 0;
    CHECK_FAILS(MMC_ERR_INVALID_PARAM, "the address needs", mmc_http_address(store, NULL, 0, &needed));
    CHECK_FAILS(MMC_ERR_INVALID_PARAM, "the address needs", mmc_http_address(store, address, needed - 1, NULL));
    CHECK(strcmp(address, "unchanged") == 0);
    CHECK_OK(mmc_http_address(store, address, needed, &needed));
    CHECK_EQUAL(strlen(address) + 1, needed);
    unsigned port = 0;
    CHECK(sscanf(address, "127.0.0.1:%u", &port) == 1 && port > 0);

    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int client = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(connect(client, (struct sockaddr *)&to, sizeof to) == 0);
    const char request[] = "GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    CHECK(write(client, request, sizeof request - 1) == sizeof request - 1);
    char answer[1024] = "";
    for (size_t at = 0; at < sizeof answer - 1;) {
        ssize_t got = read(client, answer + at, sizeof answer - 1 - at);
        if (got <= 0) break;
        at += (size_t)got;
    }
    CHECK(strncmp(answer, "HTTP/1.1 200 ", 13) == 0);
    close(client);
    uint64_t begin = milliseconds();
    close_store(store);
    CHECK(milliseconds() - begin < 1000 + (is_slow() ? 2000 : 0));
}

// ---- silence

BEHAVIOUR(nothing_is_written_to_the_standard_streams_unasked) {
    int pipes[2];
    CHECK(pipe(pipes) == 0);
    fflush(NULL);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        int errors = dup(2);
        dup2(pipes[1], 1);
        dup2(pipes[1], 2);
        close(pipes[0]);
        close(pipes[1]);
        mmc_config config = config_of(MIB);
        config.http_address = "127.0.0.1:0";
        mmc_store *store = NULL;
        int is_good = mmc_init(&config, &store) == MMC_OK;
        is_good &= put_filled(store, key("k"), 100, 1, NULL) == MMC_OK && put_filled(store, key("k"), 100, 1, NULL) == MMC_ERR_EXISTS;
        is_good &= mmc_put(store, key("\n"), NULL, 0, NULL) == MMC_ERR_INVALID_PARAM && put_filled(store, key("l"), 2 * MIB, 1, NULL) == MMC_ERR_NO_SPACE;
        for (unsigned i = 0; i < 1000; i++) is_good &= put_filled(store, keyf("k%u", i), 5000, 1, NULL) == MMC_OK;
        config.rank = 70000;
        is_good &= mmc_init(&config, &store) == MMC_ERR_INVALID_PARAM;
        is_good &= mmc_uninit(store) == MMC_OK && mmc_uninit(store) == MMC_ERR_NOT_STARTED;
        dup2(errors, 2);
        // Valgrind has its say, if any, on the old stream.
        end_child(is_good);
    }
    close(pipes[1]);
    char said[4096];
    ssize_t bytes = read(pipes[0], said, sizeof said - 1);
    CHECK(bytes >= 0);
    said[bytes] = 0;
    close(pipes[0]);
    int status = -1;
    CHECK(waitpid(child, &status, 0) == child);
    if (bytes > 0) fail(__FILE__, __LINE__, "said: %s", said);
    CHECK_EQUAL(0, status);
}
