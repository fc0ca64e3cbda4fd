/* The loop against a world that fails on purpose, and its requests. */
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

enum { WORKERS = 3 };

static struct rig rig;
static struct fake fakes[WORKERS];
static int clients[64], listener;

/* What the next calls of accept and send fail with; 0 = they work. */
static atomic_int accept_error, accept_errors_left, send_error, send_errors_left;

static int fake_accept(int fd, struct sockaddr *peer, socklen_t *length)
{
    if (atomic_load(&accept_errors_left) > 0) {
        atomic_fetch_sub(&accept_errors_left, 1);
        return -atomic_load(&accept_error);
    }
    return rr__accept(fd, peer, length);
}

static int fake_send(int channel, const struct rr_message *message, const int *fds)
{
    if (atomic_load(&send_errors_left) > 0) {
        atomic_fetch_sub(&send_errors_left, 1);
        return -atomic_load(&send_error);
    }
    return rr_send(channel, message, fds);
}

static void set_up(int workers)
{
    struct rr__system system = rr__system_real;
    static struct rr__system kept;

    system.accept = fake_accept;
    system.send = fake_send;
    kept = system;
    rig_start(&rig, &kept);
    listener = rig_listen();
    CHECK_EQUAL(
        rig_ask(&rig, (struct rr_control){.kind = RR_CONTROL_LISTENER_ADD}, &listener, 1).result, 0);
    for (int i = 0; i < workers; i++)
        fake_serve(&rig, &fakes[i], (uint32_t)i + 1);
    rig_settings(&rig, 32, 100000, 0, 0);
}

static void tear_down(int workers, int connected)
{
    rig_stop(&rig);
    rig_close(clients, connected);
    for (int i = 0; i < workers; i++)
        fake_close(&fakes[i]);
    close(listener);
}

static void in_turn(void)
{
    set_up(WORKERS);
    for (int i = 0; i < 9; i++) {
        rig_connect(listener, &clients[i], 1);
        CHECK_EQUAL(fake_take(&fakes[i % WORKERS]), 0);
    }
    tear_down(WORKERS, 9);
}

static void fail_accept(int error, int times)
{
    atomic_store(&accept_error, error);
    atomic_store(&accept_errors_left, times);
}

static void no_fds_is_a_pause(void)
{
    set_up(1);
    fail_accept(EMFILE, 3);
    rig_connect(listener, clients, 1);
    for (uint64_t pause = 10; pause <= 40; pause *= 2) {
        struct rr_control event = rig_event(&rig, RR_EVENT_ACCEPT_ERROR);
        CHECK_EQUAL(event.result, -EMFILE);
        CHECK_EQUAL(event.value[0], pause * RR__MS);
    }
    CHECK_EQUAL(fake_take(&fakes[0]), 0);
    CHECK_EQUAL(rig_ask(&rig, (struct rr_control){.kind = RR_CONTROL_PING}, NULL, 0).value[4], 3);
    tear_down(1, 1);
}

static void a_broken_connection_means_the_next(void)
{
    static const int errors[] = {ECONNABORTED, EPROTO, EPERM, ENETDOWN, EHOSTUNREACH, EINTR};
    set_up(1);
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
        fail_accept(errors[i], 5);
        rig_connect(listener, &clients[i], 1);
        CHECK_EQUAL(fake_take(&fakes[0]), 0);
    }
    tear_down(1, sizeof errors / sizeof *errors);
}

static void a_dead_listener_is_told(void)
{
    set_up(1);
    fail_accept(EINVAL, 1);
    rig_connect(listener, clients, 1);
    struct rr_control event = rig_event(&rig, RR_EVENT_LISTENER_FAILED);
    CHECK_EQUAL(event.result, -EINVAL);
    CHECK_EQUAL(event.listener, 0);
    /* The place can be taken by another. */
    CHECK_EQUAL(
        rig_ask(&rig, (struct rr_control){.kind = RR_CONTROL_LISTENER_ADD}, &listener, 1).result, 0);
    CHECK_EQUAL(fake_take(&fakes[0]), 0);
    tear_down(1, 1);
}

