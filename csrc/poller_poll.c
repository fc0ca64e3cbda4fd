/* Owns waiting where there is nothing better than poll(2). */
#include <errno.h>

#include "poller.h"

int rr__poller_open(struct rr__poller *poller)
{
    poller->fd = -1;
    poller->count = 0;
    return 0;
}

void rr__poller_close(struct rr__poller *poller)
{
    poller->count = 0;
}

static int find(const struct rr__poller *poller, int fd)
{
    for (int i = 0; i < poller->count; i++)
        if (poller->items[i].fd == fd)
            return i;
    return -1;
}

int rr__poller_add(struct rr__poller *poller, int fd, uint64_t tag)
{
    if (fd < 0)
        return -EBADF;
    if (find(poller, fd) >= 0)
        return -EEXIST;
    if (poller->count == RR__POLLER_MAX)
        return -ENOSPC;
    poller->items[poller->count] = (struct pollfd){.fd = fd, .events = POLLIN};
    poller->tags[poller->count++] = tag;
    return 0;
}

void rr__poller_remove(struct rr__poller *poller, int fd)
{
    int at = find(poller, fd);
    if (at < 0)
        return;
    poller->count--;
    poller->items[at] = poller->items[poller->count];
    poller->tags[at] = poller->tags[poller->count];
}

int rr__poller_wait(struct rr__poller *poller, struct rr__event *events, int timeout_ms)
{
    int left = poll(poller->items, (nfds_t)poller->count, timeout_ms), count = 0;

    if (left < 0)
        return errno == EINTR ? 0 : -errno;
    for (int i = 0; i < poller->count && left > 0 && count < RR__EVENTS; i++) {
        if (!poller->items[i].revents)
            continue;
        left--;
        events[count++].tag = poller->tags[i];
    }
    return count;
}
