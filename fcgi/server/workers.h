/* workers: the worker processes - started, watched, replaced, retired.
 *
 * Each worker has a place with a listening socket that outlives it. A generation is the workers of one
 * configuration: the older ones are told to leave once all of the newest are ready. */
#ifndef WORKERS_H
#define WORKERS_H

#include <uv.h>

#include "config/conf.h"
#include "server/health.h"
#include "server/sockets.h"

struct workers;

struct workers_parts {
    uv_loop_t *loop;         /* (ref) */
    const char *conf_path;   /* (ref) handed to every worker */
    int stats_fd;            /* (ref) the page of counters */
    struct sockets *sockets; /* (ref) */
    /* All workers of the newest generation are ready, or a worker has ended, hangs, or hangs no more. */
    void (*on_change)(void *ctx);
    void *ctx;
};

struct workers *workers_new(struct workers_parts parts);

/* Its workers have ended, or are left alone; the sockets go. NULL is allowed. */
void workers_free(struct workers *workers);

/* Opens the sockets that a configuration wants and that are not open; -1 with *ret_error (allocated). */
MUST_CHECK int workers_open_sockets(struct workers *workers, const struct conf *conf, char **ret_error);

/* Starts a new generation. `files` is what its workers inherit, and belongs to the workers from here on. */
void workers_start(struct workers *workers, const struct conf *conf, struct files_image files);

/* Tells every worker to leave; none is replaced any more. workers_kill ends those that do not listen. */
void workers_stop(struct workers *workers);
void workers_kill(struct workers *workers);

/* Workers of the newest generation die before it is complete: it may never be. */
bool workers_is_stuck(const struct workers *workers);

/* The path that this program was started from. (ref) */
const char *workers_program(const struct workers *workers);

/* Adds every worker to a list for the next program (elders.h). */
void workers_name(const struct workers *workers, struct buf *list);

/* Each of them, the oldest first; the processes alone: what is up with the whole is the caller's. */
void workers_look(const struct workers *workers, struct health *health);

int workers_size(const struct workers *workers);  /* processes, leaving ones included */
int workers_ready(const struct workers *workers); /* workers that take requests */
int workers_hung(const struct workers *workers);  /* workers that should, but whose loop stands still */
bool workers_is_complete(const struct workers *workers); /* all of the newest generation are ready */

#endif
