/* Two listeners, and workers that have a channel for one of them: a channel that takes nothing holds up
 * its own listener only, and what was accepted for it is not lost. */
#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../os.h"
#include "check.h"
#include "rig.h"

enum { LISTENERS = 2, WORKERS = 3, MOST = 32 };

static struct rig rig;
static struct fake fakes[WORKERS];
static int listeners[LISTENERS], clients[MOST], client_count;

/* The channel that takes nothing: every send into it fails. */
static atomic_ulong broken;

static unsigned long inode(int fd)
{
    struct stat found;
    return fstat(fd, &found) == 0 ? (unsigned long)found.st_ino : 0;
}

static int fake_send(int channel, const struct rr_message *message, const int *fds)
{
    return inode(channel) == atomic_load(&broken) ? -EAGAIN : rr_send(channel, message, fds);
}

static void add(int index, int listener, uint64_t batch)
{
    struct fake *fake = &fakes[index];

    fake_start(fake, (uint32_t)index + 1, (uint32_t)index);
    int fds[] = {fake->pidfd, fake->board_fd, fake->lifeline[0], fake->sender, fake->receiver};
    struct rr_control message = {.kind = RR_CONTROL_WORKER_ADD,
                                 .worker = fake->id,
                                 .value = {(uint64_t)index, 0, 1ull << listener}};
    CHECK_EQUAL(rig_ask(&rig, message, fds, 5).result, 0);
    fake_ready(&rig, fake, 0, batch);
}

/* Worker 0 has a channel for listener 0, and worker 1 one for listener 1, which takes nothing. */
static void set_up(uint64_t batch)
{
    static struct rr__system system;

    system = rr__system_real;
    system.send = fake_send;
    client_count = 0;
    rig_start(&rig, &system);
    for (int i = 0; i < LISTENERS; i++) {
        struct rr_control message = {.kind = RR_CONTROL_LISTENER_ADD, .listener = (uint32_t)i};
        listeners[i] = rig_listen();
        CHECK_EQUAL(rig_ask(&rig, message, &listeners[i], 1).result, 0);
    }
    rig_settings(&rig, 32, 100000, 0, 0);
    add(0, 0, 1);
    add(1, 1, batch);
    atomic_store(&broken, inode(fakes[1].sender));
}

static void tear_down(int workers)
{
    for (int i = 0; i < workers; i++)
        fake_close(&fakes[i]);
    rig_close(clients, client_count);
    rig_close(listeners, LISTENERS);
}

static struct rr_control ping(void)
{
    return rig_ask(&rig, (struct rr_control){.kind = RR_CONTROL_PING}, NULL, 0);
}

static void connect_to(int listener, int count)
{
    rig_connect(listeners[listener], &clients[client_count], count);
    client_count += count;
}

/* Until one is accepted for the channel that takes nothing: it is in a hand then. */
static void get_stuck(void)
{
    uint64_t before = ping().value[1];
    connect_to(1, 1);
    for (int waited = 0; ping().value[1] == before && waited < RIG_WAIT_MS; waited++)
        poll(NULL, 0, 1);
    CHECK_EQUAL(ping().value[1], before + 1);
}

static void the_other_goes_on(void)
{
    for (int i = 0; i < 5; i++) {
        connect_to(0, 1);
        CHECK_EQUAL(fake_take(&fakes[0]), 0);
    }
}

static void it_holds_up_its_own_listener_only(void)
{
    set_up(1);
    get_stuck();
    the_other_goes_on();
    connect_to(1, 2); /* they wait in the backlog */
    the_other_goes_on();
    CHECK_EQUAL(ping().value[1], 11);
    atomic_store(&broken, 0);
    for (int i = 0; i < 3; i++)
        CHECK_EQUAL(fake_take(&fakes[1]), 0);
    rig_stop(&rig);
    tear_down(2);
}

