/* The dispatcher's tables and what its files call in each other. Nothing here grows after start. */
#ifndef RR_DISPATCHER_H
#define RR_DISPATCHER_H

#include <sys/socket.h>
#include <sys/types.h>

#include "poller.h"
#include "rrdispatch.h"

enum {
    RR__RING = 128,      /* messages of a channel whose send time is kept: more than ever wait */
    RR__RECLAIMERS = 64, /* helpers at a time, those given up included */
    RR__TOLD_MAX = 1024, /* control messages waiting for the primary */
    RR__DEFAULT_ROUND = 64,
    RR__GONE = 64,       /* our copies of what was sent, before they are closed together */
    RR__GONE_FEW = 4,    /* the same where each was sent alone, and may be answered by now */
    RR__CONTROL_FD = 3,  /* where a dispatcher, and an heir, finds its end */
};

#define RR__MS 1000000ull
#define RR__SECOND 1000000000ull
#define RR__PAUSE_MOST (RR__SECOND / 2)
#define RR__RETRY_MOST (10 * RR__MS)
#define RR__RECLAIM_NS (20 * RR__MS)
/* So that adding it to the time never overflows. */
#define RR__TIMEOUT_MOST (24 * 3600 * RR__SECOND)

/* The world as the loop sees it; tests put another one in its place. All return -errno on failure. */
struct rr__system {
    int (*accept)(int listener, struct sockaddr *peer, socklen_t *length);
    int (*send)(int channel, const struct rr_message *message, const int *fds);
    int (*pending)(int channel);
    int (*close)(int fd);
    int (*close_range)(unsigned first, unsigned last);
    uint64_t (*now)(void);
    pid_t (*fork)(void);
    int (*spawn)(const struct rr_spawn *request, int *pidfd, int *step);
};
extern const struct rr__system rr__system_real;
/* The same, and each close costs memory: for a test that must see that. */
extern const struct rr__system rr__system_leaking;

/* Connections that have no place yet. The fds are the holder's. */
struct rr__hand {
    struct rr_message message;
    int fds[RR_BATCH_MAX];
    int count;
    int listener;
};

struct rr__channel {
    int sender, receiver;
    uint64_t sent;      /* messages, probes included */
    uint64_t left;      /* of them, those that were seen to have left the queue */
    uint64_t reclaimed; /* of those, taken back by us */
    uint64_t sent_ns[RR__RING];
    uint8_t counts[RR__RING]; /* connections in the message; 0 = probe */
};

/* A request that waits for its answer; the asker of an orphaned one is dead. */
enum rr__waiting { RR__AWAITED = 1, RR__ORPHANED = 2 };

/* Kept for an heir under one tag. */
struct rr__kept {
    int fds[RR_KEPT_FDS];
    int count;
};

struct rr__worker {
    /* the hot part */
    struct rr_scoreboard *board;
    uint64_t given;      /* connections sent and not taken back, corrected by what SIOCINQ says */
    uint64_t handled;    /* what it said to have taken, at the last look */
    uint64_t moved_ns;   /* when it took something, or was given something to an empty queue */
    uint64_t pause_ns;   /* its channel is full: not before */
    uint64_t lately_ns, lately_handled, lately_before; /* `handled` at a look lately, and at the one before */
    uint32_t capacity;
    uint32_t limit;      /* of its queue, at the last look */
    uint16_t mask;       /* listeners that it has a channel for */
    uint8_t used, state, stalled, batch;
    uint8_t channels;    /* places of channel[] in use; those not in the mask are absent */
    uint8_t collecting;  /* it is in collected[] */
    uint8_t probing;     /* a probe is in oldest_channel */
    uint8_t hung;        /* and this was told */
    uint8_t removing, draining; /* enum rr__waiting, or 0 */
    int ready_index; /* in ready[], or -1 */
    /* as measured last */
    uint32_t queued;     /* connections in its channels */
    uint32_t waiting;    /* messages in them: a probe is one, too */
    uint64_t oldest_ns;  /* when the oldest message that waits was sent */
    int oldest_channel;
    uint64_t taken;      /* messages that it took itself */
    /* stall, take-back, drain */
    uint64_t taken_seen, progress_ns; /* when it took something last, or had nothing to take */
    uint64_t progress_then;           /* the dispatcher's, at that moment */
    uint8_t progressed;               /* at the look of this moment */
    uint64_t stalled_ns, taken_at_stall, odd_received, odd_given;
    int reclaimer;       /* index of the one at work for it, or -1 */
    uint32_t remove_sequence, drain_sequence;
    uint64_t moved_before; /* moved_away when it died, or when the drain began */
    /* who it is, and totals */
    uint32_t id, slot, generation;
    int pidfd, board_fd, lifeline;
    uint64_t sent, moved_away, picks;
    struct rr__hand outbox; /* collected for one message of a batch worker */
    struct rr__kept kept[RR_KEPT_TAGS];
    struct rr__channel channel[RR_MAX_LISTENERS];
};

