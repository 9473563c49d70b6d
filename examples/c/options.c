// The replay's command line: a table of options, and sizes as people write them.

#include "options.h"

#include "mmc.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char usage[] =
    "usage: replay --trace FILE [option]...\n"
    "\n"
    "Replays a trace of LLM requests through an mmc store: looks up each request's prefix, gets the hits,\n"
    "puts the misses. The bytes of a block are made of its id, and verified on every get.\n"
    "\n"
    "  --trace FILE           a kvt1 trace, gzip or plain\n"
    "  --block SIZE           bytes of a block (default 64KiB)\n"
    "  --dram SIZE            bytes of the pool, all of them touched first (default 1GiB)\n"
    "  --blocks N             room for N blocks instead\n"
    "  --ssd FILE SIZE        an SSD segment of so many bytes, to which blocks move when the pool is full\n"
    "  --policy NAME          which block goes first: adaptive (the default) or prefix\n"
    "  --watermarks HIGH LOW  percent in use at which eviction starts and stops (default 90 80;\n"
    "                         with 100 100 the pool fills up)\n"
    "  --requests N           no more than the first N\n"
    "  --http HOST:PORT       the admin port (default 127.0.0.1:0, any free one; \"\" is none)\n"
    "  --serve                stay after the replay, until SIGINT or SIGTERM\n"
    "  --quiet                no progress bar\n"
    "  --help                 this\n"
    "\n"
    "A SIZE is bytes, or a number with KiB, MiB or GiB.\n";

static int fail(const char *option, const char *value, const char *what) {
    fprintf(stderr, "replay: %s %s: %s\n", option, value, what);
    return -1;
}

static int read_number(const char *option, const char *value, uint64_t most, uint64_t *into) {
    char *end;
    errno = 0;
    *into = strtoull(value, &end, 10);
    if (value[0] < '0' || value[0] > '9' || *end || errno || *into == 0 || *into > most) {
        return fail(option, value, "not a number, zero or too large");
    }
    return 0;
}

static int read_size(const char *option, const char *value, uint64_t *into) {
    static const struct {
        const char *unit;
        unsigned shift;
    } units[] = {{"", 0}, {"KiB", 10}, {"MiB", 20}, {"GiB", 30}};
    char *end;
    errno = 0;
    uint64_t number = strtoull(value, &end, 10);
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        if (strcmp(end, units[i].unit) == 0) {
            uint64_t most = (uint64_t)1 << (62 - units[i].shift);
            if (value[0] < '0' || value[0] > '9' || errno || number == 0 || number > most) {
                break;
            }
            *into = number << units[i].shift;
            return 0;
        }
    }
    return fail(option, value, "not a size like 65536, 64KiB, 512MiB or 2GiB");
}

static int read_policy(const char *value, uint32_t *into) {
    if (strcmp(value, "prefix") == 0) {
        *into = MMC_EVICTION_PREFIX;
    } else if (strcmp(value, "adaptive") == 0) {
        *into = MMC_EVICTION_ADAPTIVE;
    } else {
        return fail("--policy", value, "must be prefix or adaptive");
    }
    return 0;
}

int options_read(int count, char **arguments, replay_options *into) {
    *into = (replay_options){.http_address = "127.0.0.1:0", .requests = SIZE_MAX};
    uint64_t block = 64 << 10, pool = 1 << 30, blocks = 0, requests = SIZE_MAX, high = 0, low = 0;
    for (int i = 1; i < count; i++) {
        const char *option = arguments[i];
        int wrong = 0;
        if (strcmp(option, "--help") == 0) {
            fputs(usage, stdout);
            return 1;
        } else if (strcmp(option, "--serve") == 0) {
            into->serve = 1;
            continue;
        } else if (strcmp(option, "--quiet") == 0) {
            into->quiet = 1;
            continue;
        }
        const char *value = i + 1 < count ? arguments[++i] : NULL;
        if (!value) {
            return fail(option, "", "unknown, or its value is missing; see --help");
        } else if (strcmp(option, "--trace") == 0) {
            into->trace = value;
        } else if (strcmp(option, "--http") == 0) {
            into->http_address = value;
        } else if (strcmp(option, "--block") == 0) {
            wrong = read_size(option, value, &block);
        } else if (strcmp(option, "--dram") == 0) {
            wrong = read_size(option, value, &pool);
        } else if (strcmp(option, "--blocks") == 0) {
            wrong = read_number(option, value, (uint64_t)1 << 40, &blocks);
        } else if (strcmp(option, "--requests") == 0) {
            wrong = read_number(option, value, SIZE_MAX, &requests);
        } else if (strcmp(option, "--ssd") == 0 && i + 1 < count) {
            into->ssd_path = value;
            wrong = read_size(option, arguments[++i], &into->ssd_size);
        } else if (strcmp(option, "--policy") == 0) {
            wrong = read_policy(value, &into->eviction);
        } else if (strcmp(option, "--watermarks") == 0 && i + 1 < count) {
            wrong = read_number(option, value, 100, &high) || read_number(option, arguments[++i], 100, &low);
        } else {
            return fail(option, value, "unknown, or a value is missing; see --help");
        }
        if (wrong) {
            return -1;
        }
    }
    if (!into->trace) {
        fprintf(stderr, "replay: --trace FILE is missing; see --help\n");
        return -1;
    }
    uint64_t allocated = (block + 4095) / 4096 * 4096; // what the store takes for one block
    if (blocks && allocated > ((uint64_t)1 << 62) / blocks) {
        fprintf(stderr, "replay: --blocks: too large a pool\n");
        return -1;
    }
    into->block_size = block;
    into->pool_size = blocks ? blocks * allocated : pool;
    into->requests = requests;
    into->watermark_high = (uint32_t)high;
    into->watermark_low = (uint32_t)low;
    return 0;
}
