/* The accounting ledger: a debugging aid that is off unless RRDISPATCH_LEDGER names its file. */
#ifndef RR_LEDGER_H
#define RR_LEDGER_H

#include <stddef.h>

#include "rrdispatch.h"

extern struct rr_ledger_head *rr__ledger; /* NULL = off */

/* Off is what is expected: one predictable branch and no system call. */
static inline int rr__ledger_on(void)
{
    return __builtin_expect(rr__ledger != NULL, 0) != 0;
}

/* One worker as the ledger names it. */
struct rr__ledger_worker {
    uint32_t id, slot, generation;
};

/* Opens what the environment names, as a dispatcher. */
void rr__ledger_from_environment(void);
/* This process takes for that worker from now on: a reclaimer. */
void rr__ledger_reclaims_for(struct rr__ledger_worker worker);
void rr__ledger_dispatches(void); /* again: it has taken back without a reclaimer */

void rr__ledger_accepted(int fd);
/* SENT or UNSENT, for each connection of a message. SENT comes before the send, so that no other
 * process can note the take of it earlier. */
void rr__ledger_connections(int event, struct rr__ledger_worker worker, const int *fds, int count);
/* JOINED or DEAD. */
void rr__ledger_of_worker(int event, struct rr__ledger_worker worker, int pidfd);
/* Around a take: a process that was killed in between has left the first alone. */
void rr__ledger_taking(int count);
void rr__ledger_took(const struct rr_message *message, const int *fds, int count);

#endif
