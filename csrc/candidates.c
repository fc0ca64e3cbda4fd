/* Owns what the policy sees of each worker: from its scoreboard, which it may fill with anything, and
 * from the kernel's count of its queue, which is exact. Changes no queue. */
#include <sys/socket.h>

#include "dispatcher.h"

#define INFLIGHT_MAX (1u << 20)
#define AHEAD 1                /* what may wait at a busy worker that took nothing lately */
#define LATELY_NS (2 * RR__MS) /* twice as long as a full dispatcher sleeps before it looks again */

static uint64_t load(const uint64_t *where)
{
    return __atomic_load_n(where, __ATOMIC_ACQUIRE);
}

static void measure_channel(struct rr__dispatcher *d, struct rr__worker *worker, int index)
{
    struct rr__channel *channel = &worker->channel[index];
    int waiting = d->system->pending(channel->receiver);

    if (waiting < 0)
        waiting = 0;
    channel->left = channel->sent - (uint32_t)waiting;
    worker->waiting += (uint32_t)waiting;
    if (waiting > RR__RING)
        waiting = RR__RING;
    for (uint64_t at = channel->sent - (uint64_t)waiting; at != channel->sent; at++) {
        int count = channel->counts[at % RR__RING];
        uint64_t sent_ns = channel->sent_ns[at % RR__RING];
        worker->queued += (uint32_t)count;
        if (count > 0 && sent_ns < worker->oldest_ns) {
            worker->oldest_ns = sent_ns;
            worker->oldest_channel = index;
        }
    }
}

/* Asks the kernel only where something may wait: an idle worker costs nothing. */
void rr__measure(struct rr__dispatcher *d, struct rr__worker *worker)
{
    worker->queued = worker->waiting = 0;
    worker->oldest_ns = UINT64_MAX;
    worker->taken = 0;
    for (int i = 0; i < worker->channels; i++) {
        struct rr__channel *channel = &worker->channel[i];
        if (channel->left != channel->sent)
            measure_channel(d, worker, i);
        worker->taken += (uint32_t)(channel->left - channel->reclaimed);
    }
}

/* In the last one or two periods, of those in which somebody looked. */
static uint64_t taken_lately(struct rr__worker *worker, uint64_t handled, uint64_t now)
{
    uint64_t since = now - worker->lately_ns;

    if (since >= LATELY_NS) {
        worker->lately_before = since < 2 * LATELY_NS ? worker->lately_handled : handled;
        worker->lately_handled = handled;
        worker->lately_ns = now;
    }
    return handled - worker->lately_before;
}

/* How many may wait there. A worker that said how many it serves at a time is given what it has places
 * for, what it took lately, and a little more: who waits behind a request that takes long has no part
 * in the place that becomes free elsewhere, while the backlog goes to whoever is first. */
static uint64_t queue_limit(const struct rr__dispatcher *d, struct rr__worker *worker, uint64_t handled,
                            uint64_t inflight)
{
    uint64_t most = d->settings.queue_limit;

    if (worker->capacity == 0 || d->settings.policy != RR_ROUND_ROBIN)
        return most;
    uint64_t limit = AHEAD + taken_lately(worker, handled, d->now);
    if (inflight < worker->capacity)
        limit += worker->capacity - inflight;
    return limit < most ? limit : most;
}

static void refresh_one(struct rr__dispatcher *d, struct rr__worker *worker,
                        struct rr_candidate *one)
{
    uint64_t received = load(&worker->board->received);
    uint64_t handled = received + load(&worker->board->lost);
    uint64_t inflight = received - load(&worker->board->closed);
    uint64_t pending = worker->given - handled;

    /* It does not count (yet), or counts wrongly: the kernel knows. */
    if (received == 0 || pending > RR_QUEUE_LIMIT_MAX + RR_BATCH_MAX) {
        rr__measure(d, worker);
        pending = worker->queued;
    }
    if (received == 0 || (int64_t)inflight < 0)
        inflight = 0;
    one->pending = (uint32_t)pending + (uint32_t)worker->outbox.count;
    one->inflight = inflight < INFLIGHT_MAX ? (uint32_t)inflight : INFLIGHT_MAX;
    one->capacity = worker->capacity;
    one->slot = (uint16_t)worker->slot;
    worker->limit = (uint32_t)queue_limit(d, worker, handled, inflight);
    d->short_queues |= worker->limit < d->settings.queue_limit;
    one->eligible = !worker->stalled && one->pending < worker->limit && d->now >= worker->pause_ns;
    if (worker->handled != handled) {
        worker->handled = handled;
        worker->moved_ns = d->now;
    }
    one->fresh = d->now - worker->moved_ns < d->settings.stall_timeout;
}

void rr__refresh(struct rr__dispatcher *d)
{
    uint64_t fewest = UINT64_MAX;

    if (d->stalled)
        rr__watch_stalled(d);
    d->since_refresh = 0;
    d->short_queues = 0;
    d->room = 0;
    for (int i = 0; i < d->slots.ready_count; i++) {
        struct rr_candidate *one = &d->candidates[i];
        refresh_one(d, d->slots.ready[i], one);
        if (!one->eligible)
            continue;
        d->room++;
        uint64_t load_of_one = (uint64_t)one->pending + one->inflight;
        if (load_of_one < fewest)
            fewest = load_of_one;
    }
    d->fewest = fewest == UINT64_MAX ? 0 : (uint32_t)fewest;
}

