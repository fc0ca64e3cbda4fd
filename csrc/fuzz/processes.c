/* Owns what stands for other processes and for the kernel's failures in the fuzzed world, and what has to
 * be true of a dispatcher's tables between two rounds. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../fdpass.h"
#include "../os.h"
#include "world.h"

enum { PID_OF_NOBODY = 0x3f000000, LINK_AT = 4 /* where heir.c has it in its fds */ };

/* ---- system calls ---------------------------------------------------------------------------- */

static int fake_accept(int listener, struct sockaddr *peer, socklen_t *length)
{
    if (world.accept_left > 0) {
        world.accept_left--;
        return -world.accept_error;
    }
    int fd = rr__accept(listener, peer, length);
    world.accepted += fd >= 0;
    return fd;
}

static int fake_send(int channel, const struct rr_message *message, const int *fds)
{
    if (world.send_left > 0) {
        world.send_left--;
        return -world.send_error;
    }
    return rr_send(channel, message, fds);
}

static int fake_close(int fd)
{
    WORLD_CHECK(fd >= 0);
    int result = close(fd);
    WORLD_CHECK(result == 0); /* EBADF: closed twice */
    return 0;
}

static uint64_t fake_now(void)
{
    return world.clock += 1000;
}

/* The linker puts it in the place of the core's own. */
int __real_rr__socketpair(int type, int pair[2]);
int __wrap_rr__socketpair(int type, int pair[2]);

int __wrap_rr__socketpair(int type, int pair[2])
{
    int result = __real_rr__socketpair(type, pair);

    world.link = result < 0 ? -1 : pair[1];
    return result;
}

static pid_t fake_fork(void)
{
    if (world.forks_fail > 0) {
        world.forks_fail--;
        return -EAGAIN;
    }
    for (int i = 0; i < RR__RECLAIMERS; i++) {
        struct world_reclaimer *one = &world.reclaimers[i];
        if (one->pid)
            continue;
        *one = (struct world_reclaimer){.pid = PID_OF_NOBODY + i, .link = dup(world.link)};
        return one->pid;
    }
    return -EAGAIN;
}

/* An heir: it has the control socket, and reads every string that it is given. */
static int fake_spawn(const struct rr_spawn *request, int *pidfd, int *step)
{
    size_t length = strlen(request->program) + strlen(request->cwd);

    for (int i = 0; request->arguments[i]; i++)
        length += strlen(request->arguments[i]);
    for (int i = 0; request->environment[i]; i++)
        length += strlen(request->environment[i]);
    WORLD_CHECK(length < RR_HEIR_COMMAND_MAX);
    WORLD_CHECK(request->fds[LINK_AT] == world.link);
    *pidfd = -1;
    *step = RR_STEP_EXEC;
    if (world.spawns_fail > 0) {
        world.spawns_fail--;
        return -ENOENT;
    }
    rr__close_fds(&world.control, world.control >= 0);
    world.control = dup(world.link);
    *pidfd = dup(world.others[0]);
    return PID_OF_NOBODY + RR__RECLAIMERS;
}

static int fake_close_range(unsigned first, unsigned last)
{
    int result = 0;

    for (unsigned fd = first; fd <= last && result == 0; fd++)
        result = fake_close((int)fd);
    return result;
}

const struct rr__system world_system = {
    .accept = fake_accept,
    .send = fake_send,
    .pending = rr_pending,
    .close = fake_close,
    .close_range = fake_close_range,
    .now = fake_now,
    .fork = fake_fork,
    .spawn = fake_spawn,
};

/* ---- reclaimers ------------------------------------------------------------------------------ */

static const struct rr__reclaimer *table_of(pid_t pid)
{
    for (int i = 0; i < RR__RECLAIMERS; i++)
        if (world.d->reclaimers[i].pid == pid && world.d->reclaimers[i].worker)
            return &world.d->reclaimers[i];
    return NULL;
}

