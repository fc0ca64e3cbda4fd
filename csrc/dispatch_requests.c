/* Owns the primary's requests: one handler each, in a table keyed by kind. Must not know sockets. */
#include <errno.h>

#include "dispatcher.h"
#include "os.h"
#include "sock.h"

#include <sys/socket.h>

enum { SWITCH_NO_TAKE_BACK = 1, SWITCH_NO_PROBE = 2, SWITCH_NO_PAUSE = 4, SWITCH_LEAK = 8,
       ROUND_MOST = 4096 };

struct call {
    const struct rr_control *request;
    struct rr_control *answer;
    int *fds;
    int count;
};

static int on_settings(struct rr__dispatcher *d, const struct call *call)
{
    const uint64_t *value = call->request->value;
    struct rr__settings *settings = &d->settings;

    if (value[0] > RR_SOURCE_HASH || value[1] < 1 || value[1] > RR_QUEUE_LIMIT_MAX ||
        value[2] < 1 || value[3] > UINT32_MAX || value[5] > ROUND_MOST)
        return -EINVAL;
    settings->policy = (int)value[0];
    settings->queue_limit = (uint32_t)value[1];
    settings->stall_timeout = value[2] < RR__TIMEOUT_MOST ? value[2] : RR__TIMEOUT_MOST;
    settings->band = (uint32_t)value[3];
    settings->heartbeat_timeout = value[4];
    settings->round = value[5] ? (uint32_t)value[5] : RR__DEFAULT_ROUND;
    settings->no_take_back = (value[6] & SWITCH_NO_TAKE_BACK) != 0;
    settings->no_probe = (value[6] & SWITCH_NO_PROBE) != 0;
    settings->pause_most = value[6] & SWITCH_NO_PAUSE ? 0 : RR__PAUSE_MOST;
    settings->retry_most = value[6] & SWITCH_NO_PAUSE ? 0 : RR__RETRY_MOST;
    if (value[6] & SWITCH_LEAK)
        d->system = &rr__system_leaking;
    rr__watch_soon(d, d->now);
    return 0;
}

static int on_listener_add(struct rr__dispatcher *d, const struct call *call)
{
    uint32_t index = call->request->listener;

    if (call->count != 1)
        return -EPROTO;
    if (index >= RR_MAX_LISTENERS)
        return -ERANGE;
    struct rr__listener *listener = &d->listeners[index];
    if (listener->state == RR__ARMED || listener->state == RR__DISARMED)
        return -EEXIST;
    int result = rr__expect_listener(call->fds[0]);
    if (result == 0)
        result = rr__nonblocking(call->fds[0]);
    if (result < 0)
        return result;
    *listener = (struct rr__listener){.fd = call->fds[0],
                                      .state = RR__DISARMED,
                                      .shared = call->request->value[0] & 1,
                                      .held = listener->held,
                                      .retry_ns = listener->held.count > 0 ? d->now : 0};
    call->fds[0] = -1;
    if ((int)index >= d->listener_count)
        d->listener_count = (int)index + 1;
    if (!d->full)
        rr__arm(d, listener, 1);
    return 0;
}

static int on_listener_close(struct rr__dispatcher *d, const struct call *call)
{
    uint32_t index = call->request->listener;

    if (index >= (uint32_t)d->listener_count)
        return -ENOENT;
    struct rr__listener *listener = &d->listeners[index];
    if (listener->state == RR__FAILED) {
        listener->state = RR__CLOSED;
        return 0;
    }
    if (listener->state != RR__ARMED && listener->state != RR__DISARMED)
        return -ENOENT;
    if (listener->closing && listener->told)
        return -EALREADY;
    listener->sequence = call->request->sequence;
    listener->told = 1;
    if (!listener->closing)
        rr__listener_start_close(d, listener, call->request->value[0], call->request->value[1]);
    return RR__LATER;
}

static int on_channel_add(struct rr__dispatcher *d, const struct call *call)
{
    return rr__channel_add(d, call->request, call->fds, call->count);
}

static int on_worker_add(struct rr__dispatcher *d, const struct call *call)
{
    return rr__worker_add(d, call->request, call->fds, call->count);
}

static int on_worker_ready(struct rr__dispatcher *d, const struct call *call)
{
    struct rr__worker *worker = rr__slots_find(&d->slots, call->request->worker);
    const uint64_t *value = call->request->value;

    if (!worker)
        return -ESRCH;
    if (value[1] > RR_BATCH_MAX || value[0] > UINT32_MAX)
        return -EINVAL;
    if (worker->state == RR_STATE_DEAD || worker->state == RR_STATE_DRAINING)
        return -EINVAL;
    worker->capacity = (uint32_t)value[0];
    worker->batch = value[1] > 1 ? (uint8_t)value[1] : 1;
    rr__worker_enter(d, worker, RR_STATE_READY);
    return 0;
}

static int on_worker_park(struct rr__dispatcher *d, const struct call *call)
{
    struct rr__worker *worker = rr__slots_find(&d->slots, call->request->worker);

    if (!worker)
        return -ESRCH;
    if (worker->state != RR_STATE_READY && worker->state != RR_STATE_PARKED)
        return -EINVAL;
    rr__worker_enter(d, worker, RR_STATE_PARKED);
    return 0;
}

