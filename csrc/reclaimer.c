/* Owns the reclaimer's process: forked from the dispatcher, it holds one channel's receiving end and a
 * link, and takes one message per request. It exists because recvmsg on a channel whose worker is
 * stuck inside its own recvmsg never returns: then it is this process that waits, not the dispatcher.
 * Makes async-signal-safe calls only: it may have been forked from a process with threads. */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "dispatcher.h"
#include "fdpass.h"
#include "os.h"

static void keep_two(int one, int other)
{
    unsigned low = (unsigned)(one < other ? one : other);
    unsigned high = (unsigned)(one < other ? other : one);

    if (low > 0)
        rr__close_range(0, low - 1);
    if (high > low + 1)
        rr__close_range(low + 1, high - 1);
    rr__close_range(high + 1, ~0u);
}

/* What it holds is a client's connection: it is kept until the dispatcher has it or is gone. */
static int forward(int link, const struct rr_message *message, const int *fds, int count)
{
    for (;;) {
        int result = rr__pass(link, message, sizeof *message, fds, count);
        if (result >= 0)
            return 0;
        if (result != -EAGAIN && result != -ETOOMANYREFS && result != -ENOBUFS && result != -ENOMEM)
            return result;
        poll(NULL, 0, 1);
    }
}

void rr__reclaimer_child(int channel, int link)
{
    char asked;

    keep_two(channel, link);
    for (;;) {
        struct rr_message message;
        int fds[RR_BATCH_MAX];

        ssize_t got = recv(link, &asked, sizeof asked, 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            _exit(0);
        int count = rr__take_any(channel, &message, fds, RR_BATCH_MAX);
        if (count <= 0) {
            memset(&message, 0, sizeof message);
            count = 0;
        }
        if (forward(link, &message, fds, count) < 0)
            _exit(1);
        rr__close_fds(fds, count);
    }
}
