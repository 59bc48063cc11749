/* cache: what a worker knows about tasks. The entry of a task has its last snapshot, or a problem (the task
 * does not exist, or the last query failed), or both.
 *
 * Entries with a snapshot share the configured memory. Each is charged to a team's account, and the account
 * that uses the most memory loses an entry first, so a team that uses at most an equal share loses none to
 * other teams. Entries without a snapshot have a small separate budget, so that guessed ids cannot evict
 * results. Both an account and that budget lose their least recently used entry.
 *
 * All times are loop times, except that URLs expire on dates.
 *
 * A task with a snapshot counts as missing only after the upstream has reported it missing three times in a
 * row. */
#ifndef CACHE_H
#define CACHE_H

#include "task/problem.h"
#include "task/route.h"

struct cache;

/* `conf` (ref) outlives the cache. */
struct cache *cache_new(const struct conf_cache *conf, size_t n_accounts);
void cache_free(struct cache *cache); /* NULL is allowed */

/* The content of an entry. While there is a problem, the task should not be queried. TASK_NOT_FOUND without a
 * snapshot means that the task does not exist; any other problem, that the last query failed. The snapshot,
 * if there is one, may be served in place of the problem. A snapshot that is not stale is to be fetched, too, while it
 * is unconfirmed: Redis may have a newer one. */
struct cache_result {
    struct snapshot *snapshot; /* (ref) until the next call; NULL: none */
    enum problem problem;
    int64_t left_ms; /* until the snapshot is stale, or the problem expires; 0: fetch the task now */
    bool failing;    /* the snapshot is stale, and the last query failed, even if its problem has expired */
};

struct cache_result cache_get(struct cache *cache, const struct task *task, struct moment now);

/* Replaces the entry. The cache takes its own reference to the snapshot, which is charged to the account of
 * the snapshot that it replaces or, if there is none, to `account`, which is less than n_accounts. */
void cache_keep(struct cache *cache, const struct task *task, struct snapshot *snapshot, size_t account);

/* Records that the upstream has reported the task missing; `last` is the last snapshot, or NULL. Returns true
 * if the task counts as missing from now on. */
bool cache_keep_missing(struct cache *cache, const struct task *task, struct snapshot *last, int64_t now_ms);

/* Records that a query has failed. The next one should wait for the task's poll interval, or for
 * `retry_after_ms` if that is longer; meanwhile `last`, if not NULL, may be served. Returns that time; 0: the
 * failure was not kept. */
int64_t cache_keep_failure(struct cache *cache, const struct task *task, struct snapshot *last,
                           enum problem problem, int64_t retry_after_ms, struct moment now);

/* Records that a query of another worker has failed: for `pause_ms`, a stale snapshot may be served. Without an
 * entry, cache_get reports nothing, because Redis may have a snapshot; cache_remote_failure reports the failure. */
void cache_keep_remote_failure(struct cache *cache, const struct task *task, enum problem problem,
                               int64_t pause_ms, int64_t now_ms);

/* The failure of another worker's query for a task that has no other entry, until its pause is over, or NONE. `last`
 * is the snapshot in Redis, or NULL. */
enum problem cache_remote_failure(struct cache *cache, const struct task *task, const struct snapshot *last,
                                  int64_t now_ms, int64_t *ret_left_ms);

/* Records that another worker has published a snapshot of the task, by its key: that of a running task becomes
 * unconfirmed, not stale, because a notification can come late. */
void cache_question(struct cache *cache, const char *key, size_t key_len);

/* Records that other workers may have published snapshots of any task. */
void cache_question_running(struct cache *cache);

/* The entries with a snapshot. */
struct cache_usage {
    size_t entries;
    size_t bytes;
    size_t evictions; /* so far */
};

struct cache_usage cache_usage(const struct cache *cache);

#endif
