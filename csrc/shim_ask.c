/* Owns the talk with the primary: one request per connection, answered within a limit. A request may be
 * sent twice when the primary dies over it: whoever serves the socket then answers the second. */
#include <fcntl.h>
#include <string.h>
#include <time.h>

#include "shim.h"

enum { NAP_MS = 10, TRIES = 3, LOOKS = 4096 };

/* Milliseconds of CLOCK_MONOTONIC. */
static int64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* 1: readable, 0: the time is over. A signal's handler does not end the wait. */
static int wait_for(struct pollfd *item, int64_t deadline)
{
    for (;;) {
        int64_t left = deadline - now_ms();
        if (left < 0)
            left = 0;
        struct timespec time = {.tv_sec = left / 1000, .tv_nsec = left % 1000 * 1000000};
        long got = rr__raw5(SYS_ppoll, item, item ? 1 : 0, &time, NULL, 0);
        if (got != -EINTR)
            return got > 0;
    }
}

static void nap(int64_t deadline)
{
    int64_t until = now_ms() + NAP_MS;

    wait_for(NULL, until < deadline ? until : deadline);
}

static int reach(int socket, int64_t deadline)
{
    for (;;) {
        long got = rr__raw3(SYS_connect, socket, &rr__settings.socket, rr__settings.socket_length);
        if (got == -ENOENT)
            return -ECONNREFUSED;
        if (got != -EAGAIN && got != -EINTR)
            return (int)got;
        if (now_ms() >= deadline) /* its backlog is full */
            return -ETIMEDOUT;
        nap(deadline);
    }
}

/* When the primary is gone anybody may take the name of its socket. Only it, who started us, may have
 * our key and give us fds: root, or whose we were when we began. */
static int is_primary(int socket)
{
    struct ucred peer = {.uid = (uid_t)-1};
    socklen_t size = sizeof peer;

    if (rr__raw5(SYS_getsockopt, socket, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0)
        return 1;
    return peer.uid == 0 || peer.uid == rr__settings.user;
}

static int check(const struct rr_shim_answer *answer, int size, int count, int wanted)
{
    if (size != (int)sizeof *answer || answer->magic != RR_SHIM_MAGIC ||
        answer->version != RR_SHIM_VERSION || answer->result > 0 || answer->result < -4095)
        return -EPROTO;
    if (answer->result < 0)
        return answer->result;
    return count < wanted ? -EPROTO : 0;
}

static int converse(int socket, const struct rr_shim_request *request, int fds[2], int64_t deadline)
{
    struct pollfd item = {.fd = socket, .events = POLLIN};
    struct rr_shim_answer answer;
    int got = reach(socket, deadline), count, kept[2] = {-1, -1};

    if (got < 0)
        return got;
    if (!is_primary(socket))
        return -ECONNREFUSED;
    long sent = rr__raw6(SYS_sendto, socket, (long)request, sizeof *request, MSG_NOSIGNAL, 0, 0);
    if (sent < 0)
        return (int)sent;
    if (!wait_for(&item, deadline))
        return -ETIMEDOUT;
    got = rr__receive_answer(socket, &answer, kept, &count);
    if (got <= 0 && count == 0)
        return got < 0 ? got : -ECONNRESET;
    int result = check(&answer, got, count, fds ? 2 : 0);
    for (int i = 0; i < count; i++) {
        if (fds && result == 0)
            fds[i] = kept[i];
        else
            rr__raw1(SYS_close, kept[i]);
    }
    return result;
}

void rr__request(struct rr_shim_request *request, int kind, const union rr__address *address,
                 socklen_t length)
{
    memset(request, 0, sizeof *request);
    request->magic = RR_SHIM_MAGIC;
    request->version = RR_SHIM_VERSION;
    request->kind = (uint32_t)kind;
    request->worker = rr__settings.worker;
    memcpy(request->key, rr__settings.key, sizeof request->key);
    request->pid = (int32_t)rr__raw1(SYS_getpid, 0);
    if (length > sizeof request->address)
        length = 0;
    request->address_length = length;
    if (length)
        memcpy(request->address, address, length);
}

int rr__ask(const struct rr_shim_request *request, int fds[2])
{
    int64_t deadline = now_ms() + rr__settings.timeout_ms;

    for (;;) {
        int socket = (int)rr__raw3(SYS_socket, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (socket < 0)
            return socket;
        int result = converse(socket, request, fds, deadline);
        rr__raw1(SYS_close, socket);
        if (result != -ECONNRESET && result != -EPIPE)
            return result;
        if (now_ms() >= deadline)
            return -ETIMEDOUT;
        nap(deadline);
    }
}

/* ---- ready ------------------------------------------------------------------------------------------- */

static int said, looks, failures, listened;

void rr__note_listen(void)
{
    __atomic_store_n(&listened, 1, __ATOMIC_RELAXED);
}

int rr__unsaid(void)
{
    if (__atomic_load_n(&said, __ATOMIC_RELAXED))
        return 0;
    /* A helper process that never sees a channel does not look at its fds for ever. */
    return __atomic_load_n(&listened, __ATOMIC_RELAXED) ||
           (__atomic_load_n(&looks, __ATOMIC_RELAXED) < LOOKS &&
            __atomic_add_fetch(&looks, 1, __ATOMIC_RELAXED) < LOOKS);
}

/* A program that was exec'd with the listener open did not ask for it, and has no scoreboard yet. */
static void fetch_board(const union rr__address *address, socklen_t length)
{
    struct rr_shim_request request;
    int fds[2];

    if (rr__has_board() || !length)
        return;
    rr__request(&request, RR_SHIM_LISTEN, address, length);
    request.backlog = SOMAXCONN;
    request.v6only = -1;
    if (rr__ask(&request, fds) < 0)
        return;
    rr__board(fds[1]);
    rr__raw1(SYS_close, fds[0]);
    rr__raw1(SYS_close, fds[1]);
}

void rr__ready(int fd)
{
    struct rr_shim_request request;
    union rr__address address;
    socklen_t length;

    if (__atomic_load_n(&said, __ATOMIC_RELAXED) || __atomic_exchange_n(&said, 1, __ATOMIC_ACQ_REL))
        return;
    rr__name(fd, &address, &length);
    fetch_board(&address, length);
    rr__request(&request, RR_SHIM_READY, &address, length);
    if (rr__ask(&request, NULL) < 0 && __atomic_add_fetch(&failures, 1, __ATOMIC_RELAXED) < TRIES)
        __atomic_store_n(&said, 0, __ATOMIC_RELEASE);
}
