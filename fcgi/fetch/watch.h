/* watch: tasks that clients want to be told about - one schedule a task, however many watch it.
 *
 * While anyone watches a task it is fetched at its interval, a little later at random, so that many tasks
 * spread out; when the last one leaves, no more. News come from any fetch of the task, whoever began it. */
#ifndef WATCH_H
#define WATCH_H

#include <uv.h>

#include "fetch/fetches.h"

struct watches;
struct watch;

/* Embedded in whoever watches. */
struct watcher {
    struct watch *watch; /* (ref) NULL: does not watch */
    struct watcher *prev, *next;
    struct quota *payer;   /* (ref) whose queries these are; NULL: nobody's */
    struct watcher **list; /* the list it is in */
    /* News: a snapshot, or NULL when the task turns out not to exist. The watcher may leave, and so may
     * others. */
    void (*on_news)(struct watcher *watcher, struct snapshot *snapshot);
};

/* Both (ref), and outlive the watches. */
struct watches *watches_new(uv_loop_t *loop, struct fetches *fetches);

/* Watchers are forgotten. Freed when the loop has run its closing callbacks. NULL is allowed. */
void watches_free(struct watches *watches);

/* `known` is what the watcher knows of the task already. */
void watch_join(struct watches *watches, const struct task *task, const struct snapshot *known,
                struct watcher *watcher);
void watch_leave(struct watcher *watcher);

#endif
