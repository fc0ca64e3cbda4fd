/* Owns the wrapped names that close an fd. Close is close: only what was counted or registered of it
 * is taken leave of first. */
#include <fcntl.h>
#include <limits.h>

#include "shim.h"

#ifndef SYS_close_range
#define SYS_close_range 436
#endif
#ifndef CLOSE_RANGE_CLOEXEC
#define CLOSE_RANGE_CLOEXEC 4
#endif

void rr__leaving(unsigned first, unsigned last)
{
    if (!rr__settings.on || first > last)
        return;
    rr__drop_held(first, last);
    rr__count_closed(first, last);
    rr__forget_registrations(first, last);
}

int rr__shim_close(int fd)
{
    if (fd >= 0)
        rr__leaving((unsigned)fd, (unsigned)fd);
    return rr__real()->close(fd);
}

/* `to` is closed only if `from` is open. */
static void laid_over(int from, int to)
{
    if (rr__settings.on && to >= 0 && from != to && rr__raw2(SYS_fcntl, from, F_GETFD) >= 0)
        rr__leaving((unsigned)to, (unsigned)to);
}

int rr__shim_dup2(int from, int to)
{
    laid_over(from, to);
    return rr__real()->dup2(from, to);
}

int rr__shim_dup3(int from, int to, int flags)
{
    if (!(flags & ~O_CLOEXEC))
        laid_over(from, to);
    return rr__real()->dup3(from, to, flags);
}

int rr__shim_close_range(unsigned first, unsigned last, int flags)
{
    if (!(flags & CLOSE_RANGE_CLOEXEC))
        rr__leaving(first, last);
    long result = rr__raw3(SYS_close_range, first, last, flags);
    return result < 0 ? rr__fail(result) : 0;
}

/* As libc's: it can't fail. A kernel without close_range has /proc or a limit to go by. */
void rr__shim_closefrom(int first)
{
    if (first < 0)
        first = 0;
    rr__leaving((unsigned)first, INT_MAX);
    if (rr__raw3(SYS_close_range, first, ~0u, 0) >= 0)
        return;
    long most = sysconf(_SC_OPEN_MAX);
    for (long fd = first; fd < most; fd++)
        rr__raw1(SYS_close, fd);
}
