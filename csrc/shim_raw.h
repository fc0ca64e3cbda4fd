/* System calls by number, without errno, cancellation points or libc's names, which are ours here.
 * Where the instruction is not known, libc's syscall() does it, and the shim leaves that name alone. */
#ifndef RR_SHIM_RAW_H
#define RR_SHIM_RAW_H

#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__x86_64__) && !defined(__ILP32__)
#define RR_OWN_SYSCALL 1
static inline long rr__raw6(long number, long a, long b, long c, long d, long e, long f)
{
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    long result;

    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}
#elif defined(__aarch64__)
#define RR_OWN_SYSCALL 1
static inline long rr__raw6(long number, long a, long b, long c, long d, long e, long f)
{
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    register long x4 __asm__("x4") = e;
    register long x5 __asm__("x5") = f;

    __asm__ volatile("svc 0"
                     : "+r"(x0)
                     : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5)
                     : "memory");
    return x0;
}
#else
#define RR_OWN_SYSCALL 0
static inline long rr__raw6(long number, long a, long b, long c, long d, long e, long f)
{
    int kept = errno;
    long result = syscall(number, a, b, c, d, e, f);

    if (result == -1)
        result = -errno;
    errno = kept;
    return result;
}
#endif

#define rr__raw1(n, a) rr__raw6(n, (long)(a), 0, 0, 0, 0, 0)
#define rr__raw2(n, a, b) rr__raw6(n, (long)(a), (long)(b), 0, 0, 0, 0)
#define rr__raw3(n, a, b, c) rr__raw6(n, (long)(a), (long)(b), (long)(c), 0, 0, 0)
#define rr__raw4(n, a, b, c, d) rr__raw6(n, (long)(a), (long)(b), (long)(c), (long)(d), 0, 0)
#define rr__raw5(n, a, b, c, d, e) rr__raw6(n, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), 0)

#endif
