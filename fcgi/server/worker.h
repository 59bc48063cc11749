/* worker: one process, one thread, one loop, with its own cache, its own connection to Redis and its own
 * connections to the upstreams. Workers share nothing but Redis and the page of counters. */
#ifndef WORKER_H
#define WORKER_H

#include "task/route.h"

/* The descriptors that a worker inherits from the master. */
enum { WORKER_FD_CONTROL = 3, WORKER_FD_LISTEN, WORKER_FD_STATS, WORKER_FD_FILES, WORKER_FD_COUNT };

/* The first byte of a message on the control descriptor, a SOCK_SEQPACKET socket. When the master exits, the
 * socket is closed, and the worker drains. */
enum {
    WORKER_READY = 'R', /* to the master: this worker accepts requests */
    WORKER_PAGE = 'P',  /* from the status server to the master: send the page with this number */
    WORKER_HINT = 'H' /* to the master, and from it to the other workers: a webhook has named this task key */
};

enum { WORKER_MESSAGE_MAX = 1 + TASK_KEY_MAX };

/* The interval of the heartbeats of a worker's loop (stats_beat). */
enum { WORKER_BEAT_MS = 1000 };

/* Runs a worker until it has received TERM and finished its requests. Returns the exit status. `index` is
 * that of its socket, `slot` that of its counters, `path` that of the configuration. */
int worker_main(int index, int slot, const char *path);

/* Tells the master that this process accepts requests. */
void worker_report_ready(void);

/* Answers the one request of a CGI program. Returns the exit status. */
int worker_cgi(struct conf *conf);

#endif
