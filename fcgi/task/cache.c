/* cache: see cache.h. One hash table finds all entries; LRU lists, one for each account and one for the
 * entries without a snapshot, decide which are evicted. */
#include "task/cache.h"

#include <stdlib.h>
#include <string.h>

#include <uthash.h>
#include <utlist.h>

enum {
    UNKNOWN_BYTES = 1024 * 1024,
    TIMES_MISSING_BELIEVED = 3,
    ALLOCATOR_OVERHEAD = 64 /* estimated, for the blocks of an entry and its snapshot */
};

struct entry {
    struct snapshot *snapshot; /* NULL: none, and there is a problem */
    bool unconfirmed;          /* another worker may have a newer snapshot */
    enum problem problem;      /* why the last query failed, or TASK_NOT_FOUND */
    int64_t quiet_until_ms;    /* end of the problem: no query before that time */
    bool remote;               /* no query of this worker: another one has reported the problem */
    int times_missing;         /* how often in a row the upstream has reported the task missing */
    size_t account;            /* the account that the snapshot is charged to */
    size_t bytes;              /* counted in the store */
    struct entry *prev, *next; /* in the store */
    UT_hash_handle hh;
    size_t key_len;
    char key[];
};

struct store {
    struct entry *oldest;
    size_t bytes;
};

struct cache {
    const struct conf_cache *conf; /* (ref) */
    struct entry *table;
    struct store unknown;     /* the entries without a snapshot */
    struct cache_usage usage; /* of the entries with a snapshot */
    size_t n_accounts;
    struct store known[]; /* the entries with a snapshot, by account */
};

/* ---- entries and stores ---- */

static struct store *store_of(struct cache *c, const struct entry *e)
{
    return e->snapshot ? &c->known[e->account] : &c->unknown;
}

static void enter_store(struct cache *c, struct entry *e)
{
    struct store *store = store_of(c, e);
    e->bytes = sizeof(*e) + e->key_len + ALLOCATOR_OVERHEAD + (e->snapshot ? snapshot_bytes(e->snapshot) : 0);
    DL_APPEND(store->oldest, e);
    store->bytes += e->bytes;
    c->usage.bytes += e->snapshot ? e->bytes : 0;
    c->usage.entries += e->snapshot != NULL;
}

static void leave_store(struct cache *c, struct entry *e)
{
    struct store *store = store_of(c, e);
    DL_DELETE(store->oldest, e); // NOLINT(clang-analyzer-core.NullDereference): the entry is in the list
    store->bytes -= e->bytes;
    c->usage.bytes -= e->snapshot ? e->bytes : 0;
    c->usage.entries -= e->snapshot != NULL;
}

static void drop(struct cache *c, struct entry *e)
{
    leave_store(c, e);
    HASH_DEL(c->table, e); // NOLINT(clang-analyzer-core.NullDereference): the entry is in the table
    snapshot_unref(e->snapshot);
    free(e);
}

/* Takes its own reference to the snapshot. NULL removes the old one. */
static void set_snapshot(struct cache *c, struct entry *e, struct snapshot *snapshot)
{
    struct snapshot *old = e->snapshot;
    leave_store(c, e);
    e->snapshot = snapshot ? snapshot_ref(snapshot) : NULL;
    e->unconfirmed = false;
    enter_store(c, e);
    snapshot_unref(old);
}

/* How long no query may be sent because of the problem. */
static int64_t quiet_left_ms(const struct entry *e, int64_t now_ms)
{
    return e->quiet_until_ms > now_ms ? e->quiet_until_ms - now_ms : 0;
}

static struct entry *find(struct cache *c, const char *key, size_t key_len)
{
    struct entry *e;
    HASH_FIND(hh, c->table, key, key_len, e);
    return e;
}

static struct entry *find_or_add(struct cache *c, const struct task *task)
{
    struct entry *e = find(c, task->key, task->key_len);
    if (e != NULL)
        return e;
    e = xcalloc(1, sizeof(*e) + task->key_len);
    e->key_len = task->key_len;
    memcpy(e->key, task->key, task->key_len);
    HASH_ADD(hh, c->table, key, e->key_len, e);
    enter_store(c, e);
    return e;
}

/* Finds an entry, drops its snapshot or the entry if they have expired, and marks it as used. */
static struct entry *find_live(struct cache *c, const char *key, size_t key_len, int64_t now_ms)
{
    struct entry *e = find(c, key, key_len);
    if (e == NULL)
        return NULL;
    if (e->snapshot != NULL && now_ms >= e->snapshot->keep_until_ms)
        set_snapshot(c, e, NULL);
    if (e->snapshot == NULL && quiet_left_ms(e, now_ms) == 0) {
        drop(c, e);
        return NULL;
    }
    leave_store(c, e);
    enter_store(c, e);
    return e;
}

static struct store *largest(struct cache *c)
{
    struct store *found = c->known;
    for (size_t i = 1; i < c->n_accounts; i++) {
        if (c->known[i].bytes > found->bytes)
            found = &c->known[i];
    }
    return found;
}

/* May evict any entry, including the one that was added last. */
static void push_out(struct cache *c)
{
    for (; c->usage.bytes > (size_t)c->conf->memory; c->usage.evictions++)
        drop(c, largest(c)->oldest);
    while (c->unknown.bytes > UNKNOWN_BYTES)
        drop(c, c->unknown.oldest);
}

/* ---- lookups ---- */

