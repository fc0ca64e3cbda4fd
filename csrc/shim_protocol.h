/* What the shim and the primary say to each other, and the name by which a channel tells what it is.
 * One request per connection to $RRDISPATCH_SOCKET (SOCK_SEQPACKET); numbers in the machine's byte order.
 *
 * A channel's receiving end is bound, before it is handed out, to an abstract AF_UNIX name:
 *
 *     "\0rrdispatch.1/" worker "/" random "/" address
 *
 * worker: its id, 8 hex digits; random: 8 to 32 hex digits (24 make the longest name fit in the
 * 108 bytes there are); address: the listener's struct sockaddr_in or sockaddr_in6 in hex. */
#ifndef RR_SHIM_PROTOCOL_H
#define RR_SHIM_PROTOCOL_H

#include <stdint.h>

#define RR_SHIM_MAGIC 0x48535252 /* "RRSH" */
#define RR_SHIM_VERSION 1
#define RR_SHIM_KEY_SIZE 16
#define RR_SHIM_VALUE_SIZE 64
#define RR_SHIM_ADDRESS_SIZE 128

#define RR_SHIM_PREFIX "\0rrdispatch.1/"
#define RR_SHIM_PREFIX_SIZE 14

enum rr_shim_kind {
    RR_SHIM_LISTEN = 1, /* address, backlog, v6only, as value the socket's uid (u32);
                         * answered with 2 fds: channel (or a listener), scoreboard */
    RR_SHIM_READY = 2,  /* this process waits for connections */
    RR_SHIM_OPTION = 3  /* setsockopt(level, option, value) on the listener of that address */
};

struct rr_shim_request {
    uint32_t magic, version, kind, worker;
    uint8_t key[RR_SHIM_KEY_SIZE];
    int32_t pid, backlog, v6only, level, option;
    uint32_t address_length, value_length;
    uint8_t address[RR_SHIM_ADDRESS_SIZE];
    uint8_t value[RR_SHIM_VALUE_SIZE];
};

struct rr_shim_answer {
    uint32_t magic, version;
    int32_t result; /* 0, or -errno for the program */
    uint32_t listener;
};

_Static_assert(sizeof(struct rr_shim_request) == 252, "the layout is a protocol");
_Static_assert(sizeof(struct rr_shim_answer) == 16, "the layout is a protocol");

#endif
