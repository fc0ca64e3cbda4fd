/* Owns waiting on Linux. */
#include <errno.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "poller.h"

int rr__poller_open(struct rr__poller *poller)
{
    poller->fd = epoll_create1(EPOLL_CLOEXEC);
    return poller->fd < 0 ? -errno : 0;
}

void rr__poller_close(struct rr__poller *poller)
{
    if (poller->fd >= 0)
        close(poller->fd);
    poller->fd = -1;
}

static int control(struct rr__poller *poller, int operation, int fd, uint32_t events, uint64_t tag)
{
    struct epoll_event event = {.events = events, .data.u64 = tag};
    return epoll_ctl(poller->fd, operation, fd, &event) < 0 ? -errno : 0;
}

int rr__poller_add(struct rr__poller *poller, int fd, uint64_t tag)
{
    return control(poller, EPOLL_CTL_ADD, fd, EPOLLIN, tag);
}

void rr__poller_remove(struct rr__poller *poller, int fd)
{
    control(poller, EPOLL_CTL_DEL, fd, 0, 0);
}

int rr__poller_wait(struct rr__poller *poller, struct rr__event *events, int timeout_ms)
{
    struct epoll_event got[RR__EVENTS];
    int count = epoll_wait(poller->fd, got, RR__EVENTS, timeout_ms);

    if (count < 0)
        return errno == EINTR ? 0 : -errno;
    for (int i = 0; i < count; i++)
        events[i].tag = got[i].data.u64;
    return count;
}
