// A small harness for programs that test the C ABI.
//
// A behaviour is a function with a name that says what holds: `BEHAVIOUR(a_key_is_put_once) { ... }`. A program runs its behaviours in
// the order of the file and ends at the first check that fails, with the line, what was expected, what came, and the library's last
// words. With names on the command line only those run. Under valgrind (tests/run.sh says so in MMC_SLOW) loads are smaller.

#ifndef CHECK_H
#define CHECK_H

#include <inttypes.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "mmc.h"

#define PAGE ((size_t)4096)
#define MIB ((size_t)1048576)

typedef struct behaviour {
    const char *name;
    void (*run)(void);
} behaviour;

static behaviour behaviours[256];
static size_t behaviour_count;
static const char *running = "";

#define BEHAVIOUR(name) \
    static void name(void); \
    __attribute__((constructor)) static void name##_is_one(void) { \
        behaviours[behaviour_count++] = (behaviour){#name, name}; \
    } \
    static void name(void)

// What this file has and a program does not use is no mistake.
#define MAYBE __attribute__((unused)) static

MAYBE int is_slow(void) { return getenv("MMC_SLOW") != NULL; }

// How often to do something: fewer times where each takes long.
MAYBE size_t load(size_t often, size_t slow) { return is_slow() ? slow : often; }

__attribute__((format(printf, 3, 4), noreturn)) MAYBE void fail(const char *file, int line, const char *what, ...) {
    va_list arguments;
    va_start(arguments, what);
    fprintf(stderr, "%s:%d: %s: ", file, line, running);
    vfprintf(stderr, what, arguments);
    fprintf(stderr, "\n  last error: %s\n", mmc_last_error());
    va_end(arguments);
    _exit(1);
}

