/* Owns whose turn it is: pure functions of the candidates. Reads no clock, calls nothing. */
#include <netinet/in.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>

#include "rrdispatch.h"

/* How well a worker keeps up: the best rank present gets the connection, in turn. */
enum rank {
    KEEPS_UP,   /* takes what it is given, below its capacity, within the band */
    FRESH,      /* full, but its queue is empty and it took something just now */
    MOVING,     /* full, something waits, but it takes: it may only wait for its time slice */
    EMPTY_NEAR, /* empty queue, within the band */
    EMPTY,      /* empty queue */
    QUEUED,     /* something waits already: the fewest waiting wins */
    RANKS
};

static enum rank rank_of(const struct rr_candidate *one, uint64_t limit)
{
    uint64_t load = (uint64_t)one->pending + one->inflight;

    if (one->pending > 0 && (!one->fresh || load > limit))
        return QUEUED;
    if (load > limit)
        return EMPTY;
    if (one->capacity == 0 || load < one->capacity)
        return KEEPS_UP;
    if (one->pending > 0)
        return MOVING;
    return one->fresh ? FRESH : EMPTY_NEAR;
}

static int pick_round_robin(const struct rr_candidate *all, int count, int turn, uint64_t limit)
{
    int best[RANKS] = {-1, -1, -1, -1, -1, -1};
    uint64_t least = UINT64_MAX;

    for (int step = 0, i = turn; step < count; step++, i = i + 1 < count ? i + 1 : 0) {
        const struct rr_candidate *one = &all[i];
        if (!one->eligible)
            continue;
        enum rank rank = rank_of(one, limit);
        if (rank == KEEPS_UP)
            return i;
        if (rank == QUEUED ? one->pending < least : best[rank] < 0)
            best[rank] = i;
        if (rank == QUEUED && one->pending < least)
            least = one->pending;
    }
    for (int rank = FRESH; rank < RANKS; rank++)
        if (best[rank] >= 0)
            return best[rank];
    return -1;
}

static int pick_strict(const struct rr_candidate *all, int count, int turn)
{
    for (int step = 0, i = turn; step < count; step++, i = i + 1 < count ? i + 1 : 0)
        if (all[i].eligible)
            return i;
    return -1;
}

static int pick_least(const struct rr_candidate *all, int count, int turn)
{
    int best = -1;
    uint64_t least = UINT64_MAX;

    for (int step = 0, i = turn; step < count; step++, i = i + 1 < count ? i + 1 : 0) {
        uint64_t load = (uint64_t)all[i].pending + all[i].inflight;
        if (all[i].eligible && load < least) {
            least = load;
            best = i;
        }
    }
    return best;
}

int rr_pick(int policy, const struct rr_candidate *candidates, int count, int turn, uint32_t fewest,
            uint32_t band)
{
    if (count <= 0 || candidates == NULL)
        return -1;
    if (turn < 0 || turn >= count)
        turn = 0;
    switch (policy) {
    case RR_STRICT:
        return pick_strict(candidates, count, turn);
    case RR_LEAST_CONNECTIONS:
        return pick_least(candidates, count, turn);
    default:
        return pick_round_robin(candidates, count, turn, (uint64_t)fewest + band);
    }
}

/* The last step of splitmix64: each bit of the input turns half of the output's. */
static uint64_t mixed(uint64_t value)
{
    value = (value ^ value >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    value = (value ^ value >> 27) * UINT64_C(0x94d049bb133111eb);
    return value ^ value >> 31;
}

static uint64_t hash_of(const uint8_t *bytes, size_t length)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325); /* FNV-1a */

    for (size_t i = 0; i < length; i++)
        hash = (hash ^ bytes[i]) * UINT64_C(0x100000001b3);
    hash = mixed(hash);
    return hash ? hash : 1;
}

uint64_t rr_source(const uint8_t *peer, uint32_t length)
{
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    struct sockaddr_in four;
    struct sockaddr_in6 six;
    sa_family_t family = AF_UNSPEC;

    if (peer != NULL && length >= sizeof family)
        memcpy(&family, peer, sizeof family);
    if (family == AF_INET && length >= sizeof four) {
        memcpy(&four, peer, sizeof four);
        return hash_of((const uint8_t *)&four.sin_addr, sizeof four.sin_addr);
    }
    if (family == AF_INET6 && length >= sizeof six) {
        memcpy(&six, peer, sizeof six);
        const uint8_t *bytes = six.sin6_addr.s6_addr;
        int is_four = memcmp(bytes, mapped, sizeof mapped) == 0;
        return is_four ? hash_of(bytes + 12, 4) : hash_of(bytes, 16);
    }
    return 0;
}

int rr_pick_source(const struct rr_candidate *candidates, int count, uint64_t source)
{
    int best = -1;
    uint64_t most = 0;

    for (int i = 0; i < count; i++) {
        if (!candidates[i].eligible)
            continue;
        uint64_t weight = mixed(source + (candidates[i].slot + UINT64_C(1)) * UINT64_C(0x9e3779b97f4a7c15));
        /* Of two workers of a slot the later one: it is the newer. */
        if (best < 0 || weight >= most) {
            most = weight;
            best = i;
        }
    }
    return best;
}
