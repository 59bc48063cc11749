/* metrics: see metrics.h. */
#include "metrics.h"

#include <stdlib.h>

#include "stats.h"

enum type { counter, gauge };

struct metric {
    enum type type;
    const char *name;
    const char *help; /* NULL: a further row of the metric above */
};

#define ROW_METRIC(id, type, metric, labels, help) {type, metric, help},
#define FAMILY_METRIC(id, type, metric, help)      {type, metric, help},
static const struct metric metrics[] = {STATS(ROW_METRIC) FAMILIES(FAMILY_METRIC)};

static void print_series(const struct sheet *total, const struct metric *metric, struct buf *out)
{
    for (size_t at = 0; at < total->n; at += sheet_width(total, at)) {
        if (sheet_key_is(total->keys[at], metric->name))
            buf_addf(out, "taskproxy_%s %lld\n", total->keys[at], (long long)total->values[at]);
    }
}

void metrics_print(struct buf *out)
{
    static const char *const types[] = {[counter] = "counter", [gauge] = "gauge"};
    struct sheet *total = xcalloc(1, sizeof(*total));
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
