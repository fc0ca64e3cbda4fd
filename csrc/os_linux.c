/* Owns what only Linux has: memfd seals, pidfd, close_range, classic BPF. Decides nothing. */
#include "os.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef SYS_close_range
#define SYS_close_range 436
#endif
#ifndef SYS_pidfd_send_signal
#define SYS_pidfd_send_signal 424
#endif
#ifndef CLONE_PIDFD
#define CLONE_PIDFD 0x00001000
#endif
#ifndef F_SEAL_SEAL
#define F_ADD_SEALS 1033
#define F_GET_SEALS 1034
#define F_SEAL_SEAL 1
#define F_SEAL_SHRINK 2
#define F_SEAL_GROW 4
#endif
#ifndef MFD_ALLOW_SEALING
#define MFD_CLOEXEC 1U
#define MFD_ALLOW_SEALING 2U
#endif

enum { CHILD_STACK = 64 * 1024, CORES_MAX = 4096 };

uint64_t rr_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

int rr__accept(int listener, struct sockaddr *peer, socklen_t *length)
{
    int fd = accept4(listener, peer, length, SOCK_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

int rr__socketpair(int type, int pair[2])
{
    return socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, pair) < 0 ? -errno : 0;
}

int rr__sealed_memory(const char *name, size_t size)
{
    int fd = (int)syscall(SYS_memfd_create, name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return -errno;
    if (ftruncate(fd, (off_t)size) < 0 ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0) {
        int error = errno;
        close(fd);
        return -error;
    }
    return fd;
}

int rr__is_sealed(int fd)
{
    int seals = fcntl(fd, F_GET_SEALS);
    return seals >= 0 && (seals & F_SEAL_SHRINK) && (seals & F_SEAL_GROW);
}

int rr__close_range(unsigned first, unsigned last)
{
#ifdef __SANITIZE_THREAD__
    /* TSan follows descriptors by close(2); of this system call it knows nothing. */
    if (first <= last && last - first < 1024) {
        for (unsigned fd = first; fd <= last; fd++)
            close((int)fd);
        return 0;
    }
#endif
    if (first > last || syscall(SYS_close_range, first, last, 0) == 0)
        return 0;
    if (errno != ENOSYS)
        return -errno;
    long most = sysconf(_SC_OPEN_MAX);
    for (unsigned fd = first; fd <= last && fd < (unsigned long)most; fd++)
        close((int)fd);
    return 0;
}

int rr__pidfd_ended(int pidfd)
{
    struct pollfd item = {.fd = pidfd, .events = POLLIN};
    return poll(&item, 1, 0) == 1 && (item.revents & (POLLIN | POLLHUP));
}

void rr__pidfd_kill(int pidfd)
{
    syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
}

pid_t rr__fork_quiet(void)
{
    sigset_t all, before;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    /* No exit signal: neither SIGCHLD nor waitpid(-1) of a host process meets this child. */
#if defined(__SANITIZE_THREAD__)
    /* TSan's own locks must be free in the child, which calls what TSan wraps: only its fork sees to that. */
    long pid = fork();
#elif defined(__s390__) || defined(__s390x__)
    long pid = syscall(SYS_clone, 0, 0, 0, 0, 0);
#else
    long pid = syscall(SYS_clone, 0L, 0L, 0L, 0L, 0L);
#endif
    int error = errno;
    if (pid != 0)
        pthread_sigmask(SIG_SETMASK, &before, NULL);
    return pid < 0 ? -error : (pid_t)pid;
}

int rr__reap_quiet(pid_t pid)
{
    pid_t got = waitpid(pid, NULL, WNOHANG | __WALL);
    return got == pid || (got < 0 && errno == ECHILD);
}

pid_t rr__vfork_run(int (*child)(void *), void *argument, int *pidfd)
{
    char *stack = mmap(NULL, CHILD_STACK, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    if (stack == MAP_FAILED)
        return -errno;
    pid_t pid = clone(child, stack + CHILD_STACK, CLONE_VM | CLONE_VFORK | CLONE_PIDFD | SIGCHLD,
                      argument, pidfd);
    int error = errno;
    munmap(stack, CHILD_STACK);
    return pid < 0 ? -error : pid;
}

void rr__reap_child(pid_t pid)
{
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        ;
}

int rr__set_cores(const int *cores, int count)
{
    enum { WORD = 8 * sizeof(unsigned long) };
    unsigned long mask[CORES_MAX / WORD];

    memset(mask, 0, sizeof mask);
    for (int i = 0; i < count; i++) {
        if (cores[i] < 0 || cores[i] >= CORES_MAX)
            return -EINVAL;
        mask[cores[i] / WORD] |= 1ul << (cores[i] % WORD);
    }
    return syscall(SYS_sched_setaffinity, 0, sizeof mask, mask) < 0 ? -errno : 0;
}

int rr__signal_group_on_input(int fd, int signal)
{
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETSIG, signal) < 0 || fcntl(fd, F_SETOWN, -getpgrp()) < 0 ||
        fcntl(fd, F_SETFL, flags | O_ASYNC) < 0)
        return -errno;
    return 0;
}

int rr_gate(int listener)
{
    /* A filter on a listening TCP socket sees the segment from its TCP header on: flags at 13.
     * Only SYN without ACK is dropped: the last ACK of a handshake has to pass, and accepted
     * sockets inherit the filter. */
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 13),
        BPF_STMT(BPF_ALU | BPF_AND | BPF_K, 0x12),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0x02, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, 0),
        BPF_STMT(BPF_RET | BPF_K, 0xffffffffu),
    };
    struct sock_fprog program = {.len = sizeof code / sizeof *code, .filter = code};
    struct sockaddr_storage address = {.ss_family = AF_UNSPEC};
    socklen_t length = sizeof address;

    if (getsockname(listener, (struct sockaddr *)&address, &length) < 0)
        return -errno;
    if (address.ss_family == AF_UNIX)
        /* Connecting is refused from now on; accept still takes what was queued. */
        return shutdown(listener, SHUT_RD) < 0 ? -errno : 0;
    return setsockopt(listener, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) < 0
               ? -errno
               : 0;
}