#define CHECK(condition) \
    do { \
        if (!(condition)) fail(__FILE__, __LINE__, "%s", #condition); \
    } while (0)

#define CHECK_EQUAL(expected, actual) check_equal(__FILE__, __LINE__, #actual, (uint64_t)(expected), (uint64_t)(actual))
#define CHECK_CODE(expected, call) check_code(__FILE__, __LINE__, #call, expected, call)
#define CHECK_OK(call) CHECK_CODE(MMC_OK, call)
// The call fails with this code, and its message has these words.
#define CHECK_FAILS(expected, words, call) \
    do { \
        CHECK_CODE(expected, call); \
        check_words(__FILE__, __LINE__, #call, words); \
    } while (0)
// Waits until the condition holds, for ten seconds at most.
#define CHECK_SOON(condition) \
    do { \
        uint64_t check_end = milliseconds() + 10000; \
        while (!(condition)) { \
            if (milliseconds() > check_end) fail(__FILE__, __LINE__, "%s: did not come", #condition); \
            usleep(1000); \
        } \
    } while (0)

MAYBE void check_equal(const char *file, int line, const char *what, uint64_t expected, uint64_t actual) {
    if (expected != actual) {
        fail(file, line, "%s: expected %" PRIu64 " (0x%" PRIx64 "), got %" PRIu64 " (0x%" PRIx64 ")", what, expected, expected, actual, actual);
    }
}

MAYBE void check_code(const char *file, int line, const char *what, int32_t expected, int32_t actual) {
    if (expected != actual) {
        fail(file, line, "%s: expected %s, got %s (%d)", what, mmc_error_name(expected), mmc_error_name(actual), actual);
    }
}

MAYBE void check_words(const char *file, int line, const char *what, const char *words) {
    if (strstr(mmc_last_error(), words) == NULL) fail(file, line, "%s: its message lacks \"%s\"", what, words);
}

MAYBE uint64_t milliseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

// A key of a text.
MAYBE mmc_key key(const char *text) { return (mmc_key){text, strlen(text)}; }

// A key of a format: lives until the thread has made 64 more.
__attribute__((format(printf, 1, 2))) MAYBE mmc_key keyf(const char *format, ...) {
    static _Thread_local char texts[64][300];
    static _Thread_local unsigned next;
    char *text = texts[next++ % 64];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof texts[0], format, arguments);
    va_end(arguments);
    return key(text);
}

// `count` keys "<prefix><number>", to be freed at once.
MAYBE mmc_key *many_keys(const char *prefix, size_t count) {
    mmc_key *keys = malloc(count * (sizeof *keys + 32));
    char *texts = (char *)(keys + count);
    for (size_t i = 0; i < count; i++) {
        int size = snprintf(texts + 32 * i, 32, "%s%zu", prefix, i);
        keys[i] = (mmc_key){texts + 32 * i, (size_t)size};
    }
    return keys;
}

// Bytes that tell which object they are of and where they stand in it.
MAYBE void fill(void *data, size_t size, uint64_t seed) {
    unsigned char *bytes = data;
    uint64_t state = seed * 0x9e3779b97f4a7c15u + 1;
    for (size_t i = 0; i < size; i++) {
        if (i % 8 == 0) state = state * 6364136223846793005u + 1442695040888963407u;
        bytes[i] = (unsigned char)(state >> (24 + i % 8));
    }
}

MAYBE int is_filled(const void *data, size_t size, uint64_t seed) {
    unsigned char *expected = malloc(size);
    fill(expected, size, seed);
    int is_same = memcmp(expected, data, size) == 0;
    free(expected);
    return is_same;
}

MAYBE mmc_config config_of(uint64_t dram_size) {
    mmc_config config;
    CHECK_OK(mmc_config_init(&config));
    config.dram_size = dram_size;
    return config;
}

// A store with one DRAM segment, the policy of exact order and eviction by puts only, so that what goes when is known.
MAYBE mmc_store *open_store(uint64_t dram_size) {
    mmc_config config = config_of(dram_size);
    config.watermark_high = 100;
    config.eviction = MMC_EVICTION_PREFIX;
    mmc_store *store = NULL;
    CHECK_OK(mmc_init(&config, &store));
    return store;
}

MAYBE void close_store(mmc_store *store) { CHECK_OK(mmc_uninit(store)); }

MAYBE mmc_statistics statistics_of(mmc_store *store) {
    mmc_statistics statistics = {.struct_size = sizeof statistics};
    CHECK_OK(mmc_stats(store, &statistics));
    return statistics;
}

MAYBE mmc_object_info query(mmc_store *store, mmc_key name) {
    mmc_object_info info = {.struct_size = sizeof info};
    CHECK_OK(mmc_query(store, name, MMC_PEEK, &info));
    return info;
}

MAYBE int is_there(mmc_store *store, mmc_key name) { return mmc_exist(store, name, MMC_PEEK) == MMC_OK; }

// Puts an object that is `fill`ed; the put's code.
MAYBE int32_t put_filled(mmc_store *store, mmc_key name, size_t size, uint64_t seed, const mmc_put_options *options) {
    void *data = malloc(size);
    fill(data, size, seed);
    int32_t code = mmc_put(store, name, data, size, options);
    free(data);
    return code;
}

// Whether an object is there with exactly these bytes.
MAYBE int has_filled(mmc_store *store, mmc_key name, size_t size, uint64_t seed) {
    void *data = calloc(1, size);
    int is_good = mmc_get(store, name, data, size, MMC_PEEK, NULL, NULL) == MMC_OK && is_filled(data, size, seed);
    free(data);
    return is_good;
}

MAYBE uint64_t register_dram(mmc_store *store, uint32_t rank, uint64_t capacity, void *base) {
    mmc_segment_options options = {
        .struct_size = sizeof options, .medium = MMC_MEDIUM_DRAM, .rank = rank, .capacity = capacity, .base = base};
    uint64_t address = 0;
    CHECK_OK(mmc_register_segment(store, &options, &address));
    return address;
}

// A device whose memory the library can't reach: what it is given as the base is no address of this process.
#define DEVICE_OFFSET ((uint64_t)1 << 62)
typedef struct device {
    unsigned char *memory;
    uint64_t capacity;
    // What the last call was, and what calls are to return.
    _Atomic(size_t) calls;
    size_t operations;
    uint32_t direction;
    void *stream;
    int32_t returns;
    // When set, a call says that it has begun and waits.
    sem_t *begun, *go_on;
} device;

MAYBE int32_t device_copy(void *context, const mmc_copy_operation *operations, size_t count, uint32_t direction, void *stream) {
    device *self = context;
    self->calls++;
    self->operations = count;
    self->direction = direction;
    self->stream = stream;
    if (self->begun != NULL) {
        sem_post(self->begun);
        sem_wait(self->go_on);
    }
    if (self->returns != 0) return self->returns;
    for (size_t i = 0; i < count; i++) {
        uint64_t source = operations[i].source, destination = operations[i].destination;
        uint64_t *inside = direction == MMC_COPY_TO_SEGMENT ? &destination : &source;
        *inside -= DEVICE_OFFSET;
        uint64_t offset = *inside - (uint64_t)(uintptr_t)self->memory;
        CHECK(offset < self->capacity && operations[i].length <= self->capacity - offset);
        memcpy((void *)(uintptr_t)destination, (const void *)(uintptr_t)source, operations[i].length);
    }
    return 0;
}

MAYBE device device_of(uint64_t capacity) {
    return (device){.memory = aligned_alloc(PAGE, capacity), .capacity = capacity};
}

MAYBE mmc_segment_options device_options(device *self, uint32_t rank) {
    return (mmc_segment_options){
        .struct_size = sizeof(mmc_segment_options),
        .medium = MMC_MEDIUM_HBM,
        .rank = rank,
        .capacity = self->capacity,
        .base = (void *)((uintptr_t)self->memory + DEVICE_OFFSET),
        .copy = device_copy,
        .context = self,
    };
}

MAYBE uint64_t register_device(mmc_store *store, device *self, uint32_t rank) {
    mmc_segment_options options = device_options(self, rank);
    uint64_t address = 0;
    CHECK_OK(mmc_register_segment(store, &options, &address));
    return address;
}

MAYBE pthread_t start(void *(*run)(void *), void *argument) {
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, run, argument) == 0);
    return thread;
}

MAYBE void join(pthread_t thread) { CHECK(pthread_join(thread, NULL) == 0); }

// Ends a forked child. Valgrind would call lost what only threads of the parent know, so under it a good one ends as another program;
// what it had to say before has been said.
__attribute__((noreturn)) MAYBE void end_child(int is_good) {
    if (is_good && is_slow()) execlp("true", "true", (char *)NULL);
    _exit(!is_good);
}

int main(int argc, char **argv) {
    size_t done = 0;
    for (size_t i = 0; i < behaviour_count; i++) {
        int is_wanted = argc == 1;
        for (int name = 1; name < argc; name++) is_wanted |= strcmp(argv[name], behaviours[i].name) == 0;
        if (!is_wanted) continue;
        running = behaviours[i].name;
        behaviours[i].run();
        done++;
    }
    printf("%s: %zu behaviours hold\n", argv[0], done);
    return done == 0;
}

#endif
