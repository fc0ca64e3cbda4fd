/* Everything at once, at random, for a few seconds: workers die, are parked and drained, take much, little
 * or nothing, listeners come and go, the primary dies and its heir goes on, fork and send fail. At the end
 * each client that connected was taken once, and no fd is left. RR_CHAOS_SEED and RR_CHAOS_MS in the
 * environment change which chaos and how much of it. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../fdpass.h"
#include "../os.h"
#include "check.h"
#include "rig.h"

enum { SLOTS = 4, CLIENTS = 256, CHAOS_MS = 3000, LIMIT_MS = 30000, GRAVES = 64, LINK_AT = 4 };

static struct rig rig;
static struct fake slots[SLOTS];
static struct fake graves[GRAVES]; /* killed, and not removed yet */
static int grave_count;
static int listener, closing_listener = -1;
static int clients[CLIENTS], client_count;
static uint32_t next_id;
static unsigned connected, taken, kills, heirs, listeners_closed;
static unsigned seed, first_seed;
static atomic_int next_control, forks_fail, sends_fail, spawns_fail;

static unsigned any(unsigned most)
{
    seed = seed * 1103515245u + 12345u;
    return (seed >> 8) % most;
}

/* What follows would say nothing. */
static void give_up(const char *why)
{
    fprintf(stderr, "RR_CHAOS_SEED=%u: %s\n", first_seed, why);
    exit(1);
}

/* ---- the world of the dispatcher's thread ------------------------------------------------------- */

static int fails(atomic_int *left)
{
    return atomic_load(left) > 0 && atomic_fetch_sub(left, 1) > 0;
}

static pid_t chaos_fork(void)
{
    return fails(&forks_fail) ? -EAGAIN : rr__fork_quiet();
}

static int chaos_send(int channel, const struct rr_message *message, const int *fds)
{
    return fails(&sends_fail) ? -ETOOMANYREFS : rr_send(channel, message, fds);
}

/* The heir is this test again. */
static int chaos_spawn(const struct rr_spawn *request, int *pidfd, int *step)
{
    *step = RR_STEP_EXEC;
    *pidfd = -1;
    if (fails(&spawns_fail))
        return -ENOMEM;
    *pidfd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    atomic_store(&next_control, fcntl(request->fds[LINK_AT], F_DUPFD_CLOEXEC, 0));
    return 1 << 30;
}

/* ---- the primary --------------------------------------------------------------------------------- */

static void removed(uint32_t id)
{
    struct rr_message message;
    int fds[RR_BATCH_MAX];

    for (int i = 0; i < grave_count; i++) {
        if (graves[i].id != id)
            continue;
        CHECK(rr_take(graves[i].receiver, &message, fds, RR_BATCH_MAX) <= 0); /* a probe may be left */
        fake_close(&graves[i]);
        graves[i] = graves[--grave_count];
        return;
    }
}

static void listener_closed(void)
{
    rr__close_fds(&closing_listener, closing_listener >= 0);
    closing_listener = listener = -1;
    listeners_closed++;
}

static void heard(const struct rr_control *message)
{
    int result = message->result;

    if (message->kind == RR_CONTROL_WORKER_REMOVE && result != -EALREADY)
        removed(message->worker);
    else if (message->kind == RR_CONTROL_LISTENER_CLOSE && (result == 0 || result == -ENOENT))
        listener_closed();
    else if (message->kind < RR_EVENT_STARTED)
        CHECK(result == 0 || result == -EINVAL || result == -EALREADY || result == -ESRCH);
}

static void pump(int wait_ms)
{
    struct pollfd item = {.fd = rig.control, .events = POLLIN};
    struct rr_control message;
    int fds[RR_CONTROL_FDS], count;

    while (poll(&item, 1, wait_ms) == 1) {
        if (rr_control_receive(rig.control, &message, fds, RR_CONTROL_FDS, &count) != 1)
            return;
        rr__close_fds(fds, count);
        heard(&message);
        item.fd = rig.control;
        wait_ms = 0;
    }
}

static void request(uint32_t kind, struct rr_control message, const int *fds, int count)
{
    int result, tries = 0;

    message.version = RR_CONTROL_VERSION;
    message.kind = kind;
    message.sequence = ++rig.sequence;
    while ((result = rr_control_send(rig.control, &message, fds, count)) == -EAGAIN &&
           tries++ < LIMIT_MS)
        pump(1);
    if (result < 0)
        give_up(strerror(-result));
}

