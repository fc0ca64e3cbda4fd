/* Owns the ledger's mapping and the one way to append to it. Must not know why something is noted.
 *
 * The place of an entry is reserved by an atomic add, its event is written last: a process may be killed
 * at any instruction and leaves at most one entry that says nothing. Nothing here allocates or locks:
 * reclaimers, forked from a process with threads, append as well. */
#include "ledger.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

struct rr_ledger_head *rr__ledger;
static int own_role;
static struct rr__ledger_worker own_worker;

static struct rr_ledger_entry *entries(void)
{
    return (struct rr_ledger_entry *)((char *)rr__ledger + RR_LEDGER_HEAD_SIZE);
}

static void append(int event, uint64_t ns, uint64_t cookie, struct rr__ledger_worker worker,
                   uint32_t detail)
{
    uint64_t at = __atomic_fetch_add(&rr__ledger->next, 1, __ATOMIC_RELAXED);

    if (at >= rr__ledger->capacity)
        return; /* `next` goes on counting what found no place */
    struct rr_ledger_entry *entry = &entries()[at];
    entry->cookie = cookie;
    entry->ns = ns;
    entry->worker = worker.id;
    entry->pid = (uint32_t)getpid();
    entry->slot = (uint16_t)worker.slot;
    entry->generation = (uint16_t)worker.generation;
    entry->detail = (uint16_t)detail;
    __atomic_store_n(&entry->event, (uint8_t)event, __ATOMIC_RELEASE);
}

static size_t size_of(const struct rr_ledger_head *head)
{
    return RR_LEDGER_HEAD_SIZE + head->capacity * sizeof(struct rr_ledger_entry);
}

/* The part of the file that is of a fixed size; what Python alone wrote comes after it. */
static void *map_file(int fd)
{
    struct rr_ledger_head head;
    struct stat about;

    if (fstat(fd, &about) < 0)
        return MAP_FAILED;
    errno = EINVAL;
    if (about.st_size < RR_LEDGER_HEAD_SIZE || pread(fd, &head, sizeof head, 0) != sizeof head ||
        head.magic != RR_LEDGER_MAGIC || head.version != RR_LEDGER_VERSION ||
        head.capacity > (uint64_t)about.st_size || size_of(&head) > (size_t)about.st_size)
        return MAP_FAILED;
    return mmap(NULL, size_of(&head), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
}

int rr_ledger_open(const char *path, int role, uint32_t slot, uint32_t generation)
{
    if (rr__ledger)
        return -EBUSY;
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    void *map = map_file(fd);
    int error = errno;
    close(fd);
    if (map == MAP_FAILED)
        return -error;
    own_role = role;
    own_worker = (struct rr__ledger_worker){.slot = slot, .generation = generation};
    rr__ledger = map;
    return rr_ledger_note(RR_LEDGER_OPENED, 0, (uint32_t)role);
}

int rr_ledger_close(void)
{
    struct rr_ledger_head *head = rr__ledger;

    rr__ledger = NULL;
    if (!head)
        return 0;
    return munmap(head, size_of(head)) < 0 ? -errno : 0;
}

int rr_ledger_note(int event, uint64_t cookie, uint32_t detail)
{
    if (rr__ledger_on())
        append(event, rr_now_ns(), cookie, own_worker, detail);
    return 0;
}

uint64_t rr_ledger_cookie(int fd)
{
    uint64_t cookie = 0;
#ifdef SO_COOKIE
    socklen_t length = sizeof cookie;
    if (getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &length) < 0)
        return 0;
#else
    (void)fd;
#endif
    return cookie;
}

void rr__ledger_from_environment(void)
{
    const char *path = getenv("RRDISPATCH_LEDGER");

    /* One that cannot be opened stays off: whoever reads it misses our OPENED. */
    if (path)
        rr_ledger_open(path, RR_LEDGER_DISPATCHER, 0, 0);
}

void rr__ledger_reclaims_for(struct rr__ledger_worker worker)
{
    own_role = RR_LEDGER_RECLAIMER;
    own_worker = worker;
}

void rr__ledger_dispatches(void)
{
    own_role = RR_LEDGER_DISPATCHER;
    own_worker = (struct rr__ledger_worker){0};
}

/* A client's port; 0 of one without, or one that is gone already. */
static uint32_t peer_port(int fd)
{
    union {
        struct sockaddr any;
        struct sockaddr_in inet;
        struct sockaddr_in6 inet6;
        struct sockaddr_storage whole;
    } peer = {.any.sa_family = AF_UNSPEC};
    socklen_t length = sizeof peer;

    if (getpeername(fd, &peer.any, &length) < 0)
        return 0;
    if (peer.any.sa_family == AF_INET)
        return ntohs(peer.inet.sin_port);
    return peer.any.sa_family == AF_INET6 ? ntohs(peer.inet6.sin6_port) : 0;
}

void rr__ledger_accepted(int fd)
{
    uint64_t ns = rr_now_ns();

    append(RR_LEDGER_ACCEPTED, ns, rr_ledger_cookie(fd), own_worker, peer_port(fd));
}

void rr__ledger_connections(int event, struct rr__ledger_worker worker, const int *fds, int count)
{
    uint64_t ns = rr_now_ns();

    for (int i = 0; i < count; i++)
        append(event, ns, rr_ledger_cookie(fds[i]), worker, 0);
}

static const char *find(const char *text, const char *end, const char *word)
{
    size_t length = strlen(word);

    for (; text + length <= end; text++)
        if (memcmp(text, word, length) == 0)
            return text + length;
    return end;
}

/* The process behind a pidfd, as Linux tells it; 0 if it is gone or this is not Linux. */
static uint64_t pid_of(int pidfd)
{
    char path[] = "/proc/self/fdinfo/0123456789", text[512], digits[16];
    size_t stem = sizeof "/proc/self/fdinfo/" - 1;
    uint64_t pid = 0;
    int count = 0;

    for (int left = pidfd; left > 0 || count == 0; left /= 10)
        digits[count++] = (char)('0' + left % 10);
    for (int i = 0; i < count; i++)
        path[stem + (size_t)i] = digits[count - 1 - i];
    path[stem + (size_t)count] = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t got = read(fd, text, sizeof text);
    close(fd);
    const char *end = text + (got > 0 ? got : 0);
    for (const char *at = find(text, end, "\nPid:\t"); at < end && *at >= '0' && *at <= '9'; at++)
        pid = pid * 10 + (uint64_t)(*at - '0');
    return pid;
}

void rr__ledger_of_worker(int event, struct rr__ledger_worker worker, int pidfd)
{
    append(event, rr_now_ns(), event == RR_LEDGER_JOINED ? pid_of(pidfd) : 0, worker, 0);
}

void rr__ledger_taking(int count)
{
    append(RR_LEDGER_TAKING, rr_now_ns(), 0, own_worker, (uint32_t)count);
}

void rr__ledger_took(const struct rr_message *message, const int *fds, int count)
{
    uint64_t ns = rr_now_ns();
    int event = own_role == RR_LEDGER_RECLAIMER ? RR_LEDGER_MOVED : RR_LEDGER_TAKEN;

    if (count <= 0 || message->kind != RR_KIND_CONNECTION) {
        append(RR_LEDGER_TOOK_NOTHING, ns, 0, own_worker, 0);
        return;
    }
    /* The last one of a message closes what TAKING has opened. */
    for (int i = 0; i < count; i++)
        append(event, ns, rr_ledger_cookie(fds[i]), own_worker, i + 1 == count);
}