static int on_worker_drain(struct rr__dispatcher *d, const struct call *call)
{
    struct rr__worker *worker = rr__slots_find(&d->slots, call->request->worker);

    if (!worker)
        return -ESRCH;
    if (worker->draining == RR__AWAITED)
        return -EALREADY;
    if (worker->draining != RR__ORPHANED)
        worker->moved_before = worker->moved_away;
    worker->draining = RR__AWAITED;
    worker->drain_sequence = call->request->sequence;
    if (worker->state != RR_STATE_DEAD)
        rr__worker_enter(d, worker, RR_STATE_DRAINING);
    rr__watch_soon(d, d->now);
    return RR__LATER;
}

static int on_worker_remove(struct rr__dispatcher *d, const struct call *call)
{
    struct rr__worker *worker = rr__slots_find(&d->slots, call->request->worker);

    if (!worker)
        return -ESRCH;
    if (worker->removing == RR__AWAITED)
        return -EALREADY;
    if (worker->state != RR_STATE_DEAD) {
        if (!rr__pidfd_ended(worker->pidfd))
            return -EBUSY;
        rr__worker_died(d, worker);
    }
    worker->removing = RR__AWAITED;
    worker->remove_sequence = call->request->sequence;
    rr__watch_soon(d, d->now);
    return RR__LATER;
}

static int on_ping(struct rr__dispatcher *d, const struct call *call)
{
    uint64_t *value = call->answer->value;

    value[0] = d->now;
    value[1] = d->accepted;
    value[2] = d->sent;
    value[3] = d->moved;
    value[4] = d->accept_errors;
    value[5] = d->lost;
    value[6] = d->abandoned;
    value[7] = (uint64_t)d->slots.used_count;
    value[8] = d->rounds;
    value[9] = d->heirs.started;
    return 0;
}

static int on_stats(struct rr__dispatcher *d, const struct call *call)
{
    struct rr__worker *worker = rr__slots_find(&d->slots, call->request->worker);
    uint64_t *value = call->answer->value;

    if (!worker)
        return -ESRCH;
    rr__measure(d, worker);
    uint64_t received = rr_scoreboard_load(worker->board, RR_FIELD_RECEIVED);
    uint64_t inflight = received - rr_scoreboard_load(worker->board, RR_FIELD_CLOSED);
    value[0] = worker->sent;
    value[1] = worker->queued;
    value[2] = (int64_t)inflight < 0 ? 0 : inflight;
    value[3] = worker->state;
    value[4] = worker->stalled;
    value[5] = worker->moved_away;
    value[6] = worker->picks;
    value[7] = worker->capacity;
    return 0;
}

static int on_keep(struct rr__dispatcher *d, const struct call *call)
{
    return rr__keep(d, call->request, call->fds, call->count);
}

static int on_inherit(struct rr__dispatcher *d, const struct call *call)
{
    const struct rr_control *request = call->request;
    struct rr_control *answer = call->answer;
    int fds[RR_CONTROL_FDS];

    answer->value[RR__INHERIT_WHAT] = request->value[0];
    answer->value[RR__INHERIT_TAG] = request->value[1];
    int result = rr__inherited(d, answer, fds);
    if (result < 0)
        return result;
    if (request->value[0] == RR_INHERIT_LISTENER)
        answer->value[0] = d->listeners[request->listener].closing;
    return request->value[0] == RR_INHERIT_WORKER ? on_stats(d, call) : 0;
}

static int on_heir(struct rr__dispatcher *d, const struct call *call)
{
    return rr__heir_command(d, call->request, call->fds, call->count);
}

static int on_stop(struct rr__dispatcher *d, const struct call *call)
{
    (void)call;
    d->ended = 1;
    return 0;
}

static const struct handler {
    int (*run)(struct rr__dispatcher *d, const struct call *call);
    int takes_fds;
} handlers[] = {
    [RR_CONTROL_SETTINGS] = {on_settings, 0},
    [RR_CONTROL_LISTENER_ADD] = {on_listener_add, 1},
    [RR_CONTROL_LISTENER_CLOSE] = {on_listener_close, 0},
    [RR_CONTROL_WORKER_ADD] = {on_worker_add, 1},
    [RR_CONTROL_WORKER_READY] = {on_worker_ready, 0},
    [RR_CONTROL_WORKER_PARK] = {on_worker_park, 0},
    [RR_CONTROL_WORKER_DRAIN] = {on_worker_drain, 0},
    [RR_CONTROL_WORKER_REMOVE] = {on_worker_remove, 0},
    [RR_CONTROL_PING] = {on_ping, 0},
    [RR_CONTROL_STATS] = {on_stats, 0},
    [RR_CONTROL_STOP] = {on_stop, 0},
    [RR_CONTROL_KEEP] = {on_keep, 1},
    [RR_CONTROL_INHERIT] = {on_inherit, 0},
    [RR_CONTROL_HEIR] = {on_heir, 1},
    [RR_CONTROL_CHANNEL_ADD] = {on_channel_add, 1},
};

int rr__request(struct rr__dispatcher *d, const struct rr_control *request, int *fds, int count,
                struct rr_control *answer)
{
    struct call call = {.request = request, .answer = answer, .fds = fds, .count = count};

    if (request->kind >= sizeof handlers / sizeof *handlers || !handlers[request->kind].run)
        return -ENOSYS;
    if (count > 0 && !handlers[request->kind].takes_fds)
        return -EPROTO;
    return handlers[request->kind].run(d, &call);
}
