/* Heirs: the command's parser, what is kept, and who takes a dead primary's place. The world's spawn is
 * ours: it hands the heir's end of the control socket to the test, which goes on as the heir. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "rig.h"

#define LONG_NS (600 * RR__SECOND)

static const char command[] = "\2\0\0\0\1\0\0\0/bin/true\0/\0true\0-x\0A=1";

/* ---- the parser --------------------------------------------------------------------------------- */

static struct rr__command *parsed;

/* What is behind it in the buffer has no NUL: a string that is taken from there is seen. */
static int parse(const char *text, size_t size)
{
    memset(parsed->text, 'x', sizeof parsed->text);
    memcpy(parsed->text, text, size);
    return rr__command_parse(parsed, size);
}

static void a_command_is_parsed(void)
{
    CHECK_EQUAL(parse(command, sizeof command), 0);
    CHECK(!strcmp(parsed->program, "/bin/true") && !strcmp(parsed->cwd, "/"));
    CHECK(!strcmp(parsed->arguments[0], "true") && !strcmp(parsed->arguments[1], "-x"));
    CHECK(!strcmp(parsed->variables[0], "A=1"));
    CHECK(!parsed->arguments[2] && !parsed->variables[1]);
}

static void every_cut_of_a_command_is_refused(void)
{
    char more[sizeof command + 1] = {0};

    for (size_t size = 0; size < sizeof command; size++)
        CHECK_EQUAL(parse(command, size), -EINVAL);
    memcpy(more, command, sizeof command);
    CHECK_EQUAL(parse(more, sizeof more), -EINVAL);
}

static int parse_with(uint32_t arguments, uint32_t variables, const char *program, const char *cwd,
                      const char *variable)
{
    static char text[RR_HEIR_COMMAND_MAX];
    uint32_t counts[2] = {arguments, variables};
    size_t size = sizeof counts;

    memcpy(text, counts, sizeof counts);
    size += (size_t)sprintf(text + size, "%s", program) + 1;
    size += (size_t)sprintf(text + size, "%s", cwd) + 1;
    for (uint32_t i = 0; i < arguments && i < 100; i++)
        size += (size_t)sprintf(text + size, "x") + 1;
    for (uint32_t i = 0; i < variables && i < 3000; i++)
        size += (size_t)sprintf(text + size, "%s", variable) + 1;
    return parse(text, size);
}

static void limits_of_a_command(void)
{
    CHECK_EQUAL(parse_with(1, 0, "/x", "/", ""), 0);
    CHECK_EQUAL(parse_with(64, 2048, "/x", "/", "A="), 0);
    CHECK_EQUAL(parse_with(0, 0, "/x", "/", ""), -EINVAL);
    CHECK_EQUAL(parse_with(65, 0, "/x", "/", ""), -EINVAL);
    CHECK_EQUAL(parse_with(1, 2049, "/x", "/", "A="), -EINVAL);
    CHECK_EQUAL(parse_with(UINT32_MAX, UINT32_MAX, "/x", "/", "A="), -EINVAL);
    CHECK_EQUAL(parse_with(1, 0, "x", "/", ""), -EINVAL);
    CHECK_EQUAL(parse_with(1, 0, "/x", "", ""), -EINVAL);
    CHECK_EQUAL(parse_with(1, 1, "/x", "/", "A"), -EINVAL);
}

static void noise_is_never_read_beyond_its_end(void)
{
    static char text[256];
    unsigned seed = 1;

    for (int round = 0; round < 20000; round++) {
        size_t size = (size_t)rand_r(&seed) % sizeof text;
        memcpy(text, command, sizeof command);
        for (int i = 0; i < 4; i++)
            text[(size_t)rand_r(&seed) % sizeof text] = (char)(rand_r(&seed) % 4);
        if (parse(text, size) < 0)
            continue;
        for (int i = 0; parsed->arguments[i]; i++)
            CHECK(parsed->arguments[i] + strlen(parsed->arguments[i]) < parsed->text + size);
    }
}

/* ---- the world ---------------------------------------------------------------------------------- */

static int door[2], victim = -1;
static atomic_int failures_wanted;

static int fake_spawn(const struct rr_spawn *request, int *pidfd, int *step)
{
    *pidfd = -1;
    *step = RR_STEP_EXEC;
    CHECK_EQUAL(request->fd_pairs, 3);
    CHECK_EQUAL(request->fds[5], 3);
    CHECK_EQUAL(request->flags, RR_SPAWN_SETSID);
    CHECK(!strcmp(request->program, "/bin/true") && !strcmp(request->cwd, "/"));
    if (atomic_load(&failures_wanted) > 0) {
        atomic_fetch_sub(&failures_wanted, 1);
        return -ENOENT;
    }
    int link = dup(request->fds[4]);
    if (victim >= 0)
        *pidfd = dup(victim);
    CHECK_EQUAL(write(door[1], &link, sizeof link), sizeof link);
    return 1;
}

