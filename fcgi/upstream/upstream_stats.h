/* upstream_stats: what is counted of one upstream and of its keys.
 *
 * Every query that is sent ends in one way, so what was sent is what has ended and what is in flight. */
#ifndef UPSTREAM_STATS_H
#define UPSTREAM_STATS_H

#include "config/conf.h"
#include "upstream/keypool.h"
#include "lib/shm_counters.h"

/* X(how a query ends, its label) */
#define UPSTREAM_ENDS(X)                                                                                     \
    X(END_OK, "ok")           /* with news of the task */                                                    \
    X(END_MISSING, "missing") /* the upstream knows no such task */                                          \
    X(END_REFUSED, "refused") /* it refuses the key */                                                       \
    X(END_BUSY, "busy")       /* we ask too often */                                                         \
    X(END_ERROR, "error")     /* it answered with a failure of its own */                                    \
    X(END_INVALID, "invalid") /* the answer is of no use */                                                  \
    X(END_TIMEOUT, "timeout")                                                                                \
    X(END_FAILED, "failed")             /* no connection, or a broken one */                                 \
    X(END_OUT_OF_MEANS, "out_of_means") /* we have no descriptor left */                                     \
    X(END_CANCELLED, "cancelled")       /* we are leaving */

#define UPSTREAM_END_ID(id, label) id,
enum upstream_end { UPSTREAM_ENDS(UPSTREAM_END_ID) UPSTREAM_END_COUNT };

/* Why a query was not sent. */
enum upstream_unasked { UNASKED_NO_KEY, UNASKED_HELD, UNASKED_QUEUED, UPSTREAM_UNASKED_COUNT };

struct key_stats {
    int64_t *refusals, *aside, *resting;
};

/* Series, as stat_series gives them. */
struct upstream_stats {
    int64_t *queries, *failures, *in_flight, *breaker_open;
    int64_t *ends[UPSTREAM_END_COUNT];
    int64_t *unasked[UPSTREAM_UNASKED_COUNT];
    int64_t *time;
    struct key_stats *keys; /* as many as the pool has */
};

void upstream_stats_init(struct upstream_stats *stats, const struct conf_upstream *conf,
                         const struct keypool *pool);
void upstream_stats_done(struct upstream_stats *stats);

/* A query that is sent, and one that has ended. */
void upstream_stats_sent(struct upstream_stats *stats);
void upstream_stats_left(struct upstream_stats *stats, int64_t took_ns);

/* What one came to. */
void upstream_stats_end(struct upstream_stats *stats, enum upstream_end end);

/* Keys that rest at that moment, in the pool's time. */
void upstream_stats_resting(struct upstream_stats *stats, const struct keypool *pool, int64_t now_ms);

/* What all workers together have counted, in a sum of stats.h. */
struct upstream_reading {
    int64_t queries, failures, in_flight, breaker_open;
};

struct key_reading {
    const char *name; /* (ref) */
    char mark[KEY_MARK_SIZE];
    int64_t refusals, aside, resting;
};

void upstream_stats_read(const struct conf_upstream *conf, const struct shm_counters *sum,
                         struct upstream_reading *ret);
void upstream_stats_read_key(const struct conf_upstream *conf, size_t i, const struct shm_counters *sum,
                             struct key_reading *ret);

#endif
