/* status_page: pages for the operator. The master generates them, because only it knows its workers; the
 * status server requests them and sends them to clients (status_server.h):
 *
 *     /healthz  200 while the master runs
 *     /readyz   200 while at least one worker accepts requests; "why" has the reasons if it is degraded
 *     /metrics  for Prometheus
 *     /status   everything on one page of indented JSON */
#ifndef STATUS_PAGE_H
#define STATUS_PAGE_H

#include "server/history.h"
#include "server/workers.h"

enum { STATUS_PAGE_MAX = 1024 * 1024 }; /* bytes */

/* The number of the page with this URI, which may be NULL; -1 if there is none. */
int status_page_find(const char *uri);

/* Its Content-Type. */
const char *status_page_type(int page);

/* What the pages describe, in addition to the counters. */
struct status_facts {
    const struct workers *workers; /* (ref) */
    const struct conf *conf;       /* (ref) the configuration in force */
    const struct history *history; /* (ref) */
    const char *refusal;           /* (ref) why the last reload was refused; NULL: it was not */
    long long uptime_s;
};

/* For the master: generates a page and sends it to the status server whose control descriptor this is. An
 * unknown page number is ignored. */
void status_page_send(const struct status_facts *facts, unsigned page, int control);

/* For the status server: appends the page to `text` and returns the HTTP status, or -1 if the master sent
 * none. */
MUST_CHECK int status_page_receive(int control, struct buf *text);

#endif
