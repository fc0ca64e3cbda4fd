/* Owns what an epoll set remembers of a channel. A set knows open files, not fds: a registration goes
 * away with the last holder of the file, and a channel is held by primary and dispatcher too. So what
 * closes or covers a channel's fd has to remove its registrations, or the program gets events of an fd
 * that it closed. Only those that this very process made: a forked child shares its parent's sets. */
#include <fcntl.h>
#include <sys/time.h>

#include "shim.h"

enum {
    PLACES = sizeof rr__own->registered / sizeof *rr__own->registered,
    OUT = EPOLLOUT | EPOLLWRNORM | EPOLLWRBAND,
    NUMBER_BITS = 31
};

static uint64_t key_of(int epoll, int fd)
{
    return 1ull << 63 | (uint64_t)(unsigned)epoll << NUMBER_BITS | (unsigned)fd;
}

static unsigned epoll_of(uint64_t key)
{
    return (unsigned)(key >> NUMBER_BITS & 0x7fffffff);
}

static unsigned fd_of(uint64_t key)
{
    return (unsigned)(key & 0x7fffffff);
}

static void remember(int epoll, int fd, const struct epoll_event *event)
{
    uint64_t key = key_of(epoll, fd);
    struct rr__registration *place = NULL;

    if (!rr__own || !rr__own_is_ours())
        return;
    for (int i = 0; i < PLACES; i++) {
        struct rr__registration *here = &rr__own->registered[i];
        uint64_t found = __atomic_load_n(&here->key, __ATOMIC_ACQUIRE);
        if (found == key) {
            place = here;
            break;
        }
        if (!found && !place && __atomic_compare_exchange_n(&here->key, &found, key, 0, __ATOMIC_ACQ_REL,
                                                            __ATOMIC_ACQUIRE)) {
            place = here;
            __atomic_add_fetch(&rr__own->registrations, 1, __ATOMIC_RELAXED);
            break;
        }
    }
    if (!place)
        return;
    __atomic_store_n(&place->data, event->data.u64, __ATOMIC_RELAXED);
    __atomic_store_n(&place->events, event->events, __ATOMIC_RELAXED);
    __atomic_store_n(&place->deleted, 0, __ATOMIC_RELAXED);
}

