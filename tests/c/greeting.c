// Where a pool is shared and who is let in: addresses, sockets, users, and peers that are not what they should be.

#include "sharing.h"

static void *attach_patiently(void *argument) {
    mmc_attach_options options = {.struct_size = sizeof options, .wait_ms = 20000};
    CHECK_OK(mmc_attach(address_of("pool"), &options, argument));
    return NULL;
}

BEHAVIOUR(attaching_waits_for_an_owner_if_it_is_told_to) {
    mmc_config config = shared_config(MIB);
    config.share = NULL;
    config.memory = MMC_MEMORY_MEMFD;
    mmc_store *store = NULL, *owned = NULL;
    pthread_t waiting = start(attach_patiently, &store);
    usleep(1000);
    CHECK_OK(mmc_init(&config, &owned));
    CHECK_OK(mmc_share(owned, address_of("pool")));
    join(waiting);
    // Owner and attached may be one process.
    CHECK_OK(put_filled(store, key("a"), PAGE, 1, NULL));
    CHECK_EQUAL(1, statistics_of(owned).attached);
    CHECK_OK(mmc_uninit(store));
    CHECK_OK(mmc_uninit(owned));
}

BEHAVIOUR(wrong_options_of_attaching_are_named) {
    mmc_store *store = NULL;
    mmc_attach_options options = {.struct_size = sizeof options};
    CHECK_CODE(MMC_ERR_INVALID_PARAM, mmc_attach(NULL, NULL, &store));
    CHECK_CODE(MMC_ERR_INVALID_PARAM, mmc_attach(address_of("pool"), NULL, NULL));
    CHECK_FAILS(MMC_ERR_INVALID_PARAM, "unix:", mmc_attach("/tmp/pool", NULL, &store));
    CHECK_FAILS(MMC_ERR_DISCONNECTED, "no process shares a pool", mmc_attach(address_of("nobody"), NULL, &store));
    options.rank = 1 + 65536;
    CHECK_FAILS(MMC_ERR_INVALID_PARAM, "rank 65536", mmc_attach(address_of("pool"), &options, &store));
    options = (mmc_attach_options){.struct_size = sizeof options, .dram_size = 5};
    CHECK_FAILS(MMC_ERR_INVALID_PARAM, "multiple of 4096", mmc_attach(address_of("pool"), &options, &store));
    options = (mmc_attach_options){.struct_size = sizeof options, .huge_pages = 7};
    CHECK_FAILS(MMC_ERR_INVALID_PARAM, "huge_pages", mmc_attach(address_of("pool"), &options, &store));
    CHECK(store == NULL);
}

static int raw_socket(struct sockaddr_un *address) {
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    strcpy(address->sun_path, path_of("pool"));
    int peer = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(peer >= 0);
    return peer;
}

// Sends these bytes and reads all that is answered.
static size_t exchange(const void *bytes, size_t size, char *answer, size_t room) {
    struct sockaddr_un address;
    int peer = raw_socket(&address);
    CHECK(connect(peer, (struct sockaddr *)&address, sizeof address) == 0);
    CHECK(write(peer, bytes, size) == (ssize_t)size);
    CHECK(shutdown(peer, SHUT_WR) == 0);
    size_t got = 0;
    for (ssize_t more; (more = read(peer, answer + got, room - 1 - got)) > 0;) got += (size_t)more;
    answer[got] = 0;
    close(peer);
    return got;
}

BEHAVIOUR(who_does_not_speak_the_protocol_is_refused_or_dropped) {
    mmc_config config = shared_config(MIB);
    owner theirs = start_owner(&config, NULL);
    char answer[1024];
    // A frame of 9 bytes: who it is, version 99, no session, no rank.
    static const char newer[] = "\7\0\0\0mmc\0\x63\0\0";
    size_t got = exchange(newer, sizeof newer - 1, answer, sizeof answer);
    CHECK(got > 12 && memcmp(answer + 4, "mmc", 4) == 0);
    CHECK(memmem(answer, got, "version 99", 10) != NULL && memmem(answer, got, "same release", 12) != NULL);
    static const char session_of_nobody[] = "\10\0\0\0mmc\0\1\1\5\0";
    got = exchange(session_of_nobody, sizeof session_of_nobody - 1, answer, sizeof answer);
    CHECK(memmem(answer, got, "no such session", 15) != NULL);
    static const char *strange[] = {"\7\0\0\0xyz\0\1\0\0", "\377\377\377\377mmc\0\1\0\0", "\3\0\0\0mmc", "\0\0\0\0", "GET / HTTP/1.1\r\n\r\n"};
    static const size_t sizes[] = {11, 11, 7, 4, 18};
    for (unsigned i = 0; i < 5; i++) CHECK_EQUAL(0, exchange(strange[i], sizes[i], answer, sizeof answer));
    // Greeted, and then a request that is none.
    static const char greeted[] = "\7\0\0\0mmc\0\1\0\0" "\2\0\0\0\377\377";
    got = exchange(greeted, sizeof greeted - 1, answer, sizeof answer);
    CHECK(got > 0 && got < 40);
    // All of this hurts nobody.
    mmc_store *store = attach(MMC_NO_RANK);
    CHECK_OK(put_filled(store, key("a"), PAGE, 1, NULL));
    CHECK_OK(mmc_uninit(store));
    end_owner(&theirs);
}

