/* What a receiver of fds has to do: close-on-exec at birth, every fd walked, CTRUNC acted on, EINTR
 * retried; and a full fd table loses nothing. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "../fdpass.h"
#include "check.h"

static struct rr_message connection(int count)
{
    struct rr_message message = {.version = RR_PROTOCOL,
                                 .kind = RR_KIND_CONNECTION,
                                 .count = (uint8_t)count,
                                 .accepted_ns = 42,
                                 .peer_length = 3,
                                 .peer = "abc"};
    return message;
}

static void queue(int channel, int kind, int count)
{
    int fds[RR_BATCH_MAX];
    struct rr_message message = connection(count);

    message.kind = (uint8_t)kind;
    for (int i = 0; i < count; i++)
        fds[i] = open("/dev/null", O_RDONLY | O_CLOEXEC);
    CHECK_EQUAL(rr_send(channel, &message, fds), 0);
    rr__close_fds(fds, count);
}

static void passes_a_connection(void)
{
    int pair[2], fds[RR_BATCH_MAX];
    struct rr_message message;

    CHECK_EQUAL(rr_channel_pair(pair), 0);
    queue(pair[0], RR_KIND_CONNECTION, 1);
    queue(pair[0], RR_KIND_CONNECTION, 1);
    CHECK_EQUAL(rr_pending(pair[1]), 2);
    CHECK_EQUAL(rr_take(pair[1], &message, fds, RR_BATCH_MAX), 1);
    CHECK_EQUAL(rr_pending(pair[1]), 1);
    CHECK_EQUAL(message.accepted_ns, 42);
    CHECK(memcmp(message.peer, "abc", 3) == 0);
    CHECK(fcntl(fds[0], F_GETFD) & FD_CLOEXEC);
    rr__close_fds(fds, 1);
    CHECK_EQUAL(rr_take(pair[1], &message, fds, RR_BATCH_MAX), 1);
    rr__close_fds(fds, 1);
    CHECK_EQUAL(rr_take(pair[1], &message, fds, RR_BATCH_MAX), -EAGAIN);
    close(pair[0]);
    CHECK_EQUAL(rr_take(pair[1], &message, fds, RR_BATCH_MAX), 0);
    close(pair[1]);
}

static void passes_a_batch(void)
{
    int pair[2], fds[RR_BATCH_MAX];
    struct rr_message message;

    rr_channel_pair(pair);
    queue(pair[0], RR_KIND_CONNECTION, RR_BATCH_MAX);
    CHECK_EQUAL(rr_take(pair[1], &message, fds, 3), -EMSGSIZE);
    CHECK_EQUAL(rr_take(pair[1], &message, fds, RR_BATCH_MAX), RR_BATCH_MAX);
    for (int i = 0; i < RR_BATCH_MAX; i++)
        CHECK(fcntl(fds[i], F_GETFD) & FD_CLOEXEC);
    rr__close_fds(fds, RR_BATCH_MAX);
    rr__close_fds(pair, 2);
}

static void swallows_probes(void)
{
    int pair[2], fds[RR_BATCH_MAX];
    struct rr_message message;

    rr_channel_pair(pair);
    queue(pair[0], RR_KIND_PROBE, 1);
    CHECK_EQUAL(rr_take(pair[1], &message, fds, RR_BATCH_MAX), -EAGAIN);
    CHECK_EQUAL(rr_pending(pair[1]), 0);
    queue(pair[0], RR_KIND_PROBE, 1);
    queue(pair[0], RR_KIND_CONNECTION, 1);
    CHECK_EQUAL(rr_take(pair[1], &message, fds, RR_BATCH_MAX), 1);
    CHECK_EQUAL(message.kind, RR_KIND_CONNECTION);
    rr__close_fds(fds, 1);
    rr__close_fds(pair, 2);
}

static void closes_what_was_not_expected(void)
{
    int pair[2], fds[RR_BATCH_MAX], null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    int many[5] = {null, null, null, null, null};
    struct rr_message message = connection(2);
    struct rr__arrival arrival;

    rr_channel_pair(pair);
    CHECK_EQUAL(rr__pass(pair[0], &message, sizeof message, many, 5), sizeof message);
    CHECK_EQUAL(rr_take(pair[1], &message, fds, RR_BATCH_MAX), 2);
    rr__close_fds(fds, 2);
    CHECK_EQUAL(rr__pass(pair[0], &message, sizeof message, many, 5), sizeof message);
    CHECK_EQUAL(rr__receive(pair[1], &message, sizeof message, fds, 1, 0, &arrival), 1);
    CHECK_EQUAL(arrival.count, 1);
    CHECK_EQUAL(arrival.extra, 4);
    rr__close_fds(fds, 1);
    close(null);
    rr__close_fds(pair, 2);
}

static void refuses_an_unknown_message(void)
{
    int pair[2], fds[RR_BATCH_MAX], null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    struct rr_message message = connection(1);

    rr_channel_pair(pair);
    message.version = 9;
    CHECK_EQUAL(rr_send(pair[0], &message, &null), 0);
    CHECK_EQUAL(rr_take(pair[1], &message, fds, RR_BATCH_MAX), -EPROTO);
    message = connection(1);
    message.kind = 77;
    CHECK_EQUAL(rr_send(pair[0], &message, &null), 0);
    CHECK_EQUAL(rr_take(pair[1], &message, fds, RR_BATCH_MAX), -EPROTO);
    CHECK_EQUAL(rr__pass(pair[0], "short", 5, &null, 1), 5);
    CHECK_EQUAL(rr_take(pair[1], &message, fds, RR_BATCH_MAX), -EPROTO);
    message.count = 0;
    CHECK_EQUAL(rr_send(pair[0], &message, &null), -EINVAL);
    message.count = RR_BATCH_MAX + 1;
    CHECK_EQUAL(rr_send(pair[0], &message, &null), -EINVAL);
    close(null);
    rr__close_fds(pair, 2);
}

/* Fills the fd table up to `left` free places; returns how many fds it took. */
static int fill_table(int *taken, int most, int left, struct rlimit *before)
{
    struct rlimit small;
    int count = 0;

    getrlimit(RLIMIT_NOFILE, before);
    small = *before;
    small.rlim_cur = 64;
    setrlimit(RLIMIT_NOFILE, &small);
    while (count < most && (taken[count] = dup(0)) >= 0)
        count++;
    rr__close_fds(taken + count - left, left);
    return count - left;
}

