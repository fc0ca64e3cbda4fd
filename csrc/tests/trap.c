/* Owns the allocators of a test program: each call by the thread that is watched is counted. */
#include "trap.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* glibc's own functions by their other names: ours take their place for the whole program. */
extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *old, size_t size);
extern void __libc_free(void *old);

/* Shared with the children that are forked from that thread: they have its identity, too. */
struct trap {
    atomic_int armed, trapped;
};

static struct trap *trap;
static pthread_t watched;

static void note(const char *what)
{
    if (!trap || !atomic_load(&trap->armed) || !pthread_equal(pthread_self(), watched))
        return;
    atomic_fetch_add(&trap->trapped, 1);
    if (write(STDERR_FILENO, what, strlen(what)) < 0)
        _exit(1);
}

static void *map(void *where, size_t size, int protection, int flags, int fd, off_t offset)
{
    return (void *)syscall(SYS_mmap, where, size, protection, flags, fd, offset);
}

void trap_arm(pthread_t thread)
{
    if (!trap)
        trap = map(NULL, sizeof *trap, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    watched = thread;
    atomic_store(&trap->trapped, 0);
    atomic_store(&trap->armed, 1);
}

int trap_disarm(void)
{
    atomic_store(&trap->armed, 0);
    return atomic_load(&trap->trapped);
}

void *malloc(size_t size)
{
    note("trapped: malloc\n");
    return __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
    note("trapped: calloc\n");
    return __libc_calloc(count, size);
}

void *realloc(void *old, size_t size)
{
    note("trapped: realloc\n");
    return __libc_realloc(old, size);
}

void free(void *old)
{
    note("trapped: free\n");
    __libc_free(old);
}

/* A worker's scoreboard is a mapping of a file; an heir's start borrows a stack for its first moment. */
void *mmap(void *where, size_t size, int protection, int flags, int fd, off_t offset)
{
    if ((flags & MAP_ANONYMOUS) && !(flags & MAP_STACK))
        note("trapped: mmap\n");
    return map(where, size, protection, flags, fd, offset);
}
