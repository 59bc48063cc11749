/* memory: see memory.h. */
#include "task/memory.h"

#include <stdlib.h>

enum { MISSING_BYTES = 1024 * 1024, TIMES_MISSING_BELIEVED = 3 };

struct memory {
    const struct conf_cache *conf; /* (ref) */
    struct cache *snapshots;
    struct cache *missing; /* its own store: guessed ids cannot push out results */
    size_t evictions;
};

struct memory *memory_new(const struct conf_cache *conf)
{
    struct memory *m = xcalloc(1, sizeof(*m));
    m->conf = conf;
    m->snapshots = cache_new((size_t)conf->memory);
    m->missing = cache_new(MISSING_BYTES);
    return m;
}

void memory_free(struct memory *m)
{
    if (m == NULL)
        return;
    cache_free(m->snapshots);
    cache_free(m->missing);
    free(m);
}

struct memory_look memory_look(struct memory *m, const struct task *task, int64_t now_ms)
{
    struct memory_look look = {.snapshot = cache_get(m->snapshots, task->key, task->key_len, now_ms)};
    if (look.snapshot != NULL && snapshot_is_fresh(look.snapshot, now_ms)) {
        look.left_ms = look.snapshot->fresh_until_ms - now_ms;
        return look;
    }
    const struct cache_note *note = cache_note(m->snapshots, task->key, task->key_len);
    if (note != NULL && now_ms < note->quiet_until_ms) {
        look.problem = (enum problem)note->problem;
        look.left_ms = note->quiet_until_ms - now_ms;
        return look;
    }
    const struct snapshot *missing = cache_get(m->missing, task->key, task->key_len, now_ms);
    look.missing = missing != NULL && snapshot_is_fresh(missing, now_ms);
    if (look.missing)
        look.left_ms = missing->fresh_until_ms - now_ms;
    return look;
}

void memory_keep(struct memory *m, const struct task *task, struct snapshot *snapshot)
{
    m->evictions += cache_put(m->snapshots, task->key, task->key_len, snapshot);
    cache_remove(m->missing, task->key, task->key_len);
}

/* The note of the entry, which is made from `last` when it is only known from elsewhere. NULL without one. */
static struct cache_note *note_of(struct memory *m, const struct task *task, struct snapshot *last)
{
    struct cache_note *note = cache_note(m->snapshots, task->key, task->key_len);
    if (note == NULL && last != NULL) {
        m->evictions += cache_put(m->snapshots, task->key, task->key_len, last);
        note = cache_note(m->snapshots, task->key, task->key_len);
    }
    return note;
}

bool memory_keep_missing(struct memory *m, const struct task *task, struct snapshot *last, int64_t now_ms)
{
    struct cache_note *note = note_of(m, task, last);
    if (note != NULL && ++note->times_missing < TIMES_MISSING_BELIEVED)
        return false;
    struct snapshot *missing = snapshot_new_missing(now_ms, now_ms + m->conf->missing_ttl_ms);
    cache_remove(m->snapshots, task->key, task->key_len);
    cache_put(m->missing, task->key, task->key_len, missing);
    snapshot_unref(missing);
    return true;
}

static void note_failure(struct cache_note *note, enum problem problem, int64_t quiet_until_ms)
{
    note->problem = problem;
    note->quiet_until_ms = quiet_until_ms;
    if (problem != PROBLEM_TASK_NOT_FOUND)
        note->times_missing = 0;
}

int64_t memory_keep_failure(struct memory *m, const struct task *task, struct snapshot *last,
                            enum problem problem, int64_t retry_after_ms, int64_t now_ms)
{
    if (last == NULL)
        return 0;
    const struct snapshot_rules rules = task_rules(task, m->conf);
    int64_t pause_ms = snapshot_interval_ms(last, &rules, now_ms);
    struct cache_note *note = note_of(m, task, last);
    if (note == NULL)
        return 0; /* it is too large to be kept */
    if (retry_after_ms > pause_ms)
        pause_ms = retry_after_ms;
    note_failure(note, problem, now_ms + pause_ms);
    return pause_ms;
}

void memory_hear_failure(struct memory *m, const char *key, size_t key_len, enum problem problem,
                         int64_t pause_ms, int64_t now_ms)
{
    const struct snapshot *known = cache_get(m->snapshots, key, key_len, now_ms);
    if (known == NULL || state_ended(known->state) || snapshot_is_fresh(known, now_ms))
        return;
    note_failure(cache_note(m->snapshots, key, key_len), problem, now_ms + pause_ms);
}

void memory_outdate(struct memory *m, const char *key, size_t key_len, int64_t now_ms)
{
    const struct snapshot *known = cache_get(m->snapshots, key, key_len, now_ms);
    if (known == NULL || state_ended(known->state) || !snapshot_is_fresh(known, now_ms))
        return;
    struct snapshot *outdated = snapshot_outdated(known, now_ms);
    m->evictions += cache_put(m->snapshots, key, key_len, outdated);
    snapshot_unref(outdated);
}

size_t memory_entries(const struct memory *m)
{
    return cache_entries(m->snapshots);
}

size_t memory_bytes(const struct memory *m)
{
    return cache_bytes(m->snapshots);
}

size_t memory_evictions(const struct memory *m)
{
    return m->evictions;
}
