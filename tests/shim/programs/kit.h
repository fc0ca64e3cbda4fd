/* For programs that are run twice, on a real listener and under the shim, and must print the same.
 * "program NAME PORT" runs one scenario; "program" alone lists them. No line may hold a port, a pid or
 * a time. */
#ifndef KIT_H
#define KIT_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#pragma GCC diagnostic ignored "-Wunused-function"

static int port;

struct scenario {
    const char *name;
    void (*run)(void);
};

/* "what: 0", "what: -1 EAGAIN" */
static void show(const char *what, long result)
{
    if (result < 0)
        printf("%s: %ld %s\n", what, result, strerrorname_np(errno));
    else
        printf("%s: %ld\n", what, result);
}

/* The same, without the number of an fd. Returns it. */
static int show_fd(const char *what, int fd)
{
    show(what, fd < 0 ? fd : 0);
    return fd;
}

static void must(const char *what, int fine)
{
    if (!fine) {
        printf("%s failed: %s\n", what, strerrorname_np(errno));
        exit(1);
    }
}

static struct sockaddr_in loopback(int at)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)at),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    return address;
}

/* Bound to the port, with SO_REUSEADDR as servers do. */
static int bound_at(int at, int flags)
{
    struct sockaddr_in address = loopback(at);
    int fd = socket(AF_INET, SOCK_STREAM | flags, 0), one = 1;

    must("socket", fd >= 0);
    must("SO_REUSEADDR", setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) == 0);
    must("bind", bind(fd, (struct sockaddr *)&address, sizeof address) == 0);
    return fd;
}

static int bound(int flags)
{
    return bound_at(port, flags);
}

static int listener(int flags)
{
    int fd = bound(flags);

    must("listen", listen(fd, 16) == 0);
    return fd;
}

static int client_at(int at)
{
    struct sockaddr_in address = loopback(at);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    must("client's socket", fd >= 0);
    must("connect", connect(fd, (struct sockaddr *)&address, sizeof address) == 0);
    return fd;
}

static int client(void)
{
    return client_at(port);
}

/* Waits until something can be accepted: 1, or 0 after 20 s. */
static int readable(int fd)
{
    struct pollfd item = {.fd = fd, .events = POLLIN};
    int got;

    do
        got = poll(&item, 1, 20000);
    while (got < 0 && errno == EINTR);
    return got == 1 && item.revents == POLLIN;
}

static void nap(int ms)
{
    struct timespec time = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L};

    while (nanosleep(&time, &time) < 0 && errno == EINTR)
        ;
}

/* Waits until a thread sleeps. What it sleeps in is known by what it was told to do; under the shim the
 * first wait for a listener also asks the primary, so that is done before by `looked_at`. */
static void until_asleep(pid_t pid, pid_t thread)
{
    char path[64], line[512];

    snprintf(path, sizeof path, "/proc/%d/task/%d/stat", pid, thread);
    for (int seen = 0; seen < 3; nap(2)) {
        FILE *file = fopen(path, "r");
        must("stat", file && fgets(line, sizeof line, file));
        fclose(file);
        seen = strrchr(line, ')')[2] == 'S' ? seen + 1 : 0;
    }
}

static int looked_at(int server)
{
    struct pollfd item = {.fd = server, .events = POLLIN};

    poll(&item, 1, 0);
    return server;
}

/* Sends a byte each way over the two ends of a connection: 1 if it is one. */
static int joined(int one, int other)
{
    char byte = 'a', back = 0;
    struct pollfd item = {.fd = other, .events = POLLIN};

    if (send(one, &byte, 1, MSG_NOSIGNAL) != 1 || poll(&item, 1, 20000) != 1)
        return 0;
    if (recv(other, &back, 1, 0) != 1 || back != 'a')
        return 0;
    item.fd = one;
    byte = 'b';
    if (send(other, &byte, 1, MSG_NOSIGNAL) != 1 || poll(&item, 1, 20000) != 1)
        return 0;
    return recv(one, &back, 1, 0) == 1 && back == 'b';
}

/* Is `address` the one that the client has? */
static int is_of(int client_fd, const void *address, socklen_t length)
{
    struct sockaddr_in its;
    socklen_t size = sizeof its;

    must("getsockname", getsockname(client_fd, (struct sockaddr *)&its, &size) == 0);
    return length == size && memcmp(&its, address, sizeof its - sizeof its.sin_zero) == 0;
}

static void option_of(int fd, const char *what, int level, int option)
{
    int value = 0;
    socklen_t size = sizeof value;

    printf("%s: ", what);
    show("get", getsockopt(fd, level, option, &value, &size));
    printf("  value %d, %u bytes\n", value, size);
}

static void wait_child(const char *what, pid_t pid)
{
    int status = 0;

    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    printf("%s: exit %d signal %d\n", what, WIFEXITED(status) ? WEXITSTATUS(status) : -1,
           WIFSIGNALED(status) ? WTERMSIG(status) : 0);
}

static int play(const struct scenario *scenarios, int argc, char **argv)
{
    if (argc < 3) {
        for (; scenarios->name; scenarios++)
            puts(scenarios->name);
        return 0;
    }
    /* Lines of children come in order, too. */
    setvbuf(stdout, NULL, _IOLBF, 0);
    alarm(80);
    port = atoi(argv[2]);
    for (; scenarios->name; scenarios++)
        if (strcmp(scenarios->name, argv[1]) == 0) {
            scenarios->run();
            return 0;
        }
    return 2;
}

#endif
