/* fetch: gets a new snapshot of one task, from Redis or else from the upstream. */
#ifndef FETCH_H
#define FETCH_H

#include "access/quota.h"
#include "task/cache.h"
#include "task/problem.h"
#include "fetch/lease.h"
#include "upstream/attempt.h"

struct fetch;

/* Shared by all fetches of a worker. All (ref), and outlive the fetches. */
struct fetch_parts {
    uint64_t *n_sent; /* queries sent to upstreams so far; numbers them */
    uv_loop_t *loop;
    const struct conf *conf;
    struct lease *lease;
    struct upstreams *upstreams;
    struct cache *cache; /* keeps the snapshots that are fetched */
};

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
    uint64_t query;         /* the number of the query that was sent for it; 0: none was */
};

typedef void fetch_end(void *ctx, const struct fetch_result *result);

/* The task to fetch, and the quota that its queries are charged to. */
struct fetch_order {
    const struct task *task; /* (ref) during fetch_begin */
    bool anew;               /* accept only an ended task or the answer to a query sent from now on */
    struct quota *payer;     /* (ref) the quota to charge; NULL: none */
    /* Finds the quota of another waiter that has a query left. Returns false if there is none. */
    bool (*next_payer)(void *ctx, int64_t now_ms, struct quota **ret_payer);
    fetch_end *on_end;
    void *ctx; /* passed to both functions */
};

/* Starts a fetch in the present trace. It calls `on_end` once, later, and then frees itself. */
struct fetch *fetch_begin(const struct fetch_parts *parts, const struct fetch_order *order);

/* Passes on news of the task from another worker. The fetch may end during this call. */
void fetch_hear(struct fetch *fetch, const struct news *news);

/* Ends the fetch without a callback. */
void fetch_abandon(struct fetch *fetch);

#endif
