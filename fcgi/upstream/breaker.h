/* breaker: decides whether a team may query an upstream now, and which of the upstream's errors are logged.
 *
 *     CLOSED --failures in a row--> OPEN --pause over--> PROBING (one query) --good--> CLOSED
 *                                    ^                        '--failed, a longer pause--> OPEN
 *
 * Each team has its own breaker for an upstream, so that failing queries of one team hold back no other.
 * Tasks that were never seen may not exist. While one of them is used for a probe, a task that was seen
 * before may be, too; and after a probe that has shown nothing, only the unseen tasks pause.
 *
 * A token bucket limits the queries per second. The upstream's own rate limit (429) applies to the key, see
 * keypool.h. */
#ifndef BREAKER_H
#define BREAKER_H

#include "lib/backoff.h"
#include "lib/log.h"
#include "upstream/outcome.h"

enum breaker_state { BREAKER_CLOSED, BREAKER_OPEN, BREAKER_PROBING };

/* The queries per second of all teams. */
struct bucket {
    int64_t per_second; /* 0: no limit */
    bool shared;        /* by several teams: none may take all tokens */
    double tokens;      /* queries that may be sent now */
    int64_t at_ms;      /* when they were counted */
};

void bucket_init(struct bucket *bucket, int64_t per_second, bool shared, int64_t now_ms);

struct breaker {
    int64_t max_failures; /* in a row that open it; 0: it never opens */
    enum breaker_state state;
    int64_t failures; /* in a row */
    struct backoff pause;
    int64_t open_until_ms;
    int64_t unseen_until_ms; /* until then, no unseen task is used for a probe */
    bool probes_seen;        /* PROBING: with a task that was seen before */
    int64_t tried_ms;        /* when a query was wanted last */
    double taken;            /* tokens that the team has taken and the bucket has not got back */
    int64_t taken_at_ms;     /* when they were counted */
};

/* `max_pause_ms` is the longest pause between probes. */
void breaker_init(struct breaker *breaker, int64_t max_failures, int64_t max_pause_ms);

/* Requests permission to send one query for a task, which was `seen` before or not. 0: granted, and
 * breaker_learn must follow; otherwise the milliseconds until a retry makes sense. */
int64_t breaker_try(struct breaker *breaker, struct bucket *bucket, bool seen, int64_t now_ms);

/* Reports how a query ended; `random` (0 to 1) adds jitter to the pauses. Returns true if the breaker has
 * opened or closed. */
bool breaker_learn(struct breaker *breaker, enum breaker_lesson lesson, bool seen, double random,
                   int64_t now_ms);

/* The errors of an upstream that were logged. Starts all zero. */
struct error_notes {
    int64_t errors; /* in a row, of any kind */
    struct log_once logged;
};

/* Records the error of the last query, or NULL after a good one. Returns true if it should be logged: an
 * error that was not logged within the last minute, or the end of several errors in a row. */
bool error_note(struct error_notes *notes, const char *error, int64_t now_ms);

#endif
