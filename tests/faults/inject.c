/* LD_PRELOAD: accept4 and sendmsg fail as a file says (INJECT=path; see test_errnos.py). */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

struct faults {
    int accept_error, accept_left, send_error, send_left;
    long long clock_shift; /* seconds */
};

static struct faults *faults(void)
{
    static struct faults *found;
    const char *path = getenv("INJECT");

    if (!found && path) {
        int fd = open(path, O_RDWR | O_CLOEXEC);
        void *map = mmap(NULL, sizeof *found, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        close(fd);
        found = map == MAP_FAILED ? NULL : map;
    }
    return found;
}

static int fails(int *left)
{
    return __atomic_load_n(left, __ATOMIC_RELAXED) > 0 &&
           __atomic_fetch_sub(left, 1, __ATOMIC_RELAXED) > 0;
}

int accept4(int fd, struct sockaddr *peer, socklen_t *length, int flags)
{
    static int (*real)(int, struct sockaddr *, socklen_t *, int);
    struct faults *all = faults();

    if (all && fails(&all->accept_left)) {
        errno = all->accept_error;
        return -1;
    }
    if (!real)
        real = dlsym(RTLD_NEXT, "accept4");
    return real(fd, peer, length, flags);
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
    static ssize_t (*real)(int, const struct msghdr *, int);
    struct faults *all = faults();

    if (all && message->msg_controllen > 0 && fails(&all->send_left)) {
        errno = all->send_error;
        return -1;
    }
    if (!real)
        real = dlsym(RTLD_NEXT, "sendmsg");
    return real(fd, message, flags);
}

int clock_gettime(clockid_t which, struct timespec *now)
{
    static int (*real)(clockid_t, struct timespec *);
    struct faults *all = faults();

    if (!real)
        real = dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(which, now);
    if (all && which == CLOCK_REALTIME)
        now->tv_sec += __atomic_load_n(&all->clock_shift, __ATOMIC_RELAXED);
    return result;
}
