/* log: one line per event on standard error, written with one write(2) so that lines of several processes
 * never mix.
 *
 *     text       2026-01-14T15:15:46.123Z warn worker 1: upstream main: did not answer in time (repeated 57 times)
 *     journal    <4>worker 1: upstream main: did not answer in time     the journal adds the time and reads the priority
 *     JSON       {"time":"2026-01-14T15:15:46.123Z","level":"warn","process":"worker 1","pid":42,"message":"...",
 *                 "repeated":57}                                        after "<4>" if standard error is the journal
 *
 * A line about a request with a trace has it at its end: "trace=00-4bf9...", or the member "traceparent".
 * Functions that return the reason of an error do not log it. Callers never pass secrets or bodies. Text from
 * outside is allowed: it cannot break the line (sanitize.h). Lines above debug are rate-limited
 * (log_ratelimit.h). */
#ifndef LOG_H
#define LOG_H

#include "lib/log_ratelimit.h"

enum log_format { LOG_TEXT, LOG_JSON };

/* The longest time between two calls of log_tick; the longest line, which a pipe takes atomically. */
enum { LOG_TICK_MS = 1000, LOG_LINE_MAX = 4096 };

/* For this process: the lowest level to log, the format, and the name on each line ("worker 1"; NULL for
 * none). */
void log_setup(enum log_level least, enum log_format format, const char *process);

void log_line(enum log_level level, const char *format, ...) PRINTF(2, 3);

/* Logs the counts of suppressed lines that are due; log_finish logs all of them, before the process exits. */
void log_tick(void);
void log_finish(void);

/* Whether lines of that level are logged. */
bool log_wants(enum log_level level);

#define log_debug(...)                                                                                       \
    do {                                                                                                     \
        if (log_wants(LOG_DEBUG))                                                                            \
            log_line(LOG_DEBUG, __VA_ARGS__);                                                                \
    } while (0)
#define log_info(...)  log_line(LOG_INFO, __VA_ARGS__)
#define log_warn(...)  log_line(LOG_WARN, __VA_ARGS__)
#define log_error(...) log_line(LOG_ERROR, __VA_ARGS__)

/* The parts of one line. */
struct log_entry {
    enum log_level level;
    int64_t now_ms;      /* since 1970 */
    const char *process; /* "" for none */
    int pid;
    const char *message; /* sanitized */
    int64_t repeated;    /* how many suppressed repetitions this line reports; 0 for an ordinary line */
    const char *trace;   /* traceparent of the request in progress, or NULL */
};

/* Writes the line with its '\n' and returns its length. For log.c and its test. */
size_t log_format_entry(enum log_format format, bool for_journal, const struct log_entry *entry,
                        char out[static LOG_LINE_MAX]);

#endif
