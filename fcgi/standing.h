/* standing: how we stand with one upstream - whether it may be asked now, and what was last wrong with it. */
#ifndef STANDING_H
#define STANDING_H

#include "util.h"

struct standing {
    int64_t held_until_ms; /* it said that we ask too often */
    char trouble[160];     /* as the log has it; "" while all is well */
};

/* It takes no queries for `ms` (0: a second; never longer than five minutes). Returns for how long. */
int64_t standing_hold(struct standing *standing, int64_t ms, int64_t now_ms);

/* For how long it is held yet; 0: it may be asked. */
int64_t standing_held_ms(const struct standing *standing, int64_t now_ms);

/* What the last query came to, in a few words, or NULL when all is well. True when that is news. */
bool standing_note(struct standing *standing, const char *trouble);

#endif