struct cache_result cache_get(struct cache *c, const struct task *task, struct moment now)
{
    struct cache_result cached = {0};
    const struct entry *e = find_live(c, task->key, task->key_len, now.ms);
    if (e == NULL || (e->remote && e->snapshot == NULL))
        return cached;
    cached.snapshot = e->snapshot;
    cached.left_ms = e->snapshot ? snapshot_left_ms(e->snapshot, now) : 0;
    if (cached.left_ms > 0) {
        cached.left_ms = e->unconfirmed ? 0 : cached.left_ms;
        return cached;
    }
    cached.failing = e->problem != PROBLEM_NONE && e->problem != PROBLEM_TASK_NOT_FOUND;
    cached.left_ms = quiet_left_ms(e, now.ms);
    if (cached.left_ms > 0)
        cached.problem = e->problem;
    return cached;
}

/* ---- keeping ---- */

static void set_problem(struct entry *e, enum problem problem, int64_t now_ms, int64_t quiet_ms)
{
    e->problem = problem;
    e->quiet_until_ms = now_ms + quiet_ms;
    e->remote = false;
    if (problem != PROBLEM_TASK_NOT_FOUND)
        e->times_missing = 0;
}

void cache_keep(struct cache *c, const struct task *task, struct snapshot *snapshot, size_t account)
{
    struct entry *e = find_or_add(c, task);
    if (e->snapshot == NULL)
        e->account = account;
    set_snapshot(c, e, snapshot);
    set_problem(e, PROBLEM_NONE, 0, 0);
    push_out(c);
}

/* The entry of a task, with `last` if the entry has no snapshot. NULL if `last` is too large to be kept. */
static struct entry *entry_with(struct cache *c, const struct task *task, struct snapshot *last)
{
    struct entry *e = find_or_add(c, task);
    if (e->snapshot != NULL || last == NULL)
        return e;
    set_snapshot(c, e, last);
    push_out(c);
    return find(c, task->key, task->key_len);
}

bool cache_keep_missing(struct cache *c, const struct task *task, struct snapshot *last, int64_t now_ms)
{
    struct entry *e = entry_with(c, task, last);
    if (e != NULL && e->snapshot != NULL && ++e->times_missing < TIMES_MISSING_BELIEVED)
        return false;
    e = find_or_add(c, task);
    set_snapshot(c, e, NULL);
    set_problem(e, PROBLEM_TASK_NOT_FOUND, now_ms, c->conf->missing_ttl_ms);
    push_out(c);
    return true;
}

/* Whether to keep the failure of a task without a snapshot. While the upstream is unavailable or this process
 * has no descriptor left, no query is sent anyway, so none has to be prevented. */
static bool costs_a_query(enum problem problem)
{
    return problem != PROBLEM_UNAVAILABLE && problem != PROBLEM_OVERLOADED;
}

int64_t cache_keep_failure(struct cache *c, const struct task *task, struct snapshot *last,
                           enum problem problem, int64_t retry_after_ms, struct moment now)
{
    const struct snapshot_rules rules = task_rules(task, c->conf);
    if (last == NULL && !costs_a_query(problem))
        return 0;
    struct entry *e = entry_with(c, task, last);
    if (e == NULL)
        return 0;
    int64_t pause_ms = last ? snapshot_interval_ms(last->created_ms, &rules, now.date_ms)
                            : task->route->provider->poll.min_ms;
    pause_ms = max64(pause_ms, retry_after_ms);
    set_problem(e, problem, now.ms, pause_ms);
    push_out(c);
    return pause_ms;
}

static bool is_running(const struct entry *e)
{
    return e->snapshot != NULL && !state_ended(e->snapshot->state);
}

void cache_keep_remote_failure(struct cache *c, const struct task *task, enum problem problem,
                               int64_t pause_ms, int64_t now_ms)
{
    struct entry *e = find_live(c, task->key, task->key_len, now_ms);
    bool added = e == NULL && problem != PROBLEM_TASK_NOT_FOUND;
    if (added)
        e = find_or_add(c, task);
    if (added || (e != NULL && is_running(e) && now_ms >= e->snapshot->fresh_until_ms)) {
        set_problem(e, problem, now_ms, max64(pause_ms, task->route->provider->poll.min_ms));
        e->remote = added;
        push_out(c);
    }
}

enum problem cache_remote_failure(struct cache *c, const struct task *task, const struct snapshot *last,
                                  int64_t now_ms, int64_t *ret_left_ms)
{
    const struct entry *e = find_live(c, task->key, task->key_len, now_ms);
    if (e == NULL || !e->remote || e->snapshot != NULL || (last == NULL && !costs_a_query(e->problem)))
        return PROBLEM_NONE;
    *ret_left_ms = quiet_left_ms(e, now_ms);
    return e->problem;
}

void cache_question(struct cache *c, const char *key, size_t key_len)
{
    struct entry *e = find(c, key, key_len);
    if (e != NULL)
        e->unconfirmed = is_running(e);
}

void cache_question_running(struct cache *c)
{
    for (struct entry *e = c->table; e != NULL; e = e->hh.next)
        e->unconfirmed = is_running(e);
}

/* ---- the cache ---- */

struct cache *cache_new(const struct conf_cache *conf, size_t n_accounts)
{
    struct cache *c = xcalloc(1, sizeof(*c) + n_accounts * sizeof(struct store));
    c->conf = conf;
    c->n_accounts = n_accounts;
    return c;
}

void cache_free(struct cache *c)
{
    if (c == NULL)
        return;
    while (c->table != NULL)
        drop(c, c->table);
    free(c);
}

struct cache_usage cache_usage(const struct cache *c)
{
    return c->usage;
}
