/* Owns poll and select: the first that waits for a channel is how the primary learns that the program
 * takes connections; and a channel, unlike a listening socket, is always writable, which is not told. */
#include <string.h>

#include "shim.h"

enum { SOME = 64, OUT = POLLOUT | POLLWRNORM | POLLWRBAND };

/* ---- ready -------------------------------------------------------------------------------------------- */

static void look(int fd)
{
    if (rr__kind(fd) == RR__CHANNEL)
        rr__ready(fd);
}

static void look_at_items(const struct pollfd *items, nfds_t count)
{
    struct pollfd some[SOME];
    int kept = errno;

    for (nfds_t from = 0; from < count && rr__unsaid(); from += SOME) {
        nfds_t number = count - from < SOME ? count - from : SOME;
        if (rr__copy_in(some, items + from, number * sizeof *some) < 0)
            break;
        for (nfds_t i = 0; i < number && rr__unsaid(); i++)
            if (some[i].events & (POLLIN | POLLRDNORM))
                look(some[i].fd);
    }
    errno = kept;
}

static void look_at_set(const fd_set *set, int count)
{
    enum { BITS = 8 * sizeof(unsigned long) };
    unsigned long words[SOME];
    int kept = errno, room = SOME * BITS;
    size_t number = (size_t)(count < room ? count : room);

    if (!set || count <= 0 || !rr__unsaid())
        return;
    memset(words, 0, sizeof words);
    if (rr__copy_in(words, set, (number + BITS - 1) / BITS * sizeof *words) == 0)
        for (size_t fd = 0; fd < number; fd++)
            if (words[fd / BITS] >> fd % BITS & 1 && rr__unsaid())
                look((int)fd);
    errno = kept;
}

/* ---- never writable ----------------------------------------------------------------------------------- */

/* Takes what a channel must not say from the answer: how many items are left in it. The kernel has
 * written them, so they are there. */
static int conceal(struct pollfd *items, nfds_t count, int answered)
{
    int left = answered;

    for (nfds_t i = 0; i < count && answered > 0; i++) {
        if (!items[i].revents)
            continue;
        answered--;
        if (!(items[i].revents & OUT) || rr__was_taken(items[i].fd) || rr__kind(items[i].fd) == RR__OTHER)
            continue;
        items[i].revents &= (short)~OUT;
        left -= !items[i].revents;
    }
    return left;
}

/* Waits again without asking what would be answered at once. As the events are the program's, they are
 * put back as they were. */
static int again(struct pollfd *items, nfds_t count, const struct timespec *timeout, const sigset_t *mask)
{
    short kept[SOME * 4];
    nfds_t number = count < SOME * 4 ? count : SOME * 4;

    for (nfds_t i = 0; i < number; i++) {
        kept[i] = items[i].events;
        if (items[i].events & OUT && rr__kind(items[i].fd) != RR__OTHER)
            items[i].events &= (short)~OUT;
    }
    int answered = rr__real()->ppoll(items, count, timeout, mask);
    for (nfds_t i = 0; i < number; i++)
        items[i].events = kept[i];
    return answered;
}

static int truly_ready(struct pollfd *items, nfds_t count, int answered, const struct timespec *timeout,
                       const sigset_t *mask)
{
    answered = conceal(items, count, answered);
    if (answered > 0 || (timeout && timeout->tv_sec == 0 && timeout->tv_nsec == 0))
        return answered;
    /* It was answered at once: all of the time is left. */
    answered = again(items, count, timeout, mask);
    return answered > 0 ? conceal(items, count, answered) : answered;
}

/* ---- the names ---------------------------------------------------------------------------------------- */

int rr__shim_poll(struct pollfd *items, nfds_t count, int timeout)
{
    struct timespec time = {.tv_sec = timeout / 1000, .tv_nsec = timeout % 1000 * 1000000L};

    if (!rr__settings.on)
        return rr__real()->poll(items, count, timeout);
    if (rr__unsaid())
        look_at_items(items, count);
    int answered = rr__real()->poll(items, count, timeout);
    if (answered <= 0)
        return answered;
    return truly_ready(items, count, answered, timeout < 0 ? NULL : &time, NULL);
}

int rr__shim_ppoll(struct pollfd *items, nfds_t count, const struct timespec *timeout,
                   const sigset_t *mask)
{
    if (!rr__settings.on)
        return rr__real()->ppoll(items, count, timeout, mask);
    if (rr__unsaid())
        look_at_items(items, count);
    int answered = rr__real()->ppoll(items, count, timeout, mask);
    return answered <= 0 ? answered : truly_ready(items, count, answered, timeout, mask);
}

int rr__shim_select(int count, fd_set *in, fd_set *out, fd_set *other, struct timeval *timeout)
{
    if (rr__settings.on)
        look_at_set(in, count);
    return rr__real()->select(count, in, out, other, timeout);
}

int rr__shim_pselect(int count, fd_set *in, fd_set *out, fd_set *other,
                     const struct timespec *timeout, const sigset_t *mask)
{
    if (rr__settings.on)
        look_at_set(in, count);
    return rr__real()->pselect(count, in, out, other, timeout, mask);
}

#ifdef __GLIBC__
/* What <poll.h> calls under _FORTIFY_SOURCE. */
int rr__shim_poll_chk(struct pollfd *items, nfds_t count, int timeout, size_t room)
    RR_WRAPS("__poll_chk");
int rr__shim_ppoll_chk(struct pollfd *items, nfds_t count, const struct timespec *timeout,
                       const sigset_t *mask, size_t room) RR_WRAPS("__ppoll_chk");
extern void rr__chk_fail(void) __asm__("__chk_fail") __attribute__((noreturn));

int rr__shim_poll_chk(struct pollfd *items, nfds_t count, int timeout, size_t room)
{
    if (room / sizeof *items < count)
        rr__chk_fail();
    return rr__shim_poll(items, count, timeout);
}

int rr__shim_ppoll_chk(struct pollfd *items, nfds_t count, const struct timespec *timeout,
                       const sigset_t *mask, size_t room)
{
    if (room / sizeof *items < count)
        rr__chk_fail();
    return rr__shim_ppoll(items, count, timeout, mask);
}
#endif
