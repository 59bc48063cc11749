/* fetch: gets a new snapshot of one task, from Redis or else from the upstream, for all requests that wait for
 * it.
 *
 * There is at most one fetch per task, however many requests wait. It belongs to the worker, not to a client: a
 * client that leaves cancels nothing. */
#ifndef FETCH_H
#define FETCH_H

#include "access/quota.h"
#include "fetch/lease.h"
#include "task/cache.h"
#include "upstream/upstream.h"

struct fetches; /* of one worker, with the cache that keeps their results */
struct fetch;

/* The result of a fetch. All (ref) during the callback. */
struct fetch_result {
    const struct task *task;
    struct snapshot *snapshot; /* the new snapshot, or NULL with a problem */
    struct snapshot *last;     /* with a problem: an older one that may be served instead, or NULL */
    bool from_redis;
    bool stored; /* kept in the cache */
    enum problem problem;
    bool doubted;           /* TASK_NOT_FOUND for a task that was seen before: not confirmed yet */
    int64_t retry_after_ms; /* with a problem; 0: unknown */
    bool refusal;           /* with a problem that concerns only one team's share */
    struct quota *refused;  /* with a refusal: that team's; NULL: that of queries for no team */
    uint64_t query;         /* the number of the query that was sent for it; 0: none was */
};

/* Embedded in an object that waits for a fetch. */
struct fetch_waiter {
    struct fetch *fetch; /* (ref) NULL: does not wait */
    struct fetch_waiter *prev, *next;
    struct quota *payer; /* (ref) the quota that may be charged; NULL: none */
    int64_t charged;     /* queries charged to that quota for this waiter */
    void (*on_fetched)(struct fetch_waiter *waiter, const struct fetch_result *result);
};

/* All (ref), and outlive the fetches. */
struct fetches_parts {
    uv_loop_t *loop;
    const struct conf *conf;
    struct lease *lease;
    struct upstreams *upstreams;
};

struct fetches *fetches_new(struct fetches_parts parts);

/* Ends the fetches under way without calling their waiters. NULL is allowed. */
void fetches_free(struct fetches *fetches);

/* (ref) the cache that fetches keep their results in. */
struct cache *fetches_cache(struct fetches *fetches);

/* Receives events of all tasks. `ctx` is passed to both functions. */
struct fetches_listener {
    /* Called at the end of every fetch, after its waiters. */
    void (*on_fetched)(void *ctx, const struct fetch_result *result);
    /* Another worker has stored a new snapshot in Redis. */
    void (*on_notification)(void *ctx, const struct notification *notification);
    void *ctx;
};

void fetches_listen(struct fetches *fetches, struct fetches_listener listener);

/* Subscribes to the notifications of other workers through Redis. */
void fetches_subscribe(struct fetches *fetches);

enum fetches_join { FETCH_STARTED, FETCH_COLLAPSED, FETCH_REFUSED };

/* Waits for the fetch of a task, which is started if there is none. FETCH_REFUSED: the limit of fetches is
 * reached, and no callback follows; otherwise exactly one does, later. */
enum fetches_join fetches_join(struct fetches *fetches, const struct task *task, struct fetch_waiter *waiter);

/* Starts a fetch of a task without waiting for it, unless one is under way. With `revalidate`, only an ended task
 * or the answer to a query sent from now on is accepted. The query is charged to `payer` (NULL: no quota). */
enum fetches_join fetches_refresh(struct fetches *fetches, const struct task *task, bool revalidate,
                                  struct quota *payer);

/* The number of the last query that was sent to an upstream. */
uint64_t fetches_sent(const struct fetches *fetches);

/* Stops waiting; the fetch continues. */
void fetches_leave(struct fetch_waiter *waiter);

#endif
