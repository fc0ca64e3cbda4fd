/* Passing file descriptors between processes. Nothing else in the core knows struct cmsghdr. */
#ifndef RR_FDPASS_H
#define RR_FDPASS_H

#include <stddef.h>

#include "rrdispatch.h"

/* What one receive brought. */
struct rr__arrival {
    int size;      /* bytes of data */
    int count;     /* fds kept in the caller's array: they are the caller's */
    int extra;     /* fds beyond `room` that came and were closed */
    int truncated; /* the kernel dropped fds (MSG_CTRUNC) or bytes (MSG_TRUNC) */
};

/* Sends data with fds in one SCM_RIGHTS message, without waiting. The fds stay the caller's, whatever
 * the result: bytes sent, or -errno. */
int rr__pass(int socket, const void *data, size_t size, const int *fds, int count);

/* Receives one message without waiting (unless `wait`). 1, 0 = EOF (nothing came), or -errno. */
int rr__receive(int socket, void *data, size_t size, int *fds, int room, int wait,
                struct rr__arrival *arrival);

/* 0 if `count` fds would find room in this process' table, else -EMFILE (or another -errno). */
int rr__room_for_fds(int fd, int count);

/* As rr_take, but a probe is given to the caller like a connection. */
int rr__take_any(int channel, struct rr_message *message, int *fds, int room);

void rr__close_fds(const int *fds, int count);

#endif
