/* Sockets that are none of the shim's business, IPv6, and calls by number. */
#include <sys/syscall.h>

#include "kit.h"

static void other_kinds(void)
{
    struct sockaddr_in address = loopback(port), none = loopback(0);
    struct sockaddr_un path = {.sun_family = AF_UNIX, .sun_path = ""};
    socklen_t size = sizeof none;
    int datagram = socket(AF_INET, SOCK_DGRAM, 0), local = socket(AF_UNIX, SOCK_STREAM, 0);
    int any = socket(AF_INET, SOCK_STREAM, 0), outgoing = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    char byte = 'u';

    show("bind UDP", bind(datagram, (struct sockaddr *)&address, sizeof address));
    option_of(datagram, "SO_REUSEPORT of UDP", SOL_SOCKET, SO_REUSEPORT);
    show("send", sendto(datagram, &byte, 1, 0, (struct sockaddr *)&address, sizeof address));
    show("receive", recv(datagram, &byte, 1, 0));

    snprintf(path.sun_path + 1, sizeof path.sun_path - 1, "shim-test-%d", port);
    show("bind AF_UNIX", bind(local, (struct sockaddr *)&path, sizeof path));
    show("listen", listen(local, 5));
    int mine = socket(AF_UNIX, SOCK_STREAM, 0);
    show("connect", connect(mine, (struct sockaddr *)&path, sizeof path));
    int got = show_fd("accept", accept(local, NULL, NULL));
    printf("joined: %d\n", joined(mine, got));

    setsockopt(any, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    show("bind port 0", bind(any, (struct sockaddr *)&none, sizeof none));
    option_of(any, "SO_REUSEPORT of port 0", SOL_SOCKET, SO_REUSEPORT);
    show("listen", listen(any, 5));
    show("getsockname", getsockname(any, (struct sockaddr *)&none, &size));
    mine = client_at(ntohs(none.sin_port));
    got = show_fd("accept", accept(any, NULL, NULL));
    printf("joined: %d\n", joined(mine, got));

    setsockopt(outgoing, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    show("bind and connect", bind(outgoing, (struct sockaddr *)&address, sizeof address));
    show("connect", connect(outgoing, (struct sockaddr *)&none, sizeof none));
    struct sockaddr_in peer;
    size = sizeof peer;
    got = show_fd("accept", accept(any, (struct sockaddr *)&peer, &size));
    printf("from the port: %d\n", ntohs(peer.sin_port) == port);
}

/* SO_REUSEPORT of the program's own and a port of the kernel's choice. */
static void own_reuseport(void)
{
    struct sockaddr_in none = loopback(0);
    int any = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    socklen_t size = sizeof none;

    setsockopt(any, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
    show("bind port 0", bind(any, (struct sockaddr *)&none, sizeof none));
    show("listen", listen(any, 5));
    getsockname(any, (struct sockaddr *)&none, &size);
    struct ucred unused;
    size = sizeof unused;
    show("a unix socket", getsockopt(any, SOL_SOCKET, SO_PEERCRED, &unused, &size));
    int mine = client_at(ntohs(none.sin_port)), got = show_fd("accept", accept(any, NULL, NULL));
    printf("joined: %d\n", joined(mine, got));
}

static void six(void)
{
    struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port)}, name;
    socklen_t size = sizeof name;

    for (int only = 0; only < 2; only++) {
        int server = socket(AF_INET6, SOCK_STREAM, 0), on = 1;
        if (server < 0) {
            puts("no IPv6");
            return;
        }
        address.sin6_addr = only ? in6addr_loopback : in6addr_any;
        setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        show("IPV6_V6ONLY", setsockopt(server, IPPROTO_IPV6, IPV6_V6ONLY, &only, sizeof only));
        show("bind", bind(server, (struct sockaddr *)&address, sizeof address));
        show("listen", listen(server, 5));
        option_of(server, "SO_DOMAIN", SOL_SOCKET, SO_DOMAIN);
        option_of(server, "IPV6_V6ONLY", IPPROTO_IPV6, IPV6_V6ONLY);
        int mine = socket(AF_INET6, SOCK_STREAM, 0);
        struct sockaddr_in6 to = address;
        to.sin6_addr = in6addr_loopback;
        show("connect", connect(mine, (struct sockaddr *)&to, sizeof to));
        size = sizeof name;
        int got = show_fd("accept", accept(server, (struct sockaddr *)&name, &size));
        printf("length %u, loopback %d, joined %d\n", size,
               IN6_IS_ADDR_LOOPBACK(&name.sin6_addr), joined(mine, got));
        if (!only) {
            client();
            got = show_fd("accept", accept(server, (struct sockaddr *)&name, &size));
            printf("mapped %d\n", IN6_IS_ADDR_V4MAPPED(&name.sin6_addr));
        }
        size = sizeof name;
        show("getsockname", getsockname(server, (struct sockaddr *)&name, &size));
        printf("length %u, right %d\n", size, memcmp(&name.sin6_addr, &address.sin6_addr, 16) == 0);
        close(server);
    }
}

/* A server on both families binds the same port twice, in either order. */
static void six_and_four(void)
{
    struct sockaddr_in6 six_any = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port)};
    struct sockaddr_in four_any = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int on = 1;

    for (int order = 0; order < 2; order++) {
        int fds[2] = {socket(AF_INET6, SOCK_STREAM, 0), socket(AF_INET, SOCK_STREAM, 0)};
        show("IPV6_V6ONLY", setsockopt(fds[0], IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on));
        for (int i = 0; i < 2; i++) {
            int which = i ^ order;
            setsockopt(fds[which], SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
            show("bind", which ? bind(fds[1], (struct sockaddr *)&four_any, sizeof four_any)
                               : bind(fds[0], (struct sockaddr *)&six_any, sizeof six_any));
            show("listen", listen(fds[which], 5));
        }
        int mine = client(), got = show_fd("accept", accept(fds[1], NULL, NULL));
        printf("joined %d\n", joined(mine, got));
        close(fds[0]);
        close(fds[1]);
    }
}

