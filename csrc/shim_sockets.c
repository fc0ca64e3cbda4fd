/* Owns bind, listen, shutdown and names: what makes a program's socket a listener of the primary's, and
 * what it says it is. */
#include <netinet/tcp.h>
#include <string.h>
#include <sys/stat.h>

#include "shim.h"

#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP 262
#endif
#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71
#endif
#ifndef IP_BIND_ADDRESS_NO_PORT
#define IP_BIND_ADDRESS_NO_PORT 24
#endif

enum { STATE_CLOSE = 7 /* TCP_CLOSE of the kernel */ };

static int ask_socket(int fd, int level, int option)
{
    int value = 0;
    socklen_t size = sizeof value;
    long error = rr__raw5(SYS_getsockopt, fd, level, option, &value, &size);

    return error < 0 ? (int)error : value;
}

static void tell_socket(int fd, int level, int option, int value)
{
    rr__raw5(SYS_setsockopt, fd, level, option, &value, sizeof value);
}

/* A socket of another network than the primary's: it could not listen there for us. */
static int is_elsewhere(int fd)
{
    uint64_t network = 0;
    socklen_t size = sizeof network;

    return rr__settings.network != 0 &&
           rr__raw5(SYS_getsockopt, fd, SOL_SOCKET, SO_NETNS_COOKIE, &network, &size) >= 0 &&
           network != rr__settings.network;
}

static int is_tcp(int fd)
{
    int protocol = ask_socket(fd, SOL_SOCKET, SO_PROTOCOL);

    return ask_socket(fd, SOL_SOCKET, SO_TYPE) == SOCK_STREAM &&
           (protocol == IPPROTO_TCP || protocol == IPPROTO_MPTCP);
}

/* ---- bind ----------------------------------------------------------------------------------------- */

/* SO_REUSEPORT is what lets every worker bind the address that the primary listens on, and the mark by
 * which listen() knows the socket. SO_BROADCAST, which means nothing on TCP, says that it was not the
 * program that set it. */
static int bind_shared(int fd, const struct sockaddr *address, socklen_t length)
{
    int before = ask_socket(fd, SOL_SOCKET, SO_REUSEPORT);

    if (before == 0) {
        tell_socket(fd, SOL_SOCKET, SO_REUSEPORT, 1);
        tell_socket(fd, SOL_SOCKET, SO_BROADCAST, 1);
    }
    int result = rr__real()->bind(fd, address, length), error = errno;
    /* One that is bound already keeps what it had. */
    if (result < 0 && before == 0) {
        tell_socket(fd, SOL_SOCKET, SO_REUSEPORT, 0);
        tell_socket(fd, SOL_SOCKET, SO_BROADCAST, 0);
    }
    errno = error;
    return result;
}

static int own_reuse_port(int fd)
{
    return ask_socket(fd, SOL_SOCKET, SO_REUSEPORT) > 0 && ask_socket(fd, SOL_SOCKET, SO_BROADCAST) == 0;
}

int rr__shim_bind(int fd, const struct sockaddr *address, socklen_t length)
{
    union rr__address wanted;

    memset(&wanted, 0, sizeof wanted);
    if (!rr__settings.on || length < sizeof wanted.v4 || length > sizeof wanted || !is_tcp(fd) ||
        rr__copy_in(&wanted, address, length) < 0 ||
        wanted.any.sa_family != ask_socket(fd, SOL_SOCKET, SO_DOMAIN) || is_elsewhere(fd))
        return rr__real()->bind(fd, address, length);
    if (rr__settings.any_port && rr__port(&wanted) == 0)
        return bind_shared(fd, address, length);
    if (rr__port(&wanted) != 0 && rr__places_admit(&wanted) &&
        !rr__is_claimed(fd, &wanted, own_reuse_port(fd), 0))
        return bind_shared(fd, address, length);
    int result = rr__real()->bind(fd, address, length);
    /* A port of the kernel's choice and an own SO_REUSEPORT: marked by what means nothing after bind. */
    if (result == 0 && rr__port(&wanted) == 0 && ask_socket(fd, SOL_SOCKET, SO_REUSEPORT) > 0)
        tell_socket(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1);
    return result;
}

/* ---- listen --------------------------------------------------------------------------------------- */

static int is_idle(int fd)
{
    uint8_t state = STATE_CLOSE;
    socklen_t size = sizeof state;

    rr__raw5(SYS_getsockopt, fd, IPPROTO_TCP, TCP_INFO, &state, &size);
    return state == STATE_CLOSE;
}

/* Bound by us, to an address that is taken, and nothing else happened to it. */
static int is_to_be_shared(int fd, union rr__address *address, socklen_t *length)
{
    *length = sizeof *address;
    memset(address, 0, sizeof *address);
    if (rr__raw3(SYS_getsockname, fd, address, length) < 0 || rr__port(address) == 0 || !is_tcp(fd))
        return 0;
    if (ask_socket(fd, SOL_SOCKET, SO_REUSEPORT) <= 0 || ask_socket(fd, SOL_SOCKET, SO_ACCEPTCONN) != 0 ||
        !is_idle(fd) || is_elsewhere(fd))
        return 0;
    if (rr__settings.any_port)
        return 1;
    return ask_socket(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT) <= 0 && rr__places_admit(address);
}

