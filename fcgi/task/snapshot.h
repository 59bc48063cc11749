/* snapshot: what was known of a task at one moment, ready to be sent.
 *
 * Immutable once made, and counted: memory, fetch and every waiting request share one. A snapshot without a
 * state (STATE_NONE) remembers that the upstream knows no such task. */
#ifndef SNAPSHOT_H
#define SNAPSHOT_H

#include "lib/secret.h"
#include "config/provider.h"

enum view_kind { VIEW_NATIVE, VIEW_UNIFIED, VIEW_COUNT };

enum { ETAG_SIZE = 35 }; /* 32 hex digits in quotes, and the NUL */

struct view_bytes {
    char *data;
    size_t len;
    char etag[ETAG_SIZE];
};

struct snapshot {
    unsigned refs;
    enum state state;
    bool known;              /* false: the status value is in no list of the provider file */
    int64_t created_ms;      /* when the task was created, or first seen */
    int64_t fetched_ms;      /* when the upstream said so */
    int64_t fresh_until_ms;  /* until when it is answered without asking */
    int64_t keep_until_ms;   /* until when it may stand in for an upstream that fails */
    int64_t urls_expire_at;  /* seconds since 1970; 0: never, as far as is known */
    int64_t retry_after_ms;  /* the upstream's asked not to be asked again before; 0: none */
    char key[KEY_MARK_SIZE]; /* the mark of the key that was answered; "": not known */
    struct view_bytes views[VIEW_COUNT];
};

/* How long snapshots of one route are fresh and kept. */
struct snapshot_rules {
    int64_t terminal_ttl_ms;
    int64_t stale_for_ms;
    int64_t poll_min_ms;
    int64_t poll_max_ms;
};

/* What a snapshot is made of. */
struct snapshot_facts {
    enum state state;
    bool known;
    int64_t created_ms;
    int64_t fetched_ms;
    int64_t urls_expire_at;
    int64_t retry_after_ms; /* the upstream's asked not to be asked again before; 0: none */
    const char *key;        /* the mark of the key that was answered; NULL: not known */
    const char *views[VIEW_COUNT];
    size_t view_lens[VIEW_COUNT];
};

/* One reference, the caller's. The bytes are copied. */
struct snapshot *snapshot_new(const struct snapshot_facts *facts, const struct snapshot_rules *rules);

/* "The upstream knows no such task", to be believed until `until_ms`. */
struct snapshot *snapshot_new_missing(int64_t now_ms, int64_t until_ms);

/* A copy that is no longer fresh: somebody knows better. One reference, the caller's. */
struct snapshot *snapshot_outdated(const struct snapshot *s, int64_t now_ms);

struct snapshot *snapshot_ref(struct snapshot *s);
void snapshot_unref(struct snapshot *s); /* NULL is allowed */

/* How long to wait until the task is worth asking about again, by its age. */
int64_t snapshot_interval_ms(const struct snapshot *s, const struct snapshot_rules *rules, int64_t now_ms);

bool snapshot_is_fresh(const struct snapshot *s, int64_t now_ms);

/* Memory it takes, about. */
size_t snapshot_bytes(const struct snapshot *s);

/* As a value of Redis. It begins with a format version and `digest`, that of the provider file. */
void snapshot_encode(const struct snapshot *s, const char *digest, struct buf *out);

/* The inverse; the times are made anew from `rules`. NULL with *ret_why (static text) when the value is not
 * of this format, digest, or not whole. */
struct snapshot *snapshot_decode(const char *value, size_t len, const char *digest,
                                 const struct snapshot_rules *rules, const char **ret_why);

#endif
