/* breaker: decides whether an upstream may be queried now, and which of its errors are logged.
 *
 *     CLOSED --failures in a row--> OPEN --pause over--> PROBING (one query) --good--> CLOSED
 *                                    ^                        '--failed, a longer pause--> OPEN
 *
 * A token bucket also limits the queries per second. The upstream's own rate limit (429) applies to the key,
 * see keypool.h. */
#ifndef BREAKER_H
#define BREAKER_H

#include "lib/backoff.h"
#include "lib/log_ratelimit.h"
#include "upstream/outcome.h"

enum breaker_state { BREAKER_CLOSED, BREAKER_OPEN, BREAKER_PROBING };

struct breaker_rules {
    int64_t breaker_failures; /* in a row that open it; 0: it never opens */
    int64_t breaker_pause_ms; /* the longest pause between probes */
    int64_t per_second;       /* queries; 0: no limit */
};

struct breaker {
    struct breaker_rules rules;
    enum breaker_state state;
    int64_t failures; /* in a row */
    struct backoff pause;
    int64_t open_until_ms;
    double tokens;          /* queries that may be sent now */
    int64_t tokens_at_ms;   /* when they were counted */
    int64_t errors;         /* in a row, of any kind */
    struct log_once logged; /* recent errors */
};

void breaker_init(struct breaker *breaker, struct breaker_rules rules, int64_t now_ms);

/* Asks for permission to send one query. 0: granted, and breaker_learn must follow; otherwise the
 * milliseconds until it is worth asking again. */
int64_t breaker_ask(struct breaker *breaker, int64_t now_ms);

/* Reports how a query ended; `random` (0 to 1) adds jitter to the pauses. Returns true if the breaker has
 * opened or closed. */
bool breaker_learn(struct breaker *breaker, enum breaker_lesson lesson, double random, int64_t now_ms);

/* Records the error of the last query, or NULL after a good one. Returns true if it should be logged: an
 * error that was not logged within the last minute, or the end of several errors in a row. */
bool breaker_note(struct breaker *breaker, const char *error, int64_t now_ms);

#endif
