/* Owns the way from the death of a primary to its heir: the command, starting it, how often, and being
 * headless: nobody is there, all is served on, and a client on a kept listener is a call for another. Must
 * not know what is inherited. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "dispatcher.h"
#include "fdpass.h"
#include "os.h"

/* So much later another call is heeded, twice as long each time, up to the window: the client that
 * called waits in the backlog even when it is gone, and heirs may go on dying. */
#define CALL_PAUSE_NS RR__SECOND

/* ---- the command ------------------------------------------------------------------------------ */

static const char *next_string(const char **at, const char *end)
{
    const char *text = *at, *zero = memchr(text, 0, (size_t)(end - text));

    if (zero)
        *at = zero + 1;
    return zero ? text : NULL;
}

static int fill(const char **array, uint32_t count, const char **at, const char *end)
{
    for (uint32_t i = 0; i < count; i++) {
        array[i] = next_string(at, end);
        if (!array[i])
            return -EINVAL;
    }
    array[count] = NULL;
    return 0;
}

int rr__command_parse(struct rr__command *command, size_t size)
{
    uint32_t counts[2]; /* arguments, variables */
    const char *at = command->text + sizeof counts, *end = command->text + size;

    if (size < sizeof counts || size > sizeof command->text)
        return -EINVAL;
    memcpy(counts, command->text, sizeof counts);
    if (counts[0] < 1 || counts[0] > RR_HEIR_ARGUMENTS_MAX || counts[1] > RR_HEIR_VARIABLES_MAX)
        return -EINVAL;
    command->program = next_string(&at, end);
    command->cwd = command->program ? next_string(&at, end) : NULL;
    if (!command->cwd || *command->program != '/' || *command->cwd != '/')
        return -EINVAL;
    if (fill(command->arguments, counts[0], &at, end) < 0 ||
        fill(command->variables, counts[1], &at, end) < 0 || at != end)
        return -EINVAL;
    for (uint32_t i = 0; i < counts[1]; i++)
        if (!strchr(command->variables[i], '='))
            return -EINVAL;
    return 0;
}

static int read_command(struct rr__command *command, int fd)
{
    struct stat about;
    size_t got = 0;

    if (fstat(fd, &about) < 0)
        return -errno;
    if (!S_ISREG(about.st_mode) || about.st_size < 0 ||
        (uint64_t)about.st_size > sizeof command->text)
        return -EINVAL;
    while (got < (size_t)about.st_size) {
        ssize_t part = pread(fd, command->text + got, (size_t)about.st_size - got, (off_t)got);
        if (part < 0 && errno == EINTR)
            continue;
        if (part <= 0)
            return -EINVAL;
        got += (size_t)part;
    }
    return rr__command_parse(command, got);
}

int rr__heir_command(struct rr__dispatcher *d, const struct rr_control *request, const int *fds,
                     int count)
{
    struct rr__heirs *heirs = &d->heirs;
    const uint64_t *value = request->value;

    if (count > 1)
        return -EPROTO;
    if (count == 0) {
        heirs->command = NULL;
        return 0;
    }
    if (value[0] > RR_HEIRS_MAX || value[1] < 1)
        return -EINVAL;
    /* Into the one that is not in use: a malformed command leaves that as it is. */
    struct rr__command *spare = &heirs->commands[heirs->command == &heirs->commands[0]];
    int result = read_command(spare, fds[0]);
    if (result < 0)
        return result;
    heirs->command = spare;
    heirs->most = (int)value[0];
    heirs->window = value[1] < RR__TIMEOUT_MOST ? value[1] : RR__TIMEOUT_MOST;
    if (heirs->window < RR__MS)
        heirs->window = RR__MS; /* with nearly nothing the loop would never sleep while nobody is there */
    heirs->silence = value[2] < RR__TIMEOUT_MOST ? value[2] : RR__TIMEOUT_MOST;
    return 0;
}

/* ---- starting one ------------------------------------------------------------------------------- */

static int spawn(struct rr__dispatcher *d, int link, int *pidfd)
{
    const struct rr__command *command = d->heirs.command;
    const int fds[] = {STDOUT_FILENO, STDOUT_FILENO, STDERR_FILENO, STDERR_FILENO, link, RR__CONTROL_FD};
    const struct rr_spawn request = {.program = command->program,
                                     .arguments = command->arguments,
                                     .environment = command->variables,
                                     .cwd = command->cwd,
                                     .fds = fds,
                                     .fd_pairs = 3,
                                     .lifeline = -1,
                                     .flags = RR_SPAWN_SETSID};
    int step;
    return d->system->spawn(&request, pidfd, &step);
}

static void tell_started(struct rr__dispatcher *d)
{
    struct rr_control event = {.version = RR_CONTROL_VERSION,
                               .kind = RR_EVENT_STARTED,
                               .value = {(uint64_t)getpid(), 1}};
    rr__tell(d, &event);
}