static void a_full_channel_is_passed_over(void)
{
    set_up(2);
    atomic_store(&send_error, EAGAIN);
    atomic_store(&send_errors_left, 1);
    rig_connect(listener, clients, 1);
    CHECK_EQUAL(fake_take(&fakes[1]), 0);
    rig_connect(listener, clients + 1, 1);
    CHECK(fake_take_any(fakes, 2) >= 0);
    tear_down(2, 2);
}

static void too_many_in_flight_loses_nothing(void)
{
    set_up(2);
    atomic_store(&send_error, ETOOMANYREFS);
    atomic_store(&send_errors_left, 40);
    rig_connect(listener, clients, 4);
    for (int i = 0; i < 4; i++)
        CHECK(fake_take_any(fakes, 2) >= 0);
    CHECK_EQUAL(atomic_load(&send_errors_left), 0);
    tear_down(2, 4);
}

/* Its place in the table is not to be given away while something of it is still to be placed. */
static void a_removal_waits_for_what_was_collected(void)
{
    struct rr_control park = {.kind = RR_CONTROL_WORKER_PARK, .worker = 2};
    struct rr_control remove = {.kind = RR_CONTROL_WORKER_REMOVE, .worker = 1};

    set_up(2);
    rig_settings(&rig, 32, 100000, 0, 1); /* no take-back: a removal does not wait for the queue */
    CHECK_EQUAL(rig_ask(&rig, park, NULL, 0).result, 0);
    fake_ready(&rig, &fakes[0], 0, RR_BATCH_MAX);
    atomic_store(&send_error, EAGAIN);
    atomic_store(&send_errors_left, 1 << 30);
    rig_connect(listener, clients, 1);
    CHECK_EQUAL(rig_event(&rig, RR_EVENT_FULL).kind, RR_EVENT_FULL);
    fake_kill(&fakes[0]);
    CHECK_EQUAL(rig_event(&rig, RR_EVENT_DEAD).worker, 1);
    uint32_t removal = rig_request(&rig, remove, NULL, 0);
    fake_start(&fakes[2], 3, 2);
    CHECK_EQUAL(fake_add(&rig, &fakes[2], 2), 0);
    atomic_store(&send_errors_left, 0);
    /* A whole round: the dead one's channel has room, and is not to be given it. */
    for (int i = 0; i < 3; i++)
        rig_ask(&rig, (struct rr_control){.kind = RR_CONTROL_PING}, NULL, 0);
    fake_ready(&rig, &fakes[1], 0, 1);
    CHECK_EQUAL(fake_take(&fakes[1]), 0);
    CHECK_EQUAL(rig_answer(&rig, removal).result, 0);
    tear_down(3, 1);
}

static void a_poisoned_listener_does_not_starve_others(void)
{
    set_up(1);
    int other = rig_listen(), dead[2];
    struct rr_control add = {.kind = RR_CONTROL_LISTENER_ADD, .listener = 1};
    CHECK_EQUAL(rig_ask(&rig, add, &other, 1).result, 0);
    fail_accept(ECONNABORTED, 3 * RR__DEFAULT_ROUND); /* whole rounds of errors */
    rig_connect(listener, clients, 1);
    rig_connect(listener, dead, 2);
    CHECK_EQUAL(fake_take(&fakes[0]), 0);
    CHECK_EQUAL(fake_take(&fakes[0]), 0);
    rig_close(dead, 2);
    close(other);
    tear_down(1, 1);
}

static void the_backlog_holds_what_nobody_can_take(void)
{
    set_up(1);
    rig_settings(&rig, 2, 100000, 0, 0);
    rig_connect(listener, clients, 5);
    CHECK(fake_has(&fakes[0], 2));
    CHECK_EQUAL(rig_event(&rig, RR_EVENT_FULL).kind, RR_EVENT_FULL);
    CHECK_EQUAL(rig_ask(&rig, (struct rr_control){.kind = RR_CONTROL_PING}, NULL, 0).value[1], 2);
    for (int i = 0; i < 5; i++)
        CHECK_EQUAL(fake_take(&fakes[0]), 0);
    CHECK_EQUAL(rig_event(&rig, RR_EVENT_ROOM).kind, RR_EVENT_ROOM);
    tear_down(1, 5);
}

