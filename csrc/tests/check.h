/* A test is a function; CHECK counts what is wrong and goes on; main's exit code tells. */
#ifndef RR_CHECK_H
#define RR_CHECK_H

#include <dirent.h>
#include <stdio.h>

extern int failures;

#define CHECK(condition)                                                                            \
    do {                                                                                            \
        if (!(condition)) {                                                                         \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, __func__, #condition);           \
            failures++;                                                                             \
        }                                                                                           \
    } while (0)

#define CHECK_EQUAL(one, other)                                                                     \
    do {                                                                                            \
        long long one_ = (long long)(one), other_ = (long long)(other);                             \
        if (one_ != other_) {                                                                       \
            fprintf(stderr, "%s:%d: %s: %s = %lld, %s = %lld\n", __FILE__, __LINE__, __func__,      \
                    #one, one_, #other, other_);                                                    \
            failures++;                                                                             \
        }                                                                                           \
    } while (0)

#define TESTS_BEGIN                                                                                 \
    int failures;                                                                                   \
    int main(void)                                                                                  \
    {
#define RUN(test)                                                                                   \
    do {                                                                                            \
        int before_ = count_fds(), failed_ = failures;                                              \
        test();                                                                                     \
        CHECK_EQUAL(count_fds(), before_);                                                          \
        printf("%-8s %s\n", failures == failed_ ? "ok" : "FAILED", #test);                          \
    } while (0)
#define TESTS_END                                                                                   \
    return failures ? 1 : 0;                                                                        \
    }

/* Open fds of this process; the one of the listing itself is in both counts that are compared. */
static inline int count_fds(void)
{
    int count = 0;
    DIR *list = opendir("/proc/self/fd");
    if (!list)
        return -1;
    while (readdir(list))
        count++;
    closedir(list);
    return count;
}

#endif
