/* The order of the turn over reloads, without a process. */
#include <stddef.h>
#include <string.h>

#include "../dispatcher.h"
#include "check.h"

static struct rr__slots slots;
static struct rr__worker workers[6];

static struct rr__worker *add(int index, uint32_t slot, uint32_t generation, int state)
{
    struct rr__worker *worker = &workers[index];
    memset(worker, 0, offsetof(struct rr__worker, channel));
    worker->id = (uint32_t)index + 1;
    worker->slot = slot;
    worker->generation = generation;
    worker->state = (uint8_t)state;
    rr__slots_insert(&slots, worker);
    rr__slots_rebuild(&slots);
    return worker;
}

static void by_slot_and_generation(void)
{
    memset(&slots, 0, sizeof slots);
    add(0, 2, 0, RR_STATE_READY);
    add(1, 0, 1, RR_STATE_READY);
    add(2, 0, 0, RR_STATE_READY);
    add(3, 1, 0, RR_STATE_PARKED);
    CHECK_EQUAL(slots.used_count, 4);
    CHECK_EQUAL(slots.ready_count, 3);
    CHECK(slots.ready[0] == &workers[2]);
    CHECK(slots.ready[1] == &workers[1]);
    CHECK(slots.ready[2] == &workers[0]);
    CHECK_EQUAL(workers[3].ready_index, -1);
    CHECK_EQUAL(workers[0].ready_index, 2);
    CHECK(rr__slots_find(&slots, 4) == &workers[3]);
    CHECK(rr__slots_find(&slots, 9) == NULL);
}

static void a_successor_takes_the_place_in_the_turn(void)
{
    memset(&slots, 0, sizeof slots);
    struct rr__worker *old[3];
    for (int i = 0; i < 3; i++)
        old[i] = add(i, (uint32_t)i, 0, RR_STATE_READY);
    slots.turn = 1;
    struct rr__worker *young = add(3, 1, 1, RR_STATE_READY);
    CHECK(slots.ready[slots.turn] == old[1]);
    old[1]->state = RR_STATE_PARKED;
    rr__slots_rebuild(&slots);
    CHECK(slots.ready[slots.turn] == young);
    young->state = RR_STATE_DEAD;
    rr__slots_rebuild(&slots);
    CHECK(slots.ready[slots.turn] == old[2]);
}

static void nobody_keeps_the_turn(void)
{
    memset(&slots, 0, sizeof slots);
    struct rr__worker *low = add(0, 0, 0, RR_STATE_READY);
    struct rr__worker *high = add(1, 1, 0, RR_STATE_READY);
    slots.turn = 1;
    low->state = high->state = RR_STATE_DEAD;
    rr__slots_rebuild(&slots);
    CHECK_EQUAL(slots.ready_count, 0);
    low->state = high->state = RR_STATE_READY;
    rr__slots_rebuild(&slots);
    CHECK(slots.ready[slots.turn] == high);
}

static void removal(void)
{
    memset(&slots, 0, sizeof slots);
    for (int i = 0; i < 3; i++)
        add(i, (uint32_t)i, 0, RR_STATE_READY);
    slots.turn = 2;
    rr__slots_remove(&slots, &workers[0]);
    rr__slots_rebuild(&slots);
    CHECK_EQUAL(slots.ready_count, 2);
    CHECK(slots.ready[slots.turn] == &workers[2]);
    rr__slots_remove(&slots, &workers[0]);
    CHECK_EQUAL(slots.used_count, 2);
}

static void who_has_a_channel_for_what(void)
{
    memset(&slots, 0, sizeof slots);
    rr__slots_cover(&slots);
    CHECK_EQUAL(slots.served, 0);
    CHECK_EQUAL(slots.common, ~0u); /* with nobody READY nothing is partial */
    struct rr__worker *one = add(0, 0, 0, RR_STATE_READY), *other = add(1, 1, 0, RR_STATE_READY);
    struct rr__worker *parked = add(2, 2, 0, RR_STATE_PARKED);
    one->mask = 3;
    other->mask = 5;
    parked->mask = 8;
    rr__slots_cover(&slots);
    CHECK_EQUAL(slots.served, 7);
    CHECK_EQUAL(slots.common, 1);
    other->state = RR_STATE_DEAD;
    rr__slots_rebuild(&slots);
    CHECK_EQUAL(slots.served, 3);
    CHECK_EQUAL(slots.common, 3);
}

TESTS_BEGIN
RUN(by_slot_and_generation);
RUN(a_successor_takes_the_place_in_the_turn);
RUN(nobody_keeps_the_turn);
RUN(removal);
RUN(who_has_a_channel_for_what);
TESTS_END
