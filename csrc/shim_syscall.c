/* Owns syscall(2), by which libuv and others accept and close. What is wrapped by name is wrapped by
 * number too; all else goes to the kernel as it came. */
#include <stdarg.h>

#include "shim.h"

#if RR_OWN_SYSCALL

long rr__shim_syscall(long number, ...) RR_WRAPS("syscall");

#define P(x) ((void *)(x))

static int is_wrapped(long number, const long *a, long *result)
{
    switch (number) {
    case SYS_bind:
        *result = rr__shim_bind((int)a[0], P(a[1]), (socklen_t)a[2]);
        return 1;
    case SYS_listen:
        *result = rr__shim_listen((int)a[0], (int)a[1]);
        return 1;
    case SYS_shutdown:
        *result = rr__shim_shutdown((int)a[0], (int)a[1]);
        return 1;
    case SYS_accept:
        *result = rr__shim_accept((int)a[0], P(a[1]), P(a[2]));
        return 1;
    case SYS_accept4:
        *result = rr__shim_accept4((int)a[0], P(a[1]), P(a[2]), (int)a[3]);
        return 1;
    case SYS_getsockname:
        *result = rr__shim_getsockname((int)a[0], P(a[1]), P(a[2]));
        return 1;
    case SYS_getpeername:
        *result = rr__shim_getpeername((int)a[0], P(a[1]), P(a[2]));
        return 1;
    case SYS_getsockopt:
        *result = rr__shim_getsockopt((int)a[0], (int)a[1], (int)a[2], P(a[3]), P(a[4]));
        return 1;
    case SYS_setsockopt:
        *result = rr__shim_setsockopt((int)a[0], (int)a[1], (int)a[2], P(a[3]), (socklen_t)a[4]);
        return 1;
    case SYS_epoll_ctl:
        *result = rr__shim_epoll_ctl((int)a[0], (int)a[1], (int)a[2], P(a[3]));
        return 1;
    case SYS_dup3:
        *result = rr__shim_dup3((int)a[0], (int)a[1], (int)a[2]);
        return 1;
#ifdef SYS_dup2
    case SYS_dup2:
        *result = rr__shim_dup2((int)a[0], (int)a[1]);
        return 1;
#endif
#ifdef SYS_close_range
    case SYS_close_range:
        *result = rr__shim_close_range((unsigned)a[0], (unsigned)a[1], (int)a[2]);
        return 1;
#endif
#ifdef SYS_poll
    case SYS_poll:
        *result = rr__shim_poll(P(a[0]), (nfds_t)a[1], (int)a[2]);
        return 1;
#endif
#ifdef SYS_epoll_wait
    case SYS_epoll_wait:
#endif
    case SYS_epoll_pwait:
        rr__look_at_epoll((int)a[0]);
        return 0;
    case SYS_ppoll:
        rr__look_at_items(P(a[0]), (nfds_t)a[1]);
        return 0;
#ifdef SYS_setrlimit
    case SYS_setrlimit:
#endif
    case SYS_prlimit64:
        *result = rr__raw4(number, a[0], a[1], a[2], a[3]);
        rr__limit_changed();
        *result = *result < 0 ? rr__fail(*result) : *result;
        return 1;
    case SYS_close: /* whoever closes so wants no cancellation point */
        if ((int)a[0] >= 0)
            rr__leaving((unsigned)a[0], (unsigned)a[0]);
        return 0;
    default:
        return 0;
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
    if (rr__settings.on && is_wrapped(number, a, &result))
        return result;
    result = rr__raw6(number, a[0], a[1], a[2], a[3], a[4], a[5]);
    return (unsigned long)result > -4096ul ? rr__fail(result) : result;
}

#endif
