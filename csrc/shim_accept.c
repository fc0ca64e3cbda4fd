/* Owns accept: a connection is taken from a channel as the kernel takes it from a backlog. */
#include <fcntl.h>
#include <string.h>

#include "shim.h"

static void drop(int fd)
{
    rr__leaving((unsigned)fd, (unsigned)fd);
    rr__raw1(SYS_close, fd);
}

/* Both lie in the page that our own frame is in, so they can be written to: a program's buffers mostly
 * are locals of accept's caller. */
static int are_near(const void *one, size_t size, const void *other, size_t other_size)
{
    enum { PAGE = 4096 }; /* the smallest there is */
    uintptr_t page = (uintptr_t)__builtin_frame_address(0) & ~(uintptr_t)(PAGE - 1);
    uintptr_t first = (uintptr_t)one, second = (uintptr_t)other;

    return first >= page && first + size <= page + PAGE && second >= page &&
           second + other_size <= page + PAGE;
}

/* As the dispatcher noted it, if that can be written without asking the kernel, which costs a sixth of
 * an accept. Else the kernel writes it: bad pointers and lengths are answered as by accept. A client that
 * is gone has no address any more, but accept would still tell it. */
static int give_peer(int fd, const struct rr__taken *taken, struct sockaddr *peer, socklen_t *length)
{
    socklen_t size = (socklen_t)taken->peer_length;

    if (size && are_near(peer, sizeof taken->peer, length, sizeof *length) && (int)*length >= 0) {
        memcpy(peer, taken->peer, *length < size ? *length : size);
        *length = size;
        return 0;
    }
    long result = rr__raw3(SYS_getpeername, fd, peer, length);
    if (result != -ENOTCONN)
        return (int)result;
    if (!size)
        return -ECONNABORTED;
    return rr__give_address(taken->peer, size, peer, length);
}

static int finish(int fd, const struct rr__taken *taken, struct sockaddr *peer, socklen_t *length,
                  int flags)
{
    int error = 0;

    rr__count_taken(fd);
    if (flags & SOCK_NONBLOCK)
        rr__raw3(SYS_fcntl, fd, F_SETFL, O_RDWR | O_NONBLOCK);
    if (peer)
        error = give_peer(fd, taken, peer, length);
    if (error == 0)
        return fd;
    drop(fd);
    return rr__fail(error);
}

/* Waits, and takes nothing. A restart after a signal, EINTR, SO_RCVTIMEO and
 * cancellation are recv's, which are accept's: poll(2) would answer every signal with EINTR. Nothing is
 * to be undone on the way out: a program may leave by a jump from a handler, or be cancelled. */
static int wait_for_one(int fd)
{
    char byte;
    int place = rr__sleeps(fd), result = recv(fd, &byte, 1, MSG_PEEK) < 0 ? -1 : 0;

    rr__woke(place);
    return result;
}

static int is_nonblocking(int fd)
{
    long flags = rr__raw2(SYS_fcntl, fd, F_GETFL);

    return flags >= 0 && flags & O_NONBLOCK;
}

static int from_channel(int fd, struct sockaddr *peer, socklen_t *length, int flags)
{
    struct rr__taken taken;

    if (flags & ~(SOCK_NONBLOCK | SOCK_CLOEXEC))
        return rr__fail(-EINVAL);
    rr__ready(fd);
    int held = rr__holds(fd) ? rr__take_held(fd, flags & SOCK_CLOEXEC, &taken) : -1;
    if (held >= 0)
        return finish(held, &taken, peer, length, flags);
    for (;;) {
        int got = rr__take(fd, flags & SOCK_CLOEXEC, &taken), slept = 0;
        if (got >= 0)
            return finish(got, &taken, peer, length, flags);
        if (got == -EINTR)
            continue;
        if (got == -EPIPE) {
            rr__end_of_channel(fd);
            if (rr__kind(fd) == RR__CHANNEL) /* no room for silence */
                return rr__fail(-EAGAIN);
            continue;
        }
        if (got == -EAGAIN && !is_nonblocking(fd)) {
            got = wait_for_one(fd) < 0 ? -errno : 0;
            slept = 1;
        }
        /* Meanwhile somebody may have closed it, or shut it down; or it was none, against the hint. */
        if ((slept || got != -EAGAIN) && rr__kind(fd) == RR__OTHER)
            return rr__real()->accept4(fd, peer, length, flags);
        if (got < 0)
            return rr__fail(got);
    }
}

/* A stale hint does no harm: what is not a connected AF_UNIX socket has nothing to take. */
static int is_channel(int fd)
{
    if (rr__was_channel(fd))
        return 1;
    enum rr__kind_of_fd kind = rr__kind(fd);
    if (kind == RR__CHANNEL)
        rr__note_channel(fd);
    return kind != RR__OTHER;
}

int rr__shim_accept4(int fd, struct sockaddr *peer, socklen_t *length, int flags)
{
    if (rr__settings.on && is_channel(fd))
        return from_channel(fd, peer, length, flags);
    return rr__real()->accept4(fd, peer, length, flags);
}

int rr__shim_accept(int fd, struct sockaddr *peer, socklen_t *length)
{
    if (rr__settings.on && is_channel(fd))
        return from_channel(fd, peer, length, 0);
    return rr__real()->accept(fd, peer, length);
}
