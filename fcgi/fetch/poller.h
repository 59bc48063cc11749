/* poller: asks for tasks again and again while clients watch them, and at once when a webhook hints at a change.
 *
 * There is one entry a task, however many clients watch it. It is polled at its interval, a little later at random, so
 * that many tasks spread out. Watchers are told of the result of every fetch of their task, whatever started it.
 *
 * A hint is met by a query that is sent after it, or by a task that has ended. It is polled for at once; then further
 * hints for the task wait until the provider's shortest interval is over. A poll that fails is repeated after a while.
 * While the worker drains, hints do not wait any more, so that none is lost in a reload. */
#ifndef POLLER_H
#define POLLER_H

#include <uv.h>

#include "fetch/fetches.h"

struct poller;
struct poll_entry; /* one task that is polled */

/* Embedded in whatever watches a task. */
struct watcher {
    struct poll_entry *entry; /* (ref) NULL: does not watch */
    struct watcher *prev, *next;
    struct watcher **list; /* (ref) the list that it is in */
    struct quota *payer;   /* (ref) which the queries are charged to; NULL: none */
    /* Called with each new snapshot; NULL: the task does not exist any more. From within, this watcher and others may
     * leave. */
    void (*on_news)(struct watcher *watcher, struct snapshot *snapshot);
};

/* All (ref), and outlive the poller. `on_idle` may be NULL. */
struct poller_parts {
    uv_loop_t *loop;
    const struct conf *conf;
    struct fetches *fetches;
    void (*on_idle)(void *ctx); /* draining, and no hint is left to poll for */
    void *ctx;
};

struct poller *poller_new(struct poller_parts parts);

/* Watchers are not called any more. Freed when the loop has run the closing callbacks. NULL is allowed. */
void poller_free(struct poller *poller);

/* `known` is the snapshot that the watcher has. It should be the newest in the cache, or the watcher would learn of that
 * at the next poll only. */
void poller_join(struct poller *poller, const struct task *task, const struct snapshot *known,
                 struct watcher *watcher);
void poller_leave(struct watcher *watcher);

/* The task may have changed. Over a limit of tasks the hint is dropped and counted. */
void poller_hint(struct poller *poller, const struct task *task);

/* Polls for all waiting hints now. */
void poller_drain(struct poller *poller);

/* Whether hints are not met yet. */
bool poller_is_busy(const struct poller *poller);

#endif
