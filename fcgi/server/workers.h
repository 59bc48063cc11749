/* workers: the worker processes: started, watched, replaced, and handed over to the next program in an
 * upgrade. The status server is treated like them, but is not counted as a worker.
 *
 * Each worker has a place, whose listening socket outlives it. One table has all workers: those that this
 * program has started, and those adopted from the program before an upgrade. A generation is the workers of
 * one configuration; adopted workers form the oldest. Once every worker of the newest generation is ready,
 * the older ones are stopped. */
#ifndef WORKERS_H
#define WORKERS_H

#include <uv.h>

#include "config/conf.h"
#include "server/sockets.h"

/* A stopping worker is killed WORKERS_GRACE_MS after "drain". */
enum { WORKERS_GRACE_MS = 2000 };

struct workers;

struct workers_parts {
    uv_loop_t *loop;         /* (ref) */
    const char *conf_path;   /* (ref) passed to every worker */
    int stats_fd;            /* (ref) the page of counters */
    bool stats_inherited;    /* adopted workers count in it, too */
    struct sockets *sockets; /* (ref) */
    /* Called when all workers of the newest generation are ready, and when a worker has exited, hung or
     * recovered. */
    void (*on_change)(void *ctx);
    /* The status server requests a page, which on_page sends to `control`. */
    void (*on_page)(void *ctx, unsigned page, int control);
    void *ctx;
};

/* Adopts the workers that the environment lists (workers_hand_over). */
struct workers *workers_new(struct workers_parts parts);

/* Kills the status server, but does not stop workers that still run. NULL is allowed. */
void workers_free(struct workers *workers);

/* Opens the sockets of a configuration that are not open yet; -1 with *ret_error (allocated). */
MUST_CHECK int workers_open_sockets(struct workers *workers, const struct conf *conf, char **ret_error);

/* Starts a new generation with the configuration `conf` (ref). `files` is what its workers inherit; `workers`
 * owns it from here on. */
void workers_start(struct workers *workers, const struct conf *conf, struct files_image files);

/* Starts a child process, which the caller must wait for, as libuv does not: executes args[0], and the child's
 * descriptor i is a copy of fds[i], or /dev/null where that is -1. Variables meant for the master alone are
 * removed from its environment. Returns the pid, or a negative error of libuv. */
MUST_CHECK int workers_spawn(uv_loop_t *loop, const char *const *args, const int *fds, int n_fds);

/* Stops every worker gracefully and starts no more. The status server stays, so that operators can watch the
 * workers drain. */
void workers_stop(struct workers *workers);

/* Lists the workers in the environment, and keeps their control descriptors open for the next program. */
void workers_hand_over(const struct workers *workers);

/* A child process has exited with this status of waitpid(2). It may not be a worker. */
void workers_exited(struct workers *workers, int pid, int status);

/* The path that this program was started from. (ref) */
const char *workers_program(const struct workers *workers);

int workers_ready(const struct workers *workers);        /* workers that accept requests */
int workers_hung(const struct workers *workers);         /* workers whose loop is blocked */
bool workers_is_empty(const struct workers *workers);    /* no worker is left, not even a leaving one */
bool workers_is_complete(const struct workers *workers); /* all of the newest generation are ready */

/* Whether workers of the newest generation die before it is complete, so that it may never be. */
bool workers_is_stuck(const struct workers *workers);

enum worker_state { WORKER_STARTING, WORKER_READY_TO_SERVE, WORKER_HUNG, WORKER_LEAVING };

struct worker_info {
    int index; /* of its socket */
    int pid;
    int slot; /* of its counters; -1: unknown */
    enum worker_state state;
    int64_t uptime_ms;
};

/* The i-th worker, the oldest first. Returns false after the last. */
bool workers_info(const struct workers *workers, size_t i, struct worker_info *ret);

#endif
