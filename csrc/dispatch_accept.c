/* Owns the listeners: which are armed, accepting in rounds, what accept's errors mean, and the gate
 * before a close. Must not know channels. Before accept is tried, somebody must have room. */
#include <errno.h>
#include <string.h>

#include "dispatcher.h"
#include "ledger.h"
#include "sock.h"

#define PAUSE_FIRST (10 * RR__MS)
#define CLOSE_MOST (3600 * RR__SECOND)
#define UNSERVED_AGAIN (10 * RR__MS)
#define QUICKLY 16 /* parts of how long there was no room */
#define SLOWLY 256

void rr__arm(struct rr__dispatcher *d, struct rr__listener *listener, int wanted)
{
    int index = (int)(listener - d->listeners);

    if (wanted && listener->state == RR__DISARMED) {
        if (listener->held.count > 0 || rr__unserved(d, index))
            return;
        int result = rr__poller_add(&d->poller, listener->fd, rr__tag(RR__TAG_LISTENER, index));
        listener->state = result < 0 ? RR__DISARMED : RR__ARMED;
        listener->quiet_ns = d->now + listener->quiet;
    } else if (!wanted && listener->state == RR__ARMED) {
        rr__poller_remove(&d->poller, listener->fd);
        listener->state = RR__DISARMED;
        listener->readable = 0;
    }
}

int rr__listener_open(const struct rr__dispatcher *d, uint32_t index)
{
    return index < (uint32_t)d->listener_count && (d->listeners[index].state == RR__ARMED ||
                                                   d->listeners[index].state == RR__DISARMED);
}

static void arm_all(struct rr__dispatcher *d, int wanted)
{
    for (int i = 0; i < d->listener_count; i++) {
        struct rr__listener *listener = &d->listeners[i];
        if (!wanted || d->now >= listener->retry_ns)
            rr__arm(d, listener, wanted);
    }
}

static void tell_full(struct rr__dispatcher *d)
{
    if (d->full_told_ns && d->now - d->full_told_ns < RR__SECOND)
        return;
    d->full_told_ns = d->now;
    d->full_told = 1;
    rr__event(d, RR_EVENT_FULL, 0, 0);
}

/* Nobody has room: the backlog holds. Room shows itself by a timer (EPOLLOUT comes too late) that
 * grows with how long it lasts, or by any event; with nobody ready only an event can help. */
static void become_full(struct rr__dispatcher *d)
{
    if (!d->full) {
        d->full = 1;
        d->full_ns = d->now;
        arm_all(d, 0);
        tell_full(d);
    }
    /* Where queues are short it comes and goes quickly, but for those who serve for seconds. */
    uint64_t retry = (d->now - d->full_ns) / (d->short_queues ? SLOWLY : QUICKLY);
    if (retry < RR__MS)
        retry = RR__MS;
    if (retry > d->settings.retry_most)
        retry = d->settings.retry_most;
    int hopeful = d->slots.ready_count > 0 || d->hand.count > 0 || d->collected_count > 0;
    d->retry_ns = hopeful ? d->now + retry : 0;
}

static void become_roomy(struct rr__dispatcher *d)
{
    if (!d->full)
        return;
    d->full = 0;
    d->retry_ns = 0;
    arm_all(d, 1);
    if (d->full_told)
        rr__event(d, RR_EVENT_ROOM, 0, 0);
    d->full_told = 0;
    /* It was disarmed while something waited: look at once instead of asking the poller first. */
    for (int i = 0; i < d->listener_count; i++)
        d->listeners[i].readable = d->listeners[i].state == RR__ARMED;
}

void rr__listeners_served(struct rr__dispatcher *d)
{
    for (int i = 0; i < d->listener_count; i++)
        if (rr__unserved(d, i))
            rr__arm(d, &d->listeners[i], 0);
    if (!d->full)
        arm_all(d, 1);
}

/* The few who have a channel for it are full, and others are not: it waits alone, as all do when
 * nobody has room. */
static void wait_alone(struct rr__dispatcher *d, struct rr__listener *listener)
{
    uint64_t pause = listener->pause_ns ? 2 * listener->pause_ns : RR__MS;

    listener->pause_ns = pause < RR__RETRY_MOST ? pause : RR__RETRY_MOST;
    listener->retry_ns = d->now + listener->pause_ns;
    rr__arm(d, listener, 0);
}

int rr__set_aside(struct rr__dispatcher *d, struct rr__hand *hand)
{
    struct rr__listener *listener = &d->listeners[hand->listener];

    if (hand->count == 0 || !rr__partial(d, hand->listener) || listener->held.count > 0)
        return hand->count;
    listener->held = *hand;
    hand->count = 0;
    wait_alone(d, listener);
    return 0;
}

static void wait_for_room(struct rr__dispatcher *d, struct rr__listener *listener)
{
    int alone = d->room > 0 && rr__partial(d, (int)(listener - d->listeners));

    if (rr__set_aside(d, &d->hand) > 0 || !alone)
        become_full(d);
    else
        wait_alone(d, listener);
}