static void answer(struct world_reclaimer *one)
{
    const struct rr__reclaimer *entry = table_of(one->pid);
    struct rr_message message;
    int fds[RR_BATCH_MAX];

    WORLD_CHECK(entry != NULL); /* somebody asked */
    int count = rr__take_any(entry->worker->channel[entry->channel].receiver, &message, fds, RR_BATCH_MAX);
    if (count <= 0) {
        memset(&message, 0, sizeof message);
        count = 0;
    }
    WORLD_CHECK(rr__pass(one->link, &message, sizeof message, fds, count) > 0);
    rr__close_fds(fds, count);
}

void world_reclaimers(void)
{
    char asked;

    for (int i = 0; i < RR__RECLAIMERS; i++) {
        struct world_reclaimer *one = &world.reclaimers[i];
        if (!one->pid)
            continue;
        ssize_t got = world.stuck && table_of(one->pid) ? -1 : recv(one->link, &asked, 1, MSG_DONTWAIT);
        if (got > 0)
            answer(one);
        if (got == 0) {
            rr__close_fds(&one->link, 1);
            one->pid = 0;
        }
    }
}

/* ---- what has to be true ---------------------------------------------------------------------- */

static void check_workers(const struct rr__dispatcher *d)
{
    const struct rr__slots *slots = &d->slots;
    int stalled = 0, outboxes = 0;

    for (int i = 0; i < slots->used_count; i++) {
        const struct rr__worker *worker = slots->used[i];
        WORLD_CHECK(worker->used && worker->channels <= RR_MAX_LISTENERS);
        WORLD_CHECK((worker->ready_index >= 0) == (worker->state == RR_STATE_READY));
        WORLD_CHECK(worker->ready_index < 0 || slots->ready[worker->ready_index] == worker);
        WORLD_CHECK(worker->outbox.count >= 0 && worker->outbox.count <= RR_BATCH_MAX);
        WORLD_CHECK(worker->collecting == (worker->outbox.count > 0));
        WORLD_CHECK(worker->reclaimer < 0 || d->reclaimers[worker->reclaimer].worker == worker);
        stalled += worker->stalled;
        outboxes += worker->collecting;
    }
    WORLD_CHECK(stalled == d->stalled);
    WORLD_CHECK(outboxes == d->collected_count);
    for (int i = 0; i < d->collected_count; i++)
        WORLD_CHECK(d->collected[i]->used && d->collected[i]->collecting);
}

static void check_reclaimers(const struct rr__dispatcher *d)
{
    for (int i = 0; i < RR__RECLAIMERS; i++) {
        const struct rr__reclaimer *one = &d->reclaimers[i];
        int works = one->state != RR__FREE && one->state != RR__ENDING;
        WORLD_CHECK(works == (one->worker != NULL));
        WORLD_CHECK(!one->worker || (one->worker->used && one->worker->reclaimer == i));
        WORLD_CHECK(!works || (one->hand.count > 0) == (one->state == RR__HOLDING));
    }
}

static int is_polled(const struct rr__dispatcher *d, int fd, uint64_t tag)
{
    for (int i = 0; i < d->poller.count; i++)
        if (d->poller.items[i].fd == fd)
            return d->poller.tags[i] == tag;
    return 0;
}

void world_check(const struct rr__dispatcher *d)
{
    int room = 0;

    check_workers(d);
    check_reclaimers(d);
    for (int i = 0; i < d->slots.ready_count; i++)
        room += d->candidates[i].eligible;
    WORLD_CHECK(room == d->room);
    WORLD_CHECK(d->slots.turn >= 0 && d->slots.turn <= d->slots.ready_count);
    WORLD_CHECK(d->hand.count == 0 || d->hand.count == 1);
    WORLD_CHECK(d->told_count >= 0 && d->told_count <= RR__TOLD_MAX);
    for (int i = 0; i < d->listener_count; i++)
        WORLD_CHECK((d->listeners[i].state == RR__ARMED) ==
                    is_polled(d, d->listeners[i].fd, rr__tag(RR__TAG_LISTENER, i)));
    /* Nobody is there: somebody has to be started some day. */
    if (d->control < 0 && !d->leaving)
        WORLD_CHECK(d->heirs.command && (d->heirs.due_ns || d->heirs.listening));
}
