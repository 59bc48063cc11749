/* log_ratelimit: see log_ratelimit.h. */
#include "lib/log_ratelimit.h"

#include <stdio.h>
#include <string.h>

/* Also after its time, while its report is due. */
static bool is_repeated(const struct log_ratelimit *f, enum log_level level, const char *message,
                        int64_t now_ms)
{
    return (now_ms < f->until_ms || f->repeats > 0) && level == f->level && strcmp(message, f->last) == 0;
}

static bool has_room(struct log_ratelimit *f, enum log_level level, int64_t now_ms)
{
    if (now_ms - f->second_ms >= LOG_RATELIMIT_SECOND_MS) {
        f->second_ms = now_ms;
        memset(f->passed, 0, sizeof(f->passed));
    }
    return f->passed[level]++ < LOG_RATELIMIT_PER_SECOND;
}

static void drop(struct log_ratelimit *f)
{
    if (f->dropped++ == 0)
        f->report_dropped_ms = f->second_ms + LOG_RATELIMIT_SECOND_MS;
}

bool log_ratelimit_take(struct log_ratelimit *f, enum log_level level, const char *message, int64_t now_ms)
{
    if (is_repeated(f, level, message, now_ms))
        f->repeats++;
    else if (!has_room(f, level, now_ms))
        drop(f);
    else
        return true;
    return false;
}

void log_ratelimit_wrote(struct log_ratelimit *f, enum log_level level, const char *message, int64_t now_ms)
{
    snprintf(f->last, sizeof(f->last), "%s", message);
    f->level = level;
    f->until_ms = now_ms + LOG_RATELIMIT_REPEAT_MS;
}

bool log_ratelimit_report(struct log_ratelimit *f, enum log_ratelimit_when when, int64_t now_ms,
                          struct log_ratelimit_report *ret)
{
    if (f->repeats > 0 && (when != LOG_RATELIMIT_TICK || now_ms >= f->until_ms)) {
        *ret = (struct log_ratelimit_report){.message = f->last, .level = f->level, .n = f->repeats};
        f->repeats = 0;
        f->until_ms = now_ms + LOG_RATELIMIT_REPEAT_MS;
        return true;
    }
    if (f->dropped > 0 && (when == LOG_RATELIMIT_END || now_ms >= f->report_dropped_ms)) {
        *ret = (struct log_ratelimit_report){.level = LOG_WARN, .n = f->dropped};
        f->dropped = 0;
        return true;
    }
    return false;
}

/* The oldest of texts that may be logged again, to be replaced; LOG_ONCE_MAX when there is none. */
static size_t find_expired(const struct log_once *once, int64_t now_ms)
{
    size_t oldest = 0;
    for (size_t i = 1; i < once->n; i++) {
        if (once->texts[i].at_ms < once->texts[oldest].at_ms)
            oldest = i;
    }
    return once->again_ms > 0 && now_ms - once->texts[oldest].at_ms >= once->again_ms ? oldest : LOG_ONCE_MAX;
}

bool log_once(struct log_once *once, const char *text, int64_t now_ms)
{
    size_t i = 0;
    while (i < once->n && strncmp(once->texts[i].text, text, LOG_ONCE_TEXT - 1) != 0)
        i++;
    if (i < once->n && (once->again_ms == 0 || now_ms - once->texts[i].at_ms < once->again_ms))
        return false;
    if (i == LOG_ONCE_MAX)
        i = find_expired(once, now_ms);
    if (i == LOG_ONCE_MAX)
        return false;
    snprintf(once->texts[i].text, LOG_ONCE_TEXT, "%s", text);
    once->texts[i].at_ms = now_ms;
    if (i == once->n)
        once->n++;
    return true;
}
