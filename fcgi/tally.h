/* tally: the requests that were answered, counted by what was asked for, by status and by result of the cache.
 *
 * The labels are few whatever clients do: the routes of the configuration, the statuses that there are. */
#ifndef TALLY_H
#define TALLY_H

#include "answer.h"
#include "route.h"
#include "sheet.h"

enum { TALLY_GONE = 499 }; /* the status of a request whose client has left, as nginx writes it */

struct tally;

/* `conf` (ref) outlives it. */
struct tally *tally_new(const struct conf *conf);
void tally_free(struct tally *tally); /* NULL is allowed */

/* What a request was about, and what came of it. */
struct tally_request {
    enum route_kind kind;
    const struct conf_route *route; /* (ref) NULL: none, or several */
    int status;
    enum answer_source source;
    bool held;  /* for news: how long says nothing of us */
    int64_t ns; /* how long it took */
};

void tally_count(struct tally *tally, const struct tally_request *request);

/* What was counted, in a sum of stats.h: all requests, and those about tasks by result of the cache. */
struct tally_reading {
    int64_t requests;
    int64_t hits, misses, collapsed, stale;
};

void tally_read(const struct sheet *sum, struct tally_reading *ret);

#endif
