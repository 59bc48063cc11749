/* breaker: see breaker.h. */
#include "upstream/breaker.h"

enum { PAUSE_FIRST_MS = 500, PROBE_RETRY_MS = 250 };
enum { ERRORS_IN_A_ROW = 3, LOG_AGAIN_MS = 60 * 1000 };

void breaker_init(struct breaker *s, struct breaker_rules rules, int64_t now_ms)
{
    *s = (struct breaker){.rules = rules,
                          .pause = {.first_ms = PAUSE_FIRST_MS, .max_ms = rules.breaker_pause_ms},
                          .tokens = (double)rules.per_second,
                          .tokens_at_ms = now_ms,
                          .logged.again_ms = LOG_AGAIN_MS};
}

/* Takes a token from the bucket, which holds those of one second. 0, or the milliseconds until there is one. */
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
        return PROBE_RETRY_MS; /* a probe is under way */
    int64_t wait_ms = take_token(s, now_ms);
    if (wait_ms == 0 && s->state == BREAKER_OPEN)
        s->state = BREAKER_PROBING;
    return wait_ms;
}

/* The random part is at most a quarter of the pause. */
static bool open_breaker(struct breaker *s, double random, int64_t now_ms)
{
    bool was_closed = s->state == BREAKER_CLOSED;
    int64_t pause_ms = backoff_next(&s->pause);
    s->state = BREAKER_OPEN;
    s->open_until_ms = now_ms + pause_ms - (int64_t)((double)pause_ms * random / 4);
    return was_closed;
}

static bool close_breaker(struct breaker *s)
{
    bool was_closed = s->state == BREAKER_CLOSED;
    s->failures = 0;
    s->state = BREAKER_CLOSED;
    backoff_reset(&s->pause);
    return !was_closed;
}

/* Queries that end while the breaker is open were sent before and show nothing new. */
static bool count_failure(struct breaker *s, double random, int64_t now_ms)
{
    bool too_many = s->rules.breaker_failures > 0 && ++s->failures >= s->rules.breaker_failures;
    if (s->state == BREAKER_PROBING || (s->state == BREAKER_CLOSED && too_many))
        return open_breaker(s, random, now_ms);
    return false;
}

bool breaker_learn(struct breaker *s, enum breaker_lesson lesson, double random, int64_t now_ms)
{
    switch (lesson) {
    case BREAKER_GOOD:
        return close_breaker(s);
    case BREAKER_FAILED:
        return count_failure(s, random, now_ms);
    case BREAKER_NOTHING:
        if (s->state == BREAKER_PROBING)
            s->state = BREAKER_OPEN; /* the next query probes again */
        return false;
    }
    return false;
}

bool breaker_note(struct breaker *s, const char *error, int64_t now_ms)
{
    if (error == NULL) {
        bool was_failing = s->errors >= ERRORS_IN_A_ROW;
        s->errors = 0;
        if (was_failing)
            log_once_reset(&s->logged);
        return was_failing;
    }
    s->errors++;
    return log_once(&s->logged, error, now_ms);
}
