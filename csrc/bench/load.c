/* The load generator for rates that an interpreted one cannot reach. One thread; what became of each
 * request is kept in memory and written at the end, so that nothing else uses a core meanwhile.
 *
 *   cc -O2 -D_GNU_SOURCE csrc/bench/load.c -o load -lm      (python -m loadtests.fast does it)
 *   load MODE ADDRESS:PORT CONCURRENCY SECONDS RATE SEED TIMEOUT_MS PATH     records on stdout
 *   load answer PORT                                          a server that does nothing, until EOF on stdin
 *
 * MODE: closed (a connection per request, each client asks as soon as it was answered), kept (kept
 * connections), open (a connection per request at RATE per second, Poisson, whatever becomes of the
 * others: a request counts from when it should have started). No request is tried twice. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { ROOM = 4096, EVENTS = 256, MOST = 16000, LISTENING = 4096, SECOND = 1000000000, SWEEP = 100000000 };
/* Outcomes; and what a client does. */
enum { OK, REFUSED, RESET, CLOSED, TIMEOUT, STATUS };
enum { IDLE, CONNECTING, ASKED };

/* As loadtests/fast.py reads it: 48 bytes, nanoseconds of CLOCK_MONOTONIC. */
struct record {
    uint64_t intended, connected, first, ended;
    uint32_t pid, number;
    uint16_t status, port;
    uint8_t outcome, fresh, unused[2];
};

struct client {
    int fd, state, last; /* fd: 0 is none; last: the server ends the connection with this answer */
    uint32_t length, whole; /* read so far; of the answer, once its head is known */
    struct record now;
    char data[ROOM];
};

static struct {
    enum { IS_CLOSED, IS_KEPT, IS_OPEN } mode;
    double rate;
    uint64_t begin, end, due, timeout;
    struct sockaddr_in server;
    int epoll, clients, going;
    uint32_t number;
    char request[1024];
    int request_length;
    unsigned short seed[3];
} plan;

static struct client *clients;
static int *spare, spares; /* clients that do nothing: the open loop takes one for each request */
static struct record *records;
static size_t written, room;

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * SECOND + (uint64_t)now.tv_nsec;
}

static void must(int fine, const char *what)
{
    if (!fine) {
        perror(what);
        exit(1);
    }
}

static void note(struct client *client, int outcome)
{
    if (written == room) {
        room = room ? 2 * room : 65536;
        records = realloc(records, room * sizeof *records);
        must(records != NULL, "records");
    }
    client->now.outcome = (uint8_t)outcome;
    client->now.ended = now_ns();
    records[written++] = client->now;
}

static void hang_up(struct client *client)
{
    if (client->fd > 0)
        close(client->fd);
    client->fd = 0;
    client->state = IDLE;
}

static void start(struct client *client, uint64_t intended);

/* The request is over: the client asks again in a closed loop, else it waits for its next use. */
static void finish(struct client *client, int outcome)
{
    note(client, outcome);
    plan.going--;
    if (plan.mode != IS_KEPT || outcome != OK || client->last)
        hang_up(client);
    client->state = IDLE;
    if (plan.mode == IS_OPEN)
        spare[spares++] = (int)(client - clients);
    else if (outcome == OK && client->now.ended < plan.end)
        start(client, client->now.ended);
    /* A client that failed asks again at the next sweep: else a dead server were a busy loop. */
}

static void ask(struct client *client)
{
    ssize_t sent = send(client->fd, plan.request, (size_t)plan.request_length, MSG_NOSIGNAL);

    client->state = ASKED;
    client->length = client->whole = 0;
    client->last = 0;
    if (sent != plan.request_length)
        finish(client, RESET);
}