static void ready(struct fake *slot)
{
    uint64_t batch = any(3) ? 1 : 1 + any(RR_BATCH_MAX);
    request(RR_CONTROL_WORKER_READY,
            (struct rr_control){.worker = slot->id, .value = {any(4), batch}}, NULL, 0);
}

static void begin_worker(struct fake *slot)
{
    struct fake *fake = slot;
    uint32_t index = (uint32_t)(slot - slots);

    fake_start(fake, ++next_id, index);
    int fds[] = {fake->pidfd, fake->board_fd, fake->lifeline[0], fake->sender, fake->receiver};
    request(RR_CONTROL_WORKER_ADD,
            (struct rr_control){.worker = fake->id, .value = {index, next_id}}, fds, 5);
    ready(slot);
}

static void remove_worker(const struct fake *fake)
{
    request(RR_CONTROL_WORKER_REMOVE, (struct rr_control){.worker = fake->id}, NULL, 0);
}

/* Another takes its slot at once: what it has queued needs somebody to go to. */
static void kill_worker(struct fake *slot)
{
    if (grave_count == GRAVES)
        return;
    struct fake *grave = &graves[grave_count++];
    *grave = *slot;
    fake_kill(grave);
    kills++;
    remove_worker(grave);
    begin_worker(slot);
}

static void add_listener(void)
{
    listener = rig_listen();
    request(RR_CONTROL_LISTENER_ADD, (struct rr_control){.listener = 0}, &listener, 1);
}

static void replace_listener(void)
{
    if (closing_listener >= 0 || listener < 0)
        return;
    closing_listener = listener;
    request(RR_CONTROL_LISTENER_CLOSE,
            (struct rr_control){.value = {any(20) * RR__MS, RR__SECOND * LIMIT_MS}}, NULL, 0);
}

static void set(void)
{
    request(RR_CONTROL_SETTINGS,
            (struct rr_control){.value = {any(3), 1 + any(20), (1 + any(8)) * RR__MS, any(9),
                                          any(2) * 20 * RR__MS, 0, any(2) * 2}}, NULL, 0);
}

static void keep_for_heirs(void)
{
    static const char text[] = "\1\0\0\0\0\0\0\0/bin/heir\0/\0heir"; /* its 0 comes with it */
    int fd = memfd_create("heir", MFD_CLOEXEC);
    CHECK_EQUAL(write(fd, text, sizeof text), sizeof text);
    request(RR_CONTROL_HEIR, (struct rr_control){.value = {RR_HEIRS_MAX, RR__MS, 0}}, &fd, 1);
    close(fd);
    request(RR_CONTROL_KEEP, (struct rr_control){.value = {RR_APP_STATE}}, &listener, 1);
    request(RR_CONTROL_INHERIT, (struct rr_control){.value = {RR_INHERIT_LISTENER}}, NULL, 0);
}

/* What it had asked for is asked for again. */
static void die_and_be_followed(void)
{
    int control = -1;

    close(rig.control);
    for (int waited = 0; waited < LIMIT_MS && control < 0; waited++) {
        poll(NULL, 0, 1);
        control = atomic_exchange(&next_control, -1);
    }
    if (control < 0)
        give_up("no heir came");
    rig.control = control;
    heirs++;
    for (int i = 0; i < grave_count; i++)
        remove_worker(&graves[i]);
    for (int i = 0; i < SLOTS; i++)
        request(RR_CONTROL_INHERIT,
                (struct rr_control){.worker = slots[i].id, .value = {RR_INHERIT_WORKER}}, NULL, 0);
    if (closing_listener >= 0)
        request(RR_CONTROL_LISTENER_CLOSE, (struct rr_control){.listener = 0}, NULL, 0);
}

/* ---- workers and clients --------------------------------------------------------------------------- */

static void take(struct fake *slot, int most)
{
    struct rr_message message;
    int fds[RR_BATCH_MAX];

    while (most-- > 0) {
        int count = rr_take(slot->receiver, &message, fds, RR_BATCH_MAX);
        if (count <= 0)
            return;
        rr_scoreboard_add(slot->board, RR_FIELD_RECEIVED, count);
        rr_scoreboard_add(slot->board, RR_FIELD_CLOSED, count - (any(9) == 0));
        for (int i = 0; i < count; i++)
            CHECK_EQUAL(send(fds[i], "x", 1, MSG_NOSIGNAL), 1);
        rr__close_fds(fds, count);
        taken += (unsigned)count;
    }
}

