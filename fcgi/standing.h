/* standing: how we stand with one upstream - whether it may be asked now, and what was last wrong with it.
 *
 *     CLOSED --failures in a row--> OPEN --pause over--> PROBING (one query) --good--> CLOSED
 *                                    ^                        '--failed, a longer pause--> OPEN
 *
 * Besides the breaker there is a bucket of queries per second. When the upstream says that we ask too often, that is
 * of the key (keypool.h). */
#ifndef STANDING_H
#define STANDING_H

#include "util.h"

enum breaker { BREAKER_CLOSED, BREAKER_OPEN, BREAKER_PROBING };

struct standing_rules {
    int64_t breaker_failures; /* in a row, until it opens; 0: never */
    int64_t breaker_pause_ms; /* the longest pause */
    int64_t per_second;       /* queries; 0: as many as come */
};

struct standing {
    struct standing_rules rules;
    enum breaker breaker;
    int64_t failures; /* in a row */
    int64_t pauses;   /* in a row */
    int64_t open_until_ms;
    double tokens;        /* queries that may be sent at once */
    int64_t tokens_at_ms; /* when they were counted */
    int64_t troubles;     /* in a row, of any kind */
    struct {
        char text[160];
        int64_t at_ms;
    } said[4]; /* what the log has been told lately */
};

void standing_init(struct standing *standing, struct standing_rules rules, int64_t now_ms);

/* Asks for the right to one query. 0: granted, and standing_end must follow; otherwise for how long it is
 * refused, in milliseconds. */
int64_t standing_ask(struct standing *standing, int64_t now_ms);

enum standing_end { STANDING_GOOD, STANDING_FAILED, STANDING_UNKNOWN };

/* How a query ended; `random` (0 to 1) spreads the pauses of many processes. True when the breaker changed.
 */
bool standing_end(struct standing *standing, enum standing_end end, double random, int64_t now_ms);

/* What the last query came to, in a few words, or NULL when all is well. True when that is news: a trouble
 * that was not said within the last minute, or the end of several in a row. */
bool standing_note(struct standing *standing, const char *trouble, int64_t now_ms);

#endif
