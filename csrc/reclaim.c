/* Owns take-back: whose queue is to be moved, asking a reclaimer for it, and giving what comes to others.
 * Never waits for a reclaimer. One that does not answer in time is left alone, not killed: what it may
 * yet take would die with it; it answers when the worker lets go, which is at its death at the latest.
 * Where no process is to be had (pids.max, RLIMIT_NPROC) the dead worker's queue is emptied by the
 * dispatcher itself, a reclaimer without a process: whoever could be stuck inside recvmsg is gone. */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "dispatcher.h"
#include "fdpass.h"
#include "ledger.h"
#include "os.h"

#define REAP_NS (5 * RR__MS)

/* A draining worker is rid of its probe, too; else only connections are worth a process. */
static int is_there_anything(const struct rr__worker *worker)
{
    return worker->queued > 0 || (worker->state == RR_STATE_DRAINING && worker->waiting > 0);
}

int rr__reclaim_wanted(const struct rr__dispatcher *d, const struct rr__worker *worker)
{
    return !d->settings.no_take_back && (is_there_anything(worker) || worker->reclaimer >= 0) &&
           (worker->stalled || worker->state == RR_STATE_DEAD ||
            worker->state == RR_STATE_DRAINING);
}

static void end(struct rr__dispatcher *d, struct rr__reclaimer *one)
{
    if (one->link >= 0 && !one->unpolled)
        rr__poller_remove(&d->poller, one->link);
    rr__close(d, &one->link);
    if (one->worker)
        one->worker->reclaimer = -1;
    one->worker = NULL;
    one->unpolled = 0;
    one->state = one->pid > 0 ? RR__ENDING : RR__FREE;
    if (one->pid > 0)
        d->reap_ns = d->now + REAP_NS;
}

void rr__reclaim_reap(struct rr__dispatcher *d)
{
    int left = 0;

    if (!d->reap_ns || d->now < d->reap_ns)
        return;
    for (int i = 0; i < RR__RECLAIMERS; i++) {
        struct rr__reclaimer *one = &d->reclaimers[i];
        if (one->state == RR__ENDING && rr__reap_quiet(one->pid))
            one->state = RR__FREE;
        left += one->state == RR__ENDING;
    }
    d->reap_ns = left ? d->now + REAP_NS : 0;
}

static struct rr__reclaimer *find_free(struct rr__dispatcher *d)
{
    for (int i = 0; i < RR__RECLAIMERS; i++)
        if (d->reclaimers[i].state == RR__FREE)
            return &d->reclaimers[i];
    return NULL;
}

static struct rr__ledger_worker who(const struct rr__worker *worker)
{
    return (struct rr__ledger_worker){worker->id, worker->slot, worker->generation};
}

/* Its process and the link to it; -errno if they are not to be had. */
static int start_process(struct rr__dispatcher *d, struct rr__reclaimer *one, struct rr__worker *worker)
{
    int pair[2];
    int result = rr__socketpair(SOCK_SEQPACKET, pair);

    if (result < 0)
        return result;
    result = rr__poller_add(&d->poller, pair[0], rr__tag(RR__TAG_RECLAIMER, (int)(one - d->reclaimers)));
    if (result < 0) {
        rr__close_fds(pair, 2);
        return result;
    }
    pid_t pid = d->system->fork();
    if (pid == 0) {
        rr__ledger_reclaims_for(who(worker));
        rr__reclaimer_child(worker->channel[one->channel].receiver, pair[1]);
    }
    rr__close_fds(&pair[1], 1);
    if (pid < 0) {
        rr__poller_remove(&d->poller, pair[0]);
        rr__close_fds(pair, 1);
        return (int)pid;
    }
    one->pid = pid;
    one->link = pair[0];
    return 0;
}

static struct rr__reclaimer *start(struct rr__dispatcher *d, struct rr__worker *worker, int channel)
{
    struct rr__reclaimer *one = find_free(d);

    if (!one)
        return NULL;
    *one = (struct rr__reclaimer){.state = RR__FREE, .link = -1, .channel = channel};
    if (start_process(d, one, worker) < 0 && worker->state != RR_STATE_DEAD)
        return NULL;
    one->state = RR__IDLE;
    one->worker = worker;
    worker->reclaimer = (int)(one - d->reclaimers);
    return one;
}

static void fetched(struct rr__reclaimer *one, int count)
{
    struct rr__worker *worker = one->worker;
    struct rr__hand *hand = &one->hand;

    worker->channel[one->channel].reclaimed++;
    if (hand->message.kind == RR_KIND_PROBE) {
        rr__close_fds(hand->fds, count);
        worker->probing = 0;
        one->state = RR__IDLE;
        return;
    }
    hand->message.flags |= RR_FLAG_MOVED;
    hand->count = count;
    hand->listener = one->channel;
    worker->given -= (uint64_t)count;
    one->state = RR__HOLDING;
}

