/* breaker: see breaker.h. */
#include "upstream/breaker.h"

enum { PAUSE_FIRST_MS = 500, PROBE_RETRY_MS = 250 };
enum { ERRORS_IN_A_ROW = 3, LOG_AGAIN_MS = 60 * 1000 };

/* ---- queries per second ---- */

void bucket_init(struct bucket *b, int64_t per_second, bool shared, int64_t now_ms)
{
    *b = (struct bucket){
        .per_second = per_second, .shared = shared, .tokens = (double)per_second, .at_ms = now_ms};
}

/* Takes a token from the bucket, which holds those of one second. A team that has taken some leaves at least
 * a quarter of them, and one, to the others. Returns 0, or the milliseconds until there is a token. */
static int64_t take_token(struct bucket *b, struct breaker *s, int64_t now_ms)
{
    const double per_ms = (double)b->per_second / 1000, back = (double)(now_ms - s->taken_at_ms) * per_ms;
    if (b->per_second == 0)
        return 0;
    b->tokens += (double)(now_ms - b->at_ms) * per_ms;
    if (b->tokens > (double)b->per_second)
        b->tokens = (double)b->per_second;
    b->at_ms = s->taken_at_ms = now_ms;
    s->taken = s->taken > back ? s->taken - back : 0;
    const double over = s->taken - 3 * (b->tokens - 1);
    if (b->tokens < 1)
        return 1 + (int64_t)((1 - b->tokens) / per_ms);
    if (b->shared && s->taken >= 1 && over > 0)
        return 1 + (int64_t)(over / (4 * per_ms));
    b->tokens -= 1;
    s->taken += 1;
    return 0;
}

/* ---- the breaker ---- */

void breaker_init(struct breaker *s, int64_t max_failures, int64_t max_pause_ms)
{
    *s = (struct breaker){.max_failures = max_failures,
                          .pause = {.first_ms = PAUSE_FIRST_MS, .max_ms = max_pause_ms}};
}

int64_t breaker_try(struct breaker *s, struct bucket *bucket, bool seen, int64_t now_ms)
{
    s->tried_ms = now_ms;
    int64_t until_ms = !seen && s->unseen_until_ms > s->open_until_ms ? s->unseen_until_ms : s->open_until_ms;
    if (s->state == BREAKER_OPEN && until_ms > now_ms)
        return until_ms - now_ms;
    if (s->state == BREAKER_PROBING && (s->probes_seen || !seen))
        return PROBE_RETRY_MS;
    int64_t wait_ms = take_token(bucket, s, now_ms);
    if (wait_ms == 0 && s->state != BREAKER_CLOSED) {
        s->state = BREAKER_PROBING;
        s->probes_seen = seen;
    }
    return wait_ms;
}

/* A pause after `now_ms`, longer than the last one; the random part is at most a quarter of it. */
static int64_t next_pause(struct breaker *s, double random, int64_t now_ms)
{
    int64_t pause_ms = backoff_next(&s->pause);
    return now_ms + pause_ms - (int64_t)((double)pause_ms * random / 4);
}

static void close_breaker(struct breaker *s)
{
    s->failures = 0;
    s->state = BREAKER_CLOSED;
    backoff_reset(&s->pause);
}

/* Queries that end while the breaker is open were sent before and show nothing new. */
static void count_failure(struct breaker *s, double random, int64_t now_ms)
{
    bool too_many = s->max_failures > 0 && ++s->failures >= s->max_failures;
    if (s->state == BREAKER_PROBING || (s->state == BREAKER_CLOSED && too_many)) {
        s->state = BREAKER_OPEN;
        s->open_until_ms = next_pause(s, random, now_ms);
    }
}

/* The next query probes again, but not at once if its task was never seen either. */
static void end_probe(struct breaker *s, double random, int64_t now_ms)
{
    s->state = BREAKER_OPEN;
    if (!s->probes_seen)
        s->unseen_until_ms = next_pause(s, random, now_ms);
}

bool breaker_learn(struct breaker *s, enum breaker_lesson lesson, bool seen, double random, int64_t now_ms)
{
    const bool was_closed = s->state == BREAKER_CLOSED;
    if (lesson == BREAKER_GOOD)
        close_breaker(s);
    else if (lesson == BREAKER_FAILED)
        count_failure(s, random, now_ms);
    else if (s->state == BREAKER_PROBING && s->probes_seen == seen)
        end_probe(s, random, now_ms);
    return was_closed != (s->state == BREAKER_CLOSED);
}

/* ---- errors ---- */

bool error_note(struct error_notes *notes, const char *error, int64_t now_ms)
{
    notes->logged.again_ms = LOG_AGAIN_MS;
    if (error == NULL) {
        bool was_failing = notes->errors >= ERRORS_IN_A_ROW;
        notes->errors = 0;
        if (was_failing)
            log_once_reset(&notes->logged);
        return was_failing;
    }
    notes->errors++;
    return log_once(&notes->logged, error, now_ms);
}
