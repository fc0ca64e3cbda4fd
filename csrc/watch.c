/* Owns what only time shows: who is stalled, recovered, hung, drained, and empty enough to be removed.
 * Runs on a timer that is armed only while something waits somewhere. Moves nothing itself. */
#include "dispatcher.h"

#define INTERVAL_MOST (10 * RR__MS)
#define IDLE_PATIENCE 5 /* times stall_timeout */

void rr__watch_soon(struct rr__dispatcher *d, uint64_t when)
{
    if (!d->watch_ns || when < d->watch_ns)
        d->watch_ns = when;
}

static int outstanding(const struct rr__dispatcher *d, const struct rr__worker *worker)
{
    if (worker->reclaimer < 0)
        return 0;
    int state = d->reclaimers[worker->reclaimer].state;
    return state == RR__ASKED || state == RR__LATE;
}

static void become_stalled(struct rr__dispatcher *d, struct rr__worker *worker)
{
    worker->stalled = 1;
    worker->stalled_ns = d->now;
    worker->taken_at_stall = worker->taken;
    d->stalled++;
    rr__pass_over(d, worker->ready_index);
    rr_scoreboard_store(worker->board, RR_FIELD_STALLED, 1);
    rr__event(d, RR_EVENT_STALLED, worker->id, d->now - worker->oldest_ns);
}

static void recover(struct rr__dispatcher *d, struct rr__worker *worker)
{
    uint64_t lasted = d->now - worker->stalled_ns;
    rr__worker_unstall(d, worker);
    rr__event(d, RR_EVENT_RECOVERED, worker->id, lasted);
}

/* It took something itself, be it the probe: what a reclaimer has taken or may just be taking does not
 * count. With an empty queue a probe is the question. */
static void look_at_stalled(struct rr__dispatcher *d, struct rr__worker *worker)
{
    int asked = outstanding(d, worker);

    if (worker->taken > worker->taken_at_stall + (uint64_t)asked) {
        recover(d, worker);
        return;
    }
    if (worker->queued > 0 || worker->reclaimer >= 0 || worker->probing)
        return;
    if (d->settings.no_probe)
        recover(d, worker);
    else
        worker->probing = rr__send_probe(d, worker, worker->oldest_channel) == 0;
}

/* At every fresh count: one that takes again is back in the turn at once. */
void rr__watch_stalled(struct rr__dispatcher *d)
{
    for (int i = 0; i < d->slots.used_count; i++) {
        struct rr__worker *worker = d->slots.used[i];
        if (!worker->stalled)
            continue;
        rr__measure(d, worker);
        look_at_stalled(d, worker);
    }
}

/* Hung: something waits, connection or probe, and it took nothing for heartbeat_timeout. Idle is not
 * hung, nor is one that works off a long queue. */
static void look_for_hung(struct rr__dispatcher *d, struct rr__worker *worker)
{
    uint64_t limit = d->settings.heartbeat_timeout;
    int alive = worker->state != RR_STATE_DEAD && worker->state != RR_STATE_STARTING;

    if (worker->taken != worker->taken_seen || (!worker->stalled && !worker->queued)) {
        worker->taken_seen = worker->taken;
        worker->progress_ns = d->now;
        worker->hung = 0;
    }
    if (!limit || !alive || worker->hung || (!worker->stalled && !worker->queued))
        return;
    uint64_t since = worker->stalled ? worker->stalled_ns : worker->oldest_ns;
    if (since < worker->progress_ns)
        since = worker->progress_ns;
    if (d->now - since < limit)
        return;
    worker->hung = 1;
    rr__event(d, RR_EVENT_HUNG, worker->id, d->now - since);
}

/* One with nothing in hand waits for a core, or is stopped: on a busy machine it is only late, and to
 * move what it was given would bend the turn without serving anybody sooner. */
static uint64_t patience(const struct rr__dispatcher *d, const struct rr__worker *worker)
{
    uint64_t received = rr_scoreboard_load(worker->board, RR_FIELD_RECEIVED);
    uint64_t closed = rr_scoreboard_load(worker->board, RR_FIELD_CLOSED);

    return d->settings.stall_timeout * (received == closed ? IDLE_PATIENCE : 1);
}

