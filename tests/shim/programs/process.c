/* A listener over fork, exec, threads, and under several numbers. */
#include "kit.h"

static void dups(void)
{
    int server = listener(0), one = dup(server), set = epoll_create1(0);
    int two = fcntl(server, F_DUPFD_CLOEXEC, 50), three = dup2(server, 60);
    int four = dup3(server, 61, O_CLOEXEC);
    const int all[] = {one, two, three, four, server};
    struct epoll_event event = {.events = EPOLLIN};

    show("dup2 to itself", dup2(server, server) == server);
    show("dup3 to itself", dup3(server, server, 0));
    show("dup2 of nothing", dup2(999, one));
    show("dup3 bad flags", dup3(server, one, 77));
    show("cloexec of dup2", fcntl(three, F_GETFD));
    show("cloexec of dup3", fcntl(four, F_GETFD));
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        struct sockaddr_in name;
        socklen_t size = sizeof name;
        int mine = client();
        int got = show_fd("accept", accept(all[i], NULL, NULL));
        printf("joined: %d\n", joined(mine, got));
        show("getsockname", getsockname(all[i], (struct sockaddr *)&name, &size));
        printf("port right: %d\n", ntohs(name.sin_port) == port);
        if (i < 4)
            show("close", close(all[i]));
    }
    show("epoll", epoll_ctl(set, EPOLL_CTL_ADD, server, &event));
    show("over a connection", dup2(server, accept(server, (void *)0, (client(), (void *)0))) >= 0);
}

/* O_NONBLOCK belongs to the file, not to the number. */
static void nonblocking_is_shared(void)
{
    int server = listener(0), other = dup(server);

    fcntl(other, F_SETFL, O_NONBLOCK);
    show_fd("accept", accept(server, NULL, NULL));
}

/* The parent listens, its children accept. */
static void prefork(void)
{
    int server = listener(0), pipes[2], total = 0;
    pid_t pids[3];

    must("pipe", pipe(pipes) == 0);
    for (int i = 0; i < 3; i++) {
        pids[i] = fork();
        if (pids[i])
            continue;
        for (;;) {
            struct sockaddr_in peer;
            socklen_t size = sizeof peer;
            int got = accept(server, (struct sockaddr *)&peer, &size);
            char byte = 'x';
            if (got < 0 || recv(got, &byte, 1, 0) != 1 || byte == 'q')
                _exit(got < 0);
            must("answer", send(got, &byte, 1, 0) == 1 && write(pipes[1], &byte, 1) == 1);
            close(got);
        }
    }
    for (int i = 0; i < 30; i++) {
        int mine = client();
        char byte = 'y';
        must("send", send(mine, &byte, 1, 0) == 1);
        total += recv(mine, &byte, 1, 0) == 1 && byte == 'y';
        close(mine);
    }
    printf("answered: %d\n", total);
    for (int i = 0; i < 3; i++) {
        char byte = 'q';
        must("quit", send(client(), &byte, 1, 0) == 1);
    }
    for (int i = 0; i < 3; i++)
        wait_child("child", pids[i]);
}

/* A process per connection, with SIGCHLD handled: the classic server. */
static void on_child(int number)
{
    int kept = errno;
    (void)number;
    while (waitpid(-1, NULL, WNOHANG) > 0)
        ;
    errno = kept;
}

static void fork_per_connection(void)
{
    int server = listener(0), fine = 0;
    struct sigaction action = {.sa_handler = on_child, .sa_flags = SA_RESTART};

    sigaction(SIGCHLD, &action, NULL);
    for (int i = 0; i < 20; i++) {
        int mine = client(), got = accept(server, NULL, NULL);
        if (got < 0) {
            show("accept", got);
            continue;
        }
        if (fork() == 0) {
            close(server);
            close(mine);
            char byte;
            while (recv(got, &byte, 1, 0) == 1)
                must("send", send(got, &byte, 1, MSG_NOSIGNAL) == 1);
            _exit(0);
        }
        close(got);
        char byte = 'z';
        must("send", send(mine, &byte, 1, 0) == 1);
        fine += recv(mine, &byte, 1, 0) == 1 && byte == 'z';
        close(mine);
    }
    printf("fine: %d\n", fine);
}

