/* crew: the worker processes - started, watched, replaced, retired.
 *
 * Each worker has a place with a listening socket that outlives it. A generation is the workers of one
 * configuration: the older ones are told to leave once all of the newest are ready. */
#ifndef CREW_H
#define CREW_H

#include <uv.h>

#include "conf.h"
#include "health.h"
#include "sockets.h"

enum { CREW_MAX = 64 };

struct crew;

struct crew_parts {
    uv_loop_t *loop;         /* (ref) */
    const char *conf_path;   /* (ref) handed to every worker */
    int stats_fd;            /* (ref) the page of counters */
    struct sockets *sockets; /* (ref) */
    /* All workers of the newest generation are ready, or a worker has ended, hangs, or hangs no more. */
    void (*on_change)(void *ctx);
    void *ctx;
};

struct crew *crew_new(struct crew_parts parts);

/* Its workers have ended, or are left alone; the sockets go. NULL is allowed. */
void crew_free(struct crew *crew);

/* Opens the sockets that a configuration wants and that are not open; -1 with *ret_error (allocated). */
MUST_CHECK int crew_open_sockets(struct crew *crew, const struct conf *conf, char **ret_error);

/* Starts a new generation. `files` is what its workers inherit, and belongs to the crew from here on. */
void crew_start(struct crew *crew, const struct conf *conf, struct files_image files);

/* Tells every worker to leave; none is replaced any more. crew_kill ends those that do not listen. */
void crew_stop(struct crew *crew);
void crew_kill(struct crew *crew);

/* Workers of the newest generation die before it is complete: it may never be. */
bool crew_is_stuck(const struct crew *crew);

/* The path that this program was started from. (ref) */
const char *crew_program(const struct crew *crew);

/* Adds every worker to a list for the next program (elders.h). */
void crew_name(const struct crew *crew, struct buf *list);

/* Each of them, the oldest first; the processes alone: what is up with the whole is the caller's. */
void crew_look(const struct crew *crew, struct health *health);

int crew_size(const struct crew *crew);         /* processes, leaving ones included */
int crew_ready(const struct crew *crew);        /* workers that take requests */
int crew_hung(const struct crew *crew);         /* workers that should, but whose loop stands still */
bool crew_is_complete(const struct crew *crew); /* all of the newest generation are ready */

#endif