/* Without a process: one message, as a reclaimer would fetch it. */
static void fetch_here(struct rr__dispatcher *d, struct rr__reclaimer *one)
{
    struct rr__worker *worker = one->worker;
    struct rr__hand *hand = &one->hand;

    rr__ledger_reclaims_for(who(worker));
    int count = rr__take_any(worker->channel[one->channel].receiver, &hand->message, hand->fds, RR_BATCH_MAX);
    rr__ledger_dispatches();
    if (count > 0)
        fetched(one, count);
    rr__watch_soon(d, count > 0 ? d->now : d->now + RR__MS);
}

static void ask(struct rr__dispatcher *d, struct rr__reclaimer *one)
{
    char please = 1;

    if (one->link < 0) {
        fetch_here(d, one);
        return;
    }
    if (send(one->link, &please, sizeof please, MSG_DONTWAIT | MSG_NOSIGNAL) != 1) {
        end(d, one);
        return;
    }
    one->state = RR__ASKED;
    one->deadline_ns = d->now + RR__RECLAIM_NS;
}

static int waits(const struct rr__worker *worker, int channel)
{
    return worker->channel[channel].left != worker->channel[channel].sent;
}

/* Asked for and in hand: no more is fetched than there are others with room. What only some can have
 * is counted apart: it may be in hand for long. */
static int on_the_way(const struct rr__dispatcher *d, int channel)
{
    int count = 0;
    for (int i = 0; i < RR__RECLAIMERS; i++) {
        const struct rr__reclaimer *one = &d->reclaimers[i];
        int counts = one->channel == channel ||
                     (!rr__partial(d, channel) && !rr__partial(d, one->channel));
        count += counts && (one->state == RR__ASKED || one->state == RR__HOLDING);
    }
    return count;
}

static int may_fetch(const struct rr__dispatcher *d, const struct rr__worker *worker, int channel)
{
    return worker->queued == 0 || on_the_way(d, channel) < rr__room_for(d, channel);
}

/* The first channel in which something waits that somebody can have, or -1. */
static int fetchable(const struct rr__dispatcher *d, const struct rr__worker *worker)
{
    for (int i = 0; i < worker->channels; i++)
        if (waits(worker, i) && may_fetch(d, worker, i))
            return i;
    return -1;
}

static void place(struct rr__dispatcher *d, struct rr__reclaimer *one)
{
    struct rr__worker *worker = one->worker;
    int before = one->hand.count;
    int left = rr__place(d, &one->hand, 1);

    worker->moved_away += (uint64_t)(before - left);
    one->state = left > 0 ? RR__HOLDING : RR__IDLE;
}

/* With nobody ready to have it, what was taken back returns to its channel: its worker may yet take it. */
static void give_back(struct rr__dispatcher *d, struct rr__reclaimer *one)
{
    struct rr__worker *worker = one->worker;
    uint64_t before = (uint64_t)one->hand.count;

    if (rr__put_back(d, worker, one->channel, &one->hand) == 0)
        one->state = RR__IDLE;
    before -= (uint64_t)one->hand.count;
    worker->sent -= before; /* it was counted when it was sent first */
    d->sent -= before;
    rr_scoreboard_store(worker->board, RR_FIELD_SENT, worker->sent);
}

/* One that has answered: let it end, or go on with it as soon as somebody has room. */
static void proceed(struct rr__dispatcher *d, struct rr__reclaimer *one)
{
    struct rr__worker *worker = one->worker;

    if (one->state == RR__HOLDING)
        place(d, one);
    if (one->state == RR__HOLDING && !(d->slots.served >> one->channel & 1))
        give_back(d, one);
    if (one->state != RR__IDLE)
        return;
    rr__measure(d, worker);
    if (!is_there_anything(worker) || !rr__reclaim_wanted(d, worker) || !waits(worker, one->channel))
        end(d, one);
    else if (may_fetch(d, worker, one->channel))
        ask(d, one);
    else if (rr__unserved(d, one->channel) || fetchable(d, worker) >= 0)
        end(d, one); /* it will be long, or another channel has its turn */
}

