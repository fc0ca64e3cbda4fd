/* Waiting for fds. poller_epoll.c or poller_poll.c defines it: the build chooses. */
#ifndef RR_POLLER_H
#define RR_POLLER_H

#include <poll.h>
#include <stdint.h>

#include "rrdispatch.h"

enum { RR__POLLER_MAX = RR_MAX_WORKERS + RR_MAX_LISTENERS + 128, RR__EVENTS = 64 };

/* The fd is readable, has an error or was hung up. Level-triggered. */
struct rr__event {
    uint64_t tag;
};

struct rr__poller {
    int fd;      /* epoll only */
    int count;   /* poll only, as the two below */
    struct pollfd items[RR__POLLER_MAX];
    uint64_t tags[RR__POLLER_MAX];
};

int rr__poller_open(struct rr__poller *poller);
void rr__poller_close(struct rr__poller *poller);
int rr__poller_add(struct rr__poller *poller, int fd, uint64_t tag);
void rr__poller_remove(struct rr__poller *poller, int fd);
/* Number of events, 0 after the time or a signal, or -errno. */
int rr__poller_wait(struct rr__poller *poller, struct rr__event *events, int timeout_ms);

#endif
