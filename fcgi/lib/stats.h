/* stats: counters, gauges and histograms, defined in two tables with their help texts.
 *
 * The master allocates a page of counters in shared memory: one slot for itself and one for each worker process. Only
 * that process writes its slot; the master adds up all of them. It adds the slot of a worker that has exited to its own,
 * so totals never decrease.
 *
 * A series has a key, the metric's name and labels as Prometheus writes them, and one value, or several in a row for a
 * histogram. The writer of a slot only adds series. A value is identified by its key, not by its index, so slots of
 * processes with other routes or another version of the program can be added up. A reader validates everything that it
 * reads from a slot.
 *
 * A slot also holds the tasks with the most watchers, which are written and read without locks. */
#ifndef STATS_H
#define STATS_H

#include "lib/util.h"

/* Metrics with fixed labels: X(identifier, type, metric, labels, help). Rows of one metric are adjacent. */
#define STATS(X)                                                                                             \
    X(CONNECTIONS, gauge, "connections", "", "FastCGI connections open")                                     \
    X(CONNECTIONS_REFUSED, counter, "connections_refused_total", "",                                         \
      "FastCGI connections closed for a malformed, oversized, half-sent or never-read exchange")             \
    X(UNSENT_BYTES, gauge, "unsent_bytes", "", "Memory for answers that clients have not read yet")          \
    X(REQUESTS, counter, "requests_received_total", "",                                                      \
      "FastCGI requests received, including those for status pages")                                         \
    X(REQUESTS_GONE, counter, "requests_gone_total", "",                                                     \
      "Requests whose client left before the answer or during an event stream")                              \
    X(WAITERS, gauge, "waiters", "", "Requests that wait for a fetch")                                       \
    X(STREAMS, gauge, "streams", "", "Event streams that are open")                                          \
    X(WATCHED, gauge, "watched_tasks", "", "Tasks with watchers")                                            \
    X(FETCHES, gauge, "fetches", "", "Fetches in progress")                                                  \
    X(HITS_MEMORY, counter, "cache_hits_total", "level=\"memory\"", "Fresh snapshots found, by level")       \
    X(HITS_REDIS, counter, "cache_hits_total", "level=\"redis\"", NULL)                                      \
    X(COLLAPSED, counter, "collapsed_total", "", "Requests that joined a fetch already in progress")         \
    X(SPARED, counter, "queries_spared_total", "", "Lookups answered without an upstream query")             \
    X(STALE, counter, "stale_total", "", "Answers from an old snapshot because the upstream failed")         \
    X(OVERLOADED, counter, "overloaded_total", "", "Requests refused because a limit was reached")           \
    X(REFUSED_TOKENS, counter, "credentials_refused_total", "kind=\"token\"",                                \
      "Credentials that were not valid, by kind")                                                            \
    X(REFUSED_LINKS, counter, "credentials_refused_total", "kind=\"link\"", NULL)                            \
    X(REFUSED_HOOKS, counter, "credentials_refused_total", "kind=\"hook\"", NULL)                            \
    X(REFUSALS_THROTTLED, counter, "credentials_throttled_total", "",                                        \
      "Refusals answered with 429 because the address has sent too many invalid credentials")                \
    X(UPSTREAM_CONNECTS, counter, "upstream_connections_total", "", "Connections opened to an upstream")     \
    X(KEY_RETRIES, counter, "key_retries_total", "", "Queries made again with another key")                  \
    X(UNKNOWN_STATUS, counter, "unknown_status_total", "", "Status values that no provider file lists")      \
    X(REDIS_WANTED, gauge, "redis_wanted", "", "Workers whose configuration names a Redis")                  \
    X(REDIS_UP, gauge, "redis_up", "", "Workers whose Redis connection is usable")                           \
    X(REDIS_NO_WRITES, gauge, "redis_rejecting", "reason=\"writes\"",                                        \
      "Workers whose commands or connections Redis rejects, by reason")                                      \
    X(REDIS_NO_PERMISSION, gauge, "redis_rejecting", "reason=\"permission\"", NULL)                          \
    X(REDIS_REPLICA, gauge, "redis_rejecting", "reason=\"replica\"", NULL)                                   \
    X(REDIS_PASSWORD, gauge, "redis_rejecting", "reason=\"password\"", NULL)                                 \
    X(REDIS_LISTENING, gauge, "redis_listening", "", "Workers subscribed to Redis notifications")            \
    X(REDIS_GETS, counter, "redis_commands_total", "command=\"get\"", "Commands sent to Redis")              \
    X(REDIS_PTTLS, counter, "redis_commands_total", "command=\"pttl\"", NULL)                                \
    X(REDIS_SETS, counter, "redis_commands_total", "command=\"set\"", NULL)                                  \
    X(REDIS_EVALS, counter, "redis_commands_total", "command=\"eval\"", NULL)                                \
    X(REDIS_NEWS, counter, "redis_news_total", "", "Notifications received from other workers")              \
    X(LEASES_REFUSED, counter, "leases_refused_total", "",                                                   \
      "Fetches that found another worker's lease in Redis")                                                  \
    X(REDIS_FAILURES, counter, "redis_failures_total", "", "Commands that Redis refused or did not answer")  \
    X(HOOKS_TAKEN, counter, "hooks_total", "result=\"taken\"", "Webhooks with the right secret, by result")  \
    X(HOOKS_COLLAPSED, counter, "hooks_total", "result=\"collapsed\"", NULL)                                 \
    X(HOOKS_DROPPED, counter, "hooks_total", "result=\"dropped\"", NULL)                                     \
    X(CACHE_ENTRIES, gauge, "cache_entries", "", "Snapshots in memory")                                      \
    X(CACHE_BYTES, gauge, "cache_bytes", "", "Memory used by snapshots")                                     \
    X(CACHE_EVICTIONS, counter, "cache_evictions_total", "", "Snapshots evicted to make room")               \
    X(WORKERS_READY, gauge, "workers_ready", "", "Workers that accept requests")                             \
    X(WORKER_STARTS, counter, "worker_starts_total", "", "Workers started")                                  \
    X(WORKER_DEATHS, counter, "worker_deaths_total", "", "Workers that ended unexpectedly")                  \
    X(WORKER_HANGS, counter, "worker_hangs_total", "",                                                       \
      "Workers killed because their event loop was blocked")                                                 \
    X(SOCKETS_UNSERVED, gauge, "sockets_unserved", "", "Sockets of the service manager without a worker")    \
    X(DESCRIPTORS_EXHAUSTED, gauge, "descriptors_exhausted", "",                                             \
      "Processes that are out of file descriptors")                                                          \
    X(RELOADS, counter, "reloads_total", "result=\"done\"", "Reloads, by result")                            \
    X(RELOADS_REFUSED, counter, "reloads_total", "result=\"refused\"", NULL)                                 \
    X(RELOADED_OK, gauge, "last_reload_successful", "", "Whether the last reload succeeded")                 \
    X(RELOADED_AT, gauge, "last_reload_success_timestamp_seconds", "",                                       \
      "When the current configuration, or secrets in it, was loaded")                                        \
    X(ROTATIONS, counter, "rotations_total", "result=\"done\"", "Changes of secret files, by result")        \
    X(ROTATIONS_REFUSED, counter, "rotations_total", "result=\"refused\"", NULL)                             \
    X(FILES_REFUSED, gauge, "files_refused", "",                                                             \
      "Files that are not in use as they are on the disk, because they were refused")                        \
    X(LOG_DROPPED, counter, "log_lines_dropped_total", "",                                                   \
      "Log lines dropped because standard error did not accept them")                                        \
    X(SERIES_LOST, gauge, "series_lost", "", "Processes without room for all of their series")

