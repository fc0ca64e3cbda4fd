/* The ledger: threads and processes append at once, a full one counts, a reclaimer's notes are its own. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../fdpass.h"
#include "../ledger.h"
#include "check.h"

enum { WRITERS = 4, EACH = 20000 };

static char path[] = "/tmp/rr-test-ledger-XXXXXX";

/* A ledger for `capacity` entries. */
static void make(uint64_t capacity)
{
    struct rr_ledger_head head = {RR_LEDGER_MAGIC, RR_LEDGER_VERSION, capacity, 0};

    memset(strrchr(path, '-') + 1, 'X', 6);
    int fd = mkstemp(path);
    CHECK(fd >= 0);
    CHECK_EQUAL(ftruncate(fd, (off_t)(RR_LEDGER_HEAD_SIZE + capacity * RR_LEDGER_ENTRY_SIZE)), 0);
    CHECK_EQUAL(pwrite(fd, &head, sizeof head, 0), sizeof head);
    close(fd);
}

static void make_and_open(uint64_t capacity)
{
    make(capacity);
    CHECK_EQUAL(rr_ledger_open(path, RR_LEDGER_WORKER, 3, 2), 0);
    unlink(path);
}

static const struct rr_ledger_entry *entry(uint64_t at)
{
    return (const struct rr_ledger_entry *)((const char *)rr__ledger + RR_LEDGER_HEAD_SIZE) + at;
}

static int gate[2]; /* all begin when its writing end is closed */

static void *append(void *first)
{
    char nothing;
    CHECK_EQUAL(read(gate[0], &nothing, 1), 0);
    for (uint64_t i = 0; i < EACH; i++)
        rr_ledger_note(RR_LEDGER_DONE, (uint64_t)(uintptr_t)first + i, 1);
    return NULL;
}

static void each_once(void)
{
    static char seen[2 * WRITERS * EACH];

    memset(seen, 0, sizeof seen);
    CHECK_EQUAL(rr__ledger->next, 1 + 2 * WRITERS * EACH);
    for (uint64_t at = 1; at < rr__ledger->next; at++) {
        CHECK_EQUAL(entry(at)->event, RR_LEDGER_DONE);
        CHECK(entry(at)->cookie < sizeof seen);
        CHECK_EQUAL(seen[entry(at)->cookie]++, 0);
    }
}

static void threads_and_processes_append_at_once(void)
{
    pthread_t threads[WRITERS];
    pid_t children[WRITERS];

    make_and_open(1 + 2 * WRITERS * EACH);
    CHECK_EQUAL(pipe2(gate, O_CLOEXEC), 0);
    for (int i = 0; i < WRITERS; i++) {
        children[i] = fork();
        if (children[i] == 0) {
            close(gate[1]);
            append((void *)(uintptr_t)((WRITERS + i) * EACH));
            _exit(0);
        }
    }
    for (int i = 0; i < WRITERS; i++)
        CHECK_EQUAL(pthread_create(&threads[i], NULL, append, (void *)(uintptr_t)(i * EACH)), 0);
    close(gate[1]);
    for (int i = 0; i < WRITERS; i++) {
        pthread_join(threads[i], NULL);
        waitpid(children[i], NULL, 0);
    }
    each_once();
    close(gate[0]);
    CHECK_EQUAL(rr_ledger_close(), 0);
}

static void a_full_one_counts(void)
{
    make_and_open(10);
    for (uint64_t i = 0; i < 100; i++)
        rr_ledger_note(RR_LEDGER_DONE, i, 1);
    CHECK_EQUAL(rr__ledger->next, 101);
    CHECK_EQUAL(entry(9)->event, RR_LEDGER_DONE);
    CHECK_EQUAL(rr_ledger_close(), 0);
}

static void others_are_refused(void)
{
    struct rr_ledger_head huge = {RR_LEDGER_MAGIC, RR_LEDGER_VERSION, UINT64_MAX / 32, 0};

    CHECK_EQUAL(rr_ledger_open("/nowhere/ledger", RR_LEDGER_WORKER, 0, 0), -ENOENT);
    CHECK_EQUAL(rr_ledger_open("/dev/null", RR_LEDGER_WORKER, 0, 0), -EINVAL);
    make(10);
    CHECK_EQUAL(truncate(path, RR_LEDGER_HEAD_SIZE + 100), 0);
    CHECK_EQUAL(rr_ledger_open(path, RR_LEDGER_WORKER, 0, 0), -EINVAL);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    CHECK_EQUAL(pwrite(fd, &huge, sizeof huge, 0), sizeof huge);
    CHECK_EQUAL(rr_ledger_open(path, RR_LEDGER_WORKER, 0, 0), -EINVAL);
    close(fd);
    unlink(path);
    CHECK(!rr__ledger_on());
    CHECK_EQUAL(rr_ledger_note(RR_LEDGER_DONE, 1, 1), 0);
    CHECK_EQUAL(rr_ledger_close(), 0);
}

static void a_take_is_noted_by_who_takes(void)
{
    struct rr_message message = {.version = RR_PROTOCOL, .kind = RR_KIND_CONNECTION, .count = 1};
    int channel[2], pair[2], fd;

    make_and_open(20);
    CHECK_EQUAL(rr_channel_pair(channel), 0);
    CHECK_EQUAL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    uint64_t cookie = rr_ledger_cookie(pair[0]);
    CHECK(cookie > 0);
    for (int turn = 0; turn < 2; turn++) {
        CHECK_EQUAL(rr_send(channel[0], &message, pair), 0);
        CHECK_EQUAL(rr_take(channel[1], &message, &fd, 1), 1);
        close(fd);
        rr__ledger_reclaims_for((struct rr__ledger_worker){.id = 8, .slot = 3});
    }
    CHECK_EQUAL(entry(1)->event, RR_LEDGER_TAKING);
    CHECK_EQUAL(entry(2)->event, RR_LEDGER_TAKEN);
    CHECK_EQUAL(entry(2)->worker, 0);
    CHECK_EQUAL(entry(3)->event, RR_LEDGER_TAKING);
    CHECK_EQUAL(entry(4)->event, RR_LEDGER_MOVED);
    CHECK_EQUAL(entry(4)->worker, 8);
    CHECK_EQUAL(entry(2)->cookie, cookie);
    CHECK_EQUAL(entry(4)->cookie, cookie);
    CHECK_EQUAL(rr__ledger->next, 5);
    rr__close_fds(pair, 2);
    rr__close_fds(channel, 2);
    CHECK_EQUAL(rr_ledger_close(), 0);
}

TESTS_BEGIN
RUN(threads_and_processes_append_at_once);
RUN(a_full_one_counts);
RUN(others_are_refused);
RUN(a_take_is_noted_by_who_takes);
TESTS_END
