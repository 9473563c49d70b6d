// fork in a host with live threads: the child is told so by every call, never waits for a thread that it does not have, and may open a
// store of its own; the parent does not notice.

#include <errno.h>
#include <signal.h>
#include <sys/wait.h>

#include "check.h"

static mmc_store *store;
static _Atomic(int) is_stopping;
static _Atomic(size_t) rounds;

static mmc_segment_options dram(uint32_t rank, uint64_t capacity, void *base) {
    return (mmc_segment_options){
        .struct_size = sizeof(mmc_segment_options), .medium = MMC_MEDIUM_DRAM, .rank = rank, .capacity = capacity, .base = base};
}

// Threads that are everywhere in the library when the process forks.
static void *use_all(void *argument) {
    static char data[20000];
    unsigned state = 1 + (unsigned)(uintptr_t)argument;
    while (!is_stopping) {
        state = state * 1664525 + 1013904223;
        mmc_key name = keyf("k%u", (state >> 16) % 60);
        mmc_view view = {.struct_size = sizeof view};
        uint64_t address;
        switch ((state >> 8) % 8) {
            case 0: mmc_get(store, name, data, sizeof data, MMC_GET_UP_TO, NULL, NULL); break;
            case 1: mmc_remove(store, name); break;
            case 2:
                if (mmc_pin(store, name, 0, &view) == MMC_OK) CHECK_OK(mmc_unpin(store, view.token));
                break;
            case 3: mmc_add_lease(store, name, 1); break;
            case 4:
                if ((state >> 24) % 8 == 0) {
                    mmc_segment_options options = dram(1, 64 * PAGE, NULL);
                    CHECK_OK(mmc_register_segment(store, &options, &address));
                    int32_t code = mmc_unregister_segment(store, address);
                    while (code == MMC_ERR_BUSY) code = mmc_unregister_segment(store, address);
                    CHECK_OK(code);
                }
                break;
            default: mmc_put(store, name, data, 1 + state % sizeof data, NULL);
        }
        rounds++;
    }
    return NULL;
}

static void *log_much(void *argument) {
    while (!is_stopping) {
        mmc_store *other = NULL;
        mmc_config config = config_of(MIB);
        CHECK_OK(mmc_init(&config, &other));
        CHECK_OK(mmc_uninit(other));
    }
    return argument;
}

static void ignore_line(void *context, uint32_t level, const char *line) { (void)context, (void)level, (void)line; }
static void ignore_events(void *context, const mmc_event *events, size_t count, uint64_t dropped) {
    (void)context, (void)events, (void)count, (void)dropped;
}

