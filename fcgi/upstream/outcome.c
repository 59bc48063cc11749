/* outcome: see outcome.h. */
#include "upstream/outcome.h"

#include <stdlib.h>
#include <string.h>

#define OUTCOME_ROW(name, label, kind, problem, breaker, key, text)                                          \
    {label, KIND_##kind, PROBLEM_##problem, BREAKER_##breaker, KEY_##key, text},
static const struct outcome_row rows[] = {OUTCOMES(OUTCOME_ROW)};

const struct outcome_row *outcome_row(enum outcome outcome)
{
    return &rows[outcome];
}

static void add_detail(const char *name, size_t len, const struct outcome_details *d, struct buf *out)
{
    if (strncmp(name, "status", len) == 0)
        buf_add_int(out, d->status);
    else if (strncmp(name, "key", len) == 0)
        buf_puts(out, d->key);
    else if (strncmp(name, "pause", len) == 0)
        buf_add_int(out, seconds_up(d->pause_ms));
    else if (strncmp(name, "why", len) != 0)
        abort(); /* the table is wrong */
    else if (d->why != NULL)
        buf_addf(out, " (%s)", d->why);
}

void outcome_describe(enum outcome outcome, const struct outcome_details *details, struct buf *out)
{
    const char *at = rows[outcome].text ? rows[outcome].text : "";
    while (*at != '\0') {
        size_t plain = strcspn(at, "{");
        buf_add(out, at, plain);
        at += plain;
        if (*at == '\0')
            return;
        size_t len = strcspn(++at, "}");
        add_detail(at, len, details, out);
        at += len + 1;
    }
}
