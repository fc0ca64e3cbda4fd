/* Owns what can happen in the fuzzed world: one act per byte of the input, and the bytes that it takes. */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "../fdpass.h"
#include "../os.h"
#include "world.h"

static uint64_t any_value(void)
{
    static const uint64_t values[] = {0, 1, 2, 3, 5, 7, 10, 16, 17, 32, 69, 70, RR__MS, 10 * RR__MS,
                                      RR__SECOND, 60 * RR__SECOND, UINT32_MAX, (uint64_t)UINT32_MAX + 1,
                                      INT64_MAX, UINT64_MAX};
    return values[world_byte() % (sizeof values / sizeof *values)];
}

static struct world_worker *any_worker(uint32_t *id)
{
    unsigned index = world_byte() % WORLD_WORKERS;

    *id = index + 1;
    return &world.workers[index];
}

/* ---- the primary ------------------------------------------------------------------------------ */

void world_send(struct rr_control message, const int *fds, int count)
{
    if (world.control < 0)
        return;
    message.version = RR_CONTROL_VERSION;
    message.sequence = ++world.sequence;
    rr_control_send(world.control, &message, fds, count);
}

void world_read(int most)
{
    struct rr_control message;
    int fds[RR_CONTROL_FDS], count;

    while (world.control >= 0 && most-- > 0) {
        int result = rr_control_receive(world.control, &message, fds, RR_CONTROL_FDS, &count);
        if (result < 0)
            return;
        rr__close_fds(fds, count);
        if (result == 0)
            return;
        WORLD_CHECK(message.result <= 0 && message.result > -4096);
    }
}

static void simple_request(uint32_t kind, int values)
{
    struct rr_control message = {.kind = kind};

    any_worker(&message.worker);
    message.listener = world_byte() % (WORLD_LISTENERS + 1);
    for (int i = 0; i < values; i++)
        message.value[i] = any_value();
    world_send(message, NULL, 0);
}

static void on_settings(void)
{
    struct rr_control message = {.kind = RR_CONTROL_SETTINGS,
                                 .value = {world_byte() % 4, 1 + world_byte() % 70,
                                           (1 + world_byte()) * RR__MS, world_byte() % 16,
                                           any_value(), world_byte() % 8, world_byte() % 4}};
    world.crooked |= message.value[6] & 1; /* what stays in a channel is lost, and found there */
    world_send(message, NULL, 0);
}

static void add_listener(unsigned index, unsigned shared)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct rr_control message = {
        .kind = RR_CONTROL_LISTENER_ADD, .listener = index, .value = {shared}};
    int *listener = &world.listeners[index];

    rr__close_fds(listener, *listener >= 0);
    *listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    /* Without a name it gets one that nobody has. */
    WORLD_CHECK(bind(*listener, (struct sockaddr *)&address, sizeof address.sun_family) == 0);
    WORLD_CHECK(listen(*listener, WORLD_CLIENTS) == 0);
    world_send(message, listener, 1);
}

static void on_listener_add(void)
{
    unsigned index = world_byte() % WORLD_LISTENERS;
    add_listener(index, world_byte() % 2);
}

static void add_worker(unsigned index, unsigned generation, unsigned channels)
{
    struct rr_control message = {
        .kind = RR_CONTROL_WORKER_ADD, .worker = index + 1, .value = {index, generation}};
    const struct world_worker *worker = &world.workers[index];
    int fds[3 + 2 * WORLD_CHANNELS] = {worker->pidfd, worker->board_fd, worker->lifeline};
    int count = 3;

    for (unsigned i = 0; i < WORLD_CHANNELS && i < channels; i++) {
        fds[count++] = worker->sender[i];
        fds[count++] = worker->receiver[i];
    }
    world_send(message, fds, count);
}

static void on_worker_add(void)
{
    unsigned index = world_byte() % WORLD_WORKERS, how = world_byte();
    add_worker(index, how >> 4, how & 1 ? (how & 15) >> 1 : WORLD_CHANNELS);
}

/* Of a worker that has it already, too, or that is not there. */
static void on_channel_add(void)
{
    struct rr_control message = {.kind = RR_CONTROL_CHANNEL_ADD};
    const struct world_worker *worker = any_worker(&message.worker);
    unsigned channel = world_byte() % WORLD_CHANNELS;

    message.listener = channel;
    world_send(message, (int[]){worker->sender[channel], worker->receiver[channel]}, 2);
}

