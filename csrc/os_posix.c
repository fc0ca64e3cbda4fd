/* Owns the same as os_linux.c with what POSIX has: no seals, no pidfd, no gate. It is built where Linux
 * is not, and on Linux by a test, so that it goes on compiling. What a system lacks is -ENOSYS. */
#include "os.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

uint64_t rr_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static int close_on_exec(int fd)
{
    if (fcntl(fd, F_SETFD, FD_CLOEXEC) == 0)
        return 0;
    int error = errno;
    close(fd);
    return -error;
}

int rr__accept(int listener, struct sockaddr *peer, socklen_t *length)
{
    int fd = accept(listener, peer, length);
    if (fd < 0)
        return -errno;
    /* Here an accepted socket inherits O_NONBLOCK from its listener. */
    int flags = fcntl(fd, F_GETFL);
    if (flags >= 0)
        fcntl(fd, F_SETFL, flags & ~O_NONBLOCK);
    int result = close_on_exec(fd);
    return result < 0 ? result : fd;
}

int rr__socketpair(int type, int pair[2])
{
    if (socketpair(AF_UNIX, type, 0, pair) < 0)
        return -errno;
    int result = close_on_exec(pair[0]);
    if (result < 0) {
        close(pair[1]);
        return result;
    }
    result = close_on_exec(pair[1]);
    if (result < 0)
        close(pair[0]);
    return result;
}

int rr__sealed_memory(const char *name, size_t size)
{
    (void)name;
    (void)size;
    return -ENOSYS;
}

int rr__is_sealed(int fd)
{
    (void)fd;
    return 0;
}

int rr__close_range(unsigned first, unsigned last)
{
    long most = sysconf(_SC_OPEN_MAX);
    for (unsigned long fd = first; fd <= last && (most < 0 || fd < (unsigned long)most); fd++)
        close((int)fd);
    return 0;
}

int rr__pidfd_ended(int pidfd)
{
    (void)pidfd;
    return 0;
}

void rr__pidfd_kill(int pidfd)
{
    (void)pidfd;
}

pid_t rr__fork_quiet(void)
{
    sigset_t all, before;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pid_t pid = fork();
    int error = errno;
    if (pid != 0)
        pthread_sigmask(SIG_SETMASK, &before, NULL);
    return pid < 0 ? -error : pid;
}

int rr__reap_quiet(pid_t pid)
{
    pid_t got = waitpid(pid, NULL, WNOHANG);
    return got == pid || (got < 0 && errno == ECHILD);
}

void rr__reap_child(pid_t pid)
{
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        ;
}

pid_t rr__vfork_run(int (*child)(void *), void *argument, int *pidfd)
{
    (void)child;
    (void)argument;
    (void)pidfd;
    return -ENOSYS;
}

int rr__set_cores(const int *cores, int count)
{
    (void)cores;
    (void)count;
    return -ENOSYS;
}

int rr__signal_group_on_input(int fd, int signal)
{
    (void)fd;
    (void)signal;
    return -ENOSYS;
}

int rr_gate(int listener)
{
    (void)listener;
    return 0;
}
