/* Workers that do nothing but take: for each worker a channel and a scoreboard, from fd 3 on. Leaves the
 * times of the latest takes in the unused part of the page (pairs of accepted, taken). Ends at EOF.
 *
 *   taker WORKERS */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>

#include "../fdpass.h"

enum { FIRST = 3, WORKERS_MAX = 64, TIMES_OFFSET = 1024, TIMES = 128, HELD = 256 };

static struct rr_scoreboard *boards[WORKERS_MAX];
static struct pollfd items[WORKERS_MAX];
static uint64_t taken[WORKERS_MAX];
static int held[HELD], latest;

/* Whoever closes last pays for taking the connection down. A worker answers before it closes, so it is
 * never in a race with the dispatcher's close: a taker that closes at once would be. */
static void hold(const int *fds, int count)
{
    for (int i = 0; i < count; i++) {
        latest = (latest + 1) % HELD;
        if (held[latest])
            rr__close_fds(&held[latest], 1);
        held[latest] = fds[i];
    }
}

/* 0 at EOF. */
static int take(int index)
{
    struct rr_message message;
    int fds[RR_BATCH_MAX];
    int count = rr_take(items[index].fd, &message, fds, RR_BATCH_MAX);

    if (count <= 0)
        return count;
    uint64_t *times = (uint64_t *)((char *)boards[index] + TIMES_OFFSET);
    times[taken[index] % TIMES * 2] = message.accepted_ns;
    times[taken[index] % TIMES * 2 + 1] = rr_now_ns();
    taken[index] += (uint64_t)count;
    rr_scoreboard_add(boards[index], RR_FIELD_CLOSED, count);
    rr_scoreboard_add(boards[index], RR_FIELD_RECEIVED, count);
    hold(fds, count);
    return count;
}

int main(int count, char **arguments)
{
    int workers = count == 2 ? atoi(arguments[1]) : 0;

    if (workers < 1 || workers > WORKERS_MAX)
        return 2;
    for (int i = 0; i < workers; i++) {
        items[i] = (struct pollfd){.fd = FIRST + 2 * i, .events = POLLIN};
        boards[i] = rr_scoreboard_map(FIRST + 2 * i + 1, 1);
        if (!boards[i])
            return 1;
    }
    for (;;) {
        poll(items, (nfds_t)workers, -1);
        for (int i = 0; i < workers; i++)
            if (items[i].revents && take(i) == 0)
                return 0;
    }
}