enum rr__listener_state { RR__ABSENT, RR__ARMED, RR__DISARMED, RR__FAILED, RR__CLOSED };

struct rr__listener {
    int fd;
    uint8_t state, readable, closing;
    uint8_t told;                /* the close was asked for by who is there: it is answered */
    uint8_t shared;              /* another process may go on with it: never gated */
    uint8_t shut;                /* gated for good: once empty it stays empty */
    uint8_t narrow;              /* no gate to be had: a backlog of one, shut as soon as it is empty */
    uint8_t empty;               /* shut while it was empty and nobody READY had a channel for it */
    uint64_t retry_ns, pause_ns; /* after EMFILE and its like */
    uint64_t error_told_ns;      /* when an accept error was told last */
    uint32_t sequence;           /* of LISTENER_CLOSE */
    uint64_t quiet, quiet_ns, limit_ns, accepted;
    /* While not all of the READY have a channel for it: its own turn, and what only they could take. */
    uint32_t turn_after, turn_slot; /* who got its last connection; the slot after that one's */
    struct rr__hand held;
};

enum rr__reclaimer_state { RR__FREE, RR__IDLE, RR__ASKED, RR__LATE, RR__HOLDING, RR__ENDING };

struct rr__reclaimer {
    uint8_t state;
    uint8_t unpolled; /* its answer found no room in our fd table: asked for again by the timer */
    pid_t pid;
    int link;
    struct rr__worker *worker;
    int channel;
    uint64_t deadline_ns;
    struct rr__hand hand;
};

struct rr__settings {
    int policy;
    uint32_t queue_limit, band, round;
    uint64_t stall_timeout, heartbeat_timeout;
    uint64_t pause_most, retry_most; /* short of something; all are full */
    int no_take_back, no_probe;
};

struct rr__slots {
    struct rr__worker *used[RR_MAX_WORKERS];  /* all, by slot and generation */
    struct rr__worker *ready[RR_MAX_WORKERS]; /* the READY ones, in the order of the turn */
    int used_count, ready_count;
    int turn;
    uint32_t next_slot; /* the turn, while ready[] is made anew */
    uint32_t served;    /* listeners that one of the READY has a channel for */
    uint32_t common;    /* and those that all of them have one for */
};

/* The command that starts an heir, as it came; the pointers lead into the text. */
struct rr__command {
    const char *program, *cwd;
    const char *arguments[RR_HEIR_ARGUMENTS_MAX + 1];
    const char *variables[RR_HEIR_VARIABLES_MAX + 1];
    char text[RR_HEIR_COMMAND_MAX];
};

struct rr__heirs {
    struct rr__command *command;       /* NULL = none are wanted */
    int most;                          /* so many within the window */
    uint64_t window, silence;
    int pidfd;                         /* of the one that has the control socket; -1 = not started by us */
    uint64_t silent_ns;                /* it has said nothing yet: killed then */
    uint64_t due_ns;                   /* nobody is there: when to see to that */
    uint64_t tries_ns[RR_HEIRS_MAX];
    uint32_t tries;
    uint64_t started;                  /* of all time, and those that could not be */
    int listening, called;             /* for clients: a bit for each place to call at; one came */
    uint64_t call_ns, call_pause;      /* no other call is heeded before; for so long */
    struct rr__command commands[2];    /* the one in use and the one to come; mostly untouched pages */
};

struct rr__dispatcher {
    const struct rr__system *system;
    struct rr__settings settings;
    uint64_t now;
    int control, null, ended, leaving, result;
    uint64_t leave_ns;                 /* the primary is gone: the end, at the latest */
    struct rr__poller poller;
    struct rr__event events[RR__EVENTS];

    struct rr__slots slots;
    struct rr_candidate candidates[RR_MAX_WORKERS];
    uint32_t fewest;
    int room, since_refresh, stalled;
    int short_queues; /* somebody's is shorter than the limit: room comes and goes quickly */
    int move_turn;

