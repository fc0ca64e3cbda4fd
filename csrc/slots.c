/* Owns the order of the workers: all of them, and those in the turn. Pure: no clock, no system call. */
#include <string.h>

#include "dispatcher.h"

static int before(const struct rr__worker *one, const struct rr__worker *other)
{
    if (one->slot != other->slot)
        return one->slot < other->slot;
    return one->generation != other->generation ? one->generation < other->generation
                                                : one->id < other->id;
}

struct rr__worker *rr__slots_find(const struct rr__slots *slots, uint32_t id)
{
    for (int i = 0; i < slots->used_count; i++)
        if (slots->used[i]->id == id)
            return slots->used[i];
    return NULL;
}

void rr__slots_insert(struct rr__slots *slots, struct rr__worker *worker)
{
    int at = slots->used_count++;
    for (; at > 0 && before(worker, slots->used[at - 1]); at--)
        slots->used[at] = slots->used[at - 1];
    slots->used[at] = worker;
}

void rr__slots_remove(struct rr__slots *slots, struct rr__worker *worker)
{
    for (int i = 0; i < slots->used_count; i++) {
        if (slots->used[i] != worker)
            continue;
        slots->used_count--;
        memmove(&slots->used[i], &slots->used[i + 1],
                (size_t)(slots->used_count - i) * sizeof *slots->used);
        return;
    }
}

void rr__slots_cover(struct rr__slots *slots)
{
    slots->served = 0;
    slots->common = ~0u;
    for (int i = 0; i < slots->ready_count; i++) {
        slots->served |= slots->ready[i]->mask;
        slots->common &= slots->ready[i]->mask;
    }
}

/* The turn goes on at the slot whose turn it was: a new generation's worker takes its slot's place. */
void rr__slots_rebuild(struct rr__slots *slots)
{
    if (slots->ready_count > 0)
        slots->next_slot =
            slots->ready[slots->turn < slots->ready_count ? slots->turn : 0]->slot;
    slots->ready_count = 0;
    slots->turn = -1;
    for (int i = 0; i < slots->used_count; i++) {
        struct rr__worker *worker = slots->used[i];
        worker->ready_index = -1;
        if (worker->state != RR_STATE_READY)
            continue;
        if (slots->turn < 0 && worker->slot >= slots->next_slot)
            slots->turn = slots->ready_count;
        worker->ready_index = slots->ready_count;
        slots->ready[slots->ready_count++] = worker;
    }
    if (slots->turn < 0)
        slots->turn = 0;
    rr__slots_cover(slots);
}
