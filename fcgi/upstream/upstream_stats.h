/* upstream_stats: the metrics of one upstream and of its keys.
 *
 * Every query that is sent ends with one outcome, so the queries sent are those that ended and those in flight. */
#ifndef UPSTREAM_STATS_H
#define UPSTREAM_STATS_H

#include "config/conf.h"
#include "upstream/keypool.h"
#include "lib/stats.h"

/* Without a query for that long, a failure is unproven: the upstream may have recovered. */
enum { PROVEN_MS = 10 * 60 * 1000 };

struct key_stats {
    int64_t *refusals, *rejected, *aside, *resting, *unproven, *queried_at;
};

/* Series, as stat_series gives them. */
struct upstream_stats {
    int64_t *queries, *failures, *in_flight, *breaker_open, *breaker_unproven, *exhausted;
    int64_t *outcomes[OUTCOME_COUNT];
    int64_t *time;
    struct key_stats *keys; /* as many as the pool has */
};

void upstream_stats_init(struct upstream_stats *stats, const struct conf_upstream *conf,
                         const struct keypool *pool);
void upstream_stats_done(struct upstream_stats *stats);

void upstream_stats_sent(struct upstream_stats *stats, size_t key);
void upstream_stats_left(struct upstream_stats *stats, int64_t took_ns);

/* Counts an outcome in the metric of its kind. */
void upstream_stats_count(struct upstream_stats *stats, enum outcome outcome);

/* Sets the gauges of the keys; the time is the pool's. */
void upstream_stats_keys(struct upstream_stats *stats, const struct keypool *pool, int64_t now_ms);

/* The sums over all workers, and the time of their last query (0: never), from a sum of stats.h. */
struct key_reading {
    const char *name; /* (ref) */
    char mark[KEY_MARK_SIZE];
    int64_t refusals, rejected, aside, resting, unproven, queried_at;
};

void upstream_stats_read_key(const struct conf_upstream *conf, size_t i, const struct shm_counters *sum,
                             struct key_reading *ret);

#endif
