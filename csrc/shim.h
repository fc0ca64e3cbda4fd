/* The shim: an unmodified program listens, and takes its connections from a channel. What its files
 * share. Loaded by LD_PRELOAD into a worker's program and all its descendants.
 *
 * It keeps no table of fds: that an fd is a channel, and which address it stands for, is its name in
 * the kernel (shim_protocol.h), so that it holds over fork, exec, dup and SCM_RIGHTS. The few bits kept
 * here are hints: for counting, and for what epoll remembers of an fd that was closed.
 *
 * Nothing here prints, ends the program, allocates, or holds a lock. Inside, functions return -errno. */
#ifndef RR_SHIM_H
#define RR_SHIM_H

#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/types.h>

#include "shim_protocol.h"
#include "shim_raw.h"

/* A wrapped name: its C name differs from the symbol, so that headers' prototypes do not matter. */
#define RR_WRAPS(symbol) __asm__(symbol) __attribute__((visibility("default")))

/* The functions behind the wrapped names: libc's, or those of another preloaded library. */
#define RR_REAL(X)                                                                                 \
    X(int, bind, (int, const struct sockaddr *, socklen_t))                                        \
    X(int, listen, (int, int))                                                                     \
    X(int, accept, (int, struct sockaddr *, socklen_t *))                                          \
    X(int, accept4, (int, struct sockaddr *, socklen_t *, int))                                    \
    X(int, getsockname, (int, struct sockaddr *, socklen_t *))                                     \
    X(int, getpeername, (int, struct sockaddr *, socklen_t *))                                     \
    X(int, getsockopt, (int, int, int, void *, socklen_t *))                                       \
    X(int, setsockopt, (int, int, int, const void *, socklen_t))                                   \
    X(int, shutdown, (int, int))                                                                   \
    X(int, close, (int))                                                                           \
    X(int, dup2, (int, int))                                                                       \
    X(int, dup3, (int, int, int))                                                                  \
    X(int, epoll_ctl, (int, int, int, struct epoll_event *))                                       \
    X(int, setrlimit, (int, const struct rlimit *))                                                \
    X(int, prlimit, (pid_t, int, const struct rlimit *, struct rlimit *))                          \
    X(int, epoll_wait, (int, struct epoll_event *, int, int))                                      \
    X(int, epoll_pwait, (int, struct epoll_event *, int, int, const sigset_t *))                   \
    X(int, poll, (struct pollfd *, nfds_t, int))                                                   \
    X(int, ppoll, (struct pollfd *, nfds_t, const struct timespec *, const sigset_t *))            \
    X(int, select, (int, fd_set *, fd_set *, fd_set *, struct timeval *))                          \
    X(int, pselect, (int, fd_set *, fd_set *, fd_set *, const struct timespec *, const sigset_t *))

#ifdef __GLIBC__
#define RR_REAL_GLIBC(X)                                                                           \
    X(int, setrlimit64, (int, const struct rlimit64 *))                                            \
    X(int, prlimit64, (pid_t, int, const struct rlimit64 *, struct rlimit64 *))
#else
#define RR_REAL_GLIBC(X)
#endif

struct rr__real {
#define RR_FIELD(type, name, arguments) type(*name) arguments;
    RR_REAL(RR_FIELD)
    RR_REAL_GLIBC(RR_FIELD)
#undef RR_FIELD
};

/* ---- shim.c: load ----------------------------------------------------------------------------- */

struct rr__settings {
    int on;                   /* a worker's environment is there: else every call passes through */
    int any_port;             /* port 0 as well: for tests */
    int timeout_ms;           /* of a request */
    uid_t user;               /* whose this process was when it began */
    uint64_t network;         /* SO_NETNS_COOKIE of the primary's sockets, 0: not known */
    uint32_t worker;
    uint8_t key[RR_SHIM_KEY_SIZE];
    socklen_t socket_length;
    struct sockaddr_storage socket;
};

extern struct rr__settings rr__settings;
/* Reads the environment; the loader calls it. */
void rr__load(void);
const struct rr__real *rr__real(void);

static inline int rr__fail(long error)
{
    errno = (int)-error;
    return -1;
}

/* What a message of a channel is for the taker. */
struct rr__taken {
    uint32_t peer_length;
    uint8_t peer[48];
};

/* What a child does not inherit, since the kernel wipes it at fork; NULL where there is none. */
struct rr__own {
    int pid; /* 0 until the first of the others is used */
    unsigned words, registrations;
    /* One bit per fd: that accept returned and close did not see; that was seen to be a channel. */
    uint64_t taken[(1 << 20) / 64], channels[(1 << 20) / 64];
    struct rr__registration {
        uint64_t key; /* 0: free */
        uint64_t data;
        uint32_t events, deleted; /* by the program: MOD says ENOENT then, as it should */
    } registered[64];
    uint64_t sleepers[64]; /* fd and thread, of those that wait in accept */
    struct rr__held {
        int busy, channel, fd; /* a connection for accept of fd `channel` - 1 */
        struct rr__taken taken;
    } held;
};

