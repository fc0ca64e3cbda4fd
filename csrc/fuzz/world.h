/* A world in which a dispatcher runs in one thread and for ever the same way: its poller, its clock and its
 * system calls are ours, and each wait is the moment at which the next act of an input happens. Sockets
 * are real; processes are not. After each round the dispatcher's tables have to agree with each other. */
#ifndef RR_WORLD_H
#define RR_WORLD_H

#include <stddef.h>

#include "../dispatcher.h"

enum { WORLD_WORKERS = 5, WORLD_LISTENERS = 3, WORLD_CHANNELS = 2, WORLD_CLIENTS = 48, WORLD_OTHERS = 4 };

/* What stands for a worker's process: the fds that a primary would make for it. */
struct world_worker {
    int pidfd, board_fd, lifeline, dead;
    int sender[WORLD_CHANNELS], receiver[WORLD_CHANNELS];
    struct rr_scoreboard *board;
};

/* What stands for a reclaimer's process. */
struct world_reclaimer {
    pid_t pid; /* 0 = none */
    int link;
};

struct world {
    const uint8_t *data; /* what is left of the input */
    size_t size;
    struct rr__dispatcher *d;
    uint64_t clock;
    int control; /* the primary's end, or -1 */
    uint32_t sequence;
    struct world_worker workers[WORLD_WORKERS];
    int listeners[WORLD_LISTENERS];
    int clients[WORLD_CLIENTS], client_count;
    int others[WORLD_OTHERS]; /* fds that are no good */
    struct world_reclaimer reclaimers[RR__RECLAIMERS];
    int link;  /* of the last pair that was made */
    int stuck; /* reclaimers don't answer */
    int accept_error, accept_left, send_error, send_left, spawns_fail, forks_fail;
    uint64_t accepted, found;
    int crooked; /* it was given channels that are none: connections can't be counted */
    int idle_waits, spins, stopping;
};

extern struct world world;

void world_open(const uint8_t *data, size_t size);
void world_close(void);
/* The next byte of the input; 0 when there is none. */
unsigned world_byte(void);
/* Ends the program with a sentence: a bug was found. */
void world_broken(const char *what) __attribute__((noreturn));
#define WORLD_CHECK(condition) ((condition) ? (void)0 : world_broken(#condition))

/* acts.c */
void world_begin(void); /* two listeners and three workers that are ready */
void world_act(void);
void world_take(struct world_worker *worker, int channel, int most);
void world_read(int most);
void world_send(struct rr_control message, const int *fds, int count);

/* processes.c: what stands for other processes */
extern const struct rr__system world_system;
void world_reclaimers(void);
void world_check(const struct rr__dispatcher *d);

#endif
