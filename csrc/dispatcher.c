/* Owns the loop: waits for listeners, control, pidfds, reclaimers and the next deadline, and lets each
 * have its turn. Nothing waits inside. All memory is mapped at the start. */
#include "dispatcher.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "os.h"

#define LEAVE_QUIET_NS (50 * RR__MS)
#define LEAVE_LISTENERS_NS (20 * RR__SECOND) /* all who serve them may be blocked */
#define LEAVE_FEW_NS (2 * RR__SECOND)
#define LEAVE_NS (30 * RR__SECOND)

static int close_fd(int fd)
{
    return close(fd) < 0 ? -errno : 0;
}

const struct rr__system rr__system_real = {
    .accept = rr__accept,
    .send = rr_send,
    .pending = rr_pending,
    .close = close_fd,
    .close_range = rr__close_range,
    .now = rr_now_ns,
    .fork = rr__fork_quiet,
    .spawn = rr_spawn,
};

static void leak(void)
{
    static const size_t most = 64 << 20, step = 4096;
    static char *pages;
    static size_t used;

    if (!pages)
        pages = mmap(NULL, most, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages != MAP_FAILED)
        pages[used] = 1;
    used = (used + step) % most;
}

static int close_and_leak(int fd)
{
    leak();
    return close_fd(fd);
}

static int close_range_and_leak(unsigned first, unsigned last)
{
    for (unsigned fd = first; fd <= last; fd++)
        leak();
    return rr__close_range(first, last);
}

const struct rr__system rr__system_leaking = {
    .accept = rr__accept,
    .send = rr_send,
    .pending = rr_pending,
    .close = close_and_leak,
    .close_range = close_range_and_leak,
    .now = rr_now_ns,
    .fork = rr__fork_quiet,
    .spawn = rr_spawn,
};

void rr__close(struct rr__dispatcher *d, int *fd)
{
    if (*fd >= 0)
        d->system->close(*fd);
    *fd = -1;
}

static void sooner(uint64_t *deadline, uint64_t other)
{
    if (other && other < *deadline)
        *deadline = other;
}

/* Milliseconds to the next deadline, rounded up; -1 when there is none: an idle dispatcher sleeps. */
static int timeout(const struct rr__dispatcher *d)
{
    uint64_t deadline = UINT64_MAX;

    sooner(&deadline, d->retry_ns);
    sooner(&deadline, d->watch_ns);
    sooner(&deadline, d->reap_ns);
    sooner(&deadline, d->told_ns);
    sooner(&deadline, d->leave_ns);
    sooner(&deadline, d->heirs.due_ns);
    sooner(&deadline, d->heirs.silent_ns);
    for (int i = 0; i < d->listener_count; i++) {
        const struct rr__listener *listener = &d->listeners[i];
        sooner(&deadline, listener->retry_ns);
        if (listener->state != RR__ARMED && listener->state != RR__DISARMED)
            continue;
        if (listener->closing) {
            sooner(&deadline, listener->limit_ns);
            if (listener->state == RR__ARMED || rr__unserved(d, i))
                sooner(&deadline, listener->quiet_ns);
        }
    }
    if (deadline == UINT64_MAX)
        return -1;
    uint64_t now = d->system->now();
    if (deadline <= now)
        return 0;
    uint64_t left = (deadline - now + RR__MS - 1) / RR__MS;
    return left < 60000 ? (int)left : 60000;
}

/* What is in a backlog is lost with its last fd, and only then. */
static uint64_t leave_limit(const struct rr__dispatcher *d, int index)
{
    if (d->listeners[index].shared || rr__unserved(d, index))
        return LEAVE_FEW_NS;
    return LEAVE_LISTENERS_NS;
}

/* The primary is gone for good: accept what the backlogs hold, hand it out, and end when nothing waits. */
static void leave(struct rr__dispatcher *d)
{
    rr__poller_remove(&d->poller, d->control);
    d->leaving = 1;
    rr__hush(d);
    d->leave_ns = d->now + LEAVE_NS;
    for (int i = 0; i < d->listener_count; i++) {
        struct rr__listener *listener = &d->listeners[i];
        if (listener->state == RR__ARMED || listener->state == RR__DISARMED)
            rr__listener_start_close(d, listener, LEAVE_QUIET_NS, leave_limit(d, i));
    }
}

static int may_end(struct rr__dispatcher *d)
{
    int alive = 0, busy = d->hand.count > 0 || d->collected_count > 0;

    if (d->now >= d->leave_ns)
        return 1;
    for (int i = 0; i < d->listener_count; i++)
        busy |= d->listeners[i].held.count > 0 || rr__listener_open(d, (uint32_t)i);
    for (int i = 0; i < d->slots.used_count; i++) {
        struct rr__worker *worker = d->slots.used[i];
        rr__measure(d, worker);
        alive |= worker->state != RR_STATE_DEAD;
        busy |= !rr__worker_idle(worker) && !rr__worker_hopeless(d, worker);
    }
    rr__watch_soon(d, d->now + 10 * RR__MS);
    return !alive || !busy;
}

static void serve_control(struct rr__dispatcher *d)
{
    if (d->leaving || d->control < 0 || rr__serve_control(d))
        return;
    if (d->heirs.command)
        rr__heir_lost(d);
    else
        leave(d);
}

