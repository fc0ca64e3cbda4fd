/* Owns receiving: the only file of the shim that knows struct cmsghdr.
 *
 * With a full fd table recvmsg succeeds, drops the connection and says so only by MSG_CTRUNC: so room
 * is made sure of first, as accept(2) does, which reports EMFILE before it looks at its queue. */
#include <string.h>

#include "rrdispatch.h"
#include "shim.h"

enum { ROOM = 32 }; /* fds that one receive has room for: no message of ours has more than 16 */

union control_buffer {
    char bytes[CMSG_SPACE(ROOM * sizeof(int)) + 128];
    struct cmsghdr align;
};

static void discard(int fd)
{
    if (fd >= 0)
        rr__raw1(SYS_close, fd);
}

/* Keeps the first `room` fds of all control messages and closes what else came. */
static int walk(struct msghdr *header, int *fds, int room)
{
    int kept = 0;

    for (struct cmsghdr *item = CMSG_FIRSTHDR(header); item; item = CMSG_NXTHDR(header, item)) {
        size_t bytes = item->cmsg_len - CMSG_LEN(0);
        if (item->cmsg_level != SOL_SOCKET || item->cmsg_type != SCM_RIGHTS)
            continue;
        for (size_t i = 0; i + sizeof(int) <= bytes; i += sizeof(int)) {
            int fd;
            memcpy(&fd, CMSG_DATA(item) + i, sizeof fd);
            if (kept < room)
                fds[kept++] = fd;
            else
                discard(fd);
        }
    }
    return kept;
}

static long receive(int socket, void *data, size_t size, int flags, int *fds, int room, int *count)
{
    union control_buffer control;
    struct iovec part = {.iov_base = data, .iov_len = size};
    struct msghdr header = {.msg_iov = &part,
                            .msg_iovlen = 1,
                            .msg_control = control.bytes,
                            .msg_controllen = sizeof control.bytes};
    long got = rr__raw3(SYS_recvmsg, socket, &header, flags);

    *count = got < 0 ? 0 : walk(&header, fds, room);
    return got;
}

static int is_connection(const struct rr_message *message, long size)
{
    return size == (long)sizeof *message && message->version == RR_PROTOCOL &&
           message->kind == RR_KIND_CONNECTION;
}

int rr__take(int channel, int cloexec, struct rr__taken *taken)
{
    struct rr_message message;
    int fd = -1, count, error = rr__room(channel);

    if (error < 0)
        return error;
    long got = receive(channel, &message, sizeof message, MSG_DONTWAIT | (cloexec ? MSG_CMSG_CLOEXEC : 0),
                       &fd, 1, &count);
    if (got < 0)
        return (int)got;
    if (got == 0 && count == 0)
        return -EPIPE;
    if (!is_connection(&message, got)) {
        discard(count ? fd : -1);
        return -EINTR;
    }
    if (count == 0) {
        /* Somebody took the last place between the check and here: the kernel dropped what came. */
        rr__limit_changed();
        rr__count_lost();
        return -EINTR;
    }
    taken->peer_length = message.peer_length > sizeof taken->peer ? 0 : message.peer_length;
    memcpy(taken->peer, message.peer, sizeof taken->peer);
    return fd;
}

int rr__receive_answer(int socket, struct rr_shim_answer *answer, int fds[2], int *count)
{
    return (int)receive(socket, answer, sizeof *answer, MSG_DONTWAIT | MSG_CMSG_CLOEXEC | MSG_TRUNC, fds, 2,
                        count);
}
