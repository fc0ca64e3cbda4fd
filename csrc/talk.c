/* Owns the control socket: reading requests, and a queue for what the primary is slow to read. Must
 * not know what a request does. */
#include <errno.h>

#include "dispatcher.h"
#include "fdpass.h"

enum {
    REQUESTS_PER_ROUND = 64,
    EVENTS_MOST = RR__TOLD_MAX / 2,          /* the rest of the queue is for answers */
    DEAF_FROM = RR__TOLD_MAX - RR_MAX_WORKERS / 2,
};

#define TELL_AGAIN_NS (5 * RR__MS)

static void listen_to_primary(struct rr__dispatcher *d, int wanted)
{
    if (wanted)
        rr__poller_add(&d->poller, d->control, rr__tag(RR__TAG_CONTROL, 0));
    else
        rr__poller_remove(&d->poller, d->control);
    d->deaf = !wanted;
}

/* What is inherited is looked up when it is sent: what waits to be sent holds no fds. */
static int send_one(struct rr__dispatcher *d, struct rr_control *message)
{
    int fds[RR_CONTROL_FDS], count = 0;

    if (message->kind == RR_CONTROL_INHERIT && message->result == 0) {
        count = rr__inherited(d, message, fds);
        if (count < 0)
            message->result = count;
    }
    return rr_control_send(d->control, message, fds, count > 0 ? count : 0);
}

/* Sends what waits, as far as the socket takes it. */
void rr__talk(struct rr__dispatcher *d)
{
    d->told_ns = 0;
    while (d->told_count > 0) {
        int result = send_one(d, &d->told[d->told_first]);
        if (result == -EAGAIN || result == -ENOBUFS || result == -ENOMEM ||
            result == -ETOOMANYREFS) {
            d->told_ns = d->now + TELL_AGAIN_NS;
            break;
        }
        d->told_first = (d->told_first + 1) % RR__TOLD_MAX;
        d->told_count--;
    }
    if (d->deaf && d->told_count < EVENTS_MOST)
        listen_to_primary(d, 1);
}

void rr__hush(struct rr__dispatcher *d)
{
    d->told_count = 0;
    d->told_ns = 0;
    d->deaf = 0;
    d->full_told = 0; /* whoever comes is not told of the end of what it was not told of */
}

void rr__tell(struct rr__dispatcher *d, const struct rr_control *message)
{
    int event = message->kind >= RR_EVENT_STARTED;

    if (d->leaving || d->control < 0 || d->told_count >= (event ? EVENTS_MOST : RR__TOLD_MAX))
        return;
    d->told[(d->told_first + d->told_count) % RR__TOLD_MAX] = *message;
    d->told_count++;
    if (!d->told_ns)
        rr__talk(d);
}

void rr__event(struct rr__dispatcher *d, int kind, uint32_t worker, uint64_t value)
{
    struct rr_control event = {.version = RR_CONTROL_VERSION,
                               .kind = (uint32_t)kind,
                               .worker = worker,
                               .value = {value}};
    rr__tell(d, &event);
}

static void handle(struct rr__dispatcher *d, const struct rr_control *request, int result, int *fds,
                   int count)
{
    struct rr_control answer = {.version = RR_CONTROL_VERSION,
                                .kind = request->kind,
                                .sequence = request->sequence,
                                .worker = request->worker,
                                .listener = request->listener};

    if (result > 0)
        result = rr__request(d, request, fds, count, &answer);
    for (int i = 0; i < count; i++)
        if (fds[i] >= 0)
            rr__close_fds(&fds[i], 1);
    answer.result = result;
    if (result != RR__LATER)
        rr__tell(d, &answer);
}

int rr__serve_control(struct rr__dispatcher *d)
{
    for (int i = 0; i < REQUESTS_PER_ROUND && !d->ended; i++) {
        struct rr_control request;
        int fds[RR_CONTROL_FDS], count = 0;

        if (d->told_count >= DEAF_FROM) {
            listen_to_primary(d, 0);
            return 1;
        }
        int result = rr_control_receive(d->control, &request, fds, RR_CONTROL_FDS, &count);
        if (result == -EAGAIN || result == -ENOMEM || result == -ENOBUFS)
            return 1;
        if (result == -ECONNRESET)
            continue; /* it died with answers unread: what it asked for before comes after this */
        if (result == 0 || (result < 0 && result != -EPROTO))
            return 0;
        d->heirs.silent_ns = 0;
        handle(d, &request, result, fds, count);
    }
    return 1;
}
