// A host that loads the library with dlopen, uses it, and lets it go, again and again. Threads of the admin port may outlive a store by
// seconds, so the code stays mapped.

#include <arpa/inet.h>
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "mmc.h"

#ifndef LIBRARY
#error "LIBRARY is the path of libmmc.so.0"
#endif

#define CHECK(condition) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "%s:%d: round %d: %s\n", __FILE__, __LINE__, round, #condition); \
            return 1; \
        } \
    } while (0)

// ISO C has no conversion from an object's pointer to a function's; POSIX says that this works.
#define LOAD(function) \
    __typeof__(&function) my_##function; \
    *(void **)(void *)&my_##function = dlsym(library, #function); \
    CHECK(my_##function != NULL)

static int get_health(const char *address, char *answer, size_t size) {
    unsigned port = 0;
    if (sscanf(address, "127.0.0.1:%u", &port) != 1) return 0;
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const char request[] = "GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    int client = socket(AF_INET, SOCK_STREAM, 0);
    int is_sent = connect(client, (struct sockaddr *)&to, sizeof to) == 0 && write(client, request, sizeof request - 1) > 0;
    ssize_t got = is_sent ? read(client, answer, size - 1) : -1;
    answer[got > 0 ? got : 0] = 0;
    close(client);
    return got > 0;
}

int main(void) {
    void *first_code = NULL;
    for (int round = 0; round < 10; round++) {
        void *library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
        CHECK(library != NULL);
        LOAD(mmc_init);
        LOAD(mmc_uninit);
        LOAD(mmc_config_init);
        LOAD(mmc_put);
        LOAD(mmc_get);
        LOAD(mmc_exist);
        LOAD(mmc_http_address);
        LOAD(mmc_last_error);
        mmc_config config;
        mmc_store *store = NULL;
        mmc_key key = {"k", 1};
        char block[10000], back[10000], address[64], answer[1024];
        memset(block, round + 1, sizeof block);
        CHECK(my_mmc_config_init(&config) == MMC_OK);
        config.dram_size = 1 << 20;
        config.http_address = "127.0.0.1:0";
        CHECK(my_mmc_init(&config, &store) == MMC_OK);
        CHECK(my_mmc_put(store, key, block, sizeof block, NULL) == MMC_OK);
        CHECK(my_mmc_get(store, key, back, sizeof back, 0, NULL, NULL) == MMC_OK);
        CHECK(memcmp(block, back, sizeof block) == 0);
        CHECK(my_mmc_exist(store, (mmc_key){"missing", 7}, 0) == MMC_ERR_NOT_FOUND);
        CHECK(strcmp(my_mmc_last_error(), "mmc_exist: no readable object has this key") == 0);
        CHECK(my_mmc_http_address(store, address, sizeof address, NULL) == MMC_OK);
        CHECK(get_health(address, answer, sizeof answer) && strncmp(answer, "HTTP/1.1 200 ", 13) == 0);
        CHECK(my_mmc_uninit(store) == MMC_OK);
        CHECK(my_mmc_uninit(store) == MMC_ERR_NOT_STARTED);
        memcpy(&first_code, &my_mmc_init, sizeof first_code);
        CHECK(dlclose(library) == 0);
        // It is still there.
        Dl_info info;
        CHECK(dladdr(first_code, &info) != 0 && strcmp(info.dli_sname, "mmc_init") == 0);
    }
    printf("loaded, used and closed ten times\n");
    return 0;
}