static void make_ready(unsigned index, unsigned capacity, unsigned batch)
{
    struct rr_control message = {
        .kind = RR_CONTROL_WORKER_READY, .worker = index + 1, .value = {capacity, batch}};
    world_send(message, NULL, 0);
}

static void on_worker_ready(void)
{
    unsigned index = world_byte() % WORLD_WORKERS, how = world_byte();
    make_ready(index, how >> 5, (how & 31) % (RR_BATCH_MAX + 2));
}

void world_begin(void)
{
    add_listener(0, 0);
    add_listener(1, 1);
    for (unsigned i = 0; i < 3; i++) {
        add_worker(i, 0, WORLD_CHANNELS);
        make_ready(i, 0, i == 2 ? RR_BATCH_MAX : 1);
    }
}

static int any_fds(int *fds)
{
    int count = (int)(world_byte() % 10);

    for (int i = 0; i < count; i++) {
        const struct world_worker *worker = &world.workers[world_byte() % WORLD_WORKERS];
        const int choice[] = {worker->pidfd, worker->board_fd, worker->lifeline, worker->sender[0],
                              worker->receiver[0], world.others[0], world.others[1],
                              world.listeners[0] >= 0 ? world.listeners[0] : worker->pidfd};
        fds[i] = choice[world_byte() % 8];
    }
    return count;
}

static void on_keep(void)
{
    struct rr_control message = {.kind = RR_CONTROL_KEEP, .worker = world_byte() % 7};
    int fds[10], count = any_fds(fds);

    message.value[0] = world_byte() % 9;
    world_send(message, fds, count);
}

static void on_inherit(void)
{
    struct rr_control message = {.kind = RR_CONTROL_INHERIT,
                                 .worker = world_byte() % 7,
                                 .listener = world_byte() % 4,
                                 .value = {world_byte() % 5, world_byte() % 9}};
    world_send(message, NULL, 0);
}

/* A good command, or one of the input's bytes. */
static void on_heir(void)
{
    static const char good[] = "\1\0\0\0\1\0\0\0/bin/heir\0/\0heir\0KEY=value"; /* its 0 comes with it */
    struct rr_control message = {.kind = RR_CONTROL_HEIR,
                                 .value = {world_byte() % 18, any_value(),
                                           world_byte() * 10 * RR__MS}};
    unsigned how = world_byte() % 4;
    char bytes[64];

    if (how == 0) {
        world_send(message, NULL, 0);
        return;
    }
    int fd = memfd_create("heir", MFD_CLOEXEC);
    size_t size = how == 1 ? world_byte() % sizeof bytes : sizeof good;
    for (size_t i = 0; how == 1 && i < size; i++)
        bytes[i] = (char)world_byte();
    WORLD_CHECK(write(fd, how == 1 ? bytes : good, size) == (ssize_t)size);
    world_send(message, &fd, 1);
    rr__close_fds(&fd, 1);
}

/* Any kind and any values, with any fds. */
static void on_odd_request(void)
{
    struct rr_control message = {.version = RR_CONTROL_VERSION, .sequence = world_byte()};
    int fds[10], count = any_fds(fds);

    message.kind = world_byte() % 32;
    message.worker = world_byte() % 8;
    message.listener = world_byte() % 20;
    for (int i = 0; i < 7; i++)
        message.value[i] = any_value();
    world.crooked |= message.kind == RR_CONTROL_WORKER_ADD || message.kind == RR_CONTROL_LISTENER_ADD ||
                     message.kind == RR_CONTROL_CHANNEL_ADD || message.kind == RR_CONTROL_SETTINGS;
    if (world_byte() % 8 == 0)
        message.version = world_byte();
    if (world.control >= 0)
        rr_control_send(world.control, &message, fds, count);
}

static void on_odd_bytes(void)
{
    unsigned char bytes[160];
    int fds[10], count = any_fds(fds);
    size_t size = world_byte() % sizeof bytes;

    for (size_t i = 0; i < size; i++)
        bytes[i] = (unsigned char)world_byte();
    if (world.control >= 0 && size > 0)
        rr__pass(world.control, bytes, size, fds, count);
}

static void on_primary_dies(void)
{
    rr__close_fds(&world.control, world.control >= 0);
    world.control = -1;
}

static void on_reading(void)
{
    world_read((int)world_byte());
}

/* ---- workers, clients, the kernel -------------------------------------------------------------- */