static void tell_error(struct rr__dispatcher *d, struct rr__listener *listener, int error,
                       uint64_t pause)
{
    struct rr_control event = {.version = RR_CONTROL_VERSION,
                               .kind = RR_EVENT_ACCEPT_ERROR,
                               .result = -error,
                               .listener = (uint32_t)(listener - d->listeners),
                               .value = {pause}};

    if (!pause && listener->error_told_ns && d->now - listener->error_told_ns < RR__SECOND)
        return;
    listener->error_told_ns = d->now;
    rr__tell(d, &event);
}

static void pause_listener(struct rr__dispatcher *d, struct rr__listener *listener, int error)
{
    uint64_t pause = listener->pause_ns ? 2 * listener->pause_ns : PAUSE_FIRST;

    listener->pause_ns = pause < d->settings.pause_most ? pause : d->settings.pause_most;
    listener->retry_ns = d->now + listener->pause_ns;
    rr__arm(d, listener, 0);
    tell_error(d, listener, error, listener->pause_ns);
}

void rr__listener_drop(struct rr__dispatcher *d, struct rr__listener *listener, int state)
{
    rr__arm(d, listener, 0);
    /* The primary closes its copy later: nobody is to be let in, and reset, until then. */
    if (listener->narrow)
        shutdown(listener->fd, SHUT_RD);
    if (listener->closing && listener->told) {
        struct rr_control answer = {.version = RR_CONTROL_VERSION,
                                    .kind = RR_CONTROL_LISTENER_CLOSE,
                                    .sequence = listener->sequence,
                                    .listener = (uint32_t)(listener - d->listeners),
                                    .value = {listener->accepted}};
        rr__tell(d, &answer);
    }
    d->system->close(listener->fd);
    listener->fd = -1;
    if (listener->held.count == 0)
        listener->retry_ns = 0;
    listener->state = (uint8_t)state;
    listener->closing = 0;
}

static void fail_listener(struct rr__dispatcher *d, struct rr__listener *listener, int error)
{
    struct rr_control event = {.version = RR_CONTROL_VERSION,
                               .kind = RR_EVENT_LISTENER_FAILED,
                               .result = -error,
                               .listener = (uint32_t)(listener - d->listeners)};

    /* A gated AF_UNIX listener that is empty says EINVAL: it has given all it had. */
    if (!listener->closing)
        rr__tell(d, &event);
    rr__listener_drop(d, listener, listener->closing ? RR__CLOSED : RR__FAILED);
}

/* 1: go on with this listener in this round. */
static int accept_failed(struct rr__dispatcher *d, struct rr__listener *listener, int error)
{
    switch (rr__accept_trouble(error)) {
    case RR__DRY:
        listener->readable = 0;
        /* The poller would call a shut listener readable for ever, so it is never quiet. And without
         * a gate each moment of quiet lets somebody in. */
        if (listener->shut || listener->narrow)
            rr__listener_drop(d, listener, RR__CLOSED);
        return 0;
    case RR__NEXT:
        d->accept_errors += error != EINTR;
        if (error != EINTR)
            tell_error(d, listener, error, 0);
        return 1;
    case RR__PAUSE:
        if (rr__let_go(d))
            return 1; /* there is room in our table now */
        d->accept_errors++;
        pause_listener(d, listener, error);
        return 0;
    default:
        d->accept_errors++;
        fail_listener(d, listener, error);
        return 0;
    }
}

static void note_accepted(struct rr__dispatcher *d, struct rr__listener *listener, int fd,
                          socklen_t length)
{
    struct rr__hand *hand = &d->hand;

    if (rr__ledger_on())
        rr__ledger_accepted(fd);
    /* One in four: a connection's time is wrong by a few microseconds then, in a burst only. */
    if ((d->accepted++ & 3) == 0)
        d->now = d->system->now();
    listener->accepted++;
    listener->pause_ns = 0;
    listener->quiet_ns = d->now + listener->quiet;
    hand->message.accepted_ns = d->now;
    hand->message.peer_length = length < RR_PEER_SIZE ? (uint32_t)length : RR_PEER_SIZE;
    hand->fds[0] = fd;
    hand->count = 1;
    hand->listener = (int)(listener - d->listeners);
}

/* Who is next, from fresh counts: they are read again after as many picks as there are workers, so
 * that it costs one reading per connection whatever their number. */
static int next_worker(struct rr__dispatcher *d, int listener)
{
    if (d->since_refresh++ >= d->slots.ready_count)
        rr__refresh(d);
    int index = rr__next(d, listener);
    if (index < 0) {
        rr__refresh(d);
        index = rr__next(d, listener);
    }
    return index;
}

