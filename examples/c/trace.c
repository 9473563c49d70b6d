// The reader of kvt1 traces. It trusts nothing: a line that is not as the format says, a number of requests other than the header's, a
// gzip file that is cut short are errors with the line they were met at.

#define _POSIX_C_SOURCE 200809L

#include "trace.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

enum { LONGEST_REQUEST = 1 << 20 }; // blocks: far over any context window, so that a bad COUNT can't take all memory

// Where reading is: for the messages, and for the block list, which moves as it grows.
typedef struct {
    const char *path;
    size_t line;
    size_t *starts; // first block of each request
    size_t start_capacity;
    size_t block_capacity;
    trace *into;
} reader;

static int fail(const reader *from, const char *what) {
    fprintf(stderr, "%s:%zu: %s\n", from->path, from->line, what);
    return -1;
}

// `array` with room for `count` + 1 elements, doubled when it must move; null without memory, and then it is as it was.
static void *grown(void *array, size_t *capacity, size_t count, size_t size) {
    if (count < *capacity) {
        return array;
    }
    size_t larger = *capacity ? 2 * *capacity : 1024;
    void *moved = realloc(array, larger * size);
    *capacity = moved ? larger : *capacity;
    return moved;
}

// A decimal number; `*text` moves past it.
static int number(char **text, uint64_t *value) {
    if (**text < '0' || **text > '9') {
        return -1;
    }
    errno = 0;
    *value = strtoull(*text, text, 10);
    return errno ? -1 : 0;
}

// "START" or "START+COUNT", comma-separated.
static int read_runs(reader *from, char *text) {
    trace *into = from->into;
    size_t first = into->block_count;
    for (;;) {
        uint64_t start, count = 1;
        if (number(&text, &start)) {
            return fail(from, "RUNS: a block id is missing or too large");
        }
        if (*text == '+') {
            text++;
            if (number(&text, &count) || count == 0) {
                return fail(from, "RUNS: a count is missing, zero or too large");
            }
        }
        if (count > LONGEST_REQUEST - (into->block_count - first)) {
            return fail(from, "a request of over 1048576 blocks");
        }
        for (uint64_t i = 0; i < count; i++) {
            uint64_t *blocks = grown(into->blocks, &from->block_capacity, into->block_count, sizeof *blocks);
            if (!blocks) {
                return fail(from, "out of memory");
            }
            into->blocks = blocks;
            blocks[into->block_count++] = start + i;
        }
        if (*text == '\n' || *text == '\0') {
            return 0;
        }
        if (*text++ != ',') {
            return fail(from, "RUNS: expected START or START+COUNT, comma-separated");
        }
    }
}

// "TIMESTAMP_MS INPUT_TOKENS OUTPUT_TOKENS RUNS"
static int read_request(reader *from, char *text) {
    for (int field = 0; field < 3; field++) {
        uint64_t unused;
        if (number(&text, &unused) || *text++ != ' ') {
            return fail(from, "expected TIMESTAMP_MS INPUT_TOKENS OUTPUT_TOKENS RUNS");
        }
    }
    trace *into = from->into;
    size_t *starts = grown(from->starts, &from->start_capacity, into->request_count, sizeof *starts);
    if (!starts) {
        return fail(from, "out of memory");
    }
    from->starts = starts;
    starts[into->request_count++] = into->block_count;
    return read_runs(from, text);
}

static int read_lines(reader *from, FILE *file, size_t limit) {
    char *line = NULL;
    size_t size = 0, announced = 0;
    unsigned block_tokens = 0;
    int result = 0;
    while (result == 0 && getline(&line, &size, file) >= 0) {
        from->line++;
        if (from->line == 1) {
            if (sscanf(line, "# kvt1 block_tokens=%u requests=%zu", &block_tokens, &announced) != 2) {
                result = fail(from, "not a trace: expected \"# kvt1 block_tokens=N requests=N\"");
            }
        } else if (from->into->request_count < limit) {
            result = read_request(from, line);
        }
    }
    free(line);
    if (result == 0 && ferror(file)) {
        result = fail(from, strerror(errno));
    }
    if (result == 0 && from->line == 0) {
        result = fail(from, "not a trace: it is empty");
    } else if (result == 0 && from->line - 1 != announced) {
        char what[96];
        snprintf(what, sizeof what, "the trace ends after %zu requests: its first line says %zu", from->line - 1,
                 announced);
        result = fail(from, what);
    }
    return result;
}

// A stream of what `gzip -dc` makes of the open file `compressed`, which is closed.
static FILE *decompress(int compressed, pid_t *child) {
    int ends[2];
    if (pipe(ends)) {
        close(compressed);
        return NULL;
    }
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, compressed, STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    posix_spawn_file_actions_addclose(&actions, ends[0]);
    posix_spawn_file_actions_addclose(&actions, ends[1]);
    char *arguments[] = {"gzip", "-dc", NULL};
    int error = posix_spawnp(child, "gzip", &actions, NULL, arguments, environ);
    posix_spawn_file_actions_destroy(&actions);
    close(compressed);
    close(ends[1]);
    FILE *file = error ? NULL : fdopen(ends[0], "r");
    if (!file) {
        close(ends[0]);
        errno = error ? error : errno;
    }
    return file;
}

// Opens `path`, through a child when it begins as gzip does. `child` is 0 without one.
static FILE *open_trace(const char *path, pid_t *child) {
    *child = 0;
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) {
        return NULL;
    }
    unsigned char magic[2];
    if (pread(file, magic, sizeof magic, 0) == sizeof magic && magic[0] == 0x1f && magic[1] == 0x8b) {
        return decompress(file, child);
    }
    return fdopen(file, "r");
}

int trace_read(const char *path, size_t limit, trace *into) {
    *into = (trace){0};
    reader from = {.path = path, .into = into};
    pid_t child;
    FILE *file = open_trace(path, &child);
    if (!file) {
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
        return -1;
    }
    int result = read_lines(&from, file, limit);
    fclose(file); // ends a child that still writes
    int status = 0;
    if (child && waitpid(child, &status, 0) == child && status != 0 && result == 0) {
        result = fail(&from, "gzip could not decompress it to its end");
    }
    if (result == 0) {
        into->requests = calloc(into->request_count + 1, sizeof *into->requests);
        result = into->requests ? 0 : fail(&from, "out of memory");
    }
    for (size_t i = 0; result == 0 && i < into->request_count; i++) {
        size_t end = i + 1 < into->request_count ? from.starts[i + 1] : into->block_count;
        into->requests[i] = (trace_request){into->blocks + from.starts[i], end - from.starts[i]};
        into->longest = into->requests[i].count > into->longest ? into->requests[i].count : into->longest;
    }
    free(from.starts);
    if (result) {
        trace_free(into);
    }
    return result;
}

void trace_free(trace *read) {
    free(read->requests);
    free(read->blocks);
    *read = (trace){0};
}