static int next_heir(void)
{
    struct pollfd item = {.fd = door[0], .events = POLLIN};
    int link = -1;

    if (poll(&item, 1, RIG_WAIT_MS) == 1)
        CHECK_EQUAL(read(door[0], &link, sizeof link), sizeof link);
    CHECK(link >= 0);
    return link;
}

static void start(struct rig *rig)
{
    static struct rr__system system;

    system = rr__system_real;
    system.spawn = fake_spawn;
    CHECK_EQUAL(pipe(door), 0);
    rig_start(rig, &system);
}

static void stop(struct rig *rig)
{
    rig_stop(rig);
    rig_close(door, 2);
}

static int say_command(struct rig *rig, const char *text, size_t size, uint64_t most, uint64_t silence)
{
    struct rr_control heir = {.kind = RR_CONTROL_HEIR, .value = {most, LONG_NS, silence}};
    int fd = (int)syscall(SYS_memfd_create, "command", 0u);

    CHECK_EQUAL(write(fd, text, size), size);
    int result = rig_ask(rig, heir, &fd, 1).result;
    close(fd);
    return result;
}

static int keep(struct rig *rig, uint32_t worker, uint64_t tag, const int *fds, int count)
{
    struct rr_control message = {.kind = RR_CONTROL_KEEP, .worker = worker, .value = {tag}};
    return rig_ask(rig, message, fds, count).result;
}

/* Their number, or the error; the fds are in the rig. */
static int inherit(struct rig *rig, uint64_t what, uint32_t id, uint64_t tag)
{
    struct rr_control message = {
        .kind = RR_CONTROL_INHERIT, .worker = id, .listener = id, .value = {what, tag}};
    int result = rig_ask(rig, message, NULL, 0).result;
    return result < 0 ? result : rig->fd_count;
}

static int same(int one, int other)
{
    struct stat first, second;
    return fstat(one, &first) == 0 && fstat(other, &second) == 0 && first.st_dev == second.st_dev &&
           first.st_ino == second.st_ino;
}

static uint64_t started(struct rig *rig)
{
    return rig_ask(rig, (struct rr_control){.kind = RR_CONTROL_PING}, NULL, 0).value[9];
}

/* ---- what is kept ------------------------------------------------------------------------------- */

static void kept_fds_are_replaced_forgotten_and_closed(void)
{
    struct rig rig;
    struct fake fake;
    int fds[10], many[9];

    start(&rig);
    fake_serve(&rig, &fake, 1);
    for (int i = 0; i < 5; i++)
        CHECK_EQUAL(pipe(&fds[2 * i]), 0);
    for (int i = 0; i < 9; i++)
        many[i] = fds[0];
    CHECK_EQUAL(inherit(&rig, RR_INHERIT_KEPT, 0, 1), -ENOENT);
    CHECK_EQUAL(keep(&rig, 0, 1, fds, 2), 0);
    CHECK_EQUAL(keep(&rig, 0, 1, fds + 2, 3), 0);
    CHECK_EQUAL(keep(&rig, 1, 7, fds + 5, 1), 0);
    CHECK_EQUAL(keep(&rig, 0, 1, many, 9), -E2BIG);
    CHECK_EQUAL(keep(&rig, 2, 1, many, 1), -ESRCH);
    CHECK_EQUAL(keep(&rig, 0, 0, many, 1), -EINVAL);
    CHECK_EQUAL(keep(&rig, 0, 8, many, 1), -EINVAL);
    CHECK_EQUAL(inherit(&rig, RR_INHERIT_KEPT, 0, 1), 3);
    for (int i = 0; i < 3; i++)
        CHECK(same(rig.fds[i], fds[2 + i]));
    CHECK_EQUAL(inherit(&rig, RR_INHERIT_KEPT, 1, 7), 1);
    CHECK(same(rig.fds[0], fds[5]));
    CHECK_EQUAL(inherit(&rig, RR_INHERIT_WORKER, 1, 0), 5);
    CHECK(same(rig.fds[1], fake.board_fd) && same(rig.fds[4], fake.receiver));
    CHECK_EQUAL(keep(&rig, 0, 1, NULL, 0), 0);
    CHECK_EQUAL(inherit(&rig, RR_INHERIT_KEPT, 0, 1), -ENOENT);
    CHECK_EQUAL(keep(&rig, 0, 2, many, 8), 0);
    rig_close(fds, 10);
    stop(&rig); /* closes what is kept: the test's runner counts */
    fake_close(&fake);
}

/* ---- heirs -------------------------------------------------------------------------------------- */

