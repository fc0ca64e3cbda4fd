/* accept and signals: when it is interrupted, when it goes on, and accept inside a handler. */
#include <setjmp.h>
#include <sys/time.h>

#include "kit.h"

static volatile sig_atomic_t caught;
static int server, in_handler = -2;

static void count(int number)
{
    (void)number;
    caught++;
}

static void handle(int number, void (*handler)(int), int flags)
{
    struct sigaction action = {.sa_handler = handler, .sa_flags = flags};

    must("sigaction", sigaction(number, &action, NULL) == 0);
}

/* A child that sends us a signal, and later connects. */
static pid_t disturb(int signal_number, int then_connect)
{
    pid_t parent = getpid(), pid = fork();

    if (pid != 0)
        return pid;
    until_asleep(parent, parent);
    kill(parent, signal_number);
    if (then_connect) {
        int mine = client();
        char byte;
        recv(mine, &byte, 1, 0);
    }
    _exit(0);
}

static void interrupted(void)
{
    server = looked_at(listener(0));
    handle(SIGUSR1, count, 0);
    pid_t pid = disturb(SIGUSR1, 0);
    show_fd("accept", accept(server, NULL, NULL));
    wait_child("child", pid);
    pid = disturb(SIGUSR1, 0);
    show_fd("accept4", accept4(server, NULL, NULL, SOCK_NONBLOCK));
    wait_child("child", pid);
    printf("caught %d\n", caught);
}

static void restarted(void)
{
    server = looked_at(listener(0));
    handle(SIGUSR1, count, SA_RESTART);
    pid_t pid = disturb(SIGUSR1, 1);
    int got = show_fd("accept", accept(server, NULL, NULL));
    printf("caught %d\n", caught);
    close(got);
    wait_child("child", pid);
}

static void ignored(void)
{
    server = looked_at(listener(0));
    signal(SIGUSR1, SIG_IGN);
    pid_t pid = disturb(SIGUSR1, 1);
    int got = show_fd("accept", accept(server, NULL, NULL));
    close(got);
    wait_child("child", pid);
}

