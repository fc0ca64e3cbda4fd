/* What differs between operating systems. os_linux.c or os_posix.c defines it: the build chooses. */
#ifndef RR_OS_H
#define RR_OS_H

#include <stddef.h>
#include <sys/socket.h>
#include <sys/types.h>

#include "rrdispatch.h"

/* accept(2): the new socket is close-on-exec and blocking. fd or -errno. */
int rr__accept(int listener, struct sockaddr *peer, socklen_t *length);
int rr__socketpair(int type, int pair[2]);

/* An anonymous file of `size` zero bytes that nobody can resize any more. fd or -errno. */
int rr__sealed_memory(const char *name, size_t size);
/* 1 if nobody can shrink or grow it. */
int rr__is_sealed(int fd);

/* Closes every fd in first..last, as far as they are open. */
int rr__close_range(unsigned first, unsigned last);
/* 1 if the process behind the pidfd has ended. */
int rr__pidfd_ended(int pidfd);
/* SIGKILL. */
void rr__pidfd_kill(int pidfd);

/* fork(2) for a child that will make async-signal-safe calls only: no atexit, no atfork handlers, and a
 * child that waitpid(-1) of the process around us does not see. In the child all signals are blocked. */
pid_t rr__fork_quiet(void);
/* 1 when that child was reaped or is gone, 0 when it still runs. */
int rr__reap_quiet(pid_t pid);

/* Runs `child` in a new process that shares our memory, while the caller is suspended until the child
 * execs or exits. pid or -errno; *pidfd is close-on-exec. All signals have to be blocked. */
pid_t rr__vfork_run(int (*child)(void *), void *argument, int *pidfd);
/* Waits for a child that has exited or is about to. */
void rr__reap_child(pid_t pid);
int rr__set_cores(const int *cores, int count);
/* The kernel signals this process' group when `fd` becomes readable or hangs up. */
int rr__signal_group_on_input(int fd, int signal);

#endif
