/* Owns the form of control messages: size, version, fds. Must not know what they ask for. */
#include <errno.h>
#include <poll.h>
#include <string.h>

#include "fdpass.h"

int rr_control_send(int fd, const struct rr_control *message, const int *fds, int count)
{
    int sent = rr__pass(fd, message, sizeof *message, fds, count);
    return sent < 0 ? sent : 0;
}

/* An empty SEQPACKET message reads like EOF; only a hang-up is one. */
static int hung_up(int fd)
{
#ifdef POLLRDHUP
    struct pollfd item = {.fd = fd, .events = POLLRDHUP};
    return poll(&item, 1, 0) == 1 && (item.revents & (POLLRDHUP | POLLHUP | POLLERR));
#else
    (void)fd;
    return 1;
#endif
}

/* 1, 0 = EOF, -EPROTO for a message that is none (its fds are closed; *message holds what came), or
 * another -errno when nothing was received. */
int rr_control_receive(int fd, struct rr_control *message, int *fds, int room, int *count)
{
    struct rr__arrival arrival;

    memset(message, 0, sizeof *message);
    *count = 0;
    int result = rr__receive(fd, message, sizeof *message, fds, room, 0, &arrival);
    if (result < 0)
        return result;
    if (result == 0 && hung_up(fd))
        return 0;
    if (arrival.size != (int)sizeof *message || arrival.truncated || arrival.extra ||
        message->version != RR_CONTROL_VERSION) {
        rr__close_fds(fds, arrival.count);
        return -EPROTO;
    }
    *count = arrival.count;
    return 1;
}
