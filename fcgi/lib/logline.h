/* logline: what one line of the log looks like.
 *
 *     text       2026-01-14T15:15:46.123Z warn worker 1: upstream main: Timeout was reached (repeated 57 times) trace=00-4bf9...
 *     journal    <4>worker 1: upstream main: Timeout was reached        the journal has the time, and takes the level off
 *     JSON       {"time":"2026-01-14T15:15:46.123Z","level":"warn","process":"worker 1","pid":42,"message":"...",
 *                 "repeated":57,"traceparent":"00-4bf9..."}             behind the "<4>" for the journal */
#ifndef LOGLINE_H
#define LOGLINE_H

#include "lib/util.h"

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };

enum log_format { LOG_TEXT, LOG_JSON };

/* Of a message in its final form; a longer one is cut. Of the whole line, which is short enough that a pipe takes it whole. */
enum { LOGLINE_MESSAGE_MAX = 1800, LOGLINE_MAX = 4096 };

struct logline {
    enum log_level level;
    int64_t now_ms;      /* since 1970 */
    const char *process; /* "" for none */
    int pid;
    const char *message; /* as sanitize_copy makes it */
    int64_t
        repeated; /* how many lines this one stands for, that came after the first; 0: it is a first one */
    const char *trace; /* the traceparent of the request that it is about, or NULL */
};

/* The line with its '\n'; its length. */
size_t logline_write(enum log_format format, bool for_journal, const struct logline *line,
                     char out[static LOGLINE_MAX]);

#endif