static void an_heir_finds_everything(void)
{
    struct rig rig;
    struct fake fake;
    int listener = rig_listen(), clients[2];

    start(&rig);
    struct rr_control add = {.kind = RR_CONTROL_LISTENER_ADD};
    CHECK_EQUAL(rig_ask(&rig, add, &listener, 1).result, 0);
    fake_serve(&rig, &fake, 1);
    CHECK_EQUAL(say_command(&rig, command, sizeof command, 3, 0), 0);
    CHECK_EQUAL(say_command(&rig, command, sizeof command - 1, 3, 0), -EINVAL);
    CHECK_EQUAL(say_command(&rig, command, sizeof command, 17, 0), -EINVAL);
    rig_request(&rig, (struct rr_control){.kind = RR_CONTROL_WORKER_DRAIN, .worker = 1}, NULL, 0);
    rig_connect(listener, clients, 1);
    rig_die(&rig);
    rig_succeed(&rig, next_heir());
    CHECK_EQUAL(inherit(&rig, RR_INHERIT_LISTENER, 0, 0), 1);
    CHECK(same(rig.fds[0], listener));
    CHECK_EQUAL(inherit(&rig, RR_INHERIT_LISTENER, 1, 0), -ENOENT);
    CHECK_EQUAL(
        rig_ask(&rig, (struct rr_control){.kind = RR_CONTROL_WORKER_DRAIN, .worker = 1}, NULL, 0).result,
        0);
    CHECK_EQUAL(started(&rig), 1);
    fake_kill(&fake);
    CHECK_EQUAL(rig_event(&rig, RR_EVENT_DEAD).worker, 1);
    stop(&rig);
    fake_close(&fake);
    close(clients[0]);
    close(listener);
}

static void wait_for_a_call(int at)
{
    struct rig rig;
    const int tags[] = {RR_APP_CONTROL, RR_APP_DOOR};
    struct sockaddr_un name = {.sun_family = AF_UNIX}; /* bound to a name that the kernel chooses */
    socklen_t length = sizeof name;
    int place[2], client = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    start(&rig);
    for (int i = 0; i < 2; i++) {
        struct sockaddr_un any = {.sun_family = AF_UNIX};
        place[i] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        CHECK_EQUAL(bind(place[i], (struct sockaddr *)&any, sizeof(sa_family_t)), 0);
        CHECK_EQUAL(listen(place[i], 8), 0);
        CHECK_EQUAL(keep(&rig, 0, tags[i], &place[i], 1), 0);
    }
    CHECK_EQUAL(getsockname(place[at], (struct sockaddr *)&name, &length), 0);
    CHECK_EQUAL(say_command(&rig, command, sizeof command, 3, 0), 0);
    atomic_store(&failures_wanted, 3);
    rig_die(&rig);
    while (atomic_load(&failures_wanted) > 0)
        poll(NULL, 0, 1);
    CHECK_EQUAL(connect(client, (struct sockaddr *)&name, length), 0);
    rig_succeed(&rig, next_heir());
    CHECK_EQUAL(started(&rig), 4);
    stop(&rig);
    rig_close(place, 2);
    close(client);
}

static void after_failures_a_call_is_waited_for(void)
{
    wait_for_a_call(0);
    wait_for_a_call(1);
}

/* What it says is answered: it was not too late, and may be silent from now on. */
static int is_heard(int control)
{
    struct rr_control message = {.version = RR_CONTROL_VERSION, .kind = RR_CONTROL_PING};
    struct pollfd item = {.fd = control, .events = POLLIN};
    int count, result = rr_control_send(control, &message, NULL, 0);

    while (result == 0 && poll(&item, 1, RIG_WAIT_MS) == 1 &&
           rr_control_receive(control, &message, NULL, 0, &count) == 1)
        if (message.kind == RR_CONTROL_PING)
            return 1;
    return 0;
}

static void a_silent_heir_is_killed(void)
{
    struct rig rig;
    struct fake fake;

    start(&rig);
    fake_start(&fake, 1, 0);
    victim = fake.pidfd;
    CHECK_EQUAL(say_command(&rig, command, sizeof command, 16, 50 * RR__MS), 0);
    rig_die(&rig);
    int silent = next_heir(), status = 0;
    CHECK_EQUAL(waitpid(fake.pid, &status, 0), fake.pid);
    CHECK_EQUAL(WTERMSIG(status), SIGKILL);
    fake.pid = 0;
    /* On a slow machine the next ones may be too late as well. */
    rig.control = next_heir();
    for (int tries = 0; tries < 10 && !is_heard(rig.control); tries++) {
        close(rig.control);
        rig.control = next_heir();
    }
    CHECK(started(&rig) >= 2);
    stop(&rig);
    close(silent);
    victim = -1;
    fake_close(&fake);
}

static void as_if_nothing_had_been_said(void)
{
    struct rig rig;

    start(&rig);
    CHECK_EQUAL(say_command(&rig, command, sizeof command, 3, 0), 0);
    CHECK_EQUAL(rig_ask(&rig, (struct rr_control){.kind = RR_CONTROL_HEIR}, NULL, 0).result, 0);
    rig_die(&rig);
    rig_join(&rig);
    rig_close(door, 2);
}

TESTS_BEGIN
    parsed = mmap(NULL, sizeof *parsed, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    RUN(a_command_is_parsed);
    RUN(every_cut_of_a_command_is_refused);
    RUN(limits_of_a_command);
    RUN(noise_is_never_read_beyond_its_end);
    RUN(kept_fds_are_replaced_forgotten_and_closed);
    RUN(an_heir_finds_everything);
    RUN(after_failures_a_call_is_waited_for);
    RUN(a_silent_heir_is_killed);
    RUN(as_if_nothing_had_been_said);
TESTS_END
