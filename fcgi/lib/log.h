/* log: one line per event on standard error, written with one system call so that lines of several processes
 * never mix.
 *
 *     text       2026-01-14T15:15:46.123Z warn worker 1: upstream main: did not answer in time (repeated 57 times)
 *     journal    <4>worker 1: upstream main: did not answer in time     the journal adds the time and reads the priority
 *     JSON       {"time":"2026-01-14T15:15:46.123Z","level":"warn","process":"worker 1","pid":42,"message":"...",
 *                 "repeated":57}                                        after "<4>" if standard error is the journal
 *     audit      2026-01-14T15:15:46.123Z audit worker 1: claimed team=web request=5e0d7b1c task=sora/task_01
 *                {"time":"...","level":"audit","process":"worker 1","pid":42,"team":"web","request_id":"5e0d7b1c",
 *                 "task":"sora/task_01","message":"claimed"}
 *
 * A line about a request with a trace has it at its end: "trace=00-4bf9...", or the member "traceparent".
 * Functions that return the reason of an error do not log it. Callers never pass secrets or bodies. Text from
 * outside is allowed: it cannot break the line (sanitize.h).
 *
 * A line equal to the previous one is only counted; the count is logged when another line comes or after some
 * seconds. Of lines that differ, a limited number per second is logged for each level; the others are
 * counted, too. Debug lines are never suppressed, nor are the lines of an audit, whose level is above all
 * others.
 *
 * Writing never blocks: a process that waited for the reader of its log would serve no requests. Lines that
 * standard error does not accept, for whatever reason, are kept in a backlog, which is written before the
 * next line and at each tick. When the backlog is full, lines are dropped and counted; once it is empty
 * again, one line reports their number.
 *
 * O_NONBLOCK on standard error itself would also apply to all other processes that share its open file
 * description, such as the shell that started this one. How a line is written depends on the type of standard
 * error:
 *
 *     socket            send(2) with MSG_DONTWAIT
 *     pipe, terminal    write(2) to a second, non-blocking file description, opened through /proc
 *     regular file      write(2), which never waits for a reader
 *
 * A pipe or terminal that belongs to another user cannot be opened. Then poll(2) precedes each write(2),
 * which still blocks if another process fills the pipe between the two calls. */
#ifndef LOG_H
#define LOG_H

#include "lib/util.h"

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR, LOG_AUDIT };
enum log_format { LOG_TEXT, LOG_JSON };

/* The longest line, which a pipe takes atomically. */
enum { LOG_LINE_MAX = 4096 };

enum { LOG_MESSAGE_MAX = 1800 }; /* a longer message is cut */

enum { LOG_BACKLOG_MAX = 64 * 1024, LOG_FINISH_MS = 500 };

/* For this process: the lowest level to log, the format, and the name on each line ("worker 1"; NULL for
 * none). The first call opens /proc/self/fd/2 if it can, so it must precede the sandbox. */
void log_setup(enum log_level least, enum log_format format, const char *process);

void log_line(enum log_level level, const char *format, ...) PRINTF(2, 3);

/* What happened to a team's access to a task. */
struct log_audit {
    const char *event;
    const char *team;
    const char *request_id;
    const char *task; /* any text */
};

void log_audit(const struct log_audit *audit);

/* Writes the backlog, and logs the counts of suppressed lines that are due. */
void log_tick(void);

/* Logs all counts and waits for the backlog to be written, at most LOG_FINISH_MS; lines that are left are
 * dropped and counted. Runs at exit(3); call it before exec(2). */
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

/* ---- an event that may happen at every request ---- */

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

/* ---- for log.c and its tests ---- */

/* The parts of one line. */
struct log_entry {
    enum log_level level;
    int64_t now_ms;      /* since 1970 */
    const char *process; /* "" for none */
    int pid;
    const char *message;           /* sanitized */
    const struct log_audit *audit; /* its members follow the message, sanitized; NULL: none */
    int64_t repeated;  /* how many suppressed repetitions this line reports; 0 for an ordinary line */
    const char *trace; /* traceparent of the request in progress, or NULL */
};

/* Writes the line with its '\n' and returns its length. */
size_t log_format_entry(enum log_format format, bool for_journal, const struct log_entry *entry,
                        char out[static LOG_LINE_MAX]);

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

#endif
