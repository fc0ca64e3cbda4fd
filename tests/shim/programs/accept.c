/* accept and accept4: what they return, write and refuse. */
#include "kit.h"

#define BAD ((void *)16)

static void blocking(void)
{
    int server = listener(0), mine = client();
    struct sockaddr_in peer;
    socklen_t size = sizeof peer;
    int got = show_fd("accept", accept(server, (struct sockaddr *)&peer, &size));

    printf("peer right: %d\n", is_of(mine, &peer, size));
    printf("joined: %d\n", joined(mine, got));
    show("cloexec", fcntl(got, F_GETFD));
    show("nonblocking", fcntl(got, F_GETFL) & O_NONBLOCK);
    show("listener nonblocking", fcntl(server, F_GETFL) & O_NONBLOCK);
}

static void nonblocking(void)
{
    int server = listener(SOCK_NONBLOCK);

    show_fd("nothing there", accept(server, NULL, NULL));
    show_fd("nothing there, 4", accept4(server, NULL, NULL, SOCK_CLOEXEC));
    for (int i = 0; i < 3; i++) {
        int mine = client();
        printf("readable: %d\n", readable(server));
        int got = show_fd("accept", accept(server, NULL, NULL));
        printf("joined: %d\n", joined(mine, got));
        show_fd("no more", accept(server, NULL, NULL));
    }
    show("listener nonblocking", (fcntl(server, F_GETFL) & O_NONBLOCK) != 0);
}

static void flags(void)
{
    static const int all[] = {0, SOCK_CLOEXEC, SOCK_NONBLOCK, SOCK_CLOEXEC | SOCK_NONBLOCK};
    int server = listener(SOCK_CLOEXEC);

    show("listener cloexec", fcntl(server, F_GETFD));
    for (int i = 0; i < 4; i++) {
        client();
        int got = show_fd("accept4", accept4(server, NULL, NULL, all[i]));
        show("cloexec", fcntl(got, F_GETFD));
        show("nonblocking", (fcntl(got, F_GETFL) & O_NONBLOCK) != 0);
    }
    client();
    show_fd("bad flag", accept4(server, NULL, NULL, 1));
    show_fd("bad flags", accept4(server, NULL, NULL, ~0));
    show_fd("it still waits", accept4(server, NULL, NULL, 0));
}

static void lengths(void)
{
    static const socklen_t all[] = {0, 1, 2, 8, 16, 17, 128, (socklen_t)-1};
    int server = listener(0);

    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        unsigned char room[160];
        socklen_t size = all[i];
        int mine = client();

        memset(room, 0xaa, sizeof room);
        show_fd("accept", accept(server, (struct sockaddr *)room, &size));
        size_t written = sizeof room;
        while (written > 0 && room[written - 1] == 0xaa)
            written--;
        printf("length %d, written %zu\n", (int)size, written);
        close(mine);
    }
}

static void bad_pointers(void)
{
    int server = listener(0), mine;
    struct sockaddr_in peer;
    socklen_t size = sizeof peer;
    char byte;

    mine = client();
    show_fd("bad address", accept(server, BAD, &size));
    show("the connection is gone", recv(mine, &byte, 1, 0) <= 0);
    client();
    show_fd("bad length", accept(server, (struct sockaddr *)&peer, BAD));
    client();
    show_fd("no length", accept(server, (struct sockaddr *)&peer, NULL));
    client();
    show_fd("length alone", accept(server, NULL, BAD));
    client();
    show_fd("after all that", accept4(server, NULL, NULL, SOCK_CLOEXEC));
}

