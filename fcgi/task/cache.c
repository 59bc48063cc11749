/* cache: see cache.h. A hash table for finding, a list in order of use for forgetting. */
#include "task/cache.h"

#include <stdlib.h>
#include <string.h>

#include <uthash.h>
#include <utlist.h>

struct entry {
    struct snapshot *snapshot;
    struct cache_note note;
    size_t bytes;              /* all that the entry takes */
    struct entry *prev, *next; /* by last use, the oldest first */
    UT_hash_handle hh;
    char key[];
};

struct cache {
    struct entry *table;
    struct entry *oldest;
    size_t bytes;
    size_t max_bytes;
};

/* What the allocator adds to the blocks of an entry and its snapshot, about. */
enum { ALLOCATOR_OVERHEAD = 64 };

struct cache *cache_new(size_t max_bytes)
{
    struct cache *cache = xcalloc(1, sizeof(*cache));
    cache->max_bytes = max_bytes;
    return cache;
}

static void drop(struct cache *cache, struct entry *entry)
{
    HASH_DEL(cache->table, entry); // NOLINT(clang-analyzer-core.NullDereference): uthash looks first
    DL_DELETE(cache->oldest, entry);
    cache->bytes -= entry->bytes;
    snapshot_unref(entry->snapshot);
    free(entry);
}

void cache_free(struct cache *cache)
{
    if (cache == NULL)
        return;
    while (cache->oldest != NULL)
        drop(cache, cache->oldest);
    free(cache);
}

static struct entry *find(struct cache *cache, const char *key, size_t key_len)
{
    struct entry *entry;
    HASH_FIND(hh, cache->table, key, key_len, entry);
    return entry;
}

struct snapshot *cache_get(struct cache *cache, const char *key, size_t key_len, int64_t now_ms)
{
    struct entry *entry = find(cache, key, key_len);
    if (entry == NULL)
        return NULL;
    if (now_ms >= entry->snapshot->keep_until_ms) {
        drop(cache, entry);
        return NULL;
    }
    DL_DELETE(cache->oldest, entry);
    DL_APPEND(cache->oldest, entry);
    return entry->snapshot;
}

struct cache_note *cache_note(struct cache *cache, const char *key, size_t key_len)
{
    struct entry *entry = find(cache, key, key_len);
    return entry ? &entry->note : NULL;
}

size_t cache_put(struct cache *cache, const char *key, size_t key_len, struct snapshot *snapshot)
{
    size_t evicted = 0;
    snapshot_ref(snapshot); /* before the old one goes: it may be the same */
    cache_remove(cache, key, key_len);
    struct entry *entry = xcalloc(1, sizeof(*entry) + key_len);
    entry->snapshot = snapshot;
    entry->bytes = sizeof(*entry) + key_len + snapshot_bytes(snapshot) + ALLOCATOR_OVERHEAD;
    memcpy(entry->key, key, key_len);
    HASH_ADD(hh, cache->table, key, key_len, entry);
    DL_APPEND(cache->oldest, entry);
    cache->bytes += entry->bytes;
    for (; cache->bytes > cache->max_bytes; evicted++)
        drop(cache, cache->oldest);
    return evicted;
}

void cache_remove(struct cache *cache, const char *key, size_t key_len)
{
    struct entry *entry = find(cache, key, key_len);
    if (entry != NULL)
        drop(cache, entry);
}

size_t cache_entries(const struct cache *cache)
{
    return HASH_COUNT(cache->table);
}

size_t cache_bytes(const struct cache *cache)
{
    return cache->bytes;
}
