/* fetch: asks for one task, first Redis and then the upstream. */
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
    uint64_t *n_sent; /* numbers the queries to the upstreams */
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
    bool doubted;           /* TASK_NOT_FOUND of a task that was seen before: not believed yet */
    int64_t retry_after_ms; /* with a problem; 0: unknown */
    uint64_t query;         /* the number of the query that was sent for it; 0: none was */
};

typedef void fetch_end(void *ctx, const struct fetch_result *result);

/* What to fetch, and whose quota pays. */
struct fetch_order {
    const struct task *task; /* (ref) during fetch_begin */
    bool anew;               /* only an ended task, or a query that is sent from now on, does */
    struct quota *payer;     /* (ref) which the queries are charged to; NULL: none */
    /* Finds another payer, who waits for the task and has a query left. */
    bool (*next_payer)(void *ctx, int64_t now_ms, struct quota **ret_payer);
    fetch_end *on_end;
    void *ctx; /* of both functions */
};

/* Starts a fetch in the present trace. It calls `on_end` once, later, and then frees itself. */
struct fetch *fetch_begin(const struct fetch_parts *parts, const struct fetch_order *order);

/* Another worker has sent news of the task. The fetch may end during this call. */
void fetch_hear(struct fetch *fetch, const struct news *news);

/* Ends the fetch without a callback. */
void fetch_abandon(struct fetch *fetch);

#endif