typedef struct impostor {
    int listener;
    const char *says;
    size_t size;
} impostor;

static void *pretend(void *argument) {
    impostor *self = argument;
    int peer = accept(self->listener, NULL, NULL);
    char heard[256];
    CHECK(peer >= 0 && read(peer, heard, sizeof heard) > 0);
    CHECK(write(peer, self->says, self->size) == (ssize_t)self->size);
    while (read(peer, heard, sizeof heard) > 0) {}
    close(peer);
    return NULL;
}

BEHAVIOUR(who_is_no_owner_is_told_apart) {
    static const struct {
        const char *says;
        size_t size;
        int32_t code;
        const char *words;
    } cases[] = {
        // Another version that refuses; the answer of another program; of a length that can't be; nothing.
        {"\14\0\0\0mmc\0\x63\1\5go on", 16, MMC_ERR_UNSUPPORTED, "refuses this process: go on"},
        {"\4\0\0\0ping", 8, MMC_ERR_IO, "does not share a pool"},
        {"HTTP/1.1 400\r\n", 14, MMC_ERR_IO, "socket"},
        {"\2\0\0\0mm", 6, MMC_ERR_IO, "does not share a pool"},
    };
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct sockaddr_un address;
        impostor self = {raw_socket(&address), cases[i].says, cases[i].size};
        CHECK(bind(self.listener, (struct sockaddr *)&address, sizeof address) == 0 && listen(self.listener, 5) == 0);
        pthread_t thread = start(pretend, &self);
        mmc_store *store = NULL;
        CHECK_FAILS(cases[i].code, cases[i].words, mmc_attach(address_of("pool"), NULL, &store));
        join(thread);
        close(self.listener);
        CHECK(unlink(address.sun_path) == 0);
    }
}

// It says no as soon as it sees who it is, and does not hear what that has to say.
static void *refuse_at_once(void *argument) {
    static const char refusal[] = "\12\0\0\0mmc\0\1\1\3no!";
    for (int peer; (peer = accept(*(int *)argument, NULL, NULL)) >= 0;) {
        CHECK(write(peer, refusal, sizeof refusal - 1) == sizeof refusal - 1);
        close(peer);
    }
    return NULL;
}

BEHAVIOUR(a_refusal_is_heard_however_early_it_comes) {
    struct sockaddr_un address;
    int listener = raw_socket(&address);
    CHECK(bind(listener, (struct sockaddr *)&address, sizeof address) == 0 && listen(listener, 5) == 0);
    pthread_t thread = start(refuse_at_once, &listener);
    for (size_t i = 0; i < load(2000, 20); i++) {
        mmc_store *store = NULL;
        CHECK_FAILS(MMC_ERR_UNSUPPORTED, "refuses this process: no!", mmc_attach(address_of("pool"), NULL, &store));
    }
    CHECK(shutdown(listener, SHUT_RDWR) == 0);
    join(thread);
    close(listener);
    CHECK(unlink(address.sun_path) == 0);
}

// One that listens and never answers.
BEHAVIOUR(an_owner_that_does_not_answer_is_given_up) {
    struct sockaddr_un address;
    int listener = raw_socket(&address);
    CHECK(bind(listener, (struct sockaddr *)&address, sizeof address) == 0 && listen(listener, 5) == 0);
    mmc_attach_options options = {.struct_size = sizeof options, .call_timeout_ms = 200};
    mmc_store *store = NULL;
    CHECK_FAILS(MMC_ERR_DISCONNECTED, "does not answer", mmc_attach(address_of("pool"), &options, &store));
    close(listener);
    CHECK(unlink(address.sun_path) == 0);
}

BEHAVIOUR(a_stopped_owner_is_given_up_and_a_late_answer_is_nobodys) {
    mmc_config config = shared_config(MIB);
    owner theirs = start_owner(&config, NULL);
    mmc_attach_options options = {.struct_size = sizeof options, .call_timeout_ms = 300};
    mmc_store *store = NULL, *next = NULL;
    CHECK_OK(mmc_attach(address_of("pool"), &options, &store));
    int status;
    CHECK(kill(theirs.process, SIGSTOP) == 0 && waitpid(theirs.process, &status, WUNTRACED) == theirs.process);
    CHECK_FAILS(MMC_ERR_DISCONNECTED, "does not answer", mmc_exist(store, key("a"), 0));
    CHECK(kill(theirs.process, SIGCONT) == 0);
    CHECK_CODE(MMC_ERR_DISCONNECTED, mmc_exist(store, key("a"), 0));
    CHECK_OK(mmc_attach(address_of("pool"), &options, &next));
    CHECK_CODE(MMC_ERR_NOT_FOUND, mmc_exist(next, key("a"), 0));
    CHECK_OK(mmc_uninit(store));
    CHECK_OK(mmc_uninit(next));
    end_owner(&theirs);
}

