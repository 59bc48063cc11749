/* snapshot: the state of a task at one moment, with its views ready to send.
 *
 * It is immutable and reference-counted: the cache, fetches and waiting requests share it. */
#ifndef SNAPSHOT_H
#define SNAPSHOT_H

#include "lib/blob.h"
#include "lib/files.h"
#include "config/provider.h"

/* VIEW_KEYED is the unified view in which results that need the key have the upstream's own URLs, for a web server that
 * cannot send the key; empty if no result needs it. */
enum view_kind { VIEW_NATIVE, VIEW_UNIFIED, VIEW_KEYED, VIEW_COUNT };

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
    bool known;              /* false: the provider file does not list the status value */
    int64_t created_ms;      /* since 1970: when the task was created, or first seen */
    int64_t fetched_ms;      /* since 1970: when the upstream answered, by the clock of the worker's host */
    int64_t since_ms;        /* loop time of that answer, which may be before the system was started */
    int64_t fresh_until_ms;  /* loop time: until then it is served without a query */
    int64_t urls_until_ms;   /* since 1970: likewise, because of its URLs; 0: they set no limit */
    int64_t keep_until_ms;   /* loop time: until then it may be served while the upstream fails */
    int64_t urls_expire_at;  /* seconds since 1970; 0: never, as far as is known */
    int64_t retry_after_ms;  /* the upstream's Retry-After; 0: none */
    char key[KEY_MARK_SIZE]; /* the mark of the key that the query was made with; "": unknown */
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

/* The entity tag of these bytes, a strong validator: their digest. */
void etag_of(const void *data, size_t len, char etag[static ETAG_SIZE]);

/* Makes a snapshot of the facts in `draft`: its state, when it was created and fetched, and its views, whose bytes are
 * copied. References, entity tags and the times by the rules are set here. The caller owns the one reference. */
struct snapshot *snapshot_new(const struct snapshot *draft, const struct snapshot_rules *rules,
                              struct moment now);

struct snapshot *snapshot_ref(struct snapshot *s);
void snapshot_unref(struct snapshot *s); /* NULL is allowed */

/* The view to serve: that kind or, in place of an empty VIEW_KEYED, the unified one. */
const struct view_bytes *snapshot_view(const struct snapshot *s, enum view_kind kind);

/* The poll interval of a task that was created at that time. Both times are dates, which may be wrong;
 * the result is between poll.min and poll.max. */
int64_t snapshot_interval_ms(int64_t created_ms, const struct snapshot_rules *rules, int64_t date_ms);

/* How long it is still fresh; 0 or less: it is stale. */
int64_t snapshot_left_ms(const struct snapshot *s, struct moment now);

/* The approximate memory that it takes. */
size_t snapshot_bytes(const struct snapshot *s);

/* Writes it as a value for Redis, which keeps it for `ttl_ms`. The value begins with a format version and `digest`,
 * that of the provider file. */
void snapshot_encode(const struct snapshot *s, const char *digest, int64_t ttl_ms, struct buf *out);

/* How a value is read. */
struct snapshot_reading {
    const char *digest;                 /* (ref) of the provider file */
    const struct snapshot_rules *rules; /* (ref) they give the times */
    struct moment now;
    int64_t
        ttl_ms; /* how long Redis still keeps the value: that tells its age, however far the hosts' clocks differ */
};

/* The inverse. NULL with *ret_why (static text) if the value has another format or digest, is malformed,
 * or has an unknown age. */
struct snapshot *snapshot_decode(const char *value, size_t len, const struct snapshot_reading *reading,
                                 const char **ret_why);

#endif
