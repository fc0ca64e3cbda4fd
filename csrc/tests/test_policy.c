/* Whose turn it is, without a process. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/un.h>

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
    for (int policy = RR_ROUND_ROBIN; policy <= RR_SOURCE_HASH; policy++)
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

static uint64_t source4(const char *text, int port)
{
    struct sockaddr_in peer = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};

    CHECK_EQUAL(inet_pton(AF_INET, text, &peer.sin_addr), 1);
    return rr_source((const uint8_t *)&peer, sizeof peer);
}

static uint64_t source6(const char *text, int port)
{
    struct sockaddr_in6 peer = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port)};

    CHECK_EQUAL(inet_pton(AF_INET6, text, &peer.sin6_addr), 1);
    return rr_source((const uint8_t *)&peer, sizeof peer);
}

static void a_source_is_the_address_and_nothing_else(void)
{
    CHECK(source4("10.0.0.1", 1) == source4("10.0.0.1", 65535));
    CHECK(source4("10.0.0.1", 1) != source4("10.0.0.2", 1));
    CHECK(source6("fe80::1", 1) == source6("fe80::1", 2));
    CHECK(source6("fe80::1", 1) != source6("fe80::2", 1));
    CHECK(source6("::ffff:10.0.0.1", 7) == source4("10.0.0.1", 1));
    CHECK(source6("::ffff:10.0.0.1", 7) != source6("::fffe:a00:1", 7));
}

static void what_has_no_address_has_no_source(void)
{
    struct sockaddr_un local = {.sun_family = AF_UNIX, .sun_path = "/a"};
    struct sockaddr_in peer = {.sin_family = AF_INET};

    CHECK_EQUAL(rr_source((const uint8_t *)&local, sizeof local), 0);
    CHECK_EQUAL(rr_source((const uint8_t *)&local, 2), 0);
    CHECK_EQUAL(rr_source(NULL, 48), 0);
    for (uint32_t length = 0; length < sizeof peer; length++)
        CHECK_EQUAL(rr_source((const uint8_t *)&peer, length), 0);
    CHECK(rr_source((const uint8_t *)&peer, sizeof peer) != 0);
}

#define CLIENTS 4000

static void slots_of_their_own(void)
{
    all_idle();
    for (int i = 0; i < MANY; i++)
        workers[i].slot = (uint16_t)i;
}

static uint64_t client(int number)
{
    char text[32];

    snprintf(text, sizeof text, "10.1.%d.%d", number / 250, number % 250);
    return source4(text, 1);
}

static void clients_are_spread(void)
{
    int got[MANY] = {0};
    slots_of_their_own();
    for (int i = 0; i < CLIENTS; i++)
        got[rr_pick_source(workers, MANY, client(i))]++;
    /* 1000 each is the mean; the deviation of a fair share is 27. */
    for (int i = 0; i < MANY; i++)
        CHECK(got[i] > 850 && got[i] < 1150);
}

static void who_leaves_moves_only_its_own(void)
{
    struct rr_candidate fewer[MANY - 1];
    int moved[MANY] = {0};
    slots_of_their_own();
    memcpy(fewer, workers, 2 * sizeof *fewer);
    fewer[2] = workers[3];
    for (int i = 0; i < CLIENTS; i++) {
        int before = workers[rr_pick_source(workers, MANY, client(i))].slot;
        int after = fewer[rr_pick_source(fewer, MANY - 1, client(i))].slot;
        CHECK(before == 2 || before == after);
        moved[after] += before == 2;
    }
    /* They don't all go to the same one: each client has an order of its own. */
    CHECK(moved[0] > 200 && moved[1] > 200 && moved[3] > 200);
}

static void who_cannot_is_passed_over_in_the_clients_order(void)
{
    slots_of_their_own();
    for (int i = 0; i < 100; i++) {
        int order[MANY];
        for (int step = 0; step < MANY; step++) {
            order[step] = rr_pick_source(workers, MANY, client(i));
            CHECK(order[step] >= 0 && workers[order[step]].eligible);
            workers[order[step]].eligible = 0;
        }
        CHECK_EQUAL(rr_pick_source(workers, MANY, client(i)), -1);
        for (int step = MANY - 1; step >= 0; step--) {
            workers[order[step]].eligible = 1;
            CHECK_EQUAL(rr_pick_source(workers, MANY, client(i)), order[step]);
        }
    }
}

static void of_a_slot_the_newer(void)
{
    all_idle();
    CHECK_EQUAL(rr_pick_source(workers, 3, client(1)), 2);
    CHECK_EQUAL(rr_pick_source(workers, 0, client(1)), -1);
}

/* The twin in Python has the same numbers. */
static void the_numbers_are_these(void)
{
    CHECK(source4("127.0.0.1", 0) == UINT64_C(0xf98cd2ca4f56e816));
    CHECK(source6("::1", 0) == UINT64_C(0x1af7b85a5eef58e4));
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
RUN(a_source_is_the_address_and_nothing_else);
RUN(what_has_no_address_has_no_source);
RUN(clients_are_spread);
RUN(who_leaves_moves_only_its_own);
RUN(who_cannot_is_passed_over_in_the_clients_order);
RUN(of_a_slot_the_newer);
RUN(the_numbers_are_these);
TESTS_END
