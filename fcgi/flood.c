/* flood: see flood.h. */
#include "flood.h"

#include <stdio.h>
#include <string.h>

/* Also when its time is over and nobody has asked for the report yet. */
static bool is_repeated(const struct flood *f, enum log_level level, const char *message, int64_t now_ms)
{
    return (now_ms < f->until_ms || f->repeats > 0) && level == f->level && strcmp(message, f->last) == 0;
}

static bool has_room(struct flood *f, enum log_level level, int64_t now_ms)
{
    if (now_ms - f->second_ms >= FLOOD_SECOND_MS) {
        f->second_ms = now_ms;
        memset(f->passed, 0, sizeof(f->passed));
    }
    return f->passed[level]++ < FLOOD_PER_SECOND;
}

static void drop(struct flood *f)
{
    if (f->dropped++ == 0)
        f->tell_dropped_ms = f->second_ms + FLOOD_SECOND_MS;
}

bool flood_take(struct flood *f, enum log_level level, const char *message, int64_t now_ms)
{
    if (is_repeated(f, level, message, now_ms))
        f->repeats++;
    else if (!has_room(f, level, now_ms))
        drop(f);
    else
        return true;
    return false;
}

void flood_wrote(struct flood *f, enum log_level level, const char *message, int64_t now_ms)
{
    snprintf(f->last, sizeof(f->last), "%s", message);
    f->level = level;
    f->until_ms = now_ms + FLOOD_REPEAT_MS;
}

bool flood_report(struct flood *f, enum flood_when when, int64_t now_ms, struct flood_report *ret)
{
    if (f->repeats > 0 && (when != FLOOD_TIME_PASSES || now_ms >= f->until_ms)) {
        *ret = (struct flood_report){.message = f->last, .level = f->level, .n = f->repeats};
        f->repeats = 0;
        f->until_ms = now_ms + FLOOD_REPEAT_MS;
        return true;
    }
    if (f->dropped > 0 && (when == FLOOD_ENDS || now_ms >= f->tell_dropped_ms)) {
        *ret = (struct flood_report){.level = LOG_WARN, .n = f->dropped};
        f->dropped = 0;
        return true;
    }
    return false;
}
