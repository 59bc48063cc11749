/* prefer: how long a client wants to be held until there is news, and in which form it wants them. */
#ifndef PREFER_H
#define PREFER_H

#include "lib/util.h"

enum { PREFER_WAIT_MAX = 60 };

/* The seconds of ?wait= in a query, or else of "wait=" in a Prefer header (RFC 7240); both may be NULL. 0: do
 * not wait; more than PREFER_WAIT_MAX is cut to that. -1: the query's value is malformed or given twice (a
 * preference that is malformed is ignored, as the RFC wants it). */
int prefer_wait(const char *query, const char *prefer);

/* Whether "view=unified" stands in a Prefer header (may be NULL): who knows no provider can read that view alone. */
bool prefer_unified(const char *prefer);

/* Whether an Accept header (may be NULL) names text/event-stream, and not with q=0. */
bool prefer_event_stream(const char *accept);

#endif
