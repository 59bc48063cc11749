/* cache: snapshots by key, in memory up to a number of bytes; the one unused for longest goes first. */
#ifndef CACHE_H
#define CACHE_H

#include "task/snapshot.h"

struct cache;

struct cache *cache_new(size_t max_bytes);
void cache_free(struct cache *cache); /* NULL is allowed */

/* The snapshot under that key, fresh or not, (ref) until the next call; NULL when there is none or it may no
 * longer be kept. */
struct snapshot *cache_get(struct cache *cache, const char *key, size_t key_len, int64_t now_ms);

/* What happened to a task since its snapshot was made; goes with the snapshot. */
struct cache_note {
    int64_t quiet_until_ms; /* asking failed: not again before; 0: it did not */
    int problem;            /* enum problem: why it failed */
    int times_missing;      /* how often in a row the upstream has said that there is no such task */
};

/* The note of the entry under that key, (ref) until the next call; NULL when there is no entry. */
struct cache_note *cache_note(struct cache *cache, const char *key, size_t key_len);

/* Takes a reference of its own, in place of what stood there. Returns how many others had to go. */
size_t cache_put(struct cache *cache, const char *key, size_t key_len, struct snapshot *snapshot);
void cache_remove(struct cache *cache, const char *key, size_t key_len);

size_t cache_entries(const struct cache *cache);
size_t cache_bytes(const struct cache *cache);

#endif
