/* After its start the dispatcher allocates nothing: every allocator is trapped while it works. Each test
 * with a rig is such a test (trap.c); this one shows that the trap works, and that nothing is allocated
 * in what the others leave out. */
#include <fcntl.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "rig.h"
#include "trap.h"

enum { CONNECTIONS = 200 };

static struct rig rig;
static struct fake fakes[3];
static int listener;
static struct rr__system system_in_use;

static void the_trap_works(void)
{
    trap_arm(pthread_self());
    void *volatile kept = malloc(1); /* volatile: else no call is left */
    kept = realloc(kept, 2);
    free(kept);
    void *page = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK_EQUAL(trap_disarm(), 4);
    munmap(page, 4096);
}

static void set_up(void)
{
    rig_start(&rig, &system_in_use);
    listener = rig_listen();
    CHECK_EQUAL(
        rig_ask(&rig, (struct rr_control){.kind = RR_CONTROL_LISTENER_ADD}, &listener, 1).result, 0);
    for (int i = 0; i < 3; i++)
        fake_serve(&rig, &fakes[i], (uint32_t)i + 1);
    rig_settings(&rig, 32, 100000, 0, 0); /* however late we take */
}

static void tear_down(void)
{
    rig_stop(&rig);
    for (int i = 0; i < 3; i++)
        fake_close(&fakes[i]);
    close(listener);
}

static void connections_and_a_rescue(void)
{
    int client;

    set_up();
    for (int i = 0; i < CONNECTIONS; i++) {
        rig_connect(listener, &client, 1);
        CHECK_EQUAL(fake_take(&fakes[i % 3]), 0);
        close(client);
    }
    for (uint32_t id = 2; id <= 3; id++) {
        struct rr_control park = {.kind = RR_CONTROL_WORKER_PARK, .worker = id};
        CHECK_EQUAL(rig_ask(&rig, park, NULL, 0).result, 0);
    }
    rig_connect(listener, &client, 1);
    CHECK(fake_has(&fakes[0], 1));
    fake_ready(&rig, &fakes[1], 0, 1);
    fake_kill(&fakes[0]); /* the reclaimer's turn */
    CHECK_EQUAL(fake_take(&fakes[1]), RR_FLAG_MOVED);
    close(client);
    tear_down();
}

/* Every kind of request, right and wrong, with and without fds. */
static void every_request(void)
{
    static const uint64_t values[] = {0, 1, 3, RR__SECOND};

    set_up();
    for (uint32_t kind = 0; kind < RR_EVENT_STARTED; kind++) {
        int later = kind == RR_CONTROL_WORKER_DRAIN || kind == RR_CONTROL_LISTENER_CLOSE;
        for (int i = 0; i < 8 && kind != RR_CONTROL_STOP; i++) {
            struct rr_control message = {.kind = kind,
                                         .worker = later ? 77 : (uint32_t)i % 4,
                                         .listener = later ? 7 : (uint32_t)i % 2};
            for (int at = 0; at < 7; at++)
                message.value[at] = values[(i + at) % 4];
            CHECK(rig_ask(&rig, message, &listener, i / 4).result <= 0);
        }
    }
    rig_settings(&rig, 32, 1000, 0, 0);
    tear_down();
}

enum { REAL_HEIRS = 3, LINK_AT = 4 };

static atomic_int spawned, next_control;
static pid_t heirs[REAL_HEIRS];

/* The first ones are started in earnest and end at once; the next one is this test. */
static int spawn_some(const struct rr_spawn *request, int *pidfd, int *step)
{
    int number = atomic_load(&spawned);

    if (number < REAL_HEIRS) {
        heirs[number] = rr_spawn(request, pidfd, step);
        atomic_store(&spawned, number + 1);
        return heirs[number];
    }
    *pidfd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    atomic_store(&next_control, fcntl(request->fds[LINK_AT], F_DUPFD_CLOEXEC, 0));
    return 1 << 30;
}

/* Two in the window, headless, a client's call, and two more. */
static void heirs_that_end_at_once(void)
{
    static const char text[] = "\1\0\0\0\0\0\0\0/bin/true\0/\0true"; /* its 0 comes with it */
    struct rr_control heir = {.kind = RR_CONTROL_HEIR, .value = {2, 100 * RR__MS, 60 * RR__SECOND}};
    struct rr_control keep = {.kind = RR_CONTROL_KEEP, .value = {RR_APP_CONTROL}};
    struct rr_control inherit = {.kind = RR_CONTROL_INHERIT, .value = {RR_INHERIT_WORKER}, .worker = 1};
    int command = memfd_create("heir", MFD_CLOEXEC), calls = rig_listen(), client, control = -1;

    system_in_use.spawn = spawn_some;
    atomic_store(&next_control, -1);
    set_up();
    CHECK_EQUAL(write(command, text, sizeof text), sizeof text);
    CHECK_EQUAL(rig_ask(&rig, keep, &calls, 1).result, 0);
    CHECK_EQUAL(rig_ask(&rig, inherit, NULL, 0).result, 0);
    CHECK_EQUAL(rig_ask(&rig, heir, &command, 1).result, 0);
    rig_connect(calls, &client, 1);
    close(rig.control);
    for (int waited = 0; waited < RIG_WAIT_MS && control < 0; waited++) {
        poll(NULL, 0, 1);
        control = atomic_exchange(&next_control, -1);
    }
    CHECK(control >= 0);
    rig.control = control;
    tear_down();
    for (int i = 0; i < REAL_HEIRS; i++)
        CHECK_EQUAL(waitpid(heirs[i], NULL, 0), heirs[i]);
    rig_close((int[]){command, calls, client}, 3);
}

TESTS_BEGIN
system_in_use = rr__system_real;
RUN(the_trap_works);
RUN(connections_and_a_rescue);
RUN(every_request);
RUN(heirs_that_end_at_once);
TESTS_END