static void handle(struct rr__dispatcher *d, uint64_t tag)
{
    int index = (int)(uint32_t)tag;

    switch ((enum rr__tag)(tag >> 32)) {
    case RR__TAG_CONTROL:
        serve_control(d);
        break;
    case RR__TAG_CALL:
        rr__heir_called(d);
        break;
    case RR__TAG_LISTENER:
        d->listeners[index].readable = 1;
        break;
    case RR__TAG_WORKER:
        rr__worker_died(d, &d->workers[index]);
        break;
    case RR__TAG_RECLAIMER:
        rr__reclaim_answer(d, &d->reclaimers[index]);
        break;
    }
}

/* A worker's death in the same round as its removal must not meet whoever got its place. */
static int still_there(const struct rr__dispatcher *d, uint64_t tag)
{
    return tag >> 32 != RR__TAG_WORKER || d->workers[(uint32_t)tag].used;
}

static int run_round(struct rr__dispatcher *d)
{
    int count = rr__poller_wait(&d->poller, d->events, timeout(d));

    if (count < 0)
        return count;
    d->now = d->system->now();
    d->rounds++;
    for (int i = 0; i < count; i++)
        if (still_there(d, d->events[i].tag))
            handle(d, d->events[i].tag);
    if (d->told_ns && d->now >= d->told_ns)
        rr__talk(d);
    rr__watch(d);
    rr__reclaim(d);
    rr__reclaim_reap(d);
    rr__listeners_due(d);
    rr__accept_all(d);
    rr__heir_due(d);
    if (d->leaving && may_end(d))
        d->ended = 1;
    return 0;
}

static void drop(struct rr__dispatcher *d, struct rr__hand *hand)
{
    d->lost += (uint64_t)hand->count;
    while (hand->count > 0)
        d->system->close(hand->fds[--hand->count]);
}

static void put_anywhere(struct rr__dispatcher *d, struct rr__worker *worker, struct rr__hand *hand)
{
    if (hand->count > 0 && rr__has_channel(worker, hand->listener))
        rr__put_back(d, worker, hand->listener, hand);
}

/* What is held when a STOP comes goes to whoever can have it. */
static void empty_hands(struct rr__dispatcher *d)
{
    rr__reclaim_end(d);
    rr__refresh(d);
    rr__retry_held(d);
    for (int i = 0; i < d->slots.used_count; i++) {
        struct rr__worker *worker = d->slots.used[i];
        if (worker->outbox.count > 0)
            rr__put_back(d, worker, worker->outbox.listener, &worker->outbox);
        put_anywhere(d, worker, &d->hand);
        for (int at = 0; at < d->listener_count; at++)
            put_anywhere(d, worker, &d->listeners[at].held);
        drop(d, &worker->outbox);
    }
    drop(d, &d->hand);
    for (int i = 0; i < d->listener_count; i++)
        drop(d, &d->listeners[i].held);
    rr__let_go(d);
    rr__talk(d);
}

static void close_all(struct rr__dispatcher *d)
{
    while (d->slots.used_count > 0)
        rr__worker_close(d, d->slots.used[d->slots.used_count - 1]);
    for (int i = 0; i < d->listener_count; i++) {
        if (d->listeners[i].state == RR__ARMED)
            rr__poller_remove(&d->poller, d->listeners[i].fd);
        if (d->listeners[i].state == RR__ARMED || d->listeners[i].state == RR__DISARMED)
            rr__close(d, &d->listeners[i].fd);
    }
    rr__kept_close(d, d->kept);
    rr__close(d, &d->heirs.pidfd);
    rr__close(d, &d->null);
    rr__poller_close(&d->poller);
    rr__close(d, &d->control);
}

static int set_up(struct rr__dispatcher *d)
{
    d->settings = (struct rr__settings){.queue_limit = 32,
                                        .stall_timeout = 10 * RR__MS,
                                        .band = 8,
                                        .round = RR__DEFAULT_ROUND,
                                        .pause_most = RR__PAUSE_MOST,
                                        .retry_most = RR__RETRY_MOST};
    d->null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (d->null < 0)
        return -errno;
    int result = rr__poller_open(&d->poller);
    if (result < 0)
        return result;
    d->now = d->system->now();
    result = rr__poller_add(&d->poller, d->control, rr__tag(RR__TAG_CONTROL, 0));
    if (result == 0)
        rr__event(d, RR_EVENT_STARTED, 0, (uint64_t)getpid());
    return result;
}

int rr__dispatcher_run(int control, const struct rr__system *system)
{
    struct rr__dispatcher *d =
        mmap(NULL, sizeof *d, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (d == MAP_FAILED) {
        int error = errno;
        close(control);
        return -error;
    }
    d->system = system;
    d->control = control;
    d->null = d->poller.fd = d->heirs.pidfd = -1;
    int result = set_up(d);
    while (result == 0 && !d->ended)
        result = run_round(d);
    empty_hands(d);
    close_all(d);
    munmap(d, sizeof *d);
    return result;
}

int rr_dispatcher_run(int control)
{
    return rr__dispatcher_run(control, &rr__system_real);
}
