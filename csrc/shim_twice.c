/* Owns one question: does the program itself hold the address already? bind() of ours lets every worker
 * bind it, so the kernel does not say EADDRINUSE any more to a program that binds it twice.
 *
 * The program's own SO_REUSEPORT and ours are told apart by SO_BROADCAST, which means nothing on TCP. */
#include <fcntl.h>
#include <string.h>

#include "shim.h"

struct entry { /* linux_dirent64 */
    uint64_t inode, offset;
    uint16_t size;
    uint8_t type;
    char name[];
};

struct claim {
    union rr__address address;
    int fd, listens, reuse_address, reuse_port, six_only;
};

static int flag(int fd, int level, int option)
{
    int value = 0;
    socklen_t size = sizeof value;

    return rr__raw5(SYS_getsockopt, fd, level, option, &value, &size) >= 0 && value;
}

/* What `fd` claims if it is a channel or a bound socket that is to become one. */
static int read_claim(int fd, struct claim *claim)
{
    socklen_t length;

    claim->fd = fd;
    claim->listens = rr__name(fd, &claim->address, &length) == RR__CHANNEL;
    claim->six_only = flag(fd, SOL_SOCKET, SO_DONTROUTE); /* of a channel; set by listen() */
    if (!claim->listens) {
        if (!rr__is_to_be_shared(fd))
            return 0;
        length = sizeof claim->address;
        rr__raw3(SYS_getsockname, fd, &claim->address, &length);
        claim->six_only = flag(fd, IPPROTO_IPV6, IPV6_V6ONLY);
    }
    claim->reuse_address = flag(fd, SOL_SOCKET, SO_REUSEADDR);
    claim->reuse_port = !flag(fd, SOL_SOCKET, SO_BROADCAST);
    return 1;
}

/* The 16 bytes of an address, and whether it is the wildcard. */
static int plain(const struct claim *claim, struct in6_addr *host)
{
    static const struct in6_addr any_v4 = {.s6_addr = {[10] = 0xff, [11] = 0xff}};

    *host = any_v4;
    if (claim->address.any.sa_family == AF_INET)
        memcpy(host->s6_addr + 12, &claim->address.v4.sin_addr, 4);
    else
        *host = claim->address.v6.sin6_addr;
    return memcmp(host, &any_v4, sizeof any_v4) == 0 || IN6_IS_ADDR_UNSPECIFIED(host);
}

static int overlap(const struct claim *one, const struct claim *other)
{
    struct in6_addr host, its;
    int any = plain(one, &host), its_any = plain(other, &its);
    int mixed = one->address.any.sa_family != other->address.any.sa_family;

    if (rr__port(&one->address) != rr__port(&other->address))
        return 0;
    if (mixed && (one->six_only || other->six_only))
        return 0;
    if (!mixed && (any || its_any))
        return 1;
    /* "::" takes IPv4 as well; "0.0.0.0" and "::1" have nothing in common. */
    if (mixed && ((any && one->address.any.sa_family == AF_INET6) ||
                  (its_any && other->address.any.sa_family == AF_INET6)))
        return 1;
    return memcmp(&host, &its, sizeof host) == 0;
}

static int in_conflict(const struct claim *mine, const struct claim *other, int listening)
{
    if (mine->fd == other->fd || !overlap(mine, other) || (mine->reuse_port && other->reuse_port))
        return 0;
    if (listening)
        return other->listens;
    return other->listens || !mine->reuse_address || !other->reuse_address;
}

static int number(const char *text)
{
    int value = 0;

    for (; *text >= '0' && *text <= '9'; text++)
        value = value * 10 + (*text - '0');
    return *text ? -1 : value;
}

static int search(int folder, const struct claim *mine, int listening)
{
    char room[2048] __attribute__((aligned(8)));
    struct claim other;
    long got;

    while ((got = rr__raw3(SYS_getdents64, folder, room, sizeof room)) > 0)
        for (char *at = room; at < room + got; at += ((struct entry *)at)->size) {
            int fd = number(((struct entry *)at)->name);
            if (fd < 0 || fd == mine->fd || fd == folder || rr__was_taken(fd))
                continue;
            if (read_claim(fd, &other) && in_conflict(mine, &other, listening))
                return 1;
        }
    return 0;
}

int rr__is_claimed(int fd, const union rr__address *address, int own_reuse_port, int listening)
{
    struct claim mine = {.address = *address, .fd = fd, .reuse_port = own_reuse_port};
    long folder = rr__raw4(SYS_openat, AT_FDCWD, "/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);

    if (folder < 0)
        return 0;
    mine.reuse_address = flag(fd, SOL_SOCKET, SO_REUSEADDR);
    mine.six_only = flag(fd, IPPROTO_IPV6, IPV6_V6ONLY);
    int found = search((int)folder, &mine, listening);
    rr__raw1(SYS_close, folder);
    return found;
}
