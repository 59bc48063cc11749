/* upstream: sends queries to the configured upstreams, within their limits.
 *
 * At most max_in_flight queries run at one upstream at once; the others wait in a queue, within their
 * time-out. When the turn of a query comes, its caller may first check whether it is still needed. The
 * breaker, the rate limit and the key pool can each refuse a query. Each team has a share of max_in_flight
 * and of the rate limit, and its own breaker. */
#ifndef UPSTREAM_H
#define UPSTREAM_H

#include <uv.h>

#include "config/conf.h"
#include "upstream/headers.h"
#include "upstream/http.h"
#include "upstream/upstream_stats.h"

struct upstreams;
struct upstream_call; /* one query */

/* OUTCOME_OK: the caller reads the answer. Otherwise there is none; `retry_after_ms` of HELD is the time
 * until the upstream may be queried again. The callback must call upstream_learn. */
typedef void upstream_callback(void *user, struct upstream_call *call, const struct http_answer *answer);

/* `conf` must outlive it. */
struct upstreams *upstreams_new(uv_loop_t *loop, const struct conf *conf);

/* Queries under way end without a callback. NULL is allowed. */
void upstreams_free(struct upstreams *upstreams);

struct upstream_query {
    const struct conf_route *route; /* (ref) */
    const struct team *team;        /* (ref) the team whose share it uses; NULL: no team */
    bool seen;                      /* the upstream has answered for this task before */
    const char *target;             /* (ref) during the call: a path and query string */
    struct key_choice *choice;      /* (ref) until the callback */
    /* on_queued is called before upstream_get returns if the query enters the queue, and on_turn when its
     * turn comes. on_turn returns false if the query should keep its place until upstream_resume or
     * upstream_cancel. */
    void (*on_queued)(void *turn_user);
    bool (*on_turn)(void *turn_user);
    void *turn_user; /* passed to these two */
};

/* Sends a query to the route's upstream, with the next key of the choice. The query belongs to the current
 * trace. Exactly one callback comes, later, unless the call is cancelled. */
struct upstream_call *upstream_get(struct upstreams *upstreams, const struct upstream_query *query,
                                   upstream_callback *on_answer, void *user);
void upstream_cancel(struct upstream_call *call);
void upstream_resume(struct upstream_call *call);

/* Another team needs the answer, too. A query that waits for its turn uses that team's share from now on if fewer
 * queries wait there. Returns true if it does. */
bool upstream_join(struct upstream_call *call, const struct team *team);

/* ---- in the callback ---- */

/* Counts the outcome of a query, reports it to the breaker and the key pool, and logs a new error. `why` has
 * the details, or is NULL. */
void upstream_learn(struct upstream_call *call, const struct http_answer *answer, enum outcome outcome,
                    const char *why);

/* Whether there is another key with which the query may be repeated. If not, the outcome and time to retry
 * are those of keypool_outcome. */
bool upstream_has_key(struct upstream_call *call, enum outcome *ret_outcome, int64_t *ret_retry_after_ms);

/* The secrets that were sent to the upstream; (ref) until the next loop iteration. */
void upstream_secrets(const struct upstream_call *call, struct secrets *ret_secrets);

/* Counts a status value that the provider file does not list, and logs it once. */
void upstream_note_status(struct upstream_call *call, const char *value);

/* ---- all of them ---- */

/* Updates the metrics that change by time alone. */
void upstreams_refresh_stats(struct upstreams *upstreams);

#endif
