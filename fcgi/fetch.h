/* fetch: one question to the outside about one task, and all who wait for its answer.
 *
 * A fetch belongs to the worker, not to a client: a client that leaves cancels nothing. Any number of waiters
 * share one Redis GET and one upstream query. */
#ifndef FETCH_H
#define FETCH_H

#include "memory.h"
#include "problem.h"
#include "shared.h"
#include "upstream.h"

struct fetches; /* those under way, and what was brought home */
struct fetch;

/* What a fetch came to. (ref) during the callback. */
struct fetch_result {
    struct snapshot *snapshot; /* a fresh one, or NULL with a problem */
    struct snapshot *last;     /* with a problem: an older one that may stand in, or NULL */
    bool from_redis;
    bool stored; /* kept in memory */
    enum problem problem;
    bool doubted;           /* TASK_NOT_FOUND: of a task that was seen before, so not believed yet */
    int64_t retry_after_ms; /* with a problem; 0: unknown */
};

/* Embedded in whoever waits. */
struct fetch_waiter {
    struct fetch *fetch; /* (ref) NULL: does not wait */
    struct fetch_waiter *prev, *next;
    void (*on_fetched)(struct fetch_waiter *waiter, const struct fetch_result *result);
};

struct fetches_parts {
    uv_loop_t *loop;             /* (ref) */
    const struct conf *conf;     /* (ref) all of these outlive the fetches */
    struct shared *shared;       /* (ref) */
    struct upstreams *upstreams; /* (ref) */
};

struct fetches *fetches_new(struct fetches_parts parts);

/* Fetches under way end; their waiters are not called. NULL is allowed. */
void fetches_free(struct fetches *fetches);

/* Where fetches keep what they bring home. (ref) */
struct memory *fetches_memory(struct fetches *fetches);

/* Who wants to know what becomes of tasks; `ctx` is handed to both. */
struct fetch_listener {
    /* At the end of every fetch, after its waiters. */
    void (*on_fetched)(void *ctx, const struct task *task, const struct fetch_result *result);
    /* Another worker has fetched that task. True when the listener has taken care of it. */
    bool (*on_news)(void *ctx, const struct news *news);
    void *ctx;
};

void fetches_listen(struct fetches *fetches, struct fetch_listener listener);

/* Hears from other workers, over Redis, from here on. */
void fetches_hear(struct fetches *fetches);

enum fetch_join { FETCH_STARTED, FETCH_COLLAPSED, FETCH_REFUSED };

/* Waits for the fetch of a task, which is begun when there is none. FETCH_REFUSED: the limit of fetches is
 * reached, and no callback will come; otherwise exactly one will, later. */
enum fetch_join fetch_join(struct fetches *fetches, const struct task *task, struct fetch_waiter *waiter);

/* Fetches a task with nobody waiting. A fetch that is begun for it takes nothing that was known before
 * `since_ms`, however fresh; 0: it does. */
enum fetch_join fetch_refresh(struct fetches *fetches, const struct task *task, int64_t since_ms);

/* Waits no longer; the fetch goes on. */
void fetch_leave(struct fetch_waiter *waiter);

#endif
