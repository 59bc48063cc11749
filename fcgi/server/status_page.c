/* status_page: see status_page.h. */
#include "server/status_page.h"

#include <stdlib.h>

#include "lib/stats.h"
#include "server/listing.h"
#include "request/request_metrics.h"
#include "upstream/upstream_stats.h"
#include "lib/version.h"

static void say_trouble(void *ctx, const char *trouble)
{
    struct listing *t = ctx;
    listing_row(t);
    listing_text(t, "what", trouble);
}

static void print_program(struct listing *t, const struct health *health, const struct shm_counters *total)
{
    char at[32];
    utc_text(stat_read(total, STAT_RELOADED_AT), at);
    listing_section(t, "taskproxy", false);
    listing_text(t, "version", TASKPROXY_VERSION);
    listing_number(t, "uptime_s", health->uptime_ms / 1000);
    listing_text(t, "configuration_of", at);
    listing_number(t, "reloads", stat_read(total, STAT_RELOADS));
    listing_number(t, "refused", stat_read(total, STAT_RELOADS_REFUSED));
    listing_number(t, "worker_deaths", stat_read(total, STAT_WORKER_DEATHS));
}

static void print_workers(struct listing *t, const struct health *health)
{
    static const char *const states[] = {[WORKER_STARTING] = "starting",
                                         [WORKER_READY_TO_SERVE] = "ready",
                                         [WORKER_HUNG] = "hung",
                                         [WORKER_LEAVING] = "leaving"};
    struct shm_counters *own = xcalloc(1, sizeof(*own));
    listing_section(t, "workers", true);
    for (size_t i = 0; i < health->n_workers; i++) {
        const struct worker_health *worker = &health->workers[i];
        struct request_metrics_reading metrics;
        stats_sum_of(worker->slot, own);
        request_metrics_read(own, &metrics);
        listing_row(t);
        listing_number(t, "worker", worker->index);
        listing_number(t, "pid", worker->pid);
        listing_text(t, "state", states[worker->state]);
        listing_number(t, "uptime_s", worker->uptime_ms / 1000);
        listing_number(t, "requests", metrics.requests);
    }
    free(own);
}

/* Of the questions about tasks, how many found a fresh answer; 0 when there were none. */
static double hit_ratio(const struct request_metrics_reading *metrics)
{
    int64_t asked = metrics->hits + metrics->misses + metrics->collapsed + metrics->stale;
    return asked > 0 ? (double)metrics->hits / (double)asked : 0;
}

static void print_requests(struct listing *t, const struct shm_counters *total)
{
    struct request_metrics_reading metrics;
    request_metrics_read(total, &metrics);
    listing_section(t, "requests", false);
    listing_number(t, "answered", metrics.requests);
    listing_number(t, "hits", metrics.hits);
    listing_number(t, "misses", metrics.misses);
    listing_number(t, "collapsed", metrics.collapsed);
    listing_number(t, "stale", metrics.stale);
    listing_share(t, "hit_ratio", hit_ratio(&metrics));
    listing_number(t, "queries_spared", stat_read(total, STAT_SPARED));
}

static void print_present(struct listing *t, const struct shm_counters *total)
{
    listing_section(t, "now", false);
    listing_number(t, "waiters", stat_read(total, STAT_WAITERS));
    listing_number(t, "streams", stat_read(total, STAT_STREAMS));
    listing_number(t, "watched_tasks", stat_read(total, STAT_WATCHED));
    listing_number(t, "fetches", stat_read(total, STAT_FETCHES));
    listing_number(t, "cached", stat_read(total, STAT_CACHE_ENTRIES));
    listing_number(t, "cache_bytes", stat_read(total, STAT_CACHE_BYTES));
    listing_number(t, "evictions", stat_read(total, STAT_CACHE_EVICTIONS));
    listing_number(t, "redis_up", stat_read(total, STAT_REDIS_UP));
    listing_number(t, "redis_failures", stat_read(total, STAT_REDIS_FAILURES));
}

static void print_upstreams(struct listing *t, const struct conf *conf, const struct shm_counters *total)
{
    listing_section(t, "upstreams", true);
    for (size_t i = 0; i < conf->upstreams.n; i++) {
        struct upstream_reading reading;
        upstream_stats_read(conf_upstream(conf, i), total, &reading);
        listing_row(t);
        listing_text(t, "upstream", conf_upstream(conf, i)->name);
        listing_text(t, "breaker", reading.breaker_open > 0 ? "open" : "closed");
        listing_number(t, "in_flight", reading.in_flight);
        listing_number(t, "queries", reading.queries);
        listing_number(t, "failures", reading.failures);
    }
}

static void print_keys_of(struct listing *t, const struct conf_upstream *upstream,
                          const struct shm_counters *total)
{
    for (size_t i = 0; i < upstream->keys.n; i++) {
        struct key_reading key;
        upstream_stats_read_key(upstream, i, total, &key);
        listing_row(t);
        listing_text(t, "upstream", upstream->name);
        listing_text(t, "key", key.name);
        listing_text(t, "digest", key.mark);
        listing_text(t, "state", key.aside > 0 ? "set aside" : key.resting > 0 ? "resting" : "in use");
        listing_number(t, "refusals", key.refusals);
    }
}

static void print_keys(struct listing *t, const struct conf *conf, const struct shm_counters *total)
{
    listing_section(t, "keys", true);
    for (size_t i = 0; i < conf->upstreams.n; i++)
        print_keys_of(t, conf_upstream(conf, i), total);
}

static void print_most_watched(struct listing *t)
{
    struct top_tasks_list list;
    stats_watched(&list);
    listing_section(t, "most_watched", true);
    for (size_t i = 0; i < list.n; i++) {
        listing_row(t);
        listing_text(t, "task", list.tasks[i].name);
        listing_number(t, "watchers", list.tasks[i].watchers);
    }
}

void status_page_print(const struct health *health, bool text, struct buf *out)
{
    struct shm_counters *total = xcalloc(1, sizeof(*total));
    struct listing listing;
    stats_sum(total);
    listing_open(&listing, out, text);
    print_program(&listing, health, total);
    listing_section(&listing, "troubles", true);
    health_troubles(health, total, say_trouble, &listing);
    print_workers(&listing, health);
    print_requests(&listing, total);
    print_present(&listing, total);
    print_upstreams(&listing, health->conf, total);
    print_keys(&listing, health->conf, total);
    print_most_watched(&listing);
    listing_close(&listing);
    free(total);
}