static void forget(struct rr__registration *place, uint64_t key)
{
    if (__atomic_compare_exchange_n(&place->key, &key, 0, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
        __atomic_sub_fetch(&rr__own->registrations, 1, __ATOMIC_RELAXED);
}

static int any_registration(void)
{
    return rr__own && __atomic_load_n(&rr__own->registrations, __ATOMIC_ACQUIRE);
}

void rr__forget_registrations(unsigned first, unsigned last)
{
    int checked = 0;

    for (int i = 0; any_registration() && i < PLACES; i++) {
        struct rr__registration *place = &rr__own->registered[i];
        uint64_t key = __atomic_load_n(&place->key, __ATOMIC_ACQUIRE);
        int gone = key && fd_of(key) >= first && fd_of(key) <= last;
        int set_gone = key && epoll_of(key) >= first && epoll_of(key) <= last;
        if (!gone && !set_gone)
            continue;
        if (!checked && !rr__own_is_ours())
            return;
        checked = 1;
        if (gone)
            rr__raw4(SYS_epoll_ctl, epoll_of(key), EPOLL_CTL_DEL, fd_of(key), NULL);
        forget(place, key);
    }
}

/* ---- covering --------------------------------------------------------------------------------------- */

static void copy_mode(int fd, int to)
{
    enum { MODE = O_NONBLOCK | O_ASYNC };
    long flags = rr__raw2(SYS_fcntl, fd, F_GETFL), other = rr__raw2(SYS_fcntl, to, F_GETFL);
    long number = rr__raw2(SYS_fcntl, fd, F_GETSIG);
    struct f_owner_ex owner = {.pid = 0};
    struct timeval limit;
    socklen_t size = sizeof limit;

    if (rr__raw3(SYS_fcntl, fd, F_GETOWN_EX, &owner) >= 0 && owner.pid != 0)
        rr__raw3(SYS_fcntl, to, F_SETOWN_EX, &owner);
    if (number > 0)
        rr__raw3(SYS_fcntl, to, F_SETSIG, number);
    if (flags >= 0 && other >= 0)
        rr__raw3(SYS_fcntl, to, F_SETFL, (other & ~(long)MODE) | (flags & MODE));
    if (rr__raw5(SYS_getsockopt, fd, SOL_SOCKET, SO_RCVTIMEO, &limit, &size) >= 0)
        rr__raw5(SYS_setsockopt, to, SOL_SOCKET, SO_RCVTIMEO, &limit, size);
}

int rr__lay_over(int from, int fd)
{
    struct rr__registration kept[PLACES];
    long own = rr__raw2(SYS_fcntl, fd, F_GETFD);
    int count = 0;

    if (own < 0)
        return (int)own;
    for (int i = 0; any_registration() && i < PLACES; i++) {
        struct rr__registration *place = &rr__own->registered[i];
        kept[count].key = __atomic_load_n(&place->key, __ATOMIC_ACQUIRE);
        kept[count].data = __atomic_load_n(&place->data, __ATOMIC_RELAXED);
        kept[count].events = __atomic_load_n(&place->events, __ATOMIC_RELAXED);
        count += kept[count].key && fd_of(kept[count].key) == (unsigned)fd &&
                 !__atomic_load_n(&place->deleted, __ATOMIC_RELAXED);
    }
    copy_mode(fd, from);
    rr__forget_registrations((unsigned)fd, (unsigned)fd);
    long laid = rr__raw3(SYS_dup3, from, fd, own & FD_CLOEXEC ? O_CLOEXEC : 0);
    uint32_t mask = rr__kind(fd) == RR__OTHER ? ~0u : ~(uint32_t)OUT;
    for (int i = 0; laid >= 0 && i < count; i++) {
        struct epoll_event event = {.events = kept[i].events & mask, .data.u64 = kept[i].data};
        if (rr__raw4(SYS_epoll_ctl, epoll_of(kept[i].key), EPOLL_CTL_ADD, fd, &event) >= 0)
            remember((int)epoll_of(kept[i].key), fd, &event);
    }
    return laid < 0 ? (int)laid : count;
}

/* ---- epoll_ctl -------------------------------------------------------------------------------------- */

/* A channel is always writable, a listening socket never. The kernel has read the event: it is there. */
static void without_out(int epoll, int fd, const struct epoll_event *event)
{
    struct epoll_event wanted = *event;

    wanted.events &= ~(uint32_t)OUT;
    if (rr__raw4(SYS_epoll_ctl, epoll, EPOLL_CTL_MOD, fd, &wanted) >= 0)
        return;
    rr__raw4(SYS_epoll_ctl, epoll, EPOLL_CTL_DEL, fd, NULL);
    rr__raw4(SYS_epoll_ctl, epoll, EPOLL_CTL_ADD, fd, &wanted);
}

static int registered(int epoll, int fd, const struct epoll_event *event)
{
    int kept = errno;

    if (event->events & OUT)
        without_out(epoll, fd, event);
    remember(epoll, fd, event);
    rr__ready(fd);
    errno = kept;
    return 0;
}

static struct rr__registration *find(int epoll, int fd)
{
    uint64_t key = key_of(epoll, fd);

    for (int i = 0; any_registration() && i < PLACES; i++)
        if (__atomic_load_n(&rr__own->registered[i].key, __ATOMIC_ACQUIRE) == key)
            return &rr__own->registered[i];
    return NULL;
}

int rr__shim_epoll_ctl(int epoll, int operation, int fd, struct epoll_event *event)
{
    int result = rr__real()->epoll_ctl(epoll, operation, fd, event), error = errno;
    int lost = result < 0 && error == ENOENT && operation == EPOLL_CTL_MOD;

    if (!rr__settings.on || rr__was_taken(fd) || (result < 0 && !lost))
        return result;
    struct rr__registration *place = find(epoll, fd);
    if (operation == EPOLL_CTL_DEL || (lost && place)) {
        if (place)
            __atomic_store_n(&place->deleted, 1, __ATOMIC_RELAXED);
        errno = error;
        return result;
    }
    enum rr__kind_of_fd kind = rr__kind(fd);
    /* A set that another process made, or with more listeners than we remember: listen() laid the
     * channel over what was registered. */
    if (lost && kind != RR__OTHER)
        result = rr__real()->epoll_ctl(epoll, EPOLL_CTL_ADD, fd, event);
    if (result == 0 && kind == RR__CHANNEL)
        return registered(epoll, fd, event);
    if (result == 0 && rr__is_to_be_shared(fd))
        remember(epoll, fd, event);
    errno = result < 0 && !lost ? errno : error;
    return result;
}
