/* Owns the name by which the kernel tells what an fd is, and copies to and from pointers that the
 * program gave and that may be bad: the kernel answers those with EFAULT, and so does the shim. */
#include <fcntl.h>
#include <stddef.h>
#include <string.h>
#include <sys/uio.h>
#include <sys/un.h>

#include "shim.h"

/* As long as RR_SHIM_PREFIX. */
#define QUIET_PREFIX "\0rrdispatch.0/"

enum { PATH = offsetof(struct sockaddr_un, sun_path) };

static enum rr__kind_of_fd look(int fd, struct sockaddr_un *name, socklen_t *length)
{
    *length = sizeof *name;
    name->sun_family = AF_UNSPEC;
    if (rr__raw3(SYS_getsockname, fd, name, length) < 0 || name->sun_family != AF_UNIX ||
        *length <= PATH + RR_SHIM_PREFIX_SIZE)
        return RR__OTHER;
    if (memcmp(name->sun_path, RR_SHIM_PREFIX, RR_SHIM_PREFIX_SIZE) == 0)
        return RR__CHANNEL;
    return memcmp(name->sun_path, QUIET_PREFIX, RR_SHIM_PREFIX_SIZE) == 0 ? RR__QUIET : RR__OTHER;
}

enum rr__kind_of_fd rr__kind(int fd)
{
    struct sockaddr_un name;
    socklen_t length;

    return look(fd, &name, &length);
}

static int digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The hex digits after the last slash. */
static socklen_t decode(const char *text, size_t size, union rr__address *address)
{
    const char *end = text + size, *from = end;
    uint8_t *to = (uint8_t *)address;
    socklen_t length = 0;

    while (from > text && from[-1] != '/')
        from--;
    memset(address, 0, sizeof *address);
    for (; from + 1 < end && length < sizeof address->v6; from += 2) {
        int high = digit(from[0]), low = digit(from[1]);
        if (high < 0 || low < 0)
            return 0;
        to[length++] = (uint8_t)(high << 4 | low);
    }
    if (address->any.sa_family == AF_INET)
        return length == sizeof address->v4 ? length : 0;
    return address->any.sa_family == AF_INET6 && length == sizeof address->v6 ? length : 0;
}

enum rr__kind_of_fd rr__name(int fd, union rr__address *address, socklen_t *length)
{
    struct sockaddr_un name;
    socklen_t size;
    enum rr__kind_of_fd kind = look(fd, &name, &size);

    *length = 0;
    if (kind != RR__OTHER)
        *length = decode(name.sun_path + RR_SHIM_PREFIX_SIZE, size - PATH - RR_SHIM_PREFIX_SIZE, address);
    return kind;
}

/* ---- silence ------------------------------------------------------------------------------------- */

static size_t hex(char *to, const void *bytes, size_t size)
{
    static const char digits[] = "0123456789abcdef";
    const uint8_t *from = bytes;

    for (size_t i = 0; i < size; i++) {
        to[2 * i] = digits[from[i] >> 4];
        to[2 * i + 1] = digits[from[i] & 15];
    }
    return 2 * size;
}

/* Connected to itself: it takes datagrams from nobody else, and no other end can close. */
static int quiet_socket(const union rr__address *address, socklen_t length)
{
    static uint32_t made;
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    uint32_t unique[2] = {(uint32_t)rr__raw1(SYS_getpid, 0), __atomic_add_fetch(&made, 1, __ATOMIC_RELAXED)};
    char *to = name.sun_path;
    int fd = (int)rr__raw3(SYS_socket, AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return fd;
    memcpy(to, QUIET_PREFIX, RR_SHIM_PREFIX_SIZE);
    to += RR_SHIM_PREFIX_SIZE;
    to += hex(to, unique, sizeof unique);
    *to++ = '/';
    to += hex(to, address, length);
    socklen_t size = (socklen_t)(to - (char *)&name);
    if (rr__raw3(SYS_bind, fd, &name, size) < 0 || rr__raw3(SYS_connect, fd, &name, size) < 0) {
        rr__raw1(SYS_close, fd);
        return -EADDRINUSE;
    }
    return fd;
}

void rr__silence(int fd)
{
    union rr__address address;
    socklen_t length;

    if (rr__name(fd, &address, &length) != RR__CHANNEL)
        return;
    int quiet = quiet_socket(&address, length);
    if (quiet < 0)
        return;
    rr__lay_over(quiet, fd);
    rr__raw1(SYS_close, quiet);
}

/* ---- pointers of the program ----------------------------------------------------------------------- */

static int copy(long number, void *mine, void *its, size_t size)
{
    struct iovec here = {mine, size}, there = {its, size};
    long done = rr__raw6(number, rr__raw1(SYS_getpid, 0), (long)&here, 1, (long)&there, 1, 0);

    return done == (long)size ? 1 : done >= 0 || done == -EFAULT ? -EFAULT : 0;
}

int rr__copy_in(void *to, const void *from, size_t size)
{
    int done = copy(SYS_process_vm_readv, to, (void *)(uintptr_t)from, size);

    if (done == 0) /* a sandbox forbids the call */
        memcpy(to, from, size);
    return done < 0 ? done : 0;
}

int rr__copy_out(void *to, const void *from, size_t size)
{
    int done = copy(SYS_process_vm_writev, (void *)(uintptr_t)from, to, size);

    if (done == 0)
        memcpy(to, from, size);
    return done < 0 ? done : 0;
}

int rr__give_address(const void *from, socklen_t size, struct sockaddr *to, socklen_t *length)
{
    socklen_t room;
    int error = rr__copy_in(&room, length, sizeof room);

    if (error < 0)
        return error;
    if ((int)room < 0)
        return -EINVAL;
    if (room > size)
        room = size;
    if (room > 0)
        error = rr__copy_out(to, from, room);
    return error < 0 ? error : rr__copy_out(length, &size, sizeof size);
}
