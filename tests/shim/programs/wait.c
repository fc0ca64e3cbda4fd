/* poll, select and epoll on a listener. */
#include "kit.h"

static void with_poll(void)
{
    int server = listener(SOCK_NONBLOCK);
    struct pollfd item = {.fd = server, .events = POLLIN};

    show("idle", poll(&item, 1, 0));
    printf("revents %x\n", item.revents);
    client();
    show("poll", poll(&item, 1, 20000));
    printf("revents %x\n", item.revents);
    struct timespec time = {.tv_sec = 20};
    show("ppoll", ppoll(&item, 1, &time, NULL));
    printf("revents %x\n", item.revents);
    show_fd("accept", accept(server, NULL, NULL));
    show("idle again", poll(&item, 1, 10));
    printf("revents %x\n", item.revents);
}

/* A listening socket is never writable. */
static void poll_everything(void)
{
    int server = listener(SOCK_NONBLOCK), pipes[2];
    struct pollfd items[2] = {{.fd = server, .events = POLLIN | POLLPRI | POLLOUT}};

    must("pipe", pipe(pipes) == 0);
    items[1] = (struct pollfd){.fd = pipes[1], .events = POLLOUT};
    show("idle", poll(items, 1, 0));
    show("idle for a while", poll(items, 1, 30));
    printf("revents %x, events %x\n", items[0].revents, items[0].events);
    struct timespec time = {.tv_nsec = 10000000};
    show("ppoll", ppoll(items, 1, &time, NULL));
    show("beside a pipe", poll(items, 2, 30));
    printf("revents %x %x\n", items[0].revents, items[1].revents);
    client();
    show("poll", poll(items, 1, 20000));
    printf("revents %x\n", items[0].revents);
    show_fd("accept", accept(server, NULL, NULL));
}

static void with_select(void)
{
    int server = listener(0);
    struct timeval time = {0};
    struct timespec precise = {.tv_sec = 20};
    fd_set set;

    FD_ZERO(&set);
    FD_SET(server, &set);
    show("idle", select(server + 1, &set, NULL, NULL, &time));
    FD_SET(server, &set);
    client();
    time.tv_sec = 20;
    show("select", select(server + 1, &set, NULL, NULL, &time));
    printf("set %d\n", FD_ISSET(server, &set) != 0);
    show("pselect", pselect(server + 1, &set, NULL, NULL, &precise, NULL));
    show_fd("accept", accept(server, NULL, NULL));
    show("bad set", select(server + 1, (void *)16, NULL, NULL, &time));
}

static void select_everything(void)
{
    int server = looked_at(listener(SOCK_NONBLOCK)), pipes[2];
    struct timeval none = {0}, some = {.tv_usec = 20000}, longer = {.tv_sec = 20};
    struct timespec precise = {.tv_nsec = 20000000};
    fd_set in, out, other;

    must("pipe", pipe(pipes) == 0);
    FD_ZERO(&in);
    FD_ZERO(&other);
    FD_ZERO(&out);
    FD_SET(server, &out);
    show("writable", select(server + 1, NULL, &out, NULL, &none));
    FD_SET(server, &out);
    show("for a while", select(server + 1, NULL, &out, NULL, &some));
    printf("set %d\n", FD_ISSET(server, &out) != 0);
    for (int round = 0; round < 3; round++) {
        FD_SET(server, &in);
        FD_SET(server, &out);
        FD_SET(server, &other);
        FD_SET(pipes[1], &out);
        if (round == 1) {
            client();
            printf("readable: %d\n", readable(server));
        }
        show("select", select(pipes[1] + 1, &in, &out, &other, &longer));
        printf("in %d out %d other %d pipe %d\n", FD_ISSET(server, &in) != 0, FD_ISSET(server, &out) != 0,
               FD_ISSET(server, &other) != 0, FD_ISSET(pipes[1], &out) != 0);
    }
    FD_ZERO(&in);
    FD_SET(server, &out);
    FD_CLR(pipes[1], &out);
    show("pselect", pselect(server + 1, NULL, &out, NULL, &precise, NULL));
    FD_SET(server, &out);
    FD_SET(999, &in);
    show("bad fd", select(1000, &in, &out, NULL, &none));
    printf("set %d %d\n", FD_ISSET(server, &out) != 0, FD_ISSET(999, &in) != 0);
}

