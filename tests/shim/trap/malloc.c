/* Linked with the shim: counts allocations while a call of the shim's is under way. Exit code 0: none,
 * from the load on. */
#include <dlfcn.h>

#include "../programs/kit.h"

static __thread int inside;
static int allocations;

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *memory, size_t size);

void *malloc(size_t size)
{
    allocations += inside;
    return __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
    allocations += inside;
    return __libc_calloc(count, size);
}

void *realloc(void *memory, size_t size)
{
    allocations += inside;
    return __libc_realloc(memory, size);
}

#define IN(call) (inside = 1, result = (long)(call), inside = 0, result)

extern void rr__load(void);

int main(int argc, char **argv)
{
    struct sockaddr_in address = loopback(port = atoi(argv[argc - 1])), peer;
    int one = 1, set = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN};
    socklen_t size = sizeof peer, length = sizeof one;
    long result;

    /* stdio and a first error message have their buffers before it begins. */
    puts("start");
    (void)strerrorname_np(1);
    inside = 1;
    rr__load();
    inside = 0;
    int server = socket(AF_INET, SOCK_STREAM, 0);
    show("setsockopt", IN(setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one)));
    show("bind", IN(bind(server, (struct sockaddr *)&address, sizeof address)));
    show("listen", IN(listen(server, 5)));
    show("epoll_ctl", IN(epoll_ctl(set, EPOLL_CTL_ADD, server, &event)));
    show("getsockname", IN(getsockname(server, (struct sockaddr *)&peer, &size)));
    show("getsockopt", IN(getsockopt(server, SOL_SOCKET, SO_ACCEPTCONN, &one, &length)));
    show("setsockopt", IN(setsockopt(server, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one)));
    for (int i = 0; i < 10; i++) {
        struct pollfd item = {.fd = server, .events = POLLIN | POLLOUT};
        int mine = client(), got;
        show("poll", IN(poll(&item, 1, 20000)));
        size = sizeof peer;
        got = (int)IN(accept4(server, (struct sockaddr *)&peer, &size, SOCK_NONBLOCK));
        show("accept4", got < 0);
        show("getpeername", IN(getpeername(got, (struct sockaddr *)&peer, &size)));
        show("close", IN(close(got)));
        close(mine);
    }
    show("shutdown", IN(shutdown(server, SHUT_RDWR)));
    show("accept", IN(accept(server, NULL, NULL)));
    show("listen", IN(listen(server, 5)));
    show("close_range", IN(close_range((unsigned)server, (unsigned)server, 0)));
    show("allocations", allocations);
    return allocations != 0;
}
