/* Owns the load: the environment, read once (programs wipe theirs), and the functions behind the names
 * that the shim takes. Must not know sockets or channels. */
#include "shim.h"

#include <dlfcn.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/un.h>

enum { REQUEST_LIMIT_MS = 5000, LONGEST_LIMIT_MS = 60000 };

#ifndef MADV_WIPEONFORK
#define MADV_WIPEONFORK 18
#endif

struct rr__settings rr__settings;
struct rr__own *rr__own;

static struct rr__real real;
static int resolved;

/* dlsym allocates nothing for a name that exists. Threads that meet here store the same values. */
static void resolve(void)
{
#define RESOLVE(type, name, arguments) real.name = (type(*) arguments)dlsym(RTLD_NEXT, #name);
    RR_REAL(RESOLVE)
    RR_REAL_GLIBC(RESOLVE)
#undef RESOLVE
    __atomic_store_n(&resolved, 1, __ATOMIC_RELEASE);
}

/* Another library's constructor may call before ours ran. */
const struct rr__real *rr__real(void)
{
    if (!__atomic_load_n(&resolved, __ATOMIC_ACQUIRE))
        resolve();
    return &real;
}

static int digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* "<worker>:<32 hex digits>" */
static int read_key(const char *text)
{
    char *end;
    unsigned long worker = strtoul(text, &end, 10);

    if (end == text || *end++ != ':' || worker > UINT32_MAX)
        return 0;
    for (int i = 0; i < RR_SHIM_KEY_SIZE; i++) {
        int high = digit(end[2 * i]), low = high < 0 ? -1 : digit(end[2 * i + 1]);
        if (low < 0)
            return 0;
        rr__settings.key[i] = (uint8_t)(high << 4 | low);
    }
    rr__settings.worker = (uint32_t)worker;
    return end[2 * RR_SHIM_KEY_SIZE] == '\0';
}

/* A path, or "@name" of an abstract socket, which a program reaches after chroot or setuid, too. */
static int read_socket(const char *text)
{
    struct sockaddr_un *address = (struct sockaddr_un *)&rr__settings.socket;
    size_t size = strlen(text);

    if (size == 0 || size >= sizeof address->sun_path)
        return 0;
    address->sun_family = AF_UNIX;
    memcpy(address->sun_path, text, size);
    rr__settings.socket_length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + size + 1);
    if (*text == '@') {
        address->sun_path[0] = '\0';
        rr__settings.socket_length--;
    }
    return 1;
}

/* Kernels before 4.14 can't wipe: no hints there. */
static void make_own(void)
{
    void *page = mmap(NULL, sizeof *rr__own, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (page == MAP_FAILED)
        return;
    if (madvise(page, sizeof *rr__own, MADV_WIPEONFORK) < 0)
        munmap(page, sizeof *rr__own);
    else
        rr__own = page;
}

int rr__own_is_ours(void)
{
    int none = 0, pid = (int)rr__raw1(SYS_getpid, 0);

    return __atomic_compare_exchange_n(&rr__own->pid, &none, pid, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE) ||
           none == pid;
}

__attribute__((constructor)) void rr__load(void)
{
    const char *socket = getenv("RRDISPATCH_SOCKET"), *key = getenv("RRDISPATCH_KEY");
    const char *any = getenv("RRDISPATCH_ANY_PORT"), *limit = getenv("RRDISPATCH_SHIM_TIMEOUT_MS");
    const char *network = getenv("RRDISPATCH_NET");

    resolve();
    if (!socket || !key || !read_socket(socket) || !read_key(key))
        return;
    rr__settings.any_port = any && strcmp(any, "1") == 0;
    rr__settings.timeout_ms = limit ? atoi(limit) : 0;
    if (rr__settings.timeout_ms <= 0 || rr__settings.timeout_ms > LONGEST_LIMIT_MS)
        rr__settings.timeout_ms = REQUEST_LIMIT_MS;
    rr__settings.user = (uid_t)rr__raw1(SYS_geteuid, 0);
    rr__settings.network = network ? strtoull(network, NULL, 10) : 0;
    make_own();
    rr__places_read(getenv("RRDISPATCH_LISTEN"));
    rr__settings.on = 1;
}
