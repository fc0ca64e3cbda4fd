/* What the shim costs a worker per accepted connection, against plain accept4 of the same connections
 * from a full backlog, in one run and process: bench_shim [rounds [connections per round]].
 *
 *   cc -O2 -D_GNU_SOURCE -Icsrc csrc/bench/shim.c csrc/shim*.c csrc/fdpass.c csrc/ledger.c \
 *      csrc/os_linux.c -o bench_shim -ldl -pthread
 *
 * Linked with the shim, it needs no preloading: every call here is the shim's, and what the kernel does
 * alone is called by number. Only accepting is timed; close, connect and sending are not. Medians over
 * the rounds; in brackets the ratio of the tenth and of the ninetieth percent of them. */
#include <netinet/in.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/un.h>
#include <time.h>

#include "../fdpass.h"
#include "../shim.h"

enum { ROUNDS = 41, CONNECTIONS = 64, MOST = 200, NAME = offsetof(struct sockaddr_un, sun_path) };

struct scene {
    int listener, sending, channel, clients[MOST], taken[MOST], count;
    struct sockaddr_in address;
};

static void must(int fine, const char *what)
{
    if (!fine) {
        perror(what);
        exit(1);
    }
}

/* CPU of this thread: others on the machine do not count. */
static double now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

static void prepare(struct scene *scene)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    socklen_t length = sizeof scene->address;
    int pair[2];

    scene->address.sin_family = AF_INET;
    scene->address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    scene->listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    must(rr__raw3(SYS_bind, scene->listener, &scene->address, length) == 0, "bind");
    must(rr__raw3(SYS_getsockname, scene->listener, &scene->address, &length) == 0, "getsockname");
    must(rr__raw2(SYS_listen, scene->listener, MOST) == 0, "listen");
    must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair) == 0, "socketpair");
    scene->sending = pair[0];
    scene->channel = pair[1];
    memcpy(name.sun_path, RR_SHIM_PREFIX, RR_SHIM_PREFIX_SIZE);
    int size = snprintf(name.sun_path + RR_SHIM_PREFIX_SIZE, sizeof name.sun_path - RR_SHIM_PREFIX_SIZE,
                        "00000001/%024x/", getpid());
    for (size_t i = 0; i < sizeof scene->address; i++)
        size += sprintf(name.sun_path + RR_SHIM_PREFIX_SIZE + size, "%02x", ((uint8_t *)&scene->address)[i]);
    must(rr__raw3(SYS_bind, pair[1], &name, NAME + RR_SHIM_PREFIX_SIZE + size) == 0, "bind the channel");
    must(rr__kind(pair[1]) == RR__CHANNEL, "name");
}

static void connect_all(struct scene *scene)
{
    for (int i = 0; i < scene->count; i++) {
        scene->clients[i] = socket(AF_INET, SOCK_STREAM, 0);
        must(connect(scene->clients[i], (struct sockaddr *)&scene->address, sizeof scene->address) == 0,
             "connect");
    }
}

static void close_all(struct scene *scene)
{
    struct linger hard = {.l_onoff = 1};

    for (int i = 0; i < scene->count; i++) {
        rr__shim_setsockopt(scene->clients[i], SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
        rr__shim_close(scene->clients[i]);
        rr__shim_close(scene->taken[i]);
    }
}

/* The dispatcher's part, which is not timed. */
static void pass_all(struct scene *scene)
{
    struct rr_message message = {.version = RR_PROTOCOL, .kind = RR_KIND_CONNECTION, .count = 1};

    for (int i = 0; i < scene->count; i++) {
        socklen_t length = sizeof message.peer;
        int fd = (int)rr__raw4(SYS_accept4, scene->listener, message.peer, &length, SOCK_CLOEXEC);
        must(fd >= 0, "accept4");
        message.peer_length = length;
        must(rr_send(scene->sending, &message, &fd) == 0, "send");
        rr__raw1(SYS_close, fd);
    }
}

static double take(struct scene *scene, int shim, int address, int flags)
{
    struct sockaddr_in peer;

    connect_all(scene);
    if (shim)
        pass_all(scene);
    double start = now_ns();
    for (int i = 0; i < scene->count; i++) {
        socklen_t size = sizeof peer;
        struct sockaddr *to = address ? (struct sockaddr *)&peer : NULL;
        scene->taken[i] = shim ? rr__shim_accept4(scene->channel, to, &size, flags)
                               : (int)rr__raw4(SYS_accept4, scene->listener, to, &size, flags);
        must(scene->taken[i] >= 0, "accept");
    }
    double spent = (now_ns() - start) / scene->count;
    close_all(scene);
    return spent;
}

static int compare(const void *one, const void *other)
{
    double a = *(const double *)one, b = *(const double *)other;

    return (a > b) - (a < b);
}

static void measure(struct scene *scene, int rounds, const char *what, int address, int flags)
{
    double plain[rounds], shim[rounds], ratio[rounds];

    for (int i = 0; i < rounds; i++) {
        plain[i] = take(scene, 0, address, flags);
        shim[i] = take(scene, 1, address, flags);
        ratio[i] = shim[i] / plain[i];
    }
    qsort(plain, (size_t)rounds, sizeof *plain, compare);
    qsort(shim, (size_t)rounds, sizeof *shim, compare);
    qsort(ratio, (size_t)rounds, sizeof *ratio, compare);
    printf("%-34s accept4 %6.0f ns   shim %6.0f ns   ratio %.2f (%.2f to %.2f)\n", what, plain[rounds / 2],
           shim[rounds / 2], ratio[rounds / 2], ratio[rounds / 10], ratio[rounds - 1 - rounds / 10]);
}

int main(int argc, char **argv)
{
    int rounds = argc > 1 ? atoi(argv[1]) : ROUNDS, count = argc > 2 ? atoi(argv[2]) : CONNECTIONS;
    struct scene scene = {.count = count > 0 && count < MOST ? count : CONNECTIONS};

    /* As in a worker that listens and has said so; there is no primary here. */
    setenv("RRDISPATCH_SOCKET", "/nonexistent", 1);
    setenv("RRDISPATCH_KEY", "1:00000000000000000000000000000000", 1);
    rr__load();
    prepare(&scene);
    if (rounds < 1)
        rounds = ROUNDS;
    take(&scene, 1, 0, 0);
    measure(&scene, rounds, "address, SOCK_NONBLOCK | CLOEXEC", 1, SOCK_NONBLOCK | SOCK_CLOEXEC);
    measure(&scene, rounds, "address, SOCK_CLOEXEC", 1, SOCK_CLOEXEC);
    measure(&scene, rounds, "no address, SOCK_CLOEXEC", 0, SOCK_CLOEXEC);
    return 0;
}
