/* Owns the look at what a program waits for, until the primary knows that it takes connections: the first
 * wait that has a channel among its fds says READY. Cheap afterwards. */
#include <fcntl.h>
#include <string.h>

#include "shim.h"

enum { SOME = 64 };

static void look(int fd)
{
    if (rr__kind(fd) != RR__CHANNEL)
        return;
    rr__note_channel(fd);
    rr__ready(fd);
}

void rr__look_at_items(const struct pollfd *items, nfds_t count)
{
    struct pollfd some[SOME];
    int kept = errno;

    for (nfds_t from = 0; from < count && rr__unsaid(); from += SOME) {
        nfds_t number = count - from < SOME ? count - from : SOME;
        if (rr__copy_in(some, items + from, number * sizeof *some) < 0)
            break;
        for (nfds_t i = 0; i < number && rr__unsaid(); i++)
            if (some[i].events & (POLLIN | POLLRDNORM))
                look(some[i].fd);
    }
    errno = kept;
}

void rr__look_at_set(const fd_set *set, int count)
{
    enum { BITS = 8 * sizeof(unsigned long) };
    unsigned long words[SOME];
    int kept = errno, room = SOME * BITS;
    size_t number = (size_t)(count < room ? count : room);

    if (!set || count <= 0 || !rr__unsaid())
        return;
    memset(words, 0, sizeof words);
    if (rr__copy_in(words, set, (number + BITS - 1) / BITS * sizeof *words) == 0)
        for (size_t fd = 0; fd < number; fd++)
            if (words[fd / BITS] >> fd % BITS & 1 && rr__unsaid())
                look((int)fd);
    errno = kept;
}

/* ---- epoll ---------------------------------------------------------------------------------------- */

static void name_info(char *path, int fd)
{
    static const char folder[] = "/proc/self/fdinfo/";
    char digits[12];
    int count = 0;

    memcpy(path, folder, sizeof folder);
    path += sizeof folder - 1;
    do
        digits[count++] = (char)('0' + fd % 10);
    while ((fd /= 10) > 0);
    while (count > 0)
        *path++ = digits[--count];
    *path = '\0';
}

/* "tfd: <number> ..." begins the line of each member. */
static int is_member(const char *line)
{
    int fd = 0;

    if (memcmp(line, "tfd:", 4) != 0)
        return -1;
    for (line += 4; *line == ' ';)
        line++;
    for (; *line >= '0' && *line <= '9'; line++)
        fd = fd * 10 + (*line - '0');
    return fd;
}

static void look_at_lines(int info)
{
    char room[1024], line[20] = "";
    size_t filled = 0;
    long got;

    while (rr__unsaid() && (got = rr__raw3(SYS_read, info, room, sizeof room)) > 0)
        for (long i = 0; i < got; i++) {
            if (room[i] != '\n') {
                if (filled < sizeof line - 1)
                    line[filled++] = room[i];
                continue;
            }
            line[filled] = '\0';
            filled = 0;
            int fd = is_member(line);
            if (fd >= 0)
                look(fd);
        }
}

/* epoll_ctl of ours has seen most members. But libuv adds them by io_uring, which no name tells of: so
 * the set itself is asked. */
void rr__look_at_epoll(int epoll)
{
    char path[40];

    if (epoll < 0 || !rr__unsaid())
        return;
    name_info(path, epoll);
    long info = rr__raw4(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
    if (info < 0)
        return;
    look_at_lines((int)info);
    rr__raw1(SYS_close, info);
}
