// The owner of a pool, for programs that attach to it: a forked child with a store of its own, which does what it is told.
// It is forked before there is a store in the program, and does not become another one: so valgrind looks at both.

#ifndef SHARING_H
#define SHARING_H

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "check.h"

// What the owner does at an order: 0 is the first, before anybody attaches.
typedef void (*deeds)(mmc_store *store, char order);

typedef struct owner {
    pid_t process;
    int orders, answers;
} owner;

MAYBE const char *directory(void) {
    static char path[64];
    if (path[0] == 0) {
        strcpy(path, "/tmp/mmc-sharing-XXXXXX");
        CHECK(mkdtemp(path) != NULL);
    }
    return path;
}

MAYBE const char *path_of(const char *name) {
    static char paths[8][108];
    static unsigned next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof paths[0], "%s/%s", directory(), name);
    return path;
}

MAYBE const char *address_of(const char *name) {
    static char addresses[8][120];
    static unsigned next;
    char *address = addresses[next++ % 8];
    snprintf(address, sizeof addresses[0], "unix:%s", path_of(name));
    return address;
}

__attribute__((destructor)) static void take_away_the_files(void) { rmdir(directory()); }

MAYBE mmc_config shared_config(uint64_t dram_size) {
    mmc_config config = config_of(dram_size);
    config.watermark_high = 100;
    config.eviction = MMC_EVICTION_PREFIX;
    config.share = address_of("pool");
    return config;
}

// Whether one byte came, whatever interrupts.
MAYBE int reads(int from, char *byte) {
    ssize_t got;
    do got = read(from, byte, 1);
    while (got < 0 && errno == EINTR);
    return got == 1;
}

MAYBE void own(const mmc_config *config, deeds act, int orders, int answers) {
    mmc_store *store = NULL;
    CHECK_OK(mmc_init(config, &store));
    if (act != NULL) act(store, 0);
    char order = 0;
    do {
        if (order == 'c') {
            CHECK_OK(mmc_uninit(store));
            store = NULL;
        } else if (order != 0) {
            act(store, order);
        }
        CHECK(write(answers, "k", 1) == 1);
    } while (reads(orders, &order));
    CHECK_OK(mmc_uninit(store));
    end_child(1);
}

// Starts an owner, and waits until one can attach.
MAYBE owner start_owner(const mmc_config *config, deeds act) {
    int orders[2], answers[2];
    CHECK(pipe2(orders, O_CLOEXEC) == 0 && pipe2(answers, O_CLOEXEC) == 0);
    owner self = {fork(), orders[1], answers[0]};
    CHECK(self.process >= 0);
    if (self.process == 0) {
        close(orders[1]);
        close(answers[0]);
        own(config, act, orders[0], answers[1]);
    }
    close(orders[0]);
    close(answers[1]);
    char answer;
    CHECK(reads(self.answers, &answer));
    return self;
}

MAYBE void order(const owner *self, char what) {
    char answer;
    CHECK(write(self->orders, &what, 1) == 1 && reads(self->answers, &answer));
}

MAYBE void end_owner(owner *self) {
    int status = 0;
    close(self->orders);
    CHECK(waitpid(self->process, &status, 0) == self->process);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    close(self->answers);
}

MAYBE mmc_store *attach(uint32_t rank) {
    mmc_attach_options options = {.struct_size = sizeof options, .rank = rank == MMC_NO_RANK ? 0 : 1 + rank};
    mmc_store *store = NULL;
    CHECK_OK(mmc_attach(address_of("pool"), &options, &store));
    return store;
}

MAYBE uint64_t register_memfd(mmc_store *store, uint32_t rank, uint64_t capacity) {
    mmc_segment_options options = {
        .struct_size = sizeof options, .medium = MMC_MEDIUM_DRAM, .rank = rank, .capacity = capacity, .memory = MMC_MEMORY_MEMFD};
    uint64_t address = 0;
    CHECK_OK(mmc_register_segment(store, &options, &address));
    return address;
}

MAYBE void register_ssd(mmc_store *store, uint64_t capacity, const char *name) {
    mmc_segment_options options = {
        .struct_size = sizeof options, .medium = MMC_MEDIUM_SSD, .capacity = capacity, .path = path_of(name)};
    CHECK_OK(mmc_register_segment(store, &options, NULL));
    CHECK(unlink(options.path) == 0);
}

#endif
