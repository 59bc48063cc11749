/* poller: polls tasks while clients watch them, and at once when a webhook hints at a change.
 *
 * There is one entry per task, however many clients watch it. A watched task is polled at its interval plus
 * random jitter, so that the polls of many tasks spread out. Every fetch that brings a new snapshot is
 * reported to the task's watchers, whatever started it.
 *
 * A hint causes a poll at once; further hints for the task then wait until the provider's shortest interval
 * is over. A hint is satisfied by the answer to a query sent after the hint, or if the task has ended. A
 * failed poll is retried after a pause. While the worker drains, hints no longer wait, so that a reload loses
 * none. */
#ifndef POLLER_H
#define POLLER_H

#include <uv.h>

#include "fetch/fetch.h"

struct poller;
struct poll_entry; /* one task that is polled */

/* Embedded in an object that watches a task. */
struct watcher {
    struct poll_entry *entry; /* (ref) NULL: does not watch */
    struct watcher *prev, *next;
    struct quota *payer; /* (ref) the quota to charge; NULL: none */
    /* Called with each new snapshot; NULL: the task does not exist any more. The callback may remove this
     * watcher and others. */
    void (*on_change)(struct watcher *watcher, struct snapshot *snapshot);
    /* Called after each failed poll, and when no watcher's quota has a query left (PROBLEM_RATE_LIMITED); the next
     * attempt follows after `retry_after_ms`. It must not remove watchers. NULL is allowed. */
    void (*on_trouble)(struct watcher *watcher, enum problem problem, int64_t retry_after_ms);
};

/* All (ref), and outlive the poller. `on_idle` may be NULL. */
struct poller_parts {
    uv_loop_t *loop;
    const struct conf *conf;
    struct fetches *fetches;
    void (*on_idle)(void *ctx); /* called while draining, when the last hint is satisfied */
    void *ctx;
};

struct poller *poller_new(struct poller_parts parts);

/* Watchers are not called any more. Freed when the loop has run the closing callbacks. NULL is allowed. */
void poller_free(struct poller *poller);

/* Starts watching. `known` is the snapshot that the watcher has. It should be the newest in the cache: a
 * newer one would reach the watcher only at the next poll. */
void poller_join(struct poller *poller, const struct task *task, const struct snapshot *known,
                 struct watcher *watcher);
void poller_leave(struct watcher *watcher);

/* Records that the task may have changed. If too many tasks have hints, the hint is dropped and counted. */
void poller_hint(struct poller *poller, const struct task *task);

/* Starts draining: polls at once for all hints that wait. */
void poller_drain(struct poller *poller);

/* Whether any hint is not satisfied yet. */
bool poller_is_busy(const struct poller *poller);

#endif
