/* The dispatcher's executable: control socket on fd 3. Owns what concerns the whole process: signals and
 * limits. Ends by a control message, or when primary and workers are gone; signals are for others, and
 * heirs that end are reaped by the kernel. */
#include <signal.h>
#include <stddef.h>
#include <sys/resource.h>

#include "ledger.h"
#include "rrdispatch.h"

enum { CONTROL_FD = 3, EXIT_USAGE = 2 };

static void ignore_signals(void)
{
    static const int ignored[] = {SIGTERM, SIGINT,  SIGHUP,    SIGQUIT, SIGPIPE, SIGCHLD,
                                  SIGUSR1, SIGUSR2, SIGALRM, SIGVTALRM, SIGPROF, SIGIO};
    struct sigaction action = {.sa_handler = SIG_IGN};

    for (size_t i = 0; i < sizeof ignored / sizeof *ignored; i++)
        sigaction(ignored[i], &action, NULL);
}

/* Sent fds count against the sender's soft limit: ETOOMANYREFS would come at 1,024. */
static void raise_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

int main(void)
{
    ignore_signals();
    raise_limit();
    rr__ledger_from_environment();
    return rr_dispatcher_run(CONTROL_FD) < 0 ? EXIT_USAGE : 0;
}
