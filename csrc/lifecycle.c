/* Owns a worker's states in the dispatcher, from WORKER_ADD to its removal, and its fds. */
#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>

#include "dispatcher.h"
#include "ledger.h"
#include "os.h"
#include "sock.h"

enum { PIDFD, BOARD, LIFELINE, CHANNELS };

static int check_fds(const int *fds, int count, uint64_t mask)
{
    if (count < CHANNELS || (count - CHANNELS) % 2 || (count - CHANNELS) / 2 > RR_MAX_LISTENERS)
        return -EPROTO;
    if (mask >> RR_MAX_LISTENERS)
        return -EINVAL;
    if (mask && __builtin_popcountll(mask) != (count - CHANNELS) / 2)
        return -EPROTO;
    for (int i = CHANNELS; i < count; i++) {
        int result = rr__expect_socket(fds[i], AF_UNIX, SOCK_STREAM);
        if (result < 0)
            return result;
    }
    return 0;
}

static void note(int event, const struct rr__worker *worker)
{
    struct rr__ledger_worker named = {worker->id, worker->slot, worker->generation};

    if (rr__ledger_on())
        rr__ledger_of_worker(event, named, worker->pidfd);
}

static struct rr__worker *find_free(struct rr__dispatcher *d)
{
    for (int i = 0; i < RR_MAX_WORKERS; i++)
        if (!d->workers[i].used)
            return &d->workers[i];
    return NULL;
}

/* What waits in a channel was sent by a dispatcher before us: it counts, from now on. */
static uint64_t adopt_channel(struct rr__dispatcher *d, struct rr__worker *worker, int listener,
                              const int *ends)
{
    int queued = d->system->pending(ends[1]);

    while (worker->channels <= listener)
        worker->channel[worker->channels++] = (struct rr__channel){.sender = -1, .receiver = -1};
    struct rr__channel *channel = &worker->channel[listener];
    channel->sender = ends[0];
    channel->receiver = ends[1];
    channel->sent = queued > 0 ? (uint64_t)queued : 0;
    for (int at = 0; at < RR__RING; at++) {
        channel->sent_ns[at] = d->now;
        channel->counts[at] = 1;
    }
    worker->mask |= (uint16_t)(1u << listener);
    return channel->sent;
}

/* In the order of the listeners in the mask; 0 = the first ones. */
static void adopt_channels(struct rr__dispatcher *d, struct rr__worker *worker, uint64_t mask,
                           const int *fds, int count)
{
    uint64_t waiting = 0;
    int listener = 0;

    for (int i = CHANNELS; i < count; i += 2, listener++) {
        while (mask && !(mask >> listener & 1))
            listener++;
        waiting += adopt_channel(d, worker, listener, &fds[i]);
    }
    worker->given = rr_scoreboard_load(worker->board, RR_FIELD_RECEIVED) +
                    rr_scoreboard_load(worker->board, RR_FIELD_LOST) + waiting;
    worker->sent = worker->given;
}

int rr__worker_add(struct rr__dispatcher *d, const struct rr_control *request, int *fds, int count)
{
    int result = check_fds(fds, count, request->value[2]);

    if (result < 0)
        return result;
    if (rr__slots_find(&d->slots, request->worker))
        return -EEXIST;
    struct rr__worker *worker = find_free(d);
    if (!worker)
        return -ENOSPC;
    struct rr_scoreboard *board = rr_scoreboard_map(fds[BOARD], 1);
    if (!board)
        return -errno;
    int index = (int)(worker - d->workers);
    result = rr__poller_add(&d->poller, fds[PIDFD], rr__tag(RR__TAG_WORKER, index));
    if (result < 0) {
        rr_scoreboard_unmap(board);
        return result;
    }
    memset(worker, 0, offsetof(struct rr__worker, channel));
    worker->used = 1;
    worker->board = board;
    worker->id = request->worker;
    worker->slot = (uint32_t)request->value[0];
    worker->generation = (uint32_t)request->value[1];
    worker->batch = 1;
    worker->reclaimer = worker->ready_index = -1;
    worker->odd_received = UINT64_MAX;
    worker->pidfd = fds[PIDFD];
    worker->board_fd = fds[BOARD];
    worker->lifeline = fds[LIFELINE];
    adopt_channels(d, worker, request->value[2], fds, count);
    for (int i = 0; i < count; i++)
        fds[i] = -1;
    rr__slots_insert(&d->slots, worker);
    note(RR_LEDGER_JOINED, worker);
    rr_scoreboard_store(board, RR_FIELD_STATE, RR_STATE_STARTING);
    rr_scoreboard_store(board, RR_FIELD_STALLED, 0);
    rr__watch_soon(d, d->now);
    return 0;
}

