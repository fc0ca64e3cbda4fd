/* A connection that is held for the next accept, as when another process took the probe that was seen:
 * what becomes of it when things are closed. Linked with the shim, whose insides it sets. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>

#include "../../../csrc/shim.h"

static int hold(int channel)
{
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

    rr__own->held.busy = 1;
    rr__own->held.fd = fd;
    rr__own_is_ours();
    __atomic_store_n(&rr__own->held.channel, channel + 1, __ATOMIC_RELEASE);
    return fd;
}

static void tell(const char *what, int channel, int fd)
{
    printf("%s: held %d, open %d\n", what, rr__holds(channel), fcntl(fd, F_GETFD) >= 0);
    struct rr__taken taken;
    int got = rr__take_held(channel, 1, &taken);
    if (got >= 0)
        rr__raw1(SYS_close, got);
}

static void child_of_vfork(void (*closes)(int, int), int channel, int fd)
{
    pid_t pid = vfork();

    if (pid == 0) {
        closes(channel, fd);
        _exit(0);
    }
    waitpid(pid, NULL, 0);
}

static void close_channel(int channel, int fd)
{
    (void)fd;
    rr__shim_close(channel);
}

static void close_all(int channel, int fd)
{
    (void)channel;
    (void)fd;
    rr__shim_close_range(3, ~0u, 0);
}

static void cover(int channel, int fd)
{
    (void)channel;
    rr__shim_dup2(0, fd);
}

static void close_others(int channel, int fd)
{
    (void)channel;
    rr__shim_close_range((unsigned)fd + 1, ~0u, 0);
}

int main(void)
{
    static const struct {
        const char *name;
        void (*closes)(int, int);
    } ways[] = {{"close", close_channel}, {"close_range", close_all}, {"dup2", cover}, {"others", close_others}};

    setenv("RRDISPATCH_SOCKET", "/nonexistent", 1);
    setenv("RRDISPATCH_KEY", "1:00000000000000000000000000000000", 1);
    rr__load();
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        int channel = open("/dev/null", O_RDONLY), fd = hold(channel);
        child_of_vfork(ways[i].closes, channel, fd);
        printf("a child's ");
        tell(ways[i].name, channel, fd);
        fd = hold(channel);
        ways[i].closes(channel, fd);
        tell(ways[i].name, channel, fd);
        rr__raw3(SYS_close_range, 3, ~0u, 0);
    }
    return 0;
}
