/* A channel in whose sending end anything was written: glued, short, of another version, with fds that are
 * too many or too few. Whatever comes out is whole, close-on-exec, and the taker's to close. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../fdpass.h"

enum { FDS_MOST = 253, SEEN = 2048 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const uint8_t *at;
static size_t left;

#define CHECK(condition) ((condition) ? (void)0 : broken(#condition))

static void broken(const char *what)
{
    fprintf(stderr, "broken: %s\n", what);
    abort();
}

static unsigned any(void)
{
    if (left == 0)
        return 0;
    left--;
    return *at++;
}

static int count_open(void)
{
    static struct pollfd items[SEEN];
    int count = 0;

    for (int i = 0; i < SEEN; i++)
        items[i] = (struct pollfd){.fd = i};
    CHECK(poll(items, SEEN, 0) >= 0);
    for (int i = 0; i < SEEN; i++)
        count += !(items[i].revents & POLLNVAL);
    return count;
}

/* As rr__pass, but without its limits. */
static void write_raw(int socket, const void *bytes, size_t size, int fd, int count)
{
    union {
        char bytes[CMSG_SPACE(FDS_MOST * sizeof(int))];
        struct cmsghdr align;
    } control;
    int fds[FDS_MOST];
    struct iovec part = {.iov_base = (void *)(uintptr_t)bytes, .iov_len = size};
    struct msghdr header = {.msg_iov = &part, .msg_iovlen = 1};

    for (int i = 0; i < count; i++)
        fds[i] = fd;
    if (count > 0) {
        header.msg_control = control.bytes;
        header.msg_controllen = CMSG_SPACE((size_t)count * sizeof(int));
        struct cmsghdr *rights = CMSG_FIRSTHDR(&header);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN((size_t)count * sizeof(int));
        memcpy(CMSG_DATA(rights), fds, (size_t)count * sizeof(int));
    }
    sendmsg(socket, &header, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void write_some(int socket)
{
    struct rr_message message = {.version = RR_PROTOCOL, .kind = RR_KIND_CONNECTION};
    unsigned how = any(), count = any(), size = 1 + any() % (2 * sizeof message);
    char bytes[2 * sizeof message];

    message.count = (uint8_t)(how & 1 ? any() : count % (RR_BATCH_MAX + 1));
    message.kind = how & 2 ? (uint8_t)any() : (uint8_t)(how & 4 ? RR_KIND_PROBE : RR_KIND_CONNECTION);
    message.version = how & 8 ? (uint8_t)any() : RR_PROTOCOL;
    memset(bytes, (int)any(), sizeof bytes);
    memcpy(bytes, &message, sizeof message);
    write_raw(socket, bytes, how & 16 ? size : sizeof message, socket,
              (int)(how & 32 ? count % (FDS_MOST + 1) : message.count % (RR_BATCH_MAX + 1)));
}

static void take_one(int socket)
{
    /* So long and no longer: a write past its end is seen. */
    unsigned room = 1 + any() % RR_BATCH_MAX;
    int *fds = malloc(room * sizeof *fds);
    struct rr_message *message = malloc(sizeof *message);
    unsigned how = any();

    CHECK(fds && message);
    int count = how & 1 ? rr_take(socket, message, fds, (int)room)
                        : rr__take_any(socket, message, fds, (int)room);
    CHECK(count <= (int)room);
    if (count > 0) {
        CHECK(message->version == RR_PROTOCOL);
        CHECK(count <= message->count);
        CHECK(!(how & 1) || message->kind == RR_KIND_CONNECTION);
    }
    for (int i = 0; i < count; i++) {
        CHECK(fcntl(fds[i], F_GETFD) == FD_CLOEXEC);
        CHECK(close(fds[i]) == 0);
    }
    free(fds);
    free(message);
}

/* A full table: the kernel drops fds and says so by MSG_CTRUNC only. */
static void narrow(int first, int places)
{
    struct rlimit limit;

    CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    limit.rlim_cur = places ? (rlim_t)(first + places - 1) : limit.rlim_max;
    CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int pair[2], before = count_open();

    at = data;
    left = size;
    CHECK(rr_channel_pair(pair) == 0);
    while (left > 0) {
        switch (any() % 8) {
        case 0:
            narrow(pair[1] + 1, 1 + (int)(any() % 20));
            break;
        case 1:
            narrow(0, 0);
            break;
        case 2:
        case 3:
        case 4:
            write_some(pair[0]);
            break;
        default:
            take_one(pair[1]);
        }
    }
    narrow(0, 0);
    close(pair[0]);
    close(pair[1]);
    CHECK(count_open() == before);
    return 0;
}
