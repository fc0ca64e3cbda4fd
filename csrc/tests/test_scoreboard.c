/* The page of counters: sealed, checked before it is mapped, atomic. */
#include <errno.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../rrdispatch.h"
#include "check.h"

static void nobody_can_shrink_it(void)
{
    int fd = rr_scoreboard_create(3, 7);
    CHECK(fd >= 0);
    CHECK_EQUAL(ftruncate(fd, 0), -1);
    CHECK_EQUAL(errno, EPERM);
    CHECK_EQUAL(ftruncate(fd, 1 << 20), -1);
    struct rr_scoreboard *board = rr_scoreboard_map(fd, 0);
    CHECK(board != NULL);
    CHECK_EQUAL(board->slot, 3);
    CHECK_EQUAL(board->generation, 7);
    CHECK_EQUAL(rr_scoreboard_unmap(board), 0);
    CHECK_EQUAL(rr_scoreboard_unmap(NULL), 0);
    close(fd);
}

static void others_are_refused(void)
{
    int fd = memfd_create("other", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    CHECK(rr_scoreboard_map(fd, 1) == NULL);
    CHECK_EQUAL(ftruncate(fd, RR_SCOREBOARD_SIZE), 0);
    CHECK(rr_scoreboard_map(fd, 1) == NULL);
    CHECK_EQUAL(errno, EINVAL);
    CHECK(rr_scoreboard_map(-1, 1) == NULL);
    close(fd);
}

static void fields(void)
{
    int fd = rr_scoreboard_create(0, 0);
    struct rr_scoreboard *board = rr_scoreboard_map(fd, 1);

    for (int field = RR_FIELD_RECEIVED; field <= RR_FIELD_STALLED; field++) {
        CHECK_EQUAL(rr_scoreboard_store(board, field, (uint64_t)field + 5), 0);
        CHECK_EQUAL(rr_scoreboard_load(board, field), field + 5);
    }
    CHECK_EQUAL(rr_scoreboard_add(board, RR_FIELD_BUSY, -20), 0);
    CHECK_EQUAL(board->busy, 7 - 20);
    CHECK_EQUAL(rr_scoreboard_add(board, RR_FIELD_STATE, 1), -EINVAL);
    CHECK_EQUAL(rr_scoreboard_add(board, -1, 1), -EINVAL);
    CHECK_EQUAL(rr_scoreboard_store(board, 99, 1), -EINVAL);
    CHECK_EQUAL(rr_scoreboard_load(board, 99), 0);
    CHECK_EQUAL(offsetof(struct rr_scoreboard, sent), 64);
    CHECK_EQUAL(offsetof(struct rr_scoreboard, received), 128);
    CHECK_EQUAL(offsetof(struct rr_scoreboard, lost), 168);
    rr_scoreboard_unmap(board);
    close(fd);
}

static void adds_of_processes_are_not_lost(void)
{
    enum { ADDS = 20000, PROCESSES = 3 };
    int fd = rr_scoreboard_create(0, 0);
    struct rr_scoreboard *board = rr_scoreboard_map(fd, 1);
    pid_t children[PROCESSES];

    for (int i = 0; i < PROCESSES; i++) {
        children[i] = fork();
        if (children[i] == 0) {
            for (int n = 0; n < ADDS; n++)
                rr_scoreboard_add(board, RR_FIELD_RECEIVED, 1);
            _exit(0);
        }
    }
    for (int i = 0; i < PROCESSES; i++)
        waitpid(children[i], NULL, 0);
    CHECK_EQUAL(rr_scoreboard_load(board, RR_FIELD_RECEIVED), ADDS * PROCESSES);
    rr_scoreboard_unmap(board);
    close(fd);
}

TESTS_BEGIN
RUN(nobody_can_shrink_it);
RUN(others_are_refused);
RUN(fields);
RUN(adds_of_processes_are_not_lost);
TESTS_END
