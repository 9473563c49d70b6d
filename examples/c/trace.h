// Reads a kvt1 trace: requests to an LLM serving system as chains of KV-cache blocks. examples/data/README.md has the format.
//
// The whole trace is read before anything is timed; it is 8 bytes a block reference.

#ifndef TRACE_H
#define TRACE_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
    const uint64_t *blocks; // ids in prefix order
    size_t count;
} trace_request;

typedef struct {
    trace_request *requests; // in time order
    size_t request_count;
    uint64_t *blocks; // of all requests, one after the other
    size_t block_count;
    size_t longest; // blocks of the longest request
} trace;

// Reads the file at `path`, gzip (through a `gzip` child) or plain text, and keeps its first `limit` requests. Returns 0 and a trace to
// be freed with trace_free; or -1 after a sentence on standard error, with nothing to free.
int trace_read(const char *path, size_t limit, trace *into);

void trace_free(trace *read);

#endif
