/* request_metrics: see request_metrics.h.
 *
 * A series is created when it is first used; after that, counting is one addition. */
#include "request/request_metrics.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/stats.h"

enum { ROUTE_LABEL_SIZE = 120 };

/* The statuses of answers. Any other one would be counted as the last. */
static const int statuses[] = {200, 204, 304, 400, 401, 403, 404, 405, 413, 429, REQUEST_METRICS_GONE,
                               502, 503, 504, 0};

enum { STATUSES = NELEMS(statuses) };

enum result { HIT, MISS, COLLAPSED, STALE, NONE, RESULTS, HELD = RESULTS, TIMES };

static const char *const result_names[] = {[HIT] = "hit",     [MISS] = "miss", [COLLAPSED] = "collapsed",
                                           [STALE] = "stale", [NONE] = "none", [HELD] = "held"};

/* The series of one route; NULL: not used yet. */
struct line {
    int64_t *series[STATUSES][RESULTS];
};

struct request_metrics {
    const struct conf *conf; /* (ref) */
    int64_t *times[TIMES];   /* histograms */
    struct line *lines;      /* of the routes, of their webhooks, MANY and OTHER */
};

enum { MANY, OTHER, FURTHER_LINES };

struct request_metrics *request_metrics_new(const struct conf *conf)
{
    struct request_metrics *t = xcalloc(1, sizeof(*t));
    t->conf = conf;
    t->lines = xcalloc(2 * conf->routes.n + FURTHER_LINES, sizeof(*t->lines));
    for (size_t i = 0; i < TIMES; i++)
        t->times[i] = stat_series(FAMILY_REQUEST_TIME, "cache", result_names[i]);
    return t;
}

void request_metrics_free(struct request_metrics *t)
{
    if (t == NULL)
        return;
    free(t->lines);
    free(t);
}

static struct line *line_of(struct request_metrics *t, const struct request_metrics_request *request)
{
    size_t n = t->conf->routes.n;
    if (request->kind == ROUTE_MANY)
        return &t->lines[2 * n + MANY];
    if (request->route == NULL)
        return &t->lines[2 * n + OTHER];
    size_t route = (size_t)(request->route - conf_route(t->conf, 0));
    return &t->lines[request->kind == ROUTE_HOOK ? n + route : route];
}

static size_t status_of(const struct request_metrics_request *request)
{
    size_t i = 0;
    while (i < STATUSES - 1 && statuses[i] != request->status)
        i++;
    return i;
}

static enum result result_of(const struct request_metrics_request *request)
{
    static const enum result results[] = {
        [SOURCE_NONE] = NONE,           [SOURCE_MEMORY] = HIT,    [SOURCE_REDIS] = HIT,
        [SOURCE_COLLAPSED] = COLLAPSED, [SOURCE_UPSTREAM] = MISS, [SOURCE_STALE] = STALE};
    return results[request->source];
}

static int64_t *series_of(const struct request_metrics_request *request, size_t status, enum result result)
{
    const struct conf_route *route = request->route;
    char code[16] = "other", path[ROUTE_LABEL_SIZE] = "other";
    if (request->kind == ROUTE_MANY)
        snprintf(path, sizeof(path), "/v1/tasks");
    else if (route != NULL && request->kind == ROUTE_HOOK)
        snprintf(path, sizeof(path), "/v1/hooks/%s", route->provider->name);
    else if (route != NULL)
        snprintf(path, sizeof(path), "%s", route->path.text);
    if (statuses[status] != 0)
        snprintf(code, sizeof(code), "%d", statuses[status]);
    return stat_series(FAMILY_ANSWERED, "route", path, "provider", route ? route->provider->name : "", "code",
                       code, "cache", result_names[result]);
}

void request_metrics_count(struct request_metrics *t, const struct request_metrics_request *request)
{
    size_t status = status_of(request);
    enum result result = result_of(request);
    int64_t **series = &line_of(t, request)->series[status][result];
    if (*series == NULL)
        *series = series_of(request, status, result);
    series_add(*series, 1);
    series_observe(t->times[request->held ? HELD : result], request->ns);
}

void request_metrics_read(const struct shm_counters *sum, struct request_metrics_reading *ret)
{
    int64_t results[RESULTS] = {0};
    char label[32];
    *ret = (struct request_metrics_reading){0};
    for (size_t at = 0; at < sum->n; at++) {
        if (!shm_counters_key_is(sum->keys[at], "requests_total"))
            continue;
        ret->requests += sum->values[at];
        for (size_t i = 0; i < RESULTS; i++) {
            snprintf(label, sizeof(label), "cache=\"%s\"", result_names[i]);
            results[i] += strstr(sum->keys[at], label) != NULL ? sum->values[at] : 0;
        }
    }
    ret->hits = results[HIT];
    ret->misses = results[MISS];
    ret->collapsed = results[COLLAPSED];
    ret->stale = results[STALE];
}
