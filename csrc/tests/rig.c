/* Owns the set-up of dispatcher tests. Every wait is for an event, with a limit. */
#include "rig.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../fdpass.h"
#include "../os.h"
#include "check.h"
#include "trap.h"

static void *run(void *argument)
{
    struct rig *rig = argument;
    int control = rig->result;
    rig->result = rr__dispatcher_run(control, rig->system);
    if (trap_disarm)
        rig->trapped = trap_disarm();
    return NULL;
}

void rig_start(struct rig *rig, const struct rr__system *system)
{
    int pair[2];

    memset(rig, 0, sizeof *rig);
    CHECK_EQUAL(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    rig->control = pair[0];
    rig->result = pair[1];
    rig->system = system;
    CHECK_EQUAL(pthread_create(&rig->thread, NULL, run, rig), 0);
    CHECK_EQUAL(rig_event(rig, RR_EVENT_STARTED).kind, RR_EVENT_STARTED);
    if (trap_arm)
        trap_arm(rig->thread); /* after its start a dispatcher allocates nothing */
}

static int receive(struct rig *rig, struct rr_control *message, int wait_ms)
{
    struct pollfd item = {.fd = rig->control, .events = POLLIN};

    if (poll(&item, 1, wait_ms) != 1)
        return 0;
    rig_close(rig->fds, rig->fd_count);
    return rr_control_receive(rig->control, message, rig->fds, RR_CONTROL_FDS, &rig->fd_count) == 1;
}

static void keep(struct rig *rig, const struct rr_control *message)
{
    if (rig->event_count < RIG_EVENTS)
        rig->events[rig->event_count++] = *message;
}

static void hear(struct rig *rig)
{
    struct rr_control message;
    for (int wait_ms = 1; receive(rig, &message, wait_ms); wait_ms = 0)
        keep(rig, &message);
}

uint32_t rig_request(struct rig *rig, struct rr_control message, const int *fds, int count)
{
    message.version = RR_CONTROL_VERSION;
    message.sequence = ++rig->sequence;
    int result, tries = 0;
    while ((result = rr_control_send(rig->control, &message, fds, count)) == -EAGAIN &&
           tries++ < RIG_WAIT_MS)
        hear(rig); /* it may not read because we don't */
    CHECK_EQUAL(result, 0);
    return message.sequence;
}

static int is_answer(const struct rr_control *message, uint32_t sequence)
{
    return message->sequence == sequence && (sequence || message->kind < RR_EVENT_STARTED);
}

struct rr_control rig_answer(struct rig *rig, uint32_t sequence)
{
    struct rr_control message;

    /* It may have come while another was waited for. */
    for (int i = 0; i < rig->event_count; i++) {
        if (!is_answer(&rig->events[i], sequence))
            continue;
        message = rig->events[i];
        rig->events[i] = rig->events[--rig->event_count];
        return message;
    }
    while (receive(rig, &message, RIG_WAIT_MS)) {
        if (is_answer(&message, sequence))
            return message;
        keep(rig, &message);
    }
    CHECK_EQUAL(rig->sequence, 0); /* no answer in time */
    memset(&message, 0, sizeof message);
    message.result = -ETIMEDOUT;
    return message;
}

struct rr_control rig_ask(struct rig *rig, struct rr_control message, const int *fds, int count)
{
    return rig_answer(rig, rig_request(rig, message, fds, count));
}

struct rr_control rig_event(struct rig *rig, uint32_t kind)
{
    struct rr_control message;

    for (int i = 0;; i++) {
        if (i == rig->event_count) {
            if (i == RIG_EVENTS || !receive(rig, &message, RIG_WAIT_MS))
                break;
            rig->events[rig->event_count++] = message;
        }
        if (rig->events[i].kind != kind)
            continue;
        message = rig->events[i];
        rig->events[i] = rig->events[--rig->event_count];
        return message;
    }
    memset(&message, 0, sizeof message);
    return message;
}

void rig_settings(struct rig *rig, uint64_t queue_limit, uint64_t stall_ms, uint64_t heartbeat_ms,
                  uint64_t switches)
{
    struct rr_control message = {.kind = RR_CONTROL_SETTINGS,
                                 .value = {RR_ROUND_ROBIN, queue_limit, stall_ms * RR__MS, 8,
                                           heartbeat_ms * RR__MS, 0, switches}};
    CHECK_EQUAL(rig_ask(rig, message, NULL, 0).result, 0);
}

void rig_join(struct rig *rig)
{
    CHECK_EQUAL(pthread_join(rig->thread, NULL), 0);
    CHECK_EQUAL(rig->result, 0);
    CHECK_EQUAL(rig->trapped, 0);
}

void rig_stop(struct rig *rig)
{
    struct rr_control ping = rig_ask(rig, (struct rr_control){.kind = RR_CONTROL_PING}, NULL, 0);
    CHECK_EQUAL(ping.value[5], 0); /* lost */
    CHECK_EQUAL(rig_ask(rig, (struct rr_control){.kind = RR_CONTROL_STOP}, NULL, 0).result, 0);
    rig_join(rig);
    rig_die(rig);
}

void rig_die(struct rig *rig)
{
    rig_close(rig->fds, rig->fd_count);
    rig->fd_count = 0;
    close(rig->control);
    rig->control = -1;
}

void rig_succeed(struct rig *rig, int control)
{
    rig->control = control;
    rig->event_count = 0;
    CHECK_EQUAL(rig_event(rig, RR_EVENT_STARTED).value[1], 1);
}

int rig_listen(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    CHECK_EQUAL(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    CHECK_EQUAL(listen(fd, 1024), 0);
    return fd;
}

void rig_connect(int listener, int *clients, int count)
{
    struct sockaddr_in address;
    socklen_t length = sizeof address;

    getsockname(listener, (struct sockaddr *)&address, &length);
    for (int i = 0; i < count; i++) {
        clients[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        CHECK_EQUAL(connect(clients[i], (struct sockaddr *)&address, sizeof address), 0);
    }
}

void rig_close(int *fds, int count)
{
    rr__close_fds(fds, count);
}

void fake_start(struct fake *fake, uint32_t id, uint32_t slot)
{
    int pair[2];

    memset(fake, 0, sizeof *fake);
    fake->id = id;
    fake->pid = fork();
    if (fake->pid == 0) {
        rr__close_range(0, ~0u);
        for (;;)
            pause();
    }
    fake->pidfd = (int)syscall(SYS_pidfd_open, fake->pid, 0);
    fake->board_fd = rr_scoreboard_create(slot, 0);
    fake->board = rr_scoreboard_map(fake->board_fd, 1);
    CHECK(fake->board != NULL);
    CHECK_EQUAL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fake->lifeline), 0);
    CHECK_EQUAL(rr_channel_pair(pair), 0);
    fake->sender = pair[0];
    fake->receiver = pair[1];
}

int fake_add(struct rig *rig, struct fake *fake, uint32_t slot)
{
    int fds[] = {fake->pidfd, fake->board_fd, fake->lifeline[0], fake->sender, fake->receiver};
    struct rr_control message = {
        .kind = RR_CONTROL_WORKER_ADD, .worker = fake->id, .value = {slot, 0}};
    return rig_ask(rig, message, fds, 5).result;
}

void fake_ready(struct rig *rig, struct fake *fake, uint64_t capacity, uint64_t batch)
{
    struct rr_control message = {
        .kind = RR_CONTROL_WORKER_READY, .worker = fake->id, .value = {capacity, batch}};
    CHECK_EQUAL(rig_ask(rig, message, NULL, 0).result, 0);
}

void fake_serve(struct rig *rig, struct fake *fake, uint32_t id)
{
    fake_start(fake, id, id - 1);
    CHECK_EQUAL(fake_add(rig, fake, id - 1), 0);
    fake_ready(rig, fake, 0, 1);
}

int fake_take(struct fake *fake)
{
    struct pollfd item = {.fd = fake->receiver, .events = POLLIN};
    struct rr_message message;
    int fds[RR_BATCH_MAX];

    for (;;) {
        if (poll(&item, 1, RIG_WAIT_MS) != 1)
            return -1;
        int count = rr_take(fake->receiver, &message, fds, RR_BATCH_MAX);
        if (count == -EAGAIN)
            continue; /* there was only a probe */
        if (count <= 0)
            return -1;
        rr_scoreboard_add(fake->board, RR_FIELD_RECEIVED, count);
        rr_scoreboard_add(fake->board, RR_FIELD_CLOSED, count);
        rr__close_fds(fds, count);
        return message.flags;
    }
}

int fake_take_any(struct fake *fakes, int count)
{
    struct pollfd items[8];

    for (int i = 0; i < count; i++)
        items[i] = (struct pollfd){.fd = fakes[i].receiver, .events = POLLIN};
    if (poll(items, (nfds_t)count, RIG_WAIT_MS) <= 0)
        return -1;
    for (int i = 0; i < count; i++)
        if (items[i].revents)
            return fake_take(&fakes[i]) < 0 ? -1 : i;
    return -1;
}

int fake_has(const struct fake *fake, int count)
{
    for (int waited = 0; waited < RIG_WAIT_MS; waited++) {
        if (rr_pending(fake->receiver) == count)
            return 1;
        poll(NULL, 0, 1);
    }
    fprintf(stderr, "worker %u has %d, not %d\n", fake->id, rr_pending(fake->receiver), count);
    return 0;
}

void fake_kill(struct fake *fake)
{
    if (fake->pid > 0) {
        kill(fake->pid, SIGKILL);
        waitpid(fake->pid, NULL, 0);
    }
    fake->pid = 0;
}

void fake_close(struct fake *fake)
{
    int fds[] = {fake->pidfd,       fake->board_fd, fake->lifeline[0],
                 fake->lifeline[1], fake->sender,   fake->receiver};
    fake_kill(fake);
    rr_scoreboard_unmap(fake->board);
    rr__close_fds(fds, 6);
}
