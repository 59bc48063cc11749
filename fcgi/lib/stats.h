/* stats: counters, gauges and histograms, in two tables with their meaning beside them.
 *
 * They live in memory that the master makes: one sheet (shm_counters.h) for each worker process, written by that process alone.
 * The master adds up the sheets, and folds that of a worker that has ended into its own, so that a sum never goes
 * back when a worker is replaced. */
#ifndef STATS_H
#define STATS_H

#include "lib/shm_counters.h"

/* What is counted in one way only: X(identifier, type, metric, labels, help) - rows of one metric stand together. */
#define STATS(X)                                                                                             \
    X(CONNECTIONS, gauge, "connections", "", "FastCGI connections open")                                     \
    X(CONNECTIONS_REFUSED, counter, "connections_refused_total", "",                                         \
      "FastCGI connections closed for a malformed, oversized, half-sent or never-read exchange")             \
    X(REQUESTS, counter, "requests_received_total", "",                                                      \
      "FastCGI requests taken in, the operator's included")                                                  \
    X(REQUESTS_GONE, counter, "requests_gone_total", "",                                                     \
      "Requests whose client left before the answer or during an event stream")                              \
    X(WAITERS, gauge, "waiters", "", "Requests that wait for a fetch")                                       \
    X(STREAMS, gauge, "streams", "", "Event streams that are open")                                          \
    X(WATCHED, gauge, "watched_tasks", "", "Tasks that somebody watches")                                    \
    X(FETCHES, gauge, "fetches", "", "Fetches under way")                                                    \
    X(HITS_MEMORY, counter, "cache_hits_total", "level=\"memory\"", "Fresh snapshots found, by level")       \
    X(HITS_REDIS, counter, "cache_hits_total", "level=\"redis\"", NULL)                                      \
    X(COLLAPSED, counter, "collapsed_total", "", "Requests that joined a fetch already under way")           \
    X(SPARED, counter, "queries_spared_total", "",                                                           \
      "Questions about a task that were answered without a query of their own")                              \
    X(STALE, counter, "stale_total", "", "Answers from an old snapshot because the upstream failed")         \
    X(OVERLOADED, counter, "overloaded_total", "", "Requests refused because a limit was reached")           \
    X(LIMITED_QUERIES, counter, "rate_limited_total", "limit=\"queries\"",                                   \
      "Fetches and waits refused because a team has used up what it has")                                    \
    X(LIMITED_WATCHERS, counter, "rate_limited_total", "limit=\"watchers\"", NULL)                           \
    X(UPSTREAM_CONNECTS, counter, "upstream_connections_total", "", "Connections opened to an upstream")     \
    X(KEY_RETRIES, counter, "key_retries_total", "", "Queries made again with another key")                  \
    X(UNKNOWN_STATUS, counter, "unknown_status_total", "", "Status values that no provider file lists")      \
    X(REDIS_WANTED, gauge, "redis_wanted", "", "Workers whose configuration names a Redis")                  \
    X(REDIS_UP, gauge, "redis_up", "", "Workers whose Redis connection is usable")                           \
    X(REDIS_REJECTED, gauge, "redis_auth_rejected", "", "Workers whose password Redis rejects")              \
    X(REDIS_LISTENING, gauge, "redis_listening", "", "Workers that hear what others publish")                \
    X(REDIS_GETS, counter, "redis_commands_total", "command=\"get\"", "Commands sent to Redis")              \
    X(REDIS_SETS, counter, "redis_commands_total", "command=\"set\"", NULL)                                  \
    X(REDIS_EVALS, counter, "redis_commands_total", "command=\"eval\"", NULL)                                \
    X(REDIS_NEWS, counter, "redis_news_total", "", "Messages heard from other workers")                      \
    X(LEASES_REFUSED, counter, "leases_refused_total", "",                                                   \
      "Questions that another worker was asking already, by way of Redis")                                   \
    X(REDIS_FAILURES, counter, "redis_failures_total", "", "Commands that Redis refused or did not answer")  \
    X(HOOKS_TAKEN, counter, "hooks_total", "result=\"taken\"", "Webhooks with the right secret, by result")  \
    X(HOOKS_COLLAPSED, counter, "hooks_total", "result=\"collapsed\"", NULL)                                 \
    X(HOOKS_DROPPED, counter, "hooks_total", "result=\"dropped\"", NULL)                                     \
    X(CACHE_ENTRIES, gauge, "cache_entries", "", "Snapshots in memory")                                      \
    X(CACHE_BYTES, gauge, "cache_bytes", "", "Memory that the snapshots take")                               \
    X(CACHE_EVICTIONS, counter, "cache_evictions_total", "", "Snapshots pushed out by newer ones")           \
    X(WORKERS_READY, gauge, "workers_ready", "", "Workers that take requests")                               \
    X(WORKER_STARTS, counter, "worker_starts_total", "", "Workers started")                                  \
    X(WORKER_DEATHS, counter, "worker_deaths_total", "", "Workers that ended without having been told to")   \
    X(WORKER_HANGS, counter, "worker_hangs_total", "", "Workers killed because their loop stood still")      \
    X(RELOADS, counter, "reloads_total", "result=\"done\"", "Reloads, by result")                            \
    X(RELOADS_REFUSED, counter, "reloads_total", "result=\"refused\"", NULL)                                 \
    X(RELOADED_OK, gauge, "last_reload_successful", "", "Whether the last reload was taken")                 \
    X(RELOADED_AT, gauge, "last_reload_success_timestamp_seconds", "",                                       \
      "When the configuration in force was read, or secrets in it")                                          \
    X(ROTATIONS, counter, "rotations_total", "result=\"done\"",                                              \
      "Times that secrets had changed on the disk, by what came of it")                                      \
    X(ROTATIONS_REFUSED, counter, "rotations_total", "result=\"refused\"", NULL)                             \
    X(SERIES_LOST, counter, "series_lost_total", "", "Counts lost because there are too many series")