/* Metrics whose labels depend on the configuration, and histograms: X(identifier, type, metric, help). */
#define FAMILIES(X)                                                                                          \
    X(ANSWERED, counter, "requests_total",                                                                   \
      "Requests answered, by route, status (499: the client left) and cache result")                         \
    X(CONTENT, counter, "content_requests_total",                                                            \
      "Requests for results themselves, by provider, mode (redirect; keyed: left to nginx; none: refused) "  \
      "and status")                                                                                          \
    X(TEAM_QUERIES, counter, "team_queries_total", "Queries charged to a team")                              \
    X(TEAM_HELD, gauge, "team_held_requests", "Waits and event streams of a team that are held")             \
    X(RATE_LIMITED, counter, "rate_limited_total",                                                           \
      "Fetches and waits refused because a team has reached a limit")                                        \
    X(UPSTREAM_QUERIES, counter, "upstream_requests_total", "Queries sent to an upstream")                   \
    X(UPSTREAM_OUTCOMES, counter, "upstream_outcomes_total", "Finished queries, by outcome")                 \
    X(UPSTREAM_UNASKED, counter, "upstream_unasked_total", "Queries not sent, by reason")                    \
    X(UPSTREAM_FAILURES, counter, "upstream_failures_total", "Queries without a usable answer")              \
    X(UPSTREAM_IN_FLIGHT, gauge, "upstream_in_flight", "Queries in progress at an upstream")                 \
    X(BREAKER_OPEN, gauge, "upstream_breaker_open",                                                          \
      "Workers in which a circuit breaker for the upstream is open, for one team or more")                   \
    X(BREAKER_UNPROVEN, gauge, "upstream_breaker_unproven",                                                  \
      "Workers with an open breaker, but without a query for it in the last ten minutes")                    \
    X(KEY_REFUSALS, counter, "key_refusals_total", "Queries whose key the upstream refused")                 \
    X(KEYS_EXHAUSTED, gauge, "upstream_keys_exhausted",                                                      \
      "Workers in which every key of the upstream is suspended or paused")                                   \
    X(KEYS_REJECTED, gauge, "keys_rejected",                                                                 \
      "Workers in which the upstream has rejected the key since its last good answer")                       \
    X(KEYS_ASIDE, gauge, "keys_set_aside", "Workers that have suspended the key because it was refused")     \
    X(KEY_QUERIED_AT, gauge, "key_last_query_timestamp_seconds",                                             \
      "When the last query with the key was sent; 0: never")                                                 \
    X(KEYS_UNPROVEN, gauge, "keys_unproven",                                                                 \
      "Workers that had the key rejected, but have not used it in the last ten minutes")                     \
    X(KEYS_RESTING, gauge, "keys_resting", "Workers that rest the key because it is rate limited")           \
    X(REQUEST_TIME, histogram, "request_duration_seconds",                                                   \
      "Time to answer, by cache result (held: the client waited for a change)")                              \
    X(UPSTREAM_TIME, histogram, "upstream_duration_seconds", "Duration of queries to an upstream")           \
    X(REDIS_TIME, histogram, "redis_duration_seconds", "Duration of Redis commands")                         \
    X(REDIS_SERVERS, gauge, "redis_servers", "Workers whose commands go to this Redis server")               \
    X(LOOP_LAG, histogram, "loop_lag_seconds", "Delay of a worker's event loop, measured once a second")     \
    X(BUILD, gauge, "build_info", "The running version, as a label")

