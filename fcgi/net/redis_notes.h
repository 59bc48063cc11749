/* redis_notes: what is noted of commands to Redis - how many, how long they took, which refusals were logged. */
#ifndef REDIS_NOTES_H
#define REDIS_NOTES_H

#include "lib/util.h"

enum redis_verb { REDIS_GET, REDIS_SET, REDIS_EVAL, REDIS_VERBS };

struct redis_notes {
    int64_t *times[REDIS_VERBS]; /* series */
    struct {
        char word[32]; /* the first one of the error that was logged */
        uint64_t at_ms;
    } complaints[REDIS_VERBS];
};

void redis_notes_init(struct redis_notes *notes);

void redis_notes_sent(enum redis_verb verb);
void redis_notes_answered(struct redis_notes *notes, enum redis_verb verb, int64_t took_ns);

/* Whether an error's first word, which is returned, is to be logged: it is another one than last, or that was long ago.
 * NULL: it is not. */
const char *redis_notes_complaint(struct redis_notes *notes, enum redis_verb verb, const char *error,
                                  uint64_t now_ms);

/* All is well again: the next error is news. */
void redis_notes_forget(struct redis_notes *notes);

#endif