// In the child: every call on the parent's store says whose it is.
static void check_forked(void) {
    char data[8] = "1234567";
    const void *read = data;
    void *written = data;
    size_t size = sizeof data, one = 1, count = 0;
    uint64_t number = 0, token = 1;
    int32_t result = 0;
    mmc_key name = key("k1");
    mmc_segment_options segment = dram(0, PAGE, NULL);
    mmc_object_info info = {.struct_size = sizeof info};
    mmc_view view = {.struct_size = sizeof view};
    mmc_statistics statistics = {.struct_size = sizeof statistics};
#define FORKED(call) CHECK_CODE(MMC_ERR_FORKED, call)
    FORKED(mmc_register_segment(store, &segment, &number));
    FORKED(mmc_unregister_segment(store, (uint64_t)1 << 40));
    FORKED(mmc_list_segments(store, NULL, 0, &count));
    FORKED(mmc_put(store, name, data, size, NULL));
    FORKED(mmc_putv(store, name, &read, &size, 1, NULL));
    FORKED(mmc_get(store, name, data, size, 0, NULL, NULL));
    FORKED(mmc_getv(store, name, &written, &size, 1, 0, NULL, NULL));
    FORKED(mmc_exist(store, name, 0));
    FORKED(mmc_query(store, name, 0, &info));
    FORKED(mmc_remove(store, name));
    FORKED(mmc_remove_all(store, &number));
    FORKED(mmc_list_keys(store, NULL, NULL));
    FORKED(mmc_batch_put(store, &name, 1, &read, &size, NULL, 0, &result));
    FORKED(mmc_batch_putv(store, &name, 1, &one, &read, &size, NULL, 0, &result));
    FORKED(mmc_batch_get(store, &name, 1, &written, &size, 0, NULL, &result, NULL));
    FORKED(mmc_batch_getv(store, &name, 1, &one, &written, &size, 0, NULL, &result, NULL));
    FORKED(mmc_batch_exist(store, &name, 1, 0, &result));
    FORKED(mmc_prefix_len(store, &name, 1, 0, &count));
    FORKED(mmc_batch_query(store, &name, 1, 0, &info, &result));
    FORKED(mmc_batch_remove(store, &name, 1, 0, &result));
    FORKED(mmc_reserve(store, name, 1, NULL, &view));
    FORKED(mmc_commit(store, token));
    FORKED(mmc_abort(store, token));
    FORKED(mmc_pin(store, name, 0, &view));
    FORKED(mmc_unpin(store, token));
    FORKED(mmc_add_lease(store, name, 1));
    FORKED(mmc_remove_lease(store, name));
    FORKED(mmc_batch_reserve(store, &name, 1, &token, NULL, 0, &view, &result));
    FORKED(mmc_batch_commit(store, &token, 1, 0, &result));
    FORKED(mmc_batch_abort(store, &token, 1, 0, &result));
    FORKED(mmc_batch_pin(store, &name, 1, 0, &view, &result));
    FORKED(mmc_batch_unpin(store, &token, 1, 0, &result));
    FORKED(mmc_batch_add_lease(store, &name, 1, 1, 0, &result));
    FORKED(mmc_batch_remove_lease(store, &name, 1, 0, &result));
    FORKED(mmc_batch_copy(store, &token, 1, &written, &size, MMC_COPY_FROM_SEGMENT, 0, NULL, &result));
    FORKED(mmc_stats(store, &statistics));
    FORKED(mmc_http_address(store, data, size, NULL));
    FORKED(mmc_set_event_callback(store, NULL, NULL));
    FORKED(mmc_uninit(store));
#undef FORKED
    CHECK(strstr(mmc_last_error(), "belongs to the parent of this process") != NULL);
}

// In the child: a store of its own does all that a store does, its own admin port, events and log included.
static void check_own_store(void) {
    mmc_config config = config_of(MIB);
    mmc_store *own = NULL;
    mmc_view view = {.struct_size = sizeof view};
    CHECK_OK(mmc_set_logger(ignore_line, NULL));
    CHECK_OK(mmc_set_log_level(MMC_LOG_TRACE));
    config.http_address = "127.0.0.1:0";
    CHECK_OK(mmc_init(&config, &own));
    CHECK_OK(mmc_set_event_callback(own, ignore_events, NULL));
    for (unsigned i = 0; i < 300; i++) CHECK_OK(put_filled(own, keyf("k%u", i), 5000, i, NULL));
    CHECK(has_filled(own, key("k299"), 5000, 299));
    CHECK_OK(mmc_pin(own, key("k299"), 0, &view));
    CHECK_OK(mmc_unpin(own, view.token));
    CHECK_OK(mmc_uninit(own));
    CHECK_CODE(MMC_ERR_NOT_STARTED, mmc_uninit(own));
}

static pid_t fork_with(void (*run)(void)) {
    fflush(NULL);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        // A deadlock ends here, and is told by the status.
        alarm(is_slow() ? 120 : 20);
        run();
        end_child(1);
    }
    return child;
}

static void check_child(pid_t child) {
    int status = -1;
    CHECK(waitpid(child, &status, 0) == child);
    if (status != 0) fail(__FILE__, __LINE__, "the child ended with status 0x%x%s", status, WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM ? ": a deadlock" : "");
}

