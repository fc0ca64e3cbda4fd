/* Take-back: from the dead, the stalled and the draining; and a reclaimer that does not answer. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../os.h"
#include "check.h"
#include "rig.h"

enum { WORKERS = 3, STALL_MS = 30 };

static struct rig rig;
static struct fake fakes[WORKERS];
static int clients[64], listener;
static int gate[2] = {-1, -1}; /* reclaimers wait for a byte on it when it is open */
static atomic_int gated, none_left;

static pid_t fork_behind_gate(void)
{
    if (atomic_load(&none_left))
        return -EAGAIN;
    int held = atomic_exchange(&gated, 0);
    pid_t pid = rr__fork_quiet();
    char byte;
    if (pid == 0 && held && read(gate[0], &byte, 1) < 0)
        _exit(1);
    return pid;
}

static void set_up(int workers, uint64_t heartbeat_ms, uint64_t switches)
{
    static struct rr__system system;

    system = rr__system_real;
    system.fork = fork_behind_gate;
    rig_start(&rig, &system);
    listener = rig_listen();
    CHECK_EQUAL(
        rig_ask(&rig, (struct rr_control){.kind = RR_CONTROL_LISTENER_ADD}, &listener, 1).result, 0);
    for (int i = 0; i < workers; i++)
        fake_serve(&rig, &fakes[i], (uint32_t)i + 1);
    rig_settings(&rig, 32, STALL_MS, heartbeat_ms, switches);
}

static void tear_down(int workers, int connected)
{
    rig_stop(&rig);
    rig_close(clients, connected);
    for (int i = 0; i < workers; i++)
        fake_close(&fakes[i]);
    close(listener);
}

static struct rr_control ping(void)
{
    return rig_ask(&rig, (struct rr_control){.kind = RR_CONTROL_PING}, NULL, 0);
}

static void park(struct fake *fake)
{
    struct rr_control message = {.kind = RR_CONTROL_WORKER_PARK, .worker = fake->id};
    CHECK_EQUAL(rig_ask(&rig, message, NULL, 0).result, 0);
}

/* All to the first worker, then the others are ready. */
static void fill_first(int count, int batch)
{
    for (int i = 1; i < WORKERS; i++)
        park(&fakes[i]);
    if (batch > 1) {
        park(&fakes[0]);
        rig_connect(listener, clients, count);
        fake_ready(&rig, &fakes[0], 0, (uint64_t)batch);
        CHECK(fake_has(&fakes[0], (count + batch - 1) / batch));
    } else {
        rig_connect(listener, clients, count);
        CHECK(fake_has(&fakes[0], count));
    }
}

static int drain_fake(struct fake *fake)
{
    int taken = 0;
    while (rr_pending(fake->receiver) > 0) {
        CHECK_EQUAL(fake_take(fake), RR_FLAG_MOVED);
        taken++;
    }
    return taken;
}

static void the_dead_ones_queue_goes_to_others(void)
{
    set_up(WORKERS, 0, 0);
    rig_settings(&rig, 32, 100000, 0, 0);
    fill_first(10, 1);
    fake_ready(&rig, &fakes[1], 0, 1);
    fake_ready(&rig, &fakes[2], 0, 1);
    fake_kill(&fakes[0]);
    CHECK_EQUAL(rig_event(&rig, RR_EVENT_DEAD).worker, 1);
    struct rr_control remove = {.kind = RR_CONTROL_WORKER_REMOVE, .worker = 1};
    struct rr_control answer = rig_ask(&rig, remove, NULL, 0);
    CHECK_EQUAL(answer.result, 0);
    CHECK_EQUAL(answer.value[0], 10);
    CHECK_EQUAL(answer.value[1], 10);
    CHECK_EQUAL(drain_fake(&fakes[1]), 5);
    CHECK_EQUAL(drain_fake(&fakes[2]), 5);
    CHECK_EQUAL(ping().value[3], 10);
    tear_down(WORKERS, 10);
}

static void the_dead_ones_queue_needs_no_process(void)
{
    set_up(WORKERS, 0, 0);
    rig_settings(&rig, 32, 100000, 0, 0);
    atomic_store(&none_left, 1);
    fill_first(10, 1);
    fake_ready(&rig, &fakes[1], 0, 1);
    fake_ready(&rig, &fakes[2], 0, 1);
    fake_kill(&fakes[0]);
    CHECK_EQUAL(rig_event(&rig, RR_EVENT_DEAD).worker, 1);
    struct rr_control remove = {.kind = RR_CONTROL_WORKER_REMOVE, .worker = 1};
    CHECK_EQUAL(rig_ask(&rig, remove, NULL, 0).value[1], 10);
    CHECK_EQUAL(drain_fake(&fakes[1]), 5);
    CHECK_EQUAL(drain_fake(&fakes[2]), 5);
    atomic_store(&none_left, 0);
    tear_down(WORKERS, 10);
}

