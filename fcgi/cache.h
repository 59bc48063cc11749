/* cache: snapshots by key, in memory up to a number of bytes; the one unused for longest goes first. */
#ifndef CACHE_H
#define CACHE_H

#include "snapshot.h"

struct cache;

struct cache *cache_new(size_t max_bytes);
void cache_free(struct cache *cache); /* NULL is allowed */

/* The snapshot under that key, fresh or not, (ref) until the next call; NULL when there is none or it may no
 * longer be kept. */
struct snapshot *cache_get(struct cache *cache, const char *key, size_t key_len, int64_t now_ms);

/* Takes a reference of its own, in place of what stood there. Returns how many others had to go. */
size_t cache_put(struct cache *cache, const char *key, size_t key_len, struct snapshot *snapshot);
void cache_remove(struct cache *cache, const char *key, size_t key_len);

size_t cache_entries(const struct cache *cache);
size_t cache_bytes(const struct cache *cache);

#endif