static void be_a_child(void) {
    check_forked();
    check_own_store();
    check_forked();
}

BEHAVIOUR(a_child_is_told_and_may_open_its_own) {
    mmc_config config = config_of(64 * PAGE);
    config.http_address = "127.0.0.1:0";
    CHECK_OK(mmc_init(&config, &store));
    CHECK_OK(mmc_set_event_callback(store, ignore_events, NULL));
    check_child(fork_with(be_a_child));
    CHECK_OK(put_filled(store, key("k1"), 100, 1, NULL));
    CHECK(has_filled(store, key("k1"), 100, 1));
    close_store(store);
}

BEHAVIOUR(a_fork_at_any_moment_harms_neither) {
    mmc_config config = config_of(64 * PAGE);
    config.http_address = "127.0.0.1:0";
    CHECK_OK(mmc_set_logger(ignore_line, NULL));
    CHECK_OK(mmc_set_log_level(MMC_LOG_TRACE));
    CHECK_OK(mmc_init(&config, &store));
    CHECK_OK(mmc_set_event_callback(store, ignore_events, NULL));
    pthread_t threads[4];
    for (size_t i = 0; i < 3; i++) threads[i] = start(use_all, (void *)(uintptr_t)(i * 7919));
    threads[3] = start(log_much, NULL);
    for (size_t i = 0; i < load(150, 5); i++) {
        size_t before = rounds;
        pid_t child = fork_with(be_a_child);
        check_child(child);
        // The parent's threads have gone on meanwhile.
        CHECK_SOON(rounds > before);
    }
    is_stopping = 1;
    for (size_t i = 0; i < 4; i++) join(threads[i]);
    CHECK_OK(mmc_set_log_level(MMC_LOG_OFF));
    CHECK_OK(mmc_set_logger(NULL, NULL));
    close_store(store);
}

static void fork_again(void) {
    mmc_config config = config_of(MIB);
    mmc_store *parents = store;
    CHECK_OK(mmc_init(&config, &store));
    check_child(fork_with(check_forked));
    CHECK_CODE(MMC_ERR_FORKED, mmc_exist(parents, key("k"), 0));
    CHECK_OK(put_filled(store, key("k"), 100, 1, NULL));
    CHECK_OK(mmc_uninit(store));
}

BEHAVIOUR(a_child_of_a_child_is_told_too) {
    store = open_store(MIB);
    check_child(fork_with(fork_again));
    close_store(store);
}

BEHAVIOUR(a_handle_of_a_closed_store_stays_void_in_a_child) {
    store = open_store(MIB);
    close_store(store);
    fflush(NULL);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        int32_t code = mmc_exist(store, key("k"), 0);
        end_child(code == MMC_ERR_FORKED || code == MMC_ERR_NOT_STARTED);
    }
    check_child(child);
}

// Else the child's copy would make every later put of the parent a fault that copies a page.
BEHAVIOUR(a_child_does_not_have_the_private_memory_of_a_store) {
    store = open_store(MIB);
    mmc_view view = {.struct_size = sizeof view};
    CHECK_OK(put_filled(store, key("k"), 5000, 1, NULL));
    CHECK_OK(mmc_pin(store, key("k"), 0, &view));
    int pipes[2];
    CHECK(pipe(pipes) == 0);
    fflush(NULL);
    pid_t child = fork();
    CHECK(child >= 0);
    // The kernel is asked whether the byte is there: writing it to a pipe fails when it is not.
    if (child == 0) end_child(write(pipes[1], view.data, 1) < 0 && errno == EFAULT);
    check_child(child);
    CHECK(write(pipes[1], view.data, 1) == 1);
    CHECK(is_filled(view.data, 5000, 1));
    CHECK_OK(mmc_unpin(store, view.token));
    close(pipes[0]);
    close(pipes[1]);
    close_store(store);
}
