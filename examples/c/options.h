// The replay's command line.

#ifndef OPTIONS_H
#define OPTIONS_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
    const char *trace;
    size_t block_size; // bytes
    uint64_t pool_size; // bytes
    const char *ssd_path; // null for no SSD segment
    uint64_t ssd_size; // bytes
    const char *http_address;
    uint32_t eviction; // MMC_EVICTION_*; 0 is the library's default
    size_t requests; // at most this many of the trace
    uint32_t watermark_high, watermark_low; // percent; 0 is the library's default
    int serve;
    int quiet;
} replay_options;

// Reads the command line. Returns 0; or 1 after --help, -1 after a sentence on standard error.
int options_read(int count, char **arguments, replay_options *into);

#endif