/* Bad ones are refused by the kernel, whose limits are ours. */
static void odd_times(void)
{
    static const struct timespec odd[] = {{-1, 0}, {0, -1}, {0, 1000000000}, {1, 5000000000}};
    struct timespec longest = {.tv_sec = INT64_MAX, .tv_nsec = 999999999};
    int server = listener(SOCK_NONBLOCK);
    struct pollfd item = {.fd = server, .events = POLLIN | POLLOUT};
    fd_set set;

    FD_ZERO(&set);
    FD_SET(server, &set);
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
        show("ppoll", ppoll(&item, 1, &odd[i], NULL));
        show("pselect", pselect(server + 1, &set, NULL, NULL, &odd[i], NULL));
    }
    for (int way = 0; way < 3; way++) {
        pid_t pid = fork();
        if (pid == 0) {
            nap(30);
            client();
            _exit(0);
        }
        FD_SET(server, &set);
        if (way == 0)
            show("ppoll", ppoll(&item, 1, &longest, NULL));
        else if (way == 1)
            show("poll", poll(&item, 1, INT32_MAX));
        else
            show("pselect", pselect(server + 1, &set, NULL, NULL, &longest, NULL));
        wait_child("child", pid);
        show_fd("accept", accept(server, NULL, NULL));
    }
}

static void add(int set, int fd, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.u64 = 42};

    show("add", epoll_ctl(set, EPOLL_CTL_ADD, fd, &event));
}

static void shown(int set, int ms)
{
    struct epoll_event event = {0};
    int got = epoll_wait(set, &event, 1, ms);

    show("epoll_wait", got);
    if (got > 0)
        printf("events %x data %d\n", event.events, (int)event.data.u64);
}

static void epoll_level(void)
{
    int server = listener(SOCK_NONBLOCK), set = epoll_create1(EPOLL_CLOEXEC);

    add(set, server, EPOLLIN);
    shown(set, 0);
    client();
    shown(set, 20000);
    shown(set, 20000);
    show_fd("accept", accept(server, NULL, NULL));
    shown(set, 0);
}

static void epoll_edge(void)
{
    int server = listener(SOCK_NONBLOCK), set = epoll_create1(0);

    add(set, server, EPOLLIN | EPOLLET);
    shown(set, 0);
    client();
    shown(set, 20000);
    shown(set, 10);
    client();
    shown(set, 20000);
    shown(set, 10);
    show_fd("accept", accept(server, NULL, NULL));
    show_fd("accept", accept(server, NULL, NULL));
    show_fd("no more", accept(server, NULL, NULL));
    shown(set, 10);
    client();
    shown(set, 20000);
}

static void epoll_one_shot(void)
{
    int server = listener(SOCK_NONBLOCK), set = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN | EPOLLONESHOT, .data.u64 = 42};

    add(set, server, EPOLLIN | EPOLLONESHOT);
    client();
    shown(set, 20000);
    shown(set, 10);
    show("mod", epoll_ctl(set, EPOLL_CTL_MOD, server, &event));
    shown(set, 20000);
    show_fd("accept", accept(server, NULL, NULL));
    show("mod", epoll_ctl(set, EPOLL_CTL_MOD, server, &event));
    shown(set, 10);
}

static void epoll_exclusive(void)
{
    int server = listener(SOCK_NONBLOCK), set = epoll_create1(0), other = epoll_create1(0);

    add(set, server, EPOLLIN | EPOLLEXCLUSIVE);
    add(other, server, EPOLLIN | EPOLLEXCLUSIVE);
    client();
    shown(set, 20000);
    show_fd("accept", accept(server, NULL, NULL));
    shown(other, 0);
}

