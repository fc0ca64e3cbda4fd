/* After its start the dispatcher allocates nothing: every allocator is trapped while it works. */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "check.h"
#include "rig.h"

enum { CONNECTIONS = 200 };

static atomic_int armed, trapped;
static pthread_t tester;

/* glibc's own functions by their other names: ours take their place for the whole program. */
extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *old, size_t size);

static void note(void)
{
    if (atomic_load(&armed) && !pthread_equal(pthread_self(), tester))
        atomic_fetch_add(&trapped, 1);
}

void *malloc(size_t size)
{
    note();
    return __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
    note();
    return __libc_calloc(count, size);
}

void *realloc(void *old, size_t size)
{
    note();
    return __libc_realloc(old, size);
}

/* What an heir needs, twice, so that something is replaced. */
static void entrust(struct rig *rig)
{
    static const char command[] = "\1\0\0\0\0\0\0\0/bin/true\0/\0true";
    int pipe_fds[2], fd = (int)syscall(SYS_memfd_create, "command", 0u);

    CHECK_EQUAL(write(fd, command, sizeof command), sizeof command);
    CHECK_EQUAL(pipe(pipe_fds), 0);
    for (int i = 0; i < 2; i++) {
        struct rr_control keep = {.kind = RR_CONTROL_KEEP, .worker = 1, .value = {1}};
        struct rr_control inherit = {
            .kind = RR_CONTROL_INHERIT, .worker = 1, .value = {RR_INHERIT_KEPT, 1}};
        struct rr_control heir = {.kind = RR_CONTROL_HEIR, .value = {3, RR__SECOND, 0}};
        CHECK_EQUAL(rig_ask(rig, keep, pipe_fds, 2).result, 0);
        CHECK_EQUAL(rig_ask(rig, inherit, NULL, 0).result, 0);
        CHECK_EQUAL(rig_ask(rig, heir, &fd, 1).result, 0);
    }
    CHECK_EQUAL(rig_ask(rig, (struct rr_control){.kind = RR_CONTROL_HEIR}, NULL, 0).result, 0);
    rig_close(pipe_fds, 2);
    close(fd);
}

static void nothing_is_allocated_after_start(void)
{
    struct rig rig;
    struct fake fakes[2];
    int listener = rig_listen(), client;

    tester = pthread_self();
    rig_start(&rig, &rr__system_real);
    atomic_store(&armed, 1);
    CHECK_EQUAL(
        rig_ask(&rig, (struct rr_control){.kind = RR_CONTROL_LISTENER_ADD}, &listener, 1).result, 0);
    fake_serve(&rig, &fakes[0], 1);
    fake_serve(&rig, &fakes[1], 2);
    entrust(&rig);
    for (int i = 0; i < CONNECTIONS; i++) {
        rig_connect(listener, &client, 1);
        CHECK_EQUAL(fake_take(&fakes[i % 2]), 0);
        close(client);
    }
    rig_connect(listener, &client, 1);
    CHECK(fake_has(&fakes[0], 1));
    fake_kill(&fakes[0]); /* the reclaimer's turn */
    CHECK_EQUAL(fake_take(&fakes[1]), RR_FLAG_MOVED);
    close(client);
    rig_stop(&rig);
    atomic_store(&armed, 0);
    CHECK_EQUAL(atomic_load(&trapped), 0);
    fake_close(&fakes[0]);
    fake_close(&fakes[1]);
    close(listener);
}

TESTS_BEGIN
/* The trap itself has to work. */
tester = 0;
atomic_store(&armed, 1);
void *volatile kept = malloc(1); /* volatile: else no call is left */
free(kept);
atomic_store(&armed, 0);
CHECK(atomic_exchange(&trapped, 0) > 0);
RUN(nothing_is_allocated_after_start);
TESTS_END