    int full, full_told;
    uint64_t full_ns, full_told_ns, retry_ns;
    struct rr__hand hand;              /* accepted, and its worker's channel was full */
    struct rr__worker *collected[RR_MAX_WORKERS];
    int collected_count;
    int gone[RR__GONE], gone_count;    /* in order */

    uint64_t watch_ns, reap_ns;        /* 0 = nothing to watch */
    uint64_t watched_ns;               /* the last look */
    uint64_t progress;                 /* connections that were seen to be taken, by anybody */
    int wanting;                       /* somebody's queue is to be taken back */
    uint64_t accepted, sent, moved, accept_errors, lost, abandoned, rounds;

    struct rr_control told[RR__TOLD_MAX];
    int told_first, told_count;
    uint64_t told_ns;                  /* when to try again to tell; 0 = nothing waits */
    int deaf;                          /* too much to tell: no requests are read */

    int listener_count, listener_first;
    struct rr__listener listeners[RR_MAX_LISTENERS];
    struct rr__reclaimer reclaimers[RR__RECLAIMERS];
    struct rr__kept kept[RR_KEPT_TAGS]; /* the app's */
    struct rr__worker workers[RR_MAX_WORKERS];
    struct rr__heirs heirs;
};

enum rr__tag { RR__TAG_CONTROL, RR__TAG_LISTENER, RR__TAG_WORKER, RR__TAG_RECLAIMER, RR__TAG_CALL };
static inline uint64_t rr__tag(enum rr__tag kind, int index)
{
    return (uint64_t)kind << 32 | (uint32_t)index;
}

static inline int rr__has_channel(const struct rr__worker *worker, int listener)
{
    return worker->mask >> listener & 1;
}

/* Only some of the READY, or none, have a channel for it. With nobody READY that says nothing. */
static inline int rr__partial(const struct rr__dispatcher *d, int listener)
{
    return !(d->slots.common >> listener & 1);
}

/* None of those who are READY has one: it waits alone. */
static inline int rr__unserved(const struct rr__dispatcher *d, int listener)
{
    return d->slots.ready_count > 0 && !(d->slots.served >> listener & 1);
}

/* slots.c: the table of workers; pure */
struct rr__worker *rr__slots_find(const struct rr__slots *slots, uint32_t id);
void rr__slots_insert(struct rr__slots *slots, struct rr__worker *worker);
void rr__slots_remove(struct rr__slots *slots, struct rr__worker *worker);
void rr__slots_rebuild(struct rr__slots *slots);
/* Who has a channel for what has changed, and nothing else. */
void rr__slots_cover(struct rr__slots *slots);

/* candidates.c: what the policy sees, and where SIOCINQ is asked */
void rr__measure(struct rr__dispatcher *d, struct rr__worker *worker);
void rr__refresh(struct rr__dispatcher *d);
void rr__pass_over(struct rr__dispatcher *d, int ready_index);
int rr__settle(struct rr__worker *worker);
int rr__next(const struct rr__dispatcher *d, int listener);
int rr__next_of(const struct rr__dispatcher *d, const struct rr__hand *hand, int moved);
int rr__next_for_moved(const struct rr__dispatcher *d, int listener);
/* How many can take a connection of this listener. */
int rr__room_for(const struct rr__dispatcher *d, int listener);

/* dispatch_send.c: from a hand into a channel */
int rr__give(struct rr__dispatcher *d, int index, struct rr__hand *hand);
int rr__place(struct rr__dispatcher *d, struct rr__hand *hand, int moved);
int rr__put_back(struct rr__dispatcher *d, struct rr__worker *worker, int channel,
                 struct rr__hand *hand);
int rr__send_probe(struct rr__dispatcher *d, struct rr__worker *worker, int channel);
void rr__flush(struct rr__dispatcher *d);
int rr__retry_held(struct rr__dispatcher *d);
int rr__let_go(struct rr__dispatcher *d);

/* dispatch_accept.c: from the backlogs into a hand; armed or not */
void rr__accept_all(struct rr__dispatcher *d);
void rr__arm(struct rr__dispatcher *d, struct rr__listener *listener, int wanted);
int rr__listener_open(const struct rr__dispatcher *d, uint32_t index);
/* Arms what is served now, and disarms what is not any more. */
void rr__listeners_served(struct rr__dispatcher *d);
/* A hand that only some could take does not keep the others waiting. What stays in it. */
int rr__set_aside(struct rr__dispatcher *d, struct rr__hand *hand);
void rr__listener_start_close(struct rr__dispatcher *d, struct rr__listener *listener,
                              uint64_t quiet, uint64_t limit);
