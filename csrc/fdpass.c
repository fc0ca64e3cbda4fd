/* Owns every use of SCM_RIGHTS: sending, receiving, and what the kernel does behind one's back.
 * Knows messages of a channel by size and kind only; must not know workers, policies or control.
 *
 * Kernel facts it stands on: a padded control buffer admits more fds than it was sized for; with a full
 * fd table recvmsg succeeds, drops the fd and says so only by MSG_CTRUNC; bytes without fds are glued
 * to the message after them; SO_PASSPIDFD at the receiver adds an fd that nobody asked for. */
#include "fdpass.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "ledger.h"

#ifndef MSG_CMSG_CLOEXEC
#define MSG_CMSG_CLOEXEC 0
#endif

enum {
    FDS_MAX = 253,  /* the kernel's SCM_MAX_FD */
    SCM_PIDFD_ = 4, /* SCM_PIDFD, younger than many headers */
};

/* Room for the most fds that a message can carry, and for credentials and labels before them. */
union control_buffer {
    char bytes[CMSG_SPACE(FDS_MAX * sizeof(int)) + 256];
    struct cmsghdr align;
};

void rr__close_fds(const int *fds, int count)
{
    int kept = errno;
    for (int i = 0; i < count; i++)
        close(fds[i]);
    errno = kept;
}

int rr__pass(int socket, const void *data, size_t size, const int *fds, int count)
{
    union {
        char bytes[CMSG_SPACE(RR_CONTROL_FDS * sizeof(int))];
        struct cmsghdr align;
    } control;
    struct iovec part = {.iov_base = (void *)data, .iov_len = size};
    struct msghdr header = {.msg_iov = &part, .msg_iovlen = 1};
    ssize_t sent;

    if (size == 0 || count < 0 || count > RR_CONTROL_FDS)
        return -EINVAL;
    if (count > 0) {
        header.msg_control = control.bytes;
        header.msg_controllen = CMSG_SPACE((size_t)count * sizeof(int));
        struct cmsghdr *rights = CMSG_FIRSTHDR(&header);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN((size_t)count * sizeof(int));
        memcpy(CMSG_DATA(rights), fds, (size_t)count * sizeof(int));
    }
    do
        sent = sendmsg(socket, &header, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    return sent < 0 ? -errno : (int)sent;
}

/* Keeps the first `room` fds of one control message and closes the rest. */
static void walk(struct cmsghdr *item, int *fds, int room, struct rr__arrival *arrival)
{
    size_t bytes = item->cmsg_len - CMSG_LEN(0);
    int rights = item->cmsg_type == SCM_RIGHTS;

    if (item->cmsg_level != SOL_SOCKET || (!rights && item->cmsg_type != SCM_PIDFD_))
        return;
    for (size_t i = 0; i + sizeof(int) <= bytes; i += sizeof(int)) {
        int fd;
        memcpy(&fd, CMSG_DATA(item) + i, sizeof fd);
        if (rights && arrival->count < room) {
            fds[arrival->count++] = fd;
            continue;
        }
        if (fd >= 0) {
            rr__close_fds(&fd, 1);
            arrival->extra += rights;
        }
    }
}

int rr__receive(int socket, void *data, size_t size, int *fds, int room, int wait,
                struct rr__arrival *arrival)
{
    union control_buffer control;
    struct iovec part = {.iov_base = data, .iov_len = size};
    struct msghdr header = {.msg_iov = &part,
                            .msg_iovlen = 1,
                            .msg_control = control.bytes,
                            .msg_controllen = sizeof control.bytes};
    ssize_t got;

    memset(arrival, 0, sizeof *arrival);
    do
        got = recvmsg(socket, &header, MSG_CMSG_CLOEXEC | (wait ? 0 : MSG_DONTWAIT));
    while (got < 0 && errno == EINTR);
    if (got < 0)
        return -errno;
    for (struct cmsghdr *item = CMSG_FIRSTHDR(&header); item; item = CMSG_NXTHDR(&header, item))
        walk(item, fds, room, arrival);
    arrival->size = (int)got;
    arrival->truncated = (header.msg_flags & (MSG_CTRUNC | MSG_TRUNC)) != 0;
    return got > 0 || arrival->count > 0;
}

int rr__room_for_fds(int fd, int count)
{
    int reserved[RR_BATCH_MAX], got = 0, error = 0;

    if (count > RR_BATCH_MAX)
        count = RR_BATCH_MAX;
    while (got < count) {
        int spare = fcntl(fd, F_DUPFD_CLOEXEC, 0);
        if (spare < 0) {
            error = -errno;
            break;
        }
        reserved[got++] = spare;
    }
    rr__close_fds(reserved, got);
    return error;
}

int rr_send(int channel, const struct rr_message *message, const int *fds)
{
    if (message->count < 1 || message->count > RR_BATCH_MAX)
        return -EINVAL;
    int sent = rr__pass(channel, message, sizeof *message, fds, message->count);
    if (sent < 0)
        return sent;
    /* 64 bytes fit in one buffer of the kernel's: all of it, or EAGAIN. */
    return sent == (int)sizeof *message ? 0 : -EIO;
}

/* 1 with the head of the next message, 0 = EOF, or -errno. Without room for control data a peek
 * installs no fd. */
static int peek(int channel, struct rr_message *head)
{
    ssize_t got;

    do
        got = recv(channel, head, sizeof *head, MSG_PEEK | MSG_DONTWAIT);
    while (got < 0 && errno == EINTR);
    return got < 0 ? -errno : got > 0;
}

static int known(const struct rr_message *message, int size)
{
    return size == (int)sizeof *message && message->version == RR_PROTOCOL &&
           (message->kind == RR_KIND_CONNECTION || message->kind == RR_KIND_PROBE);
}

static int take_message(int channel, struct rr_message *message, int *fds, int room)
{
    struct rr__arrival arrival;
    int result = rr__receive(channel, message, sizeof *message, fds, room, 0, &arrival);

    if (result <= 0)
        return result;
    if (!known(message, arrival.size)) {
        rr__close_fds(fds, arrival.count);
        return -EPROTO;
    }
    if (arrival.count > message->count) {
        rr__close_fds(fds + message->count, arrival.count - message->count);
        arrival.count = message->count;
    }
    if (arrival.count > 0)
        return arrival.count;
    if (message->kind == RR_KIND_PROBE)
        /* It found no room, and needs none: whoever wants no probes asks again. */
        return -EINTR;
    /* A thread took the last place between the check and here: the kernel dropped what came. */
    return -ECONNABORTED;
}

int rr__take_any(int channel, struct rr_message *message, int *fds, int room)
{
    int result = peek(channel, message);

    if (result <= 0)
        return result;
    if (message->kind != RR_KIND_PROBE) {
        if (room < message->count && room < RR_BATCH_MAX)
            return -EMSGSIZE;
        result = rr__room_for_fds(channel, message->count);
        if (result < 0)
            return result;
    }
    if (!rr__ledger_on())
        return take_message(channel, message, fds, room);
    rr__ledger_taking(message->count);
    result = take_message(channel, message, fds, room);
    rr__ledger_took(message, fds, result);
    return result;
}

int rr_take(int channel, struct rr_message *message, int *fds, int room)
{
    for (;;) {
        int count = rr__take_any(channel, message, fds, room);
        if (count == -EINTR)
            continue;
        if (count <= 0 || message->kind != RR_KIND_PROBE)
            return count;
        rr__close_fds(fds, count);
    }
}
