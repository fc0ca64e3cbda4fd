/* Owns the wrapped names that wait. What they wait for is looked at until READY was said (shim_look.c);
 * and a channel, unlike a listening socket, is always writable, which is not told. */
#include <dlfcn.h>
#include <string.h>
#include <time.h>

#include "shim.h"

enum { SOME = 256, OUT = POLLOUT | POLLWRNORM | POLLWRBAND, IN = POLLIN | POLLRDNORM };

/* ---- how long ---------------------------------------------------------------------------------------- */

enum { SECOND = 1000000000 };

/* A wait that is taken up again goes on for what is left of its time. */
struct limit {
    const struct timespec *given; /* NULL: for ever; read only once the kernel has read it */
    struct timespec begun, left;
};

static void begin(struct limit *limit, const struct timespec *given)
{
    limit->given = given;
    if (given)
        clock_gettime(CLOCK_MONOTONIC, &limit->begun);
}

static int is_look(const struct limit *limit)
{
    return limit->given && !limit->given->tv_sec && !limit->given->tv_nsec;
}

static const struct timespec *left_of(struct limit *limit)
{
    struct timespec *left = &limit->left, now;

    if (!limit->given)
        return NULL;
    clock_gettime(CLOCK_MONOTONIC, &now);
    left->tv_sec = limit->given->tv_sec - (now.tv_sec - limit->begun.tv_sec);
    left->tv_nsec = limit->given->tv_nsec - (now.tv_nsec - limit->begun.tv_nsec);
    if (left->tv_nsec < 0) {
        left->tv_nsec += SECOND;
        left->tv_sec--;
    } else if (left->tv_nsec >= SECOND) {
        left->tv_nsec -= SECOND;
        left->tv_sec++;
    }
    if (left->tv_sec < 0)
        left->tv_sec = left->tv_nsec = 0;
    return left;
}

/* ---- never writable ----------------------------------------------------------------------------------- */

/* What a channel must not say: that it is writable, or that it is readable because of a probe. */
static short hidden(const struct pollfd *item)
{
    short out = item->revents & OUT, in = item->revents & IN;

    if (out && !rr__was_taken(item->fd) && rr__kind(item->fd) != RR__OTHER)
        return (short)(out | (in && rr__only_probes(item->fd) ? in : 0));
    return in && rr__was_channel(item->fd) && rr__only_probes(item->fd) ? in : 0;
}

/* How many items are left in the answer. The kernel has written them, so they are there. */
static int conceal(struct pollfd *items, nfds_t count, int answered)
{
    int left = answered;

    for (nfds_t i = 0; i < count && answered > 0; i++) {
        if (!items[i].revents)
            continue;
        answered--;
        items[i].revents &= (short)~hidden(&items[i]);
        left -= !items[i].revents;
    }
    return left;
}

/* Waits again without asking what would be answered at once. As the events are the program's, they are
 * put back as they were. */