static void connect_some(int count)
{
    if (client_count + count > CLIENTS || listener < 0 || closing_listener >= 0)
        return;
    rig_connect(listener, clients + client_count, count);
    client_count += count;
    connected += (unsigned)count;
}

/* Each client hears one byte and the end, or nothing yet. */
static void look_at_clients(void)
{
    int kept = 0;

    for (int i = 0; i < client_count; i++) {
        char bytes[2];
        ssize_t got = recv(clients[i], bytes, sizeof bytes, MSG_DONTWAIT);
        if (got < 0 && errno == EAGAIN) {
            clients[kept++] = clients[i];
            continue;
        }
        CHECK_EQUAL(got, 1);
        close(clients[i]);
    }
    client_count = kept;
}

static void fail_for_a_while(void)
{
    atomic_store(&forks_fail, (int)any(3));
    atomic_store(&sends_fail, (int)any(20));
    atomic_store(&spawns_fail, (int)any(2));
}

static void seldom(struct fake *slot)
{
    if (any(4))
        replace_listener();
    else if (any(2))
        die_and_be_followed();
    else
        kill_worker(slot);
}

static void one_step(void)
{
    struct fake *slot = &slots[any(SLOTS)];
    unsigned what = any(32);

    if (what == 0)
        kill_worker(slot);
    else if (what == 1)
        request(RR_CONTROL_WORKER_PARK, (struct rr_control){.worker = slot->id}, NULL, 0);
    else if (what == 2)
        request(RR_CONTROL_WORKER_DRAIN, (struct rr_control){.worker = slot->id}, NULL, 0);
    else if (what == 3)
        ready(slot);
    else if (what == 4)
        set();
    else if (what == 5)
        fail_for_a_while();
    else if (what == 6 && any(4) == 0)
        seldom(slot);
    else if (what < 9)
        pump((int)any(4)); /* time goes by: stalls show themselves */
    else if (what < 12)
        connect_some(1 + (int)any(12));
    else
        take(slot, (int)any(6));
}

static uint64_t now_ms(void)
{
    return rr_now_ns() / RR__MS;
}

/* Everybody takes all: after a while nothing is left. */
static void come_to_rest(void)
{
    uint64_t limit = now_ms() + LIMIT_MS;

    atomic_store(&sends_fail, 0);
    atomic_store(&forks_fail, 0);
    for (int i = 0; i < SLOTS; i++)
        kill_worker(&slots[i]); /* it may be draining for ever */
    while ((client_count || grave_count || closing_listener >= 0) && now_ms() < limit) {
        for (int i = 0; i < SLOTS; i++) {
            take(&slots[i], 64);
            if (any(20) == 0)
                ready(&slots[i]);
        }
        look_at_clients();
        pump(1);
    }
    CHECK_EQUAL(client_count, 0);
    CHECK_EQUAL(grave_count, 0);
    CHECK_EQUAL(closing_listener, -1);
    CHECK_EQUAL(taken, connected);
}

static void nothing_is_lost_whatever_happens(void)
{
    static struct rr__system system;
    const char *longer = getenv("RR_CHAOS_MS");
    uint64_t end = now_ms() + (longer ? (uint64_t)atoi(longer) : CHAOS_MS);
    unsigned steps = 0;

    atomic_store(&next_control, -1);
    system = rr__system_real;
    system.fork = chaos_fork;
    system.send = chaos_send;
    system.spawn = chaos_spawn;
    rig_start(&rig, &system);
    set();
    add_listener();
    keep_for_heirs();
    for (int i = 0; i < SLOTS; i++)
        begin_worker(&slots[i]);
    for (; now_ms() < end && !failures; steps++) {
        one_step();
        pump(0);
        look_at_clients();
        if (listener < 0)
            add_listener();
    }
    come_to_rest();
    rig_stop(&rig);
    printf("%u steps, %u connections, %u kills, %u heirs, %u listeners closed\n", steps, taken, kills,
           heirs, listeners_closed);
    for (int i = 0; i < SLOTS; i++)
        fake_close(&slots[i]);
    rig_close(clients, client_count);
    rr__close_fds(&listener, listener >= 0);
}

TESTS_BEGIN
const char *chosen = getenv("RR_CHAOS_SEED");
seed = first_seed = chosen ? (unsigned)strtoul(chosen, NULL, 10) : (unsigned)rr_now_ns();
printf("RR_CHAOS_SEED=%u\n", seed);
RUN(nothing_is_lost_whatever_happens);
TESTS_END
