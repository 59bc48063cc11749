/* request_metrics: counts answered requests by route, status and cache result.
 *
 * Clients cannot add label values: the routes are those of the configuration, the statuses those of the
 * program. */
#ifndef REQUEST_METRICS_H
#define REQUEST_METRICS_H

#include "request/answer.h"
#include "task/route.h"
#include "lib/stats.h"

enum { REQUEST_METRICS_GONE = 499 }; /* the status of a request whose client has left, as in nginx */

struct request_metrics;

/* `conf` (ref) outlives it. */
struct request_metrics *request_metrics_new(const struct conf *conf);
void request_metrics_free(struct request_metrics *metrics); /* NULL is allowed */

/* A request and its result. */
struct request_metrics_request {
    enum route_kind kind;
    const struct conf_route *route; /* (ref) NULL: no route, or several */
    int status;
    enum answer_source source;
    bool held;  /* the client waited for a change, so the duration says nothing about this program's speed */
    int64_t ns; /* its duration */
};

void request_metrics_count(struct request_metrics *metrics, const struct request_metrics_request *request);

/* The requests with a cache result ("hit", "miss", "collapsed", "stale"; "": any) in a sum of stats.h. */
int64_t request_metrics_read(const struct shm_counters *sum, const char *result);

#endif