// Attaches as nobody, often; the code that comes, always the same one.
static void attach_as_nobody(int32_t expected, const char *words) {
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        CHECK(setgid(65534) == 0 && setuid(65534) == 0);
        for (size_t i = 0; i < load(500, 5); i++) {
            mmc_store *store = NULL;
            CHECK_CODE(expected, mmc_attach(address_of("pool"), NULL, &store));
            if (expected != MMC_OK) check_words(__FILE__, __LINE__, "mmc_attach", words);
            CHECK_OK(mmc_uninit(store));
        }
        end_child(1);
    }
    int status = 0;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
}

BEHAVIOUR(a_user_who_is_not_named_is_refused_with_the_reason) {
    if (geteuid() != 0) return; // only root can be somebody else
    static const struct {
        const char *users, *groups;
        uint32_t mode;
        int32_t code;
        const char *words;
    } cases[] = {
        {NULL, NULL, 0666, MMC_ERR_UNSUPPORTED, "user 65534 and group 65534 may not attach"},
        {"1,2", "3", 0666, MMC_ERR_UNSUPPORTED, "neither share_users nor share_groups names them"},
        {"65534", NULL, 0666, MMC_OK, ""},
        {NULL, "65534", 0666, MMC_OK, ""},
        {"65534", NULL, 0600, MMC_ERR_IO, "ermission denied"},
    };
    CHECK(chmod(directory(), 0755) == 0);
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        mmc_config config = shared_config(MIB);
        config.share_users = cases[i].users;
        config.share_groups = cases[i].groups;
        config.share_mode = cases[i].mode;
        owner theirs = start_owner(&config, NULL);
        attach_as_nobody(cases[i].code, cases[i].words);
        end_owner(&theirs);
    }
}

BEHAVIOUR(one_owner_shares_at_an_address) {
    mmc_config config = shared_config(MIB);
    owner theirs = start_owner(&config, NULL);
    mmc_store *store = open_store(MIB), *other = open_store(MIB);
    struct stat there;
    // Another process's, this process's, and the store's own.
    CHECK_FAILS(MMC_ERR_BUSY, "shares its pool there", mmc_share(store, address_of("pool")));
    CHECK_CODE(MMC_ERR_BUSY, mmc_init(&config, &(mmc_store *){NULL}));
    CHECK_OK(mmc_share(store, address_of("second")));
    CHECK_FAILS(MMC_ERR_BUSY, "shares its pool there", mmc_share(other, address_of("second")));
    CHECK_FAILS(MMC_ERR_BUSY, "shared already", mmc_share(store, address_of("third")));
    CHECK_OK(mmc_share(other, address_of("third")));
    CHECK(stat(path_of("third"), &there) == 0 && (there.st_mode & 0777) == 0600);
    CHECK_OK(mmc_uninit(store));
    CHECK(stat(path_of("second"), &there) != 0 && stat(path_of("second.lock"), &there) != 0);
    CHECK_OK(mmc_uninit(other));
    CHECK(stat(path_of("third"), &there) != 0);
    // One that is killed leaves its socket, which the next one takes over.
    int status;
    CHECK(kill(theirs.process, SIGKILL) == 0 && waitpid(theirs.process, &status, 0) == theirs.process);
    close(theirs.orders);
    close(theirs.answers);
    CHECK(stat(path_of("pool"), &there) == 0 && S_ISSOCK(there.st_mode));
    config.share_mode = 0660;
    mode_t mask = umask(0);
    theirs = start_owner(&config, NULL);
    umask(mask);
    CHECK(stat(path_of("pool"), &there) == 0 && (there.st_mode & 0777) == 0660);
    store = attach(MMC_NO_RANK);
    CHECK_OK(mmc_uninit(store));
    end_owner(&theirs);
}

BEHAVIOUR(what_lies_at_the_address_and_is_no_socket_stays) {
    const char *path = path_of("file");
    int file = open(path, O_CREAT | O_WRONLY, 0600);
    CHECK(file >= 0 && write(file, "precious", 8) == 8);
    close(file);
    mmc_store *store = open_store(MIB);
    CHECK_FAILS(MMC_ERR_IO, "no socket", mmc_share(store, address_of("file")));
    struct stat there;
    CHECK(stat(path, &there) == 0 && there.st_size == 8);
    CHECK_CODE(MMC_ERR_IO, mmc_share(store, "unix:/nonexistent/directory/socket"));
    CHECK_CODE(MMC_ERR_INVALID_PARAM, mmc_share(store, "socket"));
    CHECK_CODE(MMC_ERR_INVALID_PARAM, mmc_share(store, NULL));
    CHECK_OK(mmc_share(store, address_of("pool")));
    CHECK_OK(mmc_uninit(store));
    CHECK(unlink(path) == 0);
    CHECK(stat(path_of("file.lock"), &there) != 0);
}
