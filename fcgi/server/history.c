/* history: see history.h. */
#include "server/history.h"

#include <stdlib.h>

#include "request/request_metrics.h"

static const char *const names[HISTORY_LINES] = {[HISTORY_ANSWERED] = "answered",
                                                 [HISTORY_HITS] = "hits",
                                                 [HISTORY_QUERIES] = "queries",
                                                 [HISTORY_SPARED] = "queries_spared"};

static int64_t queries(const struct conf *conf, const struct shm_counters *total)
{
    int64_t n = 0;
    for (size_t i = 0; i < conf->upstreams.n; i++)
        n += series_read(total, FAMILY_UPSTREAM_QUERIES, "upstream", conf_upstream(conf, i)->name);
    return n;
}

void history_sample(struct history *history, const struct conf *conf)
{
    struct shm_counters *total = xcalloc(1, sizeof(*total));
    int64_t *sample = history->samples[history->n++ % NELEMS(history->samples)];
    stats_sum(total);
    sample[HISTORY_ANSWERED] = request_metrics_read(total, "");
    sample[HISTORY_HITS] = request_metrics_read(total, "hit");
    sample[HISTORY_QUERIES] = queries(conf, total);
    sample[HISTORY_SPARED] = stat_read(total, STAT_SPARED);
    free(total);
}

/* A reload that removes an upstream makes a sum smaller. */
static int64_t growth(const struct history *history, size_t step, enum history_line line)
{
    const size_t kept = NELEMS(history->samples);
    return max64(0, history->samples[(step + 1) % kept][line] - history->samples[step % kept][line]);
}

struct json_object *history_json(const struct history *history)
{
    struct json_object *row = json_object_new_object();
    size_t first = history->n > NELEMS(history->samples) ? history->n - NELEMS(history->samples) : 0;
    json_object_object_add(row, "step_s", json_object_new_int(HISTORY_STEP_S));
    for (enum history_line line = 0; line < HISTORY_LINES; line++) {
        struct json_object *values = json_object_new_array();
        for (size_t step = first; step + 1 < history->n; step++)
            json_object_array_add(values, json_object_new_int64(growth(history, step, line)));
        json_object_object_add(row, names[line], values);
    }
    return row;
}
