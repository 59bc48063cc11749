/* lease: what workers on all hosts with one Redis know together - the snapshots of tasks, and who is asking
 * the upstream for one.
 *
 * Who finds nothing fresh takes the task's lease, asks, and tells the others what came of it. Who is refused
 * the lease waits for that news, and looks again now and then, since news can get lost. A lease is short, and
 * renewed while its holder lives.
 *
 *     KEY         the snapshot            (the task's key, behind the prefix)
 *     KEY#lease   who is asking           PX 3000
 *     news        the channel             "SENDER CODE RETRY_AFTER_MS KEY"  */
#ifndef LEASE_H
#define LEASE_H

#include "net/redis.h"
#include "task/route.h"

struct lease;

/* What another worker says of a task. */
struct news {
    const char *key; /* (ref) of the task, during the callback */
    size_t key_len;
    enum problem problem;   /* NONE: look again; otherwise that asking came to this */
    int64_t retry_after_ms; /* of the problem: nobody should ask before; 0: unknown */
};

typedef void lease_news(void *ctx, const struct news *news);

/* Both (ref), and outlive it. */
struct lease *lease_new(uv_loop_t *loop, const struct conf *conf, struct redis *redis);

/* Freed when the loop has run its closing callbacks. NULL is allowed. */
void lease_free(struct lease *lease);

/* Hears the news from here on; `on_news` is not called for our own. */
void lease_listen(struct lease *lease, lease_news *on_news, void *ctx);

/* Whose turn it is to ask the upstream. */
enum lease_turn {
    LEASE_AWAY,  /* there is no Redis to go by: ask, and tell nobody */
    LEASE_OURS,  /* we hold the lease: ask, then lease_tell */
    LEASE_THEIRS /* another worker asks */
};

/* One look at a task, embedded in whoever looks. */
struct lease_look {
    struct lease *lease;     /* (ref) NULL: never used */
    const struct task *task; /* (ref) */
    struct lease_look *prev, *next;
    struct redis_command *get, *take; /* under way, or NULL */
    char token[40];                   /* of the lease; "": we have not asked for it */
    bool held;                        /* the lease is ours */
    struct snapshot *found;           /* fresh or not, or NULL; the looker takes it */
    enum lease_turn turn;
    void (*on_looked)(struct lease_look *look);
};

/* Looks for the snapshot and takes the lease if nobody has it. False: Redis is away, no callback will come;
 * otherwise exactly one will, later. The task must outlive the look. */
bool lease_look(struct lease *lease, struct lease_look *look, const struct task *task,
                void (*on_looked)(struct lease_look *look));

/* We have asked, and this is what came of it: a snapshot, which is stored, or NULL with a problem, or neither:
 * others may ask now. Ends the look; only who holds the lease is heard. */
void lease_tell(struct lease_look *look, const struct snapshot *snapshot, enum problem problem,
                int64_t retry_after_ms);

/* Removes the snapshot of a task that does not exist any more. */
void lease_remove(struct lease *lease, const struct task *task);

/* Ends a look after which we did not ask, at any point; the lease goes back. */
void lease_leave(struct lease_look *look);

#endif