static void connect_to(struct client *client)
{
    struct epoll_event event = {.events = EPOLLOUT, .data.ptr = client};
    int one = 1, failed;

    client->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    must(client->fd >= 0, "socket");
    setsockopt(client->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    client->state = CONNECTING;
    failed = connect(client->fd, (struct sockaddr *)&plan.server, sizeof plan.server) < 0;
    if (failed && errno != EINPROGRESS)
        return finish(client, errno == ECONNREFUSED ? REFUSED : RESET);
    must(epoll_ctl(plan.epoll, EPOLL_CTL_ADD, client->fd, &event) == 0, "epoll_ctl");
}

static void start(struct client *client, uint64_t intended)
{
    int kept = client->fd > 0;

    client->now = (struct record){.intended = intended, .number = plan.number++, .fresh = !kept};
    plan.going++;
    if (kept)
        ask(client);
    else
        connect_to(client);
}

static void connected(struct client *client)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = client};
    struct sockaddr_in own;
    socklen_t length = sizeof(int), room_for = sizeof own;
    int error = 0;

    getsockopt(client->fd, SOL_SOCKET, SO_ERROR, &error, &length);
    if (error)
        return finish(client, error == ECONNREFUSED ? REFUSED : RESET);
    if (getsockname(client->fd, (struct sockaddr *)&own, &room_for) == 0)
        client->now.port = ntohs(own.sin_port);
    client->now.connected = now_ns();
    must(epoll_ctl(plan.epoll, EPOLL_CTL_MOD, client->fd, &event) == 0, "epoll_ctl");
    ask(client);
}

/* The value of a header, "" if there is none. The name ends with its colon. */
static const char *header(const char *head, const char *name)
{
    for (const char *line = strstr(head, "\r\n"); line; line = strstr(line, "\r\n")) {
        line += 2;
        if (!strncasecmp(line, name, strlen(name)))
            return line + strlen(name) + strspn(line + strlen(name), " ");
    }
    return "";
}

static void understand(struct client *client)
{
    char *end;

    client->data[client->length] = 0;
    end = strstr(client->data, "\r\n\r\n");
    if (!end)
        return;
    end[2] = 0;
    client->whole = (uint32_t)(end + 4 - client->data) +
                    (uint32_t)strtoul(header(client->data, "content-length:"), NULL, 10);
    client->now.status = client->length > 12 ? (uint16_t)atoi(client->data + 9) : 0;
    client->now.pid = (uint32_t)strtoul(header(client->data, "x-pid:"), NULL, 10);
    client->last = !strncasecmp(header(client->data, "connection:"), "close", 5);
}

static void readable(struct client *client)
{
    /* Once the head is known, the body is only counted. */
    uint32_t place = client->whole ? 0 : client->length;
    ssize_t got;

    if (place >= ROOM - 1)
        return finish(client, STATUS); /* no head of ours is as long */
    got = recv(client->fd, client->data + place, ROOM - 1 - place, 0);
    if (got <= 0) {
        if (got < 0 && errno == EAGAIN)
            return;
        if (client->state == ASKED)
            finish(client, got < 0 ? RESET : CLOSED);
        else
            hang_up(client); /* idle between two requests */
        return;
    }
    if (!client->now.first)
        client->now.first = now_ns();
    client->length += (uint32_t)got;
    if (!client->whole)
        understand(client);
    if (client->whole && client->length >= client->whole)
        finish(client, client->now.status == 200 ? OK : STATUS);
}

static void sweep(uint64_t now)
{
    for (int i = 0; i < plan.clients; i++) {
        struct client *client = &clients[i];

        if (client->state != IDLE && client->now.intended + plan.timeout < now)
            finish(client, TIMEOUT);
        else if (client->state == IDLE && plan.mode != IS_OPEN && now < plan.end)
            start(client, now); /* after a failure */
    }
}

/* What the open loop owes by now; the time of the next. */
static uint64_t owed(uint64_t now)
{
    while (plan.due <= now && plan.due < plan.end) {
        must(spares > 0, "more requests at a time than it has room for");
        start(&clients[spare[--spares]], plan.due);
        plan.due += (uint64_t)(-log(1.0 - erand48(plan.seed)) / plan.rate * SECOND);
    }
    return plan.due;
}

static void turn(uint64_t until)
{
    struct epoll_event events[EVENTS];
    uint64_t now = now_ns(), left = until > now ? until - now : 0;
    struct timespec wait = {.tv_sec = (time_t)(left / SECOND), .tv_nsec = (long)(left % SECOND)};
    int count = epoll_pwait2(plan.epoll, events, EVENTS, &wait, NULL);

    for (int i = 0; i < count; i++) {
        struct client *client = events[i].data.ptr;

        if (client->state == CONNECTING)
            connected(client);
        else if (client->fd > 0)
            readable(client);
    }
}

static void run(void)
{
    uint64_t now = now_ns(), sweep_at = now;

    plan.due = plan.begin;
    /* What was due before the end is owed also by one that had no core until after it. */
    while (now < plan.end || plan.going > 0 || (plan.mode == IS_OPEN && plan.due < plan.end)) {
        uint64_t next = sweep_at;

        if (now >= sweep_at) {
            sweep(now);
            next = sweep_at = now + SWEEP;
        }
        if (plan.mode == IS_OPEN && plan.due < plan.end) {
            uint64_t due = owed(now);
            next = due < next ? due : next;
        }
        turn(next);
        now = now_ns();
    }
}

