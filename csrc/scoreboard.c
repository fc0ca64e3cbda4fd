/* Owns the layout and the atomic access of a worker's page of counters. Must not know who reads it.
 * The file is sealed: else a worker's ftruncate would end every reader by SIGBUS. */
#include <errno.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "os.h"
#include "rrdispatch.h"

int rr_scoreboard_create(uint32_t slot, uint32_t generation)
{
    uint32_t head[4] = {RR_SCOREBOARD_MAGIC, RR_SCOREBOARD_VERSION, slot, generation};
    int fd = rr__sealed_memory("rrdispatch-scoreboard", RR_SCOREBOARD_SIZE);

    if (fd < 0)
        return fd;
    if (pwrite(fd, head, sizeof head, 0) != (ssize_t)sizeof head) {
        int error = errno;
        close(fd);
        return -error;
    }
    return fd;
}

struct rr_scoreboard *rr_scoreboard_map(int fd, int writable)
{
    struct stat about;

    if (fstat(fd, &about) < 0)
        return NULL;
    if (about.st_size < RR_SCOREBOARD_SIZE || !rr__is_sealed(fd)) {
        errno = EINVAL;
        return NULL;
    }
    struct rr_scoreboard *board = mmap(NULL, RR_SCOREBOARD_SIZE, PROT_READ | (writable ? PROT_WRITE : 0),
                                       MAP_SHARED, fd, 0);
    if (board == MAP_FAILED)
        return NULL;
    if (board->magic != RR_SCOREBOARD_MAGIC || board->version != RR_SCOREBOARD_VERSION) {
        munmap(board, RR_SCOREBOARD_SIZE);
        errno = EINVAL;
        return NULL;
    }
    return board;
}

int rr_scoreboard_unmap(struct rr_scoreboard *board)
{
    return board && munmap(board, RR_SCOREBOARD_SIZE) < 0 ? -errno : 0;
}

/* The 64-bit counter behind a field, or NULL for the two 32-bit ones and for nonsense. */
static uint64_t *counter(const struct rr_scoreboard *board, int field)
{
    static const size_t offsets[] = {
        [RR_FIELD_RECEIVED] = offsetof(struct rr_scoreboard, received),
        [RR_FIELD_CLOSED] = offsetof(struct rr_scoreboard, closed),
        [RR_FIELD_BUSY] = offsetof(struct rr_scoreboard, busy),
        [RR_FIELD_REQUESTS] = offsetof(struct rr_scoreboard, requests),
        [RR_FIELD_HEARTBEAT] = offsetof(struct rr_scoreboard, heartbeat_ns),
        [RR_FIELD_LOST] = offsetof(struct rr_scoreboard, lost),
        [RR_FIELD_SENT] = offsetof(struct rr_scoreboard, sent),
    };

    if (field < 0 || field > RR_FIELD_SENT)
        return NULL;
    return (uint64_t *)((char *)(uintptr_t)board + offsets[field]);
}

static uint32_t *word(const struct rr_scoreboard *board, int field)
{
    struct rr_scoreboard *writable = (struct rr_scoreboard *)(uintptr_t)board;
    if (field == RR_FIELD_STATE)
        return &writable->state;
    return field == RR_FIELD_STALLED ? &writable->stalled : NULL;
}

int rr_scoreboard_add(struct rr_scoreboard *board, int field, int64_t delta)
{
    uint64_t *where = counter(board, field);
    if (!where)
        return -EINVAL;
    __atomic_add_fetch(where, (uint64_t)delta, __ATOMIC_RELEASE);
    return 0;
}

int rr_scoreboard_store(struct rr_scoreboard *board, int field, uint64_t value)
{
    uint64_t *where = counter(board, field);
    uint32_t *narrow = word(board, field);

    if (where)
        __atomic_store_n(where, value, __ATOMIC_RELEASE);
    else if (narrow)
        __atomic_store_n(narrow, (uint32_t)value, __ATOMIC_RELEASE);
    else
        return -EINVAL;
    return 0;
}

uint64_t rr_scoreboard_load(const struct rr_scoreboard *board, int field)
{
    uint64_t *where = counter(board, field);
    uint32_t *narrow = word(board, field);

    if (where)
        return __atomic_load_n(where, __ATOMIC_ACQUIRE);
    return narrow ? __atomic_load_n(narrow, __ATOMIC_ACQUIRE) : 0;
}