static void full_table_loses_nothing(void)
{
    int pair[2], fds[RR_BATCH_MAX], taken[64];
    struct rr_message message;
    struct rlimit before;

    rr_channel_pair(pair);
    queue(pair[0], RR_KIND_CONNECTION, 1);
    queue(pair[0], RR_KIND_CONNECTION, 4);
    int count = fill_table(taken, 64, 0, &before);
    CHECK_EQUAL(rr_take(pair[1], &message, fds, RR_BATCH_MAX), -EMFILE);
    CHECK_EQUAL(rr_pending(pair[1]), 2);
    rr__close_fds(taken + count - 3, 3);
    CHECK_EQUAL(rr_take(pair[1], &message, fds, RR_BATCH_MAX), 1);
    CHECK_EQUAL(rr_take(pair[1], &message, fds + 1, RR_BATCH_MAX), -EMFILE);
    CHECK_EQUAL(rr_pending(pair[1]), 1);
    rr__close_fds(fds, 1);
    rr__close_fds(taken, count - 3);
    CHECK_EQUAL(rr_take(pair[1], &message, fds, RR_BATCH_MAX), 4);
    rr__close_fds(fds, 4);
    setrlimit(RLIMIT_NOFILE, &before);
    rr__close_fds(pair, 2);
}

static void probe_needs_no_room(void)
{
    int pair[2], fds[RR_BATCH_MAX], taken[64];
    struct rr_message message;
    struct rlimit before;

    rr_channel_pair(pair);
    queue(pair[0], RR_KIND_PROBE, 1);
    int count = fill_table(taken, 64, 0, &before);
    CHECK_EQUAL(rr_take(pair[1], &message, fds, RR_BATCH_MAX), -EAGAIN);
    rr__close_fds(taken, count);
    setrlimit(RLIMIT_NOFILE, &before);
    rr__close_fds(pair, 2);
}

static void truncation_is_told(void)
{
    int pair[2], fds[RR_BATCH_MAX], taken[64];
    struct rr_message message;
    struct rr__arrival arrival;
    struct rlimit before;

    rr_channel_pair(pair);
    queue(pair[0], RR_KIND_CONNECTION, 4);
    int count = fill_table(taken, 64, 2, &before);
    CHECK_EQUAL(rr__receive(pair[1], &message, sizeof message, fds, RR_BATCH_MAX, 0, &arrival), 1);
    CHECK_EQUAL(arrival.count, 2);
    CHECK(arrival.truncated);
    rr__close_fds(fds, arrival.count);
    rr__close_fds(taken, count);
    setrlimit(RLIMIT_NOFILE, &before);
    rr__close_fds(pair, 2);
}

static volatile sig_atomic_t interrupted;
static int interrupt_channel;

static void on_alarm(int number)
{
    (void)number;
    /* The second signal comes when the first has been met by a waiting recvmsg. */
    if (++interrupted == 2)
        (void)!write(interrupt_channel, "x", 1);
}

static void interruption_is_retried(void)
{
    int pair[2], fds[1];
    char byte = 0;
    struct rr__arrival arrival;
    struct sigaction action = {.sa_handler = on_alarm}, old;
    struct itimerval often = {.it_interval = {0, 5000}, .it_value = {0, 5000}}, never = {{0, 0}, {0, 0}};

    rr_channel_pair(pair);
    interrupt_channel = pair[0];
    sigaction(SIGALRM, &action, &old);
    setitimer(ITIMER_REAL, &often, NULL);
    CHECK_EQUAL(rr__receive(pair[1], &byte, 1, fds, 1, 1, &arrival), 1);
    setitimer(ITIMER_REAL, &never, NULL);
    sigaction(SIGALRM, &old, NULL);
    CHECK(interrupted >= 2);
    CHECK_EQUAL(byte, 'x');
    rr__close_fds(pair, 2);
}

static void full_channel_is_eagain_and_keeps_the_fd(void)
{
    int pair[2], null = open("/dev/null", O_RDONLY | O_CLOEXEC), sent = 0, result;
    struct rr_message message = connection(1);

    rr_channel_pair(pair);
    while ((result = rr_send(pair[0], &message, &null)) == 0)
        sent++;
    CHECK_EQUAL(result, -EAGAIN);
    CHECK(sent > RR_QUEUE_LIMIT_MAX);
    CHECK(fcntl(null, F_GETFD) >= 0);
    close(null);
    rr__close_fds(pair, 2);
}

TESTS_BEGIN
RUN(passes_a_connection);
RUN(passes_a_batch);
RUN(swallows_probes);
RUN(closes_what_was_not_expected);
RUN(refuses_an_unknown_message);
RUN(full_table_loses_nothing);
RUN(probe_needs_no_room);
RUN(truncation_is_told);
RUN(interruption_is_retried);
RUN(full_channel_is_eagain_and_keeps_the_fd);
TESTS_END
