/* Owns probes that wake a program: readable, but nothing to accept. A server that waits with poll or
 * select and then accepts from a blocking listener would sleep there, and serve nobody it knows. So they
 * are taken out before it is told.
 *
 * Another process may take the probe between the look and the take: what is taken instead is kept for
 * this process' next accept. */
#include <fcntl.h>

#include "rrdispatch.h"
#include "shim.h"

static int is_probe(int fd)
{
    struct rr_message head;
    long got = rr__raw6(SYS_recvfrom, fd, (long)&head, sizeof head, MSG_PEEK | MSG_DONTWAIT, 0, 0);

    return got == (long)sizeof head && head.version == RR_PROTOCOL && head.kind == RR_KIND_PROBE;
}

static int is_empty(int fd)
{
    char byte;

    return rr__raw6(SYS_recvfrom, fd, (long)&byte, 1, MSG_PEEK | MSG_DONTWAIT, 0, 0) == -EAGAIN;
}

int rr__only_probes(int fd)
{
    struct rr__held *held = rr__own ? &rr__own->held : NULL;
    int seen = 0, none = 0;

    while (held && is_probe(fd)) {
        if (!__atomic_compare_exchange_n(&held->busy, &none, 1, 0, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
            return 0;
        int got = rr__take(fd, 1, &held->taken);
        if (got >= 0) {
            held->fd = got;
            __atomic_store_n(&held->channel, fd + 1, __ATOMIC_RELEASE);
            return 0;
        }
        __atomic_store_n(&held->busy, 0, __ATOMIC_RELEASE);
        if (got != -EINTR)
            return 0;
        seen = 1;
    }
    return seen && is_empty(fd);
}

int rr__holds(int fd)
{
    return rr__own && __atomic_load_n(&rr__own->held.channel, __ATOMIC_ACQUIRE) == fd + 1;
}

/* Closed with its listener; or the program, which does not know of it, closes or covers its number.
 * Not by a child between vfork and exec: what it closes is not the parent's. */
void rr__drop_held(unsigned first, unsigned last)
{
    int channel = rr__own ? __atomic_load_n(&rr__own->held.channel, __ATOMIC_ACQUIRE) : 0;
    struct rr__taken taken;

    if (channel == 0)
        return;
    unsigned listener = (unsigned)channel - 1, fd = (unsigned)rr__own->held.fd;
    int listens = listener >= first && listener <= last, itself = fd >= first && fd <= last;
    if ((!listens && !itself) || !rr__own_is_ours())
        return;
    int got = rr__take_held((int)listener, 1, &taken);
    if (got >= 0)
        rr__raw1(SYS_close, got);
}

int rr__take_held(int fd, int cloexec, struct rr__taken *taken)
{
    int channel = fd + 1;

    if (!rr__holds(fd) || !__atomic_compare_exchange_n(&rr__own->held.channel, &channel, 0, 0,
                                                       __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
        return -EAGAIN;
    int got = rr__own->held.fd;
    *taken = rr__own->held.taken;
    __atomic_store_n(&rr__own->held.busy, 0, __ATOMIC_RELEASE);
    if (!cloexec)
        rr__raw3(SYS_fcntl, got, F_SETFD, 0);
    return got;
}