#define STATS_ID(id, type, metric, labels, help) STAT_##id,
enum stat_id { STATS(STATS_ID) STAT_COUNT };

#define FAMILY_ID(id, type, metric, help) FAMILY_##id,
enum family_id { FAMILIES(FAMILY_ID) FAMILY_COUNT };

enum stat_type { counter, gauge, histogram };

/* The values of a histogram: the counts per bucket, the count above the last bound, and the sum in
 * nanoseconds. */
enum { STAT_BOUNDS = 18, STAT_BEHIND = STAT_BOUNDS, STAT_SUM, STAT_HISTOGRAM };
extern const int64_t stat_bounds_ns[STAT_BOUNDS];

/* ---- the ten tasks with the most watchers ---- */

enum { TOP_TASKS_MAX = 10, TOP_TASKS_NAME = 64 };

/* The most watched one first. */
struct top_tasks_list {
    size_t n;
    struct {
        char
            name[TOP_TASKS_NAME]; /* "sora/task_a…": enough to recognize the task, too little to request it */
        int64_t watchers;
    } tasks[TOP_TASKS_MAX];
};

struct top_tasks_board {
    uint32_t version; /* odd during a write */
    struct top_tasks_list list;
};

/* Adds a task to the list if it is among the ten. */
void top_tasks_offer(struct top_tasks_list *list, const char *provider, const char *id, int64_t watchers);
void top_tasks_merge(struct top_tasks_list *list, const struct top_tasks_list *other);

void top_tasks_write(struct top_tasks_board *board, const struct top_tasks_list *list);

/* Returns false if the board is being written. Invalid content is truncated. */
bool top_tasks_read(const struct top_tasks_board *board, struct top_tasks_list *ret_list);

/* ---- the counters of one process ---- */

enum { SHM_COUNTERS_VALUES = 2048, SHM_COUNTERS_KEY = 248 };