void rr__listener_drop(struct rr__dispatcher *d, struct rr__listener *listener, int state);
void rr__listeners_due(struct rr__dispatcher *d);

enum { RR__LATER = 1 }; /* the answer comes when it is done */

/* dispatch_requests.c: the primary's requests. Takes what it keeps out of fds (-1). 0, RR__LATER or -errno;
 * the answer's values are in *answer. */
int rr__request(struct rr__dispatcher *d, const struct rr_control *request, int *fds, int count,
                struct rr_control *answer);

/* talk.c: what is told to the primary */
void rr__tell(struct rr__dispatcher *d, const struct rr_control *message);
void rr__event(struct rr__dispatcher *d, int kind, uint32_t worker, uint64_t value);
void rr__answer(struct rr__dispatcher *d, int kind, uint32_t sequence, uint32_t worker,
                uint64_t value);
void rr__talk(struct rr__dispatcher *d);
/* Forgets what waits to be told: who was to hear it is gone. */
void rr__hush(struct rr__dispatcher *d);
/* 0 when the primary is gone, else 1. */
int rr__serve_control(struct rr__dispatcher *d);

/* lifecycle.c: a worker's states */
int rr__worker_add(struct rr__dispatcher *d, const struct rr_control *request, int *fds, int count);
int rr__channel_add(struct rr__dispatcher *d, const struct rr_control *request, int *fds, int count);
int rr__worker_idle(const struct rr__worker *worker);
/* It is dead, and nobody READY has a channel for what is left in its own. */
int rr__worker_hopeless(const struct rr__dispatcher *d, const struct rr__worker *worker);
void rr__worker_enter(struct rr__dispatcher *d, struct rr__worker *worker, int state);
void rr__worker_died(struct rr__dispatcher *d, struct rr__worker *worker);
void rr__worker_close(struct rr__dispatcher *d, struct rr__worker *worker);
void rr__worker_unstall(struct rr__dispatcher *d, struct rr__worker *worker);

/* estate.c: what is kept for an heir, and given to it */
/* Values of an answer: a worker's mask; what was asked for. */
enum { RR__INHERIT_CHANNELS = 8, RR__INHERIT_WHAT = 10, RR__INHERIT_TAG = 11 };
int rr__keep(struct rr__dispatcher *d, const struct rr_control *request, int *fds, int count);
void rr__kept_close(struct rr__dispatcher *d, struct rr__kept *table);
/* The fds that belong to the answer of an INHERIT: how many, or -errno. They stay the dispatcher's. */
int rr__inherited(struct rr__dispatcher *d, struct rr_control *answer, int *fds);
void rr__orphan_requests(struct rr__dispatcher *d);

/* heir.c: who takes the primary's place */
/* `size` bytes are in command->text. 0 or -EINVAL. */
int rr__command_parse(struct rr__command *command, size_t size);
int rr__heir_command(struct rr__dispatcher *d, const struct rr_control *request, const int *fds,
                     int count);
void rr__heir_lost(struct rr__dispatcher *d);
void rr__heir_called(struct rr__dispatcher *d);
void rr__heir_due(struct rr__dispatcher *d);

/* watch.c: stalled, recovered, hung; drained, removed */
void rr__watch_soon(struct rr__dispatcher *d, uint64_t when);
void rr__watch(struct rr__dispatcher *d);
void rr__watch_stalled(struct rr__dispatcher *d);

/* reclaimer.c and reclaim.c: the helper's process, and asking it */
void rr__reclaimer_child(int channel, int link) __attribute__((noreturn));
void rr__reclaim(struct rr__dispatcher *d);
/* Of one listener, or with -1 of those that all of the READY have a channel for. */
int rr__reclaims_of_dead(const struct rr__dispatcher *d, int listener);
void rr__reclaim_answer(struct rr__dispatcher *d, struct rr__reclaimer *reclaimer);
void rr__reclaim_reap(struct rr__dispatcher *d);
void rr__reclaim_end(struct rr__dispatcher *d);
int rr__reclaim_wanted(const struct rr__dispatcher *d, const struct rr__worker *worker);

/* dispatcher.c */
void rr__close(struct rr__dispatcher *d, int *fd);
int rr__dispatcher_run(int control, const struct rr__system *system);

#endif