/* What another program finds that was started with the listener open: this one, by another name. */
static void heir_accepts(void)
{
    int server = 77, value = 0;
    struct sockaddr_in name;
    socklen_t size = sizeof name, length = sizeof value;

    show("getsockname", getsockname(server, (struct sockaddr *)&name, &size));
    printf("port right: %d\n", ntohs(name.sin_port) == port);
    show("SO_ACCEPTCONN", getsockopt(server, SOL_SOCKET, SO_ACCEPTCONN, &value, &length));
    printf("value %d\n", value);
    int mine = client();
    printf("readable: %d\n", readable(server));
    int got = show_fd("accept", accept(server, NULL, NULL));
    printf("joined: %d\n", joined(mine, got));
    show("listen again", listen(server, 3));
}

static void run_self(const char *what)
{
    char number[16];

    snprintf(number, sizeof number, "%d", port);
    execl("/proc/self/exe", "process", what, number, (char *)NULL);
    _exit(9);
}

static void exec_inherits(void)
{
    int server = listener(0);

    dup2(server, 77);
    close(server);
    pid_t pid = fork();
    if (pid == 0)
        run_self("heir-accepts");
    wait_child("child", pid);
    int mine = client(), got = show_fd("accept", accept(77, NULL, NULL));
    printf("joined: %d\n", joined(mine, got));
}

/* Bound here, listens and accepts there. */
static void heir_listens(void)
{
    show("listen", listen(77, 16));
    heir_accepts();
}

static void exec_listens(void)
{
    int server = bound(0);

    dup2(server, 77);
    close(server);
    pid_t pid = vfork();
    if (pid == 0)
        run_self("heir-listens");
    wait_child("child", pid);
}

static void cloexec_is_kept(void)
{
    int server = listener(SOCK_CLOEXEC);

    show("cloexec", fcntl(server, F_GETFD));
    pid_t pid = vfork();
    if (pid == 0) {
        char number[16];
        snprintf(number, sizeof number, "%d", server);
        execl("/bin/sh", "sh", "-c", "test ! -e /proc/self/fd/$0", number, (char *)NULL);
        _exit(9);
    }
    wait_child("closed by exec", pid);
}

/* ---- threads ---------------------------------------------------------------------------------------- */

static int shared_server, answered;
static pid_t sleeper; /* the thread that is about to accept */

static void until_sleeper_sleeps(void)
{
    while (!__atomic_load_n(&sleeper, __ATOMIC_ACQUIRE))
        nap(1);
    until_asleep(getpid(), sleeper);
}

static void *serve(void *unused)
{
    (void)unused;
    for (;;) {
        int got = accept4(shared_server, NULL, NULL, SOCK_CLOEXEC);
        char byte = 'q';
        must("accept", got >= 0);
        if (recv(got, &byte, 1, 0) != 1 || byte == 'q')
            return NULL;
        must("send", send(got, &byte, 1, MSG_NOSIGNAL) == 1);
        close(got);
        __atomic_add_fetch(&answered, 1, __ATOMIC_RELAXED);
    }
}

static void threads(void)
{
    pthread_t all[8];

    shared_server = listener(0);
    for (int i = 0; i < 8; i++)
        must("thread", pthread_create(&all[i], NULL, serve, NULL) == 0);
    for (int i = 0; i < 100; i++) {
        int mine = client();
        char byte = 'y';
        must("send", send(mine, &byte, 1, 0) == 1 && recv(mine, &byte, 1, 0) == 1);
        close(mine);
    }
    for (int i = 0; i < 8; i++) {
        char byte = 'q';
        must("quit", send(client(), &byte, 1, 0) == 1);
    }
    for (int i = 0; i < 8; i++)
        pthread_join(all[i], NULL);
    printf("answered: %d\n", answered);
}

