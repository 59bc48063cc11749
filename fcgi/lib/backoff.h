/* backoff: a pause that doubles with each failure, up to a limit. */
#ifndef BACKOFF_H
#define BACKOFF_H

#include <stdint.h>

/* Set first_ms and max_ms; the other member starts as 0. */
struct backoff {
    int64_t first_ms; /* the pause after the first failure */
    int64_t max_ms;   /* no pause is longer */
    int64_t last_ms;  /* the pause returned last; 0: no failure since the reset */
};

/* The pause after one more failure. */
static inline int64_t backoff_next(struct backoff *b)
{
    int64_t pause_ms = b->last_ms == 0 ? b->first_ms : b->last_ms * 2;
    return b->last_ms = pause_ms < b->max_ms ? pause_ms : b->max_ms;
}

static inline void backoff_reset(struct backoff *b)
{
    b->last_ms = 0;
}

#endif