static int again(struct pollfd *items, nfds_t count, const struct timespec *timeout, const sigset_t *mask)
{
    short kept[SOME];
    nfds_t number = count < SOME ? count : SOME;

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

static int truly_ready(struct pollfd *items, nfds_t count, int answered, struct limit *limit,
                       const sigset_t *mask)
{
    answered = conceal(items, count, answered);
    while (answered == 0 && !is_look(limit)) {
        answered = again(items, count, left_of(limit), mask);
        if (answered <= 0)
            break;
        answered = conceal(items, count, answered);
    }
    return answered;
}

/* ---- select ------------------------------------------------------------------------------------------- */

/* The program's three sets, as they were. */
struct sets {
    fd_set *its[3];
    fd_set kept[3];
    size_t size;
};

/* 0: there is no channel in it, or it is not to be read. */
static int keep(struct sets *sets, int count, fd_set *in, fd_set *out, fd_set *other)
{
    enum { BITS = 8 * sizeof(unsigned long) };
    fd_set *its[3] = {in, out, other};

    if (!rr__settings.on || count <= 0 || count > FD_SETSIZE || !rr__any_channel())
        return 0;
    sets->size = ((size_t)count + BITS - 1) / BITS * sizeof(unsigned long);
    for (int i = 0; i < 3; i++) {
        sets->its[i] = its[i];
        if (its[i] && rr__copy_in(&sets->kept[i], its[i], sets->size) < 0)
            return 0;
    }
    for (int fd = 0; fd < count; fd++)
        if (((in && FD_ISSET(fd, &sets->kept[0])) || (out && FD_ISSET(fd, &sets->kept[1]))) &&
            rr__was_channel(fd))
            return 1;
    return 0;
}

/* It is not asked whether a channel is writable. */
static void hide_writable(struct sets *sets, int count)
{
    for (int fd = 0; sets->its[1] && fd < count; fd++)
        if (FD_ISSET(fd, &sets->kept[1]) && rr__was_channel(fd))
            FD_CLR(fd, sets->its[1]);
}

/* How many are left, without those that were readable because of a probe. */
static int without_probes(struct sets *sets, int count, int answered)
{
    for (int fd = 0; sets->its[0] && fd < count && answered > 0; fd++)
        if (FD_ISSET(fd, sets->its[0]) && rr__was_channel(fd) && rr__only_probes(fd)) {
            FD_CLR(fd, sets->its[0]);
            answered--;
        }
    return answered;
}

static void put_back(struct sets *sets)
{
    for (int i = 0; i < 3; i++)
        if (sets->its[i])
            memcpy(sets->its[i], &sets->kept[i], sets->size);
}

/* 0: nothing of it is left, so that the wait goes on. */
static int is_answer(struct sets *sets, int count, int *answered)
{
    if (*answered > 0)
        *answered = without_probes(sets, count, *answered);
    else if (*answered < 0)
        put_back(sets); /* the kernel leaves them as they were */
    else
        return 1;
    return *answered != 0;
}

/* ---- the names ---------------------------------------------------------------------------------------- */

int rr__shim_poll(struct pollfd *items, nfds_t count, int timeout)
{
    struct timespec time = {.tv_sec = timeout / 1000, .tv_nsec = timeout % 1000 * 1000000L};
    struct limit limit;

    if (!rr__settings.on)
        return rr__real()->poll(items, count, timeout);
    rr__look_at_items(items, count);
    begin(&limit, timeout < 0 ? NULL : &time);
    int answered = rr__real()->poll(items, count, timeout);
    return answered <= 0 ? answered : truly_ready(items, count, answered, &limit, NULL);
}

int rr__shim_ppoll(struct pollfd *items, nfds_t count, const struct timespec *timeout,
                   const sigset_t *mask)
{
    struct limit limit;

    if (!rr__settings.on)
        return rr__real()->ppoll(items, count, timeout, mask);
    rr__look_at_items(items, count);
    begin(&limit, timeout);
    int answered = rr__real()->ppoll(items, count, timeout, mask);
    return answered <= 0 ? answered : truly_ready(items, count, answered, &limit, mask);
}

int rr__shim_select(int count, fd_set *in, fd_set *out, fd_set *other, struct timeval *timeout)
{
    struct sets sets;

    if (rr__settings.on)
        rr__look_at_set(in, count);
    if (!keep(&sets, count, in, out, other))
        return rr__real()->select(count, in, out, other, timeout);
    for (;;) {
        hide_writable(&sets, count);
        int answered = rr__real()->select(count, in, out, other, timeout);
        if (is_answer(&sets, count, &answered) || (timeout && !timeout->tv_sec && !timeout->tv_usec))
            return answered;
        put_back(&sets); /* the kernel has left in `timeout` what is left of it */
    }
}

int rr__shim_pselect(int count, fd_set *in, fd_set *out, fd_set *other,
                     const struct timespec *timeout, const sigset_t *mask)
{
    struct sets sets;
    struct limit limit;

    if (rr__settings.on)
        rr__look_at_set(in, count);
    if (!keep(&sets, count, in, out, other))
        return rr__real()->pselect(count, in, out, other, timeout, mask);
    begin(&limit, timeout);
    for (;;) {
        hide_writable(&sets, count);
        int answered = rr__real()->pselect(count, in, out, other, timeout, mask);
        if (is_answer(&sets, count, &answered) || is_look(&limit))
            return answered;
        put_back(&sets);
        timeout = left_of(&limit);
    }
}

int rr__shim_epoll_wait(int epoll, struct epoll_event *events, int most, int timeout)
{
    if (rr__settings.on)
        rr__look_at_epoll(epoll);
    return rr__real()->epoll_wait(epoll, events, most, timeout);
}

int rr__shim_epoll_pwait(int epoll, struct epoll_event *events, int most, int timeout,
                         const sigset_t *mask)
{
    if (rr__settings.on)
        rr__look_at_epoll(epoll);
    return rr__real()->epoll_pwait(epoll, events, most, timeout, mask);
}

typedef int pwait2(int, struct epoll_event *, int, const struct timespec *, const sigset_t *);

/* Older C libraries have none: it is looked for when a program calls it. */
int rr__shim_epoll_pwait2(int epoll, struct epoll_event *events, int most,
                          const struct timespec *timeout, const sigset_t *mask)
{
    static pwait2 *next;
    pwait2 *real = __atomic_load_n(&next, __ATOMIC_ACQUIRE);

    if (!real) {
        real = (pwait2 *)dlsym(RTLD_NEXT, "epoll_pwait2");
        __atomic_store_n(&next, real, __ATOMIC_RELEASE);
    }
    if (rr__settings.on)
        rr__look_at_epoll(epoll);
    return real ? real(epoll, events, most, timeout, mask) : rr__fail(-ENOSYS);
}

#ifdef __GLIBC__
/* What <poll.h> calls under _FORTIFY_SOURCE. */
int rr__shim_poll_chk(struct pollfd *items, nfds_t count, int timeout, size_t room)
    RR_WRAPS("__poll_chk");
int rr__shim_ppoll_chk(struct pollfd *items, nfds_t count, const struct timespec *timeout,
                       const sigset_t *mask, size_t room) RR_WRAPS("__ppoll_chk");
/* Another C library, in whose program we are loaded, does not have it, and nobody there calls these. */
extern void rr__chk_fail(void) __asm__("__chk_fail") __attribute__((noreturn, weak));

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
