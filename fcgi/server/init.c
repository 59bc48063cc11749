/* init: see init.h. */
#include "server/init.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    SIGNALLED = 128
}; /* exit status of a process that a signal has ended, as shells give it: this and the signal */

static sigset_t handled(void)
{
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGHUP);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGCHLD);
    return signals;
}

/* Reaps all children that have ended; does not return when the master is among them. */
static void reap(pid_t master)
{
    int status;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;) {
        if (pid == master)
            _exit(WIFSIGNALED(status) ? SIGNALLED + WTERMSIG(status) : WEXITSTATUS(status));
    }
}

_Noreturn static void serve_as_init(pid_t master)
{
    const sigset_t signals = handled();
    for (;;) {
        int number = sigwaitinfo(&signals, NULL);
        if (number == SIGCHLD)
            reap(master);
        else if (number > 0)
            kill(master, number);
    }
}

void init_split(void)
{
    if (getpid() != 1)
        return;
    sigset_t signals = handled();
    sigprocmask(SIG_BLOCK, &signals, NULL);
    pid_t master = fork();
    if (master < 0) {
        perror("taskproxy: cannot start the master");
        exit(EXIT_FAILURE);
    }
    if (master > 0)
        serve_as_init(master);
    sigemptyset(&signals);
    sigaddset(&signals, SIGCHLD);
    sigprocmask(SIG_UNBLOCK, &signals, NULL);
}
