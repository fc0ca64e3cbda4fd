/* Traps for allocations of a dispatcher's thread and of the processes that it forks. Linked into the tests
 * of builds without sanitizers, which have allocators of their own: weak, so that rig.c goes without. */
#ifndef RR_TRAP_H
#define RR_TRAP_H

#include <pthread.h>

void trap_arm(pthread_t thread) __attribute__((weak));
/* How many allocations there were since. */
int trap_disarm(void) __attribute__((weak));

#endif
