/* flood: keeps a log readable when there is the same to say again and again, or too much at once.
 *
 * A line that is the one before once more is only counted, and the count is told when another line comes, or after some
 * seconds. Of lines that differ, so many a second are let through of each level; of the others there is a count, too. */
#ifndef FLOOD_H
#define FLOOD_H

#include "logline.h"

enum { FLOOD_REPEAT_MS = 5000, FLOOD_SECOND_MS = 1000, FLOOD_PER_SECOND = 100 };

/* All zero at first. Times are of a clock that never goes back. */
struct flood {
    char last[LOGLINE_MESSAGE_MAX]; /* the line that was written last; "" for none */
    enum log_level level;           /* its */
    int64_t until_ms;               /* so long the same again is a repetition */
    int64_t repeats;                /* not told yet */
    int64_t second_ms;              /* when the present second began */
    int passed[LOG_ERROR + 1];      /* lines in it */
    int64_t dropped;                /* not told yet */
    int64_t tell_dropped_ms;        /* the end of the second in which the first of them came */
};

/* True: the line may be written, after what flood_report tells, and flood_wrote is to be called. False: it was counted. */
MUST_CHECK bool flood_take(struct flood *flood, enum log_level level, const char *message, int64_t now_ms);
void flood_wrote(struct flood *flood, enum log_level level, const char *message, int64_t now_ms);

struct flood_report {
    const char *message; /* (ref) the line that was repeated, or NULL: lines were dropped */
    enum log_level level;
    int64_t n;
};

enum flood_when { FLOOD_TIME_PASSES, FLOOD_LINE_COMES, FLOOD_ENDS };

/* What was counted and is to be told now; to be called until it gives false. */
MUST_CHECK bool flood_report(struct flood *flood, enum flood_when when, int64_t now_ms,
                             struct flood_report *ret);

#endif
