/* report: what the service manager is told of the master's state, and when - a start and a reload are over once all
 * workers take requests. */
#ifndef REPORT_H
#define REPORT_H

#include "server/workers.h"
#include "server/notify.h"

struct report {
    struct notify notify;
    enum { STARTING, RUNNING, RELOADING } phase; /* as the manager knows it */
};

/* The workers has changed: `n_wanted` workers should take requests. */
void report_crew(struct report *report, const struct workers *workers, int n_wanted);

/* A reload begins; and it is over, since it was refused. */
void report_reload(struct report *report);
void report_refusal(struct report *report, const char *why);

#endif