struct shm_counters {
    uint32_t layout; /* SHM_COUNTERS_LAYOUT; a reader ignores any other */
    uint32_t n;      /* values in use */
    int64_t beats;   /* heartbeats */
    struct top_tasks_board board;
    int64_t values[SHM_COUNTERS_VALUES]; /* of a series with several values, only the first has a key */
    char keys[SHM_COUNTERS_VALUES][SHM_COUNTERS_KEY];
};

/* The first digit is the version of the layout. */
#define SHM_COUNTERS_LAYOUT ((uint32_t)(0x10000000u + sizeof(struct shm_counters)))

/* Removes all series. Memory after the values in use may contain anything. */
void shm_counters_reset(struct shm_counters *counters);

/* The index of a series' first value; creates the series if needed. `guess` is the index to check first.
 * SHM_COUNTERS_VALUES if the slot is full or the key is too long. */
size_t shm_counters_series(struct shm_counters *counters, const char *key, size_t width, size_t guess);

/* The number of values of the series at that index. */
size_t shm_counters_width(const struct shm_counters *counters, size_t at);

/* Whether a key belongs to the metric. */
bool shm_counters_key_is(const char *key, const char *metric);

enum shm_counters_part {
    SHM_COUNTERS_ALL,
    SHM_COUNTERS_TOTALS /* counters, whose names end in "_total", histograms, and times */
};

/* Adds the values of another slot to those with the same keys; of times, whose names end in "_timestamp_seconds", the
 * latest one remains. False if there was no room for all of them. */
bool shm_counters_fold(struct shm_counters *into, const struct shm_counters *from,
                       enum shm_counters_part part);

/* Each slot has one writer, so a relaxed atomic store is enough. */
static inline void shm_counters_add(struct shm_counters *counters, size_t at, int64_t n)
{
    __atomic_store_n(&counters->values[at], counters->values[at] + n, __ATOMIC_RELAXED);
}

/* ---- the page ---- */

/* Slots of the page: one for the master, and enough for two generations of workers during a reload. */
enum { STATS_SLOTS = 256, STATS_MASTER_SLOT = 0 };

/* Creates the page; returns a file descriptor to pass to workers, or a negative errno. */
MUST_CHECK int stats_create(void);

/* Maps the slot for this process; the master maps all of them. Counts made before are lost. */
MUST_CHECK int stats_attach(int fd, int slot);

/* For the master after an upgrade: maps the page of the previous program and continues its totals. Returns a
 * negative errno if the descriptor is not such a page, or has another layout. */
MUST_CHECK int stats_adopt(int fd);

void stat_add(enum stat_id which, int64_t n);
void stat_set(enum stat_id which, int64_t value);
int64_t stat_get(enum stat_id which);

/* Counts a heartbeat of this process's loop; returns the heartbeats of the process with that slot. */
void stats_beat(void);
int64_t stats_beats(int slot);

/* A series of a family: stat_series(FAMILY_X, "label", value, "label", value), or (FAMILY_X, NULL) without
 * labels. The lookup compares text, so frequent callers keep the pointer. If the slot is full, updates of the
 * series are lost, and STAT_SERIES_LOST is set. */
#define stat_series(family, ...) stat_series_of(family, (const char *const[]){__VA_ARGS__, NULL})
int64_t *stat_series_of(enum family_id family, const char *const *labels) NEVER_NULL;

/* For the master: adds the slot's totals to its own and drops its gauges; the slot can be used again. */
void stats_fold(int slot);

/* The sums over all slots, or the values of one (-1: zeros); `ret` may be uninitialized. */
void stats_sum(struct shm_counters *ret);
void stats_sum_of(int slot, struct shm_counters *ret);

/* A value of a sum. */
int64_t stat_read(const struct shm_counters *sum, enum stat_id which);
#define series_read(sum, family, ...) series_read_of(sum, family, (const char *const[]){__VA_ARGS__, NULL})
int64_t series_read_of(const struct shm_counters *sum, enum family_id family, const char *const *labels);

/* Publishes this process's most watched tasks; returns those of all processes. */
void stats_publish_watched(const struct top_tasks_list *list);
void stats_watched(struct top_tasks_list *ret);

static inline void series_set(int64_t *series, int64_t value)
{
    __atomic_store_n(series, value, __ATOMIC_RELAXED);
}

static inline void series_add(int64_t *series, int64_t n)
{
    series_set(series, *series + n);
}

/* Adds an observation to a histogram. */
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
