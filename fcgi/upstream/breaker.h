/* breaker: how we stand with one upstream - whether it may be asked now, and what was last wrong with it.
 *
 *     CLOSED --failures in a row--> OPEN --pause over--> PROBING (one query) --good--> CLOSED
 *                                    ^                        '--failed, a longer pause--> OPEN
 *
 * Besides the breaker there is a bucket of queries per second. When the upstream says that we ask too often, that is
 * of the key (keypool.h). */
#ifndef BREAKER_H
#define BREAKER_H

#include "lib/log_ratelimit.h"

enum breaker_state { BREAKER_CLOSED, BREAKER_OPEN, BREAKER_PROBING };

struct breaker_rules {
    int64_t breaker_failures; /* in a row, until it opens; 0: never */
    int64_t breaker_pause_ms; /* the longest pause */
    int64_t per_second;       /* queries; 0: as many as come */
};

struct breaker {
    struct breaker_rules rules;
    enum breaker_state state;
    int64_t failures; /* in a row */
    int64_t pauses;   /* in a row */
    int64_t open_until_ms;
    double tokens;          /* queries that may be sent at once */
    int64_t tokens_at_ms;   /* when they were counted */
    int64_t troubles;       /* in a row, of any kind */
    struct log_once logged; /* troubles, lately */
};

void breaker_init(struct breaker *breaker, struct breaker_rules rules, int64_t now_ms);

/* Asks for the right to one query. 0: granted, and breaker_end must follow; otherwise for how long it is
 * refused, in milliseconds. */
int64_t breaker_ask(struct breaker *breaker, int64_t now_ms);

enum breaker_end { BREAKER_GOOD, BREAKER_FAILED, BREAKER_UNKNOWN };

/* How a query ended; `random` (0 to 1) spreads the pauses of many processes. True when the breaker changed.
 */
bool breaker_end(struct breaker *breaker, enum breaker_end end, double random, int64_t now_ms);

/* What the last query came to, in a few words, or NULL when all is well. True when that is news: a trouble
 * that was not said within the last minute, or the end of several in a row. */
bool breaker_note(struct breaker *breaker, const char *trouble, int64_t now_ms);

#endif