/* Receives its answer: a message with fds, or 64 zero bytes. */
static void receive(struct rr__dispatcher *d, struct rr__reclaimer *one)
{
    struct rr__arrival arrival;
    struct rr__hand *hand = &one->hand;

    if (rr__room_for_fds(one->link, RR_BATCH_MAX) < 0) {
        /* It keeps until there is room. */
        if (!one->unpolled)
            rr__poller_remove(&d->poller, one->link);
        one->unpolled = 1;
        rr__watch_soon(d, d->now + RR__MS);
        return;
    }
    int result = rr__receive(one->link, &hand->message, sizeof hand->message, hand->fds, RR_BATCH_MAX,
                             0, &arrival);
    if (result == -EAGAIN)
        return;
    if (result > 0 && arrival.count > 0)
        fetched(one, arrival.count);
    else if (result > 0)
        one->state = RR__IDLE;
    else
        end(d, one);
}

void rr__reclaim_answer(struct rr__dispatcher *d, struct rr__reclaimer *one)
{
    if (one->state == RR__FREE || one->state == RR__ENDING || one->state == RR__HOLDING)
        return;
    receive(d, one);
    if (one->state == RR__FREE || one->state == RR__ENDING)
        return;
    if (one->unpolled && one->state != RR__ASKED && one->state != RR__LATE) {
        int index = (int)(one - d->reclaimers);
        one->unpolled = rr__poller_add(&d->poller, one->link, rr__tag(RR__TAG_RECLAIMER, index)) < 0;
    }
    if (one->state != RR__HOLDING && one->state != RR__IDLE)
        return;
    rr__refresh(d);
    proceed(d, one);
    d->wanting = 1;
    rr__watch_soon(d, d->now);
}

static void check_late(struct rr__dispatcher *d, struct rr__reclaimer *one)
{
    if (one->unpolled)
        rr__reclaim_answer(d, one);
    if (one->state == RR__ASKED && d->now >= one->deadline_ns) {
        one->state = RR__LATE;
        d->abandoned++;
    }
}

/* Every round while somebody's queue is to be taken back. */
void rr__reclaim(struct rr__dispatcher *d)
{
    if (!d->wanting)
        return;
    d->wanting = 0;
    rr__refresh(d);
    for (int i = 0; i < d->slots.used_count; i++) {
        struct rr__worker *worker = d->slots.used[i];
        if (worker->reclaimer >= 0) {
            struct rr__reclaimer *one = &d->reclaimers[worker->reclaimer];
            d->wanting = 1;
            check_late(d, one);
            if (one->state == RR__HOLDING || one->state == RR__IDLE)
                proceed(d, one);
            continue;
        }
        if (!rr__reclaim_wanted(d, worker))
            continue;
        d->wanting = 1;
        int channel = fetchable(d, worker);
        if (channel < 0)
            continue;
        struct rr__reclaimer *one = start(d, worker, channel);
        if (one)
            ask(d, one);
    }
}

/* Who waited for a worker that died goes before those who come now: accepting goes on by itself and
 * take-back by asking, so that under overload the first would be overtaken again and again. 1: accept
 * nothing as long as it goes on. What only some have a channel for holds up its own listener only. */
int rr__reclaims_of_dead(const struct rr__dispatcher *d, int listener)
{
    for (int i = 0; i < d->slots.used_count; i++) {
        const struct rr__worker *worker = d->slots.used[i];
        if (worker->state != RR_STATE_DEAD || worker->reclaimer < 0)
            continue;
        const struct rr__reclaimer *one = &d->reclaimers[worker->reclaimer];
        int concerned = listener >= 0 ? one->channel == listener : !rr__partial(d, one->channel);
        if (concerned && one->state != RR__LATE)
            return d->slots.ready_count > 0;
    }
    return 0;
}

/* At the end: nothing may stay in a hand. What was asked for is waited for, for a moment, and goes back
 * into the channel that it came from, where whoever follows us finds it. */
void rr__reclaim_end(struct rr__dispatcher *d)
{
    for (int i = 0; i < RR__RECLAIMERS; i++) {
        struct rr__reclaimer *one = &d->reclaimers[i];
        struct pollfd item = {.fd = one->link, .events = POLLIN};
        if (one->state == RR__FREE || one->state == RR__ENDING)
            continue;
        int patience = one->state == RR__ASKED ? (int)(RR__RECLAIM_NS / RR__MS) : 0;
        if ((one->state == RR__ASKED || one->state == RR__LATE) && poll(&item, 1, patience) == 1)
            receive(d, one);
        if (one->state == RR__HOLDING && rr__put_back(d, one->worker, one->channel, &one->hand) < 0) {
            d->lost += (uint64_t)one->hand.count;
            rr__close_fds(one->hand.fds, one->hand.count);
        }
        if (one->state != RR__FREE && one->state != RR__ENDING)
            end(d, one);
    }
    for (int tries = 0; tries < 20; tries++) {
        d->reap_ns = 1;
        rr__reclaim_reap(d);
        if (!d->reap_ns)
            return;
        poll(NULL, 0, 1);
    }
}