static void epoll_everything(void)
{
    int server = listener(SOCK_NONBLOCK), set = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN | EPOLLPRI | EPOLLOUT, .data.u64 = 43};

    add(set, server, EPOLLIN | EPOLLPRI | EPOLLOUT);
    shown(set, 10);
    show("mod", epoll_ctl(set, EPOLL_CTL_MOD, server, &event));
    shown(set, 10);
    client();
    shown(set, 20000);
}

/* The event loop knows the socket before it listens. */
static void epoll_before_listen(void)
{
    int server = bound(SOCK_NONBLOCK), set = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = 44};

    add(set, server, EPOLLIN);
    show("listen", listen(server, 5));
    shown(set, 0);
    client();
    shown(set, 20000);
    show("mod", epoll_ctl(set, EPOLL_CTL_MOD, server, &event));
    shown(set, 20000);
    show_fd("accept", accept(server, NULL, NULL));
    shown(set, 0);
    show("del", epoll_ctl(set, EPOLL_CTL_DEL, server, NULL));
    show("mod", epoll_ctl(set, EPOLL_CTL_MOD, server, &event));
}

static void epoll_errors(void)
{
    int server = listener(SOCK_NONBLOCK), set = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN};

    show("del", epoll_ctl(set, EPOLL_CTL_DEL, server, &event));
    add(set, server, EPOLLIN);
    add(set, server, EPOLLIN);
    show("bad event", epoll_ctl(set, EPOLL_CTL_MOD, server, (void *)16));
    show("bad set", epoll_ctl(server, EPOLL_CTL_ADD, server, &event));
    show("bad fd", epoll_ctl(set, EPOLL_CTL_ADD, 999, &event));
    show("bad operation", epoll_ctl(set, 9, server, &event));
    show("del", epoll_ctl(set, EPOLL_CTL_DEL, server, NULL));
    shown(set, 0);
}

/* A closed fd is in no set any more, and its number may come back as another file. */
static void epoll_forgets(void)
{
    int set = epoll_create1(0);

    for (int way = 0; way < 4; way++) {
        int server = listener(SOCK_NONBLOCK);
        add(set, server, EPOLLIN);
        int mine = client();
        shown(set, 20000);
        show_fd("accept", accept(server, NULL, NULL));
        if (way == 0)
            close(server);
        else if (way == 1)
            show_fd("dup2", dup2(set, server));
        else if (way == 2)
            show("close_range", close_range((unsigned)server, (unsigned)server, 0));
        else
            show_fd("dup3", dup3(set, server, O_CLOEXEC));
        shown(set, 0);
        int again = listener(SOCK_NONBLOCK);
        add(set, again, EPOLLIN);
        shown(set, 0);
        close(again);
        shown(set, 0);
        close(mine);
        if (way % 2)
            close(server);
    }
}

/* A forked child that closes the listener leaves its parent's set alone. */
static void epoll_and_fork(void)
{
    int server = listener(SOCK_NONBLOCK), set = epoll_create1(0);

    add(set, server, EPOLLIN);
    pid_t pid = fork();
    if (pid == 0) {
        close(server);
        _exit(0);
    }
    wait_child("child", pid);
    pid = vfork();
    if (pid == 0) {
        close(server);
        _exit(0);
    }
    wait_child("child of vfork", pid);
    client();
    shown(set, 20000);
    show_fd("accept", accept(server, NULL, NULL));
}

int main(int argc, char **argv)
{
    static const struct scenario scenarios[] = {
        {"poll", with_poll},
        {"poll-everything", poll_everything},
        {"select", with_select},
        {"select-everything", select_everything},
        {"odd-times", odd_times},
        {"epoll-level", epoll_level},
        {"epoll-edge", epoll_edge},
        {"epoll-one-shot", epoll_one_shot},
        {"epoll-exclusive", epoll_exclusive},
        {"epoll-everything", epoll_everything},
        {"epoll-before-listen", epoll_before_listen},
        {"epoll-errors", epoll_errors},
        {"epoll-forgets", epoll_forgets},
        {"epoll-and-fork", epoll_and_fork},
        {NULL, NULL}};

    return play(scenarios, argc, argv);
}