static void it_waits_until_somebody_is_ready(void)
{
    set_up(WORKERS, 0, 0);
    fill_first(3, 1);
    fake_kill(&fakes[0]);
    CHECK_EQUAL(rig_event(&rig, RR_EVENT_DEAD).worker, 1);
    struct rr_control remove = {.kind = RR_CONTROL_WORKER_REMOVE, .worker = 1};
    uint32_t sequence = rig_request(&rig, remove, NULL, 0);
    ping();
    CHECK_EQUAL(rr_pending(fakes[0].receiver), 3);
    fake_ready(&rig, &fakes[2], 0, 1);
    CHECK_EQUAL(rig_answer(&rig, sequence).value[0], 3);
    CHECK_EQUAL(drain_fake(&fakes[2]), 3);
    tear_down(WORKERS, 3);
}

static void only_as_much_as_there_is_room(void)
{
    set_up(WORKERS, 0, 0);
    fill_first(8, 1);
    rig_settings(&rig, 2, 100000, 0, 0);
    fake_kill(&fakes[0]);
    fake_ready(&rig, &fakes[1], 0, 1);
    CHECK(fake_has(&fakes[1], 2));
    for (int i = 0; i < 8; i++)
        CHECK_EQUAL(fake_take(&fakes[1]), RR_FLAG_MOVED);
    CHECK_EQUAL(ping().value[3], 8);
    tear_down(WORKERS, 8);
}

static void a_batch_is_split(void)
{
    set_up(WORKERS, 0, 0);
    rig_settings(&rig, 32, 100000, 0, 0);
    fill_first(20, 16);
    fake_ready(&rig, &fakes[1], 0, 1);
    fake_kill(&fakes[0]);
    CHECK(fake_has(&fakes[1], 20));
    CHECK_EQUAL(ping().value[3], 20);
    tear_down(WORKERS, 20);
}

static void a_stalled_one_is_passed_over_until_it_takes(void)
{
    set_up(WORKERS, 0, 0);
    fill_first(4, 1);
    fake_ready(&rig, &fakes[1], 0, 1);
    CHECK_EQUAL(rig_event(&rig, RR_EVENT_STALLED).worker, 1);
    CHECK(fake_has(&fakes[1], 4));
    CHECK(fake_has(&fakes[0], 1)); /* the probe */
    CHECK_EQUAL(drain_fake(&fakes[1]), 4);
    rig_connect(listener, clients + 4, 4);
    for (int i = 0; i < 4; i++)
        CHECK_EQUAL(fake_take(&fakes[1]), 0);
    struct rr_message message;
    int fds[RR_BATCH_MAX];
    CHECK_EQUAL(rr_take(fakes[0].receiver, &message, fds, RR_BATCH_MAX), -EAGAIN);
    struct rr_control event = rig_event(&rig, RR_EVENT_RECOVERED);
    CHECK_EQUAL(event.worker, 1);
    park(&fakes[1]);
    rig_connect(listener, clients + 8, 1);
    CHECK_EQUAL(fake_take(&fakes[0]), 0);
    tear_down(WORKERS, 9);
}

static void nobody_is_stalled_when_all_wait(void)
{
    set_up(1, 0, 0);
    rig_connect(listener, clients, 3);
    CHECK(fake_has(&fakes[0], 3));
    poll(NULL, 0, 3 * STALL_MS); /* the absence of an event needs time to show */
    CHECK_EQUAL(ping().value[3], 0);
    CHECK_EQUAL(rig.event_count, 0);
    for (int i = 0; i < 3; i++)
        CHECK_EQUAL(fake_take(&fakes[0]), 0);
    tear_down(1, 3);
}

static void hung_is_told_once(void)
{
    set_up(WORKERS, 50, 0);
    fill_first(1, 1);
    fake_ready(&rig, &fakes[1], 0, 1);
    CHECK_EQUAL(fake_take(&fakes[1]), RR_FLAG_MOVED);
    struct rr_control event = rig_event(&rig, RR_EVENT_HUNG);
    CHECK_EQUAL(event.worker, 1);
    CHECK(event.value[0] >= 50 * RR__MS);
    tear_down(WORKERS, 1);
}