static void not_listening(void)
{
    int plain = bound(0), unbound = socket(AF_INET, SOCK_STREAM, 0);
    int datagram = socket(AF_INET, SOCK_DGRAM, 0), pair[2], pipes[2];
    int server = listener(0);

    show_fd("bound", accept(plain, NULL, NULL));
    show_fd("unbound", accept4(unbound, NULL, NULL, 0));
    show_fd("datagrams", accept(datagram, NULL, NULL));
    must("socketpair", socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    show_fd("socketpair", accept(pair[0], NULL, NULL));
    must("pipe", pipe(pipes) == 0);
    show_fd("pipe", accept(pipes[0], NULL, NULL));
    show_fd("no fd", accept(-1, NULL, NULL));
    show_fd("closed fd", accept(999, NULL, NULL));
    show_fd("closed fd and bad flags", accept4(999, NULL, NULL, 1));
    int mine = client(), got = accept(server, NULL, NULL);
    show_fd("a connection", accept(got, NULL, NULL));
    show_fd("a client", accept(mine, NULL, NULL));
}

static void lowest_number(void)
{
    int server = listener(0), hole = dup(0);

    client();
    client();
    close(hole);
    show("the number that became free", accept(server, NULL, NULL) == hole);
    show("the next one", accept(server, NULL, NULL) > hole);
}

static void timeout(void)
{
    struct timeval limit = {.tv_usec = 50000}, got;
    socklen_t size = sizeof got;
    int server = bound(0);

    show("before listen", setsockopt(server, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit));
    show("listen", listen(server, 16));
    show_fd("nothing in time", accept(server, NULL, NULL));
    show("read back", getsockopt(server, SOL_SOCKET, SO_RCVTIMEO, &got, &size));
    printf("%ld s %ld us, %u bytes\n", (long)got.tv_sec, (long)got.tv_usec, size);
    limit.tv_usec = 30000;
    show("after listen", setsockopt(server, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit));
    show_fd("nothing in time again", accept4(server, NULL, NULL, 0));
    client();
    limit.tv_usec = 0;
    show("none", setsockopt(server, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit));
    show_fd("blocks", accept(server, NULL, NULL));
}

/* As accept(2) looks for a number first, an idle listener tells of a full table, too. */
static void full_table(void)
{
    struct rlimit limit, before;
    int server = listener(SOCK_NONBLOCK), mine = client();

    printf("readable: %d\n", readable(server));
    show_fd("before", accept(server, NULL, NULL));
    mine = client();
    printf("readable: %d\n", readable(server));
    int spare = dup(0), top = spare;
    must("getrlimit", getrlimit(RLIMIT_NOFILE, &before) == 0);
    limit = before;
    limit.rlim_cur = (rlim_t)top + 1;
    must("setrlimit", setrlimit(RLIMIT_NOFILE, &limit) == 0);
    for (int i = 0; i < 5; i++)
        show_fd("full", accept(server, NULL, NULL));
    printf("it waits: %d\n", readable(server));
    close(spare);
    int got = show_fd("one free", accept(server, NULL, NULL));
    printf("joined: %d\n", joined(mine, got));
    show_fd("full and idle", accept(server, NULL, NULL));
    must("setrlimit", setrlimit(RLIMIT_NOFILE, &before) == 0);
    show_fd("idle", accept(server, NULL, NULL));
    /* The highest number is open, those below are not. */
    show("dup2", dup2(0, (int)before.rlim_cur - 1) >= 0);
    mine = client();
    printf("readable: %d\n", readable(server));
    got = show_fd("accept", accept(server, NULL, NULL));
    printf("joined: %d\n", joined(mine, got));
    must("prlimit", prlimit(0, RLIMIT_NOFILE, &limit, NULL) == 0);
    show_fd("full", accept(server, NULL, NULL));
}

/* Gone before it was accepted: by FIN, or by RST, which takes the address with it. */
static void gone(void)
{
    int server = listener(0);

    for (int hard = 0; hard < 2; hard++) {
        struct linger linger = {.l_onoff = hard, .l_linger = 0};
        struct sockaddr_in its, peer;
        socklen_t its_size = sizeof its, size = sizeof peer;
        int mine = client();

        getsockname(mine, (struct sockaddr *)&its, &its_size);
        setsockopt(mine, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
        close(mine);
        nap(20);
        int got = show_fd("accept", accept(server, (struct sockaddr *)&peer, &size));
        printf("peer right: %d\n", size == its_size && peer.sin_port == its.sin_port &&
                                       peer.sin_addr.s_addr == its.sin_addr.s_addr);
        char byte;
        show("recv", recv(got, &byte, 1, 0));
        size = 5;
        show("getpeername", getpeername(got, (struct sockaddr *)&peer, &size));
    }
    struct linger linger = {.l_onoff = 1, .l_linger = 0};
    int mine = client();
    socklen_t size = 16;
    setsockopt(mine, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
    close(mine);
    nap(20);
    show_fd("gone, bad address", accept(server, BAD, &size));
}

#define KEEPS(call) (errno = 77, printf("%s: %d %d\n", #call, (call) >= 0, errno))

/* What succeeds leaves errno alone. */
static void errno_is_kept(void)
{
    struct sockaddr_in address = loopback(port), peer;
    socklen_t size = sizeof peer, length = sizeof(int);
    int server = socket(AF_INET, SOCK_STREAM, 0), set = epoll_create1(0), one = 1, got = -1, other = dup(0);
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT};
    struct timespec none = {0};
    struct timeval nothing = {0};
    fd_set in;

    KEEPS(setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one));
    KEEPS(bind(server, (struct sockaddr *)&address, sizeof address));
    KEEPS(epoll_ctl(set, EPOLL_CTL_ADD, server, &event));
    KEEPS(listen(server, 5));
    KEEPS(epoll_ctl(set, EPOLL_CTL_MOD, server, &event));
    KEEPS(setsockopt(server, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one));
    KEEPS(getsockopt(server, SOL_SOCKET, SO_ACCEPTCONN, &one, &length));
    KEEPS(getsockname(server, (struct sockaddr *)&peer, &size));
    struct pollfd item = {.fd = server, .events = POLLIN | POLLOUT};
    KEEPS(poll(&item, 1, 0));
    KEEPS(ppoll(&item, 1, &none, NULL));
    for (int i = 0; i < 2; i++) {
        FD_ZERO(&in);
        FD_SET(server, &in);
        KEEPS(select(server + 1, &in, i ? &in : NULL, NULL, &nothing));
    }
    KEEPS(epoll_wait(set, &event, 1, 0));
    client();
    KEEPS(got = accept4(server, (struct sockaddr *)&peer, &size, SOCK_NONBLOCK));
    KEEPS(dup2(got, other));
    KEEPS(dup3(server, other, O_CLOEXEC));
    KEEPS(close(got));
    KEEPS(shutdown(server, SHUT_RDWR));
    KEEPS(close(server));
    KEEPS(close_range((unsigned)other, (unsigned)other, 0));
}

static void many(void)
{
    int server = listener(0), clients[40], fine = 0;

    for (int i = 0; i < 40; i++) {
        /* More than the backlog of 16 wait only if somebody takes them. */
        clients[i] = client();
        struct sockaddr_in peer;
        socklen_t size = sizeof peer;
        if (i < 8)
            continue;
        int got = accept4(server, (struct sockaddr *)&peer, &size, SOCK_NONBLOCK);
        fine += got >= 0 && is_of(clients[i - 8], &peer, size) && joined(clients[i - 8], got);
    }
    printf("in order: %d\n", fine);
}

/* What a connection inherits from options that were set on the listener before listen(). */
static void inherits(void)
{
    int server = bound(0), one = 1, idle = 77, value;
    struct linger linger = {.l_onoff = 1, .l_linger = 3};
    socklen_t size;

    setsockopt(server, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
    setsockopt(server, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
    setsockopt(server, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(server, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
    show("listen", listen(server, 4));
    idle = 5;
    show("TCP_KEEPCNT after listen", setsockopt(server, IPPROTO_TCP, TCP_KEEPCNT, &idle, sizeof idle));
    client();
    int got = show_fd("accept", accept(server, NULL, NULL));
    size = sizeof value;
    getsockopt(got, SOL_SOCKET, SO_KEEPALIVE, &value, &size);
    show("SO_KEEPALIVE", value);
    getsockopt(got, IPPROTO_TCP, TCP_KEEPIDLE, &value, &size);
    show("TCP_KEEPIDLE", value);
    getsockopt(got, IPPROTO_TCP, TCP_KEEPCNT, &value, &size);
    show("TCP_KEEPCNT", value);
    getsockopt(got, IPPROTO_TCP, TCP_NODELAY, &value, &size);
    show("TCP_NODELAY", value);
    size = sizeof linger;
    memset(&linger, 0, sizeof linger);
    getsockopt(got, SOL_SOCKET, SO_LINGER, &linger, &size);
    printf("linger %d %d\n", linger.l_onoff, linger.l_linger);
}

int main(int argc, char **argv)
{
    static const struct scenario scenarios[] = {
        {"blocking", blocking},     {"nonblocking", nonblocking},     {"flags", flags},
        {"lengths", lengths},       {"bad-pointers", bad_pointers},   {"not-listening", not_listening},
        {"lowest-number", lowest_number}, {"timeout", timeout},       {"full-table", full_table},
        {"gone", gone},             {"many", many},                   {"inherits", inherits},
        {"errno-is-kept", errno_is_kept},
        {NULL, NULL}};

    return play(scenarios, argc, argv);
}
