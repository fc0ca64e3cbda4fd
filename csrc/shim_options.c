/* Owns socket options of a channel: what the program sets is set on the primary's listener, whose
 * connections inherit it; what it reads is what a listening TCP socket would say. A channel bears none
 * of its own but the timeout: SO_PASSCRED, SO_RCVLOWAT or a filter on it would cost connections. */
#include <netinet/tcp.h>
#include <string.h>

#include "shim.h"

#ifndef SO_ATTACH_BPF
#define SO_ATTACH_BPF 50
#endif
#ifndef SO_ATTACH_REUSEPORT_CBPF
#define SO_ATTACH_REUSEPORT_CBPF 51
#define SO_ATTACH_REUSEPORT_EBPF 52
#endif

enum { STATE_LISTEN = 10, VALUE_MAX = RR_SHIM_VALUE_SIZE };

/* Harmless on the channel, which then remembers them for getsockopt. */
static int is_kept_on_channel(int option)
{
    return option == SO_KEEPALIVE || option == SO_LINGER || option == SO_OOBINLINE ||
           option == SO_PRIORITY || option == SO_RCVTIMEO || option == SO_SNDTIMEO ||
           option == SO_REUSEADDR || option == SO_DEBUG || option == SO_BROADCAST ||
           option == SO_SNDBUF || option == SO_RCVBUF;
}

/* Their value points into the program's memory, or is an fd of the program's. */
static int is_of_this_process(int level, int option)
{
    return level == SOL_SOCKET && (option == SO_ATTACH_FILTER || option == SO_ATTACH_BPF ||
                                   option == SO_ATTACH_REUSEPORT_CBPF || option == SO_ATTACH_REUSEPORT_EBPF);
}

static int tell(const union rr__address *address, socklen_t length, int level, int option,
                const void *value, socklen_t size)
{
    struct rr_shim_request request;

    rr__request(&request, RR_SHIM_OPTION, address, length);
    request.level = level;
    request.option = option;
    request.value_length = size;
    memcpy(request.value, value, size);
    return rr__ask(&request, NULL);
}

static int fresh_socket(int family)
{
    return (int)rr__raw3(SYS_socket, family, SOCK_STREAM | SOCK_CLOEXEC, 0);
}

/* ---- set -------------------------------------------------------------------------------------------- */

/* A socket of our own tries it first: what the kernel refuses (a bad pointer, length, level, name, or
 * without the privilege) is refused as it does, and the value is known to be there to be read. */
static int set(int fd, int level, int option, const void *value, socklen_t size)
{
    union rr__address address;
    socklen_t length;

    if (rr__name(fd, &address, &length) == RR__OTHER || !length)
        return -EOPNOTSUPP;
    int trial = fresh_socket(address.any.sa_family);
    if (trial < 0)
        return trial;
    long error = rr__raw5(SYS_setsockopt, trial, level, option, value, size);
    rr__raw1(SYS_close, trial);
    if (error < 0)
        return (int)error;
    if (size > VALUE_MAX || is_of_this_process(level, option))
        return -ENOPROTOOPT;
    if (level == SOL_SOCKET && is_kept_on_channel(option))
        rr__raw5(SYS_setsockopt, fd, level, option, value, size);
    return tell(&address, length, level, option, value, size);
}

int rr__shim_setsockopt(int fd, int level, int option, const void *value, socklen_t size)
{
    if (!rr__settings.on || rr__was_taken(fd) || rr__kind(fd) == RR__OTHER)
        return rr__real()->setsockopt(fd, level, option, value, size);
    int error = set(fd, level, option, value, size);
    return error < 0 ? rr__fail(error) : 0;
}

/* ---- get -------------------------------------------------------------------------------------------- */

/* A socket of our own says what it would be, in the form that the program asked for: defaults, since
 * the primary's listener can't be asked. */
static int get_default(int family, int level, int option, void *value, socklen_t *size)
{
    int fresh = fresh_socket(family);

    if (fresh < 0)
        return fresh;
    long error = rr__raw5(SYS_getsockopt, fresh, level, option, value, size);
    rr__raw1(SYS_close, fresh);
    if (error >= 0 && level == IPPROTO_TCP && option == TCP_INFO && *size > 0)
        *(uint8_t *)value = STATE_LISTEN;
    return (int)error;
}

static int flag(int fd, int option)
{
    int value = 0;
    socklen_t size = sizeof value;

    rr__raw5(SYS_getsockopt, fd, SOL_SOCKET, option, &value, &size);
    return value != 0;
}

/* SO_REUSEPORT was set by bind() of ours (shim_sockets.c), not by the program. */
static int ours(int fd)
{
    return flag(fd, SO_BROADCAST);
}

/* Unlike an address, an option says how much of it was given. */
static int give_number(int number, void *value, socklen_t *size)
{
    socklen_t room;
    int error = rr__copy_in(&room, size, sizeof room);

    if (error < 0)
        return error;
    if ((int)room < 0)
        return -EINVAL;
    if (room > sizeof number)
        room = sizeof number;
    if (room > 0)
        error = rr__copy_out(value, &number, room);
    return error < 0 ? error : rr__copy_out(size, &room, sizeof room);
}

