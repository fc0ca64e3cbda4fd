/* A server without a dynamic linker, handed its socket as by systemd. Blocking, one at a time; TERM
 * ends it after what it has at work. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

static volatile sig_atomic_t over;

static void end(int number)
{
    /* Again and again: the first may come just before accept. */
    struct itimerval soon = {{0, 20000}, {0, 20000}};

    (void)number;
    over = 1;
    setitimer(ITIMER_REAL, &soon, NULL);
}

static void answer(int client)
{
    char text[4096], body[128];
    size_t have = 0;
    ssize_t got;

    while ((got = read(client, text + have, sizeof text - 1 - have)) > 0) {
        have += (size_t)got;
        text[have] = '\0';
        if (strstr(text, "\r\n\r\n"))
            break;
    }
    const char *slot = getenv("RRDISPATCH_SLOT");
    int size = snprintf(body, sizeof body, "slot %s pid %d\n", slot ? slot : "-1", (int)getpid());
    int head = snprintf(text, sizeof text,
                        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n"
                        "X-Pid: %d\r\nX-Slot: %s\r\nX-Version: 1\r\n\r\n%s",
                        size, (int)getpid(), slot ? slot : "-1", body);
    if (write(client, text, (size_t)head) < 0)
        perror("write");
    close(client);
}

int main(void)
{
    struct sigaction action = {.sa_handler = end};
    const char *pid = getenv("LISTEN_PID"), *fds = getenv("LISTEN_FDS");

    if (!pid || !fds || atoi(pid) != getpid() || atoi(fds) < 1) {
        fprintf(stderr, "nothing was handed to me\n");
        return 2;
    }
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGALRM, &action, NULL);
    while (!over) {
        int client = accept(3, NULL, NULL);
        if (client >= 0)
            answer(client);
        else if (errno != EINTR && errno != ECONNABORTED)
            return 1;
    }
    return 0;
}
