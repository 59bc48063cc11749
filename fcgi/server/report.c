/* report: see report.h. */
#include "server/report.h"

#include <stdlib.h>

/* Nothing better is to come: a start goes on until its workers are ready, a reload that may never be complete
 * is over. */
static bool is_settled(const struct report *r, const struct workers *workers)
{
    return workers_is_complete(workers) || (r->phase == RELOADING && workers_is_stuck(workers));
}

void report_crew(struct report *r, const struct workers *workers, int n_wanted)
{
    int hung = workers_hung(workers);
    char *status = xasprintf("%d of %d workers take requests", workers_ready(workers), n_wanted);
    if (hung > 0) {
        char *more = xasprintf("%s, %d hung", status, hung);
        free(status);
        status = more;
    }
    if (r->phase != RUNNING && is_settled(r, workers)) {
        r->phase = RUNNING;
        notify_ready(&r->notify, status);
    } else {
        notify_status(&r->notify, status);
    }
    free(status);
}

void report_reload(struct report *r)
{
    if (r->phase == RUNNING) {
        r->phase = RELOADING;
        notify_reloading(&r->notify);
    }
}

void report_refusal(struct report *r, const char *why)
{
    if (r->phase == RELOADING) {
        r->phase = RUNNING;
        notify_ready(&r->notify, why);
    }
}
