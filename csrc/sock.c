/* Owns small questions to sockets. Must not know messages, workers or loops. */
#include "sock.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "os.h"

int rr_channel_pair(int pair[2])
{
    return rr__socketpair(SOCK_STREAM, pair);
}

int rr_pending(int channel)
{
    int bytes = 0;
    if (ioctl(channel, FIONREAD, &bytes) < 0)
        return -errno;
    return bytes / RR_MESSAGE_SIZE;
}

int rr__nonblocking(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0)
        return -errno;
    if (flags & O_NONBLOCK)
        return 0;
    return fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 ? -errno : 0;
}

int rr__readable(int fd)
{
    struct pollfd item = {.fd = fd, .events = POLLIN};
    return poll(&item, 1, 0) == 1;
}

int rr__expect_socket(int fd, int family, int type)
{
    struct sockaddr_storage address = {.ss_family = AF_UNSPEC};
    socklen_t length = sizeof address;
    int found = 0;
    socklen_t size = sizeof found;

    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &found, &size) < 0)
        return -errno;
    if (found != type)
        return -EPROTOTYPE;
    if (getsockname(fd, (struct sockaddr *)&address, &length) < 0)
        return -errno;
    return family >= 0 && address.ss_family != family ? -EAFNOSUPPORT : 0;
}

int rr__expect_listener(int fd)
{
    int listens = 0, result = rr__expect_socket(fd, -1, SOCK_STREAM);
    socklen_t size = sizeof listens;

    if (result < 0)
        return result;
    if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) < 0)
        return -errno;
    return listens ? 0 : -EINVAL;
}

enum rr__trouble rr__accept_trouble(int error)
{
    switch (error) {
    case EAGAIN:
        return RR__DRY;
    case ECONNABORTED:
    case EPROTO:
    case ENETDOWN:
    case ENOPROTOOPT:
    case EHOSTDOWN:
#ifdef ENONET
    case ENONET:
#endif
    case EHOSTUNREACH:
    case EOPNOTSUPP:
    case ENETUNREACH:
    case EPERM:
    case EINTR:
        return RR__NEXT;
    case EBADF:
    case EINVAL:
    case ENOTSOCK:
        return RR__FATAL;
    default:
        return RR__PAUSE;
    }
}
