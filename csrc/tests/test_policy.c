/* Whose turn it is, without a process. */
#include <string.h>

#include "../rrdispatch.h"
#include "check.h"

#define MANY 4

static struct rr_candidate workers[MANY];

static void all_idle(void)
{
    memset(workers, 0, sizeof workers);
    for (int i = 0; i < MANY; i++)
        workers[i].eligible = 1;
}

static int pick(int policy, int turn, uint32_t fewest)
{
    return rr_pick(policy, workers, MANY, turn, fewest, 8);
}

static void in_turn_while_all_keep_up(void)
{
    int turn = 0;
    all_idle();
    for (int round = 0; round < 3 * MANY; round++) {
        int index = pick(RR_ROUND_ROBIN, turn, 0);
        CHECK_EQUAL(index, round % MANY);
        turn = index + 1;
    }
}

static void nobody_is_eligible(void)
{
    memset(workers, 0, sizeof workers);
    for (int policy = RR_ROUND_ROBIN; policy <= RR_LEAST_CONNECTIONS; policy++)
        CHECK_EQUAL(pick(policy, 0, 0), -1);
    CHECK_EQUAL(rr_pick(RR_ROUND_ROBIN, workers, 0, 0, 0, 8), -1);
    CHECK_EQUAL(rr_pick(RR_ROUND_ROBIN, NULL, 3, 0, 0, 8), -1);
}

static void a_turn_out_of_range_is_the_first(void)
{
    all_idle();
    CHECK_EQUAL(pick(RR_ROUND_ROBIN, 99, 0), 0);
    CHECK_EQUAL(pick(RR_STRICT, -5, 0), 0);
}

static void a_queue_is_passed_over(void)
{
    all_idle();
    workers[1].pending = 1;
    CHECK_EQUAL(pick(RR_ROUND_ROBIN, 1, 0), 2);
    CHECK_EQUAL(pick(RR_STRICT, 1, 0), 1);
}

static void a_queue_that_moves_keeps_its_turn(void)
{
    all_idle();
    workers[1].pending = 2;
    workers[1].fresh = 1;
    CHECK_EQUAL(pick(RR_ROUND_ROBIN, 1, 0), 1);
    workers[1].pending = 9;
    CHECK_EQUAL(pick(RR_ROUND_ROBIN, 1, 0), 2);
    workers[1].pending = 1;
    workers[1].capacity = 1;
    CHECK_EQUAL(pick(RR_ROUND_ROBIN, 1, 0), 2);
    for (int i = 0; i < MANY; i++)
        workers[i].capacity = workers[i].inflight = 1;
    CHECK_EQUAL(pick(RR_ROUND_ROBIN, 2, 1), 1);
}

static void capacity_counts(void)
{
    all_idle();
    for (int i = 0; i < MANY; i++)
        workers[i].capacity = workers[i].inflight = 1;
    workers[3].inflight = 0;
    CHECK_EQUAL(pick(RR_ROUND_ROBIN, 0, 0), 3);
    workers[3].inflight = 1;
    workers[2].fresh = 1;
    CHECK_EQUAL(pick(RR_ROUND_ROBIN, 0, 1), 2);
    workers[2].fresh = 0;
    CHECK_EQUAL(pick(RR_ROUND_ROBIN, 1, 1), 1);
}

static void the_band_holds(void)
{
    all_idle();
    workers[0].inflight = 8;
    CHECK_EQUAL(pick(RR_ROUND_ROBIN, 0, 0), 0);
    workers[0].inflight = 9;
    CHECK_EQUAL(pick(RR_ROUND_ROBIN, 0, 0), 1);
    for (int i = 1; i < MANY; i++)
        workers[i].pending = 1;
    CHECK_EQUAL(pick(RR_ROUND_ROBIN, 1, 0), 0);
    CHECK_EQUAL(rr_pick(RR_ROUND_ROBIN, workers, MANY, 1, UINT32_MAX, UINT32_MAX), 0);
}

static void fewest_waiting_when_all_wait(void)
{
    all_idle();
    for (int i = 0; i < MANY; i++)
        workers[i].pending = 3;
    CHECK_EQUAL(pick(RR_ROUND_ROBIN, 2, 3), 2);
    workers[1].pending = 2;
    CHECK_EQUAL(pick(RR_ROUND_ROBIN, 2, 2), 1);
    workers[1].eligible = 0;
    CHECK_EQUAL(pick(RR_ROUND_ROBIN, 2, 3), 2);
}

static void strict_skips_only_who_cannot(void)
{
    all_idle();
    workers[0].inflight = 1000;
    workers[1].eligible = 0;
    CHECK_EQUAL(pick(RR_STRICT, 0, 0), 0);
    CHECK_EQUAL(pick(RR_STRICT, 1, 0), 2);
}

static void least_connections(void)
{
    all_idle();
    workers[0].inflight = 2;
    workers[1].pending = 1;
    workers[2].inflight = 1;
    workers[3].inflight = 5;
    CHECK_EQUAL(pick(RR_LEAST_CONNECTIONS, 0, 1), 1);
    CHECK_EQUAL(pick(RR_LEAST_CONNECTIONS, 2, 1), 2);
    workers[1].eligible = workers[2].eligible = 0;
    CHECK_EQUAL(pick(RR_LEAST_CONNECTIONS, 3, 1), 0);
}

TESTS_BEGIN
RUN(in_turn_while_all_keep_up);
RUN(nobody_is_eligible);
RUN(a_turn_out_of_range_is_the_first);
RUN(a_queue_is_passed_over);
RUN(a_queue_that_moves_keeps_its_turn);
RUN(capacity_counts);
RUN(the_band_holds);
RUN(fewest_waiting_when_all_wait);
RUN(strict_skips_only_who_cannot);
RUN(least_connections);
TESTS_END
