/* redis_notes: see redis_notes.h. */
#include "net/redis_notes.h"

#include <stdio.h>
#include <string.h>

#include "lib/stats.h"

enum { COMPLAIN_AGAIN_MS = 60000 };

void redis_notes_init(struct redis_notes *notes)
{
    static const char *const labels[REDIS_VERBS] = {
        [REDIS_GET] = "get", [REDIS_SET] = "set", [REDIS_EVAL] = "eval"};
    for (size_t i = 0; i < REDIS_VERBS; i++)
        notes->times[i] = stat_series(FAMILY_REDIS_TIME, "command", labels[i]);
}

void redis_notes_sent(enum redis_verb verb)
{
    static const enum stat_id counters[] = {
        [REDIS_GET] = STAT_REDIS_GETS, [REDIS_SET] = STAT_REDIS_SETS, [REDIS_EVAL] = STAT_REDIS_EVALS};
    stat_inc(counters[verb]);
}

void redis_notes_answered(struct redis_notes *notes, enum redis_verb verb, int64_t took_ns)
{
    series_observe(notes->times[verb], took_ns);
}

const char *redis_notes_complaint(struct redis_notes *notes, enum redis_verb verb, const char *error,
                                  uint64_t now_ms)
{
    char word[sizeof(notes->complaints[0].word)];
    snprintf(word, sizeof(word), "%.*s", (int)strcspn(error, " "), error);
    if (strcmp(word, notes->complaints[verb].word) == 0 &&
        now_ms - notes->complaints[verb].at_ms < COMPLAIN_AGAIN_MS)
        return NULL;
    strcpy(notes->complaints[verb].word, word);
    notes->complaints[verb].at_ms = now_ms;
    return notes->complaints[verb].word;
}

void redis_notes_forget(struct redis_notes *notes)
{
    memset(notes->complaints, 0, sizeof(notes->complaints));
}
