/* Owns what happens when nobody can send any more: primary and dispatcher are gone. The twin of
 * rrdispatch/worker/lifeline.py. */
#include "shim.h"

static void ask_to_end(void)
{
    static int told;
    long group, self = rr__raw1(SYS_getpid, 0);

    if (__atomic_exchange_n(&told, 1, __ATOMIC_ACQ_REL))
        return;
    /* Only a group that began with its session is a worker's own; else only this process is meant. */
    group = rr__raw1(SYS_getpgid, 0);
    rr__raw2(SYS_kill, group > 0 && group == rr__raw1(SYS_getsid, 0) ? -group : self, SIGTERM);
}

void rr__end_of_channel(int fd)
{
    /* First quiet, then the signal: its handler may accept. */
    rr__silence(fd);
    ask_to_end();
}
