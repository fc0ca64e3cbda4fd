/* bind, listen, shutdown, names and options of listeners. */
#include "kit.h"

#define BAD ((void *)16)

static void names(void)
{
    int server = listener(0);
    unsigned char room[64];
    static const socklen_t lengths[] = {16, 4, 0, 64};

    for (int i = 0; i < 4; i++) {
        socklen_t size = lengths[i];
        memset(room, 0xaa, sizeof room);
        show("getsockname", getsockname(server, (struct sockaddr *)room, &size));
        size_t written = sizeof room;
        while (written > 0 && room[written - 1] == 0xaa)
            written--;
        printf("length %u, written %zu, family %d\n", size, written, room[0]);
    }
    struct sockaddr_in name;
    socklen_t size = sizeof name;
    getsockname(server, (struct sockaddr *)&name, &size);
    printf("%s, port right: %d\n", inet_ntoa(name.sin_addr), ntohs(name.sin_port) == port);
    show("bad name", getsockname(server, BAD, &size));
    show("bad length", getsockname(server, (struct sockaddr *)room, BAD));
    size = (socklen_t)-5;
    show("negative length", getsockname(server, (struct sockaddr *)room, &size));
    size = sizeof name;
    show("getpeername", getpeername(server, (struct sockaddr *)room, &size));
    int mine = client(), got = accept(server, NULL, NULL);
    show("getpeername of a connection", getpeername(got, (struct sockaddr *)&name, &size));
    printf("peer right: %d\n", is_of(mine, &name, size));
    show("getsockname of a connection", getsockname(got, (struct sockaddr *)&name, &size));
    printf("port right: %d\n", ntohs(name.sin_port) == port);
}

static void options(void)
{
    int server = listener(0), value = 5;
    char text[32] = "";
    socklen_t size = sizeof value;

    option_of(server, "SO_ACCEPTCONN", SOL_SOCKET, SO_ACCEPTCONN);
    option_of(server, "SO_TYPE", SOL_SOCKET, SO_TYPE);
    option_of(server, "SO_DOMAIN", SOL_SOCKET, SO_DOMAIN);
    option_of(server, "SO_PROTOCOL", SOL_SOCKET, SO_PROTOCOL);
    option_of(server, "SO_REUSEADDR", SOL_SOCKET, SO_REUSEADDR);
    option_of(server, "SO_ERROR", SOL_SOCKET, SO_ERROR);
    option_of(server, "SO_KEEPALIVE", SOL_SOCKET, SO_KEEPALIVE);
    option_of(server, "SO_RCVLOWAT", SOL_SOCKET, SO_RCVLOWAT);
    option_of(server, "TCP_NODELAY", IPPROTO_TCP, TCP_NODELAY);
    option_of(server, "TCP_KEEPIDLE", IPPROTO_TCP, TCP_KEEPIDLE);
    option_of(server, "IP_TTL", IPPROTO_IP, IP_TTL);
    option_of(server, "nothing", IPPROTO_TCP, 9999);
    option_of(server, "no level", 9999, 1);
    struct tcp_info info;
    socklen_t length = sizeof info;
    show("TCP_INFO", getsockopt(server, IPPROTO_TCP, TCP_INFO, &info, &length));
    printf("state %d\n", info.tcpi_state);
    length = sizeof text;
    show("TCP_CONGESTION", getsockopt(server, IPPROTO_TCP, TCP_CONGESTION, text, &length));
    printf("%s\n", text);
    show("bad value", getsockopt(server, SOL_SOCKET, SO_ACCEPTCONN, BAD, &size));
    show("bad size", getsockopt(server, SOL_SOCKET, SO_ACCEPTCONN, &value, BAD));
    size = 2;
    show("short size", getsockopt(server, SOL_SOCKET, SO_ACCEPTCONN, &value, &size));
    printf("%u bytes\n", size);
    size = (socklen_t)-1;
    show("negative size", getsockopt(server, SOL_SOCKET, SO_ACCEPTCONN, &value, &size));
    show("set TCP_NODELAY", setsockopt(server, IPPROTO_TCP, TCP_NODELAY, &value, sizeof value));
    show("set SO_KEEPALIVE", setsockopt(server, SOL_SOCKET, SO_KEEPALIVE, &value, sizeof value));
    option_of(server, "SO_KEEPALIVE", SOL_SOCKET, SO_KEEPALIVE);
    show("set TCP_DEFER_ACCEPT", setsockopt(server, IPPROTO_TCP, TCP_DEFER_ACCEPT, &value, sizeof value));
    show("set IP_TOS", setsockopt(server, IPPROTO_IP, IP_TOS, &value, sizeof value));
    show("set nothing", setsockopt(server, IPPROTO_TCP, 9999, &value, sizeof value));
    show("set too short", setsockopt(server, IPPROTO_TCP, TCP_NODELAY, &value, 1));
    show("set bad value", setsockopt(server, IPPROTO_TCP, TCP_NODELAY, BAD, sizeof value));
    show("set no level", setsockopt(server, 9999, 1, &value, sizeof value));
    show("set read-only", setsockopt(server, SOL_SOCKET, SO_ACCEPTCONN, &value, sizeof value));
}

