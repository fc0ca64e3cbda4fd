/* Owns who sleeps in accept, and how shutdown() wakes them. A listening socket that is shut down wakes
 * whoever sleeps in it; the channel can't be shut down, as it is others' too. So the sleepers are
 * interrupted by a signal that has no handler in this program: it gets one for that moment. */
#include <time.h>

#include "shim.h"

enum { PLACES = sizeof rr__own->sleepers / sizeof *rr__own->sleepers, TRIES = 200, NAP_NS = 1000000 };

static uint64_t key_of(int fd)
{
    return (uint64_t)(unsigned)fd << 32 | (unsigned)rr__raw1(SYS_gettid, 0);
}

/* A place is left behind by a thread that was cancelled in accept, or jumped out of it: the first is
 * found out in nudge(), the second when the thread comes again. */
int rr__sleeps(int fd)
{
    uint64_t mine = key_of(fd);
    int place = -1;

    for (int i = 0; rr__own && i < PLACES; i++) {
        uint64_t found = __atomic_load_n(&rr__own->sleepers[i], __ATOMIC_RELAXED);
        if (found == mine)
            return i;
        if (!found && place < 0)
            place = i;
    }
    for (; place >= 0 && place < PLACES; place++) {
        uint64_t none = 0;
        if (__atomic_compare_exchange_n(&rr__own->sleepers[place], &none, mine, 0, __ATOMIC_ACQ_REL,
                                        __ATOMIC_RELAXED))
            return place;
    }
    return -1;
}

void rr__woke(int place)
{
    if (place >= 0)
        __atomic_store_n(&rr__own->sleepers[place], 0, __ATOMIC_RELEASE);
}

static void nothing(int number)
{
    (void)number;
}

/* The highest that the program left alone. */
static int free_signal(void)
{
    struct sigaction now;

    for (int number = SIGRTMAX; number >= SIGRTMIN; number--)
        if (sigaction(number, NULL, &now) == 0 && !(now.sa_flags & SA_SIGINFO) &&
            now.sa_handler == SIG_DFL)
            return number;
    return 0;
}

static int nudge(int fd, int number)
{
    int left = 0;

    for (int i = 0; i < PLACES; i++) {
        uint64_t key = __atomic_load_n(&rr__own->sleepers[i], __ATOMIC_ACQUIRE);
        if (!key || (int)(key >> 32) != fd)
            continue;
        if (rr__raw3(SYS_tgkill, rr__own->pid, key & 0xffffffff, number) >= 0)
            left++;
        else /* there is no such thread any more */
            __atomic_compare_exchange_n(&rr__own->sleepers[i], &key, 0, 0, __ATOMIC_ACQ_REL,
                                        __ATOMIC_RELAXED);
    }
    return left;
}

static int any_sleeper(int fd)
{
    for (int i = 0; rr__own && i < PLACES; i++) {
        uint64_t key = __atomic_load_n(&rr__own->sleepers[i], __ATOMIC_ACQUIRE);
        if (key && (int)(key >> 32) == fd)
            return 1;
    }
    return 0;
}

void rr__wake(int fd)
{
    struct sigaction wake = {.sa_handler = nothing}, ignore = {.sa_handler = SIG_IGN}, before;
    struct timespec pause = {.tv_nsec = NAP_NS};
    int kept = errno, number;

    if (!any_sleeper(fd) || !rr__own_is_ours() || (number = free_signal()) == 0 ||
        sigaction(number, &wake, &before) < 0)
        return;
    /* Once each: one that blocks the signal is left asleep. */
    for (int tries = nudge(fd, number) ? TRIES : 0; tries > 0 && any_sleeper(fd); tries--)
        rr__raw5(SYS_ppoll, NULL, 0, &pause, NULL, 0);
    /* To ignore it discards what is pending; the default would end the program. */
    sigaction(number, &ignore, NULL);
    sigaction(number, &before, NULL);
    errno = kept;
}
