/* shared: what workers on all hosts with one Redis know together - the snapshots of tasks, and who is asking
 * the upstream for one.
 *
 * Who finds nothing fresh takes the task's lease, asks, and tells the others what came of it. Who is refused
 * the lease waits for that news, and looks again now and then, since news can get lost. A lease is short, and
 * renewed while its holder lives.
 *
 *     KEY         the snapshot            (task_key, behind the prefix)
 *     KEY#lease   who is asking           PX 3000
 *     news        the channel             "SENDER CODE RETRY_AFTER_MS KEY"  */
#ifndef SHARED_H
#define SHARED_H

#include "redis.h"
#include "route.h"

struct shared;

/* What another worker says of a task. */
struct news {
    const char *key; /* (ref) of the task, during the callback */
    size_t key_len;
    enum problem problem;   /* NONE: look again; otherwise that asking came to this */
    int64_t retry_after_ms; /* of the problem: nobody should ask before; 0: unknown */
};

typedef void shared_news(void *ctx, const struct news *news);

/* Both (ref), and outlive it. */
struct shared *shared_new(uv_loop_t *loop, const struct conf *conf, struct redis *redis);

/* Freed when the loop has run its closing callbacks. NULL is allowed. */
void shared_free(struct shared *shared);

/* Hears the news from here on; `on_news` is not called for our own. */
void shared_listen(struct shared *shared, shared_news *on_news, void *ctx);

/* Whose turn it is to ask the upstream. */
enum shared_turn {
    SHARED_AWAY,  /* there is no Redis to go by: ask, and tell nobody */
    SHARED_OURS,  /* we hold the lease: ask, then shared_tell */
    SHARED_THEIRS /* another worker asks */
};

/* One look at a task, embedded in whoever looks. */
struct shared_look {
    struct shared *shared;   /* (ref) NULL: never used */
    const struct task *task; /* (ref) */
    struct shared_look *prev, *next;
    struct redis_command *get, *take; /* under way, or NULL */
    char token[40];                   /* of the lease; "": we have not asked for it */
    bool held;                        /* the lease is ours */
    struct snapshot *found;           /* fresh or not, or NULL; the looker takes it */
    enum shared_turn turn;
    void (*on_looked)(struct shared_look *look);
};

/* Looks for the snapshot and takes the lease if nobody has it. False: Redis is away, no callback will come;
 * otherwise exactly one will, later. The task must outlive the look. */
bool shared_look(struct shared *shared, struct shared_look *look, const struct task *task,
                 void (*on_looked)(struct shared_look *look));

/* We have asked, and this is what came of it: a snapshot, which is stored, or NULL with a problem, or neither:
 * others may ask now. Ends the look; only who holds the lease is heard. */
void shared_tell(struct shared_look *look, const struct snapshot *snapshot, enum problem problem,
                 int64_t retry_after_ms);

/* Ends a look after which we did not ask, at any point; the lease goes back. */
void shared_leave(struct shared_look *look);

#endif
