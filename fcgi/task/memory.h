/* memory: what a worker remembers of tasks - snapshots, tasks that do not exist, and failures to ask.
 *
 * A task that was seen before and is now said to be missing is believed to be so only when the upstream has
 * said it three times in a row. */
#ifndef MEMORY_H
#define MEMORY_H

#include "task/cache.h"
#include "task/problem.h"
#include "task/route.h"

struct memory;

struct memory *memory_new(const struct conf_cache *conf);
void memory_free(struct memory *memory); /* NULL is allowed */

/* What is known of one task. */
struct memory_look {
    struct snapshot *snapshot; /* (ref) until the next call: fresh or not; NULL: none */
    bool missing;              /* there is no such task, and that is fresh */
    enum problem problem;      /* not NONE: asking has just failed, and the snapshot has to do for now */
    int64_t left_ms; /* how long that is so: the freshness, or the time until it may be asked again */
};

struct memory_look memory_look(struct memory *memory, const struct task *task, int64_t now_ms);

/* News: a snapshot, which takes the place of all that was known. */
void memory_keep(struct memory *memory, const struct task *task, struct snapshot *snapshot);

/* The upstream says that there is no such task; `last` is what was known, or NULL. True when that is
 * believed. */
bool memory_keep_missing(struct memory *memory, const struct task *task, struct snapshot *last,
                         int64_t now_ms);

/* Asking has failed: `last`, when there is one, stands in until the task would have been asked again anyway,
 * or `retry_after_ms` are over. Returns for how long; 0 where none stands in. */
int64_t memory_keep_failure(struct memory *memory, const struct task *task, struct snapshot *last,
                            enum problem problem, int64_t retry_after_ms, int64_t now_ms);

/* Another worker has failed: what we know, unless it is fresh, stands in for `pause_ms`. By the task's key. */
void memory_hear_failure(struct memory *memory, const char *key, size_t key_len, enum problem problem,
                         int64_t pause_ms, int64_t now_ms);

/* Somebody knows better: a snapshot of a task that runs is no longer fresh. By the task's key. */
void memory_outdate(struct memory *memory, const char *key, size_t key_len, int64_t now_ms);

size_t memory_entries(const struct memory *memory);
size_t memory_bytes(const struct memory *memory);
size_t memory_evictions(const struct memory *memory); /* so far */

#endif
