/* breaker: see breaker.h. */
#include "upstream/breaker.h"

enum { PAUSE_FIRST_MS = 500, PROBE_RETRY_MS = 250 };
enum { TROUBLES_IN_A_ROW = 3, LOG_AGAIN_MS = 60 * 1000 };

void breaker_init(struct breaker *s, struct breaker_rules rules, int64_t now_ms)
{
    *s = (struct breaker){.rules = rules,
                          .tokens = (double)rules.per_second,
                          .tokens_at_ms = now_ms,
                          .logged.again_ms = LOG_AGAIN_MS};
}

/* One query out of the bucket, which holds a second's worth; 0, or how long until there is one. */
static int64_t take_token(struct breaker *s, int64_t now_ms)
{
    const double per_ms = (double)s->rules.per_second / 1000;
    if (s->rules.per_second == 0)
        return 0;
    s->tokens += (double)(now_ms - s->tokens_at_ms) * per_ms;
    if (s->tokens > (double)s->rules.per_second)
        s->tokens = (double)s->rules.per_second;
    s->tokens_at_ms = now_ms;
    if (s->tokens < 1)
        return 1 + (int64_t)((1 - s->tokens) / per_ms);
    s->tokens -= 1;
    return 0;
}

int64_t breaker_ask(struct breaker *s, int64_t now_ms)
{
    if (s->state == BREAKER_OPEN && s->open_until_ms > now_ms)
        return s->open_until_ms - now_ms;
    if (s->state == BREAKER_PROBING)
        return PROBE_RETRY_MS; /* the probe is under way */
    int64_t wait_ms = take_token(s, now_ms);
    if (wait_ms == 0 && s->state == BREAKER_OPEN)
        s->state = BREAKER_PROBING;
    return wait_ms;
}

/* Twice as long each time, up to the most, less a random part of it up to a quarter. */
static int64_t next_pause_ms(struct breaker *s, double random)
{
    int64_t pause_ms = PAUSE_FIRST_MS;
    for (int64_t i = 0; i < s->pauses && pause_ms < s->rules.breaker_pause_ms; i++)
        pause_ms *= 2;
    if (pause_ms > s->rules.breaker_pause_ms)
        pause_ms = s->rules.breaker_pause_ms;
    s->pauses++;
    return pause_ms - (int64_t)((double)pause_ms * random / 4);
}

static bool open_breaker(struct breaker *s, double random, int64_t now_ms)
{
    bool change = s->state == BREAKER_CLOSED;
    s->state = BREAKER_OPEN;
    s->open_until_ms = now_ms + next_pause_ms(s, random);
    return change;
}

bool breaker_end(struct breaker *s, enum breaker_end end, double random, int64_t now_ms)
{
    bool was_closed = s->state == BREAKER_CLOSED;
    switch (end) {
    case BREAKER_GOOD:
        s->failures = s->pauses = 0;
        s->state = BREAKER_CLOSED;
        return !was_closed;
    case BREAKER_FAILED:
        s->failures++;
        if (s->state == BREAKER_PROBING)
            return open_breaker(s, random, now_ms);
        if (was_closed && s->rules.breaker_failures > 0 && s->failures >= s->rules.breaker_failures)
            return open_breaker(s, random, now_ms);
        return false;
    case BREAKER_UNKNOWN: /* cancelled: a probe that says nothing is made again */
        if (s->state == BREAKER_PROBING)
            s->state = BREAKER_OPEN;
        return false;
    }
    return false;
}

bool breaker_note(struct breaker *s, const char *trouble, int64_t now_ms)
{
    if (trouble == NULL) {
        bool was_troubled = s->troubles >= TROUBLES_IN_A_ROW;
        s->troubles = 0;
        if (was_troubled)
            log_once_reset(&s->logged);
        return was_troubled;
    }
    s->troubles++;
    return log_once(&s->logged, trouble, now_ms);
}
