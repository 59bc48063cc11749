/* log_ratelimit: keeps a log readable when there is the same to say again and again, or too much at once.
 *
 * A line that is the one before once more is only counted, and the count is told when another line comes, or after some
 * seconds. Of lines that differ, so many a second are let through of each level; of the others there is a count, too. */
#ifndef LOG_RATELIMIT_H
#define LOG_RATELIMIT_H

#include "lib/logline.h"

enum { LOG_RATELIMIT_REPEAT_MS = 5000, LOG_RATELIMIT_SECOND_MS = 1000, LOG_RATELIMIT_PER_SECOND = 100 };

/* All zero at first. Times are of a clock that never goes back. */
struct log_ratelimit {
    char last[LOGLINE_MESSAGE_MAX]; /* the line that was written last; "" for none */
    enum log_level level;           /* its */
    int64_t until_ms;               /* so long the same again is a repetition */
    int64_t repeats;                /* not told yet */
    int64_t second_ms;              /* when the present second began */
    int passed[LOG_ERROR + 1];      /* lines in it */
    int64_t dropped;                /* not told yet */
    int64_t tell_dropped_ms;        /* the end of the second in which the first of them came */
};

/* True: the line may be written, after what log_ratelimit_report tells, and log_ratelimit_wrote is to be called. False: it was counted. */
MUST_CHECK bool log_ratelimit_take(struct log_ratelimit *flood, enum log_level level, const char *message,
                                   int64_t now_ms);
void log_ratelimit_wrote(struct log_ratelimit *flood, enum log_level level, const char *message,
                         int64_t now_ms);

struct log_ratelimit_report {
    const char *message; /* (ref) the line that was repeated, or NULL: lines were dropped */
    enum log_level level;
    int64_t n;
};

enum log_ratelimit_when { LOG_RATELIMIT_TIME_PASSES, LOG_RATELIMIT_LINE_COMES, LOG_RATELIMIT_ENDS };

/* What was counted and is to be told now; to be called until it gives false. */
MUST_CHECK bool log_ratelimit_report(struct log_ratelimit *flood, enum log_ratelimit_when when,
                                     int64_t now_ms, struct log_ratelimit_report *ret);

#endif
