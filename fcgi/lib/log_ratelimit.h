/* log_ratelimit: keeps the log readable when the same event repeats or too many events happen at once.
 *
 * A line equal to the previous one is only counted; the count is logged when another line comes or after some seconds.
 * Of lines that differ, a limited number per second is logged for each level; the others are counted, too.
 *
 * log_once is for an event that may happen at every request: it remembers the texts that were logged. */
#ifndef LOG_RATELIMIT_H
#define LOG_RATELIMIT_H

#include "lib/util.h"

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };

enum { LOG_MESSAGE_MAX = 1800 }; /* a longer message is cut */

enum { LOG_RATELIMIT_REPEAT_MS = 5000, LOG_RATELIMIT_SECOND_MS = 1000, LOG_RATELIMIT_PER_SECOND = 100 };

/* Starts all zero. Times are monotonic. */
struct log_ratelimit {
    char last[LOG_MESSAGE_MAX]; /* the last line written; "" for none */
    enum log_level level;       /* its level */
    int64_t until_ms;           /* until then, an equal line is a repetition */
    int64_t repeats;            /* not reported yet */
    int64_t second_ms;          /* start of the current second */
    int passed[LOG_ERROR + 1];  /* lines logged in it, by level */
    int64_t dropped;            /* not reported yet */
    int64_t report_dropped_ms;  /* end of the second in which the first of them came */
};

/* True: write the line, after the reports that are due, and call log_ratelimit_wrote. False: it was counted. */
MUST_CHECK bool log_ratelimit_take(struct log_ratelimit *limit, enum log_level level, const char *message,
                                   int64_t now_ms);
void log_ratelimit_wrote(struct log_ratelimit *limit, enum log_level level, const char *message,
                         int64_t now_ms);

struct log_ratelimit_report {
    const char *message; /* (ref) the line that was repeated; NULL: lines were dropped */
    enum log_level level;
    int64_t n;
};

enum log_ratelimit_when { LOG_RATELIMIT_TICK, LOG_RATELIMIT_LINE, LOG_RATELIMIT_END };

/* The next report that is due; call it until it returns false. */
MUST_CHECK bool log_ratelimit_report(struct log_ratelimit *limit, enum log_ratelimit_when when,
                                     int64_t now_ms, struct log_ratelimit_report *ret);

enum { LOG_ONCE_MAX = 32, LOG_ONCE_TEXT = 160 };

/* Starts all zero, or with again_ms set. */
struct log_once {
    int64_t again_ms; /* a text may be logged again after this time; 0: never */
    size_t n;
    struct {
        char text[LOG_ONCE_TEXT]; /* longer texts are compared up to here */
        int64_t at_ms;
    } texts[LOG_ONCE_MAX];
};

/* Whether to log the text. While LOG_ONCE_MAX texts are remembered, no further one is logged: outsiders may make them up. */
MUST_CHECK bool log_once(struct log_once *once, const char *text, int64_t now_ms);

static inline bool log_once_full(const struct log_once *once)
{
    return once->n == LOG_ONCE_MAX;
}

static inline void log_once_reset(struct log_once *once)
{
    once->n = 0;
}

#endif
