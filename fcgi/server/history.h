/* history: samples of the counters of the last 15 minutes, for the graphs of the console. */
#ifndef HISTORY_H
#define HISTORY_H

#include <json-c/json.h>

#include "config/conf.h"
#include "lib/stats.h"

enum { HISTORY_STEP_S = 10, HISTORY_STEPS = 15 * 60 / HISTORY_STEP_S };

enum history_line { HISTORY_ANSWERED, HISTORY_HITS, HISTORY_QUERIES, HISTORY_SPARED, HISTORY_LINES };

/* Zeroed at first. A step lies between two samples. */
struct history {
    size_t n; /* samples taken; the last HISTORY_STEPS + 1 are kept */
    int64_t samples[HISTORY_STEPS + 1][HISTORY_LINES];
};

/* Takes a sample of the sums over all processes. To be called every HISTORY_STEP_S. */
void history_sample(struct history *history, const struct conf *conf);

/* An object with an array for each line: by how much it grew in each step, the oldest step first. The caller frees
 * it. */
struct json_object *history_json(const struct history *history);

#endif