/* Accepts up to `quota`; 1 when a whole round brought errors only. */
static int accept_some(struct rr__dispatcher *d, struct rr__listener *listener, uint32_t quota)
{
    uint32_t failed = 0;
    int number = (int)(listener - d->listeners);

    if (rr__partial(d, number) && rr__reclaims_of_dead(d, number)) {
        wait_alone(d, listener);
        return 0;
    }
    for (uint32_t done = 0; done < quota; done++) {
        int index = next_worker(d, number);
        if (index < 0) {
            wait_for_room(d, listener);
            break;
        }
        /* Of a message's connections only the first one's peer is told: the others need not ask. */
        int sticky = d->settings.policy == RR_SOURCE_HASH;
        int first = sticky || d->slots.ready[index]->outbox.count == 0;
        socklen_t length = first ? RR_PEER_SIZE : 0;
        int fd = d->system->accept(listener->fd,
                                   first ? (struct sockaddr *)d->hand.message.peer : NULL,
                                   first ? &length : NULL);
        if (fd < 0) {
            failed++;
            if (!accept_failed(d, listener, -fd))
                return 0;
            continue;
        }
        note_accepted(d, listener, fd, length);
        index = sticky ? rr__next_of(d, &d->hand, 0) : index;
        if (rr__give(d, index, &d->hand) < 0 && rr__place(d, &d->hand, 0) > 0) {
            wait_for_room(d, listener);
            break;
        }
    }
    return failed == quota;
}

static void accept_round(struct rr__dispatcher *d)
{
    uint32_t quota = d->settings.round;
    int fresh = 0;

    for (int step = 0; step < d->listener_count && !d->full; step++) {
        struct rr__listener *listener =
            &d->listeners[(d->listener_first + step) % d->listener_count];
        if (listener->state != RR__ARMED || !listener->readable)
            continue;
        listener->readable = 0; /* level-triggered: the poller says it again */
        if (!fresh++)
            rr__refresh(d);
        if (accept_some(d, listener, quota))
            /* Errors only: it must not keep the others from their turn. */
            pause_listener(d, listener, ECONNABORTED);
    }
    if (d->listener_count > 0)
        d->listener_first = (d->listener_first + 1) % d->listener_count;
}

void rr__accept_all(struct rr__dispatcher *d)
{
    int held = 0, later = rr__reclaims_of_dead(d, -1);

    if (d->full || d->hand.count > 0 || d->collected_count > 0 || later) {
        rr__refresh(d);
        held = rr__retry_held(d);
        if (held > 0 || d->room == 0 || later)
            become_full(d);
        else
            become_roomy(d);
    }
    if (!d->full) {
        d->hand.message.version = RR_PROTOCOL;
        d->hand.message.kind = RR_KIND_CONNECTION;
        d->hand.message.flags = 0;
        accept_round(d);
    }
    rr__flush(d);
    rr__let_go(d);
    if (d->collected_count > 0)
        become_full(d);
}

void rr__listener_start_close(struct rr__dispatcher *d, struct rr__listener *listener,
                              uint64_t quiet, uint64_t limit)
{
    if (quiet > CLOSE_MOST)
        quiet = CLOSE_MOST;
    if (limit > CLOSE_MOST)
        limit = CLOSE_MOST;
    int was_empty = rr__unserved(d, (int)(listener - d->listeners)) && !rr__readable(listener->fd);
    int gated = listener->shared ? -EPERM : rr_gate(listener->fd);
    listener->shut = gated == 0 && rr__expect_socket(listener->fd, AF_UNIX, SOCK_STREAM) == 0;
    listener->empty = listener->shut && was_empty;
    /* A filter on TCP takes CAP_NET_ADMIN on newer kernels (EPERM without it on 6.18). */
    listener->narrow = !listener->shared && gated < 0 && listen(listener->fd, 0) == 0;
    listener->closing = 1;
    listener->accepted = 0;
    listener->quiet = quiet;
    listener->quiet_ns = d->now + quiet;
    listener->limit_ns = d->now + limit;
    listener->readable = listener->state == RR__ARMED;
}

/* Nothing came for so long. Where nobody can accept, the backlog is asked for instead; a shut AF_UNIX
 * listener is always readable, and what was in it when it was shut waits for the limit. */
static int is_quiet(struct rr__dispatcher *d, struct rr__listener *listener)
{
    if (d->now <= listener->quiet_ns)
        return 0;
    if (listener->state == RR__ARMED)
        return !listener->readable;
    if (!rr__unserved(d, (int)(listener - d->listeners)))
        return 0;
    listener->quiet_ns = d->now + listener->quiet + UNSERVED_AGAIN;
    if (listener->held.count > 0)
        return 0;
    return listener->shut ? listener->empty : !rr__readable(listener->fd);
}

static void retry(struct rr__dispatcher *d, struct rr__listener *listener)
{
    listener->retry_ns = 0;
    if (listener->held.count > 0) {
        rr__refresh(d);
        if (rr__place(d, &listener->held, 0) > 0) {
            wait_alone(d, listener);
            return;
        }
    }
    if (!d->full)
        rr__arm(d, listener, 1);
}

/* Pauses that are over, and closes whose time has come. */
void rr__listeners_due(struct rr__dispatcher *d)
{
    for (int i = 0; i < d->listener_count; i++) {
        struct rr__listener *listener = &d->listeners[i];
        if (listener->retry_ns && d->now >= listener->retry_ns)
            retry(d, listener);
        if (listener->closing && rr__listener_open(d, (uint32_t)i) &&
            (is_quiet(d, listener) || d->now >= listener->limit_ns))
            rr__listener_drop(d, listener, RR__CLOSED);
    }
}
