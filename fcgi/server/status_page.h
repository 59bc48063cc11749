/* status_page: pages for the operator. The master prints them, because only it knows its workers; the status server asks
 * for them and sends them to clients (status_server.h):
 *
 *     /healthz  the master runs
 *     /readyz   200 while at least one worker accepts requests; "why" has the reasons if it is degraded
 *     /metrics  for Prometheus
 *     /status   everything on one page of indented JSON */
#ifndef STATUS_PAGE_H
#define STATUS_PAGE_H

#include "server/workers.h"

enum { STATUS_PAGE_MAX = 1024 * 1024 }; /* bytes */

/* The number of the page with this URI, which may be NULL; -1: there is none. */
int status_page_find(const char *uri);

/* Its Content-Type. */
const char *status_page_type(int page);

/* What the pages describe, in addition to the counters. */
struct status_facts {
    const struct workers *workers; /* (ref) */
    const struct conf *conf;       /* (ref) the configuration in force */
    long long uptime_s;
};

/* For the master: prints a page and sends it to the status server whose control descriptor this is. A number that no page
 * has is ignored. */
void status_page_send(const struct status_facts *facts, unsigned page, int control);

/* For the status server: adds the text to `text` and returns the HTTP status, or -1 if no page has come. */
MUST_CHECK int status_page_receive(int control, struct buf *text);

#endif
