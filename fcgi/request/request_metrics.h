/* request_metrics: the requests that were answered, counted by what was asked for, by status and by result of the cache.
 *
 * The labels are few whatever clients do: the routes of the configuration, the statuses that there are. */
#ifndef REQUEST_METRICS_H
#define REQUEST_METRICS_H

#include "request/answer.h"
#include "task/route.h"
#include "lib/shm_counters.h"

enum { REQUEST_METRICS_GONE = 499 }; /* the status of a request whose client has left, as nginx writes it */

struct request_metrics;

/* `conf` (ref) outlives it. */
struct request_metrics *request_metrics_new(const struct conf *conf);
void request_metrics_free(struct request_metrics *metrics); /* NULL is allowed */

/* What a request was about, and what came of it. */
struct request_metrics_request {
    enum route_kind kind;
    const struct conf_route *route; /* (ref) NULL: none, or several */
    int status;
    enum answer_source source;
    bool held;  /* for news: how long says nothing of us */
    int64_t ns; /* how long it took */
};

void request_metrics_count(struct request_metrics *metrics, const struct request_metrics_request *request);

/* What was counted, in a sum of stats.h: all requests, and those about tasks by result of the cache. */
struct request_metrics_reading {
    int64_t requests;
    int64_t hits, misses, collapsed, stale;
};

void request_metrics_read(const struct shm_counters *sum, struct request_metrics_reading *ret);

#endif