extern struct rr__own *rr__own;
/* Is it this process', or are we its child between vfork and exec, which shares our memory? */
int rr__own_is_ours(void);

/* ---- shim_places.c: which addresses are taken -------------------------------------------------- */

union rr__address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
    struct sockaddr_storage room;
};

/* Reads $RRDISPATCH_LISTEN; NULL or empty: every fixed TCP port. */
void rr__places_read(const char *list);
int rr__places_admit(const union rr__address *address);
/* The address's port in host order; 0 for other families. */
unsigned rr__port(const union rr__address *address);

/* ---- shim_names.c: is this fd a channel ------------------------------------------------------- */

enum rr__kind_of_fd {
    RR__OTHER = 0,
    RR__CHANNEL = 1,
    RR__QUIET = 2 /* what was laid over a channel that ended: never readable */
};

enum rr__kind_of_fd rr__kind(int fd);
/* As rr__kind, with the address of the listener that it stands for; length 0: it says none. */
enum rr__kind_of_fd rr__name(int fd, union rr__address *address, socklen_t *length);
/* Lays a socket over `fd` that is never readable and keeps the channel's address. */
void rr__silence(int fd);

/* Copies between our memory and the program's, whose pointers may be bad: 0 or -EFAULT. */
int rr__copy_in(void *to, const void *from, size_t size);
int rr__copy_out(void *to, const void *from, size_t size);
/* Gives an address to the program as the kernel would: cut at *length, its full length in *length. */
int rr__give_address(const void *from, socklen_t size, struct sockaddr *to, socklen_t *length);

/* ---- shim_ask.c: requests to the primary ------------------------------------------------------ */

void rr__request(struct rr_shim_request *request, int kind, const union rr__address *address,
                 socklen_t length);
/* Sends it over a connection of its own and waits for the answer. Its result, or why there was none:
 * -ECONNREFUSED (nobody is there), -ETIMEDOUT, -EPROTO. `fds`: 2 of them for LISTEN, or NULL. */
int rr__ask(const struct rr_shim_request *request, int fds[2]);
/* Says once per process that it waits for connections on channel `fd`. */
void rr__ready(int fd);
/* 1 until that was said: look at what the program waits for. */
int rr__unsaid(void);
/* This program listens on a channel: it will wait for it. */
void rr__note_listen(void);

/* ---- shim_look.c: does this wait involve a channel ------------------------------------------------ */

void rr__look_at_items(const struct pollfd *items, nfds_t count);
void rr__look_at_set(const fd_set *set, int count);
void rr__look_at_epoll(int epoll);

/* ---- shim_count.c: the scoreboard, and which fds count --------------------------------------- */

/* Maps the scoreboard, if this process has none yet. The fd stays the caller's. */
void rr__board(int fd);
int rr__has_board(void);
void rr__count_taken(int fd);
void rr__count_lost(void);
/* `first` to `last` are about to be closed. */
void rr__count_closed(unsigned first, unsigned last);
/* A hint: this process took it from a channel. Spares a question to the kernel, decides nothing else. */
int rr__was_taken(int fd);
/* A hint for accept: `fd` is a channel. What it takes has to prove it. */
void rr__note_channel(int fd);
int rr__was_channel(int fd);
int rr__any_channel(void);

/* ---- shim_take.c: one message of a channel ----------------------------------------------------- */

/* Without waiting. The new fd, -EAGAIN, -EPIPE at the channel's end, -EMFILE and its like (it is still
 * queued); -EINTR: that was a probe, or nothing that is for us: try again. */
int rr__take(int channel, int cloexec, struct rr__taken *taken);
/* Receives an answer of the primary with up to 2 fds: its size, or -errno. */
int rr__receive_answer(int socket, struct rr_shim_answer *answer, int fds[2], int *count);

/* ---- shim_probe.c ------------------------------------------------------------------------------------ */

/* `fd` was readable only because of probes, which are gone now: it is not any more. */
int rr__only_probes(int fd);
/* A connection was taken in place of a probe: the next accept of `fd` gets it. */
int rr__holds(int fd);
int rr__take_held(int fd, int cloexec, struct rr__taken *taken);
/* `first` to `last` are about to be closed: what is held for one of them, or is one of them. */
void rr__drop_held(unsigned first, unsigned last);

/* ---- shim_room.c ------------------------------------------------------------------------------------- */

