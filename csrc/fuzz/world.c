/* Owns the poller that is the heart of the fuzzed world, its beginning and its end. */
#include "world.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../fdpass.h"

enum { FDS_SEEN = 1024, IDLE_MOST = 120, SPINS_MOST = 2000 };

struct world world;

void world_broken(const char *what)
{
    const struct rr__dispatcher *d = world.d;

    fprintf(stderr, "broken: %s\n", what);
    if (d)
        fprintf(stderr, "  round %llu, now %llu; retry %llu watch %llu reap %llu told %llu leave %llu\n"
                "  heir due %llu silent %llu; event %llx; workers %d, ready %d, full %d, held %d\n",
                (unsigned long long)d->rounds, (unsigned long long)d->now,
                (unsigned long long)d->retry_ns, (unsigned long long)d->watch_ns,
                (unsigned long long)d->reap_ns, (unsigned long long)d->told_ns,
                (unsigned long long)d->leave_ns, (unsigned long long)d->heirs.due_ns,
                (unsigned long long)d->heirs.silent_ns, (unsigned long long)d->events[0].tag,
                d->slots.used_count, d->slots.ready_count, d->full, d->hand.count);
    abort();
}

unsigned world_byte(void)
{
    if (world.size == 0)
        return 0;
    world.size--;
    return *world.data++;
}

/* ---- the poller ----------------------------------------------------------------------------- */

static int find(const struct rr__poller *poller, int fd)
{
    for (int i = 0; i < poller->count; i++)
        if (poller->items[i].fd == fd)
            return i;
    return -1;
}

int rr__poller_open(struct rr__poller *poller)
{
    poller->count = 0;
    world.d = (struct rr__dispatcher *)((char *)poller - offsetof(struct rr__dispatcher, poller));
    return 0;
}

/* The last moment at which its tables can be read. */
void rr__poller_close(struct rr__poller *poller)
{
    const struct rr__dispatcher *d = world.d;

    poller->count = 0;
    world.d = NULL;
    if (!d)
        return;
    WORLD_CHECK(d->accepted == world.accepted);
    WORLD_CHECK(d->hand.count == 0);
    world.found += d->lost;
}

int rr__poller_add(struct rr__poller *poller, int fd, uint64_t tag)
{
    struct stat about;

    if (fd < 0 || fstat(fd, &about) < 0)
        return -EBADF;
    if (S_ISREG(about.st_mode) || S_ISDIR(about.st_mode) || S_ISCHR(about.st_mode))
        return -EPERM; /* as epoll says */
    if (find(poller, fd) >= 0)
        return -EEXIST;
    WORLD_CHECK(poller->count < RR__POLLER_MAX);
    poller->items[poller->count] = (struct pollfd){.fd = fd, .events = POLLIN};
    poller->tags[poller->count++] = tag;
    return 0;
}

void rr__poller_remove(struct rr__poller *poller, int fd)
{
    int at = find(poller, fd);

    if (at < 0)
        return;
    poller->count--;
    poller->items[at] = poller->items[poller->count];
    poller->tags[at] = poller->tags[poller->count];
}

static int ready_now(struct rr__poller *poller, struct rr__event *events)
{
    int count = 0;

    if (poll(poller->items, (nfds_t)poller->count, 0) < 0)
        return 0;
    for (int i = 0; i < poller->count && count < RR__EVENTS; i++) {
        /* An epoll would go on telling of it for as long as another process has it open. */
        WORLD_CHECK(!(poller->items[i].revents & POLLNVAL));
        if (poller->items[i].revents)
            events[count++].tag = poller->tags[i];
    }
    return count;
}

/* After the last act all comes to rest: nobody is in the way, and the primary wants the end. */
static void come_to_rest(int count, int timeout_ms)
{
    static const struct rr_control stop = {.version = RR_CONTROL_VERSION, .kind = RR_CONTROL_STOP};

    world.accept_left = world.send_left = world.stuck = world.spawns_fail = world.forks_fail = 0;
    world_read(64);
    if (count > 0 || timeout_ms == 0) {
        WORLD_CHECK(world.spins++ < SPINS_MOST); /* it would take a core */
        return;
    }
    world.spins = 0;
    world.clock += timeout_ms > 0 ? (uint64_t)timeout_ms * RR__MS : 60 * RR__SECOND;
    world.idle_waits++;
    if (!world.stopping && (timeout_ms < 0 || world.idle_waits > IDLE_MOST / 2)) {
        world_send(stop, NULL, 0);
        world.stopping = 1;
    }
    if (world.idle_waits > IDLE_MOST)
        world.d->ended = 1; /* headless, and no heir allowed */
}

