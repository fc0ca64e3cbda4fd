/* Owns what only time shows: who is stalled, recovered, hung, drained, and empty enough to be removed.
 * Runs on a timer that is armed only while something waits somewhere. Moves nothing itself. */
#include "dispatcher.h"

#define ASLEEP RR__SECOND /* no look for so long, while something waited: we did not run */
#define INTERVAL_MOST (10 * RR__MS)
#define IDLE_PATIENCE 5   /* times stall_timeout */
#define STUCK_PATIENCE 20 /* the same while no other queue is empty */
#define STUCK_TAKES 8     /* by each of the others meanwhile */

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

/* What everybody took, as the looks see it: the measure of who takes nothing. */
static void note_progress(struct rr__dispatcher *d, struct rr__worker *worker)
{
    worker->progressed = worker->taken != worker->taken_seen || (!worker->stalled && !worker->queued);
    if (!worker->progressed)
        return;
    if (worker->taken > worker->taken_seen)
        d->progress += worker->taken - worker->taken_seen;
    worker->taken_seen = worker->taken;
    worker->progress_ns = d->now;
    worker->hung = 0;
}

/* Hung: something waits, connection or probe, and it took nothing for heartbeat_timeout. Idle is not
 * hung, nor is one that works off a long queue. */
static void look_for_hung(struct rr__dispatcher *d, struct rr__worker *worker)
{
    uint64_t limit = d->settings.heartbeat_timeout;
    int alive = worker->state != RR_STATE_DEAD && worker->state != RR_STATE_STARTING;

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

/* While all are busy no queue is ever empty, and what waits for one that is stopped would wait for as
 * long: it is stuck when each of the others took several while it took none. */
static int is_stuck(const struct rr__dispatcher *d, const struct rr__worker *worker, int others)
{
    uint64_t since = worker->progress_ns > worker->oldest_ns ? worker->progress_ns : worker->oldest_ns;

    return others > 0 && is_overdue(d, worker) &&
           d->now - since > STUCK_PATIENCE * d->settings.stall_timeout &&
           d->progress - worker->progress_then >= (uint64_t)STUCK_TAKES * (uint64_t)others;
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

/* Those in the turn: ready and not stalled. */
struct crowd {
    int turning, empty_queues;
};

static void count_in(struct crowd *crowd, const struct rr__worker *worker)
{
    if (worker->state != RR_STATE_READY || worker->stalled)
        return;
    crowd->turning++;
    crowd->empty_queues += worker->queued == 0;
}

/* Those who could have what waits for it. */
static struct crowd crowd_around(const struct rr__dispatcher *d, const struct rr__worker *worker)
{
    struct crowd crowd = {0};

    for (int i = 0; i < d->slots.ready_count; i++)
        if (rr__has_channel(d->slots.ready[i], worker->oldest_channel))
            count_in(&crowd, d->slots.ready[i]);
    return crowd;
}

/* 1 when it has to be looked at again. */
static int look_at(struct rr__dispatcher *d, struct rr__worker *worker, const struct crowd *all)
{
    int again = rr__settle(worker), apart = worker->queued > 0 && rr__partial(d, worker->oldest_channel);
    struct crowd around = apart ? crowd_around(d, worker) : *all, *crowd = &around;
    int others = crowd->turning - (worker->state == RR_STATE_READY && !worker->stalled);

    if (worker->progressed)
        worker->progress_then = d->progress;
    if (worker->stalled)
        look_at_stalled(d, worker);
    else if (crowd->empty_queues > 0 ? is_overdue(d, worker) : is_stuck(d, worker, others))
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
    struct crowd crowd = {0};
    int again = 0;
    uint64_t oldest = UINT64_MAX;

    if (!d->watch_ns || d->now < d->watch_ns)
        return;
    d->watch_ns = 0;
    /* Frozen with us, or starved as we were: nobody is to blame for that time. */
    int asleep = d->now - d->watched_ns > ASLEEP;
    d->watched_ns = d->now;
    for (int i = 0; i < d->slots.used_count; i++) {
        struct rr__worker *worker = d->slots.used[i];
        rr__measure(d, worker);
        note_progress(d, worker);
        if (asleep)
            worker->progress_ns = d->now;
        count_in(&crowd, worker);
        if (!worker->stalled && worker->oldest_ns < oldest)
            oldest = worker->oldest_ns;
    }
    for (int i = d->slots.used_count - 1; i >= 0; i--)
        again |= look_at(d, d->slots.used[i], &crowd);
    if (again)
        rr__watch_soon(d, next_look(d, oldest));
}
