/* What a started process finds: its fds and nothing else, standard signals, limits, lifeline. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../rrdispatch.h"
#include "check.h"

static const char *const environment[] = {"PATH=/usr/bin:/bin", "GREETING=hello", NULL};

static struct rr_spawn shell(const char *const *arguments, const int *fds, int pairs)
{
    struct rr_spawn request = {.program = "/bin/sh",
                               .arguments = arguments,
                               .environment = environment,
                               .fds = fds,
                               .fd_pairs = pairs,
                               .lifeline = -1,
                               .flags = RR_SPAWN_SETSID};
    return request;
}

/* Runs a script with its output in `text`. Exit status, or -errno of the spawn. */
static int output(const char *script, char *text, size_t size, int (*adjust)(struct rr_spawn *))
{
    const char *const arguments[] = {"sh", "-c", script, NULL};
    int ends[2], pidfd, step, status;
    size_t got = 0;
    ssize_t more;

    CHECK_EQUAL(pipe2(ends, O_CLOEXEC), 0);
    int fds[] = {ends[1], 1};
    struct rr_spawn request = shell(arguments, fds, 1);
    if (adjust)
        adjust(&request);
    int pid = rr_spawn(&request, &pidfd, &step);
    close(ends[1]);
    if (pid < 0) {
        close(ends[0]);
        return pid;
    }
    while ((more = read(ends[0], text + got, size - 1 - got)) > 0)
        got += (size_t)more;
    text[got] = 0;
    close(ends[0]);
    CHECK_EQUAL(waitpid(pid, &status, 0), pid);
    close(pidfd);
    return WEXITSTATUS(status);
}

static void only_the_given_fds(void)
{
    char text[512];
    int stray = open("/dev/zero", O_RDONLY); /* without CLOEXEC */

    CHECK_EQUAL(output("cd /proc/self/fd && echo *; echo $GREETING", text, sizeof text, NULL), 0);
    /* 0 and 2 are /dev/null; the shell opens 3 or so for the listing itself. */
    CHECK(strncmp(text, "0 1 2", 5) == 0);
    CHECK(strstr(text, "hello") != NULL);
    char number[16];
    snprintf(number, sizeof number, " %d", stray > 9 ? stray : 99);
    CHECK(strstr(text, number) == NULL);
    close(stray);
}

static int adjust_limits(struct rr_spawn *request)
{
    static const int cores[] = {0};
    request->flags |= RR_SPAWN_RLIMIT_NOFILE | RR_SPAWN_AFFINITY;
    request->nofile_soft = 100;
    request->nofile_hard = 200;
    request->cores = cores;
    request->core_count = 1;
    request->cwd = "/tmp";
    return 0;
}

static void limits_cores_and_place(void)
{
    char text[512];
    CHECK_EQUAL(output("ulimit -n; ulimit -Hn; pwd; grep Cpus_allowed_list /proc/self/status", text,
                       sizeof text, adjust_limits),
                0);
    CHECK(strncmp(text, "100\n200\n/tmp\n", 13) == 0);
    CHECK(strstr(text, "list:\t0\n") != NULL);
}

static void signals_are_as_at_birth(void)
{
    char text[512];
    sigset_t blocked, before;

    sigemptyset(&blocked);
    sigaddset(&blocked, SIGUSR1);
    sigprocmask(SIG_BLOCK, &blocked, &before);
    void (*old)(int) = signal(SIGPIPE, SIG_IGN);
    CHECK_EQUAL(output("grep -E 'Sig(Blk|Ign)' /proc/self/status", text, sizeof text, NULL), 0);
    CHECK(strstr(text, "SigBlk:\t0000000000000000") != NULL);
    /* 32 and 33 are libc's own: make leaves them ignored, and no sigaction() can change that */
    const char *ignored = strstr(text, "SigIgn:\t");
    CHECK(ignored != NULL);
    CHECK_EQUAL(strtoull(ignored + strlen("SigIgn:\t"), NULL, 16) & ~0x180000000ull, 0);
    signal(SIGPIPE, old);
    sigprocmask(SIG_SETMASK, &before, NULL);
}

