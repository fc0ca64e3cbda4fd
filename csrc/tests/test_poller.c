/* Both pollers behave alike; the build runs this with each. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../poller.h"
#include "check.h"

static struct rr__poller poller;
static struct rr__event events[RR__EVENTS];

static void tells_what_is_readable_until_it_is_read(void)
{
    int one[2], other[2];
    char byte;

    memset(&poller, 0, sizeof poller);
    CHECK_EQUAL(rr__poller_open(&poller), 0);
    CHECK_EQUAL(socketpair(AF_UNIX, SOCK_STREAM, 0, one), 0);
    CHECK_EQUAL(socketpair(AF_UNIX, SOCK_STREAM, 0, other), 0);
    CHECK_EQUAL(rr__poller_add(&poller, one[0], 11), 0);
    CHECK_EQUAL(rr__poller_add(&poller, other[0], 1ull << 40), 0);
    CHECK_EQUAL(rr__poller_wait(&poller, events, 0), 0);
    CHECK_EQUAL(write(other[1], "x", 1), 1);
    for (int i = 0; i < 2; i++) {
        CHECK_EQUAL(rr__poller_wait(&poller, events, 1000), 1);
        CHECK_EQUAL(events[0].tag, 1ll << 40);
    }
    CHECK_EQUAL(read(other[0], &byte, 1), 1);
    CHECK_EQUAL(rr__poller_wait(&poller, events, 0), 0);
    close(one[1]);
    CHECK_EQUAL(rr__poller_wait(&poller, events, 1000), 1);
    CHECK_EQUAL(events[0].tag, 11);
    rr__poller_remove(&poller, one[0]);
    CHECK_EQUAL(rr__poller_wait(&poller, events, 0), 0);
    rr__poller_close(&poller);
    close(one[0]);
    close(other[0]);
    close(other[1]);
}

static void errors_are_values(void)
{
    memset(&poller, 0, sizeof poller);
    CHECK_EQUAL(rr__poller_open(&poller), 0);
    int end[2];
    CHECK_EQUAL(socketpair(AF_UNIX, SOCK_STREAM, 0, end), 0);
    CHECK_EQUAL(rr__poller_add(&poller, -1, 1), -EBADF);
    CHECK_EQUAL(rr__poller_add(&poller, end[0], 1), 0);
    CHECK_EQUAL(rr__poller_add(&poller, end[0], 1), -EEXIST);
    rr__poller_remove(&poller, end[1]);
    rr__poller_remove(&poller, end[0]);
    rr__poller_close(&poller);
    close(end[0]);
    close(end[1]);
}

TESTS_BEGIN
RUN(tells_what_is_readable_until_it_is_read);
RUN(errors_are_values);
TESTS_END