/* A primary that can't be reached is told as what it is: ECONNREFUSED, ETIMEDOUT, EPROTO. A real
 * listen() would serve, but by chance beside the others and without supervision, and nobody would know;
 * EADDRINUSE makes programs look for another port, EAGAIN makes them try for ever. With these they end
 * with a message, and are started again. */
static int share(int fd, int backlog, const union rr__address *address, socklen_t length)
{
    struct rr_shim_request request;
    struct stat file;
    int fds[2], error, own;

    if (rr__is_claimed(fd, address, own_reuse_port(fd), 1))
        return -EADDRINUSE;
    rr__request(&request, RR_SHIM_LISTEN, address, length);
    request.backlog = backlog;
    /* The kernel shares a port among sockets of one user only; ours may have changed since. */
    if (fstat(fd, &file) == 0) {
        request.value_length = sizeof file.st_uid;
        memcpy(request.value, &file.st_uid, sizeof file.st_uid);
    }
    if (address->any.sa_family == AF_INET6)
        request.v6only = ask_socket(fd, IPPROTO_IPV6, IPV6_V6ONLY) > 0;
    error = rr__ask(&request, fds);
    if (error < 0)
        return error;
    rr__note_listen();
    /* Or the listener itself, that workers share: the kernel distributes. */
    own = rr__kind(fds[0]) == RR__OTHER && ask_socket(fds[0], SOL_SOCKET, SO_ACCEPTCONN) > 0;
    error = rr__kind(fds[0]) == RR__CHANNEL || own ? 0 : -EPROTO;
    if (own) {
        error = rr__lay_over(fds[0], fd);
        error = error < 0 ? error : 0;
    } else if (error == 0) {
        rr__board(fds[1]);
        rr__hand_over_options(fd, fds[0], address, length);
        /* A channel can't bear IPV6_V6ONLY, and has no routes. */
        tell_socket(fds[0], SOL_SOCKET, SO_DONTROUTE, request.v6only);
        rr__count_closed((unsigned)fd, (unsigned)fd);
        error = rr__lay_over(fds[0], fd);
    }
    if (error >= 0 && !own)
        rr__note_channel(fd);
    if (error > 0) /* it is in an epoll set already: nothing else will say that it waits */
        rr__ready(fd);
    rr__raw1(SYS_close, fds[0]);
    rr__raw1(SYS_close, fds[1]);
    return error;
}

int rr__is_to_be_shared(int fd)
{
    union rr__address address;
    socklen_t length;

    return is_to_be_shared(fd, &address, &length);
}

int rr__shim_listen(int fd, int backlog)
{
    union rr__address address;
    socklen_t length;

    if (rr__settings.on) {
        if (rr__kind(fd) != RR__OTHER) {
            rr__note_listen();
            return 0;
        }
        if (is_to_be_shared(fd, &address, &length)) {
            int error = share(fd, backlog, &address, length);
            return error < 0 ? rr__fail(error) : 0;
        }
    }
    return rr__real()->listen(fd, backlog);
}

/* ---- shutdown ------------------------------------------------------------------------------------- */

/* A listening socket that was shut down is a bound one again. The channel itself is others', too. */
static int unlisten(int fd, const union rr__address *address, socklen_t length)
{
    long plain = rr__raw3(SYS_socket, address->any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (plain < 0)
        return (int)plain;
    tell_socket((int)plain, SOL_SOCKET, SO_REUSEADDR, 1);
    tell_socket((int)plain, SOL_SOCKET, SO_REUSEPORT, 1);
    rr__raw3(SYS_bind, plain, address, length);
    int error = rr__lay_over((int)plain, fd);
    rr__raw1(SYS_close, plain);
    if (error >= 0)
        rr__wake(fd);
    return error;
}

int rr__shim_shutdown(int fd, int how)
{
    union rr__address address;
    socklen_t length;

    if (!rr__settings.on || rr__was_taken(fd) || rr__name(fd, &address, &length) == RR__OTHER)
        return rr__real()->shutdown(fd, how);
    if (how < SHUT_RD || how > SHUT_RDWR)
        return rr__fail(-EINVAL);
    int error = how == SHUT_WR ? 0 : unlisten(fd, &address, length);
    return error < 0 ? rr__fail(error) : 0;
}

/* ---- names ---------------------------------------------------------------------------------------- */

int rr__shim_getsockname(int fd, struct sockaddr *name, socklen_t *length)
{
    union rr__address address;
    socklen_t size;

    if (!rr__settings.on || rr__was_taken(fd) || rr__name(fd, &address, &size) == RR__OTHER)
        return rr__real()->getsockname(fd, name, length);
    int error = rr__give_address(&address, size, name, length);
    return error < 0 ? rr__fail(error) : 0;
}

int rr__shim_getpeername(int fd, struct sockaddr *name, socklen_t *length)
{
    if (!rr__settings.on || rr__was_taken(fd) || rr__kind(fd) == RR__OTHER)
        return rr__real()->getpeername(fd, name, length);
    return rr__fail(-ENOTCONN);
}
