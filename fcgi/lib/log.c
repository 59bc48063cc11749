/* log: see log.h. What this process is, and what it keeps back; the rest is logline.c's and log_ratelimit.c's. */
#include "lib/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "lib/log_ratelimit.h"
#include "lib/sanitize.h"
#include "lib/trace.h"

static enum log_level least_level = LOG_INFO;
static enum log_format line_format = LOG_TEXT;
static bool for_journal;
static char mark[32];
static struct log_ratelimit flood;

/* Whether stderr is what systemd says it has connected to the journal: it may have been redirected since. */
static bool is_journal(void)
{
    const char *stream = getenv("JOURNAL_STREAM");
    unsigned long long device, inode;
    struct stat st;
    return stream != NULL && sscanf(stream, "%llu:%llu", &device, &inode) == 2 &&
           fstat(STDERR_FILENO, &st) == 0 && st.st_dev == device && st.st_ino == inode;
}

void log_setup(enum log_level least, enum log_format format, const char *who)
{
    least_level = least;
    line_format = format;
    for_journal = is_journal();
    snprintf(mark, sizeof(mark), "%s", who ? who : "");
}

bool log_wants(enum log_level level)
{
    return level >= least_level;
}

static void write_line(enum log_level level, const char *message, int64_t repeated)
{
    const struct trace trace = trace_now();
    const struct logline line = {.level = level,
                                 .now_ms = wall_ms(),
                                 .process = mark,
                                 .pid = getpid(),
                                 .message = message,
                                 .repeated = repeated,
                                 /* the others had traces of their own */
                                 .trace = repeated == 0 && trace.parent[0] ? trace.parent : NULL};
    char text[LOGLINE_MAX];
    size_t len = logline_write(line_format, for_journal, &line, text);
    if (write(STDERR_FILENO, text, len) < 0)
        return; /* nobody is left to tell */
}

static int64_t steady_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void tell(enum log_ratelimit_when when)
{
    struct log_ratelimit_report report;
    char text[96];
    while (log_ratelimit_report(&flood, when, steady_ms(), &report)) {
        snprintf(text, sizeof(text), "%lld lines left out: more than %d of a level in one second",
                 (long long)report.n, LOG_RATELIMIT_PER_SECOND);
        write_line(report.level, report.message ? report.message : text, report.message ? report.n : 0);
    }
}

void log_line(enum log_level level, const char *format, ...)
{
    char raw[LOGLINE_MESSAGE_MAX], message[LOGLINE_MESSAGE_MAX];
    va_list args;
    if (!log_wants(level))
        return;
    va_start(args, format);
    vsnprintf(raw, sizeof(raw), format, args);
    va_end(args);
    sanitize_copy(message, sizeof(message), raw, strlen(raw));
    if (level == LOG_DEBUG)
        return write_line(level, message, 0); /* who asks for these wants all of them */
    int64_t now_ms = steady_ms();
    if (!log_ratelimit_take(&flood, level, message, now_ms))
        return;
    tell(LOG_RATELIMIT_LINE_COMES);
    log_ratelimit_wrote(&flood, level, message, now_ms);
    write_line(level, message, 0);
}

void log_tick(void)
{
    tell(LOG_RATELIMIT_TIME_PASSES);
}

void log_finish(void)
{
    tell(LOG_RATELIMIT_ENDS);
}
