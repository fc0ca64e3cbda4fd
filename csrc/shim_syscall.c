/* Owns syscall(2), by which libuv and others accept and close. What is wrapped by name is wrapped by
 * number too; all else goes to the kernel as it came. */
#include <stdarg.h>

#include "shim.h"

#if RR_OWN_SYSCALL

long rr__shim_syscall(long number, ...) RR_WRAPS("syscall");

#define P(x) ((void *)(x))

/* By number as by name. What some machines or headers lack is no part of it: that has an #ifdef. */
#define RR_BY_NUMBER(X)                                                                            \
    X(bind, (int)a[0], P(a[1]), (socklen_t)a[2])                                                   \
    X(listen, (int)a[0], (int)a[1])                                                                \
    X(shutdown, (int)a[0], (int)a[1])                                                              \
    X(accept, (int)a[0], P(a[1]), P(a[2]))                                                         \
    X(accept4, (int)a[0], P(a[1]), P(a[2]), (int)a[3])                                             \
    X(getsockname, (int)a[0], P(a[1]), P(a[2]))                                                    \
    X(getpeername, (int)a[0], P(a[1]), P(a[2]))                                                    \
    X(getsockopt, (int)a[0], (int)a[1], (int)a[2], P(a[3]), P(a[4]))                               \
    X(setsockopt, (int)a[0], (int)a[1], (int)a[2], P(a[3]), (socklen_t)a[4])                       \
    X(epoll_ctl, (int)a[0], (int)a[1], (int)a[2], P(a[3]))                                         \
    X(dup3, (int)a[0], (int)a[1], (int)a[2])

#define RR_CASE(name, ...)                                                                         \
    case SYS_##name:                                                                               \
        *result = rr__shim_##name(__VA_ARGS__);                                                    \
        return 1;

static int is_wrapped(long number, const long *a, long *result)
{
    switch (number) {
        RR_BY_NUMBER(RR_CASE)
#ifdef SYS_dup2
        RR_CASE(dup2, (int)a[0], (int)a[1])
#endif
#ifdef SYS_close_range
        RR_CASE(close_range, (unsigned)a[0], (unsigned)a[1], (int)a[2])
#endif
#ifdef SYS_poll
        RR_CASE(poll, P(a[0]), (nfds_t)a[1], (int)a[2])
#endif
#ifdef SYS_setrlimit
    case SYS_setrlimit:
#endif
    case SYS_prlimit64:
        *result = rr__raw4(number, a[0], a[1], a[2], a[3]);
        rr__limit_changed();
        *result = *result < 0 ? rr__fail(*result) : *result;
        return 1;
    default:
        return 0;
    }
}

/* Of what goes to the kernel as it came. */
static void look_at(long number, const long *a)
{
    switch (number) {
#ifdef SYS_epoll_wait
    case SYS_epoll_wait:
#endif
    case SYS_epoll_pwait:
        rr__look_at_epoll((int)a[0]);
        break;
    case SYS_ppoll:
        rr__look_at_items(P(a[0]), (nfds_t)a[1]);
        break;
    case SYS_close: /* whoever closes so wants no cancellation point */
        if ((int)a[0] >= 0)
            rr__leaving((unsigned)a[0], (unsigned)a[0]);
        break;
    default:
        break;
    }
}

long rr__shim_syscall(long number, ...)
{
    long a[6], result;
    va_list arguments;

    va_start(arguments, number);
    for (int i = 0; i < 6; i++)
        a[i] = va_arg(arguments, long);
    va_end(arguments);
    if (rr__settings.on) {
        if (is_wrapped(number, a, &result))
            return result;
        look_at(number, a);
    }
    result = rr__raw6(number, a[0], a[1], a[2], a[3], a[4], a[5]);
    return (unsigned long)result > -4096ul ? rr__fail(result) : result;
}

#endif