static void *one_accept(void *unused)
{
    (void)unused;
    __atomic_store_n(&sleeper, gettid(), __ATOMIC_RELEASE);
    int got = accept(shared_server, NULL, NULL);
    show_fd("accept in a thread", got);
    return NULL;
}

static void *quiet_accept(void *unused)
{
    (void)unused;
    __atomic_store_n(&sleeper, gettid(), __ATOMIC_RELEASE);
    accept(shared_server, NULL, NULL);
    return NULL;
}

/* On Linux a close wakes nobody. What the thread in accept gets then is not compared: the kernel gives
 * it one more connection, the shim tells it that the number is another file's and leaves that one. */
static void close_in_accept(void)
{
    pthread_t thread;
    struct sockaddr_in peer;
    socklen_t size = sizeof peer;
    int other, mine, file;

    shared_server = looked_at(listener(0));
    other = dup(shared_server);
    must("thread", pthread_create(&thread, NULL, quiet_accept, NULL) == 0);
    until_sleeper_sleeps();
    file = open("/dev/null", O_RDONLY);
    show("close", dup2(file, shared_server) == shared_server);
    client();
    pthread_join(thread, NULL);
    mine = client();
    do
        must("accept", accept(other, (struct sockaddr *)&peer, &size) >= 0);
    while (!is_of(mine, &peer, size));
    show_fd("closed", accept(shared_server, NULL, NULL));
}

static void cancel_in_accept(void)
{
    pthread_t thread;
    void *result;

    shared_server = looked_at(listener(0));
    must("thread", pthread_create(&thread, NULL, one_accept, NULL) == 0);
    until_sleeper_sleeps();
    pthread_cancel(thread);
    pthread_join(thread, &result);
    printf("cancelled: %d\n", result == PTHREAD_CANCELED);
    client();
    show_fd("nothing is lost", accept(shared_server, NULL, NULL));
}

/* ---- to another process ------------------------------------------------------------------------------ */

static void send_fd(int socket, int fd)
{
    char byte = 0, room[CMSG_SPACE(sizeof fd)] = {0};
    struct iovec part = {&byte, 1};
    struct msghdr header = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof room};
    struct cmsghdr *item = CMSG_FIRSTHDR(&header);

    item->cmsg_level = SOL_SOCKET;
    item->cmsg_type = SCM_RIGHTS;
    item->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(item), &fd, sizeof fd);
    must("sendmsg", sendmsg(socket, &header, 0) == 1);
}

static int receive_fd(int socket)
{
    char byte, room[CMSG_SPACE(sizeof(int))];
    struct iovec part = {&byte, 1};
    struct msghdr header = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof room};
    int fd;

    must("recvmsg", recvmsg(socket, &header, 0) == 1);
    memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&header)), sizeof fd);
    return fd;
}

static void handed_over(void)
{
    int pair[2];

    must("socketpair", socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    pid_t pid = fork();
    if (pid == 0) {
        int server = receive_fd(pair[1]);
        int mine = client(), got = show_fd("accept", accept(server, NULL, NULL));
        printf("joined: %d\n", joined(mine, got));
        _exit(0);
    }
    int server = listener(0);
    send_fd(pair[0], server);
    close(server);
    wait_child("child", pid);
}

int main(int argc, char **argv)
{
    static const struct scenario scenarios[] = {
        {"dups", dups},
        {"nonblocking-is-shared", nonblocking_is_shared},
        {"prefork", prefork},
        {"fork-per-connection", fork_per_connection},
        {"exec-inherits", exec_inherits},
        {"exec-listens", exec_listens},
        {"cloexec-is-kept", cloexec_is_kept},
        {"threads", threads},
        {"close-in-accept", close_in_accept},
        {"cancel-in-accept", cancel_in_accept},
        {"handed-over", handed_over},
        {NULL, NULL}};
    static const struct scenario started[] = {
        {"heir-accepts", heir_accepts}, {"heir-listens", heir_listens}, {NULL, NULL}};

    if (argc == 3 && strncmp(argv[1], "heir-", 5) == 0)
        return play(started, argc, argv);
    return play(scenarios, argc, argv);
}
