/* snapshot: the state of a task at one moment, with its views ready to send.
 *
 * It is immutable and reference-counted: the cache, fetches and waiting requests share it. */
#ifndef SNAPSHOT_H
#define SNAPSHOT_H

#include "lib/blob.h"
#include "lib/files.h"
#include "config/provider.h"

enum view_kind { VIEW_NATIVE, VIEW_UNIFIED, VIEW_COUNT };

enum { ETAG_SIZE = 35, IDENTITY_SIZE = 33 }; /* 32 hex digits, the former in quotes, and the NUL */

struct view_bytes {
    const char *data; /* a NUL follows */
    size_t len;
    struct body_blob whole; /* the blob that holds these bytes, as a body of its own; none in a draft */
    char etag[ETAG_SIZE];
};

struct snapshot {
    unsigned refs;
    enum state state;
    bool known;                   /* false: the provider file does not list the status value */
    int64_t created_ms;           /* when the task was created, or first seen */
    int64_t fetched_ms;           /* when the upstream answered */
    int64_t fresh_until_ms;       /* until then it is served without a query */
    int64_t keep_until_ms;        /* until then it may be served while the upstream fails */
    int64_t urls_expire_at;       /* seconds since 1970; 0: never, as far as is known */
    int64_t retry_after_ms;       /* the upstream's Retry-After; 0: none */
    char key[KEY_MARK_SIZE];      /* the mark of the key that the query was made with; "": unknown */
    char identity[IDENTITY_SIZE]; /* a digest of the task's name in the answer; "": it has none */
    struct view_bytes views[VIEW_COUNT];
};

/* How long snapshots of one route are fresh and kept. */
struct snapshot_rules {
    int64_t terminal_ttl_ms;
    int64_t stale_for_ms;
    int64_t poll_min_ms;
    int64_t poll_max_ms;
};

/* Makes a snapshot of the facts in `draft`: its state, when it was created and fetched, and its views, whose bytes are
 * copied. References, entity tags and the times by the rules are set here. The caller owns the one reference. */
struct snapshot *snapshot_new(const struct snapshot *draft, const struct snapshot_rules *rules);

struct snapshot *snapshot_ref(struct snapshot *s);
void snapshot_unref(struct snapshot *s); /* NULL is allowed */

/* The poll interval of a task that was created at that time. */
int64_t snapshot_interval_ms(int64_t created_ms, const struct snapshot_rules *rules, int64_t now_ms);

bool snapshot_is_fresh(const struct snapshot *s, int64_t now_ms);

/* Whether a snapshot comes from the future: the clock has stepped back, or the clock of another host is fast. */
enum { SNAPSHOT_CLOCKS_APART_MS = 5000 };

static inline bool snapshot_is_ahead(const struct snapshot *s, int64_t now_ms)
{
    return s->fetched_ms > now_ms + SNAPSHOT_CLOCKS_APART_MS;
}

/* The approximate memory that it takes. */
size_t snapshot_bytes(const struct snapshot *s);

/* Writes it as a value for Redis, which begins with a format version and `digest`, that of the provider file. */
void snapshot_encode(const struct snapshot *s, const char *digest, struct buf *out);

/* The inverse; `rules` give the times. NULL with *ret_why (static text) if the value has another format or digest, or
 * is malformed. */
struct snapshot *snapshot_decode(const char *value, size_t len, const char *digest,
                                 const struct snapshot_rules *rules, const char **ret_why);

#endif
