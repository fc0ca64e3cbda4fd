/* Owns whose turn it is: pure functions of the candidates. Reads no clock, calls nothing. */
#include <stddef.h>

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
