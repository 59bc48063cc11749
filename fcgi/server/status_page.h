/* status_page: an overview for the operator on one page: JSON for programs, columns for people. */
#ifndef STATUS_PAGE_H
#define STATUS_PAGE_H

#include "lib/json.h"
#include "lib/stats.h"
#include "server/workers.h"

/* The input of the status server's pages. */
struct status {
    const struct conf *conf;       /* (ref) the configuration in force */
    const struct workers *workers; /* (ref) */
    int64_t uptime_ms;             /* of the master */
};

/* Why the service is degraded although it may answer requests: an array of short texts, the caller's to free.
 * `total` are the sums of the counters. */
struct json_object *status_problems(const struct status *status, const struct shm_counters *total);

void status_page_print(const struct status *status, bool as_text, struct buf *out);

#endif