/* By number, as libuv does. */
static void by_syscall(void)
{
    struct sockaddr_in address = loopback(port), peer;
    int server = (int)syscall(SYS_socket, AF_INET, SOCK_STREAM, 0), on = 1;
    socklen_t size = sizeof peer;

    show("setsockopt", syscall(SYS_setsockopt, server, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on));
    show("bind", syscall(SYS_bind, server, &address, sizeof address));
    show("listen", syscall(SYS_listen, server, 5));
    int mine = client();
    int got = show_fd("accept4", (int)syscall(SYS_accept4, server, &peer, &size, SOCK_CLOEXEC));
    printf("peer right: %d, joined %d\n", is_of(mine, &peer, size), joined(mine, got));
    show("getsockname", syscall(SYS_getsockname, server, &peer, &size));
    printf("port right: %d\n", ntohs(peer.sin_port) == port);
    show("getpeername", syscall(SYS_getpeername, server, &peer, &size));
    show("close", syscall(SYS_close, got));
    show("close", syscall(SYS_close, got));
    show("nonsense", syscall(9999));
    show("six arguments", syscall(SYS_mmap, 0, 4096, 0, 0x22, -1, 0) > 0);
    show("close_range", syscall(SYS_close_range, server, server, 0));
    show("accept", syscall(SYS_accept4, server, NULL, NULL, 0));
}

/* The other numbers that there are names for: each with its arguments in their places. */
static void waits_by_syscall(void)
{
    int server = listener(0), set = (int)syscall(SYS_epoll_create1, 0), mine = client(), value = 0;
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT, .data.fd = 7};
    struct pollfd item = {.fd = server, .events = POLLIN | POLLOUT};
    socklen_t size = sizeof value;

    show("getsockopt", syscall(SYS_getsockopt, server, SOL_SOCKET, SO_ACCEPTCONN, &value, &size));
    printf("listens: %d, %u bytes\n", value, size);
    show("epoll_ctl", syscall(SYS_epoll_ctl, set, EPOLL_CTL_ADD, server, &event));
    show("epoll_pwait", syscall(SYS_epoll_pwait, set, &event, 1, -1, NULL, 8));
    printf("events %u of %d\n", event.events, event.data.fd);
#ifdef SYS_epoll_wait
    show("epoll_wait", syscall(SYS_epoll_wait, set, &event, 1, -1) == 1);
#endif
#ifdef SYS_poll
    show("poll", syscall(SYS_poll, &item, 1, -1) == 1 && item.revents == POLLIN);
#endif
    item.events = POLLIN;
    show("ppoll", syscall(SYS_ppoll, &item, 1, NULL, NULL, 8));
    show("dup3", syscall(SYS_dup3, server, 60, O_CLOEXEC));
    show("cloexec", fcntl(60, F_GETFD));
#ifdef SYS_dup2
    show("dup2", syscall(SYS_dup2, server, 61) == 61 && close(61) == 0);
#endif
    show("close", syscall(SYS_close, server));
    int got = show_fd("accept", (int)syscall(SYS_accept, 60, NULL, NULL));
    printf("joined %d\n", joined(mine, got));
    show("shutdown", syscall(SYS_shutdown, 60, SHUT_RDWR));
    show("accept", syscall(SYS_accept, 60, NULL, NULL));
}

/* A limit that was lowered by number is seen by the next accept. */
static void limits_by_syscall(void)
{
    int server = listener(SOCK_NONBLOCK), mine = client();
    struct rlimit before, limit;

    must("readable", readable(server));
    must("accept", accept(server, NULL, NULL) >= 0);
    show("prlimit64", syscall(SYS_prlimit64, 0, RLIMIT_NOFILE, NULL, &before));
    limit = before;
    int other = client();
    must("readable", readable(server));
    limit.rlim_cur = (rlim_t)other + 1;
    show("prlimit64", syscall(SYS_prlimit64, 0, RLIMIT_NOFILE, &limit, NULL));
    show("accept", syscall(SYS_accept4, server, NULL, NULL, 0));
#ifdef SYS_setrlimit
    show("setrlimit", syscall(SYS_setrlimit, RLIMIT_NOFILE, &before));
#else
    show("setrlimit", setrlimit(RLIMIT_NOFILE, &before));
#endif
    int got = show_fd("it waited", (int)syscall(SYS_accept4, server, NULL, NULL, 0));
    printf("joined %d, %d\n", joined(other, got), close(mine));
    show("bad", syscall(SYS_prlimit64, 0, 99, NULL, &limit));
}

int main(int argc, char **argv)
{
    static const struct scenario scenarios[] = {
        {"other-kinds", other_kinds},
        {"own-reuseport", own_reuseport},
        {"six", six},
        {"six-and-four", six_and_four},
        {"by-syscall", by_syscall},
        {"waits-by-syscall", waits_by_syscall},
        {"limits-by-syscall", limits_by_syscall},
        {NULL, NULL}};

    return play(scenarios, argc, argv);
}