int rr__channel_add(struct rr__dispatcher *d, const struct rr_control *request, int *fds, int count)
{
    struct rr__worker *worker = rr__slots_find(&d->slots, request->worker);

    if (!worker)
        return -ESRCH;
    if (!rr__listener_open(d, request->listener))
        return -ENOENT;
    if (rr__has_channel(worker, (int)request->listener))
        return -EEXIST;
    if (count != 2 || rr__expect_socket(fds[0], AF_UNIX, SOCK_STREAM) < 0 ||
        rr__expect_socket(fds[1], AF_UNIX, SOCK_STREAM) < 0)
        return -EPROTO;
    if (worker->state == RR_STATE_DEAD || worker->state == RR_STATE_DRAINING)
        return -EINVAL;
    uint64_t waiting = adopt_channel(d, worker, (int)request->listener, fds);
    worker->given += waiting;
    worker->sent += waiting;
    fds[0] = fds[1] = -1;
    rr__slots_cover(&d->slots);
    rr__listeners_served(d);
    rr__watch_soon(d, d->now);
    return 0;
}

static void turn_changed(struct rr__dispatcher *d)
{
    rr__slots_rebuild(&d->slots);
    rr__refresh(d);
    rr__listeners_served(d);
}

void rr__worker_enter(struct rr__dispatcher *d, struct rr__worker *worker, int state)
{
    worker->state = (uint8_t)state;
    if (state == RR_STATE_DRAINING)
        rr__worker_unstall(d, worker);
    rr_scoreboard_store(worker->board, RR_FIELD_STATE, (uint64_t)state);
    turn_changed(d);
    rr__watch_soon(d, d->now + d->settings.stall_timeout);
}

/* Nothing of it is in a channel or on its way. */
int rr__worker_idle(const struct rr__worker *worker)
{
    uint32_t left = worker->state == RR_STATE_DRAINING ? worker->waiting : worker->queued;
    return left == 0 && worker->reclaimer < 0 && worker->outbox.count == 0;
}

int rr__worker_hopeless(const struct rr__dispatcher *d, const struct rr__worker *worker)
{
    if (worker->state != RR_STATE_DEAD || worker->reclaimer >= 0 || worker->outbox.count > 0)
        return 0;
    for (int i = 0; i < worker->channels; i++)
        if (worker->channel[i].left != worker->channel[i].sent && !rr__unserved(d, i))
            return 0;
    return 1;
}

void rr__worker_unstall(struct rr__dispatcher *d, struct rr__worker *worker)
{
    if (!worker->stalled)
        return;
    worker->stalled = worker->probing = worker->hung = 0;
    d->stalled--;
    rr_scoreboard_store(worker->board, RR_FIELD_STALLED, 0);
}

void rr__worker_died(struct rr__dispatcher *d, struct rr__worker *worker)
{
    if (worker->state == RR_STATE_DEAD)
        return;
    rr__poller_remove(&d->poller, worker->pidfd);
    rr__worker_unstall(d, worker);
    if (!worker->draining)
        worker->moved_before = worker->moved_away;
    note(RR_LEDGER_DEAD, worker);
    rr__worker_enter(d, worker, RR_STATE_DEAD);
    rr__event(d, RR_EVENT_DEAD, worker->id, 0);
    rr__watch_soon(d, d->now);
}

/* Closes all that was held of it; its place in the table is free then. */
void rr__worker_close(struct rr__dispatcher *d, struct rr__worker *worker)
{
    if (worker->state != RR_STATE_DEAD)
        rr__poller_remove(&d->poller, worker->pidfd);
    rr__worker_unstall(d, worker);
    for (int i = 0; i < worker->channels; i++) {
        rr__close(d, &worker->channel[i].sender);
        rr__close(d, &worker->channel[i].receiver);
    }
    rr_scoreboard_unmap(worker->board);
    rr__close(d, &worker->pidfd);
    rr__close(d, &worker->board_fd);
    rr__close(d, &worker->lifeline);
    rr__kept_close(d, worker->kept);
    rr__slots_remove(&d->slots, worker);
    worker->used = 0;
    turn_changed(d);
}
