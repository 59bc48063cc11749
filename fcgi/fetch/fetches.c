/* fetches: see fetches.h. */
#include "fetch/fetches.h"

#include <stdlib.h>
#include <string.h>

#include <uthash.h>
#include <utlist.h>

struct fetches_entry {
    struct fetches *fetches; /* (ref) */
    struct fetch *fetch;     /* (ref) frees itself at its end */
    struct fetch_waiter *waiters;
    UT_hash_handle hh;
    size_t key_len;
    char key[];
};

struct fetches {
    struct fetch_parts parts;
    struct fetches_entry *table;
    struct cache *cache;
    uint64_t n_sent;                  /* queries to the upstreams, so far */
    struct fetches_listener listener; /* all NULL: none */
};

/* ---- joining ---- */

/* The entry is removed from the table before its waiters are called, so that a callback that requests the
 * task again starts a new fetch. */
static void on_end(void *ctx, const struct fetch_result *result)
{
    struct fetches_entry *entry = ctx;
    struct fetches *fs = entry->fetches;
    struct fetch_waiter *waiter;
    HASH_DEL(fs->table, entry);
    while ((waiter = entry->waiters) != NULL) {
        DL_DELETE(entry->waiters, waiter);
        waiter->entry = NULL;
        waiter->on_fetched(waiter, result);
    }
    free(entry);
    if (fs->listener.on_fetched != NULL)
        fs->listener.on_fetched(fs->listener.ctx, result);
}

static bool next_payer(void *ctx, int64_t now_ms, struct quota **ret_payer)
{
    const struct fetches_entry *entry = ctx;
    const struct fetch_waiter *waiter;
    DL_FOREACH(entry->waiters, waiter)
    {
        if (!quota_is_spent(waiter->payer, now_ms)) {
            *ret_payer = waiter->payer;
            return true;
        }
    }
    return false;
}

static struct fetches_entry *find(struct fetches *fs, const char *key, size_t key_len)
{
    struct fetches_entry *entry;
    HASH_FIND(hh, fs->table, key, key_len, entry);
    return entry;
}

static struct fetches_entry *add(struct fetches *fs, const struct task *task)
{
    struct fetches_entry *entry = xcalloc(1, sizeof(*entry) + task->key_len + 1);
    entry->fetches = fs;
    entry->key_len = task->key_len;
    memcpy(entry->key, task->key, task->key_len + 1);
    HASH_ADD(hh, fs->table, key, entry->key_len, entry);
    return entry;
}

/* Returns the entry of a task, and starts a fetch if there is none. NULL if the limit of fetches is
 * reached. */
static struct fetches_entry *find_or_begin(struct fetches *fs, struct fetch_order order,
                                           enum fetches_join *ret_how)
{
    struct fetches_entry *entry = find(fs, order.task->key, order.task->key_len);
    *ret_how = entry ? FETCH_COLLAPSED : FETCH_REFUSED;
    if (entry == NULL && HASH_COUNT(fs->table) < (size_t)fs->parts.conf->limits.fetches) {
        *ret_how = FETCH_STARTED;
        entry = add(fs, order.task);
        order.next_payer = next_payer;
        order.on_end = on_end;
        order.ctx = entry;
        entry->fetch = fetch_begin(&fs->parts, &order);
    }
    return entry;
}

enum fetches_join fetches_join(struct fetches *fs, const struct task *task, struct fetch_waiter *waiter)
{
    enum fetches_join how;
    const struct fetch_order order = {.task = task, .payer = waiter->payer};
    struct fetches_entry *entry = find_or_begin(fs, order, &how);
    if (entry == NULL)
        return how;
    waiter->entry = entry;
    DL_APPEND(entry->waiters, waiter);
    return how;
}

enum fetches_join fetches_refresh(struct fetches *fs, const struct task *task, bool anew, struct quota *payer)
{
    enum fetches_join how;
    find_or_begin(fs, (struct fetch_order){.task = task, .anew = anew, .payer = payer}, &how);
    return how;
}

uint64_t fetches_sent(const struct fetches *fs)
{
    return fs->n_sent;
}

void fetches_leave(struct fetch_waiter *waiter)
{
    if (waiter->entry == NULL)
        return;
    DL_DELETE(waiter->entry->waiters, waiter);
    waiter->entry = NULL;
}

/* ---- news ---- */

void fetches_listen(struct fetches *fs, struct fetches_listener listener)
{
    fs->listener = listener;
}

/* A failure in another worker applies to this one, too. If another worker has a new snapshot, the one in the
 * cache is outdated, unless the listener fetches the new one at once. */
static void on_news(void *ctx, const struct news *news)
{
    struct fetches *fs = ctx;
    struct fetches_entry *entry = find(fs, news->key, news->key_len);
    if (entry != NULL)
        return fetch_hear(entry->fetch, news);
    if (problem_is_excusable(news->problem) || news->problem == PROBLEM_TASK_NOT_FOUND)
        cache_hear_failure(fs->cache, news->key, news->key_len, news->problem, news->retry_after_ms,
                           wall_ms());
    if (news->problem != PROBLEM_NONE)
        return;
    if (fs->listener.on_news == NULL || !fs->listener.on_news(fs->listener.ctx, news))
        cache_outdate(fs->cache, news->key, news->key_len, wall_ms());
}

void fetches_hear(struct fetches *fs)
{
    lease_listen(fs->parts.lease, on_news, fs);
}

/* ---- the table ---- */

struct fetches *fetches_new(struct fetches_parts parts)
{
    struct fetches *fs = xcalloc(1, sizeof(*fs));
    fs->cache = cache_new(&parts.conf->cache);
    fs->parts = (struct fetch_parts){.loop = parts.loop,
                                     .conf = parts.conf,
                                     .lease = parts.lease,
                                     .upstreams = parts.upstreams,
                                     .cache = fs->cache,
                                     .n_sent = &fs->n_sent};
    return fs;
}

void fetches_free(struct fetches *fs)
{
    struct fetches_entry *entry, *next;
    if (fs == NULL)
        return;
    HASH_ITER(hh, fs->table, entry, next)
    {
        HASH_DEL(fs->table, entry);
        fetch_abandon(entry->fetch);
        free(entry);
    }
    cache_free(fs->cache);
    free(fs);
}

struct cache *fetches_cache(struct fetches *fs)
{
    return fs->cache;
}