static int is_overdue(const struct rr__dispatcher *d, const struct rr__worker *worker)
{
    return (worker->state == RR_STATE_READY || worker->state == RR_STATE_PARKED) &&
           !worker->stalled && worker->queued > 0 &&
           d->now - worker->oldest_ns > patience(d, worker);
}

static void finish_drain(struct rr__dispatcher *d, struct rr__worker *worker)
{
    struct rr_control answer = {.version = RR_CONTROL_VERSION,
                                .kind = RR_CONTROL_WORKER_DRAIN,
                                .sequence = worker->drain_sequence,
                                .worker = worker->id,
                                .value = {worker->moved_away - worker->moved_before}};

    worker->draining = 0;
    rr__tell(d, &answer);
}

static void finish_remove(struct rr__dispatcher *d, struct rr__worker *worker)
{
    struct rr_control answer = {
        .version = RR_CONTROL_VERSION,
        .kind = RR_CONTROL_WORKER_REMOVE,
        .sequence = worker->remove_sequence,
        .worker = worker->id,
        .value = {worker->moved_away - worker->moved_before, worker->sent,
                  rr_scoreboard_load(worker->board, RR_FIELD_RECEIVED)}};

    int asked = worker->removing == RR__AWAITED;

    d->lost += worker->queued;
    rr__worker_close(d, worker);
    if (asked)
        rr__tell(d, &answer);
}

/* 1 when it has to be looked at again. */
static int look_at(struct rr__dispatcher *d, struct rr__worker *worker, int empty_queues)
{
    int again = rr__settle(worker);

    if (worker->stalled)
        look_at_stalled(d, worker);
    else if (empty_queues > 0 && is_overdue(d, worker))
        become_stalled(d, worker);
    look_for_hung(d, worker);
    if (rr__reclaim_wanted(d, worker))
        d->wanting = 1;
    if (worker->draining == RR__AWAITED && rr__worker_idle(worker))
        finish_drain(d, worker);
    int abandoned = d->settings.no_take_back && worker->reclaimer < 0 && worker->outbox.count == 0;
    if (worker->removing && (rr__worker_idle(worker) || abandoned)) {
        finish_remove(d, worker);
        return 0;
    }
    return again || worker->queued || worker->stalled || worker->draining == RR__AWAITED ||
           worker->removing || worker->reclaimer >= 0;
}

/* When to look again: as soon as somebody could have become overdue. */
static uint64_t next_look(const struct rr__dispatcher *d, uint64_t oldest)
{
    uint64_t interval = d->settings.stall_timeout < INTERVAL_MOST ? d->settings.stall_timeout
                                                                  : INTERVAL_MOST;
    uint64_t when = d->now + (interval > RR__MS ? interval : RR__MS);

    uint64_t overdue = oldest == UINT64_MAX ? UINT64_MAX : oldest + d->settings.stall_timeout;
    if (overdue > d->now && overdue < when)
        when = overdue;
    return when > d->now + RR__MS ? when : d->now + RR__MS;
}

void rr__watch(struct rr__dispatcher *d)
{
    int empty_queues = 0, again = 0;
    uint64_t oldest = UINT64_MAX;

    if (!d->watch_ns || d->now < d->watch_ns)
        return;
    d->watch_ns = 0;
    for (int i = 0; i < d->slots.used_count; i++) {
        struct rr__worker *worker = d->slots.used[i];
        rr__measure(d, worker);
        if (worker->state == RR_STATE_READY && !worker->stalled && worker->queued == 0)
            empty_queues++;
        if (!worker->stalled && worker->oldest_ns < oldest)
            oldest = worker->oldest_ns;
    }
    for (int i = d->slots.used_count - 1; i >= 0; i--)
        again |= look_at(d, d->slots.used[i], empty_queues);
    if (again)
        rr__watch_soon(d, next_look(d, oldest));
}
