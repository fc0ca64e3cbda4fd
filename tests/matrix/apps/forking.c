/* A server of the old school: a process per connection. forking PORT */
#include <arpa/inet.h>
#include <err.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static pid_t server;

static void answer(int fd, const struct sockaddr_in *peer)
{
    char request[4096], reply[256], host[INET_ADDRSTRLEN];
    size_t length = 0;

    while (length < sizeof(request) - 1) {
        ssize_t got = read(fd, request + length, sizeof(request) - 1 - length);
        if (got <= 0)
            return;
        length += (size_t)got;
        request[length] = '\0';
        if (strstr(request, "\r\n\r\n"))
            break;
    }
    inet_ntop(AF_INET, &peer->sin_addr, host, sizeof(host));
    int size = snprintf(reply, sizeof(reply),
                        "HTTP/1.1 200 OK\r\nX-Pid: %d\r\nX-Peer: %s:%d\r\nConnection: close\r\n"
                        "Content-Length: 6\r\n\r\nhello\n",
                        (int)server, host, ntohs(peer->sin_port));
    if (write(fd, reply, (size_t)size) != size)
        warn("write");
}

int main(int argc, char **argv)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0);

    if (argc != 2)
        errx(2, "forking PORT");
    address.sin_port = htons((unsigned short)atoi(argv[1]));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (bind(listener, (struct sockaddr *)&address, sizeof(address)))
        err(1, "bind");
    if (listen(listener, 128))
        err(1, "listen");
    signal(SIGCHLD, SIG_IGN);
    server = getpid();
    for (;;) {
        struct sockaddr_in peer;
        socklen_t length = sizeof(peer);
        int fd = accept(listener, (struct sockaddr *)&peer, &length);
        if (fd < 0)
            err(1, "accept");
        if (fork() == 0) {
            close(listener);
            answer(fd, &peer);
            _exit(0);
        }
        close(fd);
    }
}