void world_take(struct world_worker *worker, int channel, int most)
{
    struct rr_message message;
    int fds[RR_BATCH_MAX];

    while (most-- > 0) {
        int count = rr_take(worker->receiver[channel], &message, fds, RR_BATCH_MAX);
        if (count == -EPROTO)
            continue; /* only channels that are none have that */
        if (count <= 0)
            return;
        rr__close_fds(fds, count);
        world.found += (uint64_t)count;
        rr_scoreboard_add(worker->board, RR_FIELD_RECEIVED, count);
    }
}

static void on_taking(void)
{
    uint32_t id;
    struct world_worker *worker = any_worker(&id);
    unsigned how = world_byte();

    world_take(worker, how % WORLD_CHANNELS, 1 + (int)(how >> 4));
    if (how & 4)
        rr_scoreboard_store(worker->board, RR_FIELD_CLOSED,
                            rr_scoreboard_load(worker->board, RR_FIELD_RECEIVED));
}

static void on_scribble(void)
{
    uint32_t id;
    struct world_worker *worker = any_worker(&id);

    rr_scoreboard_store(worker->board, (int)(world_byte() % 9), any_value());
}

static void on_death(void)
{
    uint32_t id;
    struct world_worker *worker = any_worker(&id);

    if (!worker->dead)
        WORLD_CHECK(send(worker->lifeline, "", 1, MSG_NOSIGNAL | MSG_DONTWAIT) == 1);
    worker->dead = 1;
}

static void on_birth(void)
{
    uint32_t id;
    struct world_worker *worker = any_worker(&id);
    char byte;

    worker->dead = recv(worker->pidfd, &byte, 1, MSG_DONTWAIT) == 1 ? 0 : worker->dead;
}

static void on_connect(void)
{
    int listener = world.listeners[world_byte() % WORLD_LISTENERS];
    struct sockaddr_un address;
    socklen_t length = sizeof address;
    unsigned count = 1 + world_byte() % 8;

    if (listener < 0 || getsockname(listener, (struct sockaddr *)&address, &length) < 0)
        return;
    while (count-- > 0 && world.client_count < WORLD_CLIENTS) {
        int client = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (connect(client, (struct sockaddr *)&address, length) == 0)
            world.clients[world.client_count++] = client;
        else
            rr__close_fds(&client, 1);
    }
}

static void on_clock(void)
{
    static const uint64_t steps[] = {RR__MS, 10 * RR__MS, 30 * RR__MS, 300 * RR__MS, 2 * RR__SECOND,
                                     31 * RR__SECOND, 3601 * RR__SECOND};
    world.clock += steps[world_byte() % (sizeof steps / sizeof *steps)];
}

static void on_failures(void)
{
    static const int errors[] = {EAGAIN, EMFILE, ENFILE, ENOMEM, ECONNABORTED, EPERM, EINTR, EINVAL,
                                 ETOOMANYREFS, ENOBUFS, EPIPE};
    int error = errors[world_byte() % (sizeof errors / sizeof *errors)];
    unsigned which = world_byte();

    if (which % 2) {
        world.accept_error = error;
        world.accept_left = (int)(which >> 1);
    } else {
        world.send_error = error;
        world.send_left = (int)(which >> 1);
    }
}

static void on_processes(void)
{
    unsigned how = world_byte();

    world.stuck = how & 1;
    world.forks_fail = how >> 1 & 3;
    world.spawns_fail = how >> 3 & 7;
}

static void on_park(void)
{
    simple_request(RR_CONTROL_WORKER_PARK, 0);
}

static void on_drain(void)
{
    simple_request(RR_CONTROL_WORKER_DRAIN, 0);
}

static void on_remove(void)
{
    simple_request(RR_CONTROL_WORKER_REMOVE, 0);
}

static void on_listener_close(void)
{
    simple_request(RR_CONTROL_LISTENER_CLOSE, 2);
}

static void on_stats(void)
{
    simple_request(world_byte() % 2 ? RR_CONTROL_STATS : RR_CONTROL_PING, 0);
}

void world_act(void)
{
    /* New ones at the end: else the corpus means something else. */
    static void (*const acts[])(void) = {
        on_settings, on_listener_add, on_worker_add,  on_worker_ready, on_connect,      on_taking,
        on_death,    on_remove,       on_drain,       on_park,         on_listener_close, on_clock,
        on_stats,    on_keep,         on_inherit,     on_heir,         on_primary_dies, on_reading,
        on_scribble, on_failures,     on_processes,   on_odd_request,  on_odd_bytes,    on_birth,
        on_channel_add,
    };

    acts[world_byte() % (sizeof acts / sizeof *acts)]();
}