/* Until the next fresh count it gets nothing. */
void rr__pass_over(struct rr__dispatcher *d, int ready_index)
{
    if (ready_index < 0 || !d->candidates[ready_index].eligible)
        return;
    d->candidates[ready_index].eligible = 0;
    d->room--;
}

/* A worker that died or forked inside a take leaves its counts wrong by one for ever. What stays wrong
 * for two looks, while nothing moves, is set right by the kernel's count. 1: look again. */
int rr__settle(struct rr__worker *worker)
{
    uint64_t handled = load(&worker->board->received) + load(&worker->board->lost);
    uint64_t pending = worker->given - handled;

    if (load(&worker->board->received) == 0 || pending == worker->queued) {
        worker->odd_received = UINT64_MAX;
        return 0;
    }
    if (worker->odd_received == handled && worker->odd_given == worker->given) {
        worker->given = handled + worker->queued;
        worker->odd_received = UINT64_MAX;
        return 0;
    }
    worker->odd_received = handled;
    worker->odd_given = worker->given;
    return 1;
}

/* Where the turn of a partial listener stands: behind whoever got its last connection, or behind the
 * place of that one's slot if it has left the turn. */
static int turn_of(const struct rr__dispatcher *d, const struct rr__listener *listener)
{
    const struct rr__slots *slots = &d->slots;

    for (int i = 0; i < slots->ready_count; i++)
        if (slots->ready[i]->id == listener->turn_after)
            return i + 1;
    for (int i = 0; i < slots->ready_count; i++)
        if (slots->ready[i]->slot >= listener->turn_slot)
            return i;
    return 0;
}

static int pick_among(const struct rr__dispatcher *d, int policy, int listener, int turn,
                      uint64_t source)
{
    struct rr_candidate some[RR_MAX_WORKERS];
    int index[RR_MAX_WORKERS], count = 0, first = 0;
    uint64_t fewest = UINT64_MAX;

    for (int i = 0; i < d->slots.ready_count; i++) {
        const struct rr_candidate *one = &d->candidates[i];
        if (!rr__has_channel(d->slots.ready[i], listener))
            continue;
        uint64_t load_of_one = (uint64_t)one->pending + one->inflight;
        if (one->eligible && load_of_one < fewest)
            fewest = load_of_one;
        first += i < turn;
        index[count] = i;
        some[count++] = *one;
    }
    if (fewest == UINT64_MAX)
        fewest = 0;
    int picked = source
                     ? rr_pick_source(some, count, source)
                     : rr_pick(policy, some, count, first, (uint32_t)fewest, d->settings.band);
    return picked < 0 ? -1 : index[picked];
}

int rr__next(const struct rr__dispatcher *d, int listener)
{
    if (rr__partial(d, listener))
        return pick_among(d, d->settings.policy, listener, turn_of(d, &d->listeners[listener]), 0);
    return rr_pick(d->settings.policy, d->candidates, d->slots.ready_count, d->slots.turn, d->fewest,
                   d->settings.band);
}

/* What is moved does not change the count and the turn of `strict`. */
int rr__next_for_moved(const struct rr__dispatcher *d, int listener)
{
    if (d->settings.policy != RR_STRICT)
        return rr__next(d, listener);
    if (rr__partial(d, listener))
        return pick_among(d, RR_ROUND_ROBIN, listener, d->move_turn, 0);
    return rr_pick(RR_ROUND_ROBIN, d->candidates, d->slots.ready_count, d->move_turn, d->fewest,
                   d->settings.band);
}

/* Of the first connection in the hand; the others of a message that was taken back know it themselves. */
static uint64_t source_of(const struct rr__hand *hand)
{
    struct sockaddr_storage peer;
    socklen_t length = sizeof peer;

    if (hand->message.peer_length > 0)
        return rr_source(hand->message.peer, hand->message.peer_length);
    if (getpeername(hand->fds[0], (struct sockaddr *)&peer, &length) < 0)
        return 0;
    return rr_source((const uint8_t *)&peer, length < sizeof peer ? length : sizeof peer);
}

/* With `source-hash` the client's address says who; where there is none it is as with `round-robin`. */
int rr__next_of(const struct rr__dispatcher *d, const struct rr__hand *hand, int moved)
{
    uint64_t source = d->settings.policy == RR_SOURCE_HASH ? source_of(hand) : 0;

    if (!source)
        return moved ? rr__next_for_moved(d, hand->listener) : rr__next(d, hand->listener);
    if (rr__partial(d, hand->listener))
        return pick_among(d, RR_SOURCE_HASH, hand->listener, 0, source);
    return rr_pick_source(d->candidates, d->slots.ready_count, source);
}

int rr__room_for(const struct rr__dispatcher *d, int listener)
{
    int room = 0;

    if (!rr__partial(d, listener))
        return d->room;
    for (int i = 0; i < d->slots.ready_count; i++)
        room += d->candidates[i].eligible && rr__has_channel(d->slots.ready[i], listener);
    return room;
}
