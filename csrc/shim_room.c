/* Owns one question: is there room for another fd? If the table is full, a connection that is received
 * is dropped by the kernel without an error: so it is asked before each.
 *
 * The highest number that RLIMIT_NOFILE allows is almost never open, and then there is room: one cheap
 * call says so. Else an fd is made and closed. */
#include <fcntl.h>
#include <limits.h>
#include <sys/resource.h>

#include "shim.h"

static int highest; /* 0: not known */

void rr__limit_changed(void)
{
    __atomic_store_n(&highest, 0, __ATOMIC_RELEASE);
}

static int read_highest(void)
{
    struct {
        uint64_t soft, hard;
    } limit = {0, 0};

    if (rr__raw4(SYS_prlimit64, 0, RLIMIT_NOFILE, NULL, &limit) < 0 || limit.soft == 0)
        return 0;
    int number = limit.soft > INT_MAX ? INT_MAX : (int)limit.soft - 1;
    __atomic_store_n(&highest, number, __ATOMIC_RELEASE);
    return number;
}

int rr__room(int fd)
{
    int number = __atomic_load_n(&highest, __ATOMIC_ACQUIRE);

    if (number == 0)
        number = read_highest();
    if (number > 0 && rr__raw2(SYS_fcntl, number, F_GETFD) == -EBADF)
        return 0;
    long spare = rr__raw3(SYS_fcntl, fd, F_DUPFD_CLOEXEC, 0);
    if (spare < 0)
        return (int)spare;
    rr__raw1(SYS_close, spare);
    return 0;
}

/* ---- the names that change the limit ------------------------------------------------------------------ */

int rr__shim_setrlimit(int resource, const struct rlimit *limit) RR_WRAPS("setrlimit");
int rr__shim_prlimit(pid_t pid, int resource, const struct rlimit *limit, struct rlimit *before)
    RR_WRAPS("prlimit");

int rr__shim_setrlimit(int resource, const struct rlimit *limit)
{
    int result = rr__real()->setrlimit(resource, limit);

    rr__limit_changed();
    return result;
}

int rr__shim_prlimit(pid_t pid, int resource, const struct rlimit *limit, struct rlimit *before)
{
    int result = rr__real()->prlimit(pid, resource, limit, before);

    rr__limit_changed();
    return result;
}

#ifdef __GLIBC__
int rr__shim_setrlimit64(int resource, const struct rlimit64 *limit) RR_WRAPS("setrlimit64");
int rr__shim_prlimit64(pid_t pid, int resource, const struct rlimit64 *limit, struct rlimit64 *before)
    RR_WRAPS("prlimit64");

int rr__shim_setrlimit64(int resource, const struct rlimit64 *limit)
{
    int result = rr__real()->setrlimit64(resource, limit);

    rr__limit_changed();
    return result;
}

int rr__shim_prlimit64(pid_t pid, int resource, const struct rlimit64 *limit, struct rlimit64 *before)
{
    int result = rr__real()->prlimit64(pid, resource, limit, before);

    rr__limit_changed();
    return result;
}
#endif