/* One try; when it fails the next one is due in the next round, if there may be one. */
static void start(struct rr__dispatcher *d)
{
    struct rr__heirs *heirs = &d->heirs;
    int pair[2];

    heirs->called = 0;
    heirs->started++;
    heirs->tries_ns[heirs->tries++ % RR_HEIRS_MAX] = d->now;
    if (rr__socketpair(SOCK_SEQPACKET, pair) < 0)
        return;
    if (rr__poller_add(&d->poller, pair[0], rr__tag(RR__TAG_CONTROL, 0)) < 0) {
        rr__close_fds(pair, 2);
        return;
    }
    int pid = spawn(d, pair[1], &heirs->pidfd);
    rr__close_fds(&pair[1], 1);
    if (pid < 0) {
        rr__poller_remove(&d->poller, pair[0]);
        rr__close_fds(&pair[0], 1);
        return;
    }
    d->control = pair[0];
    heirs->due_ns = 0;
    heirs->silent_ns = heirs->silence ? d->now + heirs->silence : 0;
    tell_started(d);
}

/* When the next one may be started. */
static uint64_t allowed_ns(const struct rr__dispatcher *d)
{
    const struct rr__heirs *heirs = &d->heirs;

    if (heirs->called)
        return d->now;
    if (heirs->most == 0)
        return d->now + heirs->window;
    if (heirs->tries < (uint32_t)heirs->most)
        return d->now;
    return heirs->tries_ns[(heirs->tries - (uint32_t)heirs->most) % RR_HEIRS_MAX] + heirs->window;
}

/* ---- nobody is there ---------------------------------------------------------------------------- */

static const int callable[] = {RR_APP_CONTROL, RR_APP_DOOR};
enum { CALLABLE = sizeof callable / sizeof *callable };

static int kept_fd(const struct rr__dispatcher *d, int tag)
{
    const struct rr__kept *kept = &d->kept[tag - 1];

    return kept->count > 0 ? kept->fds[0] : -1;
}

static void hear_no_calls(struct rr__dispatcher *d)
{
    for (int i = 0; i < CALLABLE; i++)
        if (d->heirs.listening >> i & 1)
            rr__poller_remove(&d->poller, kept_fd(d, callable[i]));
    d->heirs.listening = 0;
}

static void be_headless(struct rr__dispatcher *d, uint64_t allowed)
{
    struct rr__heirs *heirs = &d->heirs;

    heirs->due_ns = allowed;
    if (kept_fd(d, RR_APP_CONTROL) < 0)
        return;
    if (d->now < heirs->call_ns) {
        heirs->due_ns = heirs->call_ns;
        return;
    }
    for (int i = 0; i < CALLABLE; i++) {
        int fd = kept_fd(d, callable[i]);
        if (fd >= 0 && rr__poller_add(&d->poller, fd, rr__tag(RR__TAG_CALL, 0)) == 0)
            heirs->listening |= 1 << i;
    }
    if (heirs->listening)
        heirs->due_ns = 0;
}

void rr__heir_called(struct rr__dispatcher *d)
{
    struct rr__heirs *heirs = &d->heirs;

    if (!heirs->listening)
        return;
    hear_no_calls(d);
    int quiet = d->now >= heirs->call_ns + heirs->window;
    heirs->call_pause = quiet || !heirs->call_pause ? CALL_PAUSE_NS : 2 * heirs->call_pause;
    if (heirs->call_pause > heirs->window)
        heirs->call_pause = heirs->window;
    heirs->call_ns = d->now + heirs->call_pause;
    heirs->tries = 0;
    heirs->called = 1;
    heirs->due_ns = d->now;
}

/* The primary is gone, or the heir that was to become one: by its own end or because it is silent. */
void rr__heir_lost(struct rr__dispatcher *d)
{
    struct rr__heirs *heirs = &d->heirs;

    rr__poller_remove(&d->poller, d->control);
    rr__close(d, &d->control);
    rr__hush(d);
    if (heirs->pidfd >= 0)
        rr__pidfd_kill(heirs->pidfd);
    rr__close(d, &heirs->pidfd);
    heirs->silent_ns = 0;
    heirs->due_ns = d->now;
    rr__orphan_requests(d);
}

/* Every round. */
void rr__heir_due(struct rr__dispatcher *d)
{
    struct rr__heirs *heirs = &d->heirs;

    if (heirs->silent_ns && d->now >= heirs->silent_ns)
        rr__heir_lost(d);
    if (!heirs->due_ns || d->now < heirs->due_ns)
        return;
    uint64_t allowed = allowed_ns(d);
    if (allowed > d->now)
        be_headless(d, allowed);
    else
        start(d);
}