/* 0: one more fd finds room, which accept(2) asks before anything else; or -EBADF, -EMFILE. */
int rr__room(int fd);
/* The limit of this process may have changed. */
void rr__limit_changed(void);

/* ---- shim_end.c: every sender is gone ----------------------------------------------------------- */

/* Asks the worker's group to end, once, and silences the channel. */
void rr__end_of_channel(int fd);

/* ---- shim_options.c ------------------------------------------------------------------------------ */

/* What the program set on its socket before it listened is set on the primary's listener. */
void rr__hand_over_options(int fd, int channel, const union rr__address *address, socklen_t length);

/* ---- shim_epoll.c: what epoll remembers ---------------------------------------------------------- */

/* A registration outlives the program's close(), as others hold the channel: it is removed. */
void rr__forget_registrations(unsigned first, unsigned last);
/* Lays `from` over `fd`, which keeps O_CLOEXEC, O_NONBLOCK, who is told by signal, SO_RCVTIMEO and its
 * places in epoll sets: how many those are. */
int rr__lay_over(int from, int fd);

/* ---- shim_sockets.c --------------------------------------------------------------------------------- */

/* Bound by bind() of ours to an address that is taken, and not listening yet. */
int rr__is_to_be_shared(int fd);

/* ---- shim_twice.c ------------------------------------------------------------------------------------ */

/* Another socket of this process has the address, so that bind (or listen) says EADDRINUSE. */
int rr__is_claimed(int fd, const union rr__address *address, int own_reuse_port, int listening);

/* ---- shim_wake.c ------------------------------------------------------------------------------------- */

/* This thread is about to sleep in accept of `fd`: a place to give back, or -1. */
int rr__sleeps(int fd);
void rr__woke(int place);
/* Interrupts whoever sleeps in accept of `fd`, which is another file by now. */
void rr__wake(int fd);

/* ---- shim_close.c ---------------------------------------------------------------------------------- */

/* `first` to `last` are about to be closed. */
void rr__leaving(unsigned first, unsigned last);

/* ---- the wrapped names --------------------------------------------------------------------------- */

int rr__shim_bind(int fd, const struct sockaddr *address, socklen_t length) RR_WRAPS("bind");
int rr__shim_listen(int fd, int backlog) RR_WRAPS("listen");
int rr__shim_shutdown(int fd, int how) RR_WRAPS("shutdown");
int rr__shim_accept(int fd, struct sockaddr *peer, socklen_t *length) RR_WRAPS("accept");
int rr__shim_accept4(int fd, struct sockaddr *peer, socklen_t *length, int flags) RR_WRAPS("accept4");
int rr__shim_getsockname(int fd, struct sockaddr *name, socklen_t *length) RR_WRAPS("getsockname");
int rr__shim_getpeername(int fd, struct sockaddr *name, socklen_t *length) RR_WRAPS("getpeername");
int rr__shim_getsockopt(int fd, int level, int option, void *value, socklen_t *length)
    RR_WRAPS("getsockopt");
int rr__shim_setsockopt(int fd, int level, int option, const void *value, socklen_t length)
    RR_WRAPS("setsockopt");
int rr__shim_close(int fd) RR_WRAPS("close");
int rr__shim_dup2(int from, int to) RR_WRAPS("dup2");
int rr__shim_dup3(int from, int to, int flags) RR_WRAPS("dup3");
int rr__shim_close_range(unsigned first, unsigned last, int flags) RR_WRAPS("close_range");
void rr__shim_closefrom(int first) RR_WRAPS("closefrom");
int rr__shim_epoll_ctl(int epoll, int operation, int fd, struct epoll_event *event)
    RR_WRAPS("epoll_ctl");
int rr__shim_epoll_wait(int epoll, struct epoll_event *events, int most, int timeout)
    RR_WRAPS("epoll_wait");
int rr__shim_epoll_pwait(int epoll, struct epoll_event *events, int most, int timeout,
                         const sigset_t *mask) RR_WRAPS("epoll_pwait");
int rr__shim_epoll_pwait2(int epoll, struct epoll_event *events, int most,
                          const struct timespec *timeout, const sigset_t *mask)
    RR_WRAPS("epoll_pwait2");
int rr__shim_poll(struct pollfd *items, nfds_t count, int timeout) RR_WRAPS("poll");
int rr__shim_ppoll(struct pollfd *items, nfds_t count, const struct timespec *timeout,
                   const sigset_t *mask) RR_WRAPS("ppoll");
int rr__shim_select(int count, fd_set *in, fd_set *out, fd_set *other, struct timeval *timeout)
    RR_WRAPS("select");
int rr__shim_pselect(int count, fd_set *in, fd_set *out, fd_set *other,
                     const struct timespec *timeout, const sigset_t *mask) RR_WRAPS("pselect");

#endif
