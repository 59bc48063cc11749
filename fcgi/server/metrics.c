/* metrics: see metrics.h. */
#include "server/metrics.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/stats.h"

struct metric {
    enum stat_type type;
    const char *name;
    const char *help; /* NULL: another row of the metric above */
};

#define ROW_METRIC(id, type, metric, labels, help) {type, metric, help},
#define FAMILY_METRIC(id, type, metric, help)      {type, metric, help},
static const struct metric metrics[] = {STATS(ROW_METRIC) FAMILIES(FAMILY_METRIC)};

/* Adds the label "le" to those of the key. */
static void print_bucket(const char *key, const char *bound, long long sum, struct buf *out)
{
    size_t name = strcspn(key, "{"), len = strlen(key);
    buf_addf(out, "taskproxy_%.*s_bucket{", (int)name, key);
    if (name + 2 < len)
        buf_addf(out, "%.*s,", (int)(len - name - 2), key + name + 1);
    buf_addf(out, "le=\"%s\"} %lld\n", bound, sum);
}

static void print_histogram(const char *key, const int64_t *values, struct buf *out)
{
    char bound[32];
    long long sum = 0;
    int name = (int)strcspn(key, "{");
    for (size_t i = 0; i < STAT_BOUNDS; i++) {
        snprintf(bound, sizeof(bound), "%g", (double)stat_bounds_ns[i] / 1e9);
        print_bucket(key, bound, sum += values[i], out);
    }
    print_bucket(key, "+Inf", sum += values[STAT_BEHIND], out);
    buf_addf(out, "taskproxy_%.*s_sum%s %.9f\n", name, key, key + name, (double)values[STAT_SUM] / 1e9);
    buf_addf(out, "taskproxy_%.*s_count%s %lld\n", name, key, key + name, sum);
}

static void print_series(const struct shm_counters *total, const struct metric *metric, struct buf *out)
{
    size_t width;
    for (size_t at = 0; at < total->n; at += width) {
        const char *key = total->keys[at];
        width = shm_counters_width(total, at);
        if (!shm_counters_key_is(key, metric->name) ||
            (metric->type == histogram) != (width == STAT_HISTOGRAM))
            continue;
        if (width == STAT_HISTOGRAM)
            print_histogram(key, &total->values[at], out);
        else
            buf_addf(out, "taskproxy_%s %lld\n", key, (long long)total->values[at]);
    }
}

void metrics_print(struct buf *out)
{
    static const char *const types[] = {[counter] = "counter", [gauge] = "gauge", [histogram] = "histogram"};
    struct shm_counters *total = xcalloc(1, sizeof(*total));
    stats_sum(total);
    for (size_t i = 0; i < NELEMS(metrics); i++) {
        const struct metric *metric = &metrics[i];
        if (metric->help == NULL)
            continue;
        buf_addf(out, "# HELP taskproxy_%s %s.\n", metric->name, metric->help);
        buf_addf(out, "# TYPE taskproxy_%s %s\n", metric->name, types[metric->type]);
        print_series(total, metric, out);
    }
    free(total);
}