/* What is counted by labels that the configuration makes, and how long things take: X(identifier, type, metric, help). */
#define FAMILIES(X)                                                                                          \
    X(ANSWERED, counter, "requests_total",                                                                   \
      "Requests answered, by what was asked for, status (499: the client left) and result of the cache")     \
    X(UPSTREAM_QUERIES, counter, "upstream_requests_total", "Queries sent to an upstream")                   \
    X(UPSTREAM_OUTCOMES, counter, "upstream_outcomes_total",                                                 \
      "Queries that have ended, by what they came to")                                                       \
    X(UPSTREAM_UNASKED, counter, "upstream_unasked_total",                                                   \
      "Queries that were wanted and not sent, by reason")                                                    \
    X(UPSTREAM_FAILURES, counter, "upstream_failures_total", "Queries that brought no usable answer")        \
    X(UPSTREAM_IN_FLIGHT, gauge, "upstream_in_flight", "Queries under way at an upstream")                   \
    X(BREAKER_OPEN, gauge, "upstream_breaker_open", "Workers that ask the upstream only now and then")       \
    X(KEY_REFUSALS, counter, "key_refusals_total", "Queries whose key the upstream refused")                 \
    X(KEYS_ASIDE, gauge, "keys_set_aside", "Workers that do not use the key because it was refused")         \
    X(KEYS_RESTING, gauge, "keys_resting", "Workers that let the key rest because it was used too often")    \
    X(REQUEST_TIME, histogram, "request_duration_seconds",                                                   \
      "Time that answers took, by result of the cache (held: the client waited for news)")                   \
    X(UPSTREAM_TIME, histogram, "upstream_duration_seconds", "Time that queries to an upstream took")        \
    X(REDIS_TIME, histogram, "redis_duration_seconds", "Time that answers of Redis took")                    \
    X(LOOP_LAG, histogram, "loop_lag_seconds", "How late a worker's loop was, looked at once a second")      \
    X(BUILD, gauge, "build_info", "The version that runs, as a label")

#define STATS_ID(id, type, metric, labels, help) STAT_##id,
enum stat_id { STATS(STATS_ID) STAT_COUNT };

#define FAMILY_ID(id, type, metric, help) FAMILY_##id,
enum family_id { FAMILIES(FAMILY_ID) FAMILY_COUNT };

enum stat_type { counter, gauge, histogram };

/* The values of a histogram: as many as fell between each bound and the one before, those behind the last, and the sum of
 * all, in nanoseconds. */
enum { STAT_BOUNDS = 18, STAT_BEHIND = STAT_BOUNDS, STAT_SUM, STAT_HISTOGRAM };
extern const int64_t stat_bounds_ns[STAT_BOUNDS];

/* Sheets of the page: the master's own, and the workers of two generations during a reload. */
enum { STATS_SLOTS = 256, STATS_MASTER_SLOT = 0 };

/* Makes the page; a file descriptor to hand to the workers, or a negative errno. */
MUST_CHECK int stats_create(void);

/* Maps the slot, which is this process's own from here on; the master maps them all. Until then counting is legal and
 * goes nowhere. */
MUST_CHECK int stats_attach(int fd, int slot);

/* For the master after an upgrade: maps the page that the program before it made, and counts on from its totals. A
 * negative errno if the descriptor is no such page, or of a version with another layout. */
MUST_CHECK int stats_adopt(int fd);

void stat_add(enum stat_id which, int64_t n);
void stat_set(enum stat_id which, int64_t value);
int64_t stat_get(enum stat_id which);

/* A sign of life of this process's loop; and how many the process of that slot has given. */
void stats_beat(void);
int64_t stats_beats(int slot);

/* A series of a family: stat_series(FAMILY_X, "label", value, "label", value), or (FAMILY_X, NULL) without labels. It is found by its text, so who counts
 * often keeps it. Where there is no room for one more, what is counted in it is lost, and that is counted. */
#define stat_series(family, ...) stat_series_of(family, (const char *const[]){__VA_ARGS__, NULL})
int64_t *stat_series_of(enum family_id family, const char *const *labels) NEVER_NULL;

/* For the master: the slot's totals join its own and its gauges are forgotten; it can be used again. */
void stats_fold(int slot);

/* The sums over all slots, or of one; `ret` need not be set before. */
void stats_sum(struct shm_counters *ret);
void stats_sum_of(int slot, struct shm_counters *ret);

/* What is in a sum. */
int64_t stat_read(const struct shm_counters *sum, enum stat_id which);
#define series_read(sum, family, ...) series_read_of(sum, family, (const char *const[]){__VA_ARGS__, NULL})
int64_t series_read_of(const struct shm_counters *sum, enum family_id family, const char *const *labels);

/* The tasks that are most watched: in this process, and in all. */
void stats_tell_watched(const struct top_tasks_list *list);
void stats_watched(struct top_tasks_list *ret);

static inline void series_set(int64_t *series, int64_t value)
{
    __atomic_store_n(series, value, __ATOMIC_RELAXED);
}

static inline void series_add(int64_t *series, int64_t n)
{
    series_set(series, *series + n);
}

/* Counts a time in a series that is a histogram. */
void series_observe(int64_t *series, int64_t ns);

static inline void stat_inc(enum stat_id which)
{
    stat_add(which, 1);
}

static inline void stat_dec(enum stat_id which)
{
    stat_add(which, -1);
}

#endif