static void so_does_one_of_a_batch_worker(void)
{
    set_up(RR_BATCH_MAX);
    get_stuck();
    the_other_goes_on();
    atomic_store(&broken, 0);
    CHECK_EQUAL(fake_take(&fakes[1]), 0);
    rig_stop(&rig);
    tear_down(2);
}

static void remove_second(void)
{
    struct rr_control remove = {.kind = RR_CONTROL_WORKER_REMOVE, .worker = 2};

    fake_kill(&fakes[1]);
    CHECK_EQUAL(rig_event(&rig, RR_EVENT_DEAD).worker, 2);
    CHECK_EQUAL(rig_ask(&rig, remove, NULL, 0).result, 0);
}

static void whoever_comes_next_gets_it(uint64_t batch)
{
    set_up(batch);
    get_stuck();
    remove_second();
    the_other_goes_on();
    add(2, 1, 1);
    CHECK_EQUAL(fake_take(&fakes[2]), 0);
    connect_to(1, 1);
    CHECK_EQUAL(fake_take(&fakes[2]), 0);
    rig_stop(&rig);
    tear_down(3);
}

static void it_is_kept_for_whoever_comes_next(void)
{
    whoever_comes_next_gets_it(1);
}

static void so_is_one_of_a_batch_worker(void)
{
    whoever_comes_next_gets_it(RR_BATCH_MAX);
}

/* The listener was closed meanwhile, and its place is given to another: as a program that listens anew. */
static void it_outlives_its_listener(void)
{
    struct rr_control close_it = {
        .kind = RR_CONTROL_LISTENER_CLOSE, .listener = 1, .value = {0, RR__MS}};
    struct rr_control add_it = {.kind = RR_CONTROL_LISTENER_ADD, .listener = 1};

    set_up(1);
    get_stuck();
    remove_second();
    CHECK_EQUAL(rig_ask(&rig, close_it, NULL, 0).result, 0);
    CHECK_EQUAL(rig_ask(&rig, add_it, &listeners[1], 1).result, 0);
    the_other_goes_on();
    add(2, 1, 1);
    CHECK_EQUAL(fake_take(&fakes[2]), 0);
    rig_stop(&rig);
    tear_down(3);
}

static void a_close_that_waits_for_it_sleeps(void)
{
    struct rr_control close_it = {
        .kind = RR_CONTROL_LISTENER_CLOSE, .listener = 1, .value = {0, 300 * RR__MS}};

    set_up(1);
    get_stuck();
    remove_second();
    uint32_t sequence = rig_request(&rig, close_it, NULL, 0);
    uint64_t before = ping().value[8];
    CHECK_EQUAL(rig_answer(&rig, sequence).result, 0);
    CHECK(ping().value[8] - before < 600); /* it looks every few milliseconds */
    add(2, 1, 1);
    CHECK_EQUAL(fake_take(&fakes[2]), 0);
    rig_stop(&rig);
    tear_down(3);
}

/* At the end it goes into a channel for that listener, whoever has it. */
static void a_stop_leaves_it_in_a_channel(void)
{
    set_up(1);
    get_stuck();
    fake_kill(&fakes[1]);
    CHECK_EQUAL(rig_event(&rig, RR_EVENT_DEAD).worker, 2);
    atomic_store(&broken, 0);
    rig_stop(&rig);
    CHECK_EQUAL(rr_pending(fakes[1].receiver), 1);
    CHECK_EQUAL(rr_pending(fakes[0].receiver), 0);
    tear_down(2);
}

TESTS_BEGIN
RUN(it_holds_up_its_own_listener_only);
RUN(so_does_one_of_a_batch_worker);
RUN(it_is_kept_for_whoever_comes_next);
RUN(so_is_one_of_a_batch_worker);
RUN(it_outlives_its_listener);
RUN(a_close_that_waits_for_it_sleeps);
RUN(a_stop_leaves_it_in_a_channel);
TESTS_END
