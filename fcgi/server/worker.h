/* worker: one process, one thread, one loop, with its own memory, its own connection to Redis and its own
 * upstream connections. It shares nothing with other workers but Redis and the page of counters. */
#ifndef WORKER_H
#define WORKER_H

#include "config/conf.h"

/* The descriptors that a worker inherits from the master. */
enum { WORKER_FD_CONTROL = 3, WORKER_FD_LISTEN, WORKER_FD_STATS, WORKER_FD_FILES, WORKER_FD_COUNT };

/* What the worker says on its control descriptor once it takes requests. The master says nothing there; when
 * it ends, the descriptor does, and the worker leaves. */
enum { WORKER_READY = 'R' };

/* How often its loop gives a sign of life (stats_beat). */
enum { WORKER_BEAT_MS = 1000 };

/* Runs a worker until it is told to leave (TERM) and has finished what it holds; its exit status. `index` is
 * that of its socket, `slot` that of its counters, `path` the configuration's name. */
int worker_main(int index, int slot, const char *path);

/* Answers the one request of a CGI program; its exit status. */
int worker_cgi(struct conf *conf);

#endif