int rr__poller_wait(struct rr__poller *poller, struct rr__event *events, int timeout_ms)
{
    world_check(world.d);
    world_reclaimers();
    if (world.size > 0) {
        world_act();
        return ready_now(poller, events);
    }
    int count = ready_now(poller, events);
    come_to_rest(count, timeout_ms);
    return count;
}

/* ---- beginning and end ----------------------------------------------------------------------- */

/* How many fds are open: one system call. */
static int count_open(void)
{
    static struct pollfd items[FDS_SEEN];
    int count = 0;

    for (int i = 0; i < FDS_SEEN; i++)
        items[i] = (struct pollfd){.fd = i};
    if (poll(items, FDS_SEEN, 0) < 0)
        world_broken("poll");
    for (int i = 0; i < FDS_SEEN; i++)
        count += !(items[i].revents & POLLNVAL);
    return count;
}

static void make_pair(int type, int *one, int *other)
{
    int pair[2];

    if (socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, pair) < 0)
        world_broken("socketpair");
    *one = pair[0];
    *other = pair[1];
}

static void open_worker(struct world_worker *worker, uint32_t slot)
{
    make_pair(SOCK_STREAM, &worker->pidfd, &worker->lifeline);
    worker->board_fd = rr_scoreboard_create(slot, 0);
    worker->board = rr_scoreboard_map(worker->board_fd, 1);
    WORLD_CHECK(worker->board != NULL);
    for (int i = 0; i < WORLD_CHANNELS; i++)
        make_pair(SOCK_STREAM, &worker->sender[i], &worker->receiver[i]);
}

static void close_worker(struct world_worker *worker)
{
    for (int i = 0; i < WORLD_CHANNELS; i++) {
        world_take(worker, i, 1 << 20);
        rr__close_fds(&worker->sender[i], 1);
        rr__close_fds(&worker->receiver[i], 1);
    }
    rr_scoreboard_unmap(worker->board);
    rr__close_fds(&worker->pidfd, 1);
    rr__close_fds(&worker->lifeline, 1);
    rr__close_fds(&worker->board_fd, 1);
}

static int open_before;

void world_open(const uint8_t *data, size_t size)
{
    open_before = count_open();
    memset(&world, 0, sizeof world);
    world.data = data;
    world.size = size;
    world.clock = 1000 * RR__SECOND;
    world.link = -1;
    for (int i = 0; i < WORLD_LISTENERS; i++)
        world.listeners[i] = -1;
    for (uint32_t i = 0; i < WORLD_WORKERS; i++)
        open_worker(&world.workers[i], i);
    for (int i = 0; i < WORLD_OTHERS; i++)
        world.others[i] = i % 2 ? dup(world.workers[i].board_fd) : dup(STDIN_FILENO);
}

void world_close(void)
{
    world_read(1 << 20);
    rr__close_fds(&world.control, world.control >= 0);
    for (int i = 0; i < WORLD_WORKERS; i++)
        close_worker(&world.workers[i]);
    for (int i = 0; i < RR__RECLAIMERS; i++)
        rr__close_fds(&world.reclaimers[i].link, world.reclaimers[i].pid != 0);
    for (int i = 0; i < WORLD_LISTENERS; i++)
        rr__close_fds(&world.listeners[i], world.listeners[i] >= 0);
    rr__close_fds(world.clients, world.client_count);
    rr__close_fds(world.others, WORLD_OTHERS);
    if (world.found != world.accepted && !world.crooked)
        fprintf(stderr, "%llu found, %llu accepted\n", (unsigned long long)world.found,
                (unsigned long long)world.accepted);
    if (!world.crooked)
        WORLD_CHECK(world.found == world.accepted); /* nothing lost, nothing twice */
    WORLD_CHECK(count_open() == open_before);
}