static void listening(void)
{
    int server = bound(0), one = 1;

    option_of(server, "before", SOL_SOCKET, SO_ACCEPTCONN);
    show("listen", listen(server, 5));
    show("again", listen(server, 50));
    show("backlog 0", listen(server, 0));
    show("backlog -1", listen(server, -1));
    option_of(server, "after", SOL_SOCKET, SO_ACCEPTCONN);
    struct sockaddr_in address = loopback(port);
    show("bind again", bind(server, (struct sockaddr *)&address, sizeof address));
    show("not a socket", listen(0, 5));
    show("closed", listen(999, 5));
    int datagram = socket(AF_INET, SOCK_DGRAM, 0);
    show("UDP", listen(datagram, 5));
    int unbound = socket(AF_INET, SOCK_STREAM, 0);
    show("unbound", listen(unbound, 5));
    option_of(unbound, "unbound", SOL_SOCKET, SO_ACCEPTCONN);
    int mine = client();
    show("connected", listen(mine, 5));
    int got = accept(server, NULL, NULL);
    show("accepted", listen(got, 5));
    setsockopt(got, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
}

static void binding(void)
{
    struct sockaddr_in address = loopback(port), foreign = loopback(port);
    struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_addr = in6addr_loopback};
    int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;

    inet_pton(AF_INET, "192.0.2.1", &foreign.sin_addr);
    show("not ours", bind(fd, (struct sockaddr *)&foreign, sizeof foreign));
    option_of(fd, "SO_REUSEPORT", SOL_SOCKET, SO_REUSEPORT);
    show("too short", bind(fd, (struct sockaddr *)&address, 8));
    show("too long", bind(fd, (struct sockaddr *)&address, 4096));
    show("bad", bind(fd, BAD, sizeof address));
    show("wrong family", bind(fd, (struct sockaddr *)&six, sizeof six));
    show("no fd", bind(-1, (struct sockaddr *)&address, sizeof address));
    show("no socket", bind(0, (struct sockaddr *)&address, sizeof address));
    show("bind", bind(fd, (struct sockaddr *)&address, sizeof address));
    show("twice", bind(fd, (struct sockaddr *)&address, sizeof address));
    show("listen", listen(fd, 5));
    int other = socket(AF_INET, SOCK_STREAM, 0);
    show("in use", bind(other, (struct sockaddr *)&address, sizeof address));
    setsockopt(other, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    show("in use, SO_REUSEADDR", bind(other, (struct sockaddr *)&address, sizeof address));
    address.sin_addr.s_addr = INADDR_ANY;
    show("in use, any address", bind(other, (struct sockaddr *)&address, sizeof address));
    inet_pton(AF_INET, "127.0.0.2", &address.sin_addr);
    show("another address", bind(other, (struct sockaddr *)&address, sizeof address));
    show("listen", listen(other, 5));
}

/* A second socket of the program may be bound beside the first only as the kernel says. */
static void bound_twice(void)
{
    struct sockaddr_in address = loopback(port);

    for (int way = 0; way < 4; way++) {
        int one = socket(AF_INET, SOCK_STREAM, 0), two = socket(AF_INET, SOCK_STREAM, 0), on = 1;
        int option = way == 1 ? SO_REUSEADDR : SO_REUSEPORT;
        if (way > 0) {
            setsockopt(one, SOL_SOCKET, option, &on, sizeof on);
            if (way < 3)
                setsockopt(two, SOL_SOCKET, option, &on, sizeof on);
        }
        printf("way %d\n", way);
        show("first", bind(one, (struct sockaddr *)&address, sizeof address));
        show("second", bind(two, (struct sockaddr *)&address, sizeof address));
        close(one);
        show("second, alone", bind(two, (struct sockaddr *)&address, sizeof address));
        close(two);
    }
}

static void relisten(void)
{
    int fine = 0;

    for (int i = 0; i < 200; i++) {
        int server = listener(i % 2 ? SOCK_NONBLOCK : 0), mine = client();
        if (!readable(server))
            printf("%d is not readable\n", i);
        int got = accept4(server, NULL, NULL, 0);
        fine += got >= 0 && joined(mine, got);
        struct linger linger = {.l_onoff = 1};
        setsockopt(mine, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
        close(mine);
        close(got);
        close(server);
    }
    printf("fine: %d\n", fine);
}

static void several_listeners(void)
{
    int servers[4];
    struct pollfd items[4];

    for (int i = 0; i < 4; i++) {
        /* The same port on four addresses. */
        struct sockaddr_in address = loopback(port);
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK + (uint32_t)i);
        servers[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        show("bind", bind(servers[i], (struct sockaddr *)&address, sizeof address));
        show("listen", listen(servers[i], 5));
        items[i] = (struct pollfd){.fd = servers[i], .events = POLLIN};
    }
    for (int i = 3; i >= 0; i--) {
        struct sockaddr_in address = loopback(port);
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK + (uint32_t)i);
        int mine = socket(AF_INET, SOCK_STREAM, 0);
        must("connect", connect(mine, (struct sockaddr *)&address, sizeof address) == 0);
        show("poll", poll(items, 4, 20000));
        for (int j = 0; j < 4; j++) {
            struct sockaddr_in peer;
            socklen_t size = sizeof peer;
            int got = accept(servers[j], (struct sockaddr *)&peer, &size);
            if (got >= 0)
                printf("connection on %d, joined %d\n", j, joined(mine, got));
            else
                printf("%d: %s\n", j, strerrorname_np(errno));
        }
    }
}

static void shut_down(void)
{
    int server = listener(SOCK_NONBLOCK);
    struct sockaddr_in name;
    socklen_t size = sizeof name;
    struct pollfd item = {.fd = server, .events = POLLIN};

    show("bad", shutdown(server, 7));
    show("SHUT_WR", shutdown(server, SHUT_WR));
    show_fd("still open", accept(server, NULL, NULL));
    show("SHUT_RD", shutdown(server, SHUT_RD));
    show_fd("accept", accept(server, NULL, NULL));
    show("poll", poll(&item, 1, 0));
    printf("revents %x\n", item.revents);
    option_of(server, "SO_ACCEPTCONN", SOL_SOCKET, SO_ACCEPTCONN);
    show("getsockname", getsockname(server, (struct sockaddr *)&name, &size));
    printf("port right: %d\n", ntohs(name.sin_port) == port);
    show("listen again", listen(server, 5));
    int mine = client();
    printf("readable: %d\n", readable(server));
    int got = show_fd("accept", accept(server, NULL, NULL));
    printf("joined: %d\n", joined(mine, got));
    show("SHUT_RDWR", shutdown(server, SHUT_RDWR));
    show("again", shutdown(server, SHUT_RDWR));
    show("a connection", shutdown(got, SHUT_WR));
}

static int shared_server;

struct sleeper {
    pid_t id;
    int error;
};

static void *one_accept(void *argument)
{
    struct sleeper *self = argument;

    __atomic_store_n(&self->id, gettid(), __ATOMIC_RELEASE);
    self->error = accept(shared_server, NULL, NULL) < 0 ? errno : 0;
    return NULL;
}

static void shut_down_in_accept(void)
{
    pthread_t threads[3];
    struct sleeper sleepers[3] = {{0, 0}};

    shared_server = looked_at(listener(0));
    for (int i = 0; i < 3; i++)
        must("thread", pthread_create(&threads[i], NULL, one_accept, &sleepers[i]) == 0);
    for (int i = 0; i < 3; i++) {
        while (!__atomic_load_n(&sleepers[i].id, __ATOMIC_ACQUIRE))
            nap(1);
        until_asleep(getpid(), sleepers[i].id);
    }
    show("shutdown", shutdown(shared_server, SHUT_RDWR));
    for (int i = 0; i < 3; i++) {
        pthread_join(threads[i], NULL);
        printf("accept in a thread: %s\n", strerrorname_np(sleepers[i].error));
    }
}

int main(int argc, char **argv)
{
    static const struct scenario scenarios[] = {
        {"names", names},
        {"options", options},
        {"listening", listening},
        {"binding", binding},
        {"bound-twice", bound_twice},
        {"relisten", relisten},
        {"several-listeners", several_listeners},
        {"shut-down", shut_down},
        {"shut-down-in-accept", shut_down_in_accept},
        {NULL, NULL}};

    return play(scenarios, argc, argv);
}
