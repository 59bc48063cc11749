/* attempt: gets the state of one task from an upstream, with one query or more.
 *
 * A further query follows if another key may know the task, or if the provider returns the result of a task
 * in a second answer. */
#ifndef ATTEMPT_H
#define ATTEMPT_H

#include "task/route.h"
#include "upstream/upstream.h"

struct attempt;

struct attempt_end {
    enum outcome outcome;
    struct snapshot *snapshot; /* OUTCOME_OK; (ref) during the callback */
    int64_t retry_after_ms;    /* 0: unknown */
    bool sent;                 /* false: the last query was not sent, so it is not charged */
};

struct attempt_order {
    const uv_loop_t *loop;          /* (ref) */
    struct upstreams *upstreams;    /* (ref) this and all (ref) below outlive the attempt */
    const struct conf_cache *cache; /* (ref) the rules for snapshots */
    const struct task *task;        /* (ref) */
    const struct team *team;        /* (ref) the team whose share it uses; NULL: no team */
    const struct snapshot *last;    /* (ref) the newest known so far; NULL: none */

    /* As in struct upstream_query. After on_turn has returned false, call attempt_resume or
     * attempt_cancel. */
    void (*on_queued)(void *ctx);
    bool (*on_turn)(void *ctx);

    /* Charges a further query. Returns false if the quota has none left, unless the query is required. */
    bool (*pay)(void *ctx, bool required);
    void (*on_end)(void *ctx, const struct attempt_end *end); /* the attempt frees itself afterwards */
    void *ctx;                                                /* passed to all functions */
};

/* Exactly one call of on_end comes, later, unless the attempt is cancelled. */
struct attempt *attempt_start(const struct attempt_order *order);
void attempt_cancel(struct attempt *attempt);
void attempt_resume(struct attempt *attempt);

/* Another team waits for the task, too: its share is used from now on if fewer queries wait there. Returns true if
 * it is. */
bool attempt_join(struct attempt *attempt, const struct team *team);

#endif