static int get(int fd, int level, int option, void *value, socklen_t *size)
{
    union rr__address address;
    socklen_t length;

    rr__name(fd, &address, &length);
    if (level == IPPROTO_IPV6 && option == IPV6_V6ONLY && address.any.sa_family == AF_INET6)
        return give_number(flag(fd, SO_DONTROUTE), value, size);
    if (level != SOL_SOCKET)
        return get_default(address.any.sa_family, level, option, value, size);
    switch (option) {
    case SO_ACCEPTCONN:
        return give_number(1, value, size);
    case SO_REUSEPORT:
        return give_number(!ours(fd), value, size);
    case SO_DOMAIN:
        return give_number(address.any.sa_family, value, size);
    case SO_PROTOCOL:
        return give_number(IPPROTO_TCP, value, size);
    case SO_TYPE: /* one that is silenced is a datagram socket */
        return give_number(SOCK_STREAM, value, size);
    default:
        break;
    }
    if (is_kept_on_channel(option) || option == SO_ERROR)
        return (int)rr__raw5(SYS_getsockopt, fd, level, option, value, size);
    return get_default(address.any.sa_family, level, option, value, size);
}

int rr__shim_getsockopt(int fd, int level, int option, void *value, socklen_t *size)
{
    if (!rr__settings.on || rr__was_taken(fd) || rr__kind(fd) == RR__OTHER) {
        if (rr__settings.on && level == SOL_SOCKET && option == SO_REUSEPORT && rr__is_to_be_shared(fd) &&
            ours(fd))
            return give_number(0, value, size) < 0 ? rr__fail(-EFAULT) : 0;
        return rr__real()->getsockopt(fd, level, option, value, size);
    }
    int error = get(fd, level, option, value, size);
    return error < 0 ? rr__fail(error) : 0;
}

/* ---- at listen ---------------------------------------------------------------------------------------- */

/* What accepted sockets inherit, and what the listener itself goes by. */
static const struct {
    int level, option;
} inherited[] = {
    {SOL_SOCKET, SO_REUSEADDR},     {SOL_SOCKET, SO_BROADCAST},
    {SOL_SOCKET, SO_KEEPALIVE},     {SOL_SOCKET, SO_LINGER},         {SOL_SOCKET, SO_OOBINLINE},
    {SOL_SOCKET, SO_PRIORITY},      {SOL_SOCKET, SO_RCVTIMEO},       {SOL_SOCKET, SO_SNDTIMEO},
    {SOL_SOCKET, SO_SNDBUF},        {SOL_SOCKET, SO_RCVBUF},         {SOL_SOCKET, SO_RCVLOWAT},
    {SOL_SOCKET, SO_MARK},          {SOL_SOCKET, SO_BUSY_POLL},      {IPPROTO_TCP, TCP_NODELAY},
    {IPPROTO_TCP, TCP_KEEPIDLE},    {IPPROTO_TCP, TCP_KEEPINTVL},    {IPPROTO_TCP, TCP_KEEPCNT},
    {IPPROTO_TCP, TCP_SYNCNT},      {IPPROTO_TCP, TCP_LINGER2},      {IPPROTO_TCP, TCP_DEFER_ACCEPT},
    {IPPROTO_TCP, TCP_WINDOW_CLAMP}, {IPPROTO_TCP, TCP_QUICKACK},    {IPPROTO_TCP, TCP_CONGESTION},
    {IPPROTO_TCP, TCP_USER_TIMEOUT}, {IPPROTO_TCP, TCP_FASTOPEN},    {IPPROTO_TCP, TCP_NOTSENT_LOWAT},
    {IPPROTO_TCP, TCP_MAXSEG},      {IPPROTO_IP, IP_TOS},            {IPPROTO_IP, IP_TTL},
    {IPPROTO_IP, IP_MTU_DISCOVER},  {IPPROTO_IPV6, IPV6_TCLASS},     {IPPROTO_IPV6, IPV6_UNICAST_HOPS},
    {IPPROTO_IPV6, IPV6_MTU_DISCOVER},
};

static int read_option(int fd, int level, int option, uint8_t *value, socklen_t *size)
{
    *size = VALUE_MAX;
    memset(value, 0, VALUE_MAX);
    return rr__raw5(SYS_getsockopt, fd, level, option, value, size) >= 0;
}

/* The primary's listener has the first anyway, the other is a mark of ours. */
static int option_is_told(int level, int option)
{
    return level != SOL_SOCKET || (option != SO_REUSEADDR && option != SO_BROADCAST);
}

/* The kernel says twice what was set, to account for itself. */
static void halve(int level, int option, uint8_t *value)
{
    int number;

    if (level != SOL_SOCKET || (option != SO_SNDBUF && option != SO_RCVBUF))
        return;
    memcpy(&number, value, sizeof number);
    number /= 2;
    memcpy(value, &number, sizeof number);
}

void rr__hand_over_options(int fd, int channel, const union rr__address *address, socklen_t length)
{
    int fresh = fresh_socket(address->any.sa_family);

    for (size_t i = 0; fresh >= 0 && i < sizeof inherited / sizeof *inherited; i++) {
        int level = inherited[i].level, option = inherited[i].option;
        uint8_t its[VALUE_MAX], usual[VALUE_MAX];
        socklen_t size, usual_size;
        if (!read_option(fd, level, option, its, &size) ||
            !read_option(fresh, level, option, usual, &usual_size))
            continue;
        int changed = size != usual_size || memcmp(its, usual, size) != 0;
        halve(level, option, its);
        halve(level, option, usual);
        if (level == SOL_SOCKET && is_kept_on_channel(option))
            rr__raw5(SYS_setsockopt, channel, level, option, its, size);
        if (changed && option_is_told(level, option))
            tell(address, length, level, option, its, size);
    }
    if (fresh >= 0)
        rr__raw1(SYS_close, fresh);
}
