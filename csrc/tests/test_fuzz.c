/* Requests at random, with fds at random: every one is answered or refused, and none leaks an fd.
 * The seed is fixed: a failure comes again. RR_FUZZ_ROUNDS in the environment makes it longer. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "check.h"
#include "rig.h"

enum { FDS = 8, ROUNDS = 4000, WORKERS = 12 };

static struct rig rig;
static unsigned seed = 12345;

static unsigned any(unsigned most)
{
    seed = seed * 1103515245u + 12345u;
    return (seed >> 8) % most;
}

static uint64_t any_value(void)
{
    static const uint64_t values[] = {0, 1, 2, 5, 16, 32, 69, 70, 1000000, UINT32_MAX, UINT64_MAX};
    return values[any(sizeof values / sizeof *values)];
}

static struct rr_control any_request(void)
{
    struct rr_control message = {.version = RR_CONTROL_VERSION,
                                 .kind = 1 + any(RR_CONTROL_STATS + 1),
                                 .sequence = ++rig.sequence,
                                 .worker = any(WORKERS),
                                 .listener = any(4)};
    for (int i = 0; i < 7; i++)
        message.value[i] = any_value();
    if (message.kind == RR_CONTROL_STOP)
        message.kind = 99;
    if (message.kind == RR_CONTROL_SETTINGS)
        message.value[6] = 0; /* take-back stays on */
    if (any(50) == 0)
        message.version = any(5);
    return message;
}

/* What a WORKER_ADD wants: most of the time the right fds, else any. */
static int any_fds(const struct rr_control *message, const struct fake *fakes, const int *others,
                   int *fds)
{
    const struct fake *fake = &fakes[any(WORKERS)];
    int good[] = {fake->pidfd, fake->board_fd, fake->lifeline[0], fake->sender, fake->receiver};
    int count = message->kind == RR_CONTROL_WORKER_ADD && any(4) ? 5 : (int)any(FDS);

    for (int i = 0; i < count; i++)
        fds[i] = count == 5 && any(20) ? good[i] : others[any(FDS)];
    return count;
}

static void swallow(int wait_ms)
{
    struct pollfd item = {.fd = rig.control, .events = POLLIN};
    struct rr_control message;
    int count;
    while (poll(&item, 1, wait_ms) == 1 &&
           rr_control_receive(rig.control, &message, NULL, 0, &count) == 1)
        wait_ms = 0;
}

static void requests_at_random(void)
{
    static struct fake fakes[WORKERS];
    int others[FDS], fds[FDS], listener = rig_listen();
    const char *longer = getenv("RR_FUZZ_ROUNDS");
    int rounds = longer ? atoi(longer) : ROUNDS;

    rig_start(&rig, &rr__system_real);
    for (int i = 0; i < WORKERS; i++)
        fake_start(&fakes[i], (uint32_t)i + 1, (uint32_t)i);
    for (int i = 0; i < FDS; i++)
        others[i] = i % 2 ? dup(listener) : open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int round = 0; round < rounds; round++) {
        struct rr_control message = any_request();
        int count = any_fds(&message, fakes, others, fds), result;
        while ((result = rr_control_send(rig.control, &message, fds, count)) == -EAGAIN)
            swallow(1);
        CHECK_EQUAL(result, 0);
        if (any(100) == 0)
            fake_kill(&fakes[any(WORKERS)]);
        swallow(0);
    }
    CHECK_EQUAL(rig_ask(&rig, (struct rr_control){.kind = RR_CONTROL_PING}, NULL, 0).result, 0);
    CHECK_EQUAL(rig_ask(&rig, (struct rr_control){.kind = RR_CONTROL_STOP}, NULL, 0).result, 0);
    rig_join(&rig);
    close(rig.control);
    rig_close(others, FDS);
    for (int i = 0; i < WORKERS; i++)
        fake_close(&fakes[i]);
    close(listener);
}

/* Bytes at random: sizes and contents that no request has. */
static void bytes_at_random(void)
{
    unsigned char bytes[256];

    rig_start(&rig, &rr__system_real);
    for (int round = 0; round < 500; round++) {
        size_t size = any(sizeof bytes);
        for (size_t i = 0; i < size; i++)
            bytes[i] = (unsigned char)any(256);
        CHECK(send(rig.control, bytes, size, 0) >= 0);
        swallow(0);
    }
    rig_stop(&rig);
}

TESTS_BEGIN
RUN(requests_at_random);
RUN(bytes_at_random);
TESTS_END
