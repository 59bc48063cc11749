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
static const int statuses[] = {
    200, 204, 302, 304, 400, 401, 403, 404, 405, 409, 410, 413, 422, 429, REQUEST_METRICS_GONE,
    501, 502, 503, 504, 0};

enum { STATUSES = NELEMS(statuses) };

enum { SOURCES = SOURCE_STALE + 1, HELD = SOURCES, TIMES };

/* The cache results, by the source of the answer. */
static const char *const results[] = {[SOURCE_NONE] = "none",
                                      [SOURCE_MEMORY] = "hit",
                                      [SOURCE_REDIS] = "hit",
                                      [SOURCE_COLLAPSED] = "collapsed",
                                      [SOURCE_UPSTREAM] = "miss",
                                      [SOURCE_STALE] = "stale",
                                      [HELD] = "held"};

/* The series of one route; NULL: not used yet. */
struct line {
    int64_t *series[STATUSES][SOURCES];
};

struct request_metrics {
    const struct conf *conf; /* (ref) */
    int64_t *times[TIMES];   /* histograms */
    struct line *lines;      /* two of each route: its own, its webhook's; two of no route: others, lists */
};

struct request_metrics *request_metrics_new(const struct conf *conf)
{
    struct request_metrics *t = xcalloc(1, sizeof(*t));
    t->conf = conf;
    t->lines = xcalloc(2 * (conf->routes.n + 1), sizeof(*t->lines));
    for (size_t i = 0; i < TIMES; i++)
        t->times[i] = stat_series(FAMILY_REQUEST_TIME, "cache", results[i]);
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
    bool second = request->kind == ROUTE_HOOK || request->kind == ROUTE_MANY;
    size_t route = t->conf->routes.n;
    if (request->route != NULL)
        route = (size_t)(request->route - conf_route(t->conf, 0));
    return &t->lines[2 * route + second];
}

static size_t status_of(const struct request_metrics_request *request)
{
    size_t i = 0;
    while (i < STATUSES - 1 && statuses[i] != request->status)
        i++;
    return i;
}

static int64_t *series_of(const struct request_metrics_request *request, size_t status)
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
                       code, "cache", results[request->source]);
}

static void count_content(const struct request_metrics_request *request, size_t status)
{
    char code[16];
    const char *mode = request->status == 302 ? "redirect" : request->status == 200 ? "keyed" : "none";
    snprintf(code, sizeof(code), "%d", statuses[status]);
    series_add(
        stat_series(FAMILY_CONTENT, "provider", request->route->provider->name, "mode", mode, "code", code),
        1);
}

void request_metrics_count(struct request_metrics *t, const struct request_metrics_request *request)
{
    size_t status = status_of(request);
    int64_t **series = &line_of(t, request)->series[status][request->source];
    if (*series == NULL)
        *series = series_of(request, status);
    series_add(*series, 1);
    if (request->kind == ROUTE_CONTENT)
        count_content(request, status);
    series_observe(t->times[request->held ? HELD : request->source], request->ns);
}

int64_t request_metrics_read(const struct shm_counters *sum, const char *result)
{
    int64_t n = 0;
    char label[32];
    snprintf(label, sizeof(label), "cache=\"%s", result);
    for (size_t i = 0; i < sum->n; i++) {
        if (shm_counters_key_is(sum->keys[i], "requests_total") && strstr(sum->keys[i], label) != NULL)
            n += sum->values[i];
    }
    return n;
}
