/* standing: see standing.h. */
#include "standing.h"

#include <stdio.h>
#include <string.h>

enum { HOLD_LEAST_MS = 1000, HOLD_MOST_MS = 5 * 60 * 1000 };

int64_t standing_hold(struct standing *s, int64_t ms, int64_t now_ms)
{
    ms = ms < HOLD_LEAST_MS ? HOLD_LEAST_MS : ms > HOLD_MOST_MS ? HOLD_MOST_MS : ms;
    s->held_until_ms = now_ms + ms;
    return ms;
}

int64_t standing_held_ms(const struct standing *s, int64_t now_ms)
{
    return s->held_until_ms > now_ms ? s->held_until_ms - now_ms : 0;
}

bool standing_note(struct standing *s, const char *trouble)
{
    trouble = trouble ? trouble : "";
    if (strncmp(s->trouble, trouble, sizeof(s->trouble) - 1) == 0)
        return false;
    snprintf(s->trouble, sizeof(s->trouble), "%s", trouble);
    return true;
}
