/* Owns what is kept for the primary's heir, and giving it out: fds under a tag, of the app and of each
 * worker, beside the listeners and workers that the dispatcher has anyway. Must not know what the kept
 * fds are for, nor how an heir is started. */
#include <errno.h>
#include <stddef.h>

#include "dispatcher.h"

static void forget(struct rr__dispatcher *d, struct rr__kept *kept)
{
    while (kept->count > 0)
        rr__close(d, &kept->fds[--kept->count]);
}

void rr__kept_close(struct rr__dispatcher *d, struct rr__kept *table)
{
    for (int i = 0; i < RR_KEPT_TAGS; i++)
        forget(d, &table[i]);
}

static int find_kept(struct rr__dispatcher *d, uint32_t id, uint64_t tag, struct rr__kept **kept)
{
    struct rr__worker *worker = id ? rr__slots_find(&d->slots, id) : NULL;

    if (id && !worker)
        return -ESRCH;
    if (tag < 1 || tag > RR_KEPT_TAGS)
        return -EINVAL;
    *kept = &(worker ? worker->kept : d->kept)[tag - 1];
    return 0;
}

int rr__keep(struct rr__dispatcher *d, const struct rr_control *request, int *fds, int count)
{
    struct rr__kept *kept;
    int result = find_kept(d, request->worker, request->value[0], &kept);

    if (result < 0)
        return result;
    if (count > RR_KEPT_FDS)
        return -E2BIG;
    forget(d, kept);
    for (int i = 0; i < count; i++) {
        kept->fds[i] = fds[i];
        fds[i] = -1;
    }
    kept->count = count;
    return 0;
}

static int listener_fd(const struct rr__dispatcher *d, uint32_t index, int *fds)
{
    if (!rr__listener_open(d, index))
        return -ENOENT;
    fds[0] = d->listeners[index].fd;
    return 1;
}

/* In the order of WORKER_ADD. The mask belongs to the fds: it is as of now, too. */
static int worker_fds(const struct rr__dispatcher *d, struct rr_control *answer, int *fds)
{
    const struct rr__worker *worker = rr__slots_find(&d->slots, answer->worker);
    int count = 0;

    if (!worker)
        return -ESRCH;
    fds[count++] = worker->pidfd;
    fds[count++] = worker->board_fd;
    fds[count++] = worker->lifeline;
    answer->value[RR__INHERIT_CHANNELS] = worker->mask;
    for (int i = 0; i < worker->channels; i++) {
        if (!rr__has_channel(worker, i))
            continue;
        fds[count++] = worker->channel[i].sender;
        fds[count++] = worker->channel[i].receiver;
    }
    return count;
}

static int kept_fds(struct rr__dispatcher *d, uint32_t id, uint64_t tag, int *fds)
{
    struct rr__kept *kept;
    int result = find_kept(d, id, tag, &kept);

    if (result < 0)
        return result;
    for (int i = 0; i < kept->count; i++)
        fds[i] = kept->fds[i];
    return kept->count > 0 ? kept->count : -ENOENT;
}

int rr__inherited(struct rr__dispatcher *d, struct rr_control *answer, int *fds)
{
    switch (answer->value[RR__INHERIT_WHAT]) {
    case RR_INHERIT_LISTENER:
        return listener_fd(d, answer->listener, fds);
    case RR_INHERIT_WORKER:
        return worker_fds(d, answer, fds);
    case RR_INHERIT_KEPT:
        return kept_fds(d, answer->worker, answer->value[RR__INHERIT_TAG], fds);
    default:
        return -EINVAL;
    }
}

/* The asker of these is gone: they are done without an answer, or asked for again by its heir. So is a
 * drain that was answered: nobody knows whether the answer was read. */
void rr__orphan_requests(struct rr__dispatcher *d)
{
    for (int i = 0; i < d->slots.used_count; i++) {
        struct rr__worker *worker = d->slots.used[i];
        if (worker->draining || worker->state == RR_STATE_DRAINING)
            worker->draining = RR__ORPHANED;
        if (worker->removing)
            worker->removing = RR__ORPHANED;
    }
    for (int i = 0; i < d->listener_count; i++)
        d->listeners[i].told = 0;
}
