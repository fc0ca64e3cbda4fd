/* Owns the worker's scoreboard and which fds count in it. Both are hints to the dispatcher, never relied
 * on: a process knows the connections that it took itself, and sees those ends that pass by its close().
 * A child that inherits a connection does not count its close: it was counted by the parent's. */
#include <fcntl.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "rrdispatch.h"
#include "shim.h"

enum { FDS_MAX = 8 * sizeof rr__own->taken, WORD_BITS = 64 };

#ifndef F_GET_SEALS
#define F_GET_SEALS 1034
#define F_SEAL_SHRINK 2
#endif

static struct rr_scoreboard *board;

void rr__board(int fd)
{
    struct stat about;

    if (fd < 0 || rr__has_board() || fstat(fd, &about) < 0 || about.st_size < RR_SCOREBOARD_SIZE ||
        !(rr__raw2(SYS_fcntl, fd, F_GET_SEALS) & F_SEAL_SHRINK))
        return;
    struct rr_scoreboard *page =
        mmap(NULL, RR_SCOREBOARD_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    struct rr_scoreboard *none = NULL;
    if (page == MAP_FAILED)
        return;
    if (page->magic != RR_SCOREBOARD_MAGIC || page->version != RR_SCOREBOARD_VERSION ||
        !__atomic_compare_exchange_n(&board, &none, page, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
        munmap(page, RR_SCOREBOARD_SIZE);
}

int rr__has_board(void)
{
    return __atomic_load_n(&board, __ATOMIC_ACQUIRE) != NULL;
}

static void add(size_t offset, uint64_t number)
{
    char *page = (char *)__atomic_load_n(&board, __ATOMIC_ACQUIRE);

    if (page && number)
        __atomic_add_fetch((uint64_t *)(page + offset), number, __ATOMIC_RELEASE);
}

static int has_bit(int fd)
{
    return rr__own && fd >= 0 && fd < (int)FDS_MAX;
}

static void set_bit(uint64_t *bits, int fd)
{
    unsigned word = (unsigned)fd / WORD_BITS, seen = __atomic_load_n(&rr__own->words, __ATOMIC_RELAXED);

    if (!__atomic_load_n(&rr__own->pid, __ATOMIC_RELAXED))
        rr__own_is_ours();
    while (seen <= word && !__atomic_compare_exchange_n(&rr__own->words, &seen, word + 1, 0,
                                                        __ATOMIC_RELAXED, __ATOMIC_RELAXED))
        ;
    __atomic_or_fetch(&bits[word], 1ull << fd % WORD_BITS, __ATOMIC_RELAXED);
}

static int get_bit(const uint64_t *bits, int fd)
{
    return __atomic_load_n(&bits[fd / WORD_BITS], __ATOMIC_RELAXED) >> fd % WORD_BITS & 1;
}

void rr__count_taken(int fd)
{
    add(offsetof(struct rr_scoreboard, received), 1);
    if (has_bit(fd))
        set_bit(rr__own->taken, fd);
    else /* its close will not be seen */
        add(offsetof(struct rr_scoreboard, closed), 1);
}

void rr__note_channel(int fd)
{
    if (has_bit(fd))
        set_bit(rr__own->channels, fd);
}

int rr__any_channel(void)
{
    return rr__own && __atomic_load_n(&rr__own->words, __ATOMIC_RELAXED);
}

int rr__was_channel(int fd)
{
    return has_bit(fd) && get_bit(rr__own->channels, fd);
}

void rr__count_lost(void)
{
    add(offsetof(struct rr_scoreboard, lost), 1);
}

int rr__was_taken(int fd)
{
    return has_bit(fd) && get_bit(rr__own->taken, fd);
}

/* The bits of one word that lie in first..last. */
static uint64_t mask_of(unsigned word, unsigned first, unsigned last)
{
    uint64_t mask = ~0ull;

    if (word == first / WORD_BITS)
        mask &= ~0ull << first % WORD_BITS;
    if (word == last / WORD_BITS)
        mask &= ~0ull >> (WORD_BITS - 1 - last % WORD_BITS);
    return mask;
}

void rr__count_closed(unsigned first, unsigned last)
{
    struct rr__own *own = rr__own;
    unsigned end = own ? __atomic_load_n(&own->words, __ATOMIC_RELAXED) : 0;
    int checked = 0;

    for (unsigned word = first / WORD_BITS; word < end && word <= last / WORD_BITS; word++) {
        uint64_t mask = mask_of(word, first, last);
        if (!((__atomic_load_n(&own->taken[word], __ATOMIC_RELAXED) |
               __atomic_load_n(&own->channels[word], __ATOMIC_RELAXED)) & mask))
            continue;
        /* A child between vfork and exec closes all that it does not need: Python 3.10's, one by one. */
        if (!checked && !rr__own_is_ours())
            return;
        checked = 1;
        __atomic_and_fetch(&own->channels[word], ~mask, __ATOMIC_RELAXED);
        uint64_t before = __atomic_fetch_and(&own->taken[word], ~mask, __ATOMIC_RELAXED);
        add(offsetof(struct rr_scoreboard, closed), (uint64_t)__builtin_popcountll(before & mask));
    }
}
