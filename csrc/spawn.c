/* Owns the way from a request to a running program: the one way a process of ours starts another.
 * The child shares our memory until it execs (no copy of a large caller's page tables), so it makes
 * only system calls and writes only into `struct attempt` and where the request says. Must not know
 * what it starts. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "os.h"

enum { PAIRS_MAX = 256, SIGNALS = 65 };

struct attempt {
    const struct rr_spawn *request;
    int step;
    int error;
    int moved[PAIRS_MAX]; /* our fds, out of the way of the numbers that the child wants */
    int sorted[PAIRS_MAX];
};

static int reset_signals(void)
{
    struct sigaction standard = {.sa_handler = SIG_DFL};
    sigset_t none;

    for (int number = 1; number < SIGNALS; number++)
        sigaction(number, &standard, NULL);
    sigemptyset(&none);
    return sigprocmask(SIG_SETMASK, &none, NULL);
}

/* A program with one of 0, 1, 2 closed would print into the first file that it opens. */
static int fill_standard(const struct rr_spawn *request)
{
    for (int number = 0; number <= 2; number++) {
        int given = 0;
        for (int i = 0; i < request->fd_pairs; i++)
            given |= request->fds[2 * i + 1] == number;
        if (given)
            continue;
        int null = open("/dev/null", O_RDWR);
        if (null < 0)
            return -errno;
        if (null != number && (dup2(null, number) < 0 || close(null) < 0))
            return -errno;
    }
    return 0;
}

static int close_others(struct attempt *attempt)
{
    const struct rr_spawn *request = attempt->request;
    unsigned from = 3;

    for (int i = 0; i < request->fd_pairs; i++) {
        int number = request->fds[2 * i + 1], at = i;
        for (; at > 0 && attempt->sorted[at - 1] > number; at--)
            attempt->sorted[at] = attempt->sorted[at - 1];
        attempt->sorted[at] = number;
    }
    for (int i = 0; i < request->fd_pairs; i++) {
        if (attempt->sorted[i] < (int)from)
            continue;
        if (attempt->sorted[i] > (int)from)
            rr__close_range(from, (unsigned)attempt->sorted[i] - 1);
        from = (unsigned)attempt->sorted[i] + 1;
    }
    return rr__close_range(from, ~0u);
}

static int place_fds(struct attempt *attempt)
{
    const struct rr_spawn *request = attempt->request;
    int above = 3;

    for (int i = 0; i < request->fd_pairs; i++)
        if (request->fds[2 * i + 1] >= above)
            above = request->fds[2 * i + 1] + 1;
    for (int i = 0; i < request->fd_pairs; i++) {
        attempt->moved[i] = fcntl(request->fds[2 * i], F_DUPFD_CLOEXEC, above);
        if (attempt->moved[i] < 0)
            return -errno;
    }
    for (int i = 0; i < request->fd_pairs; i++)
        if (dup2(attempt->moved[i], request->fds[2 * i + 1]) < 0)
            return -errno;
    int result = fill_standard(request);
    return result < 0 ? result : close_others(attempt);
}

static int limits(const struct rr_spawn *request)
{
    struct rlimit limit = {.rlim_cur = (rlim_t)request->nofile_soft,
                           .rlim_max = (rlim_t)request->nofile_hard};
    if (!(request->flags & RR_SPAWN_RLIMIT_NOFILE))
        return 0;
    return setrlimit(RLIMIT_NOFILE, &limit) < 0 ? -errno : 0;
}

/* For variables that name the process which is to heed them: sd_listen_fds(3). */
static void write_pid(char *to)
{
    char digits[11];
    int count = 0;

    for (pid_t left = getpid(); left > 0; left /= 10)
        digits[count++] = (char)('0' + left % 10);
    while (count > 0)
        *to++ = digits[--count];
    *to = '\0';
}

static int take_step(struct attempt *attempt, int step)
{
    const struct rr_spawn *request = attempt->request;

    switch (step) {
    case RR_STEP_FORK:
        return reset_signals() < 0 ? -errno : 0;
    case RR_STEP_SETSID:
        return (request->flags & RR_SPAWN_SETSID) && setsid() < 0 ? -errno : 0;
    case RR_STEP_FDS:
        return place_fds(attempt);
    case RR_STEP_LIFELINE:
        return request->lifeline < 0 ? 0 : rr__signal_group_on_input(request->lifeline, SIGTERM);
    case RR_STEP_LIMITS:
        return limits(request);
    case RR_STEP_AFFINITY:
        return request->flags & RR_SPAWN_AFFINITY
                   ? rr__set_cores(request->cores, request->core_count)
                   : 0;
    case RR_STEP_CWD:
        return request->cwd && chdir(request->cwd) < 0 ? -errno : 0;
    default:
        if (request->pid_text)
            write_pid(request->pid_text);
        execve(request->program, (char *const *)request->arguments,
               (char *const *)request->environment);
        return -errno;
    }
}

/* Runs in the child, on its own stack in our memory. */
static int child(void *argument)
{
    struct attempt *attempt = argument;

    for (int step = RR_STEP_FORK; step <= RR_STEP_EXEC; step++) {
        attempt->step = step;
        attempt->error = take_step(attempt, step);
        if (attempt->error < 0)
            _exit(127);
    }
    _exit(127);
}

static int valid(const struct rr_spawn *request)
{
    if (!request->program || !request->arguments || !request->environment ||
        request->fd_pairs < 0 || request->fd_pairs > PAIRS_MAX || request->core_count < 0)
        return 0;
    for (int i = 0; i < request->fd_pairs; i++)
        if (request->fds[2 * i] < 0 || request->fds[2 * i + 1] < 0)
            return 0;
    return 1;
}

int rr_spawn(const struct rr_spawn *request, int *pidfd, int *step)
{
    struct attempt attempt = {.request = request, .step = RR_STEP_FORK};
    sigset_t all, before;

    *pidfd = -1;
    *step = RR_STEP_FORK;
    if (!valid(request))
        return -EINVAL;
    /* With memory shared, a handler of ours must not run in the child. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pid_t pid = rr__vfork_run(child, &attempt, pidfd);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (pid < 0)
        return pid;
    if (attempt.error < 0) {
        rr__reap_child(pid);
        close(*pidfd);
        *pidfd = -1;
        *step = attempt.step;
        return attempt.error;
    }
    return pid;
}