static int adjust_program(struct rr_spawn *request)
{
    request->program = "/nowhere/at/all";
    return 0;
}

static int adjust_cwd(struct rr_spawn *request)
{
    request->cwd = "/nowhere/at/all";
    return 0;
}

static int adjust_core(struct rr_spawn *request)
{
    static const int cores[] = {-3};
    request->flags |= RR_SPAWN_AFFINITY;
    request->cores = cores;
    request->core_count = 1;
    return 0;
}

static void failures_are_values_and_leave_no_child(void)
{
    char text[64];
    CHECK_EQUAL(output(":", text, sizeof text, adjust_program), -ENOENT);
    CHECK_EQUAL(output(":", text, sizeof text, adjust_cwd), -ENOENT);
    CHECK_EQUAL(output(":", text, sizeof text, adjust_core), -EINVAL);
    CHECK_EQUAL(waitpid(-1, NULL, WNOHANG), -1);
    CHECK_EQUAL(errno, ECHILD);
}

static void the_step_is_named(void)
{
    const char *const arguments[] = {"sh", NULL};
    int pidfd, step, closed[] = {999, 5};
    struct rr_spawn request = shell(arguments, closed, 1);

    CHECK_EQUAL(rr_spawn(&request, &pidfd, &step), -EBADF);
    CHECK_EQUAL(step, RR_STEP_FDS);
    CHECK_EQUAL(pidfd, -1);
    request.fd_pairs = 0;
    request.program = "/nowhere";
    CHECK_EQUAL(rr_spawn(&request, &pidfd, &step), -ENOENT);
    CHECK_EQUAL(step, RR_STEP_EXEC);
    request.program = NULL;
    CHECK_EQUAL(rr_spawn(&request, &pidfd, &step), -EINVAL);
}

/* Pairs that want each other's numbers. */
static void overlapping_pairs(void)
{
    const char *const arguments[] = {"sh", "-c", "echo a >&8; echo b >&9", NULL};
    int one[2], other[2], pidfd, step;
    char byte = 0;

    CHECK_EQUAL(pipe2(one, O_CLOEXEC), 0);
    CHECK_EQUAL(pipe2(other, O_CLOEXEC), 0);
    CHECK_EQUAL(dup3(one[1], 8, O_CLOEXEC), 8);
    CHECK_EQUAL(dup3(other[1], 9, O_CLOEXEC), 9);
    int fds[] = {8, 9, 9, 8};
    struct rr_spawn request = shell(arguments, fds, 2);
    int pid = rr_spawn(&request, &pidfd, &step);
    CHECK(pid > 0);
    CHECK_EQUAL(waitpid(pid, NULL, 0), pid);
    CHECK_EQUAL(read(one[0], &byte, 1), 1);
    CHECK_EQUAL(byte, 'b');
    CHECK_EQUAL(read(other[0], &byte, 1), 1);
    CHECK_EQUAL(byte, 'a');
    int all[] = {one[0], one[1], other[0], other[1], 8, 9, pidfd};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        close(all[i]);
}

/* The kernel ends the group when the last other end of the lifeline is closed. */
static void lifeline(void)
{
    const char *const arguments[] = {"sh", "-c", "sleep 100 & wait", NULL};
    int ends[2], pidfd, step, status = 0;

    CHECK_EQUAL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    int fds[] = {ends[0], 7};
    struct rr_spawn request = shell(arguments, fds, 1);
    request.lifeline = 7;
    int pid = rr_spawn(&request, &pidfd, &step);
    CHECK(pid > 0);
    close(ends[0]);
    struct pollfd item = {.fd = pidfd, .events = POLLIN};
    CHECK_EQUAL(poll(&item, 1, 0), 0);
    close(ends[1]);
    CHECK_EQUAL(poll(&item, 1, 30000), 1);
    CHECK_EQUAL(waitpid(pid, &status, 0), pid);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
    close(pidfd);
}

TESTS_BEGIN
RUN(only_the_given_fds);
RUN(limits_cores_and_place);
RUN(signals_are_as_at_birth);
RUN(failures_are_values_and_leave_no_child);
RUN(the_step_is_named);
RUN(overlapping_pairs);
RUN(lifeline);
TESTS_END
