/* Everything that a primary, workers, clients and the kernel can do to a dispatcher, in any order. */
#include <sys/socket.h>

#include "world.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int pair[2];

    world_open(data, size);
    WORLD_CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
    world.control = pair[0];
    if (world_byte() % 4)
        world_begin();
    WORLD_CHECK(rr__dispatcher_run(pair[1], &world_system) == 0);
    world_close();
    return 0;
}
