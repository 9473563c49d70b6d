// One pool for several processes: this one owns it, and starts itself once more as a worker that attaches.
//
//     build/examples/sharing                        both, at a socket in /tmp
//     build/examples/sharing worker unix:/a/socket  a worker of any owner, `python -m mmc serve` say

#define _POSIX_C_SOURCE 200809L

#include <mmc.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { BLOCK = 65536 };

static void check(int32_t code) {
    if (code != MMC_OK) {
        fprintf(stderr, "%s: %s\n", mmc_error_name(code), mmc_last_error());
        exit(1);
    }
}

static mmc_key key_of(const char *text) {
    return (mmc_key){text, strlen(text)};
}

// Puts a block that the owner will read, and reads the owner's.
static int work(const char *address) {
    mmc_attach_options options = {.struct_size = sizeof options};
    options.dram_size = 16u << 20;  // what it brings serves all
    options.wait_ms = 5000;         // for an owner that is just starting
    mmc_store *store;
    check(mmc_attach(address, &options, &store));
    uint32_t rank;
    check(mmc_rank(store, &rank));
    printf("worker: attached with rank %u\n", rank);

    static char block[BLOCK] = "a block of the worker's", back[BLOCK];
    check(mmc_put(store, key_of("worker/block"), block, sizeof block, NULL));
    int32_t code = mmc_get(store, key_of("owner/block"), back, sizeof back, 0, NULL, NULL);
    printf("worker: %s\n", code == MMC_OK ? back : mmc_last_error());
    fflush(stdout);

    // What it holds goes back with this, and its memory leaves the pool. A worker that is killed leaves its memory to the next one.
    printf("worker: waits for a line, and leaves\n");
    fflush(stdout);
    (void)getchar();
    check(mmc_uninit(store));
    return 0;
}

// Starts a worker, whose input is the pipe's other end.
static pid_t start_worker(const char *program, const char *address, int *input) {
    int ends[2];
    if (pipe(ends) != 0) {
        perror("pipe");
        exit(1);
    }
    pid_t child = fork();
    if (child == 0) {
        // What a forked child had of its parent's store is the parent's: it becomes a program of its own, which attaches.
        dup2(ends[0], 0);
        close(ends[0]);
        close(ends[1]);
        execl(program, program, "worker", address, (char *)NULL);
        perror(program);
        _exit(1);
    }
    close(ends[0]);
    *input = ends[1];
    return child;
}

int main(int count, char **words) {
    if (count == 3 && strcmp(words[1], "worker") == 0) {
        return work(words[2]);
    }
    char address[64];
    snprintf(address, sizeof address, "unix:/tmp/mmc-example-%d.sock", (int)getpid());
    mmc_config config;
    check(mmc_config_init(&config));
    config.dram_size = 64u << 20;
    config.share = address;  // so its memory is a memfd, which others can map
    mmc_store *store;
    check(mmc_init(&config, &store));
    static char block[BLOCK] = "a block of the owner's", back[BLOCK];
    check(mmc_put(store, key_of("owner/block"), block, sizeof block, NULL));

    int input;
    pid_t worker = start_worker(words[0], address, &input);
    while (mmc_exist(store, key_of("worker/block"), MMC_PEEK) != MMC_OK) {
        if (waitpid(worker, NULL, WNOHANG) != 0) {
            return 1;
        }
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    mmc_object_info info = {.struct_size = sizeof info};
    check(mmc_query(store, key_of("worker/block"), 0, &info));
    check(mmc_get(store, key_of("worker/block"), back, sizeof back, 0, NULL, NULL));
    printf("owner: %s, in memory of rank %u\n", back, info.blobs[0].rank);
    fflush(stdout);

    close(input);
    int status;
    waitpid(worker, &status, 0);
    check(mmc_uninit(store));
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
