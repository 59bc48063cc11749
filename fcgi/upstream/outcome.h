/* outcome: how a query to an upstream can end, in one table.
 *
 * http, upstream, view, keypool and attempt all report one of these outcomes; the table says what each means
 * for the metrics, the client, the breaker, the key pool and the log. */
#ifndef OUTCOME_H
#define OUTCOME_H

#include "task/problem.h"

/* How an outcome is counted. */
enum outcome_kind {
    KIND_UNSENT, /* in upstream_unasked_total: no query was sent */
    KIND_SENT,   /* in upstream_outcomes_total */
    KIND_FAILED  /* there and in upstream_failures_total */
};

/* What the breaker learns about the upstream. */
enum breaker_lesson { BREAKER_NOTHING, BREAKER_GOOD, BREAKER_FAILED };

/* What the key pool learns about the key. After any lesson beyond KEY_GOOD, another key may be tried. */
enum key_lesson { KEY_NOTHING, KEY_GOOD, KEY_MISSING, KEY_REFUSED, KEY_DOUBTED, KEY_BUSY };

/* X(name, label of the metric, kind, problem for the client, lesson for the breaker, for the key pool, log
 * text).
 *
 * In a log text {status} is the HTTP status, {key} the name of the key, {pause} the seconds that the key
 * pauses, and {why} the details in parentheses, if there are any. An outcome without a text is not an
 * error. */
#define OUTCOMES(X)                                                                                          \
    /* The upstream has answered. */                                                                         \
    X(OK, "ok", SENT, NONE, GOOD, GOOD, NULL)                                                                \
    X(PARTIAL, "partial", SENT, NONE, GOOD, GOOD, NULL) /* succeeded; a second query gets the result */      \
    X(MISSING, "missing", SENT, TASK_NOT_FOUND, GOOD, MISSING, NULL)                                         \
    X(REFUSED, "refused", SENT, UPSTREAM_AUTH, GOOD, REFUSED, "rejected API key {key} (HTTP {status})")      \
    /* 403: the key is bad, or may not see this task. */                                                     \
    X(FORBIDDEN, "forbidden", SENT, UPSTREAM_AUTH, GOOD, DOUBTED, "rejected API key {key} (HTTP {status})")  \
    X(BUSY, "busy", SENT, UNAVAILABLE, GOOD, BUSY,                                                           \
      "rate limit, HTTP {status} for key {key}; pausing it for {pause} s")                                   \
    X(ERROR, "error", FAILED, UPSTREAM_ERROR, GOOD, NOTHING, "returned HTTP {status}{why}")                  \
    X(SERVER_ERROR, "server_error", FAILED, UPSTREAM_ERROR, FAILED, NOTHING, "returned HTTP {status}")       \
    /* Not a document in this provider's format. */                                                          \
    X(INVALID, "invalid", FAILED, UPSTREAM_INVALID, GOOD, NOTHING, "returned HTTP {status}{why}")            \
    /* Truncated, too large, or not HTTP. */                                                                 \
    X(MALFORMED, "malformed", FAILED, UPSTREAM_INVALID, FAILED, NOTHING, "sent a malformed answer{why}")     \
    /* No answer came. */                                                                                    \
    X(TIMEOUT, "timeout", FAILED, UPSTREAM_TIMEOUT, FAILED, NOTHING, "did not answer in time")               \
    X(UNREACHABLE, "unreachable", FAILED, UNREACHABLE, FAILED, NOTHING, "could not be reached{why}")         \
    X(NO_DESCRIPTORS, "no_descriptors", FAILED, OVERLOADED, NOTHING, NOTHING,                                \
      "could not be queried: this process has no file descriptor left")                                      \
    X(CANCELLED, "cancelled", SENT, NONE, NOTHING, NOTHING, NULL) /* by us, as the worker exits */           \
    /* No query was sent. */                                                                                 \
    X(NO_KEY, "no_key", UNSENT, UPSTREAM_AUTH, NOTHING, NOTHING, NULL)                                       \
    X(HELD, "held", UNSENT, UNAVAILABLE, NOTHING, NOTHING, NULL) /* by the breaker or the rate limit */      \
    X(QUEUE_TIMEOUT, "queue_timeout", UNSENT, UPSTREAM_TIMEOUT, NOTHING, NOTHING, NULL)                      \
    X(OVER_QUOTA, "over_quota", UNSENT, RATE_LIMITED, NOTHING, NOTHING, NULL) /* no query left for a retry */

#define OUTCOME_ID(name, label, kind, problem, breaker, key, text) OUTCOME_##name,
enum outcome { OUTCOMES(OUTCOME_ID) OUTCOME_COUNT };

/* One row of the table. */
struct outcome_row {
    const char *label;
    enum outcome_kind kind;
    enum problem problem;
    enum breaker_lesson breaker;
    enum key_lesson key;
    const char *text; /* NULL: not an error */
};

const struct outcome_row *outcome_row(enum outcome outcome) NEVER_NULL;

/* The values for the placeholders of a log text. */
struct outcome_details {
    int status;
    const char *key;
    int64_t pause_ms;
    const char *why; /* NULL: no details */
};

/* Writes the log text of an outcome; nothing if it has none. */
void outcome_describe(enum outcome outcome, const struct outcome_details *details, struct buf *out);

#endif