static void prepare(char **words)
{
    struct rlimit files;
    char *colon = strrchr(words[2], ':');

    plan.mode = !strcmp(words[1], "open") ? IS_OPEN : !strcmp(words[1], "kept") ? IS_KEPT : IS_CLOSED;
    must(colon != NULL, "ADDRESS:PORT");
    *colon = 0;
    plan.server = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(colon + 1))};
    must(inet_pton(AF_INET, words[2], &plan.server.sin_addr) == 1, words[2]);
    plan.clients = plan.mode == IS_OPEN ? MOST : atoi(words[3]);
    plan.rate = atof(words[5]);
    plan.seed[0] = (unsigned short)atoi(words[6]);
    plan.timeout = strtoull(words[7], NULL, 10) * 1000000;
    plan.request_length =
        snprintf(plan.request, sizeof plan.request, "GET %s HTTP/1.1\r\nHost: test\r\nConnection: %s\r\n\r\n",
                 words[8], plan.mode == IS_KEPT ? "keep-alive" : "close");
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    clients = calloc((size_t)plan.clients, sizeof *clients);
    spare = calloc((size_t)plan.clients, sizeof *spare);
    plan.epoll = epoll_create1(EPOLL_CLOEXEC);
    must(clients && spare && plan.epoll >= 0, "no room");
    for (int i = plan.clients - 1; i >= 0; i--)
        spare[spares++] = i;
    plan.begin = now_ns();
    plan.end = plan.begin + (uint64_t)(atof(words[4]) * SECOND);
}

static void tell(void)
{
    struct timespec used;
    uint64_t head[2];

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    head[0] = now_ns() - plan.begin;
    head[1] = (uint64_t)used.tv_sec * SECOND + (uint64_t)used.tv_nsec;
    must(fwrite(head, sizeof head, 1, stdout) == 1, "stdout");
    must(fwrite(records, sizeof *records, written, stdout) == written, "stdout");
    must(fflush(stdout) == 0, "stdout");
}

/* ---- the server that does nothing: what the generator itself can do ------------------------------ */

static void answer(int fd)
{
    static const char said[] = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Pid: 1\r\n\r\nhi";
    char asked[ROOM];
    ssize_t got = recv(fd, asked, sizeof asked - 1, 0);

    if (got > 0) {
        asked[got] = 0;
        got = send(fd, said, sizeof said - 1, MSG_NOSIGNAL);
        if (!strstr(asked, "Connection: close"))
            return;
    }
    if (got >= 0 || errno != EAGAIN)
        close(fd);
}

static void take(int epoll, int listener)
{
    struct epoll_event event = {.events = EPOLLIN};
    int one = 1;

    while ((event.data.fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        setsockopt(event.data.fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        must(epoll_ctl(epoll, EPOLL_CTL_ADD, event.data.fd, &event) == 0, "epoll_ctl");
    }
}

static int serve(uint16_t port)
{
    struct sockaddr_in own = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct epoll_event event = {.events = EPOLLIN}, events[EVENTS];
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1, epoll = epoll_create1(0);

    own.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    must(bind(listener, (struct sockaddr *)&own, sizeof own) == 0, "bind");
    must(listen(listener, LISTENING) == 0, "listen");
    event.data.fd = listener;
    must(epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event) == 0, "epoll_ctl");
    event.data.fd = STDIN_FILENO;
    must(epoll_ctl(epoll, EPOLL_CTL_ADD, STDIN_FILENO, &event) == 0, "epoll_ctl: stdin");
    for (;;) {
        int count = epoll_wait(epoll, events, EVENTS, -1);

        for (int i = 0; i < count; i++) {
            if (events[i].data.fd == STDIN_FILENO)
                return 0;
            if (events[i].data.fd == listener)
                take(epoll, listener);
            else
                answer(events[i].data.fd);
        }
    }
}

int main(int count, char **words)
{
    signal(SIGINT, SIG_IGN); /* whoever started us says when it is over */
    if (count == 3 && !strcmp(words[1], "answer"))
        return serve((uint16_t)atoi(words[2]));
    if (count != 9)
        return 2;
    prepare(words);
    run();
    tell();
    return 0;
}