static void closing_a_listener_gives_out_its_backlog(void)
{
    set_up(1);
    rig_settings(&rig, 2, 100000, 0, 0);
    rig_connect(listener, clients, 4);
    CHECK(fake_has(&fakes[0], 2));
    struct rr_control close_it = {.kind = RR_CONTROL_LISTENER_CLOSE,
                                  .value = {30 * RR__MS, 60 * RR__SECOND}};
    uint32_t sequence = rig_request(&rig, close_it, NULL, 0);
    for (int i = 0; i < 4; i++)
        CHECK_EQUAL(fake_take(&fakes[0]), 0);
    struct rr_control answer = rig_answer(&rig, sequence);
    CHECK_EQUAL(answer.result, 0);
    CHECK_EQUAL(answer.value[0], 2);
    CHECK_EQUAL(rig_ask(&rig, close_it, NULL, 0).result, -ENOENT);
    tear_down(1, 4);
}

static uint64_t rounds(void)
{
    return rig_ask(&rig, (struct rr_control){.kind = RR_CONTROL_PING}, NULL, 0).value[8];
}

static void batches(void)
{
    set_up(0);
    fake_start(&fakes[0], 1, 0);
    CHECK_EQUAL(fake_add(&rig, &fakes[0], 0), 0);
    rig_connect(listener, clients, 20);
    fake_ready(&rig, &fakes[0], 0, 16);
    CHECK(fake_has(&fakes[0], 2));
    CHECK_EQUAL(fake_take(&fakes[0]), 0);
    CHECK_EQUAL(rr_scoreboard_load(fakes[0].board, RR_FIELD_RECEIVED), 16);
    CHECK_EQUAL(fake_take(&fakes[0]), 0);
    CHECK_EQUAL(rr_scoreboard_load(fakes[0].board, RR_FIELD_RECEIVED), 20);
    rounds(); /* it counts a message when the kernel has it */
    CHECK_EQUAL(rr_scoreboard_load(fakes[0].board, RR_FIELD_SENT), 20);
    tear_down(1, 20);
}

static void parked_takes_nothing_new(void)
{
    set_up(2);
    struct rr_control park = {.kind = RR_CONTROL_WORKER_PARK, .worker = 1};
    CHECK_EQUAL(rig_ask(&rig, park, NULL, 0).result, 0);
    rig_connect(listener, clients, 4);
    CHECK(fake_has(&fakes[1], 4));
    CHECK_EQUAL(rr_pending(fakes[0].receiver), 0);
    fake_ready(&rig, &fakes[0], 0, 1);
    rig_connect(listener, clients + 4, 2);
    CHECK(fake_has(&fakes[0], 1));
    CHECK(fake_has(&fakes[1], 5));
    tear_down(2, 6);
}

static void the_end_of_the_primary(void)
{
    set_up(1);
    rig_settings(&rig, 2, 100000, 0, 0);
    rig_connect(listener, clients, 4);
    CHECK(fake_has(&fakes[0], 2));
    close(rig.control);
    close(fakes[0].sender);
    for (int i = 0; i < 4; i++)
        CHECK_EQUAL(fake_take(&fakes[0]), 0);
    rig_join(&rig);
    CHECK_EQUAL(fake_take(&fakes[0]), -1); /* EOF */
    fakes[0].sender = dup(0);
    rig_close(clients, 4);
    fake_close(&fakes[0]);
    close(listener);
}

