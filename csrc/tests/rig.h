/* A dispatcher in a thread, fake workers (sleeping processes whose channels the test reads), clients. */
#ifndef RR_RIG_H
#define RR_RIG_H

#include <pthread.h>

#include "../dispatcher.h"

enum { RIG_EVENTS = 256, RIG_WAIT_MS = 40000 };

struct rig {
    int control, result, trapped;
    pthread_t thread;
    const struct rr__system *system;
    uint32_t sequence;
    struct rr_control events[RIG_EVENTS];
    int event_count;
    int fds[RR_CONTROL_FDS], fd_count; /* of the message received last */
};

struct fake {
    uint32_t id;
    int pid, pidfd, board_fd, lifeline[2], sender, receiver;
    struct rr_scoreboard *board;
};

void rig_start(struct rig *rig, const struct rr__system *system);
/* queue_limit, stall_timeout in ms, switches; round-robin with a band of 8 */
void rig_settings(struct rig *rig, uint64_t queue_limit, uint64_t stall_ms, uint64_t heartbeat_ms,
                  uint64_t switches);
uint32_t rig_request(struct rig *rig, struct rr_control message, const int *fds, int count);
struct rr_control rig_answer(struct rig *rig, uint32_t sequence);
struct rr_control rig_ask(struct rig *rig, struct rr_control message, const int *fds, int count);
/* The next event of this kind; kind 0 in it when none came in time. Removes it. */
struct rr_control rig_event(struct rig *rig, uint32_t kind);
void rig_stop(struct rig *rig);
void rig_join(struct rig *rig);

/* The dispatcher's primary dies, and goes on as the heir whose control socket this is. */
void rig_die(struct rig *rig);
void rig_succeed(struct rig *rig, int control);

int rig_listen(void);
void rig_connect(int listener, int *clients, int count);
void rig_close(int *fds, int count);

void fake_start(struct fake *fake, uint32_t id, uint32_t slot);
int fake_add(struct rig *rig, struct fake *fake, uint32_t slot);
void fake_ready(struct rig *rig, struct fake *fake, uint64_t capacity, uint64_t batch);
/* start, add and ready */
void fake_serve(struct rig *rig, struct fake *fake, uint32_t id);
/* Waits until a connection can be taken; counts it. The flags of the message, or -1 in time. */
int fake_take(struct fake *fake);
/* The same of several workers: which of them had one, or -1. */
int fake_take_any(struct fake *fakes, int count);
/* Waits until `count` messages are in its channel: 1, or 0 in time. */
int fake_has(const struct fake *fake, int count);
void fake_kill(struct fake *fake);
void fake_close(struct fake *fake);

#endif
