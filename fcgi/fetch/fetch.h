/* fetch: one question to the outside about one task - to Redis, and to the upstream. */
#ifndef FETCH_H
#define FETCH_H

#include "access/quota.h"
#include "task/cache.h"
#include "task/problem.h"
#include "fetch/lease.h"
#include "upstream/attempt.h"

struct fetch;

/* What all fetches of a worker work with. All (ref), and outlive them. */
struct fetch_parts {
    uint64_t *n_sent; /* numbers the queries to the upstreams */
    uv_loop_t *loop;
    const struct conf *conf;
    struct lease *lease;
    struct upstreams *upstreams;
    struct cache *cache; /* keeps the snapshots that are fetched */
};

/* What a fetch came to. All (ref) during the callback. */
struct fetch_result {
    const struct task *task;
    struct snapshot *snapshot; /* a fresh one, or NULL with a problem */
    struct snapshot *last;     /* with a problem: an older one that may stand in, or NULL */
    bool from_redis;
    bool stored; /* kept in memory */
    enum problem problem;
    bool doubted;           /* TASK_NOT_FOUND: of a task that was seen before, so not believed yet */
    int64_t retry_after_ms; /* with a problem; 0: unknown */
    uint64_t query;         /* the number of the query that was sent for it; 0: none was */
};

typedef void fetch_end(void *ctx, const struct fetch_result *result);

/* What is to be fetched, and for whom. */
struct fetch_order {
    const struct task *task; /* (ref) during fetch_begin */
    bool anew;               /* only an ended task, or a query that is sent from now on, will do */
    struct quota *payer;     /* (ref) whose queries these are; NULL: nobody's */
    /* Where that one has none left: someone else who wants the task. False: nobody who has. */
    bool (*next_payer)(void *ctx, int64_t now_ms, struct quota **ret_payer);
    fetch_end *on_end;
    void *ctx; /* of the two */
};

/* Begins a fetch, which frees itself after the one call of `on_end`, which comes later. It belongs to the present trace. */
struct fetch *fetch_begin(const struct fetch_parts *parts, const struct fetch_order *order);

/* News of its task from another worker: it may end from within. */
void fetch_hear(struct fetch *fetch, const struct news *news);

/* Ends it without a callback. */
void fetch_abandon(struct fetch *fetch);

#endif