static void an_idle_dispatcher_sleeps(void)
{
    set_up(2);
    rig_settings(&rig, 32, 5, 0, 0);
    for (int i = 0; i < 6; i++) {
        rig_connect(listener, &clients[i], 1);
        CHECK(fake_take_any(fakes, 2) >= 0);
    }
    uint64_t before = rounds(), after = 0;
    for (int tries = 0; tries < 50; tries++, before = after) {
        poll(NULL, 0, 40); /* that nothing happens needs time to show */
        after = rounds();
        if (after == before + 1)
            break;
    }
    CHECK_EQUAL(after, before + 1); /* the question itself */
    tear_down(2, 6);
}

static void nonsense_is_answered_and_changes_nothing(void)
{
    struct rr_control message = {.version = RR_CONTROL_VERSION, .kind = 99, .sequence = 1000};
    int many[RR_CONTROL_FDS];

    set_up(1);
    for (int i = 0; i < RR_CONTROL_FDS; i++)
        many[i] = open("/dev/null", O_RDONLY | O_CLOEXEC);
    int open_before = count_fds();
    CHECK_EQUAL(rr_control_send(rig.control, &message, many, RR_CONTROL_FDS), 0);
    CHECK_EQUAL(rig_answer(&rig, 1000).result, -ENOSYS);
    message.version = 7;
    CHECK_EQUAL(rr_control_send(rig.control, &message, many, 3), 0);
    CHECK_EQUAL(rig_answer(&rig, 1000).result, -EPROTO);
    CHECK_EQUAL(send(rig.control, &message, 20, 0), 20);
    CHECK_EQUAL(rig_answer(&rig, 1000).result, -EPROTO);
    CHECK_EQUAL(send(rig.control, "", 0, 0), 0);
    CHECK_EQUAL(rig_answer(&rig, 0).result, -EPROTO);
    struct rr_control ping = {.kind = RR_CONTROL_PING};
    CHECK_EQUAL(rig_ask(&rig, ping, many, 2).result, -EPROTO);
    struct rr_control add = {.kind = RR_CONTROL_WORKER_ADD, .worker = 77};
    CHECK_EQUAL(rig_ask(&rig, add, many, 2).result, -EPROTO);
    CHECK(rig_ask(&rig, add, many, 5).result < 0);
    CHECK_EQUAL(fake_add(&rig, &fakes[0], 0), -EEXIST);
    struct rr_control settings = {.kind = RR_CONTROL_SETTINGS, .value = {0, 70, 1, 1}};
    CHECK_EQUAL(rig_ask(&rig, settings, NULL, 0).result, -EINVAL);
    struct rr_control remove = {.kind = RR_CONTROL_WORKER_REMOVE, .worker = 1};
    CHECK_EQUAL(rig_ask(&rig, remove, NULL, 0).result, -EBUSY);
    remove.worker = 55;
    CHECK_EQUAL(rig_ask(&rig, remove, NULL, 0).result, -ESRCH);
    struct rr_control listeners = {.kind = RR_CONTROL_LISTENER_ADD, .listener = 1};
    CHECK(rig_ask(&rig, listeners, many, 1).result < 0);
    listeners.listener = RR_MAX_LISTENERS;
    CHECK_EQUAL(rig_ask(&rig, listeners, &listener, 1).result, -ERANGE);
    CHECK_EQUAL(count_fds(), open_before);
    rig_close(many, RR_CONTROL_FDS);
    tear_down(1, 0);
}

TESTS_BEGIN
RUN(in_turn);
RUN(no_fds_is_a_pause);
RUN(a_broken_connection_means_the_next);
RUN(a_dead_listener_is_told);
RUN(a_full_channel_is_passed_over);
RUN(too_many_in_flight_loses_nothing);
RUN(a_removal_waits_for_what_was_collected);
RUN(a_poisoned_listener_does_not_starve_others);
RUN(the_backlog_holds_what_nobody_can_take);
RUN(closing_a_listener_gives_out_its_backlog);
RUN(batches);
RUN(parked_takes_nothing_new);
RUN(the_end_of_the_primary);
RUN(an_idle_dispatcher_sleeps);
RUN(nonsense_is_answered_and_changes_nothing);
TESTS_END