static void a_drain_is_answered_when_the_queue_is_empty(void)
{
    set_up(WORKERS, 0, 0);
    rig_settings(&rig, 32, 100000, 0, 0);
    fill_first(6, 1);
    struct rr_control drain = {.kind = RR_CONTROL_WORKER_DRAIN, .worker = 1};
    uint32_t sequence = rig_request(&rig, drain, NULL, 0);
    CHECK_EQUAL(rig_ask(&rig, drain, NULL, 0).result, -EALREADY);
    CHECK_EQUAL(fake_take(&fakes[0]), 0); /* nobody else has room: it takes them itself */
    fake_ready(&rig, &fakes[2], 0, 1);
    struct rr_control answer = rig_answer(&rig, sequence);
    CHECK_EQUAL(answer.value[0], 5);
    CHECK_EQUAL(drain_fake(&fakes[2]), 5);
    tear_down(WORKERS, 6);
}

static void a_stuck_reclaimer_stops_nobody(void)
{
    CHECK_EQUAL(pipe2(gate, O_CLOEXEC), 0);
    atomic_store(&gated, 1);
    set_up(WORKERS, 0, 0);
    fill_first(2, 1);
    fake_ready(&rig, &fakes[1], 0, 1);
    CHECK_EQUAL(rig_event(&rig, RR_EVENT_STALLED).worker, 1);
    while (ping().value[6] == 0)
        poll(NULL, 0, 1);
    rig_connect(listener, clients + 2, 2);
    CHECK_EQUAL(fake_take(&fakes[1]), 0);
    CHECK_EQUAL(fake_take(&fakes[1]), 0);
    CHECK_EQUAL(rr_pending(fakes[0].receiver), 2);
    CHECK_EQUAL(write(gate[1], "x", 1), 1);
    CHECK_EQUAL(fake_take(&fakes[1]), RR_FLAG_MOVED);
    CHECK_EQUAL(fake_take(&fakes[1]), RR_FLAG_MOVED);
    tear_down(WORKERS, 4);
    rig_close(gate, 2);
}

static void a_stop_leaves_all_in_the_channels(void)
{
    set_up(WORKERS, 0, 0);
    rig_settings(&rig, 1, 100000, 0, 0);
    fill_first(1, 1);
    fake_kill(&fakes[0]);
    CHECK_EQUAL(rig_event(&rig, RR_EVENT_DEAD).worker, 1);
    rig_stop(&rig);
    CHECK_EQUAL(rr_pending(fakes[0].receiver), 1);
    /* A successor finds it. */
    rig_start(&rig, &rr__system_real);
    fakes[0].pid = 0;
    CHECK_EQUAL(fake_add(&rig, &fakes[0], 0), 0);
    CHECK_EQUAL(rig_event(&rig, RR_EVENT_DEAD).worker, 1);
    CHECK_EQUAL(fake_add(&rig, &fakes[1], 1), 0);
    fake_ready(&rig, &fakes[1], 0, 1);
    CHECK_EQUAL(fake_take(&fakes[1]), RR_FLAG_MOVED);
    tear_down(WORKERS, 1);
}

static void without_take_back_it_is_lost(void)
{
    set_up(WORKERS, 0, 1);
    fill_first(3, 1);
    fake_ready(&rig, &fakes[1], 0, 1);
    fake_kill(&fakes[0]);
    struct rr_control remove = {.kind = RR_CONTROL_WORKER_REMOVE, .worker = 1};
    CHECK_EQUAL(rig_event(&rig, RR_EVENT_DEAD).worker, 1);
    CHECK_EQUAL(rig_ask(&rig, remove, NULL, 0).value[0], 0);
    CHECK_EQUAL(ping().value[5], 3);
    CHECK_EQUAL(rig_ask(&rig, (struct rr_control){.kind = RR_CONTROL_STOP}, NULL, 0).result, 0);
    rig_join(&rig);
    close(rig.control);
    rig_close(clients, 3);
    for (int i = 0; i < WORKERS; i++)
        fake_close(&fakes[i]);
    close(listener);
}

TESTS_BEGIN
RUN(the_dead_ones_queue_goes_to_others);
RUN(the_dead_ones_queue_needs_no_process);
RUN(it_waits_until_somebody_is_ready);
RUN(only_as_much_as_there_is_room);
RUN(a_batch_is_split);
RUN(a_stalled_one_is_passed_over_until_it_takes);
RUN(nobody_is_stalled_when_all_wait);
RUN(hung_is_told_once);
RUN(a_drain_is_answered_when_the_queue_is_empty);
RUN(a_stuck_reclaimer_stops_nobody);
RUN(a_stop_leaves_all_in_the_channels);
RUN(without_take_back_it_is_lost);
TESTS_END
