/* Owns which addresses a program may be clustered on: $RRDISPATCH_LISTEN, a list of PORT, HOST:PORT or
 * [v6]:PORT with numeric hosts or "localhost". Must not know sockets. */
#include <arpa/inet.h>
#include <string.h>

#include "shim.h"

enum { PLACES_MAX = 64, TEXT_MAX = 64 };

struct place {
    unsigned port;
    int any_host;
    struct in6_addr host; /* an IPv4 address as ::ffff:a.b.c.d */
};

static struct place places[PLACES_MAX];
static int count = -1; /* no list: every place */

static void mapped(struct in6_addr *to, const struct in_addr *from)
{
    memset(to, 0, sizeof *to);
    to->s6_addr[10] = to->s6_addr[11] = 0xff;
    memcpy(to->s6_addr + 12, from, sizeof *from);
}

static void add(unsigned port, const struct in6_addr *host)
{
    if (count >= PLACES_MAX)
        return;
    places[count].port = port;
    places[count].any_host = !host;
    if (host)
        places[count].host = *host;
    count++;
}

static unsigned number(const char *text)
{
    unsigned value = 0;

    for (; *text >= '0' && *text <= '9' && value <= 65535; text++)
        value = value * 10 + (unsigned)(*text - '0');
    return *text || value > 65535 ? 0 : value;
}

static void add_host(char *host, unsigned port)
{
    struct in6_addr six;
    struct in_addr four;
    size_t size = strlen(host);

    if (size > 1 && host[0] == '[' && host[size - 1] == ']') {
        host[size - 1] = '\0';
        host++;
    }
    if (strcmp(host, "*") == 0) {
        add(port, NULL);
    } else if (strcmp(host, "localhost") == 0) {
        add(port, &in6addr_loopback);
        four.s_addr = htonl(INADDR_LOOPBACK);
        mapped(&six, &four);
        add(port, &six);
    } else if (inet_pton(AF_INET, host, &four) == 1) {
        mapped(&six, &four);
        add(port, &six);
    } else if (inet_pton(AF_INET6, host, &six) == 1) {
        add(port, &six);
    }
}

static void add_place(char *text)
{
    char *colon = strrchr(text, ':');
    unsigned port = number(colon ? colon + 1 : text);

    if (port == 0)
        return;
    if (!colon) {
        add(port, NULL);
        return;
    }
    *colon = '\0';
    add_host(text, port);
}

void rr__places_read(const char *list)
{
    char text[TEXT_MAX];

    if (!list || !*list)
        return;
    count = 0;
    while (*list) {
        size_t size = strcspn(list, ",");
        const char *from = list + strspn(list, " ");
        size_t used = from < list + size ? (size_t)(list + size - from) : 0;
        if (used > 0 && used < sizeof text) {
            memcpy(text, from, used);
            while (used > 0 && text[used - 1] == ' ')
                used--;
            text[used] = '\0';
            add_place(text);
        }
        list += size + (list[size] == ',');
    }
}

unsigned rr__port(const union rr__address *address)
{
    if (address->any.sa_family == AF_INET)
        return ntohs(address->v4.sin_port);
    return address->any.sa_family == AF_INET6 ? ntohs(address->v6.sin6_port) : 0;
}

int rr__places_admit(const union rr__address *address)
{
    struct in6_addr host;

    if (count < 0)
        return 1;
    if (address->any.sa_family == AF_INET)
        mapped(&host, &address->v4.sin_addr);
    else
        host = address->v6.sin6_addr;
    for (int i = 0; i < count; i++)
        if (places[i].port == rr__port(address) &&
            (places[i].any_host || memcmp(&places[i].host, &host, sizeof host) == 0))
            return 1;
    return 0;
}
