/* Small questions to sockets. */
#ifndef RR_SOCK_H
#define RR_SOCK_H

#include "rrdispatch.h"

enum rr__trouble {
    RR__DRY,   /* nothing waits */
    RR__NEXT,  /* this connection is gone: the next one may be fine */
    RR__PAUSE, /* no fds or memory now */
    RR__FATAL, /* this listener will never work again */
};

enum rr__trouble rr__accept_trouble(int error);
int rr__nonblocking(int fd);
/* 1 if it can be read or accepted from at once. */
int rr__readable(int fd);
/* 0 if `fd` is a socket of this family (or any, if -1) and type, else -errno. */
int rr__expect_socket(int fd, int family, int type);
/* 0 if connections can be accepted from it, else -errno. */
int rr__expect_listener(int fd);

#endif