/* With a timeout accept is interrupted even by a handler that restarts. */
static void with_timeout(void)
{
    struct timeval limit = {.tv_sec = 20};

    server = looked_at(listener(0));
    setsockopt(server, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    handle(SIGUSR1, count, SA_RESTART);
    pid_t pid = disturb(SIGUSR1, 0);
    show_fd("accept", accept(server, NULL, NULL));
    wait_child("child", pid);
    printf("caught %d\n", caught);
}

static void stopped_and_continued(void)
{
    server = looked_at(listener(0));
    pid_t parent = getpid(), pid = fork();
    if (pid == 0) {
        until_asleep(parent, parent);
        kill(parent, SIGSTOP);
        nap(10);
        kill(parent, SIGCONT);
        until_asleep(parent, parent);
        int mine = client();
        char byte;
        recv(mine, &byte, 1, 0);
        _exit(0);
    }
    int got = show_fd("accept", accept(server, NULL, NULL));
    close(got);
    wait_child("child", pid);
}

static void accept_there(int number)
{
    int kept = errno;
    struct sockaddr_in peer;
    socklen_t size = sizeof peer;

    (void)number;
    in_handler = accept(server, (struct sockaddr *)&peer, &size);
    errno = kept;
}

/* The handler takes the connection that the interrupted accept waits for. */
static void in_a_handler(void)
{
    server = looked_at(listener(0));
    handle(SIGUSR1, accept_there, 0);
    pid_t parent = getpid(), pid = fork();
    if (pid == 0) {
        until_asleep(parent, parent);
        kill(parent, SIGUSR1);
        until_asleep(parent, parent);
        int mine = client();
        char byte;
        recv(mine, &byte, 1, 0);
        _exit(0);
    }
    show_fd("accept", accept(server, NULL, NULL));
    show("in the handler", in_handler >= 0);
    close(in_handler);
    wait_child("child", pid);
}

static sigjmp_buf before;

static void jump(int number)
{
    (void)number;
    siglongjmp(before, 1);
}

/* A handler that leaves accept by a jump, and a thread that is ended afterwards: nothing of accept may
 * be left on the stack that is gone. */
static void *jumped_out(void *unused)
{
    volatile int rounds = 0;
    sigset_t set;

    (void)unused;
    sigemptyset(&set);
    sigaddset(&set, SIGALRM);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    while (rounds < 100) {
        struct itimerval soon = {.it_value.tv_usec = 2000};
        if (sigsetjmp(before, 1) == 0) {
            setitimer(ITIMER_REAL, &soon, NULL);
            show_fd("accept", accept(server, NULL, NULL));
        }
        rounds++;
    }
    printf("rounds %d\n", rounds);
    volatile char over[4096];
    for (size_t i = 0; i < sizeof over; i++)
        over[i] = 0x5a;
    pthread_exit(NULL);
}

static void left_by_a_jump(void)
{
    pthread_t thread;
    sigset_t set;

    server = looked_at(listener(0));
    handle(SIGALRM, jump, 0);
    sigemptyset(&set);
    sigaddset(&set, SIGALRM);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    must("thread", pthread_create(&thread, NULL, jumped_out, NULL) == 0);
    show("join", pthread_join(thread, NULL));
    show("shutdown", shutdown(server, SHUT_RDWR));
}

/* Told by a signal of its own choice, set before it listens, or after. */
static void told_by_sigio(void)
{
    sigset_t set;
    struct timespec limit = {.tv_sec = 20};

    sigemptyset(&set);
    sigaddset(&set, SIGIO);
    sigaddset(&set, SIGRTMIN + 3);
    sigprocmask(SIG_BLOCK, &set, NULL);
    for (int way = 0; way < 2; way++) {
        server = bound(SOCK_NONBLOCK);
        if (way == 1)
            show("listen", listen(server, 5));
        show("own", fcntl(server, F_SETOWN, getpid()));
        if (way == 1)
            show("signal", fcntl(server, F_SETSIG, SIGRTMIN + 3));
        show("async", fcntl(server, F_SETFL, O_ASYNC | O_NONBLOCK));
        if (way == 0)
            show("listen", listen(server, 5));
        looked_at(server);
        while (sigtimedwait(&set, NULL, &(struct timespec){0}) > 0)
            ;
        client();
        int got = sigtimedwait(&set, NULL, &limit);
        printf("signal %d, accepted %d\n", got == SIGIO ? 1 : got == SIGRTMIN + 3 ? 2 : 0,
               accept(server, NULL, NULL) >= 0);
        show("owner right", fcntl(server, F_GETOWN) == getpid());
        show("async", (fcntl(server, F_GETFL) & O_ASYNC) != 0);
        close(server);
    }
}

/* Hundreds of signals while connections come: none of these is lost. */
static void storm(void)
{
    struct itimerval every = {.it_interval.tv_usec = 2000, .it_value.tv_usec = 2000}, never = {0};
    int taken = 0, other = 0;

    server = looked_at(listener(0));
    handle(SIGALRM, count, 0);
    pid_t pid = fork();
    if (pid == 0) {
        for (int i = 0; i < 60; i++) {
            nap(3);
            close(client());
        }
        _exit(0);
    }
    setitimer(ITIMER_REAL, &every, NULL);
    while (taken < 60) {
        int got = accept(server, NULL, NULL);
        if (got >= 0) {
            taken++;
            close(got);
        } else if (errno != EINTR) {
            other++;
        }
    }
    setitimer(ITIMER_REAL, &never, NULL);
    wait_child("child", pid);
    printf("taken %d, other errors %d\n", taken, other);
}

int main(int argc, char **argv)
{
    static const struct scenario scenarios[] = {
        {"interrupted", interrupted},
        {"restarted", restarted},
        {"ignored", ignored},
        {"with-timeout", with_timeout},
        {"stopped-and-continued", stopped_and_continued},
        {"in-a-handler", in_a_handler},
        {"left-by-a-jump", left_by_a_jump},
        {"told-by-sigio", told_by_sigio},
        {"storm", storm},
        {NULL, NULL}};

    return play(scenarios, argc, argv);
}
