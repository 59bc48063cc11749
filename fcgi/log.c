/* log: see log.h. */
#include "log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static enum log_level least_level = LOG_INFO;
static char mark[32];

void log_setup(enum log_level least, const char *who)
{
    least_level = least;
    snprintf(mark, sizeof(mark), "%s%s", who ? who : "", who ? ": " : "");
}

bool log_wants(enum log_level level)
{
    return level >= least_level;
}

/* What comes from outside may hold line breaks and escape sequences: a line stays a line of text. */
static void make_printable(char *text)
{
    for (; *text != '\0'; text++) {
        if ((unsigned char)*text < 0x20 || *text == 0x7f)
            *text = '?';
    }
}

void log_line(enum log_level level, const char *format, ...)
{
    static const char *const names[] = {"debug", "info", "warn", "error"};
    if (!log_wants(level))
        return;
    char line[2048], when[32];
    int64_t now = wall_ms();
    utc_text(now / 1000, when);
    int n = snprintf(line, sizeof(line), "%.19s.%03dZ %s %s", when, (int)(now % 1000), names[level], mark);
    va_list args;
    va_start(args, format);
    vsnprintf(line + n, sizeof(line) - (size_t)n - 1, format, args);
    va_end(args);
    make_printable(line);
    size_t len = strlen(line);
    line[len] = '\n';
    if (write(STDERR_FILENO, line, len + 1) < 0)
        return; /* nobody is left to tell */
}
