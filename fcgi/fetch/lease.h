/* lease: what the workers of all hosts share through Redis: snapshots, and a lease per task that decides
 * which worker queries the upstream.
 *
 * A worker that finds no fresh snapshot acquires the task's lease, queries the upstream and publishes the
 * result. A worker that does not get the lease waits for the notification, and checks Redis again at
 * intervals, because notifications can get lost. A lease expires within seconds unless its holder renews it.
 * A query that waits for its turn at the upstream holds no lease.
 *
 *     KEY         the snapshot
 *     KEY#lease   the token of its holder  PX 3000
 *     news        the channel              "SENDER CODE RETRY_AFTER_MS KEY"
 *
 * All names begin with the prefix. KEY is the task's key; in the access modes "teams" and "nginx" it begins with the
 * rules for access: "teams#main:sora:ID". In a Redis Cluster, KEY is in braces, so that both names have the same slot. */
#ifndef LEASE_H
#define LEASE_H

#include "net/redis.h"
#include "task/route.h"

struct lease;

/* A notification from another worker about a task. */
struct notification {
    const char *key; /* (ref) the task's key, during the callback */
    size_t key_len;
    enum problem problem;   /* NONE: that worker has a new snapshot; otherwise why it failed */
    bool stored;            /* without a problem: the new snapshot is in Redis */
    int64_t retry_after_ms; /* with a problem: the task should not be queried earlier; 0: unknown */
};

/* `n` is NULL when the subscription begins, also after an interruption, and when a connection to a node of a cluster comes
 * up: earlier notifications may have been lost. */
typedef void lease_callback(void *ctx, const struct notification *n);

/* All (ref), and outlive the lease. */
struct lease *lease_new(uv_loop_t *loop, const struct conf *conf, struct redis *redis);

/* Freed when the loop has run the closing callbacks. NULL is allowed. */
void lease_free(struct lease *lease);

/* Subscribes to notifications; `on_notification` is not called for those that this worker has sent. */
void lease_subscribe(struct lease *lease, lease_callback *on_notification, void *ctx);

/* Which worker queries the upstream. */
enum lease_holder {
    LEASE_UNAVAILABLE, /* Redis is unavailable: query without a lease */
    LEASE_NOT_WANTED,  /* this worker has not tried to acquire the lease */
    LEASE_OURS,        /* this worker holds the lease: query, then call lease_publish */
    LEASE_THEIRS       /* another worker holds the lease */
};

enum { TOKEN_MAX = 40 };

/* One lookup of a task in Redis; embedded in the fetch. */
struct lease_lookup {
    struct lease *lease;     /* (ref) NULL: never used */
    const struct task *task; /* (ref) */
    struct lease_lookup *prev, *next;
    struct redis_command *age, *get, *acquire; /* under way, or NULL */
    int64_t ttl_ms;                            /* how long Redis still keeps the snapshot */
    char token[TOKEN_MAX];                     /* of the lease; "": not requested */
    bool held;                                 /* this worker holds the lease */
    struct snapshot *found;                    /* fresh or not, or NULL; the caller takes the reference */
    enum lease_holder holder;
    void (*on_lookup_done)(struct lease_lookup *lookup);
};

/* With `acquire`, acquires the lease if it is free. Then gets the snapshot: in the other order, that of a worker which
 * publishes in between would be missed, and the task queried again. Returns false if Redis is unavailable:
 * no callback follows. Otherwise exactly one does, later. The task must outlive the lookup. */
bool lease_lookup(struct lease *lease, struct lease_lookup *lookup, const struct task *task, bool acquire,
                  void (*on_lookup_done)(struct lease_lookup *lookup));

/* How long to wait for the holder of a task's lease. Its query takes less time, so its failure arrives first; else all
 * workers that wait would send queries of their own. */
int64_t lease_wait_ms(const struct task *task);

/* Ensures that another worker's lease expires within seconds. Without this, if the clock of Redis is set back by an hour,
 * the lease of a dead worker would last an hour longer. */
void lease_cap(const struct lease_lookup *lookup);

/* Ends a lookup after a query to the upstream: releases the lease and publishes the result. The result is a
 * snapshot, which is stored; or NULL with a problem; or neither, after which other workers may query. Does
 * nothing if this worker does not hold the lease. */
void lease_publish(struct lease_lookup *lookup, const struct snapshot *snapshot, enum problem problem,
                   int64_t retry_after_ms);

/* Removes the snapshot of a task that does not exist any more. */
void lease_remove(struct lease *lease, const struct task *task);

/* Ends a lookup at any point without a result; releases the lease. */
void lease_abandon(struct lease_lookup *lookup);

#endif
