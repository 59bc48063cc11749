/* cache: what a worker knows of tasks, one entry each: the last snapshot, that the task does not exist, or that asking
 * for it has failed.
 *
 * Entries with a snapshot share the configured memory. Entries without one have a small budget of their own, so that
 * guessed ids cannot push out results. In both, the entry that was unused for the longest time goes first.
 *
 * The upstream has to say three times in a row that a task does not exist before a task that was seen is believed to
 * be missing. */
#ifndef CACHE_H
#define CACHE_H

#include "task/problem.h"
#include "task/route.h"

struct cache;

/* `conf` (ref) outlives the cache. */
struct cache *cache_new(const struct conf_cache *conf);
void cache_free(struct cache *cache); /* NULL is allowed */

/* What is known of one task. While there is a problem, the task should not be asked for: TASK_NOT_FOUND without a
 * snapshot means that it does not exist, any other problem that asking has failed. A snapshot may stand in then. */
struct cache_look {
    struct snapshot *snapshot; /* (ref) until the next call; NULL: none */
    enum problem problem;
    int64_t
        left_ms; /* how long the snapshot is fresh, or until the task may be asked for; 0: it may be now */
};

struct cache_look cache_look(struct cache *cache, const struct task *task, int64_t now_ms);

/* Replaces everything known of the task. Takes a reference of its own. */
void cache_keep(struct cache *cache, const struct task *task, struct snapshot *snapshot);

/* The upstream says that the task does not exist; `last` is the last snapshot, or NULL. Returns whether that is
 * believed. */
bool cache_keep_missing(struct cache *cache, const struct task *task, struct snapshot *last, int64_t now_ms);

/* Asking for the task has failed. It is not asked for again until its poll interval is over, or `retry_after_ms` if
 * that is longer; `last`, if not NULL, stands in. Returns how long that is; 0: the failure was not kept. */
int64_t cache_keep_failure(struct cache *cache, const struct task *task, struct snapshot *last,
                           enum problem problem, int64_t retry_after_ms, int64_t now_ms);

/* Another worker has failed: a snapshot that is no longer fresh stands in for `pause_ms`. By the task's key. */
void cache_hear_failure(struct cache *cache, const char *key, size_t key_len, enum problem problem,
                        int64_t pause_ms, int64_t now_ms);

/* A newer snapshot exists elsewhere: the one of a running task is no longer fresh. By the task's key. */
void cache_outdate(struct cache *cache, const char *key, size_t key_len, int64_t now_ms);

/* Of the entries with a snapshot: how many there are, what they take, and how many were pushed out so far. */
size_t cache_entries(const struct cache *cache);
size_t cache_bytes(const struct cache *cache);
size_t cache_evictions(const struct cache *cache);

#endif
